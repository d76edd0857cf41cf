"""Man pages and completions, made of the manuals: the tools that read them have to agree."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT, Run
from tokenops import manual, when

COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("tok*") if path.is_file())
SAMPLE = """tok-x - does a thing, and says "so"

    tok-x [list] [--json|--table]
    tok-x set NAME VALUE [--from DATE]... [-q]
          [--by hour|day]
    tok-x put-back NAME
    ... | tok-x [FILE...]

A paragraph
of two lines:

    not an example

.beginning with a dot, a \\backslash and an 'apostrophe'
  term         what it means,
               in two lines
  other        this

  --json, --table  one or the other
  --kind KIND,...  turn, usage, meter (default: all)
  --key env:NAME|-  where it is
  --all, --everything
               described below,
               in two lines
  --for LENGTHY,...
               hour, day
  --last 15min|hour
               likewise

    tok-x list

Exit status: 0 done; 1
something.
"""


def test_a_manual_taken_apart() -> None:
    found = manual.parse(SAMPLE)
    assert (found.name, found.purpose) == ("tok-x", 'does a thing, and says "so"')
    assert found.ways == (
        manual.Way("list", ()),
        manual.Way("set", ("NAME", "VALUE")),
        manual.Way("put-back", ("NAME",)),
        manual.Way("", ("FILE",)),
    )
    assert [(one.name, one.value, one.choices) for one in found.options] == [
        ("--json", "", ()),
        ("--table", "", ()),
        ("--from", "DATE", ()),
        ("-q", "", ()),
        ("--by", "hour|day", ("hour", "day")),
        ("--kind", "KIND,...", ("turn", "usage", "meter")),
        ("--key", "env:NAME|-", ()),
        ("--all", "", ()),
        ("--everything", "", ()),
        ("--for", "LENGTHY,...", ("hour", "day")),
        ("--last", "15min|hour", ("15min", "hour")),
        ("--help", "", ()),
        ("--version", "", ()),
    ]
    assert [(part.kind, part.items or part.lines) for part in found.parts] == [
        ("text", ("A paragraph", "of two lines:")),
        ("example", ("    not an example",)),
        ("text", (".beginning with a dot, a \\backslash and an 'apostrophe'",)),
        ("list", (("term", "what it means, in two lines"), ("other", "this"))),
        ("list", (("--json, --table", "one or the other"), ("--kind KIND,...", "turn, usage, meter (default: all)"),
                  ("--key env:NAME|-", "where it is"), ("--all, --everything", "described below, in two lines"),
                  ("--for LENGTHY,...", "hour, day"), ("--last 15min|hour", "likewise"),
                  ("--help, --version", "print this text, or the version"))),
        ("example", ("    tok-x list",)),
    ]  # fmt: skip
    assert found.status == "Exit status: 0 done; 1 something."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "tok-x - x\n\n    tok-x\n\n  list  this\n\n  -v  more\n      of it\n\nExit status: 0",
            "  -v  more\n      of it\n  --help, --version\n      print this text, or the version\n\nExit status: 0",
        ),
        ("tok-x - x\n\n  --verbose=WORD       more", "  --verbose=WORD       more\n  --help, --version    print this text, or the version"),
        ("tok-x - x\n\nWords.\n\nExit status: 0", "Words.\n\n  --help, --version  print this text, or the version\n\nExit status: 0"),
        ("tok-x - x\n\n  --a  b\n  --c", "  --a  b\n  --c\n  --help, --version\n       print this text, or the version"),
    ],
)  # fmt: skip
def test_the_options_of_every_command_stand_below_its_own(text: str, shown: str) -> None:
    assert manual.complete(text).endswith(shown)


def test_a_page_in_roff() -> None:
    text = manual.page(manual.parse(SAMPLE), ["tok-x", "tok-y"], "1.0", "2026-11-22")
    assert text.startswith('.TH TOK-X 1 "2026-11-22" "TokenOps 1.0" "TokenOps"\n.SH NAME\ntok\\-x \\- does a thing')
    assert r"\&.beginning with a dot, a \ebackslash and an \(aqapostrophe\(aq" in text
    sections = re.findall(r"^\.SH (.*)", text, re.MULTILINE)
    assert sections == ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS", "SEE ALSO"]
    assert text.index("not an example") < text.index(".SH OPTIONS") < text.index("tok\\-x list\n.fi")
    assert text.endswith(".BR tok\\-y (1)\n")
    assert (
        manual.manual_of("print(1)") is None
        and manual.manual_of('"""no manual"""') is None
        and manual.manual_of("(") is None
    )


def test_what_an_installer_puts_above_a_command_is_no_manual(run: Run, tmp_path: pathlib.Path) -> None:
    """Where #! cannot name the interpreter: uv does this where its path has a blank, or is long."""
    source = (ROOT / "bin/tok-cost").read_text()
    for program in (sys.executable, f"'{sys.executable}'"):
        above = f"""#!/bin/sh\n'''exec' {program} "$0" "$@"\n' '''\n"""
        launched = source.replace("#!/usr/bin/env python3\n", above)
        assert manual.manual_of(launched) == manual.manual_of(source)
        command = tmp_path / "tok-cost"
        command.write_text(launched)
        command.chmod(0o755)
        shown = run("./tok-cost --help", env={"PYTHONPATH": str(ROOT / "bin")}).stdout
        assert shown == run("tok-cost --help").stdout


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("share")
    subprocess.run([sys.executable, ROOT / "tools/share.py", folder], check=True)
    return folder / "man"


def test_there_is_a_page_for_each_command(pages: pathlib.Path) -> None:
    assert sorted(path.name for path in (pages / "man1").iterdir()) == sorted(f"{name}.1" for name in COMMANDS)


@pytest.mark.parametrize(
    "checker",
    [("groff", "-man", "-ww", "-Tutf8"), ("mandoc", "-Tlint", "-Wwarning"), ("man", "--warnings", "-E", "UTF-8", "-l")],
)
def test_roff_is_understood(checker: tuple[str, ...], pages: pathlib.Path) -> None:
    if not shutil.which(checker[0]):
        pytest.skip(f"{checker[0]} is not on this machine")
    for name in COMMANDS:
        done = subprocess.run(
            [*checker, pages / f"man1/{name}.1"], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        assert (done.returncode, done.stderr) == (0, b""), (name, done.stderr)
        if checker[0] == "mandoc":
            assert done.stdout == b"", done.stdout
        else:
            # Every word of the manual is on the page, and none is hyphenated into another.
            shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout.decode())
            assert name in shown and "EXIT STATUS" in shown


def test_a_page_says_what_the_manual_says(pages: pathlib.Path) -> None:
    if not shutil.which("groff"):
        pytest.skip("groff is not on this machine")
    for name in COMMANDS:
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-P-cbou", "-rLL=400n", "-rHY=0", pages / f"man1/{name}.1"],
            capture_output=True,
            check=True,
        )
        shown = set(done.stdout.decode().replace("\u2010", "-").replace("\u2212", "-").split())
        said = manual.manual_of((ROOT / "bin" / name).read_text())
        assert said is not None
        words = {
            word
            for part in said.parts
            for line in (*part.lines, *(f"{a} {b}" for a, b in part.items))
            for word in line.split()
        }
        assert words - shown == set(), (name, sorted(words - shown))


# Options: what the manual names is what the command takes.


# Runs each command up to the point where it would parse its arguments, and prints the options of its parser.
PARSERS = """
import argparse, importlib.machinery, importlib.util, json, sys

class Parsing(Exception):
    pass

def parse(parser, *args, **named):
    raise Parsing([option for action in parser._actions for option in action.option_strings])

argparse.ArgumentParser.parse_known_args = parse
options = {}
for path in sys.argv[1:]:
    loader = importlib.machinery.SourceFileLoader("command", path)
    command = importlib.util.module_from_spec(importlib.util.spec_from_loader("command", loader))
    loader.exec_module(command)
    try:
        command.main([])
    except Parsing as parsing:
        options[path] = parsing.args[0]
print(json.dumps(options))
"""


def test_the_manual_names_the_options_of_the_parser(environment: dict[str, str]) -> None:
    paths = {name: str(ROOT / "bin" / name) for name in COMMANDS}
    done = subprocess.run(
        [sys.executable, "-B", "-c", PARSERS, *paths.values()],
        env=environment | {"PYTHONPATH": str(ROOT / "bin")},
        capture_output=True,
        check=True,
    )
    parsers = json.loads(done.stdout)
    for name, path in paths.items():
        page = manual.manual_of((ROOT / "bin" / name).read_text())
        assert page is not None
        named, accepted = {option.name for option in page.options}, {*parsers[path], "--help", "--version"}
        assert accepted - named == set(), f"{name}: its manual does not name these options"
        assert named - accepted == set(), f"{name}: its parser does not accept these options"


# Prose: what the manuals must not fall back into. Whole words only, so that ordinary sentences pass.
DIALECT = re.compile(
    r"\b(?:(?:is|are|be|was) told|told (?:apart|by)|whose|none is|no time|no whole number|likewise"
    r"|(?<!there )(?:is|are) no (?!longer|more)\w+|into which|takes? in|taken in|at the pace of|of late|holds? against"
    r"|stands? (?:in|beside|there)|the dearest|all the same|[Gg]athers\."
    r"|where (?:no|there|nothing|nobody|somebody|plans|stdin) )",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_manual_fits_80_columns_and_is_plain_english(name: str) -> None:
    text = manual.text_of((ROOT / "bin" / name).read_text())
    assert [line for line in text.splitlines() if len(line) > 79] == []
    assert DIALECT.findall(" ".join(text.split())) == []


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("what they cover is told apart from what is metered", True),
        ("models whose price is not known", True),
        ("the log, into which it takes first what is new", True),
        ("the log, also where stdin is no terminal", True),
        ("where no vendor has said anything, headroom is null", True),
        ("--until TIME likewise; a date includes all of that day", True),
        ("show where a number comes from", False),
        ("in a file that no other user can read; where the secret is", False),
        ("the log is no longer read; it takes no time zone", True),
        ("the log is no longer read; there is no task", False),
    ],
)
def test_the_dialect(sentence: str, found: bool) -> None:
    assert bool(DIALECT.search(sentence)) == found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_manual_that_lists_forms_of_times_lists_all_of_them(name: str) -> None:
    text = " ".join((ROOT / "bin" / name).read_text().partition('"""\n\nfrom')[0].split())
    forms = text.partition("--since TIME")[2].partition("--until")[0][:200]
    if "7d" in forms and name != "tok":
        for form in when.SPANS.replace(" or ", ", ").split(", ")[:-1]:
            assert form in forms, (name, form)


# Completion: each shell is asked what it would complete.


WANTED = [
    ("tok-cost --to", {"--today", "--top"}),
    ("tok-cost --by we", {"week"}),
    ("tok-burn --by ", {"15min", "hour", "day"}),
    ("tok-plan un", {"unset"}),
    ("tok-plan set anthr", {"anthropic"}),
    ("tok-plan set anthropic claude-max-2", {"claude-max-20x"}),
    ("tok-read ki", {"kimi", "kilo"}),
    ("tok-poll enable openr", {"openrouter"}),
    ("tok-poll dis", {"disable"}),
    ("tok-init --host claude-", {"claude-code", "claude-desktop"}),
    ("tok-dash rot", {"rotate-token"}),
    ("tok-poll --color ", {"auto", "always", "never"}),
    ("tok-init --completions ", {"bash", "zsh", "fish"}),
    ("tok-cat --kind me", {"meter"}),
    ("tok-cost --tz x", set()),
    ("tok-rollup ev", {"events one.jsonl", "events.jsonl"}),
    ("tok-sync --root fold", {"folder"}),
    ("tok-plan catalog ev", set()),
    ("tok dai", {"daily"}),
    ("tok statu", {"status", "statusline"}),
    ("tok --js", {"--json"}),
    ("tok help mont", {"month", "monthly"}),
    ("tok cost --tod", {"--today"}),
    ("tok daily --by we", {"week"}),
    ("tok plan un", {"unset"}),
    ("tok plan set anthropic claude-max-2", {"claude-max-20x"}),
    ("tok poll enable openr", {"openrouter"}),
    ("tok blocks --act", {"--active"}),
    ("tok rollup ev", {"events one.jsonl", "events.jsonl"}),
]


def script(run: Run, shell: str, tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("events.jsonl", "events one.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder").mkdir()
    path = tmp_path / f"completions.{shell}"
    path.write_bytes(run(f"tok-init --completions {shell}").stdout)
    return path


def test_bash(run: Run, tmp_path: pathlib.Path) -> None:
    path = script(run, "bash", tmp_path)
    for line, wanted in WANTED:
        words = line.split(" ")
        quoted = " ".join(f"'{word}'" for word in words)
        asked = f"source {path}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _tokenops; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        done = run(f"bash -c {_quoted(asked)}")
        assert set(done.stdout.decode().splitlines()) - {""} == wanted and done.stderr == b"", line
    listed = run(f"bash -c 'source {path}; complete -p' ").stdout.decode()
    assert all(f"-F _tokenops {name}\n" in listed for name in COMMANDS)


def test_what_may_follow_depends_on_the_action(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "events.jsonl").write_text("")
    (tmp_path / "x.bash").write_text(manual.script("bash", [manual.parse(SAMPLE)], {}))
    for words, found in (("tok-x ev", "events.jsonl"), ("tok-x set ev", ""), ("tok-x --by ho", "hour"), ("tok-x l", "list")):
        asked = f"source x.bash; COMP_WORDS=({words}); COMP_CWORD={words.count(' ')}; _tokenops; echo ${{COMPREPLY[@]}}"
        assert run(f"bash -c {_quoted(asked)}").stdout.decode().strip() == found, words


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_fish(run: Run, tmp_path: pathlib.Path) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not on this machine")
    path = script(run, "fish", tmp_path)
    for line, wanted in WANTED:
        done = run(f"fish --no-config -c 'source {path}; complete -C \"{line}\"'", status=None)
        found = {each.partition("\t")[0].replace("\\ ", " ").rstrip("/") for each in done.stdout.decode().splitlines()}
        assert found == wanted and done.stderr == b"", (line, done.stderr)


def test_zsh(run: Run, tmp_path: pathlib.Path) -> None:
    """zsh's completion needs its line editor, so it is driven as at a keyboard: <Tab> in a pseudo-terminal of its own."""
    if not shutil.which("zsh"):
        pytest.skip("zsh is not on this machine")
    path = script(run, "zsh", tmp_path)
    lines = [line for line, _ in WANTED]
    done = run(f"zsh -f {ROOT}/tests/complete.zsh {path} {' '.join(map(_quoted, lines))}")
    answers = [set(part.split("\n")) - {""} for part in done.stdout.decode().replace("\\ ", " ").split("--\n")[1:]]
    assert dict(zip(lines, answers, strict=True)) == dict(WANTED) and done.stderr == b""


SHELLS = {
    "bash": "bash -c 'source {share}/bash-completion/completions/{name}; complete -p {name}'",
    "fish": "XDG_DATA_DIRS={share} fish -c 'complete -C \"{line}\"'",
    "zsh": "zsh -f {root}/tests/complete.zsh {share}/zsh/site-functions '{line}'",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_installed_below_share_parses_and_is_found_by_the_shell_itself(
    shell: str, run: Run, tmp_path: pathlib.Path
) -> None:
    """As `make man` writes it and a wheel installs it: a word of `tok`, and an option of a command."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not on this machine")
    share = tmp_path / "share"
    run(f"{sys.executable} {ROOT}/tools/share.py {share}")
    scripts = [path for path in share.rglob("*") if path.is_file() and path.parts[len(share.parts)].startswith(shell)]
    assert len(scripts) in (1, len(COMMANDS))
    run("; ".join(f"{shell} -n {path}" for path in scripts))
    for line, wanted in (("tok dai", "daily"), ("tok-cost --tod", "--today")):
        shown = run(SHELLS[shell].format(share=share, root=ROOT, line=line, name=line.split()[0])).stdout.decode()
        assert (wanted if shell != "bash" else "-F _tok") in shown


def test_commands_without_a_manual_are_left_out(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tok-odd").write_bytes(b"#!/bin/sh\necho \xff\n")
    assert manual.manuals(str(tmp_path)) == []
    assert [one.name for one in manual.manuals(str(ROOT / "bin"))] == COMMANDS
