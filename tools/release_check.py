"""Whether a release is the same bytes whoever makes it: python tools/release_check.py (make release-check).

The commit that is checked out is cloned twice and released twice: in another directory, a few seconds later, under
another umask, time zone and locale, with other times on the files. Where CHANGELOG.md has no section for the version
yet, the clones' calls "Unreleased" so.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from version import ROOT, released, version


def clone(source: pathlib.Path, place: pathlib.Path) -> pathlib.Path:
    """A clone, of a commit that can be released."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", source, place], check=True)
    if not released(place):
        log = place / "CHANGELOG.md"
        today = datetime.datetime.now(datetime.UTC).date()
        log.write_text(log.read_text().replace("## Unreleased", f"## {version(place)} ({today})"))
        git = ["git", "-C", str(place), "-c", "user.name=release-check", "-c", "user.email=release-check@localhost"]
        subprocess.run([*git, "commit", "--quiet", "--all", "--message", "a release to be compared"], check=True)
    return place


def made(place: pathlib.Path, umask: int, **environment: str) -> dict[str, bytes]:
    """The files of a release, by name."""
    out = place.parent / "made"
    line = [sys.executable, "tools/release.py", str(out)]
    subprocess.run(line, cwd=place, env=os.environ | environment, umask=umask, check=True, stdout=subprocess.DEVNULL)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def main() -> int:
    """Name the files that are alike, and those that are not."""
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        first = clone(ROOT, base / "one/tokenops")
        second = clone(first, base / "another, with a longer name/of two/tokenops")
        one = made(first, 0o022, TZ="UTC", LC_ALL="C")
        time.sleep(3)  # a zip file's times are even seconds
        for path in second.rglob("*"):
            if ".git" not in path.parts and not path.is_symlink():
                os.utime(path, (1_000_000_000, 1_000_000_000))
        other = made(second, 0o077, TZ="Asia/Kathmandu", LC_ALL="C.UTF-8")
    for name in sorted(one.keys() | other.keys()):
        print(f"{name}: {'the same bytes' if one.get(name) == other.get(name) else 'DIFFERS'}")
    return 0 if one == other else 1


if __name__ == "__main__":
    sys.exit(main())
