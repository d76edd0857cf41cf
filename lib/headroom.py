"""Judges the vendors' readings: how much of each window is left, which window binds, and what to do.

Pure. A missing value is unknown, never 0. A reading is valid until its own reset; limit_belief decides which is believed.
More may have been used elsewhere since, so the use reported is a minimum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import catalog, limit_belief, limit_windows, when
from tokenops.events import Event
from tokenops.limit_windows import Key, Reading

CONTINUE, SLOW_DOWN, SWITCH_MODEL, WAIT = "continue", "slow_down", "switch_model", "wait_for_reset"
# Why an action is advised: nothing is known; the window has room; the vendor refused a request; it is used up, or mostly
# used; it will probably run out within the hour, or (a window of more than a day) long before its reset.
UNKNOWN, ROOM, REFUSED, USED_UP, MOSTLY_USED, LIKELY_SOON, LIKELY_EARLY = (
    "unknown",
    "room",
    "refused",
    "used_up",
    "mostly_used",
    "likely_soon",
    "likely_early",
)
# How a table paints an action.
STYLES = {CONTINUE: "good", SLOW_DOWN: "warn", SWITCH_MODEL: "bad", WAIT: "bad"}
# The resets of one window differ by seconds; those of two windows lie hours apart.
SAME_MS = 5 * 60_000
# The windows whose end is worth a word days before; and how much faster than ever somebody may go on, near a reset.
LONG_MINUTES, _FASTER = 1440, 3


class Carry(NamedTuple):
    """What local turns have used since a reading: their number, their cost, and the share of the window used with them.

    The shares are the middle 80 % and the median of what the account's past says, learned from `pieces` of it.
    """

    turns: int
    cost_usd: str
    p10: float
    p50: float
    p90: float
    pieces: int


class State(NamedTuple):
    """One limit window as it is now. `used` None: it was reset since it was last read. `doubt`: why it may be wrong."""

    provider: str
    account: str
    window: str
    minutes: int | None
    scope: str
    used: float | None
    resets_at: int | None
    observed_at: int
    status: str
    source: str
    plan: str
    carry: Carry | None = None
    doubt: str = ""
    last: float | None = None  # what was read last, if that is no longer so

    @property
    def likely(self) -> float | None:
        """The share that is probably used by now: the reading, and what local turns have added to it."""
        return self.carry.p50 if self.carry else self.used

    @property
    def key(self) -> Key:
        """Whose window it is, and which."""
        return Key(self.provider, self.account, self.window, self.scope)

    @property
    def headroom(self) -> float | None:
        """The share that is probably left, at least 0; None if it is unknown."""
        return None if self.likely is None else max(0.0, 1.0 - self.likely)


# Readings -> states.


def states(readings: Iterable[Reading], now: int) -> list[State]:
    """Every window that was ever read, as it is now, in order of provider, account and length."""
    return states_of(limit_belief.belief(readings, now), now)


def states_of(believed: limit_belief.Belief, now: int) -> list[State]:
    """The same, of readings that are believed: the last of each window counts."""
    last = {reading.key: reading for reading in believed.readings}
    every = (_at_moment(_state(reading, believed.doubts.get(key, "")), now) for key, reading in last.items())
    return sorted(every, key=order)


def _state(reading: Reading, doubt: str) -> State:
    key, minutes = reading.key, reading.minutes or None
    rest = reading.resets_at, reading.at, reading.status, reading.source, reading.plan
    return State(key.provider, key.account, key.window, minutes, key.scope, reading.used, *rest, doubt=doubt)


def _at_moment(state: State, now: int) -> State:
    """A window as it is now: unknown after its reset. A window that names no reset lasts at most its length."""
    ends = state.resets_at
    if ends is None and state.minutes is not None:
        ends = state.observed_at + state.minutes * 60_000
    return state._replace(used=None, status="", last=state.used) if ends is not None and ends <= now else state


def order(state: State) -> tuple[str, str, int, str]:
    """The order of windows: by provider and account, the shortest first."""
    return state.provider, state.account, state.minutes or 1 << 40, state.scope


# States -> the window that binds.


def applies(state: State, model: str) -> bool:
    """Whether a window counts for a model (""): one without a scope does, and one of the model's own family."""
    return state.window != "credits" and limit_windows.applies(state.scope, model)


def binding(states: Iterable[State], model: str = "") -> State | None:
    """The window that binds: a rejected one, else the most used, of those that apply; None if nothing is known."""
    candidates = [state for state in states if state.used is not None and applies(state, model)]
    return max(candidates, key=_fullness, default=None)


def _fullness(state: State) -> tuple[bool, float, int]:
    return state.status == "rejected", state.likely or 0.0, -(state.minutes or 0)


def by_account(states: Iterable[State]) -> dict[tuple[str, str], list[State]]:
    """(provider, account) -> its windows."""
    accounts: dict[tuple[str, str], list[State]] = {}
    for state in states:
        accounts.setdefault((state.provider, state.account), []).append(state)
    return accounts


# Windows and their forecasts -> what to do.


class Advice(NamedTuple):
    """What a window advises by itself, and why."""

    action: str
    reason: str


class Judgement(NamedTuple):
    """What follows for one account: the window that binds, the action and why, and how far the reading can be trusted.

    `switch_to` is the family of models with room, "" unless the action is switch_model. `advice`: of each window.
    """

    bound: State | None
    forecast: Event | None
    action: str
    reason: str
    switch_to: str
    signal: dict[str, str]
    advice: dict[Key, Advice]


def judge(
    provider: str,
    states: Sequence[State],
    now: int,
    thresholds: Mapping[str, Any],
    model: str = "",
    forecasts: Mapping[Key, Event] | None = None,
) -> Judgement:
    """The judgement on the windows of one account. `forecasts`: of its windows, as limit_forecast makes them.

    The window with the strictest advice binds, of several the most used: the action, the headroom and the forecast that are
    shown together are of one window.
    """
    rules, expected = thresholds["budget"], forecasts or {}
    advice, roomier = {}, {}
    for state in states:
        roomier[state.key] = roomier_model(provider, states, state, rules["switch_model_headroom"])
        advice[state.key] = action(state, expected.get(state.key), rules, bool(roomier[state.key]), now)
    candidates = [state for state in states if state.used is not None and applies(state, model)]
    bound = max(candidates, key=lambda state: (_ORDER.index(advice[state.key].action), _fullness(state)), default=None)
    signals = signal(bound, now, thresholds["freshness"])
    if bound is None:
        return Judgement(None, None, CONTINUE, UNKNOWN, "", signals, advice)
    what, why = advice[bound.key]
    switch_to = roomier[bound.key] if what == SWITCH_MODEL else ""
    return Judgement(bound, expected.get(bound.key), what, why, switch_to, signals, advice)


_ORDER = tuple(STYLES)


def action(state: State, forecast: Event | None, rules: Mapping[str, float], roomier: bool, now: int) -> Advice:
    """What a window advises, and why. The forecast decides where there is one; without a past it may only raise an alarm."""
    if state.used is None or state.likely is None:
        return Advice(CONTINUE, UNKNOWN)
    # To stop is drastic: a reading must say so, or even the lower end of what was used since.
    least = state.carry.p10 if state.carry else state.used
    stop = SWITCH_MODEL if roomier else WAIT
    if state.status == "rejected":
        return Advice(stop, REFUSED)
    if least >= rules["wait_for_reset"]:
        return Advice(stop, USED_UP)
    soon = chance_within_hour(forecast)
    is_guess = soon is None or bool(forecast and forecast.get("few_data"))
    if soon is not None and soon >= rules["p_wait_for_reset"] and state.likely >= rules["slow_down"] and not is_guess:
        return Advice(stop, LIKELY_SOON)
    if soon is not None and soon >= rules["p_slow_down"]:
        return Advice(SLOW_DOWN, LIKELY_SOON)
    early = hours_early(state, forecast, rules)
    if early is not None and early >= rules["hours_early"]:
        return Advice(SLOW_DOWN, LIKELY_EARLY)
    if is_guess and state.likely >= rules["slow_down"] and not _lasts(state, forecast, rules, now):
        return Advice(SLOW_DOWN, MOSTLY_USED)
    return Advice(CONTINUE, ROOM)


def chance_within_hour(forecast: Event | None) -> float | None:
    """The chance of a cutoff within the hour; None without a forecast."""
    chance = (forecast or {}).get("p_within_minutes", {}).get("60")
    return None if chance is None else float(chance)


def hours_early(state: State, forecast: Event | None, rules: Mapping[str, float]) -> float | None:
    """How long before its reset a window of more than a day runs out, if that is likely; None if it is not.

    Such a window has little past for a long time, so its forecast counts even then.
    """
    out = (forecast or {}).get("cutoff_at", {}).get("p50")
    if forecast is None or out is None or state.resets_at is None or (state.minutes or 0) <= LONG_MINUTES:
        return None
    return (state.resets_at - when.moment(out)) / 3_600_000 if forecast["p_cutoff"] >= rules["p_early"] else None


def _lasts(state: State, forecast: Event | None, rules: Mapping[str, float], now: int) -> bool:
    """Whether a mostly used window will hardly run out before its reset, which is near."""
    if state.resets_at is None or not state.minutes:
        return False
    left, length = state.resets_at - now, state.minutes * 60_000
    p, is_near = (forecast or {}).get("p_cutoff", 1.0), left <= length / 10
    used = state.likely or 0.0
    at_this_pace = used * left / max(length - left, 1)
    return bool(is_near and (p < rules["p_slow_down"] / 2 or 1 - used >= _FASTER * at_this_pace))


def roomier_model(provider: str, states: Sequence[State], bound: State, least: float) -> str:
    """The family of models that replaces the one whose own window is `bound`; "" if none has at least this much room.

    The vendor's families come in order of price, so the nearest one below does the same work best; never a dearer one.
    Only the window of one family can be avoided: a window that binds all models binds the other family, too.
    """
    if not bound.scope or bound.scope in catalog.load("limits")["every_model"]:
        return ""
    families = limit_windows.families(provider)
    own = limit_windows.family(bound.scope)
    below = (
        families[families.index(own) + 1 :] if own in families else sorted({state.scope for state in states if state.scope})
    )
    for family in below:
        window = binding(states, family)
        if (
            family != bound.scope
            and window is not None
            and window.status != "rejected"
            and (window.headroom or 0.0) >= least
        ):
            return family
    return ""


def signal(bound: State | None, now: int, freshness: Mapping[str, float]) -> dict[str, str]:
    """How far the number can be trusted: level, source and caveat of the reading that it comes from."""
    if bound is None:
        caveat = "no reading of the plan's use, so headroom is unknown"
        return {"level": "low", "source": "mcp_tool_pings", "caveat": caveat}
    age = max(now - bound.observed_at, 0) / 60_000
    source, delayed = signal_source(bound.source), catalog.load("limits")["delayed"]
    level = "high" if age <= freshness["recent"] else "medium" if age <= freshness["stale"] else "low"
    caveat = f"read {age_text(age)} ago; use since then, or elsewhere on the account, is not included"
    if bound.carry:
        turns = f"{bound.carry.turns} local turn{'s' * (bound.carry.turns > 1)}"
        caveat = f"read {age_text(age)} ago and carried forward by {turns} since; use elsewhere is not included"
    if bound.source in delayed:
        caveat += f"; {delayed[bound.source]}"
    if bound.doubt:
        is_certain = bound.doubt.endswith(limit_belief.APART)
        level = ("medium" if level == "high" else level) if is_certain else "low"
        caveat += f"; {bound.doubt}"
    return {"level": level, "source": source, "caveat": caveat}


def least_trusted(signals: Iterable[dict[str, str]], freshness: Mapping[str, float]) -> dict[str, str]:
    """Of several signals the one that is trusted least; what is missing, if there is none."""
    order = ("low", "medium", "high")
    return min(signals, key=lambda each: order.index(each["level"]), default=signal(None, 0, freshness))


def signal_source(source: str) -> str:
    """The source of a reading, as agents are told it."""
    usual = "vendor_usage_api" if source.startswith("vendor-") else "client_files"
    name: str = catalog.load("limits")["signals"].get(source, usual)
    return name


# States as records and text.


def row(state: State, now: int) -> Event:
    """A window as a record for programs."""
    row: Event = {"window": state.window, "window_minutes": state.minutes, "scope": state.scope, "account": state.account}
    row |= {
        "used": state.used,
        "headroom": None if state.headroom is None else round(state.headroom, 4),
        "status": state.status,
        "plan": state.plan,
        "source": state.source,
    }
    if state.resets_at is not None:
        row["resets_at"] = when.stamp(state.resets_at)
        if state.used is not None:
            row["resets_in"] = when.duration(state.resets_at - now)
    row["observed_at"] = when.stamp(state.observed_at)
    if state.carry is not None:
        row["carried"] = {
            "used": {name: round(getattr(state.carry, name), 4) for name in ("p10", "p50", "p90")},
            "turns": state.carry.turns,
            "cost_usd": state.carry.cost_usd,
            "learned_from": state.carry.pieces,
        }
    if state.used is None:
        row["note"] = "reset since it was last read: unknown"
        row["last_used"] = state.last
    return {key: value for key, value in row.items() if value not in (None, "") or key in ("used", "headroom")}


def age_text(minutes: float) -> str:
    """How old a reading is, for people."""
    whole = round(minutes)
    return f"{minutes / 60:.0f} hours" if whole >= 120 else "1 minute" if whole == 1 else f"{whole} minutes"
