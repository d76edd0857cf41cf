"""Converts moments, zones, buckets of time and spans between their text and numbers.

A moment is an integer of milliseconds since 1970 in UTC, or its text in one canonical form
(`2026-11-21T09:30:00.120Z`), whose order as text is its order in time. A zone is a tzinfo. Nothing here reads the
clock: `now` is an argument.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import re
import stat

from tokenops import light

UTC = datetime.UTC
DAY = 86_400_000
UNITS = ("hour", "day", "week", "month")
# What summaries are kept by: a quarter of an hour of UTC lies within one bucket of any zone (since 1972).
QUARTER = "quarter"
# Finest first; a week does not divide into months, so neither rolls up into the other.
COARSER = {
    QUARTER: {"hour", "day", "week", "month"},
    "hour": {"hour", "day", "week", "month"},
    "day": {"day", "week", "month"},
    "week": {"week"},
    "month": {"month"},
}

_parsed = datetime.datetime.fromisoformat
_EPOCH, _MS = datetime.datetime(1970, 1, 1, tzinfo=UTC), datetime.timedelta(milliseconds=1)
_FRACTION = light.pattern(r"\.(\d+)")
_AGO = light.pattern(r"(\d{1,6})([mhdw])\Z")
_AGO_MS = {"m": 60_000, "h": 3_600_000, "d": DAY, "w": 7 * DAY}
_WORDS = light.pattern(r"(this|last)[ _-](week|month|quarter|year)\Z")
_MONTH_NAME = light.pattern(r"([a-z]{3})([a-z]*)(?:[ _-](\d{4}))?\Z")
_PERIOD = light.pattern(r"(\d{4})(?:-(\d\d)|-?W(\d\d)|-?Q([1-4]))?\Z", re.ASCII)
# 1e11 seconds is the year 5138, and 1e11 milliseconds is 1973, before any client existed.
_MS_FROM = 100_000_000_000
# The times that a record can have: the years 2000 to 2099. Go and .NET write the year 1 for "no time".
FIRST, LAST = 946_684_800_000, 4_102_444_799_999
_FIRST_DAY, _LAST_DAY = datetime.date(2000, 1, 1), datetime.date(2101, 1, 1)


def moment(text: str) -> int:
    """Milliseconds of an RFC 3339 time, with any number of fraction digits, any offset or none (UTC). Raises ValueError."""
    if len(text) == 24 and text[23] == "Z" and text[19] == ".":  # nearly all times are canonical
        with contextlib.suppress(ValueError):
            return (_parsed(text) - _EPOCH) // _MS
    whole = text.strip()
    if fraction := _FRACTION.search(whole):
        digits = (fraction[1] + "000000")[:6]
        whole = f"{whole[: fraction.start()]}.{digits}{whole[fraction.end() :]}"
    parsed = _parsed(whole)
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return (parsed - _EPOCH) // _MS


def epoch(value: float) -> int:
    """Milliseconds of a unix time given in seconds or in milliseconds. Raises ValueError, OverflowError."""
    ms = int(value) if value >= _MS_FROM else int(value * 1000)
    if not FIRST <= ms <= LAST:
        raise ValueError("not a unix time of the years 2000 to 2099")
    return ms


def stamp(ms: int) -> str:
    """The canonical text of a moment."""
    day, rest = divmod(ms, DAY)
    return f"{_date(day)}T{rest // 3_600_000:02d}:{rest // 60_000 % 60:02d}:{rest // 1000 % 60:02d}.{rest % 1000:03d}Z"


@functools.lru_cache(1024)
def _date(day: int) -> str:
    return (_EPOCH + datetime.timedelta(days=day)).date().isoformat()


def canonical(text: str) -> str:
    """The canonical text of any RFC 3339 time of the years 2000 to 2099. Raises ValueError."""
    if len(text) == 24 and text[23] == "Z" and text[10] == "T" and text[19] == "." and text[7] == "-":
        _parsed(text)
        whole = text
    else:
        try:
            whole = stamp(moment(text))
        except OverflowError:
            raise ValueError("beyond the years of the calendar") from None
    if whole[:2] != "20":
        raise ValueError("not a time of the years 2000 to 2099")
    return whole


_RESETS = light.pattern(
    r"resets?\s+(?:at\s+)?(?:([A-Z][a-z]{2})[a-z]*\s+(\d{1,2}),?\s+(?:at\s+)?)?"
    r"(\d{1,2})(?::(\d\d))?\s*([ap])m\s*\(([\w/+-]+)\)"
)
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


def clock_time(text: str, seen: str) -> int | None:
    """The moment meant by "resets Jul 23 at 6pm (America/Los_Angeles)": the first such moment after the text was seen.

    None if the text has no such clause or no zone.
    """
    match = _RESETS.search(text)
    if not match:
        return None
    month, day, hour, minute, half, name = match.groups()
    try:
        tz = zone(name)
        at = local(moment(seen), tz)
        at = at.replace(hour=int(hour) % 12 + 12 * (half == "p"), minute=int(minute or 0), second=0, microsecond=0)
        if month:
            at = at.replace(month=_MONTHS.index(month) // 3 + 1, day=int(day))
            step = datetime.timedelta(days=365)
        else:
            step = datetime.timedelta(days=1)
        resets = moment(at.isoformat())
        return resets if resets > moment(seen) else moment((at + step).isoformat())
    except ValueError:
        return None


def zone(name: str | None) -> datetime.tzinfo:
    """The zone of that IANA name or POSIX rule, or the machine's own for None. Raises ValueError for an unknown name."""
    if name is None:
        name = os.environ.get("TZ", "").lstrip(":")
        if not name:
            return _machine_zone()
        if os.path.isabs(name):
            return _zone_of_file(name)
    if name.upper() in ("UTC", "Z"):
        return UTC
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    other = _posix_zone(name)
    if other is None and not os.path.isabs(name) and ".." not in name:
        from dateutil import tz  # knows the zones on a machine without a zone database

        other = tz.gettz(name)
        other = None if isinstance(other, tz.tzstr) else other  # a rule: dateutil takes its sign the other way round
    if other is None:
        raise ValueError(f"unknown zone {name!r}: use an IANA name such as Europe/Berlin")
    return other


# Name, offset, and for summer time its name, offset and rules (POSIX.1-2017, 8.3). POSIX also allows an offset of 24 hours;
# datetime cannot hold one.
_ZONE_NAME, _OFFSET = r"(?:[A-Za-z]{3,}|<[\w+-]{3,}>)", r"[+-]?(?:[01]?\d|2[0-3])(?::\d\d){0,2}"
_POSIX = light.pattern(rf"{_ZONE_NAME}{_OFFSET}({_ZONE_NAME}(?:{_OFFSET})?(,[\w./:+,-]+)?)?\Z", re.ASCII)


def _posix_zone(rule: str) -> datetime.tzinfo | None:
    """The zone of a rule such as `UTC-8` (eight hours east) or `CET-1CEST,M3.5.0,M10.5.0/3`; None if it is not one.

    The standard library reads such a rule only at the end of a zone's file (RFC 8536), so this makes a file without
    transitions.
    """
    parts = _POSIX.match(rule)
    if parts is None:
        return None
    import io
    import struct
    import zoneinfo

    whole = rule if parts[2] or not parts[1] else f"{rule},M3.2.0,M11.1.0"  # as in glibc
    block = struct.pack(">4sc15x6l", b"TZif", b"2", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb4s", 0, 0, 0, b"UTC\0")
    try:
        return zoneinfo.ZoneInfo.from_file(io.BytesIO(block * 2 + b"\n" + whole.encode() + b"\n"), key=rule)
    except ValueError:
        return None


def _zone_of_file(path: str) -> datetime.tzinfo:
    """The zone of a file that TZ names. Raises ValueError."""
    import zoneinfo

    _, marker, name = path.partition("/zoneinfo/")
    try:
        if marker and name:
            return zoneinfo.ZoneInfo(name)
        if stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as file:
                return zoneinfo.ZoneInfo.from_file(file, key=path)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ValueError(f"TZ={path} is not a file of a zone: use an IANA name such as Europe/Berlin")


def _machine_zone() -> datetime.tzinfo:
    import zoneinfo

    try:
        target = os.path.realpath("/etc/localtime")
        _, marker, name = target.partition("zoneinfo/")
        if marker and name:
            return zoneinfo.ZoneInfo(name)
        with open("/etc/localtime", "rb") as file:
            return zoneinfo.ZoneInfo.from_file(file, key="local")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def zone_name(tz: datetime.tzinfo) -> str:
    """A zone's name as `zone` would take it."""
    return getattr(tz, "key", None) or ("UTC" if tz is UTC else str(tz))


def local(ms: int, tz: datetime.tzinfo) -> datetime.datetime:
    """The moment as an aware time in the zone."""
    return (_EPOCH + datetime.timedelta(milliseconds=ms)).astimezone(tz)


def bucket(ms: int, unit: str, tz: datetime.tzinfo) -> str:
    """The label of the unit of local time that holds the moment.

    hour `2026-11-21T14:00+01:00` (the offset tells the two hours of an autumn change apart), day `2026-11-21`,
    week `2026-W47` (ISO 8601), month `2026-11`.
    """
    at = local(ms, tz)
    if unit == "hour":
        offset = at.strftime("%z")
        return f"{at:%Y-%m-%dT%H}:00{offset[:3]}:{offset[3:5]}"
    if unit == "day":
        return f"{at:%Y-%m-%d}"
    if unit == "week":
        year, week, _ = at.isocalendar()
        return f"{year}-W{week:02d}"
    if unit == "month":
        return f"{at:%Y-%m}"
    raise ValueError(f"unknown unit of time {unit!r}")


class Buckets(dict[str, str]):
    """Hour of a canonical time (its first 13 characters) -> bucket, or "" if the hour lies in two of them.

    Then `label_of` says which: in +05:45 an hour of UTC is part of two local ones.
    """

    def __init__(self, unit: str, tz: datetime.tzinfo) -> None:
        super().__init__()
        self.unit, self.tz = unit, tz

    def __missing__(self, hour: str) -> str:
        if self.unit == QUARTER:
            return ""
        first = moment(hour + ":00:00.000Z")
        begins, ends = (bucket(ms, self.unit, self.tz) for ms in (first, first + 3_599_999))
        self[hour] = begins if begins == ends else ""
        return self[hour]

    def label_of(self, text: str) -> str:
        """The bucket of a canonical time."""
        if self.unit == QUARTER:
            return f"{text[:14]}{int(text[14:16]) // 15 * 15:02d}"
        return self[text[:13]] or bucket(moment(text), self.unit, self.tz)


def coarser_label(label: str, unit: str, to: str) -> str:
    """The bucket of unit `to` that holds the whole bucket `label`. Raises ValueError if none does."""
    if to not in COARSER[unit]:
        raise ValueError(f"rows by {unit} cannot be rolled up by {to}")
    if to == unit:
        return label
    if to == "month":
        return label[:7]
    if to == "day":
        return label[:10]
    year, week, _ = datetime.date.fromisoformat(label[:10]).isocalendar()
    return f"{year}-W{week:02d}"


SPANS = "7d, 24h, today, last week, june, 2026-06, 2026-W26, 2026-11-01 or 2026-11-01T09:30:00Z"


def parse_since(text: str, now: int, tz: datetime.tzinfo) -> int:
    """The first moment of a span as in SPANS: of days, a week, a month or its like, or a time. Raises ValueError."""
    return _bounds(text, now, tz)[0]


def parse_until(text: str, now: int, tz: datetime.tzinfo) -> int:
    """The moment after a span as in SPANS: all of a day, a week, a month or its like is inside. Raises ValueError."""
    return _bounds(text, now, tz)[1]


# A limit's period is recognised by its length, never by a vendor's name for it; clients report 299 minutes for 300.
_WINDOWS = ((60, "hourly"), (300, "five_hour"), (1440, "daily"), (10_080, "weekly"), (43_200, "monthly"))


def window_name(minutes: float) -> str:
    """The name of a limit window of that length: five_hour, weekly, ..., or `<n>_minutes`."""
    for length, name in _WINDOWS:
        if abs(minutes - length) <= length * 0.04:
            return name
    return f"{round(minutes)}_minutes"


_WINDOW_TEXTS = {name: {"hourly": "1 h", "five_hour": "5 h"}.get(name, name) for _, name in _WINDOWS}


def window_text(name: str, scope: str = "") -> str:
    """A limit window for people: 5 h limit, weekly limit, opus."""
    plain = name.removesuffix(f"_{scope}") if scope else name
    window, _, rest = plain.partition("_") if plain not in _WINDOW_TEXTS else (plain, "", "")
    if window not in _WINDOW_TEXTS:
        window, rest = (
            (f"{plain.removesuffix('_minutes')} min" if plain.endswith("_minutes") else plain.replace("_", " ")),
            "",
        )
    title = _WINDOW_TEXTS.get(window, window)
    title = title if plain == "credits" else f"{title} limit"
    return ", ".join(filter(None, (title, rest.replace("_", " "), scope.replace("_", " "))))


def short_time(ms: int, tz: datetime.tzinfo, now: int) -> str:
    """A moment for people: 21 Nov 09:30, or 21 Nov 2025 if that was another year."""
    at = local(ms, tz)
    day = f"{at.day:2} {_MONTHS[3 * at.month - 3 : 3 * at.month]}"
    return f"{day} {at:%H:%M}" if at.year == local(now, tz).year else f"{day} {at.year:4}"


def span_text(since: int | None, until: int | None, tz: datetime.tzinfo, now: int) -> str:
    """A span for people: 1 Jul to 31 Jul, 21 Nov 09:30 to now; None where it is open."""
    begin = "the beginning" if since is None else _edge_text(since, since, tz, now)
    end = "now" if until is None else _edge_text(until, until - DAY // 2, tz, now)
    return begin if begin == end else f"{begin} to {end}"


def _edge_text(ms: int, day: int, tz: datetime.tzinfo, now: int) -> str:
    """A moment for people; one that parts two days as the day that another moment lies in."""
    at = local(ms, tz)
    if at.hour or at.minute:
        return short_time(ms, tz, now).strip()
    at = local(day, tz)
    year = "" if at.year == local(now, tz).year else f" {at.year}"
    return f"{at.day} {_MONTHS[3 * at.month - 3 : 3 * at.month]}{year}"


def duration(ms: int, seconds: bool = False, whole: bool = True) -> str:
    """A length of time: 12m, 1h41m, 3d4h. `seconds`: 45s for less than a minute; not `whole`: 1h, 3d, rounded down."""
    if seconds and ms < 60_000:
        return f"{max(round(ms / 1000), 0)}s"
    minutes = max(ms, 0) // 60_000
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days}d{hours}h" if hours and whole else f"{days}d"
    if hours:
        return f"{hours}h{minutes:02d}m" if whole else f"{hours}h"
    return f"{minutes}m"


def ago(ms: int, now: int) -> str:
    """How long ago a moment was, for people: now, 2 min ago, 3 h ago, 5 d ago."""
    minutes = (now - ms) // 60_000
    if minutes < 1:
        return "now"
    value, unit = (minutes, "min") if minutes < 120 else (minutes // 60, "h") if minutes < 2880 else (minutes // 1440, "d")
    return f"{value} {unit} ago"


def _bounds(text: str, now: int, tz: datetime.tzinfo) -> tuple[int, int]:
    """The first moment of a span, and the moment after it; the same for a single moment.

    Both lie within the times that a record can have. Raises ValueError.
    """
    if ago := _AGO.match(text):
        at = now - int(ago[1]) * _AGO_MS[ago[2]]
        return at, at
    try:
        days = _days(text.strip().lower(), local(now, tz).date())
        if days:
            begin, end = (_midnight(min(max(day, _FIRST_DAY), _LAST_DAY), tz) for day in days)
        else:
            time = datetime.datetime.fromisoformat(text)
            begin = end = moment(text if time.tzinfo else time.replace(tzinfo=tz).isoformat())
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a valid time: use {SPANS}") from None
    return min(max(begin, FIRST), LAST), min(max(end, FIRST), LAST)


def _days(text: str, today: datetime.date) -> tuple[datetime.date, datetime.date] | None:
    """The first day of a span of whole days and the day after it; None for anything else. Raises ValueError."""
    day = datetime.timedelta(days=1)
    if text in ("today", "yesterday"):
        begin = today - day * (text == "yesterday")
        return begin, begin + day
    if word := _WORDS.match(text):
        return _period(today, word[2], -(word[1] == "last"))
    if (name := _MONTH_NAME.match(text)) and (month := _month_number(name[1] + name[2])):
        latest = today.year - (month > today.month)
        return _period(datetime.date(int(name[3] or latest), month, 1), "month", 0)
    if period := _PERIOD.match(text.upper()):
        year, month_text, week_text, quarter = period.groups()
        if week_text:
            return _period(datetime.date.fromisocalendar(int(year), int(week_text), 1), "week", 0)
        if quarter:
            return _period(datetime.date(int(year), 3 * int(quarter), 1), "quarter", 0)
        return _period(datetime.date(int(year), int(month_text or 1), 1), "month" if month_text else "year", 0)
    if len(text) > 10:
        return None
    begin = datetime.date.fromisoformat(text.upper())
    return begin, min(begin, datetime.date.max - day) + day


def _month_number(name: str) -> int:
    """The number of the month of an English name or its first three letters; 0 if there is none."""
    names = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
        "sept",
    ]
    at = next((at for at, month in enumerate(names) if name in (month, month[:3])), -1)
    return 9 if at == 12 else at + 1


def _period(day: datetime.date, unit: str, step: int) -> tuple[datetime.date, datetime.date]:
    """The week, month, quarter or year of a day, or so many steps from it, and the day after its end."""
    if unit == "week":
        begin = day - datetime.timedelta(days=day.weekday() - 7 * step)
        return begin, begin + datetime.timedelta(days=7)
    if unit == "year":
        return datetime.date(day.year + step, 1, 1), datetime.date(day.year + step + 1, 1, 1)
    length = 3 if unit == "quarter" else 1
    first = (day.year * 12 + day.month - 1) // length * length + step * length
    begin, end = (datetime.date(months // 12, months % 12 + 1, 1) for months in (first, first + length))
    return begin, end


def _midnight(day: datetime.date, tz: datetime.tzinfo) -> int:
    """The first moment of a local day: midnight, or the first moment that exists if the zone skips midnight."""
    start = datetime.datetime(day.year, day.month, day.day, tzinfo=tz)
    return moment(start.astimezone(UTC).isoformat())
