"""Finds the target to ship to, defines what each kind of target offers, and sends HTTP POSTs.

    ship:
      machine: build-7        # else a salted hash of the host's name
      user: ada               # else a salted hash of the login
      targets:
        team: {url: "https://clickhouse.example:8443/?database=agents", user: writer, password: "env:CLICKHOUSE_PASSWORD"}
        lake: {url: ~/lake, format: parquet}

Secrets are in the environment or in private files, never in an address on a command line, which others can read.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit

from tokenops import config, credentials, etiquette, events, https, light, machines, ship_rows, show
from tokenops.config import Unusable
from tokenops.etiquette import Answer, Trouble
from tokenops.ship_rows import Row

KINDS = ("clickhouse", "otlp", "folder")
FORMATS = ("jsonl", "parquet")
_KEYS = ("url", "kind", "format", "user", "password", "token", "headers", "insecure", "tags")
_NAME = re.compile(r"[\w-]{1,40}\Z")


class Target(NamedTuple):
    """Where to ship to, and with which credential."""

    name: str  # of its memory
    kind: str
    url: str  # an address, or a path
    format: str = "jsonl"
    headers: Mapping[str, str] = {}
    fingerprint: str = ""  # of the credential
    shown: str = ""  # the address as messages may show it
    tags: frozenset[str] = frozenset()  # the names of skills, branches and so on that it gets


class Poster(Protocol):
    """A kind of target that takes rows over HTTP."""

    def setup(self) -> int:
        """Create what the target needs and lacks; how many statements that took. Raises Trouble."""
        ...

    def deliver(self, rows: list[Row]) -> None:
        """Send rows; when this returns they are acknowledged. Raises Trouble."""

    def add_day(self, day: str, rows: Iterable[Row]) -> None:
        """Take note of all rows of a day, sent before or not, for what `finish` sends."""

    def finish(self) -> None:
        """Send what is worked out over all days. Raises Trouble."""


class DayStore(Protocol):
    """A kind of target that holds each day in a file of its own. Methods raise OSError."""

    def read(self, day: str) -> list[Row]:
        """The rows of a day's file."""
        ...

    def write(self, day: str, rows: list[Row]) -> None:
        """Write a day's file whole."""


def target_of(
    name: str, kind: str, form: str, settings: config.Config, environment: Mapping[str, str], salt: bytes
) -> Target:
    """The target with this name, address or path. Raises Unusable, credentials.Missing."""
    targets = settings.get("ship", "targets") or {}
    options = {key: value for key, value in (("kind", kind), ("format", form)) if value}
    if not isinstance(targets, Mapping):
        raise Unusable(f"{settings.path}: ship.targets", "expected names with keys and values")
    if name in targets:
        entry = targets[name]
        if not isinstance(entry, Mapping) or not entry.get("url"):
            raise Unusable(f"{settings.path}: ship.targets.{name}", "expected keys and values, url among them")
        if not _NAME.match(name):
            raise Unusable(f"{settings.path}: ship.targets", "a name is made of letters, digits, _ and -")
        return _from_entry(name, {**entry, **options}, settings, environment, salt)
    if "://" not in name and "/" not in name and not os.path.isdir(name):
        nearest = f"; the nearest known is {show.nearest(name, targets)!r}" if targets else ""
        why = f"no target {name!r} in ship.targets{nearest}"
        raise Unusable("", why, "give a name, an address or a path with a / in it")
    return _from_entry("", {"url": name, **options}, settings, environment, salt)


def _from_entry(
    name: str, entry: Mapping[str, Any], settings: config.Config, environment: Mapping[str, str], salt: bytes
) -> Target:
    location = f"{settings.path}: ship.targets.{name}" if name else "the address"
    if unknown := [key for key in entry if key not in _KEYS]:
        nearest = show.nearest(str(unknown[0]), _KEYS)
        raise Unusable(location, f"unknown key {unknown[0]!r}", f"the nearest known is {nearest!r}")
    tags = _tags(location, entry)
    base = os.path.dirname(settings.path)
    url = str(entry["url"])
    if url.startswith(("env:", "file:")):
        url = credentials.resolve(url, environment, base, salt).secret
    kind = entry.get("kind") or _kind(url)
    form = entry.get("format", "jsonl")
    for key, value, choices in (("kind", kind, KINDS), ("format", form, FORMATS)):
        if value not in choices:
            raise Unusable(location, f"{key} is {value!r}", f"choose from {', '.join(choices)}")
    if kind == "folder":
        path = os.path.abspath(os.path.join(base if name else "", os.path.expanduser(url)))
        return Target(name or _slug(kind, path), kind, path, form, shown=path, tags=tags)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Unusable(location, "expected http or https", "give --kind folder for a path")
    if parts.username or parts.password:
        remedy = "put them into ship.targets (user, password: env:NAME)"
        raise Unusable(location, "holds a user or a password", remedy)
    headers = _headers(location, kind, entry, environment, base, salt)
    if (
        headers
        and parts.scheme == "http"
        and not credentials.is_this_machine(parts.hostname)
        and entry.get("insecure") is not True
    ):
        remedy = "use https, or write insecure: true in ship.targets if the network is your own"
        raise Unusable(location, "would send a password or a token unencrypted", remedy)
    # The query may be a secret of its own.
    shown = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    mark = credentials.fingerprint(repr(sorted(headers.items())), salt)
    return Target(name or _slug(kind, url), kind, url, form, headers, mark, shown, tags)


def _tags(location: str, entry: Mapping[str, Any]) -> frozenset[str]:
    """The tags that a target gets: those that its entry lists. Raises Unusable."""
    listed = entry.get("tags") or []
    unknown = [name for name in listed if name not in events.TAGS] if isinstance(listed, list) else [listed]
    if unknown:
        raise Unusable(
            f"{location}.tags", f"{str(unknown[0])[:40]!r} is not a list of tags", f"list some of {', '.join(events.TAGS)}"
        )
    return frozenset(listed)


def _kind(url: str) -> str:
    """The kind of target at an address, if the user does not say."""
    if "://" not in url:
        return "folder"
    parts = urlsplit(url)
    return "otlp" if parts.port == 4318 or "/v1" in parts.path or "otlp" in parts.path else "clickhouse"


def _slug(kind: str, url: str) -> str:
    return f"{kind}-{light.blake2b(url.encode(), digest_size=6).hexdigest()}"


def _headers(
    location: str, kind: str, entry: Mapping[str, Any], environment: Mapping[str, str], base: str, salt: bytes
) -> dict[str, str]:
    """The headers that authorise us. Raises Unusable, credentials.Missing."""

    def secret(key: str, value: object) -> str:
        text = str(value)
        if not text.startswith(("env:", "file:")):
            raise Unusable(f"{location}.{key}", "holds a secret in clear", "give env:NAME or file:PATH")
        return credentials.resolve(text, environment, base, salt).secret

    more = entry.get("headers") or {}
    if not isinstance(more, Mapping):
        raise Unusable(f"{location}.headers", "expected names and values")
    headers = {str(name).lower(): secret(f"headers.{name}", value) for name, value in more.items()}
    if entry.get("token"):
        headers["authorization"] = f"Bearer {secret('token', entry['token'])}"
    user = str(entry.get("user") or "")
    password = secret("password", entry["password"]) if entry.get("password") else ""
    if kind == "clickhouse":
        headers |= {name: value for name, value in (("x-clickhouse-user", user), ("x-clickhouse-key", password)) if value}
    elif user or password:
        import base64

        headers["authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return headers


def owner_of(
    settings: config.Config, environment: Mapping[str, str], host: str, logins: frozenset[str], login: str, salt: bytes
) -> ship_rows.Owner:
    """The owner of the rows: as the user names them, else hashed. Raises Unusable."""
    machine, user = (
        settings.get("ship", key) or machines.own_name(key, settings, environment) for key in ("machine", "user")
    )
    if settings.get("ship", "names") not in (None, True, False):
        raise Unusable(f"{settings.path}: ship.names", "expected true or false")
    return ship_rows.Owner(
        str(machine) if machine else ship_rows.identity(f"machine:{host}", salt),
        str(user) if user else ship_rows.identity(f"user:{login}", salt),
        frozenset() if user and str(user) == login else logins,
        salt,
        machines.here(settings, environment),
        settings.get("ship", "names") is True,
    )


if TYPE_CHECKING:
    import httpx

# What can be wrong with a batch besides etiquette.TROUBLES: the target refuses its content.
BAD_ROWS = "bad"
# The target took some of a batch and does not say which, so the batch must not be sent again.
PARTIAL = "partial"
_MOST_BYTES = 8 << 20
_FIRST_MS, _MOST_MS = 500, 30_000

Send = Callable[[str, Mapping[str, str], bytes], Answer]


class Web:
    """Posts; httpx is only imported when there is something to send (85 ms)."""

    def __init__(self, timeout: float, version: str) -> None:
        self.timeout, self.version = timeout, version
        self.client: httpx.Client | None = None

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a body, which is sent compressed. Raises Trouble."""
        import httpx

        if self.client is None:
            self.client = httpx.Client(trust_env=False, follow_redirects=False, timeout=httpx.Timeout(self.timeout))
        named = {"user-agent": f"tokenops/{self.version}", "content-encoding": "gzip", **headers}
        try:
            packed = gzip.compress(body, 5, mtime=0)
            with (
                https.deadline(self.timeout),  # also if it sends a byte now and then
                self.client.stream("POST", url, headers=named, content=packed) as answer,
            ):
                content = bytearray()
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > _MOST_BYTES:
                        raise Trouble(
                            etiquette.CHANGED, f"its answer is larger than {_MOST_BYTES >> 20} MiB: check the address"
                        )
        except (httpx.TimeoutException, TimeoutError):
            raise Trouble(etiquette.FAILING, f"no answer within {self.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            certificate = "CERTIFICATE" in str(error).upper()
            why = "its certificate cannot be verified" if certificate else f"it cannot be reached ({type(error).__name__})"
            raise Trouble(etiquette.FAILING, why) from None
        return Answer(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, bytes(content))

    def close(self) -> None:
        """Let go of connections."""
        if self.client is not None:
            self.client.close()


def check_answer(answer: Answer, now: int) -> Answer:
    """An answer that acknowledges. Raises Trouble; its sentence never quotes the answer's body."""
    status, retry = answer.status, etiquette.retry_ms(answer.headers, now)
    if 200 <= status < 300:
        return answer
    if status in (401, 403):
        raise Trouble(etiquette.REFUSED, f"it refused the credential ({status})")
    if status in (400, 413, 415, 422):
        raise Trouble(BAD_ROWS, f"it refused the content ({status})")
    if status == 429:
        raise Trouble(etiquette.LIMITED, "asked to slow down (429)", retry)
    if status == 408 or status >= 500:
        raise Trouble(etiquette.FAILING, f"it has a problem ({status})", retry)
    raise Trouble(etiquette.CHANGED, f"answered with status {status}: check the address")


def pause_ms(tries: int, trouble: Trouble, draw: float) -> int:
    """How long to wait before the next try of one batch: as long as it asks, else doubling, spread by chance."""
    wait = min(_FIRST_MS << min(tries, 10), _MOST_MS)
    return max(trouble.retry_ms, int(wait * (0.5 + draw / 2)))


def hopeless(trouble: Trouble) -> bool:
    """Whether another try of the same batch would end the same way."""
    return trouble.kind in (etiquette.REFUSED, etiquette.CHANGED, BAD_ROWS, PARTIAL)
