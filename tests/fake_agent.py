"""A fake agent for tests of tok-run: it writes the log that the real client of its name writes, by a plan, and ends.

It is run under the client's name. $FAKE_PLAN is a file with one step per start, each a line of JSON: `end` (limit, done,
transient, network), `resets` (milliseconds from now, null for a limit that names none), `status`, and more below. Each start
is noted in $FAKE_CALLS with its arguments.
"""

import datetime
import json
import os
import pathlib
import signal
import sys
import time
import uuid

HOME = pathlib.Path(os.environ["HOME"])


def stamp(ms=0):
    at = datetime.datetime.fromtimestamp(time.time() + ms / 1000, datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:23] + "Z"


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def value(*options):
    return next((sys.argv[at + 1] for at, word in enumerate(sys.argv) if word in options and at + 1 < len(sys.argv)), "")


def claude(step):
    session = value("--session-id", "--resume", "-r") or str(uuid.uuid4())
    path = HOME / ".claude/projects" / os.getcwd().replace("/", "-") / f"{session}.jsonl"
    common = {"cwd": os.getcwd(), "sessionId": session, "version": "2.1.332", "isSidechain": False, "entrypoint": "sdk-cli"}

    def line(kind, message, **more):
        return {"type": kind, "message": message, "timestamp": stamp(), "uuid": str(uuid.uuid4())} | common | more

    usage = {"input_tokens": 5, "output_tokens": 50, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    answer = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": step.get("model", "claude-opus-4-8"),
              "content": [{"type": "text", "text": "secret words"}], "stop_reason": "end_turn", "usage": usage}  # fmt: skip
    write(path, line("user", {"role": "user", "content": "secret words"}), line("assistant", answer, requestId="req_1"))
    made_up = answer | {"model": "<synthetic>", "id": str(uuid.uuid4()), "usage": dict.fromkeys(usage, 0)}
    error = {"error": "rate_limit", "isApiErrorMessage": True, "apiErrorStatus": 429, "apiErrorType": "rate_limit_error"}
    if step["end"] == "limit":
        quota = {"status": "rejected", "unifiedRateLimitFallbackAvailable": False, "rateLimitType": "five_hour",
                 "overageStatus": step.get("overage", "rejected"), "isUsingOverage": False}  # fmt: skip
        if step.get("resets") is not None:
            quota["resetsAt"] = int(time.time() + step["resets"] / 1000)
        text = [{"type": "text", "text": "You've hit your 5-hour limit"}]
        error |= {"quotaLimits": quota, "apiError": "usage_limit_reached"}
        write(path, line("assistant", made_up | {"content": text}, **error))
    elif step["end"] == "transient":
        text = [{"type": "text", "text": "API Error: Server is temporarily limiting requests (not your usage limit)"}]
        write(path, line("assistant", made_up | {"content": text}, **error, apiErrorIsTransient=True))
    elif step["end"] == "network":
        text = [{"type": "text", "text": "API Error: Connection error."}]
        write(path, line("assistant", made_up | {"content": text}, error="unknown", isApiErrorMessage=True))
    return path


def codex(step):
    words = sys.argv[1:]
    session = words[words.index("resume") + 1] if "resume" in words else str(uuid.uuid4())
    folder = HOME / ".codex/sessions/2026/11/21"
    path = next(folder.glob(f"*-{session}.jsonl"), folder / f"rollout-2026-11-21T09-30-00-{session}.jsonl")

    def line(kind, payload):
        return {"timestamp": stamp(), "ordinal": 1, "type": kind, "payload": payload}

    meta = {"id": session, "session_id": session, "timestamp": stamp(), "cwd": os.getcwd(), "originator": "codex_exec",
            "cli_version": "0.171.0", "source": "exec", "thread_source": "user", "model_provider": "openai"}  # fmt: skip
    if not path.exists():
        write(path, line("session_meta", meta))
    write(path, line("turn_context", {"turn_id": "t", "model": "gpt-5.4", "cwd": os.getcwd()}))
    write(path, line("event_msg", {"type": "task_started", "turn_id": "t"}))
    limits = {"limit_id": "codex", "primary": None, "secondary": None, "credits": step.get("credits"), "plan_type": "plus"}
    done = {"type": "task_complete", "turn_id": "t", "last_agent_message": None}
    if step["end"] == "limit":
        if step.get("resets") is not None:
            at = int(time.time() + step["resets"] / 1000)
            limits["primary"] = {"used_percent": 100.0, "window_minutes": 300, "resets_at": at}
        done["error"] = {"message": "You've hit your usage limit.", "codex_error_info": "usage_limit_exceeded"}
    elif step["end"] != "done":
        done["error"] = {"message": "stream disconnected", "codex_error_info": {"response_stream_disconnected": {}}}
    write(path, line("event_msg", {"type": "token_count", "info": None, "rate_limits": limits}), line("event_msg", done))
    return path


def main():
    name = os.path.basename(sys.argv[0])
    calls = pathlib.Path(os.environ["FAKE_CALLS"])
    number = len(calls.read_text().splitlines()) if calls.exists() else 0
    steps = pathlib.Path(os.environ["FAKE_PLAN"]).read_text().splitlines()
    step = json.loads(steps[min(number, len(steps) - 1)])
    write(calls, {"name": name, "words": sys.argv[1:], "at": time.time()})
    path = {"claude": claude, "codex": codex}[name](step)
    if "another" in step:  # somebody works in the same folder
        text = path.read_text().replace(path.stem[-36:], str(uuid.uuid4()))
        path.with_name(f"{path.stem[:-36]}{uuid.uuid4()}.jsonl").write_text(text)
    if "removed" in step:
        path.unlink()
    if "unreadable" in step:
        path.unlink()
        path.mkdir()
    if "waits" in step:
        signal.signal(signal.SIGINT, lambda *_: sys.exit(step["waits"]))
        print("ready", flush=True)
        signal.pause()
    sys.exit(step.get("status", 0 if step["end"] == "done" else 1))


main()
