"""The table of hosts: programs that run agents, how each is found here, and how it is told of an MCP server.

A place may begin with $XDG_CONFIG_HOME, $XDG_DATA_HOME or $WINDOWS, the home directories of Windows as WSL shows them;
else it lies below the home directory. The first of a host's `homes` that exists is where its settings are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

SERVER = "tokenops"  # the name under which hosts know tok-mcp
BASE = "http://127.0.0.1:7878"


class System(NamedTuple):
    """This machine, as far as it matters here."""

    home: str
    environment: Mapping[str, str]
    platform: str  # as sys.platform
    windows: tuple[str, ...] = ()  # the home directories of Windows, in WSL
    bin: str = ""  # where our own commands lie

    def command(self, name: str) -> str:
        """One of our commands, by its whole path: cron and programs with windows know no PATH of a shell."""
        return os.path.join(self.bin, name) if self.bin else name


class Host(NamedTuple):
    """One host's place in the table."""

    name: str
    display: str
    client: str  # as in the record and in the plans' `clients`
    homes: tuple[str, ...]
    variable: tuple[str, str] = ("", "")  # names another directory, and where below it the host's own lies
    marks: tuple[str, ...] = ()  # what a home of it holds, where its name alone does not tell
    program: str = ""  # its command, where it has one
    config: str = ""  # its file of MCP servers, below its home; "" where it has none that a program may write
    form: str = "json"
    section: str = "mcpServers"
    shape: str = "plain"
    proxy: tuple[str, ...] = ()  # how it is pointed at tok-proxy; {base} is the proxy's address
    plans: str = ""  # whose plans it uses up, where not its own
    note: str = ""


def _code(name: str) -> tuple[str, ...]:
    editors = ("Code", "Code - Insiders", "VSCodium")
    roots = ("$XDG_CONFIG_HOME", "Library/Application Support")
    return tuple(f"{root}/{editor}/User{name}" for editor in editors for root in roots)


# Where the files are and what they look like, November 2026: code.claude.com/docs/en/mcp, modelcontextprotocol.io
# (Claude Desktop), learn.chatgpt.com/docs (Codex, ChatGPT), cursor.com/docs/mcp, opencode.ai/docs/mcp-servers and
# .../migrate-v1, geminicli.com/docs/tools/mcp-server, docs.github.com/en/copilot/how-tos/copilot-cli (Copilot CLI),
# code.visualstudio.com/docs/agents/reference/mcp-configuration (VS Code).
HOSTS = (
    Host(
        "claude-code",
        "Claude Code",
        "claude-code",
        (".claude", "$XDG_CONFIG_HOME/claude"),
        ("CLAUDE_CONFIG_DIR", ""),
        program="claude",
        proxy=("alias claude='ANTHROPIC_BASE_URL={base}/anthropic claude'",),
    ),
    Host(
        "claude-desktop",
        "Claude Desktop",
        "claude-desktop",
        ("Library/Application Support/Claude", "$XDG_CONFIG_HOME/Claude", "$WINDOWS/AppData/Roaming/Claude"),
        config="claude_desktop_config.json",
        plans="claude-code",
        note="it uses up the same plan as Claude Code, and what it used stands in no log here; restart it to take a change",
    ),
    Host(
        "codex",
        "Codex",
        "codex",
        (".codex",),
        ("CODEX_HOME", ""),
        program="codex",
        config="config.toml",
        form="toml",
        section="mcp_servers",
        proxy=(
            '# with an API key, in ~/.codex/config.toml:  openai_base_url = "{base}/openai/v1"',
            '# with a ChatGPT login, there:  chatgpt_base_url = "{base}/chatgpt"',
        ),
    ),
    Host(
        "chatgpt",
        "ChatGPT desktop",
        "chatgpt",
        (
            "Library/Application Support/com.openai.chat",
            "Library/Application Support/ChatGPT",
            "$XDG_CONFIG_HOME/ChatGPT",
            "$WINDOWS/AppData/Roaming/ChatGPT",
        ),
        plans="codex",
        note="for local MCP servers it reads Codex's config.toml; what it uses stands in no log here",
    ),
    Host(
        "cursor",
        "Cursor",
        "cursor",
        (".cursor", "$XDG_CONFIG_HOME/Cursor", "Library/Application Support/Cursor", "$WINDOWS/AppData/Roaming/Cursor"),
        program="cursor",
        config="~/.cursor/mcp.json",
        note="its models run through its own backend, past any proxy",
    ),
    Host(
        "opencode",
        "opencode",
        "opencode",
        ("$XDG_CONFIG_HOME/opencode", "$XDG_DATA_HOME/opencode"),
        program="opencode",
        config="$XDG_CONFIG_HOME/opencode/opencode.json",
        section="mcp",
        shape="opencode",
        proxy=(
            '# in opencode.json, which wants /v1 for Anthropic too:  {"provider": {"anthropic": {"options": {"baseURL":'
            ' "{base}/anthropic/v1"}}}}',
        ),
    ),
    Host(
        "gemini-cli",
        "Gemini CLI",
        "gemini-cli",
        (".gemini",),
        ("GEMINI_CLI_HOME", ".gemini"),
        ("settings.json", "tmp", "oauth_creds.json"),
        "gemini",
        "settings.json",
        proxy=("alias gemini='GOOGLE_GEMINI_BASE_URL={base}/gemini gemini'  # with an API key",),
    ),
    Host(
        "copilot-cli",
        "Copilot CLI",
        "copilot-cli",
        (".copilot",),
        ("COPILOT_HOME", ""),
        program="copilot",
        config="mcp-config.json",
        shape="copilot",
    ),
    Host(
        "copilot-vscode",
        "Copilot in VS Code",
        "copilot-vscode",
        (*_code("/globalStorage/github.copilot-chat"), "$XDG_CONFIG_HOME/github-copilot"),
        note="VS Code's list of MCP servers is Copilot's too",
    ),
    Host(
        "vscode",
        "VS Code",
        "vscode",
        _code(""),
        program="code",
        config="mcp.json",
        section="servers",
        shape="stdio",
    ),
)
BY_NAME = {host.name: host for host in HOSTS}


def expanded(place: str, system: System) -> list[str]:
    """The paths that a place means here."""
    variables = {
        "$XDG_CONFIG_HOME": system.environment.get("XDG_CONFIG_HOME") or os.path.join(system.home, ".config"),
        "$XDG_DATA_HOME": system.environment.get("XDG_DATA_HOME") or os.path.join(system.home, ".local/share"),
        "~": system.home,
    }
    first, _, rest = place.partition("/")
    if first == "$WINDOWS":
        return [os.path.join(home, rest) for home in system.windows]
    return [os.path.join(variables[first], rest) if first in variables else os.path.join(system.home, place)]


def homes(host: Host, system: System) -> Iterator[str]:
    """The directories that may be a host's, that which a variable names first, and alone."""
    variable, inner = host.variable
    named = [part.strip() for part in system.environment.get(variable, "").split(",") if part.strip()] if variable else []
    if named:
        yield from (os.path.join(os.path.expanduser(part), inner).rstrip("/") for part in named)
        return
    for place in host.homes:
        yield from expanded(place, system)


def found(host: Host, system: System) -> list[str]:
    """The directories of a host that exist."""
    places = [place for place in homes(host, system) if os.path.isdir(place)]
    if host.marks:
        places = [place for place in places if any(os.path.exists(os.path.join(place, mark)) for mark in host.marks)]
    return places


def program(host: Host, system: System) -> str:
    """A host's command on the path; "" where there is none."""
    import shutil

    return (shutil.which(host.program, path=system.environment.get("PATH", "")) or "") if host.program else ""


def config_file(host: Host, system: System) -> str:
    """A host's file of MCP servers, there or not; "" where it has none."""
    if not host.config:
        return ""
    if host.config[0] in "~$":
        [path] = expanded(host.config, system)
        return next((one for one in (f"{path}c", path) if os.path.exists(one)), path)  # opencode.jsonc before opencode.json
    places = found(host, system) or _usual(host, system)
    return os.path.join(places[0], host.config)


def _usual(host: Host, system: System) -> list[str]:
    """Where a host that is not here would have its settings."""
    places = list(homes(host, system))
    mac = [place for place in places if "/Library/" in place]
    return (mac if system.platform == "darwin" and mac else [place for place in places if place not in mac]) or places


def entry(host: Host, system: System, path: str = "") -> dict[str, Any]:
    """What a host wants to know of tok-mcp. `path`: its file, which tells a program of Windows from one of ours."""
    command = [system.command("tok-mcp")]
    if path and any(path.startswith(home) for home in system.windows):
        distribution = system.environment.get("WSL_DISTRO_NAME", "")
        command = ["wsl.exe", *(["-d", distribution] if distribution else []), "--exec", *command]
    if host.shape == "opencode":
        return {"type": "local", "command": command, "enabled": True}
    made: dict[str, Any] = {"command": command[0]}
    if command[1:] or host.shape == "copilot":
        made["args"] = command[1:]
    if host.shape == "copilot":
        return {"type": "local", **made, "tools": ["*"]}
    return {"type": "stdio", **made} if host.shape == "stdio" else made


def section(host: Host, given: Any) -> tuple[str, ...]:
    """Where a host's servers stand in its settings. opencode 2 takes both forms; one that is there already is kept to."""
    if host.shape == "opencode" and isinstance(given, dict):
        servers = given.get("mcp")
        if isinstance(servers, dict) and isinstance(servers.get("servers"), dict) and "type" not in servers["servers"]:
            return ("mcp", "servers")
    return (host.section,)


def registered(servers: object) -> tuple[str, Any]:
    """Name and entry of tok-mcp in a host's list of servers; "" where it is not there."""
    if not isinstance(servers, dict):
        return "", None
    if SERVER in servers:
        return SERVER, servers[SERVER]
    for name, about in servers.items():
        given = about.get("command") if isinstance(about, dict) else None
        words = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        more = about.get("args") if isinstance(about, dict) else None
        words = [*words, *(more if isinstance(more, list) else [])]
        if any(isinstance(word, str) and os.path.basename(word) == "tok-mcp" for word in words):
            return str(name), about
    return "", None
