"""docs/team.md: its commands are run for five people with one repository."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import MOST, ROOT, claude, objects, put

PAGE = ROOT / "docs/team.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
PEOPLE = ("ada", "bob", "cyd", "dan", "eve")
GIT = {f"GIT_{who}_{what}": "x@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("git", "ssh-keygen"))), reason="it needs git and ssh-keygen, as a team does"
)


class Team:
    """Five homes and a repository."""

    def __init__(self, environment: dict[str, str], folder: pathlib.Path) -> None:
        self.environment, self.folder = environment, folder
        self.repository = folder / "tokens.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", self.repository], check=True, env=environment)
        first = f"git clone -q {self.repository} first; cd first; git commit -q --allow-empty -m first; git push -q origin HEAD:main"
        subprocess.run(["bash", "-ec", first], check=True, env=environment | GIT, cwd=folder, capture_output=True)
        for number, name in enumerate(PEOPLE, 1):
            turns = [
                claude(f"msg_{name}_{n}", ts=f"2026-11-{n + 1:02d}T09:00:00.000Z", sessionId=name, cwd="/w/app")
                for n in range(number)
            ]
            put(self.home(name) / ".claude/projects/-w-app/s.jsonl", *turns)
            (self.home(name) / ".ssh").mkdir()

    def home(self, name: str) -> pathlib.Path:
        return self.folder / name

    def run(self, name: str, block: str, status: int = 0) -> str:
        """Run a block of the page as one person."""
        text = block.replace("git@example.com:acme/tokens.git", str(self.repository))
        text = re.sub(r"\bada\b(?!\.pub)", name, text) if name in PEOPLE else text
        env = self.environment | GIT | {"HOME": str(self.home(name)), "TOKENOPS_NOW": "2026-11-20T12:00:00Z"}
        env.pop("TOKENOPS_HOME")
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            env=env,
            cwd=self.home(name),
            capture_output=True,
            check=False,
            timeout=5 * MOST,
        )
        assert done.returncode == status, (block, done.stdout[-900:], done.stderr.decode()[-2000:])
        return done.stdout.decode()


def test_the_commands_of_the_page(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    once, evening, signers, report = BLOCKS
    team = Team(environment, tmp_path)
    lead = team.home("lead")
    lead.mkdir()
    for name in PEOPLE:
        team.run(name, once)
        team.run(name, evening)
        shutil.copy(team.home(name) / ".ssh/tokens.pub", lead / f"{name}.pub")
    team.run("lead", f"git clone -q {team.repository} ~/tokens")
    team.run("lead", signers)
    rows = [
        row for row in objects(team.run("lead", report.replace("--since 7d", "--since 2026-10-01")).encode()) if "by" in row
    ]
    of_user = {row["user"]: row["turns"] for row in rows if row["by"] == ["user"]}
    assert of_user == {name: number for number, name in enumerate(PEOPLE, 1)}
    assert {(row["user"], row["model"], row["turns"]) for row in rows if row["by"] == ["user", "model"]} == {
        (name, "claude-opus-4-6", number) for name, number in of_user.items()
    }
    # The next evening: one has worked on, another is not trusted any more.
    put(
        team.home("eve") / ".claude/projects/-w-app/t.jsonl", claude("msg_new", ts="2026-11-19T09:00:00.000Z", sessionId="t")
    )
    for name in ("dan", "eve"):
        team.run(name, evening.replace("git add", "echo > x; git add -A; git add"))
    signed = lead / "tokens.signers"
    signed.write_text("".join(line for line in signed.read_text().splitlines(keepends=True) if not line.startswith("dan")))
    text = (
        "export TOKENOPS_HOME=~/tokens.log; git -C ~/tokens pull -q; tok-log import --trust ~/tokens.signers ~/tokens --json"
    )
    (row,) = objects(team.run("lead", text, 1).encode())
    assert (row["files"], row["unchanged"], row["refused"], row["added"]) == (5, 3, 1, 1)
    assert "/w/app" not in "".join(path.read_text() for path in (lead / "tokens").rglob("*.jsonl"))


def test_the_page_has_these_blocks() -> None:
    assert [block.splitlines()[0].split()[0] for block in BLOCKS] == ["mkdir", "mkdir", "echo", "export"]
