"""Reads Grok Build's sessions and returns a total per prompt and model.

A session is a folder. `updates.jsonl` has a line `turn_completed` at the end of each prompt, with what its requests used,
by model; `summary.json` has the directory and the kind of session. Sessions that keep only `usage.json` have the same
counts there. `inputTokens` includes what was read from the cache and written to it, `outputTokens` the reasoning. (Seen
in Grok Build 1.0.41 on 2026-11-29; its source, xai-grok-shell/src/session, as of November 2026.)

What a subagent used is in the total of the prompt that started it. So the subagents' own sessions, which have the same
counts again, are not counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from tokenops import events, price_names, read_lines, read_records, untrusted, when
from tokenops.read_contract import FileReader, Intake

SOURCE = "grok-build"
CLIENT = "grok-build"

_UPDATES, _USAGE, _SUMMARY = "updates.jsonl", "usage.json", "summary.json"
_RELEVANT = read_lines.containing(b'"turn_completed"')
_COUNTS = ("inputTokens", "outputTokens", "cachedReadTokens", "cacheCreationTokens", "reasoningTokens", "modelCalls")
_TICKS = Decimal(10_000_000_000)  # to the dollar, in xAI's `cost_in_usd_ticks` (docs.x.ai, November 2026)
_MOST_ANCESTORS = 20
_MONTH_MS = 31 * 86_400_000  # a prompt that is said to have taken longer began at an unknown time


class Session(NamedTuple):
    """What a session's summary holds."""

    name: str = ""
    root: str = ""
    model: str = ""
    kind: str = ""  # headless, fork, subagent, subagent_fork, ...
    source: str = ""  # the session that it was forked from
    began: str = ""  # when it was forked


class Prompt(NamedTuple):
    """What one prompt used."""

    name: str  # unique, or unique in its session
    is_unique: bool
    began: str
    ended: str
    usage: untrusted.Raw
    session: str  # as the file says


def files(home: str) -> Iterator[str]:
    """The updates of each session of a Grok home, or of its `sessions`; of a session without them its sums."""
    nested = os.path.join(home, "sessions")
    for path in read_lines.walk(nested if os.path.isdir(nested) else home):
        name = os.path.basename(path)
        if name == _UPDATES or (name == _USAGE and not os.path.exists(os.path.join(os.path.dirname(path), _UPDATES))):
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file holds the updates or the sums of a session."""
    name = os.path.basename(path)
    if name == _UPDATES:
        return b'"sessionUpdate"' in head and b'"params"' in head
    return name == _USAGE and b'"turns"' in head and b'"modelCalls"' in head


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The totals of a session's prompts from the cursor on. Raises OSError, BadRecord."""
    folder = os.path.dirname(path)
    lineage, directory = list(_lineage(folder)), _directory_in(folder)
    is_subagent = lineage[0].kind.startswith("subagent")
    prompts = _updates if os.path.basename(path) == _UPDATES else _sums
    for location, prompt in prompts(path, cursor, intake):
        if is_subagent:
            continue
        name = read_records.owner_of(prompt.ended, [(each.name, each.began) for each in lineage]) or prompt.session
        owner = next((each for each in lineage if each.name == name and each.root), lineage[0])
        attribution = intake.attribution(SOURCE, CLIENT, owner.root or directory, "", name)
        try:
            rows = list(rows_of(prompt.usage, owner.model))
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")
            continue
        key = prompt.name if prompt.is_unique else f"{name}:{prompt.name}"
        named: set[str] = set()
        for model, row in rows:
            intake.location = location
            part = f"{model}:rest" if model in named else model  # the rest may be of a model that has a row
            named.add(model)
            total = read_records.aggregate(
                prompt.began,
                f"usage:{CLIENT}:{key}:{part}",
                attribution,
                model,
                counts_of(row),
                observed_at=prompt.ended,
                **_unsure(prompt.usage),
                **_cost(row),
            )
            yield with_biller(total)


def _updates(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[tuple[str, Prompt]]:
    """Location and prompt of each line that ends one. Raises OSError."""
    for location, line in read_lines.records(path, cursor, _RELEVANT, intake.on_bad_line):
        params = untrusted.mapping(line.get("params"))
        update = untrusted.mapping(params.get("update"))
        if update.get("sessionUpdate") != "turn_completed" or not untrusted.mapping(update.get("usage")):
            continue
        at = untrusted.mapping(params.get("_meta")).get("agentTimestampMs")
        try:
            ended = untrusted.moment(line.get("timestamp") if at is None else at, "timestamp")
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")
            continue
        session = untrusted.identity(params.get("sessionId")) or os.path.basename(os.path.dirname(path))
        name = untrusted.identity(update.get("prompt_id"))
        usage = untrusted.mapping(update["usage"])
        yield location, Prompt(name or ended, bool(name), _began(update, ended), ended, usage, session)


def _began(update: untrusted.Raw, ended: str) -> str:
    """When a prompt began."""
    took = update.get("elapsed_ms")
    if not isinstance(took, (int, float)) or not 0 < took < _MONTH_MS:
        return ended
    return when.stamp(when.moment(ended) - int(took))


def _sums(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[tuple[str, Prompt]]:
    """Location and prompt of each of a session that keeps only its sums. Raises OSError, BadRecord."""
    document = read_lines.document(path, cursor)
    session = untrusted.identity(document.get("sessionId")) or os.path.basename(os.path.dirname(path))
    for number, item in enumerate(untrusted.items(document.get("turns"))):
        turn, location = untrusted.mapping(item), f"{path}:turns[{number}]"
        try:
            ended = untrusted.moment(turn.get("endedAt"), "endedAt")
            name = str(untrusted.count(turn, "turnNumber") or number + 1)
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")
            continue
        yield location, Prompt(name, False, ended, ended, turn, session)


def rows_of(usage: untrusted.Raw, model: str) -> Iterator[tuple[str, untrusted.Raw]]:
    """What each model used of a prompt, and what no model is named for, which is `model`'s. Raises BadRecord."""
    rest = {name: untrusted.count(usage, name) for name in _COUNTS}
    own = {name: row for name, row in untrusted.mapping(usage.get("modelUsage")).items() if type(row) is dict}
    for name, row in own.items():
        for count in _COUNTS:
            rest[count] = max(rest[count] - untrusted.count(row, count), 0)
        if counts_of(row).keys() - {"turns"}:
            yield untrusted.text(name), row
    if counts_of(rest).keys() - {"turns"}:
        cost = {} if own else {name: usage.get(name) for name in ("costUsdTicks", "costIsPartial")}
        yield untrusted.text(usage.get("primaryModelId")) or model, {**rest, **cost}


def counts_of(row: untrusted.Raw) -> dict[str, int]:
    """The record's disjoint counts. Raises BadRecord."""
    sent, output, read_, written, thought, calls = (untrusted.count(row, name) for name in _COUNTS)
    return ({"turns": calls} if calls else {}) | read_records.counts_of(sent, read_, written, output, thought)


def with_biller(fields: events.Event) -> events.Event:
    """Fields of a record of Grok Build, with who bills: xAI its own models; others come from any address it is given."""
    own = price_names.provider_of(fields["model"]) == "xai"
    biller = {"provider": "xai", "provider_inferred": True} if own else {}
    return events.arrange({k: v for k, v in fields.items() if k not in ("provider", "provider_inferred")} | biller)


def _unsure(usage: untrusted.Raw) -> dict[str, str]:
    """What to say of a prompt that was cut, or whose subagents went on after it."""
    if usage.get("usageIsIncomplete") is not True:
        return {}
    return {"usage": "partial", "usage_reason": "the client says that its counts are not complete"}


def _cost(row: untrusted.Raw) -> dict[str, str]:
    """The vendor's own cost, if all requests stated one."""
    ticks = row.get("costUsdTicks")
    if type(ticks) is not int or row.get("costIsPartial") is True:
        return {}
    cost = untrusted.usd(ticks / _TICKS)
    return {"cost_usd": cost, "cost_source": "reported"} if cost else {}


def _lineage(folder: str) -> Iterator[Session]:
    """A session, the one that it was forked from, and so on; their folders are beside each other."""
    own = summary(os.path.join(folder, _SUMMARY))
    yield own
    seen = {own.name}
    while own.source not in ("", *seen) and os.path.basename(own.source) == own.source and len(seen) < _MOST_ANCESTORS:
        name = own.source
        seen.add(name)
        own = summary(os.path.join(os.path.dirname(folder), name, _SUMMARY))._replace(name=name)
        yield own


def summary(path: str) -> Session:
    """What is kept of a session beside its updates; nothing if that is missing or damaged.

    Only of a fork it is told where it came from and when: it begins with a copy of its source's updates.
    """
    try:
        value = read_lines.document(path, read_lines.Cursor())
    except (OSError, events.BadRecord):
        return Session()
    info, kind = untrusted.mapping(value.get("info")), untrusted.text(value.get("session_kind"))
    forked = kind == "fork"
    try:
        began = untrusted.moment(value.get("created_at"), "created_at") if forked else ""
    except events.BadRecord:
        began = ""
    return Session(
        untrusted.identity(info.get("id")),
        untrusted.path(info.get("cwd")) or untrusted.path(value.get("git_root_dir")),
        untrusted.text(value.get("current_model_id")),
        kind,
        untrusted.identity(value.get("parent_session_id")) if forked else "",
        began,
    )


def _directory_in(folder: str) -> str:
    """The directory of a session, which is the name of the folder above its own, percent-encoded; "" if it is not."""
    from urllib.parse import unquote  # 3 ms that most runs need not wait for

    name = untrusted.path(unquote(os.path.basename(os.path.dirname(folder)), errors="replace"))
    return name if os.path.isabs(name) or name[1:3] in (":\\", ":/") else ""


READER = FileReader(SOURCE, CLIENT, files, claims, read)
