"""What people and agents said, read out of the clients' transcripts when somebody asks, and kept nowhere.

Each prompt and each reply once, whatever files hold its copies. Only files that changed since the beginning of the span
are opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tokenops import events, projects, read_claude_turns, read_codex_threads, read_lines, when, work, read_claude_work, read_codex_work
from tokenops.events import Event
from tokenops.read_clients import Client
from tokenops.work import Heard

# Clients whose transcripts tell what a person wrote from what the client wrote in the person's name.
CLIENTS = ("claude", "codex")
PROMPT, REPLY = "prompt", "reply"


class Talk(NamedTuple):
    """What was said in a span, in order of time, and the rounds it belongs to, by their names."""

    said: list[Heard]
    rounds: dict[str, Event]
    files: int

    def project(self, heard: Heard) -> str:
        """The project that something was said in."""
        held = self.rounds.get(heard.round)
        return str(held.get("project", "unknown")) if held else "unknown"


def talk(
    found: Iterable[tuple[Client, list[str]]],
    kind: str,
    span: tuple[str, str],
    wanted: events.Filter,
    salt: bytes,
    names: dict[str, str],
    unread: Callable[[str, OSError], None],
    told: Callable[[int], None] = lambda size: None,
) -> Talk:
    """The prompts or the replies of a span. `names`: projects whose basename is not enough, as the log has them."""
    heard: list[Heard] = []
    rounds: dict[str, Event] = {}
    count = 0
    since = when.moment(span[0]) if span[0] else 0

    def listen(one: Heard) -> None:
        if one.kind == kind and span[0] <= one.ts < span[1]:
            heard.append(one)

    for client, paths in found:
        if client.name not in CLIENTS or wanted.client not in (None, client.client):
            continue
        read = _claude if client.name == "claude" else _codex
        for path in paths:
            try:
                about = os.stat(path)
                if about.st_mtime_ns // 1_000_000 < since:
                    continue
                count += 1
                told(about.st_size)
                for event in read(path, salt, listen):
                    rounds[event["id"].split(":", 2)[2]] = projects.relabelled(event, names)
            except OSError as error:
                unread(path, error)
    return Talk(_once(heard, rounds, wanted), rounds, count)


def _claude(path: str, salt: bytes, listen: work.Listener) -> Iterable[Event]:
    transcripts = read_claude_turns.Transcripts(lambda place, why: None, salt)
    return read_claude_work.read(transcripts, path, read_lines.Cursor(), listen)


def _codex(path: str, salt: bytes, listen: work.Listener) -> Iterable[Event]:
    buffer = bytearray(read_lines.BLOCK)
    reader = read_codex_work.read(
        path, read_codex_threads.thread_of(path), read_lines.Cursor(), buffer, lambda place, why: None, salt, listen
    )
    return reader.records(projects.Places(salt))


def _once(heard: list[Heard], rounds: dict[str, Event], wanted: events.Filter) -> list[Heard]:
    """What was heard, each once, of the sessions and projects that are wanted."""
    kept: dict[tuple[Any, ...], Heard] = {}
    for one in heard:
        held = rounds.get(one.round, {})
        if wanted.session in (None, one.session) and wanted.project in (None, *_names(held)):
            kept.setdefault((one.round, one.ts, one.message, one.text), one)
    return sorted(kept.values(), key=lambda one: (one.ts, one.session, one.line))


def _names(held: Event) -> tuple[str, str]:
    name = str(held.get("project", "unknown"))
    return name, name.rpartition("/")[2]
