"""Reads the sessions of Cline's CLI and SDK and returns turns.

A session is a folder with a file of messages for the session itself (`<session>.messages.json`) and one for each of its
subagents and teammates, all rewritten as a whole; `<session>.json` has the directory, the branch and the first model.
An answer's `metrics` are those of its request: `inputTokens` includes what was read from the cache and written to it.
(Seen in Cline CLI 3.0.65 on 2026-11-29; Cline's source, sdk/packages/core/src/session and packages/llms/src/providers,
as of November 2026.)

The client may give a message a new name when a session is resumed or forked, and keeps its time. So a request is known
by its time and its prompt counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tokenops import events, read_lines, read_records, untrusted
from tokenops.read_contract import FileReader, Intake

SOURCE = "cline"
CLIENT = "cline"

_ENDING = ".messages.json"
_LEAD = "lead"
# What the user's configuration calls an address of their own: the model tells who bills.
_PROTOCOLS = frozenset(("openai-compatible", "openai-legacy"))
_MOST_ANCESTORS = 20


class Session(NamedTuple):
    """What a session's manifest holds."""

    root: str = ""
    branch: str = ""
    model: str = ""
    provider: str = ""
    source: str = ""  # the session that it was forked from
    began: str = ""  # when it was forked; "" if it was not


class Chain(NamedTuple):
    """Whose messages a file holds."""

    session: str  # of the whole, also for a subagent
    kind: str = ""  # subagent or teammate; "" for the session itself
    name: str = ""  # of the subagent


def files(home: str) -> Iterator[str]:
    """The files of messages of a data directory, or of its `sessions` directory."""
    nested = os.path.join(home, "sessions")
    for path in read_lines.walk(nested if os.path.isdir(nested) else home):
        if path.endswith(_ENDING):
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file holds the messages of a session."""
    return path.endswith(_ENDING) and b'"messages"' in head and b'"sessionId"' in head


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one file of messages. Raises OSError, BadRecord."""
    document = read_lines.document(path, cursor)
    chain = chain_of(path, document)
    before: untrusted.Raw = {}
    lineage = dict(_lineage(os.path.dirname(path), chain.session))
    for number, item in enumerate(untrusted.items(document.get("messages"))):
        message, earlier = untrusted.mapping(item), before
        before = message
        if message.get("role") != "assistant":
            continue
        location = f"{path}:messages[{number}]"
        try:
            counts = counts_of(untrusted.mapping(message.get("metrics")))
            if not counts:
                continue
            ended = untrusted.moment(message["ts"] if message.get("ts") is not None else earlier.get("ts"), "ts")
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")
            continue
        intake.location = location
        yield _turn(message, counts, (_began(earlier, ended), ended), chain, lineage, intake)


def _turn(
    message: untrusted.Raw,
    counts: dict[str, int],
    times: tuple[str, str],
    chain: Chain,
    lineage: Mapping[str, Session],
    intake: Intake,
) -> events.Event:
    """The record of an answer. `times`: when its request was sent, and when it ended."""
    own = lineage[chain.session]
    name = read_records.owner_of(times[1], [(name, session.began) for name, session in lineage.items()])
    owner = lineage[name] if lineage[name].root else own
    attribution = intake.attribution(SOURCE, CLIENT, owner.root, "", name)
    if chain.kind:
        attribution["sidechain"] = True
    model = untrusted.mapping(message.get("modelInfo"))
    provider = untrusted.text(model.get("provider")) or own.provider
    cost = untrusted.usd(untrusted.mapping(message.get("metrics")).get("cost"))
    prompt = (counts.get(count, 0) for count in ("input_tokens", "cache_read_tokens", "cache_write_tokens"))
    return read_records.turn(
        times[0],
        f"{CLIENT}:{events.digest(times[1], chain.name, *prompt)}",
        attribution,
        untrusted.text(model.get("id")) or own.model,
        counts,
        "" if provider in _PROTOCOLS else provider,
        name,
        cost_usd=cost,
        cost_source=cost and "client",
        subagent=chain.kind,
        branch=owner.branch,
    )


def chain_of(path: str, document: untrusted.Raw) -> Chain:
    """Whose messages a file holds: a subagent's file is beside that of its session, in the session's folder."""
    stem = os.path.basename(path).removesuffix(_ENDING)
    folder = os.path.basename(os.path.dirname(path))
    name = untrusted.identity(document.get("sessionId")) or stem
    kind = untrusted.tag(document.get("agent")) or (_LEAD if stem in (folder, name) else "subagent")
    if kind == _LEAD:
        return Chain(name)
    parent = untrusted.identity(untrusted.mapping(document.get("origin")).get("parentThreadId")) or name
    for session in (name, parent):
        if session == folder or session.startswith(f"{folder}__"):
            return Chain(folder, kind, stem)
    return Chain(parent.partition("__")[0] or parent, kind, stem)


def manifest(path: str) -> Session:
    """What is kept beside a session's messages; nothing if that is missing or damaged."""
    try:
        value = read_lines.document(path, read_lines.Cursor())
    except (OSError, events.BadRecord):
        return Session()
    metadata = untrusted.mapping(value.get("metadata"))
    fork = untrusted.mapping(metadata.get("fork"))
    return Session(
        untrusted.path(value.get("cwd")) or untrusted.path(value.get("workspace_root")),
        untrusted.tag(untrusted.mapping(metadata.get("git")).get("branch")),
        untrusted.text(value.get("model")),
        untrusted.text(value.get("provider")),
        untrusted.identity(fork.get("forkedFromSessionId")),
        _moment(fork.get("forkedAt")) if fork else "",
    )


def _lineage(folder: str, name: str) -> Iterator[tuple[str, Session]]:
    """A session, the one that it was forked from, and so on; their folders are beside each other."""
    seen: set[str] = set()
    while name not in seen and len(seen) < _MOST_ANCESTORS:
        own = manifest(os.path.join(folder, f"{name}.json")) if os.path.basename(name) == name else Session()
        yield name, own
        seen.add(name)
        if not own.source:
            return
        name = own.source
        folder = os.path.join(os.path.dirname(folder), os.path.basename(name))


def counts_of(metrics: untrusted.Raw) -> dict[str, int]:
    """The record's disjoint counts; none for a request that used nothing. Raises BadRecord."""
    sent, output = untrusted.count(metrics, "inputTokens"), untrusted.count(metrics, "outputTokens")
    read_, written = untrusted.count(metrics, "cacheReadTokens"), untrusted.count(metrics, "cacheWriteTokens")
    thought = untrusted.count(metrics, "reasoningTokenCount")
    return read_records.counts_of(sent, read_, written, output, thought)


def _began(earlier: untrusted.Raw, ended: str) -> str:
    """When a request was sent: when the prompt or the result before its answer was written."""
    sent = _moment(earlier.get("ts")) if earlier.get("role") == "user" else ""
    return sent if "" < sent <= ended else ended


def _moment(value: object) -> str:
    try:
        return untrusted.moment(value)
    except events.BadRecord:
        return ""


READER = FileReader(SOURCE, CLIENT, files, claims, read)
