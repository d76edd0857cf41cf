"""Lists hosts (programs that run agents): how to find each one here, and how to add an MCP server to it.

A path may begin with $XDG_CONFIG_HOME, $XDG_DATA_HOME or $WINDOWS, the home directories of Windows as WSL shows them;
else it is below the home directory. The first of a host's `homes` that exists is where its settings are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tokenops import programs

SERVER = "tokenops"  # the name under which hosts know tok-mcp
BASE = "http://127.0.0.1:7878"


class System(NamedTuple):
    """This machine, as far as it matters here."""

    home: str
    environment: Mapping[str, str]
    platform: str  # as sys.platform
    windows: tuple[str, ...] = ()  # the home directories of Windows, in WSL
    bin: str = ""  # the directory of our own commands

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
    marks: tuple[str, ...] = ()  # what a home of it holds, if its name alone is not enough
    program: str = ""  # its command, if it has one
    config: str = ""  # its file of MCP servers, below its home; "" if it has none that a program may write
    form: str = "json"
    section: str = "mcpServers"
    shape: str = "plain"
    proxy: tuple[str, ...] = ()  # how it is pointed at tok-proxy; {base} is the proxy's address
    plans: str = ""  # the client whose plans it uses, if not its own
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
        note="it uses Claude Code's plan, and its local agent sessions are read with it; restart it after a change",
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
        note="it reads Codex's config.toml for local MCP servers and keeps no log here",
    ),
    Host(
        "cursor",
        "Cursor",
        "cursor",
        (".cursor", "$XDG_CONFIG_HOME/Cursor", "Library/Application Support/Cursor", "$WINDOWS/AppData/Roaming/Cursor"),
        program="cursor",
        config="~/.cursor/mcp.json",
        note="its models run through its own backend, not through a proxy",
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
            '# in opencode.json, which needs /v1 for Anthropic too:  {"provider": {"anthropic": {"options": {"baseURL":'
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


def paths_of(template: str, system: System) -> list[str]:
    """The paths that a template means here."""
    variables = {
        "$XDG_CONFIG_HOME": system.environment.get("XDG_CONFIG_HOME") or os.path.join(system.home, ".config"),
        "$XDG_DATA_HOME": system.environment.get("XDG_DATA_HOME") or os.path.join(system.home, ".local/share"),
        "~": system.home,
    }
    first, _, rest = template.partition("/")
    if first == "$WINDOWS":
        return [os.path.join(home, rest) for home in system.windows]
    return [os.path.join(variables[first], rest) if first in variables else os.path.join(system.home, template)]


def homes(host: Host, system: System) -> Iterator[str]:
    """The directories that may be a host's; if a variable names some, only those."""
    variable, inner = host.variable
    named = [part.strip() for part in system.environment.get(variable, "").split(",") if part.strip()] if variable else []
    if named:
        yield from (os.path.join(os.path.expanduser(part), inner).rstrip("/") for part in named)
        return
    for template in host.homes:
        yield from paths_of(template, system)


def existing_homes(host: Host, system: System) -> list[str]:
    """The directories of a host that exist."""
    folders = [folder for folder in homes(host, system) if os.path.isdir(folder)]
    if host.marks:
        folders = [folder for folder in folders if any(os.path.exists(os.path.join(folder, mark)) for mark in host.marks)]
    return folders


def program(host: Host, system: System) -> str:
    """A host's command on the path; "" if there is none."""
    return programs.path_of(host.program, system.environment.get("PATH", "")) if host.program else ""


def is_here(host: Host, system: System) -> bool:
    """Whether a host has settings here, or its command is on the path."""
    return bool(existing_homes(host, system) or program(host, system))


def config_file(host: Host, system: System) -> str:
    """A host's file of MCP servers, whether it exists or not; "" if it has none."""
    if not host.config:
        return ""
    if host.config[0] in "~$":
        [path] = paths_of(host.config, system)
        return next(
            (file for file in (f"{path}c", path) if os.path.exists(file)), path
        )  # opencode.jsonc before opencode.json
    folders = existing_homes(host, system) or _usual_homes(host, system)
    return os.path.join(folders[0], host.config)


def _usual_homes(host: Host, system: System) -> list[str]:
    """Where a host that is not here would have its settings."""
    folders = list(homes(host, system))
    mac = [folder for folder in folders if "/Library/" in folder]
    return (mac if system.platform == "darwin" and mac else [folder for folder in folders if folder not in mac]) or folders


def entry(host: Host, system: System, path: str = "") -> dict[str, Any]:
    """The entry that adds tok-mcp to a host. `path` is its file; one of Windows needs another command."""
    command = [system.command("tok-mcp")]
    if path and any(path.startswith(home) for home in system.windows):
        distribution = system.environment.get("WSL_DISTRO_NAME", "")
        command = ["wsl.exe", *(["-d", distribution] if distribution else []), "--exec", *command]
    if host.shape == "opencode":
        return {"type": "local", "command": command, "enabled": True}
    fields: dict[str, Any] = {"command": command[0]}
    if command[1:] or host.shape == "copilot":
        fields["args"] = command[1:]
    if host.shape == "copilot":
        return {"type": "local", **fields, "tools": ["*"]}
    return {"type": "stdio", **fields} if host.shape == "stdio" else fields


def section(host: Host, document: Any) -> tuple[str, ...]:
    """The section of a host's settings that holds its servers. opencode 2 takes two forms; an existing one is used."""
    if host.shape == "opencode" and isinstance(document, dict):
        servers = document.get("mcp")
        if isinstance(servers, dict) and isinstance(servers.get("servers"), dict) and "type" not in servers["servers"]:
            return ("mcp", "servers")
    return (host.section,)


def server_entry(servers: object) -> tuple[str, Any]:
    """Name and entry of tok-mcp in a host's list of servers; "" if it is not there."""
    if not isinstance(servers, dict):
        return "", None
    if SERVER in servers:
        return SERVER, servers[SERVER]
    for name, server in servers.items():
        command = server.get("command") if isinstance(server, dict) else None
        words = [command] if isinstance(command, str) else command if isinstance(command, list) else []
        more = server.get("args") if isinstance(server, dict) else None
        words = [*words, *(more if isinstance(more, list) else [])]
        if any(isinstance(word, str) and os.path.basename(word) == "tok-mcp" for word in words):
            return str(name), server
    return "", None
