"""The log -> what is left of each plan, and what to do: what tok-budget says, wherever it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tokenops import headroom, limit_carry, limit_forecast, limit_meters, when
from tokenops.events import Event
from tokenops.headroom import Window
from tokenops.limit_windows import Seen
from tokenops.pricing import Catalogue

# No window is longer than a month.
SPAN_MS = 35 * when.DAY
# How much of the past a forecast is learned from; more costs time, and tells little more.
LEARNED_MS = 14 * when.DAY


def budget_rows(
    folder: str,
    now: int,
    rules: Mapping[str, Any],
    plans: Iterable[str],
    catalogue: Callable[[], Catalogue],
    provider: str = "",
    model: str = "",
) -> list[Event]:
    """An answer per provider and account that has a plan (`plans`) or a reading, or of one provider only.

    Raises OSError, and what `catalogue` raises: it is asked only where turns followed a reading.
    """
    readings = limit_meters.readings(folder, now - SPAN_MS, now)
    if provider:
        readings, plans = [one for one in readings if one.key.provider == provider], [provider]
    found = carried(folder, headroom.windows(readings, now), catalogue, now)
    return headroom.budgets(found, now, rules, model, forecasts(readings, found, now, model), plans)


def carried(folder: str, found: list[Window], catalogue: Callable[[], Catalogue], now: int) -> list[Window]:
    """Windows with what local turns added since they were read. Raises OSError."""
    read = [one.observed_at for one in found if one.used is not None and one.observed_at > now - limit_carry.OLDEST_MS]
    turns = list(limit_carry.turns_since(folder, min(read), now)) if read else []
    if not turns:
        return found
    prices = catalogue()
    spent = limit_carry.spent_between(turns, prices, [one.observed_at for one in found])
    return limit_carry.carried(found, spent, limit_carry.learned(folder, prices, now), now)


def forecasts(readings: Iterable[Seen], found: Iterable[Window], now: int, model: str = "") -> dict[Any, Event]:
    """The forecast of the window that binds, of each account."""
    binding = headroom.binding_keys(found, model)
    return limit_forecast.forecasts([one for one in readings if one.at >= now - LEARNED_MS], now, binding) if binding else {}
