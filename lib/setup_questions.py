"""The questions that tok-init asks at a terminal, each with its choices and what is chosen by pressing Enter."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from tokenops import limit_view, plans, show
from tokenops.events import Event

NOTHING = ""
SCHEDULE, CLAUDE = "schedule", "claude"
LINE, HOOKS = "statusline", "hooks"
_SCHEDULES = {
    "cron": "a line in your crontab",
    "systemd": "a timer of systemd",
    "launchd": "an agent of launchd",
}


class Choice(NamedTuple):
    """One answer: what it means, for the program and for people. `vendor`: of a plan."""

    value: str
    label: str
    vendor: str = ""


class Question(NamedTuple):
    """A question with its choices; the last one changes nothing. `usual`: the number of the one for Enter, from 0."""

    subject: str
    text: str
    choices: tuple[Choice, ...]
    usual: int = 0


class PlanQuestion(NamedTuple):
    """Which plans the user has, of all providers without a set plan. `usual`: the numbers for Enter, from 0."""

    choices: tuple[Choice, ...]
    usual: tuple[int, ...]


def plan_question(rows: Iterable[Event]) -> PlanQuestion | None:
    """The question for the plans of all providers that may have one here and have none set; None if there is none."""
    choices: list[Choice] = []
    usual = []
    for row in rows:
        if row["about"] != "plan" or "set" in row or not row["plans"]:
            continue
        if row["confidence"] != "unknown":
            usual.append(len(choices))
        own = [plan.name for plan in plans.current_plans() if plan.provider == row["provider"]]
        names = dict.fromkeys((*row["plans"], *own))
        choices += [Choice(name, _label(name), limit_view.vendor(row["provider"])) for name in names]
    return PlanQuestion(tuple(choices), tuple(usual)) if choices else None


def _label(name: str) -> str:
    plan = plans.find(name)
    return f"{plan.display}, ${plan.usd}" if plan.usd else plan.display


def ask_plans(
    question: PlanQuestion, read: Callable[[], str], write: Callable[[str], None], color: bool, width: int | None = None
) -> list[str]:
    """The plans that the user chooses, at most one of each vendor; none at the end of input."""
    write(show.paint("Which plans do you have? (USD a month)", "bold", color) + "\n")
    for line in _plan_lines(question, width or 80):
        write(f"{line}\n")
    usual = " ".join(str(number + 1) for number in question.usual) or "none"
    example = next((n for n, each in enumerate(question.choices) if each.vendor != question.choices[0].vendor), None)
    several = "Number" if example is None else f"Numbers, such as 1 {example + 1}"
    while True:
        write(f"{several}; 0 for none, or Enter for {usual}: ")
        answer = read()
        if not answer.endswith("\n"):
            write("\n")
            return []
        numbers = _numbers(answer, question)
        if isinstance(numbers, str):
            write(f"{numbers}\n")
        else:
            return [question.choices[number].value for number in numbers]


def _plan_lines(question: PlanQuestion, width: int) -> Iterator[str]:
    """A line or more for each vendor: its name, and its plans with their numbers."""
    numbered = enumerate(question.choices)
    indent = max(len(choice.vendor) for choice in question.choices) + 2
    for vendor, choices in itertools.groupby(numbered, key=lambda pair: pair[1].vendor):
        line = f"{vendor:<{indent}}"
        is_empty = True
        for number, choice in choices:
            mark = ">" if number in question.usual else " "
            cell = show.shorten(f"{mark}{number + 1:>2} {show.safe(choice.label)}", width - indent)
            if not is_empty and len(line) + len(cell) + 2 > width:
                yield line.rstrip()
                line, is_empty = " " * indent, True
            line += cell if is_empty else f"  {cell}"
            is_empty = False
        yield line.rstrip()


def _numbers(answer: str, question: PlanQuestion) -> Sequence[int] | str:
    """The numbers of an answer, from 0, or what is wrong with it."""
    words = re.split(r"[\s,]+", answer.strip())
    if words == [""]:
        return question.usual
    if words == ["0"]:
        return ()
    most = len(question.choices)
    if not all(word.isascii() and word.isdecimal() and 1 <= int(word[:4]) <= most for word in words):
        return f"Write numbers from 1 to {most} with blanks between them, or 0."
    numbers = sorted({int(word[:4]) - 1 for word in words})
    for first, second in itertools.pairwise(numbers):
        if question.choices[first].vendor == question.choices[second].vendor:
            vendor = question.choices[first].vendor
            return f"Choose one plan of {vendor}; tok-plan set has --account for a second account."
    return numbers


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
        choices.append(
            Choice(
                f"{LINE} {HOOKS}" if line else HOOKS,
                f"{both} that warn before a limit (tok-guard)",
            )
        )
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
