"""Reads a vendor's reports of usage and cost (buckets of time, page after page) and returns aggregates.

An open bucket is read again, under the same identity, until it is over and settled. The later reading of a bucket
replaces the earlier, so nothing is counted twice. Account aggregates are never added to anything, only compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tokenops import etiquette, events, untrusted, when
from tokenops.etiquette import Ask, Request, Results, Trouble, WebSteps

# Width -> its length, and how many buckets a page may hold (the same at Anthropic and OpenAI).
WIDTHS = {"1m": (60_000, 1440), "1h": (3_600_000, 168), "1d": (when.DAY, 31)}
# Pages of one report and run; a year of hours has 53.
_MOST_PAGES = 400


class Bucket(NamedTuple):
    """A stretch of time, and the account whose usage in it is reported."""

    begins: str
    ends: str
    account: str  # the vendor's own name of it


class Report(NamedTuple):
    """How one report is asked for and read. Functions raise events.BadRecord for what cannot be read."""

    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    account: str  # the header that names the organisation
    times: Callable[[untrusted.Raw], tuple[object, object]]
    event: Callable[[Ask, untrusted.Raw, Bucket], events.Event | None]
    mark: str = ""  # under which is remembered how far was read
    length: int = 0


def start_of(ask: Ask, length: int, mark: str) -> int:
    """From when on to read: the first bucket that is not settled, or as far back as is asked for."""
    if ask.checking:
        return floor(ask.now, length)
    if ask.since is not None:
        return floor(ask.since, length)
    first = floor(ask.now - ask.rules["first_hours"] * etiquette.HOUR, length)
    return min(ask.marks.get(mark) or first, settled_until(ask, length))


def settled_until(ask: Ask, length: int) -> int:
    """The end of the last bucket that will not change any more."""
    return floor(ask.now - ask.rules["settle_minutes"] * etiquette.MINUTE, length)


def floor(moment: int, length: int) -> int:
    """The beginning of the bucket that a moment lies in."""
    return moment - moment % length


def usage_and_costs(ask: Ask, results: Results, usage: Report, costs: Report) -> WebSteps:
    """Read the usage report, and once in a while the cost report, which is daily. Raises Trouble."""
    yield from read_pages(ask, results, usage)
    recent = 0 <= ask.now - ask.marks.get("cost_at", 0) < ask.rules["cost_minutes"] * etiquette.MINUTE
    if ask.checking or (recent and ask.since is None):
        return
    try:
        yield from read_pages(ask, results, costs)
        results.marks["cost_at"] = ask.now
    except Trouble as trouble:
        if trouble.kind == etiquette.LIMITED:
            raise
        results.notices.append(f"the cost report could not be read: {trouble.why}")


def cost_start(ask: Ask) -> int:
    """From when on to read costs: a day may still change after its end."""
    return floor(ask.since if ask.since is not None else settled_until(ask, when.DAY) - when.DAY, when.DAY)


def usd(amount: object, units: int = 1) -> str:
    """An amount given in so many units of a dollar, as decimal text; "" for nothing. Raises events.BadRecord."""
    try:
        value = Decimal(str(amount)) / units
    except ArithmeticError:
        raise events.BadRecord("an amount is not a number") from None
    if not value.is_finite() or abs(value) >= 1_000_000_000:
        raise events.BadRecord("an amount is not a number")
    return format(round(value, 12).normalize(), "f") if value else ""


def sum_of(amounts: Iterable[str]) -> str:
    """The sum of some decimal texts, as one; "" for nothing."""
    total = sum(map(Decimal, amounts), Decimal())
    return format(total.normalize(), "f") if total else ""


def read_pages(ask: Ask, results: Results, report: Report) -> WebSteps:
    """Read a report. What was read stays, whatever becomes of the next page. Raises Trouble."""
    page, seen = "", {""}
    for _ in range(_MOST_PAGES):
        query = [*report.query, *([("page", page)] if page else [])]
        answer = yield Request(f"{ask.url}{report.path}?{urlencode(query)}", report.headers)
        body = etiquette.object_of(answer, ask.now)
        if not isinstance(body.get("data"), list):
            raise etiquette.unknown_shape("it has no `data`")
        account = untrusted.identity(answer.headers.get(report.account))
        end = _take(ask, results, report, [untrusted.mapping(item) for item in body["data"]], account)
        if ask.checking:
            return
        if body.get("has_more") is not True:
            _remember(ask, results, report, settled_until(ask, report.length or 1))
            return
        _remember(ask, results, report, min(end, settled_until(ask, report.length or 1)))
        page = untrusted.text(body.get("next_page"), 4096)
        if page in seen:
            raise etiquette.unknown_shape("it announces more pages and names none")
        seen.add(page)
    results.notices.append(f"{_MOST_PAGES} pages were read and there are more; the next run continues")


def _take(ask: Ask, results: Results, report: Report, buckets: list[untrusted.Raw], account: str) -> int:
    """The events of a page's buckets; the end of the last bucket. Raises Trouble if no row at all can be read."""
    faults: list[str] = []
    rows = end = 0
    for item in buckets:
        try:
            first, last = (untrusted.moment(value, "a bucket's time") for value in report.times(item))
        except events.BadRecord as error:
            rows += 1
            faults.append(str(error))
            continue
        end = when.moment(last)
        for row in map(untrusted.mapping, untrusted.items(item.get("results"))):
            rows += 1
            try:
                event = report.event(ask, row, Bucket(first, last, account))
            except events.BadRecord as error:
                faults.append(str(error))
                continue
            if event is not None:
                results.events.append(event)
    if faults and len(faults) == rows:
        raise etiquette.unknown_shape(faults[0])
    if faults:
        results.notices.append(f"{len(faults)} of {rows} rows could not be read: {faults[0]}")
    return end


def _remember(ask: Ask, results: Results, report: Report, end: int) -> None:
    """Note that the buckets before a moment are settled and were read."""
    if report.mark and ask.since is None:
        before = ask.marks.get(report.mark, 0)
        results.marks[report.mark] = max(end, before if before <= ask.now else 0)


def aggregate(
    ask: Ask, bucket: Bucket, width: str, group: Mapping[str, str], counts: Mapping[str, Any], **more: Any
) -> events.Event | None:
    """One row as an aggregate of the account; None if it holds nothing.

    `group`: the row's model, key, workspace (or project) and what else it was grouped by. The row's agent and workflow
    are made of the source's name, because the real ones are unknown.
    """
    values = {name: value for name, value in {**counts, **more}.items() if value}
    if not any(name in values for name in (*counts, "cost_usd")):
        return None
    same = (ask.lasting_account(bucket.account), width, bucket.begins, dict(group), "cost_usd" in values)
    workflow = "".join(f":{mark}={group[name]}" for mark, name in (("k", "key"), ("w", "workspace")) if group.get(name))
    event: events.Event = {
        "v": events.VERSION,
        "ts": bucket.begins,
        "kind": "usage",
        "id": f"usage:{ask.source}:{events.digest(*same)}",
        "source": ask.source,
        "agent_id": ask.source,
        "workflow_id": f"{ask.source}{workflow}",
        "covers": "account",
        "bucket": width,
        "until": bucket.ends,
        "observed_at": when.stamp(ask.now),
    }
    if bucket.account:
        event["account"] = ask.account(bucket.account)
    if group.get("model"):
        event["model"] = group["model"]
    return events.arrange(event | values)
