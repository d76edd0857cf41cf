"""How a ledger is compared with a reader's turns, and the table of docs/clients.md that says what came of it."""

from __future__ import annotations

import os
import pathlib
import re
import sys
import zipfile
from collections import Counter

import pytest
import rig_matrix
from rig import Charge

from conftest import ROOT, Json, put
from tokenops import read_clients

sys.path.insert(0, str(ROOT / "tools"))
import clients

VERDICTS = ("exact", "partly", "not run", "no counts")


def charge(part: str, model: str = "m-1", **counts: int) -> Charge:
    return Charge(model, {"script": "none"} if part == "title" else {"part": part}, Counter(counts), Counter())


def turn(model: str = "m-1", **counts: int) -> Json:
    return {"model": model} | {f"{name}_tokens": count for name, count in counts.items()}


def test_each_charge_is_matched_by_one_turn_at_most() -> None:
    charges = [charge("work", input=5, output=3), charge("work", input=5, output=3), charge("title", input=9, output=1)]
    found = rig_matrix.compared(charges, [turn(input=5, output=3)], {})
    assert found.record() == {"requests": 3, "turns": 1, "surplus": 0, "missing": {
        "work": {"requests": 1, "tokens": 8}, "title": {"requests": 1, "tokens": 10}}}  # fmt: skip


@pytest.mark.parametrize("wrong", [turn(input=5, output=4), turn("m-2", input=5, output=3), turn(input=5), turn(output=3)])
def test_a_turn_that_differs_in_anything_is_another(wrong: Json) -> None:
    found = rig_matrix.compared([charge("work", input=5, output=3)], [wrong], {})
    assert len(found.missing) == len(found.surplus) == 1


def test_classes_that_a_client_lacks_are_left_out_or_inside_another() -> None:
    lacks = {"classes": ["reasoning"], "merged": {"cache_write": "input"}}
    charges = [charge("work", input=5, cache_write=7, output=3, reasoning=2)]
    assert not rig_matrix.compared(charges, [turn(input=12, output=3)], lacks).missing
    assert rig_matrix.compared(charges, [turn(input=5, output=3)], lacks).missing
    assert rig_matrix.totals_of([*charges, *charges], lacks) == Counter(input=24, output=6)


def test_the_matrix_names_readers_wires_and_exact_versions() -> None:
    for client in rig_matrix.MATRIX:
        assert re.search(r"@\d+\.\d+\.\d+$|==\d+\.\d+\.\d+$", client.npm or client.pip), client
        assert re.match(r"sha512-[\w+/]{86}==\Z" if client.npm else r"sha256:[0-9a-f]{64}\Z", client.integrity), client
        if client.own:
            assert (ROOT / "tests" / client.own).exists()
            continue
        assert client.wire in rig_matrix.PROVIDERS and len(client.models) == 2 and client.first and client.resumed
        assert not client.read or read_clients.BY_NAME[client.read].client == client.client
        assert client.says or client.read, f"{client.client}: say why its logs are not read"
    names = [client.name for client in rig_matrix.RUN_HERE]
    assert len(set(names)) == len(names)


def test_a_package_with_another_hash_is_not_installed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A registry that states another hash; a file of another content."""
    monkeypatch.setattr(clients, "FOLDER", tmp_path)
    program = '#!/bin/sh\necho "$@" >>asked\necho sha512-another\n'
    put(tmp_path / "bin/npm", program.encode()).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert not clients.install_npm("a-client@1.2.3", "sha512-stated")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["view", "uninstall"]
    wheel(tmp_path / "wheels/a_client-1.2.3-py3-none-any.whl")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    assert not clients.install_pip("a-client", "a-client==1.2.3", "sha256:" + "0" * 64, "3.11")
    assert not (tmp_path / "a-client").exists()
    words = capsys.readouterr().err
    assert words.count("is not the one that the matrix states") == 2
    stated = re.search(r"sha256:[0-9a-f]{64}", words)
    assert stated and clients.install_pip("a-client", "a-client==1.2.3", stated[0], "3.11") == "1.2.3"


def wheel(path: pathlib.Path) -> None:
    """A package of pip, without content."""
    path.parent.mkdir(parents=True)
    info = "a_client-1.2.3.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: a-client\nVersion: 1.2.3\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def test_the_table_says_what_the_runs_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "RUNS", tmp_path)
    exact = {"requests": 9, "turns": 8, "missing": {"cut": {"requests": 1, "tokens": 4_321}}, "surplus": 0}
    titled = exact | {"missing": {"title": {"requests": 2, "tokens": 1_234}}}
    for client, log, seen in (("opencode", titled, exact), ("gemini-cli", exact, exact)):
        row = next(row for row in rig_matrix.MATRIX if row.client == client)
        for way, proxy in (("passive", None), ("proxy", seen)):
            rows = {"client": client, "wire": row.wire, "way": way, "version": "1.2.3", "log": log, "proxy": proxy}
            put(tmp_path / f"{client}-{way}.json", rows)
    rows = clients.table().splitlines()
    assert any(line.startswith("| opencode | 1.2.3 | messages | partly | exact | 2 requests for a title") for line in rows)
    assert any(line.startswith("| gemini-cli | 1.2.3 | gemini | exact | exact | 1 request that was int") for line in rows)
    assert "1,234 tokens" in "\n".join(rows) and "| aider |  | chat | not run | not run |" in "\n".join(rows)


def test_the_page_has_a_row_for_each_client_of_the_matrix() -> None:
    page = (ROOT / "docs/clients.md").read_text()
    part = page.partition(clients.BEGIN)[2].partition(clients.END)[0]
    head, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in part.splitlines()]
    assert head[:2] == ["client", "version"] and {len(row) for row in rows} == {len(head)}
    assert all(row[3] in VERDICTS and row[4].partition(";")[0] in VERDICTS and row[5] for row in rows)
    assert all(
        re.fullmatch(r"[\d.]+\S*", row[1]) for row in rows if {row[3], row[4].partition(";")[0]} & {"exact", "partly"}
    )
    shown = [client.shown or client.client for client in rig_matrix.MATRIX]
    assert [row[0] for row in rows] == [*shown, *rig_matrix.TABLE["not_run"]], "run: make clients"
