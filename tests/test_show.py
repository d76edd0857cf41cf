"""Tables that fit: abbreviated, cut and left out by rank, never wrapped; wide characters and decimal points in line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from tokenops import show, show_layout, show_terminal
from tokenops.show import Column

PROJECTS = Column("project", ["app", "a-very-long-name-of-a-project-here", "total"], number=False, rank=0)
TURNS = Column("turns", ["3", "1,200", "1,203"], rank=3)
READ = Column("cache read", ["12,345,678", "9", "12,345,687"], rank=2, short=["12M", "9", "12M"])
PRICE = Column("list price", ["$12.30", "$0.0042", "$12.3042"], rank=0)


def lines(width: int | None, *columns: Column, color: bool = False) -> list[str]:
    return show_layout.lines(columns or (PROJECTS, TURNS, READ, PRICE), width, True, color)


def test_without_a_limit_everything_is_shown() -> None:
    assert lines(None) == [
        "project                             turns  cache read  list price",
        "----------------------------------  -----  ----------  ----------",
        "app                                     3  12,345,678    $12.30",
        "a-very-long-name-of-a-project-here  1,200           9     $0.0042",
        "----------------------------------  -----  ----------  ----------",
        "total                               1,203  12,345,687    $12.3042",
    ]


def test_first_numbers_are_abbreviated_and_texts_cut() -> None:
    assert lines(50)[:4] == [
        "project              turns  cache read  list price",
        "-------------------  -----  ----------  ----------",
        "app                      3         12M    $12.30",
        "a-very-long-name-o…  1,200           9     $0.0042",
    ]


def test_then_the_columns_of_the_highest_rank_are_left_out() -> None:
    assert lines(40)[0].split() == ["project", "cache", "read", "list", "price"]
    assert lines(40)[-1] == "left out: turns (--csv has all)"
    assert lines(30) == [
        "project             list price",
        "------------------  ----------",
        "app                   $12.30",
        "a-very-long-name-…     $0.0042",
        "------------------  ----------",
        "total                 $12.3042",
        "left out: turns, cache read",
        "(--csv has all)",
    ]


def test_wide_characters_take_two_columns() -> None:
    names = Column("project", ["日本語", "e\u0301t\u00e9", "x"], number=False)
    shown = lines(None, names, Column("n", ["1", "22", "333"]))
    assert [show.text_width(line) for line in shown] == [12] * 6
    assert show.shorten("日本語", 5) == "日本…" and show.shorten("日本語", 4) == "日…" and show.shorten("abc", 0) == ""


def test_names_that_only_their_ends_tell_apart_are_cut_in_the_middle() -> None:
    names = ["claude-opus-4-1-preview", "claude-opus-4-5", "claude-opus-4-1-release", "gpt-5.3-codex-spark-latest", "x"]
    assert show_terminal.shorten_apart(names, 12) == ["clau…preview", "claude-o…4-5", "clau…release", "gpt-5.3-cod…", "x"]
    assert show_terminal.shorten_apart(names, 18)[0] == "claude-opus-4-1-p…"  # the end may be cut where it tells nothing
    for width in range(8, 24):
        assert len(set(show_terminal.shorten_apart(names, width))) == len(names)
    assert show_terminal.shorten_apart(["花園の道具一番", "花園の道具二番"], 9) == ["花園…一番", "花園…二番"]
    shown = lines(20, Column("model", names, False, 0), Column("tokens", ["1"] * 5, rank=0))
    assert shown[2].split()[0] == "clau…preview"


def test_models_lose_the_day_at_their_end_first() -> None:
    names = ["claude-haiku-4-5-20251001", "claude-sonnet-4-20250514", "claude-sonnet-4", "gpt-5-2025-08-07", "o3"]
    assert list(show.short_models(names).values()) == ["claude-haiku-4-5", *names[1:3], "gpt-5", "o3"]


def test_sentences_are_broken_between_words_by_their_width() -> None:
    assert show.wrap("one two three", 7) == ["one two", "three"] and show.wrap("one two three", 6) == ["one", "two", "three"]
    assert show.wrap("日本 日本語 a", 6) == ["日本", "日本語", "a"] and show.wrap("", 5) == []
    assert show.wrap("unbreakable a b", 6) == ["unbrea", "kable", "a b"]


def test_styles_take_no_room() -> None:
    levels = Column("level", ["ok", "over", "x"], number=False, styles=["good", "bad", ""])
    shown = lines(None, levels, color=True)
    assert [show.plain(line) for line in shown] == lines(None, levels)
    assert show.safe_text(shown[2]) == "\x1b[32mok\x1b[0m" and show.safe_text(shown[0]) == "\x1b[1mlevel\x1b[0m"


CELLS = st.text(st.characters(codec="utf-8"), max_size=40)
NUMBERS = st.integers(0, 10**9).map("{:,}".format)


@examples(200)
@given(st.lists(CELLS, min_size=1, max_size=5), CELLS, st.integers(2, 40))
def test_texts_that_are_cut_apart_fit(ends: list[str], begin: str, width: int) -> None:
    texts = [show.safe(begin + end) for end in ends]
    cut = show_terminal.shorten_apart(texts, width)
    assert all(show.text_width(text) <= width for text in cut)
    assert all(short == text for text, short in zip(texts, cut, strict=True) if show.text_width(text) <= width)


@examples(200)
@given(st.lists(st.tuples(CELLS, CELLS, NUMBERS, NUMBERS), min_size=1, max_size=6), st.integers(40, 130), st.booleans())
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, str, str, str]], width: int, totals: bool) -> None:
    name, session, turns, cost = (list(cells) for cells in zip(*rows, strict=True))
    columns = [
        Column("name", name, number=False, rank=0),
        Column("session", session, number=False, rank=2),
        Column("turns", turns, rank=3),
        Column("list price", cost, rank=0),
    ]
    shown = show_layout.lines(columns, width, totals, False)
    assert max(map(show.text_width, shown)) <= width
    head = shown[0].split()
    dropped = [title for title in ("turns", "session") if title not in head and (title == "turns" or any(session))]
    body = 2 + len(rows) + (totals and len(rows) > 1)
    assert (" ".join(shown[body:]) == f"left out: {', '.join(dropped)} (--csv has all)") if dropped else len(shown) == body
    assert [line.split()[-1] for line in shown[2 : 2 + len(rows) - 1]] == cost[:-1]  # a number is never cut
