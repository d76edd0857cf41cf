"""What is checked out in a directory, as git itself says."""

from __future__ import annotations

import subprocess


def head(path: str) -> tuple[str, str]:
    """Branch and commit of the work tree around a directory; "" each where there is none (or no git)."""
    return _said(path, "symbolic-ref", "--quiet", "--short", "HEAD"), _said(path, "rev-parse", "--quiet", "--verify", "HEAD")


def _said(path: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""
