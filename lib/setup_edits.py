"""One entry in a file of settings, put in and taken out again, with everything else kept byte for byte.

JSON (with comments), TOML and YAML. A text that cannot be changed so is refused, with the reason; nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokenops import config, jsonc

BOM = "\ufeff"
FORMATS = ("json", "toml", "yaml")
Place = Sequence[str]


class Refused(ValueError):
    """A text that only a person can change: the reason, as the end of a sentence about the file."""


def data(form: str, text: str) -> Any:
    """What a text says; {} for an empty one. Raises Refused."""
    text = text.removeprefix(BOM)
    if not text.strip():
        return {}
    if form == "json":
        try:
            return jsonc.document(text).data
        except jsonc.Malformed as error:
            raise Refused(f"is no JSON ({error})") from None
    return _toml(text) if form == "toml" else _yaml(text)


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # The message ends with the place; what it says before never repeats a value.
        raise Refused(f"is no TOML ({str(error) or 'nested too deep'})") from None


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise Refused(f"is no YAML{f' (line {mark.line + 1})' if mark else ''}") from None


def value_at(given: Any, place: Place) -> Any:
    """The value at a place; None where there is none."""
    for key in place:
        given = given.get(key) if isinstance(given, dict) else None
    return given


def depth(given: Any, place: Place) -> int:
    """How many keys of a place are there already."""
    for number, key in enumerate(place):
        if not isinstance(given, dict) or key not in given:
            return number
        given = given[key]
    return len(place)


def with_entry(form: str, text: str, place: Place, value: Any) -> str:
    """The text with the entry. Raises Refused."""
    data(form, text)
    if text.startswith(BOM):
        return BOM + with_entry(form, text[1:], place, value)
    if form == "toml":
        return _with_table(text, place, value)
    try:
        return jsonc.changed(text, place, value) if form == "json" else _lines(text, place, value)
    except (jsonc.Unchangeable, config.Unchangeable) as error:
        raise Refused(str(error)) from None


def without_entry(form: str, text: str, place: Place, keep: int) -> str:
    """The text without the entry, and without what held only it, down to `keep` keys. Raises Refused."""
    given = data(form, text)
    if text.startswith(BOM):
        return BOM + without_entry(form, text[1:], place, keep)
    if form == "toml":
        return _without_table(text, place, value_at(given, place))
    try:
        return jsonc.without(text, place, keep) if form == "json" else _bare(_lines(text, place, None), place, keep)
    except (jsonc.Unchangeable, config.Unchangeable) as error:
        raise Refused(str(error)) from None


def snippet(form: str, place: Place, value: Any) -> str:
    """An entry as a whole small file, to be pasted."""
    if form == "toml":
        return table(place, value)
    for key in reversed(place):
        value = {key: value}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def table(place: Place, value: Any) -> str:
    """A table of TOML with strings and lists of strings, whose JSON is TOML too."""
    rows = "".join(f"{key} = {json.dumps(one, ensure_ascii=False)}\n" for key, one in value.items())
    return f"[{'.'.join(place)}]\n{rows}"


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _with_table(text: str, place: Place, value: Any) -> str:
    """A table goes to the end: that is right wherever it could be, and disturbs nothing."""
    given = data("toml", text)
    made = text + _gap(text) + table(place, value).replace("\n", _newline(text))
    wanted = _set(given, place, value)
    try:
        agrees = data("toml", made) == wanted
    except Refused:
        agrees = False
    if not agrees:
        raise Refused(f"has {place[0]} in a form that a table cannot be added to")
    return made


def _gap(text: str) -> str:
    """What stands between the end of a file and a new table."""
    if not text:
        return ""
    return _newline(text) if text.endswith("\n") else _newline(text) * 2


def _set(given: Any, place: Place, value: Any) -> Any:
    if not place:
        return value
    below = given.get(place[0], {}) if isinstance(given, dict) else {}
    return {**given, place[0]: _set(below, place[1:], value)} if isinstance(given, dict) else given


def _without_table(text: str, place: Place, value: Any) -> str:
    if not isinstance(value, dict):
        return text
    block = table(place, value).replace("\n", _newline(text))
    if text.count(block) != 1:
        raise Refused(f"has [{'.'.join(place)}] in other words than were written")
    before, _, after = text.partition(block)
    made = before.removesuffix(_newline(text)) + after if before.endswith(_newline(text) * 2) else before + after
    if value_at(data("toml", made), place) is not None:
        raise Refused(f"has more of [{'.'.join(place)}]")
    return made


def _lines(text: str, place: Place, value: Any) -> str:
    """YAML is changed by whole lines; those that end as on Windows go on to do so."""
    if "\r\n" in text and text.count("\r\n") == text.count("\n"):
        return config.edited_at(text.replace("\r\n", "\n"), place, value).replace("\n", "\r\n")
    return config.edited_at(text, place, value)


def _bare(text: str, place: Place, keep: int) -> str:
    """The text without a section that the entry's end leaves empty."""
    for size in range(len(place) - 1, keep, -1):
        if value_at(data("yaml", text), place[:size]):
            break
        text = _lines(text, place[:size], None)
    return text
