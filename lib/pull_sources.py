"""Says where the events of other machines come from: a folder, or a machine that is reached with ssh, docker or wsl.

    ~/Sync/tokens          a folder of parts that machines publish, another log, or another machine's home directory
    ssh:HOST               HOST, USER@HOST or HOST:PORT
    docker:CONTAINER       wsl:DISTRIBUTION

Each source has a directory of its own in the log, which holds how far it was read and how it went the last time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import config, datadir, fields, light, untrusted

FOLDER = "sources"
_STATE = "state.json"
# What a name of another machine can be: nothing that its program or a shell could take for anything else.
_NAMES = {
    "ssh": re.compile(
        r"(?:[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}@)?(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
    ),
    "docker": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"),
    "wsl": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"),
}
_EXAMPLES = {"ssh": "ssh:build or ssh:ada@build:2222", "docker": "docker:devbox", "wsl": "wsl:Ubuntu"}
SECONDS = 600.0  # that a source may take
_MOST_SECONDS = 86_400.0


class Source(NamedTuple):
    """One source. `target`: the absolute path of a folder, or the name of the machine."""

    kind: str  # folder, ssh, docker, wsl
    target: str
    machine: str  # what events are stamped with that come from client files there
    text: str  # as the user wrote it

    def key(self) -> str:
        """The name of its directory in the log."""
        slug = re.sub(r"[^A-Za-z0-9]+", "-", os.path.basename(self.target) or "root").strip("-")[:40]
        return f"{self.kind}-{slug}-{light.blake2b(self.target.encode(errors='replace'), digest_size=6).hexdigest()}"


class Settings(NamedTuple):
    """The section `sync` of the configuration."""

    sources: tuple[Source, ...] = ()
    to: str = ""
    encrypt: Mapping[str, str] = {}  # age: a recipient, or gpg: one
    decrypt: Mapping[str, str] = {}  # age: a file with an identity
    ssh_config: str = ""
    seconds: float = SECONDS


def parse(text: str, location: str, machine: str = "", base: str = "") -> Source:
    """The source that a text names; a relative folder is relative to `base`. Raises config.Unusable."""
    kind, _, name = text.partition(":")
    if kind in _NAMES and not os.path.lexists(text):
        if not _NAMES[kind].fullmatch(name):
            raise config.Unusable(location, f"{text!r} is not the name of a machine", f"write it like {_EXAMPLES[kind]}")
        host = re.sub(r":[0-9]+\Z", "", name.rpartition("@")[2]).strip("[]") if kind == "ssh" else name
        return Source(kind, name, _machine(machine or host, location), text)
    if not text or "\0" in text:
        raise config.Unusable(location, "no source", "name a folder, ssh:HOST, docker:CONTAINER or wsl:DISTRIBUTION")
    folder = os.path.abspath(os.path.join(base, os.path.expanduser(text)))
    return Source("folder", folder, _machine(machine or os.path.basename(folder), location), text)


def _machine(name: str, location: str) -> str:
    """A name that events may have. Raises config.Unusable."""
    if why := fields.name_fault(name):
        raise config.Unusable(location, f"the machine's name {why}", "name it: --machine NAME")
    return name


def settings(data: config.Config) -> Settings:
    """The section `sync`. Raises config.Unusable."""
    section = data.get("sync")
    if section is None:
        return Settings()
    where, base = f"{data.path}: sync", os.path.dirname(data.path)
    if not isinstance(section, Mapping):
        raise config.Unusable(where, "not keys and values", "write from: and to: below it")
    entries = section.get("from")
    entries = entries if isinstance(entries, list) else [] if entries is None else [entries]
    sources = tuple(_entry(entry, f"{where}.from", base) for entry in entries)
    seconds = section.get("timeout", SECONDS)
    if type(seconds) not in (int, float) or not 1 <= seconds <= _MOST_SECONDS:
        raise config.Unusable(f"{where}.timeout", "not a number of seconds from 1 to 86400", "write timeout: 600")
    paths = {name: _text(section.get(name), f"{where}.{name}") for name in ("to", "ssh_config")}
    to, ssh_config = (os.path.join(base, os.path.expanduser(path)) if path else "" for path in paths.values())
    encrypt, decrypt = (_programs(section.get(name), f"{where}.{name}") for name in ("encrypt", "decrypt"))
    if "age" in decrypt:
        decrypt = {"age": os.path.join(base, os.path.expanduser(decrypt["age"]))}
    return Settings(tuple(dict.fromkeys(sources)), to, encrypt, decrypt, ssh_config, float(seconds))


def _entry(entry: object, location: str, base: str) -> Source:
    if isinstance(entry, Mapping):
        name = _text(entry.get("machine"), f"{location}.machine")
        return parse(_text(entry.get("source"), f"{location}.source"), location, name, base)
    return parse(_text(entry, location), location, "", base)


def _text(value: object, location: str) -> str:
    if value is None or type(value) is str:
        return value or ""
    raise config.Unusable(location, "not text", "write a path or a name, in quotes if it looks like a number")


def _programs(value: object, location: str) -> dict[str, str]:
    """How to encrypt or decrypt: at most one program, with what it needs. Raises config.Unusable."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) != 1 or not set(value) <= {"age", "gpg"}:
        raise config.Unusable(location, "names no program", "write {age: RECIPIENT} or {gpg: RECIPIENT}")
    [(program, name)] = value.items()
    name = _text(name, f"{location}.{program}")
    if not name or name.startswith("-") or not name.isprintable():
        raise config.Unusable(f"{location}.{program}", "not a recipient or a file", "see docs/machines.md")
    return {program: name}


# How a source went.


def folder_of(log: str, source: Source) -> str:
    """The directory of a source in a log."""
    return os.path.join(log, FOLDER, source.key())


def state_of(log: str, source: Source) -> Mapping[str, Any]:
    """How a source went the last time: `synced_at`, and since when and why it is away. Empty if it was never read."""
    return untrusted.mapping(datadir.kept_json(os.path.join(folder_of(log, source), _STATE)))


def note(log: str, source: Source, now: str, why: str, problems: Sequence[str] = ()) -> bool:
    """Keep how a source went: `why` it is away or "", and what else is wrong; whether that is news. Raises OSError."""
    before = state_of(log, source)
    was_away = type(before.get("why")) is str
    state: dict[str, Any] = {"v": 1, "source": source.text, "machine": source.machine, "problems": list(problems)}
    if why:
        state |= {"why": why, "away_since": before.get("away_since", now) if was_away else now}
        if "synced_at" in before:
            state["synced_at"] = before["synced_at"]
    else:
        state["synced_at"] = now
    datadir.ensure_folder(os.path.join(log, FOLDER))
    datadir.keep_json(os.path.join(datadir.ensure_folder(folder_of(log, source)), _STATE), state)
    return bool(why) != was_away or (not why and state["problems"] != before.get("problems", []))


def rows(log: str, sources: tuple[Source, ...]) -> Iterator[dict[str, Any]]:
    """Each source of the configuration, and how it went the last time."""
    for source in sources:
        state = state_of(log, source)
        row: dict[str, Any] = {"source": source.text, "machine": source.machine}
        row["state"] = "away" if "why" in state else "ok" if state else "never read"
        texts = {name: untrusted.text(state.get(name), 400) for name in ("synced_at", "away_since", "why")}
        yield row | {name: text for name, text in texts.items() if text}
