"""Changes one entry of another program's settings, after showing it, and can undo the change.

Every other byte of the file stays; if that is impossible, the change is refused with the reason. First the old file is
copied beside itself, and the change is recorded in init.json in the log's directory. `undo` restores the exact bytes or, if
the file changed since, removes only our own entry. Links are followed; a file's mode stays. The crontab is changed by
crontab, Claude Code's list of servers by claude.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import orjson

from tokenops import credentials, datadir, jsonc, regular, setup_hosts, setup_programs, show
from tokenops.setup_programs import CRONTAB
from tokenops.setup_texts import BOM, Unchangeable, existing_depth, parse, value_at, with_entry, without_entry

if TYPE_CHECKING:
    from tokenops.coach_setup import Advice

MANIFEST, LOCK = "init.json", "init.lock"
Result = TypeVar("Result")
_TRIES = 5  # of an edit that another program overtakes
_MOST = 16 << 20  # no file of settings is larger


class Change(NamedTuple):
    """An entry that a file should have. `form`: as in setup_texts, or `claude`, which adds its server itself."""

    subject: str  # plan, mcp, statusline, hooks, cron, alias
    host: str
    title: str
    path: str
    form: str
    keys: tuple[str, ...]
    value: Any
    service: str = ""  # systemd or launchd, which starts what this file describes


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
    if path == CRONTAB:
        return _answer_of(setup_programs.crontab)
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


def _answer_of(ask: Callable[[], Result]) -> Result:
    """What another program answers. Raises Unchangeable."""
    try:
        return ask()
    except setup_programs.Failed as error:
        raise Unchangeable(str(error.strerror)) from None


def text_of(data: bytes | None) -> str:
    """A file's text. Raises Unchangeable."""
    try:
        return (data or b"").decode()
    except UnicodeDecodeError as error:
        raise Unchangeable(f"is not UTF-8 text (byte {error.start})") from None


def _target(path: str) -> str:
    return path if path == CRONTAB else os.path.realpath(path)


def proposal(change: Change, home: str = "") -> Proposal:
    """What a change would do. In a read-only `home` other programs change nothing. Raises Unchangeable, OSError."""
    target = _target(change.path)
    if home and (target == CRONTAB or change.form == "claude") and datadir.is_read_only(home):
        raise Unchangeable("is left alone, because your home directory is read-only")
    before = content(target)
    if before is not None and target != CRONTAB and datadir.is_read_only(target):
        raise Unchangeable("is read-only")
    text = text_of(before)
    if change.form == "claude":
        return Proposal(change, target, before, b"", existing_depth(parse("json", text), change.keys))
    if change.form == "whole" and before is not None:
        raise Unchangeable("is there already, with other content")
    keep = existing_depth(parse(change.form, text), change.keys)
    return Proposal(change, target, before, with_entry(change.form, text, change.keys, change.value).encode(), keep)


def diff(proposal: Proposal) -> str:
    """What would change, for people: values of other settings and whatever looks like a secret are hidden."""
    change = proposal.change
    if change.form == "claude":
        return f"$ claude mcp add --scope user {setup_hosts.SERVER} -- {shlex.quote(change.value)}\n"
    old, new = text_of(proposal.before), text_of(proposal.after)
    around = 0
    if change.form in ("json", "hooks"):
        around = 3
        keys = change.keys if change.form == "json" else ("hooks",)
        old = jsonc.mask_strings(old.removeprefix(BOM), keys) if old.strip(BOM + " \t\r\n") else ""
        new = jsonc.mask_strings(new.removeprefix(BOM), keys)
    names = (change.path if proposal.before is not None else os.devnull, change.path)
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, n=around, lineterm="")
    text = "".join(f"{line}\n" for line in lines)
    return text if change.form in ("lines", "whole") else credentials.redact(text)  # of these, only our own lines are in it


_STYLES = {"---": "bold", "+++": "bold", "@@": "accent", "+": "good", "-": "bad", "$": "accent"}


def diff_lines(text: str, home: str, width: int | None, color: bool, most: int | None = None) -> str:
    """A diff at a terminal: in colours, paths with ~, each line cut to the width, and of a long one only the beginning."""
    lines = []
    every = re.sub(rf"^(---|\+\+\+) {re.escape(home)}/", r"\1 ~/", text, flags=re.MULTILINE).splitlines()
    shown = every if most is None or len(every) <= most else every[: most - 4]
    for line in shown:
        style = next((style for mark, style in _STYLES.items() if line.startswith(mark)), "")
        fits = line if width is None or line.startswith("$") else show.shorten(line, width)
        lines.append(show.paint(show.safe(fits), style, color) + "\n")
    if len(shown) < len(every):
        lines.append(show.paint(f"and {len(every) - len(shown)} more lines (-v shows all)", "dim", color) + "\n")
    return "".join(lines)


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


def write(folder: str, proposal: Proposal, at: str = "") -> str:
    """Make a change; the path of the copy of the old file, or "". Raises Unchangeable, OSError.

    `at`: the time, a canonical one, where the journal should tell later since when the setting has its value.
    """
    change = proposal.change
    with datadir.lock(folder, LOCK):
        folders: list[str] = []
        backup = ""
        if change.path != CRONTAB:
            folders = _missing(os.path.dirname(proposal.target))
            os.makedirs(os.path.dirname(proposal.target), exist_ok=True)
        if proposal.before is not None and change.form != "claude":
            backup = _back_up(proposal, os.path.join(folder, "crontab") if change.path == CRONTAB else proposal.target)
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
            **({"service": change.service} if change.service else {}),
            **({"subject": change.subject, "at": at, "set": change.value} if at else {}),
        }
        earlier = manifest(folder)
        _save_manifest(folder, [*earlier, entry])
        try:
            _apply(proposal)
        except (datadir.NotReplaced, setup_programs.Failed) as error:
            _save_manifest(folder, earlier)
            _forget(entry)
            raise Unchangeable(str(error.strerror)) from None
    return backup


def _apply(proposal: Proposal) -> None:
    """Make the change that is recorded already. Raises NotReplaced, Failed, OSError."""
    change = proposal.change
    if change.form == "claude":
        setup_programs.add_server(change.value)
        return
    _replace(proposal.target, proposal.before, proposal.after)
    if change.service:
        try:
            setup_programs.start(change.service, proposal.target)
        except setup_programs.Failed:
            _replace(proposal.target, proposal.after, proposal.before)
            raise


def _replace(target: str, before: bytes | None, after: bytes | None) -> None:
    """Replace what is at a place if it is as before; None: nothing. Raises NotReplaced, Failed, OSError."""
    if target == CRONTAB:
        setup_programs.replace_crontab(before, after)
    elif after is None:
        datadir.remove_unchanged(target, before or b"")
    else:
        datadir.replace_unchanged(target, before, after)


def _missing(folder: str) -> list[str]:
    """The directories above a file that are not there yet, the innermost first."""
    missing = []
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def _back_up(proposal: Proposal, beside: str) -> str:
    """The path of a new copy of the file as it was."""
    for number in range(1, 1000):
        path = f"{beside}.tokenops-backup-{number}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        try:
            with contextlib.suppress(OSError):  # a disk of Windows has no modes
                if proposal.target != CRONTAB:
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
    if entry["form"] == "claude":
        return f"run: claude mcp remove --scope user {setup_hosts.SERVER}"
    copy = f"; the original file is {entry['backup']}" if entry.get("backup") else ""
    return f"remove {'.'.join(entry['place'])} by hand{copy}"


def _undo_entry(entry: dict[str, Any]) -> str:
    """Put one file back; a sentence on what was done. Raises Unchangeable, OSError."""
    for _ in range(_TRIES):
        try:
            return _put_back(entry)
        except datadir.ChangedMeanwhile:
            continue
        except (datadir.NotReplaced, setup_programs.Failed) as error:
            raise Unchangeable(str(error.strerror)) from None
    raise Unchangeable("is changed by another program all the time")


def _put_back(entry: dict[str, Any]) -> str:
    target = _target(entry["path"])
    now = content(target)
    if entry["form"] == "claude":
        return _remove_server(entry, now)
    if service := entry.get("service"):
        with contextlib.suppress(setup_programs.Failed):  # it may be stopped already
            setup_programs.stop(service)
    if now is None or _digest(now) == entry["before"]:
        says = "is already gone" if now is None else "is already as it was"
        if now is None and entry["before"] is not None:
            raise Unchangeable("is gone")
    elif _digest(now) == entry["after"] and _is_whole(entry):
        says = _restore(entry, target, now)
    else:
        says = _cut_out(entry, target, now)
    _forget(entry)
    if service:
        with contextlib.suppress(setup_programs.Failed):
            setup_programs.forget(service)
    return says


def _remove_server(entry: dict[str, Any], now: bytes | None) -> str:
    """Have Claude Code remove the server that it added."""
    value = value_at(parse("json", text_of(now)), entry["place"])
    if value is None:
        return "no longer has the entry"
    if not isinstance(value, dict) or _value_digest(value.get("command")) != entry["value"]:
        raise Unchangeable("has changed since, in our entry")
    setup_programs.remove_server()
    return "no longer has the entry: claude removed it"


def _is_whole(entry: dict[str, Any]) -> bool:
    """Whether the file as it was can be restored."""
    return not entry["backup"] or _digest(content(entry["backup"])) == entry["before"]


def _restore(entry: dict[str, Any], target: str, now: bytes) -> str:
    old = content(entry["backup"]) if entry["backup"] else None
    if old is None:
        _replace(target, now, None)
        for folder in entry["folders"]:
            with contextlib.suppress(OSError):  # something else is in it by now
                os.rmdir(folder)
        return "removed: it did not exist before"
    _replace(target, now, old)
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
        _replace(target, now, None)
        return "removed: it held nothing else"
    _replace(target, now, rest.encode())
    return "has changed since: only our entry was removed"


def _forget(entry: dict[str, Any]) -> None:
    if entry["backup"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(entry["backup"])


# Settings that tok-coach setup names, and since when they have their value.
COACH = "coach"


def settings_of(every: Iterable[Advice]) -> Iterator[Change]:
    """The changes that some advice names, each key once."""
    seen = set()
    for advice in every:
        if advice.key and (advice.path, advice.key) not in seen:
            seen.add((advice.path, advice.key))
            yield Change(COACH, "claude-code", advice.remedy, advice.path, "json", advice.key, advice.value)


def settings_in_force(folder: str) -> list[tuple[str, str, str]]:
    """Key, value and time of the settings that were changed this way and stand. Raises Unchangeable."""
    return [
        (".".join(map(str, entry["place"])), str(entry["set"]), entry["at"])
        for entry in manifest(folder)
        if entry.get("subject") == COACH and isinstance(entry.get("at"), str) and "set" in entry
    ]
