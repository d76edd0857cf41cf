"""What a terminal is given: nothing that steers it, our own colours, and lines that fit its width.

Names in logs come from whatever was cloned and whatever a gateway answered. None may steer a terminal or begin a row.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, TextIO

from tokenops import light

# Control characters (C0, DEL, C1), line and paragraph separators, marks that turn the direction of text, tag characters,
# half characters, and noncharacters, of which our own styles are made and of which XML cannot hold two.
_STEERING = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_STEERING += "\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e007f"
_STEERS = light.pattern(f"[{_STEERING}]")
_STEERS_IN_TEXT = light.pattern(f"(?![\n\t])[{_STEERING}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# A style and the code that a terminal knows it by (ECMA-48, SGR). Only `Output` writes escape sequences.
_CODES = {"bold": 1, "dim": 2, "bad": 31, "good": 32, "warn": 33, "accent": 36, "reverse": 7}
_MARKS = {name: chr(0xFDD0 + number) for number, name in enumerate(_CODES)}
_END = "\ufddf"
_HOME, _TO_END_OF_LINE, _TO_END = "\x1b[H", "\x1b[K", "\x1b[J"
_STYLED = light.pattern(f"([{''.join(_MARKS.values())}])([^\n\ufdd0-\ufdef]*){_END}")
_CODE_OF = {mark: _CODES[name] for name, mark in _MARKS.items()}
# Of a terminal that does not say how large it is.
USUAL_WIDTH, USUAL_HEIGHT = 80, 24


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return _SHORT.get(match[0]) or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def safe(text: str) -> str:
    """A name or a sentence with every character that could steer a terminal written out, as `\\x1b` or `\\n`."""
    return text if text.isascii() and text.isprintable() else _STEERS.sub(_escape, text)


def paint(text: str, style: str, color: bool = True) -> str:
    """A text in a style: bold, dim, good, warn, bad, accent, reverse; "" for none. Styles do not nest.

    `color`: whether to colour.
    """
    return f"{_MARKS[style]}{text}{_END}" if color and style and text else text


def plain(text: str) -> str:
    """A text without its styles."""
    return _STYLED.sub(r"\2", text)


def segments(text: str) -> list[tuple[str, str]]:
    """A text as pieces, each with its style ("" for none), for a terminal that is not written to as text."""
    names = {mark: name for name, mark in _MARKS.items()}
    parts = _STYLED.split(text)
    pieces = [("" if at % 3 == 0 else names[parts[at - 1]], parts[at]) for at in range(len(parts)) if at % 3 != 1]
    return [(style, safe(piece)) for style, piece in pieces if piece]


def safe_text(text: str) -> str:
    """A text of several lines, as `safe` makes it; ends of lines, tabs and our own styles stay."""
    if text.isascii():
        return _STEERS_IN_TEXT.sub(_escape, text)
    parts = _STYLED.split(text)  # text, mark, text in that style, text, ...
    for at in range(0, len(parts), 3):
        parts[at] = _STEERS_IN_TEXT.sub(_escape, parts[at])
    for at in range(1, len(parts), 3):
        parts[at] = f"\x1b[{_CODE_OF[parts[at]]}m"
        parts[at + 1] = _STEERS_IN_TEXT.sub(_escape, parts[at + 1]) + "\x1b[0m"
    return "".join(parts)


def text_width(text: str) -> int:
    """How many columns a text takes: wide characters take two, marks on other characters none."""
    if text.isascii():
        return len(text)
    text = plain(text)
    try:
        import wcwidth  # pyright: ignore[reportMissingImports] - an extra

        width = wcwidth.wcswidth(text)
        if width >= 0:
            return int(width)
    except ImportError:
        pass
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    return 0 if unicodedata.category(character) in ("Mn", "Me", "Cf") else 1


def shorten(text: str, most: int) -> str:
    """A text of at most so many columns; an ellipsis stands for what is cut off."""
    if text_width(text) <= most:
        return text
    kept, room = [], most - 1
    for character in text:
        room -= _character_width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…" if most > 0 else ""


# A word of a name begins behind one of these.
_BETWEEN = "-/_.:@ "
_WORD = light.pattern(f"(?<=[{_BETWEEN}])(?=[^{_BETWEEN}])")


def shorten_apart(texts: Sequence[str], most: int) -> list[str]:
    """Texts of at most so many columns each. Those that would look alike are cut in the middle, so that they differ."""
    cut = [shorten(text, most) for text in texts]
    groups: dict[str, list[str]] = {}
    for text, short in zip(texts, cut, strict=True):
        if short != text and text not in groups.setdefault(short, []):
            groups[short].append(text)
    return [
        _shorten_before(text, _differs_at(text, alike), most) if len(alike := groups.get(short, [])) > 1 else short
        for text, short in zip(texts, cut, strict=True)
    ]


def _differs_at(text: str, others: Sequence[str]) -> int:
    """Where a text begins to differ from all of some others."""
    return max(_alike(text, other) for other in others if other != text)


def _alike(text: str, other: str) -> int:
    """How many characters at the beginning of two texts are the same."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))


def _shorten_before(text: str, at: int, most: int) -> str:
    """A text with its end from a place on, cut before it, at the beginning of a word if there is room."""
    begins = [0, *(match.start() for match in _WORD.finditer(text))]
    # As much of the end as half the room takes; at least the word that differs, or what of it differs.
    earlier = [begin for begin in begins if begin <= at and text_width(text[begin:]) <= most // 2]
    word = at if text[at : at + 1] in _BETWEEN else max(begin for begin in begins if begin <= at)
    for begin in (*earlier[:1], word, at):
        room = most - text_width(text[begin:])
        if begin and room > 3:
            return shorten(text[:begin], room) + text[begin:]
    return "…" + shorten(text[at:], most - 1)


def wrap(text: str, most: int | None, indent: str = "") -> list[str]:
    """A sentence in lines of at most so many columns, all but the first indented; a word that is longer is cut in pieces."""
    if most is None or text_width(text) <= most:
        return [text] if text else []
    lines, line = [], text[: len(text) - len(text.lstrip(" "))]
    for word in (piece for whole in text.strip().split(" ") for piece in _pieces(whole, max(most - text_width(indent), 1))):
        longer = f"{line} {word}" if line.strip() else line + word
        if text_width(longer) > most and line.strip():
            lines.append(line.rstrip())
            longer = indent + word
        line = longer
    return [*lines, line]


def _pieces(word: str, most: int) -> Iterator[str]:
    while text_width(word) > most:
        at = 1
        while text_width(word[: at + 1]) <= most:
            at += 1
        yield word[:at]
        word = word[at:]
    yield word


def width() -> int | None:
    """The columns of the terminal that stdout is; COLUMNS comes first. None for a file or a pipe."""
    text = os.environ.get("COLUMNS", "")
    if text.isascii() and text.isdecimal() and int(text[:6]) > 0:
        return int(text[:6])
    try:
        if sys.stdout is None or not sys.stdout.isatty():
            return None
        return os.get_terminal_size(sys.stdout.fileno()).columns or USUAL_WIDTH
    except (OSError, ValueError):
        return None


def height() -> int:
    """The lines of the terminal that stdout is; LINES comes first."""
    text = os.environ.get("LINES", "")
    if text.isascii() and text.isdecimal() and int(text[:6]) > 0:
        return int(text[:6])
    try:
        return os.get_terminal_size(1).lines or USUAL_HEIGHT
    except OSError:
        return USUAL_HEIGHT


# What JSON may hold raw in a string: all that steers but C0, of which line ends and escape sequences are made.
_STEERS_IN_JSON = light.pattern(f"(?![\\x00-\\x1f\\ud800-\\udfff])[{_STEERING}]")


def _json_escape(match: re.Match[str]) -> str:
    return "".join(f"\\u{unit:04x}" for unit in memoryview(match[0].encode("utf-16-le")).cast("H"))


class _Terminal(io.BufferedWriter):
    """The bytes of a terminal's stdout: in JSON, `\\u009b` stands for a character that could steer it."""

    def write(self, data: Any, /) -> int:
        """Write whole lines, or a text that `Output` made safe."""
        text = bytes(data).decode(errors="surrogateescape")
        super().write(_STEERS_IN_JSON.sub(_json_escape, text).encode(errors="surrogateescape"))
        return len(data)


class Output(io.TextIOWrapper):
    """Stdout for text: nothing that is printed steers the terminal, and "?" stands for what its encoding lacks."""

    def __init__(self, stream: TextIO) -> None:
        assert isinstance(stream, io.TextIOWrapper)
        encoding, by_line, at_terminal = stream.encoding, stream.line_buffering, stream.isatty()
        buffer: BinaryIO = stream.detach()
        if at_terminal:
            buffer = _Terminal(buffer.detach() if isinstance(buffer, io.BufferedWriter) else buffer)
        super().__init__(buffer, encoding, "replace", line_buffering=by_line)

    def write(self, text: str, /) -> int:
        """Write a text."""
        return super().write(safe_text(text))

    def redraw(self, lines: Sequence[str]) -> None:
        """Write lines over what stands on the terminal, from its first line on, as many as it holds."""
        height = os.get_terminal_size(self.fileno()).lines
        text = "\n".join(safe_text(line) + _TO_END_OF_LINE for line in lines[: max(height - 1, 1)])
        super().write(f"{_HOME}{text}{_TO_END}\n")
        self.flush()
