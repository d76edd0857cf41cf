"""What bash, zsh and fish need to complete our commands, made of the commands' own manuals."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterable, Sequence

from tokenops import catalog, manual, plans, read_clients
from tokenops.manual import Manual, Option

SHELLS = ("bash", "zsh", "fish")
_FILES = re.compile(r"FILE|PATH|DIR")


def manuals(folder: str) -> list[Manual]:
    """The manuals of the commands in a directory. Raises OSError."""
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "tok-*"))):
        with open(path, encoding="utf-8", errors="replace") as file:
            source = file.read()
        if one := manual.of_source(source):
            found.append(one)
    return found


def words() -> dict[str, list[str]]:
    """What stands for the operands that name something we know all of."""
    known = plans.known().values()
    return {
        "CLIENT": [*(one.name for one in read_clients.CLIENTS if one.homes), "all"],
        "FORMAT": [one.name for one in read_clients.STREAMS],
        "SOURCE": list(catalog.load("pollers")["pollers"]),
        "PROVIDER": list(dict.fromkeys(one.provider for one in known)),
        "PLAN": [one.name for one in known],
    }


def script(shell: str, given: Sequence[Manual]) -> str:
    """The whole script for a shell."""
    known = words()
    if shell == "fish":
        return "".join(line for one in given for line in _fish(one, known))
    cases = "".join(_case(one, known) for one in given)
    names = " ".join(one.name for one in given)
    return (_BASH if shell == "bash" else _ZSH).replace("CASES", cases).replace("NAMES", names)


def _operands(one: Manual, known: dict[str, list[str]]) -> Iterable[tuple[str, list[str], bool]]:
    """For each action (and "" for none): the words that may follow, and whether files may."""
    for action in sorted({way.action for way in one.ways}, reverse=True):  # "", which stands for any, comes last
        operands = [name for way in one.ways if way.action == action for name in way.operands]
        found = [word for name in operands for word in known.get(name, [])]
        yield action, list(dict.fromkeys(found)), any(_FILES.search(name) for name in operands)


def _case(one: Manual, known: dict[str, list[str]]) -> str:
    """A command's branch of `case`, which bash and zsh read alike."""
    lines = [f"    {one.name})\n        options={_quoted(option.name for option in one.options)}\n"]
    actions = [way.action for way in one.ways if way.action]
    lines.append(f"        actions={_quoted(dict.fromkeys(actions))}\n")
    lines.append('        case "$action" in\n')
    for action, following, files in _operands(one, known):
        pattern = action or "*"
        lines.append(f"            {pattern}) operands={_quoted(following)} files={'yes' if files else ''} ;;\n")
    lines.append('        esac\n        case "$previous" in\n')
    for option in one.options:
        if option.value:
            named = "yes" if _FILES.search(option.value) and not option.choices else ""
            lines.append(f"            {option.name}) taken=yes values={_quoted(option.choices)} files={named} ;;\n")
    return "".join([*lines, "        esac\n        ;;\n"])


def _quoted(given: Iterable[str]) -> str:
    return f"'{' '.join(given)}'"


_BASH = """\
# Completion of TokenOps' commands for bash, made of their manuals by tok-init --completions bash.
_tokenops() {
    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" action="${COMP_WORDS[1]}"
    local options= actions= operands= values= files= taken=
    case "${COMP_WORDS[0]##*/}" in
CASES    esac
    COMPREPLY=()
    if [ -n "$taken" ]; then
        COMPREPLY=($(compgen -W "$values" -- "$current"))
    elif [[ "$current" == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$current"))
        return
    elif [ "$COMP_CWORD" -eq 1 ] && [ -n "$actions" ]; then
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
    local current="${words[CURRENT]}" previous="${words[CURRENT-1]}" action="${words[2]}"
    local options= actions= operands= values= files= taken=
    case "${words[1]:t}" in
CASES    esac
    if [[ -n "$taken" ]]; then
        compadd -- ${=values}
    elif [[ "$current" == -* ]]; then
        compadd -- ${=options}
        return
    elif (( CURRENT == 2 )) && [[ -n "$actions" ]]; then
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


def _fish(one: Manual, known: dict[str, list[str]]) -> Iterable[str]:
    """Lines for fish: nothing of the folder unless a file may stand there."""
    yield f"complete -c {one.name} -f -d {_told(one.purpose)}\n"
    for option in one.options:
        yield f"complete -c {one.name} {_flag(option)} -d {_told(option.text)}\n"
    actions = list(dict.fromkeys(way.action for way in one.ways if way.action))
    if actions:
        yield f"complete -c {one.name} -n __fish_use_subcommand -a {_told(' '.join(actions))}\n"
    for action, following, files in _operands(one, known):
        when = f" -n '__fish_seen_subcommand_from {action}'" if action else ""
        if following:
            yield f"complete -c {one.name}{when} -a {_told(' '.join(following))}\n"
        if files:
            yield f"complete -c {one.name}{when} -F\n"


def _flag(option: Option) -> str:
    name = f"-l {option.name[2:]}" if option.name.startswith("--") else f"-s {option.name[1:]}"
    if option.choices:
        return f"{name} -x -a {_told(' '.join(option.choices))}"
    return name if not option.value else f"{name} -r{' -F' if _FILES.search(option.value) else ''}"


def _told(text: str) -> str:
    """A text for fish, in quotes; only the first sentence of it."""
    return shlex.quote(re.split(r"[.;:] ", text)[0].replace("'", "")) if text else "''"
