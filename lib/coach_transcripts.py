"""What people and agents said, read out of the clients' transcripts when somebody asks, and kept nowhere.

Each prompt and each reply once, whatever files hold its copies. Only files that changed since the beginning of the span
are opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from tokenops import events, projects, read_clients, read_records, when
from tokenops.events import Event
from tokenops.read_clients import Client
from tokenops.read_contract import Intake, Options, Reader
from tokenops.read_lines import Cursor
from tokenops.work import Utterance

# Clients whose transcripts tell what a person wrote from what the client wrote in the person's name.
CLIENTS = tuple(client.name for client in read_clients.CLIENTS if client.prompts)
PROMPT, REPLY = "prompt", "reply"


class Talk(NamedTuple):
    """What was said in a span, in order of time, and the rounds it belongs to, by their names."""

    said: list[Utterance]
    rounds: dict[str, Event]
    files: int

    def project(self, heard: Utterance) -> str:
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
    heard: list[Utterance] = []
    rounds: dict[str, Event] = {}
    count = 0
    since = when.moment(span[0]) if span[0] else 0

    def listen(one: Utterance) -> None:
        if one.kind == kind and span[0] <= one.ts < span[1]:
            heard.append(one)

    for client, paths in found:
        if client.name not in CLIENTS or wanted.client not in (None, client.client):
            continue
        reader, options = client.reader(), Options(salt, work=True, listen=listen)
        for path in paths:
            try:
                about = os.stat(path)
                if about.st_mtime_ns // 1_000_000 < since:
                    continue
                count += 1
                told(about.st_size)
                for event in _work_in(reader, path, options):
                    rounds[event["id"].split(":", 2)[2]] = projects.relabel(event, names)
            except OSError as error:
                unread(path, error)
    return Talk(_once(heard, rounds, wanted), rounds, count)


def _work_in(reader: Reader, path: str, options: Options) -> Iterator[Event]:
    """The rounds of one transcript; its prompts and replies go to the listener of the options. Raises OSError."""
    parser = reader.parser(Intake(options))
    parser.read(path, Cursor())
    for entry in parser.entries():
        if len(entry) == 3 and (event := read_records.record(entry))["kind"] == "work":
            yield event


def _once(heard: list[Utterance], rounds: dict[str, Event], wanted: events.Filter) -> list[Utterance]:
    """What was heard, each once, of the sessions and projects that are wanted."""
    kept: dict[tuple[Any, ...], Utterance] = {}
    for one in heard:
        held = rounds.get(one.round, {})
        if wanted.session in (None, one.session) and wanted.project in (None, *_names(held)):
            kept.setdefault((one.round, one.ts, one.message, one.text), one)
    return sorted(kept.values(), key=lambda one: (one.ts, one.session, one.line))


def _names(held: Event) -> tuple[str, str]:
    name = str(held.get("project", "unknown"))
    return name, name.rpartition("/")[2]
