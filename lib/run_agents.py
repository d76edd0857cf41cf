"""Reads an agent's command line: which session it begins or resumes, and the command that resumes that session.

Pure, by the table catalog/agents.yaml. An option that the table lacks may or may not take the next word, so a command with
such an option, and a word after it, is run and not resumed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import catalog

# What a session is asked when it is resumed, unless --prompt says otherwise.
PROMPT = "Continue where you left off."
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Start(NamedTuple):
    """An agent's command, understood.

    `words`: the program and its mode; `options`: those that a resumed session is started with again, and `operands` before
    them; `session`: the id of the session it is in, "" if only the log will show it; `is_new`: whether it begins a session;
    `takes_id`: whether it can be given an id; `folder`: where it works, "" for the current directory; `why_not`: why it
    cannot be resumed, "" if it can.
    """

    agent: str
    client: str
    provider: str
    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    operands: tuple[str, ...] = ()
    session: str = ""
    is_new: bool = True
    takes_id: bool = False
    folder: str = ""
    why_not: str = ""


def start_of(command: Sequence[str]) -> Start:
    """What is known of a command by its words. A program that is not in the table is run and never resumed."""
    name = os.path.basename(command[0])
    table = catalog.load("agents")
    if name not in table or name == "schema":
        names = ", ".join(name for name in table if name != "schema")
        return Start(name, "", "", tuple(command[:1]), why_not=f"only these are resumed: {names}")
    return _Words(name, table[name], command).start()


def with_session(command: Sequence[str], start: Start, identity: str) -> list[str]:
    """The command of a new session with an id of ours."""
    option = catalog.load("agents")[start.agent]["new_session"]
    return [command[0], option, identity, *command[1:]]


def resume_command(start: Start, session: str, prompt: str) -> list[str]:
    """The command that resumes a session with a prompt: the options of the first start, and none that it did not have."""
    row = catalog.load("agents")[start.agent]
    mode = row["modes"][start.words[1] if len(start.words) > 1 else ""]
    parts = {"SESSION": [session], "OPTIONS": [*start.operands, *start.options]}
    parts["PROMPT"] = [mode["prompt"], prompt] if "prompt" in mode else [prompt]
    words = list(start.words)
    for word in row["again"]:
        words += parts.get(word, [word])
    return words


class _Words:
    """The words of a command, read one after another."""

    def __init__(self, agent: str, row: Mapping[str, Any], command: Sequence[str]) -> None:
        self.agent, self.row, self.command = agent, row, command
        self.rest = list(command[1:])
        self.mode = ""
        self.options: list[str] = []
        self.operands: list[str] = []
        self.session, self.folder, self.why_not = "", "", ""
        self.is_new = True
        self.is_copy = False

    def start(self) -> Start:
        """The command as a whole."""
        while self.rest and not self.why_not:
            word = self.rest.pop(0)
            if word == "--":
                self.operands += self.rest
                break
            if word.startswith("-") and word != "-":
                self._option(word)
            else:
                self._operand(word)
        row = self.row
        if not self.why_not and not row["states"]:
            self.why_not = str(row["lacks"])
        kept = tuple(self.operands) if row["modes"][self.mode].get("operands") == "keep" else ()
        session = "" if self.is_copy else self.session
        takes_id = bool(row.get("new_session")) and self.is_new and not self.why_not
        words = (self.command[0], *((self.mode,) if self.mode else ()))
        return Start(
            self.agent,
            row["client"],
            row["provider"],
            words,
            tuple(self.options),
            kept,
            session,
            self.is_new,
            takes_id,
            self.folder,
            self.why_not,
        )

    def _operand(self, word: str) -> None:
        """Take in a word that is no option: a mode, a word that begins no session, a session, or a prompt."""
        row = self.row
        if not self.operands and word in row["no_session"]:
            self.why_not = f"{self.agent} {word} is no session of an agent"
        elif not self.operands and not self.mode and word and word in row["modes"]:
            self.mode = word
        elif not self.operands and word in (*row.get("resume_words", ()), *row.get("fork_words", ())):
            self.is_new, self.is_copy = False, word not in row["resume_words"]
            if self.rest and _UUID.fullmatch(self.rest[0]):
                self.session = self.rest.pop(0)
        elif not self.is_new and not self.session and not self.is_copy and _UUID.fullmatch(word):
            self.session = word  # after options
        else:
            self.operands.append(word)

    def _option(self, word: str) -> None:
        row, (name, equals, value) = self.row, word.partition("=")
        if name in row["never"]:
            self.why_not = f"{name} works elsewhere, or keeps no session"
        elif name in row["latest"]:
            self.is_new = False
        elif name in row["fork"]:
            self.is_copy = True
        elif name in row["session"]:
            if not equals:
                value = self.rest.pop(0) if self.rest and not self.rest[0].startswith("-") else ""
            self.is_new = False
            self.session = value if _UUID.fullmatch(value) or self.agent == "opencode" else ""
        elif name in row["dropped"]:
            if not equals:
                del self.rest[:1]
        elif equals and name.startswith("--"):
            self.options.append(word)
            self._note_folder(name, value)
        else:
            self._keep(word)

    def _keep(self, word: str) -> None:
        """Keep an option, with its values."""
        row, count = self.row, 0
        if word in row["values"]:
            count = 1
        elif word in row["many"] or word in row["optional"]:
            ends = (at for at, each in enumerate(self.rest) if each.startswith("-"))
            count = next(ends, len(self.rest))
            count = min(count, 1) if word in row["optional"] else count
        elif word not in row["flags"] and self.rest and not self.rest[0].startswith("-"):
            self.why_not = (
                f"{word} is not in tok-run's table, so the prompt cannot be told from its value; write {word}=VALUE"
            )
        self.options += [word, *self.rest[:count]]
        if count:
            self._note_folder(word, self.rest[0])
        del self.rest[:count]

    def _note_folder(self, name: str, value: str) -> None:
        if name in self.row.get("folder", ()):
            self.folder = value
