"""What tok-init writes into other programs' files: one entry, nothing else, and all of it can be taken back."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import tomllib
from collections.abc import Callable

import pytest
import yaml

from conftest import MOST, ROOT, Json, Run, objects, put
from tokenops import setup_changes, setup_texts

ENV = {"TOKENOPS_NOW": "2026-11-22T08:00:00Z"}
MCP = f"{ROOT}/bin/tok-mcp"
PRO = {"oauthAccount": {"organizationType": "claude_pro"}}


@pytest.fixture
def home(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["HOME"])


def tree(*roots: pathlib.Path) -> dict[str, object]:
    """Every file, link and directory, with mode and content."""
    found: dict[str, object] = {}
    for root in roots:
        for path in sorted(root.rglob("*")):
            about = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path)] = (oct(about.st_mode), content)
    return found


def init(run: Run, options: str, status: int = 0) -> list[Json]:
    return objects(run(f"tok-init {options} --json", env=ENV, status=status).stdout)


def states(rows: list[Json]) -> dict[str, str]:
    return {row["file"].rpartition("/")[2]: row["state"] for row in rows if row["about"] == "change"}


FILES = [
    (".cursor/mcp.json", b""),
    (".cursor/mcp.json", b"\n"),
    (".cursor/mcp.json", b"{}"),
    (".cursor/mcp.json", b"\xef\xbb\xbf{}\n"),
    (".cursor/mcp.json", b'\xef\xbb\xbf// mine\r\n{\r\n\t"mcpServers": {\r\n\t\t"a": {"url": "x"}, // last, really\r\n\t},\r\n}\r\n'),
    (".cursor/mcp.json", b'{"mcpServers":{"a":{"url":"\xc3\xa4"}},"z":[1,2]}'),
    (".codex/config.toml", b""),
    (".codex/config.toml", b"# mine\nmodel = 'x'"),
    (".codex/config.toml", b'model = "x"\r\n[mcp_servers.a]\r\ncommand = "b"\r\n\r\n'),
    (".codex/config.toml", b"\xef\xbb\xbfmodel = 'x'\n[[hooks]]\na = 1\n"),
    (".gemini/settings.json", b'{\n    "theme": "x"\n}\n'),
    (".copilot/mcp-config.json", b'{"mcpServers": {}}\n'),
    (".config/opencode/opencode.jsonc", b'{\n  // with comments\n  "mcp": {/* none yet */},\n}\n'),
    (".config/Code/User/mcp.json", b'{\n\t"inputs": [],\n\t"servers": {}\n}'),
    (".config/Claude/claude_desktop_config.json", b'{"globalShortcut": ""}'),
    (".claude/settings.json", b'{\n  "model": "opus", // mine\n  "statusLine": {"command": "x", "type": "command", "padding": 2}\n}\n'),
    (".claude/settings.json", b"{\r\n}"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), FILES)
def test_one_entry_is_added_and_taken_back(
    name: str, content: bytes, run: Run, home: pathlib.Path, environment: dict[str, str]
) -> None:
    path = put(home / name, content)
    if name == ".gemini/settings.json":
        (home / ".gemini/tmp").mkdir()
    path.chmod(0o640)
    form = "toml" if name.endswith("toml") else "json"
    before, old = tree(home), setup_texts.parse(form, content.decode())
    rows = init(run, "--yes")
    assert states(rows) == {path.name: "written"}
    made = path.read_bytes()
    new = setup_texts.parse(form, made.decode())
    for key in ("mcpServers", "mcp", "servers", "mcp_servers"):
        if key in new:
            entry = new[key].pop("tokenops")
            assert entry["command"] in (MCP, [MCP])
            if key not in old:
                assert not new.pop(key)
    if "statusLine" in new:
        line = new.pop("statusLine")
        assert line.pop("command") == (
            f"{ROOT}/bin/tok-statusline --wrap x" if "statusLine" in old else f"{ROOT}/bin/tok-statusline"
        )
        rest = old.pop("statusLine", {"type": "command"})
        assert line == {key: value for key, value in rest.items() if key != "command"}
    assert new == old
    assert path.stat().st_mode & 0o777 == 0o640
    assert made.startswith(b"\xef\xbb\xbf") == content.startswith(b"\xef\xbb\xbf")
    assert b"\n" not in made.replace(b"\r\n", b"") or b"\r\n" not in content
    for piece in (b"// mine", b"// last, really", b"# mine", b"// with comments", b"/* none yet */"):
        assert (piece in made) == (piece in content)
    [backup] = [row["backup"] for row in rows if row["about"] == "change"]
    assert backup == f"{path}.tokenops-backup-1" and pathlib.Path(backup).read_bytes() == content
    written = tree(home, pathlib.Path(environment["TOKENOPS_HOME"]))
    assert states(init(run, "--yes")) == {}
    assert tree(home, pathlib.Path(environment["TOKENOPS_HOME"])) == written
    [row] = init(run, "--undo")
    assert row["done"] and tree(home) == before
    assert init(run, "--undo") == []


def test_everything_at_once(run: Run, home: pathlib.Path) -> None:
    put(home / ".claude.json", PRO)
    put(home / ".config/tokenops/config.yaml", b"# mine\r\nthresholds:\r\n  headroom: {}\r\n")
    for name in (".claude", ".cursor", ".codex", ".copilot", ".config/opencode", ".config/Claude", ".config/Code/User"):
        (home / name).mkdir(parents=True)
    before = tree(home)
    assert set(states(init(run, "--yes")).values()) == {"written"}
    made = (home / ".config/tokenops/config.yaml").read_bytes()
    assert made.startswith(b"# mine\r\nthresholds:\r\n  headroom: {}\r\n") and made.count(b"\n") == made.count(b"\r\n")
    assert yaml.safe_load(made)["plans"] == {"anthropic": [{"plan": "claude-pro", "set": "2026-11-22"}]}
    assert objects(run("tok-plan --json").stdout)[0]["plan"] == "claude-pro"
    assert tomllib.loads((home / ".codex/config.toml").read_text()) == {"mcp_servers": {"tokenops": {"command": MCP}}}
    assert (home / ".cursor/mcp.json").stat().st_mode & 0o777 == 0o600
    written = tree(home)
    rows = init(run, "--yes")
    assert states(rows) == {} and tree(home) == written
    # What only Claude Code itself may write is left to do, and so is cron.
    assert [row["format"] for row in rows if row["about"] in ("mcp", "cron")] == ["shell", "crontab"]
    assert all(row["done"] for row in init(run, "--undo"))
    assert tree(home) == before


def test_folders_that_were_made_go_again(run: Run, home: pathlib.Path) -> None:
    rows = init(run, "--yes --host claude-desktop --host codex")
    assert states(rows) == {"claude_desktop_config.json": "written", "config.toml": "written"}
    (home / ".codex/mine").mkdir()
    init(run, "--undo")
    assert sorted(path.name for path in home.rglob("*")) == [".codex", "mine"]


# What cannot be changed is left alone.


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            ".cursor/mcp.json",
            b'{"mcpServers": {}\n "x": 1}',
            "it is not valid JSON (line 2, column 2: expected a comma or })",
        ),
        (".cursor/mcp.json", b'{"mcpServers": null}', "it holds no object at mcpServers"),
        (".cursor/mcp.json", b"[]", "it holds no object;"),
        (".cursor/mcp.json", '{"a": "b"}'.encode("utf-16"), "it is not UTF-8 text (byte 0)"),
        (".cursor/mcp.json", b'{"mcpServers": {}, "mcpServers": {}}', "it has mcpServers twice"),
        (".codex/config.toml", b"a = ", "it is not valid TOML (Invalid value (at end of document))"),
        (
            ".codex/config.toml",
            b'mcp_servers = {a = {command = "x"}}',
            "it has mcp_servers in a form that a table cannot be added to",
        ),
    ],
)
def test_what_cannot_be_changed_is_left_alone(name: str, content: bytes, says: str, run: Run, home: pathlib.Path) -> None:
    path = put(home / name, content)
    before = tree(home)
    rows = init(run, "--yes", status=1)
    notes = [row["note"] for row in rows if row.get("state") == "refused"]
    assert any(note.startswith(says) for note in notes), notes
    assert tree(home) == before and path.read_bytes() == content
    [shown] = [row for row in objects(run("tok-init --detect --json", env=ENV).stdout) if row["about"] == "mcp"]
    assert "tok-mcp" in shown["text"]


def test_a_read_only_file(run: Run, home: pathlib.Path) -> None:
    path = put(home / ".cursor/mcp.json", b"{}")
    path.chmod(0o444)
    [row] = [row for row in init(run, "--yes", status=1) if row["about"] == "change"]
    assert (row["state"], row["note"]) == ("refused", "it is read-only; tok-init --detect shows what to paste")
    assert path.read_bytes() == b"{}"


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_what_is_no_ordinary_file(kind: str, run: Run, home: pathlib.Path) -> None:
    path = home / ".cursor/mcp.json"
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("mcp.json")
    rows = init(run, "--yes", status=1)
    assert [row["state"] for row in rows if row["about"] == "mcp"] == ["refused"] and states(rows) == {}


def test_links_are_written_through(run: Run, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    real = put(tmp_path / "dotfiles/mcp.json", b'{"x": 1}\n')
    (home / ".cursor").mkdir()
    (home / ".cursor/mcp.json").symlink_to(real)
    (home / ".copilot").mkdir()
    (home / ".copilot/mcp-config.json").symlink_to(tmp_path / "dotfiles/copilot.json")  # which is not there yet
    (home / ".codex").symlink_to(tmp_path / "codex")
    (tmp_path / "codex").mkdir()
    before = tree(home, tmp_path / "dotfiles", tmp_path / "codex")
    assert states(init(run, "--yes")) == {"mcp.json": "written", "mcp-config.json": "written", "config.toml": "written"}
    assert (home / ".cursor/mcp.json").is_symlink() and (home / ".copilot/mcp-config.json").is_symlink()
    assert json.loads(real.read_text())["mcpServers"]["tokenops"] == {"command": MCP}
    assert (tmp_path / "dotfiles/mcp.json.tokenops-backup-1").exists()
    init(run, "--undo")
    assert tree(home, tmp_path / "dotfiles", tmp_path / "codex") == before


def test_a_folder_that_may_not_be_written_to(run: Run, home: pathlib.Path, environment: dict[str, str]) -> None:
    path = put(home / ".cursor/mcp.json", b"{}")
    path.parent.chmod(0o555)
    caps = "-dac_override,-dac_read_search"
    prefix = f"setpriv --bounding-set {caps} --inh-caps {caps} " if os.geteuid() == 0 else ""
    done = run(f"{prefix}tok-init --yes --json", env=ENV, status=1)
    path.parent.chmod(0o755)
    [row] = [row for row in objects(done.stdout) if row["about"] == "change"]
    assert row["state"] == "refused" and "Permission denied" in row["note"]
    assert path.read_bytes() == b"{}" and [one.name for one in path.parent.iterdir()] == ["mcp.json"]


# Somebody changed a file after us.


@pytest.mark.parametrize(
    ("name", "content", "change", "left"),
    [
        (".cursor/mcp.json", b"{}", lambda text: text.replace('"mcpServers": {', '"mine": 1,\n  "mcpServers": {'), {"mine": 1}),
        (".cursor/mcp.json", b'{"mcpServers": {}}', lambda text: json.dumps(json.loads(text) | {"mine": 1}, indent=3), {"mcpServers": {}, "mine": 1}),
        (".cursor/mcp.json", b"", lambda text: text.replace('"tokenops"', '"b": {}, // x\n "tokenops"'), {"mcpServers": {"b": {}}}),
        (".codex/config.toml", b"a = 1\n", lambda text: f"mine = 2\n{text}\n[z]\nb = 3\n", {"mine": 2, "a": 1, "z": {"b": 3}}),
        (".claude/settings.json", b'{"statusLine": {"type": "command", "command": "x"}}', lambda text: text.replace("{", '{"mine": 1, ', 1),
         {"mine": 1, "statusLine": {"type": "command", "command": "x"}}),
        (".claude/settings.json", b'{"mine": 1}', lambda text: text.replace('"mine": 1', '"mine": 2'), {"mine": 2}),
    ],
)  # fmt: skip
def test_only_our_entry_goes_where_somebody_changed_the_file(
    name: str, content: bytes, change: object, left: Json, run: Run, home: pathlib.Path
) -> None:
    path = put(home / name, content)
    init(run, "--yes")
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    [row] = init(run, "--undo")
    assert row["done"] and "only our entry was removed" in row["note"]
    assert setup_texts.parse("toml" if name.endswith("toml") else "json", path.read_text()) == left
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_two_changes_of_one_file(run: Run, home: pathlib.Path) -> None:
    put(home / ".claude.json", PRO)
    limits = {"plan_type": "plus", "primary": {"used_percent": 3.0}}
    said = {
        "timestamp": "2026-11-20T10:00:00Z",
        "type": "event_msg",
        "payload": {"type": "token_count", "rate_limits": limits},
    }
    put(home / ".codex/sessions/2026/11/20/rollout-2026-11-20T10-00-00-a.jsonl", said)
    path = put(home / ".config/tokenops/config.yaml", b"# mine\n")
    rows = [row for row in init(run, "--yes --host cursor") if row["about"] == "change" and row["file"] == str(path)]
    assert [row["backup"].rpartition("-")[2] for row in rows] == ["1", "2"]
    assert yaml.safe_load(path.read_text())["plans"].keys() == {"anthropic", "openai"}
    notes = [row["note"] for row in init(run, "--undo") if row["file"] == str(path)]
    assert notes == ["restored, byte for byte"] * 2 and path.read_bytes() == b"# mine\n"


def test_a_table_in_other_words_is_left_to_the_user(run: Run, home: pathlib.Path) -> None:
    path = put(home / ".codex/config.toml", b"a = 1\n")
    init(run, "--yes")
    changed = path.read_text().replace('"', "'")
    path.write_text(changed)
    [row] = init(run, "--undo", status=1)
    assert row["note"].startswith(
        "has [mcp_servers.tokenops] but not as it was written; remove mcp_servers.tokenops by hand"
    )
    assert path.read_text() == changed


def test_plans_of_the_configuration_are_taken_back_one_by_one(run: Run, home: pathlib.Path) -> None:
    put(home / ".claude.json", PRO)
    path = put(home / ".config/tokenops/config.yaml", b"# mine\nplans:\n  openai: gpt-plus # mine too\n")
    init(run, "--yes --host codex")
    run("tok-plan set github copilot-pro")
    assert yaml.safe_load(path.read_text())["plans"].keys() == {"openai", "anthropic", "github"}
    init(run, "--undo")
    assert path.read_text().startswith("# mine\nplans:\n  openai: gpt-plus # mine too\n")
    assert yaml.safe_load(path.read_text())["plans"].keys() == {"openai", "github"}


def test_what_was_changed_in_our_own_entry_is_left_to_the_user(run: Run, home: pathlib.Path) -> None:
    path = put(home / ".cursor/mcp.json", b"{}\n")
    init(run, "--yes")
    changed = path.read_text().replace(MCP, "/else/tok-mcp")
    path.write_text(changed)
    done = run("tok-init --undo --table", env=ENV, status=1)
    assert done.stderr.decode() == (
        f"tok-init: {path} has changed since, in our entry; remove mcpServers.tokenops by hand; "
        f"the original file is {path}.tokenops-backup-1\n"
    )
    assert path.read_text() == changed
    path.write_text('{"mine": 1}')
    assert init(run, "--undo")[0]["note"] == "no longer has the entry"
    assert [one.name for one in path.parent.iterdir()] == ["mcp.json"] and path.read_text() == '{"mine": 1}'


def test_files_and_copies_that_are_gone(run: Run, home: pathlib.Path) -> None:
    cursor, code = put(home / ".cursor/mcp.json", b"{}"), put(home / ".config/Code/User/mcp.json", b'{"servers": {}}')
    (home / ".copilot").mkdir()
    init(run, "--yes")
    cursor.unlink()
    pathlib.Path(f"{code}.tokenops-backup-1").unlink()
    (home / ".copilot/mcp-config.json").unlink()
    rows = {row["file"].rpartition("/")[2]: row for row in init(run, "--undo", status=1) if row["file"] != str(code)}
    assert not rows["mcp.json"]["done"] and rows["mcp.json"]["note"].startswith("is gone; ")
    assert rows["mcp-config.json"]["note"] == "is already gone"
    assert json.loads(code.read_text()) == {"servers": {}}  # its copy was gone, so only our entry was cut out
    assert pathlib.Path(f"{cursor}.tokenops-backup-1").read_bytes() == b"{}"


def test_a_run_that_was_cut_short(run: Run, home: pathlib.Path) -> None:
    """The copy and the note are there, the file is not written yet."""
    path = put(home / ".cursor/mcp.json", b"{}")
    init(run, "--yes")
    path.write_bytes(b"{}")
    assert init(run, "--undo")[0]["note"] == "is already as it was"
    assert [one.name for one in path.parent.iterdir()] == ["mcp.json"]


def test_a_damaged_note_of_what_was_done(run: Run, home: pathlib.Path, environment: dict[str, str]) -> None:
    path = put(home / ".cursor/mcp.json", b"{}")
    for damage in (b"{torn", b"[]", b'{"changes": [{"path": "x"}]}'):
        put(pathlib.Path(environment["TOKENOPS_HOME"]) / "init.json", damage)
        done = run("tok-init --undo", env=ENV, status=2)
        assert b"init.json is damaged; undo the changes it lists by hand, then delete it" in done.stderr
        assert states(init(run, "--yes", status=1)) == {"mcp.json": "refused"} and path.read_bytes() == b"{}"


def test_somebody_writes_at_the_same_moment(tmp_path: pathlib.Path) -> None:
    path = put(tmp_path / "mcp.json", b"{}")
    change = setup_changes.Change("mcp", "cursor", "", str(path), "json", ("mcpServers", "tokenops"), {"command": "x"})
    made = setup_changes.proposal(change)
    path.write_bytes(b'{"theirs": 1}')
    with pytest.raises(setup_texts.Unchangeable, match="another program"):
        setup_changes.write(str(tmp_path / "log"), made)
    assert path.read_bytes() == b'{"theirs": 1}' and sorted(one.name for one in tmp_path.iterdir()) == ["log", "mcp.json"]


@pytest.fixture
def overtakes(monkeypatch: pytest.MonkeyPatch) -> Callable[[pathlib.Path, bytes], None]:
    """Another program that writes once, when our new file is on the disk but has not replaced the old one."""
    fsync = os.fsync

    def set_up(path: pathlib.Path, content: bytes) -> None:
        def synced(fd: int) -> None:
            fsync(fd)
            if pathlib.Path(f"{path}.{os.getpid()}").exists() and path.read_bytes() != content:
                path.write_bytes(content)

        monkeypatch.setattr(os, "fsync", synced)

    return set_up


CURSOR = ("mcpServers", "tokenops")


def test_a_change_that_is_overtaken_is_refused(
    tmp_path: pathlib.Path, overtakes: Callable[[pathlib.Path, bytes], None]
) -> None:
    path, log = put(tmp_path / "mcp.json", b'{"a": 1}'), str(tmp_path / "log")
    change = setup_changes.Change("mcp", "cursor", "", str(path), "json", CURSOR, {"command": "x"})
    proposal = setup_changes.proposal(change)
    overtakes(path, b'{"theirs": 1}')
    with pytest.raises(setup_texts.Unchangeable, match="was just changed by another program"):
        setup_changes.write(log, proposal)
    assert path.read_bytes() == b'{"theirs": 1}' and setup_changes.manifest(log) == []
    assert sorted(one.name for one in tmp_path.iterdir()) == ["log", "mcp.json"]


def test_a_taking_back_that_is_overtaken_is_made_again(
    tmp_path: pathlib.Path, overtakes: Callable[[pathlib.Path, bytes], None]
) -> None:
    path, log = put(tmp_path / "mcp.json", b'{"a": 1}'), str(tmp_path / "log")
    change = setup_changes.Change("mcp", "cursor", "", str(path), "json", CURSOR, {"command": "x"})
    setup_changes.write(log, setup_changes.proposal(change))
    overtakes(path, json.dumps(json.loads(path.read_text()) | {"theirs": 1}).encode())
    assert [outcome.done for outcome in setup_changes.undo(log)] == [True]
    assert json.loads(path.read_text()) == {"a": 1, "theirs": 1} and setup_changes.manifest(log) == []


def test_the_owner_and_the_mode_stay(run: Run, home: pathlib.Path) -> None:
    path = put(home / ".cursor/mcp.json", b"{}")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    for options in ("--yes", "--undo"):
        init(run, options)
        after = path.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_older_copies_are_not_written_over(run: Run, home: pathlib.Path) -> None:
    path = put(home / ".cursor/mcp.json", b"{}")
    old = put(home / ".cursor/mcp.json.tokenops-backup-1", b"old")
    rows = init(run, "--yes")
    assert [row["backup"] for row in rows if row["about"] == "change"] == [f"{path}.tokenops-backup-2"]
    init(run, "--undo")
    assert old.read_bytes() == b"old" and path.read_bytes() == b"{}"


# At a terminal.


def talked(environment: dict[str, str], *answers: str, line: str = "tok-init --schedule launchd") -> tuple[str, int]:
    """What tok-init says on a terminal where somebody answers so; after the answers, the end of input."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", line], env=environment | ENV | {"TERM": "dumb"}, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    seen, left = b"", list(answers)
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        seen += piece
        if re.search(rb"Enter for [\w ]+: \Z", seen):
            os.write(leader, b"\n")  # what the question proposes
        if seen.endswith(b"[y/a/N] "):
            answer = left.pop(0).encode() if left else b"\x04"
            if answer == b"\x03":
                process.send_signal(signal.SIGINT)
                seen += b"^C"
            else:
                os.write(leader, answer)
    os.close(leader)
    return seen.decode().replace("\r\n", "\n"), process.wait(MOST)


@pytest.fixture
def three(home: pathlib.Path) -> dict[str, pathlib.Path]:
    """A home with three things to change."""
    put(home / ".claude.json", PRO)
    put(home / ".cursor/mcp.json", b'{"mcpServers": {"x": {"env": {"K": "SENTINEL"}}}}\n')
    put(home / ".codex/config.toml", b'key = "SENTINEL"\n')
    return {"config.yaml": home / ".config/tokenops/config.yaml", "config.toml": home / ".codex/config.toml",
            "mcp.json": home / ".cursor/mcp.json"}  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "written"),
    [
        ((), []),
        (("\n", "n\n", "yo\n"), []),
        (("y\n", "n\n", "Yes\n"), ["config.yaml", "mcp.json"]),
        (("n\n", "y\n"), ["config.toml"]),
    ],
)
def test_each_change_is_shown_and_asked_for(
    answers: tuple[str, ...], written: list[str], three: dict[str, pathlib.Path], environment: dict[str, str]
) -> None:
    seen, status = talked(environment, *answers)
    assert status == 0 and seen.count("Write this ") == 4 and "SENTINEL" not in seen  # the fourth: the schedule
    assert '+  anthropic: [{"plan": "claude-pro", "set": "2026-11-22"}]' in seen and "+[mcp_servers.tokenops]" in seen
    assert "--- ~/.cursor/mcp.json\n+++ ~/.cursor/mcp.json\n" in seen
    assert [
        name
        for name, path in three.items()
        if path.exists() and path.read_text().count("tok-mcp") + path.read_text().count("claude-pro")
    ] == written
    assert seen.count("\nwritten: ") == len(written) and "\nNext:\n" in seen


def test_an_interrupt_keeps_what_was_agreed_to(
    three: dict[str, pathlib.Path], environment: dict[str, str], run: Run
) -> None:
    _, status = talked(environment, "y\n", "\x03")
    assert status == 130 or status < 0
    assert three["config.yaml"].exists() and "tok-mcp" not in three["config.toml"].read_text()
    assert [row["done"] for row in init(run, "--undo")] == [True] and not three["config.yaml"].exists()


def test_detect_never_asks(three: dict[str, pathlib.Path], environment: dict[str, str]) -> None:
    seen, status = talked(environment, line="tok-init --detect")
    assert status == 0 and "Write this" not in seen and "tok-init (without --detect) can make these changes" in seen
    assert not three["config.yaml"].exists()


def test_a_wrapped_status_line_still_says_what_it_said(run: Run, home: pathlib.Path) -> None:
    path = put(
        home / ".claude/settings.json", {"statusLine": {"type": "command", "command": 'echo "it\'s" $((6*7)); wc -c'}}
    )
    init(run, "--yes")
    command = json.loads(path.read_text())["statusLine"]["command"]
    said = json.dumps(
        {"session_id": "s", "rate_limits": {"five_hour": {"used_percentage": 40, "resets_at": 1_795_262_400}}}
    ).encode()
    done = run(command, said, env=ENV)
    assert done.stdout.split() == [b"it's", b"42", str(len(said)).encode()]
    assert [meter["used"] for meter in objects(run("tok-cat --kind meter").stdout)] == [0.4]


def test_the_note_of_what_was_done_holds_no_content(
    three: dict[str, pathlib.Path], run: Run, environment: dict[str, str]
) -> None:
    init(run, "--yes")
    text = (pathlib.Path(environment["TOKENOPS_HOME"]) / "init.json").read_text()
    digest = hashlib.sha256(b'key = "SENTINEL"\n').hexdigest()
    assert "SENTINEL" not in text and digest in text
    assert (pathlib.Path(environment["TOKENOPS_HOME"]) / "init.json").stat().st_mode & 0o777 == 0o600
    assert run("tok-log verify", status=None).stdout == b""
