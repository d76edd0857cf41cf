"""What vendors announced about windows, with dates: which windows a plan has on a day, what is coming, and the check."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from conftest import Json, Run
from tokenops import catalog, headroom, limit_fit, limit_next, plans, plans_dated, when
from tokenops.limit_windows import MINUTE, Key, Reading
from tokenops.limit_worth import Interval

ALL = plans.all_plans()
TODAY = "2026-12-01"


def entry(window: str, **more: Any) -> Json:
    return {"window": window, "captured": "2026-09", "source": ["a page"]} | more


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts announcements in place of the catalogue's."""

    def put(provider: str, *entries: Json) -> None:
        data = {**catalog.load("plans"), "announced": {provider: list(entries)}}
        monkeypatch.setattr(catalog, "load", lambda name: data)

    return put


def test_the_catalogue_has_no_fault() -> None:
    assert plans_dated.faults(catalog.load("plans"), TODAY) == []


def test_a_limit_holds_until_its_day(facts: Callable[..., None]) -> None:
    facts("github", entry("monthly", plans=["copilot-pro"], until="2026-09-01", limit=3000))
    days = ("2026-01-01", "2026-08-31", "2026-09-01")
    limits = [[window["limit"] for window in plans_dated.on_day(ALL["copilot-pro"], day).windows] for day in days]
    assert limits == [[3000], [3000], [1500]]
    assert plans_dated.on_day(ALL["copilot-max"], "2026-01-01") == ALL["copilot-max"]


def test_a_suspended_window_is_none(facts: Callable[..., None]) -> None:
    facts("openai", entry("five_hour", plans=["gpt-plus"], suspended=True, **{"from": "2026-07-12", "until": "2026-08-27"}))
    on_days = [plans_dated.on_day(ALL["gpt-plus"], day) for day in ("2026-07-11", "2026-07-12", "2026-08-27")]
    names = [[each["window"] for each in plan.windows] for plan in on_days]
    assert names == [["five_hour", "weekly"], ["weekly"], ["five_hour", "weekly"]]


def test_what_is_coming(facts: Callable[..., None]) -> None:
    facts(
        "anthropic",
        entry("weekly", factor=1.5, **{"from": "2026-05-13", "until": "2026-09-14"}),
        entry("weekly", factor=0.83, **{"from": "2026-09-14"}),
        entry("five_hour", factor=2.0, plans=["claude-pro"], **{"from": "2026-09-01", "until": "2026-09-20"}),
    )
    changes = plans_dated.coming("anthropic", "2026-09-01", "2026-10-01")
    assert [(row["window"], row["at"], row["what"], row["factor"]) for row in changes] == [
        ("weekly", "2026-09-14", "begins", 0.83),  # which says what the end of the other means
        ("five_hour", "2026-09-20", "ends", 2.0),
    ]
    assert plans_dated.factor(changes, "claude-pro", "weekly") == 0.83
    assert plans_dated.factor(changes, "claude-pro", "five_hour") == 0.5
    assert plans_dated.factor(changes, "claude-max-5x", "five_hour") == 1.0
    assert plans_dated.coming("anthropic", "2026-10-01", "2026-11-01") == []
    texts = [limit_next.announcement({**row, "as_of": "2026-09-10T00:00:00.000Z"}) for row in changes]
    assert texts[0] == "announced: from Mon 00:00 a percent buys 17% less"
    assert texts[1] == "announced: from Sun 20 Sep a percent buys 50% less (claude-pro)"


def test_an_announced_change_is_counted_by_fit(facts: Callable[..., None]) -> None:
    facts("anthropic", entry("weekly", factor=0.5, **{"from": "2026-12-10"}))
    changes = plans_dated.coming("anthropic", TODAY, "2026-12-31")
    learned = limit_fit.Size(Interval(8, 10, 12), limit_fit.LEARNED)
    assert limit_fit.times(learned, plans_dated.factor(changes, "claude-pro", "weekly")).usd == (4, 5, 6)
    at = when.moment(f"{TODAY}T00:00:00Z")
    row = {"plan": "claude-pro", **limit_fit.announcements("claude-pro", changes, at)}
    assert row["announced"][0]["at"] == "2026-12-10"
    assert limit_fit.announcements("claude-pro", [{**changes[0], "plans": ["claude-team"]}], at) == {}


def open_window(provider: str, window: str, minutes: int, used: float, plan: str) -> Json:
    """The row of tok-plan next for a window that began three days ago and was used evenly."""
    now, hour = when.moment(f"{TODAY}T00:00:00Z"), 60 * MINUTE
    key = Key(provider, "", window, "")
    resets = now - 72 * hour + minutes * MINUTE
    readings = [
        Reading(key, minutes, now - hours * hour, used * (72 - hours) / 72, resets, "", "proxy", "")
        for hours in (72, 48, 24, 0)
    ]
    past = limit_next.Past(readings, {}, now, when.zone("UTC"), {provider: ALL[plan]})
    (row,) = limit_next.rows(headroom.states(readings, now), past)
    return row


def test_what_lapses_of_a_published_limit_is_in_its_unit() -> None:
    row = open_window("github", "monthly", 43_200, 0.05, "copilot-pro")
    assert (row["limit"], row["base"], row["flex"], row["unit"]) == (1500, 1000, 500, "AI credits")
    assert row["lapses_units"] == round(1500 * row["lapses"])
    sentences = list(limit_next.sentences(row, when.moment(row["as_of"]), when.zone("UTC")))
    assert any(f"about {row['lapses_units']:,} of 1,500 AI credits (1,000 base and 500 flex)" in each for each in sentences)
    assert "limit" not in open_window("anthropic", "weekly", 10_080, 0.05, "claude-pro")


def test_a_paid_reset_begins_a_week_anew() -> None:
    row = open_window("openai", "weekly", 10_080, 0.3, "gpt-plus")
    assert row["if_reset_now"] == "2026-12-08T00:00:00.000Z" and row["resets_at"] < row["if_reset_now"]
    sentences = list(limit_next.sentences(row, when.moment(row["as_of"]), when.zone("UTC")))
    assert "  a reset that is paid for now would begin it anew, so that it resets Tue 8 Dec" in sentences
    assert "if_reset_now" not in open_window("anthropic", "weekly", 10_080, 0.3, "claude-pro")


FAULTY: list[tuple[Json, str]] = [
    (entry("weekly", factor=2), "it has no dates; write from, until or both"),
    (entry("weekly", **{"from": "2026-01-01"}), "it must say one of factor, limit, suspended"),
    (entry("weekly", factor=2, limit=3, **{"from": "2026-01-01"}), "it must say one of"),
    (entry("hourly", factor=2, **{"from": "2026-01-01"}), "no plan of anthropic has a window 'hourly'"),
    (entry("weekly", factor=2, plans=["gpt-plus"], **{"from": "2026-01-01"}), "'gpt-plus' is no plan of anthropic"),
    (entry("weekly", factor=2, **{"from": "2026-13-01"}), "from is '2026-13-01'; write a day such as"),
    (entry("weekly", factor=2, **{"from": "2026-02-01", "until": "2026-01-01"}), "it ends on 2026-01-01, before it begins"),
    (entry("weekly", suspended=True, **{"from": "2026-02-01"}), "suspended without an end"),
    (entry("weekly", factor=2, **{"from": "2026-02-01"}) | {"source": []}, "source is missing"),
    (
        entry("weekly", factor=2, **{"from": "2026-02-01"}) | {"captured": "soon"},
        "captured is 'soon'; write the month or day",
    ),
    (entry("weekly", factor=2, **{"from": "2026-02-01"}) | {"captured": "2027-01"}, "which is in the future"),
    (entry("weekly", factor=2, times=3, **{"from": "2026-02-01"}), "'times' is not known"),
]


@pytest.mark.parametrize(("bad", "words"), FAULTY)
def test_faults_of_announcements(bad: Json, words: str) -> None:
    data = {**catalog.load("plans"), "announced": {"anthropic": [bad]}}
    faults = plans_dated.faults(data, TODAY)
    assert len(faults) == 1 and faults[0].startswith("announced.anthropic, entry 1: ") and words in faults[0]


def test_two_announcements_that_hold_at_once() -> None:
    spans = [{"from": "2026-01-01", "until": "2026-03-01"}, {"from": "2026-02-01", "until": "2026-04-01"}]
    both = [entry("weekly", factor=2, **span) for span in spans]
    data = {**catalog.load("plans"), "announced": {"anthropic": both}}
    (fault,) = plans_dated.faults(data, TODAY)
    assert fault == "announced.anthropic, entries 1 and 2: both hold at once; correct their dates"
    for apart in ({"plans": ["claude-pro"]}, {"from": "2026-03-01"}, {"window": "five_hour"}):
        second = {**both[1], **apart}
        first = {**both[0], **({"plans": ["claude-team"]} if "plans" in apart else {})}
        data = {**catalog.load("plans"), "announced": {"anthropic": [first, second]}}
        assert plans_dated.faults(data, TODAY) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data["plans"]["copilot-pro"]["windows"][0].update(flex=400), "base 1000 and flex 400 do not add up"),
        (lambda data: data["plans"]["copilot-pro"]["windows"][0].pop("flex"), "base and flex belong together"),
        (lambda data: data["plans"]["copilot-pro"]["windows"][0].pop("unit"), "limit and unit belong together"),
        (lambda data: data["plans"]["gpt-plus"]["windows"][0].update(minutes="300"), "minutes is '300'"),
        (lambda data: data["plans"]["gpt-plus"].update(source=[]), "plans.gpt-plus: source is missing"),
        (lambda data: data["plans"]["codex-plus"].update(same_as="gpt"), "same_as names 'gpt', which is no plan"),
        (lambda data: data["aliases"].update(old="none"), "aliases.old: 'none' is no plan"),
        (lambda data: data["aliases"].update({"gpt-pro": "gpt-plus"}), "a plan has this name"),
        (lambda data: data["banked_resets"]["openai"].update(days=0), "days is 0"),
        (lambda data: data["banked_resets"]["openai"].update(anchors="daily"), "anchors names 'daily'"),
        (lambda data: data["banked_resets"]["openai"].pop("source"), "banked_resets.openai: source is missing"),
    ],
)
def test_faults_of_plans(change: Callable[[Json], object], words: str) -> None:
    data = copy.deepcopy(dict(catalog.load("plans")))
    change(data)
    faults = plans_dated.faults(data, TODAY)
    assert len(faults) == 1 and words in faults[0]


def test_the_command(run: Run) -> None:
    assert run("tok-plan lint").stdout == b""
