"""Meter readings -> what is left of each window now, the window that binds, and what an agent should do.

Missing is unknown, never 0. A reading holds until its own reset and not a moment longer. Within one window use only
grows, so the largest reading counts; anything may have been used elsewhere since, so what is said is a floor.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import catalog, show, when
from tokenops.events import Event
from tokenops.limit_windows import Key, Seen
from tokenops.limit_windows import applies as limits

CONTINUE, SLOW_DOWN, SWITCH_MODEL, WAIT = "continue", "slow_down", "switch_model", "wait_for_reset"
# Resets of one window jitter by seconds; those of two lie hours apart.
SAME_MS = 5 * 60_000


class Carried(NamedTuple):
    """What local turns added since a reading: how many there were, what they cost, and the share used with them.

    Shares are the middle 80 % and the middle of what the account's past says, learned from `pieces` of it.
    """

    turns: int
    cost_usd: str
    p10: float
    p50: float
    p90: float
    pieces: int


class Window(NamedTuple):
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
    carried: Carried | None = None

    @property
    def likely(self) -> float | None:
        """What is used by now as far as anybody can tell: the reading, and what local turns added to it."""
        return self.carried.p50 if self.carried else self.used

    @property
    def key(self) -> Key:
        """Whose window it is, and which."""
        return Key(self.provider, self.account, self.window, self.scope)

    @property
    def headroom(self) -> float | None:
        """What is likely left, at least 0; None where it is unknown."""
        return None if self.likely is None else max(0.0, 1.0 - self.likely)


def windows(readings: Iterable[Seen], now: int) -> list[Window]:
    """The windows that were ever read, each as it is now, in order of provider, account and length."""
    held: dict[Key, list[Seen]] = {}
    for reading in readings:
        if reading.at <= now + SAME_MS:
            held.setdefault(reading.key, []).append(reading)
    return sorted((_now(_latest(ones), now) for ones in held.values()), key=_order)


def _latest(readings: list[Seen]) -> Window:
    """What the readings of one limit say of the window that is reset last."""
    last = max((one.resets_at for one in readings if one.resets_at is not None), default=None)
    if last is not None:
        readings = [one for one in readings if one.resets_at is None or one.resets_at > last - SAME_MS]
    # Of one moment the highest counts, whoever is heard first.
    ordered = sorted(readings, key=lambda one: (one.at, one.used, one.status == "rejected", one.source, one.resets_at or 0))
    return functools.reduce(_newer, map(_window, ordered))


def _window(reading: Seen) -> Window:
    key, minutes = reading.key, reading.minutes or None
    about = reading.resets_at, reading.at, reading.status, reading.source, reading.plan
    return Window(key.provider, key.account, key.window, minutes, key.scope, reading.used, *about)


def _newer(known: Window, found: Window) -> Window:
    """What two readings of one window say, the second observed later."""
    if found.resets_at is None and known.resets_at is not None and found.observed_at >= known.resets_at:
        return found
    if (found.used or 0.0) < (known.used or 0.0):
        return known  # use only grows: this number is a repetition of an old one, and does not make the other fresher
    resets_at = found.resets_at or known.resets_at
    if found.used == known.used and found.source == known.source and found.status == known.status:
        return known._replace(resets_at=resets_at, observed_at=found.observed_at)
    return found._replace(resets_at=resets_at)


def _now(one: Window, now: int) -> Window:
    """A window as it is now: after its reset nothing is known of it. One that names no reset lasts its length at most."""
    ends = one.resets_at
    if ends is None and one.minutes is not None:
        ends = one.observed_at + one.minutes * 60_000
    return one._replace(used=None, status="") if ends is not None and ends <= now else one


def _order(one: Window) -> tuple[str, str, int, str]:
    return one.provider, one.account, one.minutes or 1 << 40, one.scope


def applies(one: Window, model: str) -> bool:
    """Whether a window counts for a model (""): any window without a scope, and that of the model's own family."""
    return one.window != "credits" and limits(one.scope, model)


def binding(found: Iterable[Window], model: str = "") -> Window | None:
    """The window that binds: rejected, else the most used, of those that apply; None where nothing is known."""
    known = [one for one in found if one.used is not None and applies(one, model)]
    return max(known, key=lambda one: (one.status == "rejected", one.likely, -(one.minutes or 0)), default=None)


def binding_keys(found: Iterable[Window], model: str = "") -> dict[Key, float]:
    """The key of the window that binds, of each account, and what was used of it since it was read."""
    accounts: dict[tuple[str, str], list[Window]] = {}
    for one in found:
        accounts.setdefault((one.provider, one.account), []).append(one)
    bound = (binding(group, model) for group in accounts.values())
    return {one.key: (one.likely or 0.0) - (one.used or 0.0) for one in bound if one is not None}


def action(bound: Window | None, p_soon: float | None, rules: Mapping[str, float], roomier: bool) -> str:
    """What to do. `p_soon`: how likely the window runs out within the hour, None where too little is known to say."""
    if bound is None or bound.used is None or bound.likely is None:
        return CONTINUE
    # To stop is drastic: a reading says so, or even the lower end of what was used since.
    least = bound.carried.p10 if bound.carried else bound.used
    gone = bound.status == "rejected" or least >= rules["wait_for_reset"]
    if gone or (p_soon is not None and p_soon >= rules["p_wait_for_reset"] and bound.likely >= rules["slow_down"]):
        return SWITCH_MODEL if roomier else WAIT
    if p_soon is None:
        return SLOW_DOWN if bound.likely >= rules["slow_down"] else CONTINUE
    return SLOW_DOWN if p_soon >= rules["p_slow_down"] else CONTINUE


def signal(bound: Window | None, now: int, freshness: Mapping[str, float]) -> dict[str, str]:
    """How far the number can be trusted: level, source and caveat of the very reading that it was made from."""
    if bound is None:
        caveat = "nothing has said how much of the plan is used; without a meter there is no headroom to report"
        return {"level": "low", "source": "mcp_tool_pings", "caveat": caveat}
    age = (now - bound.observed_at) / 60_000
    source, delayed = signal_source(bound.source), catalog.load("limits")["delayed"]
    level = "high" if age <= freshness["recent"] else "medium" if age <= freshness["stale"] else "low"
    caveat = f"read {_ago(age)} ago; what was used since, or elsewhere on the account, is not in it"
    if bound.carried:
        turns = f"{bound.carried.turns} local turn{'s' * (bound.carried.turns > 1)}"
        caveat = f"read {_ago(age)} ago and carried forward by {turns} since; what was used elsewhere is not in it"
    if bound.source in delayed:
        caveat += f"; {delayed[bound.source]}"
    return {"level": level, "source": source, "caveat": caveat}


def signal_source(source: str) -> str:
    """The source of a reading, as agents are told it."""
    usual = "vendor_usage_api" if source.startswith("vendor-") else "client_files"
    name: str = catalog.load("limits")["signals"].get(source, usual)
    return name


def _ago(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"


def duration(ms: int) -> str:
    """A length of time as agents read it: 1h41m, 3d4h, 12m."""
    minutes = max(ms, 0) // 60_000
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days}d{hours}h" if hours else f"{days}d"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m"


def row(one: Window, now: int) -> Event:
    """A window as a record for programs."""
    found: Event = {"window": one.window, "window_minutes": one.minutes, "scope": one.scope, "account": one.account}
    found |= {
        "used": one.used,
        "headroom": None if one.headroom is None else round(one.headroom, 4),
        "status": one.status,
        "plan": one.plan,
        "source": one.source,
    }
    if one.resets_at is not None:
        found["resets_at"] = when.stamp(one.resets_at)
        if one.used is not None:
            found["resets_in"] = duration(one.resets_at - now)
    found["observed_at"] = when.stamp(one.observed_at)
    if one.carried is not None:
        found["carried"] = {
            "used": {name: round(getattr(one.carried, name), 4) for name in ("p10", "p50", "p90")},
            "turns": one.carried.turns,
            "cost_usd": one.carried.cost_usd,
            "learned_from": one.carried.pieces,
        }
    if one.used is None:
        found["note"] = "reset since it was last read: unknown"
    return {key: value for key, value in found.items() if value not in (None, "") or key in ("used", "headroom")}


def roomier_model(found: Sequence[Window], bound: Window, families: Iterable[str], needed: float) -> str:
    """A model family whose own windows have room where the binding one has not; "" where there is none.

    Only a window of one family can be stepped around: what binds all models binds the other too.
    """
    if not bound.scope:
        return ""
    for family in families:
        own = binding(found, family)
        if family != bound.scope and own is not None and (own.headroom or 0.0) >= needed:
            return family
    return ""


def budgets(
    found: Sequence[Window],
    now: int,
    thresholds: Mapping[str, Any],
    model: str = "",
    forecasts: Mapping[Any, Event] | None = None,
    providers: Iterable[str] = (),
) -> list[Event]:
    """One answer per provider and account, those asked for or bound to a plan also where nothing is known of them."""
    groups: dict[tuple[str, str], list[Window]] = {}
    for one in found:
        groups.setdefault((one.provider, one.account), []).append(one)
    for provider in providers:
        if not any(key[0] == provider for key in groups):
            groups[provider, ""] = []
    return [_budget(key, group, now, thresholds, model, forecasts or {}) for key, group in sorted(groups.items())]


def _budget(
    key: tuple[str, str],
    group: Sequence[Window],
    now: int,
    thresholds: Mapping[str, Any],
    model: str,
    forecasts: Mapping[Any, Event],
) -> Event:
    rules = thresholds["budget"]
    bound = binding(group, model)
    forecast = forecasts.get(bound.key) if bound else None
    families = sorted({one.scope for one in group if one.scope} | set(catalog.load("limits")["families"].get(key[0], ())))
    other = roomier_model(group, bound, families, rules["switch_model_headroom"]) if bound else ""
    made: Event = {"v": 1, "kind": "budget", "provider": key[0]}
    if key[1]:
        made["account"] = key[1]
    made["headroom_pct"] = None if bound is None or bound.headroom is None else int(bound.headroom * 100 + 1e-9)
    made["window_resets_in"] = duration(bound.resets_at - now) if bound and bound.resets_at else None
    made["recommended_action"] = action(bound, _soon(forecast), rules, bool(other))
    if made["recommended_action"] == SWITCH_MODEL:
        made["switch_to"] = other
    made["signal_quality"] = signal(bound, now, thresholds["freshness"])
    made["binding_window"] = bound.window if bound else None
    made["windows"] = [row(one, now) for one in group]
    if forecast:
        made["forecast"] = forecast
    if bound is not None:
        made["observed_at"] = when.stamp(bound.observed_at)
    made["as_of"] = when.stamp(now)
    made["next_actions"] = next_actions(key[0], bound, now, thresholds["freshness"])
    return made


def _soon(forecast: Event | None) -> float | None:
    """How likely the cutoff is within the hour; None while the account's own past is too short to be believed."""
    if not forecast or forecast.get("few_data"):
        return None
    found = forecast.get("p_within_minutes", {}).get("60")
    return None if found is None else float(found)


def next_actions(provider: str, bound: Window | None, now: int, freshness: Mapping[str, float]) -> list[str]:
    """What would make the answer better."""
    actions = catalog.load("limits")["next_actions"]
    reading = actions.get(provider, actions["other"])
    if bound is None:
        return [reading, "tok-sync"]
    if (now - bound.observed_at) / 60_000 > freshness["stale"]:
        return ["tok-sync", reading]
    return []


def table(rows: Sequence[Event], shape: str, color: bool) -> str:
    """Budgets for people: a line per window, the action where the window binds."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        for one in row["windows"] or [{}]:
            bound = one.get("window") == row["binding_window"] and one.get("headroom") is not None
            left = one.get("headroom")
            lines.append(
                (
                    row["provider"],
                    one.get("window", "unknown") + (f" ({one['scope']})" if one.get("scope") else ""),
                    "unknown" if left is None else f"{left:.0%}",
                    one.get("resets_in", ""),
                    row["recommended_action"].replace("_", " ") if bound or not row["windows"] else "",
                    _seen(one, row),
                )
            )
    titles = ("provider", "window", "left", "resets in", "action", "seen")
    columns = [show.Column(title, [line[at] for line in lines], number=title == "left") for at, title in enumerate(titles)]
    said = [f"{row['provider']}: {row['signal_quality']['caveat']}\n" for row in rows]
    said += [f"{row['provider']}: {text}\n" for row in rows for text in row["next_actions"]]
    return show.table(columns, shape, color=color) + "".join(said)


def _seen(one: Event, row: Event) -> str:
    if "observed_at" not in one:
        return ""
    ago = max(when.moment(row["as_of"]) - when.moment(one["observed_at"]), 0) / 60_000
    turns = f" + {one['carried']['turns']} turns" if "carried" in one else ""
    return f"{_ago(ago)} ago{turns}, {one.get('source', '')}"
