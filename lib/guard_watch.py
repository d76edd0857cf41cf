"""Decides what an agent hears of its limits inside its loop, and whether a call of a tool is stopped.

Pure. What it judges by (guard_sums) was worked out beside the agent, so that no hook waits for it. Everything that stops is
off by default, denies at PreToolUse only, asks for a hand-off first, and is lifted by `tok-guard lift`. What is not known
stops nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import light, untrusted, when

Json = dict[str, Any]
# Gives the zone when a time is told: a zone takes longer to load than all the rest.
Zone = Callable[[], datetime.tzinfo]

# Levels of a window: told at the first share, at the second one, and when there is nothing to go on with.
ROOM, FIRST, SECOND, OUT = 0, 1, 2, 3
# Sums that are older say nothing of now, nor does a reading.
SUMS_MS, READING_MS = 10 * 60_000, 15 * 60_000
# How often they are worked out while an agent works: at most a twentieth of the time goes into it.
EVERY_MS, PATIENCE = 20_000, 20
# Resets that differ by less are one.
SAME_MS = 5 * 60_000
LIFT = "`tok-guard lift` lifts this"
HAND_OFF = "finish this step, commit, write a hand-off"
# Tools that start other agents (Claude Code 2.1.332, November 2026).
AGENTS = ("Agent", "Task", "Workflow")
_AGENT_CALL = light.pattern(r"\bagent\s*\(")
_SPOKEN = ("SessionStart", "UserPromptSubmit", "PostToolUse")
_MOST_FAILURES = 200


class Settings(NamedTuple):
    """What the user chose: the thresholds' section `guard`, whether to warn, to stop, and until when that is lifted."""

    rules: Mapping[str, float]
    warns: bool = True
    stops: bool = False
    lifted_until: int = 0

    @property
    def needs_sums(self) -> bool:
        """Whether anything depends on limits and sums."""
        caps = any(value > 0 for name, value in self.rules.items() if name.startswith("cap_"))
        return self.warns or self.stops or caps or self.rules["fanout_usd"] > 0


class Reply(NamedTuple):
    """A hook's answer (empty: none), and what to remember for the session's next ones."""

    answer: Json
    memory: Json


def memory_of(value: object) -> Json:
    """What is remembered of a session; nothing of what is damaged."""
    raw = untrusted.mapping(value)
    levels = untrusted.mapping(raw.get("levels"))
    return {
        "levels": {key: pair for key, pair in levels.items() if _is_pair(pair)},
        "calls_left": _counts(raw.get("calls_left")),
        "failures": _counts(raw.get("failures")),
        "planned": raw["planned"] if type(raw.get("planned")) is int else 0,
    }


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)


def _counts(value: object) -> dict[str, int]:
    return {key: count for key, count in untrusted.mapping(value).items() if type(count) is int}


def answer(
    payload: Mapping[str, Any],
    remembered: object,
    sums: Mapping[str, Any],
    settings: Settings,
    salt: bytes,
    now: int,
    tz: Zone,
) -> Reply:
    """The answer to one hook, and what to remember. `sums`: as guard_sums wrote them, of any age."""
    memory, event = memory_of(remembered), str(payload.get("hook_event_name"))
    if event == "UserPromptSubmit":
        memory["planned"] = 0
    if now - untrusted.count(sums, "at") > SUMS_MS:
        sums = {}
    if event == "PreToolUse":
        is_lifted = now < settings.lifted_until
        if stopped := None if is_lifted else next(_reasons(sums, settings, now, tz), None):
            return _stop(memory, *stopped, int(settings.rules["handoff_calls"]))
        if reason := "" if is_lifted else _fan_out(payload, memory, sums, settings.rules):
            return Reply(_denial(reason), memory)
        return _loop(payload, memory, settings, salt, is_lifted)
    if event in ("PostToolUse", "PostToolUseFailure"):
        _note_outcome(payload, memory, event == "PostToolUseFailure", salt)
    if event in _SPOKEN and settings.warns and (texts := list(_warnings(memory, sums, now, tz))):
        return Reply(_context(event, " ".join(texts)), memory)
    return Reply({}, memory)


def _context(event: str, text: str) -> Json:
    """An answer that the model reads."""
    return {"hookSpecificOutput": {"hookEventName": event, "additionalContext": f"{text} (tok-guard)"}}


def _denial(reason: str) -> Json:
    output = {
        "hookEventName": "PreToolUse",
        "permissionDecision": "deny",
        "permissionDecisionReason": f"{reason} (tok-guard)",
    }
    return {"hookSpecificOutput": output}


# What the agent hears.


def _fresh(sums: Mapping[str, Any], now: int) -> Iterator[Mapping[str, Any]]:
    """The windows of this account that were read lately and are not over."""
    for limit in map(untrusted.mapping, untrusted.items(sums.get("limits"))):
        resets = untrusted.count(limit, "resets_at")
        if now - untrusted.count(limit, "observed_at") <= READING_MS and not 0 < resets <= now:
            yield limit


def _warnings(memory: Json, sums: Mapping[str, Any], now: int, tz: Zone) -> Iterator[str]:
    """A sentence for each window that reached a level of which this session was not told."""
    for limit in _fresh(sums, now):
        key, level, resets = str(limit.get("name")), untrusted.count(limit, "level"), untrusted.count(limit, "resets_at")
        told_level, told_resets = memory["levels"].get(key, (ROOM, resets))
        if abs(told_resets - resets) >= SAME_MS:
            told_level = ROOM
        if level > told_level:
            memory["levels"][key] = [level, resets]
            yield f"{limit_text(limit, now, tz)}: {HAND_OFF}."


def limit_text(limit: Mapping[str, Any], now: int, tz: Zone) -> str:
    """A window in words: 5 h limit: 18% left, likely out at 16:40, resets 17:10."""
    parts = [f"{limit.get('name')}: {untrusted.count(limit, 'left_pct')}% left"]
    if out := untrusted.count(limit, "out_at"):
        parts.append(f"likely out at {_clock(out, now, tz)}")
    if resets := untrusted.count(limit, "resets_at"):
        parts.append(f"resets {_clock(resets, now, tz)}")
    if family := untrusted.text(limit.get("switch_to"), 40):
        parts.append(f"{family} has room")
    return ", ".join(parts)


def _clock(at: int, now: int, tz: Zone) -> str:
    """A moment of today by its clock time, another with its day."""
    zone = tz()
    moment = when.local(at, zone)
    return f"{moment:%H:%M}" if moment.date() == when.local(now, zone).date() else when.short_time(at, zone, now).strip()


# What is stopped.


def _stop(memory: Json, key: str, reason: str, calls: int) -> Reply:
    """First the request for a hand-off, then so many `calls` for it, then denials."""
    left = memory["calls_left"].get(key)
    if left is None:
        memory["calls_left"][key] = calls
        when_stopped = f"after {calls} more call{'s' * (calls > 1)}" if calls else "after this call"
        ask = f"{reason}. Tools are stopped {when_stopped}: {HAND_OFF} (what is done, what is next) now; {LIFT}."
        return Reply(_context("PreToolUse", ask), memory)
    if left <= 0:
        return Reply(_denial(f"{reason}. Tools are stopped: end here and tell the user; {LIFT}."), memory)
    memory["calls_left"][key] = left - 1
    return Reply({}, memory)


def _reasons(sums: Mapping[str, Any], settings: Settings, now: int, tz: Zone) -> Iterator[tuple[str, str]]:
    """Why tools are stopped, each with a name that holds until the window or the day is over."""
    rules = settings.rules
    for limit in _fresh(sums, now):
        reset = untrusted.count(limit, "resets_at") // SAME_MS
        if settings.stops and untrusted.count(limit, "level") >= OUT:
            yield f"stop {limit.get('name')} {reset // 12}", limit_text(limit, now, tz)
        share = rules["cap_window_percent"]
        if share > 0 and untrusted.count(limit, "used_pct") >= share:
            yield f"window {limit.get('name')} {reset // 12}", f"{limit_text(limit, now, tz)}; the cap is {share:g}% used"
    for what in ("session", "task", "day"):
        spent = untrusted.mapping(sums.get(what))
        name = " ".join(filter(None, (what, untrusted.text(spent.get("name"), 80))))
        usd, tokens = spent.get("usd"), spent.get("tokens")
        cap = rules[f"cap_{what}_usd"]
        if cap > 0 and isinstance(usd, (int, float)) and usd >= cap:
            yield f"{name} usd", f"This {what} has used ${usd:.2f} at list price; the cap is ${cap:.2f}"
        cap = rules[f"cap_{what}_tokens"]
        if cap > 0 and isinstance(tokens, int) and tokens >= cap:
            yield f"{name} tokens", f"This {what} has used {tokens:,} tokens; the cap is {cap:,.0f}"


def _fan_out(payload: Mapping[str, Any], memory: Json, sums: Mapping[str, Any], rules: Mapping[str, float]) -> str:
    """Why no more subagents are started, "" if they may be. Counted since the last prompt."""
    if payload.get("tool_name") not in AGENTS:
        return ""
    count = 1
    if payload.get("tool_name") == "Workflow":
        count = max(1, len(_AGENT_CALL.findall(str(payload.get("tool_input")))))
    planned, each = memory["planned"] + count, sums.get("subagent_usd")
    cap = rules["fanout_usd"]
    if cap > 0 and isinstance(each, (int, float)) and planned * each >= cap:
        return (
            f"{planned} subagents since the last prompt, at about ${each:.2f} each in this project, are "
            f"${planned * each:.2f} at list price; the cap is ${cap:.2f}. Plan fewer of them, or do it yourself; {LIFT}."
        )
    memory["planned"] = planned
    return ""


def _call_of(payload: Mapping[str, Any], salt: bytes) -> str:
    """The name of a call with its input: a salted hash, so that no input is stored."""
    text = orjson.dumps([str(payload.get("agent_id")), str(payload.get("tool_name")), str(payload.get("tool_input"))])
    return light.blake2b(text, key=salt[:64], digest_size=8).hexdigest()


def _note_outcome(payload: Mapping[str, Any], memory: Json, has_failed: bool, salt: bytes) -> None:
    """Count a call that failed; one that succeeds begins anew."""
    call, failures = _call_of(payload, salt), memory["failures"]
    count = failures.pop(call, 0)
    if has_failed:
        failures[call] = count + 1
        for oldest in list(failures)[:-_MOST_FAILURES]:
            del failures[oldest]


def _times(count: int) -> str:
    return f"{count} time{'s' * (count > 1)}"


def _loop(payload: Mapping[str, Any], memory: Json, settings: Settings, salt: bytes, is_lifted: bool) -> Reply:
    """Tell of a call that failed so often with this very input, or stop it."""
    count, rules = memory["failures"].get(_call_of(payload, salt), 0), settings.rules
    if 0 < rules["loop_stop"] <= count and not is_lifted:
        why = f"This very call has failed {_times(count)}. Change it, or ask the user; {LIFT}."
        return Reply(_denial(why), memory)
    if settings.warns and count and count == rules["loop_told"]:
        return Reply(
            _context("PreToolUse", f"This very call has failed {_times(count)}: change something before it is made again."),
            memory,
        )
    return Reply({}, memory)


# When the sums are worked out again.


def is_due(sums: Mapping[str, Any], now: int) -> bool:
    """Whether it is time to work them out again: every twenty seconds, and less often if that takes long."""
    wait = max(EVERY_MS, PATIENCE * untrusted.count(sums, "took_ms"))
    return not 0 <= now - untrusted.count(sums, "at") < wait or "session" not in sums
