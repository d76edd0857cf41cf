"""What a vendor reports for API keys is shown where a user looks, and is in no total."""

from __future__ import annotations

from conftest import Json, Run, objects
from tokenops import jsonl, store

ENV = {"TOKENOPS_NOW": "2026-11-21T09:30:00.000Z", "TZ": "UTC"}


def bucket(day: int, usd: str, provider: str = "anthropic", number: int = 1, **more: Json) -> Json:
    record = {"v": 1, "ts": f"2026-11-{day:02}T00:00:00.000Z", "kind": "usage", "id": f"{provider}-{day}-{number}"}
    record |= {"source": f"{provider}-admin", "provider": provider, "covers": "account", "from": record["ts"]}
    return record | {"cost_usd": usd, "cost_source": "reported", **more}


TURN = {"v": 1, "ts": "2026-11-20T09:00:00.000Z", "kind": "turn", "id": "msg_1", "turns": 1, "client": "claude-code"} | {
    "source": "claude-code-jsonl", "provider": "anthropic", "model": "claude-opus-4-8", "output_tokens": 1_000_000}  # fmt: skip


def test_the_vendors_sum_stands_beside_ours_and_is_never_added(run: Run, environment: dict[str, str]) -> None:
    """A bucket that was read twice counts once, with its later value; one before the span does not count."""
    records = [TURN, bucket(3, "1.25"), bucket(4, "2"), bucket(5, "0.5", "openai")]
    store.append(environment["TOKENOPS_HOME"], map(jsonl.line_of, records))
    rows = {row["provider"]: row for row in objects(run("tok-cost --log --by provider --since 2026-11-04", env=ENV).stdout)}
    assert (rows["anthropic"]["cost_usd"], rows["anthropic"]["vendor_sum_usd"]) == ("25", "2")
    assert rows["openai"]["vendor_sum_usd"] == "0.5" and "cost_usd" not in rows["openai"]
    table = run("tok-cost --log --by provider --since 2026-11-04 --table", env=ENV).stdout.decode()
    total = next(line for line in table.splitlines() if line.lstrip("| ").startswith("total"))
    assert "vendor's sum" in table and "$25.00" in total and "27" not in total


def test_without_reports_nothing_changes(run: Run, environment: dict[str, str]) -> None:
    store.append(environment["TOKENOPS_HOME"], [jsonl.line_of(TURN)])
    (row,) = objects(run("tok-cost --log --by provider --since 2026-11-04", env=ENV).stdout)
    assert "vendor_sum_usd" not in row
    assert "vendor's sum" not in run("tok-cost --log --by provider --since 2026-11-04 --table", env=ENV).stdout.decode()


def test_parameters_of_the_original_api(environment: dict[str, str]) -> None:
    from tokenops import dash_api

    original = dash_api._by_of_the_original
    assert original("spend/series", {"bucket": "day", "group": "model", "since": "7d"}) == {"since": "7d", "by": "day,model"}
    assert original("spend/series", {"group": "provider"}) == {"by": "hour,provider"}
    assert original("spend/series", {"by": "day"}) == {"by": "day"}
    assert original("budget", {"group": "x"}) == {"group": "x"}


def test_a_file_of_the_original_is_read_without_warnings(run: Run, environment: dict[str, str]) -> None:
    import pathlib

    from conftest import put

    text = b"""mode: passive
listen: 127.0.0.1:7878
log: {level: info, format: text}
shutdown: {timeout: 15s}
providers: {}
plans: {anthropic: claude-max-20x}
tls: {enabled: false, cert_dir: ~/.tokenops/certs, hostnames: []}
storage: {enabled: true, path: ~/.tokenops/events.db}
otel: {enabled: false, endpoint: "", headers: {}, service_name: "", redact: true}
rules: {enabled: true, root: /work, repo_id: ""}
resilience: {enabled: false, first_byte_timeout: 0, failure_threshold: 0}
vendor_usage:
  claude_code_jsonl: {enabled: true, root: "", interval: 0}
  anthropic: {enabled: false, admin_key: "", interval: 0, bucket_width: ""}
  cursor: {enabled: false, cookie: "", user_id: "", interval: 0}
dashboard: {admin_token: ""}
pricing: {path: ""}
optimizer: {routing_rules: [], routing_min_quality: 0, command_fmt: {default: conservative}}
coaching: {context_limits: []}
budgets: []
watch: {interval: 0}
"""
    put(pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml", text)
    done = run("tok-plan list", env=ENV)
    assert done.stderr == b"" and objects(done.stdout)[0]["plan"] == "claude-max-20x"


def test_inline_yaml_is_refused_before_anything_is_sent(run: Run, environment: dict[str, str]) -> None:
    """The address answers nobody: a request would be a failure of its own, not this sentence."""
    import pathlib

    from conftest import put

    text = b'vendor_usage: {anthropic: {url: "http://127.0.0.1:1"}}\n'
    path = put(pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml", text)
    done = run("tok-poll enable anthropic-admin --key env:NOBODY", status=2)
    assert b"by hand" in done.stderr and path.read_bytes() == text


def test_a_dashboard_has_its_name_only_where_it_answers_to_it() -> None:
    """A server that answers 401 knows the name; one that answers 403 does not. A name that does not resolve is not used."""
    import http.server
    import threading

    from tokenops import tools_answers

    class Answer(http.server.BaseHTTPRequestHandler):
        status = 401

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, *what: object) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        url = f"http://127.0.0.1:{port}"
        assert tools_answers.named_address(url, "localhost") == f"http://localhost:{port}"
        assert tools_answers.named_address(url, "no-such-name.invalid") == url
        Answer.status = 403
        assert tools_answers.named_address(url, "localhost") == url
        server.shutdown()
