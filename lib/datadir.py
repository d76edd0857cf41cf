"""Finds TokenOps's own directories, and reads, locks and replaces the small private files in them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
import zlib
from collections.abc import Iterator
from typing import Any

import orjson

from tokenops import jsonl, regular

# A file whose modification time is when tok-sync last finished reading everything.
SYNCED = "synced"
# A file that marks a log of demo data, into which nothing real is imported.
DEMO = "made-up"
# The secrets that a log has had, the first one first (store_salt).
SALTS = "salts"
# How long a writer waits for a lock. No holder needs so long: the largest is a day that is rewritten.
PATIENCE_S = 60.0
# How often it looks: a writer that is done with its batch leaves the lock for a tenth of a millisecond.
_LOOK_S = 0.001


def log_folder() -> str:
    """The directory of the log: $TOKENOPS_HOME, else $XDG_DATA_HOME/tokenops."""
    folder = os.environ.get("TOKENOPS_HOME")
    if folder:
        return folder
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "tokenops")


def ensure_folder(folder: str) -> str:
    """The folder, created with access for its owner only if it was missing. Raises OSError."""
    if not os.path.isdir(folder):
        above = os.path.dirname(os.path.abspath(folder))
        os.makedirs(above, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        flush(above)
    return folder


def flush(folder: str) -> None:
    """Make new, renamed and removed files of a folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a network disk that cannot
            error.filename = folder
            raise
    finally:
        os.close(fd)


def writable_by_others(folder: str) -> bool:
    """Whether another user may put files into a folder, and so links in the place of ours."""
    try:
        status = os.stat(folder)
    except OSError:
        return False
    return bool(status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX) or status.st_uid not in (os.geteuid(), 0)


def salt(folder: str, make: bool = False, patience: float = PATIENCE_S) -> bytes:
    """The secret key of project and account hashes; empty if there is none yet. Raises OSError when creating it."""
    path = os.path.join(folder, "salt")
    try:
        with open(path, "rb", opener=regular.opener) as file:
            return file.read().strip()
    except FileNotFoundError:
        if not make:
            return b""
    with lock(folder, patience=patience):
        if not os.path.exists(path):
            replace(path, os.urandom(24).hex().encode())
    return salt(folder)


def salts(folder: str) -> list[bytes]:
    """The keys that the log has had, the first one first; none unless another log's was taken over."""
    return (content_of(os.path.join(folder, SALTS)) or b"").split()


def first_salt(folder: str) -> bytes:
    """The key that the log had first: identities are made with it, so that a new one changes none."""
    return next(iter(salts(folder)), b"") or salt(folder)


@contextlib.contextmanager
def lock(folder: str, name: str = "lock", wait: bool = True, patience: float = PATIENCE_S) -> Iterator[bool]:
    """Hold a lock file of the log while the block runs; yields False if another process holds it and `wait` is off.

    The file is never renamed or removed, so all writers lock the same one. Raises OSError, also if another process has held
    the lock for `patience` seconds: it may be stopped, and nobody may wait for it for ever.
    """
    path = os.path.join(ensure_folder(folder), name)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not _locks(fd, patience if wait else 0):
            if wait:
                raise TimeoutError(errno.ETIMEDOUT, f"another process has held this lock for {patience:.0f} s", path)
            yield False
            return
        yield True
    finally:
        os.close(fd)


def _locks(fd: int, patience: float) -> bool:
    """Whether a lock was taken within so many seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = patience - (until - time.monotonic())
            if waited >= patience:
                return False
            time.sleep(_LOOK_S if waited < 1 else 10 * _LOOK_S)
        else:
            return True


def write(fd: int, content: bytes, durable: bool) -> None:
    """Write all bytes, and wait for the disk if they are to be `durable`. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    if durable:
        os.fsync(fd)


def replace(path: str, content: bytes, durable: bool = True, mode: int = 0o600) -> None:
    """Write a private file whole: a reader sees the old content or the new. Raises OSError.

    A file that can be made again need not be `durable`: waiting for the disk takes milliseconds. `mode` is for files that
    are not private.
    """
    fd, beside = create_beside(path)
    try:
        try:
            if mode != 0o600:
                with contextlib.suppress(OSError):  # a Windows disk has no modes
                    os.fchmod(fd, mode)
            write(fd, content, durable)
        finally:
            os.close(fd)
        os.replace(beside, path)
        if durable:
            flush(os.path.dirname(path) or ".")
    except OSError as error:
        error.filename = error.filename or path
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


_OVERTAKEN = "was just changed by another program"


class NotReplaced(OSError):
    """A file of another program that was left as it is."""


class ChangedMeanwhile(NotReplaced):
    """Another program changed the file between our reading and our writing."""


def replace_unchanged(path: str, before: bytes | None, after: bytes) -> None:
    """Replace a file of another program if it still holds `before` (None: does not exist). Raises OSError, ChangedMeanwhile.

    A link stays a link, and the owner and the mode stay. A read-only file is refused: its owner wants no changes. The bytes
    are compared when the new file is on the disk already, so that another writer has some microseconds to be overlooked.
    """
    target = os.path.realpath(path)
    try:
        status = None if before is None else os.stat(target)
    except FileNotFoundError:
        raise ChangedMeanwhile(errno.EAGAIN, _OVERTAKEN, path) from None
    if status and is_read_only(target):
        raise NotReplaced(errno.EACCES, "is read-only", path)
    fd, beside = create_beside(target)
    try:
        try:
            if status:
                _take_over(fd, status, path)
            write(fd, after, durable=True)
        finally:
            os.close(fd)
        if content_of(target) != before:
            raise ChangedMeanwhile(errno.EAGAIN, _OVERTAKEN, path)
        os.replace(beside, target)
        flush(os.path.dirname(target))
    except OSError as error:
        error.filename = error.filename or path
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def remove_unchanged(path: str, before: bytes) -> None:
    """Remove a file of another program if it still holds `before`. Raises OSError, ChangedMeanwhile."""
    if content_of(path) != before:
        raise ChangedMeanwhile(errno.EAGAIN, _OVERTAKEN, path)
    os.unlink(path)


def is_read_only(path: str) -> bool:
    """Whether a file's owner wants no changes (root could make them), or this user may make none. Raises OSError."""
    return not (os.stat(path).st_mode & stat.S_IWUSR and os.access(path, os.W_OK))


def _take_over(fd: int, status: os.stat_result, path: str) -> None:
    """Give a new file the owner, the group and the mode of an old one. Raises NotReplaced."""
    mode, new = stat.S_IMODE(status.st_mode), os.fstat(fd)
    if new.st_uid != status.st_uid:
        try:
            os.fchown(fd, status.st_uid, -1)
        except OSError:
            raise NotReplaced(errno.EPERM, "belongs to another user", path) from None
    if new.st_gid != status.st_gid:
        try:
            os.fchown(fd, -1, status.st_gid)
        except OSError:  # then our own group must not get what was meant for another
            mode &= ~0o070
    with contextlib.suppress(OSError):  # a Windows disk has no modes
        os.fchmod(fd, mode)


def content_of(path: str) -> bytes | None:
    """What a regular file holds; None if there is none. Raises OSError."""
    try:
        with open(path, "rb", opener=regular.opener) as file:
            return file.read()
    except FileNotFoundError:
        return None


def shared_mode() -> int:
    """The mode of a new file that is not private, as the user's mask has it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def create_beside(path: str) -> tuple[int, str]:
    """A new private file beside another, open for writing, and its path. Raises OSError.

    Its name can be guessed. What lies there is a leftover of a crash, or a link that somebody planted: it is removed and
    never followed.
    """
    beside = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(beside, flags, 0o600), beside
    except FileExistsError:
        os.unlink(beside)
        return os.open(beside, flags, 0o600), beside


def read_json(path: str) -> Any:
    """The content of a small JSON file, ours or a client's; None if there is none, or none that can be read."""
    try:
        with open(path, "rb", opener=regular.opener) as file:
            data = file.read().removeprefix(jsonl.BOM)
    except OSError:
        return None
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    try:
        return json.loads(data)  # half characters, as in names of files that are not UTF-8
    except (ValueError, RecursionError):
        return None


def seal(content: bytes) -> bytes:
    """A line of JSON that holds other JSON and its checksum, by which `unseal` knows that it is as it was written."""
    return b'["%08x",%b]\n' % (zlib.crc32(content), content)


def unseal(line: bytes) -> Any:
    """The JSON of a line that `seal` gave. Raises ValueError for every other line, such as a damaged one."""
    content = line[12:-2]
    if line != seal(content):
        raise ValueError("damaged")
    try:
        return orjson.loads(content)
    except ValueError:
        return json.loads(content)  # half characters, as in names of files that are not UTF-8


def keep_json(path: str, value: Any, durable: bool = False) -> None:
    """Keep a state that `kept_json` reads. Raises OSError."""
    try:
        content = orjson.dumps(value, default=list)
    except TypeError:  # the name of a file is not UTF-8: `unseal` gives it back as it was
        content = json.dumps(value, default=list).encode()
    replace(path, seal(content), durable)


def kept_json(path: str) -> Any:
    """What `keep_json` wrote last; None if there is nothing, or anything else: then the state is made anew."""
    try:
        with open(path, "rb", opener=regular.opener) as file:
            return unseal(file.read())
    except (OSError, ValueError):
        return None


def last_sync(folder: str) -> int | None:
    """When tok-sync last finished reading everything, in milliseconds; None if it never did."""
    try:
        return os.stat(os.path.join(folder, SYNCED)).st_mtime_ns // 1_000_000
    except OSError:
        return None


def demo_folder(folder: str) -> str:
    """Where the demo data of a log are: a log of their own."""
    return os.path.join(folder, "demo")


def is_demo(folder: str) -> bool:
    """Whether a log holds demo data."""
    return os.path.exists(os.path.join(folder, DEMO))


def mark_demo(folder: str) -> None:
    """Mark a log as one of demo data. Raises OSError."""
    replace(os.path.join(folder, DEMO), b"made by tok-init --demo; tok-init --no-demo removes it\n")
