"""Write a home directory with synthetic logs of every client that has a place of its own, for measurements.

    python bench/make_clients.py DIRECTORY [--turns 20000] [--seed 1]

Each client gets that many turns, or a tenth as many sessions where it keeps only their totals. Beside the counts stands
what real logs hold: prompts, answers and tool results of two kilobytes on average, most of them in lines, rows and files
that say nothing of usage. Sessions are as unequal as real ones: half have fewer than 25 turns, one has a tenth of all.
Clients that changed their format get a share of each. The same arguments always give the same logs.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import itertools
import json
import pathlib
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import make_logs
import orjson

Json = dict[str, Any]

BEGUN = 1_764_547_200_000  # 2025-12-01, in milliseconds
YEAR = 330 * 86_400_000
CLAUDE, GPT, GEMINI = "claude-sonnet-4-6", "gpt-5.4", "gemini-3-pro-preview"
VENDORS = {CLAUDE: "anthropic", GPT: "openai", GEMINI: "google"}
# Of make_logs: its files hold 73,862 turns in 1,130,204,252 bytes.
CLAUDE_BYTES = 15_300


class Turn(NamedTuple):
    """One answer: when it was asked for and written, and what it took."""

    asked: int
    at: int
    fresh: int
    read: int
    written: int
    output: int
    reasoning: int
    prompted: bool  # by the user, else by a tool's result

    @property
    def sent(self) -> int:
        """All of the input."""
        return self.fresh + self.read + self.written

    @property
    def total(self) -> int:
        """Input and output, reasoning inside."""
        return self.sent + self.output


class Session(NamedTuple):
    """One session, and where it works."""

    number: int
    id: str
    project: str
    model: str
    turns: list[Turn]

    @property
    def begun(self) -> int:
        """When it began."""
        return self.turns[0].asked - 2000


class Pen:
    """What one client's logs are made of."""

    def __init__(self, home: pathlib.Path, name: str, turns: int, seed: int, words: tuple[str, str]) -> None:
        self.home, self.count, self.words = home, turns, words
        self.rng = random.Random(f"{name} {seed}")

    def text(self, mean: int = 2000) -> str:
        """Text of that many characters on average; one in ten is not all ASCII."""
        size = self.rng.randrange(mean // 20, mean * 39 // 20)
        words = self.words[self.rng.random() < 0.1]
        first = self.rng.randrange(len(words) - size)
        return words[first : first + size]

    def secret(self, size: int = 1000) -> str:
        """What only its vendor can read."""
        return f"{self.rng.getrandbits(size * 4):0{size}x}"

    def uuid(self, at: int | None = None) -> str:
        """A UUID, of a moment if one is given."""
        made = f"{self.rng.getrandbits(128):032x}" if at is None else f"{at:012x}{self.rng.getrandbits(80):020x}"
        return f"{made[:8]}-{made[8:12]}-{4 if at is None else 7}{made[13:16]}-8{made[17:20]}-{made[20:]}"

    def sessions(self, turns: int, *models: str) -> Iterator[Session]:
        """Sessions of so many turns in all."""
        left = turns
        for number in itertools.count():
            size = turns // 10 if number == 7 else min(int(self.rng.lognormvariate(3.2, 1.1)) + 1, turns // 20 + 1)
            size = min(size, left)
            if not size:
                return
            left -= size
            at = BEGUN + self.rng.randrange(YEAR)
            project = f"/home/ada/code/project-{self.rng.randrange(40):02d}"
            yield Session(number, self.uuid(at), project, self.rng.choice(models), list(self._turns(at, size)))

    def sessions_of_ten(self, *models: str) -> Iterator[Session]:
        """A tenth as many sessions as turns, of ten turns each."""
        for number in range(self.count // 10):
            at = BEGUN + self.rng.randrange(YEAR)
            project = f"/home/ada/code/project-{self.rng.randrange(40):02d}"
            yield Session(number, self.uuid(at), project, self.rng.choice(models), list(self._turns(at, 10)))

    def _turns(self, at: int, size: int) -> Iterator[Turn]:
        context = self.rng.randrange(9000, 20_000)
        for number in range(size):
            asked = at + self.rng.randrange(500, 9000)
            at = asked + self.rng.randrange(900, 30_000)
            fresh, written, output = (self.rng.randrange(1, most) for most in (400, 4000, 2500))
            reasoning = self.rng.randrange(output)
            yield Turn(asked, at, fresh, context, written, output, reasoning, not number or self.rng.random() < 0.12)
            context = context + written if context < 170_000 else 12_000


def iso(at: int) -> str:
    """A moment as text."""
    return f"{datetime.datetime.fromtimestamp(at // 1000, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"


def put(path: pathlib.Path, content: bytes) -> None:
    """Write a file, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def lines(records: Iterable[Json]) -> bytes:
    """One line for each record."""
    return b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)


@contextlib.contextmanager
def base(path: pathlib.Path, schema: str) -> Iterator[sqlite3.Connection]:
    """A new database, as its client closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(schema)
        yield connection
        connection.commit()


def insert(connection: sqlite3.Connection, table: str, **row: Any) -> None:
    """Add a row."""
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))


def claude(pen: Pen) -> None:
    make_logs.write(pen.home, pen.count * CLAUDE_BYTES, pen.rng.randrange(1 << 30))


def codex(pen: Pen) -> None:
    """One thread in twelve or so is a fork, which begins with a copy of half its parent's lines."""
    earlier: list[Json] = []
    for session in pen.sessions(pen.count, GPT, "gpt-5.4-mini", "gpt-5.3-codex"):
        at = iso(session.begun)
        may = earlier and earlier[-1]["timestamp"] < at and pen.rng.random() < 1 / 6
        forked = earlier[: len(earlier) // 2] if may else []
        meta: Json = {
            "id": session.id,
            "timestamp": at,
            "cwd": session.project,
            "originator": "codex_cli_rs",
            "source": "cli",
        }
        meta |= {"model_provider": "openai", "base_instructions": {"text": pen.text(12_000)}}
        meta |= {"forked_from_id": forked[0]["payload"]["id"]} if forked else {}
        own: list[Json] = [{"timestamp": at, "type": "session_meta", "payload": meta}]
        own += [{**one, "timestamp": at} for one in forked]
        own += codex_lines(pen, session, codex_total(forked))
        name = f"{at[:10].replace('-', '/')}/rollout-{at[:19].replace(':', '-')}-{session.id}.jsonl"
        put(pen.home / ".codex/sessions" / name, lines(own))
        earlier = own if len(session.turns) < 200 and not forked else []


def codex_total(copied: list[Json]) -> list[int]:
    """The totals that a thread begins with."""
    infos = [one["payload"]["info"]["total_token_usage"] for one in copied if one["payload"].get("type") == "token_count"]
    return list(infos[-1].values())[:4] if infos else [0, 0, 0, 0]


def codex_lines(pen: Pen, session: Session, total: list[int]) -> Iterator[Json]:
    """What a thread's turns are written down as: a count comes after each, and at times once more."""
    for turn in session.turns:
        for payload in codex_items(pen, turn, session.model):
            yield {"timestamp": iso(turn.asked), **payload}
        last = [turn.sent, turn.read, turn.output, turn.reasoning]
        total = [a + b for a, b in zip(total, last, strict=True)]
        used = {"used_percent": turn.at // 600_000 % 100, "window_minutes": 300, "resets_at": turn.at // 1000 + 9000}
        info = {
            "total_token_usage": codex_used(total),
            "last_token_usage": codex_used(last),
            "model_context_window": 272_000,
        }
        limits = {"limit_id": "codex", "primary": used, "secondary": None, "plan_type": "plus"}
        count = {"type": "token_count", "info": info, "rate_limits": limits}
        for repeated in range(1 + (pen.rng.random() < 0.4)):
            yield {"timestamp": iso(turn.at + repeated * 40), "type": "event_msg", "payload": count}


def codex_items(pen: Pen, turn: Turn, model: str) -> Iterator[Json]:
    """What comes before a count."""
    if turn.prompted:
        name = pen.uuid(turn.asked)
        yield {"type": "event_msg", "payload": {"type": "task_started", "turn_id": name, "model_context_window": 272_000}}
        yield {
            "type": "turn_context",
            "payload": {"turn_id": name, "cwd": "/home/ada/code", "model": model, "effort": "high"},
        }
        said = pen.text(600)
        content = [{"type": "input_text", "text": said}]
        yield {"type": "response_item", "payload": {"type": "message", "role": "user", "content": content}}
        yield {"type": "event_msg", "payload": {"type": "user_message", "message": said, "images": []}}
    call = f"call_{pen.rng.getrandbits(96):024x}"
    yield {"type": "response_item", "payload": {"type": "reasoning", "summary": [], "encrypted_content": pen.secret()}}
    asked = {
        "type": "function_call",
        "name": "exec_command",
        "arguments": json.dumps({"cmd": pen.text(300)}),
        "call_id": call,
    }
    yield {"type": "response_item", "payload": asked}
    yield {"type": "response_item", "payload": {"type": "function_call_output", "call_id": call, "output": pen.text(4000)}}


def codex_used(counts: list[int]) -> Json:
    names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
    return dict(zip(names, counts, strict=True)) | {"total_tokens": counts[0] + counts[2]}


OPENCODE = """
CREATE TABLE session (id TEXT PRIMARY KEY, project_id TEXT, parent_id TEXT, directory TEXT, title TEXT, version TEXT,
    time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL);
CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, time_created INTEGER NOT NULL,
    time_updated INTEGER NOT NULL, data TEXT NOT NULL);
CREATE TABLE part (id TEXT PRIMARY KEY, message_id TEXT NOT NULL, session_id TEXT NOT NULL,
    time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL, data TEXT NOT NULL);
CREATE INDEX message_session_time_created_id_idx ON message (session_id, time_created, id);
CREATE INDEX part_message_id_id_idx ON part (message_id, id);
CREATE TABLE session_message (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, type TEXT NOT NULL, seq INTEGER NOT NULL,
    time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL, data TEXT NOT NULL);
"""


def opencode(pen: Pen) -> None:
    """Half of it in tables of 1.x, a quarter in those of 2.x, a quarter in files."""
    home = pen.home / ".local/share/opencode"
    with base(home / "opencode.db", OPENCODE) as connection:
        opencode_rows(pen, connection, pen.count // 2)
        for session in pen.sessions(pen.count // 4, CLAUDE, GPT):
            opencode_session(connection, session)
            for seq, turn in enumerate(session.turns):
                content = [{"type": "text", "text": pen.text()}, {"type": "tool", "state": {"output": pen.text()}}]
                model = {"id": session.model, "providerID": VENDORS[session.model], "variant": "default"}
                said = {"agent": "build", "model": model, "content": content, "finish": "stop", **opencode_used(turn)}
                about = {"session_id": session.id, "seq": seq, "time_created": turn.asked, "time_updated": turn.at}
                insert(
                    connection,
                    "session_message",
                    id=f"msg_{pen.uuid(turn.asked)}",
                    type="assistant",
                    **about,
                    data=compact(said),
                )
    for session in pen.sessions(pen.count // 4, CLAUDE, GPT):
        opencode_files(pen, home / "storage", session)


def compact(value: Json) -> str:
    return orjson.dumps(value).decode()


def opencode_used(turn: Turn) -> Json:
    cache = {"read": turn.read, "write": turn.written}
    tokens = {"input": turn.fresh, "output": turn.output, "reasoning": turn.reasoning, "cache": cache}
    return {"cost": 0.0123, "tokens": tokens, "time": {"created": turn.asked, "completed": turn.at}}


def opencode_session(connection: sqlite3.Connection, session: Session) -> None:
    times = {"time_created": session.begun, "time_updated": session.turns[-1].at}
    insert(
        connection, "session", id=session.id, project_id="p", directory=session.project, title="x", version="1.4", **times
    )


def opencode_messages(pen: Pen, session: Session, finish: str | None) -> Iterator[tuple[str, int, Json, list[Json]]]:
    """Name, time, content and parts of each message."""
    for turn in session.turns:
        if turn.prompted:
            asked = {"role": "user", "time": {"created": turn.asked - 9}, "agent": "build"}
            yield f"msg_{pen.uuid(turn.asked - 9)}", turn.asked - 9, asked, [{"type": "text", "text": pen.text(600)}]
        used = opencode_used(turn)
        said: Json = {
            "role": "assistant",
            "parentID": "msg_0",
            "modelID": session.model,
            "providerID": VENDORS[session.model],
        }
        said |= {"mode": "build", "agent": "build", "path": {"cwd": session.project, "root": "/"}, **used}
        tool = {"type": "tool", "callID": "c", "tool": "bash", "state": {"status": "completed", "output": pen.text(4000)}}
        ended = {"type": "step-finish", "reason": "tool-calls", "cost": used["cost"], "tokens": used["tokens"]}
        parts: list[Json] = [{"type": "step-start"}, {"type": "text", "text": pen.text()}, tool, ended]
        yield f"msg_{pen.uuid(turn.asked)}", turn.asked, said | ({"finish": finish} if finish else {}), parts


def opencode_rows(pen: Pen, connection: sqlite3.Connection, turns: int) -> None:
    for session in pen.sessions(turns, CLAUDE, GPT):
        opencode_session(connection, session)
        for name, at, said, parts in opencode_messages(pen, session, "tool-calls"):
            about = {"session_id": session.id, "time_created": at, "time_updated": at + 5000}
            insert(connection, "message", id=name, **about, data=compact(said))
            for number, part in enumerate(parts):
                insert(connection, "part", id=f"{name}_{number}", message_id=name, **about, data=compact(part))


def opencode_files(pen: Pen, storage: pathlib.Path, session: Session) -> None:
    """A file per message and part; every other session is of a version that does not say how a message ended."""
    about = {"id": session.id, "directory": session.project, "title": "x", "time": {"created": session.begun}}
    put(storage / f"session/p{session.number % 40}/{session.id}.json", orjson.dumps(about))
    for name, _, said, parts in opencode_messages(pen, session, "stop" if session.number % 2 else None):
        put(storage / f"message/{session.id}/{name}.json", orjson.dumps({"id": name, "sessionID": session.id, **said}))
        for number, part in enumerate(parts):
            put(storage / f"part/{name}/prt_{number}.json", orjson.dumps({"messageID": name, **part}))


def gemini(pen: Pen) -> None:
    """Every other chat is a document, the others are lines."""
    home = pen.home / ".gemini"
    known = {}
    for session in pen.sessions(pen.count, GEMINI, "gemini-3-flash-preview"):
        folder = hashlib.sha256(session.project.encode()).hexdigest()
        known[session.project] = "TRUST_FOLDER"
        head = {"sessionId": session.id, "projectHash": folder, "startTime": iso(session.begun), "kind": "main"}
        path = home / f"tmp/{folder}/chats/session-{iso(session.begun)[:16].replace(':', '-')}-{session.id}.json"
        messages = list(gemini_messages(pen, session))
        if session.number % 2:
            put(path, orjson.dumps({**head, "messages": messages}, option=orjson.OPT_INDENT_2))
        else:
            again = (
                [{**one, "tokens": None, "thoughts": []}, one, {"$set": {"lastUpdated": one["timestamp"]}}]
                for one in messages
            )
            put(path.with_suffix(".jsonl"), lines([head, *itertools.chain.from_iterable(again)]))
    put(home / "trustedFolders.json", orjson.dumps(known))


def gemini_messages(pen: Pen, session: Session) -> Iterator[Json]:
    for turn in session.turns:
        if turn.prompted:
            yield {"id": pen.uuid(), "timestamp": iso(turn.asked - 9), "type": "user", "content": pen.text(600)}
        counts = {"input": turn.sent, "cached": turn.read, "output": turn.output, "thoughts": turn.reasoning, "tool": 0}
        answer = [{"functionResponse": {"name": "read_file", "response": {"output": pen.text(4000)}}}]
        call = {"id": pen.uuid(), "name": "read_file", "args": {"path": "a.py"}, "status": "success", "result": answer}
        said = {"id": pen.uuid(), "timestamp": iso(turn.asked), "type": "gemini", "content": pen.text(), "toolCalls": [call]}
        said |= {"thoughts": [{"subject": "x", "description": pen.text(400), "timestamp": iso(turn.asked)}]}
        yield said | {"model": session.model, "tokens": counts | {"total": turn.total + turn.reasoning}}


COPILOT = """
CREATE TABLE sessions (id TEXT PRIMARY KEY, cwd TEXT, repository TEXT, created_at TEXT);
CREATE TABLE turns (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, user_message TEXT, assistant_response TEXT);
CREATE TABLE assistant_usage_events (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL,
 turn_index INTEGER, agent_id TEXT, parent_tool_call_id TEXT, model TEXT NOT NULL, copilot_usage_model TEXT,
 input_tokens INTEGER, output_tokens INTEGER, cache_read_tokens INTEGER, cache_write_tokens INTEGER,
 reasoning_tokens INTEGER, total_nano_aiu INTEGER, request_multiplier REAL, duration_ms INTEGER, initiator TEXT,
 created_at TEXT);
CREATE INDEX idx_usage_events_session ON assistant_usage_events (session_id);
"""


def copilot(pen: Pen) -> None:
    """Three quarters in the database, a quarter in exported telemetry; a file of events for each session."""
    home = pen.home / ".copilot"
    with base(home / "session-store.db", COPILOT) as connection:
        for session in pen.sessions(pen.count * 3 // 4, "claude-sonnet-4.6", GPT):
            insert(connection, "sessions", id=session.id, cwd=session.project, created_at=iso(session.begun))
            for turn in session.turns:
                insert(connection, "turns", session_id=session.id, user_message=pen.text(), assistant_response=pen.text())
                insert(connection, "assistant_usage_events", **copilot_row(session, turn))
            put(home / f"session-state/{session.id}/events.jsonl", lines(copilot_events(pen, session)))
    exported: dict[str, list[Json]] = {}
    for session in pen.sessions(pen.count // 4, "claude-sonnet-4.6", GPT):
        for turn in session.turns:
            exported.setdefault(iso(turn.at)[:7], []).extend(copilot_spans(pen, session, turn))
        put(home / f"session-state/{session.id}/events.jsonl", lines(copilot_events(pen, session)))
    for month, spans in exported.items():
        put(home / f"otel/{month}/copilot.jsonl", lines(spans))


def copilot_row(session: Session, turn: Turn) -> Json:
    row = {"session_id": session.id, "model": session.model, "input_tokens": turn.sent, "output_tokens": turn.output}
    row |= {"cache_read_tokens": turn.read, "cache_write_tokens": turn.written, "reasoning_tokens": turn.reasoning}
    return row | {"total_nano_aiu": turn.total * 1000, "duration_ms": turn.at - turn.asked, "created_at": iso(turn.at)}


def copilot_events(pen: Pen, session: Session) -> Iterator[Json]:
    context = {"cwd": session.project, "branch": "main"}
    data: Json = {"sessionId": session.id, "startTime": iso(session.begun), "context": context}
    yield {"type": "session.start", "data": data, "id": pen.uuid(), "timestamp": iso(session.begun)}
    for turn in session.turns:
        told = {"id": pen.uuid(), "timestamp": iso(turn.at)}
        if turn.prompted:
            yield {"type": "user.message", "data": {"content": pen.text(600), "transformedContent": pen.text()}, **told}
        data = {"content": pen.text(), "toolRequests": [], "reasoningOpaque": pen.secret(), "outputTokens": turn.output}
        yield {"type": "assistant.message", "data": data, **told}
        data = {"toolCallId": "c", "success": True, "result": {"content": pen.text(4000)}}
        yield {"type": "tool.execution_complete", "data": data, **told}
    sums = [
        sum(column)
        for column in zip(*((t.sent, t.output, t.read, t.written, t.reasoning) for t in session.turns), strict=True)
    ]
    names = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "reasoningTokens")
    usage = {"requests": {"count": len(session.turns), "cost": 1}, "usage": dict(zip(names, sums, strict=True))}
    data = {"shutdownType": "routine", "sessionStartTime": session.begun, "modelMetrics": {session.model: usage}}
    yield {"type": "session.shutdown", "data": data, "id": pen.uuid(), "timestamp": iso(session.turns[-1].at)}


def copilot_spans(pen: Pen, session: Session, turn: Turn) -> Iterator[Json]:
    """What is exported of one call: its span, with the messages, a log of it, and the span of the work around it."""
    said: Json = {
        "gen_ai.request.model": session.model,
        "gen_ai.response.model": session.model,
        "gen_ai.response.id": pen.uuid(),
    }
    said |= {"gen_ai.conversation.id": session.id, "gen_ai.usage.input_tokens": turn.sent}
    said |= {"gen_ai.usage.output_tokens": turn.output, "gen_ai.usage.cache_read.input_tokens": turn.read}
    said |= {"gen_ai.usage.cache_creation.input_tokens": turn.written, "github.copilot.nano_aiu": turn.total * 1000.0}
    trace, name = f"{pen.rng.getrandbits(128):032x}", f"{pen.rng.getrandbits(64):016x}"
    times = {"startTime": [turn.asked // 1000, turn.asked % 1000 * 1_000_000], "endTime": [turn.at // 1000, 0]}
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.result": pen.text(4000)}
    yield {"type": "span", "traceId": trace, "spanId": f"t{name}", "name": "execute_tool bash", **times, "attributes": tool}
    chat = {
        "gen_ai.operation.name": "chat",
        **said,
        "gen_ai.output.messages": pen.text(),
        "gen_ai.input.messages": pen.text(),
    }
    yield {"type": "span", "traceId": trace, "spanId": name, "name": f"chat {session.model}", **times, "attributes": chat}
    log = {"event.name": "gen_ai.client.inference.operation.details", **said}
    yield {"hrTime": times["endTime"], "traceId": trace, "spanId": name, "attributes": log, "_body": "x"}
    whole = {"gen_ai.operation.name": "invoke_agent", **said}
    yield {"type": "span", "traceId": trace, "spanId": f"a{name}", "name": "invoke_agent", **times, "attributes": whole}


def qwen(pen: Pen) -> None:
    """Every fourth chat is of a version without telemetry."""
    for session in pen.sessions(pen.count, "qwen3-coder-plus", "qwen3-max"):
        folder = session.project.replace("/", "-")
        put(pen.home / f".qwen/projects/{folder}/chats/{session.id}.jsonl", lines(qwen_lines(pen, session)))


def qwen_lines(pen: Pen, session: Session) -> Iterator[Json]:
    def line(kind: str, at: int, **more: Any) -> Json:
        head = {"uuid": pen.uuid(), "parentUuid": pen.uuid(), "sessionId": session.id, "timestamp": iso(at), "type": kind}
        return {**head, "cwd": session.project, "version": "0.16.0", "gitBranch": "main", **more}

    def told(at: int, name: str, **more: Any) -> Json:
        event = {"event.name": f"qwen-code.{name}", "event.timestamp": iso(at), **more}
        return line("system", at, subtype="ui_telemetry", systemPayload={"uiEvent": event})

    for turn in session.turns:
        if turn.prompted:
            yield line("user", turn.asked, message={"role": "user", "parts": [{"text": pen.text(600)}]})
        counts = {
            "input": turn.sent,
            "output": turn.output,
            "cached_content": turn.read,
            "thoughts": turn.reasoning,
            "total": turn.total,
        }
        if session.number % 4:
            more = {"response_id": f"chatcmpl-{pen.uuid()}", "model": session.model, "duration_ms": turn.at - turn.asked}
            more |= {f"{name}_token_count": count for name, count in counts.items()}
            yield told(turn.at, "api_response", **more, auth_type="openai", response_text=pen.text(400))
        names = (
            "promptTokenCount",
            "candidatesTokenCount",
            "cachedContentTokenCount",
            "thoughtsTokenCount",
            "totalTokenCount",
        )
        usage = dict(zip(names, counts.values(), strict=True))
        said = {"role": "model", "parts": [{"text": pen.text()}]}
        yield line("assistant", turn.at, model=session.model, message=said, usageMetadata=usage)
        result = {"functionResponse": {"name": "read_file", "response": {"output": pen.text(4000)}}}
        yield line("tool_result", turn.at, message={"role": "user", "parts": [result]}, toolCallResult={"status": "success"})
        yield told(turn.at, "tool_call", function_name="read_file", duration_ms=9, success=True)


def kimi(pen: Pen) -> None:
    """Half of it is kimi-cli's, half Kimi Code's."""
    home, projects = pen.home / ".kimi", set()
    for session in pen.sessions(pen.count // 2, "kimi-k2.5"):
        group = hashlib.md5(session.project.encode(), usedforsecurity=False).hexdigest()
        projects.add(session.project)
        put(home / f"sessions/{group}/{session.id}/wire.jsonl", lines(kimi_cli(pen, session)))
        put(
            home / f"sessions/{group}/{session.id}/context.jsonl",
            lines({"role": "tool", "content": pen.text()} for _ in session.turns),
        )
    put(
        home / "config.toml",
        b'default_model = "kimi-code/k2"\n[models."kimi-code/k2"]\nprovider = "x"\nmodel = "kimi-k2.5"\n',
    )
    put(home / "kimi.json", orjson.dumps({"work_dirs": [{"path": path, "kaos": "local"} for path in sorted(projects)]}))
    home, index = pen.home / ".kimi-code", []
    for session in pen.sessions(pen.count // 2, "kimi-k3"):
        index.append({"sessionId": session.id, "workDir": session.project, "sessionDir": "x"})
        folder = home / f"sessions/{pathlib.PurePath(session.project).name}-1/{session.id}"
        put(folder / "agents/main/wire.jsonl", lines(kimi_code(pen, session)))
        put(folder / "state.json", orjson.dumps({"title": "x", "agents": {"main": {"type": "main"}}}))
    put(home / "session_index.jsonl", lines(index))


def kimi_cli(pen: Pen, session: Session) -> Iterator[Json]:
    """One step in ten is a subagent's, which stands in its parent's file."""
    yield {"type": "metadata", "protocol_version": "1.9"}
    for number, turn in enumerate(session.turns):
        agent = pen.rng.random() < 0.1

        def wire(kind: str, at: int, agent: bool = agent, **payload: Any) -> Json:
            message: Json = {"type": kind, "payload": payload}
            if agent:
                message = {"type": "SubagentEvent", "payload": {"agent_id": "a1", "event": message}}
            return {"timestamp": at / 1000, "message": message}

        if turn.prompted:
            yield {
                "timestamp": turn.asked / 1000,
                "message": {"type": "TurnBegin", "payload": {"user_input": pen.text(600)}},
            }
        yield wire("StepBegin", turn.asked, n=number)
        yield wire("ContentPart", turn.asked, type="think", think=pen.text(), encrypted=None)
        yield wire(
            "ToolCall", turn.asked, type="function", id="c", function={"name": "ReadFile", "arguments": pen.text(300)}
        )
        yield wire("ToolResult", turn.at, tool_call_id="c", return_value={"is_error": False, "output": pen.text(4000)})
        counts = {"input_other": turn.fresh, "output": turn.output, "input_cache_read": turn.read, "input_cache_creation": 0}
        yield wire("StatusUpdate", turn.at, context_usage=0.1, token_usage=counts, message_id=f"chatcmpl-{pen.uuid()}")


def kimi_code(pen: Pen, session: Session) -> Iterator[Json]:
    yield {"type": "metadata", "protocol_version": "1.9", "created_at": session.begun}
    for turn in session.turns:
        if turn.prompted:
            yield {"type": "turn.prompt", "input": [{"type": "text", "text": pen.text(600)}], "time": turn.asked - 9}
        yield {
            "type": "llm.request",
            "model": session.model,
            "modelAlias": "kimi-code/k3",
            "kind": "step",
            "time": turn.asked,
        }
        counts = {"inputOther": turn.fresh, "output": turn.output, "inputCacheRead": turn.read, "inputCacheCreation": 0}
        part = {"type": "content.part", "part": {"type": "text", "text": pen.text()}}
        yield {"type": "context.append_loop_event", "event": part, "time": turn.at}
        result = {"type": "tool.result", "toolCallId": "c", "result": {"output": pen.text(4000)}}
        yield {"type": "context.append_loop_event", "event": result, "time": turn.at}
        yield {"type": "context.append_loop_event", "event": {"type": "step.end", "usage": counts}, "time": turn.at}
        yield {"type": "usage.record", "model": "kimi-code/k3", "usage": counts, "usageScope": "turn", "time": turn.at + 1}


def kilo(pen: Pen) -> None:
    """Half of it in the database, half in the tasks before it."""
    with base(pen.home / ".local/share/kilo/kilo.db", OPENCODE) as connection:
        opencode_rows(pen, connection, pen.count // 2)
    tasks = pen.home / ".config/Code/User/globalStorage/kilocode.kilo-code/tasks"
    for session in pen.sessions(pen.count // 2, CLAUDE, GPT):
        said: list[Json] = []
        sent: list[Json] = []
        for turn in session.turns:
            said += kilo_said(pen, turn)
            sent += kilo_sent(pen, session, turn)
        put(tasks / session.id / "ui_messages.json", orjson.dumps(said))
        put(tasks / session.id / "api_conversation_history.json", orjson.dumps(sent))


def kilo_said(pen: Pen, turn: Turn) -> Iterator[Json]:
    counts = {"tokensIn": turn.sent, "tokensOut": turn.output, "cacheWrites": turn.written, "cacheReads": turn.read}
    text = json.dumps({"apiProtocol": "anthropic", **counts, "cost": 0.0123, "inferenceProvider": "x"})
    yield {"ts": turn.asked, "type": "say", "say": "api_req_started", "text": text}
    yield {"ts": turn.at, "type": "say", "say": "text", "text": pen.text(), "partial": False}
    yield {"ts": turn.at + 1, "type": "ask", "ask": "tool", "text": json.dumps({"tool": "readFile", "content": pen.text()})}


def kilo_sent(pen: Pen, session: Session, turn: Turn) -> Iterator[Json]:
    added = f"# Current Workspace Directory ({session.project}) Files\n{pen.text()}\n\n# Current Mode\n<slug>code</slug>\n"
    added = f"<environment_details>\n{added}<model>{session.model}</model>\n</environment_details>"
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": pen.text(4000)}]}
    yield {"role": "user", "content": [result, {"type": "text", "text": added}], "ts": turn.asked + 5}
    yield {"role": "assistant", "content": [{"type": "text", "text": pen.text()}], "ts": turn.at}


def amp(pen: Pen) -> None:
    """Every third thread has the older ledger beside its answers."""
    for session in pen.sessions(pen.count, CLAUDE, GPT):
        name, ledger, messages = f"T-{session.id}", [], list[Json]()
        for turn in session.turns:
            result = {
                "type": "tool_result",
                "toolUseID": "c",
                "run": {"status": "done", "result": {"output": pen.text(4000)}},
            }
            asked = [{"type": "text", "text": pen.text(600)}] if turn.prompted else [result]
            messages.append({"role": "user", "messageId": len(messages), "content": asked, "meta": {"sentAt": turn.asked}})
            thought = {"type": "thinking", "thinking": pen.text(500), "signature": pen.secret()}
            said = [thought, {"type": "tool_use", "id": "c", "name": "Read", "input": {"path": pen.text(300)}}]
            usage: Json = {"cacheCreationInputTokens": turn.written, "cacheReadInputTokens": turn.read}
            if session.number % 3:
                usage |= {"model": session.model, "inputTokens": turn.fresh, "outputTokens": turn.output}
                usage |= {"totalInputTokens": turn.sent, "timestamp": iso(turn.at)}
            else:
                entry = {"id": pen.uuid(), "timestamp": iso(turn.at), "model": session.model, "credits": 1.5}
                ledger.append(entry | {"tokens": {"input": turn.fresh, "output": turn.output}, "toMessageId": len(messages)})
            messages.append({"role": "assistant", "messageId": len(messages), "content": said, "usage": usage})
        tree = {"displayName": "project", "uri": f"file://{session.project}"}
        thread = {"v": 3, "id": name, "created": session.begun, "title": "x", "env": {"initial": {"trees": [tree]}}}
        thread |= {"messages": messages, "usageLedger": {"events": ledger}}
        put(pen.home / f".local/share/amp/threads/{name}.json", orjson.dumps(thread))


def droid(pen: Pen) -> None:
    for session in pen.sessions_of_ten(CLAUDE, GPT):
        path = pen.home / f".factory/sessions/{session.project.replace('/', '-')}/{session.id}"
        said: list[Json] = [{"type": "session_start", "id": session.id, "title": "x", "cwd": session.project}]
        for turn in session.turns:
            result = {"type": "tool_result", "tool_use_id": "c", "content": pen.text(4000)}
            for role, at, content in (
                ("user", turn.asked, result),
                ("assistant", turn.at, {"type": "text", "text": pen.text()}),
            ):
                message = {"role": role, "content": [content]}
                said.append({"type": "message", "id": pen.uuid(), "timestamp": iso(at), "message": message})
        put(path.with_suffix(".jsonl"), lines(said))
        names = {
            "inputTokens": "fresh",
            "outputTokens": "output",
            "cacheCreationTokens": "written",
            "cacheReadTokens": "read",
        }
        usage = {name: sum(getattr(turn, field) for turn in session.turns) for name, field in names.items()}
        settings: Json = {"model": session.model, "autonomyMode": "medium", "providerLock": VENDORS[session.model]}
        settings |= {"providerLockTimestamp": iso(session.begun), "tokenUsage": usage | {"thinkingTokens": 0}}
        put(path.with_suffix(".settings.json"), orjson.dumps(settings, option=orjson.OPT_INDENT_2))


GOOSE_TOKENS = ", ".join(f"{kind}_tokens INTEGER" for kind in ("total", "input", "output", "cache_read", "cache_write"))
GOOSE = f"""
CREATE TABLE sessions (id TEXT PRIMARY KEY, name TEXT, session_type TEXT NOT NULL DEFAULT 'user', working_dir TEXT NOT NULL,
    created_at TIMESTAMP, updated_at TIMESTAMP, {GOOSE_TOKENS}, accumulated_{GOOSE_TOKENS.replace(", ", ", accumulated_")},
    accumulated_cost REAL, provider_name TEXT, model_config_json TEXT);
CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, message_id TEXT, session_id TEXT NOT NULL, role TEXT NOT NULL,
    content_json TEXT NOT NULL, created_timestamp INTEGER NOT NULL, tokens INTEGER, metadata_json TEXT);
CREATE TABLE usage_ledger (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, created_timestamp INTEGER,
    model TEXT, {GOOSE_TOKENS}, cost REAL, cost_source TEXT, is_compaction INTEGER DEFAULT 0);
CREATE INDEX idx_messages_session ON messages(session_id);
CREATE INDEX idx_sessions_updated ON sessions(updated_at DESC);
CREATE INDEX idx_usage_ledger_session ON usage_ledger(session_id);
"""


def goose(pen: Pen) -> None:
    """Every fifth session was before the ledger."""
    with base(pen.home / ".local/share/goose/sessions/sessions.db", GOOSE) as connection:
        for session in pen.sessions(pen.count * 5 // 4, CLAUDE, GPT):
            name = f"{iso(session.begun)[:10].replace('-', '')}_{session.number}"
            for turn in session.turns:
                about = {"session_id": name, "created_timestamp": turn.at // 1000}
                for role in ("assistant", "user"):
                    content = compact({"": [{"type": "text", "text": pen.text(3000)}]})[4:-1]
                    insert(
                        connection,
                        "messages",
                        message_id=pen.uuid(),
                        role=role,
                        content_json=content,
                        metadata_json="{}",
                        **about,
                    )
                if session.number % 5:
                    insert(
                        connection,
                        "usage_ledger",
                        **about,
                        model=session.model,
                        **goose_sums([turn], ""),
                        cost=0.01,
                        cost_source="estimated",
                    )
            times = {"created_at": stamp(session.begun), "updated_at": stamp(session.turns[-1].at)}
            config = compact({"model_name": session.model, "context_limit": None})
            about = {"provider_name": VENDORS[session.model], "model_config_json": config, "working_dir": session.project}
            insert(connection, "sessions", id=name, name="x", **times, **about, **goose_sums(session.turns, "accumulated_"))


def stamp(at: int) -> str:
    return iso(at)[:19].replace("T", " ")


def goose_sums(turns: list[Turn], prefix: str) -> Json:
    names = {"input": "sent", "output": "output", "total": "total", "cache_read": "read", "cache_write": "written"}
    return {f"{prefix}{name}_tokens": sum(getattr(turn, field) for turn in turns) for name, field in names.items()}


HERMES_SUMS = ", ".join(
    f"{kind} INTEGER NOT NULL DEFAULT 0"
    for kind in (
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "api_call_count",
    )
)
HERMES = f"""
CREATE TABLE sessions (id TEXT PRIMARY KEY, source TEXT NOT NULL, model TEXT, model_config TEXT, system_prompt TEXT,
    parent_session_id TEXT, started_at REAL NOT NULL, ended_at REAL, last_activity_at REAL, cwd TEXT, {HERMES_SUMS},
    billing_provider TEXT, estimated_cost_usd REAL, actual_cost_usd REAL, title TEXT);
CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, role TEXT NOT NULL, content TEXT,
    tool_calls TEXT, timestamp REAL NOT NULL, token_count INTEGER, reasoning TEXT);
CREATE TABLE session_model_usage (session_id TEXT NOT NULL, model TEXT NOT NULL, billing_provider TEXT NOT NULL DEFAULT '',
    billing_base_url TEXT NOT NULL DEFAULT '', billing_mode TEXT NOT NULL DEFAULT '', task TEXT NOT NULL DEFAULT '',
    {HERMES_SUMS}, estimated_cost_usd REAL, actual_cost_usd REAL, first_seen REAL, last_seen REAL,
    PRIMARY KEY (session_id, model, billing_provider, billing_base_url, billing_mode, task));
CREATE INDEX idx_messages_session ON messages(session_id, timestamp);
"""


def hermes(pen: Pen) -> None:
    """Every session has one model for itself and one for its title."""
    with base(pen.home / ".hermes/state.db", HERMES) as connection:
        for session in pen.sessions_of_ten(CLAUDE, GPT):
            began, ended = session.begun / 1000, session.turns[-1].at / 1000
            names = {
                "input": "fresh",
                "output": "output",
                "cache_read": "read",
                "cache_write": "written",
                "reasoning": "reasoning",
            }
            sums: Json = {
                f"{name}_tokens": sum(getattr(turn, field) for turn in session.turns) for name, field in names.items()
            }
            sums |= {"api_call_count": len(session.turns), "estimated_cost_usd": 0.2}
            about = {"model": session.model, "billing_provider": VENDORS[session.model]}
            own = {"source": "cli", "system_prompt": pen.text(12_000), "cwd": session.project, "started_at": began}
            insert(connection, "sessions", id=session.id, **own, ended_at=ended, last_activity_at=ended, **about, **sums)
            seen = {"first_seen": began, "last_seen": ended}
            insert(connection, "session_model_usage", session_id=session.id, **about, **sums, **seen)
            title = {"task": "title_generation", "input_tokens": 300, "output_tokens": 9, "api_call_count": 1}
            insert(connection, "session_model_usage", session_id=session.id, model="claude-haiku-4-5", **title, **seen)
            for turn, role in itertools.product(session.turns, ("assistant", "tool")):
                insert(
                    connection,
                    "messages",
                    session_id=session.id,
                    role=role,
                    content=pen.text(3000),
                    timestamp=turn.at / 1000,
                )


def pi(pen: Pen) -> None:
    for session in pen.sessions(pen.count, CLAUDE, GPT):
        folder, at = session.project.replace("/", "-"), iso(session.begun).replace(":", "-").replace(".", "-")
        put(pen.home / f".pi/agent/sessions/-{folder}--/{at}_{session.id}.jsonl", lines(pi_entries(pen, session)))


def pi_entries(pen: Pen, session: Session) -> Iterator[Json]:
    """What OpenClaw writes too."""
    yield {"type": "session", "version": 3, "id": session.id, "timestamp": iso(session.begun), "cwd": session.project}
    about: Json = {"provider": VENDORS[session.model], "modelId": session.model}
    yield {"type": "model_change", "id": "c0", "timestamp": iso(session.begun), **about}
    for turn in session.turns:
        result = {
            "role": "toolResult",
            "toolCallId": "c",
            "content": [{"type": "text", "text": pen.text(4000)}],
            "timestamp": turn.asked,
        }
        asked = {"role": "user", "content": [{"type": "text", "text": pen.text(600)}], "timestamp": turn.asked}
        head = {"type": "message", "id": pen.uuid()[:8], "parentId": pen.uuid()[:8]}
        yield {**head, "timestamp": iso(turn.asked), "message": asked if turn.prompted else result}
        cost = {"input": 0.0006, "output": 0.00045, "cacheRead": 0.0004, "cacheWrite": 0.001, "total": 0.00245}
        usage: Json = {"input": turn.fresh, "output": turn.output, "cacheRead": turn.read, "cacheWrite": turn.written}
        usage |= {"totalTokens": turn.total, "cost": cost}
        content = [
            {"type": "thinking", "thinking": pen.text(500), "thinkingSignature": pen.secret()},
            {"type": "text", "text": pen.text()},
        ]
        said = {"role": "assistant", "content": content, "api": "x", "provider": about["provider"], "model": session.model}
        said |= {"usage": usage, "stopReason": "toolUse", "timestamp": turn.asked, "responseId": f"resp_{pen.secret(48)}"}
        yield {**head, "id": pen.uuid()[:8], "timestamp": iso(turn.at), "message": said}


OPENCLAW = """
CREATE TABLE auth_profile_store (store_key TEXT PRIMARY KEY, store_json TEXT);
CREATE TABLE session_windows (session_id TEXT NOT NULL PRIMARY KEY, session_key TEXT, updated_at INTEGER);
CREATE TABLE transcript_events (session_id TEXT NOT NULL, seq INTEGER NOT NULL, event_json TEXT NOT NULL,
 created_at INTEGER NOT NULL, PRIMARY KEY (session_id, seq)) STRICT;
"""


def openclaw(pen: Pen) -> None:
    """Half of it in an agent's database; of the files a third are ended, and a third compressed where zstd is here."""
    agent = pen.home / ".openclaw/agents/main"
    with base(agent / "agent/openclaw-agent.sqlite", OPENCLAW) as connection:
        for session in pen.sessions(pen.count // 2, CLAUDE, GPT):
            rows = enumerate(pi_entries(pen, session))
            found = [(session.id, seq, compact(entry), session.begun + seq) for seq, entry in rows]
            connection.executemany("INSERT INTO transcript_events VALUES (?, ?, ?, ?)", found)
    for session in pen.sessions(pen.count // 2, CLAUDE, GPT):
        ended = f".reset.{iso(session.begun).replace(':', '-')}" if session.number % 3 else ""
        path = agent / f"sessions/{session.id}.jsonl{ended}"
        put(path, lines(pi_entries(pen, session)))
        if session.number % 3 == 2 and shutil.which("zstd"):
            subprocess.run(["zstd", "--quiet", "--rm", str(path)], check=True)


def cursor(pen: Pen) -> None:
    """Four exports."""
    columns = "Input (w/ Cache Write),Input (w/o Cache Write),Cache Read,Output Tokens,Total Tokens"
    header = f"Date,Cloud Agent ID,Automation ID,Kind,Model,Max Mode,{columns},Cost"
    rows = []
    for session in pen.sessions(pen.count, CLAUDE, GPT):
        for turn in session.turns:
            counts = (turn.written, turn.fresh, turn.read, turn.output, turn.total)
            cells = [iso(turn.asked), "", "", "On-Demand", session.model, "No", *map(str, counts), "0.33"]
            rows.append(",".join(f'"{cell}"' for cell in cells))
    rows.sort(reverse=True)
    step = -(-len(rows) // 4)
    for number, at in enumerate(range(0, len(rows), step)):
        name = f".local/share/tokenops/cursor/usage-events-{number}.csv"
        put(pen.home / name, "\n".join([header, *rows[at : at + step], ""]).encode())


def cline(pen: Pen) -> None:
    """One session in four has a subagent, which makes half of its requests."""
    for session in pen.sessions(pen.count, CLAUDE, GPT):
        name = f"{session.begun}_{session.id[-5:]}"
        folder = pen.home / ".cline/data/sessions" / name
        manifest: Json = {"version": 1, "session_id": name, "provider": VENDORS[session.model], "model": session.model}
        manifest |= {"cwd": session.project, "metadata": {"git": {"branch": "main"}, "title": pen.text(60)}}
        put(folder / f"{name}.json", orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        half = len(session.turns) // 2 if not session.number % 4 else 0
        about: Json = {"version": 1, "agent": "lead", "sessionId": name}
        put_indented(folder / f"{name}.messages.json", about | {"messages": cline_messages(pen, session, half)})
        if half:
            agent = f"agent_{session.begun}_{session.id[-6:]}"
            about = {"version": 1, "agent": "subagent", "sessionId": f"{name}__{agent}", "origin": {"parentThreadId": name}}
            messages = cline_messages(pen, session._replace(turns=session.turns[:half]), 0)
            put_indented(folder / f"{agent}.messages.json", about | {"messages": messages})


def put_indented(path: pathlib.Path, document: Json) -> None:
    put(path, orjson.dumps(document, option=orjson.OPT_INDENT_2))


def cline_messages(pen: Pen, session: Session, begin: int) -> list[Json]:
    messages: list[Json] = []
    for turn in session.turns[begin:]:
        sent = pen.text(600) if turn.prompted else pen.text(4000)
        messages.append({"id": f"u{turn.asked}", "role": "user", "ts": turn.asked, "content": sent})
        used = {"inputTokens": turn.sent, "outputTokens": turn.output, "cacheReadTokens": turn.read}
        used |= {"cacheWriteTokens": turn.written, "cost": 0.0123}
        answer: Json = {"id": f"msg_{pen.secret(24)}", "role": "assistant", "ts": turn.at}
        answer["content"] = [{"type": "text", "text": pen.text()}]
        messages.append(answer | {"modelInfo": {"id": session.model, "provider": VENDORS[session.model]}, "metrics": used})
    return messages


def grok(pen: Pen) -> None:
    """A total for each prompt, of ten requests each."""
    for session in pen.sessions_of_ten("grok-4.6"):
        folder = pen.home / ".grok/sessions" / session.project.replace("/", "%2F") / session.id
        about: Json = {"info": {"id": session.id, "cwd": session.project}, "created_at": iso(session.begun)}
        about |= {"current_model_id": session.model, "session_kind": "headless", "generated_title": pen.text(60)}
        put_indented(folder / "summary.json", about)
        put(folder / "updates.jsonl", lines(grok_updates(pen, session)))


def grok_updates(pen: Pen, session: Session) -> Iterator[Json]:
    def line(update: Json, at: int) -> Json:
        params = {"sessionId": session.id, "update": update, "_meta": {"agentTimestampMs": at}}
        return {"timestamp": at // 1000, "method": "_x.ai/session/update", "params": params}

    for turn in session.turns:
        for kind in ("agent_message_chunk", "tool_call_update"):
            yield line({"sessionUpdate": kind, "content": {"type": "text", "text": pen.text(3000)}}, turn.at)
    last = session.turns[-1]
    names = {"inputTokens": "sent", "outputTokens": "output", "totalTokens": "total", "cachedReadTokens": "read"}
    names |= {"cacheCreationTokens": "written", "reasoningTokens": "reasoning"}
    used: Json = {name: sum(getattr(turn, field) for turn in session.turns) for name, field in names.items()}
    used |= {"modelCalls": len(session.turns), "costUsdTicks": 12_000_000}
    ended = {"sessionUpdate": "turn_completed", "prompt_id": pen.uuid(last.at), "elapsed_ms": last.at - session.begun}
    yield line(ended | {"usage": used | {"modelUsage": {session.model: used}, "numTurns": len(session.turns)}}, last.at)


def vibe(pen: Pen) -> None:
    """Sessions that still have all of their journal, with the sums that their turns add up to."""
    for session in pen.sessions(pen.count, "mistral-large-2512"):
        folder = pen.home / ".vibe/logs/session/unified" / session.id
        about: Json = {"session_id": session.id, "parent_session_id": None, "start_time": iso(session.begun)}
        about |= {"git_branch": "main", "environment": {"working_directory": session.project}, "child_sessions": []}
        about |= {"config": {"active_model": "large", "model_name": session.model}, "title": pen.text(60)}
        put_indented(folder / "meta.json", about)
        put(folder / "journal/0000000000000001.jsonl", lines(vibe_records(pen, session)))
        names = {"inputTokens": "sent", "outputTokens": "output", "totalTokens": "total", "cachedInputTokens": "read"}
        sums = {name: sum(getattr(turn, field) for turn in session.turns) for name, field in names.items()}
        kept = {"id": session.id, "createdAt": session.begun, "updatedAt": session.turns[-1].at, "tokenUsage": sums}
        state = {"projection_state_version": 1, "session_id": session.id, "snapshot": {"session": kept}}
        put(folder / "generations/0000000000000001/projection-state.json", orjson.dumps(state))


def vibe_records(pen: Pen, session: Session) -> Iterator[Json]:
    def record(kind: str, number: int, payload: Json) -> Json:
        envelope = {"recovery_journal_record_version": 1, "sequence": number, "type": kind}
        return envelope | {"record_sha256": pen.secret(64), "payload": payload}

    echo: Json = {"type": "user", "text": pen.text(600)}
    for number, turn in enumerate(session.turns):
        sent = {"determinism": {"time_unix_ms": turn.asked}, "event": echo}
        yield record("core_input", 3 * number, {"input": sent})
        action = pen.uuid(turn.asked)
        used = {"input_tokens": turn.sent, "cached_input_tokens": turn.read, "output_tokens": turn.output}
        used["total_tokens"] = turn.total
        answer = {"finish_reason": "tool_call", "parts": [{"type": "text", "text": pen.text()}], "usage": used}
        inner = {"action_id": action, "type": "completion_succeeded", "result": answer}
        payload = {"action_id": action, "state": "succeeded", "result": inner}
        yield record("action_result", 3 * number + 1, payload)
        yield record("projection_delta", 3 * number + 2, {"delta": {"text": pen.text(), "usage": used}})
        echo = payload


ZED = """
CREATE TABLE threads (id TEXT PRIMARY KEY, summary TEXT NOT NULL, updated_at TEXT NOT NULL, data_type TEXT NOT NULL,
    data BLOB NOT NULL, parent_id TEXT, folder_paths TEXT, folder_paths_order TEXT, created_at TEXT);
"""


def zed(pen: Pen) -> None:
    """Threads packed where zstd is here, of ten turns each."""
    is_packed = shutil.which("zstd") is not None
    with base(pen.home / ".local/share/zed/threads/threads.db", ZED) as connection:
        for session in pen.sessions_of_ten(CLAUDE, GPT):
            names = {"input_tokens": "fresh", "output_tokens": "output", "cache_read_input_tokens": "read"}
            names |= {"cache_creation_input_tokens": "written"}
            used = {name: sum(getattr(turn, field) for turn in session.turns) for name, field in names.items()}
            said = [{"User": {"id": "u", "content": pen.text(4000)}} for _ in session.turns]
            document: Json = {"version": "0.3.0", "title": "x", "messages": said, "cumulative_token_usage": used}
            document |= {"request_token_usage": {}, "model": {"provider": VENDORS[session.model], "model": session.model}}
            data = orjson.dumps(document)
            if is_packed:
                data = subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout
            times = {"updated_at": iso(session.turns[-1].at), "created_at": iso(session.begun)}
            about = {"id": session.id, "summary": "x", "folder_paths": session.project, "folder_paths_order": "0"}
            insert(connection, "threads", **about, **times, data_type="zstd" if is_packed else "json", data=data)


CRUSH = """
CREATE TABLE sessions (id TEXT PRIMARY KEY, parent_session_id TEXT, title TEXT NOT NULL, message_count INTEGER DEFAULT 0,
    prompt_tokens INTEGER DEFAULT 0, completion_tokens INTEGER DEFAULT 0, cost REAL NOT NULL DEFAULT 0.0,
    updated_at INTEGER NOT NULL, created_at INTEGER NOT NULL, summary_message_id TEXT);
CREATE TABLE messages (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, role TEXT NOT NULL, parts BLOB, model TEXT,
    created_at INTEGER NOT NULL, provider TEXT);
CREATE INDEX idx_messages_session_id ON messages (session_id);
"""


def crush(pen: Pen) -> None:
    """A database for each project, with sessions of ten turns each."""
    by_project: dict[str, list[Session]] = {}
    for session in pen.sessions_of_ten(CLAUDE, GPT):
        by_project.setdefault(session.project, []).append(session)
    listed = []
    for project, sessions in sorted(by_project.items()):
        root = pen.home / project.removeprefix("/home/ada/")
        listed.append({"path": str(root), "data_dir": str(root / ".crush"), "last_accessed": iso(BEGUN)})
        with base(root / ".crush/crush.db", CRUSH) as connection:
            for session in sessions:
                crush_session(pen, connection, session)
    put(pen.home / ".local/share/crush/projects.json", orjson.dumps({"projects": listed}))


def crush_session(pen: Pen, connection: sqlite3.Connection, session: Session) -> None:
    times = {"created_at": session.begun // 1000, "updated_at": session.turns[-1].at // 1000}
    counts = {"prompt_tokens": session.turns[-1].sent, "completion_tokens": session.turns[-1].output, "cost": 0.25}
    insert(connection, "sessions", id=session.id, title="x", message_count=2 * len(session.turns), **counts, **times)
    for turn, role in itertools.product(session.turns, ("user", "assistant")):
        parts = compact({"": [{"type": "text", "data": pen.text(3000)}]})[4:-1]
        about = {"model": session.model, "provider": VENDORS[session.model], "created_at": turn.at // 1000}
        insert(connection, "messages", id=pen.uuid(), session_id=session.id, role=role, parts=parts, **about)


def stats_cache(pen: Pen) -> None:
    """A year of three models."""
    days = [iso(BEGUN + number * 86_400_000)[:10] for number in range(365)]
    models = ("claude-opus-4-6", CLAUDE, "claude-haiku-4-5-20251001")
    sums = [{"date": day, "tokensByModel": {model: pen.rng.randrange(1, 900_000) for model in models}} for day in days]
    activity = [{"date": day, "messageCount": 90, "sessionCount": 4, "toolCallCount": 30} for day in days]
    made = {
        "version": 1,
        "lastComputedDate": days[-1],
        "dailyActivity": activity,
        "dailyModelTokens": sums,
        "modelUsage": {},
    }
    put(pen.home / ".claude/stats-cache.json", orjson.dumps(made | {"firstSessionDate": iso(BEGUN)}))


def claude_usage(pen: Pen) -> None:
    """The plan's limits in a file of other things."""
    windows = {name: {"utilization": 42.0, "resets_at": iso(BEGUN + YEAR)} for name in ("five_hour", "seven_day")}
    cache = {"fetchedAtMs": BEGUN + YEAR, "accountUuid": pen.uuid(), "utilization": windows}
    history = {
        f"/home/ada/code/project-{n:02d}": {"history": [{"display": pen.text(100)} for _ in range(100)]} for n in range(40)
    }
    made = {
        "numStartups": 4,
        "projects": history,
        "oauthAccount": {"organizationUuid": pen.uuid()},
        "cachedUsageUtilization": cache,
    }
    put(pen.home / ".claude.json", orjson.dumps(made, option=orjson.OPT_INDENT_2))


WRITERS: dict[str, Callable[[Pen], None]] = {
    "claude": claude,
    "codex": codex,
    "opencode": opencode,
    "gemini": gemini,
    "copilot": copilot,
    "qwen": qwen,
    "kimi": kimi,
    "kilo": kilo,
    "cline": cline,
    "grok": grok,
    "vibe": vibe,
    "zed": zed,
    "crush": crush,
    "amp": amp,
    "droid": droid,
    "goose": goose,
    "hermes": hermes,
    "pi": pi,
    "openclaw": openclaw,
    "cursor": cursor,
    "stats-cache": stats_cache,
    "claude-usage": claude_usage,
}


def written(home: pathlib.Path) -> tuple[int, int]:
    """Files and bytes below a directory."""
    sizes = [path.stat().st_size for path in home.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def write(home: pathlib.Path, turns: int, seed: int) -> dict[str, list[int]]:
    """Write the logs of all clients; how many files and bytes each has."""
    words = json.loads('"' + "\\n".join(make_logs.text_pool(random.Random(seed))) + '"')
    pools = (words.encode("ascii", "ignore").decode(), words)
    home.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, writer in WRITERS.items():
        before = written(home)
        writer(Pen(home, name, turns, seed, pools))
        found[name] = [now - then for now, then in zip(written(home), before, strict=True)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="synthetic logs of every client")
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--turns", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    for name, (files, size) in write(chosen.directory, chosen.turns, chosen.seed).items():
        print(f"{name}: {files:,} files, {size:,} bytes")


if __name__ == "__main__":
    main()
