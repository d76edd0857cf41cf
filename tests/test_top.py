"""tok-top: what it counts equals the reports, its screen fits every size, keys do what they say, and it works in a terminal."""

from __future__ import annotations

import datetime
import os
import pathlib
import signal
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from screens import Screen, Terminal

from conftest import Json, Run, claude, examples, lines, objects, put
from tokenops import answers, events, headroom, limit_budget, limit_windows, live_screen, live_sessions, pricing, show, when
from tokenops.live_screen import View
from tokenops.live_sessions import MINUTE, Row, Snapshot

NOW = "2026-11-21T09:30:00.000Z"
AT = when.moment(NOW)


def row(name: str = "s1", idle: int = 1, **more: Any) -> Row:
    """A session that was quiet for so many minutes."""
    fields: Json = {"client": "claude-code", "project": "app", "branch": "", "model": "claude-opus-4-6", "context": 5103}
    fields |= {"per_minute": 1000.0, "usd": Decimal("0.30"), "unpriced": 0, "cache_hit": 0.96, "turns": 3}
    return Row(session=name, **(fields | {"began": AT - 90 * MINUTE, "last": AT - idle * MINUTE} | more))


def meter(used: float, **more: Any) -> Json:
    at = when.stamp(AT - 300_000)
    return events.meter("proxy", "anthropic", at, window="five_hour", window_minutes=300, used=used, **more)


BUDGETS = tuple(
    limit_budget.budgets(
        headroom.states(limit_windows.readings_of([meter(0.85, resets_at=when.stamp(AT + 7_200_000))]), AT),
        AT,
        {"budget": {"slow_down": 0.8, "wait_for_reset": 0.97, "switch_model_headroom": 0.25}, "freshness": {"recent": 15, "stale": 180}},
    )
)  # fmt: skip
TODAY: Json = {"cost_usd": "12.5", "turns": 210, "input_tokens": 4_500_000}


def snapshot(*rows: Row, state: str = live_sessions.READY, **more: Any) -> Snapshot:
    slots = tuple((n * 1000, Decimal(n)) for n in range(live_sessions.SLOTS))
    return Snapshot(AT, datetime.UTC, state, rows, BUDGETS, slots, 1500.0, Decimal("3.1"), TODAY)._replace(**more)


def shown(now: Snapshot, view: View | None = None, width: int = 80, height: int = 24) -> list[str]:
    return [show.plain(line).rstrip() for line in live_screen.lines(now, view or View(), width, height)]


# The screen.


def test_the_screen() -> None:
    screen = shown(snapshot(row(), row("s2", 12, project="日本語", usd=None, unpriced=2)))
    assert screen[0] == "tok-top 09:30  2 active sessions  today $12.50  4.5M tokens  210 turns"
    assert screen[1] == "Anthropic 5 h  ████████████████████▍░░░  85%  resets 11:30"
    assert screen[2].startswith("burn 4 h ▇") and screen[2].endswith("█ $3.10 in the last hour, 1.5k tokens/min now")
    assert screen[4:7] == [
        "project  client       model            context  tok/min   cost  cache  age  idle",
        "app      claude-code  claude-opus-4-6     5.1k       1k  $0.30    96%   1h    1m",
        "日本語   claude-code  claude-opus-4-6     5.1k       1k      ?    96%   1h   12m",
    ]
    assert screen[-1] == "s sort (activity)  / filter  enter open  space pause  a all  ? help  q quit"
    assert len(screen) == 24


def test_a_narrow_terminal_keeps_project_and_cost() -> None:
    screen = shown(snapshot(row(), row("s2", project="名前" * 20)), width=60, height=15)
    assert len(screen) == 15 and screen[4].split() == ["project", "model", "context", "cost", "idle"]
    assert screen[6].startswith("名前名前名前") and "…" in screen[6] and screen[6].endswith("1m")


@pytest.mark.parametrize(
    ("now", "view", "words"),
    [
        (snapshot(state=live_sessions.EMPTY, budgets=(), today=None), View(), "Run an agent, and its session appears here."),
        (
            snapshot(state=live_sessions.LOADING, budgets=(), today=None),
            View(),
            "Importing your clients' logs for the first",
        ),
        (snapshot(last_day="2026-11-17"), View(), "No session since yesterday; the last day in the log is 2026-11-17."),
        (snapshot(row(idle=90)), View(), "The last one was in app, 1h ago. Press a to show all"),
        (snapshot(row()), View(filter="zzz"), "No session matches 'zzz'. Press Esc to show all."),
    ],
)
def test_an_empty_screen_says_why_and_what_to_do(now: Snapshot, view: View, words: str) -> None:
    assert words in " ".join(" ".join(shown(now, view)).split())


NAMES = st.text(st.characters(codec="utf-8"), max_size=40)
ROWS = st.lists(
    st.builds(
        row,
        st.uuids().map(str),
        st.integers(0, 3000),
        project=NAMES,
        branch=NAMES,
        model=NAMES,
        client=st.sampled_from(["claude-code", "codex"]),
        context=st.integers(0, 10**9),
        per_minute=st.floats(0, 1e9),
        usd=st.none() | st.decimals(0, 10**6, places=4),
        unpriced=st.integers(0, 3),
    ),
    max_size=60,
)
VIEWS = st.builds(
    View,
    st.sampled_from([live_screen.SESSIONS, live_screen.HELP, live_screen.FILTER, live_screen.TRACE]),
    st.sampled_from(live_screen.SORTS),
    st.booleans(),
    NAMES,
    st.booleans(),
    st.booleans(),
    text=st.lists(NAMES, max_size=50).map(tuple),
    top=st.integers(0, 60),
    note=NAMES,
)


@examples(150)
@given(ROWS, VIEWS, st.integers(1, 150), st.integers(1, 50))
def test_every_screen_fits(sessions: list[Row], view: View, width: int, height: int) -> None:
    screen = live_screen.lines(snapshot(*sessions), view, width, height)
    assert len(screen) <= height and max(map(show.text_width, screen)) <= width
    assert not any(character in line for line in screen for character in "\x1b\n\r\x9b")


# The keys.


def press(view: View, keys: list[str], now: Snapshot) -> tuple[View, str]:
    effect = ""
    for key in keys:
        view, effect = live_screen.press(view, key, now, 24)
    return view, effect


THREE = snapshot(row("a", 1, usd=Decimal(1)), row("b", 2, usd=Decimal(3), project="zoo"), row("c", 90, usd=Decimal(2)))


def names(view: View) -> str:
    return "".join(each.session for each in live_screen.rows(THREE, view))


def test_keys_sort_filter_and_select() -> None:
    assert names(View()) == "ab" and names(View(all=True)) == "abc"
    assert names(press(View(all=True), ["s"], THREE)[0]) == "bca"
    assert names(press(View(all=True), ["s", "r"], THREE)[0]) == "acb"
    typed, _ = press(View(), ["/", "Z", "x", "backspace", "enter"], THREE)
    assert (typed.filter, typed.mode, names(typed)) == ("Z", live_screen.SESSIONS, "b")
    assert names(press(typed, ["escape"], THREE)[0]) == "ab"
    assert press(View(), ["down"], THREE)[0].selected == "b" and press(View(), ["end", "up"], THREE)[0].selected == "a"
    assert press(View(), ["enter"], THREE) == (View(selected="a"), live_screen.OPEN)
    assert press(View(), ["down", "enter"], THREE)[0].selected == "b"
    assert press(View(filter="zzz"), ["enter"], THREE)[1] == ""
    assert press(View(), [" "], THREE)[0].is_paused and not press(View(), [" ", "p"], THREE)[0].is_paused
    assert press(View(), ["q"], THREE)[1] == press(View(), ["/", "interrupt"], THREE)[1] == live_screen.QUIT
    assert press(View(), ["/", "q"], THREE)[1] == "" and press(View(), ["?", "x"], THREE)[0] == View()
    assert press(View(), ["?", "down", "down", "up"], THREE)[0].top == 1


def test_an_open_session_is_scrolled() -> None:
    view = View(live_screen.TRACE, text=tuple(map(str, range(100))))
    assert shown(THREE, view)[0] == "0" and shown(THREE, view)[-1].endswith("1-23 of 100")
    down, _ = press(view, ["down", "pgdn"], THREE)
    assert shown(THREE, down)[0] == "23" and press(down, ["home"], THREE)[0].top == 0
    assert shown(THREE, press(view, ["end"], THREE)[0])[-2] == "99"
    assert press(down, ["q"], THREE)[0] == View()


def test_the_selected_session_stays_in_sight() -> None:
    many = snapshot(*(row(f"s{n:02d}", project=f"p{n:02d}") for n in range(60)))
    screen = live_screen.lines(many, View(sort="project", selected="s45"), 80, 24)
    (line,) = [line for line in screen if show.paint("x", "reverse")[0] in line]
    assert show.plain(line).startswith("p45") and show.text_width(line) == 80


# What is counted.


def turn(number: int, minutes: int, **more: Any) -> Json:
    """A turn so many minutes ago."""
    spec: Json = {"v": 1, "ts": when.stamp(AT - minutes * MINUTE), "kind": "turn", "id": f"t{number}", "turns": 1}
    spec |= {"source": "claude-code-jsonl", "client": "claude-code", "project": "app", "session_id": "s1"}
    spec |= {"provider": "anthropic", "model": "claude-opus-4-6", "input_tokens": 10, "cache_read_tokens": 900}
    return spec | {"output_tokens": 100} | more


@pytest.fixture
def live(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> live_sessions.Live:
    """A log of its own in this process. Its clock stands, so that limits and totals are answered once, unless it is set."""
    for name, value in (environment | {"TOKENOPS_NOW": NOW}).items():
        monkeypatch.setenv(name, value)
    folder = environment["TOKENOPS_HOME"]
    put(pathlib.Path(folder) / "synced", b"")
    return live_sessions.Live(folder, "", lambda: 0.0, lambda: 0.0)


def write(live: live_sessions.Live, *records: Json, day: str = NOW[:10]) -> None:
    path = pathlib.Path(live.session.folder) / f"events/{day}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        file.write(lines(records))


def test_sums_equal_the_reports(live: live_sessions.Live) -> None:
    write(live, turn(1, 5 * 1440), turn(2, 5 * 1440 + 1, session_id="old"), day="2026-11-16")
    write(live, turn(3, 90), turn(4, 3, input_tokens=50), turn(5, 1, sidechain=True, cache_read_tokens=7))
    write(
        live,
        turn(6, 2, session_id="s2", model="unheard-of"),
        turn(7, 2, session_id="s3", cost_usd="0.5", cost_source="reported"),
    )
    now = live.refresh()
    rows = {each.session: each for each in now.rows}
    log = live.session.log(fresh=False)
    spent = {each["session_id"]: each for each in answers.spend(log, ("session",)).rows}
    for name in ("s1", "s3"):
        usd = rows[name].usd
        assert usd is not None and pricing.plain(usd) == spent[name]["cost_usd"] and rows[name].turns == spent[name]["turns"]
    assert (rows["s2"].usd, rows["s2"].unpriced) == (None, 1) and set(rows) == {"s1", "s2", "s3"}
    assert (rows["s1"].context, rows["s1"].last) == (950, AT - MINUTE)  # of the main chain
    assert rows["s1"].per_minute == (1050 + 117) / live_sessions.RATE_MINUTES
    assert rows["s1"].began == AT - 5 * 1440 * MINUTE
    assert now.today is not None and now.today["turns"] == 5
    assert now.today["cost_usd"] == answers.spend(log, (), "2026-11-21T00:00:00.000Z").total["cost_usd"]
    assert sum(tokens for tokens, _ in now.slots) == events.token_sum(now.today)


def test_a_turn_that_grows_counts_once_also_while_the_log_is_compacted(live: live_sessions.Live, run: Run) -> None:
    write(live, turn(1, 4), turn(2, 3, output_tokens=1))
    assert [each.turns for each in live.refresh().rows] == [2]
    write(live, turn(2, 3, output_tokens=500))
    (grown,) = live.refresh().rows
    assert grown.turns == 2 and grown.per_minute == (1010 + 1410) / live_sessions.RATE_MINUTES
    run("tok-log compact", env={"TOKENOPS_NOW": NOW})
    write(live, turn(3, 1))
    (after,) = live.refresh().rows
    assert after.turns == 3 and after.usd is not None and grown.usd is not None and after.usd > grown.usd


def test_what_left_the_log_is_not_counted(live: live_sessions.Live) -> None:
    write(live, turn(1, 4), turn(2, 3, session_id="s2"))
    assert len(live.refresh().rows) == 2
    put(pathlib.Path(live.session.folder) / f"events/{NOW[:10]}.jsonl", lines([turn(1, 4)]))
    assert [each.session for each in live.refresh().rows] == ["s1"]


def test_limits_and_totals_are_answered_again_after_ten_seconds(live: live_sessions.Live) -> None:
    write(live, turn(1, 4), meter(0.5, resets_at=when.stamp(AT + 7_200_000)))
    first = live.refresh()
    write(live, turn(2, 3))
    second = live.refresh()
    assert (first.budgets, first.today) == (second.budgets, second.today) and second.rows[0].turns == 2
    live.clock = lambda: live_sessions.LIMITS_S + 0.1
    third = live.refresh()
    assert third.today is not None and third.today["turns"] == 2


def test_an_import_that_brings_nothing_waits_in_proportion_to_its_cost(live: live_sessions.Live) -> None:
    costs = iter([0.0, 0.02, 0.0, 9.0])
    live.effort = lambda: next(costs)
    live.refresh()
    assert live.next_import == pytest.approx(0.02 / live_sessions.IMPORT_SHARE)
    live.next_import = 0.0
    live.refresh()
    assert live.next_import == live_sessions.IMPORT_MOST_S


# In a terminal.


def top(environment: dict[str, str], *options: str, width: int = 80, height: int = 24, now: str = NOW) -> Terminal:
    env = environment | {"TOKENOPS_NOW": now}
    return Terminal(["tok-top", "--every", "0.2", *options], env, width, height)


def transcript(environment: dict[str, str], session: str, *turns: Json, project: str = "app") -> pathlib.Path:
    path = pathlib.Path(environment["HOME"]) / f".claude/projects/-a/{session}.jsonl"
    return put(path, lines([{**each, "sessionId": session, "cwd": f"/home/ada/{project}"} for each in turns]))


def test_keys_resize_and_news_in_a_terminal(run: Run, environment: dict[str, str]) -> None:
    for number in range(50):
        ts = when.stamp(AT - (number + 1) * 20_000)
        transcript(environment, f"s{number:02d}", claude(f"msg_{number}", 100, ts), project=f"p{number:02d}")
    path = transcript(environment, "wide", claude("msg_w", 10, when.stamp(AT - 5_000)), project="日本語プロジェクト")
    run("tok-sync")
    with top(environment) as terminal:
        terminal.until(lambda text: "51 active sessions" in text and "日本語プロジェクト" in text and "p13" in text)
        terminal.press("\x1bOF")  # End, as xterm sends it to a program that has taken the screen
        terminal.until("p49")
        terminal.press("/P07")
        terminal.until("filter: P07_")
        terminal.press("\r")
        terminal.until(lambda text: "p07" in text and "p08" not in text)
        terminal.press("\r")
        assert "s07: 1 turn" in terminal.until("q: back")
        terminal.press("q")
        terminal.until("/ filter (P07)")
        terminal.press("\x1b")
        terminal.until("p08")
        terminal.press("?")
        terminal.until("sort by the next of")
        terminal.press("x")
        terminal.resize(60, 15)
        text = terminal.until(lambda text: "51 active" in text and "日本語" in text and "client" not in text)
        assert len(text.split("\n")) == 15
        terminal.resize(120, 40)
        terminal.until(lambda text: "claude-code" in text and "p30" in text)
        with open(path, "ab") as file:  # the log is compacted meanwhile
            run("tok-log compact", env={"TOKENOPS_NOW": NOW})
            more = {
                **claude("msg_x", 10, when.stamp(AT - 1_000)),
                "sessionId": "wide",
                "cwd": "/home/ada/日本語プロジェクト",
            }
            file.write(lines([more]))
        with open(path.with_name("new.jsonl"), "wb") as file:
            file.write(
                lines(
                    [{**more, "sessionId": "new", "cwd": "/home/ada/newcomer", "message": {**more["message"], "id": "m2"}}]
                )
            )
        terminal.until(lambda text: "52 active" in text and "newcomer" in text)
        terminal.press(" ")
        terminal.until("PAUSED")
        terminal.press("q")
        assert terminal.end() == 0 and terminal.screen.saved is None
    assert len(objects(run("tok-cat --kind turn").stdout)) == 53


@pytest.mark.parametrize(("locale", "bar"), [("C", "##"), ("xx_YY.UTF-8", "██"), ("C.UTF-8", "██")])
def test_any_locale_will_do(locale: str, bar: str, environment: dict[str, str]) -> None:
    """Also one without bars, and one that is not installed, as ssh may bring it."""
    records = [turn(1, 4), meter(0.85, resets_at=when.stamp(AT + 7_200_000))]
    put(pathlib.Path(environment["TOKENOPS_HOME"]) / f"events/{NOW[:10]}.jsonl", lines(records))
    with top(environment | {"LC_ALL": locale}) as terminal:
        terminal.until(lambda text: f"Anthropic 5 h  {bar}" in text and " 85%" in text)


def test_no_data_in_a_terminal(environment: dict[str, str]) -> None:
    with top(environment, width=60, height=15) as terminal:
        assert "tok-sync:" not in terminal.until("No usage of any client was found on this machine.")
        terminal.press("q")
        assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_silent_and_restores_the_terminal(number: int, environment: dict[str, str]) -> None:
    with top(environment) as terminal:
        terminal.until("No usage of any client")
        assert not terminal.echoes()
        if number == signal.SIGINT:
            terminal.press("\x03")
        else:
            os.kill(terminal.pid, number)
        assert terminal.end() == -number
        assert terminal.screen.saved is None and terminal.screen.text.strip() == ""


def test_what_cannot_show_a_screen_is_refused_in_a_sentence(run: Run, environment: dict[str, str]) -> None:
    done = run("tok-top | cat", status=2)
    assert done.stdout == b"" and b"standard input and output are not a terminal" in done.stderr
    for name in ("dumb", "no-such-terminal"):
        with Terminal(["tok-top"], environment | {"TERM": name}) as terminal:
            assert terminal.end() == 2
            assert f"TERM is {name}" in " ".join(terminal.screen.text.split())


def test_without_curses_it_says_so(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    put(tmp_path / "curses.py", b"raise ImportError('none')")
    with Terminal(["tok-top"], environment | {"PYTHONPATH": str(tmp_path)}) as terminal:
        assert terminal.end() == 2
        assert "this Python has no curses" in " ".join(terminal.screen.text.split())


def test_the_reader_of_screens_reads() -> None:
    screen = Screen(10, 3)
    screen.feed("\x1b[?1049h\x1b[2;3Hab\x1b[1mc\x1b[0m\x1b[1;1H日\x1b[4b\x1b[3;1Hxyz\x1b[3;2H\x1b[K\x1b[2;4H\x1b[1X")
    assert screen.lines == ["日日日日日", "  a c", "x"]
    screen.feed("\x1b[?10")
    screen.feed("49l")
    assert screen.lines == ["", "", ""]


def test_the_options_name_every_order(run: Run) -> None:
    assert str(live_screen.SORTS)[1:-1].replace("'", "") in run("tok-top --sort x", status=2).stderr.decode().replace(
        "'", ""
    )
