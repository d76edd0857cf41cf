"""Says of a request whether its answer is counted, and which client, session and model it names. No sockets.

Nothing of a prompt is kept; of the headers only those named here are looked at.
"""

from __future__ import annotations

import functools
import re

from tokenops import catalog, untrusted

# Paths that cost nothing, repeat an answer, or are not requests to a model. (Vendors' API references, November 2026.)
_FREE = re.compile(
    rb"count_tokens|:countTokens|/input_tokens\b|/tokenize|/detokenize|/messages/batches|/batches\b|/batch/|:batchGenerate|"
    rb"/cachedContents|/files\b|/fileSearchStores|/vector_stores|/models?(?:/[^/:]*)?\Z|/tcp_warming|:predictLongRunning|"
    rb"/assistants\b|/threads(?:/[^/]+)?(?:/messages.*)?\Z|/conversations(?:/[^/]+)?\Z|/fine[_-]tuning|/uploads?\b|/oauth|/cancel\Z|"
    rb"/responses/[^/]+/(?:cancel|input_items)|/api/(?:tags|show|pull|push|ps|version|create|copy|delete|blobs)|telemetry|/wham/"
)
# Mistral's conversations answer; those of OpenAI are a store.
_TALKS = re.compile(rb"/conversations(?:/[^/]+)?\Z")
# Paths that fetch an earlier answer: its own id says which, so it is the same turn.
_FETCHED = re.compile(rb"/responses/(?:resp_|[^/]+\Z)|/batches/[^/]+/results\Z|/files/[^/]+/content\Z")


@functools.lru_cache(maxsize=64)  # a client asks for few paths, and the search costs as much as parsing a head
def kind_of(method: bytes, path: bytes, provider: str = "") -> str:
    """Whether an answer is counted: "new", "fetched" (it counts once, by its id), or "" not at all."""
    if provider == "mistral" and method == b"POST" and _TALKS.search(path):
        return "new"
    if method == b"GET" and _FETCHED.search(path):
        return "fetched"
    if method != b"POST" or _FREE.search(path):
        return ""
    return "new"


SESSIONS = (
    "x-tokenops-session-id",
    "x-claude-code-session-id",
    "session_id",
    "session-id",
    "conversation_id",
    "thread-id",
    "x-opencode-session",
    "x-session-id",
    "x-session-affinity",
    "x-grok-session-id",
    "x-affinity",
)
ALIASED = ("codex", "opencode", "kilo", "kimi-cli", "mistral-vibe")
_KEYS = ("x-api-key", "api-key", "x-goog-api-key")
# The only headers of a request that are looked at.
READ = frozenset(
    name.encode()
    for name in (
        *SESSIONS,
        *_KEYS,
        "authorization",
        "chatgpt-account-id",
        "content-encoding",
        "content-type",
        "user-agent",
        "x-initiator",
        "x-openai-subagent",
        "x-tokenops-agent-id",
        "x-tokenops-project",
        "x-tokenops-workflow-id",
    )
)


def client_of(headers: dict[str, str]) -> str:
    """The client that a request is of; "" if it does not say.

    With a user's own vendor, Copilot CLI calls itself what the vendor's SDK is called, and states who initiated each
    request (1.0.102, 2026-12). Mistral Vibe calls itself what its library is called and states its session (3.0.2, 2026-12).
    """
    named = caller(headers.get("user-agent", ""))
    if named == "python-httpx" and "x-affinity" in headers:
        return "mistral-vibe"
    return "copilot-cli" if "x-initiator" in headers and not named.startswith("copilot") else named


def caller(agent: str) -> str:
    """The client that a User-Agent names; "" for none."""
    return _caller(agent[:200])


@functools.lru_cache(maxsize=256)  # the text is foreign: a client may send another one each time
def _caller(agent: str) -> str:
    word, _, version = re.split(r"[ (]", agent.strip(), maxsplit=1)[0].lower().partition("/")
    callers = catalog.load("providers")["callers"]
    named = callers.get(f"{word}/{version.partition('.')[0]}") or callers.get(word)
    return str(named or untrusted.text(re.sub(r"[^a-z0-9._-]+", "-", word).strip("-"), 40))


def credential(headers: dict[str, str]) -> str:
    """The sort of key a request carries, by its form alone: a plan's login, or a metered key."""
    token = headers.get("authorization", "").removeprefix("Bearer ").strip()
    if token.startswith(("sk-ant-oat", "eyJ", "gho_", "ghu_", "ya29.")):
        return "oauth"
    if token or any(name in headers for name in _KEYS):
        return "api_key"
    return ""


# opencode leaves its name out of requests to some vendors. Its sessions' names are of a form that only Kilo's share.
OPENCODE = re.compile(r"ses_[0-9a-f]{12}[0-9A-Za-z]{14}\Z")
_CLAUDE = re.compile(r"_session_([0-9a-f-]{36})\Z")


def session_in(payload: untrusted.Raw) -> str:
    """The session that a request's body names, as Codex, opencode and Claude Code do for the vendor's cache."""
    if name := untrusted.identity(payload.get("prompt_cache_key")):
        return name
    match = _CLAUDE.search(untrusted.text(untrusted.mapping(payload.get("metadata")).get("user_id"), 400))
    return match[1] if match else ""


# What Codex's header and its rollouts name differently (0.171).
_AS_IN_ROLLOUTS = {"collab_spawn": "thread_spawn"}


def tags_in(headers: dict[str, str], payload: untrusted.Raw) -> dict[str, str]:
    """What a request says that it is for: its effort as Anthropic's and OpenAI's APIs name it, and Codex's subagent."""
    efforts = (
        untrusted.mapping(payload.get("output_config")).get("effort"),
        untrusted.mapping(payload.get("reasoning")).get("effort"),
        payload.get("reasoning_effort"),
    )
    agent = untrusted.tag(headers.get("x-openai-subagent"))
    tags = {"subagent": _AS_IN_ROLLOUTS.get(agent, agent)}
    tags["effort"] = next(filter(None, map(untrusted.tag, efforts)), "")
    return {name: tag for name, tag in tags.items() if tag}


_IN_PATH = re.compile(rb"/models/([^/:?]+):|/deployments/([^/?]+)/|/model/([^/?]+)/(?:invoke|converse)")


def model_in(path: bytes) -> str:
    """The model that a path names (Gemini, Azure, Bedrock); "" if it names none."""
    match = _IN_PATH.search(path)
    return untrusted.text(next(filter(None, match.groups())).decode("latin-1")) if match else ""


_MOST_HEADERS = 200


def header_texts(value: object) -> dict[str, str]:
    """The headers that a message in a tunnel gives in their place."""
    pairs = list(untrusted.mapping(value).items())[:_MOST_HEADERS]
    return {str(name).lower(): str(text) for name, text in pairs if type(text) in (str, int, float)}
