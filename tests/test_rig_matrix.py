"""Each client of the matrix works for a vendor that keeps a ledger: its logs and tok-proxy say what the ledger says.

`make clients` installs what is run here, and writes what was found into docs/clients.md.
"""

from __future__ import annotations

import pathlib
import re
from collections import Counter
from typing import Any

import pytest
import rig
import rig_matrix
from proxies import Proxy, Start
from rig import Ledger
from rig_clients import program, repository, sweep
from rig_matrix import Client, Found, Place
from upstream import Upstream

from conftest import MOST, Json, Run, objects
from tokenops import read_clients


def cases() -> list[Any]:
    """Each client of the matrix; one that is not installed is skipped with a sentence."""
    found = []
    for client in rig_matrix.RUN_HERE:
        missing = program(client.command) == client.command
        reason = f"make clients could not install {client.npm or client.pip}, so it was not run"
        found.append(pytest.param(client, id=client.name, marks=pytest.mark.skipif(missing, reason=reason)))
    return found


def events_of(run: Run, line: str, kind: str) -> list[Json]:
    return [event for event in objects(run(line).stdout) if event["kind"] == kind and not event.get("errors")]


def read_agrees(client: Client, ledger: Ledger, run: Run) -> Found:
    """Every request that the client's logs keep is one turn with the ledger's counts, or in one total."""
    told = client.lacks.get("requests", [])
    turns = events_of(run, f"tok-read {client.read}", "turn")
    gives = read_clients.BY_NAME[client.read].gives
    if (turns or "turns" in gives) and "remainder" not in gives:
        found = rig_matrix.compared(ledger.charges, turns, client.lacks)
        # What is left of an answer that was interrupted must say that it is not whole.
        assert all(turn.get("usage") in ("partial", "unknown") for turn in found.surplus), found.surplus
    else:
        totals = turns + events_of(run, f"tok-read {client.read}", "usage")
        missing = [charge for charge in ledger.charges if rig_matrix.kind_of(charge) in told]
        there = [charge for charge in ledger.charges if charge not in missing]
        sums = sum((rig_matrix.counted(row) for row in totals), rig_matrix.counted({}))
        stated = Counter(dict(rig_matrix.turn_of("", sums, client.lacks)[1]))
        assert stated == rig_matrix.totals_of(there, client.lacks), "the totals are not the ledger's"
        found = Found(len(ledger.charges), len(totals), missing, [])
    assert {rig_matrix.kind_of(charge) for charge in found.missing} <= set(told), found.missing
    return found


def proxy_agrees(client: Client, ledger: Ledger, run: Run, proxy: Proxy) -> Found:
    """The proxy saw every request once; with the client's own log beside it, each still counts once."""
    whole = [charge for charge in ledger.charges if rig_matrix.kind_of(charge) != "cut"]
    answers = len(ledger.charges) + sum(ledger.refused.values())
    seen = [turn for turn in proxy.events(answers) if "errors" not in turn]
    proxy.process.terminate()
    proxy.process.wait(MOST)
    found = rig_matrix.compared(whole, seen, {})
    assert not found.missing, found.missing
    assert all(turn.get("usage") in ("partial", "unknown") for turn in found.surplus), found.surplus
    if client.read and not client.apart:
        run(f"tok-sync {client.read}")
        both = rig_matrix.compared(whole, events_of(run, "tok-cat", "turn"), {})
        assert not both.missing and len(both.surplus) <= len(found.surplus), (both.missing, both.surplus)
        rows = objects(run("tok-cat | tok-rollup --by session").stdout)  # totals of the log, too
        turns = events_of(run, "tok-cat", "turn")
        assert sum(map(rig_matrix.counted, rows), Counter()) == sum(map(rig_matrix.counted, turns), Counter())
    return found


@pytest.mark.parametrize("way", ["passive", "proxy"])
@pytest.mark.parametrize("client", cases())
def test_client(
    client: Client, way: str, start: Start, vendor: Upstream, environment: dict[str, str], run: Run, tmp_path: pathlib.Path
) -> None:
    ledger = rig.serve(vendor, client.scripts())
    ledger.hours, ledger.bare, ledger.aside = False, not client.tools, client.aside
    provider = rig_matrix.PROVIDERS[client.wire]
    proxy = start({provider: f"http://127.0.0.1:{vendor.port}"}) if way == "proxy" else None
    try:
        rig_matrix.run_session(client, Place(environment, vendor, repository(tmp_path / "app"), proxy), ledger)
    finally:
        sweep(environment["HOME"], proxy.process.pid if proxy else 0)
    asked = [rig_matrix.kind_of(charge) for charge in ledger.charges]
    for name, steps in client.scripts().items():
        assert asked.count(name) >= len(steps), f"[[{name}]] has {len(steps)} answers; {asked.count(name)} were asked for"
    switched = {charge.model for charge in ledger.charges if rig_matrix.kind_of(charge) == "switched"}
    assert switched == {client.models[not client.keeps_model]} and sum(ledger.refused.values()) == 1
    strangers = {host for host in ledger.outside if not client.asks or not re.search(client.asks, host)}
    assert not strangers, f"it wanted to reach {sorted(strangers)}"
    found = read_agrees(client, ledger, run) if client.read else None
    seen = proxy_agrees(client, ledger, run, proxy) if proxy else None
    rows = {"log": found.record() if found else None, "proxy": seen.record() if seen else None}
    rig_matrix.keep(client, way, {"version": rig_matrix.version(client), **rows})
