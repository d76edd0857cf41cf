"""Decides who may see the dashboard: the token, single-use tickets, the cookie, and valid hosts and origins.

The token stays in its file. Addresses that we print contain a ticket instead, valid once within ten minutes.
Comparisons take constant time. No sockets, no clock.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import orjson

from tokenops import credentials, datadir, when
from tokenops.config import Unusable

# The least length of a token that the user sets.
LEAST = 20
TOKEN, TICKETS, LOCK, RUNNING = "dash.token", "dash.tickets", "dash.lock", "dash.running"
TICKET_MS = 10 * 60_000
# Links that were made and not opened: more of them mean that a program makes them in a loop.
MOST_TICKETS = 50
COOKIE = "tokenops_dash"
# How long a cookie is good; with less than half of it left, an answer brings a new one.
COOKIE_S = 24 * 3600
# The cookie goes nowhere else on this host: other programs' ports would be sent it too.
PATHS = ("/dashboard", "/api")
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}\Z")


def secret() -> str:
    """A new secret of 256 bits, fit for a URL."""
    return base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()


def token(folder: str) -> str:
    """The token. A new one is made if there is none, or if others could have read it. Raises Unusable, OSError."""
    path = os.path.join(folder, TOKEN)
    stored = _read(path)
    if stored is None:
        with datadir.lock(folder, LOCK):
            stored = _read(path) or _renew(folder, os.path.exists(path))
    return stored


def configured_token(value: object, environment: Mapping[str, str], base: str) -> str:
    """The token that the configuration gives (dashboard.admin_token), "" for none. Raises Unusable."""
    if not value:
        return ""
    try:
        text = credentials.resolve(str(value), environment, base, b"").secret
    except credentials.Missing as error:
        raise Unusable("dashboard.admin_token", str(error)) from None
    if len(text) < LEAST:
        raise Unusable("dashboard.admin_token", f"has fewer than {LEAST} characters, and could be guessed", "leave it out")
    return text


def rotate(folder: str) -> str:
    """A new token in the place of the old one; with it all cookies and tickets end. Raises OSError."""
    with datadir.lock(datadir.ensure_folder(folder), LOCK):
        return _renew(folder, True)


def _renew(folder: str, replaces: bool) -> str:
    """A new token; if it replaces another, the tickets made so far end."""
    fresh = secret()
    if replaces:
        _keep(folder, {})
    datadir.replace(os.path.join(folder, TOKEN), f"{fresh}\n".encode())
    return fresh


def _read(path: str) -> str | None:
    """The token in a file that only we can read; None if there is none. Raises Unusable, OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if os.path.islink(path):
            raise Unusable(path, "is a link, and a token is never read through one", "remove it") from None
        raise error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise Unusable(path, "is not a file of your own", "remove it and run tok-dash rotate-token")
        if stat.S_IMODE(status.st_mode) & 0o077:
            return None  # others could have read it: it is no longer a secret
        text = os.read(fd, 200).decode("ascii", "replace").strip()
    finally:
        os.close(fd)
    return text if _SECRET.match(text) else None


def same(offered: str, secret: str) -> bool:
    """Whether two secrets are equal, in a time that depends neither on where they differ nor on their length."""
    return hmac.compare_digest(hashlib.sha256(offered.encode()).digest(), hashlib.sha256(secret.encode()).digest())


# Tickets.


def ticket(folder: str, now: int) -> str:
    """A new ticket, which can be exchanged once for a cookie. Only its hash is stored. Raises OSError."""
    fresh = secret()
    with datadir.lock(datadir.ensure_folder(folder), LOCK):
        tickets = sorted(_tickets(folder, now).items(), key=lambda item: item[1])[1 - MOST_TICKETS :]
        _keep(folder, dict(tickets) | {_hash(fresh): now + TICKET_MS})
    return fresh


def redeem(folder: str, ticket: str, now: int) -> bool:
    """Use up a ticket; whether it was valid. Raises OSError."""
    if not _SECRET.match(ticket):
        return False
    with datadir.lock(folder, LOCK):
        tickets = _tickets(folder, now)
        good = tickets.pop(_hash(ticket), None) is not None
        if good:
            _keep(folder, tickets)
    return good


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _tickets(folder: str, now: int) -> dict[str, int]:
    """The tickets that are still good: hash -> when they end. One that ends too late was made by another clock."""
    content = datadir.read_json(os.path.join(folder, TICKETS))
    items = content.items() if isinstance(content, dict) else ()
    return {name: end for name, end in items if isinstance(end, int) and now < end <= now + TICKET_MS}


def _keep(folder: str, tickets: dict[str, int]) -> None:
    datadir.replace(os.path.join(folder, TICKETS), orjson.dumps(tickets))


# The cookie.


def cookie(token: str, now: int) -> str:
    """A cookie's value: when it ends, signed with the token. It contains nothing of the token itself."""
    ends = str(now // 1000 + COOKIE_S)
    return f"{ends}.{_signature(token, ends)}"


def cookie_left(value: str, token: str, now: int) -> int:
    """How many seconds a cookie is good for; 0 for one that is over, or not ours."""
    ends, _, signature = value.partition(".")
    if not ends.isascii() or not ends.isdigit() or len(ends) > 12:
        return 0
    return max(int(ends) - now // 1000, 0) if same(signature, _signature(token, ends)) else 0


def _signature(token: str, ends: str) -> str:
    return hmac.new(token.encode(), f"{COOKIE} {ends}".encode(), "sha256").hexdigest()


def set_cookie(value: str) -> list[bytes]:
    """The headers' values that set it, one for each place that it is sent to."""
    flags = f"Max-Age={COOKIE_S}; HttpOnly; SameSite=Strict"
    return [f"{COOKIE}={value}; Path={path}; {flags}".encode() for path in PATHS]


# Hosts and origins.


def hosts(port: int, more: tuple[str, ...] = ()) -> frozenset[str]:
    """The valid values of Host: this machine by its own names, with the port."""
    names = ("127.0.0.1", "localhost", "[::1]", *more)
    bare = names if port == 80 else ()
    return frozenset((*(f"{name}:{port}" for name in names), *bare))


def origins(hosts: frozenset[str]) -> frozenset[str]:
    """The valid values of Origin."""
    return frozenset(f"http://{host}" for host in hosts)


# Guesses.


class Throttle:
    """Delays the replies to wrong secrets: longer the more there were recently, and one after another.

    It remembers two numbers about all guesses. A request with the right token is never delayed.
    """

    FREE, STEP_MS, MOST_MS, CALM_MS, FULL_MS = 10, 10, 1000, 10_000, 30_000

    def __init__(self) -> None:
        self.failures = 0.0
        self.last = 0
        self.free_at = 0

    def wait_ms(self, now: int) -> int | None:
        """How long the reply to a wrong guess is delayed; None if too many are delayed already."""
        if now < self.last:  # the clock was set back
            self.free_at = now
        calm = max(now - self.last, 0) / self.CALM_MS
        self.failures = min(max(self.failures - calm, 0.0), 40.0) + 1
        self.last = now
        if self.failures <= self.FREE:
            return 0
        if self.free_at - now >= self.FULL_MS:
            return None
        step = min(self.STEP_MS * 2.0 ** (self.failures - self.FREE - 1), self.MOST_MS)
        self.free_at = max(self.free_at, now) + int(step)
        return self.free_at - now


# Dashboards that run.


class Running(NamedTuple):
    """A dashboard that is running, known by the file that it keeps locked while it runs."""

    url: str
    path: str


@contextlib.contextmanager
def announce(folder: str, url: str, port: int) -> Iterator[None]:
    """Say that a dashboard runs here, while the block does. Raises OSError."""
    path = os.path.join(datadir.ensure_folder(os.path.join(folder, RUNNING)), f"{port}.json")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.ftruncate(fd, 0)
        datadir.write(fd, orjson.dumps({"url": url}), durable=False)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(fd)


def running(folder: str) -> list[Running]:
    """The dashboards that run on this log, without those that crashed."""
    directory = os.path.join(folder, RUNNING)
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    except OSError:
        return []
    dashboards = []
    for name in names:
        path = os.path.join(directory, name)
        content = datadir.read_json(path)
        if isinstance(content, dict) and isinstance(content.get("url"), str) and _is_locked(path):
            dashboards.append(Running(content["url"], path))
    return dashboards


def _is_locked(path: str) -> bool:
    """Whether a process has the file locked."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def link(folder: str, url: str, now: int) -> tuple[str, str]:
    """An address that opens a dashboard once, and until when it is good. Raises OSError."""
    return f"{url}/dashboard?ticket={ticket(folder, now)}", when.stamp(now + TICKET_MS)
