"""Amp: threads whose requests stand in the ledger, in the answers, or in both."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, objects, put
from tokenops import events, joins, read_amp, read_lines, untrusted
from tokenops.read_contract import Intake

THREAD = "T-019b9d03-62e3-772f-9780-3e637f90eaec"


def thread(*messages: Json, ledger: list[Json] | None = None, **more: Any) -> bytes:
    tree = {"displayName": "orchard", "uri": "file:///home/ada/my%20orchard"}
    made = {"v": 3, "id": THREAD, "created": 1767865803494, "title": "secret", "env": {"initial": {"trees": [tree]}}}
    made |= {"messages": list(messages)} | ({"usageLedger": {"events": ledger}} if ledger is not None else {}) | more
    return json.dumps(made).encode()


def asked(number: int, sent: int = 1767865810000) -> Json:
    text = [{"type": "text", "text": "secret words"}]
    return {"role": "user", "messageId": number, "content": text, "meta": {"sentAt": sent}}


def answer(number: int | None = 2, **usage: Any) -> Json:
    given: Json = {
        "model": "claude-haiku-4-5-20251001",
        "inputTokens": 10,
        "outputTokens": 178,
        "cacheCreationInputTokens": 986,
        "cacheReadInputTokens": 11372,
        "totalInputTokens": 12368,
        "timestamp": "2026-01-19T11:42:10.652Z",
    }
    for key, value in usage.items():
        if value is ...:
            given.pop(key)
        else:
            given[key] = value
    return {"role": "assistant", "messageId": number, "content": [], "usage": given}


def entry(to: int | None = 2, **more: Any) -> Json:
    given = {"id": "e1", "timestamp": "2026-01-19T11:42:10.652Z", "model": "claude-haiku-4-5-20251001", "credits": 1.5}
    return given | {"tokens": {"input": 10, "output": 178}, "toMessageId": to} | more


def place(home: pathlib.Path, name: str = THREAD) -> pathlib.Path:
    return home / ".local/share/amp/threads" / f"{name}.json"


def steps(home: pathlib.Path) -> Iterator[None]:
    """A thread of the old kind that gets answers of the new kind, and one without names."""
    only_cache = answer(2, inputTokens=..., outputTokens=..., totalInputTokens=..., timestamp=..., model=...)
    put(place(home), thread(asked(1), only_cache, ledger=[entry()]))
    yield
    put(
        place(home),
        thread(asked(1), only_cache, asked(3), answer(4, inputTokens=11, totalInputTokens=12369), ledger=[entry()]),
    )
    yield
    put(place(home, "T-2"), thread(asked(1), answer(None), answer(None), ledger=[], id="T-2"))
    yield


def read(home: pathlib.Path, content: bytes) -> tuple[list[events.Event], list[str]]:
    path, rejected = put(place(home), content), list[str]()
    found = read_amp.read(
        str(path), read_lines.Cursor(), Intake(on_bad_line=lambda place, why: rejected.append(f"{place}: {why}"))
    )
    return list(found), rejected


FULL = {"input_tokens": 10, "cache_read_tokens": 11372, "cache_write_tokens": 986, "output_tokens": 178}


@pytest.mark.parametrize(
    ("tokens", "cache", "counts"),
    [
        (answer()["usage"], {}, FULL),
        # The ledger has no cache counts: the answer has them.
        ({"input": 50, "output": 700}, {"cacheCreationInputTokens": 400, "cacheReadInputTokens": 9000},
         {"input_tokens": 50, "cache_read_tokens": 9000, "cache_write_tokens": 400, "output_tokens": 700}),
        ({"input": 50, "output": 700, "cacheReadInputTokens": 9}, {}, {"input_tokens": 50, "cache_read_tokens": 9, "output_tokens": 700}),
        # The total input says that the cached part is inside.
        ({"inputTokens": 100, "outputTokens": 1, "cacheReadInputTokens": 40, "totalInputTokens": 100}, {},
         {"input_tokens": 60, "cache_read_tokens": 40, "output_tokens": 1}),
        # More cached than input cannot be inside, whatever the total says.
        ({"inputTokens": 100, "cacheReadInputTokens": 140, "totalInputTokens": 100}, {}, {"input_tokens": 100, "cache_read_tokens": 140}),
        ({"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}, {}, {}),
        ({"input": 5.0, "output": None}, {}, {"input_tokens": 5}),
    ],
)  # fmt: skip
def test_counts(tokens: Json, cache: Json, counts: Json) -> None:
    assert read_amp.counts_of(tokens, cache) == counts


@pytest.mark.parametrize("tokens", [{"total": 345}, {"totalTokens": 345}, {"input": "12"}, {"output": -1}, {"input": 1.5}])
def test_what_is_no_count(tokens: Json) -> None:
    with pytest.raises(events.BadRecord):
        read_amp.counts_of(tokens, {})


def test_parts_add_up_to_the_total(tmp_path: pathlib.Path) -> None:
    [turn], _ = read(tmp_path, thread(answer()))
    assert events.context_size(turn) == answer()["usage"]["totalInputTokens"]


def test_a_request_in_ledger_and_answer_counts_once(tmp_path: pathlib.Path) -> None:
    """And has the same identity whichever of the two tells it."""
    [both], rejected = read(tmp_path, thread(asked(1), answer(), ledger=[entry()]))
    [alone], _ = read(tmp_path, thread(asked(1), answer()))
    [ledger], _ = read(tmp_path, thread(asked(1), {"messageId": 2, "role": "assistant"}, ledger=[entry()]))
    assert both == alone and both["id"] == ledger["id"] == f"amp:{THREAD}:2" and not rejected
    assert {name: both[name] for name in FULL} == FULL
    assert (both["model"], both["provider"], both["turns"]) == ("claude-haiku-4-5-20251001", "anthropic", 1)
    assert (ledger["usage"], ledger["usage_reason"]) == ("partial", "the cache counts are not recorded")
    assert joins.join(ledger, both)["cache_read_tokens"] == 11372
    assert "cost_usd" not in both, "credits are not dollars"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"type": "complete", "stopReason": "end_turn"}, None),
        ({"type": "cancelled"}, "the answer was interrupted"),
        ({"type": "running"}, "the answer was interrupted"),
        ("cancelled", None),
    ],
)
def test_an_answer_that_did_not_end_is_partial(state: Any, why: str | None, tmp_path: pathlib.Path) -> None:
    [turn], _ = read(tmp_path, thread(asked(1), answer() | {"state": state}))
    assert (turn.get("usage"), turn.get("usage_reason")) == (why and "partial", why)


def test_several_entries_of_one_answer(tmp_path: pathlib.Path) -> None:
    """The one with the answer's counts is the answer's; the others are requests of their own."""
    title = entry(id="e0", model="claude-haiku-4-5", tokens={"input": 300, "output": 9})
    found, _ = read(tmp_path, thread(answer(), ledger=[title, entry()]))
    assert {turn["id"]: turn["output_tokens"] for turn in found} == {f"amp:{THREAD}:2": 178, f"amp:{THREAD}:event:e0": 9}


def test_an_entry_without_an_answer(tmp_path: pathlib.Path) -> None:
    found, _ = read(tmp_path, thread(ledger=[entry(None), entry(99, id="e2"), entry(None, id=None), entry(None, id=None)]))
    names = sorted(turn["id"].removeprefix(f"amp:{THREAD}:") for turn in found)
    assert len(set(names)) == 4 and names[-2:] == ["event:e1", "event:e2"]
    assert names[1] == f"{names[0]}:2"


@pytest.mark.parametrize(
    ("usage", "more", "ts"),
    [
        ({}, {}, "2026-01-19T11:42:10.652Z"),
        ({"timestamp": 1768822930652}, {}, "2026-01-19T11:42:10.652Z"),
        # No time of its own: when the message before it was sent, else when the thread was begun.
        ({"timestamp": ...}, {}, "2026-01-08T09:50:10.000Z"),
        ({"timestamp": ...}, {"messages": [answer(timestamp=...)]}, "2026-01-08T09:50:03.494Z"),
        ({"timestamp": ...}, {"usageLedger": {"events": [entry()]}}, "2026-01-19T11:42:10.652Z"),
    ],
)
def test_when(usage: Json, more: Json, ts: str, tmp_path: pathlib.Path) -> None:
    [turn], _ = read(tmp_path, thread(asked(1), answer(**usage), **more))
    assert turn["ts"] == ts


def test_bad_requests_leave_the_others(tmp_path: pathlib.Path) -> None:
    bad = [answer(5, inputTokens="many"), answer(6, timestamp="yesterday"), answer(7, **dict.fromkeys(FULL_KEYS, 0))]
    found, rejected = read(tmp_path, thread(*bad, {"messageId": 8}, "no message", answer(9), ledger=[3, {"tokens": 4}]))
    assert [turn["id"] for turn in found] == [f"amp:{THREAD}:9"]
    assert [why.partition(".json:")[2] for why in rejected] == [
        "messages[0]: inputTokens is a string; expected a count; skipped",
        "messages[1]: timestamp is a string; expected a time; skipped",
    ]


FULL_KEYS = ("inputTokens", "outputTokens", "cacheCreationInputTokens", "cacheReadInputTokens", "totalInputTokens")


def test_nothing_but_counts_leaves_a_thread(tmp_path: pathlib.Path) -> None:
    found, rejected = read(tmp_path, thread(asked(1), answer(), answer(3, inputTokens="secret"), ledger=[entry()]))
    assert "secret" not in json.dumps(found) + "".join(rejected)


@pytest.mark.parametrize(
    ("env", "project"),
    [
        ({"initial": {"trees": [{"uri": "file:///home/ada/my%20orchard", "displayName": "x"}]}}, "my orchard"),
        ({"initial": {"trees": [{"uri": "vscode-remote://ssh/home", "displayName": "mill"}]}}, "mill"),
        ({"initial": {"trees": []}}, None),
        ("none", None),
    ],
)
def test_the_project_is_where_the_thread_was_begun(env: Any, project: str | None, tmp_path: pathlib.Path) -> None:
    [turn], _ = read(tmp_path, thread(answer(), env=env))
    assert turn.get("project") == project


def test_another_document_is_refused(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "T-9.json", b'{"some": "thing"}')
    done = run("tok-read amp --root T-9.json", status=1)
    assert done.stderr == b"tok-read: T-9.json: not an Amp thread: it has neither messages nor a usage ledger; skipped\n"


@pytest.mark.parametrize("below", ["", "/threads"])
def test_the_place_can_be_named(below: str, run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "away/threads" / f"{THREAD}.json", thread(answer()))
    put(tmp_path / "away/threads/notes.json", b"{}")
    found = objects(run("tok-read amp", env={"AMP_DATA_DIR": f"{tmp_path}/away{below}"}).stdout)
    assert [turn["session_id"] for turn in found] == [THREAD]


def test_one_content_several_times_is_numbered() -> None:
    seen: dict[str, int] = {}
    assert [untrusted.occurrence_name(seen, name) for name in ("a", "b", "a", "a")] == ["a", "b", "a:2", "a:3"]
