"""The dashboard in a real Chromium: numbers, filters, refresh, keys, sessions, states, and what it asks of the network."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dashboards import NOW, PORT, Dash, ask, broken_session, log, meter, quiet_port, running, site, turn
from homes import Home
from soak_clock import Clock

from conftest import MOST, ROOT, Json, Run, objects, put
from tokenops import access, events, when

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium here: apt-get install chromium"),
    pytest.mark.usefixtures("still"),  # no page changes because time passes
]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
FLAGS += ["--disable-component-update", "--disable-sync"]
REAL = "2026-07-07T12:00:00.000Z"
Page = Any
# Counts what the page has loaded and shown, and leaves out what it does by itself each fifteen seconds.
COUNTED = """(() => {
    window.loads = 0;
    const [fetched, timed] = [window.fetch, window.setTimeout];
    const counted = () => timed(() => { window.loads += 1; }, 0);
    window.setTimeout = (act, ms, ...rest) => ms >= 1500 ? 0 : timed(act, ms, ...rest);
    window.fetch = async (...args) => {
        try {
            const answer = await fetched(...args), text = answer.text.bind(answer);
            answer.text = async () => { try { return await text(); } finally { counted(); } };
            return answer;
        } catch (error) { counted(); throw error; }
    };
})()"""


class Seen:
    """What a page did that a reader does not see."""

    def __init__(self) -> None:
        self.console: list[str] = []
        self.requests: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def elsewhere(self) -> list[str]:
        """Requests to anything but this machine."""
        hosts = {url: urllib.parse.urlsplit(url).hostname for url in self.requests if not url.startswith("data:")}
        return [url for url, host in hosts.items() if host not in ("127.0.0.1", "localhost")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=1000 * MOST)
        yield found
        found.close()


def fresh(browser: Any, **options: Any) -> Any:
    """A context of its own, in which nothing is given up soon."""
    context = browser.new_context(**options)
    context.set_default_timeout(1000 * MOST)
    return context


Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Any) -> Iterator[tuple[Open, Seen]]:
    """Open a page of a dashboard as its owner does: by a link with a ticket."""
    seen = Seen()
    with contextlib.ExitStack() as stack:

        def open_(server: Dash, query: str = "", width: int = 1280, **options: Any) -> Page:
            context = fresh(browser, viewport={"width": width, "height": 900}, **options)
            context.add_init_script(COUNTED)
            stack.callback(context.close)
            page = context.new_page()
            seen.watch(page)
            link, _ = access.link(str(server.folder), f"http://127.0.0.1:{server.port}", server.now)
            page.goto(f"{link}&{query}" if query else link)
            if options.get("java_script_enabled", True):
                scripted(page)
            return page

        yield open_, seen
    assert not seen.elsewhere()


@pytest.fixture
def made(environment: dict[str, str]) -> Iterator[Dash]:
    """A dashboard of a log of a few days."""
    log(environment["TOKENOPS_HOME"], meter(0.4), *(turn(number, 17.3 * number) for number in range(1, 300)))
    with running(environment, TOKENOPS_NOW=NOW) as server:
        yield server


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, weeks: Home) -> Iterator[tuple[Dash, dict[str, str]]]:
    """A dashboard of some weeks of logs."""
    folder = tmp_path_factory.mktemp("real")
    settings = folder / "tokenops/config.yaml"
    settings.parent.mkdir()
    settings.write_text("plans:\n  anthropic: [{plan: claude-max-20x, from: 2026-02-20}]\n  openai: chatgpt-pro\n")
    environment = {
        "PATH": f"{ROOT / 'bin'}:{os.environ['PATH']}",
        "HOME": str(weeks.root),
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"],
        "XDG_CONFIG_HOME": str(folder),
        "TOKENOPS_HOME": str(folder / "log"),
        "TOKENOPS_NOW": REAL,
    }
    clock = Clock(folder / "clock", when.moment(REAL), 0)
    environment |= clock.environment()
    subprocess.run(["tok-sync"], env=environment, check=False, capture_output=True, executable=ROOT / "bin/tok-sync")
    with running(environment) as server:
        server.now = clock.now()
        yield server, environment
    clock.held.close()


def command(line: str, environment: dict[str, str]) -> list[Json]:
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, check=False)
    return objects(done.stdout)


def data(page: Page, selector: str) -> list[list[str]]:
    """Value and text of the numbers below a selector."""
    found: list[list[str]] = page.eval_on_selector_all(f"{selector} data", "all => all.map(e => [e.value, e.innerText])")
    return found


def scripted(page: Page) -> None:
    """Wait until the page's script has done its part: it begins when the page is painted, which may be after its load."""
    page.wait_for_selector("main[tabindex]", state="attached")


def settled(page: Page, action: Callable[[], Any]) -> None:
    """Do something that has the page fetched anew, and wait until it is there, or known not to come."""
    before = page.evaluate("window.loads")
    action()
    page.wait_for_function("before => window.loads > before", arg=before)


def refresh(page: Page) -> None:
    """What it does each fifteen seconds, and when it is looked at again."""
    settled(page, lambda: page.evaluate("document.dispatchEvent(new Event('visibilitychange'))"))


def until_there(page: Page, selector: str) -> None:
    """Look again until something is there that is computed after an answer."""
    for _ in range(600):
        if page.is_visible(selector):
            return
        refresh(page)
        page.wait_for_timeout(200)
    pytest.fail(f"no {selector}: {page.inner_text('main')[-3000:]}")


# Numbers.


def compare(page: Page, environment: dict[str, str], since: str, options: str = "") -> None:
    (total,) = command(f"tok-cost --log --by none --since {since}{options}", environment)
    assert data(page, "[data-key=span]")[0][0] == total.get("cost_usd", "")
    assert data(page, "[data-key=turns]")[0] == [str(total["turns"]), f"{total['turns']:,}"]
    assert data(page, "[data-key=turns]")[1][0] == str(events.token_sum(total))
    assert data(page, "[data-key=cache]")[0][0] == str(total.get("cache_hit_ratio", ""))
    assert re.search(r"Cache hit: \d+\.\d%", page.inner_text("[data-key=cache]"))
    covered = total.get("covered_by", {})
    assert {name: data(page, f"[data-key='worth {name}']")[0][0] for name in covered} == covered
    assert not covered or data(page, "#metered")[0][0] == total["metered_usd"]
    for name in ("model", "project"):
        theirs = command(f"tok-cost --log --by {name} --since {since}{options}", environment)
        rows = data(page, f"#by-{name}")
        costs = [value for value, _ in rows[2::3]]
        assert costs == [row.get("cost_usd", "") for row in sorted(theirs, key=dearest, reverse=True)][:6]
    theirs = command(f"tok-cost --log --by session,project --since {since}{options}", environment)
    costs = [value for value, _ in data(page, "#top-sessions")[3::4]]
    assert costs == [row.get("cost_usd", "") for row in sorted(theirs, key=dearest, reverse=True)][:10]


def dearest(row: Json) -> tuple[float, int]:
    return float(row.get("cost_usd", 0)), events.token_sum(row)


def test_every_number_is_the_commands(opened: tuple[Open, Seen], real: tuple[Dash, dict[str, str]]) -> None:
    (open_, seen), (server, environment) = opened, real
    page = open_(server, "since=30d")
    compare(page, environment, "30d")
    settled(page, lambda: page.check("input[name=since][value='365d']", force=True))
    compare(page, environment, "365d")
    (total,) = command("tok-cost --log --by none --since 365d", environment)
    assert len(total["covered_by"]) == 2 and float(total["metered_usd"]) > 0
    settled(page, lambda: page.select_option("select[name=client]", "claude-code"))
    compare(page, environment, "365d", " --client claude-code")
    settled(page, lambda: page.select_option("select[name=model]", "claude-opus-4-6"))
    compare(page, environment, "365d", " --client claude-code --model claude-opus-4-6")
    settled(page, lambda: page.click("text=Clear"))
    rows = command("tok-budget --json", environment)
    shown = [value for value, _ in data(page, ".plan .big")]
    binding = [(row, window) for row in rows for window in row["windows"] if window["window"] == row["binding_window"]]
    likely = [window.get("carried", {}).get("used", {}).get("p50", window["used"]) for _, window in binding]
    assert shown == [str(used) for used in likely]
    badges = [value for value, _ in data(page, ".plan header .badge")]
    assert badges == [row["recommended_action"] for row in rows]
    until_there(page, ".kpis")  # computed after an answer, and fetched soon
    (card,) = command("tok-score --since 365d --json", environment)
    values = [value for value, _ in data(page, ".kpis b")]
    assert values == ["" if kpi["value"] is None else str(kpi["value"]) for kpi in card["kpis"].values()]
    waste = [row for row in command("tok-coach waste --since 7d --json", environment) if row["kind"] == "waste"]
    assert [value for value, _ in data(page, "#waste-table")[1::4]] == [str(row["turns"]) for row in waste]
    assert not seen.console, seen.console


# Filters, the address, the keys.


def test_filters_live_in_the_address(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, seen = opened
    page = open_(made)
    assert page.url == f"http://127.0.0.1:{made.port}/dashboard"
    assert not page.is_visible("#filters button")  # what is chosen is asked for at once
    settled(page, lambda: page.check("input[name=since][value='7d']", force=True))
    settled(page, lambda: page.select_option("select[name=project]", "p1"))
    settled(page, lambda: page.check("input[name=stack][value=model]", force=True))
    assert page.url.endswith("/dashboard?since=7d&project=p1&stack=model")
    one = data(page, "[data-key=turns]")
    page.reload()
    assert data(page, "[data-key=turns]") == one and page.input_value("select[name=project]") == "p1"
    settled(page, page.go_back)
    assert page.url.endswith("/dashboard?since=7d&project=p1")
    assert page.input_value("input[name=stack]:checked") == "class"
    settled(page, page.go_back)
    assert page.input_value("select[name=project]") == "" and data(page, "[data-key=turns]") != one
    settled(page, lambda: page.click("#by-model tbody a >> nth=0"))
    assert "model=" in page.url
    settled(page, lambda: page.click("text=Clear"))
    assert page.url.endswith("/dashboard?since=7d")
    page.goto(f"http://127.0.0.1:{made.port}/dashboard?since=never")
    assert "'never' is not a valid time" in page.inner_text("h1")
    assert [said for said in seen.console if "400" not in said] == []


def test_it_works_without_a_script(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, seen = opened
    page = open_(made, java_script_enabled=False)
    assert page.inner_text("[data-key=turns] .value") != ""
    page.check("input[name=since][value='7d']", force=True)
    page.select_option("select[name=project]", "p1")
    page.click("#filters button")
    assert "since=7d" in page.url and "project=p1" in page.url
    page.click("summary")
    assert page.is_visible("#numbers-table")
    assert not seen.console


def test_the_keys_say_what_the_mouse_does(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, seen = opened
    page = open_(made, "since=24h")
    hits = page.eval_on_selector_all("#chart-tokens .hit", "all => all.map(e => e.dataset.tip)")
    assert len(hits) >= 24 and "cache read" in hits[-1]
    page.focus("#chart-tokens")
    said = []
    for key in ("End", "ArrowLeft", "ArrowLeft", "ArrowRight", "Home", "ArrowLeft"):
        page.keyboard.press(key)
        said.append(page.text_content("#said"))
    assert said == [hits[at].replace("\n", ", ") for at in (-1, -2, -3, -2, 0, 0)]
    assert page.is_visible("#tip")
    refresh(page)
    assert page.is_visible("#tip") and page.locator(".hit.here").count() == 1
    page.keyboard.press("Escape")
    assert not page.is_visible("#tip") and page.text_content("#said") == ""
    page.hover("#chart-tokens .hit >> nth=-1")
    assert page.inner_text("#tip") == hits[-1] and len(hits[-1].splitlines()) > 1
    page.mouse.move(5, 5)
    assert not page.is_visible("#tip")
    # Every control is reached by Tab, in the order in which it stands.
    page.reload()
    scripted(page)
    reached = []
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.name || document.activeElement.id || document.activeElement.className")
        )
    assert (
        reached[:5] == ["away skip", "since", "client", "project", "model"]
        and "chart-cost" in reached
        and "chart-tokens" in reached
    )
    assert not seen.console


def test_by_clicks_from_a_project_to_a_turn_and_back(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, seen = opened
    page = open_(made, "since=7d", width=900)
    addresses = [page.url]
    for selector, shown in (
        ("#by-project tbody a >> nth=0", "#top-sessions"),
        ("#top-sessions tbody a >> nth=1", "#turns-table"),
        ("#turns-table tbody a >> nth=2", "#price-table"),
    ):
        settled(page, lambda selector=selector: page.click(selector))  # type: ignore[misc]
        page.wait_for_selector(shown)
        assert page.evaluate("scrollY") == 0 or shown == "#top-sessions"
        addresses.append(page.url)
    assert len(set(addresses)) == 4 and page.inner_text("[aria-current=page]") == "turn 3"
    cost = data(page, "[data-key=cost]")
    page.reload()
    assert data(page, "[data-key=cost]") == cost  # an address is all that it takes
    settled(page, lambda: page.click("text=turn after"))
    assert page.inner_text("[aria-current=page]") == "turn 4"
    for address in (addresses[3], addresses[2], addresses[1]):
        settled(page, page.go_back)
        assert page.url == address
    assert page.is_visible("#top-sessions") and page.locator("#turns-table").count() == 0
    # A bar of a session's chart leads to its turn, by mouse and by keys.
    page.goto(addresses[2])
    scripted(page)
    settled(page, lambda: page.click("#chart-context .hit >> nth=4"))
    assert page.inner_text("[aria-current=page]") == "turn 5"
    settled(page, page.go_back)
    page.focus("#chart-context")
    page.keyboard.press("Home")
    settled(page, lambda: page.keyboard.press("Enter"))
    assert page.inner_text("[aria-current=page]") == "turn 1"
    assert not seen.console


def contrast(one: str, other: str) -> float:
    """How much two colours such as rgb(1, 2, 3) differ in lightness (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lower, higher = sorted((luminance(one), luminance(other)))
    return (higher + 0.05) / (lower + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("turns", "width"), [(12, 1280), (600, 380)])
def test_a_cache_break_is_seen_at_its_turn_and_told_by_keys(
    turns: int, width: int, scheme: str, opened: tuple[Open, Seen], made: Dash
) -> None:
    open_, seen = opened
    log(str(made.folder), *broken_session(turns, (4, turns - 1), "whole"))
    page = open_(made, "session=whole", width=width, color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.querySelector('.card.chart')).backgroundColor")
    for chart in ("#chart-context", "#chart-causes"):
        hits = page.eval_on_selector_all(f"{chart} .hit", "all => all.map(e => e.dataset.tip)")
        broken = [at for at, hit in enumerate(hits) if "paid again" in hit]
        assert broken == [(number - 1) // -(-turns // 250) for number in (4, turns - 1)]
        for flag, at in zip(page.locator(f"{chart} rect.flag").all(), broken, strict=True):
            mine, bar = flag.bounding_box(), page.locator(f"{chart} .hit >> nth={at}").bounding_box()
            assert mine and bar and mine["width"] >= 2 and mine["height"] >= 5
            assert abs(mine["x"] - bar["x"]) < 1 and bar["y"] - 1 <= mine["y"] < bar["y"] + 2
            fill = flag.evaluate("e => getComputedStyle(e).fill")
            assert contrast(fill, ground) >= 3
        pole = page.locator(f"{chart} path.flag >> nth=0")
        assert contrast(pole.evaluate("e => getComputedStyle(e).stroke"), ground) >= 3
        page.focus(chart)
        page.keyboard.press("Home")
        for _ in range(broken[0]):
            page.keyboard.press("ArrowRight")
        spoken = page.text_content("#said") or ""
        assert spoken == hits[broken[0]].replace("\n", ", ") and "expired" in spoken and "paid again for $" in spoken
        assert "with a flag at each cache break, 2 in all" in (page.get_attribute(chart, "aria-label") or "")
        page.keyboard.press("Escape")
        if width > 1000:  # the mouse finds the hint on the flag too
            box = page.locator(f"{chart} rect.flag >> nth=0").bounding_box()
            assert box
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 2)
            assert page.inner_text("#tip") == hits[broken[0]]
    if place := os.environ.get("TOKENOPS_SCREENSHOTS"):
        pathlib.Path(place, f"breaks-{width}-{scheme}.png").write_bytes(page.screenshot(full_page=True))
    assert not seen.console


def test_headings_sort_and_tables_are_given_as_csv(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, seen = opened
    page = open_(made, "since=7d")
    settled(page, lambda: page.click("#top-sessions th a >> text=Turns"))
    turns = [int(value) for value, _ in data(page, "#top-sessions")[0::4]]
    assert (
        turns == sorted(turns, reverse=True)
        and page.get_attribute("#top-sessions th[aria-sort]", "aria-sort") == "descending"
    )
    settled(page, lambda: page.click("#top-sessions th a >> text=Turns"))
    assert [int(value) for value, _ in data(page, "#top-sessions")[0::4]] == sorted(
        int(value) for value, _ in data(page, "#top-sessions")[0::4]
    )
    with page.expect_download() as download:
        page.click("#sessions a.get")
    lines = pathlib.Path(download.value.path()).read_text().splitlines()
    assert download.value.suggested_filename == "tokenops-top-sessions.csv" and len(lines) == 1 + 15
    assert page.url.endswith("sort=top-sessions.turns.up")  # a file is not a page
    assert not seen.console


def test_a_chart_is_saved_as_a_picture(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, seen = opened
    page = open_(made, "since=7d", color_scheme="dark")
    page.wait_for_selector(".png")
    with page.expect_download() as download:
        page.click("[data-key=cost] .png")
    content = pathlib.Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == "tokenops-cost.png" and content.startswith(b"\x89PNG\r\n")
    width, height = (int.from_bytes(content[at : at + 4]) for at in (16, 20))
    box = page.locator("[data-key=cost]").bounding_box()
    assert (width, height) == (int(2 * box["width"]), int(2 * box["height"]))
    # It is drawn, and not empty: the bars' own colour is in it.
    colours = page.evaluate(
        """async (data) => {
            const image = new Image();
            image.src = data;
            await image.decode();
            const canvas = Object.assign(document.createElement('canvas'), {width: image.width, height: image.height});
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            const pixels = context.getImageData(0, 0, image.width, image.height).data, seen = {};
            for (let at = 0; at < pixels.length; at += 4) {
                const key = [pixels[at], pixels[at + 1], pixels[at + 2]].join();
                seen[key] = (seen[key] ?? 0) + 1;
            }
            return seen;
        }""",
        "data:image/png;base64," + base64.b64encode(content).decode(),
    )
    shown = page.eval_on_selector("#chart-cost path.s0", "one => getComputedStyle(one).fill")
    assert colours[",".join(re.findall(r"\d+", shown))] > 500
    assert not seen.console


def test_a_span_that_is_not_added_up_yet_arrives_by_itself(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, seen = opened
    page = open_(made, "since=3d")
    until_settled = "document.querySelector('[data-pending]') === null"
    while not page.evaluate(until_settled):
        refresh(page)
    assert page.is_visible("#chart-calendar") and page.is_visible(".kpis")
    settled(page, lambda: page.click("#chart-calendar .c4 >> nth=0"))
    assert re.search(r"since=2026-11-\d\d&until=2026-11-\d\d", page.url)
    assert not seen.console


def test_legends_and_bars_filter(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, seen = opened
    page = open_(made, "since=10d&stack=model")
    name = page.inner_text("#charts .legend a >> nth=0")
    settled(page, lambda: page.click("#charts .legend a >> nth=0"))
    assert f"model={name}" in page.url and page.input_value("select[name=model]") == name
    settled(page, lambda: page.click("#charts .legend a >> nth=0"))
    assert page.url.endswith("/dashboard?since=10d&stack=model")
    settled(page, lambda: page.click("#chart-cost .hit[data-go] >> nth=1"))
    assert re.search(r"since=(2026-11-\d\d)&until=\1", page.url)
    settled(page, lambda: page.check("input[name=since][value='7d']", force=True))
    assert page.url.endswith("/dashboard?since=7d&stack=model")  # another span ends now
    for _ in range(2):
        settled(page, page.go_back)
    assert page.url.endswith("/dashboard?since=10d&stack=model")
    assert not seen.console


# Refresh.


def test_a_refresh_changes_what_differs_and_nothing_else(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, seen = opened
    page = open_(made, "since=7d", width=700)
    while page.locator("[data-pending]").count():
        refresh(page)
    page.click("summary")
    page.evaluate(
        """() => {
        for (const one of document.querySelectorAll('*')) one.mine = true;
        scrollTo(0, 700);
        document.querySelector('#chart-tokens').focus({preventScroll: true});
        window.removed = 0;
        new MutationObserver(all => all.forEach(one => one.removedNodes.forEach(node => removed += node.nodeType === 1)))
            .observe(document.body, {childList: true, subtree: true});
    }"""
    )
    turns = int(data(page, "[data-key=turns]")[0][0])
    place = page.evaluate("scrollY")
    log(str(made.folder), turn(4000, 2), turn(4001, 3))
    refresh(page)
    assert int(data(page, "[data-key=turns]")[0][0]) == turns + 2
    assert page.evaluate("scrollY") == place
    assert page.evaluate("document.activeElement.id") == "chart-tokens"
    assert page.evaluate("document.querySelector('#numbers').open")
    fresh = page.eval_on_selector_all("main *, .top *", "all => all.filter(one => !one.mine).map(one => one.tagName)")
    assert len(fresh) <= 12 and page.evaluate("removed") <= 12, fresh
    for key in ("tiles", "charts", "sessions", "headroom", "filters"):
        assert page.evaluate(f"document.getElementById('{key}').mine"), key
    assert not seen.console


def test_an_unchanged_page_is_not_sent_again(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, _ = opened
    page = open_(made)
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status))
    refresh(page)
    refresh(page)
    assert statuses == [304, 304]
    assert page.text_content("#message") == ""


def test_a_select_that_is_open_is_left_alone(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, _ = opened
    page = open_(made)
    page.focus("select[name=project]")
    page.evaluate("document.querySelector('select[name=project]').value = 'p2'")
    log(str(made.folder), turn(4000, 2, project="fresh"))
    refresh(page)
    assert page.input_value("select[name=project]") == "p2"


def test_a_server_that_is_gone_and_comes_back(opened: tuple[Open, Seen], environment: dict[str, str]) -> None:
    open_, seen = opened
    log(environment["TOKENOPS_HOME"], turn(1, 3))
    with running(environment, "--port", str(quiet_port()), TOKENOPS_NOW=NOW) as server:
        page = open_(server)
        turns = data(page, "[data-key=turns]")
    for _ in range(2):
        refresh(page)
    assert "does not answer" in page.inner_text("#message") and "tok-dash" in page.inner_text("#message")
    assert data(page, "[data-key=turns]") == turns
    assert all("ERR_CONNECTION_REFUSED" in said for said in seen.console)
    with running(environment, "--port", str(server.port), TOKENOPS_NOW=NOW):
        refresh(page)
        assert page.inner_text("#message") == ""


def test_a_server_that_never_answers_is_given_up(opened: tuple[Open, Seen], made: Dash) -> None:
    """Its connection stays open, as that of a suspended process: without a limit the page would wait for it for ever."""
    open_, _ = opened
    page = open_(made)
    shortened = (
        "(own => { window.setTimeout = (act, ms, ...rest) => own(act, ms === 60000 ? 50 : ms, ...rest); })(setTimeout)"
    )
    page.evaluate(shortened)
    page.route("**/dashboard*", lambda route: None)
    for _ in range(2):
        refresh(page)
    assert "does not answer" in page.inner_text("#message")
    page.unroute("**/dashboard*")
    refresh(page)
    assert page.inner_text("#message") == ""


def test_what_could_not_be_shown_is_sent_again(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, _ = opened
    page = open_(made)
    turns = int(data(page, "[data-key=turns]")[0][0])
    fail_once = """(parser => {
        const own = parser.parseFromString;
        parser.parseFromString = () => { parser.parseFromString = own; throw new Error("once"); };
    })(DOMParser.prototype)"""
    page.evaluate(fail_once)
    log(str(made.folder), turn(4000, 2))
    refresh(page)
    assert int(data(page, "[data-key=turns]")[0][0]) == turns
    refresh(page)
    assert int(data(page, "[data-key=turns]")[0][0]) == turns + 1


# Sessions.


def test_who_has_no_session_is_told_how_to_get_one(browser: Any, made: Dash) -> None:
    context = fresh(browser)
    page = context.new_page()
    answer = page.goto(f"http://127.0.0.1:{made.port}/dashboard")
    assert answer.status == 401 and "tok-dash url" in page.inner_text("ol")
    assert page.evaluate("getComputedStyle(document.body).maxWidth") != "none"  # its style is allowed
    context.close()


def test_a_link_opens_it_once_and_the_address_is_clean(browser: Any, made: Dash) -> None:
    link, _ = access.link(str(made.folder), f"http://127.0.0.1:{made.port}", made.now)
    first, second = fresh(browser), fresh(browser)
    page = first.new_page()
    page.goto(link)
    assert page.url == f"http://127.0.0.1:{made.port}/dashboard" and page.locator("#tiles").count() == 1
    assert page.evaluate("document.cookie") == ""  # no script can read it
    assert all(one["httpOnly"] and one["sameSite"] == "Strict" for one in first.cookies())
    assert second.new_page().goto(link).status == 401
    page.goto(f"http://127.0.0.1:{made.port}/dashboard?token={made.token}&since=7d")
    assert page.url.endswith("/dashboard?since=7d")
    first.close()
    second.close()


def test_an_expired_cookie(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, seen = opened
    page = open_(made)
    old = access.cookie(made.token, made.now - 25 * 3_600_000)
    page.context.clear_cookies()
    page.context.add_cookies([{"name": access.COOKIE, "value": old, "url": f"http://127.0.0.1:{made.port}/dashboard"}])
    turns = data(page, "[data-key=turns]")
    refresh(page)
    assert "session has ended" in page.inner_text("#message") and "tok-dash url" in page.inner_text("#message")
    assert data(page, "[data-key=turns]") == turns
    assert page.reload().status == 401
    assert all("401" in said for said in seen.console)


def test_a_link_on_another_site_leads_to_the_page(browser: Any, made: Dash) -> None:
    context = fresh(browser)
    page = context.new_page()
    link, _ = access.link(str(made.folder), f"http://127.0.0.1:{made.port}", made.now)
    context.route(
        "http://chat.example/", lambda route: route.fulfill(body=f'<a href="{link}">open</a>', content_type="text/html")
    )
    page.goto("http://chat.example/")
    page.click("a")
    page.wait_for_selector("#tiles")
    assert page.url == f"http://127.0.0.1:{made.port}/dashboard"
    context.close()


def test_another_site_reads_and_frames_nothing(opened: tuple[Open, Seen], made: Dash, browser: Any) -> None:
    open_, _ = opened
    context = open_(made).context
    page = context.new_page()
    place = f"http://127.0.0.1:{made.port}"
    body = f'<iframe src="{place}/dashboard"></iframe><img src="{place}/api/budget"><script src="{place}/dashboard/page.js"></script>'
    context.route("http://evil.example/", lambda route: route.fulfill(body=body, content_type="text/html"))
    ends: dict[str, object] = {}
    page.on("response", lambda answer: ends.update({answer.url: answer.status}))
    page.on("requestfailed", lambda request: ends.update({request.url: "failed"}))
    page.goto("http://evil.example/")  # until all that it holds is there
    del ends["http://evil.example/"]
    told = page.evaluate(f"fetch('{place}/api/budget', {{credentials: 'include'}}).then(() => 'read', () => 'refused')")
    assert told == "refused" and len(ends) >= 3 and set(ends.values()) <= {401, 403, "failed"}, ends
    context.unroute("http://evil.example/")


# States.


def test_an_empty_log(opened: tuple[Open, Seen], environment: dict[str, str]) -> None:
    open_, seen = opened
    folder = pathlib.Path(environment["TOKENOPS_HOME"])
    folder.mkdir()
    (folder / "synced").touch()
    with running(environment, TOKENOPS_NOW=NOW) as server:
        page = open_(server)
        assert "The log is empty" in page.inner_text("main")
        assert "tok-init --detect" in page.inner_text("main")
        log(str(folder), turn(1, 5), meter(0.2))
        refresh(page)
        assert data(page, "[data-key=turns]")[0][0] == "1"
    assert not seen.console


def test_a_plan_near_its_limit(opened: tuple[Open, Seen], environment: dict[str, str]) -> None:
    open_, seen = opened
    log(environment["TOKENOPS_HOME"], turn(1, 3), meter(0.985, resets=41))
    with running(environment, TOKENOPS_NOW=NOW) as server:
        page = open_(server)
        assert page.title() == "98% used - TokenOps"
        assert page.inner_text(".plan .badge") == "wait for reset"
        assert "resets in 41m" in page.inner_text(".plan .big")
        level = page.eval_on_selector(".plan .window rect.bad", "one => getComputedStyle(one).fill")
        assert level == "rgb(194, 59, 59)"
    assert not seen.console


# Looks.


STATES = {
    "all": "since=7d&stack=project&sort=by-model.turns.up",
    "project": "since=7d&project=p1",
    "session": "session=s1",
    "turn": "session=s1&turn=msg_41",
}


@pytest.mark.parametrize("width", [380, 900, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_nothing_is_cut_off_and_everybody_can_read_it(
    opened: tuple[Open, Seen], made: Dash, width: int, scheme: str, state: str, tmp_path: pathlib.Path
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    open_, seen = opened
    page = open_(made, STATES[state], width=width, color_scheme=scheme)
    while page.locator("[data-pending]").count():
        refresh(page)
    for summary in page.query_selector_all("summary"):
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    wide = page.eval_on_selector_all(
        ".card", "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText)"
    )
    assert wide == []
    # What a table is about and what it cost are seen without scrolling, also on a phone.
    rolled = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.id)"
    assert page.eval_on_selector_all(".scroll", rolled) == []
    lines = "all => all.filter(e => e.clientHeight > 2 * parseFloat(getComputedStyle(e).fontSize)).map(e => e.innerText)"
    assert page.eval_on_selector_all(".tile .value", lines) == []  # a number and its name stand in one line
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found] == []
    if place := os.environ.get("TOKENOPS_SCREENSHOTS"):
        pathlib.Path(place, f"{state}-{width}-{scheme}.png").write_bytes(page.screenshot(full_page=True))
    assert not seen.console


# The beginning of each element that is wider than the page, or whose text is wider than it.
WIDER = """[...document.querySelectorAll("body *")].filter(
    one => (one.getBoundingClientRect().right > document.documentElement.clientWidth + 1 ||
            (one.clientWidth > 1 && one.scrollWidth > one.clientWidth + 1)) && !one.closest(".away")
).map(one => one.outerHTML.slice(0, 120))"""
BARE = {"loading": (200, "/dashboard"), "empty": (200, "/dashboard"), "who": (401, "/dashboard"), "nothing": (404, "/dashboar"),
        "what": (400, "/dashboard?since=never"), "config": (200, "/dashboard")}  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", BARE)
def test_everybody_can_read_what_is_shown_instead_of_numbers(
    browser: Any, environment: dict[str, str], state: str, scheme: str
) -> None:
    """While the first import runs, without usage, without a session, and for what is not understood."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    folder = pathlib.Path(environment["TOKENOPS_HOME"])
    folder.mkdir()
    if state != "loading":
        (folder / "synced").touch()
    if state == "config":
        put(pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml", b"plans: [claude-pro]\n")
    own, (status, target) = site(str(folder), environment), BARE[state]
    bearer = {} if state == "who" else {"authorization": f"Bearer {own.token()}"}

    def answer(route: Any) -> None:
        address = urllib.parse.urlsplit(route.request.url)
        path = f"{address.path}?{address.query}" if address.query else address.path
        reply = ask(own, path, accept=route.request.headers.get("accept", ""), **bearer)
        headers = {name: values[0] for name, values in reply.headers.items()}
        route.fulfill(status=reply.status, headers=headers, body=reply.body)

    context = fresh(browser, viewport={"width": 380, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.route("**/*", answer)
    assert page.goto(f"http://127.0.0.1:{PORT}{target}").status == status
    if state in ("loading", "empty"):
        assert page.get_attribute("main", "data-state") == state
    checks = axe.Axe()
    for width in (380, 900, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        wider = page.evaluate(WIDER)
        assert not wider, (width, wider)
        violations = checks.run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"][:200]) for each in violations] == [], width
        if place := os.environ.get("TOKENOPS_SCREENSHOTS"):
            pathlib.Path(place, f"{state}-{width}-{scheme}.png").write_bytes(page.screenshot(full_page=True))
    context.close()


def test_on_paper(opened: tuple[Open, Seen], made: Dash) -> None:
    open_, _ = opened
    page = open_(made, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="light")
    assert not page.is_visible("#filters") and page.is_visible("#tiles")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_file_opens_from_disk_without_a_network(browser: Any, run: Run, made: Dash, tmp_path: pathlib.Path) -> None:
    run("tok-dash --html page.html --since 7d", env={"TOKENOPS_NOW": NOW})
    for scripts in (True, False):
        context = fresh(browser, offline=True, java_script_enabled=scripts)
        page, seen = context.new_page(), Seen()
        seen.watch(page)
        page.goto((tmp_path / "page.html").as_uri())
        assert page.inner_text("[data-key=turns] .value") and page.is_visible("#chart-cost")
        if scripts:
            assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") == "12px"
            assert page.eval_on_selector("rect.good, rect.warn", "one => getComputedStyle(one).fill") != "rgb(0, 0, 0)"
        assert [url for url in seen.requests if not url.startswith("file:")] == [] and seen.console == []
        context.close()


def test_a_page_is_small(opened: tuple[Open, Seen], made: Dash) -> None:
    """How soon it is painted is measured by `make bench`."""
    open_, _ = opened
    page = open_(made)
    page.reload()
    told = json.loads(page.evaluate("JSON.stringify(performance.getEntriesByType('navigation')[0])"))
    assert 10_000 < told["decodedBodySize"] < 150_000
