"""Holds what the lines of one of Claude Code's transcripts say of the session that they belong to, and its sums."""

from __future__ import annotations

import functools
import os
import re
from typing import Any

import orjson

from tokenops import events, projects, read_claude_sums, read_lines, regular, untrusted
from tokenops.read_contract import Intake

SOURCE = "claude-code-jsonl"
CLIENT = "claude-code"
Raw = dict[str, Any]
Tags = tuple[str, ...]  # in the order of events.TAGS
NO_TAGS: Tags = ()
# The keys of a line that hold them.
_STATED = (
    "attributionAgent",
    "attributionSkill",
    "attributionPlugin",
    "attributionMcpServer",
    "attributionMcpTool",
    "perTurnEffort",
    "effort",
    "gitBranch",
)
_CWD = re.compile(rb'"cwd":("(?:[^"\\\\]|\\\\.)*")')
_HEAD = 1 << 16
# Requests of which a later piece of the file may hold the answer.
_REQUESTS = 4


class Session:
    """One transcript: what its lines say of the session they belong to."""

    def __init__(self, path: str, cursor: read_lines.Cursor, intake: Intake) -> None:
        self.path = path
        self.folder = project_folder(path)
        self.stem = os.path.basename(path).removesuffix(".jsonl")
        self.intake = intake
        # Kept with the cursor: the first working directory of each session, and copies seen of lines without any id.
        self.roots: dict[str, str] = cursor.state.setdefault("roots", {})
        self.copies: dict[str, int] = cursor.state.setdefault("copies", {})
        # Kept with it, too: the session's sums, and when the last requests were sent.
        self.sums = read_claude_sums.Sums(cursor.state.get(read_claude_sums.KEY))
        self.requests: dict[object, str] = dict(cursor.state.get("requests", {}))
        self.copied: set[str] = set()  # sessions of which the file holds copies
        self.stated: dict[str, bytes] = {}  # session -> the line with its last sums
        self.blocks: dict[tuple[str, bool], Raw] = {}
        self.last: tuple[object, object, Raw] = (self, None, {})
        self.kind: str | None = None  # of the subagent whose file this is, once it was looked for

    def attribution(self, raw: Raw) -> Raw:
        """The attribution block of a line; the same object for the same session and chain."""
        session, last = raw.get("requestSessionId") or raw.get("sessionId"), self.last
        if session == last[0] and raw.get("isSidechain") is last[1] and "forkedFrom" not in raw:
            return last[2]
        return self._attribution(raw)

    def tags(self, raw: Raw) -> Tags:
        """What a line says that its answer was made for, in the order of events.TAGS, "" for what it does not say."""
        values = tuple(map(raw.get, _STATED))
        try:
            tags = _tags_of(values)
        except TypeError:  # one is a list or an object
            tags = _tags_of(tuple(value if type(value) is str else None for value in values))
        if tags[0] or raw.get("isSidechain") is not True:
            return tags
        return (self._kind_of(raw), *tags[1:])

    def _kind_of(self, raw: Raw) -> str:
        """The kind of subagent whose file this is: it also stands beside the file, which older lines do not repeat."""
        if self.stem != f"agent-{raw.get('agentId')}":
            return ""
        if self.kind is None:
            self.kind = _agent_type(self.path)
        return self.kind

    def _attribution(self, raw: Raw) -> Raw:
        mine, owner, cwd = raw.get("sessionId"), owner_of(raw), raw.get("cwd")
        session = owner if type(owner) is str and owner else self.stem
        if owner != mine:
            self.copied.add(session)
            self.sums.note_fork(session, is_branch="forkedFrom" in raw)
        elif type(ts := raw.get("timestamp")) is str:
            self.sums.note_turn(ts)
        key = (session, raw.get("isSidechain") is True)
        block = self.blocks.get(key)
        if block is None:
            root = self.roots.get(session, "")
            if not root and type(cwd) is str and cwd:
                root = self.roots[session] = self.root_of(cwd)
            block = self.intake.attribution(SOURCE, CLIENT, root, self.folder, session)
            if key[1]:
                block["sidechain"] = True
            if root:  # else a later line may name it
                self.blocks[key] = block
        if key in self.blocks:
            self.last = (owner, raw.get("isSidechain"), block)
        return block

    def root_of(self, cwd: str) -> str:
        """The session's first working directory, from a line's.

        The folder's name is that directory with all punctuation made "-". A subagent may work elsewhere, in a worktree of
        its own: its session's transcript has the session's.
        """
        if root := projects.ancestor_encoded(cwd, self.folder):
            return root
        transcript = read_claude_sums.transcript_of(self.path)
        return (first_directory(transcript) if transcript != self.path else "") or cwd

    def beginning(self, raw: Raw, ts: str) -> str:
        """When the request of a line was sent, if a line before says so; else the line's own time."""
        request = raw.get("requestRef")
        return self.requests.get(request, ts) if type(request) is str else ts

    def take_sums(self, raw: Raw, line: bytearray) -> None:
        """Take in what the client itself has added up. Raises BadRecord."""
        session = self.sums.take_sums(raw, self.roots)
        self.sums.state["sent"] = list(self.requests)[-_REQUESTS:]
        self.stated[session] = bytes(line)

    def is_in_no_sums(self, raw: Raw) -> bool:
        """Whether an interrupted answer is in none of the client's sums.

        A process that is told to end states its sums before it writes the line of the answer that it gives up.
        """
        return raw.get("requestRef") in self.sums.state.get("sent", ())

    def close(self, cursor: read_lines.Cursor) -> bool:
        """Keep with the cursor what the next piece of the file goes on from; whether there are sums. Raises OSError."""
        self.sums.close(self.path, self.stated, cursor.offset)
        if self.requests:
            cursor.state["requests"] = dict(list(self.requests.items())[-_REQUESTS:])
        if not self.sums.are_needed():
            return False
        cursor.state[read_claude_sums.KEY] = self.sums.state
        return True

    def content_id(self, line: bytearray) -> str:
        """An identity for a line without any: its content, and which occurrence of it in this file."""
        name = f"{CLIENT}:{events.digest(bytes(line).decode(errors='replace'))}"
        self.copies[name] = self.copies.get(name, 0) + 1
        return f"{name}:{self.copies[name]}"


def owner_of(raw: Raw) -> Any:
    """The session that made a line's request: forks and branches begin with copies, which name it (Claude Code 2.1.332)."""
    fork = raw.get("forkedFrom")
    return raw.get("requestSessionId") or (fork.get("sessionId") if type(fork) is dict else "") or raw.get("sessionId")


def first_directory(path: str) -> str:
    """The first working directory that a transcript names, "" if none is near its beginning."""
    if not os.path.isfile(path):
        return ""
    try:
        with open(path, "rb", opener=regular.opener) as file:
            mark = _CWD.search(file.read(_HEAD))
        return untrusted.path(orjson.loads(mark[1])) if mark else ""
    except (OSError, ValueError):
        return ""


@functools.lru_cache(4096)
def _tags_of(values: tuple[object, ...]) -> Tags:
    """The tags in the values of _STATED: the effort of the request, else that of the session."""
    *first, request, session, branch = map(untrusted.tag, values)
    return (*first, request or session, branch)


def _agent_type(path: str) -> str:
    """The kind of subagent that the file beside its transcript names; "" if there is no such file."""
    try:
        with open(path.removesuffix(".jsonl") + ".meta.json", "rb", opener=regular.opener) as file:
            return untrusted.tag(untrusted.mapping(orjson.loads(file.read(_HEAD))).get("agentType"))
    except (OSError, ValueError):
        return ""


def project_folder(path: str) -> str:
    """The name of a transcript's folder below `projects`, or "" if it is elsewhere."""
    _, marker, rest = path.rpartition("/projects/")
    return rest.partition("/")[0] if marker and "/" in rest else ""
