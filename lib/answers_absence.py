"""Finds what the beginning of an id means, and says why an answer is empty: the nearest value, the last day with data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tokenops import answers, events, show
from tokenops.session import BadRequest

if TYPE_CHECKING:
    import datetime

    from tokenops.events import Event
    from tokenops.session import Log

# A filter's option -> the record's field.
FIELDS = {"client": "client", "project": "project", "model": "model", "session": "session_id", "provider": "provider"}
FIELDS |= {name: name for name in events.OWNER}
KINDS = ("turn", "usage", "row")


class Usage:
    """What values the filters' fields have in some records, and when the last of them was."""

    def __init__(self) -> None:
        self.values: dict[str, set[str]] = {name: set() for name in FIELDS}
        self.count = 0
        self.last = ""

    def add(self, record: Event) -> None:
        """Note a record."""
        if record.get("kind") not in KINDS:
            return
        self.count += 1
        for name, field in FIELDS.items():
            if value := record.get(field) or (events.UNKNOWN if field in events.OWNER else ""):
                self.values[name].add(str(value))
        self.last = max(self.last, str(record.get("to") or record.get("ts") or ""))

    def watch(self, records: Iterable[Event]) -> Iterator[Event]:
        """The same records, each noted."""
        for record in records:
            self.add(record)
            yield record

    def missing(self, only: events.Filter, provider: str = "") -> str:
        """The first value of a filter that no record has, with the nearest that one has; "" if each exists."""
        for name, wish in (*((name, getattr(only, name)) for name in FIELDS if name != "provider"), ("provider", provider)):
            names = self.values[name]
            if name == "project":
                names = names | {value.rpartition("/")[2] for value in names}
            if wish and wish not in names:
                # A name in another case, or only the beginning of one, is more like it than any other.
                alike = sorted(value for value in names if value.lower().startswith(wish.lower()))
                nearest = alike[0] if alike else show.nearest(wish, names, 0.5)
                hint = f"; did you mean {show.short_text(nearest)}?" if nearest else _choice(self.values[name])
                return f"no {name} {show.short_text(wish)!r}{hint}"
        return ""


# Where readings of limits come from, for messages that miss them.
READINGS = "they come from Codex's logs, the status line (tok-init sets it up), tok-poll and tok-proxy"

# So many values are all named.
_FEW = 8


def _choice(values: set[str]) -> str:
    """The values that there are, if they are few."""
    names = ", ".join(sorted(map(show.short_text, values)))
    return f"; there is only {names}" if len(values) == 1 else f"; there are {names}" if 0 < len(values) <= _FEW else ""


def of_log(
    log: Log,
    since: str,
    until: str = answers.OPEN,
    only: events.Filter = events.EVERY,
    provider: str = "",
    option: str = "--since",
) -> str:
    """Why a span of the log has no usage that a filter takes, in one sentence with a remedy; "" if it has some.

    `option`: what sets another span, "" if nothing does. For a value that does not exist, the nearest one is named.
    The sums of closed days are read: a third of a second for a year.
    """
    usage, taken = Usage(), Usage()
    for record in _records(log):
        usage.add(record)
        if only.takes(record) and provider in ("", record.get("provider")):
            taken.add(record)
    if not usage.count:
        return "the log holds no usage; tok-status shows which clients' logs were looked for"
    if missing := usage.missing(only, provider):
        last = f"he last usage of all was on {_day(usage.last, log.tz)}" if usage.last < since else ""
        return missing + (last and (f" T{last}" if missing.endswith("?") else f"; t{last}"))
    if not provider and answers.spend(log, (), since, until, only).rows:
        return ""
    filters = " that the filters take" if only != events.EVERY or provider else ""
    if not taken.count:
        return f"no usage{filters}: each value exists, but not together"
    day = _day(taken.last, log.tz)
    more = f"; use {option} {day}" if option and taken.last < since else ""
    return f"no usage in this span{filters}; the last was on {day}{more}"


def earlier(log: Log, since: str) -> str:
    """What a span of the log leaves out: since when there is more, and the option that shows it; "" if nothing."""
    from tokenops import store

    first = next(iter(store.days(log.folder)), "")
    return f"earlier usage, from {first} on: --since all" if first and first < since[:10] else ""


def provider_hint(name: str) -> str:
    """`; did you mean openai?`, for a provider that no plan and no price is of; "" for one that exists."""
    from tokenops import datadir, plans, pricing

    names = {
        *pricing.load(log_folder=datadir.log_folder()).providers,
        *(plan.provider for plan in plans.all_plans().values()),
    }
    return "" if name in names else show.meant(name, names)


def model_hint(log: Log, name: str) -> str:
    """What is wrong with a model's name for a question about limits: no price and no family is known; "" if nothing is."""
    from tokenops import limit_windows

    catalogue = log.catalogue()
    models = {model for owner in catalogue.providers.values() for model in owner["models"]}
    families = {family for provider in catalogue.providers for family in limit_windows.families(provider)}
    if name in models or any(family in name.lower() for family in families):
        return ""
    return f"no model {name!r} is known{show.meant(name, models)}; limits of single models are left out"


def session_id(folder: str, beginning: str | None, may_be_new: bool = False) -> str | None:
    """The session whose id begins with a text; None for None. `may_be_new`: without any it is taken for a whole id.

    Raises BadRequest unless there is exactly one.
    """
    from tokenops import store_sessions

    try:
        return store_sessions.session(folder, beginning)[0] if beginning else beginning
    except store_sessions.Unknown as error:
        if may_be_new and not isinstance(error, store_sessions.Ambiguous):
            return beginning
        raise BadRequest(str(error)) from None


def record_id(folder: str, beginning: str) -> str:
    """The record whose id begins with a text; the text itself if none does. Raises BadRequest if several do."""
    from tokenops import store

    names = sorted({str(record["id"]) for record in store.with_value(folder, "id", beginning, is_prefix=True)})
    names = [name for name in names if name.startswith(beginning)]
    if not names and (session := session_id(folder, beginning, may_be_new=True)) != beginning:
        raise BadRequest(f"{beginning} is the session {session}; tok-trace {beginning} shows its turns: give the id of one")
    if beginning in names or not names:
        return beginning
    if len(names) > 1:
        raise BadRequest(f"{len(names)} records begin with {beginning!r}: {', '.join(names[:6])}; give more characters")
    return names[0]


def session_of(log: Log, beginning: str | None) -> str | None:
    """The same, for a session that must be in the log: the error names the nearest."""
    from tokenops import store_sessions

    try:
        return store_sessions.session(log.folder, beginning)[0] if beginning else beginning
    except store_sessions.Unknown as error:
        raise BadRequest(str(error) + unknown_session(log, error, beginning or "")) from None


def unknown_session(log: Log, error: Exception, beginning: str) -> str:
    """`; did you mean 019f36b8?`, for the error about the beginning of a session's id; "" if several begin so."""
    from tokenops import store_sessions

    if isinstance(error, store_sessions.Ambiguous):
        return ""
    ids = {str(record["session_id"]) for record in _records(log) if record.get("session_id")}
    return show.meant(beginning, {name[: max(len(beginning), 8)] for name in ids})


def _day(stamp: str, tz: datetime.tzinfo) -> str:
    from tokenops import when

    return when.bucket(when.moment(stamp), "day", tz)


def _records(log: Log) -> Iterator[Event]:
    from tokenops import rollup, store_summaries

    grouping = rollup.Grouping(tuple(FIELDS), log.tz, log.catalogue())
    return store_summaries.records(log.folder, grouping, log.now)


def of_records(usage: Usage, only: events.Filter, tz: datetime.tzinfo) -> str:
    """Why nothing was taken of the records that were read, in one sentence."""
    if not usage.count:
        return "the input holds no usage; --log reports from TokenOps's own log"
    if missing := usage.missing(only):
        return missing
    return (
        f"none of the {usage.count:,} records is in this span or taken by the filters; the last is of {_day(usage.last, tz)}"
    )
