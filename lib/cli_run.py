"""Runs an agent in this terminal and, if a limit ended it, waits and resumes its session."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from tokenops import (
    answers,
    cli,
    cli_child,
    cli_wait,
    datadir,
    events,
    guard,
    limit_view,
    limit_wait,
    readers,
    run_agents,
    run_logs,
    run_rules,
    show,
    when,
)
from tokenops.run_rules import Rules

INTERRUPTED = 130


class Options(NamedTuple):
    """What the user asked for."""

    resume: bool
    prompt: str
    quiet: bool
    rules: Rules


class Run:
    """An agent from its first start to its end, with all waits and resumes between."""

    def __init__(self, command: Sequence[str], options: Options) -> None:
        self.options, self.command = options, list(command)
        self.start = run_agents.start_of(command)
        self.identity = self.start.session
        self.run_id = uuid.uuid4().hex[:12]
        self.resumes = 0
        self.began = 0
        self.log_folder = datadir.log_folder()
        self.why_not = ""

    def run(self) -> int:
        """Run it to its end; the exit status of the last process. Raises Fault if the program cannot be started."""
        self.prepare()
        event = "started"
        while True:
            self.began = cli.now()
            self.note(event)
            ended = cli_child.child(self.command)
            self.note("ended", status=ended.status)
            if ended.is_stopped:
                return ended.status
            ending, why_not = self.ending(cli.now())
            if ending is None:
                return self.stay(ended.status, "" if not ended.status and why_not == run_logs.ABSENT else why_not, None)
            if why_not := self.objection(ending):
                return self.stay(ended.status, why_not, ending)
            try:
                if why_not := self.wait(ending):
                    return self.stay(ended.status, why_not, ending)
            except KeyboardInterrupt:
                self.note("interrupted")
                self.say("Ctrl-C: it is not resumed")
                return INTERRUPTED
            self.resumes += 1
            event = "resumed"
            self.reset = ending.resets_at
            self.command = run_agents.resume_command(self.start, self.identity, self.options.prompt)
            self.say(f"resuming the session, {self.resumes} of at most {self.options.rules.most}")

    reset: int | None = None

    def prepare(self) -> None:
        """Give a new session an id where the agent takes one, and say at once if it will not be resumed."""
        self.why_not = self.start.why_not
        if not self.options.resume:
            return
        if self.start.takes_id and not self.why_not:
            self.identity = str(uuid.uuid4())
            self.command = run_agents.with_session(self.command, self.start, self.identity)
        try:
            self.add({"event": "called"})
        except OSError as error:
            self.why_not = f"the ledger cannot be written ({error.filename or self.log_folder}: {error.strerror})"
        if self.why_not:
            self.say(f"{self.start.agent} will not be resumed: {self.why_not}")

    def ending(self, ended: int) -> tuple[run_logs.Ending | None, str]:
        """How the run ended by its log; None and why, if that is not certain."""
        if self.why_not:
            return None, self.why_not if self.options.resume else ""
        try:
            paths, folder = self.paths(), self.start.folder or os.getcwd()
            if self.identity:
                mine = run_logs.session_of(self.start.agent, paths, self.identity)
                why_not = "" if mine else run_logs.ABSENT
            else:
                sessions = run_logs.sessions_since(self.start.agent, paths, folder, self.began)
                mine, why_not = run_logs.which(sessions, self.start.is_new, self.began)
            if mine is None:
                return None, why_not
            self.identity, self.path = mine.id, mine.path
            ending = run_logs.ending(self.start.agent, mine, self.began)
            if ending.state == run_logs.LIMIT and run_logs.is_left(self.start.agent, paths, folder, mine, ending.at, ended):
                return None, "another session began in this folder between the limit and its end"
        except (OSError, ValueError, cli.Fault) as error:
            return None, f"its log cannot be read: {error}"
        return ending, ""

    path = ""

    def paths(self) -> list[str]:
        """The files of the agent's log. Raises Fault."""
        home, usage = os.path.expanduser("~"), cli.settings().get("vendor_usage")
        name = readers.reader_name(self.start.client)
        try:
            return [path for _, every in readers.with_files((name,), (), os.environ, home, cli.say, usage) for path in every]
        except readers.NotFound as error:
            raise cli.Fault(str(error)) from None

    def objection(self, ending: run_logs.Ending) -> str:
        """Why it is not resumed, "" if nothing speaks against it but time."""
        if ending.state == run_logs.OTHER:
            return run_rules.objection(ending, (), 0, self.options.rules)
        if not self.options.resume:
            return "--resume waits and resumes it"
        try:
            resets = run_rules.resumed_after(self.log_folder, self.start.client, self.identity)
        except OSError as error:
            return f"the ledger cannot be read ({error.strerror})"
        why = run_rules.objection(ending, resets, self.resumes, self.options.rules)
        return why or run_rules.objection_to_cost(self.cost(), self.options.rules)

    def cost(self) -> run_rules.Cost:
        """What the session has cost, if that matters. Raises Fault."""
        if self.options.rules.max_usd is None:
            return run_rules.Cost(guard.ZERO)
        name = readers.reader_name(self.start.client)
        settings, log = cli.configuration(), (name, self.path)
        prices, owner = cli.catalogue(settings), cli.owner(settings)
        return run_rules.Cost(*guard.cost_of_session(self.log_folder, self.identity, log, prices, cli.now(), owner))

    def rows(self) -> list[events.Event]:
        """What is left of the vendor's limits, after what is new was imported; none for an agent of several vendors."""
        if not self.start.provider:
            return []
        return answers.budget(cli.log(cli.settings(), cli.Diagnostics()), self.start.provider).rows

    def wait(self, ending: run_logs.Ending) -> str:
        """Wait until there is room; why it is not resumed after all, else "". Raises KeyboardInterrupt."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        rules, last, is_asked = self.options.rules, "", 0
        end = cli.now() + rules.at_most
        while True:
            now, rows = cli.now(), self.rows()
            verdict = run_rules.verdict(ending, rows, now, end, rules)
            is_over = ending.resets_at is not None and now >= ending.resets_at + rules.margin
            if verdict.state == limit_wait.ROOM and is_over and not is_asked:
                is_asked = 1
                if self.start.provider and cli_wait.ask_vendor(self.start.provider):
                    continue
            if verdict.state != limit_wait.WAITING:
                break
            if (reason := f"{verdict.window} {verdict.resets_at}") != last:
                last, is_asked = reason, 0
                self.note("waiting", window=verdict.window, resets_at=stamp(verdict.resets_at))
                where = limit_view.moment(when.stamp(verdict.resets_at or 0), now, when.zone(None))
                self.say(f"waiting: {limit_wait.text(verdict, now, where)}")
            cli_wait.nap(verdict, not self.options.quiet)
        if verdict.state == limit_wait.TOO_LONG:
            hours = limit_wait.hours_needed(verdict, now, rules.margin / 1000)
            return f"the limit resets later than --at-most allows; --at-most {hours} waits for it"
        if verdict.state == limit_wait.UNKNOWN:
            return "the refusal named no reset, and no reading shows room"
        return run_rules.objection_to_extra(ending, rows, rules) or run_rules.objection_to_cost(self.cost(), rules)

    # What the user and the ledger are given.

    def stay(self, status: int, why_not: str, ending: run_logs.Ending | None) -> int:
        """End without a resume; the exit status. A run that met no limit ends in silence."""
        if why_not and (ending is None or ending.state != run_logs.OTHER):
            self.note("not_resumed", why=why_not)
            what = "a limit ended it" if ending is not None and ending.state == run_logs.LIMIT else "it ended"
            if ending is not None and ending.resets_at:
                resets = limit_view.moment(when.stamp(ending.resets_at), cli.now(), when.zone(None))
                what += f", which resets at {resets}"
            self.say(f"{what}; not resumed: {why_not}")
        return status

    def say(self, text: str) -> None:
        """A line for people."""
        if not self.options.quiet:
            cli.say(text)

    def note(self, event: str, **more: object) -> None:
        """Add what happened to the ledger. A line that cannot be written ends what may be resumed."""
        record: dict[str, object] = {"event": event, "session_id": self.identity or None, "resumes": self.resumes}
        if event == "resumed":
            record["resets_at"] = stamp(self.reset)
        try:
            self.add(record | more)
        except OSError as error:
            self.why_not = self.why_not or f"the ledger cannot be written ({error.strerror})"

    def add(self, record: dict[str, object]) -> None:
        """Add a line to the ledger. Raises OSError."""
        line = {"ts": when.stamp(cli.now()), "run": self.run_id, "client": self.start.client or None, **record}
        run_rules.append(self.log_folder, {name: value for name, value in line.items() if value is not None})


def stamp(at: int | None) -> str | None:
    """A moment as text, None for none."""
    return None if at is None else when.stamp(at)


def template(names: str) -> list[str]:
    """The words of the command template with the most room, of those that are named. Raises Fault."""
    import shlex

    settings, templates = cli.settings(), []
    commands = settings.get("run", "commands")
    for name in filter(None, (part.strip() for part in names.split(","))):
        words = commands.get(name) if isinstance(commands, dict) else None
        words = shlex.split(words) if isinstance(words, str) else words
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise cli.Fault(f"{show.safe(name)}: no such command; write it under run.commands in {settings.path}")
        templates.append((name, words))
    if not templates:
        raise cli.Fault("--any needs names of run.commands, separated by commas")
    log = cli.log(settings, cli.Diagnostics())
    candidates = []
    for name, words in templates:
        provider = run_agents.start_of(words).provider
        rows = answers.budget(log, provider).rows if provider else []
        row = min(rows, key=lambda row: (row["headroom_pct"] is None, row["headroom_pct"]), default=None)
        candidates.append((name, row))
    name = run_rules.roomiest(candidates)
    cli.say(f"starting {show.safe(name)}")
    return dict(templates)[name]
