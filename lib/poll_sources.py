"""Lists what tok-poll can ask, reads the user's settings for it, and remembers the last runs.

The catalogue says what a source gives, how often it may be asked and what the user should know. config.yaml says which are
enabled and where their credentials are. polls.json, in the log's directory, says how the last requests ended.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from tokenops import catalog, config, credentials, datadir, etiquette, machines, programs, readers, show, untrusted
from tokenops.config import Unusable
from tokenops.etiquette import ClientPoller, State, WebPoller

STATES = "polls.json"
_LOCK = "polls.lock"
UNCONSENTED = "unconsented"


def web_poller(name: str) -> WebPoller:
    """What asks a source over HTTPS; its module is imported when it is needed."""
    match name:
        case "anthropic-admin":
            from tokenops import poll_anthropic

            return poll_anthropic.admin_reports
        case "claude-code-analytics":
            from tokenops import poll_analytics

            return poll_analytics.user_reports
        case "anthropic-oauth":
            from tokenops import poll_anthropic

            return poll_anthropic.oauth_windows
        case "anthropic-cookie":
            from tokenops import poll_anthropic

            return poll_anthropic.cookie_windows
        case "openai-admin":
            from tokenops import poll_openai

            return poll_openai.admin_reports
        case "openrouter":
            from tokenops import poll_openrouter

            return poll_openrouter.key_budget
        case "github-copilot":
            from tokenops import poll_copilot

            return poll_copilot.quotas
        case "cursor":
            from tokenops import poll_cursor

            return poll_cursor.summary
    raise ValueError(f"{name}: no poller asks it over HTTPS")


def client_poller(name: str) -> ClientPoller:
    """What asks a source's own client on this machine; its module is imported when it is needed."""
    if name == "codex":
        from tokenops import poll_codex

        return poll_codex.app_server
    raise ValueError(f"{name}: no poller asks its client")


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

    @property
    def reads_limits(self) -> bool:
        """Whether it reads limits. The others report usage, per bucket of time."""
        return "bucket_width" not in self.options

    def settable(self) -> tuple[str, ...]:
        """The keys of its section that --set may set: all but the secret and what the commands write."""
        return (*self.options, "interval", "url" if self.url else "command")


def pollers() -> dict[str, Poller]:
    """All sources that can be asked, by name."""
    table = {}
    for name, entry in catalog.load("pollers")["pollers"].items():
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
        fields.pop("source_of_facts")
        table[name] = Poller(name, **fields)
    return table


def rules() -> dict[str, int]:
    """The numbers that hold for all sources."""
    return {key: value for key, value in catalog.load("pollers").items() if type(value) is int}


def poller_of(name: str) -> Poller:
    """The source with this name. Raises Unusable."""
    table = pollers()
    if name in table:
        return table[name]
    if name in readers.SECTIONS:
        raise Unusable("", f"tok-sync reads {name}, so it is not asked", "tok-poll enable and disable switch it on and off")
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


def settings(configuration: config.Config, poller: Poller, more: Mapping[str, str] | None = None) -> Settings:
    """The user's settings of a source; those in `more` come first. Raises Unusable."""
    location = f"{configuration.path}: vendor_usage.{poller.section}"
    section = configuration.get("vendor_usage", poller.section) or {}
    if not isinstance(section, Mapping):
        raise Unusable(location, "expected keys and values")
    if section.get("enabled") not in (None, True, False):
        raise Unusable(f"{location}.enabled", "is neither true nor false")
    keys = [*poller.settable(), *filter(None, [poller.secret])]
    values = {key: str(section[key]) for key in keys if section.get(key) not in (None, "")} | dict(more or {})
    for key, allowed in poller.options.items():
        if isinstance(allowed, list) and values.get(key, allowed[0]) not in allowed:
            raise Unusable(f"{location}.{key}", f"is {values[key]!r}", f"choose from {', '.join(allowed)}")
    try:
        shlex.split(values.get("command", ""))
    except ValueError as error:
        raise Unusable(f"{location}.command", str(error)) from None
    interval, warnings = _interval(values.get("interval", ""), poller, location)
    secret = values.get(poller.secret, "")
    if secret and not secret.startswith(("env:", "file:")):
        remedy = f"tok-poll enable {poller.name} --key - keeps it in a private file"
        warnings.append(f"{location}.{poller.secret} holds a secret in clear; {remedy}")
    return Settings(
        poller,
        section.get("enabled") is True,
        bool(section.get("consented")),
        interval,
        _url(values.get("url", poller.url), location) if poller.url else "",
        secret,
        {key: values[key] for key in poller.options if key in values},
        values.get("command", "").strip(),
        tuple(warnings),
    )


def _interval(text: str, poller: Poller, location: str) -> tuple[int, list[str]]:
    """How often a source is asked, in milliseconds, and warnings about that. Raises Unusable."""
    try:
        interval = etiquette.parse_duration(text) or poller.interval * 1000
    except ValueError as error:
        raise Unusable(f"{location}.interval", str(error)) from None
    if interval >= poller.least * 1000:
        return interval, []
    return poller.least * 1000, [f"{location}.interval is too short; the source is asked every {poller.least // 60} min"]


def _url(text: str, location: str) -> str:
    """An address that a secret may be sent to: https, or this machine's own. Raises Unusable."""
    try:
        parts = urlsplit(text)
        local = parts.scheme == "http" and credentials.is_this_machine(parts.hostname or "")
        good = parts.scheme == "https" or local
        good = good and bool(parts.hostname) and "@" not in parts.netloc and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good:
        raise Unusable(f"{location}.url", "expected an https address of a host (http only on this machine)")
    return text.rstrip("/")


class Runtime(NamedTuple):
    """What a run needs from outside: the clock, a pause in seconds, chance, this machine, and whose its readings are."""

    clock: Callable[[], int]
    pause: Callable[[float], None]
    draw: Callable[[], float]
    timeout: float
    jitter_ms: int
    environment: Mapping[str, str]
    home: str
    version: str
    owner: machines.Owner = machines.NOBODY


class Purpose(NamedTuple):
    """What a run is for. `key` is a secret, `reference` says where one is; both are tried instead of the settings'."""

    force: bool = False
    checking: bool = False
    since: int | None = None
    key: str = ""
    reference: str = ""


ROUTINE = Purpose()


def credential(
    source: Settings, runtime: Runtime, salt: bytes, now: int, purpose: Purpose = ROUTINE
) -> credentials.Credential:
    """The credential of a source. Raises credentials.Missing."""
    poller, environment = source.poller, runtime.environment
    base = os.path.dirname(config.path_of(environment, runtime.home))
    if poller.name == "codex":
        return credentials.codex(environment, runtime.home)
    if poller.name == "anthropic-oauth":
        return credentials.claude(environment, runtime.home, salt, now)
    if purpose.key:
        return credentials.check(purpose.key, "standard input", salt, poller.cookie)
    if purpose.reference:
        return credentials.resolve(purpose.reference, environment, base, salt, poller.cookie)
    if poller.name == "github-copilot" and not source.secret and not any(map(environment.get, poller.variables)):
        return credentials.copilot(environment, runtime.home, salt)
    return credentials.first_available(
        source.secret, poller.variables, poller.fallbacks, environment, base, salt, poller.cookie
    )


def assignment(poller: Poller, text: str) -> tuple[str, str]:
    """Key and value of KEY=VALUE. Raises Unusable, also for a secret: arguments can be read by others."""
    key, _, value = text.partition("=")
    if not value or key not in poller.settable():
        keys = ", ".join(poller.settable())
        raise Unusable("", f"--set takes KEY=VALUE with KEY one of {keys}", "give a secret with --key")
    return key, value


def reference(text: str) -> str:
    """Where a secret is, as --key says it. Raises Unusable."""
    try:
        return credentials.reference(text)
    except ValueError as error:
        raise Unusable("", str(error)) from None


def enable(
    configuration: config.Config,
    source: Settings,
    purpose: Purpose,
    runtime: Runtime,
    more: Mapping[str, str],
    folder: str,
    today: str,
) -> str:
    """Write to the configuration that a source is enabled, and keep its secret; returns where that is. Raises OSError."""
    poller = source.poller
    changes: dict[str, Any] = {**more, "enabled": True}
    if poller.consent:
        changes["consented"] = today
    if purpose.reference:
        changes[poller.secret] = purpose.reference
    if purpose.key:
        changes[poller.secret] = f"file:{credentials.secret_path(folder, poller.name)}"
    path = programs.path_of("codex", runtime.environment.get("PATH"))
    if poller.name == "codex" and path and not source.command:
        changes["command"] = shlex.quote(path)  # cron's path is short
    config.set_keys(configuration, {("vendor_usage", poller.section, key): value for key, value in changes.items()})
    if purpose.key:
        credentials.keep_secret(folder, poller.name, credentials.cookie_value(purpose.key, poller.cookie))
        return str(changes[poller.secret])
    try:
        return credential(source, runtime, datadir.salt(folder), runtime.clock(), purpose).where
    except credentials.Missing:
        return ""  # it was there a moment ago, when it was checked


def states(folder: str) -> dict[str, State]:
    """What is remembered of all sources."""
    entries = untrusted.mapping(untrusted.mapping(datadir.read_json(os.path.join(folder, STATES))).get("sources"))
    return {str(name): etiquette.state_of(entry) for name, entry in entries.items()}


def remember(folder: str, name: str, state: State) -> None:
    """Keep the state of a source. Raises OSError."""
    with datadir.lock(folder, _LOCK):
        entries = {key: entry._asdict() for key, entry in states(folder).items()} | {name: state._asdict()}
        content = orjson.dumps({"v": 1, "sources": entries}, option=orjson.OPT_SORT_KEYS)
        datadir.replace(os.path.join(folder, STATES), content)
