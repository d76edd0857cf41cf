"""What entered the context of each turn of Claude Code's transcripts, as sizes."""

from __future__ import annotations

import base64
import json
import pathlib
import random
import shutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import Claude, in_pieces, new_log

from conftest import Json, examples, put
from tokenops import fields, read_context, readers, store, sync, work_shell

FOLDER = ".claude/projects/-home-ada-app"


def sources(root: pathlib.Path) -> list[Any]:
    return list(readers.with_files(["claude"], [str(root)], {}, str(root)))


def in_log(log: pathlib.Path) -> dict[str, Json]:
    """The contexts by the id of their turn."""
    events = map(json.loads, store.scan(str(log), context=True))
    return {event["turn"]: event for event in events if event["kind"] == "context"}


def read(tmp_path: pathlib.Path, *scripts: Claude, **files: bytes) -> dict[str, Json]:
    """The contexts of some transcripts, by the short name of their turn."""
    root = tmp_path / "home"
    for script in scripts:
        put(root / FOLDER / f"{script.session}.jsonl", script.bytes())
    for name, content in files.items():
        put(root / FOLDER / name.replace("__", "/").replace("_jsonl", ".jsonl"), content)
    log = new_log(tmp_path)
    sync.run(str(log), sources(root), jobs=1)
    return in_log(log)


def brief(event: Json) -> Json:
    """What a context says beside who and when."""
    return {key: event[key] for key in ("parent", "chain", "event", "miss", "entered", "produced") if key in event}


def test_a_turn_names_the_one_before_and_what_came_between(tmp_path: pathlib.Path) -> None:
    script = Claude()
    script.human("Look at the loader.")
    call = script.calls("Read", message="msg_1", file_path="/home/ada/ä.py")
    script.result(call, 'tab\t"quoted" größe 🚀\\')
    script.says("It works.", message="msg_2")
    script.human("Then run the tests")
    script.does("Bash", "all passed", command="cd /home/ada/app && FOO=secret npm test -- --secret")
    script.says("All pass.", message="msg_4")
    found = read(tmp_path, script)
    assert brief(found["msg_1"]) == {"produced": {"call Read": len('{"file_path":"/home/ada/ä.py"}')}}
    assert brief(found["msg_2"]) == {"parent": "msg_1", "entered": {"result Read": 21}, "produced": {"reply": 9}}
    third = next(name for name, event in found.items() if event.get("parent") == "msg_2")
    size = len('{"command":"cd /home/ada/app && FOO=secret npm test -- --secret"}')
    assert brief(found[third]) == {
        "parent": "msg_2",
        "entered": {"prompt": 18},
        "produced": {"call Bash|npm test": size},
    }
    assert brief(found["msg_4"])["entered"] == {"result Bash|npm test": 10}
    who = {"source": "claude-code-jsonl", "client": "claude-code", "project": "app", "session_id": "s1"}
    assert all(event.items() >= who.items() for event in found.values())
    assert [event.get("version") for event in found.values()] == ["2.1.200", None, None, None]


def test_the_clients_version_stands_where_it_changed(tmp_path: pathlib.Path) -> None:
    script = Claude()
    for n, version in enumerate(["2.1.9", "2.1.9", "2.1.10", "2.1.10", "2.1.9"]):
        script.human("on")
        script.says("yes", message=f"msg_{n}", version=version)
    found = read(tmp_path, script)
    assert [found[f"msg_{n}"].get("version") for n in range(5)] == ["2.1.9", None, "2.1.10", None, "2.1.9"]


def answer(script: Claude, message: str, *parts: Json, above: str = "", **more: Any) -> str:
    """Blocks of one answer, one line each; the uuid of the last."""
    for part in parts:
        made = script._answer([part], message, 1, **({"parentUuid": above} if above else {}), **more)
        above = str(made["uuid"])
    return above


def use(name: str, call: str, **given: Any) -> Json:
    return {"type": "tool_use", "id": call, "name": name, "input": given}


def test_results_of_parallel_calls_all_enter(tmp_path: pathlib.Path) -> None:
    """Each result hangs on the line that made its call, so only the last one is above the next answer."""
    script = Claude()
    script.human("go")
    first = script._answer([{"type": "thinking", "thinking": "hmm", "signature": "x" * 50}], "msg_1", 1)
    second = script._answer([use("Grep", "c1", pattern="a")], "msg_1", 1)
    early = script.result("c1", "12345", parentUuid=second["uuid"])
    third = script._answer([use("Bash", "c2", command="ls")], "msg_1", 1, parentUuid=early["uuid"])
    fourth = script._answer([use("mcp__srv__look", "c3")], "msg_1", 1, parentUuid=third["uuid"])
    script.result("c3", "123", error=True, parentUuid=fourth["uuid"])
    script.result("c2", "1", parentUuid=third["uuid"])
    script.says("done", message="msg_2")
    assert first["uuid"] != second["uuid"]
    found = read(tmp_path, script)
    produced = {"thinking": 3, "call Grep": 15, "call Bash|ls": 16, "call mcp__srv__look": 2}
    assert brief(found["msg_1"]) == {"produced": dict(sorted(produced.items()))}
    entered = {"result Bash|ls": 1, "result Grep": 5, "result mcp__srv__look": 3}
    assert brief(found["msg_2"]) == {"parent": "msg_1", "entered": entered, "produced": {"reply": 4}}


def test_a_rewind_names_the_older_turn(tmp_path: pathlib.Path) -> None:
    script = Claude()
    script.human("go")
    old = script.says("one", message="msg_1")["uuid"]
    script.human("a wrong turn, taken back")
    script.says("two", message="msg_2")
    script.human("better", parentUuid=old)
    script.says("three", message="msg_3")
    found = read(tmp_path, script)
    assert brief(found["msg_3"]) == {"parent": "msg_1", "entered": {"prompt": 6}, "produced": {"reply": 5}}


def test_a_fork_names_the_copied_turn_and_copies_say_the_same(tmp_path: pathlib.Path) -> None:
    script = Claude()
    script.human("go")
    script.says("one", message="msg_1")
    script.human("on")
    script.says("two", message="msg_2")
    fork = Claude("s2", start="2026-03-02T10:00:00")
    fork.lines = [line | {"sessionId": "s2", "requestSessionId": "s1"} for line in script.lines]
    fork.human("elsewhere")
    fork.says("three", message="msg_3")
    found = read(tmp_path, fork, script)
    assert brief(found["msg_3"])["parent"] == "msg_2"
    assert brief(found["msg_2"]) == {"parent": "msg_1", "entered": {"prompt": 2}, "produced": {"reply": 3}}
    assert (found["msg_2"]["session_id"], found["msg_3"]["session_id"]) == ("s1", "s2")


@pytest.mark.parametrize("names_the_line_before", [True, False])
def test_a_compaction(names_the_line_before: bool, tmp_path: pathlib.Path) -> None:
    script = Claude()
    script.human("go")
    call = script.calls("Read", message="msg_1")
    last = script.result(call, "x" * 999)["uuid"]
    more = {"logicalParentUuid": last} if names_the_line_before else {}
    script.line(type="system", subtype="compact_boundary", parentUuid=None, compactMetadata={}, **more)
    script.human("This session is being continued: " + "y" * 50, isCompactSummary=True, isVisibleInTranscriptOnly=True)
    script.line(
        type="attachment", attachment={"type": "file", "filename": "secret", "content": {"file": {"content": "abc"}}}
    )
    script.says("on", message="msg_2")
    entered = {"attachment": 3, "summary": 83}
    assert brief(read(tmp_path, script)["msg_2"]) == {
        "parent": "msg_1",
        "event": "compaction",
        "entered": entered,
        "produced": {"reply": 2},
    }


def test_each_subagent_is_a_chain_of_its_own(tmp_path: pathlib.Path) -> None:
    script = Claude()
    script.human("go")
    call = script.calls("Task", message="msg_1", prompt="look")
    agents = {}
    for name, folder in (
        ("aa1", "s1__subagents__agent-aa1_jsonl"),
        ("bb2", "s1__subagents__workflows__w1__agent-bb2_jsonl"),
    ):
        agent = Claude("s1", start="2026-03-02T09:00:20", isSidechain=True, agentId=name)
        agent.number = 100 if name == "aa1" else 200
        agent.human("look")
        agent.calls("Grep", message=f"msg_{name}_1", pattern="x")
        agent.result(f"toolu_s1_{agent.number - 1}", "1234")
        agent.says("seen", message=f"msg_{name}_2")
        agents[folder] = agent.bytes()
    script.result(call, "seen")
    script.says("done", message="msg_2")
    found = read(tmp_path, script, **agents)
    assert "chain" not in found["msg_1"] and brief(found["msg_2"])["entered"] == {"result Task": 4}
    for name in ("aa1", "bb2"):
        assert brief(found[f"msg_{name}_2"]) == {
            "parent": f"msg_{name}_1",
            "chain": name,
            "entered": {"result Grep": 4},
            "produced": {"reply": 4},
        }
        assert found[f"msg_{name}_2"]["sidechain"] is True


def test_subagents_of_old_versions_are_known_by_their_first_line(tmp_path: pathlib.Path) -> None:
    """Their lines stand among those of the main chain and have no id."""
    script = Claude(version="1.0.98")
    script.human("go")
    main = script.says("I will", message="msg_1")["uuid"]
    root = script.human("look", isSidechain=True, parentUuid=None)["uuid"]
    script.says("seen", message="msg_side", isSidechain=True)
    script.human("on", parentUuid=main)
    script.says("done", message="msg_2")
    found = read(tmp_path, script)
    assert brief(found["msg_side"]) == {"chain": root, "produced": {"reply": 4}}
    assert brief(found["msg_2"]) == {"parent": "msg_1", "entered": {"prompt": 2}, "produced": {"reply": 4}}


def picture(width: int, height: int) -> str:
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\0" * 40
    return base64.b64encode(png).decode()


def test_what_else_enters(tmp_path: pathlib.Path) -> None:
    """Images by their pixels, what the client adds to a prompt, queued prompts, results in parts; news of hooks do not."""
    script = Claude()
    script.human("go")
    script.says("yes", message="msg_1")
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture(300, 250)}}
    script.line(type="user", message={"role": "user", "content": [{"type": "text", "text": "this"}, image]})
    script.human("<system-reminder>the client's</system-reminder>", isMeta=True)
    script.line(type="attachment", attachment={"type": "queued_command", "prompt": "wait", "commandMode": "prompt"})
    script.line(type="attachment", attachment={"type": "hook_non_blocking_error", "stderr": "boom"})
    script.line(type="attachment", attachment={"type": ["odd"]})
    script.line(type="progress", data={"type": "hook_progress", "command": "x" * 500})
    script.line(type="system", subtype="stop_hook_summary", content="x" * 500)
    call = script.calls("Read", message="msg_2")
    part = {"type": "tool_result", "tool_use_id": call, "content": [{"type": "text", "text": "four"}, image]}
    script.line(type="user", message={"role": "user", "content": [part]}, toolUseResult={})
    script.says("ok", message="msg_3")
    found = read(tmp_path, script)
    assert brief(found["msg_2"])["entered"] == {"image": 300, "prompt": 55}
    assert brief(found["msg_3"])["entered"] == {"image": 300, "result Read": 4}


def test_an_attachment_enters_as_the_client_rendered_it(tmp_path: pathlib.Path) -> None:
    """Claude Code 2.1.332 writes what the model is given. What it keeps of the system prompt and tools is part of no turn."""
    script = Claude()
    script.human("go")
    script.says("yes", message="msg_1")
    script.line(
        type="attachment",
        attachment={"type": "prompt_snapshot", "systemPrompt": ["x" * 500], "tools": [{"name": "y" * 500}]},
    )
    text, image = (
        {"type": "text", "text": "four"},
        {"type": "image", "source": {"type": "base64", "data": picture(300, 250)}},
    )
    for role, content in (
        ("system", "<system-reminder>\nabc\n</system-reminder>"),
        ("user", "<b>\n"),
        ("user", [text, image]),
    ):
        script.line(
            type="attachment",
            attachment={"type": "new", "digests": "x" * 500},
            rendered=[{"content": content}],
            renderedRole=role,
        )
    for mode, content in (("task-notification", "<n>12345"), ("prompt", "typed")):
        queued = {"type": "queued_command", "prompt": "x", "commandMode": mode}
        script.line(type="attachment", attachment=queued, rendered=[{"content": content}])
    script.human("on")
    script.says("ok", message="msg_2")
    assert brief(read(tmp_path, script)["msg_2"])["entered"] == {"attachment": 3 + 4 + 4, "image": 300, "prompt": 2 + 8 + 5}


def test_the_clients_reason_for_a_cache_miss(tmp_path: pathlib.Path) -> None:
    script = Claude()
    for n, reason in enumerate(["tools_changed", "the words of a person", None]):
        script.human("go")
        made = script.says("yes", message=f"msg_{n}")
        made["message"]["diagnostics"] = {"cache_miss_reason": {"type": reason, "cache_missed_input_tokens": 9}}
    found = read(tmp_path, script)
    assert [found[f"msg_{n}"].get("miss") for n in range(3)] == ["tools_changed", None, None]


def test_messages_of_the_clients_own_are_no_turns(tmp_path: pathlib.Path) -> None:
    script = Claude()
    script.human("go")
    script.says("yes", message="msg_1")
    script.human("on")
    made = script.says("API Error", message="msg_error", isApiErrorMessage=True)
    made["message"]["model"] = "<synthetic>"
    script.human("again")
    script.says("there", message="msg_2")
    found = read(tmp_path, script)
    assert found.keys() == {"msg_1", "msg_2"}
    assert brief(found["msg_2"]) == {"parent": "msg_1", "entered": {"prompt": 7}, "produced": {"reply": 5}}


# Pieces -------------------------------------------------------------------------------------------------------------------


def long_session(rng: random.Random) -> bytes:
    """A session with parallel calls, rewinds, a compaction, subagents between, and lines that nobody is given."""
    script = Claude()
    uuids = []
    for n in range(40):
        above = {"parentUuid": rng.choice(uuids)} if uuids and rng.random() < 0.2 else {}
        uuids.append(script.human(f"prompt {n} " + "ä" * rng.randrange(9), **above)["uuid"])
        calls = [use(rng.choice(["Read", "Bash"]), f"c{n}_{k}", command="git diff") for k in range(rng.randrange(4))]
        parts = [{"type": "text", "text": "x" * (n + 1)}, *calls]
        made = [script._answer([part], f"msg_{n}", 1)["uuid"] for part in parts]
        for k in range(len(calls)):
            if rng.random() < 0.3:
                script.line(type="progress", data={"message": {"uuid": "inner"}}, parentUuid=made[k + 1])
            text = "".join(rng.choices('ab"\\\n\té🚀\x1b', k=rng.randrange(30)))
            script.result(f"c{n}_{k}", text, rng.random() < 0.2, parentUuid=made[k + 1])
        if n % 17 == 16:
            boundary = {"logicalParentUuid": script.lines[-1]["uuid"], "parentUuid": None}
            script.line(type="system", subtype="compact_boundary", **boundary)
            script.human("summary", isCompactSummary=True)
        uuids.append(script.says("so", message=f"msg_{n}_end")["uuid"])
    return b"".join(
        json.dumps(line, ensure_ascii=rng.random() < 0.5, separators=(",", ":")).encode() + b"\n" for line in script.lines
    )


@pytest.mark.parametrize("seed", range(6))
def test_any_pieces_of_a_file_give_what_the_whole_gives(seed: int, tmp_path: pathlib.Path) -> None:
    rng = random.Random(seed)
    content = long_session(rng)
    path = tmp_path / "home" / FOLDER / "s1.jsonl"
    log, whole = in_pieces(rng, content, path, lambda: sources(tmp_path / "home"))
    assert in_log(log) == in_log(whole) and len(in_log(whole)) == 80
    again = sync.run(str(whole), sources(tmp_path / "home"), backfill=True)
    assert again and not any(outcome.contexts for outcome in again)
    assert len((log / "cursors.json").read_bytes()) < 8000


def test_a_file_read_halfway_by_an_older_version(tmp_path: pathlib.Path) -> None:
    script = Claude()
    script.human("go")
    call = script.calls("Read", message="msg_1")
    path = put(tmp_path / "home" / FOLDER / "s1.jsonl", script.bytes())
    log = new_log(tmp_path)
    sync.run(str(log), sources(tmp_path / "home"), jobs=1)
    cursors = json.loads((log / "cursors.json").read_bytes())[1]
    for kept in cursors["sources"]["claude-code-jsonl"].values():
        kept[-1] = {key: value for key, value in json.loads(kept[-1]).items() if key != "context"}
    (log / "cursors.json").write_text(json.dumps(cursors))
    shutil.rmtree(log / "events")
    script.result(call, "12345")
    script.says("done", message="msg_2")
    path.write_bytes(script.bytes())
    sync.run(str(log), sources(tmp_path / "home"), jobs=1)
    assert brief(in_log(log)["msg_2"]) == {"parent": "msg_1", "entered": {"result Read": 5}, "produced": {"reply": 4}}


# Privacy ------------------------------------------------------------------------------------------------------------------

WORD = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=9, max_size=12).map(
    lambda text: f"sEcrEt{text}"
)
SHELL = (
    """npm test git diff cd && ; | sudo env timeout 5 ' " $( ) ` uv run npx bash -c for in do -C --x= A= ./ /usr/bin/ { }"""
)
PIECES = st.sampled_from([*SHELL.split(), "\n", "\\", "<<EOF\n", "docker", "compose"])


@examples(400)
@given(st.lists(st.one_of(PIECES, WORD), max_size=14), st.sampled_from(["", " "]))
def test_of_a_command_line_only_words_of_the_list_are_named(pieces: list[str], gap: str) -> None:
    name = work_shell.command_name(gap.join(pieces))
    program, _, subcommand = name.partition(" ")
    programs = work_shell._names().programs
    assert name == "other" or (program in programs and (not subcommand or subcommand in programs[program]))
    assert "sEcrEt" not in name


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("npm test", "npm test"),
        ("cd /home/ann/x && npm run build -- --token=1", "npm run"),
        ('cd "a b" ; FOO=1 BAR="x y" git status', "git status"),
        ("sudo -u ann timeout 5 pytest -q", "pytest"),
        ("env A=1 go test ./...", "go test"),
        ("git -C /secret -c a=b push origin", "git push"),
        ("uv run pytest -x", "pytest"),
        ("npx tsc --noEmit", "tsc"),
        ("bash -lc 'cargo test --all'", "cargo test"),
        ("export A=1; docker compose up", "docker compose"),
        ("for f in *; do cat $f; done", "cat"),
        ("/usr/bin/python3 -c 'print(1)'", "python3"),
        ("git secretsub", "git"),
        ("./secret.sh", "other"),
        ("cd /secret", "other"),
        ("", "other"),
    ],
)
def test_the_name_of_a_command_line(line: str, name: str) -> None:
    assert work_shell.command_name(line) == name


def test_nothing_of_any_text_is_stored(tmp_path: pathlib.Path) -> None:
    script = Claude()
    secret = "sEcrEt"
    script.human(f"{secret} prompt")
    call = script.calls(
        "Bash", message="msg_1", command=f"{secret}=1 {secret} && npm run {secret} /{secret}", description=secret
    )
    script.result(call, f"{secret} result")
    script.does(f"{secret} is no tool's name", x=secret)
    script.line(type="attachment", attachment={"type": secret, secret: secret})
    made = script.says(f"{secret} reply", message="msg_2", version=f"{secret} version", agentId=f"{secret} agent")
    made["message"]["diagnostics"] = {"cache_miss_reason": {"type": f"{secret} reason"}}
    log = new_log(tmp_path)
    put(tmp_path / "home" / FOLDER / "s1.jsonl", script.bytes())
    sync.run(str(log), sources(tmp_path / "home"), jobs=1)
    assert len(in_log(log)) == 3
    assert secret.encode() not in b"".join(file.read_bytes() for file in log.rglob("*") if file.is_file())


# Sizes --------------------------------------------------------------------------------------------------------------------


TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.text('"\\\n\té🚀\x1bu0d', max_size=12)


@examples(15)
@given(texts=st.lists(TEXT, min_size=1, max_size=40), ascii_only=st.booleans())
def test_a_result_has_as_many_code_points_whatever_its_escapes(
    texts: list[str], ascii_only: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("sizes")
    script = Claude()
    script.human("go")
    for n, text in enumerate(texts):
        script.result(script.calls("Read", message=f"msg_{n}"), text)
    script.says("done", message=f"msg_{len(texts)}")
    content = "\n".join(json.dumps(line, ensure_ascii=ascii_only, separators=(",", ":")) for line in script.lines)
    put(tmp_path / "home" / FOLDER / "s1.jsonl", content.encode() + b"\n")
    log = new_log(tmp_path)
    sync.run(str(log), sources(tmp_path / "home"), jobs=1)
    contexts = in_log(log)
    sizes = [contexts[f"msg_{n}"].get("entered", {}).get("result Read", 0) for n in range(1, len(texts) + 1)]
    assert sizes == list(map(len, texts))
    shutil.rmtree(tmp_path)


def test_images_count_by_their_pixels() -> None:
    assert read_context.image_size(picture(750, 100)) == 300
    assert read_context.image_size(picture(9000, 9000)) == 4800
    assert read_context.image_size("not a picture") == read_context.image_size(None) == 4800
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + (30).to_bytes(2, "big") + (25).to_bytes(2, "big") + b"\0" * 9
    gif = b"GIF89a" + (25).to_bytes(2, "little") + (30).to_bytes(2, "little")
    webp = b"RIFF0000WEBPVP8X0000\0\0\0\0" + (24).to_bytes(3, "little") + (29).to_bytes(3, "little")
    for data in (jpeg, gif, webp):
        assert read_context.pixels(base64.b64encode(data).decode()) == (25, 30)


@given(st.dictionaries(st.integers(0, 400), st.integers(1, 9**9), max_size=90))
def test_too_many_causes_are_joined(sizes: dict[int, int]) -> None:
    names = {f"{'call' if n % 2 else 'result'} mcp__{'x' * (n % 90)}__{n}": size for n, size in sizes.items()}
    bounded = read_context.fit_causes(names)
    assert sum(bounded.values()) == sum(names.values()) and len(bounded) <= read_context.MOST_CAUSES
    event = {"v": 1, "ts": "2026-03-01T09:00:00.000Z", "kind": "context", "id": "context:x", "entered": bounded}
    assert not fields.fault(event)
    assert bounded == names or {"call other", "result other"} & bounded.keys()
