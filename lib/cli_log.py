"""The verbs of tok-log that ask before they change the log, or that read what others signed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tokenops import cli, config, datadir, machines, show, store_forget, store_public, store_rules, sync, when

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from tokenops import events
    from tokenops.store_rules import Rule

_OPTIONS = ("project", "client", "session", "before")


def forget(args: argparse.Namespace) -> int:
    """Forget what the options name, list what is forgotten, or lift a rule. Raises cli.Fault, OSError."""
    folder = datadir.log_folder()
    chosen = [name for name in _OPTIONS if getattr(args, name)]
    if args.list or args.undo is not None:
        if chosen or (args.list and args.undo is not None):
            raise cli.Fault("forget: give --list, --undo, or what to forget")
        return _list(args, folder) if args.list else _undo(args, folder)
    if not chosen:
        raise cli.Fault(
            f"forget: say what, with {', '.join(f'--{name}' for name in _OPTIONS)}; all that you give must match"
        )
    conditions = _conditions(args, folder)
    named, now, catalogue = _names_of(folder, conditions), when.stamp(cli.now()), cli.catalogue()
    from tokenops import costs, rollup

    sums = rollup.Rollup(rollup.Grouping((), when.UTC, catalogue))
    plan = store_forget.plan(folder, conditions, named, now, sums.add)
    total = costs.total_of(costs.price_rows(sums.rows(), catalogue))
    if conditions.client and not plan.records:
        _known_client(args.client, conditions.client)
    row = _row(plan, total, args.dry_run)
    damaged: list[str] = []
    if not args.dry_run:
        if not args.yes and not _agrees(_preview(conditions, row)):
            cli.say("nothing was forgotten")
            return 1
        with datadir.lock(folder, sync.LOCK):
            rule, damaged = store_forget.carry_out(folder, plan)
        row["rule"] = rule.number
        for location in damaged:
            cli.say(f"{location}: a damaged archive stays as it is; restore it or delete it, then forget again")
    if args.dry_run:
        text = f"would be forgotten: {_preview(conditions, row)}"
    else:
        text = f"{_preview(conditions, row)}\n" if args.yes else ""
        text += f"forgotten; rule {row['rule']} keeps tok-sync from bringing it back"
    cli.write_report(args, [row], text)
    return 1 if damaged else 0


def _conditions(args: argparse.Namespace, folder: str) -> store_forget.Conditions:
    """What the options say, in the log's own words. Raises Fault."""
    before, session, client = "", "", args.client or ""
    if args.before:
        try:
            before = when.stamp(when.parse_since(args.before, cli.now(), cli.zone(args)))
        except (ValueError, OverflowError) as error:
            raise cli.Fault(f"--before: {error}") from None
        before = min(before, when.stamp(cli.now()))
    if args.session:
        session = _session(args.session, folder)
    return store_forget.Conditions(args.project or "", cli.client(client) if client else "", session, before)


def _session(name: str, folder: str) -> str:
    """The whole id of a session. Of one that the log forgot it must be given whole. Raises Fault."""
    from tokenops import store_sessions

    try:
        return store_sessions.session(folder, name)[0]
    except store_sessions.Unknown as error:
        rules = _rules(folder)
        if any(rule.session == rules.hash(name) for rule in rules.rules):
            return name
        raise cli.Fault(f"--session: {error}") from None


def _names_of(folder: str, conditions: store_forget.Conditions) -> store_forget.Named:
    try:
        return store_forget.named_by(folder, conditions)
    except store_forget.NoMatch as error:
        why = f"several projects have that name ({error}); give one of these" if str(error) else _nearest(folder, conditions)
        raise cli.Fault(f"--project {conditions.project}: {why}") from None


def _nearest(folder: str, conditions: store_forget.Conditions) -> str:
    names = store_forget.project_names(folder)
    return f"the log has no such project{show.meant(conditions.project, names)}; tok-cost --log --by project lists all"


def _known_client(text: str, client: str) -> None:
    """Refuse a client's name that nobody has. Raises Fault."""
    from tokenops import read_clients

    names = {other.client for other in read_clients.CLIENTS}
    if client not in names:
        names |= read_clients.BY_NAME.keys()
        raise cli.Fault(
            f"--client {text}: nothing in the log matches, and no client has that name{show.meant(client, names)}"
        )


def _row(plan: store_forget.Plan, total: events.Event, dry: bool) -> events.Event:
    """What is forgotten, as a record for programs."""
    row = {"v": 1, "kind": "forget", "records": plan.records, "turns": plan.turns, "tokens": plan.tokens}
    row |= {"first": plan.first, "last": plan.last} if plan.first else {}
    row |= {"days": plan.began, "dry_run": dry}
    return row | ({"cost_usd": total["cost_usd"]} if "cost_usd" in total else {})


def _preview(conditions: store_forget.Conditions, row: events.Event) -> str:
    names = [f"{name} {value}" for name, value in conditions._asdict().items() if value]
    days = "" if row["days"] == 1 else f"{show.plural(row['days'], 'day')} from {row.get('first')} to "
    span = f", {days}{row['last']}" if row["days"] else ""
    cost = f", {show.money(row['cost_usd'])}" if "cost_usd" in row else ""
    return (
        f"{' and '.join(names)}: {show.plural(row['turns'], 'turn')}, {row['tokens']:,} tokens{cost}{span}; "
        f"{show.plural(row['records'], 'record')} in all"
    )


def _agrees(text: str) -> bool:
    """Whether the user says yes at a terminal. Raises Fault without a terminal."""
    if not sys.stdin.isatty():
        raise cli.Fault(f"{text}; nothing was forgotten: add --yes to forget it, or --dry-run to look")
    sys.stderr.write(f"{show.safe(text)}\nThe log loses this for good. Clients' own files stay. Forget it? (y/N) ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _rules(folder: str) -> store_rules.Rules:
    try:
        return store_rules.load(folder)
    except config.Unusable as error:
        raise cli.Fault(str(error)) from None


def _list(args: argparse.Namespace, folder: str) -> int:
    rules = _rules(folder).rules
    rows = [{"v": 1, "kind": "forgotten"} | _fields(rule) for rule in rules]
    lines = [
        f"{rule.number}  {rule.at[:16].replace('T', ' ')}  {_words(rule)}: {show.plural(rule.removed, 'turn')}, "
        f"{rule.tokens:,} tokens"
        for rule in rules
    ]
    cli.write_report(args, rows, "\n".join(lines) or "nothing is forgotten")
    return 0


def _fields(rule: Rule) -> events.Event:
    row: events.Event = {"rule": rule.number, "at": rule.at, "until": rule.until}
    row |= {name: value for name in ("client", "before") if (value := getattr(rule, name))}
    row |= {"project_hashes": list(rule.projects)} if rule.projects else {}
    row |= {"session_hash": rule.session} if rule.session else {}
    return row | {"turns": rule.removed, "tokens": rule.tokens}


def _words(rule: Rule) -> str:
    """What a rule forgets. The names of projects and sessions are forgotten, too: their hashes stand for them."""
    words = [f"project {rule.projects[0]}"] if rule.projects else []
    words += [f"client {rule.client}"] if rule.client else []
    words += [f"session {rule.session}"] if rule.session else []
    return " and ".join([*words, f"before {rule.until[:16].replace('T', ' ')} UTC"])


def _undo(args: argparse.Namespace, folder: str) -> int:
    try:
        rule = store_rules.remove(folder, args.undo)
    except config.Unusable as error:
        raise cli.Fault(str(error)) from None
    if rule is None:
        raise cli.Fault(f"--undo {args.undo}: there is no such rule; tok-log forget --list shows them")
    text = f"rule {rule.number} is lifted; tok-sync --backfill brings back what clients' files still hold"
    cli.write_report(args, [{"v": 1, "kind": "remembered"} | _fields(rule)], text)
    return 0


def export(args: argparse.Namespace) -> int:
    """Write what may be shared of the log, signed. Raises cli.Fault, OSError."""
    if not args.public:
        raise cli.Fault("export: give --public, which writes what may be shared; tok-cat writes whole records")
    if len(args.operands) > 1:
        raise cli.Fault("export: name one file, or - for standard output")
    share, (since, until) = _share(args), cli.span(args, cli.zone(args))
    folder, _ = cli.catch_up(cli.Diagnostics())
    datadir.salt(folder, make=True)
    salt = datadir.first_salt(folder)  # what was shared before keeps its ids
    lines, unshared = store_public.rows(folder, since, until, share, salt)
    if unshared:
        cli.say(f"note: {show.plural(unshared, 'record')} hold values that cannot be shared, and were left out")
    text = _with_signature(store_public.document(lines, share.person, folder, cli.now(), salt), args.key)
    path = args.operands[0] if args.operands else "-"
    if path == "-":
        sys.stdout.buffer.write(text)
        return 0
    datadir.replace(path, text, mode=datadir.shared_mode())
    row = {"v": 1, "kind": "export", "file": path, "from": share.person, "records": len(lines), "signed": bool(args.key)}
    cli.write_report(args, [row], f"{show.plural(len(lines), 'record')} of {share.person} in {path}")
    return 0


def _with_signature(text: bytes, key: str | None) -> bytes:
    """A document with its signature, if there is a key. Raises Fault."""
    from tokenops import signing

    if not key:
        cli.say("note: without --key the export is not signed, and tok-log import --trust refuses it")
        return text
    try:
        return store_public.with_signature(text, key)
    except signing.NotSigned as error:
        raise cli.Fault(f"--key {error}") from None
    except OSError as error:
        raise cli.Fault(f"ssh-keygen: {error.strerror}; install OpenSSH, or leave --key out") from None


def _share(args: argparse.Namespace) -> store_public.Share:
    """What the options and the configuration say to share. Raises Fault."""
    settings = cli.configuration()
    machine = machines.own_name("machine", settings, os.environ)
    person = args.user or machines.own_name("user", settings, os.environ) or ""
    if not person:
        raise cli.Fault("export: whose is it? set user: in config.yaml, or give --user NAME")
    if not store_public.is_person(person):
        raise cli.Fault(f"export: {person!r} cannot sign; use letters, digits and . _ @ + - for the user's name")
    fields = [name.strip() for name in (args.fields or "").split(",") if name.strip()]
    for name in fields:
        if name not in store_public.OPTIONAL:
            hint = "; --projects and --branches share these" if name in ("project", "branch") else ""
            raise cli.Fault(f"--fields {name}: is not one of {', '.join(store_public.OPTIONAL)}{hint}")
    named = frozenset(filter(None, [machine, args.machine]))
    return store_public.Share(person, args.stamp, args.projects, args.branches, frozenset(fields), named)


def import_public(args: argparse.Namespace) -> int:
    """Take in what others exported, if somebody in the list of signers signed it. Raises cli.Fault, OSError."""
    if not args.operands:
        raise cli.Fault("import: name exports of tok-log export --public, or a folder of them")
    if args.machine or args.user:
        raise cli.Fault("--trust: an export names its user and machine itself; leave --machine and --user out")
    folder, diagnostics = datadir.log_folder(), cli.Diagnostics()
    signers, imports = _signers(args.trust, args.operands), store_public.Imports(folder)
    sums = {"files": 0, "unchanged": 0, "refused": 0, "events": 0, "added": 0}
    for path, data in _documents(args.operands, diagnostics, sums):
        digest = store_public.digest_of(data)
        try:
            head = store_public.header_of(data)
            if imports.has(head, digest):
                sums["unchanged"] += 1
                continue
            lines = store_public.verify(data, head, signers)
            accepted = list(store_public.records_of(lines, head, cli.now()))
        except store_public.Refused as why:
            _report_refusal(path, str(why), sums)
            continue
        except FileNotFoundError as error:
            raise cli.Fault(f"ssh-keygen: {error.strerror}; install OpenSSH: it checks the signatures") from None
        added = store_public.add(folder, accepted, head.person)
        if added.others:
            taken = show.plural(added.others, "record")
            cli.say(f"{path}: {taken} of {head.person} with the id of another person's; left out, ask both whose it is")
        sums["added"] += added.records
        sums["events"] += len(accepted)
        imports.keep(head, digest)
    text = f"{show.plural(sums['files'], 'file')}: {sums['unchanged']:,} imported before, {sums['refused']:,} refused; "
    text += f"{show.plural(sums['events'], 'record')} read, {sums['added']:,} added"
    cli.write_report(args, [{"v": 1, "kind": "import"} | sums], text)
    return 1 if sums["refused"] else diagnostics.status()


def _signers(path: str, operands: list[str]) -> bytes:
    """The user's list of who may sign. Raises Fault, OSError."""
    from tokenops import signing

    try:
        signing.only_own(path)
    except config.Unusable as error:
        raise cli.Fault(f"--trust {error}") from None
    here = os.path.realpath(path)
    for folder in map(os.path.realpath, operands):
        if os.path.isdir(folder) and here.startswith(os.path.join(folder, "")):
            raise cli.Fault(f"--trust {path}: is in the folder that others write to; keep your copy of the list elsewhere")
    content = datadir.content_of(path) or b""
    if not content.strip():
        raise cli.Fault(f"--trust {path}: is empty; write a line NAME KEY for each person")
    return content


def _documents(operands: list[str], diagnostics: cli.Diagnostics, sums: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of each document, each person's in the order in which they were exported."""
    paths = []
    for operand in operands:
        if not os.path.exists(operand):
            raise cli.Fault(f"{operand}: no such file or directory; check the path")
        paths += store_public.files_in(operand)
    heads = []
    for path in paths:
        sums["files"] += 1
        try:
            heads.append((store_public.header_of(store_public.beginning(path)), path))
        except store_public.Refused as why:
            _report_refusal(path, str(why), sums)
        except OSError as error:
            diagnostics.on_unreadable(path, error)
    for _, path in sorted(heads):
        try:
            yield path, store_public.content(path)
        except store_public.Refused as why:
            _report_refusal(path, str(why), sums)
        except OSError as error:
            diagnostics.on_unreadable(path, error)


def _report_refusal(path: str, why: str, sums: dict[str, int]) -> None:
    sums["refused"] += 1
    cli.say(f"{path}: {why}")
