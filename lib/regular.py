"""Opens regular files only, so that no pipe, device or socket in a file's place makes a reader wait.

For files that others may have put there: clients' logs, settings, tokens, and the days of a log.
"""

from __future__ import annotations

import errno
import os
import stat

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegular(OSError):
    """What stands in a file's place is not one."""


def opener(path: str, flags: int) -> int:
    """For `open(..., opener=regular.opener)`: the descriptor of a regular file. Never waits. Raises OSError."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    kind = stat.S_IFMT(os.fstat(fd).st_mode)
    if kind in (stat.S_IFREG, stat.S_IFDIR):  # `open` itself refuses a directory, in its own words
        return fd
    os.close(fd)
    raise NotRegular(errno.EINVAL, f"{_KINDS.get(kind, 'not a file')}, expected a regular file", path)
