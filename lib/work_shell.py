"""Splits a shell's command line into its simple commands, finds those that destroy something, and names programs.

Quoting is respected, so text that is only printed, searched for or used as a commit message is not a command. Commands
inside `bash -c`, `$(...)` and backticks count, and so do those run by ssh. The rules are in catalog/destructive.yaml.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tokenops import catalog

# A line without the name of a program that there is a rule for need not be taken apart.
_APART = bytes(code if code > 127 or chr(code).isalnum() or chr(code) in "_.-" else 32 for code in range(256))
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)([A-Za-z_]\w*)\1")
_BLANK, _END = " \t\r", "\n;&|(){}"
_APART_CHARS = _BLANK + _END + "<>"
# Characters that stand for themselves, outside of quotes and inside of double ones: most of a line is read in such runs.
_RUN = re.compile(rf"""[^{re.escape(_APART_CHARS)}\\'"`$#]+""")
_QUOTED_RUN = re.compile(r'[^"\\`$]+')
_DEPTH = 4
# Words of the shell that a command follows.
_KEYWORDS = frozenset(("if", "then", "else", "elif", "do", "while", "until", "!", "fi", "done"))


class Command(NamedTuple):
    """One simple command: its words without quotes, the programs that run it, and the here-document it reads."""

    words: tuple[str, ...]
    wrapped: tuple[str, ...] = ()
    document: str = ""


class Rules(NamedTuple):
    """The catalogue's rules, by program."""

    wrappers: frozenset[str]
    shells: frozenset[str]
    valued: frozenset[str]
    speakers: frozenset[str]
    exact: dict[str, list[dict[str, Any]]]
    globs: list[tuple[str, dict[str, Any]]]
    names: frozenset[bytes]  # of the programs


@functools.cache
def rules() -> Rules:
    """The rules, ready to be matched."""
    data = catalog.load("destructive")
    exact: dict[str, list[dict[str, Any]]] = {}
    globs = []
    for rule in data["rules"]:
        for program in rule["program"]:
            if "*" in program:
                globs.append((program, rule))
            else:
                exact.setdefault(program, []).append(rule)
    names = frozenset(name.encode() for name in exact)
    wrappers, shells, valued, speakers = (frozenset(data[key]) for key in ("wrappers", "shells", "valued", "speakers"))
    return Rules(wrappers, shells, valued, speakers, exact, globs, names)


def destructive(line: str) -> str:
    """Why a command line is destructive: the name of the first rule that one of its commands meets; "" if none does."""
    table = rules()
    if table.names.isdisjoint(line.encode(errors="replace").translate(_APART).split()) and "mkfs" not in line:
        return ""
    return next((name for command in simple_commands(line) if (name := reason(command))), "")


def reason(command: Command) -> str:
    """The rule that a simple command meets, or ""."""
    if not command.words:
        return ""
    table, program = rules(), _program(command.words[0])
    candidates = table.exact.get(program, []) + [rule for glob, rule in table.globs if fnmatch.fnmatchcase(program, glob)]
    return next((str(rule["name"]) for rule in candidates if _meets(command, rule)), "")


def _meets(command: Command, rule: dict[str, Any]) -> bool:
    words = command.words[1:]
    if "wrapped" in rule and not any(_program(program) in rule["wrapped"] for program in command.wrapped):
        return False
    if "sub" in rule:
        plain = [word for word in _without_values(words) if not word.startswith("-")]
        if plain[: len(rule["sub"])] != rule["sub"]:
            return False
        words = words[words.index(rule["sub"][-1]) + 1 :]
    if "any" in rule and not any(_matches(pattern, words) for pattern in rule["any"]):
        return False
    if "all" in rule and not all(_matches(pattern, words) for pattern in rule["all"]):
        return False
    if "text" in rule:
        whole = " ".join((*words, command.document)).casefold()
        return any(text in whole for text in rule["text"])
    return True


def _without_values(words: Sequence[str]) -> Iterator[str]:
    """Words without those that are the value of an option before them: `git -C dir push`, `git -c a=b push`."""
    skip = False
    for word in words:
        if not skip:
            yield word
        skip = not skip and word in ("-C", "-c", "--git-dir", "--work-tree", "--context", "--namespace", "-n", "--profile")


def _matches(pattern: str, words: Sequence[str]) -> bool:
    if len(pattern) == 2 and pattern[0] == "-" and pattern[1] != "-":
        return any(word[0] == "-" and word[1:2] != "-" and pattern[1] in word[1:] for word in words if len(word) > 1)
    return any(fnmatch.fnmatchcase(word, pattern) for word in words)


def _program(word: str) -> str:
    """The name of a program without its folder."""
    return word.rpartition("/")[2] if "/" in word else word


def simple_commands(line: str, depth: int = 0) -> Iterator[Command]:
    """The simple commands of a command line, those inside of `sh -c`, `$(...)` and backticks after their own."""
    table = rules()
    for words, inner, document in _parse(line):
        command = _without_wrappers(Command(tuple(words), (), document), table)
        if command.words and _program(command.words[0]) not in table.shells:
            yield command
        if depth < _DEPTH:
            for text in (*inner, *_scripts(command, table)):
                yield from simple_commands(text, depth + 1)


def _scripts(command: Command, table: Rules) -> Iterator[str]:
    """The texts that a command runs as another command line."""
    if not command.words:
        return
    program, words = _program(command.words[0]), command.words
    if program in table.shells:
        for at, word in enumerate(words[1:-1], 1):
            if re.fullmatch(r"-[a-z]*c|-Command|/c|/C|-EncodedCommand", word):
                yield " ".join(words[at + 1 :]) if word.startswith(("/", "-C")) else words[at + 1]
                return
        yield command.document
    elif program == "eval":
        yield " ".join(words[1:])
    elif program == "ssh":
        rest = list(_plain_words(words[1:], table))
        yield " ".join(rest[1:])
    elif program in ("find", "gfind", "fd", "fdfind") and any(word in ("-exec", "-execdir", "-x", "-X") for word in words):
        at = next(n for n, word in enumerate(words) if word in ("-exec", "-execdir", "-x", "-X"))
        yield " ".join(words[at + 1 :])


def _plain_words(words: Sequence[str], table: Rules) -> Iterator[str]:
    """The words from the first that is neither an option nor an option's value."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in table.valued or words[at] in ("-i", "-o", "-l") else 1
    yield from words[at:]


def _without_wrappers(command: Command, table: Rules) -> Command:
    """A command without what runs it: assignments, sudo, env, timeout 5, xargs -n 1, ..."""
    words, wrapped = list(command.words), []
    while words:
        name = _program(words[0])
        if _ASSIGNMENT.match(words[0]) or words[0] in _KEYWORDS:
            words = words[1:]
        elif name in table.wrappers:
            wrapped.append(name)
            words = list(_plain_words(words[1:], table))
            if name == "timeout" and words:
                words = words[1:]
        elif len(words) > 2 and words[1] == "git" and name not in table.speakers and name not in table.exact:
            words = words[1:]  # a program of the user's own that runs git
        else:
            break
    return Command(tuple(words), tuple(wrapped), command.document)


def _parse(line: str) -> Iterator[tuple[list[str], list[str], str]]:
    """The words of each simple command, the command lines inside of it, and the document it is given.

    Unquoted operators end a command. What is not understood (an open quote) is taken literally.
    """
    words: list[str] = []
    inner: list[str] = []
    word: list[str] | None = None  # the word being read
    document, documents, at = "", [], 0
    while at < len(line):
        char = line[at]
        part: str | None = None
        if char == "\\" and at + 1 < len(line):
            part, at = (None if line[at + 1] == "\n" else line[at + 1]), at + 2
        elif char in "'\"":
            part, at = _read_quoted(line, at, inner)
        elif char == "`" or line.startswith("$(", at):
            text, at = _read_substitution(line, at)
            inner.append(text)
            part = "$"
        elif heredoc := _HEREDOC.match(line, at):
            documents.append(heredoc[2])
            at = heredoc.end()
        elif char == "#" and word is None:
            at = _end_of_line(line, at)
        elif char in _APART_CHARS:
            if word is not None:
                words.append("".join(word))
                word = None
            at = _past_target(line, at + 1) if char in "<>" else at + 1
            if char == "\n" and documents:
                document, at = _documents(line, at, documents)
                documents = []
            if char in _END and (words or inner):
                yield words, inner, document
                words, inner, document = [], [], ""
        else:
            end = run.end() if (run := _RUN.match(line, at)) else at + 1
            part, at = line[at:end], end
        if part is not None:
            (word := word or []).append(part)
    if word is not None:
        words.append("".join(word))
    if words or inner:
        yield words, inner, document


def _read_quoted(line: str, at: int, inner: list[str]) -> tuple[str, int]:
    """The text between quotes, and the position after it. Substitutions inside double quotes are put into `inner`."""
    quote, out = line[at], list[str]()
    at += 1
    if quote == "'":
        end = line.find(quote, at)
        return (line[at:], len(line) + 1) if end < 0 else (line[at:end], end + 1)
    while at < len(line) and line[at] != quote:
        if line[at] == "\\" and at + 1 < len(line):
            out.append(line[at + 1])
            at += 2
        elif line[at] == "`" or line.startswith("$(", at):
            text, at = _read_substitution(line, at)
            inner.append(text)
            out.append("$")
        else:
            end = run.end() if (run := _QUOTED_RUN.match(line, at)) else at + 1
            out.append(line[at:end])
            at = end
    return "".join(out), at + 1


def _read_substitution(line: str, at: int) -> tuple[str, int]:
    """The command line of a substitution, and the position after it."""
    if line[at] == "`":
        end = line.find("`", at + 1)
        return (line[at + 1 :], len(line)) if end < 0 else (line[at + 1 : end], end + 1)
    start, level = at + 2, 1
    at = start
    while at < len(line):
        char = line[at]
        if char == "\\":
            at += 2
            continue
        if char in "'\"":
            _, at = _read_quoted(line, at, [])
            continue
        if heredoc := _HEREDOC.match(line, at):
            body = line.find("\n", heredoc.end())
            _, at = _documents(line, body + 1, [heredoc[2]]) if body >= 0 else ("", len(line))
            continue
        level += (char == "(") - (char == ")")
        at += 1
        if not level:
            return line[start : at - 1], at
    return line[start:], len(line)


def _documents(line: str, at: int, names: Sequence[str]) -> tuple[str, int]:
    """The here-documents that begin at a line, and the position after them."""
    texts = []
    for name in names:
        end = re.compile(rf"^\t*{re.escape(name)}[ \t]*$", re.MULTILINE).search(line, at)
        if end is None:
            texts.append(line[at:])
            return "\n".join(texts), len(line)
        texts.append(line[at : end.start()])
        at = min(end.end() + 1, len(line)) if line[end.end() : end.end() + 1] == "\n" else end.end()
    return "\n".join(texts), at


def _end_of_line(line: str, at: int) -> int:
    end = line.find("\n", at)
    return len(line) if end < 0 else end


def _past_target(line: str, at: int) -> int:
    """Past the rest of a redirection's operator and the blanks after it; its target is read as a word of no harm."""
    while at < len(line) and line[at] in "<>&|" + _BLANK:
        at += 1
    return at


class Names(NamedTuple):
    """The programs of catalog/commands.yaml that a record may name."""

    programs: dict[str, frozenset[str]]
    passed: frozenset[str]
    valued: frozenset[str]
    runners: dict[str, str]
    others: frozenset[str]  # programs that the one that matters may follow


@functools.cache
def _names() -> Names:
    data = catalog.load("commands")
    programs = {name: frozenset(subcommands) for name, subcommands in data["programs"].items()}
    passed, table = frozenset(data["passed"]), rules()
    others = passed | table.wrappers | table.shells | _KEYWORDS | {"eval", "ssh", *data["runners"]}
    return Names(programs, passed, frozenset(data["valued"]), data["runners"], others)


OTHER = "other"
# A command line that begins with plain words, which is nearly each: the folder that it changes to, assignments, two words.
_PLAIN = re.compile(
    r"""\s*(?:cd\s+(?:"[^"$`\\]*"|'[^']*'|[^\s;&|<>()"'`$\\]+)\s*(?:&&|;)\s*)*"""
    r"""(?:[A-Za-z_]\w*=[^\s;&|<>()"'`$\\]*\s+)*([\w./+-]+)(?:[ \t]+([\w:.-]+))?(?=[\s;&|<>)]|\Z)"""
)
_LOOKED_AT = 4000  # characters of a command line


def command_name(line: str) -> str:
    """Program and subcommand of a command line, if they are in the catalogue's list; else "other". Never anything else.

    It is that of the first simple command that does more than prepare the next one.
    """
    names, plain = _names(), _PLAIN.match(line)
    if plain is not None:
        program = _program(plain[1])
        subcommands = names.programs.get(program)
        if subcommands is None:
            if program not in names.others and plain[2] != "git":
                return OTHER
        elif program not in names.others:
            second = plain[2] or ""
            if not subcommands or second in subcommands:
                return f"{program} {second}" if subcommands else program
            if second and not second.startswith("-"):
                return program
    for command in itertools.islice(simple_commands(line[:_LOOKED_AT]), 16):
        words = command.words
        while words and names.runners.get(_program(words[0]), " ") in ("", *words[1:2]):
            words = tuple(_after_options(words[2:] if names.runners[_program(words[0])] else words[1:], names))
        program = _program(words[0]) if words else ""
        if program and program not in names.passed:
            return _name_in_list(program, words[1:], names)
    return OTHER


def program(line: str) -> str:
    """The first program of a command line that does more than prepare the next one, whatever it is; "" if there is none."""
    names = _names()
    for command in itertools.islice(simple_commands(line[:_LOOKED_AT]), 16):
        name = _program(command.words[0]) if command.words else ""
        if name and name not in names.passed:
            return name
    return ""


def _name_in_list(program: str, words: Sequence[str], names: Names) -> str:
    subcommands = names.programs.get(program)
    if subcommands is None:
        return OTHER
    second = next(iter(_after_options(words, names)), "") if subcommands else ""
    return f"{program} {second}" if second in subcommands else program


def _after_options(words: Sequence[str], names: Names) -> Sequence[str]:
    """The words from the first that is neither an option nor the value of one."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in names.valued else 1
    return words[at:]
