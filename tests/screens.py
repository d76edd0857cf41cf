"""A program in a terminal of its own: a pseudo-terminal, and a reader of what it draws there.

The reader knows the sequences that curses sends for TERM=xterm-256color (ECMA-48, xterm's control sequences); an unknown
one fails the test.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from conftest import MOST

_SEQUENCE = re.compile(r"\x1b(?:\[([?>]?)([\d;]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()].|[=>78M])")


class Style(NamedTuple):
    """How a character looks. Colours are numbers of the terminal's palette; None is the terminal's own."""

    bold: bool = False
    dim: bool = False
    reverse: bool = False
    front: int | None = None
    back: int | None = None

    def after(self, numbers: list[int]) -> Style:
        """The style after a sequence `CSI numbers m`."""
        style, rest = self, list(numbers)
        while rest:
            number = rest.pop(0)
            if number == 0:
                style = Style()
            elif number in (1, 2, 7):
                style = style._replace(**{{1: "bold", 2: "dim", 7: "reverse"}[number]: True})
            elif number == 22:
                style = style._replace(bold=False, dim=False)
            elif number == 27:
                style = style._replace(reverse=False)
            elif number in (38, 48) and rest[:1] == [5]:
                style = style._replace(**{"front" if number == 38 else "back": rest[1]})
                rest = rest[2:]
            elif number in (39, 49):
                style = style._replace(**{"front" if number == 39 else "back": None})
            elif number in range(30, 38) or number in range(90, 98):
                style = style._replace(front=number % 10 + 8 * (number >= 90))
            elif number in range(40, 48):
                style = style._replace(back=number % 10)
        return style


class Cell(str):
    """A character with its style."""

    style = Style()


class Screen:
    """The cells of a terminal."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height, self.x, self.y = width, height, 0, 0
        self.cells = [[" "] * width for _ in range(height)]
        self.saved: list[list[str]] | None = None  # what stood there before the program took the screen
        self.program: list[list[str]] = []  # what stood there when the program gave it back
        self.last, self.style = " ", Style()
        self.top, self.bottom = 0, height  # the lines that scroll
        self.rest = ""

    @property
    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.cells]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def resize(self, width: int, height: int) -> None:
        self.__init__(width, height)  # type: ignore[misc]

    def feed(self, text: str) -> None:
        text, at = self.rest + text, 0
        while at < len(text):
            if text[at] != "\x1b":
                self._character(text[at])
                at += 1
                continue
            match = _SEQUENCE.match(text, at)
            if match is None:
                assert len(text) - at < 40, f"unknown sequence {text[at : at + 20]!r}"
                break
            if match[0] == "\x1bM":
                self._line_back()
            elif match[3] == "m" and not match[1]:
                self.style = self.style.after([int(part or 0) for part in match[2].split(";")])
            elif match[3]:
                self._control(match[1], [int(part or 0) for part in match[2].split(";")], match[3])
            at = match.end()
        self.rest = text[at:]

    def _character(self, character: str) -> None:
        if character == "\r":
            self.x = 0
        elif character == "\n" and self.y == self.bottom - 1:
            self.cells[self.top : self.bottom] = [*self.cells[self.top + 1 : self.bottom], [" "] * self.width]
        elif character == "\n":
            self.y = min(self.y + 1, self.height - 1)
        elif character == "\b":
            self.x = max(self.x - 1, 0)
        elif character >= " ":
            wide = unicodedata.east_asian_width(character) in "WF"
            if unicodedata.combining(character):
                self.cells[self.y][max(self.x - 1, 0)] += character
                return
            if self.x >= self.width:
                self.x, self.y = 0, min(self.y + 1, self.height - 1)
            self.cells[self.y][self.x] = cell = Cell(character)
            cell.style = self.style
            if wide and self.x + 1 < self.width:
                self.cells[self.y][self.x + 1] = ""
            self.x += 1 + wide
            self.last = character

    def _line_back(self) -> None:
        """Up a line; at the first one the others scroll down."""
        if self.y == self.top:
            self.cells[self.top : self.bottom] = [[" "] * self.width, *self.cells[self.top : self.bottom - 1]]
        self.y = max(self.y - 1, 0) if self.y != self.top else self.y

    def _control(self, private: str, numbers: list[int], final: str) -> None:
        first = numbers[0] or 1
        row = self.cells[self.y]
        if private:
            if final in "hl" and 1049 in numbers:
                self._alternate(final == "h")
        elif final in "Hf":
            self.y, self.x = first - 1, (numbers[1] if len(numbers) > 1 else 1) - 1
        elif final in "ABCDGd":
            self.x += {"C": first, "D": -first}.get(final, 0)
            self.y += {"B": first, "A": -first}.get(final, 0)
            self.x, self.y = first - 1 if final == "G" else self.x, first - 1 if final == "d" else self.y
        elif final == "J":
            self.cells = [
                line if at < self.y and numbers[0] == 0 else [" "] * self.width for at, line in enumerate(self.cells)
            ]
        elif final == "K":
            begin, end = ((self.x, self.width), (0, self.x + 1), (0, self.width))[numbers[0]]
            row[begin:end] = [" "] * (end - begin)
        elif final == "X":
            row[self.x : self.x + first] = [" "] * len(row[self.x : self.x + first])
        elif final == "b":
            for _ in range(first):
                self._character(self.last)
        elif final == "P":
            row[self.x :] = row[self.x + first :] + [" "] * first
        elif final == "@":
            row[self.x :] = ([" "] * first + row[self.x :])[: self.width - self.x]
        elif final in "ST":
            blank = [[" "] * self.width for _ in range(first)]
            lines = self.cells[self.top : self.bottom]
            self.cells[self.top : self.bottom] = [*lines[first:], *blank] if final == "S" else [*blank, *lines[:-first]]
        elif final == "r":
            self.top, self.bottom = first - 1, numbers[1] if len(numbers) > 1 else self.height
            self.x = self.y = 0
        else:
            assert final in "hltn", f"unknown sequence {numbers} {final}"
        self.x, self.y = min(max(self.x, 0), self.width), min(max(self.y, 0), self.height - 1)

    def _alternate(self, begins: bool) -> None:
        if begins:
            self.saved, self.cells = self.cells, [[" "] * self.width for _ in range(self.height)]
        elif self.saved is not None:
            self.program, self.cells, self.saved = self.cells, self.saved, None


class Terminal:
    """A command in a terminal."""

    def __init__(self, command: list[str], env: dict[str, str], width: int = 80, height: int = 24) -> None:
        self.screen = Screen(width, height)
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.status: int | None = None
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
                os.execvpe(command[0], command, {"TERM": "xterm-256color", **env})
            finally:
                os._exit(127)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.file)

    def press(self, keys: str) -> None:
        os.write(self.file, keys.encode())

    def resize(self, width: int, height: int) -> None:
        self.screen.resize(width, height)
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def _read(self) -> bool:
        """Read what was drawn; False at the end."""
        if not select.select([self.file], [], [], 0.05)[0]:
            return True
        try:
            data = os.read(self.file, 1 << 16)
        except OSError:
            return False
        self.screen.feed(self.decoder.decode(data))
        return bool(data)

    def until(self, condition: Callable[[str], object] | str) -> str:
        """The screen, once it holds a text or a condition is true of it."""
        deadline = time.monotonic() + MOST
        while True:
            text = self.screen.text
            if condition in text if isinstance(condition, str) else condition(text):
                return text
            assert self._read(), f"it ended with\n{text}"
            assert time.monotonic() < deadline, f"{condition} did not come; the screen is\n{text}"

    def end(self) -> int:
        """Wait for the end; the status, negative for a signal."""
        deadline = time.monotonic() + MOST
        while self._read():
            assert time.monotonic() < deadline, f"it did not end; the screen is\n{self.screen.text}"
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def echoes(self) -> bool:
        """Whether the terminal echoes what is typed, as a shell wants it."""
        return bool(termios.tcgetattr(self.file)[3] & termios.ECHO)
