"""Answers a hook of an agent in a few milliseconds, and works out beside the agent what later hooks judge by."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenops import cli, config, datadir, guard, guard_watch, machines, untrusted, when
from tokenops.events import Event

Json = dict[str, Any]
Save = Callable[[Sequence[Event]], None]

# Events after which the sums may be worked out again.
_AT_WORK = ("SessionStart", "UserPromptSubmit", "PreToolUse", "PostToolUse", "PostToolUseFailure")


def mode_of(settings: config.Config) -> str:
    """What happens at a repeated read."""
    name = settings.get("guard", "mode")
    return name if name in guard.MODES else guard.OBSERVE


def watch_settings(settings: config.Config, folder: str) -> guard_watch.Settings:
    """What the user chose about warnings and stops. Raises Unusable."""
    rules = config.thresholds(settings)["guard"]
    warns, stops = settings.get("guard", "warn") is not False, settings.get("guard", "stop") is True
    return guard_watch.Settings(rules, warns, stops, guard.lifted_until(folder))


def answer(payload: Mapping[str, Any], save: Save) -> Json:
    """The answer to one hook (empty: none). Raises whatever goes wrong: the caller lets the agent go on."""
    folder, now, settings = datadir.log_folder(), cli.now(), cli.configuration()
    session, salt = untrusted.text(payload.get("session_id"), 200), datadir.salt(folder, make=True)
    watch, sums = watch_settings(settings, folder), guard.sums(folder, session)

    def hear(payload: Mapping[str, Any], memory: object) -> tuple[Json, Json]:
        reply = guard_watch.answer(payload, memory, sums, watch, salt, now, lambda: when.zone(None))
        return reply.answer, reply.memory

    response = guard.act(folder, payload, mode_of(settings), now, salt, save, hear)
    if payload.get("hook_event_name") in _AT_WORK and watch.needs_sums and guard_watch.is_due(sums, now):
        start_refresh(session, payload)
    return response


def start_refresh(session: str, payload: Mapping[str, Any]) -> None:
    """Have the sums worked out by a process of its own, which the agent does not wait for. Raises OSError."""
    transcript, folder = (untrusted.text(payload.get(name), 4096) for name in ("transcript_path", "cwd"))
    command = [sys.executable, os.path.abspath(cli.Command.path), "refresh", session, transcript, folder]
    nothing = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        os.posix_spawn(sys.executable, command, os.environ, file_actions=nothing, setsid=True)
    except NotImplementedError:  # not every system can start a session of its own
        os.posix_spawn(sys.executable, command, os.environ, file_actions=nothing)


def refresh(session: str, transcript: str, directory: str) -> None:
    """Work out the sums of a session, unless another process is at it or just was. Raises OSError, Fault."""
    import time

    from tokenops import guard_sums

    folder, settings = datadir.log_folder(), cli.settings()
    with datadir.lock(os.path.join(datadir.ensure_folder(folder), "guard"), "sums.lock", wait=False) as is_mine:
        if not is_mine or not guard_watch.is_due(guard.sums(folder, session), cli.now()):
            return
        began = time.monotonic()
        sums = _sums(session, transcript, directory, config.thresholds(settings)["guard"], settings)
        guard_sums.keep(folder, session, sums | {"at": cli.now(), "took_ms": round(1000 * (time.monotonic() - began))})


def _sums(session: str, transcript: str, directory: str, rules: Mapping[str, float], settings: config.Config) -> Json:
    """What hooks judge by: the limits, and those sums on which something depends; the others are None."""
    from tokenops import answers, guard_sums

    def has_cap(what: str) -> bool:
        return rules[f"cap_{what}_usd"] > 0 or rules[f"cap_{what}_tokens"] > 0

    folder, catalogue, sums = datadir.log_folder(), cli.catalogue(settings), dict.fromkeys(("session", "task", "day"))
    result: Json = {**sums, "subagent_usd": None}
    if has_cap("session") or rules["fanout_usd"] > 0:  # this imports the transcripts, too
        owner = machines.here_if_usable(settings, os.environ)
        total, _ = guard.session_total(folder, session, ("claude", transcript), catalogue, cli.now(), owner=owner)
        result["session"] = guard_sums.sum_of(total)
    log = cli.log(settings, cli.Diagnostics())
    result["limits"] = guard_sums.limits(answers.budget(log, guard_sums.PROVIDER).rows, rules)
    if has_cap("day"):
        since = when.stamp(when.parse_since(when.bucket(log.now, "day", log.tz), log.now, log.tz))
        result["day"] = guard_sums.sum_of(answers.spend(log, (), since).total)
    if has_cap("task"):
        result["task"] = _task(folder, directory, log.now)
    if rules["fanout_usd"] > 0:
        result["subagent_usd"] = guard_sums.subagent_usd(folder, transcript, catalogue, log.now)
    return result


def _task(folder: str, directory: str, now: int) -> Json | None:
    """What the open task of a project has cost; None if none is open. Raises OSError."""
    from tokenops import guard_sums, tasks

    if not directory or not (name := tasks.open_name(folder, directory)):
        return None
    (row,) = tasks.rows(folder, now, cli.catalogue, name)
    return guard_sums.sum_of(row["metrics"], name)
