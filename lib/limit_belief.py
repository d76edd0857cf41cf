"""Decides which of the vendors' readings are believed, before anything is judged or forecast by them.

The principle: readings that change and agree are believed; a large number alone proves nothing. An idle session repeats an
old number, a vendor moves, resets and gives back windows, a single number may be nonsense, and two logins may share one
log. So the newest reading counts, unless it only repeats, or stands alone against several that agree. A refusal counts
until its reset, or until a later reading shows room. Pure.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tokenops import limit_windows
from tokenops.limit_windows import JITTER_MS, MINUTE, PLAN, Key, Reading

REJECTED = "rejected"
# What clocks differ by: a reading dated further ahead is not believed.
AHEAD_MS = 5 * MINUTE
# Sessions at work report the same window up to a turn apart: so far apart, a lower number says nothing.
LAG, LAG_MS = 0.03, 15 * MINUTE
# A jump of more than this, and of so much for each minute, right after three readings that agree, waits for a second one.
# The fastest burst known to us uses 5 % a minute.
JUMP, JUMP_PER_MINUTE, NEAR = 0.25, 0.05, 0.05
# A single reading that stands so far above those before and after it is nonsense.
SPIKE = 0.15
# What believing a lower number needs: two new numbers or fresh answers, or three that were read before.
ENOUGH, REPEATED = 2.0, 0.67
# A refusal without a reset and without a window that is nearly used up counts for as long as the shortest plan's window.
REFUSAL_MS, NEARLY = 300 * MINUTE, 0.8
_EVER = 1 << 30  # minutes
# How long another window, open beside the one that counts, is remembered as a sign of another login.
BESIDE_MS = 360 * MINUTE
MIXED = "another login may be at work: {used:.0%} of this window, with another reset, was read too, and this may mix both"
APART = "logins without names, which are told apart by their resets"


class Belief(NamedTuple):
    """The readings that are believed, and what makes some of them doubtful."""

    readings: list[Reading]
    doubts: dict[Key, str]


def belief(readings: Iterable[Reading], now: int) -> Belief:
    """What is believed at a moment. It changes nothing if it is done twice."""
    every = sorted(dict.fromkeys(reading for reading in readings if reading.at <= now + AHEAD_MS), key=rank)
    doubts: dict[Key, str] = {}
    accounts: dict[tuple[str, str], list[Reading]] = {}
    for reading in every:
        accounts.setdefault(reading.key[:2], []).append(reading)
    result: list[Reading] = []
    for (_, account), group in accounts.items():
        logins = [group] if account else _logins(group, now)
        for login in logins:
            kept: list[Reading] = []
            by_key: dict[Key, list[Reading]] = {}
            for reading in _with_refusals(_of_plan_in_force(login, now), now):
                by_key.setdefault(reading.key, []).append(reading)
            for key, of_key in by_key.items():
                # What is older than the window is long is of a window that is over: a past to learn from.
                begin = of_key[-1].at - (of_key[-1].minutes or _EVER) * MINUTE
                first = bisect.bisect_left(of_key, begin, key=_moment)
                window, doubt = _of_window(of_key[first:], now)
                kept += of_key[:first] + window
                if doubt or len(logins) > 1:
                    doubts[key] = doubt or f"{len(logins)} {APART}"
            result += kept
    return Belief(sorted(result, key=rank), doubts)


def rank(reading: Reading) -> tuple[int, float, bool, str, int]:
    """The order of readings: by time; of one moment the highest is the last."""
    return reading.at, reading.used, reading.status == REJECTED, reading.source, reading.resets_at or 0


def _moment(reading: Reading) -> int:
    return reading.at


def _is_fresh(reading: Reading) -> bool:
    """Whether each reading of its source is a new answer. Clients' files and status lines may repeat an old one."""
    return reading.source == "proxy" or reading.source.startswith("vendor-")


def _repeats(reading: Reading) -> bool:
    return "statusline" in reading.source


# Logins without names.


def _logins(readings: list[Reading], now: int) -> list[list[Reading]]:
    """Readings without an account, by login, if resets show that there are several; else all together.

    Windows that were read in one answer belong together. Two such groups are two logins if both have a window of one kind
    that is open now, with different resets, and the first was still used after the second was seen.
    """
    opened = [reading for reading in readings if reading.resets_at is not None and reading.resets_at > now]
    logins: list[list[Reading]] = []
    for group in sorted(_groups(opened), key=lambda group: rank(group[0])):
        if not logins or all(_are_apart(login, group) for login in logins):
            logins.append(group)
    if len(logins) < 2:
        return [readings]
    owner = {reading: number for number, login in enumerate(logins) for reading in login}
    phases = {phase: number for number, login in enumerate(logins) for phase in map(_phase, login)}
    result: list[list[Reading]] = [[] for _ in logins]
    for reading in readings:
        number = owner.get(reading, phases.get(_phase(reading), 0))
        key = reading.key._replace(account=f"login-{number + 1}")
        result[number].append(reading._replace(key=key))
    return result


def _phase(reading: Reading) -> tuple[str, str, int]:
    """Which slot of a period a window's reset has: a week's is the same for months."""
    length = max(reading.minutes, 1) * MINUTE
    return reading.key.window, reading.key.scope, (reading.resets_at or 0) % length // (2 * JITTER_MS)


def _groups(readings: Sequence[Reading]) -> list[list[Reading]]:
    """The readings of windows that were read together, each number once, in order of time."""
    slots: dict[tuple[str, str], dict[int, int]] = {}
    for key, same in itertools.groupby(sorted(readings, key=_kind), key=_kind):
        slots[key] = limit_windows.canonical_resets(reading.resets_at or 0 for reading in same)
    parent: dict[tuple[str, str, str, int], tuple[str, str, str, int]] = {}

    def node(reading: Reading) -> tuple[str, str, str, int]:
        return *_kind(reading), reading.plan, slots[_kind(reading)][reading.resets_at or 0]

    def root(name: tuple[str, str, str, int]) -> tuple[str, str, str, int]:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for _, together in itertools.groupby(sorted(readings, key=_sighting), key=_sighting):
        names = [root(node(reading)) for reading in together]
        for name in names[1:]:
            parent[root(name)] = root(names[0])
    groups: dict[tuple[str, str, str, int], dict[tuple[object, ...], Reading]] = {}
    for reading in readings:
        groups.setdefault(root(node(reading)), {}).setdefault((node(reading), reading.used), reading)
    return [sorted(group.values(), key=rank) for group in groups.values()]


def _kind(reading: Reading) -> tuple[str, str]:
    return reading.key.window, reading.key.scope


def _sighting(reading: Reading) -> tuple[int, str, str]:
    return reading.at, reading.source, reading.plan


def _are_apart(login: list[Reading], group: list[Reading]) -> bool:
    """Whether two groups of windows, the first of which was seen first, are of two logins."""
    mine, other = ({_kind(reading): reading for reading in part} for part in (login, group))
    if all(_is_of(mine[kind], other[kind]) for kind in mine.keys() & other.keys()):
        return False
    since = group[0].at
    later = {reading.at for reading in login if reading.at > since}
    return len(later) > 1 or any(at >= since + LAG_MS for at in later)


# The plan in force.


def _of_plan_in_force(readings: list[Reading], now: int) -> list[Reading]:
    """The readings without those of an earlier plan, whose windows count no more. One late reading changes no plan."""
    runs: list[tuple[str, set[int]]] = []
    for reading in readings:
        if reading.plan:
            if not runs or runs[-1][0] != reading.plan:
                runs.append((reading.plan, set()))
            runs[-1][1].add(reading.at)
    if len(runs) < 2:
        return readings
    is_late = len(runs[-1][1]) == 1 and any(plan == runs[-1][0] for plan, _ in runs[:-1])
    plan = runs[-2 if is_late else -1][0]
    current = {reading.key for reading in readings if reading.plan in ("", plan)}
    return [
        reading
        for reading in readings
        if reading.plan in ("", plan)
        or (reading.key in current and reading.resets_at is not None and reading.resets_at <= now)
    ]


# Refusals that name no window.


def _with_refusals(readings: list[Reading], now: int) -> list[Reading]:
    """The readings of one account, each refusal without a window placed in its window, or left out if it counts no more."""
    refusals = [reading for reading in readings if reading.key.window == PLAN]
    if not refusals:
        return readings
    others = [reading for reading in readings if reading.key.window != PLAN]
    placed = []
    for refusal in refusals:
        window = _window_of(refusal, others)
        if window is not None:
            placed.append(window._replace(at=refusal.at, used=1.0, status=REJECTED, source=refusal.source))
        elif (refusal.resets_at or refusal.at + REFUSAL_MS) > now and not _is_lifted(refusal, others):
            placed.append(refusal)
    return sorted(others + placed, key=rank)


def _window_of(refusal: Reading, readings: Sequence[Reading]) -> Reading | None:
    """A reading of the window that a refusal is about: one with its reset, or the fullest one that is nearly used up."""
    at, resets_at = refusal.at, refusal.resets_at
    opened = [
        reading for reading in readings if reading.minutes and reading.resets_at is not None and reading.resets_at > at
    ]
    if resets_at is not None:
        opened = [reading for reading in opened if abs((reading.resets_at or 0) - resets_at) < JITTER_MS]
    else:
        last = {reading.key: reading for reading in opened if reading.at <= at}
        opened = [reading for reading in last.values() if reading.used >= NEARLY]
    return max(opened, key=lambda reading: (reading.used, -reading.minutes), default=None)


def _is_lifted(refusal: Reading, readings: Sequence[Reading]) -> bool:
    """Whether a reading after a refusal shows room: a new number or a fresh answer, at a moment when nothing is used up."""
    seen = {(reading.key, reading.used) for reading in readings if reading.at <= refusal.at}
    after = [reading for reading in readings if reading.at > refusal.at]
    full = {reading.at for reading in after if reading.used >= 1 or reading.status == REJECTED}
    return any(
        reading.at not in full and reading.minutes and (_is_fresh(reading) or (reading.key, reading.used) not in seen)
        for reading in after
    )


# One window.


class _Period(NamedTuple):
    """One period of a window: when it is reset (None: unknown) and its readings in order of time."""

    resets_at: int | None
    readings: list[Reading]

    def is_over(self, at: int) -> bool:
        last = self.readings[-1]
        ends: int | None = self.resets_at
        if ends is None and last.minutes:
            ends = last.at + last.minutes * MINUTE
        return ends is not None and ends <= at


def _of_window(readings: list[Reading], now: int) -> tuple[list[Reading], str]:
    """The readings of one window that are believed, and a doubt. The last of them is what the window is like now."""
    valid = [reading for reading in readings if reading.resets_at is None or reading.at < reading.resets_at]
    if not valid:
        return readings[-1:], ""
    periods: list[_Period] = []
    returned: list[Reading] = []  # of a period that was left and comes again
    current = -1
    for reading in valid:
        number = _period_of(reading, periods, current)
        if number == len(periods):
            periods.append(_Period(reading.resets_at, []))
        elif number != current and not periods[current].is_over(reading.at):
            if _is_fresh(reading) or not any(other.used == reading.used for other in periods[number].readings):
                returned = [other for other in returned if _is_of(other, reading)] + [reading]
            if len(returned) < 2:
                continue
            periods[number].readings.extend(returned[:-1])
        returned = []
        current = number
        periods[number].readings.append(reading)
    last = periods[current]
    supported = _chain(last.readings)
    if last.resets_at is not None:
        supported = [each if each.resets_at is not None else each._replace(resets_at=last.resets_at) for each in supported]
    earlier = [
        reading for period in periods if period is not last for reading in period.readings if reading.at < supported[-1].at
    ]
    return sorted(earlier + supported, key=rank), _doubt(periods, last, supported, now)


def _is_of(reading: Reading, other: Reading) -> bool:
    return abs((reading.resets_at or 0) - (other.resets_at or 0)) < JITTER_MS


def _period_of(reading: Reading, periods: Sequence[_Period], current: int) -> int:
    """The number of a reading's period; the next free number for a new one."""
    if reading.resets_at is None:
        return current if current >= 0 and not periods[current].is_over(reading.at) else len(periods)
    same = (
        number
        for number in itertools.chain([current] if periods else [], reversed(range(len(periods))))
        if (at := periods[number].resets_at) is not None and abs(at - reading.resets_at) < JITTER_MS
    )
    return next(same, len(periods))


def _doubt(periods: Sequence[_Period], last: _Period, supported: Sequence[Reading], now: int) -> str:
    """What speaks against the period that counts: another one that is open, too, was read shortly before."""
    if len({reading.used for reading in supported}) > 2:
        return ""
    for other in periods:
        if other is not last and not other.is_over(now) and last.readings[0].at - other.readings[-1].at < BESIDE_MS:
            return MIXED.format(used=other.readings[-1].used)
    return ""


def _chain(readings: Sequence[Reading]) -> list[Reading]:
    """The readings of one period that agree, in order of time and of use; the last is believed."""
    chain: list[Reading] = []
    lower: list[tuple[Reading, bool]] = []  # since the last of the chain, and below it; whether the number is new
    waiting: list[Reading] = []  # a jump that no second reading has confirmed
    seen: set[float] = set()
    left: set[float] = set()  # what was given back
    for reading in readings:
        is_new = reading.used not in seen
        seen.add(reading.used)
        top = chain[-1] if chain else reading
        if reading.used >= top.used:
            if reading.used in left and _repeats(reading) and reading.used - top.used > LAG:
                continue
            if waiting and reading.used >= waiting[0].used - NEAR:
                chain += [other for other in waiting if other.used <= reading.used]
            elif _is_jump(chain, reading):
                waiting = [reading]
                continue
            chain.append(reading)
            lower, waiting = [], []
            continue
        waiting = []
        below = bisect.bisect_right(chain, reading.used, key=_share)
        if top.status == REJECTED and reading.status != REJECTED and (is_new or _is_fresh(reading)):
            chain, lower = [*(other for other in chain[:below] if other.status != REJECTED), reading], []
        elif top.used - reading.used <= LAG and reading.at - top.at <= LAG_MS:
            continue
        elif is_new and _is_spike(chain[:below], chain[below:], reading):
            chain, lower = [*chain[:below], reading], []
        else:
            lower = [*(pair for pair in lower if pair[0].used <= reading.used), (reading, is_new)]
            if _is_enough(lower):
                left |= {other.used for other in chain[below:]}
                chain, lower = [other for other, _ in lower], []
    return chain


def _share(reading: Reading) -> float:
    return reading.used


def _is_jump(chain: Sequence[Reading], reading: Reading) -> bool:
    """Whether a number is far above three readings shortly before that agree."""
    recent = [other for other in chain[-3:] if reading.at - other.at <= LAG_MS and chain[-1].used - other.used <= NEAR]
    if len(recent) < 3 or reading.status == REJECTED:
        return False
    return reading.used - chain[-1].used > JUMP + JUMP_PER_MINUTE * (reading.at - chain[-1].at) / MINUTE


def _is_spike(before: Sequence[Reading], above: Sequence[Reading], reading: Reading) -> bool:
    """Whether one reading stands alone above two before it and the next one."""
    is_alone = len(above) == 1 and above[0].status != REJECTED and above[0].used - reading.used >= SPIKE
    return is_alone and len({other.at for other in before}) > 1


def _is_enough(lower: Sequence[tuple[Reading, bool]]) -> bool:
    """Whether lower readings, each at least the one before, outweigh a higher one."""
    weight, last = 0.0, -1.0
    for reading, is_new in lower:
        if _is_fresh(reading) or is_new:
            weight += 1
        elif reading.used != last or not _repeats(reading):
            weight += REPEATED
        last = reading.used
    return weight >= ENOUGH
