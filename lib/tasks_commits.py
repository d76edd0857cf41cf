"""Works out what commits, pull requests and tickets cost, from the turns of a project and its git repository.

A turn belongs to the first commit that was written after it began, on the branch that the client recorded with it. Times
are those of the author, which a rebase keeps. What was never committed belongs to none, and is shown beside the rest.
"""

from __future__ import annotations

import bisect
import datetime
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from tokenops import costs, events, pricing, rollup, show, tasks, when
from tokenops.events import Event
from tokenops.tasks_git import Commit, Merge, Repository, merge_of

Key = TypeVar("Key", bound=Hashable)
DETACHED = "HEAD"  # what clients record where no branch is checked out


class Owner(NamedTuple):
    """The commit that a turn belongs to. `by_time`: its branch is not known here, so only the time was decisive."""

    commit: str
    by_time: bool


class Owners:
    """Finds the commit that a turn belongs to. `mine`: which commits may have come from these turns."""

    def __init__(self, repository: Repository, mine: Callable[[Commit], bool]) -> None:
        self._repository, self._mine = repository, mine
        self._all = self._in_order(repository.commits)
        self._chains: dict[str, list[str]] = {"": []}
        self._written: dict[str, list[tuple[str, str]]] = {}
        self._later: dict[str, list[tuple[str, str]]] = {}  # of the branches that began on one
        self._homes: dict[str, str] = {}  # commit -> the branch on which it was made
        self._merged = {
            merge.branch: commit.parents[1]
            for commit in repository.commits.values()
            if len(commit.parents) > 1 and (merge := merge_of(commit)) and merge.branch not in ("", *repository.branches)
        }

    def _in_order(self, names: Iterable[str]) -> list[tuple[str, str]]:
        commits = [self._repository.commits[name] for name in names if name in self._repository.commits]
        return sorted((commit.authored, commit.name) for commit in commits if self._mine(commit))

    def _chain(self, branch: str) -> list[str]:
        """The commits of a branch, newest first; of one that was merged and removed, too."""
        if branch not in self._chains:
            tip = self._repository.branches.get(branch) or self._merged.get(branch, "")
            self._chains[branch] = list(self._repository.first_parents(tip))
        return self._chains[branch]

    def owner(self, turn: Event) -> Owner | None:
        """The commit of a turn; None if it led to none."""
        branch, ts = turn.get("branch", ""), turn["ts"]
        chain = [] if branch == DETACHED else self._chain(branch)
        if not chain:
            name = _next(self._all, ts)
            return Owner(name, True) if name else None
        if branch not in self._written:
            self._written[branch] = self._in_order(chain)
        name = _next(self._written[branch], ts) or self._elsewhere(branch, ts)
        return Owner(name, False) if name else None

    def _elsewhere(self, branch: str, ts: str) -> str:
        """The next commit on a branch that began on this one: clients record the branch on which a session began."""
        if branch not in self._later:
            repository, chain = self._repository, self._chain(branch)
            began = set(chain) if branch == repository.base else {chain[0]}
            names = [name for name in (*repository.branches, *self._merged) if name != branch]
            inside = {name for other in names if began & set(self._chain(other)) for name in self._chain(other)}
            self._later[branch] = self._in_order(inside)
        return _next(self._later[branch], ts)

    def branch_of(self, name: str) -> str:
        """The branch on which a commit was made: one that is not the base, if that has it; "" if it is on none."""
        if not self._homes:
            base = self._repository.base
            for branch in (base, *sorted({*self._repository.branches, *self._merged} - {base})):
                for each in self._chain(branch):
                    self._homes.setdefault(each, branch)
        return self._homes.get(name, "")


def _next(written: Sequence[tuple[str, str]], ts: str) -> str:
    """The first commit that was written at a moment or later; "" if there is none."""
    at = bisect.bisect_left(written, (ts, ""))
    return written[at][1] if at < len(written) else ""


def authors(repository: Repository, everyone: bool) -> Callable[[Commit], bool]:
    """Which commits may take turns: the user's own, as git names the user; everyone's if there are none of those."""
    email = repository.email.casefold()
    if everyone or not any(commit.email.casefold() == email for commit in repository.commits.values()):
        return lambda commit: True
    return lambda commit: commit.email.casefold() == email


class Sums:
    """Adds up the records of a project by a key for each turn; None: it belongs to nothing."""

    def __init__(self, catalogue: pricing.Catalogue) -> None:
        self._catalogue = catalogue
        self._groups: dict[Any, rollup.Rollup] = {}
        self._totals, self._sessions = rollup.Totals(), set[Any]()

    def add(self, record: Event, key: Hashable) -> None:
        """Add a record of the log."""
        if record.get("kind") == "turn":
            self._group(key).add(record)
            self._sessions.add(record.get("session_id"))
        elif rollup.is_counted(record):
            self._totals.add(record)

    def _group(self, key: Hashable) -> rollup.Rollup:
        if key not in self._groups:
            self._groups[key] = rollup.Rollup(rollup.Grouping((), when.UTC, self._catalogue))
        return self._groups[key]

    def values(self) -> dict[Any, Event]:
        """Key -> turns, tokens by class, cost_usd (absent without any price), unpriced. Sums of whole sessions: None."""
        for record in self._totals.take(self._sessions):
            self._group(None).add(record)
        return {key: tasks.values_of(costs.price_rows(group.rows(), self._catalogue)) for key, group in self._groups.items()}


NOTHING: Event = {"turns": 0, "cost_usd": "0"}


def by_commit(records: Iterable[Event], owners: Owners, catalogue: pricing.Catalogue) -> tuple[Event, int]:
    """Commit (None: no commit) -> its values; and how many turns were placed by their time alone."""
    sums, by_time = Sums(catalogue), 0
    for record in records:
        owner = owners.owner(record) if record.get("kind") == "turn" else None
        by_time += bool(owner and owner.by_time)
        sums.add(record, owner and owner.commit)
    return sums.values(), by_time


def remarks(repository: Repository, mine: Callable[[Commit], bool], by_time: int) -> Iterator[str]:
    """Sentences on what the rows rest on."""
    if by_time:
        yield f"{show.plural(by_time, 'turn')} placed by time alone: the branch is not recorded, or is gone"
    if others := sum(not mine(commit) for commit in repository.commits.values()):
        yield f"{show.plural(others, 'commit')} of other authors take no turns; --all-authors counts them too"


def commit_rows(values: Mapping[Any, Event], repository: Repository, owners: Owners, chosen: Sequence[str]) -> list[Event]:
    """A row per commit, those of other commits in one, and one of what belongs to no commit."""
    rows: list[Event] = []
    for name in chosen:
        if (commit := repository.commits.get(name)) is None:
            continue
        row: Event = {"kind": "commit", "commit": name, "authored_at": commit.authored, "subject": commit.subject}
        row["branch"] = owners.branch_of(name)
        rows.append({key: value for key, value in row.items() if value} | values.get(name, NOTHING))
    return _with_rest(rows, values, {row["commit"] for row in rows})


def _with_rest(rows: list[Event], values: Mapping[Any, Event], shown: Collection[str]) -> list[Event]:
    others = [value for name, value in values.items() if name is not None and name not in shown]
    if others:
        rows.append({"kind": "other_commits", "commits": len(others)} | tasks.add_values(others))
    rows.append({"kind": "not_attributed"} | values.get(None, NOTHING))
    return with_shares(rows)


def with_shares(rows: Sequence[Event]) -> list[Event]:
    """Rows with two shares of cost each: of what could be attributed, and of all."""
    money = [Decimal(row.get("cost_usd", "0")) for row in rows]
    whole = sum(money, Decimal(0))
    attributed = sum((each for each, row in zip(money, rows, strict=True) if row["kind"] != "not_attributed"), Decimal(0))
    result = []
    for each, row in zip(money, rows, strict=True):
        shares: Event = {}
        if attributed and row["kind"] != "not_attributed":
            shares["share_of_attributed"] = round(float(each / attributed), 6)
        if whole:
            shares["share_of_all"] = round(float(each / whole), 6)
        result.append({"v": events.VERSION} | row | shares)
    return result


class PullRequest(NamedTuple):
    """Commits that are not in the base, or were not before they were merged."""

    merge: Merge
    state: str  # merged, open
    commits: Collection[str]

    @property
    def name(self) -> str:
        """#12 feature, #12, or feature."""
        return " ".join(filter(None, (self.merge.number and f"#{self.merge.number}", self.merge.branch))) or "unnamed"


def pull_requests(repository: Repository) -> list[PullRequest]:
    """Those merged into the base, newest first, then those that are not. Each commit is in one only."""
    result = []
    tip = repository.branches.get(repository.base, "")
    taken: set[str] = set()
    for name in repository.first_parents(tip):
        commit = repository.commits.get(name)
        merge = merge_of(commit) if commit else None
        if commit is None or merge is None or merge.branch.partition(" ")[0] == repository.base:
            continue
        members = {name} | (repository.reachable(commit.parents[1:]) - repository.reachable(commit.parents[:1])) - taken
        taken |= members
        result.append(PullRequest(merge, "merged", members))
    inside = repository.reachable([tip])
    unmerged = {name: repository.reachable([tip]) - inside for name, tip in repository.branches.items()}
    for branch, commits in sorted(unmerged.items(), key=lambda item: (len(item[1]), item[0])):
        if members := commits - taken:
            taken |= members
            result.append(PullRequest(Merge("", branch), "open", members))
    return result


def pull_request_rows(values: Mapping[Any, Event], repository: Repository, chosen: Collection[str] | None) -> list[Event]:
    """A row per pull request (`chosen`: with any of these commits), one of other commits, one of what belongs to none."""
    rows: list[Event] = []
    shown: set[str] = set()
    for each in pull_requests(repository):
        if chosen is not None and not any(name in chosen for name in each.commits):
            continue
        row = {"kind": "pull_request", "pull_request": each.name, "number": each.merge.number, "branch": each.merge.branch}
        row |= {"state": each.state, "base": repository.base}
        sums = tasks.add_values([values.get(name, NOTHING) for name in each.commits])
        rows.append({key: value for key, value in row.items() if value} | {"commits": len(each.commits)} | sums)
        shown |= set(each.commits)
    return _with_rest(rows, values, shown)


def ticket_rows(records: Iterable[Event], pattern: re.Pattern[str], catalogue: pricing.Catalogue) -> list[Event]:
    """A row per ticket, which branch names state, and one of turns on other branches or on none."""
    sums, branches = Sums(catalogue), dict[str, set[str]]()
    for record in records:
        match = pattern.search(record.get("branch", "")) if record.get("kind") == "turn" else None
        ticket = (match[1] if match.re.groups else match[0]) if match else None
        if ticket:
            branches.setdefault(ticket, set()).add(record["branch"])
        sums.add(record, ticket or None)
    values = sums.values()
    rows = [
        {"kind": "ticket", "ticket": ticket, "branches": sorted(names)} | values[ticket]
        for ticket, names in sorted(branches.items())
    ]
    return with_shares([*rows, {"kind": "not_attributed"} | values.get(None, NOTHING)])


def note(row: Event, digest: str) -> str:
    """What a commit's note says."""
    price = f"${row['cost_usd']}" if "cost_usd" in row else "price unknown"
    lacks = ", not all of it priced" if "unpriced" in row and "cost_usd" in row else ""
    tokens = events.token_sum(row)
    return f"TokenOps: {price} at list price{lacks}; {row['turns']} turns, {tokens} tokens; prices {digest}\n"


# What commits, pull requests or tickets can be ordered by.
ORDERS: show.Orders = {
    "price": lambda row: None if "cost_usd" not in row else Decimal(row["cost_usd"]),
    "tokens": events.token_sum,
    "turns": lambda row: row["turns"],
    "written": lambda row: when.moment(row["authored_at"]) if "authored_at" in row else None,
    "name": lambda row: row.get("subject") or row.get("pull_request") or row.get("ticket"),
}


def is_rest(row: Event) -> bool:
    """Whether a row is what stands below the others: other commits, or what belongs to none."""
    return row["kind"] in ("other_commits", "not_attributed")


def _name(row: Event) -> str:
    if row["kind"] == "other_commits":
        return f"other commits ({row['commits']})"
    if row["kind"] == "not_attributed":
        return "not attributed"
    return str(row.get("subject") or row.get("pull_request") or row.get("ticket") or "")


def table(
    rows: Sequence[Event],
    shape: str,
    color: bool,
    verbose: bool,
    remarks: Sequence[str],
    what: str,
    tz: datetime.tzinfo | None = None,
) -> str:
    """Commits, pull requests or tickets for people, the rest last. `what`: the heading of their names."""
    zone = tz or when.zone(None)
    moments = [when.moment(row["authored_at"]) if "authored_at" in row else 0 for row in rows]
    written = [when.short_time(at, zone, max(moments)) if at else "" for at in moments]

    def texts(title: str, cells: Iterable[object], rank: int) -> show.Column:
        return show.Column(title, [str(cell or "") for cell in cells], False, rank)

    def shares(name: str) -> list[str]:
        return [f"{100 * row[name]:.0f} %" if name in row else "" for row in rows]

    columns = [
        texts("commit", [row.get("commit", "")[:10] for row in rows], 1),
        texts(what, map(_name, rows), 0),
        texts("branch", [row.get("branch") or ", ".join(row.get("branches", ())) for row in rows], 3),
        texts("state", [row.get("state") for row in rows], 2),
        texts("written", written, 4),
        show.counts("commits", [row.get("commits") for row in rows], 4),
        show.counts("turns", [row["turns"] for row in rows], 2),
        show.counts("tokens", list(map(events.token_sum, rows)), 3),
        show.amounts(
            "list price", [row.get("cost_usd") for row in rows], ["unpriced" in row for row in rows], heading="price"
        ),
        show.Column("of all", shares("share_of_all"), rank=1),
        show.Column("of attributed", shares("share_of_attributed"), rank=5),
    ]
    columns = [column for column in columns if any(column.cells)]
    lacking = [f"+ {note}" for note in costs.unpriced_notes(rows, verbose)]
    return show.table(columns, shape, color=color) + show.notes([_summary(rows), *remarks, *lacking], shape, color, verbose)


def _summary(rows: Sequence[Event]) -> str:
    """How much belongs to something, of all that was spent."""
    if not any(row["turns"] for row in rows):
        return "no turn of this time was made in this repository; tok-cost --by project --since all lists where turns were"
    whole = sum((Decimal(row.get("cost_usd", "0")) for row in rows), Decimal(0))
    rest = sum((Decimal(row.get("cost_usd", "0")) for row in rows if row["kind"] == "not_attributed"), Decimal(0))
    share = f" ({float(100 * (whole - rest) / whole):.0f} %)" if whole else ""
    return f"{show.money(pricing.plain(whole - rest))} of {show.money(pricing.plain(whole))} attributed{share}"
