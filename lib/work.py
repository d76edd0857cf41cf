"""Counts what agents did, without quoting it: `work` events.

A round is what one prompt caused, until the next one: its tool calls, failures, edits, commands, replies. It is the
smallest unit of work, as a turn is of usage. A resumed or forked session repeats the prompt under the same identity, so
its copies join into one (the larger count, the earlier start, the later end), in any order and from any parts of a
file. Rounds add up to sessions, hours and projects.

Of a text a round keeps only its length, its traits (`language`), and hashes salted with the log's secret, which reveal
that a file was read again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tokenops import catalog, events, fields, light, work_language, work_shell
from tokenops.events import Event

Raw = dict[str, Any]

# A trait of a prompt -> what counts it. `unreferenced` counts as missing context in the first prompt of a session only:
# later ones have the conversation before them.
TRAITS = {
    "acknowledgement": "acknowledgements",
    "continuation": "continuations",
    "vague": "vague",
    "correction": "corrections",
    "regeneration": "regenerations",
    "choice": "choices",
    "question": "questions",
    "short": "short",
    "wall": "walls",
    "unjudged": "unjudged",
}
# Calls that wait for an answer: an interruption may leave them without, so only the last are remembered.
_WAITING = 256
_SEEN = 4096


class Utterance(NamedTuple):
    """A prompt, or a reply, as a listener gets it: the only place where a text leaves a transcript."""

    kind: str  # prompt, reply
    client: str
    session: str
    side: bool
    ts: str
    line: int
    round: str
    text: str
    traits: tuple[str, ...] = ()  # of a prompt, `first` and `asked` (the agent had asked a question) among them
    message: str = ""  # of a reply: several of its lines are one message
    calls: bool = False  # of a reply: it goes on to call tools


Listener = Callable[[Utterance], None]


@functools.cache
def tools(client: str) -> dict[str, str]:
    """Name of a tool -> the class of its work."""
    by_class = catalog.load("tools").get(client, {})
    return {name: kind for kind, names in by_class.items() for name in names}


@functools.cache
def _outcomes() -> tuple[tuple[str, ...], ...]:
    data = catalog.load("tools")
    return tuple(tuple(data[name]) for name in ("refused", "cancelled", "failed"))


def outcome(text: str) -> str:
    """The kind of a result that is an error: the call was refused, cancelled, or failed."""
    refused, cancelled, _ = _outcomes()
    if text.startswith(refused):
        return "tool_denials"
    return "tool_cancels" if text.startswith(cancelled) else "tool_failures"


def is_failure(text: str) -> bool:
    """Whether a result without an exit code is a failure."""
    return text.startswith(_outcomes()[2])


class Rounds:
    """The rounds of one file, as far as it was read. All of it that lasts is in `state`, plain data for a cursor."""

    def __init__(self, client: str, state: Raw, salt: bytes, midway: bool = False, listen: Listener | None = None) -> None:
        self.client, self.salt, self.listen = client, salt, listen
        # Of a file that was read halfway by a version without rounds, none begins in the middle.
        self.state = state.setdefault(
            "work", {"open": {}, "calls": {}, "reads": {}, "ran": {}, "given": [], "midway": midway}
        )
        self.touched: dict[str, Raw] = {}
        self.kinds: dict[str, str] = {}  # of the tools that were called

    def open_round(self, side: bool, name: str, ts: str, session: str) -> Raw:
        """The round that a prompt begins; the one that is open already, if it is the same."""
        current: Raw | None = self.state["open"].get(_chain(side))
        if current is None or current["id"] != name:
            current = {"id": name, "ts": ts, "session": session, "side": side, "counts": {}, "times": {}}
            self.state["open"][_chain(side)] = current
        self.touched[name] = current
        return current

    def ongoing(self, side: bool, name: str = "", ts: str = "", session: str = "") -> Raw | None:
        """The open round, or one that begins with this record; None where what began it was not read, or is not given."""
        current: Raw | None = self.state["open"].get(_chain(side))
        if current is None:
            return self.open_round(side, name, ts, session) if name and not self.state["midway"] else None
        self.touched[current["id"]] = current
        return current

    def add_prompt(
        self, current: Raw, ts: str, text: str, line: int = 0, summary: tuple[int, Iterable[str]] | None = None
    ) -> None:
        """A prompt that a person wrote. `summary`: its length and traits, if the text itself is gone."""
        counts = current["counts"]
        size, traits = summary or (len(text), work_language.traits(text))
        names = list(traits)
        first = self.state.get("prompted") != current["session"]
        after_question = self.state.pop("asked", False)
        self.state["prompted"] = current["session"]
        _add(counts, "prompts")
        _add(counts, "prompt_chars", size)
        for trait in names:
            if trait in TRAITS:
                _add(counts, TRAITS[trait])
        if first and "unreferenced" in names:
            _add(counts, "missing_context")
        if after_question and "acknowledgement" in names:
            _add(counts, "confirmations")
        earliest(current["times"], "prompt", ts)
        if self.listen:
            names += ["first"] * first + ["asked"] * after_question
            utterance = Utterance(
                "prompt", self.client, current["session"], current["side"], ts, line, current["id"], text, tuple(names)
            )
            self.listen(utterance)

    def add_reply(self, current: Raw, ts: str, text: str, message: str, line: int = 0, calls: bool = False) -> None:
        """Text that the agent wrote."""
        if self.state.get("message") != message[:100] or not message:
            _add(current["counts"], "replies")
            self.state["message"] = message[:100]
        earliest(current["times"], "reply", ts)
        if not current["side"]:
            self.state["asked"] = text.rstrip(" \n*_`'\")").endswith(("?", "？"))
        if self.listen:
            fields = (self.client, current["session"], current["side"], ts, line, current["id"], text, (), message, calls)
            self.listen(Utterance("reply", *fields))

    def add_call(self, current: Raw, ts: str, name: str, call: str, arguments: Mapping[str, Any] | str) -> None:
        """A tool that the agent called."""
        kind = self.kinds.get(name) or self._kind(name)
        counts = current["counts"]
        ran = ""
        if kind == "command":
            line = command_line(arguments)
            if line.lstrip().startswith("apply_patch"):
                kind = "edit"
            elif line:
                ran = self._add_command(current, line)
        elif kind == "read" and not isinstance(arguments, str):
            self._add_read(current, arguments)
        elif kind == "ask":
            self.state["asked"] = True
        kinds = f"{kind}_calls"
        counts[kinds] = counts.get(kinds, 0) + 1
        if kind == "command" and "command" not in current["times"]:
            current["times"]["command"] = ts
        waiting = self.state["calls"]
        if 0 < len(call) < 100:
            path = self._path(arguments) if kind == "edit" and not isinstance(arguments, str) else ""
            waiting[call] = [kind, current["side"], path or ran]
            if len(waiting) > _WAITING:
                del waiting[next(iter(waiting))]

    def _kind(self, name: str) -> str:
        """The class of a tool's work."""
        kind = self.kinds[name] = "mcp" if name.startswith("mcp__") else tools(self.client).get(name, "other")
        return kind

    def add_result(self, current: Raw, ts: str, call: str, size: int, failure: str = "") -> None:
        """A tool's result, of so many bytes. `failure`: tool_denials, tool_cancels or tool_failures; "" if there is none."""
        counts = current["counts"]
        kind, _, detail = self.state["calls"].pop(call, ("", False, ""))
        counts["tool_results"] = counts.get("tool_results", 0) + 1
        counts["result_bytes"] = counts.get("result_bytes", 0) + size
        if size > counts.get("largest_result_bytes", 0):
            counts["largest_result_bytes"] = size
        if failure:
            _add(counts, failure)
            if kind == "command" and failure == "tool_failures":
                self.state["failed"] = detail
        elif kind == "edit":
            _add(counts, "edits")
            earliest(current["times"], "edit", ts)
            self.state["ran"] = {}
            self.state["reads"].pop(detail, None)

    def add_compaction(self, current: Raw) -> None:
        """The context was summed up: what was read before has to be read again."""
        _add(current["counts"], "compactions")
        self.state["reads"] = {}

    def _add_command(self, current: Raw, line: str) -> str:
        """A command line; whether it destroys, repeats another since the last edit, or retries the one that failed."""
        counts = current["counts"]
        if work_shell.destructive(line):
            _add(counts, "destructive")
        name = self.hash_of(line)
        seen = self.state["ran"]
        if name in seen:
            _add(counts, "repeated_commands")
            if self.state.get("failed") == name:
                _add(counts, "retries")
        elif len(seen) < _SEEN:
            seen[name] = 1
        self.state.pop("failed", None)
        return name

    def _add_read(self, current: Raw, arguments: Mapping[str, Any]) -> None:
        """A file; whether the same part of it was read before, and not edited since."""
        path = self._path(arguments)
        if not path:
            return
        part = ":".join(str(arguments.get(name))[:20] for name in ("offset", "limit", "pages"))
        parts = self.state["reads"].setdefault(path, [])
        if part in parts:
            _add(current["counts"], "repeated_reads")
        elif len(self.state["reads"]) < _SEEN:
            parts.append(part)

    def _path(self, arguments: Mapping[str, Any]) -> str:
        path = arguments.get("file_path") or arguments.get("notebook_path") or arguments.get("path")
        return self.hash_of(path) if type(path) is str and path else ""

    def hash_of(self, text: str) -> str:
        """A short name for a text, which cannot be looked up without the salt."""
        return light.blake2b(text.encode(errors="replace"), key=self.salt[:64], digest_size=4).hexdigest()

    def records(self, attribution: Callable[[str, bool], Raw]) -> Iterator[Event]:
        """The events of the rounds that this reading added to. Replies that nothing asked for are no round."""
        for current in self.touched.values():
            if current["counts"].keys() - {"replies"}:
                yield event_of(self.client, current, attribution(current["session"], current["side"]))


def event_of(client: str, current: Raw, attribution: Raw) -> Event:
    """The record of a round."""
    event: Event = {"v": events.VERSION, "ts": current["ts"], "kind": "work"}
    event["id"] = fields.fit("id", f"work:{client}:{current['id']}")
    counts = dict(sorted(current["counts"].items()))
    if calls := sum(value for name, value in counts.items() if name.endswith("_calls")):
        counts["tool_calls"] = calls
    # The attribution has the order of the record already, as `events.arrange` would give it.
    return event | attribution | {"counts": counts, "times": dict(sorted(current["times"].items()))}


def add(current: Raw, name: str, more: int = 1) -> None:
    """Add to a count of a round."""
    _add(current["counts"], name, more)


def _add(counts: dict[str, int], name: str, more: int = 1) -> None:
    counts[name] = counts.get(name, 0) + more


def earliest(times: dict[str, str], name: str, ts: str) -> None:
    """Note when something came first."""
    if ts < times.get(name, "9"):
        times[name] = ts


def latest(times: dict[str, str], name: str, ts: str) -> None:
    """Note when something came last."""
    if ts > times.get(name, ""):
        times[name] = ts


def _chain(side: bool) -> str:
    return "side" if side else "main"


def command_line(arguments: Mapping[str, Any] | str) -> str:
    """The command line that a shell tool was given: a text, or the words of one."""
    if isinstance(arguments, str):
        return arguments
    if type(line := arguments.get("command")) is str:
        return line
    value = next((arguments[key] for key in ("command", "cmd") if key in arguments), None)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        if len(value) == 3 and value[1].startswith("-") and value[1].endswith(("c", "Command")):
            return str(value[2])  # bash -lc "..."
        import shlex

        return shlex.join(value)
    return value if isinstance(value, str) else ""


def command_name(arguments: Mapping[str, Any] | str) -> str:
    """Program and subcommand of what a shell tool was given, if both are in the catalogue's list; else "other"."""
    return work_shell.command_name(command_line(arguments))


def program(arguments: Mapping[str, Any] | str) -> str:
    """The program that a shell tool was given, whatever it is; "" if there is none. It is shown and never stored."""
    return work_shell.program(command_line(arguments))


def totals_by(rounds: Iterable[Event], by: Callable[[Event], Any]) -> dict[Any, dict[str, int]]:
    """The counts of rounds, added up by what `by` gives."""
    sums: dict[Any, dict[str, int]] = {}
    for event in rounds:
        counts = sums.setdefault(by(event), {})
        for name, value in event["counts"].items():
            counts[name] = max(counts.get(name, 0), value) if name.startswith("largest_") else counts.get(name, 0) + value
    return sums
