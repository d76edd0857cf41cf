"""Reads Claude Code's stats-cache.json and returns totals to compare with.

Claude Code keeps the file for its own /stats: per day and model the sum of input and output, and per model the sums of all
kinds since the first session. It counts a message once for each of its lines in a transcript, and older versions leave
subagents out. So its totals are never added to anything (`covers` is account).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from tokenops import events, read_lines, read_records, untrusted, when
from tokenops.read_contract import FileReader, Intake

SOURCE = "claude-code-stats-cache"
CLIENT = "claude-code"

_NAME = "stats-cache.json"
_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z")
_CAVEAT = (
    "Claude Code's own sum: a message counts once per line of its transcript (2.5 to 3.9 times too much where measured), "
    "in older versions without subagents"
)
_KINDS = {
    "input_tokens": "inputTokens",
    "cache_read_tokens": "cacheReadInputTokens",
    "cache_write_tokens": "cacheCreationInputTokens",
    "output_tokens": "outputTokens",
    "web_searches": "webSearchRequests",
}


def files(config: str) -> Iterator[str]:
    """The file of a configuration directory, or of the one around its `projects` directory."""
    for folder in (config, os.path.dirname(os.path.normpath(config))):
        path = os.path.join(folder, _NAME)
        if os.path.isfile(path):
            yield path
        if os.path.basename(os.path.normpath(config)) != "projects":
            return


def claims(path: str, head: bytes) -> bool:
    """Whether a file is a stats cache."""
    return os.path.basename(path) == _NAME or (b'"dailyModelTokens"' in head and b'"lastComputedDate"' in head)


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The totals of each day and model, or of each model where no days are given. Raises OSError, BadRecord."""
    stats = read_lines.document(path, cursor)
    if not stats.keys() & {"dailyModelTokens", "modelUsage"}:
        raise events.BadRecord("not a stats cache of Claude Code: it has neither dailyModelTokens nor modelUsage; skipped")
    attribution = intake.attribution(SOURCE, CLIENT, "", "", "")
    for location, date, model, sums in _sums(path, stats):
        try:
            name = untrusted.text(model)
            if not name:
                raise events.BadRecord("a model without a name")
            event = of_day(date, name, sums, attribution) if date is not None else of_model(stats, name, sums, attribution)
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")
            continue
        if event:
            intake.location = location
            yield event


def _sums(path: str, stats: untrusted.Raw) -> Iterator[tuple[str, object, str, untrusted.Raw]]:
    """Place, date (None: all of them), model and sums. Lifetime sums hold the days' again, so only one kind is given."""
    days = untrusted.items(stats.get("dailyModelTokens"))
    for number, item in enumerate(days):
        day = untrusted.mapping(item)
        for model, tokens in untrusted.mapping(day.get("tokensByModel")).items():
            yield f"{path}:dailyModelTokens[{number}]", day.get("date") or "", model, {"tokens": tokens}
    if not days:
        for model, sums in untrusted.mapping(stats.get("modelUsage")).items():
            yield f"{path}:modelUsage", None, model, untrusted.mapping(sums)


def of_day(date: object, model: str, sums: untrusted.Raw, attribution: untrusted.Raw) -> events.Event | None:
    """A day's record: input and output are given as one number, and how much of it is which is unknown. Raises BadRecord."""
    tokens = untrusted.count(sums, "tokens")
    if type(date) is not str or not _DAY.match(date):
        raise events.BadRecord("date is not a day")
    begins = untrusted.moment(f"{date}T00:00:00Z", "date")
    ends = when.stamp(when.moment(begins) + when.DAY)
    if not tokens:
        return None
    return read_records.aggregate(
        begins,
        f"usage:claude-code:stats-cache:{date}:{model}",
        attribution,
        model,
        {},
        covers="account",
        until=ends,
        observed_at=ends,  # constant, so that a file rewritten each day adds only the new day to the log
        usage="partial",
        total_tokens=tokens,
        caveat=_CAVEAT,
    )


def of_model(stats: untrusted.Raw, model: str, sums: untrusted.Raw, attribution: untrusted.Raw) -> events.Event | None:
    """A model's record since the first session. Raises BadRecord."""
    counts = {name: untrusted.count(sums, key) for name, key in _KINDS.items()}
    begins = untrusted.moment(stats.get("firstSessionDate"), "firstSessionDate")
    last = stats.get("lastComputedDate")
    is_day = type(last) is str and _DAY.match(last)
    ends = when.stamp(when.moment(untrusted.moment(f"{last}T00:00:00Z", "lastComputedDate")) + when.DAY) if is_day else ""
    if not any(counts.values()):
        return None
    return read_records.aggregate(
        begins,
        f"usage:claude-code:stats-cache:{model}",
        attribution,
        model,
        counts,
        covers="account",
        until=ends,
        observed_at=ends,
        caveat=_CAVEAT,
    )


READER = FileReader(SOURCE, CLIENT, files, claims, read)
