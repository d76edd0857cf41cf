"""Adds one entry to the text of a settings file and takes it out again; every other byte stays. No file is touched here.

Formats: JSON with comments, TOML, YAML; `lines`, a marked block in a shell's file or a crontab; `whole`, a file that is ours
alone; `hooks`, our hooks in Claude Code's settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tokenops import config, guard_install, jsonc

BOM = "\ufeff"
# What stands around our lines, in every file in which # begins a comment.
FIRST, LAST = "# >>> tokenops >>>", "# <<< tokenops <<<"
Keys = Sequence[str]


class Unchangeable(ValueError):
    """A text that only a person can change; the message is the end of a sentence about the file."""


def parse(form: str, text: str) -> Any:
    """The document of a text; {} for an empty one. Raises Unchangeable."""
    text = text.removeprefix(BOM)
    if form in _OURS:
        return _OURS[form](text)
    if not text.strip():
        return {}
    if form == "json":
        try:
            return jsonc.document(text).data
        except jsonc.Malformed as error:
            raise Unchangeable(f"is not valid JSON ({error})") from None
    return _toml(text) if form == "toml" else _yaml(text)


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # The message ends with the position; what stands before never repeats a value.
        raise Unchangeable(f"is not valid TOML ({str(error) or 'nested too deep'})") from None


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise Unchangeable(f"is not valid YAML{f' (line {mark.line + 1})' if mark else ''}") from None


def value_at(document: Any, keys: Keys) -> Any:
    """The value at a path of keys; None if there is none."""
    value = document
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def existing_depth(document: Any, keys: Keys) -> int:
    """How many keys of a path are there already."""
    value = document
    for number, key in enumerate(keys):
        if not isinstance(value, dict) or key not in value:
            return number
        value = value[key]
    return len(keys)


def with_entry(form: str, text: str, keys: Keys, value: Any) -> str:
    """The text with the entry. Raises Unchangeable."""
    parse(form, text)
    if text.startswith(BOM):
        return BOM + with_entry(form, text[1:], keys, value)
    if form == "toml":
        return _with_table(text, keys, value)
    if form == "lines":
        return _with_block(text, value)
    if form == "whole":
        return str(value)
    try:
        if form == "hooks":
            return guard_install.with_hooks(text, value)
        return jsonc.set_value(text, keys, value) if form == "json" else _with_lines(text, keys, value)
    except (jsonc.Unchangeable, config.Unchangeable, guard_install.Refused) as error:
        raise Unchangeable(str(error)) from None


def without_entry(form: str, text: str, keys: Keys, keep: int) -> str:
    """The text without the entry, and without what held only it, down to `keep` keys. Raises Unchangeable."""
    document = parse(form, text)
    if text.startswith(BOM):
        return BOM + without_entry(form, text[1:], keys, keep)
    if form == "toml":
        return _without_table(text, keys, value_at(document, keys))
    if form == "lines":
        return _without_block(text)
    if form == "whole":
        return ""
    try:
        if form == "hooks":
            return guard_install.without_hooks(text)
        return (
            jsonc.remove_value(text, keys, keep)
            if form == "json"
            else _without_empty(_with_lines(text, keys, None), keys, keep)
        )
    except (jsonc.Unchangeable, config.Unchangeable, guard_install.Refused) as error:
        raise Unchangeable(str(error)) from None


def snippet(form: str, keys: Keys, value: Any) -> str:
    """An entry as a whole small file, to be pasted."""
    if form == "toml":
        return toml_table(keys, value)
    for key in reversed(keys):
        value = {key: value}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def toml_table(keys: Keys, value: Any) -> str:
    """A table of TOML with strings and lists of strings, whose JSON is TOML too."""
    rows = "".join(f"{key} = {json.dumps(item, ensure_ascii=False)}\n" for key, item in value.items())
    return f"[{'.'.join(keys)}]\n{rows}"


ENTRY = "tokenops"  # the one key of the documents below


def _block(text: str) -> Any:
    """Our lines in a text of lines."""
    lines = text.splitlines()
    if lines.count(FIRST) > 1 or lines.count(FIRST) != lines.count(LAST):
        raise Unchangeable(f"has {FIRST!r} and {LAST!r} not once each; remove what is between them by hand")
    if FIRST not in lines:
        return {}
    at, end = lines.index(FIRST), lines.index(LAST)
    if end < at:
        raise Unchangeable(f"has {LAST!r} before {FIRST!r}; remove both by hand")
    return {ENTRY: "".join(f"{line}\n" for line in lines[at + 1 : end])}


def _hooks(text: str) -> Any:
    try:
        commands = guard_install.status(text)["commands"]
    except guard_install.Refused as error:
        raise Unchangeable(f"is not valid JSON ({error})") from None
    return {ENTRY: commands[0]} if len(commands) == 1 else {ENTRY: commands} if commands else {}


_OURS: dict[str, Callable[[str], Any]] = {
    "lines": _block,
    "hooks": _hooks,
    "whole": lambda text: {ENTRY: text} if text else {},
}


def _with_block(text: str, value: str) -> str:
    """The lines go to the end. A last line without its end gets one, which `_without_block` takes away again."""
    if FIRST in text.splitlines():
        raise Unchangeable("has our lines already")
    newline = _newline(text)
    lines = "".join(f"{line}{newline}" for line in (FIRST, *value.splitlines(), LAST))
    if text and not text.endswith("\n"):
        return f"{text}{newline}{lines.removesuffix(newline)}"
    return text + lines


def _without_block(text: str) -> str:
    newline = _newline(text)
    before, _, rest = text.partition(FIRST)
    after = rest.partition(LAST)[2]
    if not after and before.endswith(newline):
        return before.removesuffix(newline)  # the line above had no end
    return before + after.removeprefix(newline)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _with_table(text: str, keys: Keys, value: Any) -> str:
    """A table goes to the end: that is right wherever it could be, and disturbs nothing."""
    changed = text + _gap(text) + toml_table(keys, value).replace("\n", _newline(text))
    expected = _with_value(parse("toml", text), keys, value)
    try:
        agrees = parse("toml", changed) == expected
    except Unchangeable:
        agrees = False
    if not agrees:
        raise Unchangeable(f"has {keys[0]} in a form that a table cannot be added to")
    return changed


def _gap(text: str) -> str:
    """What stands between the end of a file and a new table."""
    if not text:
        return ""
    return _newline(text) if text.endswith("\n") else _newline(text) * 2


def _with_value(document: Any, keys: Keys, value: Any) -> Any:
    if not keys:
        return value
    if not isinstance(document, dict):
        return document
    return {**document, keys[0]: _with_value(document.get(keys[0], {}), keys[1:], value)}


def _without_table(text: str, keys: Keys, value: Any) -> str:
    if not isinstance(value, dict):
        return text
    block = toml_table(keys, value).replace("\n", _newline(text))
    if text.count(block) != 1:
        raise Unchangeable(f"has [{'.'.join(keys)}] but not as it was written")
    before, _, after = text.partition(block)
    rest = before.removesuffix(_newline(text)) + after if before.endswith(_newline(text) * 2) else before + after
    if value_at(parse("toml", rest), keys) is not None:
        raise Unchangeable(f"has more of [{'.'.join(keys)}]")
    return rest


def _with_lines(text: str, keys: Keys, value: Any) -> str:
    """The YAML text with a value changed, by whole lines; Windows line ends stay."""
    if "\r\n" in text and text.count("\r\n") == text.count("\n"):
        return config.edit_at(text.replace("\r\n", "\n"), keys, value).replace("\n", "\r\n")
    return config.edit_at(text, keys, value)


def _without_empty(text: str, keys: Keys, keep: int) -> str:
    """The text without a section that the entry's end leaves empty."""
    for size in range(len(keys) - 1, keep, -1):
        if value_at(parse("yaml", text), keys[:size]):
            break
        text = _with_lines(text, keys[:size], None)
    return text
