"""Reads and edits the user's configuration: `$XDG_CONFIG_HOME/tokenops/config.yaml`.

Environment variables override the file. Keys of the original TokenOps keep their names and meaning. An unknown key
causes a warning that names the nearest known key.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import catalog, datadir, light, regular, show

Data = dict[str, Any]

# Sources that tok-sync reads. Each can be switched off, and read elsewhere than usual; `claude_code` is the stats cache.
READERS = (
    *("claude_code_jsonl", "codex_jsonl", "opencode", "gemini_cli", "copilot_cli", "qwen_code", "kimi_cli", "kilo", "amp"),
    *("droid", "goose", "hermes", "pi", "openclaw", "cursor_csv", "claude_code", "claude_code_usage_cache", "cline"),
    *("grok_build", "mistral_vibe", "zed", "crush"),
)
_POLLED: Data = {"enabled": None, "interval": None, "url": None, "consented": None}
# Sections of the original TokenOps that have no meaning here: no daemon, no rules and no TLS need setting up. A file that
# has them is read without a warning.
ORIGINAL = ("mode", "listen", "log", "shutdown", "tls", "storage", "otel", "rules", "resilience", "optimizer", "watch")
# Known keys; {} below a key: its own keys are the user's (names of providers, clients, KPIs).
KNOWN: Data = {
    **{name: {} for name in ORIGINAL},
    "pricing": {"path": None, "update": {"url": None, "key": None, "sha256": None}},
    "providers": {},
    "plans": {},
    "banked_resets": {},
    "thresholds": {},
    "budgets": None,
    "tasks": {"ticket": None},
    "guard": {"mode": None, "warn": None, "stop": None},
    "run": {"commands": {}},
    "mcp": {"set_providers": None},
    "machine": None,
    "user": None,
    "ship": {"machine": None, "user": None, "names": None, "targets": {}},
    "sync": {
        **dict.fromkeys(("from", "to", "timeout", "ssh_config")),
        **{name: {"age": None, "gpg": None} for name in ("encrypt", "decrypt")},
    },
    "coaching": {"context_limits": None},
    "dashboard": {"admin_token": None},
    "proxy": {
        "cache": {"enabled": None, "ttl_s": None, "entries": None, "entry_bytes": None, "bytes": None},
        "include_usage": None,
        "routes": {},
    },
    "vendor_usage": {
        **{name: {"enabled": None, "root": None, "path": None, "interval": None} for name in READERS},
        "anthropic": {**_POLLED, "admin_key": None, "bucket_width": None},
        "claude_code_analytics": {**_POLLED, "admin_key": None, "bucket_width": None},
        "anthropic_cookie": {**_POLLED, "session_key": None, "org_id": None},
        "anthropic_oauth": {**_POLLED},
        "cursor": {**_POLLED, "cookie": None, "user_id": None},
        "github_copilot": {**_POLLED, "oauth_token": None},
        "openai": {**_POLLED, "admin_key": None, "bucket_width": None},
        "openrouter": {**_POLLED, "api_key": None},
        "codex": {**_POLLED, "command": None},
    },
}
# Keys whose value is a secret, unless it names a place (env:, file:). A file with a secret is never copied to the cache.
SECRETS = ("admin_key", "session_key", "cookie", "oauth_token", "api_key", "admin_token", "password", "token")
_IN_CLEAR = light.pattern(rb"[\"']?(?:%s)[\"']?\s*:(?!\s*[\"']?(?:env|file):)\s*[^\s#}]" % "|".join(SECRETS).encode())
# Environment variables that come before the file.
ENVIRONMENT = {"TOKENOPS_PRICING_PATH": ("pricing", "path")}


class Config(NamedTuple):
    """The content of the file, its path, and warnings about keys that are not known."""

    data: Data
    path: str
    warnings: list[str]

    def get(self, *keys: str) -> Any:
        """The value below these keys, or None."""
        value: Any = self.data
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def path_of(environment: Mapping[str, str], home: str) -> str:
    """The path of the file, whether it exists or not. A log of demo data has settings of its own."""
    log = environment.get("TOKENOPS_HOME")
    if log and datadir.is_demo(log):
        return os.path.join(log, "config.yaml")
    base = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return os.path.join(base, "tokenops", "config.yaml")


def load(environment: Mapping[str, str], home: str) -> Config:
    """The configuration; empty if there is no file. Raises catalog.Malformed, OSError."""
    path = path_of(environment, home)
    try:
        with open(path, "rb", opener=regular.opener) as file:
            text = file.read()
    except FileNotFoundError:
        return Config({}, path, [])
    if _IN_CLEAR.search(text):
        data = catalog.parse(text, path)
    else:
        data, _ = catalog.compile_sources("config", {path: text}, lambda parsed: parsed[path])
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise catalog.Malformed(f"{path}:1: expected keys and values; see docs/config.md")
    return Config(
        data, path, [f"{path}:{catalog.line_of(text, keys)}: {why}" for keys, why in unknown_keys(data, KNOWN, ())]
    )


def unknown_keys(data: Mapping[str, Any], expected: Data, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The keys that are not known: their paths, each with a sentence."""
    for key, value in data.items():
        if key not in expected:
            nearest = show.nearest(str(key), expected)
            yield (*path, str(key)), f"unknown key {key!r} is ignored; the nearest known is {nearest!r}"
        elif expected[key] and isinstance(value, dict):
            yield from unknown_keys(value, expected[key], (*path, key))


def pricing_path(config: Config, environment: Mapping[str, str]) -> str:
    """The file of the user's own prices, or ""; a path in the file is relative to it."""
    path = environment.get("TOKENOPS_PRICING_PATH")
    if path:
        return os.path.expanduser(path)
    path = config.get("pricing", "path")
    return os.path.join(os.path.dirname(config.path), os.path.expanduser(str(path))) if path else ""


class Unchangeable(ValueError):
    """A file that cannot be edited by a program without changing something else in it."""


def set_key(config: Config, section: str, key: str, value: Any) -> None:
    """Set a key of a section in the file, or remove it (None); everything else stays as it is, comments too.

    Raises Unchangeable, OSError.
    """
    set_keys(config, {(section, key): value})


def set_keys(config: Config, values: Mapping[tuple[str, ...], Any]) -> None:
    """Set several keys, each named by its path; all of them or none. Raises Unchangeable, OSError.

    If another program changes the file meanwhile, its change stays and ours is made again.
    """
    for _ in range(_TRIES):
        before = datadir.content_of(config.path)
        text, edited = _texts(config, before, values)
        if edited == text:
            return
        os.makedirs(os.path.dirname(os.path.realpath(config.path)), exist_ok=True)
        try:
            datadir.replace_unchanged(config.path, before, edited.encode())
        except datadir.ChangedMeanwhile:
            continue
        except datadir.NotReplaced as error:
            raise Unchangeable(f"{config.path}: {error.strerror}; it stays as it is") from None
        return
    raise Unchangeable(f"{config.path}: another program keeps changing it; run this again")


_TRIES = 20


def edited_text(config: Config, values: Mapping[tuple[str, ...], Any]) -> tuple[str, str]:
    """The file's text, and that with several keys set. Nothing is written. Raises Unchangeable, OSError."""
    return _texts(config, datadir.content_of(config.path), values)


def _texts(config: Config, before: bytes | None, values: Mapping[tuple[str, ...], Any]) -> tuple[str, str]:
    try:
        text = (before or b"").decode()
    except UnicodeDecodeError:
        raise Unchangeable(f"{config.path}: is not UTF-8 text; save it as UTF-8") from None
    edited = text
    try:
        for keys, value in values.items():
            edited = edit_at(edited, keys, value)
    except Unchangeable as error:
        raise Unchangeable(f"{config.path}: {error}") from None
    return text, edited


def edit(text: str, section: str, key: str, value: Any) -> str:
    """A file's text with a key of a section set, or removed (None). Raises Unchangeable."""
    return edit_at(text, (section, key), value)


def edit_at(text: str, keys: Sequence[str], value: Any) -> str:
    """A file's text with the key at a path set, or removed (None).

    Only lines are changed, so that comments stay; the result is parsed to check that only this key changed.
    Raises Unchangeable.
    """
    import yaml

    try:
        json.dumps([*keys, value], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unchangeable("is not changed: the new value is not UTF-8 text") from None
    try:
        data = yaml.safe_load(text) or {}
        expected = _with(data, keys, value)
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        raise Unchangeable("has an unexpected form; correct it first") from None
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    edited = "".join(_with_change(lines, keys, value))
    try:
        agrees = _bare(yaml.safe_load(edited) or {}) == _bare(expected)
    except yaml.YAMLError:
        agrees = False
    if not agrees:
        shown = f"{'.'.join(keys)} away" if value is None else _yaml_line(keys, value)
        raise Unchangeable(f"cannot be edited without changing something else in it; write {shown} by hand")
    return edited


def _with(data: Data, keys: Sequence[str], value: Any) -> Data:
    """The data with one key set or removed."""
    copied = copy.deepcopy(data)
    at = copied
    for key in keys[:-1]:
        if at.get(key) is None:
            at[key] = {}
        at = at[key]
    at.pop(keys[-1], None)
    if value is not None:
        at[keys[-1]] = value
    return copied


def _bare(data: Any) -> Any:
    """Data without keys whose value is empty."""
    if not isinstance(data, dict):
        return data
    kept = {key: _bare(value) for key, value in data.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}


def _yaml_line(keys: Sequence[str], value: Any) -> str:
    """A key and its value in one line of YAML."""
    shown = json.dumps(value)
    for key in reversed(keys[1:]):
        shown = f"{{{key}: {shown}}}"
    return f"{keys[0]}: {shown}"


def _with_change(lines: list[str], keys: Sequence[str], value: Any) -> list[str]:
    """The lines with one key set or removed."""
    start, end, indent = 0, len(lines), ""
    for depth, key in enumerate(keys):
        at = _line_of(lines, start, end, indent, key)
        last = depth == len(keys) - 1
        if at is None:
            return lines if value is None else _with_insertion(lines, start, end, indent, keys[depth:], value)
        if last:
            stop = _end(lines, at, end, indent)
            return [*lines[:at], *([_with_value(lines[at], value)] if value is not None else []), *lines[stop:]]
        start, end = at + 1, _end(lines, at, end, indent)
        indent = _indent(lines[start:end], indent)
    return lines


def _line_of(lines: list[str], start: int, end: int, indent: str, key: str) -> int | None:
    """Where a key stands at a depth of indentation."""
    at = re.compile(rf"{indent}[\"']?{re.escape(key)}[\"']?\s*:(?:\s|$)")
    return next((n for n in range(start, end) if at.match(lines[n])), None)


def _end(lines: list[str], at: int, end: int, indent: str) -> int:
    """The line after the last that belongs to a key: the blanks and comments below it belong to the next."""
    last = at
    for n in range(at + 1, end):
        match = re.match(r"([ ]*)([^\s#]?)", lines[n])
        if match and match[2]:
            if len(match[1]) <= len(indent):
                break
            last = n
    return last + 1


def _indent(block: list[str], outer: str) -> str:
    """How far the keys of a block are indented."""
    matches = (re.match(r"([ ]+)[^\s#]", line) for line in block)
    return next((match[1] for match in matches if match), outer + "  ")


def _with_insertion(lines: list[str], start: int, end: int, indent: str, keys: Sequence[str], value: Any) -> list[str]:
    """The lines with a key, and those above it that are missing, at the end of a block."""
    new = [f"{indent}{'  ' * depth}{key}:\n" for depth, key in enumerate(keys[:-1])]
    new.append(f"{indent}{'  ' * (len(keys) - 1)}{keys[-1]}: {json.dumps(value)}\n")
    while end > start and not re.match(r"\s*[^\s#]", lines[end - 1]):
        end -= 1
    if not indent:  # a new section goes below everything, comments too
        end = len(lines)
    return [*lines[:end], *new, *lines[end:]]


def _with_value(line: str, value: Any) -> str:
    """A key's line with another value. Its comment stays, unless a quote makes it hard to tell where one begins."""
    match = re.match(r"(\s*[^\s:]+\s*:)[^\"'\n]*?(\s#[^\n]*)?\n", line)
    head, comment = (match[1], match[2] or "") if match else (line[: line.index(":") + 1], "")
    return f"{head} {json.dumps(value)}{comment}\n"


class Unusable(ValueError):
    """A setting, or a value that somebody gave, that cannot be used: where it stands, why, and what to do instead.

    As text `location: why; remedy`, without the parts that are empty. `keys` is the path of keys of an entry in a YAML
    document, if the location was given as one (catalog.line_of finds its line).
    """

    def __init__(self, location: str | Sequence[str | int], why: str, remedy: str = "") -> None:
        self.keys = () if isinstance(location, str) else tuple(location)
        self.location = location if isinstance(location, str) else ".".join(map(str, location))
        self.why, self.remedy = why, remedy
        super().__init__(f"{self.location + ': ' if self.location else ''}{why}{'; ' + remedy if remedy else ''}")


def thresholds(settings: Config) -> dict[str, dict[str, float]]:
    """The catalogue's thresholds with the user's own above them. Raises Unusable."""
    numbers = {
        section: {key: float(value) for key, value in values.items()}
        for section, values in catalog.load("thresholds").items()
        if isinstance(values, Mapping)
    }
    for section, values in (settings.get("thresholds") or {}).items():
        for key, value in values.items() if isinstance(values, Mapping) and section in numbers else ():
            try:
                numbers[section][key] = float(str(value))
            except ValueError:
                location = f"{settings.path}: thresholds.{section}.{key}"
                raise Unusable(location, f"{value!r} is not a number", "write a number") from None
    return numbers
