"""Reads Claude Code's transcripts: turns and meter readings, and counts of work in the same pass."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenops import (
    jsonl,
    read_claude_session,
    read_claude_sums,
    read_claude_turns,
    read_contract,
    read_lines,
    read_records,
    regular,
)
from tokenops.events import Event
from tokenops.read_lines import Cursor

_NEWEST = 200  # transcripts of which the version is looked at


def _written_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


class Transcripts(read_contract.Reader):
    """Transcripts only grow, and several of them may hold copies of one turn."""

    source, client = read_claude_turns.SOURCE, read_claude_turns.CLIENT
    append_only = True

    def files(self, folder: str, /) -> Iterator[str]:
        """The transcripts of a configuration directory, or of its `projects` directory."""
        nested = os.path.join(folder, "projects")
        for path in read_lines.walk(nested if os.path.isdir(nested) else folder):
            # The journal of a workflow's subagents is not a transcript, nor is what Claude Desktop keeps beside each
            # session: it repeats the messages with the counts of their beginning.
            is_journal = path.endswith("/journal.jsonl") and "/subagents/" in path
            if path.endswith(".jsonl") and not is_journal and not path.endswith("/audit.jsonl"):
                yield path

    def claims(self, path: str, head: bytes, /) -> bool:
        """Whether a file is a transcript; Qwen Code's chats look alike but for their counts, Claude Desktop's audits too."""
        others = (b'"usageMetadata":{', b'"_audit_hmac"')
        return b'"sessionId"' in head and b'"uuid"' in head and not any(mark in head for mark in others)

    def lacks(self, paths: Sequence[str], /) -> bool:
        """Whether one of the newest transcripts is of a version that writes placeholder counts."""
        newest = sorted(paths, key=_written_at, reverse=True)[:_NEWEST]
        return any(read_claude_turns.has_placeholders(path) for path in newest)

    def dependents(self, first: Iterable[str], states: Mapping[str, str], /) -> Iterator[str]:
        """Forks whose sums nobody could separate from their source's, because its file comes only now."""
        sources = {f'"source":"{os.path.basename(path).removesuffix(".jsonl")}"' for path in first}
        for path, state in states.items():
            if '"first":[' in state and any(source in state for source in sources):
                yield path

    def parser(self, intake: read_contract.Intake, /) -> read_contract.Parser:
        """A parser for one worker."""
        return Parser(intake)

    def settle(
        self, shares: list[read_contract.Share], files: read_contract.Files, intake: read_contract.Intake, /
    ) -> read_contract.Settled:
        """All turns and readings, and what each session's own sums hold beyond its turns."""

        def attribution(path: str, root: str, session: str) -> Event:
            folder = read_claude_session.project_folder(path)
            return intake.attribution(self.source, self.client, root, folder, session)

        entries = read_records.merge(share["entries"] for share in shares)
        beyond, states = read_claude_sums.remainders(shares, files, attribution)
        return read_contract.Settled(read_records.merge([entries, read_records.entries_of(beyond)]), states)

    def sightings(
        self, paths: Iterable[str], identity: str, intake: read_contract.Intake, /
    ) -> Iterator[read_contract.Sighting]:
        """Each line that holds a turn. A file that cannot be read holds none."""
        needle = identity.partition("#")[0].encode()
        for path in paths:
            with contextlib.suppress(OSError):
                with open(path, "rb", opener=regular.opener) as file:
                    if not identity.startswith(f"{self.client}:") and needle not in file.read():
                        continue
                for location, event in read_claude_turns.line_by_line(path, intake):
                    if event["id"] == identity:
                        yield location, event, ""


class Parser(read_contract.Parser):
    """Reads transcripts into one set of turns, because nearly all copies of a turn are of the same session."""

    def __init__(self, intake: read_contract.Intake) -> None:
        self.intake = intake
        self.turns = read_claude_turns.Turns(intake)
        self.work: dict[str, Event] = {}

    def read(self, path: str, cursor: Cursor, /) -> None:
        """Take in one transcript from its cursor on. Raises OSError."""
        if not self.intake.options.work:
            self.turns.read(path, cursor)
            return
        from tokenops import read_claude_work  # 7 ms that a run with nothing to read need not wait for

        read_records.keep(self.work, read_claude_work.read(self.turns, path, cursor))

    def entries(self) -> Iterator[read_records.Entry]:
        """The turns, the meter readings and the work."""
        yield from self.turns.light_turns()
        yield from ((event["ts"], event["id"], event) for event in self.turns.other_events())
        # As lines: another process takes them over twenty times faster than records.
        yield from ((event["ts"], event["id"], jsonl.line_of(event)) for event in self.work.values())

    def parts(self) -> dict[str, Any]:
        """What each file holds for the sums of its session."""
        return self.turns.sums


READER: read_contract.Reader = Transcripts()
