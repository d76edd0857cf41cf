"""A release: python tools/release.py DIRECTORY (make release).

Of the commit that is checked out, into DIRECTORY: sdist, wheel (built from the sdist), SBOM and SHA256SUMS. The same
commit gives the same bytes with the tools of release.txt; the SBOM says what the wheel's needs resolve to that day.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile

from version import ROOT, moment, released, version


def refusal() -> str:
    """Why this tree cannot be released; "" if it can."""
    if changed := _git("status", "--porcelain").decode().splitlines():
        return f"{changed[0][3:]} is not committed ({len(changed)} in all); commit or remove what is not part of the release"
    if not released():
        heading = f"## {version()} (YYYY-MM-DD)"
        return f'CHANGELOG.md has no section "{heading}"; call "Unreleased" so, with the day of the release, and commit it'
    return ""


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout


def release(out: pathlib.Path) -> list[pathlib.Path]:
    """Make all files; the same names are written over."""
    from sbom import sbom, sha256

    os.environ["SOURCE_DATE_EPOCH"] = str(moment())
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["tar", "-x", "-C", folder], input=_git("archive", "HEAD"), check=True)
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), folder]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    name = f"tokenops-{version()}"
    files = [out / f"{name}.tar.gz", out / f"{name}-py3-none-any.whl"]
    about = out / f"{name}.cdx.json"
    about.write_text(sbom(ROOT / "pyproject.toml", files))
    sums = out / "SHA256SUMS"
    sums.write_text("".join(f"{sha256(path)}  {path.name}\n" for path in (about, *sorted(files))))
    return [*files, about, sums]


def main() -> int:
    """Refuse with a sentence, or make the files and name them."""
    if why := refusal():
        print(f"make release: {why}", file=sys.stderr)
        return 2
    for path in release(pathlib.Path(sys.argv[1])):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
