"""Writes what runs tok-sync every ten minutes (crontab, systemd, launchd), and the shell's functions for the proxy."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from xml.sax.saxutils import escape

from tokenops import setup_hosts, setup_programs, setup_texts
from tokenops.setup_changes import Change
from tokenops.setup_hosts import System

KINDS = ("cron", "systemd", "launchd")
_PROGRAMS = {"cron": "crontab", "systemd": "systemctl", "launchd": "launchctl"}
# Where our log, our settings and the clients' files are, if not in the usual places: cron does not know.
_VARIABLES = ("TOKENOPS_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME")


def kinds(system: System) -> list[str]:
    """The schedules that this machine has, the usual one first."""
    path = system.environment.get("PATH", "")
    fits = {"systemd": system.platform == "linux", "launchd": system.platform == "darwin"}
    return [kind for kind in KINDS if fits.get(kind, True) and setup_programs.is_here(_PROGRAMS[kind], path)]


def schedule_here(system: System) -> str:
    """Which schedule runs tok-sync already, "" if none is known."""
    if os.path.exists(_unit(system, setup_programs.TIMER)):
        return "systemd"
    if os.path.exists(_agent(system)):
        return "launchd"
    try:
        lines = (setup_programs.crontab() or b"").decode(errors="replace").splitlines()
    except setup_programs.Failed:  # a change of it says why it cannot be made
        return ""
    return "cron" if any("tok-sync" in line for line in lines if not line.lstrip().startswith("#")) else ""


def changes(system: System, kind: str, polls: bool) -> Iterator[Change]:
    """What adds a schedule, if there is none. `kind`: "" for the usual one of this machine."""
    here = kinds(system)
    kind = kind or (here[0] if here else "")
    if not kind or schedule_here(system):
        return
    title = f"import every ten minutes ({kind})"
    if kind == "cron":
        text = crontab_lines(system, polls)
        yield Change("cron", "", title, setup_programs.CRONTAB, "lines", (setup_texts.ENTRY,), text)
    elif kind == "systemd":
        for name, text, service in (
            (setup_programs.SERVICE, _service(system, polls), ""),
            (setup_programs.TIMER, _TIMER, "systemd"),
        ):
            yield Change("cron", "", title, _unit(system, name), "whole", (setup_texts.ENTRY,), text, service)
    else:
        yield Change("cron", "", title, _agent(system), "whole", (setup_texts.ENTRY,), _plist(system, polls), "launchd")


def _variables(system: System) -> dict[str, str]:
    return {name: system.environment[name] for name in _VARIABLES if system.environment.get(name)}


def crontab_lines(system: System, polls: bool) -> str:
    """The lines of a crontab. `polls`: whether vendors are asked too."""
    variables = "".join(f"{name}={_cron(value)} " for name, value in _variables(system).items())
    lines = [f"*/10 * * * *  {variables}{_cron(system.command('tok-sync'))} >/dev/null\n"]
    if polls:
        lines.append(f"*/5 * * * *  {variables}{_cron(system.command('tok-poll'))} >/dev/null\n")
    return "".join(lines)


def _cron(word: str) -> str:
    """A word of a crontab, in which % ends a line."""
    return shlex.quote(word).replace("%", "\\%")


def _unit(system: System, name: str) -> str:
    [folder] = setup_hosts.paths_of("$XDG_CONFIG_HOME/systemd/user", system)
    return os.path.join(folder, name)


def _agent(system: System) -> str:
    return os.path.join(system.home, "Library/LaunchAgents", f"{setup_programs.AGENT}.plist")


_TIMER = """[Unit]
Description=Import the usage of AI coding agents every ten minutes (TokenOps)

[Timer]
OnCalendar=*:0/10
Persistent=true

[Install]
WantedBy=timers.target
"""


def _service(system: System, polls: bool) -> str:
    words = [f"Environment={_systemd(f'{name}={value}')}" for name, value in _variables(system).items()]
    words += [f"ExecStart={_systemd(system.command('tok-sync'))}"]
    words += [f"ExecStart=-{_systemd(system.command('tok-poll'))}"] if polls else []
    lines = "".join(f"{line}\n" for line in words)
    title = "Description=Import the usage of AI coding agents (TokenOps)"
    return f"[Unit]\n{title}\n\n[Service]\nType=oneshot\nNice=10\nStandardOutput=null\n{lines}"


def _systemd(word: str) -> str:
    """A word of a unit file, in which % begins a specifier."""
    quoted = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{quoted}"'


def _plist(system: System, polls: bool) -> str:
    commands = ["tok-sync", *(["tok-poll"] if polls else [])]
    line = "; ".join(f"{shlex.quote(system.command(name))} >/dev/null" for name in commands)
    words = "".join(f"<string>{escape(word)}</string>" for word in ("/bin/sh", "-c", line))
    variables = "".join(f"<key>{name}</key><string>{escape(value)}</string>" for name, value in _variables(system).items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0">\n<dict>\n'
        f"  <key>Label</key><string>{setup_programs.AGENT}</string>\n"
        f"  <key>ProgramArguments</key><array>{words}</array>\n"
        f"  <key>EnvironmentVariables</key><dict>{variables}</dict>\n"
        "  <key>StartInterval</key><integer>600</integer>\n  <key>RunAtLoad</key><true/>\n</dict>\n</plist>\n"
    )


def shell_file(system: System) -> tuple[str, bool]:
    """The file that the user's shell reads at its start, "" if the shell is not one of ours; and whether it is fish."""
    shell = os.path.basename(system.environment.get("SHELL", ""))
    if shell == "zsh":
        return os.path.join(system.environment.get("ZDOTDIR") or system.home, ".zshrc"), False
    if shell == "bash":
        return os.path.join(system.home, ".bash_profile" if system.platform == "darwin" else ".bashrc"), False
    if shell == "fish":
        return setup_hosts.paths_of("$XDG_CONFIG_HOME/fish/config.fish", system)[0], True
    return "", False


def alias(program: str, variable: str, value: str, fish: bool) -> str:
    """A function of a shell that runs a program with a base URL, if the proxy answers there; else without."""
    asks = f"curl -fsm 1 --noproxy '*' -o /dev/null {setup_hosts.BASE}/healthz 2>/dev/null"
    if fish:
        through, beside = f"env {variable}={value} {program} $argv", f"command {program} $argv"
        return f"function {program}; if {asks}; {through}; else; {beside}; end; end\n"
    through, beside = f'{variable}={value} command {program} "$@"', f'command {program} "$@"'
    return f"{program}() {{ if {asks}; then {through}; else {beside}; fi; }}\n"
