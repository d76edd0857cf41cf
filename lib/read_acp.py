"""Reads what passes between an editor and an agent by the Agent Client Protocol, and returns a total per prompt.

The protocol is JSON-RPC 2.0, one message per line. An answer to `session/prompt` states what the prompt used (`usage`);
`session/new` names the directory, `initialize` the agent. A `usage_update` has the size of the context and the session's
cost so far: it is no use of tokens and is not counted. In the draft of version 2 a prompt is only acknowledged; what was
used comes with the `state_update` that says that the work is over. (Schemas of version 1, of its unstable part and of the
draft of 2, in @agentclientprotocol/sdk 2.4.0; 2026-12-01.)

Bytes come in any pieces, and a line of any length is held in bounded memory. Prompts, answers and files pass by unread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tokenops import catalog, events, read_records, untrusted, when
from tokenops.untrusted import Raw

SOURCE = "acp"

# So much of a line is kept before long texts are taken out of it, and so much of what then remains.
_WHOLE, _MOST_KEPT = 1 << 18, 1 << 20
_LONGEST_TEXT = 4096  # in bytes: a longer one is no name and no path, so it is replaced by an empty one
_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# Requests without an answer, and sessions, that are remembered. An editor has a few of each.
_MOST_OPEN, _MOST_SESSIONS = 1000, 1000


class Lines:
    """Splits a stream into lines. Of a long line, long texts are left out, so that a file inside it takes no memory."""

    def __init__(self) -> None:
        self._start = bytearray()  # of a line that is still short
        self._long: _Long | None = None  # a line that is long

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that these bytes complete; a line that is too long even without its texts is left out."""
        *ends, rest = data.split(b"\n")
        for piece in ends:
            self._take(piece)
            line = bytes(self._start) if self._long is None else self._long.line()
            self._start.clear()
            self._long = None
            if line.strip():
                yield line
        self._take(rest)

    def _take(self, piece: bytes) -> None:
        if self._long is not None:
            self._long.take(piece)
        elif len(self._start) + len(piece) <= _WHOLE:
            self._start += piece
        else:
            self._long = _Long()
            self._long.take(bytes(self._start))
            self._long.take(piece)
            self._start.clear()


class _Long:
    """A line of which long texts are left out as it comes."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.text_at = -1  # where the text begins that is under way, after its quote; -1 outside of a text
        self.is_escaping = False  # the last byte was the backslash of a pair

    def take(self, piece: bytes) -> None:
        """Take in the next bytes."""
        at = 0
        while at < len(piece):
            if self.text_at < 0:
                quote = piece.find(b'"', at)
                stop = len(piece) if quote < 0 else quote + 1
                self._keep(piece[at:stop])
                if quote >= 0:
                    self.text_at = len(self.kept)
                at = stop
                continue
            if self.is_escaping:
                self.is_escaping = False
                self._keep_text(piece[at : at + 1])
                at += 1
                continue
            stop = _TEXT.match(piece, at).end()  # type: ignore[union-attr]  # it also matches nothing
            self._keep_text(piece[at:stop])
            if stop < len(piece):  # a quote, or a backslash that is the last byte
                self.is_escaping = piece[stop] == 0x5C
                if self.is_escaping:
                    self._keep_text(b"\\")
                else:
                    self._end_text()
                stop += 1
            at = stop

    def _keep(self, part: bytes) -> None:
        if len(self.kept) <= _MOST_KEPT:
            self.kept += part

    def _keep_text(self, part: bytes) -> None:
        """Keep a part of a text, as long as it is not longer than any that matters."""
        if len(self.kept) - self.text_at <= _LONGEST_TEXT:
            self._keep(part[: _LONGEST_TEXT + 1])

    def _end_text(self) -> None:
        if len(self.kept) - self.text_at > _LONGEST_TEXT:
            del self.kept[self.text_at :]
        self._keep(b'"')
        self.text_at = -1

    def line(self) -> bytes:
        """What is kept of the line; empty if that is still too long."""
        return bytes(self.kept) if len(self.kept) <= _MOST_KEPT else b""


class Session:
    """What is known of a session."""

    def __init__(self, root: str = "", model: str = "") -> None:
        self.root, self.model = root, model
        self.before: dict[str, int] | None = {}  # the last answer's counts, of an agent that adds up; None if not known
        self.collected: dict[str, int] = {}  # what single requests of the prompt used, if the agent states that
        self.doubt = ""  # why that is not certain
        self.busy_since = 0  # since when it works, in version 2; 0 if it rests


class Prompt(NamedTuple):
    """A prompt that ended: who asked what of whom, and what it used. Times in milliseconds."""

    number: int  # of the prompts of this agent that ended
    client: str
    session: str
    root: str  # the session's directory
    began: int
    ended: int
    rows: tuple[tuple[str, dict[str, int]], ...]  # model and counts; none if the agent did not state them
    reason: str  # why the counts are not known, or not whole; "" if they are


class _Request(NamedTuple):
    """A request to the agent that has no answer yet."""

    method: str
    at: int
    session: str
    value: str = ""  # the directory, or the model


class Meter:
    """Follows both directions. `words`: the agent's command, which names it until `initialize` does."""

    def __init__(self, words: tuple[str, ...] = ()) -> None:
        self.client = next(filter(None, map(_client_in, words)), "unknown")
        self.sessions: dict[str, Session] = {}
        self.open: dict[tuple[str, str], _Request] = {}
        self.count = 0  # of prompts that ended

    def request(self, line: bytes, now: int) -> None:
        """Take in a line to the agent."""
        for message in _messages(line):
            method, params = message.get("method"), untrusted.mapping(message.get("params"))
            if method not in _METHODS or "id" not in message:
                continue
            if len(self.open) >= _MOST_OPEN:
                del self.open[next(iter(self.open))]
            value = untrusted.path(params.get("cwd")) or untrusted.text(params.get("modelId"))
            request = _Request(method, now, untrusted.identity(params.get("sessionId")), value)
            self.open[_key(message["id"])] = request

    def answer(self, line: bytes, now: int) -> Iterator[Prompt]:
        """The prompts that a line of the agent ends."""
        for message in _messages(line):
            if message.get("method") == "session/update":
                params = untrusted.mapping(message.get("params"))
                session = untrusted.identity(params.get("sessionId"))
                yield from self._update(session, untrusted.mapping(params.get("update")), now)
            elif "method" not in message and (request := self.open.pop(_key(message.get("id")), None)):
                yield from self._take_answer(request, message, now)

    def rest(self, now: int) -> Iterator[Prompt]:
        """The prompts that had no answer when the agent ended."""
        for request in self.open.values():
            if request.method == "session/prompt":
                yield self._prompt(request.session, request.at, now, (), "the agent ended before it answered")
        self.open.clear()
        for name, session in self.sessions.items():
            if session.busy_since:
                yield self._prompt(name, session.busy_since, now, (), "the agent ended before it answered")
                session.busy_since = 0

    def _take_answer(self, request: _Request, message: Raw, now: int) -> Iterator[Prompt]:
        result = untrusted.mapping(message.get("result"))
        if request.method == "session/prompt":
            yield from self._end_of(request, message, result, now)
        elif request.method == "initialize":
            if name := client_of(untrusted.mapping(result.get("agentInfo")).get("name")):
                self.client = name
        elif type(message.get("result")) is dict:
            name = untrusted.identity(result.get("sessionId")) or request.session
            session = self._session(name)
            if request.method in _OPENING:
                session.root = request.value or session.root
                if request.method != "session/new":  # it may have used something before
                    session.before = session.before or None
            elif request.method == "session/set_model":
                session.model = request.value or session.model
            session.model = _model_in(result) or session.model

    def _end_of(self, request: _Request, message: Raw, result: Raw, now: int) -> Iterator[Prompt]:
        error = untrusted.mapping(message.get("error"))
        if error:
            if error.get("code") not in _UNPAID:
                yield self._prompt(request.session, request.at, now, (), "the agent answered with an error")
        elif "stopReason" not in result and "messageId" in result:  # version 2: the work has begun
            session = self._session(request.session)
            session.busy_since = session.busy_since or request.at
        else:
            yield self._prompt(request.session, request.at, now, *self._use(request.session, result))

    def _update(self, name: str, update: Raw, now: int) -> Iterator[Prompt]:
        kind = update.get("sessionUpdate")
        if kind == "config_option_update":
            session = self._session(name)
            session.model = _model_in(update) or session.model
        elif kind == "state_update":
            session = self._session(name)
            if update.get("state") in ("running", "requires_action"):
                session.busy_since = session.busy_since or now
            elif update.get("state") == "idle" and session.busy_since:
                began, session.busy_since = session.busy_since, 0
                yield self._prompt(name, began, now, *self._use(name, update))

        elif usage := untrusted.mapping(untrusted.mapping(update.get("_meta")).get("usage")):
            self._collect(name, usage)

    def _collect(self, name: str, usage: Raw) -> None:
        """Take in what one request used (Qwen Code 0.24.4). A session that is loaded shows its old requests again."""
        session = self._session(name)
        is_asked = any(each.session == name and each.method == "session/prompt" for each in self.open.values())
        if not is_asked and not session.busy_since:
            return
        try:
            counts, doubt = counts_of(usage)
        except events.BadRecord as error:
            counts, doubt = {}, str(error)
        session.doubt = session.doubt or doubt
        for field, count in counts.items():
            session.collected[field] = session.collected.get(field, 0) + count

    def _is(self, habit: str) -> bool:
        """Whether the agent is one of those in a list of the catalogue."""
        return self.client in catalog.load("acp")[habit]

    def _session(self, name: str) -> Session:
        if name not in self.sessions and len(self.sessions) >= _MOST_SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        return self.sessions.setdefault(name, Session())

    def _prompt(self, name: str, began: int, ended: int, rows: Rows, reason: str) -> Prompt:
        self.count += 1
        return Prompt(self.count, self.client, name, self._session(name).root, began, ended, rows, reason)

    def _use(self, name: str, answer: Raw) -> tuple[Rows, str]:
        """The counts that an answer states, by model, and why they are not known or not whole."""
        session = self._session(name)
        counts, reason = session.collected, session.doubt
        session.collected, session.doubt = {}, ""
        usage = untrusted.mapping(answer.get("usage"))
        try:
            if usage:
                counts, reason = counts_of(usage)
            elif rows := _rows_of_models(answer):
                return rows, ""
            elif rows := _rows_in_quota(answer):
                return rows, _UNDIVIDED
        except events.BadRecord as error:
            return (), str(error)
        if not usage and not counts:
            return (), reason or "the agent does not state what a prompt used"
        if usage and self._is("adds_up"):
            before, session.before = session.before, counts
            if before is None:
                return (), "the agent states the sum of a session that was continued, and not what it was before"
            new = {field: count - before.get(field, 0) for field, count in counts.items()}
            counts = counts if min(new.values()) < 0 else new  # or it began anew
        if usage and self._is("last_only"):
            reason = "the agent states the last request of a prompt only"
        return ((session.model, {field: count for field, count in counts.items() if count}),), reason


Rows = tuple[tuple[str, dict[str, int]], ...]
_OPENING = ("session/new", "session/load", "session/resume", "session/fork")
_METHODS = (*_OPENING, "initialize", "session/prompt", "session/set_model", "session/set_config_option")
# Errors of a prompt that no model has seen: a wrong request, and a login that is missing (JSON-RPC 2.0; ACP's -32000).
_UNPAID = (-32700, -32600, -32601, -32602, -32000)


def _messages(line: bytes) -> Iterator[Raw]:
    """The messages of a line: one, or those of a batch. None if it is not JSON."""
    try:
        value = untrusted.json_value(line)
    except events.BadRecord:
        return
    yield from filter(None, map(untrusted.mapping, value if isinstance(value, list) else [value]))


def _key(identity: object) -> tuple[str, str]:
    """A request's id: a number and the text of its digits are two."""
    return type(identity).__name__, str(identity)[:200]


# The last of two is Grok Build's.
_NAMES = (
    ("inputTokens",),
    ("outputTokens",),
    ("thoughtTokens", "reasoningTokens"),
    ("cachedReadTokens",),
    ("cachedWriteTokens", "cacheCreationTokens"),
    ("totalTokens",),
)


def counts_of(usage: Raw) -> tuple[dict[str, int], str]:
    """The record's disjoint counts of a `Usage`, and why they are not certain. Raises BadRecord.

    The schema says that the total is the sum of all kinds, so that each stands beside the others. Agents that pass on a
    vendor's counts state input with what a cache gave, and output with the reasoning: the total shows which it is.
    """
    sent, output, thought, read, written, total = (untrusted.count(usage, *names) for names in _NAMES)
    cached, reason = read + written, ""
    for inside, beside in ((False, True), (False, False), (True, False), (True, True)):
        fits = (not inside or cached <= sent) and (beside or thought <= output)
        if fits and total == sent + output + (not inside) * cached + beside * thought:
            break
    else:
        inside, beside, reason = False, True, "the counts do not add up to the total beside them"
    counts = {
        "input_tokens": sent - inside * cached,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": output + beside * thought,
        "reasoning_tokens": thought,
    }
    return counts, reason


def _rows_of_models(answer: Raw) -> Rows:
    """What Grok Build 1.0.41 states of each model, with its subagents. Raises BadRecord."""
    usage = untrusted.mapping(untrusted.mapping(answer.get("_meta")).get("usage"))
    rows = [(untrusted.text(name), counts_of(row)[0]) for name, row in untrusted.mapping(usage.get("modelUsage")).items()]
    return tuple((name, {field: count for field, count in counts.items() if count}) for name, counts in rows)


# Of what Gemini CLI states: its prompts include what a cache gave, and its outputs leave out the reasoning.
_UNDIVIDED = "the agent does not separate cached input, and does not count reasoning"


def _rows_in_quota(answer: Raw) -> Rows:
    """What Gemini CLI 0.61.0 states of each model. Raises BadRecord."""
    quota = untrusted.mapping(untrusted.mapping(answer.get("_meta")).get("quota"))
    rows = []
    for item in untrusted.items(quota.get("model_usage")):
        row = untrusted.mapping(item)
        counts = untrusted.mapping(row.get("token_count"))
        sent, output = (untrusted.count(counts, name) for name in ("input_tokens", "output_tokens"))
        rows.append((untrusted.text(row.get("model")), {"input_tokens": sent, "output_tokens": output}))
    return tuple(rows)


def _model_in(value: Raw) -> str:
    """The model that a session has, as its agent names it; "" if that is no name of a model."""
    name = untrusted.text(untrusted.mapping(value.get("models")).get("currentModelId"))
    for item in untrusted.items(value.get("configOptions")):
        option = untrusted.mapping(item)
        if option.get("category") == "model":
            name = untrusted.text(option.get("currentValue")) or name
    return name


# Around a model's name: Qwen Code's login ("gpt-5.4(openai)", "$runtime|openai|gpt-5.4"), a window ("opus[1m]").
_AROUND = re.compile(r"\A.*\||\([a-z-]+\)|\[[0-9a-z]+\]\Z")
# Names of a choice that the agent makes for each request.
_CHOICES = re.compile(r"(?:default|auto|inherit)(?:\b.*)?\Z")


def billing_of(client: str, name: str) -> tuple[str, str]:
    """The model that a session's choice names, "" if it names none, and the provider if the client puts it before it."""
    provider, slash, model = name.partition("/")
    if not slash or client not in catalog.load("acp")["with_provider"]:
        provider, model = "", name
    model = _AROUND.sub("", model)
    return ("" if _CHOICES.match(model.lower()) else model), provider


def client_of(name: object) -> str:
    """The client that an agent's name stands for; its own name if it is not in the table, "" for none."""
    word = re.sub(r"[^a-z0-9.@/_-]+", "-", untrusted.text(name, 100).strip().lower()).strip("-")
    return str(catalog.load("acp")["agents"].get(word, word))


def _client_in(word: str) -> str:
    """The client that a word of a command names, "" if it is not in the table."""
    name = re.sub(r"@[0-9][^/]*\Z|@latest\Z|\.(?:exe|cmd|js)\Z", "", word.lower())
    agents = catalog.load("acp")["agents"]
    return str(agents.get(name) or agents.get(re.split(r"[\\/]", name)[-1], ""))


def totals(prompt: Prompt, attribution: Raw) -> Iterator[events.Event]:
    """The records of a prompt: a total per model, or one without counts."""
    name = f"usage:{SOURCE}:{prompt.session}:{prompt.began}:{prompt.number}"
    state: dict[str, Any] = {}
    if prompt.reason:
        state = {"usage": "partial" if prompt.rows else "unknown", "usage_reason": prompt.reason}
    for choice, counts in prompt.rows or (("", {}),):
        model, provider = billing_of(prompt.client, choice)
        identity = f"{name}:{model}" if model else name
        ended = when.stamp(prompt.ended)
        began = when.stamp(prompt.began)
        yield read_records.aggregate(began, identity, attribution, model, counts, provider, observed_at=ended, **state)
