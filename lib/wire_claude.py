"""Turns usage objects of Anthropic's Messages API, as in transcripts and on the wire, into token counts."""

from __future__ import annotations

from typing import Any

from tokenops import events, fields, jsonl

# Iterations of one message; recorded ones have up to four.
_MOST_ITERATIONS = 1000
_NOT_SERVED = (None, "standard", "not_available", "", "global", "default", "auto")
Raw = dict[str, Any]


_COUNTS = (
    ("input_tokens", "input_tokens"),
    ("cache_read_input_tokens", "cache_read_tokens"),
    ("output_tokens", "output_tokens"),
)


_WRITES = (("ephemeral_5m_input_tokens", "cache_write_tokens"), ("ephemeral_1h_input_tokens", "cache_write_1h_tokens"))

_FLAT_WRITES = (("cache_creation_input_tokens", "cache_write_tokens"),)

_THINKING = (("thinking_tokens", "reasoning_tokens"),)

_SEARCHES = (("web_search_requests", "web_searches"),)


def _add_counts(counts: dict[str, int], holder: object, names: tuple[tuple[str, str], ...]) -> None:
    """Add the counts of an object that are not 0. Raises BadRecord."""
    if type(holder) is dict:
        for theirs, ours in names:
            if value := holder.get(theirs):
                counts[ours] = value if type(value) is int and 0 < value < fields.MOST else _count(value, theirs)


def _count(value: object, name: str) -> int:
    if type(value) is float and 0 < value < fields.MOST and value.is_integer():
        return int(value)
    raise events.BadRecord(f"usage.{name} is {jsonl.value_name(value)}; expected a count")


def counts_of(usage: Raw) -> dict[str, int]:
    """The record's counts of one usage object, without zeros. Raises BadRecord."""
    counts: dict[str, int] = {}
    _add_counts(counts, usage, _COUNTS)
    _add_counts(counts, usage, _FLAT_WRITES)
    if flat := counts.pop(_FLAT_WRITES[0][1], 0):
        _add_counts(counts, usage.get("cache_creation"), _WRITES)
        # The split comes when a message starts, the sum at its end: what tools wrote between is of the base class.
        if more := flat - sum(counts.get(ours, 0) for _, ours in _WRITES):
            counts["cache_write_tokens"] = counts.get("cache_write_tokens", 0) + max(more, 0)
    else:
        _add_counts(counts, usage.get("cache_creation"), _WRITES)
    _add_counts(counts, usage.get("output_tokens_details"), _THINKING)
    _add_counts(counts, usage.get("server_tool_use"), _SEARCHES)
    return counts


def parts_of(usage: Raw, model: str) -> list[tuple[str, dict[str, int]]]:
    """Models and counts of one usage object: the message's own first, then each iteration that another one served.

    The top level leaves compaction out, advisors too, and after a fallback it is the last attempt only; `iterations`
    has them all (recorded traffic, 2026). Raises BadRecord.
    """
    top = counts_of(usage)
    listed = usage.get("iterations")
    if not listed or type(listed) is not list:
        return [(model, top)]
    if len(listed) > _MOST_ITERATIONS:
        raise events.BadRecord(f"usage.iterations holds {len(listed)} objects; expected fewer than {_MOST_ITERATIONS}")
    own: dict[str, int] = {}
    parts = [(model, own)]
    for item in listed:
        if type(item) is not dict:
            raise events.BadRecord(f"usage.iterations holds {jsonl.type_name(item)}; expected objects")
        counts = counts_of(item)
        served = item.get("model") or model
        if served != model and type(served) is str:
            parts.append((served, counts))
        else:
            for name, count in counts.items():
                own[name] = own.get(name, 0) + count
    if sum(events.token_sum(counts) for _, counts in parts) < events.token_sum(top):
        parts[0] = (model, top)
    else:  # searches and thinking are given at the top level only
        parts[0] = (model, {**{k: v for k, v in top.items() if k not in events.TOKENS}, **own})
    return parts


def label_of(value: object) -> str:
    """A served tier or geo as recorded; "" for the ordinary one and for anything that is not a label."""
    if value in _NOT_SERVED or type(value) is not str or len(value) > 24 or not value.isascii():
        return ""
    return value if value.replace("-", "").replace("_", "").isalnum() else ""
