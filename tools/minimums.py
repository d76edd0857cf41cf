"""The least that pyproject.toml asks of each run-time dependency, as constraints for pip (make oldest)."""

from __future__ import annotations

import sys
import tomllib

from version import ROOT


def main() -> int:
    """One line per dependency. One that states no least version is told, and nothing is made up for it."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    if vague := [need for need in needs if need.count(">=") != 1]:
        print(f"pyproject.toml: {vague[0]!r} states no least version; write NAME>=VERSION", file=sys.stderr)
        return 2
    print(*(need.replace(">=", "==") for need in needs), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
