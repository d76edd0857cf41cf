"""Where events are shipped to (configuration or address), and an HTTP POST that retries with patience.

    ship:
      machine: build-7        # else a salted hash of the host's name
      user: ada               # else a salted hash of the login
      targets:
        team: {url: "https://clickhouse.example:8443/?database=agents", user: writer, password: "env:CLICKHOUSE_PASSWORD"}
        lake: {url: ~/lake, format: parquet}

Secrets stand in the environment or in private files, never in an address on a command line, where others can read them.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from tokenops import config, credentials, etiquette, https, ship_rows, show
from tokenops.config import Unusable
from tokenops.etiquette import Answer, Trouble

KINDS = ("clickhouse", "otlp", "folder")
FORMATS = ("jsonl", "parquet")
_KEYS = ("url", "kind", "format", "user", "password", "token", "headers")
_NAME = re.compile(r"[\w-]{1,40}\Z")


class Target(NamedTuple):
    """Where to ship to, and how to be let in."""

    name: str  # of its memory
    kind: str
    url: str  # an address, or a path
    format: str = "jsonl"
    headers: Mapping[str, str] = {}
    fingerprint: str = ""  # of the credential
    shown: str = ""  # the address as messages may show it


def named(given: str, kind: str, form: str, settings: config.Config, environment: Mapping[str, str], salt: bytes) -> Target:
    """The target of a name, an address or a path. Raises Unusable, credentials.Missing."""
    known = settings.get("ship", "targets") or {}
    if not isinstance(known, Mapping):
        raise Unusable(f"{settings.path}: ship.targets", "expected names with keys and values")
    if given in known:
        about = known[given]
        if not isinstance(about, Mapping) or not about.get("url"):
            raise Unusable(f"{settings.path}: ship.targets.{given}", "expected keys and values, url among them")
        if not _NAME.match(given):
            raise Unusable(f"{settings.path}: ship.targets", "a name is made of letters, digits, _ and -")
        return _made(given, {**about, **_options(kind, form)}, settings, environment, salt)
    if "://" not in given and "/" not in given and not os.path.isdir(given):
        nearest = f"; the nearest known is {show.nearest(given, known)!r}" if known else ""
        why = f"no target {given!r} in ship.targets{nearest}"
        raise Unusable("", why, "give a name, an address or a path with a / in it")
    return _made("", {"url": given, **_options(kind, form)}, settings, environment, salt)


def _options(kind: str, form: str) -> dict[str, str]:
    return {key: value for key, value in (("kind", kind), ("format", form)) if value}


def _made(
    name: str, about: Mapping[str, Any], settings: config.Config, environment: Mapping[str, str], salt: bytes
) -> Target:
    place = f"{settings.path}: ship.targets.{name}" if name else "the address"
    if wrong := [key for key in about if key not in _KEYS]:
        nearest = show.nearest(str(wrong[0]), _KEYS)
        raise Unusable(place, f"unknown key {wrong[0]!r}", f"the nearest known is {nearest!r}")
    base = os.path.dirname(settings.path)
    url = str(about["url"])
    if url.startswith(("env:", "file:")):
        url = credentials.resolve(url, environment, base, salt).secret
    kind = about.get("kind") or _kind(url)
    form = about.get("format", "jsonl")
    for key, value, choices in (("kind", kind, KINDS), ("format", form, FORMATS)):
        if value not in choices:
            raise Unusable(place, f"{key} is {value!r}", f"choose from {', '.join(choices)}")
    if kind == "folder":
        path = os.path.abspath(os.path.join(base if name else "", os.path.expanduser(url)))
        return Target(name or _slug(kind, path), kind, path, form, shown=path)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Unusable(place, "no address of http or https", "give one, or --kind folder for a path")
    if parts.username or parts.password:
        remedy = "put them into ship.targets (user, password: env:NAME)"
        raise Unusable(place, "holds a user or a password", remedy)
    headers = _headers(place, kind, about, environment, base, salt)
    # Whatever stands behind the ? may be a secret of its own.
    shown = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    mark = credentials.fingerprint(repr(sorted(headers.items())), salt)
    return Target(name or _slug(kind, url), kind, url, form, headers, mark, shown)


def _kind(url: str) -> str:
    """What an address is of, where nobody says."""
    if "://" not in url:
        return "folder"
    parts = urlsplit(url)
    return "otlp" if parts.port == 4318 or "/v1" in parts.path or "otlp" in parts.path else "clickhouse"


def _slug(kind: str, url: str) -> str:
    return f"{kind}-{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}"


def _headers(
    place: str, kind: str, about: Mapping[str, Any], environment: Mapping[str, str], base: str, salt: bytes
) -> dict[str, str]:
    """The headers that let us in. Raises Unusable, credentials.Missing."""

    def secret(key: str, value: object) -> str:
        text = str(value)
        if not text.startswith(("env:", "file:")):
            raise Unusable(f"{place}.{key}", "a secret in clear", "give env:NAME or file:PATH")
        return credentials.resolve(text, environment, base, salt).secret

    more = about.get("headers") or {}
    if not isinstance(more, Mapping):
        raise Unusable(f"{place}.headers", "expected names and values")
    found = {str(name).lower(): secret(f"headers.{name}", value) for name, value in more.items()}
    if about.get("token"):
        found["authorization"] = f"Bearer {secret('token', about['token'])}"
    user = str(about.get("user") or "")
    password = secret("password", about["password"]) if about.get("password") else ""
    if kind == "clickhouse":
        found |= {name: value for name, value in (("x-clickhouse-user", user), ("x-clickhouse-key", password)) if value}
    elif user or password:
        import base64

        found["authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return found


def who(settings: config.Config, host: str, logins: frozenset[str], login: str, salt: bytes) -> ship_rows.Who:
    """Whose rows they are: as the user says, else hashed."""
    machine, user = (settings.get("ship", key) for key in ("machine", "user"))
    return ship_rows.Who(
        str(machine) if machine else ship_rows.identity(f"machine:{host}", salt),
        str(user) if user else ship_rows.identity(f"user:{login}", salt),
        frozenset() if user and str(user) == login else logins,
        salt,
    )


if TYPE_CHECKING:
    import httpx

# What can be wrong with a batch besides the troubles of polls: the target says that its content is bad.
BAD = "bad"
# It took some of a batch, does not say which, and is not to be sent it again.
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
                https.deadline(4 * self.timeout),
                self.client.stream("POST", url, headers=named, content=packed) as answer,
            ):
                said = bytearray()
                for piece in answer.iter_bytes():
                    said += piece
                    if len(said) > _MOST_BYTES:
                        raise Trouble(
                            etiquette.CHANGED, f"its answer is larger than {_MOST_BYTES >> 20} MiB: check the address"
                        )
        except (httpx.TimeoutException, TimeoutError):
            raise Trouble(etiquette.FAILING, f"no answer within {self.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            certificate = "CERTIFICATE" in str(error).upper()
            why = "its certificate cannot be verified" if certificate else f"it cannot be reached ({type(error).__name__})"
            raise Trouble(etiquette.FAILING, why) from None
        return Answer(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, bytes(said))

    def close(self) -> None:
        """Let go of connections."""
        if self.client is not None:
            self.client.close()


def checked(answer: Answer, now: int) -> Answer:
    """An answer that acknowledges. Raises Trouble, in whose sentence nothing of the answer's body stands."""
    status, retry = answer.status, etiquette.retry_ms(answer.headers, now)
    if 200 <= status < 300:
        return answer
    if status in (401, 403):
        raise Trouble(etiquette.REFUSED, f"it refused the credential ({status})")
    if status in (400, 413, 415, 422):
        raise Trouble(BAD, f"it refused the content ({status})")
    if status == 429:
        raise Trouble(etiquette.LIMITED, "asked to slow down (429)", retry)
    if status == 408 or status >= 500:
        raise Trouble(etiquette.FAILING, f"it is in trouble ({status})", retry)
    raise Trouble(etiquette.CHANGED, f"answered with status {status}: check the address")


def pause_ms(tries: int, trouble: Trouble, draw: float) -> int:
    """How long to wait before the next try of one batch: as long as it asks, else doubling, spread by chance."""
    wait = min(_FIRST_MS << min(tries, 10), _MOST_MS)
    return max(trouble.retry_ms, int(wait * (0.5 + draw / 2)))


def hopeless(trouble: Trouble) -> bool:
    """Whether another try of the same batch would end the same way."""
    return trouble.kind in (etiquette.REFUSED, etiquette.CHANGED, BAD, PARTIAL)
