"""The pictures of README.md show what the commands show today (`make images` makes them anew)."""

from __future__ import annotations

import json
import pathlib
import re
import struct
from xml.etree import ElementTree

import images
import pytest
from screens import Style

from conftest import ROOT

ANEW = "run: make images"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return images.demo(tmp_path_factory.mktemp("images"))


def test_terminals_are_shown_as_they_look_today(demo: dict[str, str]) -> None:
    for name, text in images.terminals(demo).items():
        assert (images.IMAGES / name).read_text(encoding="utf-8") == text, f"docs/images/{name} is not current; {ANEW}"


def test_the_dashboard_is_shown_with_the_numbers_of_today(demo: dict[str, str]) -> None:
    png = (images.IMAGES / "dashboard.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) <= images.MOST_BYTES
    width, height = struct.unpack_from(">II", png, 16)
    assert width == 1600 and 600 < height < 1200
    shown = [tuple(pair) for pair in json.loads(images.text_of(png))]
    assert len(shown) > 10
    assert sorted(shown) == sorted(images.numbers(demo)), f"docs/images/dashboard.png is not current; {ANEW}"


def test_the_readme_shows_every_picture_and_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\((docs/images/[^)]+)\)", text)
    assert sorted(shown) == sorted(str(path.relative_to(ROOT)) for path in images.IMAGES.iterdir())
    assert text.count("\n") <= 120


def test_a_picture_has_the_colours_bars_and_words_of_the_screen(tmp_path: pathlib.Path) -> None:
    cells: list[list[str]] = [[" "] * 20 for _ in range(5)]
    for text, style, x in (("a <b>", Style(bold=True), 0), ("██▌", Style(front=2), 8), ("on", Style(reverse=True), 14)):
        for at, character in enumerate(text):
            cells[1][x + at] = cell = images.Cell(character)
            cell.style = style
    root = ElementTree.fromstring(images.svg("tok-x", cells))
    (space,) = {each.tag.partition("}")[0] for each in root}
    title, words, on = root.findall(f"{space}}}text")
    assert (title.text, words.text, on.text) == ("tok-x", "a <b>", "on")
    assert words.get("font-weight") == "bold" and words.get("textLength") == "40"
    boxes = [(each.get("fill"), each.get("width")) for each in root.findall(f"{space}}}rect")]
    assert boxes[1:] == [("#7ec984", "16"), ("#7ec984", "4"), ("#d6d9df", "16")]
    assert root.get("height") == str(2 * 18 + 28 + 16)  # nothing below the last line with text


def test_the_text_of_a_png_is_read_as_it_was_written() -> None:
    png = (images.IMAGES / "dashboard.png").read_bytes()
    bare = b"\x89PNG\r\n\x1a\n" + png[8:33] + png[-12:]  # head and end
    assert images.text_of(images.with_text(bare, '["€"]')) == '["€"]'
    with pytest.raises(ValueError, match="no numbers"):
        images.text_of(bare)
