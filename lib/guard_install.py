"""Claude Code's hooks in its settings.json: ours put in and taken out, everybody else's left as they are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from tokenops import datadir, jsonc

Json = dict[str, Any]

# Event -> what of it is wanted ("" all): documented at code.claude.com/docs/en/hooks, November 2026.
WANTED = {
    "PreToolUse": "Read",
    "PostToolUse": "Read",
    "PreCompact": "",
    "SessionStart": "resume|clear|compact",
    "Stop": "",
}
SECONDS = 10
_OURS = re.compile(r"(?:^|[/\s\"'])tok-guard[\"']?\s+hook\b")


class Refused(ValueError):
    """Settings that cannot be changed without losing something."""


def settings_path(environment: Mapping[str, str], home_dir: str) -> str:
    """Claude Code's settings of the user."""
    folder = next((name for name in environment.get("CLAUDE_CONFIG_DIR", "").split(",") if name), "")
    return os.path.join(os.path.expanduser(folder) if folder else os.path.join(home_dir, ".claude"), "settings.json")


def ours(hook: object) -> bool:
    """Whether a hook is one of ours."""
    return isinstance(hook, dict) and bool(_OURS.search(str(hook.get("command", ""))))


def groups(found: object) -> list[Any]:
    """The groups of an event; anything else than a list is nobody's."""
    return found if isinstance(found, list) else []


def without(found: object) -> list[Any]:
    """The groups of an event without our hooks; groups that held nothing else are gone."""
    kept = []
    for group in groups(found):
        hooks = group.get("hooks") if isinstance(group, dict) else None
        if isinstance(hooks, list) and any(map(ours, hooks)):
            rest = [hook for hook in hooks if not ours(hook)]
            if rest:
                kept.append({**group, "hooks": rest})
        else:
            kept.append(group)
    return kept


def group_of(event: str, command: str) -> Json:
    """Our group of an event."""
    matcher = {"matcher": WANTED[event]} if WANTED[event] else {}
    return matcher | {"hooks": [{"type": "command", "command": command, "timeout": SECONDS}]}


def installed(text: str, command: str) -> str:
    """Settings with our hooks in, once each. Raises Refused."""
    return _changed(text, {event: [group_of(event, command)] for event in WANTED})


def uninstalled(text: str) -> str:
    """Settings without our hooks. Raises Refused."""
    return _changed(text, {})


def _changed(text: str, mine: Mapping[str, list[Json]]) -> str:
    try:
        data = jsonc.document(text).data if text.strip() else {}
        held = data.get("hooks", {}) if isinstance(data, dict) else None
        if not isinstance(held, dict):
            raise Refused("hooks is no object; mend it first")
        for event in dict.fromkeys((*WANTED, *held)):
            before = held.get(event)
            if event in held and not isinstance(before, list):
                raise Refused(f"hooks.{event} is no list; mend it first")
            after = [*without(before), *mine.get(event, ())]
            if after == (before or []):
                continue
            if after:
                text = jsonc.changed(text, ("hooks", event), after)
            else:
                text = jsonc.without(text, ("hooks", event), 0)
    except (jsonc.Malformed, jsonc.Unchangeable) as error:
        raise Refused(str(error)) from None
    return text


def read(path: str) -> str:
    """The text of the settings, "" where there are none. Raises Refused, OSError."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise Refused("is no UTF-8 text") from None


def write(path: str, text: str) -> None:
    """Write the settings whole, through a link, keeping their mode. Raises OSError."""
    target = os.path.realpath(path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else 0o600
    datadir.replace(target, text.encode())
    os.chmod(target, mode)


def status(text: str) -> Json:
    """Which of our hooks are in, and by which commands. Raises Refused."""
    try:
        data = jsonc.document(text).data if text.strip() else {}
    except jsonc.Malformed as error:
        raise Refused(str(error)) from None
    held = data.get("hooks") if isinstance(data, dict) else None
    found: dict[str, list[str]] = {}
    for event, those in held.items() if isinstance(held, dict) else ():
        for group in groups(those):
            hooks = group.get("hooks") if isinstance(group, dict) else None
            for hook in hooks if isinstance(hooks, list) else ():
                if ours(hook):
                    found.setdefault(event, []).append(str(hook["command"]))
    missing = [event for event in WANTED if event not in found]
    commands = sorted({command for those in found.values() for command in those})
    return {"installed": not missing, "events": sorted(found), "missing": missing, "commands": commands}
