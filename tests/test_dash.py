"""The dashboard without a browser: its API is the commands, its page is the commands, and what has not changed is not sent."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import html
import html.parser
import http.client
import json
import os
import pathlib
import re
import select
import socket
import time
import zoneinfo
from decimal import Decimal
from typing import Any

import orjson
import pytest
from dashboards import AT, NOW, Page, ask, log, meter, running, site, turn
from homes import Home
from hypothesis import given
from hypothesis import strategies as st

from conftest import MOST, ROOT, SHARED, Json, Run, eventually, examples, needs_shared, objects
from tokenops import (  # fmt: skip
    access,
    costs,
    coverage,
    dash,
    dash_api,
    dash_html,
    dash_page,
    dash_query,
    dash_spend,
    dash_sums,
    dash_view,
    events,
    plans,
    pricing,
    rollup,
    session,
    show,
    store,
    store_days,
    store_summaries,
    tools,
    when,
)

pytestmark = pytest.mark.usefixtures("still")  # no answer changes because time passes
LOG = [meter(0.4), *(turn(number, 17.3 * number) for number in range(1, 400))]
LOG += [turn(900, 30, model="nobody-knows-me"), turn(901, 31, model="nobody-knows-me", project="p1")]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def folder(environment: dict[str, str]) -> str:
    log(environment["TOKENOPS_HOME"], *LOG)
    return environment["TOKENOPS_HOME"]


@pytest.fixture
def made(folder: str, environment: dict[str, str]) -> dash.Site:
    return site(folder, environment)


@pytest.fixture
def bearer(folder: str) -> dict[str, str]:
    return {"authorization": f"Bearer {access.token(folder)}"}


# The API.


def test_a_workflow_turn_by_turn(made: dash.Site, bearer: dict[str, str], run: Run) -> None:
    said = ask(made, "/api/workflows/claude-code:p1:s1", **bearer)
    assert said.status == 200
    found = json.loads(said.body)
    theirs = objects(run("tok-trace s1 --json", env={"TOKENOPS_NOW": NOW}, status=None).stdout)
    mine = [row for row in theirs if row["kind"] == "step"]
    assert found["session"] == "s1" and 0 < len(found["steps"]) <= len(mine)
    assert ask(made, "/api/workflows/claude-code%3Ap1%3As1", **bearer).body == said.body
    for name in ("claude-code:p1:s", "codex:p1:s1", "s1", "nothing", "%00", "..%2f..%2fetc"):
        refused = ask(made, f"/api/workflows/{name}", **bearer)
        assert refused.status == 404 and json.loads(refused.body)["hint"], name
    assert ask(made, "/api/workflows/claude-code:p1:s1?x=1", **bearer).status == 400


def test_the_forecast_of_plans_and_of_spending(made: dash.Site, bearer: dict[str, str]) -> None:
    found = json.loads(ask(made, "/api/spend/forecast", **bearer).body)
    assert found["forecasts"][0]["window"] == "five_hour"
    assert found["spend"] == {"method": "climatology", "hours": [], "today": None}  # five days are too little past


BAD = [
    ("spend/summary?since=someday", "'someday' is not a valid time"),
    ("spend/summary?sinc=7d", "did you mean 'since'"),
    ("spend/series?by=moon", "moon"),
    ("sessions?limit=many", "expected an integer"),
    ("sessions?limit=999", "give 1 to 50"),
    ("scorecard?by=moon", "choose from"),
    ("tasks?since=x", "'x' is not a valid time"),
    ("budget?x=1", "takes no argument 'x'"),
    ("status?x=1", "it takes none"),
]


@pytest.mark.parametrize(("path", "why"), BAD)
def test_bad_parameters(made: dash.Site, bearer: dict[str, str], path: str, why: str) -> None:
    said = ask(made, f"/api/{path}", **bearer)
    assert said.status == 400
    found = json.loads(said.body)
    assert why in found["error"] and found["hint"] and set(found) == {"error", "hint"}


def test_what_cannot_be_told_is_503(folder: str, environment: dict[str, str], bearer: dict[str, str]) -> None:
    made = site(folder, environment)

    def broken() -> Any:
        raise session.Fault("config.yaml:1: is not understood")

    made.gatherer.session = made.gatherer.session._replace(settings=broken)
    for path, hint in (
        ("/api/budget", "run tok-budget to see the same"),
        ("/api/coach", "run tok-coach prompts to see the same"),
        ("/api/status", "run tok-status to see the same"),
        ("/api/workflows/claude-code:p1:s1", "correct it, then ask again"),
    ):
        said = ask(made, path, **bearer)
        assert (said.status, json.loads(said.body)) == (
            503,
            {"error": "config.yaml:1: is not understood", "hint": hint},
        )
    page = ask(made, "/dashboard", accept="text/html", **bearer)
    assert page.status == 503 and b"config.yaml:1: is not understood" in page.body


def test_a_part_without_anything_to_read_is_503(made: dash.Site, bearer: dict[str, str]) -> None:
    said = ask(made, "/api/coach", **bearer)  # there are no transcripts in this home
    assert said.status in (200, 503)
    if said.status == 503:
        assert "tok-coach prompts" in json.loads(said.body)["hint"]


def test_every_tool_of_a_route_is_there() -> None:
    wanted = ("spend/summary", "spend/series", "spend/forecast", "spend/cache_stats", "budget", "workflows", "sessions", "tasks", "scorecard", "coach", "status")  # fmt: skip
    assert set(wanted) <= set(dash_api.ROUTES)
    for route in dash_api.ROUTES.values():
        assert not tools.TOOLS[route.tool].changes and set(route.defaults) <= set(tools.TOOLS[route.tool].takes)


# What has not changed.


def test_an_unchanged_answer_is_not_sent_again(made: dash.Site, bearer: dict[str, str], folder: str) -> None:
    for path in ("/dashboard", "/dashboard?since=7d&stack=model", "/api/budget", "/api/spend/series", "/dashboard/page.css"):
        first = ask(made, path, **bearer)
        while b"data-pending" in first.body:  # its slow parts come with the next requests
            first = ask(made, path, if_none_match=first.one("etag"), **bearer)
        etag = first.one("etag")
        assert etag.startswith('W/"')
        again = ask(made, path, if_none_match=etag, **bearer)
        assert (again.status, again.body, again.one("etag")) == (304, b"", etag)
        assert ask(made, path, if_none_match=f'"x", {etag.removeprefix("W/")}', **bearer).status == 304
        assert ask(made, path, if_none_match='"x"', **bearer).status == 200
    a, b = (ask(made, path, **bearer).one("etag") for path in ("/dashboard", "/dashboard?since=7d"))
    assert a != b
    assert ask(made, "/dashboard?since=7d&stack=model", **bearer).one("etag") == ask(made, "/dashboard?stack=model&since=7d", **bearer).one("etag")  # fmt: skip
    log(folder, turn(5000, 1))
    changed = ask(made, "/dashboard", if_none_match=a, **bearer)
    assert changed.status == 200 and changed.one("etag") != a
    assert f'name="etag" content="{changed.one("etag")}"'.replace('W/"', "W/&quot;").replace('">', "&quot;")[:30].encode() in changed.body  # fmt: skip


def test_a_minute_later_it_may_have(folder: str, environment: dict[str, str], bearer: dict[str, str]) -> None:
    made = site(folder, environment)
    etag = ask(made, "/api/budget", **bearer).one("etag")
    later = made.gatherer.session._replace(now=lambda: AT + 60_000)
    made.gatherer.session = later
    assert ask(made, "/api/budget", if_none_match=etag, **bearer).status == 200


def test_a_changed_configuration_changes_it(
    folder: str, environment: dict[str, str], bearer: dict[str, str], tmp_path: pathlib.Path
) -> None:
    made = site(folder, environment)
    place = tmp_path / "config.yaml"
    made.gatherer.files = lambda: [str(place)]
    etag = ask(made, "/api/budget", **bearer).one("etag")
    place.write_text("plans: {}\n")
    assert ask(made, "/api/budget", if_none_match=etag, **bearer).status == 200


def test_answers_are_packed_for_who_can_unpack_them(made: dash.Site, bearer: dict[str, str]) -> None:
    plain = ask(made, "/dashboard", **bearer)
    for wish, packed in (
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("identity", False),
        ("deflate", False),
    ):
        said = ask(made, "/dashboard", accept_encoding=wish, **bearer)
        assert (said.one("content-encoding") == "gzip") is packed
        assert (gzip.decompress(said.body) if packed else said.body) == plain.body
        assert said.one("vary") == "Accept-Encoding"


def test_style_and_script_are_kept_for_good_under_their_version(made: dash.Site, bearer: dict[str, str]) -> None:
    body = ask(made, "/dashboard", **bearer).body.decode()
    for path in re.findall(r'(?:href|src)="(/dashboard/page[^"]+)"', body):
        assert ask(made, path, **bearer).one("cache-control") == "private, max-age=31536000, immutable"
        assert ask(made, f"{path}x", **bearer).one("cache-control") == "private, no-cache"
        assert ask(made, path).status == 401


def test_what_is_kept_is_bounded(environment: dict[str, str]) -> None:
    folder = environment["TOKENOPS_HOME"]
    log(folder, turn(1, 5))
    made, bearer = site(folder, environment), {"authorization": f"Bearer {access.token(folder)}"}
    for hours in range(1, 60):
        assert ask(made, f"/dashboard?since={hours}h", **bearer).status == 200
    assert len(made.kept) == dash.MOST_KEPT


# The page.


def page(made: dash.Site, bearer: dict[str, str], query: str = "") -> Page:
    said = ask(made, f"/dashboard{query}", **bearer)
    assert said.status == 200, said.body
    return Page(said.body)


def priced(run: Run, line: str) -> list[Json]:
    return objects(run(f"tok-cost --log {line}", status=None, env={"TOKENOPS_NOW": NOW}).stdout)


def cost(row: Json) -> tuple[str, str]:
    return (row["cost_usd"], show.money(row["cost_usd"])) if "cost_usd" in row else ("", "unknown")


SPANS = ["24h", "7d", "30d", "today", "3h", "2026-11-19", "2026-11-19T10:20:30Z", "90d", "365d", "17m"]
FILTERS = [{}, {"project": "p1"}, {"model": "claude-opus-4-8"}, {"client": "claude-code", "project": "p2"}]


def check(found: Page, run: Run, since: str, options: str) -> None:
    """Every number of money, turns and tokens against tok-cost."""
    rows = priced(run, f"--by none --since {since}{options}")
    if not rows:
        assert "Nothing" in found.text["main"]
        return
    (total,) = rows
    data = found.data
    assert data["span"][0] == cost(total)
    assert data["turns"][0] == (str(total["turns"]), f"{total['turns']:,}")
    assert data["turns"][1][0] == str(events.token_sum(total))
    shown = show.percent(total.get("cache_read_tokens", 0), events.context_size(total))
    assert data["cache"][0] == (str(total.get("cache_hit_ratio", "")), shown or "unknown")
    assert f"Cache hit: {shown}" in " ".join(found.text["cache"].split())
    today = priced(run, f"--by none --today{options}")
    if since == "today":
        assert "today" not in data  # the span's own tile shows it
    else:
        assert data["today"][0] == (cost(today[0]) if today else ("0", "$0.00"))
    missing = sum(one["turns"] for one in total.get("unpriced", ()))
    assert data["unpriced"][0] == (str(missing), f"{missing:,}" if missing else "none")
    for name in ("model", "project"):
        theirs = priced(run, f"--by {name} --since {since}{options}")
        seen = data[f"by-{name}"]
        assert sum(int(value) for value, _ in seen[0::3]) <= total["turns"]
        told = {(row.get("turns", 0), str(row.get("cache_hit_ratio", "")), cost(row)[0]) for row in theirs}
        assert {(int(a[0]), b[0], c[0]) for a, b, c in zip(seen[0::3], seen[1::3], seen[2::3], strict=True)} <= told
        assert len(seen) == 3 * min(len(theirs), 6)
    theirs = priced(run, f"--by session,project --since {since}{options}")
    told = {(str(row["turns"]), str(events.token_sum(row)), cost(row)[0]) for row in theirs}
    seen = data["top-sessions"]
    assert {(seen[at][0], seen[at + 1][0], seen[at + 3][0]) for at in range(0, len(seen), 4)} <= told
    assert sum(Decimal(value or 0) for value, _ in seen[3::4]) == sum(
        sorted((Decimal(row.get("cost_usd", 0)) for row in theirs), reverse=True)[:10]
    )


@pytest.mark.parametrize("since", SPANS)
def test_the_page_is_the_commands(made: dash.Site, bearer: dict[str, str], run: Run, since: str) -> None:
    check(page(made, bearer, f"?since={since}"), run, since, "")


@pytest.mark.parametrize("wanted", FILTERS[1:])
def test_the_page_filters_as_the_commands_do(
    made: dash.Site, bearer: dict[str, str], run: Run, wanted: dict[str, str]
) -> None:
    query = "&".join(f"{name}={value}" for name, value in wanted.items())
    options = "".join(f" --{name} {value}" for name, value in wanted.items())
    check(page(made, bearer, f"?since=7d&{query}"), run, "7d", options)


@pytest.mark.parametrize(
    ("since", "by"), [("24h", "hour"), ("7d", "day"), ("30d", "day"), ("200d", "week"), ("800d", "month")]
)
def test_the_bars_are_the_commands(made: dash.Site, bearer: dict[str, str], run: Run, since: str, by: str) -> None:
    theirs = [row for row in priced(run, f"--by {by} --since {since}") if events.token_sum(row)]
    seen = page(made, bearer, f"?since={since}").data["numbers-table"]
    sums = [sum(row.get(name, 0) for name in names) for row in theirs for names in (("cache_read_tokens",), costs.WRITES, ("input_tokens",), ("output_tokens",))]  # fmt: skip
    assert [int(value) for at, (value, _) in enumerate(seen) if at % 6 < 4] == sums
    assert [seen[at][0] for at in range(4, len(seen), 6)] == [str(events.token_sum(row)) for row in theirs]
    assert [seen[at][0] for at in range(5, len(seen), 6)] == [row.get("cost_usd", "") for row in theirs]


@pytest.mark.parametrize("stack", ["model", "project", "skill"])
def test_bars_by_name_add_up(made: dash.Site, bearer: dict[str, str], run: Run, stack: str) -> None:
    seen = page(made, bearer, f"?since=7d&stack={stack}").data["numbers-table"]
    theirs = priced(run, f"--by {stack} --since 7d")
    assert sum(int(value) for value, _ in seen if value.isdigit()) == 2 * sum(map(events.token_sum, theirs))


def test_headroom_is_tok_budget(made: dash.Site, bearer: dict[str, str], run: Run) -> None:
    (row,) = objects(run("tok-budget --json", env={"TOKENOPS_NOW": NOW}, status=None).stdout)
    found = page(made, bearer)
    key = "plan-anthropic-"
    assert found.data[key][0] == (row["recommended_action"], row["recommended_action"].replace("_", " "))
    (window,) = row["windows"]
    used = window.get("carried", {}).get("used", {}).get("p50", window["used"])
    assert found.data[key][1] == (str(used), f"{100 * used:.0f}%")  # in one unit: what is used, as in tok-budget
    assert found.data[key][2] == (str(used), f"{100 * used:.0f}% used")
    assert found.data[key][3][0] == str(row["forecast"]["p_cutoff"])
    text = " ".join(found.text[key].split())
    assert f"resets in {row['window_resets_in']}" in text and row["signal_quality"]["caveat"] in text
    assert f"{row['signal_quality']['level']} signal" in text


def test_burn_is_tok_burn(made: dash.Site, bearer: dict[str, str], run: Run) -> None:
    total = objects(run("tok-burn --log --json", status=None, env={"TOKENOPS_NOW": NOW}).stdout)[-1]
    seen = page(made, bearer).data["burn"]
    assert [value for value, _ in seen] == [total["now"]["cost_usd_per_hour"], str(total["now"]["tokens_per_hour"])]


def task(name: str, began: float, done: float | None = None, **more: Any) -> list[Json]:

    def record(minutes: float, kind: str) -> Json:
        base = {"v": 1, "ts": when.stamp(AT - round(minutes * 60_000)), "kind": "task", "id": f"task:{name}:{kind}"}
        return base | {"source": "tok-task", "task": name, "event": kind}

    first, last = {**record(began, "start"), **more}, record(done or 0, "done")
    return [first, *([last] if done is not None else [])]


def test_tasks_are_tok_task(folder: str, environment: dict[str, str], bearer: dict[str, str], run: Run) -> None:
    made = site(folder, environment)
    assert "tasks" not in page(made, bearer).text
    log(folder, *task("one", 3000, 200, project="p1", project_id="x1", title="mend it"), *task("two", 100, session_id="s1"))
    log(folder, *(turn(3000 + number, 250 + number, project="p1", project_id="x1") for number in range(9)))
    log(folder, turn(3100, 150, project="p1", project_id="x1"))  # after its end
    seen = page(made, bearer).data["newest-tasks"]
    for _ in range(2):
        rows = objects(run("tok-task list --metrics --json", env={"TOKENOPS_NOW": NOW}).stdout)
        told = [[str(row["metrics"][key]) for key in ("duration_s", "turns")] + [str(events.token_sum(row["metrics"])), row["metrics"].get("cost_usd", "" if "unpriced" in row["metrics"] else "0")] for row in reversed(rows)]  # fmt: skip
        assert [value for value, _ in seen] == [value for row in told for value in row]
        log(folder, turn(4000, 210, project="p1", project_id="x1"))  # a late turn of the one that ended
        seen = page(made, bearer).data["newest-tasks"]
    assert seen[-3][0] == "10"


def test_a_plan_is_named_and_what_it_covers_is_labelled(
    folder: str, environment: dict[str, str], bearer: dict[str, str]
) -> None:
    assert "API-equivalent" not in page(site(folder, environment), bearer).text["tiles"]
    place = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    place.parent.mkdir(parents=True)
    place.write_text("plans: {anthropic: claude-max-20x, openai: gpt-plus}\n")
    found = page(site(folder, environment), bearer)
    assert "list price (API-equivalent)" in found.text["span"]
    assert "Claude" in found.text["plan-anthropic-"] and "ChatGPT Plus" in found.text["plan-openai-"]
    assert "unknown how much is used" in found.text["plan-openai-"]


def test_words_of_a_log_are_never_html(environment: dict[str, str], bearer: dict[str, str] | None = None) -> None:
    folder = environment["TOKENOPS_HOME"]
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    log(
        folder,
        *(turn(number, number, project=f"{evil}{number}", model=f"'{evil}") for number in range(1, 12)),
        meter(0.4, plan=evil),
    )
    made = site(folder, environment)
    headers = {"authorization": f"Bearer {access.token(folder)}"}
    for query in (
        "",
        "?stack=project",
        f"?project={evil.replace(' ', '%20').replace('#', '')}1",
        "?since=%3Cscript%3E",
        "?%3Cscript%3E=1",
    ):
        said = ask(made, f"/dashboard{query}", accept="text/html", **headers)
        for tag in (b"<script>alert", b"<img", b"onerror=alert(2)>", b"<script>="):
            assert tag not in said.body.replace(b"&lt;", b"")
        assert re.findall(rb"<script[^>]*>", said.body) in (
            [],
            [f'<script type="module" src="/dashboard/page.js?v={dash_page.version("page.js")}">'.encode()],
        )
    assert evil.encode() not in dash_page.standalone(made.gatherer.view(dash_query.Ask()))


def test_no_style_and_no_script_is_inline(made: dash.Site, bearer: dict[str, str]) -> None:
    body = ask(made, "/dashboard?since=7d&stack=model", **bearer).body.decode()
    assert not re.search(r"<[^>]*\s(style|on\w+)=", body)
    assert "<style" not in body and not re.search(r"<script(?![^>]*\ssrc=)", body)
    assert not re.findall(r'(?:src|href)="(?!/dashboard|#|data:image/svg)', body)


@given(st.text(), st.text())
def test_whatever_a_name_is_it_is_text(name: str, other: str) -> None:
    made = dash_html.tag("p", name, title=other)
    found: list[tuple[str, Any]] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

        def handle_data(self, data: str) -> None:
            found.append(("", data))

    reader = Reader()
    reader.feed(made)
    reader.close()
    assert [tag for tag, _ in found if tag] == ["p"] and list(found[0][1]) == ["title"]
    assert "".join(data for tag, data in found if not tag) == str(html.unescape(dash_html.text(name)))


# States.


def test_a_log_that_was_never_synced_is_loading(environment: dict[str, str]) -> None:
    folder = environment["TOKENOPS_HOME"]
    made = site(folder, environment)
    headers = {"authorization": f"Bearer {access.token(folder)}"}
    text = ask(made, "/dashboard", **headers).body.decode()
    assert (
        "for the first time" in text and 'data-state="loading"' in text and '<meta http-equiv="refresh" content="3">' in text
    )
    assert "never synced" in text


def test_an_empty_log_says_what_to_do(environment: dict[str, str]) -> None:
    folder = environment["TOKENOPS_HOME"]
    os.makedirs(folder)
    pathlib.Path(folder, "synced").touch()
    made = site(folder, environment)
    headers = {"authorization": f"Bearer {access.token(folder)}"}
    text = ask(made, "/dashboard", **headers).body.decode()
    for said in ("The log is empty", "tok-init --detect", "tok-sync", "tok-status"):
        assert said in text
    for path in (
        "budget",
        "spend/summary",
        "spend/series",
        "sessions",
        "tasks",
        "workflows",
        "scorecard",
        "status",
        "spend/forecast",
    ):
        assert ask(made, f"/api/{path}", **headers).status == 200, path


def test_an_empty_span_says_when_there_was_something(made: dash.Site, bearer: dict[str, str]) -> None:
    found = page(made, bearer, "?since=2026-11-01&until=2026-11-02")
    assert "Nothing in this span" in found.text["main"] and "2026-11-21" in found.text["main"]
    assert "Nothing matches" in page(made, bearer, "?project=none").text["main"]


def test_a_log_that_is_behind_says_so(made: dash.Site, bearer: dict[str, str], folder: str) -> None:
    os.utime(os.path.join(folder, "synced"), (AT / 1000 - 3600, AT / 1000 - 3600))
    assert "The log is out of date" in page(made, bearer).text["main"]
    pathlib.Path(folder, "made-up").touch()  # nothing is imported into it, however old it is
    assert "The log is out of date" not in page(made, bearer).text["main"]
    pathlib.Path(folder, "made-up").unlink()
    os.utime(os.path.join(folder, "synced"), (AT / 1000 - 60, AT / 1000 - 60))
    log_page = page(made, bearer, "?since=25h")
    assert "The log is out of date" not in log_page.text["main"] and "as of 09:29:00" in log_page.text["as-of"]


def test_made_up_data_is_called_that(made: dash.Site, bearer: dict[str, str], folder: str) -> None:
    pathlib.Path(folder, "made-up").touch()
    assert "demo data" in page(made, bearer).text["main"]


PAGE_BAD = [("since=never", "'never' is not a valid time"), ("stack=moon", "choose from"), ("x=1", "did you mean"), ("since=2030-01-01", "not before now"), ("since=9999w", "years ago"), ("since=24h&until=2026-11-01", "swap")]  # fmt: skip


@pytest.mark.parametrize(("query", "why"), PAGE_BAD)
def test_a_bad_question_is_told(made: dash.Site, bearer: dict[str, str], query: str, why: str) -> None:
    said = ask(made, f"/dashboard?{query}", **bearer)
    assert said.status == 400 and why in json.loads(said.body)["error"]
    assert said.status == ask(made, f"/dashboard?{query}", accept="text/html", **bearer).status


def test_a_plan_near_its_limit(environment: dict[str, str]) -> None:
    folder = environment["TOKENOPS_HOME"]
    log(folder, turn(1, 3), meter(0.985, resets=41))
    headers = {"authorization": f"Bearer {access.token(folder)}"}
    found = page(site(folder, environment), headers)
    assert found.data["plan-anthropic-"][:2] == [("wait_for_reset", "wait for reset"), ("0.985", "98%")]
    assert "resets in 41m" in found.text["plan-anthropic-"]


# Reading the log again and again.


@examples(60)
@given(st.data())
def test_a_log_that_grows_is_read_as_a_whole_one(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = str(tmp_path_factory.mktemp("log"))
    open_days = store_days.OpenDays(folder)
    first = when.stamp(AT - when.DAY)[:10]
    for _ in range(data.draw(st.integers(1, 5))):
        some = data.draw(
            st.lists(
                st.tuples(st.integers(0, 12), st.integers(-3000, 60), st.integers(0, 3), st.booleans()),
                min_size=1,
                max_size=8,
            )
        )
        records = []
        for number, minutes, output, aliased in some:
            more: Json = {"output_tokens": output}
            if aliased:
                source = ("codex-jsonl", "proxy")[number % 2]
                more |= {"alias": f"a{number // 2}", "source": source, "id": f"{source}:{number}"}
            records.append(turn(number, minutes, **more))
        store.append(folder, map(_line, records), durable=False)
        if data.draw(st.booleans()):
            with open(f"{folder}/events/{store.days(folder)[-1]}.jsonl", "ab") as file:
                file.write(b'{"v":1,"ts":"2026')  # torn, for now
        if first > store.days(folder)[-1]:
            continue
        mine = sorted(_line(event) for event in open_days.events(first))
        theirs = sorted(store.scan(folder, f"{first}T00:00:00.000Z"))
        assert mine == theirs


def _line(event: Json) -> bytes:
    return orjson.dumps(events.arrange(event)) + b"\n"


def test_only_new_bytes_are_read_again(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_days = store_days.OpenDays(folder)
    first = when.stamp(AT - when.DAY)[:10]
    count = len(open_days.events(first))
    asked: list[str] = []
    real = store.day_sightings
    monkeypatch.setattr(
        store, "day_sightings", lambda day, *rest, **more: (asked.append(day.name), real(day, *rest, **more))[1]
    )
    log(folder, turn(7000, 1))
    assert len(open_days.events(first)) == count + 1 and not asked
    log(folder, turn(7001, 60 * 30))  # a late turn of yesterday
    assert len(open_days.events(first)) == count + 2 and asked


# A plan from the middle of a day of the log's on, as its zone has it.
PLANS = [plans.Binding("anthropic", "claude-pro", "", ""), plans.Binding("anthropic", "claude-max-20x", "2026-11-20", "")]
ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("since", ["24h", "7d", "40d", "today"])
def test_sums_are_those_of_the_whole_log_in_any_zone(folder: str, zone: str, since: str) -> None:
    tz = zoneinfo.ZoneInfo(zone) if zone != "UTC" else datetime.UTC
    catalogue = pricing.load()
    reader = dash_spend.Reader(folder)
    for bound in ([], [], PLANS, PLANS, PLANS[:1]):  # what is kept gives the same; a plan that is set anew counts at once
        spent = reader.read(dash_query.Ask(since), AT, tz, catalogue, bound, store_days.files_of(folder))
        plan = rollup.Grouping((), tz, catalogue)
        start = when.stamp(when.parse_since(since, AT, tz))
        cover = coverage.Coverage(bound, tz) if bound else None
        whole = costs.price_rows(store_summaries.rows(folder, plan, AT, start, cover=cover), catalogue)
        assert {**spent.total, "by": []} == {**whole[0], "by": []}
        assert [one["plan"] for one in spent.worth] == sorted(whole[0].get("covered_by", {}))
        bars = [part.spent for part in spent.bars if part.spent is not None and "turns" in part.spent]
        assert sum(row["turns"] for row in bars) == spent.total["turns"]
        assert spent.bars[0].start <= when.moment(start) < spent.bars[0].end
        assert all(a.end == b.start for a, b in zip(spent.bars, spent.bars[1:], strict=False))


KEPT_ZONES = ["UTC", "Asia/Kathmandu", "Pacific/Pago_Pago"]


@pytest.mark.parametrize("zone", KEPT_ZONES)
def test_what_is_kept_of_closed_days_changes_no_number(environment: dict[str, str], zone: str) -> None:
    folder, tz, catalogue = environment["TOKENOPS_HOME"], zoneinfo.ZoneInfo(zone), pricing.load()
    about = {"kind": "usage", "covers": "session", "turns": 3}
    log(folder, *(turn(number, 47.7 * number, session_id=f"s{number % 17}") for number in range(1, 400)))
    log(folder, turn(1005, 6000, session_id="past"), turn(1006, 6010, **about, session_id="past"))
    # Totals of sessions: one alone, one told twice by different sources, one whose turns are known on other days.
    log(folder, turn(1001, 5000, **about, id="u1", session_id="alone"))
    log(folder, turn(1002, 9000, **about, id="u2", session_id="twice", source="a"))
    log(
        folder, turn(1003, 300, **about, id="u3", session_id="twice", source="b"), turn(1004, 9100, **about, session_id="s3")
    )
    kept, plain = dash_spend.Reader(folder), dash_spend.Reader(folder)
    plain._closed_days = lambda about, *rest: dash_sums.NONE._replace(since=about.since, until=about.since)  # type: ignore[method-assign]
    spans = (("7d", ""), ("13d", ""), ("40d", ""), ("12d", "3d"), ("2026-11-10", "2026-11-13T05:00:00Z"))
    filters = (("class", {}), ("skill", {"model": "claude-haiku-4-5"}), ("model", {"project": "p1"}))
    asks = [  # each span with each filter in one of the zones
        dash_query.Ask(since, until, stack=stack, **only)
        for row, (since, until) in enumerate(spans)
        for column, (stack, only) in enumerate(filters)
        if (row + column) % 3 == KEPT_ZONES.index(zone)
    ]
    for grown in range(3):
        for ask_ in asks:
            bound = PLANS[: 1 + grown] if grown else []
            sizes, now = store_days.files_of(folder), AT + grown * 61_000
            both = [one.read(ask_, now, tz, catalogue, bound, sizes) for one in (kept, plain)]
            mine, theirs = ({**one._asdict(), "sessions": sorted(one.sessions, key=str)} for one in both)
            assert mine == theirs
            assert both[0].total["turns"] == sum(row["turns"] for row in both[0].sessions)
        assert kept.spans.values and not plain.spans.values
        # Today; a session of closed days that goes on; a turn of a closed day that was found only now.
        log(folder, turn(2000 + grown, -1 - grown), turn(3000 + grown, 3, session_id="s3"), turn(4000 + grown, 8000))
        log(folder, turn(5000 + grown, 2, session_id="alone"))


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_what_is_kept_of_hours_changes_no_number(environment: dict[str, str], zone: str) -> None:
    folder, tz, catalogue = environment["TOKENOPS_HOME"], zoneinfo.ZoneInfo(zone), pricing.load()
    log(folder, *(turn(number, 1.7 * number, session_id=f"s{number % 9}") for number in range(1, 1200)))
    log(folder, turn(5000, 31, kind="usage", covers="session", id="u1", session_id="alone"))
    kept, plain = dash_spend.Reader(folder), dash_spend.Reader(folder)
    plain.open.FEW = 10**9  # type: ignore[misc]
    asks = [dash_query.Ask("24h"), dash_query.Ask("5h", stack="model"), dash_query.Ask("20h", "3h"), dash_query.Ask("7d")]
    asks = asks[KEPT_ZONES.index(zone) :: 2]
    for grown in range(6):
        bound = PLANS if grown > 2 else []
        for ask_ in asks:
            sizes, now = store_days.files_of(folder), AT + grown * 61_000
            mine, theirs = (one.read(ask_, now, tz, catalogue, bound, sizes) for one in (kept, plain))
            assert mine == theirs and len(kept.open.recent.values) > 20 and not plain.open.recent.values
        log(folder, turn(6000 + grown, -1 - grown), turn(7000 + grown, 200.3))
        log(folder, turn(3 + grown, 1.7 * (3 + grown), output_tokens=9999))


def test_a_span_that_ends_in_a_closed_day(folder: str) -> None:
    catalogue, reader = pricing.load(), dash_spend.Reader(folder)
    for until in ("2026-11-18", "2026-11-18T11:22:33Z", "2026-11-21T09:00:00Z", "2h"):
        spent = reader.read(
            dash_query.Ask("2026-11-17T05:00:00Z", until), AT, when.UTC, catalogue, [], store_days.files_of(folder)
        )
        end = when.stamp(when.parse_until(until, AT, when.UTC))
        plan = rollup.Grouping((), when.UTC, catalogue)
        (whole,) = costs.price_rows(store_summaries.rows(folder, plan, AT, "2026-11-17T05:00:00.000Z", end), catalogue)
        assert {**spent.total, "by": []} == {**whole, "by": []}
        assert not spent.expected and spent.at_midnight is None


def test_a_session_that_tells_only_its_total_is_in_the_sum_and_in_no_bar(environment: dict[str, str]) -> None:
    folder = environment["TOKENOPS_HOME"]
    total = {**turn(1, 100, kind="usage", id="u1", covers="session", session_id="alone", output_tokens=1000), "turns": 3}
    shadow = {**turn(2, 90, kind="usage", id="u2", covers="session", output_tokens=5000), "turns": 3}
    log(folder, total, shadow, turn(2, 95))
    spent = dash_spend.Reader(folder).read(
        dash_query.Ask("24h"), AT, when.UTC, pricing.load(), [], store_days.files_of(folder)
    )
    assert spent.total["turns"] == 4 and [one["id"] for one in spent.totals] == ["u1"]
    assert sum(part.spent.get("turns", 0) for part in spent.bars if part.spent) == 1


# What is likely to come.


def hourly(days: int, cost: int) -> dict[int, Decimal]:
    start = AT - AT % 3_600_000
    return {start - hour * 3_600_000: Decimal(cost + hour % 24) for hour in range(1, 24 * days)}


def test_the_same_hours_of_the_last_weeks() -> None:
    start = AT - AT % 3_600_000 + 3_600_000
    ahead = [(start + hour * 3_600_000, start + (hour + 1) * 3_600_000) for hour in range(3)]
    found = dash_spend.outlook(hourly(28, 5), AT, 0, ahead, when.UTC)
    assert [one["days"] for one in found] == [28, 28, 28]
    for one, (begin, _) in zip(found, ahead, strict=True):
        hour = (AT - AT % 3_600_000 - begin) // 3_600_000 % 24
        assert one["cost_usd"]["p50"] == str(5 + hour)
    assert dash_spend.outlook(hourly(6, 5), AT, AT - 6 * when.DAY, ahead, when.UTC) == []  # less than a week says nothing
    week = dash_spend.outlook(hourly(28, 5), AT, 0, [(AT + when.DAY, AT + 2 * when.DAY)], when.UTC)
    assert week[0]["days"] == 7  # tomorrow is a Sunday: four weeks have eight days of its kind, and today is not over


def test_nothing_is_expected_of_a_young_log(made: dash.Site, bearer: dict[str, str]) -> None:
    assert "likely by midnight" not in page(made, bearer, "?since=24h").text["today"]


# The file that stands alone.


def test_the_file_needs_nothing_and_holds_no_token(
    run: Run, folder: str, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    token = access.token(folder)
    ticket = access.ticket(folder, AT)
    done = run("tok-dash --html page.html --since 7d", status=1, env={"TOKENOPS_NOW": NOW})  # one model has no price
    assert (done.stdout, done.stderr) == (b"", b"")
    text = (tmp_path / "page.html").read_text()
    for secret in (token, ticket, "tokenops_dash", "Bearer"):
        assert secret not in text
    assert "<script" not in text and 'http-equiv="refresh"' not in text
    assert not re.search(r"(?:src|href|action)=|url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy and policy[1].startswith("default-src &#x27;none&#x27;; style-src &#x27;sha256-")
    check(Page(text.encode()), run, "7d", "")
    assert run("tok-dash --html - --since 7d", status=1, env={"TOKENOPS_NOW": NOW}).stdout.decode() == text


CLI_BAD = [
    ("--since 7d", "--since needs --html FILE"),
    ("--html x --port 1", "serves nothing"),
    ("--html x url", "serves nothing"),
    ("--html x --since never", "'never' is not a valid time"),
    ("--html x --stack moon", "choose from"),
    ("--html /nowhere/x", "No such file or directory"),
    ("frobnicate", "invalid choice"),
    ("--port 99999", "choose another --port"),
]


@pytest.mark.parametrize(("options", "why"), CLI_BAD)
def test_usage(run: Run, folder: str, options: str, why: str) -> None:
    done = run(f"tok-dash {options}", status=2, env={"TOKENOPS_NOW": NOW})
    assert why in done.stderr.decode() and done.stderr.count(b"\n") == 1 and b"Traceback" not in done.stderr


# The process.


def test_a_real_one(environment: dict[str, str], folder: str, run: Run) -> None:
    with running(environment, TOKENOPS_NOW=NOW) as server:
        for path, name in (("/healthz", "status"), ("/readyz", "status"), ("/version", "version")):
            status, _, body = server.get(path, bearer=False)
            assert status == 200 and name in json.loads(body)
        assert json.loads(server.get("/version", bearer=False)[2])["name"] == "tok-dash"
        for path in ("/", "/dashboard", "/api/budget", "/nothing", "//healthz", "/healthz/", "/readyz/../api/budget"):
            assert server.get(path, bearer=False)[0] == 401
        status, headers, body = server.get("/dashboard")
        assert status == 200 and b"<!doctype html>" in body and "content-length" in headers
        assert server.get("/dashboard", If_None_Match=headers["etag"])[0] == 304
        assert server.get("/dashboard", "HEAD")[2] == b""
        link = run("tok-dash url").stdout.decode().strip()
        assert link.startswith(f"http://127.0.0.1:{server.port}/dashboard?ticket=")
        path = link.removeprefix(f"http://127.0.0.1:{server.port}")
        assert server.get(path, "HEAD", bearer=False)[0] == 401
        status, headers, _ = server.get(path, bearer=False)
        assert (status, headers["location"]) == (303, "/dashboard")
        assert server.get("/dashboard", bearer=False, Cookie=headers["set-cookie"].partition(";")[0])[0] == 200
        assert server.get(path, bearer=False)[0] == 401
        old = server.token
        run("tok-dash rotate-token")
        assert server.token != old
        assert server.get("/api/budget", bearer=False, Authorization=f"Bearer {old}")[0] == 401
        assert server.get("/api/budget")[0] == 200
    done = run("tok-dash url", status=1)
    assert b"no dashboard is running on this log" in done.stderr and not done.stdout
    assert server.process.returncode == 0


def test_nothing_secret_is_said(environment: dict[str, str], folder: str) -> None:
    with running(environment, TOKENOPS_NOW=NOW) as server:
        server.get("/api/budget?token=wrong-guess", bearer=False)
        server.get("/nothing")
    assert server.process.stderr is not None
    said = server.process.stderr.read().decode()
    assert server.token not in said and "wrong-guess" not in said and "ticket" not in said


def test_requests_one_after_another_and_many_at_once(environment: dict[str, str], folder: str) -> None:
    with running(environment, TOKENOPS_NOW=NOW) as server:
        line = f"GET /api/budget HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.token}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=MOST) as connection:
            connection.sendall(line.encode() * 5 + line.replace("Host", "Connection: close\r\nHost", 1).encode())
            found = b""
            while data := connection.recv(1 << 16):
                found += data
        assert found.count(b"HTTP/1.1 200 OK") == 6
        with socket.create_connection(("127.0.0.1", server.port), timeout=MOST) as connection:
            connection.sendall(
                line.replace("GET", "POST", 1).replace("\r\n\r\n", "\r\nContent-Length: 9\r\n\r\n12345").encode()
            )
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 405")


def test_guesses_do_not_hold_up_who_has_the_token(environment: dict[str, str], folder: str) -> None:
    with running(environment, TOKENOPS_NOW=NOW) as server, contextlib.ExitStack() as stack:
        guesses = [
            stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", server.port)))) for _ in range(30)
        ]
        for connection in guesses:
            connection.sendall(f"GET /dashboard?token=x HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        assert server.get("/api/budget")[0] == 200
        waiting = [connection for connection in guesses if not select.select([connection], [], [], 0)[0]]
        assert waiting  # those are answered one after the other, each after a while


def test_the_first_reading_of_the_logs_is_not_waited_for(environment: dict[str, str]) -> None:
    sample = {"HOME": str(ROOT / "docs/examples/home"), "TOKENOPS_NOW": "2026-11-18T21:00:00Z"}
    with running(environment, **sample) as server:

        def state() -> str:
            found = re.search(r'data-state="(\w+)"', server.get("/dashboard")[2].decode())
            assert found
            return found[1]

        assert state() in ("loading", "ready")
        eventually(lambda: state() == "ready")


def test_a_file_that_is_not_a_token_stops_it(run: Run, folder: str) -> None:
    pathlib.Path(folder, access.TOKEN).mkdir()
    done = run("tok-dash --port 0", status=2)
    assert b"remove it and run tok-dash rotate-token" in done.stderr and b"Traceback" not in done.stderr


def test_a_proxy_serves_it_too(environment: dict[str, str], folder: str, run: Run) -> None:
    with running(environment, "--dash", command="tok-proxy", TOKENOPS_NOW=NOW) as server:
        for path in (
            "/dashboard",
            "/dashboard/",
            "/dashboard/page.css",
            "/api/budget",
            "/api",
            "/api/x",
            "/dashboard/../api",
        ):
            assert server.get(path, bearer=False)[0] == 401, path
        assert b"<!doctype html>" in server.get("/dashboard")[2]
        assert server.get("/api/budget")[0] == 200
        assert server.get("/nothing", bearer=False)[0] == 404
        assert json.loads(server.get("/version", bearer=False)[2])["name"] == "tok-proxy"
        assert run("tok-dash url").stdout.startswith(f"http://127.0.0.1:{server.port}/".encode())
    done = run("tok-proxy --dash --host 0.0.0.0 --port 0", status=2)
    assert b"--dash is for this machine only" in done.stderr


def test_a_proxy_without_it_has_none(proxy: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=MOST)
    connection.request("GET", "/dashboard")
    assert connection.getresponse().status == 404


def test_the_agents_tool_gives_a_link_that_opens_it_once(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: AT * 1_000_000)  # the clock of the commands
    source = site(folder, environment).gatherer.session
    tool = tools.TOOLS["tokenops_dashboard"]
    nothing = tools.ToolCache(source).call(tool, {})
    assert nothing.value["url"] is None and "tok-dash" in nothing.value["hint"]
    with running(environment, TOKENOPS_NOW=NOW) as server:
        desk = tools.ToolCache(source)
        links = [desk.call(tool, {}).value["url"] for _ in range(2)]
        assert links[0] != links[1] and server.token not in json.dumps(links)
        path = links[0].removeprefix(f"http://127.0.0.1:{server.port}")
        assert [server.get(path, bearer=False)[0] for _ in range(2)] == [303, 401]


def test_a_name_on_this_machine_only(environment: dict[str, str], folder: str) -> None:
    zeroconf = pytest.importorskip("zeroconf")
    with running(environment, "--mdns", TOKENOPS_NOW=NOW) as server:
        host = f"tokenops.local:{server.port}"
        assert server.get("/api/budget", Host=host)[0] == 200
        ears = zeroconf.Zeroconf(interfaces=["127.0.0.1"], ip_version=zeroconf.IPVersion.V4Only)
        try:
            found = ears.get_service_info("_http._tcp.local.", f"TokenOps {server.port}._http._tcp.local.", 5000)
        finally:
            ears.close()
        if found is None:
            pytest.skip("this machine carries no multicast on its own interface")
        assert found.parsed_addresses() == ["127.0.0.1"] and found.server == "tokenops.local."
    with running(environment, TOKENOPS_NOW=NOW) as server:
        assert server.get("/api/budget", Host=f"tokenops.local:{server.port}")[0] == 403


# Weeks of logs.

LATER = "2026-07-07T12:00:00.000Z"


@pytest.mark.parametrize("whose", ["ours", pytest.param("real", marks=needs_shared)])
def test_the_page_of_weeks_is_the_commands(whose: str, weeks: Home, run: Run) -> None:
    home = {"HOME": str(weeks.root if whose == "ours" else SHARED / "home"), "TOKENOPS_NOW": LATER}
    run("tok-sync", status=None, env=home)

    def later(line: str, given: bytes = b"", status: int | None = 0, env: dict[str, str] | None = None) -> Any:
        return run(line, given, status, (env or {}) | home)

    for since, options in (("365d", ""), ("90d", " --client codex")):
        done = later(f"tok-dash --html - --since {since}{options}", status=None)
        check(Page(done.stdout), later, since, options)


def test_a_part_that_could_not_be_computed_is_tried_again_with_the_next_answer(
    folder: str, environment: dict[str, str]
) -> None:
    """Though nothing of the log has changed: what was wrong may have been another program's lock."""
    answers: list[Any] = [OSError("locked"), {"value": 1}]

    def part(source: session.Session, ask: dash_query.Ask) -> dict[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return dict(answer)

    moments = iter(range(0, 100, 5))
    slow = dash_view.Slow(part, lambda: next(moments), by_span=True)
    source = site(folder, environment).gatherer.session
    slow.value(source, "key", dash_query.Ask(), is_patient=False)
    assert slow.renew(source, "key") and "error" in slow.value(source, "key", dash_query.Ask(), is_patient=False)
    turn = slow.turn
    assert slow.renew(source, "key") and slow.turn == turn + 1
    assert slow.value(source, "key", dash_query.Ask(), is_patient=False) == {"value": 1}
    assert slow.renew(source, "key") and not answers  # and then only where something is new
