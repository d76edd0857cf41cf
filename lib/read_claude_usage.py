"""Reads Claude Code's cache of its plan's usage and returns meter readings.

The cache is `cachedUsageUtilization` in `.claude.json`, the only file with the weekly limit of one model. Claude Code
refreshes it irregularly; `observed_at` is the time in the cache itself (several independent tools, 2026; undocumented).
Nothing else in the file is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from tokenops import events, projects, read_lines, untrusted, wire_limits
from tokenops.read_contract import FileReader, Intake

SOURCE = "claude-code-usage-cache"
CLIENT = "claude-code"


def files(home: str) -> Iterator[str]:
    """The file of a directory."""
    path = os.path.join(home, ".claude.json")
    if os.path.isfile(path):
        yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is one of these."""
    return os.path.basename(path) == ".claude.json"


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The readings of the cache. Raises OSError, BadRecord."""
    document = read_lines.document(path, cursor)
    cache = untrusted.mapping(document.get("cachedUsageUtilization"))
    fetched = cache.get("fetchedAtMs")
    if fetched is None:
        return
    owner = untrusted.mapping(document.get("oauthAccount"))
    name = untrusted.identity(owner.get("organizationUuid")) or untrusted.identity(
        cache.get("accountUuid") or owner.get("accountUuid")
    )
    fields = {
        "client": CLIENT,
        "account": projects.hash_path(name, intake.options.salt) if name and intake.options.salt else None,
        "plan": untrusted.text(owner.get("organizationRateLimitTier"), 60) or None,
    }
    intake.location = path
    observed = untrusted.moment(fetched, "cachedUsageUtilization.fetchedAtMs")
    yield from wire_limits.anthropic_usage(untrusted.mapping(cache.get("utilization")), SOURCE, observed, **fields)


READER = FileReader(SOURCE, CLIENT, files, claims, read)
