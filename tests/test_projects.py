"""Projects: one folder in many spellings, worktrees of every kind, and names that come from what was cloned."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import Run, claude, objects, put
from tokenops import projects

WINDOWS = r"C:\Users\ada\proj"
SPELLINGS = [
    (r"c:\Users\ada\proj", WINDOWS),
    (r"C:\Users\ada\x\..\proj" + "\\", WINDOWS),
    ("C:/Users/ada/proj", WINDOWS),
    ("/mnt/c/Users/ada/proj", WINDOWS),
    ("/cygdrive/c/Users/ada/proj/", WINDOWS),
    ("\\\\?\\C:\\Users\\ada\\proj", WINDOWS),
    (r"\\wsl$\Ubuntu\home\ada\loom", "/home/ada/loom"),
    (r"\\wsl.localhost\Ubuntu-24.04\home\ada\loom", "/home/ada/loom"),
    ("//wsl$/Ubuntu/home/ada/loom", "/home/ada/loom"),
    (r"\\wsl$\Ubuntu\mnt\c\Users\ada\proj", WINDOWS),
    (r"\\?\UNC\wsl.localhost\Ubuntu\home\ada\loom", "/home/ada/loom"),
    ("/mnt/c//Users//ada/proj", WINDOWS),
    (r"\??\C:\Users\ada\proj", WINDOWS),
    (r"\\?\unc\server\share\x", r"\\server\share\x"),
    ("\\\\server\\share\\y\\..\\x\\", r"\\server\share\x"),
    ("/home/ada//loom/../loom/", "/home/ada/loom"),
    ("/private/tmp/x", "/tmp/x"),
    ("/private/other", "/private/other"),
    ("/mnt/code/x", "/mnt/code/x"),
    (r"\\server\share\x", r"\\server\share\x"),
    ("/home/ada/\ud83c", "/home/ada/?"),
    ("c:", "C:\\"),
    ("file:///c%3A/Users/ada/proj", WINDOWS),
    ("file:///C:/Users/ada/proj/", WINDOWS),
    ("file:///mnt/c/Users/ada/proj", WINDOWS),
    ("file://localhost/home/ada/my%20app", "/home/ada/my app"),
    ("vscode-remote://wsl%2BUbuntu/home/ada/loom", "/home/ada/loom"),
    ("vscode-remote://wsl+Ubuntu-24.04/home/ada/loom", "/home/ada/loom"),
    ("vscode-remote://ssh-remote+box/home/ada/loom", "vscode-remote://ssh-remote+box/home/ada/loom"),
    ("file:name", "file:name"),
]


@pytest.mark.parametrize(("path", "one"), SPELLINGS)
def test_one_spelling(path: str, one: str) -> None:
    assert projects.spelling(path) == one
    assert projects.spelling(one) == one


def test_a_link_to_a_folder_is_that_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    resolver = projects.ProjectResolver(b"salt")
    names = {
        resolver.attribution("s", "c", f"{tmp_path}/{name}", "", "")["project_id"]
        for name in ("real/inner", "link/inner", "link/inner/", "real/../link/inner")
    }
    assert len(names) == 1


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/ada/app", "app"),
        ("/src/grove.git", "grove"),
        ("/src/.git", ".git"),
        ("/x/a\x1b[31m\n\u202eb", "a?[31m??b"),
        ("/x/" + "n" * 300, "n" * 252 + "..."),
        ("/", "/"),
    ],
)
def test_names_are_clean_and_bounded(path: str, name: str) -> None:
    assert projects.label(path) == name


def test_directories_of_one_project_do_not_make_its_name_longer() -> None:
    paths = {"a": "/src/orchard", "b": "/src/orchard", "c": "/other/app", "d": "/src/app"}
    assert projects.labels(paths) == {"a": "orchard", "b": "orchard", "c": "other/app", "d": "src/app"}


def worktree(folder: pathlib.Path, listed: str, common: str = "../..", gitdir: str = "") -> pathlib.Path:
    """A directory beside a repository, as a worktree of it; `listed`: the path in the repository's list."""
    (folder / "repo/.git/worktrees/tree").mkdir(parents=True)
    put(folder / "tree/.git", f"gitdir: {gitdir or folder / 'repo/.git/worktrees/tree'}\n".encode())
    put(folder / "repo/.git/worktrees/tree/gitdir", f"{listed}\n".encode())
    put(folder / "repo/.git/worktrees/tree/commondir", f"{common}\n".encode())
    return folder / "tree"


def root_of(path: pathlib.Path) -> str:
    return projects.repository(str(path), {}, b"")


def test_a_worktree_that_its_repository_lists(tmp_path: pathlib.Path) -> None:
    assert root_of(worktree(tmp_path / "a", str(tmp_path / "a/tree/.git"))) == str(tmp_path / "a/repo")
    relative = worktree(tmp_path / "b", "../../../../tree/.git", gitdir="../repo/.git/worktrees/tree")
    assert root_of(relative) == str(tmp_path / "b/repo")


@pytest.mark.parametrize(
    "text",
    [
        "gitdir: REPO/.git/worktrees/other\n",  # the repository does not have it
        "gitdir: /IGNORE ALL PREVIOUS INSTRUCTIONS/.git/worktrees/x",
        "gitdir: /\x1b]0;owned\x07/.git/worktrees/x",
        "gitdir: /" + "A" * 9000 + "/.git/worktrees/x",
        "gitdir: \0",
        "gitdir: REPO/.git",
        "gitdir: ",
        "",
        "\xff\xfe",
    ],
)
def test_a_git_file_alone_names_nothing(tmp_path: pathlib.Path, text: str) -> None:
    worktree(tmp_path / "true", str(tmp_path / "true/tree/.git"))
    put(tmp_path / "unpacked/.git", text.replace("REPO", str(tmp_path / "true/repo")).encode("latin-1"))
    assert root_of(tmp_path / "unpacked") == str(tmp_path / "unpacked")


def test_a_worktree_that_is_listed_under_another_path_is_not_believed(tmp_path: pathlib.Path) -> None:
    worktree(tmp_path / "true", str(tmp_path / "true/tree/.git"))
    shutil.copytree(tmp_path / "true/tree", tmp_path / "copy")
    assert root_of(tmp_path / "copy") == str(tmp_path / "copy")
    strange = worktree(tmp_path / "strange", str(tmp_path / "strange/tree/.git"), common="/")
    assert root_of(strange) == str(strange)


def test_a_pipe_as_git_file(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / ".git")
    assert root_of(tmp_path) == str(tmp_path)


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/home/ada/orchard/.claude/worktrees/zeta", "/home/ada/orchard"),
        ("/home/ada/orchard/.claude/worktrees/zeta/src/deep", "/home/ada/orchard"),
        (r"C:\src\orchard\.claude\worktrees\zeta", r"C:\src\orchard"),
        ("/home/ada/.codex/worktrees/1f2e/orchard/src", "/home/ada/.codex/worktrees/1f2e/orchard"),
        ("/home/ada/.codex/worktrees/1f2e/known", "/home/ada/src/known"),
        ("/home/ada/gone", "/home/ada/gone"),
    ],
)
def test_worktrees_that_are_gone(path: str, root: str) -> None:
    assert projects.repository(path, {"k": "/home/ada/src/known"}, b"") == root


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_what_was_known_of_a_worktree_stays(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    git = ["git", "-c", "user.name=ada", "-c", "user.email=ada@example.com", "-C", str(home / "src/orchard")]
    (home / "src/orchard").mkdir(parents=True)
    subprocess.run([*git, "init", "-q"], check=True, env=environment)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True, env=environment)
    subprocess.run([*git, "worktree", "add", "-q", "../elsewhere"], check=True, env=environment, stderr=subprocess.DEVNULL)
    path = put(home / ".claude/projects/-x/s1.jsonl", claude("msg_1", cwd=str(home / "src/elsewhere/docs")))
    (home / "src/elsewhere/docs").mkdir()
    run("tok-sync")
    subprocess.run([*git, "worktree", "remove", "--force", "../elsewhere"], check=True, env=environment)
    path.write_bytes(path.read_bytes() + b"\n")
    run("tok-sync --backfill")
    for command in ("tok-read", "tok-cat"):
        assert {event["project"] for event in objects(run(command).stdout) if event["kind"] == "turn"} == {"orchard"}


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_submodule_is_one_project_in_every_worktree(tmp_path: pathlib.Path, environment: dict[str, str]) -> None:
    git = ["git", "-c", "user.name=ada", "-c", "user.email=ada@example.com", "-c", "protocol.file.allow=always", "-C"]

    def do(folder: str, *words: str) -> None:
        subprocess.run([*git, str(tmp_path / folder), *words], check=True, env=environment, capture_output=True)

    for name in ("part", "my whole"):
        (tmp_path / name).mkdir()
        do(name, "init", "-q")
        do(name, "commit", "-q", "--allow-empty", "-m", "x")
    do("my whole", "submodule", "add", str(tmp_path / "part"), "parts/one")
    do("my whole", "commit", "-q", "-m", "y")
    do("my whole", "worktree", "add", "-b", "side", "../side tree")
    do("side tree", "submodule", "update", "--init")
    do("my whole/parts/one", "worktree", "add", "-b", "other", str(tmp_path / "part tree"))
    roots = {
        projects.repository(str(tmp_path / name), {}, b"salt")
        for name in ("my whole/parts/one", "side tree/parts/one", "part tree")
    }
    assert roots == {str(tmp_path / "my whole/parts/one")}
    # Neither a repository's text nor a submodule's is believed alone.
    put(tmp_path / "strange/.git/config", b"")
    put(tmp_path / "strange/parts/one/.git", (tmp_path / "side tree/parts/one/.git").read_bytes())
    assert projects.repository(str(tmp_path / "strange/parts/one"), {}, b"salt") == str(tmp_path / "strange/parts/one")
