"""What a release holds, that it is the same bytes each time, and that it works where it is installed."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

from conftest import ROOT

COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("tok*") if path.is_file())
EPOCH = "1795305600"
BUILD = "import backend, sys; out = sys.argv[1]; backend.build_sdist(out); backend.build_wheel(out)"


def built(source: pathlib.Path, out: pathlib.Path, umask: int = 0o022, **environment: str) -> dict[str, pathlib.Path]:
    """Sdist and wheel, as build calls for them; by the end of their names."""
    out.mkdir()
    env = os.environ | {"PYTHONPATH": str(source / "tools"), "SOURCE_DATE_EPOCH": EPOCH} | environment
    line = [sys.executable, "-c", BUILD, str(out)]
    subprocess.run(line, cwd=source, env=env, umask=umask, check=True, capture_output=True)
    return {path.suffix: path for path in out.iterdir()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    return built(ROOT, tmp_path_factory.mktemp("release") / "dist", TZ="UTC")


@pytest.fixture(scope="module")
def unpacked(files: dict[str, pathlib.Path], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    place = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "-x", "-m", "-f", files[".gz"], "-C", place], check=True)
    (folder,) = place.iterdir()
    return folder


def below(folder: str, *patterns: str) -> set[str]:
    """Names of files below a directory of the tree."""
    top = ROOT / folder
    return {str(path.relative_to(top)) for pattern in patterns for path in top.glob(pattern) if path.is_file()}


def test_the_wheel_holds_this_and_nothing_else(files: dict[str, pathlib.Path]) -> None:
    with zipfile.ZipFile(files[".whl"]) as wheel:
        held = {entry.filename: entry for entry in wheel.infolist()}
        scripts = {name: wheel.read(name) for name in held if "/scripts/" in name}
    stem = files[".whl"].name.partition("-py3")[0]
    share = {f"man/man1/{name}.1" for name in COMMANDS} | {f"bash-completion/completions/{name}" for name in COMMANDS}
    share |= {f"fish/vendor_completions.d/{name}.fish" for name in COMMANDS} | {"zsh/site-functions/_tokenops"}
    wanted = {f"tokenops/{name}" for name in below("lib", "*.py", "py.typed", "page/*")}
    wanted |= {f"tokenops/catalog/{name}" for name in below("catalog", "*.yaml", "*.sql", "*/*.yaml", "*/*.json")}
    wanted |= {f"{stem}.data/scripts/{name}" for name in COMMANDS} | {f"{stem}.data/data/share/{name}" for name in share}
    about = ("METADATA", "WHEEL", "RECORD", "top_level.txt", "licenses/LICENSE", "licenses/THIRD_PARTY_NOTICES")
    assert set(held) == wanted | {f"{stem}.dist-info/{name}" for name in about}
    # An installer puts its own interpreter where it finds this line, and no other.
    assert {text.partition(b"\n")[0] for text in scripts.values()} == {b"#!python"}
    assert {held[name].external_attr >> 16 & 0o777 for name in scripts} == {0o755}


def test_nothing_of_the_catalogue_is_left_out() -> None:
    assert below("catalog", "**/*") == below("catalog", "*.yaml", "*.sql", "*/*.yaml", "*/*.json")


def test_the_sdist_holds_what_the_repository_holds(files: dict[str, pathlib.Path]) -> None:
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(line, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    here = {name for name in filter(None, listed) if os.path.lexists(ROOT / name)}
    with tarfile.open(files[".gz"]) as archive:
        entries = {entry.name.partition("/")[2]: entry for entry in archive if not entry.isdir()}
    assert set(entries) == here | {"PKG-INFO"}
    assert {entry.linkname for entry in entries.values() if entry.issym()} == {"../lib", "../catalog"}
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries.values()} == {(0, 0, "", int(EPOCH))}


def test_the_same_sources_give_the_same_bytes(
    files: dict[str, pathlib.Path], unpacked: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Of the unpacked sdist, without git: in another directory, with other times, by one who lets nobody read his files."""
    before = sorted(unpacked.rglob("*"))
    for path in unpacked.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    again = built(unpacked, tmp_path / "dist", 0o077, TZ="Asia/Kathmandu", HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    for suffix, path in files.items():
        assert again[suffix].name == path.name
        assert again[suffix].read_bytes() == path.read_bytes(), f"{path.name} differs"
    assert sorted(unpacked.rglob("*")) == before


def test_an_installed_wheel_needs_no_python_on_the_path(files: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    venv, lent, tools = (tmp_path / name for name in ("venv", "lent", "tools"))
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [venv / "bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", files[".whl"]], check=True, capture_output=True)
    # The dependencies are lent by the running environment, so that the test needs no network.
    lent.mkdir()
    for site in filter(lambda path: path.endswith("site-packages"), sys.path):
        for entry in pathlib.Path(site).iterdir():
            if "tokenops" not in entry.name and not (lent / entry.name).exists():
                (lent / entry.name).symlink_to(entry)
    # A path with a python3 that is another program.
    tools.mkdir()
    (tools / "python3").write_text("#!/bin/sh\nexit 99\n")
    (tools / "python3").chmod(0o755)
    line = f"tok-read --root {ROOT}/docs/examples/home | tok-rollup --by agent | tok-cost --csv"
    for path in (f"{tools}:{venv}/bin", f"{venv}/bin"):
        env = {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(lent), "TZ": "UTC"}
        done = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", line], env=env, capture_output=True, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().splitlines()[1].startswith("claude-code:lighthouse,1,12,0,0,9100,0,731,")
    share = venv / "share"
    asked = (
        f"cd {share}/bash-completion/completions; . ./tok-plan; . ./tok-cost; COMP_WORDS=(tok-plan un); COMP_CWORD=1; _tok_plan;"
        " echo ${COMPREPLY[@]}; complete -p tok-cost"
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, check=True)
    assert done.stdout.decode() == "unset\ncomplete -o filenames -F _tok_cost tok-cost\n"
    subprocess.run([*pip, "uninstall", "--yes", "tokenops"], check=True, capture_output=True)
    assert [path for path in venv.rglob("*") if path.name.startswith(("tok-", "tokenops"))] == []
    assert not [path for path in share.rglob("*") if path.is_file()]


@pytest.fixture
def repository(unpacked: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """What decides whether there can be a release, committed."""
    place = tmp_path / "repository"
    for name in ("lib/__init__.py", "CHANGELOG.md", "tools/release.py", "tools/version.py"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes((unpacked / name).read_bytes())
    (place / "lib/__init__.py").write_text('__version__ = "7.5.3"\n')
    (place / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- x\n")
    (place / ".gitignore").write_text("__pycache__/\n")
    git(place, "init", "--quiet")
    commit(place)
    return place


def git(place: pathlib.Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments], cwd=place, check=True)


def commit(place: pathlib.Path) -> None:
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "x")


def refused(place: pathlib.Path) -> str:
    done = subprocess.run(
        [sys.executable, "tools/release.py", "dist"], cwd=place, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert not (place / "dist").exists()
    return done.stderr


def test_a_version_that_the_changelog_does_not_know_is_not_released(repository: pathlib.Path) -> None:
    wanted = 'make release: CHANGELOG.md has no section "## 7.5.3 (YYYY-MM-DD)"; call "Unreleased" so, with the day of the release'
    assert refused(repository).startswith(wanted)
    for heading in ("## 7.5.3", "## 7.5.30 (2026-11-22)", "## 7.5 (2026-11-22)", "### 7.5.3 (2026-11-22)"):
        (repository / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
        commit(repository)
        assert refused(repository).startswith(wanted), heading


def test_what_is_not_committed_is_not_released(repository: pathlib.Path) -> None:
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## 7.5.3 (2026-11-22)\n")
    assert refused(repository).startswith("make release: CHANGELOG.md is not committed (1 in all); commit or remove")
    commit(repository)
    (repository / "new.txt").write_text("")
    assert refused(repository).startswith("make release: new.txt is not committed (1 in all)")


def test_files_bear_the_day_of_the_release(repository: pathlib.Path) -> None:
    (repository / "CHANGELOG.md").write_text(
        "# Changelog\n\n## Unreleased\n\n## 7.5.3 (2026-11-22)\n\n## 7.5.2 (2026-01-01)\n"
    )
    line = [sys.executable, "-c", "import version; print(version.version(), version.moment())"]
    for given, wanted in ((None, "1795305600"), ("17", "17")):
        env = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
        env |= {"SOURCE_DATE_EPOCH": given} if given else {}
        done = subprocess.run(
            line, cwd=repository / "tools", env=env | {"TZ": "Asia/Kathmandu"}, capture_output=True, check=True
        )
        assert done.stdout.decode().split() == ["7.5.3", wanted]


def test_the_least_versions_are_those_of_pyproject(tmp_path: pathlib.Path) -> None:
    done = subprocess.run([sys.executable, ROOT / "tools/minimums.py"], capture_output=True, text=True, check=True)
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [line.split("==") for line in done.stdout.splitlines()] == [need.split(">=") for need in needs]
    (tmp_path / "tools").mkdir()
    for name in ("minimums.py", "version.py"):
        (tmp_path / "tools" / name).write_bytes((ROOT / "tools" / name).read_bytes())
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["orjson>=3.10", "mcp"]\n')
    vague = subprocess.run([sys.executable, tmp_path / "tools/minimums.py"], capture_output=True, text=True, check=False)
    assert (vague.returncode, vague.stdout) == (2, "")
    assert vague.stderr == "pyproject.toml: 'mcp' states no least version; write NAME>=VERSION\n"


def test_an_sbom_says_what_we_need_and_what_it_came_to(files: dict[str, pathlib.Path]) -> None:
    """What the SBOM's tool lists, mended; the whole, against the schema, is made by make release."""
    parts = {"tokenops": "0.1.0", "PyYAML": "6.0.3", "orjson": "3.13.0", "h11": "0.16.0"}
    found = {
        "metadata": {},
        "components": [{"name": name, "version": at, "bom-ref": f"{name}=={at}"} for name, at in parts.items()],
        "dependencies": [{"ref": "tokenops==0.1.0", "dependsOn": ["h11==0.16.0"]}, {"ref": "h11==0.16.0"}],
    }
    found["components"][0]["externalReferences"] = [{"type": "distribution", "url": "file:///somewhere/of/ours"}]
    line = (
        "import sbom, json, pathlib, sys; from packaging.requirements import Requirement as R;"
        " needs = [R(text) for text in sys.argv[2].split()]; paths = list(map(pathlib.Path, sys.argv[3:]));"
        " print(json.dumps(sbom.told(json.loads(sys.argv[1]), needs, paths)))"
    )

    def told(needs: str) -> subprocess.CompletedProcess[str]:
        arguments = [json.dumps(found), needs, *map(str, files.values())]
        return subprocess.run(
            [sys.executable, "-c", line, *arguments], cwd=ROOT / "tools", capture_output=True, text=True, check=False
        )

    made = json.loads(told("orjson>=3.10 pyyaml>=6.0.2").stdout)
    subject = made["metadata"]["component"]
    assert (subject["purl"], subject["type"]) == ("pkg:pypi/tokenops@0.1.0", "application")
    assert {one["url"]: one["hashes"][0]["content"] for one in subject["externalReferences"]} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()
    }
    ranges = {one["name"]: [each["value"] for each in one.get("properties", [])] for one in made["components"]}
    assert ranges == {"PyYAML": [">=6.0.2"], "orjson": [">=3.10"], "h11": []}
    assert made["dependencies"][0]["dependsOn"] == ["PyYAML==6.0.3", "orjson==3.13.0"]
    assert made == json.loads(told("orjson>=3.10 pyyaml>=6.0.2").stdout)
    assert "needed, and not installed with the wheel: mcp" in told("orjson>=3.10 mcp>=2.3").stderr
