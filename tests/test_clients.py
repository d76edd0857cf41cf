"""Real SDKs and clients through the proxy, beside the same without it: same answers, same requests, right events.

`make clients` installs what is run here: SDKs of Python always, command-line clients where there is npm.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import textwrap
import uuid
from typing import Any

import pytest
from proxies import Proxy, Start
from upstream import Asked, Upstream, Writer, plain, stream

from conftest import MOST, ROOT, Json, lines, objects, put

PYTHON = ROOT / ".venv-clients/bin/python"
COMMANDS = ROOT / ".venv-clients/node_modules/.bin"
INSTALLED = ROOT / ".venv-clients/installed.json"  # which version of each client tools/clients.py installed
RUNS = ROOT / ".venv-clients/runs"  # what the rig found of each

needs_sdks = pytest.mark.skipif(not PYTHON.exists(), reason="make clients installs the SDKs")


def needs(command: str) -> Any:
    return pytest.mark.skipif(
        not (COMMANDS / command).exists(), reason=f"make clients installs {command} where there is npm"
    )


def data(*values: Any) -> list[bytes]:
    return [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values]


def named(*values: Json) -> list[bytes]:
    return [b"event: " + value["type"].encode() + b"\n" + event for value, event in zip(values, data(*values), strict=True)]


CHAT = {"id": "chatcmpl-7", "object": "chat.completion", "created": 1, "model": "m-1", "choices": [
    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14, "prompt_tokens_details": {"cached_tokens": 4}}}  # fmt: skip
CHUNKS = [
    {"id": "chatcmpl-8", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [
        {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}]} for word in ("he", "llo")
]  # fmt: skip
LAST = {"id": "chatcmpl-8", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [
    {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}}  # fmt: skip
RESPONSE = {"id": "resp_7", "object": "response", "created_at": 1, "status": "completed", "model": "m-1", "parallel_tool_calls": True,
    "tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1,
    "top_p": 1, "output": [{"type": "message", "id": "item_1", "role": "assistant", "status": "completed", "content": [
        {"type": "output_text", "text": "hi", "annotations": []}]}],
    "usage": {"input_tokens": 11, "output_tokens": 3, "total_tokens": 14, "input_tokens_details": {"cached_tokens": 4},
              "output_tokens_details": {"reasoning_tokens": 2}}}  # fmt: skip


def message(identity: str = "msg_7") -> Json:
    return {"id": identity, "type": "message", "role": "assistant", "model": "claude-x", "content": [{"type": "text", "text": "hi"}],
            "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 7, "cache_read_input_tokens": 4,
            "cache_creation_input_tokens": 0, "output_tokens": 3}}  # fmt: skip


def message_events(identity: str = "msg_8") -> list[bytes]:
    start = {**message(identity), "content": [], "stop_reason": None}
    start["usage"] = {**start["usage"], "output_tokens": 1}
    return named(
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    )


def response_events(identity: str = "resp_8", text: str = "hello") -> list[bytes]:
    item = {"type": "message", "id": "item_1", "role": "assistant", "status": "completed", "content": [
        {"type": "output_text", "text": text, "annotations": []}]}  # fmt: skip
    done = {**RESPONSE, "id": identity, "output": [item]}
    return named(
        {"type": "response.created", "sequence_number": 0, "response": {**done, "status": "in_progress", "usage": None, "output": []}},
        {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.output_text.delta", "sequence_number": 2, "item_id": "item_1", "output_index": 0, "content_index": 0,
         "delta": text, "logprobs": []},
        {"type": "response.output_item.done", "sequence_number": 3, "output_index": 0, "item": item},
        {"type": "response.completed", "sequence_number": 4, "response": done},
    )  # fmt: skip


GEMINI = {"responseId": "gem-7", "modelVersion": "gemini-x", "candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]},
    "finishReason": "STOP", "index": 0}], "usageMetadata": {"promptTokenCount": 11, "cachedContentTokenCount": 4,
    "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 16}}  # fmt: skip
COHERE = {"id": "co-7", "finish_reason": "COMPLETE", "message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
    "usage": {"billed_units": {"input_tokens": 5, "output_tokens": 3}, "tokens": {"input_tokens": 11, "output_tokens": 3}}}  # fmt: skip
COHERE_EVENTS = named(
    {"type": "message-start", "id": "co-8", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "hello"}}}},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": COHERE["usage"]}},
)
OLLAMA = {"model": "llama", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": "hi"}, "done": True,
          "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 3}  # fmt: skip


async def vendors(asked: Asked, writer: Writer) -> None:
    """Every vendor's answer, by path."""
    path, _, _ = asked.head.target.partition(b"?")
    try:
        said = json.loads(asked.body or b"{}")
    except ValueError:
        said = {}
    streams = bool(said.get("stream"))
    head = (("x-request-id", "req-1"),)
    script = plain(b'{"error":{"message":"no","type":"not_found"}}', status=404)
    if path.endswith(b"/chat/completions"):
        script = (
            stream(*data(*CHUNKS, LAST), b"data: [DONE]\n\n", headers=head)
            if streams
            else plain(json.dumps(CHAT).encode(), *head)
        )
    elif path.endswith(b"/responses"):
        identity = f"resp_{uuid.uuid4().hex}" if b"codex" in (asked.header("user-agent") or "").encode() else "resp_8"
        script = stream(*response_events(identity), headers=head) if streams else plain(json.dumps(RESPONSE).encode(), *head)
    elif path.endswith(b"/messages"):
        identity = f"msg_{uuid.uuid4().hex}" if asked.header("x-claude-code-session-id") else "msg_8"
        script = stream(*message_events(identity), headers=head) if streams else plain(json.dumps(message()).encode(), *head)
    elif path.endswith((b":generateContent", b":streamGenerateContent")):
        given: Json = json.loads(json.dumps(GEMINI))
        if "GeminiCLI" in (asked.header("user-agent") or ""):  # it asks a model which model to ask
            given["responseId"] = uuid.uuid4().hex
            given["candidates"][0]["content"]["parts"][0]["text"] = (
                '{"reasoning": "x", "model_choice": "flash", "complexity_score": 1}'
            )
        script = plain(json.dumps(given).encode(), *head)
        if path.endswith(b":streamGenerateContent"):
            script = stream(*(event.replace(b"\n", b"\r\n") for event in data(given)), headers=head)
    elif path.endswith(b"/v2/chat"):
        script = (
            stream(*COHERE_EVENTS, b"data: [DONE]\n\n", headers=head)
            if streams
            else plain(json.dumps(COHERE).encode(), *head)
        )
    elif path.endswith(b"/api/chat"):
        part = json.dumps({**OLLAMA, "done": False}).encode() + b"\n"
        whole = json.dumps(OLLAMA).encode() + b"\n"
        script = stream(part, whole, kind="application/x-ndjson", headers=head) if streams else plain(whole, *head)
    await script(asked, writer)


M = "[{'role': 'user', 'content': 'x'}]"
# name -> what is run (BASE is the vendor's or the proxy's address), and the events: input, cache read, output, id.
SDKS: dict[str, tuple[str, list[tuple[int, int, int, str]]]] = {
    "openai": (
        f"""
        import openai
        c = openai.OpenAI(base_url=BASE + "/v1", api_key="sk-1")
        r = c.chat.completions.with_raw_response.create(model="m", messages={M})
        show(r.status_code, r.headers["x-request-id"], r.parse())
        for e in c.chat.completions.create(model="m", messages={M}, stream=True, stream_options={{"include_usage": True}}): show(e)
        show(c.responses.create(model="m", input="x"))
        for e in c.responses.create(model="m", input="x", stream=True): show(e)
        """,
        [(7, 4, 3, "chatcmpl-7"), (11, 0, 2, "chatcmpl-8"), (7, 4, 3, "resp_7"), (7, 4, 3, "resp_8")],
    ),
    "anthropic": (
        f"""
        import anthropic
        c = anthropic.Anthropic(base_url=BASE, api_key="sk-1")
        r = c.messages.with_raw_response.create(model="m", max_tokens=9, messages={M})
        show(r.status_code, r.headers["x-request-id"], r.parse())
        with c.messages.stream(model="m", max_tokens=9, messages={M}) as s:
            for e in s: show(e)
            show(s.get_final_message())
        """,
        [(7, 4, 3, "msg_7"), (7, 4, 2, "msg_8")],
    ),
    "gemini": (
        """
        from google import genai
        c = genai.Client(api_key="AIza-1", http_options={"base_url": BASE})
        show(c.models.generate_content(model="gemini-x", contents="x"))
        for e in c.models.generate_content_stream(model="gemini-x", contents="x"): show(e)
        """,
        [(7, 4, 5, "gem-7"), (7, 4, 5, "gem-7")],
    ),
    "mistral": (
        f"""
        from mistralai.client import Mistral
        c = Mistral(server_url=BASE, api_key="k")
        show(c.chat.complete(model="m", messages={M}))
        for e in c.chat.stream(model="m", messages={M}): show(e)
        """,
        [(7, 4, 3, "chatcmpl-7"), (11, 0, 2, "chatcmpl-8")],
    ),
    "groq": (
        f"""
        import groq
        c = groq.Groq(base_url=BASE, api_key="k")
        show(c.chat.completions.create(model="m", messages={M}))
        for e in c.chat.completions.create(model="m", messages={M}, stream=True): show(e)
        """,
        [(7, 4, 3, "chatcmpl-7"), (11, 0, 2, "chatcmpl-8")],
    ),
    "cohere": (
        f"""
        import cohere
        c = cohere.ClientV2(api_key="k", base_url=BASE)
        show(c.chat(model="m", messages={M}))
        for e in c.chat_stream(model="m", messages={M}): show(e)
        """,
        [(11, 0, 3, "co-7"), (11, 0, 3, "co-8")],
    ),
    "ollama": (
        f"""
        import ollama
        c = ollama.Client(host=BASE)
        show(c.chat(model="m", messages={M}))
        for e in c.chat(model="m", messages={M}, stream=True): show(e)
        """,
        [(11, 0, 3, ""), (11, 0, 3, "")],
    ),
    "litellm": (
        f"""
        import os; os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        import litellm; litellm.suppress_debug_info = True
        r = litellm.completion(model="openai/m", messages={M}, api_base=BASE + "/v1", api_key="k")
        show(r.choices[0].message.content, r.usage.total_tokens)
        for e in litellm.completion(model="anthropic/claude-x", messages={M}, api_base=BASE, api_key="k", stream=True, max_tokens=9):
            show(e.choices[0].delta.content)
        """,
        [(7, 4, 3, "chatcmpl-7"), (7, 4, 2, "msg_8")],
    ),
}

SHOW = """
def show(*values):
    for value in values:
        value = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        if isinstance(value, dict): value.pop("sdk_http_response", None); value.pop("create_time", None)
        print(json.dumps(value, sort_keys=True, default=str))
"""


def ran(code: str, base: str, environment: dict[str, str]) -> str:
    """What a script prints."""
    text = f"import json\nBASE = {base!r}\n{SHOW}\n{textwrap.dedent(code)}"
    done = subprocess.run([str(PYTHON), "-c", text], env=environment, capture_output=True, timeout=5 * MOST, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()


def comparable(asked: list[Asked]) -> list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]]:
    """Requests as they arrived, without what belongs to the connection."""
    own = (b"host", b"connection", b"x-stainless-read-timeout")
    return [
        (one.head.method, one.head.target, [(low, value) for low, _, value in one.head.headers if low not in own], one.body)
        for one in asked
    ]


@needs_sdks
@pytest.mark.parametrize("name", SDKS)
def test_sdks(name: str, start: Start, vendor: Upstream, environment: dict[str, str]) -> None:
    code, expected = SDKS[name]
    vendor.script = vendors
    provider = {"litellm": "openai"}.get(name, name)
    proxy = start({provider: f"http://127.0.0.1:{vendor.port}"})
    direct = ran(code, f"http://127.0.0.1:{vendor.port}", environment)
    asked, vendor.asked = vendor.asked, []
    through = ran(code, f"http://127.0.0.1:{proxy.port}/{provider}", environment)
    assert through == direct
    assert comparable(vendor.asked) == comparable(asked)
    found = [event for event in proxy.events(len(expected)) if "errors" not in event]
    told = [(e["input_tokens"], e.get("cache_read_tokens", 0), e["output_tokens"], e["id"]) for e in found]
    if name == "ollama":  # its ids repeat: ours are made up
        told = [(*counts, "") for *counts, _ in told]  # type: ignore[misc]
    assert told == expected


def command(name: str, arguments: list[str], environment: dict[str, str], cwd: pathlib.Path, **more: str) -> str:
    """What a command-line client prints."""
    path = os.pathsep.join((str(COMMANDS), environment["PATH"], os.path.dirname(os.popen("command -v node").read().strip())))
    done = subprocess.run(
        [str(COMMANDS / name), *arguments], env=environment | {"PATH": path} | more, cwd=cwd, capture_output=True, timeout=5 * MOST, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, (done.stderr.decode()[-1500:], done.stdout.decode()[-1500:])
    return done.stdout.decode()


def once(proxy: Proxy, client: str, environment: dict[str, str]) -> list[Json]:
    """The turns of the log once the client's own log is taken in too."""
    proxy.process.terminate()
    proxy.process.wait(MOST)
    assert proxy.events(), "the proxy saw nothing"
    for arguments in (["tok-sync", client], ["tok-cat"]):
        done = subprocess.run(arguments, env=environment, capture_output=True, timeout=MOST, check=False)
        assert done.returncode == 0, done.stderr.decode()
    found = [event for event in objects(done.stdout) if event["kind"] == "turn" and "errors" not in event]
    sources = {event["source"] for path in proxy.log.glob("events/*.jsonl") for event in objects(path.read_bytes())}
    assert len(sources) == 2, f"only {sources} wrote turns"
    return found


@needs("claude")
def test_claude_code(start: Start, vendor: Upstream, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    vendor.script = vendors
    proxy = start({"anthropic": f"http://127.0.0.1:{vendor.port}"})
    printed = command("claude", ["-p", "say hello", "--output-format", "json"], environment, tmp_path,
        ANTHROPIC_BASE_URL=f"http://127.0.0.1:{proxy.port}/anthropic", ANTHROPIC_API_KEY="sk-ant-x",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1", DISABLE_AUTOUPDATER="1", IS_SANDBOX="1")  # fmt: skip
    assert json.loads(printed)["result"] == "hello"
    asked = [one for one in vendor.asked if one.head.target.startswith(b"/v1/messages?beta=true")]
    turns = once(proxy, "claude", environment)
    assert len({turn["id"] for turn in turns}) == len(turns) == len(asked)
    assert all(turn["client"] == "claude-code" and turn["output_tokens"] == 2 for turn in turns)


@needs("codex")
def test_codex(start: Start, vendor: Upstream, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    vendor.script = vendors
    proxy = start({"openai": f"http://127.0.0.1:{vendor.port}"})
    config = pathlib.Path(environment["HOME"]) / ".codex/config.toml"
    put(config, f'model = "gpt-5.4"\nmodel_provider = "through"\n[model_providers.through]\nname = "through"\n'
        f'base_url = "http://127.0.0.1:{proxy.port}/openai/v1"\nenv_key = "KEY"\nwire_api = "responses"\n'.encode())  # fmt: skip
    command("codex", ["exec", "--skip-git-repo-check", "say hello"], environment, tmp_path, KEY="sk-x")
    turns = once(proxy, "codex", environment)
    assert [(turn["input_tokens"], turn["cache_read_tokens"], turn["output_tokens"]) for turn in turns] == [(7, 4, 3)]


@needs("gemini")
def test_gemini_cli(start: Start, vendor: Upstream, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    vendor.script = vendors
    proxy = start({"gemini": f"http://127.0.0.1:{vendor.port}"})
    settings = {"security": {"auth": {"selectedType": "gemini-api-key"}}, "privacy": {"usageStatisticsEnabled": False}}
    put(pathlib.Path(environment["HOME"]) / ".gemini/settings.json", lines([settings]))
    command("gemini", ["-p", "say hello"], environment, tmp_path, GEMINI_API_KEY="AIza-x", GEMINI_CLI_TRUST_WORKSPACE="true",
        GOOGLE_GEMINI_BASE_URL=f"http://127.0.0.1:{proxy.port}/gemini")  # fmt: skip
    turns = once(proxy, "gemini", environment)
    assert all(turn["client"] == "gemini-cli" and turn["output_tokens"] == 5 for turn in turns)
    assert len(turns) == len([one for one in vendor.asked if one.head.target.find(b"Content") > 0])


@needs("opencode")
def test_opencode(start: Start, vendor: Upstream, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    vendor.script = vendors
    proxy = start({"anthropic": f"http://127.0.0.1:{vendor.port}"})
    options = {"baseURL": f"http://127.0.0.1:{proxy.port}/anthropic/v1", "apiKey": "sk-ant-x"}
    model = {"name": "x", "limit": {"context": 200000, "output": 8000}}
    config = {
        "provider": {"anthropic": {"options": options, "models": {"claude-x": model}}},
        "model": "anthropic/claude-x",
        "small_model": "anthropic/claude-x",
    }
    put(tmp_path / "opencode.json", lines([config]))
    command(
        "opencode",
        ["run", "say hello"],
        environment,
        tmp_path,
        OPENCODE_DISABLE_AUTOUPDATE="1",
        OPENCODE_DISABLE_MODELS_FETCH="1",
    )
    turns = once(proxy, "opencode", environment)
    titles = [turn for turn in turns if turn["source"] == "proxy"]  # opencode keeps no record of the requests for a title
    assert len(turns) - len(titles) == 1
