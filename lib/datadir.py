"""Finds TokenOps's own directories, and reads, locks and replaces the small private files in them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import Any

import orjson

from tokenops import jsonl

# A file whose modification time is when tok-sync last finished reading everything.
SYNCED = "synced"
# A file that marks a log of demo data, into which nothing real is imported.
DEMO = "made-up"


def log_folder() -> str:
    """The directory of the log: $TOKENOPS_HOME, else $XDG_DATA_HOME/tokenops."""
    folder = os.environ.get("TOKENOPS_HOME")
    if folder:
        return folder
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "tokenops")


def ensure_folder(folder: str) -> str:
    """The folder, created with access for its owner only if it was missing. Raises OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def salt(folder: str, make: bool = False) -> bytes:
    """The secret key of project and account hashes; empty if there is none yet. Raises OSError when creating it."""
    path = os.path.join(folder, "salt")
    try:
        with open(path, "rb") as file:
            return file.read().strip()
    except FileNotFoundError:
        if not make:
            return b""
    with lock(folder):
        if not os.path.exists(path):
            replace(path, os.urandom(24).hex().encode())
    return salt(folder)


@contextlib.contextmanager
def lock(folder: str, name: str = "lock", wait: bool = True) -> Iterator[bool]:
    """Hold a lock file of the log while the block runs; yields False if another process holds it and `wait` is off.

    The file is never renamed or removed, so all writers lock the same one. Raises OSError.
    """
    fd = os.open(os.path.join(ensure_folder(folder), name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(fd)


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
    beside = f"{path}.{os.getpid()}"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            if mode != 0o600:
                with contextlib.suppress(OSError):  # a Windows disk has no modes
                    os.fchmod(fd, mode)
            write(fd, content, durable)
        finally:
            os.close(fd)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def read_json(path: str) -> Any:
    """The content of a small JSON file, ours or a client's; None if there is none, or none that can be read."""
    try:
        with open(path, "rb") as file:
            return orjson.loads(file.read().removeprefix(jsonl.BOM))
    except (OSError, ValueError):
        return None


def last_sync(folder: str) -> int | None:
    """When tok-sync last finished reading everything, in milliseconds; None if it never did."""
    try:
        return os.stat(os.path.join(folder, SYNCED)).st_mtime_ns // 1_000_000
    except OSError:
        return None


def is_demo(folder: str) -> bool:
    """Whether a log holds demo data."""
    return os.path.exists(os.path.join(folder, DEMO))


def mark_demo(folder: str) -> None:
    """Mark a log as one of demo data. Raises OSError."""
    replace(os.path.join(folder, DEMO), b"made by tok-init --demo; tok-init --no-demo removes it\n")
