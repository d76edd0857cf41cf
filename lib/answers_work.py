"""Answers questions about how agents worked: scorecard, tasks, single sessions, waste, prompts and replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenops import config, events, machines, workers
from tokenops.answers import OPEN, end, first_moment, ignore, thresholds
from tokenops.session import BadRequest, Fault, Log, NotFound

if TYPE_CHECKING:
    import re

    from tokenops import coach_averages, coach_transcripts, read_clients, store_summaries
    from tokenops.events import Event, Filter
    from tokenops.jsonl import OnBadLine

    Source = tuple[read_clients.Client, Sequence[str]]

# The default start of the span of the scorecard and of the coach's reports.
WEEK = "7d"


def score(
    log: Log,
    since: str,
    until: str = OPEN,
    by: str = "none",
    compare: bool = False,
    only: Filter = events.EVERY,
    on_bad_line: OnBadLine = ignore,
) -> list[Event]:
    """The KPIs of a span, graded; a card per group. `compare`: with the span of the same length before it."""
    from tokenops import scorecard, when

    rules = thresholds(log.settings)["score"]
    span = when.moment(first_moment(since, log)), log.now if until == OPEN else when.moment(until)
    return scorecard.rows(log.folder, log.catalogue(), rules, log.now, span, log.tz, by, compare, only, on_bad_line)


def tasks(log: Log, name: str = "", since: str = "", metrics: bool = True) -> list[Event]:
    """Tasks opened since a moment, or the one of that name; with what they took, unless that is not needed."""
    from tokenops import tasks

    try:
        return tasks.rows(log.folder, log.now, log.catalogue if metrics else None, name, since)
    except config.Unusable as error:
        raise Fault(str(error)) from None


def start_task(
    folder: str, directory: str, now: int, title: str, session: str = "", owner: machines.Owner = machines.NOBODY
) -> str:
    """Open a task of the project around a directory; its name."""
    from tokenops import tasks

    try:
        return tasks.start(folder, directory, now, title, session, owner)
    except config.Unusable as error:
        raise Fault(str(error)) from None


def finish_task(folder: str, directory: str, now: int, name: str = "", owner: machines.Owner = machines.NOBODY) -> str:
    """End a task, or the one of the project around a directory that was opened last; its name."""
    from tokenops import tasks

    try:
        return tasks.finish(folder, directory, now, name, owner)
    except config.Unusable as error:
        raise Fault(str(error)) from None


class Commits(NamedTuple):
    """What commits, pull requests or tickets cost. `remarks`: what one must know to read the rows."""

    rows: list[Event]
    remarks: list[str]


TICKET = r"[A-Z][A-Z0-9]+-[0-9]+"


def commits(
    log: Log, directory: str, what: str, words: Sequence[str] = (), since: str = "", base: str = "", everyone: bool = False
) -> Commits:
    """What the `commits` or `prs` of the repository around a directory cost. `words`: a range, as git log takes it.

    `since`: a moment; "": when the work on the range began, or 30 days ago.
    """
    from tokenops import tasks_commits, tasks_git, when

    try:
        chosen = tasks_git.in_range(directory, words) if words else None
        if since:
            start = when.moment(since)
        else:
            start = tasks_git.begin_of(directory, chosen) if chosen else log.now - MONTH
        repository = tasks_git.read(directory, start, base)
        if chosen is None and what == "commits":
            chosen = tasks_git.in_range(directory, ["HEAD"]) if repository.commits else []
    except config.Unusable as error:
        raise Fault(str(error)) from None
    mine = tasks_commits.authors(repository, everyone)
    owners = tasks_commits.Owners(repository, mine)
    records = _of_project(log, directory, when.stamp(start))
    values, by_time = tasks_commits.by_commit(records, owners, log.catalogue())
    if what == "prs":
        rows = tasks_commits.pull_request_rows(values, repository, chosen)
    else:
        rows = tasks_commits.commit_rows(
            values, repository, owners, [name for name in chosen or () if name in repository.commits]
        )
    return Commits(rows, list(tasks_commits.remarks(repository, mine, by_time)))


MONTH = 30 * 86_400_000


def tickets(log: Log, directory: str, since: str = "") -> Commits:
    """What tickets cost that the names of branches state, in the project around a directory. `since`: "": 30 days ago."""
    from tokenops import tasks_commits, when

    pattern = ticket_pattern(log)
    records = _of_project(log, directory, since or when.stamp(log.now - MONTH))
    return Commits(tasks_commits.ticket_rows(records, pattern, log.catalogue()), [])


def ticket_pattern(log: Log) -> re.Pattern[str]:
    """What a ticket looks like in the name of a branch. Raises Fault."""
    import re

    text = log.settings.get("tasks", "ticket") or TICKET
    try:
        return re.compile(text)
    except (re.error, TypeError) as error:
        why = f"{log.settings.path}: tasks.ticket is no regular expression ({error}); write one such as {TICKET}"
        raise Fault(why) from None


def _of_project(log: Log, directory: str, since: str) -> Iterator[Event]:
    """The turns, and the sums of whole sessions, of the project around a directory."""
    import orjson

    from tokenops import store, tasks

    project = tasks.project_of(log.folder, directory).get("project_id", "").encode()
    for line in store.scan(log.folder, since):
        if project in line and store.kind_of(line) in (b"turn", b"usage"):
            record = orjson.loads(line)
            if record.get("project_id") == project.decode():
                yield record


def note_commits(directory: str, rows: Iterable[Event], digest: str) -> int:
    """Write what commits cost into git notes (refs/notes/tokenops), and say how many; those without turns get none."""
    from tokenops import tasks_commits, tasks_git

    texts = {row["commit"]: tasks_commits.note(row, digest) for row in rows if row["kind"] == "commit" and row["turns"]}
    try:
        tasks_git.add_notes(directory, texts)
    except config.Unusable as error:
        raise Fault(str(error)) from None
    return len(texts)


class Trace(NamedTuple):
    """A session turn by turn, and what it wasted. `labels`: its client, project and workflow."""

    session: str
    steps: list[Event]
    findings: list[Event]
    labels: Event


def trace(log: Log, session: str) -> Trace:
    """The session whose id begins with a text, turn by turn. Raises BadRequest unless there is exactly one."""
    return _trace(log, *session_records(log, session))


def session_records(log: Log, session: str) -> tuple[str, list[Event]]:
    """The id of the session that begins with a text, and its records. Raises BadRequest unless there is exactly one."""
    from tokenops import store_sessions

    try:
        return _session(log, session)
    except store_sessions.Unknown as error:
        from tokenops import answers_absence

        raise BadRequest(f"{error}{answers_absence.unknown_session(log, error, session)}") from None


def _session(log: Log, name: str) -> tuple[str, list[Event]]:
    """The only session whose id begins with a text, and its records. Raises store_sessions.Unknown."""
    from tokenops import store_sessions

    try:
        return store_sessions.session(log.folder, name, session_days(log).days_of(name))
    except store_sessions.Unknown:  # one that has rounds and no turns, on a closed day, is in no summary
        return store_sessions.session(log.folder, name)


def session_days(log: Log) -> store_summaries.Sessions:
    """The days on which each session may have turns."""
    from tokenops import store_days, store_summaries

    files, catalogue = store_days.files_of(log.folder), log.catalogue()
    first_open = store_days.first_open(log.now)

    def read() -> store_summaries.Sessions:
        return store_summaries.sessions(log.folder, catalogue, log.now, files)

    if log.memory is None:
        return read()
    # A summary that is made later counts from the next day on: until then its day is read as well.
    key = {day: size for day, size in files.items() if day < first_open}, catalogue.digest
    return log.memory.get(("sessions", log.folder), key, read)


def explanation(log: Log, trace: Trace, identity: str, sources: Iterable[Source] = ()) -> Event | None:
    """What one turn of a session is made of, as `tok-log explain` has it; None if the log lacks it.

    `sources`: the clients' files, which it is looked for in as well.
    """
    from tokenops import explain, store_days

    step = next((step for step in trace.steps if step["id"] == identity), None)
    days = store_days.near(step["ts"][:10]) if step else None
    return explain.explanation(identity, log.folder, sources, log.catalogue(), days)


def workflow(log: Log, workflow_id: str) -> Trace:
    """One workflow of a session, turn by turn. Raises NotFound."""
    from tokenops import projects, store, store_sessions

    try:
        name, records = _session(log, workflow_id.rpartition(":")[2])
    except store_sessions.Unknown:
        name, records = "", []
    labels = store.labels(log.folder)
    own = [record for record in records if projects.relabel(record, labels).get("workflow_id") == workflow_id]
    if not own:
        raise NotFound(f"no workflow {workflow_id[: events.LONGEST]!r}")
    return _trace(log, name, own)


def _trace(log: Log, name: str, records: list[Event]) -> Trace:
    from tokenops import projects, store, store_sessions, trace

    rules, ancestors = thresholds(log.settings)["waste"], store_sessions.ancestors(log.folder, records)
    rows = trace.rows(records, log.catalogue(), rules, _context_limits(log), ancestors)
    last = max(records, key=lambda record: (record["kind"] == "turn", record["ts"]))
    labels = projects.relabel(dict(last), store.labels(log.folder))
    names = ("client", "project", "agent_id", "workflow_id")
    return Trace(name, *rows, {name: labels[name] for name in names if name in labels})


def _context_limits(log: Log) -> Sequence[Mapping[str, Any]]:
    return log.settings.get("coaching", "context_limits") or ()


class Waste(NamedTuple):
    """Where tokens went to waste: sums by kind, and each finding, the most expensive first."""

    sums: list[Event]
    findings: list[Event]


def _coach_span(log: Log, since: str, until: str) -> coach_averages.Span:
    from tokenops import coach_averages

    return coach_averages.Span(first_moment(since, log), end(until, log.now))


def waste(
    log: Log,
    since: str,
    until: str = OPEN,
    only: Filter = events.EVERY,
    on_bad_line: OnBadLine = ignore,
    progress: workers.Progress = workers.SILENT,
) -> Waste:
    """Where tokens of a span's sessions went to waste."""
    from tokenops import coach_report

    rules, span = thresholds(log.settings)["waste"], _coach_span(log, since, until)
    more = _context_limits(log), on_bad_line, progress
    return Waste(*coach_report.waste(log.folder, span, only, rules, log.catalogue(), *more))


def cheaper_models(
    log: Log,
    since: str,
    until: str = OPEN,
    only: Filter = events.EVERY,
    on_bad_line: OnBadLine = ignore,
    progress: workers.Progress = workers.SILENT,
) -> list[Event]:
    """What a cheaper model of the same provider would have cost, the greatest difference first."""
    from tokenops import coach_report, when

    rules, span = thresholds(log.settings)["waste"], _coach_span(log, since, until)
    now = when.stamp(log.now)
    return coach_report.models(log.folder, span, only, rules, log.catalogue(), now, on_bad_line, progress)


class Transcripts(NamedTuple):
    """Where to find transcripts, and what to call for warnings, unreadable files, parts read, and bad lines of the log."""

    environment: Mapping[str, str]
    home: str
    warn: Callable[[str], None] = ignore
    on_unreadable: Callable[[str, OSError], None] = ignore
    progress: workers.Progress = workers.SILENT
    on_bad_line: OnBadLine = ignore


class Coaching(NamedTuple):
    """A report on prompts or replies, how many of them it is made of, and how many transcripts were read."""

    report: Event
    messages: int
    files: int


def prompts(
    log: Log,
    since: str,
    until: str,
    only: Filter,
    transcripts: Transcripts,
    by: str = "project",
    latest: int | None = None,
    samples: int = 0,
) -> Coaching:
    """Habits in the user's prompts, what they cost, and what would help; of the `latest` ones or of all."""
    from tokenops import coach_report, coach_transcripts

    rules, span = thresholds(log.settings)["coaching"], _coach_span(log, since, until)
    talk = _talk(log, transcripts, coach_transcripts.PROMPT, span, only)
    if latest:
        talk = talk._replace(utterances=talk.utterances[-latest:])
    report = coach_report.prompt_report(
        log.folder, talk, span, only, rules, log.catalogue(), by, samples, transcripts.on_bad_line
    )
    return Coaching(report, len(talk.utterances), talk.files)


def replies(log: Log, since: str, until: str, only: Filter, transcripts: Transcripts) -> Coaching:
    """How agents' replies read."""
    from tokenops import coach_report, coach_transcripts

    rules, span = thresholds(log.settings)["coaching"], _coach_span(log, since, until)
    talk = _talk(log, transcripts, coach_transcripts.REPLY, span, only)
    report = coach_report.reply_report(log.folder, talk, span, only, rules, transcripts.on_bad_line)
    return Coaching(report, len(talk.utterances), talk.files)


def _talk(log: Log, transcripts: Transcripts, kind: str, span: coach_averages.Span, only: Filter) -> coach_transcripts.Talk:
    from tokenops import coach_report, readers

    where = transcripts.environment, transcripts.home
    try:
        return coach_report.talk(log.folder, where, kind, span, only, *transcripts[2:5])
    except readers.NotFound as error:
        raise Fault(str(error)) from None
