"""Reports what is left of each limit and what to do, for agents and for people: a row per account.

A budget is made in one pass: the log is read once, the readings that are believed become states, local turns carry them
forward, the forecasts are added, and headroom.py judges. Commands, tools and pages all show these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import catalog, headroom, limit_belief, limit_carry, limit_forecast, limit_log, when
from tokenops.events import Event
from tokenops.headroom import State
from tokenops.limit_carry import Piece
from tokenops.limit_windows import Key, Reading
from tokenops.pricing import Catalogue
from tokenops.store_days import Recent

# No window is longer than a month.
SPAN_MS = 35 * when.DAY
# A forecast learns from so much of the past; more takes longer and hardly improves it.
LEARNED_MS = 14 * when.DAY


class Limits(NamedTuple):
    """What the log says of limits: the readings, and each window as it is now, with local turns since its reading."""

    readings: list[Reading]
    states: list[State]


def limits(
    folder: str,
    now: int,
    catalogue: Callable[[], Catalogue],
    provider: str = "",
    memory: Recent | None = None,
    more: Iterable[Reading] = (),
    providers: Iterable[str] = (),
) -> Limits:
    """The limits of one provider or of all. Everything that a budget takes from the log is read here.

    `more`: readings that are not in the log; `providers`: those whose last readings count however old they are.
    Raises OSError, and what `catalogue` raises: it is called only if turns followed a reading.
    """
    readings = limit_log.readings(folder, now - SPAN_MS, now, memory)
    if provider:
        readings = [reading for reading in readings if reading.key.provider == provider]
    believed = _belief_now([*readings, *more], now, memory)
    states = headroom.states_of(believed, now)
    if missing := {*providers} - {state.provider for state in states}:
        # What was read long ago is no longer so, and still says more than nothing.
        old = limit_log.last_readings(folder, now - SPAN_MS, missing, memory)
        states = sorted([*states, *headroom.states(old, now)], key=headroom.order)
    since = limit_carry.oldest(states, now)
    if since is None:
        return Limits(believed.readings, states)
    cuts = [state.observed_at for state in states]
    spends, rates = limit_log.spends_since(folder, since, now, catalogue, cuts, memory)
    return Limits(believed.readings, limit_carry.carried_forward(states, spends, rates, now))


def _belief_now(readings: list[Reading], now: int, memory: Recent | None) -> limit_belief.Belief:
    """What is believed of some readings. `memory` keeps it for a minute, or until there is another reading.

    A third of the time of a dashboard's answer: what a minute changes is which resets are past, and `states_of` sees that.
    """
    if memory is None:
        return limit_belief.belief(readings, now)
    return memory.get("belief", (now // 60_000, readings), lambda: limit_belief.belief(readings, now))


def budget_rows(
    folder: str,
    now: int,
    thresholds: Mapping[str, Any],
    plans: Mapping[str, str],
    catalogue: Callable[[], Catalogue],
    provider: str = "",
    model: str = "",
    memory: Recent | None = None,
    more: Iterable[Reading] = (),
) -> list[Event]:
    """What is left and what to do: a row per provider and account, of one `provider` or of all. Raises as `limits` does.

    `plans`: the plan of each provider that has one, which gets a row even without a reading; `model`: the one that is called
    next, else the one that the log shows at work; `more`: readings that are not in the log. `thresholds`: as
    config.thresholds returns them. Keys of a row: v, kind (budget), provider, account, headroom_pct (0 to 100 or null),
    window_resets_in, recommended_action (continue, slow_down, switch_model, wait_for_reset), reason (as in headroom),
    switch_to (a family of models), model, elsewhere {client, provider, account, plan, headroom}, signal_quality {level,
    source, caveat}, binding_window, windows [{window, scope, used, headroom, resets_at, forecast, action, binds, ...}],
    forecast, headroom_usd and headroom_turns {p10, p50, p90} (as with_room adds them), observed_at, as_of, next_actions.
    """

    def rows(name: str) -> list[Event]:
        now_left = limits(folder, now, catalogue, name, memory, more, [each for each in plans if name in ("", each)])
        models = models_at_work(folder, now, now_left.states, model, name)
        expected = forecasts(now_left, now, models, memory)
        judged = budgets(now_left.states, now, thresholds, models, expected, [name] if name else plans, plans)
        return with_room(judged, limit_log.past_pieces(folder, now, memory) if now_left.states else {})

    chosen = rows(provider)
    if not provider or all(row["recommended_action"] == headroom.CONTINUE for row in chosen):
        return chosen
    return [row for row in rows("") if row["provider"] == provider]  # where there is room elsewhere


def models_at_work(folder: str, now: int, states: Sequence[State], model: str, provider: str) -> Mapping[str, str]:
    """Provider -> the model that is called next; where nobody names it and it matters, the last one at work in the log."""
    providers = {state.provider for state in states} | ({provider} if provider else set())
    if model:
        return dict.fromkeys(providers, model)
    matters = {state.provider for state in states if state.used is not None and not headroom.applies(state, "")}
    return limit_log.last_models(folder, now, matters - {""}) if matters else {}


def forecasts(
    limits: Limits, now: int, models: Mapping[str, str] | None = None, memory: Recent | None = None
) -> dict[Key, Event]:
    """The forecasts of the windows that may bind, of each account. `models`: as in `budgets`."""
    since = {
        state.key: (state.likely or 0.0) - state.used
        for state in limits.states
        if state.used is not None and headroom.applies(state, (models or {}).get(state.provider, ""))
    }
    if not since:
        return {}
    accounts = {key[:2] for key in since}
    readings = [reading for reading in limits.readings if reading.at >= now - LEARNED_MS and reading.key[:2] in accounts]
    return limit_forecast.forecasts(limit_log.series(readings, memory), now, since, memory)


def budgets(
    states: Sequence[State],
    now: int,
    thresholds: Mapping[str, Any],
    models: Mapping[str, str] | str = "",
    forecasts: Mapping[Key, Event] | None = None,
    providers: Iterable[str] = (),
    plans: Mapping[str, str] | None = None,
) -> list[Event]:
    """The rows of budget_rows, from states and forecasts. `models`: the model that is called next, of each provider."""
    accounts = headroom.by_account(states)
    for provider in providers:
        if not any(key[0] == provider for key in accounts):
            accounts[provider, ""] = []
    rows = []
    for key, group in sorted(accounts.items()):
        model = models if isinstance(models, str) else models.get(key[0], "")
        rows.append(_budget(key, group, now, thresholds, model, forecasts or {}))
    for row in rows:
        if row["recommended_action"] != headroom.CONTINUE and (room := _room_elsewhere(row, rows, thresholds, plans or {})):
            row["elsewhere"] = room
    return rows


def with_room(rows: Sequence[Event], pieces: Mapping[Key, Sequence[Piece]]) -> list[Event]:
    """Rows with what the headroom of the binding window buys, in dollars at list price and in turns like those before.

    `pieces`: the past of each limit. Where it cannot tell, the row stays as it is.
    """
    result = []
    for row in rows:
        bound = next((window for window in row["windows"] if window.get("binds")), None)
        if bound is not None and row["headroom_pct"]:
            key = Key(row["provider"], row.get("account", ""), bound["window"], bound.get("scope", ""))
            room = limit_carry.room(pieces.get(key, ()), bound["headroom"])
            if room is not None:
                usd, turns = (dict(zip(("p10", "p50", "p90"), points, strict=True)) for points in room)
                row["headroom_usd"] = {name: float(f"{value:.3g}") for name, value in usd.items()}
                row["headroom_turns"] = {name: round(value) for name, value in turns.items()}
        result.append(row)
    return result


def _room_elsewhere(row: Event, rows: Iterable[Event], thresholds: Mapping[str, Any], plans: Mapping[str, str]) -> Event:
    """The other plan of the user with the most room, with its client; empty if none is known to have room."""
    least = 100 * thresholds["budget"]["switch_model_headroom"]
    others = [
        other
        for other in rows
        if other is not row
        and other["recommended_action"] == headroom.CONTINUE
        and other["signal_quality"]["level"] != "low"
        and (other["headroom_pct"] or 0) >= least
    ]
    if not others:
        return {}
    best = max(others, key=lambda other: (other["headroom_pct"], other["provider"]))
    bound = next(window for window in best["windows"] if window.get("binds"))
    room = {"client": catalog.load("limits")["clients"].get(best["provider"]), "provider": best["provider"]}
    room |= {"account": best["account"]} if "account" in best else {}
    return room | {"plan": plans.get(best["provider"]) or bound.get("plan"), "headroom": best["headroom_pct"] / 100}


def _budget(
    account: tuple[str, str],
    states: Sequence[State],
    now: int,
    thresholds: Mapping[str, Any],
    model: str,
    forecasts: Mapping[Key, Event],
) -> Event:
    judged = headroom.judge(account[0], states, now, thresholds, model, forecasts)
    bound = judged.bound
    row: Event = {"v": 1, "kind": "budget", "provider": account[0]}
    if account[1]:
        row["account"] = account[1]
    row["headroom_pct"] = None if bound is None or bound.headroom is None else int(bound.headroom * 100 + 1e-9)
    row["window_resets_in"] = when.duration(bound.resets_at - now) if bound and bound.resets_at else None
    row["recommended_action"] = judged.action
    row["reason"] = judged.reason
    if judged.switch_to:
        row["switch_to"] = judged.switch_to
    if model:
        row["model"] = model
    row["signal_quality"] = judged.signal
    row["binding_window"] = bound.window if bound else None
    row["windows"] = [_window_row(state, judged, now, forecasts) for state in states]
    if judged.forecast:
        row["forecast"] = judged.forecast
    if bound is not None:
        row["observed_at"] = when.stamp(bound.observed_at)
    row["as_of"] = when.stamp(now)
    row["next_actions"] = next_actions(account[0], bound, now, thresholds["freshness"])
    goes_on = [state for state in states if judged.advice[state.key].action in (headroom.CONTINUE, headroom.SLOW_DOWN)]
    row["next_actions"] += _early_ends(goes_on, forecasts, now, thresholds["budget"])
    return row


def _window_row(state: State, judged: headroom.Judgement, now: int, forecasts: Mapping[Key, Event]) -> Event:
    """A window with its forecast and what it advises by itself."""
    row = headroom.row(state, now)
    if state.used is None:
        return row
    if state.key in forecasts:
        row["forecast"] = forecasts[state.key]
    row["action"] = judged.advice[state.key].action
    return row | {"binds": True} if state is judged.bound else row


def _early_ends(
    states: Sequence[State], forecasts: Mapping[Key, Event], now: int, rules: Mapping[str, float]
) -> Iterator[str]:
    """Which windows of more than a day run out before their reset, at this pace: said days before."""
    for state in states:
        forecast = forecasts.get(state.key)
        if forecast is None or state.used is None or state.used >= 1 or (state.minutes or 0) <= headroom.LONG_MINUTES:
            continue
        early = headroom.hours_early(state, forecast, rules)
        if early is None and rules["p_slow_down"] <= forecast["p_cutoff"] < rules["p_early"]:
            text = when.window_text(state.window, state.scope)
            yield f"plan ahead: the {text} is {forecast['p_cutoff']:.0%} likely to run out before its reset"
        elif early is not None:
            out = when.duration(when.moment(forecast["cutoff_at"]["p50"]) - now)
            text, hours = when.window_text(state.window, state.scope), when.duration(round(early * 3_600_000))
            yield f"plan ahead: at this pace the {text} runs out in {out}, {hours} early"


def next_actions(provider: str, bound: State | None, now: int, freshness: Mapping[str, float]) -> list[str]:
    """What would make the answer better. Not tok-sync: reports import what is new before they answer."""
    actions = catalog.load("limits")["next_actions"]
    reading = actions.get(provider, actions["other"])
    is_fresh = bound is not None and (now - bound.observed_at) / 60_000 <= freshness["stale"]
    return [] if is_fresh else [reading]
