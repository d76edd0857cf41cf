"""Adds and compares the totals that Codex states: of a thread, of a request, of a run of `codex exec`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenops import events, fields, jsonl

# Input (cached and written inside), cached, output (reasoning inside), reasoning, written to a cache (since 0.140).
Totals = tuple[int, int, int, int, int]
NOTHING: Totals = (0, 0, 0, 0, 0)


def totals_of(usage: object) -> Totals | None:
    """The totals of a usage object; None if it has none. Raises BadRecord."""
    if type(usage) is not dict:
        return None
    get: Callable[..., Any] = usage.get
    a, b, c, d = get("input_tokens"), get("cached_input_tokens"), get("output_tokens"), get("reasoning_output_tokens")
    e = get("cache_write_input_tokens", 0)
    if type(a) is type(b) is type(c) is type(d) is type(e) is int and 0 <= a | b | c | d | e < fields.MOST:
        return a, b, c, d, e  # all of nearly all; a power of 2 bounds the bits of all at once
    read = usage.get("cached_input_tokens", usage.get("cache_read_input_tokens"))
    wrote = usage.get("cache_write_input_tokens")
    values = (usage.get("input_tokens"), read, usage.get("output_tokens"), usage.get("reasoning_output_tokens"), wrote)
    if all(value is None for value in values):
        return None
    for value in values:
        if value is not None and (type(value) is not int or not 0 <= value < fields.MOST):
            raise events.BadRecord(f"token usage holds {jsonl.value_name(value)}; expected counts")
    a, b, c, d, e = (value or 0 for value in values)
    return a, b, c, d, e


def add(a: Totals, b: Totals) -> Totals:
    """The sum of two totals."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4]


def subtract(a: Totals, b: Totals) -> Totals:
    """What one of two totals has more than the other, nothing where it has less."""
    return of_cursor([max(more - less, 0) for more, less in zip(a, b, strict=True)])


def counts_of(used: Totals) -> dict[str, Any]:
    """The record's disjoint counts: cached and written are inside input, reasoning inside output."""
    sent, cached, output, reasoning, wrote = used
    cached, reasoning, wrote = min(cached, sent), min(reasoning, output), min(wrote, sent - min(cached, sent))
    counts = {
        "input_tokens": sent - cached - wrote,
        "cache_read_tokens": cached,
        "cache_write_tokens": wrote,
        "output_tokens": output,
        "reasoning_tokens": reasoning,
    }
    return {name: count for name, count in counts.items() if count}


def of_cursor(totals: list[int]) -> Totals:
    """Totals out of a cursor; an older one did not know what was written to a cache."""
    a, b, c, d, *more = totals
    return a, b, c, d, more[0] if more else 0
