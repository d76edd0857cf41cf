"""Says which files of a home directory may be asked of another machine: clients' logs, and what lies beside them.

Everything else stays there, above all files with credentials or settings. What a reader would look up in these stays
unknown, such as the model of kimi-cli, which is in a file that may hold a key.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

from tokenops.read_clients import BY_NAME, CLIENTS, Client


class Patterns(NamedTuple):
    """Paths below a client's directory: `*` stands for any characters of one name, `**/` for any directories.

    `beside`: small files that the reader looks into; they are asked for along with a log.
    """

    logs: tuple[str, ...]
    beside: tuple[str, ...] = ()


def _database(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{ending}" for name in names for ending in ("", WAL))


# As Gemini CLI and Crush call theirs.
_REGISTER = "projects.json"
WAL = "-wal"  # what was written to a SQLite database and is not in it yet
# By the client's name for tok-read. `claude-usage` reads a file that may hold a key.
PATTERNS = {
    "claude": Patterns(
        ("projects/**/*.jsonl", "*/*/local_*/.claude/projects/**/*.jsonl"),
        ("projects/**/*.meta.json", "*/*/local_*/.claude/projects/**/*.meta.json"),
    ),
    "codex": Patterns(
        (
            "sessions/**/*.jsonl",
            "sessions/**/*.jsonl.zst",
            "archived_sessions/**/*.jsonl",
            "archived_sessions/**/*.jsonl.zst",
        )
    ),
    "opencode": Patterns(
        (*_database("opencode*.db"), "storage/message/*/*.json"), ("storage/session/*/*.json", "storage/part/*/*.json")
    ),
    "gemini": Patterns(
        ("tmp/**/chats/**/*.json", "tmp/**/chats/**/*.jsonl"),
        ("tmp/*/.project_root", _REGISTER, "trustedFolders.json"),
    ),
    "copilot": Patterns(
        (*_database("session-store.db"), "session-state/*.jsonl", "session-state/*/events.jsonl", "otel/**/*.jsonl")
    ),
    "qwen": Patterns(("projects/*/chats/**/*.jsonl",)),
    "kimi": Patterns(
        ("sessions/**/wire.jsonl",), ("sessions/*/*/state.json", "sessions/**/meta.json", "kimi.json", "session_index.jsonl")
    ),
    "kilo": Patterns((*_database("kilo*.db"), "tasks/*/ui_messages.json"), ("tasks/*/api_conversation_history.json",)),
    "cline": Patterns(("sessions/**/*.messages.json",), ("sessions/*/*.json",)),
    "grok": Patterns(("sessions/*/*/updates.jsonl", "sessions/*/*/usage.json"), ("sessions/*/*/summary.json",)),
    "vibe": Patterns(
        ("logs/session/unified/*/journal/*.jsonl", "logs/session/unified/*/generations/*/projection-state.json"),
        ("logs/session/unified/*/meta.json",),
    ),
    "zed": Patterns(_database("threads.db")),
    "crush": Patterns(_database("crush.db")),
    "amp": Patterns(("threads/T-*.json",)),
    "droid": Patterns(("sessions/**/*.settings.json",), ("sessions/**/*.jsonl",)),
    "goose": Patterns(_database("sessions.db")),
    "hermes": Patterns(_database("state.db", "profiles/*/state.db")),
    "pi": Patterns(("sessions/**/*.jsonl",)),
    "openclaw": Patterns(
        ("agents/*/sessions/**/*.jsonl*", "sessions/**/*.jsonl*", *_database("agents/*/agent/openclaw-agent.sqlite"))
    ),
    "cursor": Patterns(("*.csv",)),
    "stats-cache": Patterns(("stats-cache.json",)),
}
# Names that are never asked for, whatever a pattern says.
_SECRET = re.compile(
    r"(?:\.env.*|.*\.(?:pem|key|p12|pfx)|id_[a-z0-9]+|\.?credentials?\b.*|.*oauth.*\.json|auth\.json|settings(?:\.local)?\.json|"
    r"config\.(?:toml|json|ya?ml)|\.claude\.json|\.netrc|.*tokens?\.json|secrets?\b.*)\Z",
    re.IGNORECASE,
)
_ABOVE = {"$XDG_CONFIG_HOME": ".config", "$XDG_DATA_HOME": ".local/share"}


def homes(client: Client) -> list[str]:
    """The usual directories of a client, relative to a home directory."""
    paths = []
    for part in client.homes if client.name in PATTERNS else ():
        variable, _, rest = part.partition("/")
        paths.append(posixpath.normpath(posixpath.join(_ABOVE.get(variable, variable), rest)))
    return paths


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*)", pattern)
    return "".join({"**/": r"(?:[^/]+/)*", "*": r"[^/]*"}.get(part, re.escape(part)) for part in parts)


@functools.cache
def _matcher(name: str) -> re.Pattern[str]:
    client, (logs, beside) = BY_NAME[name], PATTERNS[name]
    roots = "|".join(map(re.escape, homes(client)))
    groups = ("|".join(map(_expression, patterns)) or r"(?!)" for patterns in (logs, beside))
    return re.compile(r"(?:{})/(?:(?P<log>{})|(?P<beside>{}))\Z".format(roots, *groups))


def clients_of(path: str) -> list[Client]:
    """The clients that a file below a home directory may be asked for; none if it stays where it is."""
    if _SECRET.match(posixpath.basename(path)):
        return []
    return [client for client in CLIENTS if client.name in PATTERNS and _matcher(client.name).match(path)]


def is_log(client: Client, path: str) -> bool:
    """Whether a file below a home directory is a log of a client, and not only looked into."""
    match = _matcher(client.name).match(path)
    return match is not None and match["log"] is not None


def searches() -> dict[str, list[str]]:
    """What to look for: by directory relative to a home, the names of files, with `*` for any characters."""
    names: dict[str, dict[str, None]] = {}
    for client in CLIENTS:
        for home in homes(client):
            last = [pattern.rpartition("/")[2] for patterns in PATTERNS[client.name] for pattern in patterns]
            names.setdefault(home, {}).update(dict.fromkeys(last))
    return {home: list(some) for home, some in names.items()}


def companions(logs: Iterable[str], beside: Iterable[str]) -> set[str]:
    """The files beside that a reader may look into when it reads some logs.

    Those in the directory of a log or above it, and those whose name, or the name of a directory of theirs, is that of a log
    or of its directory.
    """
    above: set[str] = set()
    names: set[str] = set()
    for path in logs:
        folder = posixpath.dirname(path)
        names.update((stem(path), posixpath.basename(folder)))
        while folder and folder not in above:
            above.add(folder)
            folder = posixpath.dirname(folder)
    chosen = set()
    for path in beside:
        folder = posixpath.dirname(path)
        is_named = stem(path) in names or posixpath.basename(folder) in names
        if is_named or (folder in above and not _one_of_many(path)):
            chosen.add(path)
    return chosen


def _one_of_many(path: str) -> bool:
    """Whether a file is one of those of all sessions in one directory, so that its name decides."""
    return path.endswith((".jsonl", ".meta.json")) and not path.endswith("session_index.jsonl")


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def stem(path: str) -> str:
    """What other files call a log: its session, if its name has one, else its directory."""
    name = posixpath.basename(path)
    first = name.lstrip(".").partition(".")[0]
    if name in _GENERIC:
        return posixpath.basename(posixpath.dirname(path))
    uuid = _UUID.search(first)
    return uuid[0] if uuid else first.partition("_")[2] or first


_GENERIC = ("wire.jsonl", "state.json", "meta.json", "updates.jsonl", "usage.json", "summary.json", "events.jsonl")
