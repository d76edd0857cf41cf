"""What commits, pull requests and tickets cost, in repositories that git makes here."""

from __future__ import annotations

import os
import pathlib
import subprocess
from typing import Any

import pytest

from conftest import Json, Run, objects
from tokenops import datadir, events, jsonl, projects, store

START = 1_795_000_000  # 2026-11-18T11:06:40Z
NOW = {"TOKENOPS_NOW": "2026-11-20T12:00:00Z"}


def stamp(minute: float) -> str:
    from tokenops import when

    return when.stamp(round((START + minute * 60) * 1000))


class Repository:
    """A repository in which each step happens at a minute, and the log of the turns in it."""

    def __init__(self, path: pathlib.Path, folder: str) -> None:
        self.path, self.folder = path, folder
        self.turns: list[Json] = []
        path.mkdir(exist_ok=True)
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "ada@example.org")
        self.git("config", "user.name", "Ada")
        datadir.ensure_folder(folder)
        self.project = projects.hash_path(os.path.realpath(path), datadir.salt(folder, make=True))

    def git(self, *words: str, minute: float = 0, at: pathlib.Path | None = None, **more: str) -> str:
        date = f"@{round(START + minute * 60)} +0000"
        environment = {**os.environ, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date, "GIT_EDITOR": "true", **more}
        return subprocess.run(
            ["git", *words], cwd=at or self.path, check=True, capture_output=True, text=True, env=environment
        ).stdout.strip()

    def commit(self, subject: str, minute: float, at: pathlib.Path | None = None, **more: str) -> str:
        """A commit that adds a file of its subject's name."""
        ((at or self.path) / subject).write_text(subject)
        self.git("add", ".", at=at)
        self.git("commit", "-q", "-m", subject, minute=minute, at=at, **more)
        return self.git("rev-parse", "HEAD", at=at)

    def turn(self, minute: float, thousands: int, branch: str = "", project: str = "") -> None:
        """A turn of so many thousand output tokens: 0.025 USD for each."""
        record: Json = {"v": events.VERSION, "ts": stamp(minute), "kind": "turn", "id": f"t{len(self.turns)}", "turns": 1}
        record |= {"source": "claude-code-jsonl", "client": "claude-code", "session_id": "s", "provider": "anthropic"}
        record |= {"model": "claude-opus-4-6", "output_tokens": 1000 * thousands, "project_id": project or self.project}
        if branch:
            record["branch"] = branch
        self.turns.append(record)

    def append(self) -> None:
        store.append(self.folder, map(jsonl.line_of, self.turns))


@pytest.fixture
def repository(tmp_path: pathlib.Path, environment: dict[str, str]) -> Repository:
    return Repository(tmp_path, environment["TOKENOPS_HOME"])


def costs(rows: list[Json], name: str) -> dict[Any, str]:
    """Name -> cost. Rows of the rest under their kind."""
    return {row.get(name, row["kind"]): row["cost_usd"] for row in rows}


def history(repository: Repository) -> dict[str, str]:
    """Two branches, one merged, a worktree, a rebase and a revert; with turns of 1, 2, 4, ... thousand tokens."""
    made = {"first": repository.commit("first", 0)}
    repository.turn(5, 1, "main")  # -> second
    made["second"] = repository.commit("second", 10)
    repository.git("checkout", "-q", "-b", "feature")
    repository.turn(12, 2, "feature")  # -> third
    made["third"] = repository.commit("third", 20)
    # A worktree in which another branch is worked on at the same time.
    beside = repository.path.parent / f"{repository.path.name}-beside"
    repository.git("worktree", "add", "-q", str(beside), "-b", "other", "main")
    repository.turn(22, 4, "other")  # -> fourth, in the worktree
    repository.turn(23, 8, "feature")  # -> fifth
    made["fourth"] = repository.commit("fourth", 30, beside)
    made["fifth"] = repository.commit("fifth", 40)
    # Merged with a merge commit; conflicts were solved on main.
    repository.git("checkout", "-q", "main")
    repository.turn(45, 16, "main")  # -> the merge
    repository.git("merge", "-q", "--no-ff", "-m", "Merge pull request #7 from ada/feature", "feature", minute=50)
    made["merge"] = repository.git("rev-parse", "HEAD")
    # The other branch is rebased: a new commit, the same author's time.
    repository.git("rebase", "-q", "main", minute=60, at=beside)
    made["fourth"] = repository.git("rev-parse", "HEAD", at=beside)
    repository.turn(65, 32, "main")  # -> the revert
    repository.git("revert", "--no-edit", made["second"], minute=70)
    made["revert"] = repository.git("rev-parse", "HEAD")
    repository.turn(80, 64, "main")  # led to nothing so far
    repository.turn(81, 128, "other")  # likewise
    repository.turn(9, 256, "main", "another")  # another project's
    repository.append()
    return made


def test_commits(repository: Repository, run: Run) -> None:
    made = history(repository)
    repository.git("merge", "-q", "--no-ff", "-m", "Merge branch 'other'", "other", minute=90)
    rows = objects(run("tok-task commits --json", env=NOW).stdout)
    assert costs(rows, "commit") == {
        repository.git("rev-parse", "HEAD"): "1.6",  # what main was used for before: 64
        made["revert"]: "0.8",
        made["merge"]: "0.4",
        made["fifth"]: "0.2",
        made["third"]: "0.05",
        made["fourth"]: "0.1",
        made["second"]: "0.025",
        made["first"]: "0",
        "not_attributed": "3.2",
    }
    by_name = {row.get("commit", row["kind"]): row for row in rows}
    assert [by_name[made[name]]["branch"] for name in ("third", "fourth", "second")] == ["feature", "other", "main"]
    assert by_name[made["revert"]]["share_of_all"] == round(0.8 / 6.375, 6)
    assert by_name[made["revert"]]["share_of_attributed"] == round(0.8 / 3.175, 6)
    assert sum(row["share_of_all"] for row in rows) == pytest.approx(1)
    assert sum(row["turns"] for row in rows) == 8


def test_pull_requests(repository: Repository, run: Run) -> None:
    history(repository)
    rows = objects(run("tok-task prs --json", env=NOW).stdout)
    assert costs(rows, "pull_request") == {
        "#7 feature": "0.65",  # third, fifth and the merge
        "other": "0.1",
        "other_commits": "0.825",  # second and the revert, of main itself
        "not_attributed": "4.8",
    }
    states = {row.get("pull_request"): (row.get("state"), row.get("number"), row.get("commits")) for row in rows}
    assert states["#7 feature"] == ("merged", "7", 3) and states["other"] == ("open", None, 1)
    only = objects(run("tok-task prs main..other --json", env=NOW).stdout)
    assert costs(only, "pull_request")["other"] == "0.1" and len(only) == 3


def test_a_range(repository: Repository, run: Run) -> None:
    made = history(repository)
    rows = objects(run("tok-task commits main..other --json", env=NOW).stdout)
    # Its parent after the rebase was written later than it was: the work began with the one before.
    assert costs(rows, "commit")[made["fourth"]] == "0.1"
    (row, *_) = objects(run(f"tok-task commits {made['third']}..{made['fifth']} --json", env=NOW).stdout)
    assert (row["commit"], row["cost_usd"]) == (made["fifth"], "0.2")
    for words, why in (("nothing..main", "bad revision"), ("-- --exec=x", "does not begin with -")):
        assert why in run(f"tok-task commits {words}", status=2, env=NOW).stderr.decode()


def test_a_session_keeps_the_branch_on_which_it_began(repository: Repository, run: Run) -> None:
    """Clients record the branch at the session's start: work that went to a new branch is found there."""
    repository.commit("first", 0)
    repository.turn(5, 1, "main")
    repository.git("checkout", "-q", "-b", "new")
    made = repository.commit("second", 10)
    repository.turn(12, 2, "new")  # not committed, whatever main does
    repository.git("checkout", "-q", "main")
    repository.commit("third", 20)
    repository.turn(30, 4, "main")
    repository.append()
    rows = objects(run("tok-task commits --all-authors --json", env=NOW).stdout)
    assert costs(rows, "commit")["not_attributed"] == "0.15"
    # The next commit on main itself comes first where there is one.
    assert "0.025" in costs(rows, "commit").values() and made not in costs(rows, "commit")


def test_a_branch_that_is_gone_and_none(repository: Repository, run: Run) -> None:
    """A squashed branch leaves no name. A merged one leaves its name in the merge."""
    first = repository.commit("first", 0)
    repository.turn(5, 1, "squashed")
    repository.turn(6, 2)
    squashed = repository.commit("second (#12)", 10)
    repository.git("checkout", "-q", "-b", "merged")
    repository.turn(15, 4, "merged")
    inside = repository.commit("third", 20)
    repository.git("checkout", "-q", "main")
    repository.commit("fourth", 25)
    repository.git("merge", "-q", "--no-ff", "-m", "Merge branch 'merged'", "merged", minute=30)
    repository.git("branch", "-q", "-D", "merged")
    repository.append()
    done = run("tok-task commits --table -v", env=NOW).stdout.decode()
    assert "2 turns placed by time alone" in done
    rows = costs(objects(run("tok-task commits --json", env=NOW).stdout), "commit")
    assert (rows[first], rows[squashed], rows[inside]) == ("0", "0.075", "0.1")
    assert costs(objects(run("tok-task prs --json", env=NOW).stdout), "pull_request") == {
        "merged": "0.1",
        "#12": "0.075",
        "not_attributed": "0",
    }


def test_commits_of_others_take_no_turns(repository: Repository, run: Run) -> None:
    repository.commit("first", 0)
    repository.turn(5, 1, "main")
    theirs = repository.commit("second", 10, GIT_AUTHOR_EMAIL="bob@example.org")
    mine = repository.commit("third", 20)
    repository.append()
    rows = costs(objects(run("tok-task commits --json", env=NOW).stdout), "commit")
    assert (rows[theirs], rows[mine]) == ("0", "0.025")
    rows = costs(objects(run("tok-task commits --all-authors --json", env=NOW).stdout), "commit")
    assert (rows[theirs], rows[mine]) == ("0.025", "0")
    assert "1 commit of other authors" in run("tok-task commits -v --table", env=NOW).stdout.decode()


def test_tickets(repository: Repository, run: Run, environment: dict[str, str]) -> None:
    for minute, branch in enumerate(("ada/ABC-12-cutoff", "ABC-12", "main", "gh-7", "")):
        repository.turn(minute, 1 << minute, branch)
    repository.append()
    rows = objects(run("tok-task tickets --json", env=NOW).stdout)
    assert costs(rows, "ticket") == {"ABC-12": "0.075", "not_attributed": "0.7"}
    assert rows[0]["branches"] == ["ABC-12", "ada/ABC-12-cutoff"]
    config = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("tasks: {ticket: '(?i)gh-([0-9]+)'}\n")
    assert costs(objects(run("tok-task tickets --json", env=NOW).stdout), "ticket") == {
        "7": "0.2",
        "not_attributed": "0.575",
    }
    config.write_text("tasks: {ticket: '('}\n")
    assert "no regular expression" in run("tok-task tickets", status=2, env=NOW).stderr.decode()


def test_notes_are_written_only_when_asked(repository: Repository, run: Run) -> None:
    made = history(repository)
    run("tok-task commits", env=NOW)
    assert not repository.git("for-each-ref", "refs/notes")
    for _ in range(2):  # a second time replaces them
        assert b"5 commits noted" in run("tok-task commits --notes", env=NOW).stderr
    text = repository.git("notes", "--ref=tokenops", "show", made["revert"])
    assert text.startswith("TokenOps: $0.8 at list price; 1 turns, 32000 tokens")
    assert repository.git("for-each-ref", "--format=%(refname)", "refs/notes") == "refs/notes/tokenops"
    # The notes' own commits are nobody's work.
    rows = objects(run("tok-task commits --json", env=NOW).stdout)
    assert costs(rows, "commit")["not_attributed"] == "4.8"


def test_what_is_said_where_there_is_nothing(run: Run, tmp_path: pathlib.Path, repository: Repository) -> None:
    assert "no commit in this span" in run("tok-task commits", status=1, env=NOW).stderr.decode()
    repository.commit("first", 0)
    assert "--base: there is no branch 'develop'" in run("tok-task prs --base develop", status=2, env=NOW).stderr.decode()
    assert "no pull request" in run("tok-task prs", status=1, env=NOW).stderr.decode()
    shown = run("tok-task commits --markdown", env=NOW).stdout.decode()
    assert shown.startswith("| commit") and "not attributed" in shown
    assert "no turn of this time was made in this repository; tok-cost --by project --since all lists" in shown
    assert "$0.00 of $0.00" not in shown
    (tmp_path / ".git").rename(tmp_path / "git")
    assert "no git repository here" in run("tok-task commits", status=2, env=NOW).stderr.decode()


def test_a_repositorys_settings_run_no_program(repository: Repository, run: Run, tmp_path: pathlib.Path) -> None:
    """An unpacked repository may ask for a program to be run when its history is shown."""
    repository.commit("first", 0)
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\nexit 1\n")
    trap.chmod(0o755)
    for name in ("gpg.program", "core.fsmonitor", "core.pager", "core.sshCommand", "diff.external", "log.showSignature"):
        repository.git("config", name, "true" if name == "log.showSignature" else str(trap))
    run("tok-task commits --json", env=NOW)
    run("tok-task prs --json", env=NOW, status=1)
    assert not (tmp_path / "sprung").exists()
