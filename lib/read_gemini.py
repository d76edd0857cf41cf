"""Reads Gemini CLI's chats and returns turns.

A chat is kept as one JSON document (`chats/session-*.json`, rewritten at each message) or, since 2026, as lines
(`.jsonl`, where a message comes again with fuller numbers). A subagent's chat lies one folder deeper, in
`chats/<session of its parent>/` (0.61, 2026-11). `logs.json` beside them holds prompts and no counts.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any

from tokenops import events, read_context, read_lines, read_records, regular, untrusted
from tokenops.read_contract import FileReader, Intake

SOURCE = "gemini-cli"
CLIENT = "gemini-cli"

_HASH = re.compile(r"[0-9a-f]{64}\Z")
_RELEVANT = read_lines.containing(b'"tokens"', b'"sessionId"')
_WITH_PROMPTS = read_lines.containing(b'"tokens"', b'"sessionId"', b'"user"')


def files(home: str) -> Iterator[str]:
    """The chats of a Gemini home."""
    for path in read_lines.walk(os.path.join(home, "tmp")):
        if path.endswith((".json", ".jsonl")) and "chats" in path.split(os.sep)[-3:-1]:
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is a chat."""
    return b'"sessionId"' in head and (b'"projectHash"' in head or b'"type":"gemini"' in head.replace(b" ", b""))


def hints(home: str) -> Iterator[str]:
    """What the user should know of files that hold no counts."""
    prompts = [path for path in read_lines.walk(os.path.join(home, "tmp")) if os.path.basename(path) == "logs.json"]
    if prompts and not next(files(home), None):
        yield (
            f"{prompts[0]}: this log of prompts holds no token counts, and there are no chats beside it; update Gemini CLI "
            "(it saves chats since 0.2), or send its requests through tok-proxy"
        )


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one chat. Raises OSError, BadRecord."""
    chat = Chat(path, intake)
    if intake.options.work:
        chat.line = read_context.Line(cursor.state.setdefault("context", {}), CLIENT)
    if path.endswith(".jsonl"):
        chat.take_head(cursor.state)
        relevant = _WITH_PROMPTS if chat.line else _RELEVANT
        for location, line in read_lines.records(path, cursor, relevant, intake.on_bad_line):
            if "sessionId" in line and "id" not in line:
                chat.take_head(line)
                kept = {"context": cursor.state["context"]} if chat.line else {}
                cursor.state = kept | {key: line[key] for key in ("sessionId", "kind") if untrusted.identity(line.get(key))}
            else:
                yield from chat.turns(line, location)
    else:
        document = read_lines.document(path, cursor)
        chat.take_head(document)
        for number, message in enumerate(untrusted.items(document.get("messages"))):
            yield from chat.turns(untrusted.mapping(message), f"{path}:messages[{number}]")


class Chat:
    """One session, and how its messages become turns."""

    def __init__(self, path: str, intake: Intake) -> None:
        self.intake = intake
        self.name = os.path.basename(path).partition(".")[0]
        chats, name = os.path.split(os.path.dirname(path))
        # The session of the parent, if the file is a subagent's.
        self.parent = name if os.path.basename(chats) == "chats" else ""
        self.is_subagent = bool(self.parent)
        self.line: read_context.Line | None = None  # measures what entered the context
        above = os.path.dirname(chats) if self.parent else chats
        self.root = root_of(above)
        folder = os.path.basename(above)
        self.folder = folder[:12] if _HASH.match(folder) else folder

    def take_head(self, head: untrusted.Raw) -> None:
        """Take in a chat's head."""
        self.name = untrusted.identity(head.get("sessionId")) or self.name
        self.is_subagent = bool(self.parent) or head.get("kind") == "subagent"

    def turns(self, message: untrusted.Raw, location: str) -> Iterator[events.Event]:
        """The turn that a message is, if it is one, and the sizes of what entered before it."""
        if self.line is not None:
            _measure(message, self.line)
        if type(message.get("tokens")) is not dict:
            return
        try:
            counts = counts_of(message["tokens"])
            if not counts:
                return
            ts = untrusted.moment(message.get("timestamp"))
        except events.BadRecord as error:
            self.intake.on_bad_line(location, f"{error}; skipped")
            return
        name = untrusted.identity(message.get("id")) or events.digest(ts, message.get("model"), counts)
        session = self.parent or self.name
        attribution = self.intake.attribution(SOURCE, CLIENT, self.root, self.folder, session)
        if self.is_subagent:
            attribution["sidechain"] = True
        self.intake.location = location
        model = untrusted.text(message.get("model"))
        turn = read_records.turn(ts, f"gemini:{self.name}:{name}", attribution, model, counts, "gemini", session)
        yield turn
        if self.line is not None and message.get("type") == "gemini":
            yield self.line.record(turn, read_context.label(self.name) if self.is_subagent else "")


def _measure(message: untrusted.Raw, line: read_context.Line) -> None:
    """Take in the sizes of a message. A call's result stands beside the call."""
    if message.get("type") == "user":
        line.add_input(read_context.PROMPT, _size_of(message.get("content")))
    elif message.get("type") == "gemini":
        line.begin(untrusted.identity(message.get("id")) or untrusted.identity(message.get("timestamp")))
        line.add_output(read_context.REPLY, _size_of(message.get("content")))
        line.add_output(read_context.THINKING, read_context.leaves_size(message.get("thoughts")))
        for call in map(untrusted.mapping, untrusted.items(message.get("toolCalls"))):
            answers = [
                untrusted.mapping(untrusted.mapping(part).get("functionResponse")).get("response")
                for part in untrusted.items(call.get("result"))
            ]
            line.add_call(call.get("name"), call.get("args"), read_context.leaves_size(answers))


def _size_of(content: object) -> int:
    """The size of a message's text, which is whole or in parts."""
    if type(content) is not list:
        return read_context.text_size(content)
    return sum(read_context.text_size(untrusted.mapping(part).get("text")) for part in content)


@functools.cache
def root_of(folder: str) -> str:
    """The directory of the project that a folder below `tmp` is kept for; "" if it is unknown.

    Newer versions write it into the folder; older ones name the folder by the hash of its path.
    """
    try:
        with open(os.path.join(folder, ".project_root"), encoding="utf-8", opener=regular.opener) as file:
            if root := untrusted.path(file.read(5000).strip()):
                return root
    except (OSError, UnicodeDecodeError):
        pass
    name = os.path.basename(folder)
    if not _HASH.match(name):
        return ""
    home = os.path.dirname(os.path.dirname(folder))
    paths: list[str] = []
    for register in ("projects.json", "trustedFolders.json"):
        try:
            document = read_lines.document(os.path.join(home, register), read_lines.Cursor())
        except (OSError, events.BadRecord):
            continue
        paths += untrusted.mapping(document.get("projects", document))
    return next((path for path in paths if hashlib.sha256(path.encode(errors="replace")).hexdigest() == name), "")


def counts_of(tokens: untrusted.Raw) -> dict[str, Any]:
    """The record's disjoint counts. Raises BadRecord.

    The API's prompt count includes what came from the cache, except in a version that `total` reveals. The output does not
    include thoughts. Tool-use prompts are billed as input.
    """
    sent, cached = untrusted.count(tokens, "input"), untrusted.count(tokens, "cached")
    output, thoughts, tool = (untrusted.count(tokens, name) for name in ("output", "thoughts", "tool"))
    total = untrusted.count(tokens, "total")
    if not any((sent, cached, output, thoughts, tool)) and total:
        raise events.BadRecord("only a total is given, so input and output are unknown")
    apart = cached > sent or (total == sent + cached + output + thoughts + tool and cached > 0)
    counts = {
        "input_tokens": (sent if apart else sent - cached) + tool,
        "cache_read_tokens": cached,
        "output_tokens": output + thoughts,
        "reasoning_tokens": thoughts,
    }
    return {name: count for name, count in counts.items() if count}


READER = FileReader(SOURCE, CLIENT, files, claims, read, hints)
