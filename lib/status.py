"""What is live: clients and their logs, and what the logs do not tell truly."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from tokenops import readers, show, when
from tokenops.events import Event


def clients(environment: Mapping[str, str], home: str) -> Iterator[Event]:
    """A row for each client in the table, found or not; then those here that keep no counts."""
    for client in readers.CLIENTS:
        if client in readers.STREAMS:
            continue  # read only where somebody names it
        row: Event = {"v": 1, "kind": "status", "plane": "passive", "client": client.client, "source": client.source}
        try:
            places = readers.places(client, environment, home)
        except readers.NotFound as error:
            yield row | {"places": [], "files": 0, "blocker": str(error)}
            continue
        files = readers.files(client, places)
        row |= {"places": places, "files": len(files)}
        if files:
            newest = max(os.stat(path).st_mtime for path in files)
            row["newest"] = when.stamp(int(newest * 1000))
            if client.caveat:
                row["caveat"] = client.caveat
        if told := list(readers.hints(client, places)):
            row["hints"] = told
        yield row
    for one in readers.uncounted(environment, home):
        row = {"v": 1, "kind": "status", "plane": "passive", "client": one.name, "source": "none", "places": [], "files": 0}
        yield row | {"blocker": one.instead}


def table(rows: list[Event], shape: str, color: bool) -> str:
    """The rows for people, what is found or stands in the way; the caveats below."""
    rows = [row for row in rows if row["places"] or "blocker" in row] or rows
    columns = [
        show.Column("client", [row["client"] for row in rows], number=False),
        show.Column("logs", [", ".join(row["places"]) or "none found" for row in rows], number=False),
        show.Column("files", [show.count(row["files"]) for row in rows]),
        show.Column("newest", [row.get("newest", "") for row in rows], number=False),
    ]
    said = [(row["client"], row[key]) for key in ("blocker", "caveat") for row in rows if key in row]
    said += [(row["client"], hint) for row in rows for hint in row.get("hints", ())]
    return show.table(columns, shape, color=color) + "".join(f"{client}: {text}\n" for client, text in said)
