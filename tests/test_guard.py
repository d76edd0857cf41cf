"""Claude Code's hooks: what is denied was given before and is unchanged, and nothing that goes wrong stops an agent."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import MOST, Json, Run, claude, examples, lines, objects, put
from tokenops import config, datadir, guard, guard_install

NOW = 1_795_253_400_000
SALT = b"salt"


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return put(tmp_path / "a.py", b"x = 1\n" * 500)


def said(event: str = "PreToolUse", path: object = "a.py", session: str = "s1", **given: Any) -> Json:
    """What Claude Code tells a hook of a Read."""
    about = {key: given.pop(key) for key in ("agent_id", "source", "stop_hook_active", "transcript_path") if key in given}
    made: Json = {"session_id": session, "hook_event_name": event, "cwd": "/", **about}
    if event in ("PreToolUse", "PostToolUse"):
        made |= {"tool_name": "Read", "tool_input": {"file_path": str(path), **given}}
        if event == "PostToolUse":
            made["tool_response"] = {"type": "text", "file": {"content": "x" * 4000}}
    return made


class Talk:
    """A session's hooks one after another."""

    def __init__(self, mode: str = guard.ACTIVE) -> None:
        self.mode, self.state, self.records = mode, guard.fresh(NOW), []

    def tell(self, one: Json) -> bool:
        """Whether it was denied."""
        told = guard.response(one, json.loads(json.dumps(self.state)), self.mode, SALT, NOW)
        self.state = told.state
        self.records += told.records
        return told.answer.get("hookSpecificOutput", {}).get("permissionDecision") == "deny"

    def read(self, path: object, **given: Any) -> bool:
        """Ask for a Read, and get it unless it is denied."""
        if denied := self.tell(said(path=path, **given)):
            return denied
        self.tell(said("PostToolUse", path, **given))
        return False


def test_a_read_again_is_denied_once(file: pathlib.Path) -> None:
    talk = Talk()
    assert [talk.read(file) for _ in range(4)] == [False, True, False, True]
    counts = talk.state["counts"]
    assert (counts["reads"], counts["redundant"], counts["insisted"]) == (4, 2, 1)


CASES: list[tuple[str, list[Json], Json, bool]] = [
    ("the same lines", [{"offset": 10, "limit": 50}], {"offset": 10, "limit": 50}, True),
    ("some of them", [{"offset": 10, "limit": 50}], {"offset": 20, "limit": 10}, True),
    ("others", [{"offset": 10, "limit": 50}], {"offset": 100, "limit": 50}, False),
    ("more than them", [{"offset": 10, "limit": 50}], {"offset": 10, "limit": 51}, False),
    ("all after some", [{"offset": 1, "limit": 50}], {}, False),
    ("some after all", [{}], {"offset": 300, "limit": 50}, True),
    ("two parts that touch", [{"offset": 1, "limit": 50}, {"offset": 51, "limit": 50}], {"offset": 40, "limit": 20}, True),
    ("two parts with a gap", [{"offset": 1, "limit": 50}, {"offset": 52, "limit": 50}], {"offset": 40, "limit": 20}, False),
    ("beyond what one read gives", [{}], {"offset": 1990, "limit": 20}, False),
    ("a limit of null is none", [{"offset": None, "limit": None}], {}, True),
    ("pages of a document", [{"pages": "1-3"}], {"pages": "1-3"}, False),
    ("lines that are none", [{"offset": "x", "limit": -4}], {}, True),
]


@pytest.mark.parametrize(("what", "before", "asked", "denied"), CASES, ids=[case[0] for case in CASES])
def test_ranges(what: str, before: list[Json], asked: Json, denied: bool, file: pathlib.Path) -> None:
    talk = Talk()
    for one in before:
        assert not talk.read(file, **one)
    assert talk.read(file, **asked) == denied


AGAIN: list[tuple[str, list[Json], list[bool]]] = [
    # What an agent that has read the whole file requests, and what of it is denied. A read that is allowed succeeds.
    ("the same", [{}, {}, {}], [True, False, True]),
    ("all, then some of it", [{}, {"offset": 1, "limit": 50}], [True, False]),
    ("some, then all", [{"offset": 10, "limit": 50}, {}], [True, False]),
    ("a part that overlaps", [{"offset": 10, "limit": 50}, {"offset": 59, "limit": 90}], [True, False]),
    ("parts that do not overlap, then the first again", [{"offset": 1, "limit": 50}, {"offset": 51, "limit": 50}, {"offset": 1, "limit": 50}], [True, True, False]),
    ("what was insisted on is not known any more", [{}, {"offset": 1, "limit": 50}, {"offset": 51, "limit": 50}], [True, False, False]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "requests", "denied"), AGAIN, ids=[case[0] for case in AGAIN])
def test_what_is_asked_for_again_is_allowed(what: str, requests: list[Json], denied: list[bool], file: pathlib.Path) -> None:
    talk = Talk()
    talk.read(file)
    assert [talk.read(file, **request) for request in requests] == denied


def test_an_agent_that_cannot_see_the_file_gets_it(file: pathlib.Path) -> None:
    """It asks in turn for all and for a part, and its reads are never confirmed: it is denied once, and nothing was saved."""
    talk = Talk()
    talk.read(file)
    requests = [{}, {"offset": 1, "limit": 100}] * 4
    assert [talk.tell(said(path=file, **request)) for request in requests] == [True] + [False] * 7
    talk.tell(said("Stop"))
    assert talk.records == []


def test_a_part_saves_its_share_of_the_read(file: pathlib.Path) -> None:
    """A read of 500 lines gave some 4,000 characters; 50 of them, denied, save a tenth of that."""
    talk = Talk()
    talk.tell(said("PostToolUse", file) | {"tool_response": {"file": {"content": "x" * 4000, "numLines": 500}}})
    assert talk.read(file, offset=1, limit=50)
    talk.tell(said("Stop"))
    assert [record["saved_tokens"] for record in talk.records] == [
        len(json.dumps({"file": {"content": "x" * 4000, "numLines": 500}}, separators=(",", ":"))) * 50 // 500 // 4
    ]


def test_a_state_of_an_earlier_version_is_begun_anew() -> None:
    state = guard.fresh(NOW) | {"reads": {"k": {"stat": [1, 2, 3], "ranges": [[1, 9]], "denied": [1, 2000]}}}
    assert not guard.usable(state)
    assert guard.usable(guard.fresh(NOW) | {"reads": {"k": {"stat": [1, 2, 3], "ranges": [[1, 9]], "denied": [[1, 2000]]}}})


def test_what_makes_a_read_needed_again(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    talk = Talk()
    talk.read(file)
    file.write_bytes(b"y = 2\n" * 500)
    assert not talk.read(file), "it changed"
    talk.tell(said("PreCompact"))
    assert not talk.read(file), "the context was compacted"
    assert talk.tell(said("SessionStart", source="startup")) is False and talk.read(file)
    talk.tell(said("SessionStart", source="resume"))
    assert not talk.read(file)
    assert not talk.read(file, agent_id="sub"), "another agent has another context"
    file.unlink()
    assert not talk.read(file), "it is gone: let the tool say so"


def test_a_read_that_failed_was_no_read(file: pathlib.Path) -> None:
    talk = Talk()
    talk.tell(said(path=file))  # no PostToolUse follows
    assert not talk.tell(said(path=file))


def test_observing_denies_nothing_and_counts(file: pathlib.Path) -> None:
    talk = Talk(guard.OBSERVE)
    assert [talk.read(file) for _ in range(3)] == [False] * 3
    talk.tell(said("Stop"))
    assert talk.state["counts"]["redundant"] == 2 and not talk.records


def test_a_saving_is_what_was_not_asked_for_again(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    talk, other = Talk(), put(tmp_path / "b.py", b"y\n" * 90)
    for path in (file, other):
        talk.read(path)
        assert talk.read(path)
    talk.read(other)  # insists
    talk.tell(said("Stop"))
    (made,) = talk.records
    assert (made["kind"], made["by"], made["session_id"]) == ("saving", "read_guard", "s1")
    assert 900 < made["saved_tokens"] < 1200
    talk.tell(said("Stop"))
    assert len(talk.records) == 1


def test_no_path_is_kept(file: pathlib.Path) -> None:
    talk = Talk()
    talk.read(file)
    assert "a.py" not in json.dumps(talk.state) and str(file.parent) not in json.dumps(talk.state)


RANGES = st.lists(st.lists(st.integers(1, 40), min_size=2, max_size=2).map(sorted), max_size=8)


@given(RANGES, st.lists(st.integers(1, 40), min_size=2, max_size=2).map(sorted))
def test_a_range_is_covered_if_each_of_its_lines_was_given(known: list[list[int]], asked: list[int]) -> None:
    given_lines = {line for start, end in known for line in range(start, end + 1)}
    assert guard.is_covered(asked, [list(one) for one in known]) == (set(range(asked[0], asked[1] + 1)) <= given_lines)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["session_id", "hook_event_name", "tool_name", "tool_input", "file_path", "offset", "limit", "reads", "ranges", "stat", "counts", "spared", "said", "at"]), inner, max_size=6), max_leaves=20)  # fmt: skip


@examples(300)
@given(JSON, JSON)
def test_any_event_and_any_state(one: Any, state: Any) -> None:
    """A state that is none is begun anew; an event that says nothing is answered with nothing."""
    held = state if guard.usable(state) else guard.fresh(NOW)
    told = guard.response(one if isinstance(one, dict) else {}, held, guard.ACTIVE, SALT, NOW)
    assert guard.usable(told.state)


RULES = config.thresholds(config.Config({}, "", []))["guard"]
NUDGES = [(10, 0.0, 0.0), (25, 0.0, 0.5), (26, 0.5, 0.5), (40, 0.5, 0.75), (50, 0.75, 1.0), (74, 1.0, 1.0), (99, 1.0, 1.0), (100, 1.0, 2.0), (260, 2.0, 5.0), (10, 5.0, 5.0)]  # fmt: skip


@pytest.mark.parametrize(("spent", "before", "after"), NUDGES)
def test_each_step_of_a_budget_is_said_once(spent: float, before: float, after: float) -> None:
    text, reached = guard.notice(spent, RULES, before)
    assert reached == after and bool(text) == (after > before)
    if text:
        assert f"${spent:.2f}" in text and "list price" in text
    assert guard.notice(spent, RULES | {"session_usd": 0.0}, 0.0) == ("", 0.0)


def ask(environment: dict[str, str], one: object) -> subprocess.CompletedProcess[bytes]:
    given = one if isinstance(one, bytes) else json.dumps(one).encode()
    return subprocess.run(["tok-guard", "hook"], input=given, env=environment, capture_output=True, check=True, timeout=MOST)


def test_the_real_hook(file: pathlib.Path, environment: dict[str, str], run: Run) -> None:
    run("tok-guard install --mode active")
    for event in ("PreToolUse", "PostToolUse"):
        assert ask(environment, said(event, file)).stdout == b""
    answer = json.loads(ask(environment, said(path=file)).stdout)["hookSpecificOutput"]
    assert answer["permissionDecision"] == "deny" and "Lines 1 to 2000" in answer["permissionDecisionReason"]
    assert ask(environment, said("Stop")).stdout == b""
    (saving,) = objects(run("tok-cat --kind saving").stdout)
    assert saving["saved_tokens"] > 900
    (stats,) = objects(run("tok-guard stats --json").stdout)
    assert re.search(r"installed +yes\n", run("tok-guard status --table").stdout.decode())
    assert (stats["sessions"], stats["reads"], stats["redundant"], stats["spared"]) == (1, 2, 1, 1)
    state = pathlib.Path(environment["TOKENOPS_HOME"], "guard")
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in state.iterdir())
    assert str(file).encode() not in b"".join(path.read_bytes() for path in state.iterdir())


@pytest.mark.parametrize(
    "what",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"session_id":7}', b'{"session_id":"s","hook_event_name":["x"]}'],
)
def test_whatever_it_is_told_it_ends_well(what: bytes, environment: dict[str, str]) -> None:
    done = ask(environment, what)
    assert done.stdout == b"" and done.stderr.count(b"\n") <= 1 and b"Traceback" not in done.stderr


@pytest.mark.parametrize("what", [b"", b"{", b"[1]", b'{"at":1,"reads":[],"counts":{},"spared":[],"said":0}', b"\x00\xff" * 50, b'{"at":1,"reads":{"x":{"ranges":"a"}},"counts":{},"spared":[],"said":0}'])  # fmt: skip
def test_a_broken_state_is_begun_anew(what: bytes, file: pathlib.Path, environment: dict[str, str]) -> None:
    ask(environment, said("PostToolUse", file))
    (path,) = pathlib.Path(environment["TOKENOPS_HOME"], "guard").glob("*.json")
    path.write_bytes(what)
    done = ask(environment, said(path=file))
    assert done.stdout == b"" and guard.usable(datadir.kept_json(str(path)))


def test_a_log_that_cannot_be_written_stops_nobody(file: pathlib.Path, environment: dict[str, str]) -> None:
    pathlib.Path(environment["TOKENOPS_HOME"]).write_text("in the way")
    done = ask(environment, said(path=file))
    assert done.stdout == b"" and b"the agent continues" in done.stderr


def test_many_at_once(file: pathlib.Path, environment: dict[str, str]) -> None:
    count = int(os.environ.get("TOKENOPS_CALLS", "64"))
    ones = [said("PostToolUse", file, offset=10 * n + 1, limit=10, session=f"s{n % 4}") for n in range(count)]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        done = list(pool.map(lambda one: ask(environment, one), ones))
    assert all(one.returncode == 0 and not one.stderr for one in done)
    kept = [datadir.kept_json(str(path)) for path in pathlib.Path(environment["TOKENOPS_HOME"], "guard").glob("*.json")]
    assert len(kept) == 4 and sum(len(one["ranges"]) for state in kept for one in state["reads"].values()) == count


@pytest.mark.parametrize("folder", ["subagents", "subagents/workflows/wf_1"])
def test_a_session_past_its_budget(folder: str, environment: dict[str, str], run: Run, tmp_path: pathlib.Path) -> None:
    """The whole session counts: its subagents, those of workflows too, and what was written since it began."""
    home = pathlib.Path(environment["HOME"])
    put(home / ".config/tokenops/config.yaml", b"thresholds:\n  guard:\n    session_usd: 1\n")
    about = {"sessionId": "s1", "ts": "2026-11-20T09:00:00.000Z", "m_model": "claude-opus-4-8"}
    first = put(home / ".claude/projects/p/s1.jsonl", lines([claude("msg_1", 10_000, **about)]))  # $0.25
    end = said("Stop", transcript_path=str(first))
    env = environment | {"TOKENOPS_NOW": "2026-11-21T09:00:00Z"}
    assert ask(env, end).stdout == b""
    put(
        home / ".claude/projects/p/s1" / folder / "agent-a.jsonl",
        lines([claude("msg_2", 12_000, isSidechain=True, **about)]),
    )
    told = json.loads(ask(env, end).stdout)
    assert "$0.5" in told["systemMessage"] and told["suppressOutput"] is True
    assert ask(env, end).stdout == b"", "said once"
    with first.open("ab") as file:
        file.write(lines([claude("msg_3", 20_000, **about)]))
    assert "$1.0" in json.loads(ask(env, end).stdout)["systemMessage"]
    assert ask(env, {**end, "stop_hook_active": True}).stdout == b""
    assert (
        Decimal(
            objects(run("tok-cost --log --by session --since 30d", env={"TOKENOPS_NOW": "2026-11-21T09:00:00Z"}).stdout)[0][
                "cost_usd"
            ]
        )
        > 1
    )


MINE = {"type": "command", "command": "tok-guard hook", "timeout": 10}
OTHER = {"type": "command", "command": "say done"}
SETTINGS: list[tuple[str, str]] = [
    ("none", ""),
    ("empty", "{}\n"),
    ("others' hooks", json.dumps({"model": "opus", "hooks": {"Stop": [{"hooks": [OTHER]}], "PreToolUse": [{"matcher": "Bash", "hooks": [OTHER]}]}}, indent=2)),
    ("comments", '{\n  // mine\n  "model": "opus", /* and this */\n  "hooks": {"Notification": []}\n}\n'),
    ("CRLF", '{\r\n  "model": "opus"\r\n}\r\n'),
    ("a byte order mark", '\ufeff{\r\n  "model": "opus", // mine\r\n}\r\n'),
    ("nothing but a byte order mark", "\ufeff"),
    ("an older one of ours", json.dumps({"hooks": {"PreToolUse": [{"matcher": "Read", "hooks": [{"type": "command", "command": "/old/bin/tok-guard hook"}, OTHER]}]}})),
]  # fmt: skip


@pytest.mark.parametrize(("what", "text"), SETTINGS, ids=[case[0] for case in SETTINGS])
def test_install_and_uninstall(what: str, text: str) -> None:
    once = guard_install.with_hooks(text, "tok-guard hook")
    assert guard_install.with_hooks(once, "tok-guard hook") == once, "a second time changes nothing"
    assert guard_install.status(once)["installed"] and guard_install.status(once)["commands"] == ["tok-guard hook"]
    gone = guard_install.without_hooks(once)
    assert "tok-guard" not in gone and guard_install.without_hooks(gone) == gone
    if "tok-guard" not in text:
        from tokenops import jsonc

        assert jsonc.document(gone).data == ({} if jsonc.is_empty(text) else jsonc.document(text).data)
    for kept in ("\ufeff", "// mine", "/* and this */", "say done"):
        assert (kept in gone) == (kept in text) == (kept in once)


@pytest.mark.parametrize("text", ["{", "[]", '{"hooks": []}', '{"hooks": {"Stop": {}}}', '{"hooks": 1, "hooks": 2}'])
def test_settings_that_are_not_understood_are_left_alone(text: str, run: Run, environment: dict[str, str]) -> None:
    path = put(pathlib.Path(environment["HOME"]) / ".claude/settings.json", text.encode())
    done = run("tok-guard install", status=2)
    assert str(path).encode() in done.stderr and path.read_text() == text


OFF = [
    (".claude/settings.json", {"disableAllHooks": True}, True),
    (".claude/settings.json", {"disableAllHooks": False, "allowManagedHooksOnly": True}, False),  # not the administrator's
    ("work/.claude/settings.json", {"disableAllHooks": True}, True),
    ("work/.claude/settings.local.json", {"disableAllHooks": True}, True),
]


@pytest.mark.parametrize(("name", "settings", "off"), OFF)
def test_hooks_that_are_switched_off_are_said(
    name: str, settings: Json, off: bool, run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    home = pathlib.Path(environment["HOME"])
    path = put(home / name, b"\xef\xbb\xbf// mine\n" + json.dumps(settings).encode())
    (home / "work").mkdir(exist_ok=True)
    done = run(f"cd {home}/work && tok-guard install --json")
    assert objects(done.stdout)[0].get("switched_off") == (f"disableAllHooks in {path}" if off else None)
    assert (f"because of disableAllHooks in {path}" in done.stderr.decode()) == off
    assert objects(run(f"cd {home}/work && tok-guard status --json", status=int(off)).stdout)[0]["installed"]


def test_an_administrator_may_allow_only_their_own_hooks(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    managed = put(tmp_path / "managed-settings.json", b'{"allowManagedHooksOnly": true}')
    monkeypatch.setattr(guard_install, "MANAGED", (str(managed),))
    assert guard_install.switched_off(str(tmp_path / "none.json"), str(tmp_path)) == f"allowManagedHooksOnly in {managed}"


def test_owner_mode_and_links_stay(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(environment["HOME"]) / ".claude/settings.json"
    target = put(tmp_path / "dotfiles/settings.json", b"{}")
    target.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(target, 1234, 4321)
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    before = target.stat()
    run("tok-guard install")
    after = target.stat()
    assert path.is_symlink() and guard_install.status(target.read_text())["installed"]
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert [one.name for one in target.parent.iterdir()] == ["settings.json"]


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_read_only_settings_are_left_alone(command: str, run: Run, environment: dict[str, str]) -> None:
    path = pathlib.Path(environment["HOME"]) / ".claude/settings.json"
    text = guard_install.with_hooks("{}", "tok-guard hook") if command == "uninstall" else "{}"
    put(path, text.encode()).chmod(0o444)
    done = run(f"tok-guard {command}", status=2)
    assert done.stderr.decode() == f"tok-guard: {path}: is read-only; it stays as it is\n" and path.read_text() == text


def test_a_change_by_another_program_stays_and_ours_is_made_again(tmp_path: pathlib.Path) -> None:
    path = put(tmp_path / "settings.json", b"{}")
    theirs = iter([b'{"theirs": 1}', b'{"theirs": 2}'])

    def changed(text: str) -> str:
        if (content := next(theirs, None)) is not None:
            path.write_bytes(content)
        return guard_install.with_hooks(text, "tok-guard hook")

    guard_install.edit(str(path), changed)
    assert json.loads(path.read_text())["theirs"] == 2 and guard_install.status(path.read_text())["installed"]


def test_a_program_that_never_stops_changing_wins(tmp_path: pathlib.Path) -> None:
    path = put(tmp_path / "settings.json", b"{}")
    count = 0

    def changed(text: str) -> str:
        nonlocal count
        count += 1
        path.write_bytes(b'{"theirs": %d}' % count)
        return text + " "

    with pytest.raises(guard_install.Refused, match="keeps changing it"):
        guard_install.edit(str(path), changed)
    assert path.read_bytes() == b'{"theirs": %d}' % count
    assert [one.name for one in tmp_path.iterdir()] == ["settings.json"]


def test_the_command_line(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(environment["HOME"]) / ".claude/settings.json"
    target = put(tmp_path / "dotfiles/settings.json", b'{"model": "opus"}')
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    assert run("tok-guard status", status=1).stdout
    (told,) = objects(run("tok-guard install --mode active --json").stdout)
    assert (told["installed"], told["mode"]) == (True, "active") and path.is_symlink()
    (told,) = objects(run("tok-guard install --json").stdout)
    assert told["mode"] == "active", "an install without --mode changes none"
    assert json.loads(target.read_text())["model"] == "opus"
    assert (run("tok-guard status").stdout, run("tok-guard stats").returncode) and path.is_symlink()
    for action in ("uninstall", "status", "stats"):  # only install writes a mode
        done = run(f"tok-guard {action} --mode observe", status=2)
        assert done.stderr == b"tok-guard: --mode goes with install; run tok-guard install --mode observe\n"
    (told,) = objects(run("tok-guard install --json").stdout)
    assert told["mode"] == "active" and told["installed"]
    run("tok-guard uninstall")
    assert json.loads(target.read_text()) == {"model": "opus"}
    project = tmp_path / "here/settings.json"
    run(f"tok-guard install --settings {project}")
    assert guard_install.status(project.read_text())["installed"]
