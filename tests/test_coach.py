"""tok-coach: nothing is flagged in a clean history, everything in a wasteful one, and every number can be recomputed."""

from __future__ import annotations

import csv
import json
import pathlib
import random
import time
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from homes import Home
from hypothesis import given
from hypothesis import strategies as st
from scripts import Claude, Codex

from conftest import ROOT, Json, Run, objects, put
from tokenops import catalog, coach, coach_averages, coach_replies, coach_transcripts, credentials, events, readers, work

FOLDER = ".claude/projects/-home-ada-app"
NOW = {"TOKENOPS_NOW": "2026-03-08T09:00:00Z"}
RULES = {key: float(value) for key, value in catalog.load("thresholds")["coaching"].items()}


@pytest.fixture
def home(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["HOME"])


CLEAN = [
    "Add a cache to src/loader.py so that load_page() is called once per URL; keep its signature",
    "Rename the flag --quiet to --silent in cli.py and in docs/cli.md, and keep the old one working",
    "The test test_empty_page fails with KeyError: 'body' since 4f2a91c; find out why before changing anything",
    "Write a migration that adds a column `seen_at` to the table pages, default null",
    "Explain how `Scheduler.next` chooses between two jobs of the same priority",
    "Replace the loop in src/merge.py:40 by heapq.merge and show the timing before and after",
    "Make `make lint` fail on unused imports, and remove those that there are in src/",
    "Document the environment variables of server.py in README.md, one line each",
    "Split tests/test_api.py: one file per endpoint, without changing any assertion",
    "Port parse_date() to datetime.fromisoformat and keep the three formats of tests/dates.json",
    "Log the request id in middleware.py, at level DEBUG only",
    "Return 404 instead of 500 for unknown pages in routes/pages.py, with a test",
]


def clean() -> list[Claude]:
    """Two sessions of somebody who says what is wanted."""
    made = []
    for number, day in enumerate(("2026-03-02", "2026-03-04")):
        script = Claude(f"clean{number}", f"{day}T09:00:00")
        for text in CLEAN[number::2]:
            script.human(text, 60)
            script.does("Read", file_path="/home/ada/app/x.py")
            script.does("Edit", file_path="/home/ada/app/x.py")
            script.says("It is done, and the tests pass.")
        made.append(script)
    return made


def wasteful() -> list[Claude]:
    """Sessions with every habit that there is a finding for."""
    made = []
    for number in range(6):
        script = Claude(f"waste{number}", f"2026-03-0{2 + number % 5}T{10 + number}:00:00")
        for text in (
            "please make the whole thing work well",
            "fix it",
            "that's not what I wanted",
            "yes",
            "try again",
            "Look at the log of the job and say why it ended",
            "Look at the log of the job and say why it ended!",
            "ok",
            "Error in line 7 of the job\n" * 300,
        ):
            script.human(text, 60)
            script.does("Bash", command="make")
            script.says("Which file do you mean?" if text == "fix it" else "It is done.")
        made.append(script)
    return made


def wrote(home: pathlib.Path, scripts: list[Claude]) -> None:
    for script in scripts:
        put(home / FOLDER / f"{script.session}.jsonl", script.bytes())


def report(run: Run, options: str = "", status: int | None = 0, **env: str) -> Json:
    (made,) = objects(run(f"tok-coach prompts {options}", status=status, env=NOW | env).stdout)
    return made


def test_a_clean_history(run: Run, home: pathlib.Path) -> None:
    wrote(home, clean())
    made = report(run)
    assert made["findings"] == []
    assert made["prompt_stats"]["prompts"] == made["turn_stats"]["prompts"] == len(CLEAN)
    assert "No costly habit was found." in run("tok-coach prompts --table", env=NOW).stdout.decode()
    assert run("tok-coach prompts --csv", env=NOW).stdout == b""


def test_a_wasteful_history(run: Run, home: pathlib.Path) -> None:
    wrote(home, wasteful())
    made = report(run)
    found = {row["finding"]: row for row in made["findings"]}
    assert set(found) == {
        "acknowledgements",
        "corrections",
        "regenerations",
        "vague",
        "missing_context",
        "repeated",
        "walls",
    }
    assert (found["acknowledgements"]["count"], found["acknowledgements"]["of"]) == (12, 54)
    assert [found[name]["count"] for name in ("corrections", "regenerations", "vague", "walls", "missing_context")] == [
        6,
        6,
        6,
        6,
        6,
    ]
    assert found["vague"]["projection"]["units"] == 6  # each was asked about
    assert found["repeated"]["projection"]["units"] == 6 * 1  # in one session each: the others are habits, not second tries
    table = run("tok-coach prompts --table", env=NOW).stdout.decode()
    for row in found.values():
        assert row["finding"] in table and row["remedy"] in table
    rank = [Decimal(row["projection"]["cost_usd"] or 0) for row in made["findings"]]
    assert rank == sorted(rank, reverse=True)


def test_every_projection_can_be_recomputed(run: Run, home: pathlib.Path) -> None:
    wrote(home, [*wasteful(), *clean()])
    made = report(run)
    stats = made["turn_stats"]
    assert made["findings"]
    for row in made["findings"]:
        one = row["projection"]
        per, factor = stats["per"][one["basis"]], stats["month_factor"]
        if one["units"] is None:
            assert one["unknown"] and one["tokens"] is one["cost_usd"] is one["hours"] is one["per_month"] is None
            continue
        assert one["tokens"] == one["units"] * per["tokens"]
        assert Decimal(one["cost_usd"]) == one["units"] * Decimal(per["cost_usd"])
        assert one["hours"] == round(one["units"] * per["seconds"] / 3600, 2)
        month = one["per_month"]
        assert month["tokens"] == round(one["tokens"] * factor)
        assert Decimal(month["cost_usd"]) == (Decimal(one["cost_usd"]) * Decimal(str(factor))).quantize(
            Decimal("0.0001"), ROUND_HALF_UP
        )
        assert month["hours"] == round(one["hours"] * factor, 2)
        assert row["share"] == round(row["count"] / row["of"], 4)
    assert stats["span"]["days"] == 7 and factor == round(30 / 7, 4)
    assert stats["per"]["turn"]["tokens"] == round(stats["tokens"] / stats["turns"])
    assert stats["per"]["prompt"]["tokens"] == round(stats["tokens"] / stats["prompts"])
    for name, count in (("turn", stats["turns"]), ("prompt", stats["prompts"])):
        assert Decimal(stats["per"][name]["cost_usd"]) == (Decimal(stats["cost_usd"]) / count).quantize(
            Decimal("0.000001"), ROUND_HALF_UP
        )


def test_averages_are_those_of_the_same_turns_in_every_other_report(run: Run, home: pathlib.Path) -> None:
    wrote(home, [*wasteful(), *clean()])
    stats = report(run)["turn_stats"]
    (row,) = objects(run("tok-cost --log --by none --since 7d", env=NOW).stdout)
    assert (stats["turns"], stats["cost_usd"]) == (row["turns"], row["cost_usd"])
    # Sixty seconds before each prompt, and what the agent took in between.
    assert stats["per"]["turn"]["seconds"] == 60
    assert stats["per"]["prompt"]["seconds"] == pytest.approx(72, abs=3)


def test_pauses_in_which_nobody_worked_are_no_work(run: Run, home: pathlib.Path) -> None:
    late = Claude("late", "2026-03-03T09:00:00")
    for text in CLEAN:
        late.human(text, 45 * 60)
        late.says("It is done.")
    wrote(home, [late])
    stats = report(run)["turn_stats"]
    assert stats["measured_pauses"] == 0
    assert stats["per"]["turn"]["seconds"] is None


def test_a_turn_without_a_price_blanks_no_cost(run: Run, home: pathlib.Path) -> None:
    """It is in no cost and counted; the averages are those of the turns that have a price."""
    scripts = wasteful()
    scripts[0].lines[1]["message"]["model"] = "claude-nobody-knows-9"
    wrote(home, scripts)
    stats = report(run)["turn_stats"]
    assert stats["unpriced_turns"] == 1
    average = Decimal(stats["cost_usd"]) / (stats["turns"] - 1)
    assert abs(Decimal(stats["per"]["turn"]["cost_usd"]) - average) < Decimal("0.000001")


def test_without_any_price_costs_are_unknown(run: Run, home: pathlib.Path) -> None:
    scripts = wasteful()
    for script in scripts:
        for line in script.lines:
            if line.get("type") == "assistant":
                line["message"]["model"] = "claude-nobody-knows-9"
    wrote(home, scripts)
    made = report(run)
    assert made["turn_stats"]["cost_usd"] is None
    assert all(
        row["projection"]["cost_usd"] is None and row["projection"]["tokens"]
        for row in made["findings"]
        if row["projection"]["units"]
    )


def test_a_loop_is_no_person(run: Run, home: pathlib.Path) -> None:
    scripts = clean()
    for _ in range(20):
        scripts[0].human("continue", 5)
        scripts[0].does("Read", file_path="/x")
    wrote(home, scripts)
    made = report(run)
    assert made["findings"] == [] and made["prompt_stats"]["loop_prompts"] == 20
    for _ in range(4):  # as often as a person says it
        scripts[1].human("continue", 5)
    wrote(home, scripts)
    assert [row["finding"] for row in report(run)["findings"]] == ["acknowledgements"]


def test_what_the_log_knows_of_the_span_before(run: Run, home: pathlib.Path) -> None:
    before = Claude("old", "2026-02-24T09:00:00")
    for number, text in enumerate([*CLEAN[:8], "yes", "ok"]):
        before.human(text, 60)
        before.does("Edit", file_path=f"/x{number}")
    wrote(home, [before, *wasteful()])
    run("tok-sync")
    (home / FOLDER / "old.jsonl").unlink()  # the client deletes its files; the log stays
    made = report(run)
    assert made["previous"]["prompts"] == 10
    assert made["previous"]["until"] == made["turn_stats"]["span"]["since"]
    found = {row["finding"]: row["previous"] for row in made["findings"]}
    assert found["acknowledgements"] == {"count": 2, "of": 10, "share": 0.2}
    assert found["corrections"] == {"count": 0, "of": 10, "share": 0}
    assert found["repeated"] is None  # no text was kept to compare


def test_the_log_counts_what_the_transcripts_say(run: Run, home: pathlib.Path) -> None:
    wrote(home, [*wasteful(), *clean()])
    made = report(run)
    sums = work.totals_by([event for event in objects(run("tok-cat").stdout) if event["kind"] == "work"], lambda event: "")[
        ""
    ]
    found = {row["finding"]: row["count"] for row in made["findings"]}
    assert sums["prompts"] == made["prompt_stats"]["prompts"]
    assert {
        name: sums[name]
        for name in ("acknowledgements", "corrections", "regenerations", "vague", "walls", "missing_context")
    } == {name: count for name, count in found.items() if name != "repeated"}


def test_groups_and_filters(run: Run, home: pathlib.Path) -> None:
    wrote(home, clean())
    other = Claude("other", "2026-03-05T09:00:00", cwd="/home/ada/lamp")
    for text in CLEAN[:4]:
        other.human(text)
        other.says("It is done.")
    put(home / ".claude/projects/-home-ada-lamp/other.jsonl", other.bytes())
    codex = Codex("2026-03-06T09:00:00")
    for text in CLEAN[:3]:
        codex.turn()
        codex.human(text)
        codex.says("Done.")
    put(home / f".codex/sessions/2026/03/06/rollout-2026-03-06T09-00-00-{codex.thread}.jsonl", codex.bytes())
    made = report(run)
    assert {row["project"]: row["prompts"] for row in made["groups"]} == {"app": 15, "lamp": 4}
    sessions = {row["session_id"]: row["prompts"] for row in report(run, "--by session")["groups"]}
    assert sessions == {"clean0": 6, "clean1": 6, "other": 4, codex.thread: 3}
    for options, count in (
        ("--project lamp", 4), ("--session clean0", 6), ("--client codex", 3), ("--client claude-code", 16), ("--since 2026-03-05", 7),
        ("--since 2026-03-02 --until 2026-03-03", 6), ("--limit 5", 5), ("--project app --client codex", 3),
    ):  # fmt: skip
        assert report(run, options)["prompt_stats"]["prompts"] == count, options
    assert report(run, "--limit 5")["groups"][0]["prompts"] in (2, 3)  # the newest


def test_nothing_to_report(run: Run, home: pathlib.Path) -> None:
    done = run("tok-coach prompts", status=1, env=NOW)
    assert b"the log holds no usage" in done.stderr
    (made,) = objects(done.stdout)
    assert made["findings"] == [] and made["turn_stats"]["per"]["turn"]["tokens"] is None
    assert b"the log holds no usage" in run("tok-coach replies", status=1, env=NOW).stderr
    assert run("tok-coach", env=NOW).stderr == run("tok-coach waste", env=NOW).stderr
    assert b"this is tok-coach waste; see also tok-coach models" in run("tok-coach --table", env=NOW).stderr
    for line, why in (
        ("tok-coach nothing", "nothing: choose from prompts, replies, waste"),
        ("tok-coach prompts --client gemini-cli", "only the transcripts of claude-code and codex show who wrote a prompt"),
        ("tok-coach prompts --limit 0", "'0' must be a whole number, 1 or more"),
    ):
        assert why in run(line, status=2, env=NOW).stderr.decode()


def test_samples_only_on_request_and_without_secrets(run: Run, home: pathlib.Path) -> None:
    script, key = Claude(), f"sk-{'ant'}-api03-{'Ab1' * 12}"
    for _ in range(12):
        script.human(f"no, that's wrong: the key is {key} and my mail is ada@example.com\x1b[31m", 60)
        script.says("Sorry.")
    wrote(home, [script])
    plain = run("tok-coach prompts", env=NOW).stdout + run("tok-coach prompts --table", env=NOW).stdout
    assert b"the key is" not in plain and b"sk-ant" not in plain
    shown = run("tok-coach prompts --samples", env=NOW).stdout + run("tok-coach prompts --samples --table", env=NOW).stdout
    assert b"the key is [secret]" in shown
    for secret in (b"sk-ant", b"ada@example.com", b"\x1b", b"\\u001b"):
        assert secret not in shown


def test_prompts_of_weeks(run: Run, weeks: Home) -> None:
    env = {"HOME": str(weeks.root), "TOKENOPS_NOW": "2026-11-20T00:00:00Z"}
    (made,) = objects(run("tok-coach prompts --since 700d", status=None, env=env).stdout)
    assert made["prompt_stats"]["prompts"] > 120
    assert made["prompt_stats"]["kinds"].get("unjudged", 0) < 10
    lengths = made["prompt_stats"]["lengths"]
    assert sum(row["prompts"] for row in lengths) == made["prompt_stats"]["prompts"]
    sums = work.totals_by(
        [event for event in objects(run("tok-cat --since 700d", env=env).stdout) if event["kind"] == "work"],
        lambda event: "",
    )[""]
    assert sums["prompts"] == made["prompt_stats"]["prompts"]


# What helps it ------------------------------------------------------------------------------------------------------------

SECRETS = [
    "sk-ant-api03-AbCdEf0123456789AbCdEf0123456789", "sk-proj-AbCdEf0123456789abcdef", "ghp_AbCdEf0123456789AbCdEf0123456789abcd",
    "github_pat_11ABCDEFG0123456789_abcdefghij", "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE", "AIzaSyA-0123456789abcdefghijklmnopqrstu",
    "xoxb-123456789012-abcdefghijkl", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz", "gsk_AbCdEf0123456789abcdef", "glpat-AbCdEf0123456789abcd", "SG.AbCdEf0123456789abcd.AbCdEf0123456789abcd",
    "0123456789abcdef0123456789abcdef01234567", "ada.l@example.co.uk",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_masked_wherever_they_stand(secret: str) -> None:
    for text in (secret, f"use {secret} please, {secret}", f'key: "{secret}"', f"\n{secret}\n", f"({secret})"):
        assert secret not in credentials.redact(text), text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://ada:hunter2@db/app", "postgres://[secret]@db/app"),
        ("password=hunter2 and go", "password=[secret] and go"),
        ("the DB_PASSWORD is hunter2!", "the DB_PASSWORD is [secret]"),
        ('{"api_key": "abcd1234"}', '{"api_key": "[secret]"}'),
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer [secret]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nnext", "[secret]\nnext"),
        ("fix src/parser.py line 40, see #123", "fix src/parser.py line 40, see #123"),
        ("session 5f2b1a60-1111-4222-8333-a1b2c3d4e5f6", "session 5f2b1a60-1111-4222-8333-a1b2c3d4e5f6"),
        ("the max_tokens of a model", "the max_tokens of a model"),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    assert credentials.redact(text) == shown


@given(st.text(max_size=200))
def test_a_sample_is_one_short_line(text: str) -> None:
    shown = credentials.sample(text)
    assert (len(shown) <= 100 and shown.isprintable()) or shown == ""


def test_near_repeats() -> None:
    texts = ["Please run the whole test suite and fix what fails", "please run the whole test suite and fix what fails!",
        "Please run the whole test suite again and fix what fails", "Write a migration for the table of pages", "ok", "OK.",
        "テストを実行して失敗を直してください", "テストを実行して失敗を直してくださいね", ""]  # fmt: skip
    assert coach.groups(texts, 0.5) == [[0, 1, 2], [4, 5], [6, 7]]
    assert coach.groups(texts, 0.99) == [[0, 1], [4, 5]]
    assert coach.groups([], 0.5) == []


@given(st.lists(st.text(alphabet="ab c", max_size=12), max_size=12), st.sampled_from([0.3, 0.7, 1.0]))
def test_equal_texts_are_always_one_group(texts: list[str], share: float) -> None:
    found = coach.groups(texts, share)
    where = {at: number for number, members in enumerate(found) for at in members}
    assert sum(map(len, found)) == len(where)
    for at, one in enumerate(texts):
        for other, two in enumerate(texts):
            if at != other and one == two and one.strip():
                assert where[at] == where[other]


def test_repeats_in_time_that_grows_with_their_number() -> None:
    rng = random.Random(1)
    words = [f"word{n}" for n in range(3000)]

    def texts(count: int) -> list[str]:
        return [" ".join(["please look at", *rng.choices(words, k=12)]) for _ in range(count)]

    def took(count: int) -> float:
        made = texts(count)
        best = 9.0
        for _ in range(2):
            begun = time.process_time()
            coach.groups(made, 0.7)
            best = min(best, time.process_time() - begun)
        return best

    assert took(8000) < 12 * took(2000)


# Replies ------------------------------------------------------------------------------------------------------------------

ENGLISH = "I looked at the parser and found that the last line is dropped when the file has no newline at its end. The fix is in place, and I have added a test for it."
TERSE = [
    "OK.",
    "Done.",
    "Running tests now.",
    "All 34 tests pass.",
    "Fixed the import.",
    "Pushed.",
    "Build is green.",
    "Next: the docs.",
]
BULLETS = (
    "Done:\n\n- Fixed null check in parser\n- Added tests for empty input\n- Updated changelog\n\n```\nall tests pass\n```\n"
)
GERMAN = "Ich habe mir den Parser angesehen und gefunden, dass die letzte Zeile verloren geht, wenn am Ende kein Umbruch steht. Der Fehler ist behoben."
JAPANESE = "パーサーを確認したところ、ファイルの末尾に改行がない場合に最後の行が失われることが分かりました。修正してテストを追加しました。"
CAVEMAN = "Parser drop last line because no newline at end of file. Fix: add check before loop and keep rest. Tests green, commit ready, next step docs in folder."


def judged(texts: list[str]) -> Json:
    return coach_replies.stats([coach_replies.reply("s", [text]) for text in texts], RULES)


@pytest.mark.parametrize(
    ("texts", "style", "language"),
    [
        ([ENGLISH] * 20, "plain", "en"),
        ([CAVEMAN] * 30, "compressed", "en"),
        ([CAVEMAN] * 3, None, "en"),  # too little to tell
        (TERSE * 40, None, "en"),
        ([BULLETS] * 60, None, ...),
        ([GERMAN] * 40, None, "de"),
        ([JAPANESE] * 60, None, "ja"),
        ([], None, None),
        (["```\nx = 1\n```"] * 30, None, None),
    ],
)
def test_the_style_of_replies(texts: list[str], style: str | None, language: Any) -> None:
    made = judged(texts)
    assert made["style"] == style
    assert bool(made["style_reason"]) == (style != "plain")
    if language is not ...:
        assert made["language"] == language
    assert made["replies"] == len(texts)


def test_densities() -> None:
    made = judged(
        ["The cat really saw a dog and the bird in the tree today.", "I will run it: `the the the`.\n\n| the | the |\n"]
    )
    assert (made["articles"], made["filler"], made["sentence_words"]) == (4, 1, 13)
    assert made["articles_share"] == round(4 / 13, 4)
    german = judged([GERMAN])
    assert german["articles"] and german["auxiliary"] is None


def test_replies(run: Run, home: pathlib.Path) -> None:
    script, side = Claude(), Claude("s1", isSidechain=True)
    for number in range(30):
        script.human(CLEAN[number % len(CLEAN)])
        script.says(f"Let me look at file number {number}.", message=f"msg_a{number}")
        script.result(script.calls("Read", message=f"msg_a{number}", file_path="/x"))
        script.says(ENGLISH)
    side.human("look")
    side.says("A subagent says this.")
    put(home / FOLDER / "s1.jsonl", script.bytes())
    put(home / FOLDER / "s1/subagents/agent-1.jsonl", side.bytes())
    (made,) = objects(run("tok-coach replies", env=NOW).stdout)
    every = made["all"]
    assert (every["replies"], every["narrating"], every["announcing"]) == (60, 0, 30)
    assert every["repeated_sentences"] == 2 * 29
    assert (every["style"], every["language"], made["compressed_sessions"]) == ("plain", "en", 0)
    assert made["usage"]["output_share"] == round(made["usage"]["output_tokens"] / made["usage"]["tokens"], 6)
    assert [row["session_id"] for row in made["sessions"]] == ["s1"]
    table = run("tok-coach replies --table", env=NOW).stdout.decode()
    assert "60 replies in 1 session" in table and "plain" in table
    (row,) = csv.DictReader(run("tok-coach replies --csv", env=NOW).stdout.decode().splitlines())
    assert (row["session_id"], row["replies"], row["language"]) == ("s1", "60", "en")


def test_plain_english_is_not_called_compressed(home: pathlib.Path) -> None:
    """The paragraphs of our own documentation, as replies of three sessions: no headings, lists, tables and examples."""
    texts = [text for page in sorted((ROOT / "docs").glob("*.md")) for text in page.read_text().split("\n\n")]
    scripts = [Claude(f"s{number}") for number in range(3)]
    for number, text in enumerate(text for text in texts if text[:1].isalpha() and text.count(" ") > 15):
        scripts[number % 3].human("Go on.")
        scripts[number % 3].says(text)
    wrote(home, scripts)
    found = readers.with_files(["claude"], [str(home)], {}, str(home))
    talk = coach_transcripts.talk(found, "reply", ("", "9"), events.EVERY, b"salt", {}, lambda path, error: None)
    made = coach_replies.report(talk, [], RULES)
    assert made["all"]["replies"] > 50 and made["compressed_sessions"] == 0
    assert [row["style"] for row in made["sessions"]] == ["plain"] * 3
    assert 0.05 < made["all"]["articles_share"] < 0.15


def test_projections_of_what_is_not_known() -> None:
    stats: Json = {"per": {"turn": {"tokens": None, "cost_usd": None, "seconds": None}}, "month_factor": None}
    assert coach_averages.projection(3, "turn", stats)["tokens"] is None
    assert coach_averages.projection(None, "turn", stats, "nobody counted")["unknown"] == "nobody counted"
    assert json.dumps(coach_averages.projection(3, "turn", stats))
