"""What is live: clients and their logs, and what the logs do not tell truly."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from tokenops import readers, show, when
from tokenops.events import Event


def clients(environment: Mapping[str, str], home: str) -> Iterator[Event]:
    """A row for each client in the table, found or not. Raises readers.NotFound."""
    for client in readers.CLIENTS:
        if client in readers.STREAMS:
            continue  # read only where somebody names it
        places = readers.places(client, environment, home)
        files = readers.files(client, places)
        row: Event = {"v": 1, "kind": "status", "plane": "passive", "client": client.client, "source": client.source}
        row |= {"places": places, "files": len(files)}
        if files:
            newest = max(os.stat(path).st_mtime for path in files)
            row["newest"] = when.stamp(int(newest * 1000))
            if client.caveat:
                row["caveat"] = client.caveat
        yield row


def table(rows: list[Event], shape: str, color: bool) -> str:
    """The rows for people, the caveats below."""
    columns = [
        show.Column("client", [row["client"] for row in rows], number=False),
        show.Column("logs", [", ".join(row["places"]) or "none found" for row in rows], number=False),
        show.Column("files", [show.count(row["files"]) for row in rows]),
        show.Column("newest", [row.get("newest", "") for row in rows], number=False),
    ]
    notes = "".join(f"{row['client']}: {row['caveat']}\n" for row in rows if "caveat" in row)
    return show.table(columns, shape, color=color) + notes
