"""The examples in README, docs and manuals are run, and their output is what the page shows (`make examples` writes it)."""

from __future__ import annotations

import os
import pathlib
import pty
import re
import subprocess

import images
import pytest

from conftest import MOST, ROOT, until_closed
from tokenops import manual, read_clients, setup_demo, when

SAMPLE = ROOT / "docs/examples/home"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*?)(?=\$ |```)", re.MULTILINE)


def examples() -> list[tuple[str, str, str]]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?```)", page.read_text(), re.DOTALL):
            found += [(page.name, line, shown) for line, shown in EXAMPLE.findall(block)]
    return found


def on_a_terminal(line: str, environment: dict[str, str], folder: pathlib.Path, **more: str) -> str:
    """What a line of shell prints when stdout is a terminal."""
    leader, follower = pty.openpty()
    env = environment | {"HOME": str(SAMPLE), "TERM": "dumb", "TOKENOPS_NOW": "2026-11-18T21:00:00Z"} | more
    process = subprocess.Popen(
        ["bash", "-c", line], env=env, stdout=follower, stderr=subprocess.STDOUT, stdin=follower, cwd=folder
    )
    os.close(follower)
    seen = until_closed(leader)
    process.wait(MOST)
    return seen.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(("page", "line", "shown"), examples())
def test_examples_print_what_the_page_shows(
    page: str, line: str, shown: str, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    if "jq " in line and subprocess.run(["which", "jq"], check=False, capture_output=True).returncode:
        pytest.skip("this example needs jq")
    printed = on_a_terminal(line, environment, tmp_path)
    if os.environ.get("TOKENOPS_EXAMPLES") == "write":
        path = next(path for path in PAGES if path.name == page)
        path.write_text(path.read_text().replace(f"$ {line}\n{shown}", f"$ {line}\n{printed}", 1))
        pytest.skip("the page was written")
    assert printed == shown


def test_there_are_examples() -> None:
    assert len(examples()) >= 2


def manual_examples() -> list[tuple[str, str]]:
    found = []
    for path in sorted(path for path in (ROOT / "bin").glob("tok*") if path.is_file()):
        if path.name == "tok-top":  # it needs a terminal, which test_top gives it
            continue
        text = path.read_text().split('"""')[1]
        body = text.split("\n\n", 2)[2]
        found += [(path.name, line.strip()) for line in body.splitlines() if re.match(r"    (?:tok[ -]|tok\Z|echo )", line)]
    return found


@pytest.mark.parametrize(("command", "line"), manual_examples())
def test_examples_in_manuals_run(command: str, line: str, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    if "jq " in line and subprocess.run(["which", "jq"], check=False, capture_output=True).returncode:
        pytest.skip("this example needs jq")
    env = environment | {"HOME": str(SAMPLE), "TOKENOPS_NOW": "2026-11-18T21:00:00Z"}
    for name in ("claude", "codex", "gemini"):  # which an example starts, and a machine need not have
        agent = tmp_path / "agents" / name
        agent.parent.mkdir(exist_ok=True)
        agent.write_text("#!/bin/sh\necho an agent goes on\n")
        agent.chmod(0o755)
    env["PATH"] = f"{tmp_path}/agents:{env['PATH']}"
    subprocess.run(["tok-sync"], env=env, capture_output=True, check=True, executable=ROOT / "bin/tok-sync")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env=env,
        capture_output=True,
        cwd=tmp_path,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    assert done.stdout or ">" in line


def first_answers() -> list[str]:
    """The commands of README's table "First answers"."""
    part = (ROOT / "README.md").read_text().partition("## First answers")[2].partition("\n## ")[0]
    return re.findall(r"^\| .* \| `(tok.*?)`", part, re.MULTILINE)


def test_the_first_answers_of_the_readme_are_answers(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    now = when.moment(images.NOW)
    log, _ = setup_demo.write(str(tmp_path / "log"), now)
    session = next(event["session_id"] for event in setup_demo.demo_records(now))
    commands = first_answers()
    assert len(commands) > 5
    for line in commands:
        shell = re.sub(r"\bID\b", session[:8], line) + "; echo status $?"
        shown = on_a_terminal(shell, environment, tmp_path, TOKENOPS_HOME=log, TOKENOPS_NOW=images.NOW)
        assert shown.endswith("\nstatus 0\n") and "No " not in shown.partition("\n")[0], f"{line}\n{shown}"


def test_the_readme_lists_every_command_with_the_purpose_that_its_manual_states() -> None:
    text = (ROOT / "README.md").read_text()
    for path in (path for path in (ROOT / "bin").glob("tok*") if path.is_file()):
        page = manual.manual_of(path.read_text())
        assert page is not None
        assert f"\n| `{path.name}` | {page.purpose}" in text, f"write this into README.md: {page.purpose}"


def matrix() -> str:
    """The table of docs/clients.md, out of the table of clients."""
    lines = ["| client | `tok-read` | where | variable | gives | what its logs lack |", "|---|---|---|---|---|---|"]
    for client in read_clients.CLIENTS:
        if client in read_clients.STREAMS:
            continue
        homes = [f"`{home if home.startswith('$') else f'~/{home}'}`" for home in client.homes]
        shown = homes if len(homes) < 5 else [*homes[:3], f"and {len(homes) - 3} more"]
        variables = list(
            dict.fromkeys(f"`{name}`" + (f" (`/{inner}`)" if inner else "") for name, inner, *_ in client.variables)
        )
        cells = (client.client, f"`{client.name}`", ", ".join(shown), ", ".join(variables), client.gives, client.caveat)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_page_of_clients_is_the_table() -> None:
    page = (ROOT / "docs/clients.md").read_text()
    assert matrix() in page, f"write this into docs/clients.md:\n{matrix()}"
    for one in read_clients.UNCOUNTED:
        assert f"| {one.name} |" in page


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def missing_tests(text: str) -> list[str]:
    """The tests that a page names and that do not exist. `test_a_...` names every test that begins so."""
    missing = []
    for paragraph in re.split(r"\n(?=\||- |\n)", text):
        files = re.findall(r"`(?:tests/)?(test_\w+\.py)`", paragraph)
        sources = [path.read_text(encoding="utf-8") for name in files if (path := ROOT / "tests" / name).exists()]
        missing += [name for name in files if not (ROOT / "tests" / name).exists()]
        for name in re.findall(r"`(test_\w+(?:\.\.\.)?)`", paragraph):
            begin = f"def {name.removesuffix('...')}" if name.endswith("...") else f"def {name}("
            missing += [name] if not any(begin in source for source in sources) else []
    return missing


def test_every_promise_of_security_names_tests_that_exist() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert missing_tests(page) == []
    rows = [line for line in page.splitlines() if line.strip().startswith("|") and "---" not in line]
    promises = [row for row in rows if "test" in row.split("|")[2]]
    assert len(promises) > 20, "the tables of promises are no longer recognised"
    after = page[page.index("## What holds these promises") :]
    bare = [line for line in after.splitlines() if line.startswith("| ") and "`test_" not in line and "promise" not in line]
    assert bare == []


def test_a_name_that_does_not_exist_is_noticed() -> None:
    assert missing_tests("| a | `test_docs.py`: `test_every_promise_...`, `test_none_...` |") == ["test_none_..."]
    assert missing_tests("- a (`tests/test_none.py`)\n- b `test_docs.py`: `test_missing`") == [
        "test_none.py",
        "test_missing",
    ]
