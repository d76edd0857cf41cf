"""The twenty first things that people type, from ccusage's and the original's manuals, with no data and with some.

Every answer fits the terminal, says something, and ends with status 0, or 2 and a sentence. `tok` itself is also looked at in
a real terminal.
"""

from __future__ import annotations

import fcntl
import io
import os
import pathlib
import pty
import re
import struct
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from conftest import ROOT, Json, claude, codex_count, codex_meta, codex_model, put, until_closed
from tokenops import cli_words, events, jsonl, show, store, when

NOW = "2026-11-25T12:00:00Z"
FIRST = (
    "tok",
    "tok help",
    "tok --json",
    "tok daily",
    "tok monthly",
    "tok session",
    "tok blocks",
    "tok daily --since 20261101 --until 20261130",
    "tok daily --breakdown --order desc",
    "tok daily --instances --project app --timezone UTC",
    "tok monthly --compact --offline --no-color",
    "tok claude daily --mode calculate",
    "tok today",
    "tok spend --by model --top 5",
    "tok limits",
    "tok plan headroom",
    "tok status",
    "tok replay 0199",
    "tok scorecard",
    "tok vendor-usage status",
)
WIDTHS = (60, 80, 120)


def some_usage(home: pathlib.Path) -> None:
    """Two clients, three projects, wide characters, a model without a price, limits that were read, and old usage."""
    folder = home / ".claude/projects"
    for number, (project, day) in enumerate((("app", "2026-11-25"), ("花園の道具", "2026-11-24"), ("a" * 60, "2026-10-02"))):
        session = f"0199000{number}-aaaa-4bbb-8ccc-000000000000"
        turns = [
            claude(f"msg_{number}{n}", 900, f"{day}T0{n}:00:00.000Z", sessionId=session, cwd=f"/home/ada/{project}")
            for n in range(4)
        ]
        put(folder / f"-home-ada-{number}" / f"{session}.jsonl", *turns)
    odd = claude("msg_odd", 7, "2026-11-25T09:00:00.000Z", sessionId="odd", m_model="claude-unheard-of-9")
    put(folder / "-home-ada-0/odd.jsonl", odd)
    limits: Json = {
        "primary": {"used_percent": 61.0, "window_minutes": 300, "resets_at": 1_795_615_200},
        "secondary": {"used_percent": 34.0, "window_minutes": 10080, "resets_at": 1_795_996_800},
        "plan_type": "pro",
    }
    put(
        home / ".codex/sessions/2026/11/25/rollout-2026-11-25T11-00-00-0199abcd-0000-7000-8000-000000000000.jsonl",
        codex_meta("0199abcd-0000-7000-8000-000000000000"),
        codex_model("gpt-6.1-sol"),
        codex_count((2000, 500, 300, 0), (2000, 500, 300, 0), "2026-11-25T11:30:00.000Z", rate_limits=limits),
    )


# A heavy year: so many turns a day, in sessions of 24, of three clients, four models and 40 projects.
DAYS, A_DAY = 365, 60
CLIENTS = ("claude-code", "codex", "gemini-cli")
MODELS = (
    ("anthropic", "claude-opus-4-6"),
    ("anthropic", "claude-haiku-4-5-20251001"),
    ("openai", "gpt-5.4"),
    ("gemini", "gemini-3-flash-preview"),
)


def heavy_usage(home: pathlib.Path) -> None:
    """A year of 21,900 turns in the log, two weeks of readings of a limit, and 120 transcripts that were read before."""
    some_usage(home)
    for number in range(120):
        session = f"0199{number:04x}-dddd-4bbb-8ccc-000000000000"
        line = claude(f"msg_t{number}", 900, "2026-11-20T09:00:00.000Z", sessionId=session, cwd=f"/home/ada/p{number % 40}")
        put(home / f".claude/projects/-home-ada-p{number % 40}/{session}.jsonl", line)
    end = when.moment(NOW)
    lines = []
    for number in range(DAYS * A_DAY):
        session, at = number // 24, end - (number + 1) * when.DAY // A_DAY
        provider, model = MODELS[session % len(MODELS)]
        turn: Json = {"v": 1, "ts": when.stamp(at), "kind": "turn", "id": f"heavy{number}", "source": "made-for-a-test"}
        turn |= {"client": CLIENTS[session % 3], "project": f"project-{session % 40}", "session_id": f"heavy-{session}"}
        turn |= {"provider": provider, "model": model, "turns": 1, "input_tokens": 900 + number % 97, "output_tokens": 400}
        lines.append(jsonl.line_of(turn | {"cache_read_tokens": 40_000 + 311 * (number % 24), "cache_write_tokens": 1200}))
    for number in range(14 * 24):
        at = end - number * 3_600_000
        window = {"window": "five_hour", "window_minutes": 300, "used": 0.1 + 0.15 * (-number % 5)}
        resets = when.stamp(at - at % 18_000_000 + 18_000_000)
        lines.append(
            jsonl.line_of(events.meter("claude-code-statusline", "anthropic", when.stamp(at), resets_at=resets, **window))
        )
    store.append(str(home / "log"), lines, durable=False)


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module", params=["empty", "some"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """A home, and an environment that points to it."""
    path = tmp_path_factory.mktemp(request.param)
    if request.param == "some":
        some_usage(path)
    yield from at_home(path)


@pytest.fixture
def year(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The home of a heavy year. One test asks for it, so it is made once."""
    heavy_usage(tmp_path)
    yield from at_home(tmp_path)


def at_home(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """An environment that points to a home, until the generator goes on."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("TOKENOPS_", "XDG_", "CLAUDE", "CODEX", "COLUMNS"))]:
            if name != "XDG_CACHE_HOME":
                patch.delenv(name)
        for name, value in {
            "HOME": str(path),
            "TOKENOPS_HOME": str(path / "log"),
            "TOKENOPS_NOW": NOW,
            "TZ": "UTC",
            "LINES": "24",
        }.items():
            patch.setenv(name, value)
        time.tzset()
        yield path
    time.tzset()


def typed(line: str, width: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Status, stdout and stderr of a line that is typed at a terminal of that width, in this process."""
    streams = [Terminal(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(3)]
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
        monkeypatch.setattr(sys, name, stream)
    folder = str(ROOT / "bin")
    status = cli_words.status(cli_words.Call("tok", line.split()[1:]), folder)
    out, err = (stream.buffer.getvalue().decode() for stream in streams[1:])  # type: ignore[attr-defined]
    monkeypatch.undo()
    return status, out, err


def messages(err: str) -> list[str]:
    """The messages on stderr: at a terminal a long one goes on in lines that are indented."""
    return re.sub(r"\n  +", " ", err).splitlines()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("line", FIRST)
def test_what_newcomers_type(line: str, width: int, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = typed(line, width, monkeypatch)
    shown = f"{out}{err}"
    assert "Traceback" not in shown
    assert shown.strip(), "no answer"
    assert status in ((0, 1) if "--json" not in line else (0,)) or (status == 2 and err.startswith("tok")), (status, err)
    if status == 2:
        assert len(messages(err)) == 1 and len(err.split()) > 4
    if "--json" not in line and " help" not in line:
        # A command to paste, below its reason, stays on one line.
        wide = [text for text in out.splitlines() if show.text_width(text) > width and not text.startswith("    ")]
        assert wide == []
    assert not re.search(r"\x1b|None|nan", out) or "--json" in line


# What a warm answer may take, in milliseconds of the processor's time, where some fixed work takes so many. On a loaded
# machine, which shares its caches and cores, both take up to twice as long.
WARM_MS, YARDSTICK_MS = 300, 17


def yardstick() -> float:
    """How long the fixed work takes now."""
    begun, table = time.process_time(), dict.fromkeys(range(977), "")
    for number in range(60_000):
        table[number % 977] = table[number % 977][-40:] + str(number)
    return 1000 * (time.process_time() - begun)


def test_a_heavy_year_is_answered_at_once(year: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed("tok sync", 80, monkeypatch)[0] == typed("tok", 80, monkeypatch)[0] == 0
    slow = {}
    for line in (*FIRST, "tok session --since all", "tok models --since all", "tok cost --since all --by month,model"):
        took: list[float] = []
        while not took or (min(took) > WARM_MS and len(took) < 24):
            before, begun = yardstick(), time.process_time()
            status, out, err = typed(line, 80, monkeypatch)
            taken = 1000 * (time.process_time() - begun)
            took.append(taken / max(before / YARDSTICK_MS, yardstick() / YARDSTICK_MS, 1))
        assert status in ((0, 1, 2) if "replay" in line else (0, 1)) and "Traceback" not in err and (out or err), (line, err)
        wide = [text for text in out.splitlines() if show.text_width(text) > 80 and not text.startswith("    ")]
        assert "--json" in line or " help" in line or wide == [], line
        if min(took) > WARM_MS:
            slow[line] = round(min(took))
    assert slow == {}
    # What cost most is on the screen: a heading, rows, what is left out, the sum, and remarks.
    for line in ("tok session --since all", "tok models --since all"):
        out = typed(line, 80, monkeypatch)[1]
        assert len(out.splitlines()) < 24, line
    assert re.search(r"^and [\d,]+ more .*\$", typed("tok session", 80, monkeypatch)[1], re.M)
    assert "earlier usage, from 2025-11-2" in typed("tok models", 80, monkeypatch)[1].replace("\n", " ")


def test_some_answers(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the answers are, as far as these two homes differ."""
    status, out, _ = typed("tok", 80, monkeypatch)
    if home.name.startswith("empty"):
        assert status == 0 and "No usage" in out and "~/.claude" in out and "tok init --demo" in out
        assert "the log holds no usage" in typed("tok daily", 80, monkeypatch)[2]
    else:
        assert "today" in out and "this month" in out and "most expensive" in out
        assert re.search(r"OpenAI 5 h .*61%", out) and "next: " in out
        assert "did you mean claude-code?" in typed("tok cost --client cluade", 80, monkeypatch)[2]
        assert "61%" in typed("tok blocks --active", 80, monkeypatch)[1]
        assert "2026-10" in typed("tok monthly", 80, monkeypatch)[1]
    for line, sentence in (
        ("tok dayly", "did you mean tok daily?"),
        ("tok start", "tok-proxy --dash"),
        ("tok cost --by projct", "did you mean project?"),
        ("tok cost --colour never", "did you mean --color? See tok-cost --help"),
        ("tok read cluade", "did you mean claude?"),
    ):
        status, out, err = typed(line, 80, monkeypatch)
        assert status == 2 and out == "" and len(messages(err)) == 1, line
        assert sentence in messages(err)[0], line


@pytest.mark.parametrize(("columns", "rows"), [(60, 20), (80, 24), (120, 40)])
def test_tok_fits_one_screen_of_a_real_terminal(
    columns: int, rows: int, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("tok", columns, monkeypatch)  # imports: on a busy machine the first import shows its progress
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, str(ROOT / "bin/tok")],
        environment | {"TERM": "xterm-256color"},
        file_actions=[(os.POSIX_SPAWN_DUP2, follower, fd) for fd in (0, 1, 2)],
    )
    os.close(follower)
    seen = until_closed(leader)
    _, status = os.waitpid(child, 0)
    text = seen.decode().replace("\r\n", "\n")
    assert status == 0 and "Traceback" not in text
    assert "\x1b[" in text  # in colour
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert "\x1b" not in "".join(lines)
    assert max(map(show.text_width, lines)) <= columns
    assert len(lines) < rows, "it would scroll"
