"""The table of providers, and changing it."""

from __future__ import annotations

import pathlib

import pytest
import yaml

from conftest import Run, objects
from tokenops import config, proxy_routes

SEEDS = ("openai", "anthropic", "gemini", "mistral", "cohere", "groq", "deepseek", "xai", "perplexity", "fireworks", "cerebras",
         "together", "openrouter", "ollama", "lmstudio", "litellm", "vercel", "chatgpt", "githubcopilot")  # fmt: skip


def test_the_built_in_table(run: Run) -> None:
    rows = {row["provider"]: row for row in objects(run("tok-provider list").stdout)}
    assert set(rows) == set(SEEDS)
    assert rows["groq"]["url"] == "https://api.groq.com/openai"
    assert rows["openai"] == {
        "v": 1,
        "kind": "provider",
        "provider": "openai",
        "path": "/openai/",
        "url": "https://api.openai.com",
        "set_by": "built-in",
    }
    assert "https://api.anthropic.com" in run("tok-provider --table").stdout.decode()


def test_set_and_unset_keep_what_else_is_there(run: Run, environment: dict[str, str]) -> None:
    path = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    run("tok-provider set openai http://127.0.0.1:9/x")
    run("tok-provider set mine https://llm.example/base")
    assert {row["provider"]: row["url"] for row in objects(run("tok-provider").stdout) if row["set_by"] == "config"} == {
        "openai": "http://127.0.0.1:9/x", "mine": "https://llm.example/base"}  # fmt: skip
    text = '# prices\npricing:\n  path: p.yaml # mine\n\nproviders: # ours\n  # the first\n  openai: "http://a"\n  mine: http://b\n# end\n'
    path.write_text(text)
    run("tok-provider set mine https://c")
    assert path.read_text() == text.replace("http://b", '"https://c"')
    run("tok-provider unset mine")
    run("tok-provider set openai")  # its own address again
    assert path.read_text() == text.replace("  mine: http://b\n", "").replace('  openai: "http://a"\n', "")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("set mine", "mine is not built in; give its address"),
        ("set", "name the provider"),
        ("set a/b http://x", "cannot be a provider's name"),
        ("set healthz http://x", "cannot be a provider's name"),
        ("set mine ftp://x", "is not an http or https URL"),
        ("set mine http://user:secret@x", "has a host and a path, nothing else"),
        ("set mine http://x:99999", "no valid port"),
        ("set mine 'https://x/a b'", "has a space"),
        ("set mine https://x/\u00e9", "cannot have"),
        (f"set mine https://x/{'y' * 3000}", "is too long"),
        ("set mine http://gateway.example/", "--insecure"),
        ("set anthropic http://10.0.0.7:4000/", "--insecure"),
        ("set anthropic http://localhost.example/", "--insecure"),
    ],
)
def test_what_is_refused(line: str, says: str, run: Run, environment: dict[str, str]) -> None:
    done = run(f"tok-provider {line}", status=2)
    assert says in done.stderr.decode()
    assert not (pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml").exists()


def test_a_file_that_only_a_person_can_change(run: Run, environment: dict[str, str]) -> None:
    path = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("providers: {openai: http://a}\n")
    done = run("tok-provider set mine https://b", status=2)
    assert "by hand" in done.stderr.decode() and path.read_text() == "providers: {openai: http://a}\n"


@pytest.mark.parametrize(
    "text", ["", "a: 1", "providers:\n", "providers:\n    x: http://1\nb: 2\n", "providers: # c\n\n\n  x: http://1\n"]
)
def test_edits(text: str) -> None:
    made = config.edit(text, "providers", "openai", "http://o")
    assert yaml.safe_load(made)["providers"]["openai"] == "http://o"
    gone = config.edit(made, "providers", "openai", None)
    assert "openai" not in (yaml.safe_load(gone).get("providers") or {})


@pytest.mark.parametrize(
    "url", ["http://localhost:4000/v1", "http://127.0.0.9:1", "http://[::1]:1/x", "https://gateway.example/x"]
)
def test_an_address_is_accepted_and_printed(url: str, run: Run) -> None:
    """Set prints what it wrote; the printed address leads where the given one did."""
    (row,) = objects(run(f"tok-provider set anthropic {url}").stdout)
    assert (row["provider"], row["url"], row["set_by"]) == ("anthropic", url, "config")
    (row,) = objects(run("tok-provider set anthropic").stdout)
    assert (row["url"], row["set_by"]) == ("https://api.anthropic.com", "built-in")


def test_plain_http_to_another_machine_needs_the_users_word(run: Run) -> None:
    (row,) = objects(run("tok-provider set mine http://10.0.0.7:11434 --insecure").stdout)
    assert row["url"] == "http://10.0.0.7:11434"
    upstreams = {"mine": proxy_routes.upstream_of("mine", row["url"])}
    assert list(proxy_routes.detours(upstreams)) == [
        "keys and prompts for mine go to 10.0.0.7 unencrypted; use an https address if there is one"
    ]


def test_the_proxy_says_what_does_not_lead_to_its_vendor(environment: dict[str, str]) -> None:
    settings = config.Config(
        {"providers": {"anthropic": "https://gateway.example/", "openai": "https://api.openai.com"}}, "", []
    )
    assert list(proxy_routes.detours(proxy_routes.table(settings))) == [
        "anthropic leads to https://gateway.example, not to its vendor; to restore it: tok-provider set anthropic"
    ]


def test_every_variable_name_stays_whole(run: Run) -> None:
    """Each variable of the catalogue keeps its name, and every line for people has the base URL."""
    base = "http://127.0.0.1:1"
    text = run(f"tok-provider env --base {base}").stdout.decode()
    for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "GROQ_BASE_URL"):
        assert name in text
    assert "ANTHROPIC_http" not in text and "<proxy>" not in text
    comments = [line for line in text.splitlines() if line.startswith("#") and ("URL=" in line or "url" in line.lower())]
    assert f"ANTHROPIC_BASE_URL={base}/anthropic claude" in text and all("BASE/" not in line for line in comments)


def test_the_lines_for_shells(run: Run) -> None:
    lines = run("tok-provider env --base http://127.0.0.1:1/").stdout.decode()
    assert "export OPENAI_BASE_URL=http://127.0.0.1:1/openai/v1\n" in lines
    assert "export ANTHROPIC_BASE_URL=http://127.0.0.1:1/anthropic\n" in lines
    assert run('eval "$(tok-provider env)"; echo $CO_API_URL').stdout == b"http://127.0.0.1:7878/cohere\n"
