"""The dashboard's pages of a session and of a turn, the order of tables, and their CSV: the numbers of the commands."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import pathlib
import re
import urllib.parse
from decimal import Decimal

import pytest
from dashboards import AT, NOW, Page, ask, broken_session, log, meter, site, turn

from conftest import Json, Run, objects
from tokenops import access, cli_dash, dash, dash_html, dash_query, dash_spend, events, show, store, when

pytestmark = pytest.mark.usefixtures("still")
COUNTS = {"prompts": 1, "tool_calls": 7, "edits": 2, "command_calls": 3, "tool_failures": 1}


def work(number: int, minutes: float, session: str) -> Json:
    """What a prompt caused."""
    about = {"kind": "work", "id": f"work:claude-code:{number}", "source": "claude-code-jsonl", "client": "claude-code"}
    return {"v": 1, "ts": when.stamp(AT - round(minutes * 60_000)), **about, "session_id": session, "counts": COUNTS}


LOG = [turn(number, 17.3 * number) for number in range(1, 400)]
LOG += [
    work(1, 17.3 * 391 + 1, "s1"),
    work(2, 17.3 * 201 + 1, "s1"),
    turn(901, 31, model="nobody-knows-me", session_id="s1"),
]


@pytest.fixture
def folder(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TZ", "UTC")
    log(environment["TOKENOPS_HOME"], *LOG)
    return environment["TOKENOPS_HOME"]


class Browser:
    """Asks a site as its owner."""

    def __init__(self, site: dash.Site, folder: str) -> None:
        self.site, self.headers = site, {"authorization": f"Bearer {access.token(folder)}"}
        site.gatherer = dash.gatherer(site.gatherer.session, list)

    def get(self, address: str, status: int = 200) -> str:
        answer = ask(self.site, address, accept="text/html", **self.headers)
        assert answer.status == status, answer.body
        return answer.body.decode()

    def page(self, address: str) -> Page:
        return Page(self.get(address).encode())

    def table(self, address: str, name: str) -> list[dict[str, str]]:
        """A table's rows as CSV."""
        path, _, query = address.partition("?")
        text = self.get(f"{path}/table.csv?{query}&table={name}")
        return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def browser(folder: str, environment: dict[str, str]) -> Browser:
    return Browser(site(folder, environment), folder)


def links(page: str, key: str) -> list[str]:
    """Where the rows of a table lead."""
    body = page.partition(f'id="{key}"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return [html.unescape(href) for href in re.findall(r'href="([^"]+)"', body)]


def trace(run: Run, session: str) -> list[Json]:
    rows = objects(run(f"tok-trace {session} --json", status=None, env={"TOKENOPS_NOW": NOW}).stdout)
    return [row for row in rows if row["kind"] == "step"]


def test_from_a_project_to_a_turn(browser: Browser) -> None:
    (project,) = [href for href in links(browser.get("/dashboard?since=7d"), "by-project") if "project=p1" in href]
    page = browser.get(project)
    session = links(page, "top-sessions")[0]
    assert "session=s" in session and "since=7d" in session and 'aria-current="page">p1<' in page
    page = browser.get(session)
    turns = links(page, "turns-table")
    assert len(turns) > 20 and all("turn=msg_" in href and "session=s" in href for href in turns)
    page = browser.get(turns[3])
    assert "Where the cost comes from" in page and "turn 4</span>" in page
    way = html.unescape(page.partition('aria-label="Path"')[2].partition("</nav>")[0])
    above = re.findall(r'href="([^"]+)"', way)
    assert above == ["/dashboard?since=7d", project, session]


def test_a_session_is_tok_trace(browser: Browser, run: Run) -> None:
    theirs = trace(run, "s1")
    data = browser.page("/dashboard?session=s1").data
    assert data["turns"][0] == (str(len(theirs)), f"{len(theirs):,}")
    assert data["tokens"][0][0] == str(sum(row["context_tokens"] + row.get("output_tokens", 0) for row in theirs))
    peak = max(row["context_tokens"] for row in theirs)
    assert data["peak"][0][0] == str(peak)
    text = run("tok-trace s1 --table", status=None, env={"TOKENOPS_NOW": NOW}).stdout.decode()
    assert f"{len(theirs)} turns, {data['cost'][0][1]}+ at list price, 1 without a price" in text
    assert data["work"][0] == ("14", "14")
    rows = browser.table("/dashboard?session=s1", "turns-table")
    assert [row["id"] for row in rows] == [row["id"] for row in theirs]
    for mine, step in zip(rows, theirs, strict=True):
        for name in ("context_tokens", "output_tokens", "input_tokens", "cache_read_tokens", "cache_write_tokens"):
            assert int(mine[name]) == step.get(name, 0)
        assert mine["cost_usd"] == (step["cost_usd"] or "") and mine["began"] == step["ts"]
        assert mine["tool_calls"] == str(step.get("round", {}).get("tool_calls", ""))
    assert "7 tool calls, 2 edits, 3 commands, 1 failed" in browser.get("/dashboard?session=s1")


def test_what_filled_the_context_is_tok_context(browser: Browser, run: Run) -> None:
    *theirs, total = objects(run("tok-context s1 --json", env={"TOKENOPS_NOW": NOW}).stdout)
    rows = browser.table("/dashboard?session=s1", "causes-table")
    assert [row["cause"] for row in rows] == [row["cause"] for row in theirs]
    for mine, row in zip(rows, theirs, strict=True):
        assert mine["cost_usd"] == (row["cost_usd"] or "")
        for name in ("entering_tokens", "carrying_tokens", "rewriting_tokens", "producing_tokens", "turns"):
            assert mine[name] == str(row[name])
    page = browser.get("/dashboard?session=s1")
    assert "What filled the context" in page and "--breaks" not in page
    # A hint has a line for each cause, whole, whatever its name holds.
    first = html.unescape(re.findall(r"<title>([^<]*)</title>", page.partition('id="chart-causes"')[2])[0]).splitlines()
    sizes = [int(re.findall(r"[\d,]+", line)[-1].replace(",", "")) for line in first]
    assert first[0] == f"turn 1: {sizes[0]:,} tokens" and sum(sizes[1:]) == sizes[0]
    assert f"base: tools, system {sizes[1]:,}" in first
    assert total["cache_breaks"] == 0 and "cache break" not in page


def flags(page: str, chart: str) -> list[tuple[float, float]]:
    """From and to of the flags of a chart."""
    body = page.partition(f'id="{chart}"')[2].partition("</svg>")[0]
    boxes = re.findall(r'<rect class="bad flag" x="([\d.]+)" y="8" width="([\d.]+)"', body)
    return [(float(left), float(left) + float(width)) for left, width in boxes]


@pytest.mark.parametrize("turns", [12, 600])
def test_a_cache_break_is_a_flag_at_its_turn(turns: int, browser: Browser, run: Run) -> None:
    """Also where several turns share a bar, of which another one is the largest."""
    broken = [4, turns - 1] if turns == 12 else [4, 5, turns - 1]
    log(browser.site.folder, *broken_session(turns, broken, "whole"))
    rows = objects(run("tok-context whole --breaks --json", env={"TOKENOPS_NOW": NOW}).stdout)
    assert [row["turn"] for row in rows] == [f"whole_{number}" for number in broken]
    page = browser.get("/dashboard?session=whole")
    each = -(-turns // 250)
    bars = sorted({(number - 1) // each for number in broken})
    for chart in ("chart-context", "chart-causes"):
        spans = flags(page, chart)
        assert len(spans) == len(bars)
        for (left, right), bar in zip(spans, bars, strict=True):
            assert left == pytest.approx(1000 * bar * each / turns, abs=0.2) and left < right
        body = html.unescape(page.partition(f'id="{chart}"')[2].partition("</svg>")[0])
        assert f"with a flag at each cache break, {len(broken)} in all" in body
        hints = re.findall(r"<title>([^<]*)</title>", body)
        for number, row in zip(broken, rows, strict=True):
            hint = hints[(number - 1) // each]
            cost = f"{row['tokens']:,} tokens paid again for {show.money(row['cost_usd'])} more"
            assert cost in hint and ("expired" in hint or "cache" in hint)
        assert sum("paid again" in hint for hint in hints) == len(bars)
    assert page.count("<span>cache break</span>") == 2
    assert flags(page, "chart-cost") == [] and "cache break" not in browser.get("/dashboard?session=s1")


def test_a_part_of_a_name_is_enough_where_there_is_one_session(browser: Browser) -> None:
    log(browser.site.folder, turn(1, 5, id="x1", session_id="abcdef"))
    assert "abcdef" in browser.get("/dashboard?session=abc")
    assert "no session id begins with" in browser.get("/dashboard?session=abcx", 404)
    assert "sessions begin with" in browser.get("/dashboard?session=s", 404)
    assert "has no turn" in browser.get("/dashboard?session=s1&turn=nothing", 404)
    assert "needs its session" in browser.get("/dashboard?turn=msg_1", 400)


def test_a_turn_is_what_the_commands_explain(browser: Browser, run: Run) -> None:
    log(browser.site.folder, turn(41, 17.3 * 41, output_tokens=3))  # another sighting of it
    for step in (trace(run, "s1")[8], trace(run, "s1")[-1]):
        (explained,) = objects(run(f"tok-log explain {step['id']} --json").stdout)
        (price,) = objects(run(f"tok-price explain {step['id']} --json", status=None).stdout)
        address = f"/dashboard?session=s1&turn={step['id']}"
        data = browser.page(address).data
        assert data["cost"][0][0] == price.get("cost_usd", "")
        lines = browser.table(address, "price-table")
        assert lines == [{name: str(line[name]) for name in lines[0]} for line in price.get("cost_lines", ())]
        seen = browser.table(address, "sightings-table")
        assert [row["verdict"] for row in seen] == [row["verdict"] for row in explained["sightings"]]
        assert len(seen) == sum(1 for _ in store.sightings_of(browser.site.folder, step["id"]))
        assert ("unpriced" in price) == (step["id"] == "msg_901")
    assert "nobody-knows-me" in browser.get("/dashboard?session=s1&turn=msg_901")


def test_a_turn_in_the_clients_own_files(run: Run, environment: dict[str, str], tmp_path_factory: object) -> None:
    sample = {"HOME": str(dash_sample()), "TOKENOPS_NOW": "2026-11-18T21:00:00Z"}
    run("tok-sync", status=None, env=sample)
    browser = Browser(site(environment["TOKENOPS_HOME"], environment | sample), environment["TOKENOPS_HOME"])
    (session, *_) = objects(run("tok-cost --log --by session --json", status=None, env=sample).stdout)
    steps = objects(run(f"tok-trace {session['session_id']} --json", status=None, env=sample).stdout)
    (explained,) = objects(run(f"tok-log explain {steps[0]['id']} --json", env=sample).stdout)
    assert any(row["in"] == "client" for row in explained["sightings"])
    name = urllib.parse.urlencode({"session": session["session_id"], "turn": steps[0]["id"]})
    with_files = browser.table(f"/dashboard?{name}&files=yes", "sightings-table")
    assert [row["verdict"] for row in with_files] == [row["verdict"] for row in explained["sightings"]]
    assert len(browser.table(f"/dashboard?{name}", "sightings-table")) < len(with_files)


def dash_sample() -> object:
    from conftest import ROOT

    return ROOT / "docs/examples/home"


# The order of tables, and CSV.


@pytest.mark.parametrize(("column", "key"), [("turns", int), ("cost_usd", float), ("last_turn", str), ("session", str)])
def test_a_heading_sorts_all_rows_both_ways(browser: Browser, column: str, key: type) -> None:
    address = "/dashboard?since=7d"
    for direction in ("up", "down"):
        rows = browser.table(f"{address}&sort=top-sessions.{column}.{direction}", "top-sessions")
        values = [key(row[column]) for row in rows if row[column]]
        assert len(values) > 3 and values == sorted(values, reverse=direction == "down")
        assert all(row[column] for row in rows[: len(values)])  # what has no value is last
    page = browser.get(f"{address}&sort=top-sessions.{column}.up")
    assert re.search(rf'aria-sort="ascending"><a href="[^"]*sort=top-sessions\.{column}\.down"', page)


def test_csv_is_the_commands_exactly(browser: Browser, run: Run) -> None:
    theirs = objects(run("tok-cost --log --by model --since 7d --json", status=None, env={"TOKENOPS_NOW": NOW}).stdout)
    mine = {row["model"]: row for row in browser.table("/dashboard?since=7d", "by-model")}
    assert len(mine) == len(theirs)
    for row in theirs:
        cells = mine[row["model"]]
        assert cells["turns"] == str(row["turns"]) and cells["tokens"] == str(events.token_sum(row))
        assert cells["cost_usd"] == row.get("cost_usd", "") and cells["cache_hit"] == str(row.get("cache_hit_ratio", ""))
    hours = objects(run("tok-cost --log --by hour --since 24h --json", status=None, env={"TOKENOPS_NOW": NOW}).stdout)
    rows = browser.table("/dashboard?since=24h", "numbers-table")
    assert [row["tokens"] for row in rows] == [str(events.token_sum(hour)) for hour in hours]
    assert [row["cost_usd"] for row in rows] == [hour["cost_usd"] for hour in hours]


def test_a_cell_is_never_a_formula(environment: dict[str, str], folder: str) -> None:
    log(folder, turn(1, 5, id="x1", project="=1+1", session_id="x"))
    browser = Browser(site(folder, environment), folder)
    text = browser.get("/dashboard/table.csv?since=24h&table=by-project")
    assert "'=1+1," in text


BAD = [
    ("table=nothing", 400, "choose from numbers-table"),
    ("table=by-model&sort=by-model.turns.left", 400, "write table.column.up"),
    ("table=by-model&rows=0", 400, "give 1 to"),
    ("table=by-model&rows=" + "9" * 5000, 400, "give 1 to"),
    ("table=turns-table&session=nothing", 404, "no session"),
]


@pytest.mark.parametrize(("query", "status", "why"), BAD)
def test_a_bad_question_about_a_table(browser: Browser, query: str, status: int, why: str) -> None:
    assert why in browser.get(f"/dashboard/table.csv?{query}", status)


def test_rows_that_do_not_fit_are_shown_on_request(browser: Browser, folder: str) -> None:
    log(folder, *(turn(2000 + number, 5, session_id=f"more{number}") for number in range(30)))
    page = browser.get("/dashboard?since=24h")
    assert len(links(page, "top-sessions")) == 10 and " more" in page
    everything = browser.table("/dashboard?since=24h", "top-sessions")
    assert len(links(browser.get("/dashboard?since=24h&rows=500"), "top-sessions")) == len(everything) > 34


def test_a_long_session_shows_its_dearest_turns(browser: Browser, folder: str) -> None:
    """With several turns a bar, the dearest has not the largest context."""
    few = [turn(3000 + n, 400 - n / 2, session_id="long", input_tokens=10, output_tokens=10) for n in range(600)]
    few[301] = few[301] | {"output_tokens": 180_000}
    few[300] = few[300] | {"input_tokens": 90_000}
    log(folder, *few)
    page = browser.get("/dashboard?session=long&stack=class")
    figures = [re.search(rf'<figure[^>]*data-key="{key}".*?</figure>', page, re.DOTALL) for key in ("cost", "context")]
    cost, context = (match[0] if match else "" for match in figures)
    assert "turn 302: " in cost and "turn 301: " not in cost
    assert "turn 301: " in context and "turn 302: " not in context
    assert "each bar is the largest of 3 turns" in cost and "each bar is the largest of 3 turns" in context
    assert "each bar" not in browser.get("/dashboard?session=s1")


def test_the_session_is_read_without_the_rest_of_the_log(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """A closed day that a session has nothing on is not opened."""
    from tokenops import store_files

    run("tok-cost --log --by none", status=None, env={"TOKENOPS_NOW": NOW})  # makes the summaries
    log(browser.site.folder, turn(5000, 60 * 24 * 40, session_id="old"))
    run("tok-cost --log --by none", status=None, env={"TOKENOPS_NOW": NOW})
    opened = []
    real = store_files.has_any
    monkeypatch.setattr(store_files, "has_any", lambda day, text: (opened.append(day.name), real(day, text))[1])
    assert "old" in browser.get("/dashboard?session=old")
    assert set(opened) == {"2026-10-12", "2026-11-20", "2026-11-21"}


# Bars, what they are stacked of, and the span before.


def costs(run: Run, line: str) -> list[Json]:
    return objects(run(f"tok-cost --log {line} --json", status=None, env={"TOKENOPS_NOW": NOW}).stdout)


@pytest.mark.parametrize("stack", ["class", "model", "project", "client"])
def test_what_bars_are_stacked_of_adds_up(browser: Browser, run: Run, stack: str) -> None:
    rows = browser.table(f"/dashboard?since=10d&stack={stack}", "numbers-table")
    days = {row["bucket"]: row for row in costs(run, "--by day --since 10d")}
    assert [row["cost_usd"] for row in rows] == [day.get("cost_usd", "") for day in days.values()]
    names = [name for name in rows[0] if name.startswith("cost_usd.")]
    for row in rows:
        assert sum(Decimal(row[name]) for name in names) == Decimal(row["cost_usd"])
        assert sum(int(row[name.replace("cost_usd", "tokens")]) for name in names) == int(row["tokens"])
    if stack != "class":
        theirs = {row[stack]: row.get("cost_usd", "0") for row in costs(run, f"--by {stack} --since 10d")}
        mine = {name.partition(".")[2]: sum(Decimal(row[name]) for row in rows) for name in names}
        assert {name: Decimal(usd) for name, usd in theirs.items()} == mine


@pytest.mark.parametrize(("stack", "name"), [("model", "claude-opus-4-8"), ("project", "p1"), ("client", "claude-code")])
def test_a_legend_filters_and_lets_go(browser: Browser, stack: str, name: str) -> None:
    def legend(page: str) -> str:
        body = page.partition('id="chart-cost"')[0].rpartition('class="legend"')[2]
        (href,) = re.findall(rf'<a href="([^"]+)"[^>]*>{name}</a>', body)
        return html.unescape(href)

    address = f"/dashboard?since=7d&stack={stack}"
    only = legend(browser.get(address))
    assert f"{stack}={name}" in only
    assert legend(browser.get(only)) == address


def test_a_class_alone(browser: Browser) -> None:
    page = browser.get("/dashboard?since=10d&part=output")
    assert re.search(r'<a href="/dashboard\?since=10d" title="all classes" aria-current="true">output</a>', page)
    tips = [html.unescape(tip) for tip in re.findall(r"<title>([^<]+)</title></rect>", page)]
    assert any("output" in tip for tip in tips) and not any("cache read" in tip for tip in tips)
    assert "choose from" in browser.get("/dashboard?part=moon", 400)


def test_a_bar_leads_to_its_days(browser: Browser, run: Run) -> None:
    page = browser.get("/dashboard?since=10d")
    leads = [html.unescape(href) for href in re.findall(r'data-go="([^"]+)"', page)]
    assert "/dashboard?since=2026-11-19&until=2026-11-19" in leads
    (day,) = costs(run, "--by none --since 2026-11-19 --until 2026-11-19")
    data = browser.page("/dashboard?since=2026-11-19&until=2026-11-19")
    assert data.data["span"][0][0] == day["cost_usd"] and "on 2026-11-19" in data.text["span"]


def day_before(since: str) -> tuple[str, str]:
    return {
        "24h": ("2026-11-19T09:30:00Z", "2026-11-20T09:30:00Z"),
        "today": ("2026-11-20", "2026-11-20T09:30:00Z"),
        "2d": ("2026-11-17T09:30:00Z", "2026-11-19T09:30:00Z"),
    }[since]


@pytest.mark.parametrize("since", ["24h", "today", "2d"])
@pytest.mark.parametrize("only", ["", "&project=p1"])
def test_a_tile_compares_with_the_span_before(browser: Browser, run: Run, since: str, only: str) -> None:
    first, last = day_before(since)
    options = only.replace("&", " --").replace("=", " ")
    (before,) = costs(run, f"--by none --since {first} --until {last}{options}")
    (now,) = costs(run, f"--by none --since {since}{options}")
    page = browser.get(f"/dashboard?since={since}{only}")
    tile = page.partition('data-key="span"')[2].partition("</div>")[0]
    name = "yesterday by this time" if since == "today" else "in the "
    assert f'title="{show.money(before["cost_usd"])} {name}' in tile
    share = float(now["cost_usd"]) / float(before["cost_usd"]) - 1
    much = f"{abs(share):.0%}"
    assert (f"{much} {'more' if share > 0 else 'less'} than {name}" if much != "0%" else f"as {name}") in tile
    turns = page.partition('data-key="turns"')[2].partition("</div>")[0]
    assert f'title="{before["turns"]:,} {name}' in turns
    assert " than " not in browser.page("/dashboard?since=30d").text["span"]  # the log does not reach back so far


# What the page opens with, and what follows the span.


@pytest.mark.parametrize(
    ("minutes", "since"),
    [(5, "today"), (60 * 30, "7d"), (60 * 24 * 9, "30d"), (60 * 24 * 99, "365d"), (60 * 24 * 500, "all")],
)
def test_the_page_opens_with_the_shortest_span_that_has_data(
    environment: dict[str, str], run: Run, minutes: int, since: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    folder = environment["TOKENOPS_HOME"]
    log(folder, turn(1, minutes), turn(2, minutes + 1), meter(0.4))  # a reading alone is no usage
    browser = Browser(site(folder, environment), folder)
    page = browser.get("/dashboard")
    assert re.search(rf'value="{since}" checked', page) and "Nothing" not in page
    assert Page(page.encode()).data["turns"][0][0] == "2"
    assert Page(browser.get("/dashboard?since=all").encode()).data["turns"][0][0] == "2"
    (whole,) = costs(run, "--by none --since 2020-01-01")
    assert browser.page("/dashboard?since=all").data["span"][0][0] == whole["cost_usd"]


def settle(browser: Browser) -> None:
    """What the server does when it has answered."""
    for name in browser.site.gatherer.parts:
        while not browser.site.gatherer.renew(name):
            pass


@pytest.mark.parametrize("query", ["since=2d", "since=10d", "since=10d&project=p1"])
def test_the_scorecard_follows_the_span(browser: Browser, run: Run, query: str) -> None:
    page = browser.get(f"/dashboard?{query}")
    assert "Being added up" in Page(page.encode()).text["scorecard"]
    assert '<noscript><meta http-equiv="refresh"' in page  # a browser without scripts comes back too
    settle(browser)
    options = query.replace("since=", "--since ").replace("&project=", " --project ")
    (card,) = objects(run(f"tok-score {options} --json", env={"TOKENOPS_NOW": NOW}).stdout)
    text = browser.get(f"/dashboard?{query}").partition('id="scorecard"')[2].partition("</section>")[0]
    values = re.findall(r'<b><data value="([^"]*)"', text)
    assert values == ["" if kpi["value"] is None else str(kpi["value"]) for kpi in card["kpis"].values()]


def test_the_calendar_and_the_week_are_tok_cost(browser: Browser, run: Run) -> None:
    days = {row["bucket"]: row["cost_usd"] for row in costs(run, "--by day --since 2026-11-17")}
    address = "/dashboard?since=2026-11-17"
    assert {row["day"]: row["cost_usd"] for row in browser.table(address, "calendar")} == days
    week: dict[tuple[str, str], Decimal] = {}
    for row in costs(run, "--by hour --since 2026-11-17"):
        at = when.local(when.moment(row["from"]), when.UTC)
        place = f"{at:%a}", str(at.hour)
        week[place] = week.get(place, Decimal(0)) + Decimal(row["cost_usd"])
    assert {(row["day"], row["hour"]): Decimal(row["cost_usd"]) for row in browser.table(address, "week")} == week
    browser.get(address)
    settle(browser)
    page = browser.get(address)
    assert 'data-go="/dashboard?since=2026-11-19&amp;until=2026-11-19"' in page and 'id="chart-week"' in page


def test_a_page_that_comes_back_gets_what_was_pending(browser: Browser) -> None:
    """However soon it comes back: nothing else need have happened in between."""
    answer = ask(browser.site, "/dashboard?since=5d", **browser.headers)
    for _ in range(8):
        if b"data-pending" not in answer.body:
            break
        answer = ask(browser.site, "/dashboard?since=5d", if_none_match=answer.one("etag"), **browser.headers)
        assert answer.status == 200
    assert b"data-pending" not in answer.body and b"chart-calendar" in answer.body


def test_a_page_that_comes_back_after_a_rest_does_not_wait_for_what_is_pending(browser: Browser) -> None:
    """There was time between its requests, and there will be time again."""
    answer = ask(browser.site, "/dashboard?since=5d", **browser.headers)
    for has_rested in (True, False):
        if has_rested:
            browser.site.rest()
        name = browser.site.gatherer.pending()
        answer = ask(browser.site, "/dashboard?since=5d", if_none_match=answer.one("etag"), **browser.headers)
        assert answer.status == (304 if has_rested else 200)
        assert (browser.site.gatherer.pending() == name) is has_rested


def test_a_short_span_has_no_calendar(browser: Browser) -> None:
    assert "rhythm" not in browser.page("/dashboard?since=24h").text
    settle(browser)
    assert "rhythm" not in browser.page("/dashboard?since=24h").text


def test_a_year_is_read_by_hour_in_pieces(environment: dict[str, str], folder: str) -> None:
    log(folder, *(turn(2000 + day, 60 * 24 * day, session_id="long") for day in range(20, 90)))
    browser = Browser(site(folder, environment), folder)
    gatherer = browser.site.gatherer
    assert "Being added up" in browser.page("/dashboard?since=200d").text["rhythm"]
    pieces = 1
    while not gatherer.renew("rhythm"):
        pieces += 1
        assert pieces < 70
    assert pieces >= 70 // dash_spend.AT_ONCE
    assert "Being added up" not in browser.page("/dashboard?since=200d").text["rhythm"]


def test_limits_over_time(environment: dict[str, str], folder: str, run: Run) -> None:
    log(folder, *(meter(0.1 * number, 600 - 10 * number, -300) for number in range(1, 6)))  # a window that was reset
    log(folder, *(meter(0.05 * number, 100 - 10 * number, 60) for number in range(1, 9)))
    browser = Browser(site(folder, environment), folder)
    rows = browser.table("/dashboard?since=24h", "limits-table")
    assert [(row["window"], row["used"], row["readings"]) for row in rows] == [
        ("five_hour", "0.4", "8"),
        ("five_hour", "0.5", "5"),
    ]
    (budget,) = objects(run("tok-budget --json", env={"TOKENOPS_NOW": NOW}).stdout)
    assert rows[0]["resets_at"] == budget["windows"][0]["resets_at"]
    text = browser.page("/dashboard?since=24h").text["limits"]
    assert "Anthropic, 5 hours" in text and "1 reset" in text and "50% used; reset" in text
    assert 'class="band"' in browser.get("/dashboard?since=24h").partition('id="chart-limit-0"')[2]


def test_a_year_has_years_on_its_axis(browser: Browser) -> None:
    log(browser.site.folder, turn(5000, 60 * 24 * 300))
    page = browser.get("/dashboard?since=365d")
    axis = page.partition('id="chart-cost"')[2].partition('class="wide"')[2].partition("</g>")[0]
    assert re.search(r">[A-Z][a-z][a-z] 2026<", axis) and not re.search(r">Mon ", axis)
    assert "week of 16 Nov 2026: $" in page


# Who has no session.


def test_a_person_is_told_what_to_do_and_a_program_gets_json(browser: Browser) -> None:
    page = ask(browser.site, "/dashboard?since=7d", accept="text/html")
    text = page.body.decode()
    assert page.status == 401 and "<ol>" in text and "tok-dash url" in text and "since=7d" not in text
    (style,) = re.findall(r"<style>(.*?)</style>", text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.one("content-security-policy") and "unsafe" not in page.one(
        "content-security-policy"
    )
    assert set(json.loads(ask(browser.site, "/dashboard").body)) == {"error", "hint"}
    assert "sha256" not in ask(browser.site, "/dashboard", **browser.headers).one("content-security-policy")


PROGRAM = [
    ("linux", {"DISPLAY": ":0"}, "xdg-open"),
    ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, "xdg-open"),
    ("linux", {}, ""),
    ("linux", {"DISPLAY": ":0", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, ""),
    ("darwin", {}, "open"),
    ("darwin", {"SSH_TTY": "/dev/ttys001"}, ""),
    ("win32", {"DISPLAY": ":0"}, ""),
]


@pytest.mark.parametrize(("platform", "variables", "name"), PROGRAM)
def test_the_browser_is_opened_only_where_there_is_one(
    tmp_path: pathlib.Path, platform: str, variables: dict[str, str], name: str
) -> None:
    for program in ("xdg-open", "open"):
        (tmp_path / program).write_text("")
        (tmp_path / program).chmod(0o755)
    command = cli_dash.browser_command(platform, {"PATH": str(tmp_path)} | variables, "http://127.0.0.1/x")
    assert command == ([str(tmp_path / name), "http://127.0.0.1/x"] if name else [])


# Names.

STEERING = ["\u061c", "\u200e", "\u200f", "\u2028", "\u2029", "\u202e", "\u2066", "\U000e0041", "\ufdd0", "\x1b", "\uffff"]


@pytest.mark.parametrize("character", STEERING, ids=ascii)
def test_a_name_does_not_steer_the_text_around_it(character: str) -> None:
    for shown in (dash_html.text(f"a{character}b"), dash_html.tag("p", "x", title=f"a{character}b")):
        assert character not in shown and "\\" in shown
    assert html.unescape(dash_html.text(f"a{character}b<")) == show.safe(f"a{character}b<")


def test_an_address_is_read_as_it_was_written() -> None:
    asked = dash_query.Ask(since="7d", session="a b&c=d/\u00e9", turn="codex:x#1", sort="turns-table.n.up")
    written = dash_query.address(asked)
    assert dash_query.parse(dict(urllib.parse.parse_qsl(written.partition("?")[2]))) == asked
    assert json.dumps(written)  # plain text
