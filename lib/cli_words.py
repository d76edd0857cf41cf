"""Turns what follows `tok` into a command line of ours: names, words for spans, and the words of ccusage and the original.

A word that means the same as a command of ours is run as it. One that does not is answered with the line to use instead.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import CodeType
from typing import NamedTuple, NoReturn

from tokenops import cli, show


class Call(NamedTuple):
    """A command and its arguments. `command` is "" for `tok` itself."""

    command: str
    argv: list[str]


class Word(NamedTuple):
    """A word: the command that it means, and its arguments. `takes_flags`: ccusage's options work after it."""

    command: str
    argv: tuple[str, ...] = ()
    takes_flags: bool = False


def _cost(*argv: str) -> Word:
    return Word("tok-cost", ("--log", *argv), takes_flags=True)


_ALL = ("--since", "all")
WORDS = {
    "today": _cost("--today"),
    "week": _cost("--since", "this week"),
    "month": _cost("--since", "this month"),
    "daily": _cost("--by", "day", *_ALL),
    "weekly": _cost("--by", "week", *_ALL),
    "monthly": _cost("--by", "month", *_ALL),
    "session": _cost("--by", "session", *_ALL),
    "sessions": _cost("--by", "session", *_ALL),
    **dict.fromkeys(("project", "projects"), _cost("--by", "project")),
    **dict.fromkeys(("model", "models"), _cost("--by", "model")),
    "blocks": Word("", ("blocks",)),
    "limits": Word("tok-budget"),
    "doctor": Word("tok-status"),
}
# The original's words: what they mean here, or the line to use instead.
THEIRS = {
    ("serve",): Word("tok-mcp"),
    ("spend",): _cost("--since", "7d"),
    ("replay",): Word("tok-trace"),
    ("scorecard",): Word("tok-score"),
    ("events",): Word("tok-cat"),
    ("demo",): Word("tok-init", ("--demo",)),
    ("detect",): Word("tok-init", ("--detect",)),
    ("glance",): Word(""),
    ("dashboard",): Word("tok-dash", ("url",)),
    ("dashboard", "rotate-token"): Word("tok-dash", ("rotate-token",)),
    ("vendor-usage", "status"): Word("tok-poll", ("status",)),
    ("vendor-usage", "enable"): Word("tok-poll", ("enable",)),
    ("vendor-usage", "disable"): Word("tok-poll", ("disable",)),
    ("vendor-usage", "backfill"): Word("tok-poll", ("backfill",)),
    ("vendor-usage",): Word("tok-poll", ("status",)),
    ("pricing", "show"): Word("tok-price", ("show",)),
    ("pricing", "lint"): Word("tok-price", ("lint",)),
    ("pricing", "diff"): Word("tok-price", ("check",)),
    ("pricing", "refresh"): Word("tok-price", ("update",)),
    ("pricing",): Word("tok-price", ("list",)),
    ("hooks", "install"): Word("tok-guard", ("install",)),
    ("hooks", "uninstall"): Word("tok-guard", ("uninstall",)),
    ("hooks", "status"): Word("tok-guard", ("status",)),
    ("hooks",): Word("tok-guard", ("status",)),
    # Words that people try because they name what they look for.
    ("commits",): Word("tok-task", ("commits",)),
    ("prs",): Word("tok-task", ("prs",)),
    ("waste",): Word("tok-coach", ("waste",)),
    ("breaks",): Word("tok-context", ("--breaks", "--sort", "price")),
    ("tools",): Word("tok-context"),
    ("live",): Word("tok-top"),
    ("monitor",): Word("tok-top"),
}
# A word without a command -> what to use instead, one line.
INSTEAD: dict[tuple[str, ...], str] = {
    ("start",): "there is no daemon; tok-proxy --dash runs the proxy and the dashboard, tok-sync imports usage once",
    ("daemon",): "there is no daemon; tok-proxy --dash runs the proxy and the dashboard, tok-sync imports usage once",
    ("config",): 'edit the file: ${EDITOR:-vi} "${XDG_CONFIG_HOME:-$HOME/.config}/tokenops/config.yaml" (docs/config.md)',
    ("audit",): "there is no audit log; tok-log explain ID shows where a number comes from",
    ("rules",): "rule files are not analysed; tok-coach waste shows where tokens go to waste",
    ("eval",): "there is no such report; tok-backtest shows how accurate the forecasts of limits were",
    ("coverage-debt",): "there is no such report; tok-score grades your usage",
    ("fmt",): "output of commands is not rewritten; tok-coach waste shows where tokens go to waste",
    ("cert",): "the proxy needs no certificate: tok-provider env prints the base URLs to set",
    ("checkup",): "use tok-status for the setup, tok-coach waste for what to change",
    ("export",): "each report has --json, --csv and --markdown; tok-cat prints all events, tok-ship sends them elsewhere",
    ("uninstall",): "tok-init --undo takes back what it set up; then pipx uninstall tokenops (docs/install.md)",
    ("usage",): "tok shows cost and limits on one screen; tok daily shows the cost per day, tok limits what is left",
    ("menubar",): "use tok-statusline for a status line, tok-dash for a page",
    ("team",): "nothing leaves this machine; docs/scaling.md shows how to put several machines' logs together",
}


def names(folder: str) -> list[str]:
    """What may follow `tok`: the name of each command beside it, and the words of our own."""
    commands = sorted(name for name in os.listdir(folder) if name.startswith("tok-"))
    return [*WORDS, *(name.removeprefix("tok-") for name in commands), "help"]


def aliases() -> dict[str, str]:
    """The words of our own besides the names of commands, each with the command that it runs."""
    return {**{name: word.command or "tok" for name, word in WORDS.items()}, "help": "tok"}


def call(argv: Sequence[str], folder: str, now: Callable[[], datetime.datetime]) -> Call:
    """What these arguments of `tok` call. `folder`: of the commands; `now`: the present local time. Raises Fault."""
    if not argv or argv[0].startswith("-"):
        if argv:
            _refuse_foreign(argv)
        return Call("", list(argv))
    word, rest = argv[0].removeprefix("tok-"), list(argv[1:])
    if word in ("help", "version"):
        return _help(word, rest, folder)
    if os.path.isfile(os.path.join(folder, f"tok-{word}")):
        return Call(f"tok-{word}", rest)
    if word in ("top", "live", "monitor") and not os.path.isfile(os.path.join(folder, "tok-top")):
        raise cli.Fault("tok-top is not installed here; tok-dash shows live numbers in a browser")
    if word in WORDS:
        return _word(WORDS[word], word, rest, now)
    if word in (clients := _clients()):
        return _of_client(clients[word], word, rest, folder, now)
    if (phrase := (word, *rest[:1])) in INSTEAD or phrase in THEIRS:
        return _theirs(phrase, rest[1:], now)
    if rest and any(phrase[0] == word for phrase in THEIRS if len(phrase) > 1) and not rest[0].startswith("-"):
        seconds = [phrase[1] for phrase in (*THEIRS, *INSTEAD) if phrase[0] == word and len(phrase) > 1]
        raise cli.Fault(f"tok {word} {show.short_text(rest[0], 40)}: did you mean {show.nearest(rest[0], seconds)}?")
    if (word,) in INSTEAD or (word,) in THEIRS:
        return _theirs((word,), rest, now)
    if span := _span(argv, now):
        return span
    nearest = show.nearest(word, [*names(folder), *(phrase[0] for phrase in (*THEIRS, *INSTEAD))], 0.5)
    hint = f"; did you mean tok {nearest}?" if nearest else ";"
    raise cli.Fault(f"no command {show.short_text(word, 40)!r}{hint} tok help lists all")


def _refuse_foreign(argv: Sequence[str]) -> None:
    """Raise Fault with the line to use, for options of claude-monitor and for a word that is written as an option."""
    flag = argv[0].partition("=")[0]
    if flag == "--view":
        words = {"daily": "tok daily", "monthly": "tok monthly", "session": "tok session", "burn-rate": "tok-burn"}
        view = (argv[0].partition("=")[2] or "".join(argv[1:2])).lower()
        raise cli.Fault(f"--view: TokenOps has no such option: use {words.get(view, 'tok-top')}")
    if flag in _MONITOR:
        raise cli.Fault(f"{flag}: TokenOps has no such option: {_MONITOR[flag]}")
    if flag.removeprefix("--") in WORDS:
        raise cli.Fault(f"{flag}: this is a word, not an option: tok {flag.removeprefix('--')}")


def _span(argv: Sequence[str], now: Callable[[], datetime.datetime]) -> Call | None:
    """The cost of a span that is named in one word or two: yesterday, july, 2026-07, 7d, last week; None for other words."""
    from tokenops import when

    at = now()
    moment, tz = when.epoch(at.timestamp()), at.tzinfo or when.zone(None)
    for count in (2, 1):
        text = " ".join(argv[:count])
        try:
            begin, end = when.parse_since(text, moment, tz), when.parse_until(text, moment, tz)
        except ValueError:
            continue
        until = ["--until", text] if begin < end < moment else []
        return Call("tok-cost", ["--log", "--since", text, *until, *argv[count:]])
    return None


def _theirs(phrase: tuple[str, ...], rest: list[str], now: Callable[[], datetime.datetime]) -> Call:
    """What a word of the original means here. Raises Fault with the line to use instead."""
    if phrase in INSTEAD:
        raise cli.Fault(f"{' '.join(phrase)}: {INSTEAD[phrase]}")
    return _word(THEIRS[phrase], phrase[0], rest, now)


def _clients() -> dict[str, str]:
    """The names that a client may have -> the one in records."""
    from tokenops import read_clients

    every = [client for client in read_clients.CLIENTS if client.homes and client.client]
    return {name: client.client for client in every for name in (client.name, client.client)}


def _help(word: str, rest: list[str], folder: str) -> Call:
    if word == "version":
        return Call("", ["--version"])
    if not rest:
        return Call("", ["--help"])
    target = call(rest[:1], folder, _no_clock)
    return Call(target.command, ["--help"])


def _no_clock() -> datetime.datetime:
    return datetime.datetime(2026, 1, 1)


def _of_client(client: str, word: str, rest: list[str], folder: str, now: Callable[[], datetime.datetime]) -> Call:
    """`claude daily`, as ccusage has it: a word for one client."""
    target = rest[0] if rest and not rest[0].startswith("-") else ""
    if target and not (target == "blocks" or (target in WORDS and WORDS[target].takes_flags)):
        raise cli.Fault(f"tok {word} {target}: write tok {target} --client {client}")
    called = call([target or "daily", *rest[bool(target) :]], folder, now)
    return Call(called.command, [*called.argv, "--client", client])


def _word(word: Word, name: str, rest: list[str], now: Callable[[], datetime.datetime]) -> Call:
    if name == "blocks":
        renamed = {"-a": "--active", "-r": "--recent"}
        return Call(
            "", ["blocks", *_Flags(Word("", (), True), name, [renamed.get(text, text) for text in rest], now).argv()]
        )
    if not word.takes_flags:
        return Call(word.command, [*word.argv, *rest])
    if name in ("session", "sessions") and (session := _session(rest)):
        return Call("tok-trace", session)
    return Call(word.command, _Flags(word, name, rest, now).argv())


def _session(rest: list[str]) -> list[str]:
    """The arguments of tok-trace, if one session was named: `session ID`, `session --id ID`."""
    for at, text in enumerate(rest):
        if text in ("--id", "-i") and at + 1 < len(rest):
            return [rest[at + 1], *rest[:at], *rest[at + 2 :]]
        if text.startswith("--id="):
            return [text.removeprefix("--id="), *rest[:at], *rest[at + 1 :]]
    return rest if rest and not rest[0].startswith("-") else []


# ccusage's options that have another name here, those that change the groups, and those that change nothing here: the
# prices are always those on this machine, and tables always fit the terminal.
_RENAMED = {
    "-s": "--since",
    "-u": "--until",
    "-z": "--tz",
    "--timezone": "--tz",
    "-p": "--project",
    "-j": "--json",
    "--by-agent": "--by=client",
}
_GROUPS = {
    "-b": "model",
    "--breakdown": "model",
    "-i": "project",
    "--instances": "project",
    "--by-agent": "client",
}
_NOTHING = frozenset(("-O", "--offline", "--no-offline", "--compact", "--all"))
_VALUES = frozenset(("--since", "--until", "--tz", "--project", "--client", "--model", "--by", "--color", "--sort", "--top"))
_REPLACED = {
    "--live": "tok-top and tok-dash show live numbers",
    "--token-limit": "limits are the vendor's own (tok limits)",
    "-t": "limits are the vendor's own (tok limits)",
    "--session-length": "windows are as long as the vendor says",
    "-n": "windows are as long as the vendor says",
    "-d": "tok-cost --reconcile compares costs with the clients' own",
    "--debug": "tok-cost --reconcile compares costs with the clients' own",
    "--debug-samples": "tok-cost --reconcile compares costs with the clients' own",
    "-l": "dates are written as 2026-11-30",
    "--locale": "dates are written as 2026-11-30",
    "-q": "pipe the output into jq: --json | jq",
    "--jq": "pipe the output into jq: --json | jq",
    "--config": "settings are in config.yaml (docs/config.md)",
    "--no-cost": "use --csv and cut the column",
    "--sections": "give one command for each report",
    "--start-of-week": "weeks begin on Monday",
    "--live-only": "tok-read | tok-cost reports what the clients' files hold now",
    "--project-aliases": "projects are named by their repositories",
}
# claude-monitor's options, which follow no word.
_MONITOR = {
    "--plan": "tok-plan set PLAN sets your plan once, as in tok-plan set max5",
    "--custom-limit-tokens": "limits are the vendor's own (tok limits); budgets of your own are in docs/headroom.md",
    "--reset-hour": "the vendor says when a limit resets (tok limits)",
    "--refresh-rate": "tok-top shows live numbers",
    "--refresh-per-second": "tok-top shows live numbers",
    "--timezone": "a report takes --tz, as in tok daily --tz Europe/Berlin",
    "--time-format": "hours are written as 23:59",
    "--once": "tok alone shows it once",
    "--compact": "tok alone fits on one screen",
    "--statusline": "tok-init sets up tok-statusline",
    "--api": "tok-poll enable anthropic-oauth (docs/pollers.md)",
    "--data-paths": "set CLAUDE_CONFIG_DIR, or import with tok-sync --root DIR",
    "--warehouse": "it is always so: the log keeps what clients delete (docs/log.md)",
    "--write-state": "tok --json > FILE",
    "--theme": "--color never turns colours off",
}
_UNITS = {"today": "day", "daily": "day", "week": "week", "weekly": "week", "month": "month", "monthly": "month"}


class _Flags:
    """Arguments of tok-cost, from a word and the options after it: ccusage's or our own."""

    def __init__(self, word: Word, name: str, rest: Sequence[str], now: Callable[[], datetime.datetime]) -> None:
        self.word, self.name, self.now = word, name, now
        self.options: list[str] = []
        self.groups: list[str] = []
        parts = iter(rest)
        for text in parts:
            flag, equals, value = text.partition("=")
            self._take(flag, value if equals else None, parts)

    def argv(self) -> list[str]:
        """The arguments: what the word means, without what an option replaced."""
        base = dict(_pairs(self.word.argv))
        if any(option.startswith(("--since", "--until", "--today")) for option in self.options):
            base.pop("--since", None)
            base.pop("--today", None)
        if "--since" not in self.options and "--until" in self.options and self.name != "blocks":
            base["--since"] = "all"
        if "--by" in self.options:
            base.pop("--by", None)
        elif self.groups:
            base["--by"] = ",".join(dict.fromkeys((base.get("--by", "project"), *self.groups)))
        fixed = [part for option, value in base.items() for part in ([option, value] if value else [option])]
        return [*fixed, *self.options]

    def _take(self, flag: str, value: str | None, parts: Iterator[str]) -> None:
        """One option, with the value that is part of it, or the next argument."""
        if flag in _NOTHING:
            return
        if flag in _GROUPS:
            self.groups.append(_GROUPS[flag])
        elif flag in _REPLACED:
            raise cli.Fault(f"{flag}: TokenOps has no such option: {_REPLACED[flag]}")
        elif flag in ("-m", "--mode"):
            self._mode(next(parts, "") if value is None else value)
        elif flag in ("-o", "--order"):
            self._order(next(parts, "") if value is None else value)
        elif flag == "--last":
            self._last(next(parts, "") if value is None else value)
        elif flag == "--no-color":
            self.options += ["--color", "never"]
        else:
            name = _RENAMED.get(flag, flag)
            self.options.append(name)
            if value is not None:
                self.options.append(value)
            elif name in _VALUES:
                self.options += [part for part in [next(parts, None)] if part is not None]

    def _mode(self, value: str) -> None:
        """auto and calculate are how costs are worked out here."""
        if value not in ("auto", "calculate"):
            raise cli.Fault(
                f"--mode {value}: costs are list prices here; tok-cost --reconcile compares them with the clients'"
            )

    def _order(self, value: str) -> None:
        if value not in ("asc", "desc"):
            raise cli.Fault(f"--order {value}: choose from asc, desc")
        if value == "desc":  # rows are in the order of time
            self.options += ["--sort", "ended"]

    def _last(self, value: str) -> None:
        """The last so many days, weeks or months, with the present one."""
        unit = _UNITS.get(self.name, "day")
        if not value.isdecimal() or not 0 < int(value) < 1000:
            raise cli.Fault(f"--last {value}: must be a whole number, 1 or more")
        day = self.now().date()
        if unit == "month":
            months = day.year * 12 + day.month - int(value)
            first = datetime.date(months // 12, months % 12 + 1, 1)
        else:
            back = (int(value) - 1) * (7 if unit == "week" else 1) + (day.weekday() if unit == "week" else 0)
            first = day - datetime.timedelta(days=back)
        self.options += ["--since", first.isoformat()]


def _pairs(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options of a word with their values; "" for a switch."""
    parts = list(argv)
    for at, part in enumerate(parts):
        if part.startswith("--"):
            value = parts[at + 1] if at + 1 < len(parts) and not parts[at + 1].startswith("--") else ""
            yield part, value


# Running a command in this process.


def become(called: Call, folder: str) -> NoReturn:
    """Run a command's file as the program of this process, which ends with its status."""
    path = os.path.join(folder, called.command)
    sys.argv = [path, *called.argv]
    exec(_code(path), {"__name__": "__main__", "__file__": path})
    raise AssertionError(f"{path} does not end")


def status(called: Call, folder: str) -> int:
    """The exit status of a command that is called in this process, which goes on."""
    path = os.path.join(folder, called.command)
    namespace: dict[str, object] = {"__name__": called.command, "__file__": path}
    exec(_code(path), namespace)
    main: cli.Main = namespace["main"]  # type: ignore[assignment]
    return cli.status_of(main, called.argv)


def _code(path: str) -> CodeType:
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec")
