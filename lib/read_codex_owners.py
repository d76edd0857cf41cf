"""Decides which thread owns each row of Codex's rollouts.

A fork or a spawned child may begin with a copy of its parent's lines under new times: each turn has one owner, the thread
that produced it, whatever file holds a copy. A thread may have several files (pages).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tokenops.read_codex_threads import Row, Thread, in_burst


class Owned(NamedTuple):
    """A row, the identity of its turn, the thread that produced it, and whether it is counted from this file."""

    row: Row
    name: str
    owner: str
    counted: bool

    def older_name(self) -> str:
        """The identity that version 0.1.0 gave the turn; "" if it gave none."""
        return name_of(self.owner, self.row) if self.row.paired or not (self.row.response or self.row.beyond) else ""

    def other_names(self, thread: Thread) -> Iterator[str]:
        """Identities that the turn may have had in a run that did not know all files of the thread's ancestors."""
        if thread.parent and not (self.row.response or self.row.beyond):
            for owner in {thread.id, self.row.owner, *thread.ancestors()} - {"", self.owner}:
                yield name_of(owner, self.row)


def rows_with_owners(threads: Iterable[Thread]) -> Iterator[tuple[Thread, list[Owned]]]:
    """Each rollout with all of its rows and their owners."""
    family: dict[str, list[Thread]] = {}
    for thread in threads:
        family.setdefault(thread.id, []).append(thread)
    cached: dict[int, list[Owned]] = {}

    def parent_rows(name: str, below: frozenset[str]) -> list[Owned] | None:
        """The rows of all files of the parent, its own parents' copies among them; None if it has no file."""
        if name not in family or name in below:
            return None
        pages = sorted(family[name], key=lambda thread: thread.rows[0].ts if thread.rows else "")
        return [row for thread in pages for row in rows_of(thread, below)]

    def rows_of(thread: Thread, below: frozenset[str]) -> list[Owned]:
        rows = cached.get(id(thread))
        if rows is None:
            nearest = next((name for name in thread.ancestors() if name in family), "")
            above = parent_rows(nearest, below | {thread.id}) if nearest else None
            rows = cached[id(thread)] = name_rows(thread, above, nearest)
        return rows

    for several in family.values():
        for thread in several:
            yield thread, rows_of(thread, frozenset())


def name_rows(thread: Thread, above: list[Owned] | None, nearest: str) -> list[Owned]:
    """A thread's rows with their identities, given those of its `nearest` ancestor that has a file (None: none has)."""
    if not thread.parent:
        return [_owned_by(row, row.owner or thread.id) for row in thread.rows]
    # A copy of what no known file holds has the name of who produced it, else of the parent: so siblings agree.
    alone = above is None or nearest != thread.parent
    orphaned = _orphans(thread) if alone else [row.replayed is True for row in thread.rows]
    above, rows = above or [], []
    responses = {owned.row.response for owned in above}
    at, copying = 0, True
    for row, orphan in zip(thread.rows, orphaned, strict=True):
        if row.response:
            owner = row.owner or thread.id
            copying = copying and owner != thread.id
            rows.append(_owned_by(row, owner, owner == thread.id or row.response not in responses))
            continue
        match = None
        if row.replayed is not False and copying:
            match = next((n for n in range(at, len(above)) if _is_copy(row, above[n].row)), None)
        if match is not None:
            at = match + 1
            rows.append(above[match]._replace(row=row, counted=False))
        elif orphan:
            rows.append(_owned_by(row, row.owner or thread.parent))
        else:
            copying = False
            rows.append(_owned_by(row, thread.id))
    return rows


def _is_copy(row: Row, other: Row) -> bool:
    return not other.response and (other.totals, other.beyond) == (row.totals, row.beyond)


def _owned_by(row: Row, owner: str, counted: bool = True) -> Owned:
    return Owned(row, row.response or name_of(owner, row), owner, counted)


def _orphans(thread: Thread) -> list[bool]:
    """Which rows of a child are copies, if its parent left no file."""
    lead = next((n for n, row in enumerate(thread.rows) if not in_burst(thread, row)), len(thread.rows))
    # Without a burst a fork does not show where its copy ends, a spawned child copied nothing.
    copies = [n < lead if lead or thread.burst else not thread.spawned for n in range(len(thread.rows))]
    return [copy if row.replayed is None else row.replayed for row, copy in zip(thread.rows, copies, strict=True)]


def name_of(owner: str, row: Row) -> str:
    """The identity that the totals make."""
    return f"codex:{owner}:{row.epoch}:{'-'.join(map(str, row.totals[:4]))}{'#beyond' if row.beyond else ''}"
