"""Public limit readings (CSV) -> meters and turns, as tok-backtest --sessions reads them.

    python bench/sessions.py ../shared/data/limits/*.csv | tok-backtest --sessions

The rows of Codex name a session; the Claude files do not, so bursts of use stand for sessions there.
"""

from __future__ import annotations

import csv
import pathlib
import sys
from collections.abc import Iterable, Iterator

import meters  # it puts our library on the path
import worth_public

from tokenops import events, jsonl


def records(paths: Iterable[str | pathlib.Path]) -> Iterator[events.Event]:
    """The meters of all files, and the turns of those of Codex."""
    names = list(map(pathlib.Path, paths))
    yield from meters.meters(names)
    for path in names:
        if path.name.startswith("codex"):
            with path.open(newline="") as file:
                yield from worth_public.turns(csv.DictReader(file))


if __name__ == "__main__":
    jsonl.write(records(sys.argv[1:]), sys.stdout.buffer)
