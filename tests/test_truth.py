"""What keeps the tests true on any machine: few of them need files that are not here, and none waits for a while."""

from __future__ import annotations

import ast
import functools
import pathlib
from collections.abc import Iterator

from hypothesis import settings

from conftest import ROOT, ROUNDS, examples

# Sleeps that are the subject: a process that is killed at any moment, a vendor that takes its time, a latency that is measured.
SLEEPS = {"test_crashes.py": 3, "test_ship.py": 2, "test_proxy.py": 3, "test_clocks.py": 4, "upstream.py": 4}
# One polls for all that must come; the others for a server of their own.
SLEEPS |= {"conftest.py": 1, "engines.py": 1}
# A vendor that says no more until its client goes away.
SLEEPS |= {"rig.py": 1}
# An agent that reads no more, and goes on writing now and then.
SLEEPS |= {"fake_acp.py": 1}
CLOCKS = {"time.time", "time.time_ns", "time.perf_counter", "datetime.now", "datetime.datetime.now", "datetime.date.today"}
# The times of files are those of the system: a file is marked as if it came from the future.
READ = {"test_clocks.py": 1}
# A client, real or imitated, that is refused for some seconds: it and its vendor live by the time that it is.
READ |= {"fake_agent.py": 4, "test_rig_limits.py": 4}
# A vendor's answer says when it was made; real clients, which have no other clock, read it.
READ |= {"rig_wires.py": 2}
# The times of clients' files, which a machine compares with its own: they were written a while ago.
READ |= {"machines.py": 1, "test_pull_fleet.py": 1}


@functools.cache
def modules() -> list[tuple[str, ast.Module]]:
    """The tests' files."""
    return [(path.name, ast.parse(path.read_text())) for path in sorted((ROOT / "tests").glob("*.py"))]


def dotted(node: ast.AST) -> str:
    """A name with dots, as `time.sleep`; "" of any other expression."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def called(tree: ast.AST) -> Iterator[str]:
    """The dotted names of what is called."""
    return (dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_shared(node: ast.AST) -> bool:
    """Whether an expression is the path of the shared files: `... .parent / "shared"`."""
    is_path = isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant) and node.right.value == "shared"
    return is_path and dotted(node.left).endswith("parent")


def test_at_most_ten_tests_need_logs_of_others() -> None:
    found = [
        f"{name}::{node.name}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and any("needs_shared" in ast.unparse(mark) for mark in node.decorator_list)
    ]
    assert len(found) <= 10, found
    knowing = {name for name, tree in modules() if any(map(is_shared, ast.walk(tree)))} - {pathlib.Path(__file__).name}
    assert knowing == {"conftest.py", "cases.py"}  # the only ones that know where they lie


def test_no_test_sleeps_until_something_has_probably_happened() -> None:
    sleeps = {name: sum(one.endswith("sleep") for one in called(tree)) for name, tree in modules()}
    assert {name: count for name, count in sleeps.items() if count > SLEEPS.get(name, 0)} == {}


def test_no_test_asks_the_time() -> None:
    clocks = {name: sum(one in CLOCKS for one in called(tree)) for name, tree in modules()}
    assert {name: count for name, count in clocks.items() if count > READ.get(name, 0)} == {}


def test_random_examples_are_the_same_each_time() -> None:
    profile = settings.get_profile("test")
    assert profile.derandomize and profile.deadline is None and examples(7).max_examples == 7 * ROUNDS
    assert not settings.get_profile("fuzz").derandomize
