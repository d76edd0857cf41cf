"""The pictures of README.md: tok, tok-context, tok-top and the dashboard, of the demo data at a fixed moment.

    python bench/images.py      write docs/images anew (the dashboard's needs Playwright and Chromium)

A terminal's picture is an SVG of its characters, the same bytes each time. The dashboard's is a screenshot, which differs
from one Chromium to the next: it carries the numbers that it shows in a text chunk, so that a test can compare them.
"""

from __future__ import annotations

import html
import itertools
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bin")]

from dashboards import Page, running  # noqa: E402 - below the path
from screens import Cell, Style, Terminal  # noqa: E402

from tokenops import access, setup_demo, when  # noqa: E402

IMAGES = ROOT / "docs/images"
NOW = "2026-11-18T15:00:00Z"
SPAN = "30d"  # that the dashboard's picture shows
PARTS = ("headroom", "tiles")  # of the page, whose numbers are compared
NUMBERS = b"Numbers"  # the key of the PNG's text chunk
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
MOST_BYTES = 200_000

# Of a terminal, in pixels: a character, the room around the text, the bar above it.
_WIDE, _HIGH, _SIZE, _AROUND, _BAR = 8, 18, 13.3, 16, 28
_BACK, _FRONT = "#16181d", "#d6d9df"
_COLOURS = ("#4b5160", "#f2777a", "#7ec984", "#e8c069", "#7aa9f0", "#c792ea", "#63c5c9", "#d6d9df")
_FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
# Blocks are drawn, so that bars look the same in every font: width and height in cells, and how much of the colour.
_BLOCKS = {character: ((8 - at) / 8, 1.0, 1.0) for at, character in enumerate("█▉▊▋▌▍▎▏")}
_BLOCKS |= {character: (1.0, at / 8, 1.0) for at, character in enumerate("▁▂▃▄▅▆▇", 1)}
_BLOCKS |= {"░": (1.0, 1.0, 0.3), "▒": (1.0, 1.0, 0.5), "▓": (1.0, 1.0, 0.75)}


def demo(folder: pathlib.Path) -> dict[str, str]:
    """Create the demo data at that moment; returns the environment of commands that read it."""
    log, _ = setup_demo.write(str(folder / "log"), when.moment(NOW))
    (folder / "home").mkdir()
    return {
        "PATH": os.pathsep.join((str(ROOT / "bin"), os.path.dirname(sys.executable), "/usr/bin", "/bin")),
        "HOME": str(folder / "home"),
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(folder / "cache")),
        "TOKENOPS_HOME": log,
        "TOKENOPS_NOW": NOW,
    }


def terminals(environment: dict[str, str]) -> dict[str, str]:
    """The pictures of commands in a terminal, by their files' names."""
    pictures = {}
    with Terminal(["tok"], environment) as terminal:
        assert terminal.end() == 0, terminal.screen.text
        pictures["tok.svg"] = svg("tok", terminal.screen.cells)
    with Terminal(["tok-context", "--client", "claude-code"], environment) as terminal:
        assert terminal.end() == 0, terminal.screen.text
        pictures["tok-context.svg"] = svg("tok-context --client claude-code", terminal.screen.cells)
    with Terminal(["tok-top"], environment, height=20) as terminal:
        terminal.until("demo-")
        terminal.press("a")  # also those that are not active now
        terminal.until(lambda text: text.count("demo-") > 3)
        terminal.press("q")  # a key is read when all is drawn
        assert terminal.end() == 0, terminal.screen.text
        pictures["tok-top.svg"] = svg("tok-top", terminal.screen.program)
    return pictures


def svg(command: str, cells: list[list[str]]) -> str:
    """A terminal's screen as a picture, without the empty lines at its end."""
    used = max(at for at, row in enumerate(cells) if "".join(row).strip()) + 1
    width, height = len(cells[0]) * _WIDE + 2 * _AROUND, used * _HIGH + _BAR + _AROUND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        f' font-family="{_FONT}" font-size="{_SIZE}" role="img"><title>{command} in a terminal</title>',
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{_BACK}"/>',
        f'<text x="{width / 2:g}" y="19" fill="#8a91a0" text-anchor="middle">{command}</text>',
        *(f'<circle cx="{16 + 18 * at}" cy="14" r="5.5" fill="{_COLOURS[colour]}"/>' for at, colour in enumerate((1, 3, 2))),
        *(part for y, row in enumerate(cells[:used]) for part in _line(row, y)),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _line(row: list[str], y: int) -> Iterator[str]:
    """The parts of one line: what is behind its text, its words, and its blocks."""
    x = 0
    for (style, block), cells in itertools.groupby(row, _kind):
        text = "".join(cells)
        front, back = _ink(style)
        left, top, wide = _AROUND + x * _WIDE, _BAR + y * _HIGH, len(text) * _WIDE
        if back:
            yield f'<rect x="{left:g}" y="{top:g}" width="{wide:g}" height="{_HIGH}" fill="{back}"/>'
        if block:
            across, high, part = _BLOCKS[block]
            size = f'width="{wide - _WIDE + _WIDE * across:g}" height="{14 * high:g}"'
            shade = f' opacity="{part}"' if part < 1 else ""
            yield f'<rect x="{left:g}" y="{top + 16 - 14 * high:g}" {size} fill="{front}"{shade}/>'
        else:
            weight = ' font-weight="bold"' if style.bold else ""
            for words in re.finditer(r"\S+(?: \S+)*", text):
                place = f'x="{left + words.start() * _WIDE:g}" y="{top + 14}" textLength="{len(words[0]) * _WIDE:g}"'
                yield f'<text {place} fill="{front}"{weight}>{html.escape(words[0])}</text>'
        x += len(text)


def _kind(cell: str) -> tuple[Style, str]:
    """What cells of one part share: the style, and the block that they are, "" for text."""
    return cell.style if isinstance(cell, Cell) else Style(), cell if cell in _BLOCKS else ""


def _ink(style: Style) -> tuple[str, str | None]:
    """The colours of a style: of the text, and behind it."""
    front = _FRONT if style.front is None else _COLOURS[style.front % 8]
    back = None if style.back is None else _COLOURS[style.back % 8]
    if style.dim:
        front = "#8a91a0"
    return (back or _BACK, front) if style.reverse else (front, back)


def numbers(environment: dict[str, str]) -> list[tuple[str, str]]:
    """What the page's headline, limits and tiles show: exact value and text of each number."""
    line = [str(ROOT / "bin/tok-dash"), "--html", "-", "--since", SPAN]
    page = Page(subprocess.run(line, env=environment, capture_output=True, check=True).stdout)
    return [pair for part in PARTS for pair in page.data[part]]


def screenshot(environment: dict[str, str]) -> bytes:
    """The upper part of the dashboard as PNG, with its numbers."""
    from playwright.sync_api import sync_playwright

    with running(environment, "--no-open") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1600, "height": 1200}, color_scheme="light")
        link, _ = access.link(str(server.folder), f"http://127.0.0.1:{server.port}", round(1000 * time.time()))
        page.goto(f"{link}&since={SPAN}")
        page.wait_for_selector("main[data-state=ready]")
        page.wait_for_selector("[data-pending]", state="detached")
        selector = ", ".join(f"#{part} data" for part in PARTS)
        seen = page.evaluate(f"[...document.querySelectorAll('{selector}')].map(each => [each.value, each.textContent])")
        box = page.locator("#charts figure").first.bounding_box()
        assert box is not None
        png = page.screenshot(clip={"x": 0, "y": 0, "width": 1600, "height": box["y"] + box["height"] + 6})
        browser.close()
    assert sorted(map(tuple, seen)) == sorted(numbers(environment)), "the page shows other numbers than tok-dash --html"
    return with_text(png, json.dumps(seen))


def with_text(png: bytes, text: str) -> bytes:
    """A PNG with a text chunk before its end."""
    body = b"iTXt" + NUMBERS + bytes(5) + text.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:-12] + chunk + png[-12:]


def text_of(png: bytes) -> str:
    """The text of that chunk."""
    at = 8
    while at < len(png):
        size, body = struct.unpack_from(">I", png, at)[0], at + 8
        if png[at + 4 : body] == b"iTXt" and png[body:].startswith(NUMBERS):
            return png[body + len(NUMBERS) + 5 : body + size].decode()
        at += size + 12
    raise ValueError("no numbers in this picture")


def main() -> int:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = demo(pathlib.Path(folder))
        for name, text in terminals(environment).items():
            (IMAGES / name).write_text(text, encoding="utf-8")
        if not CHROMIUM:
            print("no chromium here: docs/images/dashboard.png stays as it is", file=sys.stderr)
            return 1
        png = screenshot(environment)
    if len(png) > MOST_BYTES:
        print(f"docs/images/dashboard.png would have {len(png)} bytes; at most {MOST_BYTES}", file=sys.stderr)
        return 1
    (IMAGES / "dashboard.png").write_bytes(png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
