"""Changes one entry of another program's settings file, after showing it, and can undo the change.

Every other byte of the JSON (with comments), TOML or YAML stays; if that is impossible, the change is refused with the
reason. First the old file is copied beside itself, and the change is recorded in init.json in the log's directory.
`undo` restores the exact bytes or, if the file changed since, removes only our own entry. Links are followed; a file's
mode stays.
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

from tokenops import config, credentials, datadir, jsonc, regular

BOM = "\ufeff"
FORMATS = ("json", "toml", "yaml")
Keys = Sequence[str]


class Unchangeable(ValueError):
    """A text that only a person can change; the message is the end of a sentence about the file."""


def parse(form: str, text: str) -> Any:
    """The document of a text; {} for an empty one. Raises Unchangeable."""
    text = text.removeprefix(BOM)
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
    try:
        return jsonc.set_value(text, keys, value) if form == "json" else _with_lines(text, keys, value)
    except (jsonc.Unchangeable, config.Unchangeable) as error:
        raise Unchangeable(str(error)) from None


def without_entry(form: str, text: str, keys: Keys, keep: int) -> str:
    """The text without the entry, and without what held only it, down to `keep` keys. Raises Unchangeable."""
    document = parse(form, text)
    if text.startswith(BOM):
        return BOM + without_entry(form, text[1:], keys, keep)
    if form == "toml":
        return _without_table(text, keys, value_at(document, keys))
    try:
        return (
            jsonc.remove_value(text, keys, keep)
            if form == "json"
            else _without_empty(_with_lines(text, keys, None), keys, keep)
        )
    except (jsonc.Unchangeable, config.Unchangeable) as error:
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


MANIFEST, LOCK = "init.json", "init.lock"
_TRIES = 5  # of an edit that another program overtakes
_MOST = 16 << 20  # no file of settings is larger


class Change(NamedTuple):
    """An entry that a file should have."""

    subject: str  # plan, mcp, statusline
    host: str
    title: str
    path: str
    form: str
    keys: tuple[str, ...]
    value: Any


class Proposal(NamedTuple):
    """A change, and the file before and after it."""

    change: Change
    target: str  # the file itself, if `path` is a link
    before: bytes | None
    after: bytes
    keep: int  # how many of the keys were there before


class Outcome(NamedTuple):
    """How taking back one change ended."""

    path: str
    done: bool
    says: str


def content(path: str) -> bytes | None:
    """The bytes of a settings file; None if there is none. Raises Unchangeable, OSError."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise Unchangeable("is not a regular file")
    if status.st_size > _MOST:
        raise Unchangeable("is too large for a settings file")
    with open(path, "rb", opener=regular.opener) as file:
        return file.read()


def text_of(data: bytes | None) -> str:
    """A file's text. Raises Unchangeable."""
    try:
        return (data or b"").decode()
    except UnicodeDecodeError as error:
        raise Unchangeable(f"is not UTF-8 text (byte {error.start})") from None


def proposal(change: Change) -> Proposal:
    """What a change would do. Raises Unchangeable, OSError."""
    target = os.path.realpath(change.path)
    before = content(target)
    if before is not None and datadir.is_read_only(target):
        raise Unchangeable("is read-only")
    text = text_of(before)
    keep = existing_depth(parse(change.form, text), change.keys)
    return Proposal(change, target, before, with_entry(change.form, text, change.keys, change.value).encode(), keep)


def diff(proposal: Proposal) -> str:
    """What would change, for people: values of other settings and whatever looks like a secret are hidden."""
    change = proposal.change
    old, new = text_of(proposal.before), text_of(proposal.after)
    around = 0
    if change.form == "json":
        around = 3
        old = jsonc.mask_strings(old.removeprefix(BOM), change.keys) if old.strip(BOM + " \t\r\n") else ""
        new = jsonc.mask_strings(new.removeprefix(BOM), change.keys)
    names = (change.path if proposal.before is not None else os.devnull, change.path)
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, n=around, lineterm="")
    return credentials.redact("".join(f"{line}\n" for line in lines))


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _value_digest(value: Any) -> str | None:
    return _digest(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


_KEYS = frozenset(("path", "form", "place", "keep", "backup", "before", "after", "value", "folders"))


def manifest(folder: str) -> list[dict[str, Any]]:
    """The recorded changes that stand, oldest first. Raises Unchangeable."""
    path = os.path.join(folder, MANIFEST)
    if not os.path.exists(path):
        return []
    document = datadir.read_json(path)
    entries = document.get("changes") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and entry.keys() >= _KEYS for entry in entries):
        raise Unchangeable(f"cannot be done: {path} is damaged; undo the changes it lists by hand, then delete it")
    return entries


def _save_manifest(folder: str, entries: list[dict[str, Any]]) -> None:
    path = os.path.join(datadir.ensure_folder(folder), MANIFEST)
    if entries:
        datadir.replace(path, orjson.dumps({"v": 1, "changes": entries}, option=orjson.OPT_INDENT_2))
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def write(folder: str, proposal: Proposal) -> str:
    """Make a change; the path of the copy of the old file, or "". Raises Unchangeable, OSError."""
    change = proposal.change
    with datadir.lock(folder, LOCK):
        folders = _missing(os.path.dirname(proposal.target))
        os.makedirs(os.path.dirname(proposal.target), exist_ok=True)
        backup = _back_up(proposal) if proposal.before is not None else ""
        entry = {
            "path": change.path,
            "form": change.form,
            "place": list(change.keys),
            "keep": proposal.keep,
            "backup": backup,
            "before": _digest(proposal.before),
            "after": _digest(proposal.after),
            "value": _value_digest(change.value),
            "folders": folders,
        }
        earlier = manifest(folder)
        _save_manifest(folder, [*earlier, entry])
        try:
            datadir.replace_unchanged(proposal.target, proposal.before, proposal.after)
        except datadir.NotReplaced as error:
            _save_manifest(folder, earlier)
            _forget(entry)
            raise Unchangeable(str(error.strerror)) from None
    return backup


def _missing(folder: str) -> list[str]:
    """The directories above a file that are not there yet, the innermost first."""
    missing = []
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def _back_up(proposal: Proposal) -> str:
    """The path of a new copy of the file as it was."""
    for number in range(1, 1000):
        path = f"{proposal.target}.tokenops-backup-{number}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        try:
            with contextlib.suppress(OSError):  # a disk of Windows has no modes
                os.fchmod(fd, stat.S_IMODE(os.stat(proposal.target).st_mode))
            datadir.write(fd, proposal.before or b"", durable=True)
        finally:
            os.close(fd)
        return path
    raise Unchangeable("already has a thousand backups; remove old ones")


def undo(folder: str) -> Iterator[Outcome]:
    """Take back every change, the newest first. What cannot be taken back stays recorded. Raises OSError."""
    with datadir.lock(folder, LOCK):
        left = manifest(folder)
        for entry in reversed(list(left)):
            path = str(entry.get("path"))
            try:
                says = _undo_entry(entry)
                left.remove(entry)
                _save_manifest(folder, left)
            except Unchangeable as error:
                yield Outcome(path, False, f"{error}; {_by_hand(entry)}")
            else:
                yield Outcome(path, True, says)


def _by_hand(entry: dict[str, Any]) -> str:
    copy = f"; the original file is {entry['backup']}" if entry.get("backup") else ""
    return f"remove {'.'.join(entry['place'])} by hand{copy}"


def _undo_entry(entry: dict[str, Any]) -> str:
    """Put one file back; a sentence on what was done. Raises Unchangeable, OSError."""
    for _ in range(_TRIES):
        try:
            return _put_back(entry)
        except datadir.ChangedMeanwhile:
            continue
        except datadir.NotReplaced as error:
            raise Unchangeable(str(error.strerror)) from None
    raise Unchangeable("is changed by another program all the time")


def _put_back(entry: dict[str, Any]) -> str:
    target = os.path.realpath(entry["path"])
    now = content(target)
    if now is None or _digest(now) == entry["before"]:
        says = "is already gone" if now is None else "is already as it was"
        if now is None and entry["before"] is not None:
            raise Unchangeable("is gone")
    elif _digest(now) == entry["after"] and _is_whole(entry):
        says = _restore(entry, target, now)
    else:
        says = _cut_out(entry, target, now)
    _forget(entry)
    return says


def _is_whole(entry: dict[str, Any]) -> bool:
    """Whether the file as it was can be restored."""
    return not entry["backup"] or _digest(content(entry["backup"])) == entry["before"]


def _restore(entry: dict[str, Any], target: str, now: bytes) -> str:
    old = content(entry["backup"]) if entry["backup"] else None
    if old is None:
        datadir.remove_unchanged(target, now)
        for folder in entry["folders"]:
            with contextlib.suppress(OSError):  # something else is in it by now
                os.rmdir(folder)
        return "removed: it did not exist before"
    datadir.replace_unchanged(target, now, old)
    return "restored, byte for byte"


def _cut_out(entry: dict[str, Any], target: str, now: bytes) -> str:
    """Take only our own entry out of a file that somebody changed since."""
    form, keys, text = entry["form"], entry["place"], text_of(now)
    value = value_at(parse(form, text), keys)
    if value is None:
        return "no longer has the entry"
    if _value_digest(value) != entry["value"]:
        raise Unchangeable("has changed since, in our entry")
    if entry["keep"] == len(keys):
        if not _is_whole(entry):
            raise Unchangeable("has changed since, and its backup is gone")
        old = value_at(parse(form, text_of(content(entry["backup"]))), keys)
        rest = with_entry(form, text, keys, old)
    else:
        rest = without_entry(form, text, keys, entry["keep"])
    if entry["before"] is None and rest.strip(f"{BOM}{{}} \t\r\n") == "":
        datadir.remove_unchanged(target, now)
        return "removed: it held nothing else"
    datadir.replace_unchanged(target, now, rest.encode())
    return "has changed since: only our entry was removed"


def _forget(entry: dict[str, Any]) -> None:
    if entry["backup"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(entry["backup"])
