"""Runs every case of ../shared/cases and prints a line for each: right, wrong, or not run.

    python tests/cases.py [--part PART,...] [--json] [--jobs N] [--seconds N] [--keep] [--cases FOLDER] [NAME...]

NAME is a group (proxy), a case (proxy/length-twice) or the beginning of one; without a name every case runs. PART is 13, 13b,
16 or 17, the part of the work that a case belongs to; parts are counted apart. Status 0: every case that ran is right, or
there is no folder of cases here; 1: at least one is wrong or was not run; 2: there is no such case.

Each case runs in a process of its own, on a copy of its folder in a temporary directory, with an empty HOME, the commands
of this checkout first on the path, and limits of time and memory. Whatever it leaves running is ended. What is right stands
in tests/case_checks.py and tests/case_security.py; a folder with a case.py that they do not name is right if the script's
status is 0.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from typing import Any, NamedTuple

import case_checks
import case_security
from case_room import CHECKS, NotRun, Room, script_status

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = ROOT.parent / "shared" / "cases"
NO_CASE = {"clients/vendor"}  # the server that real clients were run against, not a case
PARTS = {
    "16": "reset-moved-earlier quota-given-back two-accounts-as-one percent-is-a-timestamp refusal-without-a-window "
    "switch-by-alphabet advice-against-its-forecast week-runs-out-unsaid burst-not-foreseen",
    "17": "cline-cli grok-build mistral-vibe price-missing-current",
}
SECONDS = 600  # the longest case takes some 60 s on an idle machine
MEMORY = 4 << 30  # of addresses, for each process of a case
FILE_SIZE = 1 << 30

REGISTERED = (case_checks, case_security)  # importing them fills CHECKS

Json = dict[str, Any]


class Case(NamedTuple):
    """A name such as `proxy/length-twice`, its folder, and the part of the work that it belongs to."""

    name: str
    folder: pathlib.Path
    part: str


def part_of(name: str) -> str:
    group, _, case = name.partition("/")
    for part, cases in PARTS.items():
        if case in cases.split():
            return part
    return "13b" if group == "security" else "13"


def all_cases(folder: pathlib.Path) -> list[Case]:
    """The cases of a folder; one folder may hold several (`clients/grok-build`, `clients/grok-build#stream`)."""
    cases = []
    for path in sorted(folder.glob("*/*")):
        name = f"{path.parent.name}/{path.name}"
        if path.is_dir() and name not in NO_CASE and not path.name.startswith(("_", ".")):
            names = [name, *(other for other in CHECKS if other.startswith(f"{name}#"))]
            cases += [Case(other, path, part_of(other)) for other in names]
    return cases


def filter_cases(cases: list[Case], names: list[str], parts: list[str]) -> list[Case]:
    return [
        case
        for case in cases
        if (not names or any(case.name.startswith(name.strip("/")) for name in names)) and (not parts or case.part in parts)
    ]


# The process of one case


def judge(case: Case, work: pathlib.Path) -> Json:
    """Runs one case in this process: its verdict and what came out."""
    room = Room(case.folder, work, ROOT)
    check = CHECKS.get(case.name)
    try:
        if check is not None:
            check(room)
        elif (case.folder / "case.py").exists():
            script_status(room)
        else:
            raise NotRun("neither tests/case_checks.py nor tests/case_security.py says what is right")
    except NotRun as reason:
        return {"verdict": "not run", "what": [*room.faults, str(reason)]}
    except Exception:  # the check itself is at fault: that is neither right nor wrong
        last = traceback.format_exc().strip().splitlines()
        return {
            "verdict": "not run",
            "what": [*room.faults, f"the check failed: {last[-1]}, at {last[-2 - ('^' in last[-2])].strip()}"],
        }
    return {"verdict": "wrong" if room.faults else "right", "what": room.faults}


def inside(name: str, folder: str, work: str) -> int:
    """What the process of one case does; its verdict goes to the file `verdict`."""
    for limit, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, FILE_SIZE), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of addresses
            resource.setrlimit(limit, (most, most))
    answer = judge(Case(name, pathlib.Path(folder), part_of(name)), pathlib.Path(work))
    (pathlib.Path(work) / "verdict").write_text(json.dumps(answer))
    return 0


# The processes of all cases


def end_what_is_left(work: pathlib.Path) -> int:
    """Ends the processes whose environment or command names a case's temporary directory; how many there were."""
    count = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(work) in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
                count += 1
    return count


def run_case(case: Case, seconds: float, keep: bool) -> Json:
    """Runs one case in a process of its own, and leaves nothing running or lying about."""
    began = time.monotonic()
    work = pathlib.Path(tempfile.mkdtemp(prefix="tokenops-case-"))
    command = [sys.executable, os.path.abspath(__file__), "--inside", case.name, str(case.folder), str(work)]
    with open(work / "noise", "w+b") as noise:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=noise, stderr=noise, start_new_session=True)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            answer: Json = {"verdict": "wrong", "what": [f"it does not end within {seconds:.0f} s"]}
        else:
            noise.seek(0)
            answer = {
                "verdict": "not run",
                "what": [noise.read().decode(errors="replace")[-300:] or "it ended without a verdict"],
            }
            with contextlib.suppress(OSError, ValueError):
                answer = json.loads((work / "verdict").read_text())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    answer["ended"] = end_what_is_left(work)
    if keep:
        print(f"{case.name}: {work}", file=sys.stderr)
    else:
        shutil.rmtree(work, ignore_errors=True)
    return {"case": case.name, "part": case.part, **answer, "seconds": round(time.monotonic() - began, 1)}


def line_of(answer: Json) -> str:
    what = "; ".join(answer["what"])
    what = what if len(what) <= 400 else what[:397] + "..."
    text = f"{answer['verdict']:8} {answer['part']:>3}  {answer['case']:40} {answer['seconds']:5.1f} s"
    return f"{text}  {what}".rstrip()


def summary(answers: list[Json]) -> list[str]:
    lines = []
    for part in sorted({answer["part"] for answer in answers}):
        verdicts = [answer["verdict"] for answer in answers if answer["part"] == part]
        lines.append(
            f"Part {part}: " + ", ".join(f"{verdicts.count(name)} {name}" for name in ("right", "wrong", "not run"))
        )
    return lines


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--part", default="", help="only these parts, with commas between")
    parser.add_argument("--json", action="store_true", help="one JSON object for each case")
    parser.add_argument("--jobs", type=int, default=1, help="how many cases run at a time (some measure time: 1 is best)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long one case may take")
    parser.add_argument("--keep", action="store_true", help="keep the temporary directories and print where they are")
    parser.add_argument("--cases", type=pathlib.Path, default=CASES, metavar="FOLDER", help="where the cases are")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    if argv[:1] == ["--inside"]:
        return inside(*argv[1:])
    args = arguments(argv)
    if not args.cases.is_dir():
        print(
            f"cases.py: {args.cases} does not exist, so no case runs; the cases are not part of the project", file=sys.stderr
        )
        return 0
    cases = filter_cases(all_cases(args.cases.resolve()), args.names, [part for part in args.part.split(",") if part])
    if not cases:
        print("cases.py: no case has such a name or part; without arguments all run", file=sys.stderr)
        return 2
    answers = []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for answer in pool.map(lambda case: run_case(case, args.seconds, args.keep), cases):
            answers.append(answer)
            print(json.dumps(answer) if args.json else line_of(answer), flush=True)
    if not args.json:
        print("\n" + "\n".join(summary(answers)))
    return int(any(answer["verdict"] != "right" for answer in answers))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
