"""What is right in the cases of proxy/, readers/, truth/ and clients/, after the READMEs of ../shared/cases."""

from __future__ import annotations

import collections
import functools
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from typing import Any

from case_room import (
    CHECKS,
    COUNTS,
    ROLLOUT,
    YEARS,
    Ended,
    Json,
    NotRun,
    Room,
    check_of,
    claude_line,
    codex_count,
    codex_lines,
    conversation,
    counts,
    judge_status,
    names_line,
    no_steering,
    refused_at_the_doors,
    total,
    turn,
)

# proxy/


def kept_homes(room: Room) -> tuple[Ended, list[list[Json]]]:
    """Runs a case of proxy/ that keeps its HOMEs; the events in the log of each, in the order in which they were made."""
    with open(room.folder.parent / "rig.py", "a") as file:
        file.write("\nHome.gone = lambda self: None\n")
    ended = room.script()
    homes = sorted(room.temporary.glob("tokenops-case-*"), key=lambda home: (home / ".config").stat().st_mtime_ns)
    logs = []
    for home in homes:
        days = sorted((home / ".local/share/tokenops/events").glob("*.jsonl"))
        logs.append([json.loads(line) for day in days for line in day.read_text().splitlines()])
    return ended, logs


@check_of("proxy/error-in-a-200")
def error_in_a_200(room: Room) -> None:
    ended, logs = kept_homes(room)
    judge_status(room, ended)
    failed, begun = ([event for event in log if event["kind"] == "turn"] for log in logs)
    room.equal(
        "nothing but the error: turns, errors", [(event.get("turns"), event.get("errors")) for event in failed], [(None, 1)]
    )
    room.equal("the error after message_start: usage", [event.get("usage") for event in begun], ["partial"])


@check_of("proxy/stream-without-its-last-word")
def stream_without_its_last_word(room: Room) -> None:
    ended, logs = kept_homes(room)
    judge_status(room, ended)
    states = [
        (event.get("usage"), bool(event.get("usage_reason"))) for log in logs for event in log if event["kind"] == "turn"
    ]
    room.equal("usage, and whether a reason is given", states, [("partial", True)] * 2)


@check_of("proxy/websocket-failures")
def websocket_failures(room: Room) -> None:
    """The script asks only for some event; what the README says of each is asked for here."""
    ended, logs = kept_homes(room)
    judge_status(room, ended)
    refused, failed, cut = logs
    meters = [(event.get("window_minutes"), event.get("used")) for event in refused if event["kind"] == "meter"]
    room.check(any(event.get("errors") == 1 for event in refused), "the wrapped 429 is no event with errors: 1")
    room.check((300, 1) in meters, f"the wrapped 429 gives no reading of five hours at 100 %: {meters}")
    room.check(
        any(event.get("status") == "rejected" for event in refused if event["kind"] == "meter"),
        "the wrapped 429 gives no rejected window",
    )
    room.check(
        any(event.get("errors") == 1 and "server_is_overloaded" in str(event.get("error")) for event in failed),
        "response.failed is no event with errors: 1 and its code",
    )
    room.check(
        any(event.get("usage") == "unknown" for event in cut), "the answer that was cut is no turn with usage: unknown"
    )


@check_of("proxy/tunnel-unasked")
def tunnel_unasked(room: Room) -> None:
    ended = room.script()
    judge_status(room, ended)
    room.check(" 502 " in ended.out, "the client gets no 502")


@check_of("proxy/length-twice")
def length_twice(room: Room) -> None:
    """Where the request is refused, the script no longer sees an answer: a single request asks for that."""
    judge_status(room, room.script())
    rig = room.rig()

    def answer(connection: Any) -> None:
        rig.head_of(connection)
        connection.sendall(rig.reply({}, more="Content-Length: 2\r\n"))

    home = rig.Home(rig.providers(rig.Vendor(answer).port, "openai"))
    with rig.proxy(home) as port:
        back = rig.send(port, rig.post("/openai/v1/x", {}), 0.5)
    lengths = back.partition(b"\r\n\r\n")[0].lower().count(b"content-length")  # an error may name the field in its text
    room.check(
        back[9:12] == b"502" or lengths == 1, f"an answer with two lengths reaches the client with {lengths}: {back[:60]!r}"
    )


# readers/


@check_of("readers/codex-compaction-usage")
def codex_compaction_usage(room: Room) -> None:
    turns = room.user("home").turns("tok-read", "codex")
    right = [(10_000, 10_000, 700), (10_000, 90_000, 500), (30_000, 200_000, 4_000)]
    room.equal("input, cached, output of each turn", counts(turns), right)


@check_of("readers/codex-zst")
def codex_zst(room: Room) -> None:
    right = [("2026-11-02T10:00:05.000Z", 4400, 600, 150), ("2026-11-20T10:00:05.000Z", 400, 600, 50)]

    def rows(turns: list[Json]) -> list[tuple[Any, ...]]:
        return sorted((event["ts"], *(event.get(name, 0) for name in COUNTS)) for event in turns)

    program = shutil.which("zstd", path=room.environment()["PATH"])
    modules = {name for name in ("compression.zstd", "zstandard", "pyzstd", "backports.zstd") if importable(name)}
    user = room.user("home")
    if program or modules:
        room.equal("turns of tok-read codex", rows(user.turns("tok-read", "codex")), right)
        user.run("tok-sync")
        room.equal("turns in the log", rows(user.turns()), right)
    if program:  # a rollout that was read before it was compressed adds nothing; where both stand, the plain one counts
        both = room.user("home")
        (packed,) = both.home.rglob("*.zst")
        subprocess.run([program, "-q", "-d", str(packed)], check=True)
        room.equal("turns where the plain file stands beside it", rows(both.turns("tok-read", "codex")), right)
        packed.rename(packed.with_name("aside"))
        both.run("tok-sync")
        packed.with_name("aside").rename(packed)
        packed.with_suffix("").unlink()
        both.run("tok-sync")
        room.equal("turns in the log, read before and after it was compressed", rows(both.turns()), right)
    if not modules:
        path = os.pathsep.join((str(room.root / "bin"), os.path.dirname(sys.executable)))
        if not shutil.which("zstd", path=path):
            ended = room.user("home").run("tok-read", "codex", env={"PATH": path})
            room.check("zst" in ended.err, "without a way to unpack, no hint is given")
            room.equal("turns without a way to unpack", rows(ended.records), right[1:])


def importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


@check_of("readers/control-characters")
def control_characters(room: Room) -> None:
    user = room.user("home")
    events = user.run("tok-read").stdout
    for form in (
        ["--by", "model", "--table"],
        ["--by", "project", "--table"],
        ["--by", "session", "--markdown"],
        ["--by", "project", "--markdown"],
    ):
        ended = user.run("tok-cost", *form, stdin=events)
        no_steering(room, f"tok-cost {' '.join(form)}", ended.out, ended.err)
        if form[1] == "project":
            whole = any("two" in line and "lines" in line for line in ended.out.splitlines())
            room.check(whole, f"a name with a line's end breaks its row in two in tok-cost {' '.join(form)}")


@check_of("readers/cowork")
def cowork(room: Room) -> None:
    right = [("msg_01CoworkA", (10, 0, 100)), ("msg_01CoworkB", (10, 0, 100))]
    user = room.user("home")

    def rows(*command: str) -> list[tuple[str, tuple[int, ...]]]:
        return sorted((event["id"], counts([event])[0]) for event in user.turns(*command))

    room.equal("turns of tok-read", rows("tok-read"), right)
    root = ".config/Claude/local-agent-mode-sessions"
    room.equal("turns of tok-read claude --root", rows("tok-read", "claude", "--root", root), right[1:])
    notes = [
        row.get("note", "") for row in user.run("tok-init", "--detect").records if row.get("client") == "claude-desktop"
    ]
    room.check(
        not any(re.search(r"\bno (\w+ )?logs?\b", note) for note in notes),
        f"tok-init --detect says of Claude Desktop: {notes}",
    )


@check_of("readers/fifo")
def fifo(room: Room) -> None:
    user = room.made_user()
    for command in (["tok-read", "opencode"], ["tok-read", "gemini"], ["tok-sync"]):
        ended = user.run(*command, seconds=20)
        room.check(ended.status in (None, 0, 1), f"status of {' '.join(command)}: {ended.status}, right is 0 or 1")


@check_of("readers/gemini-subagents")
def gemini_subagents(room: Room) -> None:
    turns = room.user("home").turns("tok-read", "gemini")
    rows = sorted((*counts([event])[0], event.get("sidechain", False)) for event in turns)
    right = [(1_000, 0, 50, False), (7_000, 0, 70, True), (40_000, 0, 400, True)]
    room.equal("input, cached, output, side chain of each turn", rows, right)


@check_of("readers/half-a-character")
def half_a_character(room: Room) -> None:
    user = room.user("home")
    room.equal("projects of tok-read", sorted(event["project"] for event in user.turns("tok-read")), ["orchard", "tree?"])
    user.put(".claude/projects/-y/s3.jsonl", claude_line("session", sessionId="s\ud83c"))  # the same in a session id,
    user.put(
        ROLLOUT, *codex_lines(codex_count(1000, 1000), cwd="/home/ada/knot\ud83c", model="gpt-6.1-sol\ud83c")
    )  # and of Codex
    for _ in range(2):
        user.run("tok-sync")
    room.equal(
        "projects in the log", sorted(event["project"] for event in user.turns()), ["knot?", "orchard", "orchard", "tree?"]
    )
    other = room.made_user()
    other.run("tok-sync")
    room.equal("turns of a file whose name is no UTF-8", len(other.turns()), 1)


@check_of("readers/huge-counts")
def huge_counts(room: Room) -> None:
    for name, place, right in (
        ("u64", "s1.jsonl:2", [(10, 0, 100)]),
        ("float", "s1.jsonl:2", [(10, 0, 100)]),
        # Of the rollout's second line only the totals are absurd: to reject it and to count what it says of itself are both right.
        ("codex", ".jsonl:4", [(0, 0, 0), (0, 100, 10)]),
    ):
        user = room.user(name)
        names_line(room, f"tok-sync of {name}", user.run("tok-sync"), place)
        user.run("tok-sync")
        rows = user.run("tok-cost", "--log", "--by", "none", "--since", "30d", "--json").records
        came = total(rows)
        room.check(came in right, f"counted of {name}: {came}, right is {' or '.join(map(str, right))}")
    counts_of = {
        "2^64": str(1 << 64),
        "2^64 - 1": str((1 << 64) - 1),
        "1e30": "1e30",
        "10^400": "1" + "0" * 400,
        "-1": "-1",
        "NaN": "NaN",
    }
    refused_at_the_doors(
        room,
        {
            f"{name} tokens": turn("bad").replace('"output_tokens":7', f'"output_tokens":{text}')
            for name, text in counts_of.items()
        },
    )


@check_of("readers/link-to-itself")
def link_to_itself(room: Room) -> None:
    user = room.made_user()
    room.equal("turns of tok-read", len(user.turns("tok-read")), 1)
    synced = user.run("tok-sync")
    room.check(synced.status in (0, 1), f"status of tok-sync: {synced.status}: {synced.err.strip()[:120]}")
    room.equal("turns in the log", len(user.turns()), 1)
    room.equal("status of tok-status", user.run("tok-status").status, 0)


@check_of("readers/one-folder-many-spellings")
def one_folder_many_spellings(room: Room) -> None:
    user = room.user("home")
    read = user.turns("tok-read")
    user.run("tok-sync")
    for what, turns in (("tok-read", read), ("the log", user.turns())):
        projects = collections.defaultdict(set)
        for event in turns:
            projects[event.get("project_id"), event["project"]].add(event["session_id"])
        came = sorted(sorted(sessions) for sessions in projects.values())
        room.equal(f"sessions of each project in {what}", came, [["s0", "s1", "s2", "s3"], ["s4", "s5", "s6"]])


@check_of("readers/stdout-no-utf8")
def stdout_no_utf8(room: Room) -> None:
    user = room.user("home")
    events = user.run("tok-read").stdout
    ended = user.run("tok-cost", "--by", "project", "--table", stdin=events, env={"PYTHONIOENCODING": "latin-1"})
    room.equal("status", ended.status, 0)
    room.check("??" in ended.stdout.decode("latin-1"), "no table with ? for what cannot be shown")


@check_of("readers/torn-then-whole")
def torn_then_whole(room: Room) -> None:
    user = room.user("home")
    ended = user.run("tok-read")
    turns = [event for event in ended.records if event["kind"] == "turn"]
    claude = sorted((event["id"], event["output_tokens"]) for event in turns if event["client"] == "claude-code")
    right = [("msg_01After", 100), ("msg_01Before", 100), ("msg_01Whole", 5000)]
    room.equal("turns of Claude Code", claude, right)
    codex = sorted(event["output_tokens"] for event in turns if event["client"] == "codex")
    room.equal("output of Codex's turns", codex, [40, 50])
    names_line(room, "tok-read", ended, "s1.jsonl:2", "000000000001.jsonl:4")


@check_of("readers/tz-posix-sign")
def tz_posix_sign(room: Room) -> None:
    now = "2026-11-29T22:21:00Z"
    event = turn("a", "2026-11-29T22:21:00.000Z").encode()
    for zone, right in {
        "UTC-8": "2026-11-30 06:21",
        "GMT+3": "2026-11-29 19:21",
        "<+08>-8": "2026-11-30 06:21",
        "CST-8": "2026-11-30 06:21",
        "EST5EDT": "2026-11-29 17:21",
        "CET-1CEST,M3.5.0,M10.5.0/3": "2026-11-29 23:21",
    }.items():
        day, clock = right.split()
        user = room.user()
        rows = user.run("tok-rollup", "--by", "day", stdin=event, env={"TZ": zone, "TOKENOPS_NOW": now}).records
        room.equal(f"TZ={zone}: the day", [row["bucket"] for row in rows], [day])
        ended = user.run("tok-cost", "--log", "--table", env={"TZ": zone, "TOKENOPS_NOW": now})
        heading = (ended.out.splitlines() or [""])[0]
        room.equal(f"TZ={zone}: status of tok-cost", ended.status, 0)
        room.check("tzstr" not in heading, f"TZ={zone}: the heading calls the zone tzstr")
        times = re.findall(r"as of (?:\S+ )?(\d\d:\d\d)", heading)
        room.check(not heading or times == [clock], f"TZ={zone}: as of {times}, right is {clock}")


@check_of("readers/until-compact-date")
def until_compact_date(room: Room) -> None:
    user, right = room.user("home"), ["2026-11-19", "2026-11-20"]
    events = user.run("tok-read").stdout
    for until in ("2026-11-20", "20261120", "2026-W47-5"):
        ended = user.run("tok-cost", "--by", "day", "--until", until, "--json", stdin=events)
        refused = ended.status == 2 and "2026-" in ended.err and until == "2026-W47-5"
        days = [row["bucket"] for row in ended.records]
        room.check(refused or days == right, f"--until {until}: {days}, right is {right}")


@check_of("readers/worktrees")
def worktrees(room: Room) -> None:
    if not shutil.which("git"):
        raise NotRun("git is not on this machine")
    user = room.made_user()
    right = {"s1": "orchard", "s2": "orchard", "s3": "orchard", "s4": "grove", "s5": "hub"}

    def projects(*command: str) -> dict[str, str]:
        return {event["session_id"]: event["project"] for event in user.turns(*command)}

    room.equal("projects of tok-read", projects("tok-read"), right)
    user.run("tok-sync")
    user.run("git", "-C", "src/orchard", "worktree", "remove", "--force", ".claude/worktrees/zeta")
    room.check(not (user.home / "src/orchard/.claude/worktrees/zeta").exists(), "git did not remove the worktree")
    user.run("tok-sync", "--backfill")
    room.equal("projects in the log after the worktree's removal and --backfill", projects(), right)
    room.equal("projects of tok-read after the removal", projects("tok-read"), right)


@check_of("readers/year-0001")
def year_0001(room: Room) -> None:
    for name in "abc":
        for zone in ("UTC", "America/New_York"):
            user = room.user(name)
            user_run = functools.partial(user.run, env={"TZ": zone})
            names_line(room, f"tok-sync of {name}", user_run("tok-sync", "--table"), "s1.jsonl:2")
            user_run("tok-sync")
            room.equal(f"turns of {name} in the log", [event["id"] for event in user.turns()], ["msg_01Good"])
            ended = user.pipe(["tok-read"], ["tok-cost", "--by", "day", "--json"], env={"TZ": zone})
            days = [(row.get("bucket"), row.get("turns")) for row in ended.records]
            room.equal(f"days of {name}", days, [("2026-11-20", 1)])
            user_run("tok-cost", "--log", "--since", "0001-01-01")
            user_run("tok-cat", "--since", "0001-01-01")
    refused_at_the_doors(room, {year: turn("bad", time) for year, time in YEARS.items()})


# truth/


def codex_sums(turns: int, room: Room) -> None:
    right = json.loads((room.folder / "want.json").read_text()) | {"turns": turns}
    rows = room.user("home").pipe(["tok-read", "codex"], ["tok-rollup", "--by", "model"]).records
    came = {name: sum(row.get(name, 0) for row in rows) for name in right}
    room.equal("sums", came, right)


for _name, _turns in {
    "codex-compaction-record": 4,
    "codex-interrupted-record": 3,
    "codex-interrupted-last": 2,
    "codex-websearch-last": 2,
}.items():
    CHECKS[f"truth/{_name}"] = functools.partial(codex_sums, _turns)


def costs_by_agent(room: Room) -> dict[str, Decimal | None]:
    """What tok-cost says of each agent of events.jsonl; None: unpriced."""
    rows = room.user().run("tok-cost", "--by", "agent", str(room.folder / "events.jsonl")).records
    return {row["agent_id"]: None if row.get("unpriced") else Decimal(row["cost_usd"]) for row in rows}


def dollars(costs: dict[str, Decimal | None]) -> str:
    return ", ".join(f"{agent} {'unpriced' if cost is None else cost.normalize()}" for agent, cost in sorted(costs.items()))


@check_of("truth/price-openai-fast-and-long")
def price_openai_fast_and_long(room: Room) -> None:
    right: dict[str, Decimal | None] = {"a": Decimal("13.5"), "b": Decimal("2.7"), "c": Decimal("8.1")}
    came = costs_by_agent(room)
    room.check(came == right, f"{dollars(came)}; right is {dollars(right)}")


@check_of("truth/price-bedrock-govcloud")
def price_bedrock_govcloud(room: Room) -> None:
    came = costs_by_agent(room)
    room.check(came in ({"a": Decimal("0.0036")}, {"a": None}), f"{dollars(came)}; right is a 0.0036, or unpriced")


# Dollars per million tokens of input and output (facts of 2026-11-29). The facts have no price of mimo-v2.5-pro: unpriced is
# right. They have the peak price of deepseek-v4-flash-vision-exp; the turn is at 20:00 in Beijing, when it costs half.
PRICES = {
    "gemini/gemini-4-hydrogen": ("1.5", "7.5"),
    "gemini/gemini-omni-1.2-flash": ("1.5", "9"),
    "openai/gpt-6-astra-law": ("10", "50"),
    "openai/gpt-daybreak-blue-latest": ("4", "20"),
    "openai/gpt-daybreak-red-latest": ("12.5", "75"),
    "openai/gpt-5.5-cyber-preview": ("12.5", "75"),
    "xai/grok-build-latest": ("2", "6"),
    "xai/grok-4.20-reasoning": ("1.25", "2.5"),
    "xai/grok-4.20-non-reasoning": ("1.25", "2.5"),
    "mistral/mistral-vibe-cli-latest": ("1.5", "7.5"),
    "mistral/mistral-vibe-cli-fast": ("0.15", "0.6"),
    "mistral/mistral-code-agent-latest": ("0.4", "2"),
    "mistral/mistral-code-latest": ("0.3", "0.9"),
    "mistral/mistral-large-3": ("0.5", "1.5"),
    "mistral/ministral-14b-latest": ("0.2", "0.2"),
    "mistral/zai-glm-5-2": ("1.4", "4.4"),
    "deepseek/deepseek-v4-flash-vision-exp": ("0.15", "0.6"),
    "azure/claude-opus-5-5": ("4", "20"),
    "zai/glm-5.3": ("1.4", "4.4"),
    "moonshot/kimi-k3": ("3", "15"),
    "minimax/MiniMax-M3": ("0.3", "1.2"),
    "alibaba/qwen3.8-max": ("2", "6"),
}


@check_of("truth/price-missing-current")
def price_missing_current(room: Room) -> None:
    came = costs_by_agent(room)
    right = {
        agent: (1000 * Decimal(input_) + 100 * Decimal(output)) / 1_000_000 for agent, (input_, output) in PRICES.items()
    }
    room.check(all(cost is None or cost for cost in came.values()), "a model costs $0")
    wrong: dict[str, Decimal | None] = {agent: came.get(agent) for agent, cost in right.items() if came.get(agent) != cost}
    room.check(not wrong, f"{len(wrong)} of {len(right)} are not as the facts say: {dollars(wrong)}")


def read_body(room: Room, provider: str, content_type: str, name: str) -> list[Any]:
    """What the modules of the wire read in a recorded body: read.py of truth/, through the present API."""
    sys.path.insert(0, str(room.root / "bin"))
    from tokenops import wire_body, wire_usage  # this checkout's

    reading = wire_usage.Answer(provider)
    body = wire_body.Body(content_type, "", reading)
    body.feed((room.folder / name).read_bytes())
    body.finish()
    return list(reading.usages())


@check_of("truth/wire-perplexity-deep-research")
def wire_perplexity_deep_research(room: Room) -> None:
    (row,) = read_body(room, "perplexity", "application/json", "body.json") or [None]
    if row is None:
        room.fault("nothing is read")
        return
    room.equal("output, reasoning", (row.counts.get("output_tokens"), row.counts.get("reasoning_tokens")), (77_000, 70_000))
    about = {
        "v": 1,
        "ts": "2026-05-01T00:00:00.000Z",
        "kind": "turn",
        "id": "c1",
        "source": "test",
        "provider": "perplexity",
    }
    event = about | {"model": row.model, "turns": 1, **row.counts}
    event |= {"search_context": row.search_context} if row.search_context else {}
    event |= {"cost_usd": row.cost_usd, "cost_source": row.cost_source} if row.cost_usd else {}
    rows = room.user().run("tok-cost", stdin=json.dumps(event).encode()).records
    room.equal("dollars", [row.get("cost_usd") for row in rows], ["0.396066"])


@check_of("truth/wire-sse-declared-json")
def wire_sse_declared_json(room: Room) -> None:
    rows = read_body(room, "openai", "application/json", "body.sse")
    room.equal(
        "input, output", [(row.counts.get("input_tokens"), row.counts.get("output_tokens")) for row in rows], [(17, 19)]
    )


# clients/

SOURCE, FORK = "11111111-1111-4111-8111-111111111111", "99999999-9999-4999-8999-999999999999"


@check_of("clients/claude-branch", "clients/claude-fork-session")
def claude_fork(room: Room) -> None:
    right = [("msg_01first", SOURCE), ("msg_01second", FORK)]
    user = room.user("home")
    room.equal("sessions", sorted((event["id"], event["session_id"]) for event in user.turns("tok-read", "claude")), right)
    user.run("tok-sync")
    room.equal("sessions in the log", sorted((event["id"], event["session_id"]) for event in user.turns()), right)


@check_of("clients/claude-cost-state")
def claude_cost_state(room: Room) -> None:
    fields = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")
    user = room.user("home")
    records = user.run("tok-read", "claude").records
    rows = [tuple(record.get(name, 0) for name in fields) for record in records if record.get("covers") == "remainder"]
    room.equal("what no line has: input, output, read, written, written for 1 h", rows, [(70, 400, 1160, 3, 2)])
    room.equal("turns", [counts([event]) for event in records if event["kind"] == "turn"], [[(100, 1000, 50)]])
    for _ in range(2):
        user.run("tok-sync")
    spend = user.run("tok-cost", "--log", "--by", "none", "--since", "2026-11-01", "--json").records
    sums = tuple(sum(row.get(name, 0) for row in spend) for name in fields)
    room.equal("sums of tok-cost", sums, (170, 450, 2160, 13, 7))
    user.run("tok-cost", "--reconcile", "--since", "2026-11-01")


@check_of("clients/claude-mcp-deferred")
def claude_mcp_deferred(room: Room) -> None:
    """What makes Claude Code show the tool at once stands in the list of tools; the client itself is not run here."""
    answers = conversation(room.user(), [], ("tools/list", {}))
    tools = answers.get(1, {}).get("result", {}).get("tools", [])
    budget = {
        tool["name"]: (tool.get("_meta") or {}).get("anthropic/alwaysLoad") for tool in tools if "budget" in tool["name"]
    }
    room.check(bool(budget), "tools/list has no tool for the budget")
    room.check(any(value is True for value in budget.values()), f"_meta anthropic/alwaysLoad is not true: {budget}")


@check_of("clients/claude-quota-limits")
def claude_quota_limits(room: Room) -> None:
    records = room.user("home").run("tok-read", "claude").records
    meters = [
        (record.get("window"), record.get("used"), record.get("resets_at"))
        for record in records
        if record["kind"] == "meter"
    ]
    room.equal("window, used, resets_at", meters, [("five_hour", 1, "2026-11-30T00:53:20.000Z")])


@check_of("clients/codex-killed-in-tool")
def codex_killed_in_tool(room: Room) -> None:
    turns = room.user("home").turns("tok-read", "codex")
    rows = [(*counts([event])[0], event.get("reasoning_tokens")) for event in turns]
    room.equal("input, read, output, reasoning", rows, [(1007, 20013, 202, 41)])


@check_of("clients/codex-long-tool")
def codex_long_tool(room: Room) -> None:
    turns = room.user("home").turns("tok-read", "codex")
    room.equal("input, read, output", counts(turns), [(1007, 20013, 202), (1014, 20026, 204)])
    first = min(turns, key=lambda event: event["output_tokens"])
    on_time = "2026-11-29T10:00:00.000Z" <= first["ts"] <= "2026-11-29T23:50:02.001Z"
    room.check(on_time, f"the first turn is at {first['ts']}, right is 2026-11-29T23:50:02 or before")
    room.equal("ids", sorted(event["id"] for event in turns), ["resp_one", "resp_two"])


@check_of("clients/cline-cli")
def cline_cli(room: Room) -> None:
    turns = room.user("home").turns("tok-read")
    right = [(1035, 20065, 210), (1042, 20078, 212), (1049, 20091, 214), (1056, 20104, 216)]
    room.equal("input, read, output", counts(turns), right)
    room.equal("turns of a side chain", sum(bool(event.get("sidechain")) for event in turns), 2)


@check_of("clients/gemini-subagent")
def gemini_subagent(room: Room) -> None:
    turns = room.user("home").turns("tok-read", "gemini")
    rows = sorted((bool(event.get("sidechain")), event["session_id"]) for event in turns)
    session = "aaaaaaaa-1111-4111-8111-111111111111"
    room.equal("side chain and session of each turn", rows, [(False, session), (True, session), (True, session)])


@check_of("clients/grok-build")
def grok_build(room: Room) -> None:
    records = [record for record in room.user("home").run("tok-read").records if record.get("kind") in ("turn", "usage")]
    right = sorted([(42460 - 40299, 40299, 446), (42580 - 40377, 40377, 458)])
    room.equal("input, read, output of each prompt", counts(records), right)


@check_of("clients/grok-build#stream")
def grok_build_stream(room: Room) -> None:
    turns = [
        record
        for record in room.user().run("tok-read", "-", stdin=(room.folder / "stream.jsonl").read_bytes()).records
        if record["kind"] == "turn"
    ]
    right = [(1042, 20078, 212), (1049, 20091, 214), (1056, 20104, 216), (1063, 20117, 218)]
    room.equal("input, read, output", counts(turns), right)
    callers = sorted({(event.get("client", ""), event.get("provider", "")) for event in turns})
    named = all("claude" not in client and provider != "anthropic" for client, provider in callers)
    room.check(named, f"client, provider: {callers}, right is Grok and not Anthropic")


@check_of("clients/mistral-vibe")
def mistral_vibe(room: Room) -> None:
    right = [(1007, 20013, 202), (1014, 20026, 204), (1021, 20039, 206), (1028, 20052, 208)]
    room.equal("input, read, output", counts(room.user("home").turns("tok-read")), right)
