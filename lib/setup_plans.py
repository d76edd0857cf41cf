"""Reads which plan the clients' files name, and how certain that is.

Only the words that name a plan are used; tokens beside them are never kept, shown or sent. `exact`: the client's own
file names the plan. `likely`: the name may be old or is undocumented. Otherwise unknown.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import heapq
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import catalog, credentials, datadir, events, read_sqlite, regular, setup_hosts, untrusted, when

EXACT, LIKELY = "exact", "likely"
_TAIL = 1 << 20  # of a rollout: its last reading is near the end
_NEWEST = 8  # rollouts looked at
_FRESH_MS = 35 * when.DAY  # a plan may have changed since a client said so
_LONGEST = 60


class Hint(NamedTuple):
    """What one file says of one provider's plan. `plan` is "" if there is none, or none that we know."""

    provider: str
    plan: str
    confidence: str
    source: str
    says: str


def hints(system: setup_hosts.System, now: int) -> list[Hint]:
    """All hints on plans, the surest first."""
    every = [*claude(system), *codex(system, now), *cursor(system), *gemini(system), *opencode(system)]
    order = (EXACT, LIKELY, "")
    return sorted(every, key=lambda hint: order.index(hint.confidence))


def _words(provider: str) -> Mapping[str, Any]:
    words: Mapping[str, Any] = catalog.load("setup")[provider]
    return words


def _short(path: str, system: setup_hosts.System) -> str:
    inside = path.startswith(f"{system.home}/")
    return f"~{path[len(system.home) :]}" if inside else path


def claude(system: setup_hosts.System) -> Iterator[Hint]:
    """Claude Code: the account it is signed in to, and its stored login."""
    for path in account_files(system):
        account = object_in(path, "oauthAccount")
        tier = _word(account, "userRateLimitTier") or _word(account, "organizationRateLimitTier")
        yield from _claude(_word(account, "organizationType"), tier, f"{_short(path, system)}, oauthAccount")
    for path in credentials.claude_files(system.environment, system.home, ".credentials.json"):
        login = object_in(path, "claudeAiOauth")
        source = f"{_short(path, system)}, subscriptionType"
        yield from _claude(_word(login, "subscriptionType"), _word(login, "rateLimitTier"), source)


def account_files(system: setup_hosts.System) -> Iterator[str]:
    """Where Claude Code keeps its account and its list of MCP servers."""
    return credentials.claude_files(system.environment, system.home, ".claude.json")


def object_in(path: str, key: str) -> untrusted.Raw:
    """One object of a JSON file; nothing else of it is looked at."""
    return untrusted.mapping(untrusted.mapping(datadir.read_json(path)).get(key))


def _word(fields: untrusted.Raw, key: str) -> str:
    return untrusted.text(fields.get(key), _LONGEST).lower()


def _claude(kind: str, tier: str, source: str) -> Iterator[Hint]:
    words = _words("anthropic")
    sized = [plan for ending, plan in words["tiers"].items() if tier.endswith(ending)]
    names = " ".join(filter(None, (kind, tier)))
    if kind in words["types"]:
        yield Hint("anthropic", words["types"][kind], EXACT, source, names)
    elif sized and kind in ("", *words["sized"]):
        yield Hint("anthropic", sized[0], EXACT, source, names)
    elif kind in words["none"]:
        yield Hint("anthropic", "", EXACT, source, f"{names}: not a plan with known limits")
    elif names:
        yield Hint("anthropic", "", "", source, names)


def codex(system: setup_hosts.System, now: int) -> Iterator[Hint]:
    """Codex: the plan in the newest rollouts' limits, and in the claims of the login."""
    for folder in setup_hosts.existing_homes(setup_hosts.BY_NAME["codex"], system):
        latest = max(_rollout_plans(folder), default=None)
        if latest:
            at, name = latest
            fresh = EXACT if now - at <= _FRESH_MS else LIKELY
            yield _openai(name, fresh, f"{_short(folder, system)}, rollout of {when.stamp(at)[:10]}")
        path = os.path.join(folder, "auth.json")
        login = untrusted.mapping(datadir.read_json(path))
        source = _short(path, system)
        tokens = untrusted.mapping(login.get("tokens"))
        name = _claimed_plan(tokens.get("id_token"))
        if name:
            yield _openai(name, LIKELY, f"{source}, chatgpt_plan_type")  # as of the login, which may be months old
        elif not tokens and (login.get("auth_mode") == "apikey" or login.get("OPENAI_API_KEY")):
            yield Hint("openai", "", EXACT, source, "signed in with an API key: billed per token, no plan to set")


def _openai(name: str, confidence: str, source: str) -> Hint:
    words = _words("openai")
    if name in words["types"]:
        return Hint("openai", words["types"][name], confidence, source, name)
    if name in words["none"]:
        return Hint("openai", "", confidence, source, f"{name}: not a plan with known limits")
    return Hint("openai", "", "", source, name)


def _rollout_plans(folder: str) -> Iterator[tuple[int, str]]:
    """Moment and name of the plans that the newest rollouts name."""
    paths = [
        path
        for inner in ("sessions", "archived_sessions")
        for path in glob.iglob(os.path.join(glob.escape(folder), inner, "**", "rollout-*.jsonl"), recursive=True)
    ]
    newest = heapq.nlargest(_NEWEST, paths, key=os.path.basename)  # the name begins with the time
    with contextlib.suppress(OSError):
        newest += heapq.nlargest(_NEWEST, paths, key=os.path.getmtime)  # an old session may continue
    for path in dict.fromkeys(newest):
        with contextlib.suppress(OSError):
            yield from _plans_in(path)


def _plans_in(path: str) -> Iterator[tuple[int, str]]:
    with open(path, "rb", opener=regular.opener) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        lines = [line for line in file if b'"plan_type":"' in line.replace(b'": "', b'":"')]
    for line in reversed(lines):
        try:
            record = untrusted.mapping(orjson.loads(line))
            name = _word(untrusted.mapping(untrusted.mapping(record.get("payload")).get("rate_limits")), "plan_type")
            if name:
                yield when.moment(str(record.get("timestamp"))), name
                return
        except (ValueError, OverflowError):
            continue


def _claimed_plan(token: object) -> str:
    """The plan that a login's token names. Nothing else of it is kept; its signature is not checked."""
    parts = token.split(".") if isinstance(token, str) else []
    if len(parts) != 3:
        return ""
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return ""
    return _word(untrusted.mapping(untrusted.mapping(claims).get("https://api.openai.com/auth")), "chatgpt_plan_type")


def cursor(system: setup_hosts.System) -> Iterator[Hint]:
    """Cursor: the membership in its state. Only this row is read; the rows beside it hold the login."""
    for folder in setup_hosts.existing_homes(setup_hosts.BY_NAME["cursor"], system):
        path = os.path.join(folder, "User/globalStorage/state.vscdb")
        if not os.path.isfile(path):
            continue
        name = ""
        with contextlib.suppress(OSError, events.BadRecord), read_sqlite.open_database(path) as connection:
            rows = read_sqlite.select(connection, "ItemTable", "value", where="key = ?", values=(_MEMBERSHIP,)).fetchall()
            name = _text(rows[0]["value"]) if rows else ""
        words = _words("cursor")
        source = f"{_short(path, system)}, {_MEMBERSHIP}"
        if name in words["types"]:
            yield Hint("cursor", words["types"][name], LIKELY, source, name)
        elif name:
            yield Hint("cursor", "", "", source, name)


_MEMBERSHIP = "cursorAuth/stripeMembershipType"


def _text(value: object) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return untrusted.text(text, _LONGEST).strip('"').lower()


def gemini(system: setup_hosts.System) -> Iterator[Hint]:
    """Gemini CLI: how it signs in. Since 2026-06-18 a Google login needs a company's licence."""
    for folder in setup_hosts.existing_homes(setup_hosts.BY_NAME["gemini-cli"], system):
        path = os.path.join(folder, "settings.json")
        settings = untrusted.mapping(datadir.read_json(path))
        auth = untrusted.mapping(untrusted.mapping(settings.get("security")).get("auth"))
        name = untrusted.text(auth.get("selectedType") or settings.get("selectedAuthType"), _LONGEST)
        if name in ("gemini-api-key", "vertex-ai"):
            says = f"{name}: billed per token, no plan to set"
            yield Hint("gemini", "", EXACT, _short(path, system), says)
        elif name:
            yield Hint("gemini", "", "", _short(path, system), name)


def opencode(system: setup_hosts.System) -> Iterator[Hint]:
    """opencode: the providers it is signed in to with a login instead of a key. It does not name the plan."""
    [folder] = setup_hosts.paths_of("$XDG_DATA_HOME/opencode", system)
    path = os.path.join(folder, "auth.json")
    billers = catalog.load("providers")["prefixes"]
    for name, login in sorted(untrusted.mapping(datadir.read_json(path)).items()):
        provider = billers.get(name, "")
        if provider and untrusted.mapping(login).get("type") == "oauth":
            yield Hint(provider, "", "", _short(path, system), "opencode is signed in with a login")
