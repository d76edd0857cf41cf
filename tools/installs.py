"""Every way to install a release, tried: python tools/installs.py DIRECTORY (make installs, after make release).

Each way has an empty home, a path of its own and of the environment only what leads to a package registry (PIP_*, UV_*,
certificates, proxies). Asked is whether every command starts, does its work on the sample logs in an empty directory,
whatever python3 the path has, whether man pages and completions lie where that way puts them, and what is left behind.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from version import ROOT, version

_LET_THROUGH = re.compile(r"(PIP|UV|SSL)_\w+|(?i:https?|all|no)_(?i:proxy)|(REQUESTS|CURL)_CA_BUNDLE")
_COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("tok*") if path.is_file())
# What installers keep for themselves, and our compiled price catalogue.
_THEIRS = ("home/.cache/", "home/.local/state/pipx/log/")
_WORK = "tok-read --root {} | tok-rollup --by agent | tok-cost --csv"
_WANTED = "claude-code:lighthouse,1,12,0,0,9100,0,731,"
_HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "installs", "version": "1"}},
}


class Place(NamedTuple):
    """Where a way is tried: an empty home and working directory, and room for its tools."""

    folder: pathlib.Path
    samples: pathlib.Path

    @property
    def home(self) -> pathlib.Path:
        """The home directory."""
        return self.folder / "home"

    def run(self, line: str, path: str = "/usr/bin:/bin", given: str = "", status: int = 0, **more: str) -> str:
        """A line of shell in the empty working directory; what it printed. Raises AssertionError."""
        kept = {name: value for name, value in os.environ.items() if _LET_THROUGH.fullmatch(name)}
        own = {"HOME": str(self.home), "PATH": path, "TMPDIR": str(self.folder / "tmp"), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], env=kept | own | more, cwd=self.folder / "empty",
            input=given, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{line}: status {done.returncode}: {(done.stderr or done.stdout)[-2000:]}"
        return done.stdout


class Way(NamedTuple):
    """A way to install: the directory of the commands, those above share/, and how it is done and undone.

    `once`: what runs a command without installing it, "" if this way has no such thing.
    """

    commands: pathlib.Path
    shares: tuple[pathlib.Path, ...]
    install: Callable[[], object]
    uninstall: Callable[[], object]
    once: str = ""


def pip(place: Place, file: pathlib.Path) -> Way:
    """Into a virtual environment."""
    venv = place.folder / "venv"
    place.run(f"'{sys.executable}' -m venv '{venv}'")
    quiet = f"'{venv}/bin/python' -m pip --quiet --disable-pip-version-check"
    return Way(
        venv / "bin",
        (venv,),
        lambda: place.run(f"{quiet} install '{file}'"),
        lambda: place.run(f"{quiet} uninstall --yes tokenops"),
    )


def pipx(place: Place, file: pathlib.Path) -> Way:
    """With pipx, itself in an environment of its own."""
    tool = _tool(place, "pipx")
    data = place.home / ".local"
    return Way(
        data / "bin",
        (data / "share/pipx/venvs/tokenops", data),
        lambda: place.run(f"'{tool}' install --python '{sys.executable}' '{file}'"),
        lambda: place.run(f"'{tool}' uninstall tokenops"),
        f"'{tool}' run --python '{sys.executable}' --spec '{file}'",
    )


def uv(place: Place, file: pathlib.Path) -> Way:
    """With uv tool, itself in an environment of its own."""
    tool = _tool(place, "uv")
    return Way(
        place.home / ".local/bin",
        (place.home / ".local/share/uv/tools/tokenops",),
        lambda: place.run(f"'{tool}' tool install --quiet --python '{sys.executable}' '{file}'"),
        lambda: place.run(f"'{tool}' tool uninstall --quiet tokenops"),
        f"'{tool.with_name('uvx')}' --quiet --python '{sys.executable}' --from '{file}'",
    )


class NotHere(Exception):
    """An installer that cannot be had on this machine."""


def _tool(place: Place, name: str) -> pathlib.Path:
    """An installer, in an environment of its own. Raises NotHere."""
    venv = place.folder / "tools"
    try:
        place.run(f"'{sys.executable}' -m venv '{venv}' && '{venv}/bin/python' -m pip install --quiet {name}")
    except AssertionError as error:
        raise NotHere(f"pip cannot install {name}: {str(error).splitlines()[-1]}") from None
    return venv / "bin" / name


def tried(place: Place, way: Way) -> Iterator[str]:
    """What was found right, one sentence each. Raises AssertionError."""
    # What remains of a first round is what the way itself keeps (the needs, in a venv of pip's; shared tools of pipx's).
    way.install()
    way.uninstall()
    before = files(place)
    way.install()
    path = f"{way.commands}:/usr/bin:/bin"
    for name in _COMMANDS:
        assert place.run(f"{name} --help", path).startswith(f"{name} - "), name
    yield f"{len(_COMMANDS)} commands start"
    for told, directory in pythons(place):
        assert _WANTED in place.run(_WORK.format(place.samples), f"{way.commands}:{directory}"), told
    yield "the sample logs are read and priced; also where python3 is another program, and where there is none"
    hello = place.run("tok-mcp", path, json.dumps(_HELLO) + "\n")
    assert json.loads(hello.splitlines()[0])["result"]["serverInfo"]["name"], hello
    yield "tok-mcp answers"
    if way.once:
        for words, wish in (("--version", "tok"), ("cost --version", "tok-cost")):
            assert place.run(f"{way.once} tok {words}") == f"{wish} {version()}\n"
        log = str(place.folder / "log")  # what tok itself writes is not left behind by the way
        state = json.loads(place.run(f"{way.once} tok --json", TOKENOPS_HOME=log))["state"]
        assert state == "empty", state
        yield f"{pathlib.Path(shlex.split(way.once)[0]).name} runs tok without an installation"
    yield from shared(place, way)
    way.uninstall()
    left = sorted(name for name in files(place) - before if not name.startswith(_THEIRS))
    assert not left, f"left behind: {left[:5]}"
    kept = "the compiled catalogue in ~/.cache/tokenops" if any((place.home / ".cache/tokenops").glob("*")) else "nothing"
    yield f"left behind: {kept}"


def pythons(place: Place) -> Iterator[tuple[str, str]]:
    """Paths with another python3, with one that fails, and with none."""
    yield "the system's", "/usr/bin:/bin"
    bare, liar = place.folder / "bare", place.folder / "liar"
    for folder in (bare, liar):
        folder.mkdir()
        for name in ("bash", "sh", "env"):
            (folder / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    yield "none", str(bare)
    for name in ("python", "python3"):
        (liar / name).write_text("#!/bin/sh\nexit 99\n")
        (liar / name).chmod(0o755)
    yield "one that fails", str(liar)


def shared(place: Place, way: Way) -> Iterator[str]:
    """Man pages and completions, in each directory where they have to be."""
    for above in way.shares:
        share = above / "share"
        for name in _COMMANDS:
            for file in (
                f"man/man1/{name}.1",
                f"bash-completion/completions/{name}",
                f"fish/vendor_completions.d/{name}.fish",
            ):
                assert (share / file).is_file(), share / file
        assert (share / "zsh/site-functions/_tokenops").is_file()
        place.run(f"source '{share}/bash-completion/completions/tok-cost' && complete -p tok-cost")
        told = f"~/{share.relative_to(place.home)}" if share.is_relative_to(place.home) else f"<venv>/{share.name}"
        yield f"man pages and completions lie in {told}"
        if shutil.which("man"):
            found = place.run("man -w tok-cost", MANPATH=str(share / "man")).strip()
            assert found.endswith("tok-cost.1"), found
    if shutil.which("man"):
        found = place.run("man -w tok-cost 2>&1 || true", f"{way.commands}:/usr/bin:/bin")
        yield f"man finds them {'by the path' if 'tok-cost.1' in found else 'by MANPATH only'}"


def files(place: Place) -> set[str]:
    """All files that an installer may have written, but those that Python compiles for itself."""
    found = [path for name in ("home", "empty", "tmp", "venv") for path in (place.folder / name).rglob("*")]
    return {str(path.relative_to(place.folder)) for path in found if "__pycache__" not in path.parts and not path.is_dir()}


def main() -> int:
    """Try all; print a line for each thing that is as it should be, and a sentence for what is not."""
    dist = pathlib.Path(sys.argv[1]).absolute()
    wheel, sdist = dist / f"tokenops-{version()}-py3-none-any.whl", dist / f"tokenops-{version()}.tar.gz"
    if missing := [path for path in (wheel, sdist) if not path.is_file()]:
        print(f"make installs: {missing[0]}: not there; run make release", file=sys.stderr)
        return 2
    status = 0
    for make, file in ((pip, wheel), (pip, sdist), (pipx, wheel), (pipx, sdist), (uv, wheel), (uv, sdist)):
        told = f"{make.__name__}, {'wheel' if file == wheel else 'sdist'}"
        with tempfile.TemporaryDirectory() as folder:
            place = Place(pathlib.Path(folder), unpacked(sdist, pathlib.Path(folder)))
            for name in ("home", "empty", "tmp"):
                (place.folder / name).mkdir()
            try:
                for line in tried(place, make(place, file)):
                    print(f"{told}: {line}", flush=True)
            except NotHere as error:
                print(f"{told}: skipped: {error}", flush=True)
            except AssertionError as error:
                status = 1
                print(f"{told}: FAILED: {error}", flush=True)
    return status


def unpacked(sdist: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The sample logs out of the sdist."""
    subprocess.run(["tar", "-x", "-f", sdist, "-C", folder], check=True)
    return next(folder.glob("tokenops-*")) / "docs/examples/home"


if __name__ == "__main__":
    sys.exit(main())
