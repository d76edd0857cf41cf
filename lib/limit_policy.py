"""Replays what rules would have advised before each cap: cutoffs without a warning, and warnings for nothing.

The rule of TokenOps is the action that tok-budget prints; the others are those of other tools, on the same readings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tokenops import catalog, headroom, when
from tokenops.events import Event
from tokenops.headroom import State
from tokenops.limit_forecast import FEW, Analogs, crossing
from tokenops.limit_windows import MINUTE, Series

# What warns: the action of tok-budget; a line through the last half hour that reaches the cap within the hour; one since the
# window's start that reaches it before the reset (the projection of ccusage, and claude-monitor's "will run out"); four
# fifths used (ccusage's warning).
ACTION, LINE, START, SHARE = RULES = ("action", "line_30", "since_start", "share_80")
SHARE_USED = 0.8
# A warning counts if it stands so many minutes before the cutoff.
LEAD_MINUTES = 10
# A warning lasts until the next reading, at most so long.
LASTS_MS = 20 * MINUTE


class Moment(NamedTuple):
    """What each of RULES says at a reading: whether it warns."""

    at: int
    warns: tuple[bool, ...]


class End(NamedTuple):
    """One cap in one window: when it was reached (None: never), and the readings before."""

    cap: int
    reached_at: int | None
    resets_at: int
    moments: tuple[Moment, ...]


class Watch:
    """Notes what the rules say at the moments of one series."""

    def __init__(self, series: Series, caps: Sequence[int]) -> None:
        self.series, self.caps = series, caps
        self.rules = {name: float(value) for name, value in catalog.load("thresholds")["budget"].items()}
        self.moments: dict[tuple[int, int], list[Moment]] = {}

    def at(self, analogs: Analogs, left: int, slope: float) -> None:
        """Note a moment: `left` minutes before the reset, the last half hour having `slope` percent a minute."""
        now = analogs.now
        caps = [cap for cap in self.caps if cap > now.used]
        pace = now.used / max(2**now.age - 15, 1)
        for cap, forecast in zip(caps, _forecasts(analogs, left, [cap - now.used for cap in caps]), strict=True):
            need, used = cap - now.used, now.used / cap
            action = headroom.action(self._state(analogs, used), forecast, self.rules, False, now.at).action
            warns = action != headroom.CONTINUE, slope * min(60, left) >= need, pace * left >= need, used >= SHARE_USED
            self.moments.setdefault((now.resets_at, cap), []).append(Moment(now.at, warns))

    def _state(self, analogs: Analogs, used: float) -> State:
        key, now = self.series.key, analogs.now
        minutes = analogs.history.minutes
        return State(key.provider, key.account, key.window, minutes, key.scope, used, now.resets_at, now.at, "", "", "")

    def ends(self) -> Iterator[End]:
        """Each cap of each window that had a reading below it."""
        points = {window.resets_at: window.points for window in self.series.windows}
        for (resets_at, cap), moments in self.moments.items():
            reached = next((point.at for point in points[resets_at] if 100 * point.used >= cap), None)
            yield End(cap, reached, resets_at, tuple(moments))


def _forecasts(analogs: Analogs, left: int, needs: Sequence[float]) -> Iterator[Event]:
    """The forecasts of some caps, as far as an action depends on them."""
    before, hour = analogs.reach(left, needs), analogs.reach(min(60, left), needs)
    few = analogs.weight(left if analogs.long else min(60, left)) < FEW
    # Only of a window of more than a day it matters when it runs out.
    spans = sorted({max(left * part // 8, 1) for part in range(1, 9)}) if analogs.long else []
    later = [analogs.reach(span, needs) for span in spans]
    for at, (p, q) in enumerate(zip(before, hour, strict=True)):
        forecast: Event = {"p_within_minutes": {"60": q}, "p_cutoff": p, "few_data": few}
        points = [(0, 0.0)]
        for span, chances in zip(spans, later, strict=True):
            points.append((span, max(chances[at], points[-1][1])))
        out = crossing(points, 0.5, analogs.now.at)
        yield forecast | ({"cutoff_at": {"p50": when.stamp(int(out))}} if out is not None else {})


class Score(NamedTuple):
    """What a rule was worth: cutoffs with a reading ten minutes before or more, those of them without a warning then, and
    the minutes that caps which were never reached were warned of, per cap and day (None without a day)."""

    cutoffs: int
    unwarned: int
    slowed_minutes: float | None


def score(ends: Iterable[End], rule: str, days: int, caps: int) -> Score:
    """The score of one rule. `days`: with readings; `caps`: how many were watched."""
    at, cutoffs, unwarned, slowed = RULES.index(rule), 0, 0, 0
    for end in ends:
        if end.reached_at is None:
            nexts = [*(moment.at for moment in end.moments[1:]), end.resets_at]
            slowed += sum(
                min(after - moment.at, LASTS_MS)
                for moment, after in zip(end.moments, nexts, strict=True)
                if moment.warns[at]
            )
            continue
        early = [moment for moment in end.moments if moment.at <= end.reached_at - LEAD_MINUTES * MINUTE]
        if early:
            cutoffs += 1
            unwarned += not early[-1].warns[at]
    return Score(cutoffs, unwarned, slowed / MINUTE / days / caps if days and caps else None)
