"""Measures what an installation takes: each of the six packages with what only it brings, and ours.

    .venv/bin/python tools/sizes.py

Run it with the Python of an environment into which TokenOps is installed, at each release; docs/install.md states what
it prints.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys

Names = frozenset[str]


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needs(wanted: str) -> list[str]:
    """What a requirement, such as pyjwt[crypto], requires in turn, as far as it is installed."""
    name, _, extras = wanted.removesuffix("]").partition("[")
    required = []
    for line in importlib.metadata.requires(name) or ():
        match = re.match(r"([\w.-]+)\s*(\[[^]]*\])?", line)
        extra = re.search(r"extra == ['\"]([^'\"]*)", line)
        if match and (extra is None or extra[1] in extras.split(",")):
            required.append(plain(match[1]) + (match[2] or "").replace(" ", ""))
    return [other for other in required if is_installed(other.partition("[")[0])]


def is_installed(name: str) -> bool:
    """Whether a package is in this environment: one for another system is not."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def closure(names: list[str]) -> Names:
    """Packages and all that they need."""
    every: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in every:
            every.add(name)
            left += needs(name)
    return frozenset(name.partition("[")[0] for name in every)


def size(names: Names) -> int:
    """The bytes of some packages' files, compiled ones included."""
    files = {str(file.locate()) for name in names for file in importlib.metadata.distribution(name).files or ()}
    return sum(os.path.getsize(path) for path in files if os.path.isfile(path))


def main() -> int:
    """Print the sizes, the largest first."""
    if not is_installed("tokenops"):
        sys.stderr.write("sizes.py: tokenops is not installed here; run it with the Python of its environment\n")
        return 2
    direct = needs("tokenops")
    rows = []
    for name in direct:
        alone = closure([name]) - closure([other for other in direct if other != name])
        rows.append((size(alone), name, len(alone)))
    every = closure(direct)
    shared = every - frozenset().union(*(closure([n]) - closure([o for o in direct if o != n]) for n in direct))
    rows += [(size(shared), "what several of them need", len(shared)), (size(frozenset(["tokenops"])), "tokenops", 1)]
    for count, name, packages in sorted(rows, reverse=True):
        sys.stdout.write(f"{count / 1e6:6.1f} MB  {name}{f' and {packages - 1} more' if packages > 1 else ''}\n")
    sys.stdout.write(f"{sum(row[0] for row in rows) / 1e6:6.1f} MB  in all, {len(every) + 1} packages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
