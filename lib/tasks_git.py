"""Reads a repository for tasks: commits with their author times, branches, and what was merged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tokenops import programs, when
from tokenops.config import Unusable

# Nothing in a repository's configuration may run a program.
_SAFE = ("-c", "log.showSignature=false", "-c", "core.fsmonitor=false", "-c", "i18n.logOutputEncoding=UTF-8")
_SECONDS = 60
_BETWEEN = "\x1f"
_FIELDS = _BETWEEN.join(("%H", "%P", "%at", "%ae", "%s"))
_BASES = ("main", "master", "trunk", "develop")
NOTES = "tokenops"  # refs/notes/tokenops
# How forges and git name a merge.
_PULL_REQUEST = re.compile(r"Merge pull request #(?P<number>[0-9]+) from [^/\s]+/(?P<branch>\S+)")
_MERGE = re.compile(r"Merge (?:remote-tracking )?branch(?:es)? '(?P<branch>[^']+)'")
_SQUASHED = re.compile(r"\(#(?P<number>[0-9]+)\)\Z")


class Commit(NamedTuple):
    """A commit. `authored`: the end of the second in which it was written, a canonical time; a rebase keeps it."""

    name: str
    parents: tuple[str, ...]
    authored: str
    email: str
    subject: str


class Repository(NamedTuple):
    """What is known of a repository since a moment."""

    commits: Mapping[str, Commit]  # by full hash
    branches: Mapping[str, str]  # name -> its newest commit
    base: str  # the branch into which others are merged; "" if there is none
    email: str  # the user's, as git is set up; "" if it is not

    def first_parents(self, tip: str) -> Iterator[str]:
        """The commits that a branch went through, newest first, up to and with the first that is too old to be known."""
        while tip:
            yield tip
            commit = self.commits.get(tip)
            tip = commit.parents[0] if commit and commit.parents else ""

    def reachable(self, tips: Iterable[str]) -> set[str]:
        """The known commits that some commits contain, and themselves."""
        names: set[str] = set()
        left = list(tips)
        while left:
            name = left.pop()
            if name in self.commits and name not in names:
                names.add(name)
                left += self.commits[name].parents
        return names


def _git(folder: str, *arguments: str, text: bytes = b"") -> tuple[int, str, str]:
    """The exit status of git and what it printed. Raises Unusable."""
    try:
        ended = programs.run(["git", *_SAFE, "-C", folder, *arguments], _SECONDS, text=text)
    except OSError as error:
        raise Unusable("", f"git: {error.strerror}", "install git, or mend what it says") from None
    return ended.status, ended.out.decode(errors="replace"), ended.err.decode(errors="replace").strip()


def _lines(folder: str, *arguments: str) -> list[str]:
    """What git printed, in lines; none if it failed."""
    status, out, _ = _git(folder, *arguments)
    return out.splitlines() if status == 0 else []


def read(folder: str, since: int, base: str = "") -> Repository:
    """The repository around a directory, with the commits since a moment (ms). Raises Unusable."""
    status, _, why = _git(folder, "rev-parse", "--git-dir")
    if status:
        raise Unusable("", f"no git repository here ({why.splitlines()[-1] if why else 'git failed'})", "go into one")
    after = [f"--since=@{since // 1000}"] if since > 0 else []
    # Not --all: our own notes and stashes are no work on a branch.
    tips = ["--branches", "--remotes", *_lines(folder, "rev-parse", "--quiet", "--verify", "HEAD")]
    commits = {each.name: each for each in map(_commit, _lines(folder, "log", *after, f"--format={_FIELDS}", *tips)) if each}
    branches = _branches(_lines(folder, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/remotes"))
    if base and base not in branches:
        raise Unusable("--base", f"there is no branch {base!r}", f"choose from {', '.join(sorted(branches)) or 'none'}")
    email = "".join(_lines(folder, "config", "user.email")[:1])
    return Repository(commits, branches, base or _base(folder, branches), email)


def _commit(line: str) -> Commit | None:
    """A line of git log. One whose time is nonsense is left out."""
    name, parents, seconds, email, *subject = line.split(_BETWEEN)
    try:
        authored = when.stamp(int(seconds) * 1000 + 999)
    except (ValueError, OverflowError, OSError):
        return None
    return Commit(name, tuple(parents.split()), authored, email, _BETWEEN.join(subject))


def _branches(lines: Iterable[str]) -> dict[str, str]:
    """Name -> newest commit. Of a local and a remote branch of one name, the local one."""
    local: dict[str, str] = {}
    remote: dict[str, str] = {}
    for line in lines:
        name, _, ref = line.partition(" ")
        _, kind, branch = ref.split("/", 2)
        if kind == "heads":
            local[branch] = name
        elif "/" in branch and not branch.endswith("/HEAD"):
            remote.setdefault(branch.partition("/")[2], name)
    return remote | local


def _base(folder: str, branches: Mapping[str, str]) -> str:
    """The branch that the remote calls its own, else one with a usual name, else the one that is checked out."""
    named = "".join(_lines(folder, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")[:1])
    here = "".join(_lines(folder, "symbolic-ref", "--quiet", "--short", "HEAD")[:1])
    return next((name for name in (named.partition("/")[2], *_BASES, here) if name in branches), "")


def in_range(folder: str, words: Sequence[str]) -> list[str]:
    """The commits of a range, as git log takes it (`main..HEAD`, `v1..`), newest first. Raises Unusable."""
    if option := next((word for word in words if word.startswith("-")), None):
        raise Unusable("", f"{option}: a range does not begin with -", "give commits or branches, such as main..HEAD")
    status, out, why = _git(folder, "rev-list", "--date-order", "--end-of-options", *words, "--")
    if status:
        reason = why.splitlines()[0].removeprefix("fatal: ") if why else "git rev-list failed"
        raise Unusable("", f"{' '.join(words)}: {reason}", "give a range that git log takes, such as main..HEAD")
    return out.split()


def begin_of(folder: str, commits: Sequence[str]) -> int:
    """When the work on some commits, newest first, may have begun: when the one before them was written (ms), or 0.

    That is the one before on the branch that was written before them all: a rebase puts later ones in between.
    """
    if not commits:
        return 0
    first = min(map(int, _lines(folder, "log", "--no-walk", "--format=%at", *commits[-1000:])), default=0)
    before = map(int, _lines(folder, "log", "--first-parent", "-1000", "--format=%at", commits[-1]))
    return 1000 * next((seconds for seconds in before if seconds < first), 0)


class Merge(NamedTuple):
    """What the message of a commit on the base says of the pull request that came with it."""

    number: str = ""
    branch: str = ""


def merge_of(commit: Commit) -> Merge | None:
    """The pull request or branch that a commit on the base brought in; None if it is a commit of the base itself."""
    if len(commit.parents) > 1:
        match = _PULL_REQUEST.match(commit.subject) or _MERGE.match(commit.subject)
        named = match.groupdict() if match else {}
        branch = named.get("branch", "")
        return Merge(named.get("number", ""), branch.removeprefix("origin/"))
    if match := _SQUASHED.search(commit.subject):
        return Merge(match["number"])
    return None


def add_notes(folder: str, texts: Mapping[str, str]) -> None:
    """Write a note to each of some commits, in a ref of its own, in the place of an earlier one. Raises Unusable."""
    for name, text in texts.items():
        status, _, why = _git(folder, "notes", f"--ref={NOTES}", "add", "-f", "-F", "-", name, text=text.encode())
        if status:
            raise Unusable("", f"no note could be written to {name[:12]}: {why or 'git failed'}", "mend that, and try again")
