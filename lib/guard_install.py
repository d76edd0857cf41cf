"""Adds our hooks to Claude Code's settings.json and removes them; all other hooks stay as they are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from tokenops import datadir, jsonc, untrusted

Json = dict[str, Any]

# Event -> its matcher ("": all), as documented at code.claude.com/docs/en/hooks, November 2026.
WANTED = {
    "PreToolUse": "",
    "PostToolUse": "",
    "PostToolUseFailure": "",
    "UserPromptSubmit": "",
    "PreCompact": "",
    "SessionStart": "",
    "Stop": "",
}
SECONDS = 10
_OURS = re.compile(r"(?:^|[/\s\"'])tok-guard[\"']?\s+hook\b")


class Refused(ValueError):
    """Settings that cannot be changed without losing something in them."""


def settings_path(environment: Mapping[str, str], home_dir: str) -> str:
    """The path of the user's settings of Claude Code."""
    folder = next((name for name in environment.get("CLAUDE_CONFIG_DIR", "").split(",") if name), "")
    return os.path.join(os.path.expanduser(folder) if folder else os.path.join(home_dir, ".claude"), "settings.json")


# Where an administrator sets what users cannot change (code.claude.com/docs/en/settings, November 2026).
MANAGED = (
    "/etc/claude-code/managed-settings.json",
    "/Library/Application Support/ClaudeCode/managed-settings.json",
)


def switched_off(path: str, folder: str) -> str:
    """What keeps Claude Code from running our hooks, as `KEY in FILE`; "" if nothing does.

    Looked at: the settings at `path`, those of the project in `folder`, and the administrator's.
    """
    own = [os.path.join(folder, ".claude", name) for name in ("settings.json", "settings.local.json")]
    for name in (path, *own, *MANAGED):
        settings = settings_in(name)
        for key in ("disableAllHooks", *(("allowManagedHooksOnly",) if name in MANAGED else ())):
            if settings.get(key) is True:
                return f"{key} in {name}"
    return ""


def settings_in(path: str) -> Mapping[str, Any]:
    """Settings as Claude Code reads them, with comments or a byte order mark; none if they cannot be read."""
    try:
        text = read(path)
        return {} if jsonc.is_empty(text) else untrusted.mapping(jsonc.document(text).data)
    except (OSError, Refused, jsonc.Malformed):
        return {}


def ours(hook: object) -> bool:
    """Whether a hook is one of ours."""
    return isinstance(hook, dict) and bool(_OURS.search(str(hook.get("command", ""))))


def groups(value: object) -> list[Any]:
    """The groups of an event; none if the value is not a list."""
    return value if isinstance(value, list) else []


def others(value: object) -> list[Any]:
    """The groups of an event without our hooks, and without groups that held only ours."""
    kept = []
    for group in groups(value):
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


def with_hooks(text: str, command: str) -> str:
    """Settings with each of our hooks once. Raises Refused."""
    return _with_groups(text, {event: [group_of(event, command)] for event in WANTED})


def without_hooks(text: str) -> str:
    """Settings without our hooks. Raises Refused."""
    return _with_groups(text, {})


def _with_groups(text: str, mine: Mapping[str, list[Json]]) -> str:
    try:
        data = {} if jsonc.is_empty(text) else jsonc.document(text).data
        hooks = data.get("hooks", {}) if isinstance(data, dict) else None
        if not isinstance(hooks, dict):
            raise Refused("hooks is not an object; correct it first")
        for event in dict.fromkeys((*WANTED, *hooks)):
            before = hooks.get(event)
            if event in hooks and not isinstance(before, list):
                raise Refused(f"hooks.{event} is not a list; correct it first")
            after = [*others(before), *mine.get(event, ())]
            if after == (before or []):
                continue
            if after:
                text = jsonc.set_value(text, ("hooks", event), after)
            else:
                text = jsonc.remove_value(text, ("hooks", event), 0)
    except (jsonc.Malformed, jsonc.Unchangeable) as error:
        raise Refused(str(error)) from None
    return text


def read(path: str) -> str:
    """The text of the settings, "" if there is no file. Raises Refused, OSError."""
    return _text(datadir.content_of(path))


def _text(content: bytes | None) -> str:
    try:
        return (content or b"").decode()
    except UnicodeDecodeError:
        raise Refused("is not UTF-8 text; save it as UTF-8") from None


_TRIES = 5


def edit(path: str, changed: Callable[[str], str]) -> str:
    """Change the text of the settings in one step; the new text. Raises Refused, OSError.

    If another program changes the file meanwhile, its change stays and ours is made again.
    """
    for _ in range(_TRIES):
        before = datadir.content_of(path)
        text = _text(before)
        after = changed(text)
        if after == text:
            return text
        os.makedirs(os.path.dirname(os.path.realpath(path)), exist_ok=True)
        try:
            datadir.replace_unchanged(path, before, after.encode())
        except datadir.ChangedMeanwhile:
            continue
        except datadir.NotReplaced as error:
            raise Refused(f"{error.strerror}; it stays as it is") from None
        return after
    raise Refused("another program keeps changing it; run this again")


def status(text: str) -> Json:
    """Which of our hooks are installed, and their commands. Raises Refused."""
    try:
        data = {} if jsonc.is_empty(text) else jsonc.document(text).data
    except jsonc.Malformed as error:
        raise Refused(str(error)) from None
    hooks_by_event = data.get("hooks") if isinstance(data, dict) else None
    commands_by_event: dict[str, list[str]] = {}
    for event, value in hooks_by_event.items() if isinstance(hooks_by_event, dict) else ():
        for group in groups(value):
            hooks = group.get("hooks") if isinstance(group, dict) else None
            for hook in hooks if isinstance(hooks, list) else ():
                if ours(hook):
                    commands_by_event.setdefault(event, []).append(str(hook["command"]))
    missing = [event for event in WANTED if event not in commands_by_event]
    names = sorted({command for commands in commands_by_event.values() for command in commands})
    return {"installed": not missing, "events": sorted(commands_by_event), "missing": missing, "commands": names}
