"""Reads prompts and replies from the clients' transcripts while a command runs; they are stored nowhere.

Each prompt and each reply is returned once, even if several files hold copies. Only files that changed since the
beginning of the span are opened.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from tokenops import events, projects, read_clients, read_records, when, workers
from tokenops.events import Event
from tokenops.read_clients import Client
from tokenops.read_contract import Intake, Options, Reader
from tokenops.read_lines import Cursor
from tokenops.work import Utterance

# Clients whose transcripts distinguish what a person wrote from what the client wrote in the person's name.
CLIENTS = tuple(client.name for client in read_clients.CLIENTS if client.prompts)
OnUnreadable = Callable[[str, OSError], None]
PROMPT, REPLY = "prompt", "reply"


class Talk(NamedTuple):
    """The prompts or replies of a span in order of time, and the rounds that they belong to, by name."""

    utterances: list[Utterance]
    rounds: dict[str, Event]
    files: int

    def project(self, utterance: Utterance) -> str:
        """The project of a prompt or reply."""
        round_ = self.rounds.get(utterance.round)
        return str(round_.get("project", "unknown")) if round_ else "unknown"


def talk(
    sources: Iterable[tuple[Client, list[str]]],
    kind: str,
    span: tuple[str, str],
    only: events.Filter,
    salt: bytes,
    names: dict[str, str],
    on_unreadable: OnUnreadable,
    progress: workers.Progress = workers.SILENT,
) -> Talk:
    """The prompts or the replies of a span. `names`: of projects whose basename is ambiguous, as the log has them."""
    utterances: list[Utterance] = []
    rounds: dict[str, Event] = {}
    since = when.moment(span[0]) if span[0] else 0

    def listen(utterance: Utterance) -> None:
        if utterance.kind == kind and span[0] <= utterance.ts < span[1]:
            utterances.append(utterance)

    options = Options(salt, work=True, listen=listen)
    files = list(_changed_since(sources, since, only, on_unreadable))
    progress.expect(sum(size for _, _, size in files))
    for client, path, size in files:
        try:
            for event in _work_in(client.reader(), path, options):
                rounds[event["id"].split(":", 2)[2]] = projects.relabel(event, names)
        except OSError as error:
            on_unreadable(path, error)
        except events.BadRecord as error:  # a damaged compressed rollout
            on_unreadable(path, OSError(errno.EIO, str(error)))
        progress(size)
    return Talk(_distinct(utterances, rounds, only), rounds, len(files))


def _changed_since(
    sources: Iterable[tuple[Client, list[str]]],
    since: int,
    only: events.Filter,
    on_unreadable: OnUnreadable,
) -> Iterator[tuple[Client, str, int]]:
    """The transcripts that may hold something of the span, and their sizes."""
    for client, paths in sources:
        if client.name in CLIENTS and only.client in (None, client.client):
            for path in paths:
                try:
                    status = os.stat(path)
                except OSError as error:
                    on_unreadable(path, error)
                    continue
                if status.st_mtime_ns // 1_000_000 >= since:
                    yield client, path, status.st_size


def _work_in(reader: Reader, path: str, options: Options) -> Iterator[Event]:
    """The rounds of one transcript; its prompts and replies go to the listener of the options. Raises OSError."""
    parser = reader.parser(Intake(options))
    parser.read(path, Cursor())
    for entry in parser.entries():
        if len(entry) == 3 and (event := read_records.record(entry))["kind"] == "work":
            yield event


def _distinct(utterances: list[Utterance], rounds: dict[str, Event], only: events.Filter) -> list[Utterance]:
    """Each utterance once, of the sessions and projects that the filter selects."""
    kept: dict[tuple[Any, ...], Utterance] = {}
    for utterance in utterances:
        round_ = rounds.get(utterance.round, {})
        if only.session in (None, utterance.session) and only.project in (None, *_names(round_)):
            kept.setdefault((utterance.round, utterance.ts, utterance.message, utterance.text), utterance)
    return sorted(kept.values(), key=lambda utterance: (utterance.ts, utterance.session, utterance.line))


def _names(round_: Event) -> tuple[str, str]:
    name = str(round_.get("project", "unknown"))
    return name, name.rpartition("/")[2]
