"""Lists the clients: where each keeps its logs, what it gives, what its logs lack, and which module reads it.

A new client is a module `read_<client>` that ends with READER (see `read_contract`), a row in CLIENTS, and its name in the
import below it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from tokenops.read_contract import Reader


class Module(Protocol):
    """A module of a client."""

    @property
    def READER(self) -> Reader:  # noqa: N802
        """The reader of the client."""
        ...


class Client(NamedTuple):
    """One client's place in the table."""

    name: str  # as given to tok-read
    client: str  # as in the record
    source: str
    module: str  # of this package; imported when there is something to read
    # Environment variable, and the path of the files below the directory that it names. A third element is the one of
    # `homes` that it replaces (else all of them), or "" for an additional directory, which need not exist.
    variables: tuple[tuple[str, ...], ...]
    homes: tuple[str, ...]  # below the home directory; $XDG_CONFIG_HOME and $XDG_DATA_HOME may begin one
    marks: tuple[str, ...]  # what a directory of this client holds; * stands for any characters
    gives: str = "turns"  # or what it adds up instead
    caveat: str = ""
    prompts: bool = False  # whether its logs separate what a person wrote from what the client wrote in their name

    def reader(self) -> Reader:
        """The reader of this client."""
        return cast("Module", importlib.import_module(f"tokenops.{self.module}")).READER


def _extension(name: str) -> list[str]:
    """Where editors made from VS Code keep an extension's files, on this machine and on the far side of a remote."""
    here = ("Code", "Code - Insiders", "VSCodium", "Cursor", "Windsurf")
    far = (".vscode-server", ".vscode-server-insiders", ".cursor-server", ".windsurf-server")
    folders = [f"{config}/{editor}" for config in ("$XDG_CONFIG_HOME", "Library/Application Support") for editor in here]
    return [f"{folder}/User/globalStorage/{name}" for folder in (*folders, *(f"{home}/data" for home in far))]


# Claude Desktop's local agent sessions: it runs Claude Code with a directory of its own for each task (2026).
_DESKTOP = tuple(
    f"{config}/Claude/local-agent-mode-sessions" for config in ("Library/Application Support", "$XDG_CONFIG_HOME")
)
CLIENTS = (
    Client(
        "claude",
        "claude-code",
        "claude-code-jsonl",
        "read_claude",
        (("CLAUDE_CONFIG_DIR", "", "$XDG_CONFIG_HOME/claude"), ("CLAUDE_CONFIG_DIR", "", ".claude")),
        ("$XDG_CONFIG_HOME/claude", ".claude", *_DESKTOP),
        ("projects", "*/*/local_*/.claude/projects"),
        caveat="before version 2.1.197 it often writes placeholders for input and output tokens (0, 1, or the count when "
        "the answer began), so both can be far too low; its cache counts are right. They are shown as recorded; only "
        "tok-proxy has the true ones.",
        prompts=True,
    ),
    Client(
        "codex",
        "codex",
        "codex-jsonl",
        "read_codex",
        (("CODEX_HOME", ""),),
        (".codex",),
        ("sessions", "archived_sessions"),
        prompts=True,
    ),
    Client(
        "opencode",
        "opencode",
        "opencode",
        "read_opencode",
        (("OPENCODE_DATA_DIR", ""),),
        ("$XDG_DATA_HOME/opencode", "Library/Application Support/opencode"),
        ("opencode*.db", "storage/message"),
        caveat="the small requests that give a session its title are not recorded, so they are missing.",
    ),
    Client(
        "gemini",
        "gemini-cli",
        "gemini-cli",
        "read_gemini",
        (("GEMINI_DATA_DIR", ""), ("GEMINI_CLI_HOME", ".gemini")),
        (".gemini",),
        ("tmp",),
    ),
    Client(
        "copilot",
        "copilot-cli",
        "copilot-cli",
        "read_copilot",
        (("COPILOT_HOME", ""), ("COPILOT_OTEL_FILE_EXPORTER_PATH", "", "")),
        (".copilot",),
        ("session-state", "session-store.db", "otel/*.jsonl", "otel/*/*.jsonl"),
        caveat="versions before 1.0.69 record what a session used only when it ends, so killed sessions are missing.",
    ),
    Client(
        "qwen",
        "qwen-code",
        "qwen-code",
        "read_qwen",
        (("QWEN_DATA_DIR", ""), ("QWEN_RUNTIME_DIR", ""), ("QWEN_HOME", "")),
        (".qwen",),
        ("projects/*/chats",),
        caveat="cache writes of its chats over Anthropic's API are counted as other input.",
    ),
    Client(
        "kimi",
        "kimi-cli",
        "kimi-cli",
        "read_kimi",
        (("KIMI_DATA_DIR", ""), ("KIMI_SHARE_DIR", "", ".kimi"), ("KIMI_CODE_HOME", "", ".kimi-code")),
        (".kimi", ".kimi-code"),
        ("sessions/*/*/wire.jsonl", "sessions/*/*/agents/*/wire.jsonl"),
        caveat="kimi-cli does not record the model, so its sessions are shown with the model that is configured now.",
    ),
    Client(
        "kilo",
        "kilo",
        "kilo",
        "read_kilo",
        (("KILO_DATA_DIR", ""),),
        ("$XDG_DATA_HOME/kilo", ".kilocode/cli/global", *_extension("kilocode.kilo-code")),
        ("kilo*.db", "tasks/*/ui_messages.json"),
    ),
    Client(
        "cline",
        "cline",
        "cline",
        "read_cline",
        (("CLINE_SESSION_DATA_DIR", ""), ("CLINE_DATA_DIR", ""), ("CLINE_DIR", "data")),
        (".cline/data",),
        ("sessions/*/*.messages.json",),
        caveat="only its CLI and SDK: not the tasks of its older extension. Its counts do not name reasoning.",
    ),
    Client(
        "grok",
        "grok-build",
        "grok-build",
        "read_grok",
        (("GROK_HOME", ""),),
        (".grok",),
        ("sessions/*/*/updates.jsonl", "sessions/*/*/usage.json"),
        gives="a total per prompt and model",
        caveat="one total per prompt and model, with its subagents; requests that name a session, and what a subagent uses "
        "after its prompt has ended, are missing.",
    ),
    Client(
        "vibe",
        "mistral-vibe",
        "mistral-vibe",
        "read_vibe",
        (("VIBE_HOME", ""),),
        (".vibe",),
        ("logs/session/unified/*/journal",),
        gives="turns, and a remainder or total per session",
        caveat="it removes old requests and keeps their sum, which is one remainder per session, or its total if no request "
        "is left. It does not record the model of a request, so all of a session are shown with the session's; reasoning is "
        "not counted apart. Sessions before version 3 are not read.",
    ),
    Client(
        "zed",
        "zed",
        "zed",
        "read_zed",
        (),
        ("$XDG_DATA_HOME/zed/threads", "Library/Application Support/Zed/threads"),
        ("threads.db",),
        gives="a total per thread",
        caveat="one total per thread of its own agent, on the day it began, for the model it used last; for some vendors "
        "cached input is not separated from other input.",
    ),
    Client(
        "crush",
        "crush",
        "crush",
        "read_crush",
        (("CRUSH_GLOBAL_DATA", ""),),
        ("$XDG_DATA_HOME/crush",),
        ("projects.json", "crush.db"),
        gives="a cost per session",
        caveat="it keeps the tokens of a session's last request only, so tokens are unknown; the cost is its own estimate, "
        "on the day the session began.",
    ),
    Client(
        "amp",
        "amp",
        "amp",
        "read_amp",
        (("AMP_DATA_DIR", ""),),
        ("$XDG_DATA_HOME/amp",),
        ("threads",),
        caveat="it bills in credits: costs are list prices. Threads kept only on its server are missing.",
    ),
    Client(
        "droid",
        "droid",
        "droid",
        "read_droid",
        (("DROID_SESSIONS_DIR", ""), ("FACTORY_HOME_OVERRIDE", ".factory")),
        (".factory",),
        ("sessions",),
        gives="a total per session",
        caveat="one total per session, on the day it began, for the model it used last; it bills in credits: costs are list "
        "prices.",
    ),
    Client(
        "goose",
        "goose",
        "goose",
        "read_goose",
        (("GOOSE_PATH_ROOT", "data/sessions"),),
        (
            "$XDG_DATA_HOME/goose/sessions",
            "$XDG_DATA_HOME/Block/goose/sessions",
            "Library/Application Support/goose/sessions",
            "Library/Application Support/Block/goose/sessions",
        ),
        ("sessions.db",),
        gives="turns, and a total per older session",
        caveat="sessions begun before its ledger of requests (2026) are one total each, for the model used last; the oldest "
        "do not separate cached input, so their cost is too high.",
    ),
    Client(
        "hermes",
        "hermes",
        "hermes",
        "read_hermes",
        (("HERMES_HOME", ""),),
        (".hermes",),
        ("state.db",),
        gives="a total per session and model",
        caveat="one total per session and model, on the day the session began.",
    ),
    Client(
        "pi",
        "pi",
        "pi",
        "read_pi",
        (("PI_AGENT_DIR", ""), ("PI_CODING_AGENT_DIR", ""), ("PI_CODING_AGENT_SESSION_DIR", "", "")),
        (".pi/agent",),
        ("sessions/--*",),
    ),
    Client(
        "openclaw",
        "openclaw",
        "openclaw",
        "read_openclaw",
        (("OPENCLAW_STATE_DIR", ""), ("OPENCLAW_DIR", ""), ("CLAWDBOT_STATE_DIR", ""), ("OPENCLAW_HOME", ".openclaw")),
        (".openclaw", ".clawdbot", ".moltbot", ".moldbot"),
        ("agents/*/sessions", "agents/*/agent/openclaw-agent.sqlite", "openclaw.json"),
        caveat="answers of its Codex harness are counted from Codex's own logs.",
    ),
    Client(
        "cursor",
        "cursor",
        "cursor-csv",
        "read_cursor",
        (("CURSOR_USAGE_DIR", ""),),
        ("$XDG_DATA_HOME/tokenops/cursor",),
        ("*.csv",),
        caveat="only what you exported from its dashboard, without sessions and projects.",
    ),
    Client(
        "stats-cache",
        "claude-code",
        "claude-code-stats-cache",
        "read_stats_cache",
        (("CLAUDE_CONFIG_DIR", ""),),
        ("$XDG_CONFIG_HOME/claude", ".claude"),
        ("stats-cache.json",),
        gives="a total per day and model, to compare with",
        caveat="Claude Code's own sums, several times too high; they are compared and never added.",
    ),
    Client(
        "claude-usage",
        "claude-code",
        "claude-code-usage-cache",
        "read_claude_usage",
        (("CLAUDE_CONFIG_DIR", ""),),
        (".",),
        (".claude.json",),
        gives="readings of the plan's limits",
        caveat="Claude Code decides when to refresh it; each reading has its own time.",
    ),
    # Streams and exports have no place of their own: they are read where they are named, or from standard input.
    Client(
        "claude-stream",
        "claude-code",
        "claude-stream",
        "read_claude_stream",
        (),
        (),
        (),
        gives="turns, or a total per session and model",
    ),
    Client("codex-exec", "codex", "codex-exec", "read_codex_exec", (), (), (), gives="a total per thread"),
    Client("otel", "", "otel", "read_otel", (), (), (), gives="turns; of Claude Code a total per request"),
)
if TYPE_CHECKING:  # mypy holds each module of the table to the contract; at run time it is imported when it is needed
    # fmt: off
    from tokenops import (  # isort: skip
        read_amp, read_claude, read_claude_stream, read_claude_usage, read_cline, read_codex, read_codex_exec,
        read_copilot, read_crush, read_cursor, read_droid, read_gemini, read_goose, read_grok, read_hermes,
        read_kilo, read_kimi, read_openclaw, read_opencode, read_otel, read_pi, read_qwen, read_stats_cache,
        read_vibe, read_zed,
    )
    MODULES: tuple[Module, ...] = (
        read_claude, read_codex, read_opencode, read_gemini, read_copilot, read_qwen, read_kimi, read_kilo,
        read_cline, read_grok, read_vibe, read_zed, read_crush, read_amp, read_droid, read_goose, read_hermes,
        read_pi, read_openclaw, read_cursor, read_stats_cache, read_claude_usage, read_claude_stream,
        read_codex_exec, read_otel,
    )
    # fmt: on

BY_NAME = {client.name: client for client in CLIENTS}
STREAMS = tuple(client for client in CLIENTS if not client.homes and not client.variables)


class Uncounted(NamedTuple):
    """A client that keeps no token counts here that can be read: nothing is estimated from its texts."""

    name: str
    homes: tuple[str, ...]
    instead: str


_PROXY = (
    "if it accepts a base URL, point it at tok-proxy (tok-provider env); else only its vendor's account page shows usage"
)
UNCOUNTED = (
    Uncounted(
        "cursor",
        ("$XDG_CONFIG_HOME/Cursor", "Library/Application Support/Cursor", ".cursor"),
        "its files hold no token counts; export the usage as CSV from its dashboard into $XDG_DATA_HOME/tokenops/cursor/, "
        "or name the file: tok-read cursor --root FILE",
    ),
    Uncounted("windsurf", (".codeium/windsurf",), f"its files hold no token counts; {_PROXY}"),
    Uncounted(
        "antigravity",
        (".gemini/antigravity", ".gemini/antigravity-cli", ".antigravity"),
        f"its conversations hold token counts in a form that is not published, so they are not read; {_PROXY}",
    ),
    Uncounted(
        "kiro",
        (".kiro", "$XDG_CONFIG_HOME/Kiro"),
        f"its files hold credits and shares of the context, and 0 for all tokens; {_PROXY}",
    ),
    Uncounted(
        "aider",
        (".aider",),
        "its chat histories and its analytics log hold its own estimates, not counts; set OPENAI_API_BASE or "
        "ANTHROPIC_BASE_URL to tok-proxy",
    ),
)
