"""Reads Droid's sessions and returns a total per session.

Droid keeps one `<session>.settings.json` per session. Its `tokenUsage` is the session's sum so far. The transcript
beside it, `<session>.jsonl`, has the working directory and no counts. `inputTokens` excludes cached input (a live
session of September 2026: 1048 of 11800). `inclusiveTokenUsage` adds the subagents, which have their own files. Factory
bills in credits, which are not dollars and are left out.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tokenops import events, jsonl, price_names, read_lines, read_records, regular, untrusted, when
from tokenops.read_contract import FileReader, Intake

SOURCE = "droid"
CLIENT = "droid"

_ENDING = ".settings.json"
_HEAD = 1 << 20  # of a transcript: its first line has the directory, its second the first time
# The model of a user's own key is shown as custom:<name>-[<owner>]-<slot>.
_SLOT = re.compile(r"[-\s]*\[[^\]]*\](?:-\d+)?\Z")
_MODEL = re.compile(rb"Model:[ \t]*([A-Za-z0-9][\w.:/-]{1,80})")
_UNDATED = "the session's start is not recorded: dated by the last change of its file"


def files(home: str) -> Iterator[str]:
    """The sessions of a Factory home, or of its `sessions` directory."""
    nested = os.path.join(home, "sessions")
    for path in read_lines.walk(nested if os.path.isdir(nested) else home):
        if path.endswith(_ENDING):
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is a session's settings."""
    return path.endswith(_ENDING) and (b'"tokenUsage"' in head or b'"providerLock"' in head)


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The total of one session. Raises OSError, BadRecord."""
    changed = when.stamp(max(os.stat(path).st_mtime_ns // 1_000_000, 0))
    settings = read_lines.document(path, cursor)
    session = os.path.basename(path).removesuffix(_ENDING)
    usage = usage_of(settings)
    counts = counts_of(usage)
    if not counts:
        return
    talk = path.removesuffix(_ENDING) + ".jsonl"
    opening = transcript(talk)
    began = min(filter(None, (_moment(settings.get("providerLockTimestamp")), opening.began)), default="")
    folder = os.path.basename(os.path.dirname(path))
    attribution = intake.attribution(SOURCE, CLIENT, opening.root, "" if folder == "sessions" else folder, session)
    if is_subagent(settings):
        attribution["sidechain"] = True
    intake.location = path
    yield read_records.aggregate(
        began or changed,
        f"usage:droid:{session}",
        attribution,
        own_model(path, settings.get("model")) or model_of(settings.get("model")) or model_in(b"".join(beginning(talk))),
        counts,
        "factory",
        observed_at=changed,
        caveat="" if began else _UNDATED,
        **unsure(usage, counts),
    )


def usage_of(settings: untrusted.Raw) -> untrusted.Raw:
    """The session's own sum. Raises BadRecord where only the sum with its subagents is given."""
    if type(settings.get("tokenUsage")) is dict or type(settings.get("inclusiveTokenUsage")) is not dict:
        return untrusted.mapping(settings.get("tokenUsage"))
    if untrusted.mapping(settings.get("childInclusiveTokenUsageBySessionId")):
        raise events.BadRecord(
            "only a total that includes subagents is given, and subagents are counted separately; skipped"
        )
    return untrusted.mapping(settings["inclusiveTokenUsage"])


def counts_of(usage: untrusted.Raw) -> dict[str, int]:
    """The record's disjoint counts. Raises BadRecord.

    A total shows which counts include others. Without one, the input does not include cached input, and the output includes
    thinking, as in the vendors' own counts, unless there is more thinking than output.
    """
    sent, output, thinking = (untrusted.count(usage, name) for name in ("inputTokens", "outputTokens", "thinkingTokens"))
    written, read = untrusted.count(usage, "cacheCreationTokens"), untrusted.count(usage, "cacheReadTokens")
    total = untrusted.count(usage, "totalTokens")
    if not any((sent, output, thinking, written, read)):
        if total:
            raise events.BadRecord("only a total is given, so input and output are unknown")
        return {}
    kept = written + read
    for inside, beside in itertools.product((False, True), (thinking > output, True)):
        if (not inside or kept <= sent) and total == sent + output + (not inside) * kept + beside * thinking:
            break
    else:
        inside, beside = False, thinking > output
    counts = {
        "input_tokens": sent - inside * kept,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": output + beside * thinking,
        "reasoning_tokens": thinking,
    }
    return {name: count for name, count in counts.items() if count}


def unsure(usage: untrusted.Raw, counts: untrusted.Raw) -> dict[str, str]:
    """What to say of counts that do not add up to the total beside them."""
    total = untrusted.count(usage, "totalTokens")
    if not total or events.token_sum(dict(counts)) == total:
        return {}
    return {"usage": "partial", "usage_reason": "the counts do not add up to the total beside them"}


def is_subagent(settings: untrusted.Raw) -> bool:
    """Whether another session called this one."""
    tags = (untrusted.mapping(tag) for tag in untrusted.items(settings.get("tags")))
    return any(untrusted.mapping(tag.get("metadata")).get("callingSessionId") for tag in tags)


def model_of(value: object) -> str:
    """A model's name without what Droid puts around the name of a user's own."""
    name = untrusted.text(value).strip()
    if not name.startswith("custom:"):
        return name
    return re.sub(r"\s+", "-", _SLOT.sub("", name.removeprefix("custom:")).strip()).lower()


def own_model(path: str, value: object) -> str:
    """The model behind the name of a user's own, which is its name on screen and its place in the list of such models.

    The list is in the settings of the home that the session is below; empty if it has no such model. Droid 0.225.2 names
    the second model of the list, shown as Model A, custom:Model-A-1 (2026-12).
    """
    name = untrusted.text(value)
    folder = os.path.dirname(path)
    for _ in range(3 if name.startswith("custom:") else 0):
        folder = os.path.dirname(folder)
        with contextlib.suppress(OSError, events.BadRecord):
            settings = read_lines.document(os.path.join(folder, "settings.json"), read_lines.Cursor())
            for index, item in enumerate(untrusted.items(settings.get("customModels"))):
                entry = untrusted.mapping(item)
                if name == "custom:" + re.sub(r"\s+", "-", f"{untrusted.text(entry.get('displayName'))}-{index}"):
                    return untrusted.text(entry.get("model"))
    return ""


class Transcript(NamedTuple):
    """What the beginning of a session's transcript holds."""

    root: str = ""
    began: str = ""


def transcript(path: str) -> Transcript:
    """The beginning of a transcript; empty if there is none."""
    root = began = ""
    for line in itertools.islice(beginning(path), 500):
        for record in jsonl.parse(line, lambda why: None):
            root = root or untrusted.path(record.get("cwd"))
            began = began or _moment(record.get("timestamp"))
        if root and began:
            break
    return Transcript(root, began)


def beginning(path: str) -> Iterator[bytes]:
    """The first lines of a file, read as needed; none if there is no file."""
    with contextlib.suppress(OSError), open(path, "rb", opener=regular.opener) as file:
        while file.tell() < _HEAD and (line := file.readline(_HEAD)):
            yield line


def model_in(head: bytes) -> str:
    """The model that the client's own instructions name. Only names of known families: a prompt may say "Model:" too."""
    names = (match[1].decode() for match in _MODEL.finditer(head))
    return next((name for name in names if price_names.provider_of(name)), "")


def _moment(value: Any) -> str:
    try:
        return untrusted.moment(value)
    except events.BadRecord:
        return ""


READER = FileReader(SOURCE, CLIENT, files, claims, read)
