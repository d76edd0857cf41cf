"""Runs the two things that another machine is asked for: a list of files, and a tar of some of them.

Only what every Unix has is needed there: sh, find, stat, tar. What is sent there is a script of this file and names out of
its own list, on standard input; nothing is written there.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple, cast

from tokenops import pull_files, store_parts
from tokenops.programs import process_of
from tokenops.pull_sources import Settings, Source

# OpenBSD ssh(1) and ssh_config(5), OpenSSH 9.2, read on 2026-12-01. Nothing is asked for, and nothing of this machine is
# lent to the other one: no agent, no display, no ports.
_SSH = (
    *("ssh", "-T", "-a", "-x", "-C", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"),
    *("-o", "ServerAliveCountMax=2", "-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "ClearAllForwardings=yes"),
    *("-o", "PermitLocalCommand=no", "-o", "EscapeChar=none"),
)
MOST_LIST = 64 << 20  # of the text of a list
MOST_BYTES = 32 << 30  # that one run takes in
_LONGEST_REASON = 300
_LINE = re.compile(rb"(\d{1,15}) (\d{1,12})(?:[.,](\d{1,9})\d*)? \./([^\n]+)\Z")
_SETTLED_S = 2  # some systems give modification times in whole seconds
_BEGIN, _END = b"tokenops-list 1", b"tokenops-end"

# In each script no quote but the double one stands, and no `!`: whatever shell a user has passes it on to sh.
_STAT = (
    "LC_ALL=C; export LC_ALL; f=-c; "
    'case "$(stat -c %.9Y / 2>/dev/null)" in *[0-9].[0-9]*) p="%s %.9Y %n";; '
    '*) if stat -c %Y / >/dev/null 2>&1; then p="%s %Y %n"; else f=-f; p="%z %Fm %N"; fi;; esac; '
)


class Listed(NamedTuple):
    """A file on the other machine: its size, and its modification time in nanoseconds."""

    size: int
    changed: int
    is_settled: bool = True  # else it was changed so lately that it may change again without looking otherwise


class Listing(NamedTuple):
    """What another machine has: whether these are the files of a log, and their stamps by name."""

    is_log: bool
    files: dict[str, Listed]
    odd: int  # files whose names cannot be passed on


class Failed(OSError):
    """The other machine cannot be reached, or its answer is not one."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EIO, why)


def _command(source: Source, settings: Settings, script: str) -> list[str]:
    """How a script of ours is run on another machine. Its name was checked (pull_sources) and never begins with `-`."""
    if source.kind == "docker":
        return ["docker", "exec", "-i", source.target, "sh", "-c", script]
    if source.kind == "wsl":
        return ["wsl.exe", "-d", source.target, "--exec", "sh", "-c", script]
    host, port = re.fullmatch(r"(.*?)(?::([0-9]+))?", source.target).groups()  # type: ignore[union-attr]
    options = ["-F", settings.ssh_config] if settings.ssh_config else []
    options += ["-p", port] if port else []
    return [*_SSH, *options, "--", host.replace("[", "").replace("]", ""), f"exec sh -c {shlex.quote(script)}"]


class Far:
    """Another machine."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self.source, self.settings = source, settings

    @contextlib.contextmanager
    def _output(self, script: str, names: Iterable[str] = ()) -> Iterator[IO[bytes]]:
        """What a script there prints. Raises Failed if it cannot be run, or fails before the block ends."""
        with tempfile.TemporaryFile() as names_file, tempfile.TemporaryFile() as errors:
            names_file.writelines(b"./" + name.encode(errors="surrogateescape") + b"\n" for name in names)
            names_file.seek(0)
            try:
                with process_of(_command(self.source, self.settings, script), names_file, errors) as process:
                    yield _Bounded(cast("IO[bytes]", process.stdout), MOST_BYTES)  # type: ignore[misc]
                    status = process.wait()
            except FileNotFoundError as error:
                raise Failed(f"there is no program {error.filename} on the PATH") from None
            if status not in (0, 1):  # tar ends with 1 if a file changed while it was read
                errors.seek(0)
                lines = errors.read(1 << 14).decode(errors="replace").strip().splitlines()
                raise Failed(lines[-1][:_LONGEST_REASON] if lines else f"{self.source.kind} ended with status {status}")

    def listing(self) -> Listing:
        """The files that may be asked for. Raises Failed."""
        with self._output(_list_script()) as stream:
            data = stream.read(MOST_LIST + 1)
            if len(data) > MOST_LIST:
                raise Failed(f"its list of files has more than {MOST_LIST >> 20} MiB")
        begin, _, rest = data.partition(b"\n")
        *lines, end = rest.splitlines() or [b""]
        if begin.split(b" ", 2)[:2] != _BEGIN.split() or end != _END or len(begin.split()) != 4:
            raise Failed("its answer is not a list of files; does its shell print something at each login?")
        kind, now = begin.split()[2:]
        files, odd = {}, 0
        for line in lines:
            match = _LINE.match(line)
            name = match[4].replace(b"//", b"/").decode(errors="surrogateescape") if match else "\\"
            if match is None or "\\" in name or not _is_inside(name):
                odd += 1  # a name with a line end, or one that tar would read otherwise
            else:
                changed = int(match[2]) * 10**9 + int((match[3] or b"").ljust(9, b"0"))
                is_settled = now.isdigit() and int(match[2]) < int(now) - _SETTLED_S
                files[name] = Listed(int(match[1]), changed, is_settled)
        return Listing(kind == b"log", files, odd)

    @contextlib.contextmanager
    def archive(self, names: Iterable[str], is_log: bool) -> Iterator[IO[bytes]]:
        """A stream of some of the files. Raises Failed."""
        to = f'cd "{_LOG}"' if is_log else 'cd "$HOME"'
        with self._output(f"{to} && COPYFILE_DISABLE=1 exec tar -cf - -T -", names) as stream:
            yield stream


class _Bounded:
    """A stream of which no more than so many bytes can be read."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.stream, self.left = stream, most

    def read(self, size: int) -> bytes:
        """The next bytes, fewer at the end only. Raises Failed."""
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise Failed("it sends more than one run takes in; the next one goes on from there")
        return data


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and not {"", ".", ".."} & set(name.split("/"))


_LOG = f"${{TOKENOPS_HOME:-${{XDG_DATA_HOME:-$HOME/.local/share}}/{store_parts.HOME_LOG.rpartition('/')[2]}}}"


def _list_script() -> str:
    """Lists the days of a log, if there is one; else the logs of clients in the home directory."""
    days = f'find "./{store_parts.FOLDER}" "./{store_parts.PROJECTS}" -type f -exec stat "$f" "$p" {{}} + 2>/dev/null; '
    home = ""
    for folder, names in pull_files.searches().items():
        tests = " -o ".join(f'-name "{name}"' for name in names)
        home += (
            f'test -d "./{folder}" && find "./{folder}/" -type f "(" {tests} ")" -exec stat "$f" "$p" {{}} + 2>/dev/null; '
        )
    return (
        f'{_STAT}cd "$HOME" || exit 3; if test -d "{_LOG}/{store_parts.FOLDER}"; then '
        f'cd "{_LOG}" || exit 3; echo "{_BEGIN.decode()} log $(date +%s)"; {days}'
        f'else echo "{_BEGIN.decode()} home $(date +%s)"; {home}fi; echo {_END.decode()}'
    )
