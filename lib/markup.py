"""HTML out of plain values: what is not HTML already is escaped, so that a project's name cannot be a script."""

from __future__ import annotations

import html
import re

# What HTML must not hold, and what would turn the direction of the text around it.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")
_VOID = frozenset(("meta", "link", "input", "br", "hr", "img"))

Value = str | float | bool | None


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as HTML: as it is where it is that already, escaped otherwise."""
    return value if isinstance(value, Html) else Html(html.escape(_FORBIDDEN.sub("\ufffd", str(value))))


def join(*parts: object) -> Html:
    """Parts, one after another; None is nothing."""
    return Html("".join(text(part) for part in parts if part is not None))


def tag(element: str, /, *inner: object, **about: Value) -> Html:
    """An element. `class_` is class, `data_x` is data-x; True is an attribute without a value, None and False are none."""
    given = "".join(_attribute(key, value) for key, value in about.items() if value is not None and value is not False)
    if element in _VOID:
        return Html(f"<{element}{given}>")
    return Html(f"<{element}{given}>{join(*inner)}</{element}>")


def _attribute(key: str, value: Value) -> str:
    shown = key.rstrip("_").replace("_", "-")
    return f" {shown}" if value is True else f' {shown}="{text(str(value))}"'
