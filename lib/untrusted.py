"""Checks values of other programs' JSON and returns each in a form that a record may hold.

A count or a time of another type raises BadRecord, so that the whole record is reported and skipped. A name of another
type becomes "", so its tokens still count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from tokenops import events, fields, jsonl, light, when

Raw = Mapping[str, Any]

# What masked names contain: "[redacted]", "<id>", "***", "REDACTED".
_MASKED = light.pattern(r"[\[\]<>*]|REDACTED", re.ASCII)
_RESPONSE = light.pattern(r"(?:msg_|resp_|gen-|chatcmpl-)[\w-]{16,}\Z", re.ASCII)
_MASKED_TAG = light.pattern(r"\[.*\]|<.*>|\*+|.*REDACTED.*", re.ASCII)
_UUID = light.pattern(r"[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_LONGEST_PATH = 4096
_UNPRINTABLE = light.pattern(r"[\x00-\x1f\x7f\ud800-\udfff]")
# The deepest value in recorded traffic and in clients' logs has 20 levels; functions that recurse survive ten times more.
DEEPEST = 100
# Parsing so many objects and arrays takes some 10 ms, as does parsing eight times as many numbers.
MOST_NODES = 100_000


def json_value(data: bytes | bytearray, most: int = MOST_NODES) -> Any:
    """The value in the bytes of foreign JSON.

    Raises BadRecord if it is not JSON, if it has more than about `most` objects and arrays (or eight times as many other
    values), or if it is nested too deeply: code that compares, prints or walks such a value could run out of stack, memory
    or time.
    """
    nodes = data.count(b"[") + data.count(b"{")
    if nodes > most or (len(data) > 8 * most and data.count(b",") > 8 * most):
        raise events.BadRecord("too many values")
    try:
        value = orjson.loads(data)
    except ValueError:
        raise events.BadRecord("not JSON") from None
    if nodes > DEEPEST and is_too_deep(value):
        raise events.BadRecord(f"nested more than {DEEPEST} levels deep")
    return value


def is_too_deep(value: object, most: int = DEEPEST) -> bool:
    """Whether a JSON value has more than `most` levels. It does not recurse."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer if type(outer) is list else ())
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


def mapping(value: object) -> Raw:
    """An object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """An array, or an empty one for anything else."""
    return value if isinstance(value, list) else []


def text(value: object, most: int = events.LONGEST) -> str:
    """A name, cut to a name's length; "" for what is not a string, or holds control characters."""
    return value[:most] if isinstance(value, str) and not _UNPRINTABLE.search(value) else ""


def tag(value: object) -> str:
    """What a client says that a turn was made for, cut to a name's length; "" for no name and for a masked one."""
    name = text(value)
    return "" if _MASKED_TAG.fullmatch(name) else name


def path(value: object) -> str:
    """An absolute path, "" for anything else and for a masked one."""
    name = text(value, _LONGEST_PATH + 1)
    return name if name and len(name) <= _LONGEST_PATH and not name.startswith("[") else ""


def identity(value: object) -> str:
    """A name that can identify a record; "" for a masked one. A number is taken as its digits."""
    if type(value) is int and abs(value) < 1 << 64:
        return str(value)
    name = text(value, _LONGEST_PATH)
    return "" if _MASKED.search(name) else fields.fit("session_id", name)


def response_id(value: object) -> str:
    """A provider's unique id of a response; "" for others, such as a local server's counter."""
    name = identity(value)
    return name if _RESPONSE.match(name) else ""


def occurrence_name(seen: dict[str, int], name: str) -> str:
    """A name made of content, with a number if the same content came before in the file."""
    seen[name] = seen.get(name, 0) + 1
    return name if seen[name] == 1 else f"{name}:{seen[name]}"


def count(raw: Raw, *keys: str) -> int:
    """The first of some keys that is there, as a count; 0 if none is. Raises BadRecord."""
    for key in keys:
        value = raw.get(key)
        if value is None:
            continue
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not 0 <= value < fields.MOST:
            raise events.BadRecord(f"{key} is {jsonl.value_name(value)}; expected a count")
        return value
    return 0


def moment(value: object, name: str = "timestamp") -> str:
    """A time as the record writes it: RFC 3339 text, or a number of s, ms, us or ns since 1970. Raises BadRecord."""
    try:
        if type(value) is str and value[:1].isdigit() and not value.isdigit():
            return when.canonical(value)
        if type(value) in (int, float) or (type(value) is str and value.isdigit()):
            return when.stamp(when.epoch(_ms(int(value) if type(value) is str else value)))  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        pass
    raise events.BadRecord(f"{name} is {jsonl.value_name(value)}; expected a time")


def uuid_ms(value: object) -> int | None:
    """The time in a version 7 UUID, in milliseconds; None for anything else."""
    if type(value) is str and (match := _UUID.match(value)) and match[1] == "7":
        return int(value[:8] + value[9:13], 16)
    return None


def _ms(value: float) -> float:
    """Microseconds and nanoseconds as whole milliseconds, other units as they are."""
    return value // 1_000_000 if value >= 1e17 else value // 1000 if value >= 1e14 else value


def usd(value: object) -> str:
    """An amount of dollars as decimal text; "" for none, for 0 (which clients write for "unknown") and for no number."""
    if type(value) not in (int, float, str, Decimal) or value == "":
        return ""
    try:
        amount = Decimal(str(value))
    except ArithmeticError:
        return ""
    if not amount.is_finite() or amount <= 0 or amount >= 1_000_000:
        return ""
    return format(round(amount, 12).normalize(), "f")
