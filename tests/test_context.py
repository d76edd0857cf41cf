"""The law of context: causes add up to the recorded tokens and to the cost, and a second, naive reading gives the same."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, examples
from tokenops import answers, context, context_breaks, context_costs, events, pricing, when

CATALOGUE = pricing.load()
AT = when.moment("2026-11-21T09:00:00.000Z")
CLASSES = ("cache_read_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens", "cache_write_tokens", "input_tokens")
Chain = tuple[dict[str, Json], dict[str, Json]]


def turn(name: str, minutes: float = 0, read: int = 0, write: int = 0, sent: int = 0, output: int = 0, **more: Any) -> Json:
    """A turn; counts that are 0 are left out, as in records."""
    counts = {"cache_read_tokens": read, "cache_write_tokens": write, "input_tokens": sent, "output_tokens": output}
    about = {"client": "claude-code", "session_id": "s1", "provider": "anthropic", "model": "claude-opus-4-8", "turns": 1}
    record = {"v": 1, "ts": when.stamp(AT + round(minutes * 60_000)), "kind": "turn", "id": name, **about, **counts, **more}
    return {key: value for key, value in record.items() if value not in (0, None)}


def sizes(name: str, parent: str | None = None, **more: Any) -> Json:
    """A record of kind context."""
    record = {"v": 1, "kind": "context", "id": f"context:{name}", "turn": name, "parent": parent, **more}
    return {key: value for key, value in record.items() if value is not None}


def chain(*records: Json) -> Chain:
    """Turns and records of kind context, each by the turn's id."""
    turns = {record["id"]: record for record in records if record["kind"] == "turn"}
    return turns, context.by_turn(record for record in records if record["kind"] == "context")


def by_cause(share: context.Shares) -> dict[tuple[str, str, str], int]:
    """Kind, class and cause -> tokens."""
    sums: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for part in share.parts:
        for cause, count in part.tokens.items():
            sums[part.kind, part.name, cause] += count
    return dict(sums)


def kinds(share: context.Shares) -> dict[str, dict[str, int]]:
    """Kind -> cause -> tokens."""
    sums: dict[str, dict[str, int]] = {}
    for (kind, _, cause), count in by_cause(share).items():
        mine = sums.setdefault(kind, {})
        mine[cause] = mine.get(cause, 0) + count
    return sums


# A second reading of the law, as short and naive as can be: a prompt is a list with the cause of every single token.


def shared_out(total: int, items: list[tuple[str, int]]) -> list[str]:
    """A cause for each of some tokens, by size, with the largest remainder."""
    whole = sum(size for _, size in items)
    quotas = [total * size // whole for _, size in items]
    order = sorted(range(len(items)), key=lambda at: (-(total * items[at][1] % whole), at))
    for at in order[: total - sum(quotas)]:
        quotas[at] += 1
    return [cause for (cause, _), quota in zip(items, quotas, strict=True) for _ in range(quota)]


ORDER = ["reply", "call", "result", "attachment", "summary", "prompt"]


def in_order(items: Mapping[str, int]) -> list[tuple[str, int]]:
    some = [(cause, size) for cause, size in items.items() if size]
    return sorted(some, key=lambda item: (ORDER.index(item[0].split()[0]) if item[0] != "image" else 3, item[0]))


def before_records(turns: dict[str, Json], records: dict[str, Json]) -> list[str]:
    """The turns of main chains that are from before there were records, by time."""
    main = sorted((name for name in turns if not turns[name].get("sidechain")), key=lambda name: (turns[name]["ts"], name))

    def is_late(at: int) -> bool:
        return any(
            name in records and turns[name].get("session_id") == turns[main[at]].get("session_id") for name in main[:at]
        )

    return [name for at, name in enumerate(main) if name not in records and not is_late(at) and "#" not in name]


def naive(turns: dict[str, Json], records: dict[str, Json]) -> dict[str, dict[tuple[str, str, str], int]]:
    """Turn -> kind, class and cause -> tokens."""
    memory: dict[str, Any] = {}
    early = before_records(turns, records)
    caching = {
        (one.get("session_id"), one.get("provider")) for one in turns.values() if any(name in one for name in CLASSES[:4])
    }

    def parent(name: str) -> str | None:
        if name in records:
            return records[name].get("parent") if records[name].get("parent") in turns else None
        before = early[: early.index(name)] if name in early else []
        same = [other for other in before if turns[other].get("session_id") == turns[name].get("session_id")]
        return same[-1] if same else None

    def prompt(name: str) -> tuple[list[str] | None, int, dict[str, int], bool]:
        """The cause of each token of the prompt, how many were there before, what else the next turn adds, if compacted."""
        if name not in memory:
            memory[name] = fresh(name)
        result: tuple[list[str] | None, int, dict[str, int], bool] = memory[name]
        return result

    def fresh(name: str) -> tuple[list[str] | None, int, dict[str, int], bool]:
        one, record = turns[name], records.get(name, {})
        size = sum(one.get(each, 0) for each in CLASSES)
        own, above = dict(record.get("produced", {})), parent(name)
        before, _, waiting, compacted = prompt(above) if above else (None, 0, {}, False)
        if above is None and name not in records and name not in early:
            before = []
        compacted = compacted or record.get("event") == "compaction"
        items = collections.Counter(waiting)
        items.update(record.get("entered", {}))
        if not size:
            items.update(own)
            return before, 0, dict(items), compacted and before is not None
        thinking = items.pop("thinking", 0)
        if before is None:
            return ["base"] * size, 0, own, False
        if compacted:
            return ["summary"] * size, 0, own, False
        if size >= len(before):
            ordered = in_order(items) or ([("thinking", thinking)] if thinking else [("unexplained", 1)])
            return before + shared_out(size - len(before), ordered), len(before), own, False
        results = [at for at, cause in enumerate(before) if cause.startswith("result ")]
        fall = len(before) - size
        if fall > len(results) and size * 2 <= len(before):
            return ["summary"] * size, 0, own, False
        cleared = set(results[:fall])
        return [cause for at, cause in enumerate(before) if at not in cleared][:size], size, own, False

    result = {}
    for name, one in turns.items():
        causes, old, _, _ = prompt(name)
        sums: collections.Counter[tuple[str, str, str]] = collections.Counter()
        stated = (one.get("session_id"), one.get("provider")) in caching
        at = 0
        for cls in CLASSES:
            for _ in range(one.get(cls, 0)):
                kind = (
                    "carrying" if cls == CLASSES[0] or (at < old and not stated) else "rewriting" if at < old else "entering"
                )
                assert causes is not None
                sums[kind, cls, causes[at]] += 1
                at += 1
        output, produced = one.get("output_tokens", 0), dict(records.get(name, {}).get("produced", {}))
        thought = min(one.get("reasoning_tokens", 0), output)
        sizes_of = {cause: size for cause, size in produced.items() if cause != "thinking"}
        items = in_order(sizes_of) or [("thinking" if produced.get("thinking") and not thought else "reply", 1)]
        for cause in ["thinking"] * thought + shared_out(output - thought, items):
            sums["producing", "output_tokens", cause] += 1
        result[name] = dict(sums)
    return result


# Chains at random: rewinds, forks, parents that are missing, falls, compactions, unknown counts, turns without a record.

ENTERED = ["prompt", "result Read", "result Bash|npm test", "result mcp__hub__find", "attachment", "image", "summary"]
PRODUCED = ["reply", "thinking", "call Read", "call Bash|npm test"]
MODELS = [
    ("anthropic", "claude-opus-4-8"),
    ("anthropic", "claude-haiku-4-5"),
    ("openai", "gpt-5.5"),
    ("gemini", "gemini-3.1-flash-lite"),
    ("perplexity", "sonar-deep-research"),
    ("nobody", "no-such-model"),
]


def maps(names: list[str]) -> st.SearchStrategy[dict[str, int]]:
    return st.dictionaries(st.sampled_from(names), st.integers(0, 60), max_size=4)


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    count = draw(st.integers(1, 9))
    records: list[Json] = []
    cached = draw(st.booleans())
    for number in range(count):
        provider, model = draw(st.sampled_from(MODELS))
        more: Json = {"provider": provider, "model": model, "session_id": draw(st.sampled_from(["s1", "s1", "s2"]))}
        more["sidechain"] = draw(st.sampled_from([None, None, True]))
        small = st.integers(0, 40) if draw(st.integers(0, 5)) else st.just(0)
        if cached:
            more |= {"cache_write_1h_tokens": draw(small), "cache_write_12h_tokens": draw(small)}
        output = draw(small)
        more["reasoning_tokens"] = draw(st.sampled_from([0, 0, output // 2, output]))
        more |= draw(
            st.sampled_from(
                [
                    {},
                    {},
                    {"cost_usd": "0.0123456789012345", "cost_source": "reported"},
                    {"cost_usd": "0.5", "cost_source": "client"},
                    {"web_searches": 2, "citation_tokens": 5},
                    {"audio_input_tokens": 3, "input_tokens": 7, "usage": "partial"},
                ]
            )
        )
        counts = (draw(small) if cached else 0, draw(small) if cached else 0, draw(small), output)
        name = f"t{number}" if draw(st.integers(0, 6)) else f"t{number}#2"
        records.append(turn(name, draw(st.integers(0, 40)), *counts) | {key: value for key, value in more.items() if value})
        if draw(st.integers(0, 4)):
            others = [record["id"] for record in records if record["kind"] == "turn" and record["id"] != name]
            parent = draw(st.sampled_from([None, "nobody", *others]))
            event = draw(st.sampled_from([None, None, None, "compaction"]))
            maps_of = {"entered": draw(maps(ENTERED)), "produced": draw(maps(PRODUCED))}
            records.append(sizes(name, parent, event=event, **maps_of))
    return chain(*records)


@given(chains())
@examples(120)
def test_two_readings_of_the_law_agree(every: Chain) -> None:
    mine = {share.turn["id"]: by_cause(share) for share in context.shares(*every)}
    assert mine == naive(*every)


@given(chains(), st.integers(1, 60))
def test_segments_apart_change_no_sum(every: Chain, apart: int) -> None:
    for share, other in zip(context.shares(*every), context.shares(*every, apart), strict=True):
        sums: collections.Counter[tuple[str, str, str]] = collections.Counter()
        for (kind, name, cause), count in by_cause(other).items():
            sums[kind, name, context.segment_of(cause)[0]] += count
        assert dict(sums) == by_cause(share)


@given(chains())
@examples(120)
def test_causes_add_up_to_the_tokens_of_each_class(every: Chain) -> None:
    shares = list(context.shares(*every))
    assert sorted(share.turn["id"] for share in shares) == sorted(every[0])
    for share in shares:
        sums: collections.Counter[str] = collections.Counter()
        for part in share.parts:
            assert min(part.tokens.values(), default=1) > 0
            sums[part.name] += sum(part.tokens.values())
        assert dict(sums) == {name: share.turn[name] for name in events.TOKENS if share.turn.get(name)}


def cost_of(records: Iterable[Json]) -> tuple[Decimal, list[str]]:
    """What tok-cost says of some records, and which have no price."""
    spent = answers.spend_of_records(records, CATALOGUE, when.UTC, ())
    unpriced = [str(item.get("model")) for row in spent.rows for item in row.get("unpriced", ())]
    return Decimal(spent.total.get("cost_usd", "0")), unpriced


def cost_by_cause(shares: Iterable[context.Shares]) -> dict[str, context_costs.Line]:
    bill = context_costs.Bill(CATALOGUE)
    for share in shares:
        bill.add(share)
    return bill.lines()


@given(chains())
@examples(120)
def test_costs_of_causes_add_up_to_the_cost(every: Chain) -> None:
    shares = list(context.shares(*every))
    for some in (shares, *([share] for share in shares)):
        lines = cost_by_cause(some)
        usd, unpriced = cost_of(share.turn for share in some)
        assert context_costs.total(line.usd or Decimal(0) for line in lines.values()) == usd
        assert unpriced or not any(line.unpriced for line in lines.values())
        tokens = sum(sum(line.tokens.values()) for line in lines.values())
        assert tokens == sum(events.token_sum(share.turn) for share in some)


# What a chain does, case by case: what enters, what is carried, and what is written again.


def law(*records: Json) -> list[dict[str, dict[str, int]]]:
    return [kinds(share) for share in context.shares(*chain(*records))]


def test_growth_is_shared_by_size_and_the_rest_is_carried() -> None:
    first, second = law(
        turn("a", 0, 0, 1000, 10, 50),
        sizes("a", produced={"reply": 100, "call Read": 50}, entered={"prompt": 9}),
        turn("b", 1, 1000, 300, 10, 20),
        sizes("b", "a", entered={"result Read": 850}),
    )
    assert first == {"entering": {"base": 1010}, "producing": {"reply": 33, "call Read": 17}}
    assert second == {
        "carrying": {"base": 1000},
        "rewriting": {"base": 10},
        "entering": {"reply": 30, "call Read": 15, "result Read": 255},
        "producing": {"reply": 20},
    }


def test_a_rewind_goes_on_from_the_older_turn() -> None:
    *_, last = law(
        turn("a", 0, 0, 100),
        sizes("a"),
        turn("b", 1, 100, 900),
        sizes("b", "a", entered={"result Read": 5}),
        turn("c", 2, 100, 40),
        sizes("c", "a", entered={"prompt": 5}),
    )
    assert last == {"carrying": {"base": 100}, "entering": {"prompt": 40}}


def test_a_fork_carries_what_the_copied_turn_had() -> None:
    *_, last = law(
        turn("a", 0, 0, 100),
        sizes("a"),
        turn("b", 1, 100, 40, session_id="s2"),
        sizes("b", "a", entered={"prompt": 5}),
    )
    assert last == {"carrying": {"base": 100}, "entering": {"prompt": 40}}


def test_a_compaction_replaces_all() -> None:
    *_, after, grown = law(
        turn("a", 0, 0, 100),
        sizes("a"),
        turn("b", 1, 20, 40),
        sizes("b", "a", event="compaction", entered={"summary": 5}),
        turn("c", 2, 60, 10),
        sizes("c", "b", entered={"prompt": 5}),
    )
    assert after == {"carrying": {"summary": 20}, "entering": {"summary": 40}}
    assert grown == {"carrying": {"summary": 60}, "entering": {"prompt": 10}}


def test_a_fall_removes_the_oldest_results() -> None:
    *_, last = law(
        turn("a", 0, 0, 100),
        sizes("a"),
        turn("b", 1, 100, 50),
        sizes("b", "a", entered={"result Read": 5}),
        turn("c", 2, 150, 50),
        sizes("c", "b", entered={"result Bash|other": 5}),
        turn("d", 3, 100, 30),
        sizes("d", "c", entered={"prompt": 7}),
    )
    assert last == {"carrying": {"base": 100}, "rewriting": {"result Bash|other": 30}}


def test_growth_that_nothing_explains() -> None:
    *_, last = law(turn("a", 0, 0, 100), sizes("a"), turn("b", 1, 100, 7), sizes("b", "a"))
    assert last == {"carrying": {"base": 100}, "entering": {"unexplained": 7}}


def test_thinking_enters_only_if_nothing_else_does() -> None:
    first = turn("a", 0, 0, 100, output=9), sizes("a", produced={"thinking": 50})
    *_, alone = law(*first, turn("b", 1, 100, 7), sizes("b", "a"))
    assert alone["entering"] == {"thinking": 7}
    *_, beside = law(*first, turn("b", 1, 100, 7), sizes("b", "a", entered={"prompt": 1}))
    assert beside["entering"] == {"prompt": 7}


def test_without_cache_counts_nothing_breaks() -> None:
    *_, last = law(turn("a", sent=100), sizes("a"), turn("b", 1, sent=130), sizes("b", "a", entered={"prompt": 5}))
    assert last == {"carrying": {"base": 100}, "entering": {"prompt": 30}}


def test_unknown_counts_wait_for_the_next_turn() -> None:
    _, unknown, last = law(
        turn("a", 0, 0, 100),
        sizes("a"),
        turn("b", 1, usage="unknown"),
        sizes("b", "a", entered={"result Read": 10}, produced={"reply": 10}),
        turn("c", 2, 100, 40),
        sizes("c", "b", entered={"prompt": 20}),
    )
    assert unknown == {}
    assert last == {"carrying": {"base": 100}, "entering": {"reply": 10, "result Read": 10, "prompt": 20}}


def test_main_turns_without_a_record_follow_one_another_and_those_of_subagents_do_not() -> None:
    first, side, second = law(turn("a", 0, 0, 100), turn("b", 1, 60, 5, sidechain=True), turn("c", 2, 0, 130))
    assert first == {"entering": {"base": 100}}
    assert side == {"carrying": {"unexplained": 60}, "entering": {"unexplained": 5}}
    assert second == {"rewriting": {"base": 100}, "entering": {"unexplained": 30}}


def test_what_has_no_record_beside_a_chain_is_no_part_of_it() -> None:
    """A request that only the proxy saw, and an answer's part of another model, after the first record."""
    _, seen, part, last = law(
        turn("a", 0, 0, 100),
        sizes("a"),
        turn("b", 1, 0, 30),
        turn("a#2", 1.5, 0, 20),
        turn("c", 2, 100, 40),
        sizes("c", "a", entered={"prompt": 5}),
    )
    assert seen == {"entering": {"unexplained": 30}} and part == {"entering": {"unexplained": 20}}
    assert last == {"carrying": {"base": 100}, "entering": {"prompt": 40}}


def test_a_circle_of_parents_ends() -> None:
    shares = context.shares(*chain(turn("a", 0, 0, 10), sizes("a", "b"), turn("b", 1, 0, 20), sizes("b", "a")))
    assert sorted(share.turn["id"] for share in shares) == ["a", "b"]


def test_thinking_is_what_the_vendor_counted() -> None:
    (share,) = law(turn("a", output=100, reasoning_tokens=60), sizes("a", produced={"reply": 10, "call Read": 30}))
    assert share == {"producing": {"thinking": 60, "reply": 10, "call Read": 30}}
    (share,) = law(turn("a", output=100), sizes("a", produced={"reply": 10, "thinking": 30}))
    assert share == {"producing": {"reply": 100}}


def test_a_session_s_remainder_is_unlogged_and_searches_are_fees() -> None:
    rest = turn("usage:1", 0, 10, 5, 1, 7, kind="usage", covers="remainder", turns=0)
    lines = cost_by_cause([context.shares_of_total(rest), *context.shares(*chain(turn("a", 0, 0, 10, web_searches=3)))])
    assert lines["unlogged"].tokens == {"carrying": 10, "entering": 6, "producing": 7}
    assert lines["fees"].usd == Decimal("0.03") and lines["fees"].tokens == {}


def test_what_has_no_price_stays_unpriced_beside_what_has_one() -> None:
    turns = turn("a", 0, 0, 10), turn("b", 1, 0, 30, model="no-such-model", session_id="s2")
    line = cost_by_cause(context.shares(*chain(*turns)))["base"]
    assert line.usd == Decimal("0.0000625") and line.unpriced == 30 and line.tokens == {"entering": 40}
    assert cost_by_cause(context.shares(*chain(turns[1])))["base"].usd is None


# Cache breaks.


def breaks(*records: Json) -> list[context_breaks.Break]:
    return list(context_breaks.Breaks(CATALOGUE).watch(context.shares(*chain(*records))))


def pair(minutes: float, after: Json | None = None, record: Json | None = None, **first: Any) -> tuple[Json, ...]:
    """Two turns, of which the second writes 50,000 tokens that the first had written."""
    counts = {"cache_read_tokens": 0, "cache_write_tokens": 50_100} | (after or {})
    one = turn("a", 0, 0, 50_000, effort="high", **first)
    entered = {"entered": {"prompt": 9}, "version": "2.1.1"} | (record or {})
    return one, sizes("a", version="2.1.1"), one | turn("b", minutes, **counts), sizes("b", "a", **entered)


REASONS: list[tuple[str, tuple[Json, ...], list[str]]] = [
    ("nothing broke", pair(1, {"cache_read_tokens": 50_000, "cache_write_tokens": 100}), []),
    ("too little broke", pair(1, {"cache_read_tokens": 49_000, "cache_write_tokens": 1100}), []),
    ("a pause", pair(6), ["idle"]),
    ("within an hour", pair(6, cache_write_1h_tokens=2000), ["unknown"]),
    ("beyond it", pair(61, cache_write_1h_tokens=2000), ["idle"]),
    ("another model", pair(1, {"model": "claude-haiku-4-5"}), ["model"]),
    ("another effort", pair(1, {"effort": "low"}), ["effort"]),
    ("another version", pair(1, record={"version": "2.1.2"}), ["version"]),
    ("tools changed, the vendor says", pair(1, record={"miss": "tools_changed"}), ["tools_or_system"]),
    ("the vendor says something else", pair(1, record={"miss": "messages_changed"}), ["client"]),
    ("a part of the base was read", pair(1, {"cache_read_tokens": 20_000, "cache_write_tokens": 30_100}), ["tools_or_system"]),
    ("a compaction", pair(1, {"cache_write_tokens": 9_000}, {"event": "compaction"}), ["compaction"]),
    ("a compaction that kept the base", pair(1, {"cache_read_tokens": 50_000, "cache_write_tokens": 9}, {"event": "compaction"}), []),
    ("nobody knows", pair(1), ["unknown"]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "records", "reasons"), REASONS, ids=[case[0] for case in REASONS])
def test_why_a_cache_broke(what: str, records: tuple[Json, ...], reasons: list[str]) -> None:
    assert [each.reason for each in breaks(*records)] == reasons


def test_what_a_break_cost() -> None:
    """50,000 tokens were written again at 6.25 instead of read at 0.50 per million."""
    (each,) = breaks(*pair(6))
    assert (each.tokens, each.usd, each.gap) == (50_000, Decimal("0.2875"), 360_000)
    (each,) = breaks(*pair(6, {"model": "no-such-model"}))
    assert each.usd is None


@given(chains())
@examples(120)
def test_only_sessions_in_which_caches_may_have_broken_are_looked_at(every: Chain) -> None:
    """And in the others there is none."""
    turns = {
        name: record | {field: 100 * record[field] for field in events.TOKENS if field in record}
        for name, record in every[0].items()
    }
    everywhere = context_breaks.Breaks(CATALOGUE).watch(context.shares(turns, every[1]))
    ordered = sorted(everywhere, key=lambda each: (each.turn["ts"], each.turn["id"]))
    assert context_breaks.of_turns(turns, every[1], CATALOGUE) == ordered


def test_other_turns_of_the_chain_keep_its_cache_alive() -> None:
    """A rewind after eight minutes, in which another branch read the same prefix."""
    first = turn("a", 0, 0, 50_000), sizes("a")
    other = turn("b", 4, 50_000, 9000), sizes("b", "a", entered={"prompt": 9})
    rewound = turn("c", 8, 0, 50_100), sizes("c", "a", entered={"prompt": 9})
    assert [each.reason for each in breaks(*first, *other, *rewound)] == ["unknown"]
    assert [each.reason for each in breaks(*first, *rewound)] == ["idle"]


def test_each_break_has_a_reason_with_a_name() -> None:
    for _, records, reasons in REASONS:
        assert breaks(*records) == [] or set(reasons) <= context_breaks.REASONS.keys()
