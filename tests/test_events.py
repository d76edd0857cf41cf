"""The join of two sightings: associative, commutative, idempotent, whatever the sightings say."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from conftest import OWNERS, examples
from tokenops import events, joins

SIGHTING = st.fixed_dictionaries(
    {
        "v": st.just(1),
        "ts": st.sampled_from(["2026-03-01T09:00:00.000Z", "2026-03-01T09:00:00.001Z", "2026-02-28T23:59:59.999Z"]),
        "kind": st.just("turn"),
        "id": st.just("msg_1"),
        "source": st.sampled_from(["claude-code-jsonl", "proxy", "vendor-usage-anthropic"]),
        "model": st.sampled_from(["claude-opus-4-6", "claude-sonnet-5", "unknown"]),
        "turns": st.just(1),
    },
    optional={
        "input_tokens": st.integers(1, 3),
        "output_tokens": st.integers(1, 3),
        "sidechain": st.just(True),
        "usage": st.sampled_from(["unknown", "partial"]),
        "cost_usd": st.sampled_from(["0.5", "0.25"]),
        "session_id": st.sampled_from(["s1", "s2"]),
        "project": st.sampled_from(["app", "b"]),
        "latency_ms": st.integers(1, 3),
        "status": st.sampled_from([200, 429]),
        "later": st.sampled_from([[1], {"a": 2}, "x"]),
        "alias": st.sampled_from(["a1", "a2"]),
        "revision": st.sampled_from([1, 2, 3]),
        **OWNERS,
        **{name: st.sampled_from(["low", "high"]) for name in events.TAGS},
    },
)
METER = st.builds(
    lambda at, used, status, owner: (
        events.meter("statusline", "anthropic", at, window="five_hour", used=used, status=status) | {"id": "meter:1"} | owner
    ),
    st.sampled_from(["2026-03-01T09:00:00.000Z", "2026-03-01T09:04:00.000Z"]),
    st.sampled_from([0.25, 0.5]),
    st.sampled_from([None, "rejected"]),
    st.fixed_dictionaries({}, optional=OWNERS),
)
TOTAL = st.fixed_dictionaries(
    {
        "v": st.just(1),
        "ts": st.sampled_from(["2026-03-01T09:00:00.000Z", "2026-03-01T09:00:00.001Z"]),
        "kind": st.just("usage"),
        "id": st.just("usage:s1"),
        "source": st.sampled_from(["claude-code-jsonl", "droid"]),
        "covers": st.sampled_from([events.SESSION, events.REMAINDER]),
        "model": st.sampled_from(["a", "m", "z"]),
    },
    optional={"output_tokens": st.integers(1, 2), "revision": st.sampled_from([1, 2]), **OWNERS},
)


LATER = {
    "v": 1,
    "ts": "2026-03-01T09:00:00.000Z",
    "kind": "turn",
    "id": "msg_1",
    "source": "claude-code-jsonl",
    "turns": 1,
} | {"model": "unknown"}


def unowned(event: events.Event) -> events.Event:
    """An event without what it says of its machine and its user."""
    return {name: value for name, value in event.items() if name not in events.OWNER}


# A later program's revision, whose attribution is of a side chain and whose usage is not the one that counts.
@example(
    [LATER | {"revision": 2, "input_tokens": 1}, LATER | {"revision": 3, "sidechain": True}, LATER | {"source": "proxy"}]
)
@examples(400)
@given(st.one_of(*(st.lists(kind, min_size=3, max_size=3) for kind in (SIGHTING, METER, TOTAL))))
def test_laws(three: list[events.Event]) -> None:
    a, b, c = three
    join = joins.join
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) == events.arrange(a) or a["kind"] != "turn"
    assert join(join(a, b), b) == join(a, b)
    for name in events.OWNER:  # no name is lost, and whose a sighting is decides about nothing else
        names = [event[name] for event in (a, b) if name in event]
        assert join(a, b).get(name) == min(names, key=str.encode, default=None)
    assert unowned(join(a, b)) == unowned(join(unowned(a), unowned(b)))


@given(st.lists(SIGHTING, min_size=2, max_size=4))
def test_any_order_gives_the_same(sightings: list[events.Event]) -> None:
    results = [list(joins.join_all(order)) for order in itertools.permutations(sightings)]
    assert all(result == results[0] for result in results)
    assert len(results[0]) == 1


def sighting(**given_keys: Any) -> events.Event:
    base = {"v": 1, "ts": "2026-03-01T09:00:00.000Z", "kind": "turn", "id": "x", "source": "claude-code-jsonl", "turns": 1}
    return base | {"model": "m", "output_tokens": 5} | given_keys


CASES = [
    ("known beats unknown", {"usage": "unknown"}, {"output_tokens": 1}, {"output_tokens": 1}),
    (
        "partial beats unknown",
        {"usage": "unknown", "output_tokens": 9},
        {"usage": "partial"},
        {"usage": "partial", "output_tokens": 5},
    ),
    ("parent beats side chain", {"sidechain": True, "output_tokens": 9}, {}, {"output_tokens": 5}),
    ("larger output", {"output_tokens": 6}, {"input_tokens": 900}, {"output_tokens": 6}),
    ("a reported cost", {"cost_usd": "0.1", "cost_source": "reported"}, {"input_tokens": 9}, {"cost_usd": "0.1"}),
    ("larger sum", {"input_tokens": 9}, {"input_tokens": 8}, {"input_tokens": 9}),
    ("a named model", {"model": "unknown", "output_tokens": 9}, {}, {"model": "m"}),
    (
        "earliest time",
        {"ts": "2026-03-01T08:00:00.000Z"},
        {"output_tokens": 9},
        {"ts": "2026-03-01T08:00:00.000Z", "output_tokens": 9},
    ),
    (
        "the client's log knows the project",
        {"source": "proxy", "output_tokens": 9},
        {"project": "app"},
        {"project": "app", "output_tokens": 9},
    ),
    (
        "what only the proxy knows stays",
        {"source": "proxy", "latency_ms": 90, "ttft_ms": 8},
        {},
        {"latency_ms": 90, "ttft_ms": 8},
    ),
]


OLD, NEW = {"session_id": "s9", "ts": "2026-03-01T08:59:00.000Z", "output_tokens": 9, "alias": "z"}, {"revision": 2}


def test_a_newer_revision_of_a_reader_replaces_what_an_older_one_gave() -> None:
    """In every block, even by what would lose by itself: a later time, fewer tokens, no alias."""
    old, new = sighting(**OLD, branch="b"), sighting(**NEW, usage="partial", sidechain=True)
    wire = sighting(source="proxy", output_tokens=0, ts="2026-03-01T08:59:59.000Z", latency_ms=9, usage="unknown")
    assert joins.join(old, new) == events.arrange(new)
    for order in itertools.permutations((old, new, wire)):
        assert functools.reduce(joins.join, order) == joins.join(new, wire)
    assert joins.join(new, wire) | {"latency_ms": 0} == events.arrange(
        new | {"ts": wire["ts"], "ts_unrevised": True, "latency_ms": 0}
    )


def test_what_only_an_older_revision_knows_stays() -> None:
    old = sighting(**OLD)
    assert joins.join(old, sighting(source="proxy", usage="unknown"))["output_tokens"] == 9
    known = joins.join(old, sighting(source="proxy", output_tokens=6))
    assert (known["output_tokens"], known["session_id"], known["usage_unrevised"]) == (6, "s9", True)


def test_rounds_and_totals_of_an_older_revision_are_replaced() -> None:
    for kind, more in (("work", {"counts": {"tools": 1}, "times": {}}), ("usage", {"covers": "session"})):
        old = (
            sighting(kind=kind, output_tokens=9, **more) | {"counts": {"tools": 2}}
            if kind == "work"
            else sighting(kind=kind)
        )
        new = sighting(kind=kind, **NEW, **more)
        assert joins.join(old, new) == joins.join(new, old) == events.arrange(new)


def test_cases() -> None:
    for name, one, other, expected in CASES:
        joined = joins.join(sighting(**one), sighting(**other))
        assert {key: joined.get(key) for key in expected} == expected, name


def test_the_usage_of_a_side_chain_stays_one_in_a_joined_record() -> None:
    side = sighting(sidechain=True, output_tokens=5)
    unknown = sighting(usage="unknown", output_tokens=0)
    joined = joins.join(side, unknown)
    assert (joined["output_tokens"], joined.get("sidechain"), joined["usage_sidechain"]) == (5, None, True)
    assert joins.join(joined, sighting(sidechain=True, output_tokens=7))["output_tokens"] == 7
    assert "usage_sidechain" not in joins.join(joined, sighting(output_tokens=3))


def test_readings_of_one_five_minutes_are_one_with_the_latest_time() -> None:
    first = events.meter("statusline", "anthropic", "2026-03-01T09:00:10.000Z", window="weekly", used=0.5)
    again = events.meter("statusline", "anthropic", "2026-03-01T09:04:59.000Z", window="weekly", used=0.5)
    later = events.meter("statusline", "anthropic", "2026-03-01T09:05:00.000Z", window="weekly", used=0.5)
    assert first["id"] == again["id"] != later["id"]
    assert joins.join(again, first)["observed_at"] == "2026-03-01T09:04:59.000Z"


def test_sightings_that_share_no_id_are_named_alike_whatever_the_log_lacks() -> None:
    """Kimi Code and Vibe keep no reasoning, and requests of Copilot CLI do not name their session."""
    counts = {"input_tokens": 5, "cache_read_tokens": 4, "output_tokens": 3}
    for client in ("kimi-cli", "mistral-vibe"):
        assert events.alias_of(client, "s1", counts) == events.alias_of(client, "s1", counts | {"reasoning_tokens": 2})
    assert events.alias_of("kimi-cli", "s1", counts) != events.alias_of("kimi-cli", "s2", counts)
    assert events.alias_of("copilot-cli", "s1", counts) == events.alias_of("copilot-cli", "", counts)


def test_of_equal_counts_those_that_tell_more_apart_are_taken() -> None:
    """A log may keep cache writes inside the input, and no reasoning; the wire has both."""
    base = {"v": 1, "kind": "turn", "id": "resp_1", "ts": "2026-03-01T09:00:00.000Z", "model": "gpt-5.4", "turns": 1}
    log = base | {"source": "pi", "client": "pi", "revision": 2, "input_tokens": 4538, "output_tokens": 206}
    wire = base | {"source": "proxy", "client": "openai", "input_tokens": 12, "cache_write_tokens": 4526}
    wire |= {"output_tokens": 206, "reasoning_tokens": 42}
    for both in (joins.join(log, wire), joins.join(wire, log)):
        assert (both["input_tokens"], both["cache_write_tokens"], both["reasoning_tokens"]) == (12, 4526, 42)
        assert (both["client"], both["source"]) == ("pi", "pi")
