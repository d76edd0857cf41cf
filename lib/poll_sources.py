"""The table of what tok-poll can ask, the user's settings of it, and what is remembered of it between runs.

The catalogue says what a source gives, how often it may be asked and what the user should know; config.yaml says which are
enabled and where their credentials are; polls.json, in the log's directory, says what came of the last questions.
"""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from tokenops import catalog, config, credentials, datadir, etiquette, readers, show, untrusted
from tokenops.config import Unusable
from tokenops.etiquette import Ask, Results, State, Steps

STATES = "polls.json"
_LOCK = "polls.lock"
UNCONSENTED = "unconsented"
_STEPS = {
    "codex": "poll_codex.app_server",
    "anthropic-admin": "poll_anthropic.admin",
    "anthropic-oauth": "poll_anthropic.oauth",
    "anthropic-cookie": "poll_anthropic.cookie",
    "openai-admin": "poll_openai.admin",
    "openrouter": "poll_openrouter.key",
    "github-copilot": "poll_copilot.user",
    "cursor": "poll_cursor.summary",
}


class Poller(NamedTuple):
    """One source as the catalogue describes it. `interval` and `least` are seconds."""

    name: str
    section: str
    source: str
    provider: str
    rank: int
    interval: int
    least: int
    consent: bool
    gives: str
    caveat: str
    url: str = ""
    secret: str = ""
    cookie: str = ""
    variables: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}

    def steps(self) -> Callable[[Ask, Results], Steps]:
        """The generator that asks it."""
        module, _, name = _STEPS[self.name].partition(".")
        found: Callable[[Ask, Results], Steps] = getattr(importlib.import_module(f"tokenops.{module}"), name)
        return found

    def settable(self) -> tuple[str, ...]:
        """The keys of its section that --set may set: all but the secret and what the commands write."""
        return (*self.options, "interval", "url" if self.url else "command")


def known() -> dict[str, Poller]:
    """All sources that can be asked, by name."""
    found = {}
    for name, about in catalog.load("pollers")["pollers"].items():
        given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in about.items()}
        given.pop("source_of_facts")
        found[name] = Poller(name, **given)
    return found


def rules() -> dict[str, int]:
    """The numbers that hold for all sources."""
    return {key: value for key, value in catalog.load("pollers").items() if type(value) is int}


def named(name: str) -> Poller:
    """The source of a name. Raises Unusable."""
    table = known()
    if name in table:
        return table[name]
    if name in readers.SECTIONS:
        raise Unusable("", f"{name} is read by tok-sync and not asked", "tok-poll enable and disable switch it on and off")
    nearest = show.nearest(name, [*table, *readers.SECTIONS])
    raise Unusable("", f"no source {name!r}", f"the nearest known is {nearest!r} (tok-poll status lists all)")


class Settings(NamedTuple):
    """What the configuration says of one source."""

    poller: Poller
    enabled: bool
    consented: bool
    interval_ms: int
    url: str
    secret: str  # the value: where the secret is, or itself
    options: Mapping[str, str]
    command: str
    warnings: tuple[str, ...]


def settings(given: config.Config, poller: Poller, more: Mapping[str, str] | None = None) -> Settings:
    """The user's settings of a source, with others before them. Raises Unusable."""
    place = f"{given.path}: vendor_usage.{poller.section}"
    about = given.get("vendor_usage", poller.section) or {}
    if not isinstance(about, Mapping):
        raise Unusable(place, "expected keys and values")
    if about.get("enabled") not in (None, True, False):
        raise Unusable(f"{place}.enabled", "is neither true nor false")
    keys = [*poller.settable(), *filter(None, [poller.secret])]
    told = {key: str(about[key]) for key in keys if about.get(key) not in (None, "")} | dict(more or {})
    for key, allowed in poller.options.items():
        if isinstance(allowed, list) and told.get(key, allowed[0]) not in allowed:
            raise Unusable(f"{place}.{key}", f"is {told[key]!r}", f"choose from {', '.join(allowed)}")
    try:
        shlex.split(told.get("command", ""))
    except ValueError as error:
        raise Unusable(f"{place}.command", str(error)) from None
    interval, warnings = _interval(told, poller, place)
    secret = told.get(poller.secret, "")
    if secret and not secret.startswith(("env:", "file:")):
        moved = f"tok-poll enable {poller.name} --key - keeps it in a private file"
        warnings.append(f"{place}.{poller.secret} holds a secret in clear; {moved}")
    return Settings(
        poller,
        about.get("enabled") is True,
        bool(about.get("consented")),
        interval,
        _url(told.get("url", poller.url), place) if poller.url else "",
        secret,
        {key: told[key] for key in poller.options if key in told},
        told.get("command", "").strip(),
        tuple(warnings),
    )


def _interval(told: Mapping[str, str], poller: Poller, place: str) -> tuple[int, list[str]]:
    """How often a source is asked, in milliseconds, and what is to be said of that. Raises Unusable."""
    try:
        interval = etiquette.parse_duration(told.get("interval", "")) or poller.interval * 1000
    except ValueError as error:
        raise Unusable(f"{place}.interval", str(error)) from None
    if interval >= poller.least * 1000:
        return interval, []
    return poller.least * 1000, [f"{place}.interval is shorter than is polite; it is asked every {poller.least // 60} min"]


def _url(text: str, place: str) -> str:
    """An address that a secret may be sent to: https, or this machine's own. Raises Unusable."""
    try:
        parts = urlsplit(text)
        local = parts.hostname in ("127.0.0.1", "::1", "localhost")
        good = parts.scheme == "https" or (parts.scheme == "http" and local)
        good = good and bool(parts.hostname) and "@" not in parts.netloc and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good:
        raise Unusable(f"{place}.url", "expected an https address of a host (http only on this machine)")
    return text.rstrip("/")


class Edge(NamedTuple):
    """What a run touches: the clock, a pause in seconds, chance, this machine."""

    clock: Callable[[], int]
    pause: Callable[[float], None]
    draw: Callable[[], float]
    timeout: float
    jitter_ms: int
    environment: Mapping[str, str]
    home: str
    version: str


class Wanted(NamedTuple):
    """What a run is for. `key`: a secret, or (`reference`) where one is, tried instead of the settings'."""

    force: bool = False
    checking: bool = False
    since: int | None = None
    key: str = ""
    reference: str = ""


PLAIN = Wanted()


def credential(set_: Settings, edge: Edge, salt: bytes, now: int, wanted: Wanted = PLAIN) -> credentials.Credential:
    """The credential of a source. Raises credentials.Missing."""
    poller, environment = set_.poller, edge.environment
    base = os.path.dirname(config.path_of(environment, edge.home))
    if poller.name == "codex":
        return credentials.codex(environment, edge.home)
    if poller.name == "anthropic-oauth":
        return credentials.claude(environment, edge.home, salt, now)
    if wanted.key:
        return credentials.check(wanted.key, "what was given", salt, poller.cookie)
    if wanted.reference:
        return credentials.resolve(wanted.reference, environment, base, salt, poller.cookie)
    if poller.name == "github-copilot" and not set_.secret and not any(map(environment.get, poller.variables)):
        return credentials.copilot(environment, edge.home, salt)
    return credentials.first_available(
        set_.secret, poller.variables, poller.fallbacks, environment, base, salt, poller.cookie
    )


def assignment(poller: Poller, text: str) -> tuple[str, str]:
    """Key and value of KEY=VALUE. Raises Unusable, also for a secret: arguments can be read by others."""
    key, found, value = text.partition("=")
    if not found or not value or key not in poller.settable():
        keys = ", ".join(poller.settable())
        raise Unusable("", f"--set takes KEY=VALUE with KEY one of {keys}", "a secret is given by --key")
    return key, value


def reference(text: str) -> str:
    """Where a secret is, as --key says it. Raises Unusable."""
    try:
        return credentials.reference(text)
    except ValueError as error:
        raise Unusable("--key", str(error)) from None


def enable(
    given: config.Config, set_: Settings, wanted: Wanted, edge: Edge, more: Mapping[str, str], folder: str, today: str
) -> str:
    """Write down that a source is enabled, and keep the secret that was given; where that is. Raises OSError."""
    poller = set_.poller
    changes: dict[str, Any] = {**more, "enabled": True}
    if poller.consent:
        changes["consented"] = today
    if wanted.reference:
        changes[poller.secret] = wanted.reference
    if wanted.key:
        changes[poller.secret] = f"file:{credentials.secret_path(folder, poller.name)}"
    if poller.name == "codex" and not set_.command and (found := shutil.which("codex", path=edge.environment.get("PATH"))):
        changes["command"] = shlex.quote(os.path.abspath(found))  # cron's path is short
    config.set_keys(given, {("vendor_usage", poller.section, key): value for key, value in changes.items()})
    if wanted.key:
        credentials.keep_secret(folder, poller.name, credentials.cookie_value(wanted.key, poller.cookie))
        return str(changes[poller.secret])
    try:
        return credential(set_, edge, datadir.salt(folder), edge.clock(), wanted).where
    except credentials.Missing:
        return ""  # it was there a moment ago, when it was checked


def states(folder: str) -> dict[str, State]:
    """What is remembered of all sources."""
    found = untrusted.mapping(untrusted.mapping(datadir.read_json(os.path.join(folder, STATES))).get("sources"))
    return {str(name): etiquette.state_of(given) for name, given in found.items()}


def remember(folder: str, name: str, state: State) -> None:
    """Keep what is known of a source. Raises OSError."""
    with datadir.lock(folder, _LOCK):
        found = {key: one._asdict() for key, one in states(folder).items()} | {name: state._asdict()}
        datadir.replace(os.path.join(folder, STATES), orjson.dumps({"v": 1, "sources": found}, option=orjson.OPT_SORT_KEYS))
