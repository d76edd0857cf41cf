"""tok-log forget: what it takes out, what stays, and that nothing comes back."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import pty
import shutil
import subprocess

import pytest

from conftest import MOST, ROOT, Json, Run, claude, lines, objects, put, until_closed
from tokenops import store, store_forget, store_rules

NOW = {"TOKENOPS_NOW": "2026-11-20T12:00:00Z"}
SECRET, OTHER = "/home/ada/acme", "/home/ada/own"
HOME = ".claude/projects"


def transcript(cwd: str, session: str, days: tuple[int, ...], prefix: str = "") -> list[Json]:
    return [
        claude(f"msg_{prefix or session}_{day}_{n}", 9, f"2026-11-{day:02d}T0{n}:00:00.000Z", cwd=cwd, sessionId=session)
        for day in days
        for n in (1, 2)
    ]


def folder_of(cwd: str) -> str:
    return f"{HOME}/{cwd.replace('/', '-')}"


@pytest.fixture
def log(environment: dict[str, str], run: Run) -> pathlib.Path:
    """A log of two projects on four days, synced, with its summaries."""
    environment |= NOW
    home = pathlib.Path(environment["HOME"])
    put(home / folder_of(SECRET) / "s-acme.jsonl", *transcript(SECRET, "s-acme", (1, 2, 18)))
    put(home / folder_of(OTHER) / "s-own.jsonl", *transcript(OTHER, "s-own", (1, 2, 3)))
    run("tok-sync")
    run("tok-cost --log --since 2026-10-01 --json")
    return pathlib.Path(environment["TOKENOPS_HOME"])


def turns(run: Run, query: str = "") -> list[str]:
    return sorted(event["id"] for event in objects(run(f"tok-cat --kind turn {query}").stdout))


def holds(log: pathlib.Path, *texts: str) -> list[str]:
    """The files of the log in which one of some texts stands, in whatever form it is kept; the cursors apart."""
    found = []
    for path in sorted(log.rglob("*")):
        if path.is_file() and path.name != "cursors.json":
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found += [path.name for text in texts if text.encode() in data or text in str(path)]
    return found


def id_of(log: pathlib.Path, path: str) -> str:
    (key,) = [key for key, value in json.loads((log / "projects.json").read_bytes()).items() if value == path]
    return str(key)


OWN = [f"msg_s-own_{day}_{n}" for day in (1, 2, 3) for n in (1, 2)]
ACME = [f"msg_s-acme_{day}_{n}" for day in (18, 1, 2) for n in (1, 2)]


@pytest.mark.parametrize("state", ["plain", "gzipped", "gzipped and plain"])
def test_a_project_leaves_every_file_and_does_not_come_back(run: Run, log: pathlib.Path, state: str) -> None:
    key = id_of(log, SECRET)
    if state != "plain":
        run("tok-log compact --gzip")
    if state == "gzipped and plain":
        day = log / "events/2026-11-02.jsonl"
        put(day, gzip.decompress(day.with_suffix(".jsonl.gz").read_bytes()))
    (row,) = objects(run("tok-log forget --project acme --dry-run --json").stdout)
    assert {name: row[name] for name in ("turns", "days", "first", "last", "dry_run")} == {
        "turns": 6, "days": 3, "first": "2026-11-01", "last": "2026-11-18", "dry_run": True,
    }  # fmt: skip
    assert row["tokens"] == 6 * 5112 and float(row["cost_usd"]) > 0
    assert turns(run) == sorted(ACME + OWN)
    run("tok-log forget --project acme --yes")
    assert turns(run) == OWN
    # The rule keeps the project's hash, and no name.
    assert holds(log, "acme") == [] and holds(log, key) == ["forgotten.json"]
    assert not (log / "events/2026-11-18.jsonl").exists() and not (log / "events/2026-11-18.jsonl.gz").exists()
    for command in ("tok-sync", "tok-sync --backfill", "tok-log compact", "tok-sync", "tok-cost --log --json"):
        run(command)
    assert turns(run) == OWN
    assert holds(log, "acme") == [] and holds(log, key) == ["forgotten.json"]
    assert run("tok-log verify").stdout == b""
    (total,) = objects(run("tok-cost --log --by none --since 2026-10-01 --json").stdout)
    assert total["turns"] == 6


def test_undo_lets_a_backfill_bring_back_what_exists(run: Run, log: pathlib.Path) -> None:
    before = run("tok-cat --kind all").stdout
    run("tok-log forget --project acme --yes")
    run("tok-log forget --client claude-code --before 2026-11-02 --yes")
    listed = objects(run("tok-log forget --list --json").stdout)
    assert [(rule["rule"], rule["turns"], rule.get("client", "")) for rule in listed] == [(1, 6, ""), (2, 2, "claude-code")]
    run("tok-sync")
    run("tok-log forget --undo 1")
    run("tok-sync")
    assert turns(run) == OWN[2:]
    run("tok-sync --backfill")
    assert turns(run) == sorted([name for name in ACME if "_1_" not in name] + OWN[2:])
    assert b"no such rule" in run("tok-log forget --undo 1", status=2).stderr
    run("tok-log forget --undo 2")
    assert not (log / "forgotten.json").exists()
    run("tok-sync --backfill")
    assert sorted(run("tok-cat --kind all").stdout.splitlines()) == sorted(before.splitlines())


def test_what_happens_later_is_recorded(run: Run, log: pathlib.Path, environment: dict[str, str]) -> None:
    run("tok-log forget --project acme --yes")
    path = pathlib.Path(environment["HOME"]) / folder_of(SECRET) / "s-acme.jsonl"
    with path.open("ab") as file:
        file.write(lines([claude("msg_new", ts="2026-11-20T13:00:00.000Z", cwd=SECRET, sessionId="s-acme")]))
    run("tok-sync", env={"TOKENOPS_NOW": "2026-11-20T14:00:00Z"})
    assert turns(run) == ["msg_new", *OWN]
    assert id_of(log, SECRET)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ("--session s-acme", OWN),
        ("--session s-ac", OWN),
        ("--client claude-code", []),
        ("--client codex", [*ACME, *OWN]),
        ("--before 2026-11-02", [*(n for n in ACME if "_1_" not in n), *OWN[2:]]),
        ("--before 2026-11-02T01:30:00Z --project acme", ["msg_s-acme_18_1", "msg_s-acme_18_2", "msg_s-acme_2_2", *OWN]),
        ("--project acme --session s-own", [*ACME, *OWN]),
        ("--project own --client claude-code --session s-own --before 2026-11-02", [*ACME, *OWN[2:]]),
    ],
)
def test_all_conditions_must_match(run: Run, log: pathlib.Path, options: str, left: list[str]) -> None:
    (row,) = objects(run(f"tok-log forget {options} --yes --json").stdout)
    assert row["turns"] == 12 - len(left)
    for command in ("tok-cat", "tok-sync --backfill"):
        run(command)
        assert turns(run) == sorted(left)


def test_a_copy_in_another_session_does_not_bring_a_session_back(
    run: Run, log: pathlib.Path, environment: dict[str, str]
) -> None:
    """A resumed session's file holds copies of the turns before it; the file of the session itself is gone by then."""
    run("tok-log forget --session s-acme --yes")
    folder = pathlib.Path(environment["HOME"]) / folder_of(SECRET)
    copied = transcript(SECRET, "s-resumed", (1, 2, 18), "s-acme")
    put(
        folder / "s-resumed.jsonl",
        *copied,
        claude("msg_own_1", ts="2026-11-18T09:00:00.000Z", cwd=SECRET, sessionId="s-resumed"),
    )
    (folder / "s-acme.jsonl").unlink()
    run("tok-sync")
    run("tok-sync --backfill")
    assert turns(run) == ["msg_own_1", *OWN]


def test_requests_that_the_proxy_saw_of_a_project_go_with_its_sessions(run: Run, log: pathlib.Path) -> None:
    """They name no project; one of them is the same turn as the log's, the other is in no transcript."""
    seen = {"v": 1, "kind": "turn", "source": "proxy", "client": "claude-code", "provider": "anthropic", "model": "claude-opus-4-6", "turns": 1}  # fmt: skip
    wire = [
        seen | {"ts": "2026-11-01T00:59:59.000Z", "id": "msg_s-acme_1_1", "output_tokens": 9, "status": 200},
        seen | {"ts": "2026-11-01T05:00:00.000Z", "id": "msg_title", "session_id": "s-acme", "output_tokens": 3},
        seen | {"ts": "2026-11-01T05:00:00.000Z", "id": "msg_elsewhere", "session_id": "s-x", "output_tokens": 3},
    ]
    run("tok-log append", lines(wire))
    run("tok-log forget --project acme --yes")
    assert turns(run) == ["msg_elsewhere", *OWN]
    assert holds(log, "s-acme", "msg_title") == []
    done = run("tok-log append", lines(wire[1:]), status=1)
    assert done.stdout == b"msg_elsewhere\n" and b"rule 1 of tok-log forget keeps it out" in done.stderr


def test_what_counts_for_a_session_without_turns_does_not_take_their_place(run: Run, log: pathlib.Path) -> None:
    """A total stands for a session only if the log has none of its turns: it may not begin to count because they went."""
    total = {"v": 1, "ts": "2026-11-19T00:00:00.000Z", "kind": "usage", "id": "usage:t", "source": "test", "client": "claude-code", "session_id": "s-acme", "covers": "session", "provider": "anthropic", "model": "claude-opus-4-6", "output_tokens": 999}  # fmt: skip
    rest = total | {"id": "usage:r", "covers": "remainder", "output_tokens": 5}
    run("tok-log append", lines([total, rest]))
    run("tok-log forget --before 2026-11-19 --yes")
    kept = objects(run("tok-cat --kind usage").stdout)
    assert [record["id"] for record in kept] == ["usage:r"]  # it is of that day, and holds none of the turns
    done = run("tok-log append", lines([total, rest | {"id": "usage:r2", "output_tokens": 99}]), status=1)
    assert done.stdout == b""


def test_lines_that_are_not_records_and_those_of_others_stay(run: Run, log: pathlib.Path) -> None:
    day = log / "events/2026-11-02.jsonl"
    newer = {"v": 9, "ts": "2026-11-02T05:00:00.000Z", "kind": "turn", "id": "n", "project": "own", "more": {"a": {}}}
    key = id_of(log, SECRET)
    torn = (
        b'{"v":1,"ts":"2026-11-02T04:00:00.000Z","kind":"turn","id":"x","project":"acme","project_id":"%b","ses'
        % key.encode()
    )
    with day.open("ab") as file:
        file.write(b'{"damaged":\n' + lines([newer, newer | {"project_id": key, "id": "m"}]) + torn)
    put(log / "rejected/2026-11-02.txt", b'{"other\n', torn + b"\n")
    put(log / "ship/x/refused.jsonl", lines([{"id": "r", "ts": "2026-11-02T05:00:00.000Z", "project_id": key}]))
    run("tok-log forget --project acme --yes")
    text = day.read_text()
    assert '{"damaged":\n' in text and '"id":"n"' in text and '"id":"m"' not in text and "acme" not in text
    assert (log / "rejected/2026-11-02.txt").read_bytes() == b'{"other\n'
    assert not (log / "ship/x/refused.jsonl").exists()
    assert turns(run, "2> /dev/null || true") == OWN


def test_two_projects_of_one_name_are_not_mixed_up(run: Run, log: pathlib.Path, environment: dict[str, str]) -> None:
    cwd = "/srv/acme"
    put(pathlib.Path(environment["HOME"]) / folder_of(cwd) / "s-srv.jsonl", *transcript(cwd, "s-srv", (1,)))
    run("tok-sync")
    refused = run("tok-log forget --project acme --yes", status=2).stderr.decode()
    assert "several projects have that name (ada/acme, srv/acme)" in refused
    run("tok-log forget --project ada/acme --yes")
    assert turns(run) == sorted([*OWN, "msg_s-srv_1_1", "msg_s-srv_1_2"])
    assert set(json.loads((log / "projects.json").read_bytes()).values()) == {OTHER, cwd}


def test_it_asks_at_a_terminal_and_nowhere_else(run: Run, log: pathlib.Path, environment: dict[str, str]) -> None:
    refused = run("tok-log forget --project acme < /dev/null", status=2).stderr.decode()
    assert "6 turns" in refused and "add --yes" in refused
    for answer, status, left in ((b"n\n", 1, 12), (b"\n", 1, 12), (b"yes\n", 0, 6)):
        leader, follower = pty.openpty()
        os.write(leader, answer)
        process = subprocess.Popen(
            [ROOT / "bin/tok-log", "forget", "--project", "acme"],
            env=environment, stdin=follower, stdout=follower, stderr=follower,
        )  # fmt: skip
        os.close(follower)
        shown = until_closed(leader).decode()
        assert process.wait(MOST) == status, shown
        assert "6 turns" in shown and "(y/N)" in shown
        assert len(turns(run)) == left
    for words, why in (
        ("", "say what"),
        ("--list --undo 1", "give --list, --undo"),
        ("--project acmee", "no such project"),
        ("--session zz", "no session id begins with"),
        ("--before someday", "--before"),
        ("--client claud", "did you mean"),
    ):
        assert why in run(f"tok-log forget {words} --yes", status=2).stderr.decode(), words


def test_a_damaged_list_stops_the_sync_and_not_what_happens_now(run: Run, log: pathlib.Path) -> None:
    run("tok-log forget --project acme --yes")
    path = log / "forgotten.json"
    whole = path.read_bytes()
    now = lines([{"v": 1, "ts": "2026-11-20T09:00:00.000Z", "kind": "ping", "id": "p"}])
    for content in (b"", b"{}", whole[:-9], whole.replace(b"2026", b"2025", 1)):
        path.write_bytes(content)
        for command in ("tok-sync --backfill", "tok-log import /dev/null/..", "tok-log forget --list"):
            done = run(command, status=None)
            assert done.returncode == 2 and b"Traceback" not in done.stderr, (command, done.stderr)
        assert b"forgotten.json: is damaged" in run("tok-sync --backfill", status=2).stderr
        assert b"forgotten.json" in run("tok-log verify", status=1).stdout
        assert store.append(str(log), [now]) == 1
    path.write_bytes(whole)
    run("tok-sync --backfill")
    assert turns(run) == OWN


def test_import_brings_nothing_back(run: Run, log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "backup.jsonl", run("tok-cat --kind all").stdout)
    run("tok-log forget --project acme --yes")
    (row,) = objects(run("tok-log import backup.jsonl").stdout)
    assert row["added"] == 0 and row["forgotten"] > 6
    assert turns(run) == OWN


def test_pulling_another_log_brings_nothing_back(run: Run, log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """One with the same salt, which knows the project's path as well."""
    shutil.copytree(log, tmp_path / "other")
    run("tok-log forget --project acme --yes")
    for command in ("tok-sync --from ./other", "tok-log import other"):
        run(command)
        assert turns(run) == OWN and holds(log, "acme") == []


def test_a_sync_that_had_read_before_writes_nothing_of_it(log: pathlib.Path, run: Run) -> None:
    """The lines of a writer that began before a project was forgotten, and writes them after."""
    kept = run("tok-cat --kind all").stdout.splitlines(keepends=True)
    run("tok-log forget --project acme --yes")
    store.append(str(log), kept)
    assert turns(run) == OWN
    assert holds(log, "acme") == []


def test_a_published_part_loses_it_too(run: Run, log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Also of days that this log has pruned, and of one that holds nothing else."""
    run("tok-sync --to ./parts")
    (part,) = (path.parent for path in (tmp_path / "parts").rglob("part.json"))
    run("tok-log prune --before 2026-11-02")
    run("tok-log forget --project acme --yes")
    run("tok-sync --to ./parts")
    days = {path.name[:10]: gzip.decompress(path.read_bytes()) for path in part.glob("*.gz")}
    assert sorted(days) == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert not any(b"acme" in content for content in days.values())
    assert all(content.count(b"msg_s-own") >= 2 for content in days.values())
    run("tok-log forget --before 2026-11-03 --yes")
    run("tok-sync --to ./parts")
    assert [path.name[:10] for path in part.glob("*.gz")] == ["2026-11-03"]


def test_copies_in_a_published_part_lose_it_too(run: Run, log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Those that a program for synchronising made of a day; and a rule that looks like a lifted one is another."""
    run("tok-sync --to ./parts")
    (part,) = (path.parent for path in (tmp_path / "parts").rglob("part.json"))
    shutil.copy(part / "2026-11-03.jsonl.gz", part / "2026-11-03 (conflicted copy).jsonl.gz")
    run("tok-log prune --before 2026-11-02")
    run("tok-log forget --client codex --before 2026-11-10 --yes")
    run("tok-sync --to ./parts")
    run("tok-log forget --undo 1")
    run("tok-log forget --project acme --before 2026-11-10 --yes")
    run("tok-sync --to ./parts")
    days = {path.name: gzip.decompress(path.read_bytes()) for path in part.glob("*.gz")}
    assert len([name for name in days if name.startswith("2026-11-03")]) == 2
    earlier = [content for name, content in days.items() if name < "2026-11-10"]
    assert len(earlier) >= 4 and not any(b"acme" in content for content in earlier)
    assert all(content.count(b"msg_s-own") >= 2 for name, content in days.items() if name < "2026-11-04")


def test_rules_keep_only_hashes(run: Run, log: pathlib.Path) -> None:
    run("tok-log forget --session s-acme --yes")
    run("tok-log forget --project own --yes")
    text = (log / "forgotten.json").read_text()
    assert not any(word in text for word in ("acme", "own", "s-own", "msg_", "ada"))
    rules = store_rules.load(str(log))
    assert len(rules.rules[0].turns) == 6 and rules.rules[1].turns == ()
    assert store_forget.project_names(str(log)) == []
