"""Encrypts and decrypts the parts of machines with the programs age and gpg, which keep the keys.

What is decrypted goes into a file without a name, and is read only once the program has confirmed all of it.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, BinaryIO, NamedTuple, cast

from tokenops import programs

# Of a day packed, decrypted: far more than anybody's.
MOST = 1 << 30
_BLOCK = 1 << 17
_LONGEST_REASON = 300
# https://github.com/FiloSottile/age (1.2), gpg(1) of GnuPG 2.4, read on 2026-12-01.
_ENCRYPT = {
    "age": ("age", "--encrypt", "--recipient", "{}"),
    "gpg": ("gpg", "--batch", "--no-tty", "--quiet", "--trust-model", "always", "--encrypt", "--recipient", "{}"),
}
_DECRYPT = {
    ".age": ("age", "--decrypt", "--identity", "{}"),
    ".gpg": ("gpg", "--batch", "--no-tty", "--quiet", "--pinentry-mode", "error", "--decrypt"),
}


class Keys(NamedTuple):
    """The configuration's `sync.encrypt` and `sync.decrypt`: a program, and the recipient or the file with the identity."""

    encrypt: Mapping[str, str] = {}
    decrypt: Mapping[str, str] = {}

    def ending(self) -> str:
        """What the name of an encrypted file ends with; "" if nothing is encrypted."""
        return next((f".{program}" for program in self.encrypt), "")


@contextlib.contextmanager
def plain_file(stream: IO[bytes], name: str, keys: Keys) -> Iterator[BinaryIO]:
    """The content of an encrypted file. Raises OSError if it cannot be decrypted, or is too large."""
    ending = name[-4:]
    identity = keys.decrypt.get("age", "")
    if ending == ".age" and not identity:
        raise OSError(errno.EACCES, "encrypted with age; name the file of its identity as sync.decrypt: {age: FILE}")
    with tempfile.TemporaryFile() as plain:
        _convert([word.format(identity) for word in _DECRYPT[ending]], stream, plain, "decrypt")
        plain.seek(0)
        yield cast("BinaryIO", plain)


def seal(content: bytes, keys: Keys) -> bytes:
    """Content encrypted for the recipient. Raises OSError."""
    [(program, recipient)] = keys.encrypt.items()
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(content)
        source.flush()
        source.seek(0)
        _convert([word.format(recipient) for word in _ENCRYPT[program]], source, target, "encrypt")
        target.seek(0)
        return target.read()


def _convert(command: list[str], source: IO[bytes], target: IO[bytes], verb: str) -> None:
    size = 0
    with tempfile.TemporaryFile() as errors:
        with programs.process_of(command, source, errors) as process:
            while process.stdout and (block := process.stdout.read1(_BLOCK)):  # type: ignore[attr-defined]
                size += len(block)
                if size > MOST:
                    raise OSError(errno.EFBIG, f"{verb}s to more than {MOST >> 30} GiB")
                target.write(block)
        target.flush()
        if process.wait():
            errors.seek(0)
            lines = errors.read(1 << 14).decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"]
            raise OSError(errno.EIO, f"{command[0]} cannot {verb} it ({lines[0][:_LONGEST_REASON]})")
