"""Real agents behind tok-read acp: their answers say what the vendor's ledger says, and with their own logs nothing counts twice.

`make clients` installs what is run here.
"""

from __future__ import annotations

import pathlib
from collections import Counter
from typing import Any

import pytest
import rig
import rig_matrix
from rig_acp import Editor
from rig_clients import program, repository, sweep
from rig_matrix import Client, Place, Session
from upstream import Upstream

from conftest import Json, Run, objects

PROMPTS = ("work", "more")


def cases() -> list[Any]:
    """Each agent of the matrix; one that is not installed is skipped with a sentence."""
    agents = [client for client in rig_matrix.MATRIX if client.acp]
    return [
        pytest.param(
            client,
            id=client.name,
            marks=pytest.mark.skipif(
                program(client.command) == client.command,
                reason=f"make clients could not install {client.npm or client.pip}",
            ),
        )
        for client in agents
    ]


def sums(rows: list[Json]) -> Counter[str]:
    """The tokens of some records by class."""
    return +sum((rig_matrix.counted(row) for row in rows), Counter[str]())


@pytest.mark.parametrize("client", cases())
def test_agent(client: Client, vendor: Upstream, environment: dict[str, str], run: Run, tmp_path: pathlib.Path) -> None:
    ledger = rig.serve(vendor, client.scripts())
    ledger.hours, ledger.bare, ledger.aside = False, not client.tools, client.aside
    place = Place(environment, vendor, repository(tmp_path / "app"), None)
    try:
        editor = Editor(Session(client, place), client.acp["words"], client.models[0])
        session = editor.open(client.models[0])
        for name in PROMPTS:
            text = [{"type": "text", "text": f"Do it: [[{name}]]"}]
            answer = editor.call("session/prompt", sessionId=session, prompt=text)
            assert answer["result"]["stopReason"] == "end_turn", answer
        editor.close()
    finally:
        sweep(environment["HOME"])
    charges = [charge for charge in ledger.charges if rig_matrix.kind_of(charge) != "title"]
    asked = Counter(map(rig_matrix.kind_of, charges))
    for name in PROMPTS:
        assert asked[name] == len(client.scripts()[name]), f"[[{name}]] was asked for {asked[name]} times"
    totals = [event for event in objects(run("tok-cat").stdout) if event.get("source") == "acp"]
    assert len(totals) == len(PROMPTS) and {row["session_id"] for row in totals} == {session}
    assert {(row["client"], row["project"]) for row in totals} == {(client.client, "app")}
    states = client.acp["states"]
    stated = sums(totals)
    if states == "nothing":
        assert {row["usage"] for row in totals} == {"unknown"} and not stated
    elif states == "last":
        last = [[charge for charge in charges if rig_matrix.kind_of(charge) == name][-1] for name in PROMPTS]
        assert {row["usage"] for row in totals} == {"partial"} and stated == rig_matrix.totals_of(last, {})
    elif states == "undivided":
        assert {row["usage"] for row in totals} == {"partial"}
        main = [charge for charge in charges if rig_matrix.kind_of(charge) in PROMPTS]
        lacks = {"classes": ["reasoning"], "merged": {"cache_read": "input"}}
        outside = Counter(output=sum(charge.counts["reasoning"] for charge in main))
        assert stated == rig_matrix.totals_of(main, lacks) - outside
    else:
        assert not [row for row in totals if "usage" in row] and stated == rig_matrix.totals_of(
            charges, client.acp.get("lacks", {})
        )
        assert {row["model"] for row in totals} <= {client.models[0], "unknown"}
    only_log = objects(run(f"tok-read {client.read} | tok-rollup --by session").stdout)
    run(f"tok-sync {client.read}")
    both = objects(run("tok-cat | tok-rollup --by session").stdout)
    assert sums(both) == sums(only_log) != Counter(), "with the agent's own log it counts otherwise than without"
