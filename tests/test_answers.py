"""One answer per question: the command, the agent's tool and the page's API render the value of the same function."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from dashboards import HOSTS, ask
from homes import Home

from conftest import ROOT, Json, objects
from tokenops import (
    access,
    answers,
    answers_context,
    answers_work,
    burn_buckets,
    config,
    dash,
    dash_view,
    events,
    pricing,
    session,
    tools,
    when,
)

NOW = "2026-06-20T12:00:00.000Z"
AT = when.moment(NOW)
SINCE = "2026-06-01"


class Question(NamedTuple):
    """A question: the function that answers it, and where its rows are in what renders them."""

    answer: Callable[[session.Log], Any]
    command: str
    tool: str
    args: Json
    key: str  # of the tool's object
    path: str = ""  # of the API


def spend(by: str, since: str = SINCE) -> Callable[[session.Log], answers.Spend]:
    def answer(log: session.Log) -> answers.Spend:
        cover = session.plan_coverage(log.settings, log.tz)
        return answers.spend(log, answers.fields(by), answers.bounds(since, None, log.now, log.tz)[0], cover=cover)

    return answer


def span(log: session.Log) -> tuple[str, str, events.Filter]:
    return (*answers.bounds(SINCE, None, log.now, log.tz), events.EVERY)


def transcripts() -> answers_work.Transcripts:
    return answers_work.Transcripts(os.environ, os.environ["HOME"])


def expensive(log: session.Log) -> str:
    """The session with the most expensive finding."""
    return str(answers_work.waste(log, *span(log)).findings[0]["session_id"])


QUESTIONS = {
    "budget": Question(lambda log: answers.budget(log).rows, "tok-budget --json", "session_budget", {}, "budgets", "budget"),
    "plan headroom": Question(answers.plan_headroom, "tok-plan headroom --json", "plan_headroom", {}, "reports"),
    "plans": Question(lambda log: answers.plans_set(log.settings), "tok-plan list --json", "plan_list", {}, "plans"),
    "spend": Question(
        lambda log: spend("none")(log).rows,
        f"tok-cost --log --by none --since {SINCE}",
        "spend_summary",
        {"since": SINCE},
        "rows",
        f"spend/summary?since={SINCE}",
    ),
    "spend by fields": Question(
        lambda log: spend("day,model")(log).rows,
        f"tok-cost --log --by day,model --since {SINCE}",
        "spend_by",
        {"by": "day,model", "since": SINCE},
        "rows",
        f"spend/series?by=day,model&since={SINCE}",
    ),
    "sessions": Question(
        lambda log: spend("session,project")(log).latest(20),
        f"tok-cost --log --by session,project --since {SINCE} | jq -sc 'sort_by(.to) | reverse | .[:20][]'",
        "sessions",
        {"since": SINCE},
        "rows",
        f"sessions?since={SINCE}",
    ),
    "burn rate": Question(
        lambda log: answers.burn_rate(log, burn_buckets.span(log.now, 48, "hour", log.tz)).records(),
        "tok-burn --log --hours 48 --json | head -n -1",
        "burn_rate",
        {"hours": 48},
        "buckets",
    ),
    "score": Question(
        lambda log: answers_work.score(log, span(log)[0], by="project"),
        f"tok-score --by project --since {SINCE} --json",
        "scorecard",
        {"by": "project", "since": SINCE},
        "cards",
        f"scorecard?by=project&since={SINCE}",
    ),
    "waste": Question(
        lambda log: answers_work.waste(log, *span(log)).sums,
        f"tok-coach waste --since {SINCE} --json | jq -c 'select(.kind == \"waste\")'",
        "waste",
        {"since": SINCE},
        "waste",
        f"coach/waste?since={SINCE}",
    ),
    "prompts": Question(
        lambda log: [answers_work.prompts(log, *span(log), transcripts()).report["turn_stats"]],
        f"tok-coach prompts --since {SINCE} --json | jq -c .turn_stats",
        "coach_prompts",
        {"since": SINCE},
        "turn_stats",
        f"coach?since={SINCE}",
    ),
    "replies": Question(
        lambda log: answers_work.replies(log, *span(log), transcripts()).report["sessions"],
        f"tok-coach replies --since {SINCE} --json | jq -c '.sessions[]'",
        "coach_replies",
        {"since": SINCE},
        "sessions",
        f"coach/replies?since={SINCE}",
    ),
    "tasks": Question(answers_work.tasks, "tok-task list --metrics --json", "task_list", {}, "tasks", "tasks"),
    "context": Question(
        lambda log: answers_context.causes(log, answers_context.Query(expensive(log))).rows,
        "tok-context SESSION --json | jq -c 'select(.kind == \"context\")'",
        "context",
        {"session": "SESSION", "limit": 50},
        "rows",
    ),
    "trace": Question(
        lambda log: answers_work.trace(log, expensive(log)).steps,
        "tok-trace SESSION --json | jq -c 'select(.kind == \"step\")'",
        "workflow_trace",
        {"session": "SESSION"},
        "steps",
    ),
}


class World(NamedTuple):
    """A log of weeks with plans and a task, as each face sees it."""

    run: Callable[[str], bytes]
    source: session.Session
    site: dash.Site


@pytest.fixture(scope="module")
def world(weeks: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("answers")
    patch = pytest.MonkeyPatch()
    for name, value in {
        "PATH": f"{ROOT / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(weeks.root),
        "TOKENOPS_HOME": str(folder / "log"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "TOKENOPS_NOW": NOW,
        "TZ": "UTC",
    }.items():
        patch.setenv(name, value)

    def run(line: str) -> bytes:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], cwd=folder, capture_output=True, timeout=120, check=False
        )
        assert done.returncode in (0, 1), (line, done.stderr)
        return done.stdout

    run("tok-sync")
    run("tok-plan set anthropic claude-max-20x")
    run("tok-task start a task")
    log = str(folder / "log")
    settings = config.load(os.environ, str(weeks.root))
    source = session.Session(log, os.environ, str(weeks.root), lambda: AT, lambda: settings, pricing.load, lambda: "")
    site = dash.Site(log, dash_view.Gatherer(source, list), lambda: AT)
    site.hosts = HOSTS
    yield World(run, source, site)
    patch.undo()


def plain(rows: Any) -> list[Json]:
    """Rows as JSON, without the moment at which they were printed."""
    listed = rows if isinstance(rows, list) else [rows]
    return [{name: value for name, value in row.items() if name != "as_of"} for row in json.loads(json.dumps(listed))]


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_command_tool_and_api_render_one_value(question: Question, world: World) -> None:
    log = world.source.log()
    value = plain(question.answer(log))
    assert value
    name = expensive(log)
    assert plain(objects(world.run(question.command.replace("SESSION", name)))) == value
    args = {key: name if text == "SESSION" else text for key, text in question.args.items()}
    answer = tools.ToolCache(world.source).call(tools.TOOLS[f"tokenops_{question.tool}"], args)
    assert plain(answer.value[question.key]) == value
    if question.path:
        assert plain(api(world, question.path)[question.key]) == value


def api(world: World, path: str) -> Json:
    """What a path below /api/ answers."""
    reply = ask(world.site, f"/api/{path}", authorization=f"Bearer {access.token(world.source.folder)}")
    assert reply.status == 200
    found: Json = json.loads(reply.body)
    return found


def test_a_workflow_of_the_api_is_the_trace_of_its_session(world: World) -> None:
    log = world.source.log()
    name = expensive(log)
    (row,) = (row for row in spend("workflow")(log).rows if row["workflow_id"].endswith(f":{name}"))
    steps = api(world, f"workflows/{row['workflow_id']}")["steps"]
    assert (
        plain(steps)
        == plain(answers_work.workflow(log, row["workflow_id"]).steps)
        == plain(answers_work.trace(log, name).steps)
    )


def test_the_page_shows_the_same_budget_and_totals(world: World) -> None:
    log = world.source.log()
    view = world.site.gatherer.view(dash_view.Ask(since=SINCE))
    assert plain(view.budgets) == plain(answers.budget(log).rows)
    total = spend("none")(log).rows[0]
    for name in ("turns", "input_tokens", "output_tokens", "cost_usd", "plan_covered_usd", "metered_usd"):
        assert view.spent.total.get(name) == total.get(name), name
