"""Asks Anthropic what each user of Claude Code used on each day, by model.

Source: the reference of GET /v1/organizations/usage_report/claude_code at platform.claude.com (Admin API, read 2026-12-01).
One request gives one UTC day, page by page; amounts are the vendor's estimates in cents. Users are named by their addresses
there, and by salted hashes here. Cache writes are not told apart by how long they last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

from tokenops import etiquette, events, poll_reports, projects, untrusted, when
from tokenops.etiquette import Ask, Request, Results, WebSteps
from tokenops.poll_reports import Bucket

PROVIDER, CLIENT = "anthropic", "claude-code"
_WIDTH, _MARK = "1d", "settled_1d"
_PATH = "/v1/organizations/usage_report/claude_code"
_MOST_PAGES, _PAGE = 100, 1000
_CAVEAT = "the vendor's own estimate"
_COUNTS = {
    "input_tokens": "input",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_creation",
    "output_tokens": "output",
}

# Who, in which program and under which contract, and the model -> counts, and cents or nothing.
Group = tuple[str, str, str, str, str]


class Sums:
    """What the rows of one day add up to: a user may have several rows of one model."""

    def __init__(self) -> None:
        self.counts: dict[Group, dict[str, int]] = {}
        self.usd: dict[Group, list[str]] = {}
        self.faults: list[str] = []
        self.rows = 0

    def add(self, row: untrusted.Raw, salt: bytes) -> None:
        """Add a user's row. What cannot be read is noted."""
        who = _actor(untrusted.mapping(row.get("actor")), salt)
        contract = [untrusted.text(row.get(name), 60) for name in ("terminal_type", "customer_type", "subscription_type")]
        for part in map(untrusted.mapping, untrusted.items(row.get("model_breakdown"))):
            self.rows += 1
            try:
                group = (who, *contract, untrusted.text(part.get("model")))
                self._add(group, part)  # type: ignore[arg-type]
            except events.BadRecord as error:
                self.faults.append(str(error))

    def _add(self, group: Group, part: untrusted.Raw) -> None:
        tokens, cost = untrusted.mapping(part.get("tokens")), untrusted.mapping(part.get("estimated_cost"))
        if not tokens.keys() & set(_COUNTS.values()):
            raise events.BadRecord("a row has no known count")
        if cost and untrusted.text(cost.get("currency")) not in ("", "USD"):
            raise events.BadRecord("an amount is not in USD")
        usd = poll_reports.usd(cost["amount"], 100) if "amount" in cost else ""
        counts = {name: untrusted.count(tokens, key) for name, key in _COUNTS.items()}
        before = self.counts.setdefault(group, dict.fromkeys(_COUNTS, 0))
        for name, count in counts.items():
            before[name] += count
        if usd:
            self.usd.setdefault(group, []).append(usd)


def _actor(actor: untrusted.Raw, salt: bytes) -> str:
    """A user, or a key, as a salted hash; "" if the row names nobody."""
    name = untrusted.text(actor.get("email_address")) or untrusted.text(actor.get("api_key_name"))
    return projects.hash_path(f"{untrusted.text(actor.get('type'), 40)} {name.lower()}", salt) if name else ""


def user_reports(ask: Ask, results: Results) -> WebSteps:
    """The reports of all days that are not settled. Raises Trouble."""
    headers = ask.headers(x_api_key=ask.secret, anthropic_version="2023-06-01")
    first = poll_reports.start_of(ask, when.DAY, _MARK)
    settled = poll_reports.settled_until(ask, when.DAY)
    for day in range(first, ask.now + 1, when.DAY):
        yield from _read_day(ask, results, headers, day)
        if ask.checking:
            return
        if ask.since is None:
            results.marks[_MARK] = max(ask.marks.get(_MARK, 0), min(day + when.DAY, settled))


def _read_day(ask: Ask, results: Results, headers: Mapping[str, str], day: int) -> WebSteps:
    """Read one day, all pages, and add its events. Raises Trouble."""
    sums, page, account, seen = Sums(), "", "", {""}
    for _ in range(_MOST_PAGES):
        query = [("starting_at", when.stamp(day)[:10]), ("limit", "1" if ask.checking else str(_PAGE))]
        answer = yield Request(f"{ask.url}{_PATH}?{urlencode([*query, *([('page', page)] if page else [])])}", headers)
        body = etiquette.object_of(answer, ask.now)
        if not isinstance(body.get("data"), list):
            raise etiquette.unknown_shape("it has no `data`")
        account = untrusted.identity(answer.headers.get("anthropic-organization-id")) or account
        for row in map(untrusted.mapping, body["data"]):
            account = account or untrusted.identity(row.get("organization_id"))
            sums.add(row, ask.first_salt or ask.salt)
        if ask.checking or body.get("has_more") is not True:
            break
        page = untrusted.text(body.get("next_page"), 4096)
        if page in seen:
            raise etiquette.unknown_shape("it announces more pages and names none")
        seen.add(page)
    else:
        results.notices.append(f"{_MOST_PAGES} pages of {when.stamp(day)[:10]} were read and there are more")
    if sums.faults and len(sums.faults) == sums.rows:
        raise etiquette.unknown_shape(sums.faults[0])
    if sums.faults:
        results.notices.append(f"{len(sums.faults)} of {sums.rows} rows could not be read: {sums.faults[0]}")
    results.events += _events(ask, sums, Bucket(when.stamp(day), when.stamp(day + when.DAY), account))


def _events(ask: Ask, sums: Sums, bucket: Bucket) -> Iterator[events.Event]:
    """For each user and model its counts, and what the vendor estimates them to cost."""
    for key, counts in sums.counts.items():
        who, terminal, customer, subscription, model = key
        group = {"user": who, "terminal": terminal, "customer": customer, "subscription": subscription, "model": model}
        more = {"provider": PROVIDER, "client": CLIENT, "workflow_id": f"{ask.source}:u={who or 'unknown'}"}
        usd = poll_reports.sum_of(sums.usd.get(key, ()))
        for event in (
            poll_reports.aggregate(ask, bucket, _WIDTH, group, counts),
            poll_reports.aggregate(ask, bucket, _WIDTH, group, {}, cost_usd=usd, cost_source="reported", caveat=_CAVEAT),
        ):
            if event is not None:
                yield events.arrange(event | more)
