"""Bounds the connections of a server by the open files that the system allows, so that some are always left for itself.

Files are needed for the log, for the configuration and for one connection to an upstream per client.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import time
from collections.abc import Callable, Collection
from typing import Any

from tokenops import proxy_routes

RESERVE = 64  # files that no client's connection may take
MOST_FILES = 65_536  # are asked for, if the system allows as many
ACCEPTED_AT_ONCE = 100  # by one turn of the loop
SHORT_IDLE_S = 10.0  # for a connection without a request, while there are many
_SAID_S = 60.0
_LINGER_S, _MOST_LINGERING = 0.5, RESERVE // 2
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Room:
    """How many clients may be connected; `say` gets a line when more come, at most one a minute."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.files = raise_limit()
        self.most = max((self.files - RESERVE) // 2, 8)
        self.many = self.most * 3 // 4
        self.said_at = -_SAID_S
        self.lingering = 0

    def has_place(self, clients: Collection[object]) -> bool:
        """Whether one more may be connected."""
        return len(clients) < self.most

    def turn_away(self, transport: asyncio.Transport) -> None:
        """Answer 503 to one that is too many, and close."""
        self._say_once(
            f"{self.most} clients are connected, as many as {self.files} open files allow; others get status 503: "
            "end idle clients, or raise the limit with ulimit -n"
        )
        hint = "wait, or end other clients; ulimit -n raises the limit"
        transport.write(proxy_routes.error_answer(503, "too many connections are open", hint))
        if self.lingering >= _MOST_LINGERING:
            transport.close()
            return
        # Closed at once, what the client still sends would destroy the answer.
        self.lingering += 1
        with contextlib.suppress(OSError):
            transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_S, self._end, transport)

    def _end(self, transport: asyncio.Transport) -> None:
        self.lingering -= 1
        transport.close()

    def on_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What the loop reports: that no file is left for a new connection, in one line."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _NO_FILES:
            self._say_once(f"no connection can be accepted: {error.strerror}; raise the limit with ulimit -n")
        else:
            loop.default_exception_handler(context)

    def _say_once(self, text: str) -> None:
        now = time.monotonic()
        if now - self.said_at >= _SAID_S:
            self.said_at = now
            self.say(text)


def raise_limit() -> int:
    """Raise the limit of open files as far as this process may; the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return MOST_FILES if soft == resource.RLIM_INFINITY else min(soft, MOST_FILES)
