"""The questions that tok-init asks at a terminal, each with its choices and what is chosen by pressing Enter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from tokenops import limit_view, plans, show
from tokenops.events import Event

NOTHING = ""
PLAN, SCHEDULE, CLAUDE = "plan", "schedule", "claude"
LINE, HOOKS = "statusline", "hooks"
_SCHEDULES = {
    "cron": "a line in your crontab",
    "systemd": "a timer of systemd",
    "launchd": "an agent of launchd",
}


class Choice(NamedTuple):
    """One answer: what it means, for the program and for people."""

    value: str
    label: str


class Question(NamedTuple):
    """A question with its choices; the last one changes nothing. `usual`: the number of the one for Enter, from 0."""

    subject: str
    text: str
    choices: tuple[Choice, ...]
    usual: int = 0


def plan_questions(rows: Iterable[Event]) -> Iterator[Question]:
    """A question for each provider that may have a plan here, if none is set."""
    for row in rows:
        if row["about"] != "plan" or "set" in row or not row["plans"]:
            continue
        own = [plan.name for plan in plans.current_plans() if plan.provider == row["provider"]]
        others = [name for name in own if name not in row["plans"]]
        choices = [Choice(name, _label(name)) for name in (*row["plans"], *others)]
        choices.append(Choice(NOTHING, "none, or billed per token"))
        text = f"Which plan of {limit_view.vendor(row['provider'])} do you have?"
        yield Question(PLAN, text, tuple(choices), len(choices) - 1 if row["confidence"] == "unknown" else 0)


def _label(name: str) -> str:
    plan = plans.find(name)
    return f"{plan.display}, ${plan.usd} a month" if plan.usd else plan.display


def schedule_question(kinds: Sequence[str]) -> Question:
    """What should import regularly."""
    choices = (*(Choice(kind, _SCHEDULES[kind]) for kind in kinds), Choice(NOTHING, "nothing; I run tok-sync myself"))
    return Question(SCHEDULE, "What should import new usage every ten minutes?", choices)


def claude_question(line: bool, hooks: bool) -> Question:
    """What of ours Claude Code should run: `line`, the status line, and `hooks`, if they are not there yet."""
    choices = []
    if line:
        choices.append(Choice(LINE, "the status line, which shows and records your limits"))
    if hooks:
        both = "the status line, and hooks" if line else "hooks"
        choices.append(Choice(f"{LINE} {HOOKS}" if line else HOOKS, f"{both} that count repeated reads and watch the cost"))
    choices.append(Choice(NOTHING, "nothing"))
    return Question(CLAUDE, "What should Claude Code run?", tuple(choices))


def ask(
    question: Question, read: Callable[[], str], write: Callable[[str], None], color: bool, width: int | None = None
) -> str:
    """The value that the user chooses; at the end of input, of the last choice."""
    write(show.paint(question.text, "bold", color) + "\n")
    for number, choice in enumerate(question.choices):
        mark = ">" if number == question.usual else " "
        line = f" {mark}{number + 1:>3}  {show.safe(choice.label)}"
        write(f"{line if width is None else show.shorten(line, width)}\n")
    while True:
        write(f"Number, or Enter for {question.usual + 1}: ")
        answer = read()
        if not answer.endswith("\n"):
            write("\n")
            return question.choices[-1].value
        text = answer.strip()
        if not text:
            return question.choices[question.usual].value
        if text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= len(question.choices):
            return question.choices[int(text[:4]) - 1].value
        write(f"Write a number from 1 to {len(question.choices)}.\n")
