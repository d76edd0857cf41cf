"""Says what each field of a record may hold: the one table that the log's doors and its readers check records against.

`fault` is what the doors ask (append, import, sync, poll): known fields, the right types and ranges, no long texts.
`damage` is what readers of the log ask: a field of another type or range would end a report, so the record is skipped; an
unknown field or a long name is kept, because another version may have written it. Messages name fields and types; they never
quote a value, which may be a prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import events, jsonl, light, when
from tokenops.events import Event

# A larger count is not exact as a double, and cannot be right: 2^64 is an unsigned number that fell below 0.
MOST = 1 << 53
# Ten years; the longest window that a vendor has is a month.
MOST_MINUTES = 5_256_000
_MONEY = light.pattern(r"-?[0-9]{1,12}(\.[0-9]{1,18})?\Z")
# The size of a map as JSON: a round's counts and times have some forty names, and so have the causes of a context.
_MOST_BYTES = 4000


class Type(NamedTuple):
    """What a field may hold: a test, how a message calls it, and its JSON Schema.

    `pattern` matches bytes of JSON that hold such a value, in UTF-8 and without blanks, and no others. It may miss some,
    such as a text with an escape: then the value is parsed and tested.
    """

    holds: Callable[[Any], bool]
    name: str
    schema: Mapping[str, Any]
    pattern: bytes


def is_time(value: object) -> bool:
    """Whether a value is the canonical text of a time that a record can have."""
    try:
        return type(value) is str and when.canonical(value) == value
    except (ValueError, OverflowError):
        return False


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < MOST


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -MOST < value < MOST  # type: ignore[operator]


def _map_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A test for an object of names whose values are of a type."""
    return lambda value: type(value) is dict and all(map(holds, value.values()))


_TEXT = {"type": "string", "maxLength": events.LONGEST}
_DATE = {"type": "string", "format": "date-time"}
_WHOLE = {"type": "integer", "minimum": 0, "maximum": MOST - 1}
_DECIMAL = {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,18})?$"}
# Bytes that stand for themselves in a JSON string.
PLAIN = rb"[ !#-\[\]-\xff]"
_TEXT_BYTES = rb'"' + PLAIN + b'{0,%d}+"' % events.LONGEST
_WHOLE_BYTES = rb"(?:0|[1-9][0-9]{0,14}+)"
_DAY_BYTES = (  # without February 29
    rb"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
TIME_BYTES = rb'"20[0-9][0-9]-' + _DAY_BYTES + rb'T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z"'
_NUMBER_BYTES = _WHOLE_BYTES + rb"(?:\.[0-9]{1,17}+)?+"


def _map_bytes(value: bytes, name: bytes = _TEXT_BYTES) -> bytes:
    entry = name + b":" + value
    return rb"\{(?:" + entry + rb"(?:," + entry + rb")*+)?+\}"


TEXT = Type(lambda value: type(value) is str, "text", _TEXT, _TEXT_BYTES)
# Of a machine or a user. What such a name must not be is refused at the doors (name_fault); in the log it ends no report.
LONGEST_NAME = 100
_NAME_BYTES = rb'"(?! )(?:[ !#-\[\]-~]|[\xc3-\xc5][\x80-\xbf]){1,%d}+(?<! )"' % LONGEST_NAME
NAME = Type(TEXT.holds, "text", {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}, _NAME_BYTES)
TIME = Type(is_time, "a time such as 2026-11-21T09:30:00.120Z", _DATE, TIME_BYTES)
COUNT = Type(_is_count, "a count (a whole number from 0 to 2^53)", _WHOLE, _WHOLE_BYTES)
WHOLE = Type(
    lambda value: type(value) is int and -MOST < value < MOST,
    "a whole number",
    {"type": "integer", "minimum": 1 - MOST, "maximum": MOST - 1},
    rb"-?+" + _WHOLE_BYTES,
)
SHARE = Type(
    lambda value: _is_number(value) and value >= 0, "a number from 0", {"type": "number", "minimum": 0}, _NUMBER_BYTES
)
NUMBER = Type(_is_number, "a number", {"type": "number"}, rb"-?+" + _NUMBER_BYTES)
MINUTES = Type(
    lambda value: _is_number(value) and 0 < value <= MOST_MINUTES,
    "a number of minutes up to ten years",
    {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_MINUTES},
    rb"[1-9][0-9]{0,5}+",
)
FLAG = Type(lambda value: type(value) is bool, "true or false", {"type": "boolean"}, rb"(?:true|false)")
MONEY = Type(
    lambda value: type(value) is str and bool(_MONEY.match(value)),
    "a decimal number as text",
    _DECIMAL,
    rb'"-?+[0-9]{1,12}+(?:\.[0-9]{1,18}+)?+"',
)
_is_counts = _map_of(_is_count)
COUNTS = Type(
    _is_counts,
    "an object of counts",
    {"type": "object", "additionalProperties": _WHOLE},
    _map_bytes(_WHOLE_BYTES),
)
# Causes are names such as `result Bash|npm test`, not words of a person.
_CAUSE = r"[a-z][a-z_]{0,39}( [!-~]{1,128}( [!-~]{1,40})?)?"
_CAUSE_WHOLE = light.pattern(_CAUSE)
_CAUSE_BYTES = rb'"[a-z][a-z_]{0,39}+(?: [!#-\[\]-~]{1,128}+(?: [!#-\[\]-~]{1,40}+)?+)?+"'


@functools.lru_cache(1024)
def _is_cause(name: str) -> bool:
    return _CAUSE_WHOLE.fullmatch(name) is not None


SIZES = Type(
    lambda value: _is_counts(value) and all(map(_is_cause, value)),
    "an object of sizes by cause",
    {"type": "object", "additionalProperties": False, "patternProperties": {f"^{_CAUSE}$": _WHOLE}},
    _map_bytes(_WHOLE_BYTES, _CAUSE_BYTES),
)
TIMES = Type(
    _map_of(is_time), "an object of times", {"type": "object", "additionalProperties": _DATE}, _map_bytes(TIME_BYTES)
)
VERSION = Type(
    lambda value: type(value) is int and value == events.VERSION,
    str(events.VERSION),
    {"const": events.VERSION},
    str(events.VERSION).encode(),
)


def _all(type_: Type, *names: str) -> dict[str, Type]:
    return dict.fromkeys(names, type_)


# The fields that a record of any kind may have.
COMMON: dict[str, Type] = {
    **_all(TEXT, "kind", "id", "alias", *events.ATTRIBUTION, *events.USAGE, *events.TAGS),
    **_all(NAME, *events.OWNER),
    **_all(COUNT, "revision", *events.SUMS),
    **_all(FLAG, "sidechain", "provider_inferred"),
    "v": VERSION,
    "ts": TIME,
    "cost_usd": MONEY,
}
# Those of each kind beside them.
OF_KIND: dict[str, dict[str, Type]] = {
    "turn": {
        **_all(TEXT, "error", "path", "credential"),
        # A clock that is set back makes a latency negative.
        **_all(WHOLE, "status", "latency_ms", "ttft_ms"),
        **_all(FLAG, events.USAGE_SIDECHAIN, events.USAGE_UNREVISED, events.TS_UNREVISED),
    },
    "usage": {
        **_all(TIME, "until", "observed_at"),
        **_all(TEXT, "bucket", "caveat"),
        "amount_usd": MONEY,
        "total_tokens": COUNT,
    },
    "meter": {
        **_all(TEXT, "window", "scope", "status", "plan"),
        **_all(TIME, "resets_at", "observed_at"),
        **_all(MONEY, "used_usd", "limit_usd", "balance_usd"),
        "window_minutes": MINUTES,
        "used": SHARE,
        "balance": NUMBER,
    },
    "work": {"counts": COUNTS, "times": TIMES},
    "context": {
        **_all(TEXT, "turn", "chain", "parent", "event", "miss", "version", "toolset", "changed"),
        **_all(SIZES, "entered", "produced", "parts", "tools"),
        "prefix": COUNT,
    },
    "task": _all(TEXT, "task", "event", "title", "branch", "commit", "path"),
    "saving": {**_all(TEXT, "by", "path"), "saved_tokens": COUNT, "saved_usd": MONEY},
    "ping": _all(TEXT, "tool"),
}
TABLE = {kind: COMMON | OF_KIND[kind] for kind in events.KINDS}
# Identities are made of several names (events.LONGEST).
LONGER = {"project": 255, **dict.fromkeys(("id", "alias", "agent_id", "workflow_id", "turn", "parent"), 600)}


def schema() -> dict[str, Any]:
    """The record as a JSON Schema, a branch for each kind."""
    branches = []
    for kind, types in TABLE.items():
        fields: dict[str, Any] = {name: dict(types[name].schema) for name in sorted(types)}
        fields["kind"] = {"const": kind}
        for name in LONGER.keys() & types.keys():
            fields[name]["maxLength"] = LONGER[name]
        need = {"required": ["v", "ts", "kind", "id"], "additionalProperties": False}
        branches.append({"type": "object", "properties": fields, **need})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "TokenOps event", "oneOf": branches}


def fault(record: object) -> str:
    """Why the log does not accept a record, in a sentence; "" if it does. Nothing in it is quoted."""
    if not isinstance(record, dict):
        return f"expected a JSON object, found {jsonl.type_name(record)}"
    kind = record.get("kind")
    types = TABLE.get(kind) if type(kind) is str else None
    if types is None:
        return f"kind is {'missing' if kind is None else 'not known'}; expected one of {', '.join(events.KINDS)}"
    if not VERSION.holds(record.get("v")):
        return f"v is {'missing' if 'v' not in record else 'another version'}; this program writes version {events.VERSION}"
    for key, value in record.items():
        type_ = types.get(key)
        if type_ is None:
            return f"the field {_field_name(key)} is not known for kind {kind}; leave it out"
        if why := _misfit(key, value, type_) or _length(key, value):
            return why
    for key in ("ts", "id"):
        if not record.get(key):
            return f"{key} is missing"
    for key in events.OWNER:
        if key in record and (why := name_fault(record[key])):
            return f"{key} {why}"
    return ""


def name_fault(name: object) -> str:
    """Why a machine or a user cannot be called so, as the end of a sentence; "" if it can. The name is not quoted."""
    if type(name) is not str:
        return f"is {jsonl.type_name(name)}; expected text"
    if not name:
        return "is empty; leave it out"
    if len(name) > LONGEST_NAME:
        return f"has more than {LONGEST_NAME} characters"
    if not name.isprintable() or name != name.strip():
        return "has characters that cannot be printed, or blanks at its ends"
    return ""


_LABEL = light.pattern(r"[a-z][a-z0-9_]{0,39}\Z")


def _field_name(key: str) -> str:
    """A field's name for a message; only its length if it may be a person's words."""
    return repr(key) if _LABEL.match(key) else f"with a name of {len(key)} characters"


def _misfit(key: str, value: object, type_: Type) -> str:
    return "" if type_.holds(value) else f"{key} is {jsonl.value_name(value)}; expected {type_.name}"


def _length(key: str, value: object) -> str:
    """Why a field's text is too long, "" if it is not. A map is flat here: its type was checked before."""
    most = LONGER.get(key, events.LONGEST)
    texts = (value,) if type(value) is str else value if type(value) is dict else ()
    if any(len(text) > most for text in texts if type(text) is str):
        return f"{key} has more than {most} characters; longer text is not stored"
    if type(value) is dict and len(events.order_of(value)) > _MOST_BYTES:
        return f"{key} is too large"
    return ""


# Names by which things are told apart: what is cut off is kept as a digest.
_IDENTITIES = frozenset(("id", "alias", "agent_id", "workflow_id", "session_id", "turn", "parent"))


def fit(key: str, text: str) -> str:
    """A client's name as long as the log takes it: what one machine stores, another must be able to import."""
    most = LONGER.get(key, events.LONGEST)
    if len(text) <= most:
        return text
    end = f":{events.digest(text)}" if key in _IDENTITIES else ""
    return text[: most - len(end)] + end


def fit_all(record: Event) -> Event:
    """A record with its names as long as the log takes them."""
    for value in record.values():
        if type(value) is str and len(value) > events.LONGEST:
            break
    else:
        return record  # without a generator, which takes three times as long
    return {name: fit(name, value) if type(value) is str else value for name, value in record.items()}


def damage(record: Event) -> str:
    """Why a record that the log holds cannot be used, in a sentence; "" if it can.

    Fields that are not known may hold any single value, or a flat object or array of such.
    """
    kind = record.get("kind")
    types = TABLE.get(kind, COMMON) if type(kind) is str else COMMON
    for key in ("v", "ts", "kind", "id"):
        if key not in record:
            return f"{key} is missing"
    for key, value in record.items():
        type_ = types.get(key)
        if type_ is None:
            if not _is_flat(value):
                return f"the field {_field_name(key)} is nested"
        elif why := _misfit(key, value, type_):
            return why
    return ""


def are_sound(records: Sequence[Event]) -> bool:
    """Whether `damage` has nothing to say of some records, all of one kind; False says nothing.

    Types are compared field by field, of records with the same keys together, which takes a tenth of the time of comparing
    them record by record.
    """
    shapes: dict[tuple[str, ...], list[Event]] = {}
    for record in records:
        shapes.setdefault(tuple(record), []).append(record)
    types = TABLE.get(records[0]["kind"], {})
    if not all(shape >= _NEEDED and types.keys() >= shape for shape in map(frozenset, shapes)):
        return False
    return all(
        _are(types[key], values)
        for keys, alike in shapes.items()
        for key, values in zip(keys, zip(*map(dict.values, alike), strict=True), strict=True)
    )


_NEEDED = frozenset(("v", "ts", "kind", "id"))


def _are_counts(values: Sequence[Any]) -> bool:
    return not values or (set(map(type, values)) == {int} and min(values) >= 0 and max(values) < MOST)


def _are(type_: Type, values: Sequence[Any]) -> bool:
    """Whether values are of a type."""
    if type_ is TEXT or type_ is NAME:
        return set(map(type, values)) == {str}
    if type_ is COUNT:
        return _are_counts(values)
    if type_ is SIZES and set(map(type, values)) == {dict}:
        return _are_counts([size for sizes in values for size in sizes.values()]) and all(
            map(_is_cause, set().union(*values))
        )
    return all(map(type_.holds, values))


def _is_flat(value: Any) -> bool:
    if type(value) not in (dict, list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return not any(type(item) in (dict, list) for item in inner)
