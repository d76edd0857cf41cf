"""Changes one entry of another program's settings file, after showing it, and takes the change back.

Every other byte of the text stays: JSON (with comments), TOML and YAML; a text that cannot be changed so is refused, with
the reason. Before it is written the old file is copied beside itself, and what was done is written
down in init.json in the log's directory; `undo` puts back the very bytes, or, where somebody changed the file since, takes
out only our own entry. Links are written through; a file's mode stays.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from tokenops import config, credentials, datadir, jsonc

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
        return jsonc.set_value(text, place, value) if form == "json" else _lines(text, place, value)
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
        return jsonc.remove_value(text, place, keep) if form == "json" else _bare(_lines(text, place, None), place, keep)
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
        return config.edit_at(text.replace("\r\n", "\n"), place, value).replace("\n", "\r\n")
    return config.edit_at(text, place, value)


def _bare(text: str, place: Place, keep: int) -> str:
    """The text without a section that the entry's end leaves empty."""
    for size in range(len(place) - 1, keep, -1):
        if value_at(data("yaml", text), place[:size]):
            break
        text = _lines(text, place[:size], None)
    return text


MANIFEST, LOCK = "init.json", "init.lock"
_MOST = 16 << 20  # no file of settings is larger


class Change(NamedTuple):
    """An entry that a file should have."""

    about: str  # plan, mcp, statusline
    host: str
    title: str
    path: str
    form: str
    place: tuple[str, ...]
    value: Any


class Proposal(NamedTuple):
    """A change worked out: the file as it is, and as it would be."""

    change: Change
    target: str  # the file itself, where `path` is a link
    before: bytes | None
    after: bytes
    keep: int  # so many keys of the place were there


class Outcome(NamedTuple):
    """What came of taking back one change."""

    path: str
    done: bool
    says: str


def content(path: str) -> bytes | None:
    """The bytes of a file of settings; None where there is none. Raises Refused, OSError."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(about.st_mode):
        raise Refused("is no ordinary file")
    if about.st_size > _MOST:
        raise Refused("is far too large for a file of settings")
    with open(path, "rb") as file:
        return file.read()


def text_of(data: bytes | None) -> str:
    """A file's text. Raises Refused."""
    try:
        return (data or b"").decode()
    except UnicodeDecodeError as error:
        raise Refused(f"is no UTF-8 text (byte {error.start})") from None


def proposal(change: Change) -> Proposal:
    """The change worked out. Raises Refused, OSError."""
    target = os.path.realpath(change.path)
    before = content(target)
    if before is not None and not (os.stat(target).st_mode & stat.S_IWUSR and os.access(target, os.W_OK)):
        raise Refused("is read-only")
    text = text_of(before)
    keep = depth(data(change.form, text), change.place)
    return Proposal(change, target, before, with_entry(change.form, text, change.place, change.value).encode(), keep)


def diff(made: Proposal) -> str:
    """What would change, for people: values of other settings and whatever looks like a secret are hidden."""
    change = made.change
    old, new = text_of(made.before), text_of(made.after)
    around = 0
    if change.form == "json":
        from tokenops import jsonc

        around = 3
        old = jsonc.mask_strings(old.removeprefix(BOM), change.place) if old.strip(BOM + " \t\r\n") else ""
        new = jsonc.mask_strings(new.removeprefix(BOM), change.place)
    names = (change.path if made.before is not None else os.devnull, change.path)
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, n=around, lineterm="")
    return credentials.redact("".join(f"{line}\n" for line in lines))


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _value_digest(value: Any) -> str | None:
    return _digest(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


_KEYS = frozenset(("path", "form", "place", "keep", "backup", "before", "after", "value", "folders"))


def entries(folder: str) -> list[dict[str, Any]]:
    """What was written down of changes that stand, oldest first. Raises Refused."""
    path = os.path.join(folder, MANIFEST)
    if not os.path.exists(path):
        return []
    found = datadir.read_json(path)
    given = found.get("changes") if isinstance(found, dict) else None
    if not isinstance(given, list) or not all(isinstance(one, dict) and one.keys() >= _KEYS for one in given):
        raise Refused(f"cannot be done: {path} is damaged; look there for what was written, and delete it")
    return given


def _keep_entries(folder: str, given: list[dict[str, Any]]) -> None:
    path = os.path.join(datadir.ensure_folder(folder), MANIFEST)
    if given:
        datadir.replace(path, orjson.dumps({"v": 1, "changes": given}, option=orjson.OPT_INDENT_2))
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def write(folder: str, made: Proposal) -> str:
    """Make a change; the path of the copy of the old file, or "". Raises Refused, OSError."""
    change = made.change
    with datadir.lock(folder, LOCK):
        if content(made.target) != made.before:
            raise Refused("was changed by somebody else at this moment")
        folders = _missing(os.path.dirname(made.target))
        os.makedirs(os.path.dirname(made.target), exist_ok=True)
        backup = _backed_up(made) if made.before is not None else ""
        entry = {
            "path": change.path,
            "form": change.form,
            "place": list(change.place),
            "keep": made.keep,
            "backup": backup,
            "before": _digest(made.before),
            "after": _digest(made.after),
            "value": _value_digest(change.value),
            "folders": folders,
        }
        _keep_entries(folder, [*entries(folder), entry])
        datadir.replace(made.target, made.after, mode=_mode(made.target))
    return backup


def _mode(path: str) -> int:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return 0o600


def _missing(folder: str) -> list[str]:
    """The directories above a file that are not there yet, the innermost first."""
    found = []
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        found.append(folder)
        folder = os.path.dirname(folder)
    return found


def _backed_up(made: Proposal) -> str:
    """The path of a new copy of the file as it was."""
    for number in range(1, 1000):
        path = f"{made.target}.tokenops-backup-{number}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        try:
            with contextlib.suppress(OSError):  # a disk of Windows has no modes
                os.fchmod(fd, _mode(made.target))
            datadir.write(fd, made.before or b"", durable=True)
        finally:
            os.close(fd)
        return path
    raise Refused("has a thousand backups beside it; remove old ones")


def undo(folder: str) -> Iterator[Outcome]:
    """Take back every change, the newest first. What cannot be taken back stays written down. Raises OSError."""
    with datadir.lock(folder, LOCK):
        left = entries(folder)
        for entry in reversed(list(left)):
            path = str(entry.get("path"))
            try:
                says = _undone(entry)
                left.remove(entry)
                _keep_entries(folder, left)
            except Refused as error:
                yield Outcome(path, False, f"{error}; {_by_hand(entry)}")
            else:
                yield Outcome(path, True, says)


def _by_hand(entry: dict[str, Any]) -> str:
    copy = f"; the file as it was is {entry['backup']}" if entry.get("backup") else ""
    return f"take {'.'.join(entry['place'])} out by hand{copy}"


def _undone(entry: dict[str, Any]) -> str:
    """Put one file back; a sentence on what was done. Raises Refused, OSError."""
    target = os.path.realpath(entry["path"])
    now = content(target)
    if now is None or _digest(now) == entry["before"]:
        says = "is gone already" if now is None else "is as it was already"
        if now is None and entry["before"] is not None:
            raise Refused("is gone")
    elif _digest(now) == entry["after"] and _is_whole(entry):
        says = _restored(entry, target)
    else:
        says = _cut_out(entry, target, now)
    _forget(entry)
    return says


def _is_whole(entry: dict[str, Any]) -> bool:
    """Whether the file as it was can be had."""
    return not entry["backup"] or _digest(content(entry["backup"])) == entry["before"]


def _restored(entry: dict[str, Any], target: str) -> str:
    old = content(entry["backup"]) if entry["backup"] else None
    if old is None:
        os.unlink(target)
        for folder in entry["folders"]:
            with contextlib.suppress(OSError):  # something else is in it by now
                os.rmdir(folder)
        return "removed: it was not there before"
    datadir.replace(target, old, mode=_mode(target))
    return "is as it was, to the last byte"


def _cut_out(entry: dict[str, Any], target: str, now: bytes) -> str:
    """Take only our own entry out of a file that somebody changed since."""
    form, place, text = entry["form"], entry["place"], text_of(now)
    found = value_at(data(form, text), place)
    if found is None:
        return "does not have the entry any more"
    if _value_digest(found) != entry["value"]:
        raise Refused("was changed since, in the very entry that was written")
    if entry["keep"] == len(place):
        if not _is_whole(entry):
            raise Refused("was changed since, and its backup is gone")
        old = value_at(data(form, text_of(content(entry["backup"]))), place)
        made = with_entry(form, text, place, old)
    else:
        made = without_entry(form, text, place, entry["keep"])
    if entry["before"] is None and made.strip(f"{BOM}{{}} \t\r\n") == "":
        os.unlink(target)
        return "removed: it held nothing else"
    datadir.replace(target, made.encode(), mode=_mode(target))
    return "was changed since: only the entry was taken out"


def _forget(entry: dict[str, Any]) -> None:
    if entry["backup"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(entry["backup"])
