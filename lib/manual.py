"""Parses a command's manual into options, and makes its man page and the completions for shells.

The manual is the command's docstring: `name - purpose`, the ways to call it, paragraphs, lists (two spaces, a term, two
spaces, its meaning), examples (four spaces), and a paragraph that begins with "Exit status:".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tokenops import light

# An option in the synopsis, and its value: NAME, FIELD[,FIELD...] or one|two|three.
_OPTION = light.pattern(r"(?<![\w-])(--?[a-z][a-z-]*)(?: (?!\|)([A-Z][A-Z]*[^\s\]]*\]*|[a-z0-9][\w:-]*(?:\|[\w:-]+)+))?")
_TERM = light.pattern(r"  (\S(?:.*?\S)?)(?:   *(\S.*))?\Z")
# An option as a term of a list, with its value. Its meaning may begin on the next line.
_OPTION_VALUE = r"[A-Z]\S*|[a-z0-9][\w:-]*\|\S+"
_OPTION_TERM = light.pattern(rf"  ((?:--?[a-z][a-z-]*(?:, )?)+(?: (?:{_OPTION_VALUE}))?) +(\S.*)\Z")
_OPTION_TERM_ALONE = light.pattern(rf"  (--?[a-z][a-z-]* (?:{_OPTION_VALUE}))()\Z")
# What installers put above a script where #! cannot name the interpreter: its path has a blank, or is too long.
_LAUNCHER = light.pattern(r"#!/bin/sh\n'''exec' [^\n]*\n' '''\n")
# A meaning that begins with the values of an option: "turn, usage, meter (default: all)".
_WORDS = light.pattern(r"([a-z][\w-]*(?:, [a-z][\w-]*)+)(?=, \.\.\.| \(|:|;|\Z)")
SHELLS = ("bash", "zsh", "fish")
_FILES = light.pattern(r"FILE|PATH|DIR")


class Option(NamedTuple):
    """One option: its value ("" for a switch), the possible values, and what it does."""

    name: str
    value: str
    choices: tuple[str, ...]
    text: str


class Way(NamedTuple):
    """One way to call a command: its action ("" for none), and what may follow."""

    action: str
    operands: tuple[str, ...]


class Part(NamedTuple):
    """A piece of a manual: text, list or example; the lines of it, of a list in pairs of term and meaning."""

    kind: str
    lines: tuple[str, ...] = ()
    items: tuple[tuple[str, str], ...] = ()


class Manual(NamedTuple):
    """A parsed manual."""

    name: str
    purpose: str
    synopsis: tuple[str, ...]
    ways: tuple[Way, ...]
    options: tuple[Option, ...]
    parts: tuple[Part, ...]
    status: str


def manual_of(source: str) -> Manual | None:
    """The manual in a command's source; None if there is none."""
    text = text_of(source)
    return parse(text) if " - " in text.partition("\n")[0] else None


def text_of(source: str) -> str:
    """The docstring of a source, even below a line that an installer added; "" if there is none."""
    import ast

    try:
        return ast.get_docstring(ast.parse(_LAUNCHER.sub("", source, count=1)), clean=False) or ""
    except (SyntaxError, ValueError):
        return ""


# The options that every command has: cli.parser answers them.
_EVERYWHERE = "  --help, --version"
_ABOUT_EVERYWHERE = "print this text, or the version"


def complete(text: str) -> str:
    """A manual with the options that every command has, below its own: one that has none gets a list of them."""
    lines = text.strip().split("\n")
    starts = [at for at, line in enumerate(lines) if line.startswith("  -")]
    if not starts:
        end = next((at for at, line in enumerate(lines) if line.startswith("Exit status:")), len(lines))
        lines[end:end] = [f"{_EVERYWHERE}  {_ABOUT_EVERYWHERE}", ""]
        return "\n".join(lines)
    end = starts[-1] + 1
    while end < len(lines) and lines[end].startswith("   "):
        end += 1
    terms = [re.match(r"  -\S+(?: \S+)*  +(?=\S)", lines[at]) for at in starts]
    column = max((term.end() for term in terms if term), default=len(_EVERYWHERE) + 2)
    if column >= len(_EVERYWHERE) + 2:
        lines.insert(end, f"{_EVERYWHERE:{column}}{_ABOUT_EVERYWHERE}")
    else:
        lines[end:end] = [_EVERYWHERE, " " * column + _ABOUT_EVERYWHERE]
    return "\n".join(lines)


def parse(text: str) -> Manual:
    """Parse the text of a manual, with the options that every command has."""
    text = complete(text)
    head, _, rest = text.strip().partition("\n")
    name, _, purpose = head.partition(" - ")
    blocks = [block.split("\n") for block in re.split(r"\n[ \t]*\n", rest.strip("\n"))]
    synopsis = tuple(line.removeprefix("    ") for line in blocks[0])
    parts = [part for block in blocks[1:] for part in _parts(block)]
    status = next((" ".join(part.lines) for part in parts if _is_status(part)), "")
    kept = tuple(part for part in parts if not _is_status(part))
    return Manual(name, purpose, synopsis, _ways(name, synopsis), _options(synopsis, kept), kept, status)


def _is_status(part: Part) -> bool:
    return part.kind == "text" and part.lines[0].startswith("Exit status:")


def _kind(line: str) -> str:
    return "example" if line.startswith("    ") else "list" if line.startswith("  ") else "text"


def _parts(block: Sequence[str]) -> Iterator[Part]:
    """A block between two empty lines: paragraphs, lists and examples may follow one another in it."""
    at = 0
    while at < len(block):
        kind, end = _kind(block[at]), at + 1
        while end < len(block) and (_kind(block[end]) == kind or (kind == "list" and block[end].startswith("   "))):
            end += 1
        lines = block[at:end]
        yield Part(kind, items=tuple(_items(lines))) if kind == "list" else Part(kind, tuple(lines))
        at = end


def _items(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Term and meaning. A line that is further in goes on with the meaning above it."""
    term = ""
    meaning: list[str] = []
    for line in lines:
        match = None
        if line[2:3] != " ":
            match = _OPTION_TERM_ALONE.match(line) or _OPTION_TERM.match(line) or _TERM.match(line)
        if match:
            if term:
                yield term, " ".join(meaning)
            term, meaning = match[1], [match[2]] if match[2] else []
        else:
            meaning.append(line.strip())
    if term:
        yield term, " ".join(meaning)


def _ways(name: str, synopsis: Sequence[str]) -> tuple[Way, ...]:
    """The ways to call a command. A line that is further in goes on with the one above it."""
    joined: list[str] = []
    for line in synopsis:
        if line.startswith(" ") and joined:
            joined[-1] += f" {line.strip()}"
        else:
            joined.append(line)
    ways = []
    for line in joined:
        words = _OPTION.sub(" ", line.rpartition(f"{name} ")[2] if f"{name} " in line else "")
        actions = re.match(r"\s*\[?([a-z][a-z-]*(?:\|[a-z][a-z-]*)*)\]?(?=\s|\Z)", words)
        operands = tuple(dict.fromkeys(re.findall(r"(?<![\w-])[A-Z]{2,}(?![\w-])", words)))
        ways += [Way(action, operands) for action in (actions[1].split("|") if actions else [""])]
    return tuple(ways)


def _options(synopsis: Sequence[str], parts: Sequence[Part]) -> tuple[Option, ...]:
    """Every option that the manual names in the ways to call it, or at the head of a list's item."""
    options: dict[str, Option] = {}
    items = [item for part in parts for item in part.items if item[0].startswith("-")]
    for text, meaning in [(" ".join(synopsis), ""), *items]:
        for name, taken in _OPTION.findall(text):
            option = options.get(name, Option(name, "", (), ""))
            value = option.value or taken.removesuffix("]" * (taken.count("]") - taken.count("[")))
            options[name] = Option(name, value, option.choices or _choices(value, meaning), option.text or meaning)
    return tuple(options.values())


def _choices(value: str, meaning: str) -> tuple[str, ...]:
    """The possible values of an option, if its value or its meaning lists them."""
    if "|" in value:
        return tuple(word for word in value.split("|") if re.fullmatch(r"[a-z0-9-]+", word) and word != "-")
    words = _WORDS.match(meaning) if value else None
    return tuple(words[1].split(", ")) if words else ()


def page(manual: Manual, others: Sequence[str], version: str, date: str) -> str:
    """A man page. `others`: the other commands; `date` as YYYY-MM-DD."""
    lines = [f'.TH {manual.name.upper()} 1 "{date}" "TokenOps {version}" "TokenOps"', ".SH NAME"]
    lines += [rf"{_roff(manual.name)} \- {_roff(manual.purpose)}", ".SH SYNOPSIS", ".nf"]
    lines += [*map(_verbatim, manual.synopsis), ".fi", ".SH DESCRIPTION"]
    options = [part for part in manual.parts if any(term.startswith("-") for term, _ in part.items)]
    rest = [part for part in manual.parts if part not in options]
    examples = [part for at, part in enumerate(rest) if part.kind == "example" and not _belongs(rest, at)]
    for part in rest:
        if part not in examples:
            lines += _lines(part)
    for title, parts in (("OPTIONS", options), ("EXAMPLES", examples)):
        if parts:
            lines.append(f".SH {title}")
            lines += [line for part in parts for line in _lines(part)]
    if manual.status:
        lines += [".SH EXIT STATUS", _roff(manual.status.removeprefix("Exit status:").strip())]
    others_beside = [name for name in others if name != manual.name]
    lines += [
        ".SH SEE ALSO",
        *(f".BR {_roff(name)} (1){'' if name == others_beside[-1] else ','}" for name in others_beside),
    ]
    kept = [line for at, line in enumerate(lines) if line != ".PP" or not lines[at - 1].startswith(".SH")]
    return "".join(f"{line}\n" for line in kept)


def _belongs(parts: Sequence[Part], at: int) -> bool:
    """Whether an example is part of the sentence above it."""
    return at > 0 and parts[at - 1].kind == "text" and parts[at - 1].lines[-1].rstrip().endswith(":")


def _lines(part: Part) -> Iterator[str]:
    if part.kind == "text":
        yield from (".PP", *map(_roff, part.lines))
    elif part.kind == "example":
        yield from (".PP", ".RS 4", ".nf", *(_verbatim(line.strip()) for line in part.lines), ".fi", ".RE")
    else:
        for term, meaning in part.items:
            yield from (".TP", rf"\fB{_roff(term)}\fR", _roff(meaning) or r"\&")


def _roff(text: str) -> str:
    r"""A text in roff, where \, - and ' have a meaning, and so has a dot at the beginning of a line."""
    escaped = text.replace("\\", "\\e").replace("-", r"\-").replace("'", r"\(aq").replace("^", r"\(ha").replace("~", r"\(ti")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped.replace("`", r"\(ga")


def _verbatim(line: str) -> str:
    return _roff(line) or r"\&"


def manuals(folder: str) -> list[Manual]:
    """The manuals of the commands in a directory. Raises OSError."""
    import glob
    import os

    result, front = [], os.path.join(glob.escape(folder), FRONT)
    for path in sorted((*glob.glob(front), *glob.glob(f"{front}-*"))):
        with open(path, encoding="utf-8", errors="replace") as file:
            source = file.read()
        if manual := manual_of(source):
            result.append(manual)
    return result


def words() -> dict[str, list[str]]:
    """The possible values of operands, for those that can be listed."""
    from tokenops import catalog, plans, read_clients  # --help needs none of them

    catalogue = plans.all_plans().values()
    return {
        "CLIENT": [*(item.name for item in read_clients.CLIENTS if item.homes), "all"],
        "FORMAT": [item.name for item in read_clients.STREAMS],
        "SOURCE": list(catalog.load("pollers")["pollers"]),
        "PROVIDER": list(dict.fromkeys(item.provider for item in catalogue)),
        "PLAN": [item.name for item in catalogue],
    }


# The command that runs the others by their names.
FRONT = "tok"


def script(shell: str, manuals: Sequence[Manual], aliases: Mapping[str, str], names: Sequence[str] = ()) -> str:
    """The whole script for a shell, of all commands or of those of some `names`.

    `aliases`: what may follow `tok` besides the names of commands, each with the command that it runs.
    """
    following = {name.removeprefix(f"{FRONT}-"): name for name in (manual.name for manual in manuals) if name != FRONT}
    following |= aliases
    vocabulary = words() | {"WORD": list(following)}
    names = names or [manual.name for manual in manuals]
    if shell == "fish":
        listed = [manual for manual in manuals if manual.name in names]
        parts = [line for manual in listed for line in _fish(manual, vocabulary)]
        parts += _fish_front(manuals, vocabulary, following) if FRONT in names else []
        return "".join(parts)
    cases = "".join(_case(manual, vocabulary) for manual in manuals if manual.name in names or FRONT in names)
    runs = "".join(f"            {word}) command={name} ;;\n" for word, name in aliases.items())
    text = _BASH if shell == "bash" else _ZSH
    return text.replace("ALIASES", runs).replace("CASES", cases).replace("NAMES", " ".join(names))


def _operands(manual: Manual, vocabulary: dict[str, list[str]]) -> Iterable[tuple[str, list[str], bool]]:
    """For each action (and "" for none): the words that may follow, and whether files may."""
    for action in sorted({way.action for way in manual.ways}, reverse=True):  # "", which means any action, comes last
        operands = [name for way in manual.ways if way.action == action for name in way.operands]
        words = [word for name in operands for word in vocabulary.get(name, [])]
        yield action, list(dict.fromkeys(words)), any(_FILES.search(name) for name in operands)


def _case(manual: Manual, vocabulary: dict[str, list[str]]) -> str:
    """A command's branch of `case`, which bash and zsh read alike."""
    lines = [f"    {manual.name})\n        options={_quote(option.name for option in manual.options)}\n"]
    actions = [way.action for way in manual.ways if way.action]
    lines.append(f"        actions={_quote(dict.fromkeys(actions))}\n")
    lines.append('        case "$action" in\n')
    for action, following, files in _operands(manual, vocabulary):
        pattern = action or "*"
        lines.append(f"            {pattern}) operands={_quote(following)} files={'yes' if files else ''} ;;\n")
    lines.append('        esac\n        case "$previous" in\n')
    for option in manual.options:
        if option.value:
            named = "yes" if _FILES.search(option.value) and not option.choices else ""
            lines.append(f"            {option.name}) taken=yes values={_quote(option.choices)} files={named} ;;\n")
    return "".join([*lines, "        esac\n        ;;\n"])


def _quote(words: Iterable[str]) -> str:
    return f"'{' '.join(words)}'"


_BASH = """\
# Completion of TokenOps' commands for bash, made of their manuals by tok-init --completions bash.
_tokenops() {
    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" at=0 command="${COMP_WORDS[0]##*/}"
    local options= actions= operands= values= files= taken=
    if [ "$command" = tok ] && [ "$COMP_CWORD" -gt 1 ]; then
        at=1
        case "${COMP_WORDS[1]}" in
ALIASES            *) command="tok-${COMP_WORDS[1]}" ;;
        esac
    fi
    local action="${COMP_WORDS[at+1]}"
    case "$command" in
CASES    esac
    COMPREPLY=()
    if [ -n "$taken" ]; then
        COMPREPLY=($(compgen -W "$values" -- "$current"))
    elif [[ "$current" == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$current"))
        return
    elif [ "$COMP_CWORD" -eq $((at + 1)) ] && [ -n "$actions" ]; then
        COMPREPLY=($(compgen -W "$actions $operands" -- "$current"))
    else
        COMPREPLY=($(compgen -W "$operands" -- "$current"))
    fi
    if [ -n "$files" ]; then
        local IFS=$'\\n'
        COMPREPLY+=($(compgen -f -- "$current"))
    fi
}
complete -o filenames -F _tokenops NAMES
"""

_ZSH = """\
#compdef NAMES
# Completion of TokenOps' commands for zsh, made of their manuals by tok-init --completions zsh.
_tokenops() {
    local current="${words[CURRENT]}" previous="${words[CURRENT-1]}" at=0 command="${words[1]:t}"
    local options= actions= operands= values= files= taken=
    if [[ "$command" == tok ]] && (( CURRENT > 2 )); then
        at=1
        case "${words[2]}" in
ALIASES            *) command="tok-${words[2]}" ;;
        esac
    fi
    local action="${words[at+2]}"
    case "$command" in
CASES    esac
    if [[ -n "$taken" ]]; then
        compadd -- ${=values}
    elif [[ "$current" == -* ]]; then
        compadd -- ${=options}
        return
    elif (( CURRENT == at + 2 )) && [[ -n "$actions" ]]; then
        compadd -- ${=actions} ${=operands}
    else
        compadd -- ${=operands}
    fi
    if [[ -n "$files" ]]; then
        _files
    fi
}
if [[ "${funcstack[1]}" == _tokenops ]]; then
    _tokenops "$@"
else
    compdef _tokenops NAMES
fi
"""


def _fish(manual: Manual, vocabulary: dict[str, list[str]]) -> Iterable[str]:
    """Lines for fish; file names only where a file is expected."""
    yield f"complete -c {manual.name} -f -d {_fish_quote(manual.purpose)}\n"
    # The words of tok come first, or not at all.
    yield from _fish_lines(manual, vocabulary, manual.name, "__fish_use_subcommand" if manual.name == FRONT else "")
    if manual.name == FRONT:
        yield f"complete -c {FRONT} -n '__fish_seen_subcommand_from help' -a {_fish_quote(' '.join(vocabulary['WORD']))}\n"


def _fish_front(manuals: Sequence[Manual], vocabulary: dict[str, list[str]], following: Mapping[str, str]) -> Iterable[str]:
    """What follows `tok cost`: the same as what follows tok-cost."""
    for manual in manuals:
        words = [word for word, name in following.items() if name == manual.name]
        if words:
            yield from _fish_lines(manual, vocabulary, FRONT, f"__fish_seen_subcommand_from {' '.join(words)}")


def _fish_lines(manual: Manual, vocabulary: dict[str, list[str]], command: str, condition: str) -> Iterable[str]:
    """What may follow a command, if a condition is true ("": always)."""

    def line(what: str, *more: str) -> str:
        conditions = "; and ".join(part for part in (condition, *more) if part)
        when = f" -n '{conditions}'" if " " in conditions else f" -n {conditions}" if conditions else ""
        return f"complete -c {command}{when} {what}\n"

    for option in manual.options:
        yield line(f"{_flag(option)} -d {_fish_quote(option.text)}")
    if command != manual.name == FRONT:
        return
    actions = list(dict.fromkeys(way.action for way in manual.ways if way.action))
    if actions and command == manual.name:
        yield line(f"-a {_fish_quote(' '.join(actions))}", *([] if condition else ["__fish_use_subcommand"]))
    elif actions:
        yield line(f"-a {_fish_quote(' '.join(actions))}", f"not __fish_seen_subcommand_from {' '.join(actions)}")
    for action, following, files in _operands(manual, vocabulary):
        seen = f"__fish_seen_subcommand_from {action}" if action else ""
        if following:
            yield line(f"-a {_fish_quote(' '.join(following))}", seen)
        if files:
            yield line("-F", seen)


def _flag(option: Option) -> str:
    name = f"-l {option.name[2:]}" if option.name.startswith("--") else f"-s {option.name[1:]}"
    if option.choices:
        return f"{name} -x -a {_fish_quote(' '.join(option.choices))}"
    return name if not option.value else f"{name} -r{' -F' if _FILES.search(option.value) else ''}"


def _fish_quote(text: str) -> str:
    """A text for fish, in quotes; only the first sentence of it."""
    import shlex

    return shlex.quote(re.split(r"[.;:] ", text)[0].replace("'", "")) if text else "''"
