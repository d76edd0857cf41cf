"""Judges the vendors' readings: how much of each window is left, which window binds, and what to do.

Pure. A missing value is unknown, never 0. A reading is valid until its own reset. Within one window use only grows, so
the highest reading counts. More may have been used elsewhere since, so the use reported is a minimum.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import catalog, limit_windows, when
from tokenops.events import Event
from tokenops.limit_windows import Key, Reading

CONTINUE, SLOW_DOWN, SWITCH_MODEL, WAIT = "continue", "slow_down", "switch_model", "wait_for_reset"
# Why an action is advised: nothing is known; the window has room; the vendor refused a request; it is used up, or mostly
# used; it will probably run out within the hour.
UNKNOWN, ROOM, REFUSED, USED_UP, MOSTLY_USED, LIKELY_SOON = (
    "unknown",
    "room",
    "refused",
    "used_up",
    "mostly_used",
    "likely_soon",
)
# How a table paints an action.
STYLES = {CONTINUE: "good", SLOW_DOWN: "warn", SWITCH_MODEL: "bad", WAIT: "bad"}
# The resets of one window differ by seconds; those of two windows lie hours apart.
SAME_MS = 5 * 60_000


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
    """One limit window as it is now. `used` None: it was reset since it was last read."""

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


# Readings -> states: which reading is believed.


def states(readings: Iterable[Reading], now: int) -> list[State]:
    """Every window that was ever read, as it is now, in order of provider, account and length."""
    by_key: dict[Key, list[Reading]] = {}
    for reading in readings:
        if reading.at <= now + SAME_MS:
            by_key.setdefault(reading.key, []).append(reading)
    return sorted((_at_moment(_latest(group), now) for group in by_key.values()), key=_order)


def _latest(readings: list[Reading]) -> State:
    """What the readings of one limit say of the window that is reset last."""
    last = max((reading.resets_at for reading in readings if reading.resets_at is not None), default=None)
    if last is not None:
        readings = [reading for reading in readings if reading.resets_at is None or reading.resets_at > last - SAME_MS]
    # Of readings at one moment the highest counts, in whatever order they come.
    ordered = sorted(readings, key=_rank)
    return functools.reduce(_newer, map(_state, ordered))


def _rank(reading: Reading) -> tuple[int, float, bool, str, int]:
    return reading.at, reading.used, reading.status == "rejected", reading.source, reading.resets_at or 0


def _state(reading: Reading) -> State:
    key, minutes = reading.key, reading.minutes or None
    rest = reading.resets_at, reading.at, reading.status, reading.source, reading.plan
    return State(key.provider, key.account, key.window, minutes, key.scope, reading.used, *rest)


def _newer(state: State, later: State) -> State:
    """What two readings of one window say together."""
    if later.resets_at is None and state.resets_at is not None and later.observed_at >= state.resets_at:
        return later
    if (later.used or 0.0) < (state.used or 0.0):
        return state  # use only grows: the later number repeats an old one, and does not make the other fresher
    resets_at = later.resets_at or state.resets_at
    if later.used == state.used and later.source == state.source and later.status == state.status:
        return state._replace(resets_at=resets_at, observed_at=later.observed_at)
    return later._replace(resets_at=resets_at)


def _at_moment(state: State, now: int) -> State:
    """A window as it is now: unknown after its reset. A window that names no reset lasts at most its length."""
    ends = state.resets_at
    if ends is None and state.minutes is not None:
        ends = state.observed_at + state.minutes * 60_000
    return state._replace(used=None, status="") if ends is not None and ends <= now else state


def _order(state: State) -> tuple[str, str, int, str]:
    return state.provider, state.account, state.minutes or 1 << 40, state.scope


# States -> the window that binds.


def applies(state: State, model: str) -> bool:
    """Whether a window counts for a model (""): one without a scope does, and one of the model's own family."""
    return state.window != "credits" and limit_windows.applies(state.scope, model)


def binding(states: Iterable[State], model: str = "") -> State | None:
    """The window that binds: a rejected one, else the most used, of those that apply; None if nothing is known."""
    candidates = [state for state in states if state.used is not None and applies(state, model)]
    return max(candidates, key=lambda state: (state.status == "rejected", state.likely, -(state.minutes or 0)), default=None)


def by_account(states: Iterable[State]) -> dict[tuple[str, str], list[State]]:
    """(provider, account) -> its windows."""
    accounts: dict[tuple[str, str], list[State]] = {}
    for state in states:
        accounts.setdefault((state.provider, state.account), []).append(state)
    return accounts


# The window that binds -> what to do.


class Judgement(NamedTuple):
    """What follows for one account: the window that binds, the action and why, and how far the reading can be trusted.

    `switch_to` is the family of models with room, "" unless the action is switch_model.
    """

    bound: State | None
    forecast: Event | None
    action: str
    reason: str
    switch_to: str
    signal: dict[str, str]


def judge(
    provider: str,
    states: Sequence[State],
    now: int,
    thresholds: Mapping[str, Any],
    model: str = "",
    forecasts: Mapping[Key, Event] | None = None,
) -> Judgement:
    """The judgement on the windows of one account. `forecasts`: of windows that may bind, as limit_forecast makes them."""
    rules = thresholds["budget"]
    bound = binding(states, model)
    forecast = forecasts.get(bound.key) if forecasts and bound else None
    families = sorted({state.scope for state in states if state.scope} | set(limit_windows.families(provider)))
    roomier = roomier_model(states, bound, families, rules["switch_model_headroom"]) if bound else ""
    advice, reason = action(bound, chance_within_hour(forecast), rules, bool(roomier))
    switch_to = roomier if advice == SWITCH_MODEL else ""
    return Judgement(bound, forecast, advice, reason, switch_to, signal(bound, now, thresholds["freshness"]))


def action(bound: State | None, p_soon: float | None, rules: Mapping[str, float], roomier: bool) -> tuple[str, str]:
    """What to do, and why. `p_soon`: the chance that the window runs out within the hour; None if too little is known."""
    if bound is None or bound.used is None or bound.likely is None:
        return CONTINUE, UNKNOWN
    # To stop is drastic: a reading must say so, or even the lower end of what was used since.
    least = bound.carry.p10 if bound.carry else bound.used
    stop = SWITCH_MODEL if roomier else WAIT
    if bound.status == "rejected":
        return stop, REFUSED
    if least >= rules["wait_for_reset"]:
        return stop, USED_UP
    if p_soon is None:
        return (SLOW_DOWN, MOSTLY_USED) if bound.likely >= rules["slow_down"] else (CONTINUE, ROOM)
    if p_soon >= rules["p_wait_for_reset"] and bound.likely >= rules["slow_down"]:
        return stop, LIKELY_SOON
    return (SLOW_DOWN, LIKELY_SOON) if p_soon >= rules["p_slow_down"] else (CONTINUE, ROOM)


def chance_within_hour(forecast: Event | None) -> float | None:
    """The chance of a cutoff within the hour; None while the account's own past is too short."""
    if not forecast or forecast.get("few_data"):
        return None
    chance = forecast.get("p_within_minutes", {}).get("60")
    return None if chance is None else float(chance)


def roomier_model(states: Sequence[State], bound: State, families: Iterable[str], least: float) -> str:
    """A family of models whose own windows have at least this much room; "" if there is none.

    Only the window of one family can be avoided: a window that binds all models binds the other family too.
    """
    if not bound.scope:
        return ""
    for family in families:
        own = binding(states, family)
        if family != bound.scope and own is not None and (own.headroom or 0.0) >= least:
            return family
    return ""


def signal(bound: State | None, now: int, freshness: Mapping[str, float]) -> dict[str, str]:
    """How far the number can be trusted: level, source and caveat of the reading that it comes from."""
    if bound is None:
        caveat = "no reading of the plan's use, so headroom is unknown"
        return {"level": "low", "source": "mcp_tool_pings", "caveat": caveat}
    age = (now - bound.observed_at) / 60_000
    source, delayed = signal_source(bound.source), catalog.load("limits")["delayed"]
    level = "high" if age <= freshness["recent"] else "medium" if age <= freshness["stale"] else "low"
    caveat = f"read {age_text(age)} ago; use since then, or elsewhere on the account, is not included"
    if bound.carry:
        turns = f"{bound.carry.turns} local turn{'s' * (bound.carry.turns > 1)}"
        caveat = f"read {age_text(age)} ago and carried forward by {turns} since; use elsewhere is not included"
    if bound.source in delayed:
        caveat += f"; {delayed[bound.source]}"
    return {"level": level, "source": source, "caveat": caveat}


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
            row["resets_in"] = duration(state.resets_at - now)
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
    return {key: value for key, value in row.items() if value not in (None, "") or key in ("used", "headroom")}


def age_text(minutes: float) -> str:
    """How old a reading is, for people."""
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"


def duration(ms: int) -> str:
    """A length of time for agents: 1h41m, 3d4h, 12m."""
    minutes = max(ms, 0) // 60_000
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days}d{hours}h" if hours else f"{days}d"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m"
