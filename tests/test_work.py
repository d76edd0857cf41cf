"""Rounds: what one prompt set off, counted once whatever is read when; and which commands destroy something."""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import random
import shutil
import subprocess
from collections import Counter
from typing import Any, NamedTuple

import pytest
from homes import Home
from hypothesis import given
from hypothesis import strategies as st
from scripts import Claude, Codex

from conftest import OWNERS, SHARED, Json, Run, claude, examples, joins_by_the_laws, lines, needs_shared, objects, put
from tokenops import fields, readers, store, sync, work, work_shell

FOLDER = ".claude/projects/-home-ada-app"


def rollout(script: Codex) -> str:
    """Where Codex would put it."""
    return f".codex/sessions/2026/06/01/rollout-2026-06-01T09-00-00-{script.thread}.jsonl"


DESTRUCTIVE = [
    "rm -rf x", "rm -fr x", "rm -r --force x", "rm --recursive x", "/bin/rm -rf x", "sudo rm -f x", "sudo -u bob rm -rf x", "cd a && rm -rf b",
    "echo hi; rm -rf x", "(cd x && rm -rf y)", "if true; then rm -rf x; fi", "for i in a b; do rm -rf $i; done", "rm \\\n -rf x", "FOO=1 rm -rf x",
    "x=$(rm -rf y)", "echo `rm -rf x`", 'echo "$(rm -rf x)"', "bash -c 'rm -rf /tmp/x'", 'bash -lc "cd x; git reset --hard"', "sh <<EOF\nrm -rf x\nEOF",
    "eval 'rm -rf x'", "ssh host 'rm -rf /x'", "timeout 5 rm -rf x", "ls | xargs -n 1 rm -rf", "nohup nice -n 5 rm -rf x &",
    "git push -f", "git push origin main --force", "git push --force origin", "git -C x push --force", "git push origin +main", "git push --mirror x",
    "wrapper git push --force", "git commit --no-verify -m 'x'", "git commit -nm x", "git push --no-verify", "git reset --hard HEAD~1",
    "git -c a=b reset --hard", "git clean -fdx", "git clean --force", "git checkout -- .", "git checkout .", "git stash drop", "git branch -D x",
    "chmod -R 777 .", "chmod 777 x", "dd if=/dev/zero of=/dev/sda", "mkfs.ext4 /dev/sda1", "find . -name x -delete", "find . -exec rm {} +",
    "find . -type f -exec rm -rf {} \\;", "kubectl delete pod x", "kubectl -n prod delete pod x", "terraform destroy -auto-approve",
    "terraform apply -destroy", "psql -c 'DROP DATABASE x'", "psql <<EOF\ndrop table users;\nEOF", "mysql -e \"delete from users\"", "dropdb x",
    "shutdown -h now", "reboot", "killall node", "docker system prune -af", "docker compose down -v", "aws s3 rm s3://x --recursive",
    "aws ec2 terminate-instances --instance-ids x", "truncate -s 0 x", "npm unpublish x",
]  # fmt: skip
HARMLESS = [
    "echo 'do not rm -rf x'", "echo rm -rf x", "printf 'drop table x'", "grep -r 'rm -rf' .", "rg 'git reset --hard' docs", "man rm", "# rm -rf x",
    "ls # rm -rf x", "cat <<EOF\nrm -rf x\nEOF", "cat > x <<'EOF'\ngit push --force\nEOF", "git commit -m 'rm -rf everything'", "sed -n 's/rm -rf/x/p' f",
    "git commit -m \"$(cat <<'EOF'\nFix: git push --force\n\nrm -rf x\nEOF\n)\"", "git log --grep 'git push --force'", "python -c \"print('rm -rf')\"",
    "rm file", "rm -f file", "git push", "git push --force-with-lease", "git push --force-with-lease=main origin", "git push -u origin x",
    "git push origin main 2>&1 | tail", "git reset --soft HEAD~1", "git reset HEAD x", "git checkout -b x", "git checkout main", "git clean -n",
    "git branch -d x", "git stash", "git restore --staged x", "git diff > rm", "chmod 755 x", "chmod +x run.sh", "find . -name rm", "ls -r",
    "terraform plan", "kubectl get pods", "psql -c 'select 1'", "docker run --rm -it x", "npm run clean -- -f", "make reset", "", "&& ||", "'", "$(",
]  # fmt: skip


@pytest.mark.parametrize("line", DESTRUCTIVE)
def test_destructive(line: str) -> None:
    assert work_shell.destructive(line)


@pytest.mark.parametrize("line", HARMLESS)
def test_harmless(line: str) -> None:
    assert not work_shell.destructive(line)


@given(st.text(alphabet="rmgit push-f '\"`$()\\;|&<>\n{}#=EOFsudo", max_size=60))
def test_any_command_line(line: str) -> None:
    found = list(work_shell.simple_commands(line))
    assert all(isinstance(word, str) for one in found for word in one.words)
    work_shell.destructive(line)
    work_shell.destructive(f"rm -rf {line}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a-b=c  d#e f", [["a-b=c", "d#e", "f"]]),
        ('x\'y z\'"u\\"v"w', [['xy zu"vw']]),
        ("echo $HOME${x}$(rm -rf q) k", [["echo", "$HOME$"], ["x"], ["$", "k"], ["rm", "-rf", "q"]]),
        ('a "b $c `d e`"', [["a", "b $c $"], ["d", "e"]]),
        ("a 'open", [["a", "open"]]),
        ("a\u2003b\x0bc d", [["a\u2003b\x0bc", "d"]]),
        ("a#b\n#c\nd;e&&f|g", [["a#b"], ["d"], ["e"], ["f"], ["g"]]),
    ],
)
def test_words_are_read_in_runs(line: str, words: list[list[str]]) -> None:
    assert [list(command.words) for command in work_shell.simple_commands(line)] == words


def test_quoting_hides_whatever_it_is_around() -> None:
    for inner in DESTRUCTIVE[:8]:
        quoted = "'" + inner.replace("'", "'\\''") + "'"
        assert not work_shell.destructive(f"echo {quoted}")
        assert work_shell.destructive(f"bash -c {quoted}")


# Rounds -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["HOME"])


def rounds(run: Run, status: int | None = 0) -> list[Json]:
    """The rounds in the log, after what is new was taken in."""
    run("tok-sync", status=status)
    return [event for event in objects(run("tok-cat").stdout) if event["kind"] == "work"]


def counts(found: list[Json]) -> list[Json]:
    return [{k: v for k, v in event["counts"].items() if "bytes" not in k} for event in found]


def test_a_round_is_what_a_prompt_set_off(run: Run, home: pathlib.Path) -> None:
    script = Claude()
    script.human("Why does the parser drop the last line? See src/parser.py")
    script.says("I will look.")
    script.does("Read", file_path="/home/ada/app/src/parser.py")
    script.does("Grep", pattern="drop")
    script.does("Read", file_path="/home/ada/app/src/parser.py")
    script.does("Edit", file_path="/home/ada/app/src/parser.py", old_string="a", new_string="b")
    script.does("Read", file_path="/home/ada/app/src/parser.py")
    script.does("Bash", command="pytest -q", text="Exit code 1\n1 failed", error=True)
    script.does("Bash", command="pytest -q")
    script.does("Bash", command="rm -rf build")
    script.does("mcp__x__y")
    script.does("Unheard")
    script.says("Done. Shall I commit it?")
    script.human("yes")
    script.does("Bash", command="git commit -am fix")
    script.human("continue")
    put(home / FOLDER / "s1.jsonl", script.bytes())
    first, second, third = rounds(run)
    assert counts([first]) == [
        {
            "prompts": 1, "prompt_chars": 57, "replies": 2, "tool_calls": 10, "tool_results": 10, "tool_failures": 1, "read_calls": 3,
            "repeated_reads": 1, "search_calls": 1, "edit_calls": 1, "edits": 1, "command_calls": 3, "repeated_commands": 1, "retries": 1,
            "destructive": 1, "mcp_calls": 1, "other_calls": 1,
        }
    ]  # fmt: skip
    assert counts([second])[0] == {"prompts": 1, "prompt_chars": 3, "short": 1, "acknowledgements": 1, "confirmations": 1} | {
        "tool_calls": 1, "command_calls": 1, "tool_results": 1,
    }  # fmt: skip
    assert counts([third])[0] == {"prompts": 1, "prompt_chars": 8, "short": 1, "acknowledgements": 1, "continuations": 1}
    assert first["times"]["prompt"] == first["ts"] == script.lines[0]["timestamp"]
    assert first["times"]["edit"] == script.lines[9]["timestamp"]  # when its result came
    assert first["times"]["command"] < first["times"]["last"] == script.lines[-5]["timestamp"]
    assert (first["session_id"], first["project"], first["client"]) == ("s1", "app", "claude-code")


def test_refusals_and_interruptions_are_no_failures(run: Run, home: pathlib.Path) -> None:
    script = Claude()
    script.human("clean up the folder, please")
    script.does(
        "Bash",
        command="rm -rf x",
        text="The user doesn't want to proceed with this tool use. The tool use was rejected",
        error=True,
    )
    script.result(script.calls("Bash", command="ls"), "denied", True)
    script.lines[-1]["toolDenialKind"] = "user-rejected"
    script.does("Bash", command="ls", text="[Request interrupted by user for tool use]", error=True)
    script.does("Read", file_path="/x", text="<tool_use_error>Sibling tool call errored</tool_use_error>", error=True)
    script.does(
        "Edit", file_path="/x", text="<tool_use_error>String to replace not found in file.</tool_use_error>", error=True
    )
    script.line(
        message={"role": "user", "content": [{"type": "text", "text": "[Request interrupted by user]"}]}, type="user"
    )
    script.calls("Bash", command="sleep 100")  # never answered
    put(home / FOLDER / "s1.jsonl", script.bytes())
    (found,) = counts(rounds(run))
    assert (found["tool_calls"], found["tool_results"]) == (6, 5)
    assert (found["tool_denials"], found["tool_cancels"], found["tool_failures"]) == (2, 2, 1)
    assert (found["interruptions"], found["destructive"], "edits" in found) == (1, 1, False)


CONTENT, LONG = ("content", "x" * 9000), {"slug": "y" * 1500, "more": [{"a": [{"b": 1}]}]}
FAILED, TYPE = ("is_error", True), ("type", "tool_result")


@pytest.mark.parametrize("behind", [{}, LONG], ids=["short", "long"])
@pytest.mark.parametrize(
    "keys",
    [(CALL := ("tool_use_id", "c1"), TYPE, CONTENT, FAILED), (CALL, TYPE, FAILED, CONTENT), (TYPE, CONTENT, FAILED, CALL),
     (FAILED, TYPE, CONTENT, CALL), (TYPE, ("content", [{"type": "text", "text": "x" * 9000}]), FAILED, CALL)],
    ids=["last", "before", "between", "first", "parts"],
)  # fmt: skip
def test_a_failure_is_seen_wherever_it_is_said(
    keys: tuple[tuple[str, Any], ...], behind: Json, run: Run, home: pathlib.Path
) -> None:
    at = {"timestamp": "2026-06-01T09:00:00.000Z", "sessionId": "s1", "cwd": "/home/ada/app"}
    call = {"type": "tool_use", "id": "c1", "name": "Bash", "input": {"command": "ls"}}
    script: list[Json] = [
        {**at, "type": "user", "uuid": "u1", "message": {"role": "user", "content": "look at src/a.py"}},
        {**at, "type": "assistant", "uuid": "u2", "message": {"role": "assistant", "content": [call]}},
        {**at, "message": {"role": "user", "content": [dict(keys)]}, "type": "user", **behind, "toolUseResult": "x" * 99},
    ]
    put(home / FOLDER / "s1.jsonl", b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in script))
    [found] = rounds(run)
    assert (found["counts"]["tool_results"], found["counts"].get("tool_failures")) == (1, 1)


def test_what_the_client_sends_is_no_prompt(run: Run, home: pathlib.Path) -> None:
    script = Claude()
    script.line(type="user", isMeta=True, message={"role": "user", "content": "Caveat: ..."})
    script.human("<command-name>/review</command-name>")
    script.line(type="user", isMeta=True, message={"role": "user", "content": [{"type": "text", "text": "Review the diff"}]})
    script.does("Read", file_path="/x")
    script.human("<task-notification>done</task-notification>")
    script.human("<bash-input>ls</bash-input>")
    script.human("Implement the following plan:\n\n# Plan", planContent="# Plan")
    script.does("Read", file_path="/x")
    script.human("<<autonomous-loop>>")
    script.human("Summary", isCompactSummary=True)
    script.line(type="system", subtype="compact_boundary", content="x")
    put(home / FOLDER / "s1.jsonl", script.bytes())
    command, plan, loop = counts(rounds(run))
    assert command == {"slash_commands": 1, "tool_calls": 1, "read_calls": 1, "tool_results": 1, "notifications": 1}
    assert plan == {"plans_accepted": 1, "tool_calls": 1, "read_calls": 1, "tool_results": 1, "repeated_reads": 1}
    assert loop == {"sentinels": 1, "summaries": 1, "compactions": 1}


def test_prompts_typed_while_the_agent_works(run: Run, home: pathlib.Path) -> None:
    script = Claude()
    script.human("start with the parser")
    queue = {"type": "queue-operation", "sessionId": "s1"}
    script.line(**queue, operation="enqueue", content="and the tests, too")
    script.line(**queue, operation="enqueue", content='{"task_id":"b1","task_type":"local_bash"}')
    script.line(**queue, operation="remove")  # given to the agent in the middle of its work
    script.line(**queue, operation="remove")
    script.line(
        type="attachment", attachment={"type": "queued_command", "prompt": "and the tests, too", "commandMode": "prompt"}
    )
    script.line(**queue, operation="enqueue", content="wait for me")
    script.line(**queue, operation="popAll", content="wait for me")  # taken back
    script.line(type="attachment", attachment={"type": "queued_command", "prompt": "no queue line", "commandMode": "prompt"})
    script.line(**queue, operation="enqueue", content="then push it")
    script.line(**queue, operation="dequeue")  # and sent on its own
    script.human("then push it")
    put(home / FOLDER / "s1.jsonl", script.bytes())
    first, second = counts(rounds(run))
    assert (first["prompts"], first["queued"], first["prompt_chars"]) == (3, 2, 21 + 18 + 13)
    assert second["prompts"] == 1


def test_subagents_are_chains_of_their_own(run: Run, home: pathlib.Path) -> None:
    main, side = Claude(), Claude(start="2026-03-02T09:00:20", isSidechain=True, agentId="a1")
    main.human("look into both")
    call = main.calls("Task", prompt="Look into the first")
    side.human("Look into the first")
    side.does("Read", file_path="/x")
    main.result(call)
    put(home / FOLDER / "s1.jsonl", main.bytes())
    put(home / FOLDER / "s1/subagents/agent-a1.jsonl", side.bytes())
    for one in side.lines:
        one["uuid"] = "side-" + one["uuid"]
    put(home / FOLDER / "s1/subagents/agent-a1.jsonl", side.bytes())
    first, second = rounds(run)
    assert counts([first]) == [
        {"prompts": 1, "prompt_chars": 14, "short": 1, "tool_calls": 1, "agent_calls": 1, "tool_results": 1}
    ]
    assert counts([second]) == [{"subagents": 1, "tool_calls": 1, "read_calls": 1, "tool_results": 1}]
    assert second["sidechain"] is True and "sidechain" not in first
    assert first["session_id"] == second["session_id"]


def test_a_prompt_taken_back_and_written_anew(run: Run, home: pathlib.Path) -> None:
    script = Claude()
    script.human("first try at the parser")
    above = script.lines[-1]["parentUuid"] = "the-same"
    script.does("Read", file_path="/x")
    script.human("second try at the parser", parentUuid=above)
    put(home / FOLDER / "s1.jsonl", script.bytes())
    assert [found.get("rewinds") for found in counts(rounds(run))] == [None, 1]


def family() -> dict[str, bytes]:
    """A session, a resumed one that begins with a copy of it under its own name, and a fork that says where it came from."""
    script = Claude()
    script.human("look at the parser of the reader")
    script.does("Read", file_path="/x")
    script.human("ok")
    script.does("Bash", command="make", text="Exit code 2", error=True)
    resumed = [{**line, "sessionId": "s2"} for line in script.lines]
    forked = [{**line, "sessionId": "s3", "uuid": f"new-{n}", "forkedFrom": {"sessionId": "s1", "messageUuid": line["uuid"]}} for n, line in enumerate(script.lines[:4])]  # fmt: skip
    later = Claude("s2", "2026-03-04T09:00:00")
    later.human("now the writer")
    later.does("Edit", file_path="/y")
    script.human("and go on with the rest of it")
    script.does("Edit", file_path="/x")
    return {
        f"{FOLDER}/s1.jsonl": script.bytes(),
        f"{FOLDER}/s2.jsonl": lines([*resumed, *later.lines]),
        f"{FOLDER}/s3.jsonl": lines(forked),
    }


def total(found: list[Json]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for event in found:
        sums.update(event["counts"])
    return sums


def test_copies_in_forks_count_once_in_any_order(run: Run, home: pathlib.Path, environment: dict[str, str]) -> None:
    for order in itertools.permutations(family().items()):
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(environment["TOKENOPS_HOME"], ignore_errors=True)
        home.mkdir()
        for name, content in order:
            put(home / name, content)
            found = rounds(run)
        sums = total(found)
        assert (sums["prompts"], sums["tool_calls"], sums["tool_failures"], sums["edits"], len(found)) == (4, 4, 1, 2, 4)


def test_codex(run: Run, home: pathlib.Path) -> None:
    script = Codex()
    turn = script.turn()
    script.line(
        "response_item",
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "# AGENTS.md instructions for /x"}]},
    )
    script.human("why is the build of the parser red")
    script.says("I will look.")
    script.runs("make test", code=2)
    script.runs("make test")
    running = script.runs("sleep 100", code=None)
    script.gives(running, "Chunk ID: a\nProcess running with session ID 77\nOutput:\n")
    script.line(
        "response_item",
        {"type": "function_call", "name": "write_stdin", "arguments": '{"session_id":77,"chars":""}', "call_id": "call_w"},
    )
    script.gives("call_w", "Chunk ID: b\nProcess exited with code 1\nOutput:\n")
    script.line(
        "response_item", {"type": "custom_tool_call", "name": "apply_patch", "call_id": "call_p", "input": "*** Begin Patch"}
    )
    script.line(
        "response_item", {"type": "custom_tool_call_output", "call_id": "call_p", "output": "Exit code: 0\nSuccess."}
    )
    script.runs("git push --force", code=None, call="call_d")
    script.gives("call_d", "exec command rejected by user")
    script.turn()
    script.human("continue", event_first=True)
    script.line("compacted", {"message": "", "replacement_history": []})
    script.turn()
    script.human("again the same", form="item_completed")
    script.line(
        "response_item",
        {"type": "custom_tool_call", "name": "exec", "call_id": "call_x", "input": "await tools.exec_command({cmd:'ls'})"},
    )
    item = {
        "type": "CommandExecution",
        "id": "exec-1",
        "command": ["/bin/zsh", "-lc", "rm -rf x"],
        "status": "failed",
        "exit_code": 2,
    }
    script.line("event_msg", {"type": "item_completed", "item": item})
    script.line(
        "response_item",
        {"type": "custom_tool_call_output", "call_id": "call_x", "output": [{"type": "input_text", "text": "Script done"}]},
    )
    put(home / rollout(script), script.bytes())
    found = rounds(run)
    first, second, third = counts(found)
    assert first == {
        "prompts": 1, "prompt_chars": 34, "missing_context": 1, "replies": 1, "tool_calls": 5, "command_calls": 4, "edit_calls": 1,
        "edits": 1, "tool_results": 5, "tool_failures": 2, "tool_denials": 1, "repeated_commands": 1, "retries": 1, "destructive": 1,
    }  # fmt: skip
    assert second == {
        "prompts": 1,
        "prompt_chars": 8,
        "short": 1,
        "acknowledgements": 1,
        "continuations": 1,
        "compactions": 1,
    }
    assert (
        third["prompts"],
        third["command_calls"],
        third["other_calls"],
        third["tool_failures"],
        third["destructive"],
    ) == (1, 1, 1, 1, 1)
    assert found[0]["id"] == f"work:codex:{turn}"


def test_a_fork_of_codex_repeats_its_parents_work(run: Run, home: pathlib.Path) -> None:
    parent = Codex()
    turn = parent.turn()
    parent.human("look at the parser of the reader")
    parent.runs("ls")
    child = Codex("2026-06-03T09:00:00", forked_from_id=parent.thread, thread_source="user")
    child.lines += [{**line, "timestamp": "2026-06-03T09:00:00.100Z"} for line in parent.lines[1:]]
    child.turn()
    child.human("now the writer of it, please")
    child.runs("ls")
    put(home / rollout(child), child.bytes())
    put(home / rollout(parent), parent.bytes())
    found = rounds(run)
    assert total(found)["prompts"] == total(found)["command_calls"] == 2
    assert {event["session_id"] for event in found} == {parent.thread, child.thread}
    assert turn in str(found)


# Laws ---------------------------------------------------------------------------------------------------------------------

WORK = st.fixed_dictionaries(
    {
        "v": st.just(1),
        "ts": st.sampled_from(["2026-03-01T09:00:00.000Z", "2026-03-01T09:00:01.000Z"]),
        "kind": st.just("work"),
        "id": st.just("work:claude-code:u1"),
        "source": st.just("claude-code-jsonl"),
        "counts": st.dictionaries(st.sampled_from(["prompts", "edits", "largest_result_bytes"]), st.integers(0, 3)),
        "times": st.dictionaries(st.sampled_from(["prompt", "last"]), st.sampled_from(["2026-03-01T09:00:00.000Z", "2026-03-01T09:00:09.000Z"])),
    },
    optional={"session_id": st.sampled_from(["s1", "s2"]), "sidechain": st.just(True), **OWNERS},
)  # fmt: skip


@given(WORK, WORK, WORK)
def test_join(a: Json, b: Json, c: Json) -> None:
    joins_by_the_laws(a, b, c)


@pytest.mark.parametrize(
    "wrong",
    [
        {"counts": {"prompts": "the words of a prompt"}},
        {"counts": {"prompts": -1}},
        {"times": {"prompt": "hello"}},
        {"text": "hello"},
        {"counts": [1]},
    ],
)
def test_the_log_takes_no_text(wrong: Json) -> None:
    right = {
        "v": 1,
        "ts": "2026-03-01T09:00:00.000Z",
        "kind": "work",
        "id": "work:x:y",
        "counts": {"prompts": 1},
        "times": {},
    }
    assert not fields.fault(right)
    assert fields.fault(right | wrong)


def grown(root: pathlib.Path, files: dict[str, bytes], rng: random.Random, steps: int, log: pathlib.Path) -> None:
    """Write files a piece at a time, cut anywhere, and take in what is new after each."""
    at = dict.fromkeys(files, 0)
    for step in range(steps):
        for name, content in files.items():
            end = (
                len(content)
                if step == steps - 1
                else min(len(content), at[name] + rng.randrange(2 + 2 * len(content) // steps))
            )
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            with (root / name).open("ab") as file:
                file.write(content[at[name] : end])
            at[name] = end
        sync.run(str(log), found(root), jobs=rng.choice([1, 2]))


def found(root: pathlib.Path) -> list[Any]:
    return list(readers.with_files(["claude", "codex"], [str(root)], {}, str(root)))


def kept(log: pathlib.Path) -> dict[str, Json]:
    return {event["id"]: event for event in map(json.loads, store.scan(str(log))) if event["kind"] == "work"}


def logs(tmp_path: pathlib.Path, name: str) -> pathlib.Path:
    """A log whose salt is that of the others."""
    log = tmp_path / name
    log.mkdir(mode=0o700)
    (log / "salt").write_text("ab" * 24)
    return log


def constructed() -> dict[str, bytes]:
    codex = Codex()
    for n in range(6):
        codex.turn()
        codex.human(f"prompt number {n} of this thread", event_first=n % 2 == 0)
        codex.runs("make", code=n % 2)
        codex.says("So it is?")
        codex.human("yes")
    return family() | {rollout(codex): codex.bytes()}


@pytest.mark.parametrize("seed", range(8))
def test_reading_what_is_new_gives_what_reading_all_gives(seed: int, tmp_path: pathlib.Path) -> None:
    files, rng = constructed(), random.Random(seed)
    root = tmp_path / "home"
    grown(root, files, rng, rng.choice([2, 4, 9]), logs(tmp_path, "grown"))
    whole = logs(tmp_path, "whole")
    sync.run(str(whole), found(root))
    assert kept(tmp_path / "grown") == kept(whole) != {}


def test_growing_weeks_of_logs(weeks: Home, tmp_path: pathlib.Path) -> None:
    paths = [path for client in (".claude/projects", ".codex/sessions") for path in (weeks.root / client).rglob("*.jsonl")]
    files = {str(path.relative_to(weeks.root)): path.read_bytes() for path in sorted(paths)}
    grown(tmp_path / "home", files, random.Random(5), 3, logs(tmp_path, "grown"))
    whole = logs(tmp_path, "whole")
    sync.run(str(whole), found(weeks.root))
    assert kept(tmp_path / "grown") == kept(whole) != {}
    again = sync.run(str(whole), found(weeks.root), backfill=True)
    assert again and not any(outcome.rounds for outcome in again)


def test_a_file_read_halfway_by_an_older_version(tmp_path: pathlib.Path) -> None:
    script = Claude()
    script.human("the beginning of it all")
    script.does("Read", file_path="/x")
    path = put(tmp_path / "home" / FOLDER / "s1.jsonl", script.bytes())
    log = logs(tmp_path, "log")
    sync.run(str(log), found(tmp_path / "home"))
    cursors = json.loads((log / "cursors.json").read_bytes())[1]
    for held in cursors["sources"]["claude-code-jsonl"].values():
        held[-1] = json.loads(held[-1])  # its state, as it was kept before there were rounds
        held[-1].pop("work")
    (log / "cursors.json").write_text(json.dumps(cursors))
    shutil.rmtree(log / "events")
    script.does("Read", file_path="/y")
    script.human("the second one of them")
    script.does("Read", file_path="/z")
    path.write_bytes(script.bytes())
    sync.run(str(log), found(tmp_path / "home"))
    (half,) = kept(log).values()
    assert half["counts"]["read_calls"] == 1 and half["ts"] == script.lines[-3]["timestamp"]
    sync.run(str(log), found(tmp_path / "home"), backfill=True)
    assert total(list(kept(log).values()))["read_calls"] == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def changed(value: Any, rng: random.Random, other: Any) -> Any:
    """A JSON value with one thing somewhere in it replaced or left out."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        key = rng.choice(list(value) if isinstance(value, dict) else list(range(len(value))))
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        if rng.random() < 0.2:
            del copy[key]
        else:
            copy[key] = changed(copy[key], rng, other)
        return copy
    return other


@examples(60)
@given(other=JSON | st.binary(max_size=30), rng=st.randoms(use_true_random=False))
def test_whatever_stands_in_a_file(other: Any, rng: random.Random, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("fuzz")
    for name, content in constructed().items():
        rows = content.splitlines(keepends=True)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(rows))
            if isinstance(other, bytes):
                cut = rng.randrange(len(rows[at]))
                rows[at] = rows[at][:cut] + other + rows[at][rng.randrange(len(rows[at])) :]
            else:
                with contextlib.suppress(ValueError):
                    rows[at] = json.dumps(changed(json.loads(rows[at]), rng, other)).encode() + b"\n"
        put(tmp_path / "home" / name, b"".join(rows))
    log = logs(tmp_path, "log")
    sync.run(str(log), found(tmp_path / "home"), jobs=1)
    for event in kept(log).values():
        assert not fields.fault(event), fields.fault(event)
    shutil.rmtree(tmp_path)


def test_usage_is_as_it_was(run: Run, home: pathlib.Path) -> None:
    for name, content in constructed().items():
        put(home / name, content)
    rolled = run("tok-read | tok-rollup --by session,model").stdout
    run("tok-sync")
    assert run("tok-cat | tok-rollup --by session,model").stdout == rolled
    assert run("tok-cat | tok-cost --json").stdout == run("tok-read | tok-cost --json").stdout
    assert {event["kind"] for event in objects(run("tok-read").stdout)} == {"turn"}
    run("tok-log verify")
    run("tok-log compact")
    assert total(objects(run("tok-cat | jq -c 'select(.kind == \"work\")'").stdout))["prompts"] > 9


def test_a_broken_line_of_a_user_is_no_matter(run: Run, home: pathlib.Path) -> None:
    script = Claude()
    script.human("look at the parser of the reader")
    broken = b'{"type":"user","message":{"role":"user","content":"torn}\n'
    put(
        home / FOLDER / "s1.jsonl",
        script.bytes(),
        broken,
        b'{"type":"user","timestamp":"never","message":{}}\n',
        claude("msg_1"),
    )
    assert [found["prompts"] for found in counts(rounds(run))] == [1]


@pytest.mark.parametrize("model", ["", [], 7, None])
def test_a_model_that_is_no_name(model: Any, run: Run, home: pathlib.Path) -> None:
    put(home / FOLDER / "s1.jsonl", claude("msg_1", m_model=model), claude("msg_2"))
    assert len(objects(run("tok-read").stdout)) == 2


# Real logs, counted by others ---------------------------------------------------------------------------------------------


class Counted(NamedTuple):
    """A home, and what tok-sync makes of it."""

    root: pathlib.Path
    rounds: dict[str, Json]

    def of(self, client: str) -> Counter[str]:
        """The sums of a client."""
        return total([event for event in self.rounds.values() if event["client"] == client])


def jq(root: pathlib.Path, program: str, folder: str) -> list[Any]:
    """What jq makes of the lines of a home's files, broken ones left out."""
    paths = sorted((root / folder).rglob("*.jsonl"))
    data = b"".join(path.read_bytes() + b"\n" for path in paths)
    done = subprocess.run(["jq", "-cR", f"fromjson? | {program}"], input=data, capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


TIMED = 'select(.timestamp | type == "string" and startswith("20"))'
REFUSED = ("The user doesn't want", "Permission prompt was aborted", "Claude requested permissions")
CUT = ("[Request interrupted", "<tool_use_error>Sibling")


def tools_of_claude_code(home: Counted) -> None:
    calls = jq(
        home.root,
        f'{TIMED} | select(.type == "assistant") | .message.content[]? | select(.type == "tool_use" and .id != null) | [.id, .name]',
        ".claude",
    )
    names = dict(calls)
    results = jq(home.root, f'{TIMED} | select(.type == "user") | .message.content | arrays | .[] | select(.type == "tool_result" and .tool_use_id != null) | [.tool_use_id, .is_error // false, (.content | if type == "array" then map(.text? // "") | add else . end)]', ".claude")  # fmt: skip
    answered = {call: (bad, text or "") for call, bad, text in results if call in names}
    bad = [text.strip() for failed, text in answered.values() if failed]
    refused, cut = sum(text.startswith(REFUSED) for text in bad), sum(text.startswith(CUT) for text in bad)
    sums = home.of("claude-code")
    nameless = jq(
        home.root,
        f'{TIMED} | select(.type == "assistant") | .message.content[]? | select(.type == "tool_use" and .id == null)',
        ".claude",
    )
    assert sums["tool_calls"] == len(names) + len(nameless)
    assert sums["tool_results"] == len(answered)
    assert (sums["tool_denials"], sums["tool_cancels"], sums["tool_failures"]) == (refused, cut, len(bad) - refused - cut)
    edits = {"Edit", "Write", "MultiEdit", "NotebookEdit"}
    assert sums["edits"] == sum(names[call] in edits and not failed for call, (failed, _) in answered.items())
    assert sums["read_calls"] == sum(name in ("Read", "BashOutput", "TaskOutput") for name in names.values())


def commands_of_codex(home: Counted) -> None:
    program = f'{TIMED} | select(.type == "response_item") | .payload | select(.type == "function_call" or .type == "custom_tool_call") | [.name, .call_id]'
    names = Counter(name for name, call in jq(home.root, program, ".codex") if call)
    outputs = jq(home.root, f'{TIMED} | select(.type == "response_item") | .payload | select(.type == "function_call_output" or .type == "custom_tool_call_output") | .output | if type == "string" then . else "" end', ".codex")  # fmt: skip
    exited = 0
    for text in outputs:
        if text.startswith('{"output"'):
            exited += json.loads(text).get("metadata", {}).get("exit_code", 0) != 0
        elif text.startswith(("Chunk ID", "Wall time", "Exit code")):
            head = text[:300].splitlines()
            said = [line.rsplit(" ", 1)[1] for line in head if line.startswith(("Process exited with code", "Exit code:"))]
            exited += bool(said) and said[0] != "0"
    plain = sum(text.startswith(("apply_patch verification failed", "failed to parse", "unsupported call", "err", "Err", "exec_command failed", "patch rejected", "execution error")) for text in outputs)  # fmt: skip
    sums = home.of("codex")
    assert sums["command_calls"] + sums["edit_calls"] == sum(
        names[name] for name in ("exec_command", "shell", "apply_patch")
    )
    assert sums["tool_denials"] == sum(
        text.startswith(("exec command rejected by user", "patch rejected by user")) for text in outputs
    )
    assert sums["tool_failures"] == exited + plain


QUIET = r"""(?s)<<-?\s*['"]?(\w+)['"]?.*?\n\s*\1|'[^']*'|"[^"]*\"|#[^\n]*"""
BAD = (
    r"(?:^|[;&|(\n]\s*|\bsudo\s+|\bdo\s+|\bthen\s+)(?:rm\s+(?:-\w+\s+)*-\w*[rR]|git(?:\s+-C\s+\S+)?\s+(?:push\b[^;&|\n]*\s(?:--force|-f)(?=\s|$)"
    r"|commit\b[^;&|\n]*--no-verify|reset\b[^;&|\n]*--hard|clean\b[^;&|\n]*-\w*f|branch\b[^;&|\n]*\s-D\b|stash\s+(?:drop|clear)|checkout\s+(?:--\s+)?\.(?:\s|$))"
    r"|killall\b|pkill\b|find\b[^;&|\n]*-delete|chmod\b[^;&|\n]*\b777\b|dd\s+[^;&|\n]*of=|docker\s+(?:system|volume)\s+(?:prune|rm)|truncate\b|gh\s+(?:repo|release)\s+delete)"
)  # fmt: skip


def destructive_commands(home: Counted) -> None:
    import re

    shells = jq(
        home.root,
        f'{TIMED} | select(.type == "assistant") | .message.content[]? | select(.type == "tool_use" and .name == "Bash") | .input.command',
        ".claude",
    )
    codex = jq(home.root, f'{TIMED} | .payload | objects | select(.type == "function_call" and (.name == "exec_command" or .name == "shell")) | .arguments | fromjson | .cmd // .command', ".codex")  # fmt: skip
    shells += [
        " ".join(line[2:]) if isinstance(line, list) and line[1:2] in (["-lc"], ["-Command"]) else line for line in codex
    ]
    plain = [str(line) for line in shells if line]
    counted = sum(re.search(BAD, re.sub(QUIET, " ", line)) is not None for line in plain)
    assert home.of("claude-code")["destructive"] + home.of("codex")["destructive"] == counted > 20


def repeated_reads_and_commands(home: Counted) -> None:
    reads = runs = 0
    for path in sorted((home.root / ".claude/projects").rglob("*.jsonl")):
        seen: dict[str, set[Any]] = {}
        ran: set[str] = set()
        open_edits: dict[str, str] = {}
        known: set[str] = set()
        for text in path.read_bytes().split(b"\n"):
            try:
                raw = json.loads(text)
            except ValueError:
                continue
            if not isinstance(raw, dict) or not str(raw.get("timestamp")).startswith("20"):
                continue
            if raw.get("type") == "system" and raw.get("subtype") == "compact_boundary":
                seen.clear()
            content = (raw.get("message") or {}).get("content")
            for part in content if isinstance(content, list) else ():
                if not isinstance(part, dict):
                    continue
                if part.get("type") == "tool_use" and raw["type"] == "assistant":
                    given = part.get("input") or {}
                    known.add(str(part.get("id")))
                    if part["name"] in ("Edit", "Write", "MultiEdit", "NotebookEdit"):
                        open_edits[part["id"]] = given.get("file_path") or given.get("notebook_path")
                    elif part["name"] in ("Read", "BashOutput", "TaskOutput") and (
                        given.get("file_path") or given.get("path")
                    ):
                        what = (given.get("offset"), given.get("limit"), given.get("pages"))
                        parts = seen.setdefault(given.get("file_path") or given.get("path"), set())
                        reads += what in parts
                        parts.add(what)
                    elif part["name"] == "Bash" and given.get("command"):
                        runs += given["command"] in ran
                        ran.add(given["command"])
                elif (
                    part.get("type") == "tool_result" and not part.get("is_error") and part.get("tool_use_id") in open_edits
                ):
                    seen.pop(open_edits.pop(part["tool_use_id"]), None)
                    ran.clear()
    sums = home.of("claude-code")
    assert (sums["repeated_reads"], sums["repeated_commands"]) == (reads, runs)
    assert reads > 5 and runs > 5


def prompts_of_codex(home: Counted) -> None:
    typed = jq(
        home.root,
        'select(.type == "event_msg" and .payload.type == "user_message" and (.timestamp | startswith("20"))) | .payload | .message',
        ".codex",
    )
    # One file of the real ones, made for tests by others, has prompts that stand there as items only.
    assert home.of("codex")["prompts"] == len(typed) + (5 if home.root.is_relative_to(SHARED) else 0)


CHECKS = [tools_of_claude_code, commands_of_codex, destructive_commands, repeated_reads_and_commands, prompts_of_codex]
with_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="it needs jq")


@with_jq
def test_weeks_of_logs_are_counted_as_others_count_them(tmp_path: pathlib.Path) -> None:
    """Without forks: jq counts their lines again."""
    counted_as_by_others(Home(tmp_path / "home", forks=False).root, tmp_path / "log")


@needs_shared
@with_jq
def test_real_logs_are_counted_as_others_count_them(tmp_path: pathlib.Path) -> None:
    counted_as_by_others(SHARED / "home", tmp_path)


def counted_as_by_others(root: pathlib.Path, log: pathlib.Path) -> None:
    log.mkdir(mode=0o700, exist_ok=True)
    sync.run(str(log), found(root))
    home = Counted(root, kept(log))
    for check in CHECKS:
        check(home)


# Nothing of what anybody said -----------------------------------------------------------------------------------------------


def test_no_text_stays_anywhere(run: Run, home: pathlib.Path, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    words = ["zirkonblau", "quarzgelb", "opalrot", "achatgrau", "topasbraun", "granatlila"]
    script = Claude()
    script.human(f"please {words[0]} the parser of the reader")
    script.says(f"I will {words[1]} it. Shall I?")
    script.does("Bash", command=f"rm -rf {words[2]}", text=words[3], error=True)
    script.does("Read", file_path=f"/home/ada/{words[2]}")
    script.line(type="queue-operation", operation="enqueue", content=f"and {words[4]} it")
    script.human(f"ok, do {words[0]} again")
    codex = Codex()
    codex.turn()
    codex.human(f"please {words[5]} it")
    codex.says(words[1])
    codex.runs(f"git push --force {words[2]}")
    put(home / FOLDER / "s1.jsonl", script.bytes(), b'{"type":"user","message":"' + words[0].encode() + b"\n")
    put(home / rollout(codex), codex.bytes())
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {"TMPDIR": str(temporary), "TOKENOPS_NOW": "2026-06-02T00:00:00Z", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    out = b""
    for line in ("tok-sync", "tok-coach prompts --since 120d", "tok-coach replies --since 120d", "tok-coach prompts --table --since 120d", "tok-sync --backfill", "tok-log compact"):  # fmt: skip
        done = run(line, status=None, env=env)
        assert done.returncode in (0, 1), done.stderr
        out += done.stdout + done.stderr
    places = [environment["TOKENOPS_HOME"], environment["XDG_CACHE_HOME"], str(temporary), str(tmp_path / "config")]
    held = {path: path.read_bytes() for place in places for path in pathlib.Path(place).rglob("*") if path.is_file()}
    assert any(path.name == "cursors.json" for path in held)
    for word in words:
        assert word.encode() not in out
        for path, content in held.items():
            assert word.encode() not in content, (word, path)
    shown = run("tok-coach prompts --since 120d --samples --limit 1", status=None, env=env).stdout
    assert b"findings" in shown


def test_summed() -> None:
    made = [
        {"counts": {"prompts": 1, "largest_result_bytes": 5}, "session_id": "a"},
        {"counts": {"prompts": 2, "largest_result_bytes": 3}, "session_id": "a"},
    ]
    assert work.totals_by(made, lambda event: event["session_id"]) == {"a": {"prompts": 3, "largest_result_bytes": 5}}
