"""Finds and reads the files of the log's days, and reads the first fields of a line from its bytes.

A day has one file that grows, a gzipped one after it was packed, or both. Every line that `store.append` writes begins
with version, time and kind in this order, each of a fixed length up to the kind. Lines from other programs are
rearranged when read (`identify`). A turn's line may hold its context as well: readers here give two lines for it
(store_folded), where not said otherwise. No other family knows a path or an offset.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

import orjson

from tokenops import events, fields, jsonl, regular, store_folded
from tokenops.events import Event
from tokenops.jsonl import OnBadLine

_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.jsonl(\.gz)?\Z")
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)

HEAD, KIND = store_folded.HEAD, store_folded.KIND
DAY = slice(13, 23)
TS = slice(13, 37)
_CONTEXT = b'context"'
_SOURCE = b'"source":"'
_ALIAS = b'","alias":"'
# An identity and an alias before it are shorter than this.
_FIRST_KEYS = 400


class Header(NamedTuple):
    """What stands first in a record's line: its time, its kind and the source that it was read from."""

    ts: str
    kind: str
    source: str


def header(line: bytes) -> Header:
    """The header of a line in the usual order, without parsing all of it. A record without a source has source ""."""
    at = line.find(_SOURCE, KIND) + len(_SOURCE)
    source = line[at : line.find(b'"', at)] if at > KIND else b""
    return Header(line[TS].decode(errors="replace"), kind_of(line).decode(errors="replace"), source.decode(errors="replace"))


def kind_of(line: bytes) -> bytes:
    """The kind of a record, from its line in the usual order."""
    return line[KIND : line.find(b'"', KIND)]


def is_context(line: bytes) -> bool:
    """Whether a line in the usual order is a record of the kind `context`: of these there is one for each turn."""
    return line.startswith(_CONTEXT, KIND)


def day_of(line: bytes) -> str:
    """The day of a record's line."""
    return line[DAY].decode(errors="replace")


def has_field(line: bytes, name: str) -> bool:
    """Whether a record may have a field: a line of which this is false does not, and need not be parsed."""
    return f'"{name}":'.encode() in line


def has_alias(line: bytes) -> bool:
    """Whether a record has a second identity."""
    return line.find(_ALIAS, 0, _FIRST_KEYS) >= 0


def identify(line: bytes) -> tuple[str, bytes] | None:
    """A record's identity, and its line with the keys in the usual order; None for what is not a record.

    No line is believed unread: one damaged byte would end every report that reads it.
    """
    if (match := match_usual(line)) is not None:
        return match[1].decode(), line
    record = record_of(line)
    return None if record is None else (record["id"], jsonl.line_of(events.arrange(record)))


def parse(lines: Iterable[bytes]) -> Iterator[tuple[str, bytes, Event]]:
    """What `identify` gives for each line that is a record, with the record.

    To parse lines and to check them together takes less time than to match each and then to parse it.
    """
    pairs: list[tuple[bytes, Event]] = []
    by_kind: dict[str, list[Event]] = {}
    for line in lines:
        try:
            record = orjson.loads(line)
        except ValueError:
            continue
        if type(record) is dict and type(kind := record.get("kind")) is str:
            pairs.append((line, record))
            by_kind.setdefault(kind, []).append(record)
    sound = {kind for kind, records in by_kind.items() if fields.are_sound(records)}
    for line, record in pairs:
        if record["kind"] in sound or not fields.damage(record):
            head = f'{{"v":{record["v"]},"ts":"{record["ts"]}","kind":"{record["kind"]}","id":"{record["id"]}"'
            if line.startswith(head.encode()) and ("alias" not in record or has_alias(line)):
                yield record["id"], line, record
            else:
                usual = events.arrange(record)
                yield record["id"], jsonl.line_of(usual), usual


def records_alone(lines: Sequence[bytes]) -> list[Event] | None:
    """The records of some whole lines, of which none can be another sighting of one among them; None if that is not sure.

    Each line is as `store.append` writes it, and none has a second identity: all others are read one by one.
    """
    records: list[Event] = []
    by_kind: dict[str, list[Event]] = {}
    for line in lines:
        try:
            record = orjson.loads(line)
            head = f'{{"v":{record["v"]},"ts":"{record["ts"]}","kind":"{record["kind"]}","id":"{record["id"]}"'
        except (ValueError, LookupError, TypeError):
            return None
        if not (line.startswith(head.encode()) and line.endswith(b"\n")) or "alias" in record or "\\" in head:
            return None
        for each in store_folded.unfold_record(record):
            records.append(each)
            by_kind.setdefault(each["kind"], []).append(each)
    return records if all(map(fields.are_sound, by_kind.values())) else None


def match_usual(line: bytes) -> re.Match[bytes] | None:
    """The match of a line in the usual form in which each field is of its type; None says nothing of the line.

    Matching takes as long as parsing, and checking what was parsed would take twice as long again.
    """
    match = _usual_form("turn")(line) if line.startswith(b'turn"', KIND) else None
    if match is None and (kind := kind_of(line)) in _OFTEN:
        match = _usual_form(kind.decode())(line)
    if match is None or line.isascii():
        return match
    try:
        line.decode()
    except UnicodeDecodeError:
        return None
    return match


# The kinds with many records. For others the pattern is not worth the 2 ms that compiling it takes.
_OFTEN = (b"work", b"meter", b"context")


@functools.cache
def _usual_form(kind: str) -> Callable[[bytes], re.Match[bytes] | None]:
    """Matches whole lines of a kind as `store.append` writes them; the first group is the identity."""
    types = fields.TABLE[kind]
    identity = b'"(' + fields.PLAIN + b'{1,%d}+)"' % fields.LONGER["id"]
    head = HEAD[:-1] + fields.TIME_BYTES + b',"kind":"' + kind.encode() + b'","id":' + identity
    names = [name for name in events.in_order(types) if name not in ("v", "ts", "kind", "id")]
    rest = b"".join(b'(?:,"%b":%b)?+' % (name.encode(), types[name].pattern) for name in names)
    return re.compile(head.replace(b"{", rb"\{", 1) + rest + rb"\}\n").fullmatch


def record_of(line: bytes) -> Event | None:
    """The record of a line; None for what is not a record, or for one that no report could use."""
    try:
        record = orjson.loads(line)
    except ValueError:
        return None
    return record if type(record) is dict and not fields.damage(record) else None


def damage_of(line: bytes) -> str:
    """Why a line is not a record that can be used, in a sentence; "" if it is one. Nothing in it is quoted."""
    try:
        record = orjson.loads(line)
    except ValueError:
        return "not JSON" if b"\0" not in line else "not JSON, but zero bytes, probably from a failing disk"
    if type(record) is not dict:
        return f"expected a JSON object, found {jsonl.type_name(record)}"
    return f"version {record['v']} of the record" if _is_newer(record) else fields.damage(record)


def fault_of(line: bytes) -> str:
    """Why the log does not accept a line that is to be appended, in a sentence; "" if it does. Nothing in it is quoted."""
    if match_usual(line) is not None:
        return ""
    try:
        return fields.fault(orjson.loads(line))
    except ValueError:
        return "not JSON"


def is_newer(line: bytes) -> bool:
    """Whether a line is a record that a later version of this program wrote."""
    try:
        return _is_newer(orjson.loads(line))
    except ValueError:
        return False


def _is_newer(record: Any) -> bool:
    return type(record) is dict and type(record.get("v")) is int and events.VERSION < record["v"] < fields.MOST


def needle_of(kind: str) -> str:
    """The text that stands in every line of a kind, in whatever order its keys are."""
    return f'"kind":"{kind}"'


def with_text(data: bytes, needle: bytes) -> Iterator[bytes]:
    """The whole lines in which some bytes stand."""
    at = data.find(needle)
    while at >= 0:
        stop = data.find(b"\n", at)
        if stop < 0:
            return
        yield data[data.rfind(b"\n", 0, at) + 1 : stop + 1]
        at = data.find(needle, stop)


def records_of_kind(data: bytes, kind: str) -> Iterator[Event]:
    """The records of a kind (not context) among some whole lines, without parsing the others. A torn line is left out."""
    for line in with_text(data, needle_of(kind).encode()):
        record = record_of(line)
        if record is not None and record["kind"] == kind:
            yield record


class Day(NamedTuple):
    """One day's files, the gzipped one first."""

    name: str
    paths: tuple[str, ...]


def folder_of(folder: str) -> str:
    """Where the days of a log lie."""
    return os.path.join(folder, "events")


def path_of(folder: str, day: str, packed: bool = False) -> str:
    """The file of a day. Raises ValueError for what is no day."""
    name = f"{day}.jsonl.gz" if packed else f"{day}.jsonl"
    if not _NAME.match(name):
        raise ValueError(f"{day!r} is not a day")
    return os.path.join(folder_of(folder), name)


def days(folder: str, first: str = "", last: str = "9") -> list[Day]:
    """The days of the log from `first` to `last` (as texts), in order."""
    paths: dict[str, list[str]] = {}
    for name in _listing(folder_of(folder)):
        match = _NAME.match(name)
        if match and first <= match[1] <= last:
            paths.setdefault(match[1], []).append(os.path.join(folder_of(folder), name))
    return [Day(name, tuple(paths[name])) for name in sorted(paths)]


def _listing(folder: str) -> list[str]:
    """The names in a folder, last first. A file that is renamed while a folder is listed may be missed, so list again."""
    names: list[str] = []
    for _ in range(9):
        before, names = names, _names(folder)
        if names == before:
            break
    return names


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder), reverse=True)
    except FileNotFoundError:
        return []


def lines(day: Day, on_bad_line: OnBadLine, tail: bool = False, context: bool = True) -> Iterator[tuple[str, bytes]]:
    """Place and content of each whole line of a day, of context only if asked for. A broken archive is reported, not fatal.

    A last line without its newline is being written, or was left by a crash: it is no line yet, and is given only if
    `tail` asks for it (then the caller holds the lock).
    """
    unfold = store_folded.unfold
    for path, raw in open_files(day):
        number = 0
        try:
            with raw, gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw as file:
                for line in file:
                    number += 1
                    if tail or line.endswith(b"\n"):
                        for part in unfold(line, context):
                            yield f"{path}:{number}", part
        except DAMAGED as error:
            on_bad_line(f"{path}:{number + 1}", f"a damaged archive ({error}); restore it, or run tok-sync --backfill")


def open_files(day: Day) -> list[tuple[str, BinaryIO]]:
    """The files of a day as they were at one moment; compaction may be moving lines from one to the other. Raises OSError.

    The caller closes them.
    """
    plain = day.paths[0].removesuffix(".gz")
    for _ in range(99):
        files: list[tuple[str, BinaryIO]] = []
        for path in (f"{plain}.gz", plain):
            with contextlib.suppress(FileNotFoundError):
                files.append((path, open(path, "rb", buffering=1 << 17, opener=regular.opener)))  # noqa: SIM115
        inodes = {path: os.fstat(file.fileno()).st_ino for path, file in files}
        if all(_inode(path) == inodes.get(path, 0) for path in (f"{plain}.gz", plain)):
            return files
        for _, file in files:
            file.close()
    raise BlockingIOError(11, "is rewritten continuously; try again", plain)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def whole_lines(day: Day) -> Iterator[bytes]:
    """The lines of a day as they stand there, folded or not; the last may lack its end, as in `lines`. Raises OSError."""
    for path, raw in open_files(day):
        with contextlib.suppress(*DAMAGED), raw, gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw as file:
            yield from file


# A file is searched in pieces of this size: a buffer for all of it takes longer to make than the search.
_PIECE = 1 << 18


def has_any(day: Day, needles: Sequence[bytes]) -> bool:
    """Whether one of some texts stands in the files of a day. A broken archive has none. Raises OSError."""
    buffer, longest = bytearray(_PIECE), max(map(len, needles), default=1)
    for path, raw in open_files(day):
        packed = gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw
        with contextlib.suppress(*DAMAGED), raw, cast("io.BufferedIOBase", packed) as file:
            begin = 0  # where the next piece goes, behind the end of the one before it
            while size := file.readinto(memoryview(buffer)[begin:]):
                end = begin + size
                if any(buffer.find(needle, 0, end) >= 0 for needle in needles):
                    return True
                begin = min(longest - 1, end)
                buffer[:begin] = buffer[end - begin : end]
    return False


def lines_with(day: Day, needle: bytes) -> Iterator[bytes]:
    """The lines of a day in which some bytes stand. A broken archive has none: tok-log verify reports it."""
    for path, raw in open_files(day):
        with raw:
            data = raw.read()
        with contextlib.suppress(*DAMAGED):
            for line in with_text(gzip.decompress(data) if path.endswith(".gz") else data, needle):
                yield from (part for part in store_folded.unfold(line) if needle in part)
