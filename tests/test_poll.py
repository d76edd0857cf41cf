"""tok-poll and the vendors: what is asked, what is kept, what is never said."""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import pathlib
import pty
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import termios
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from vendors import (
    NOW,
    ORG,
    Api,
    Asked,
    Json,
    Reply,
    copilot,
    cursor,
    good,
    openrouter,
    snapshot,
    usage_page,
    usage_row,
    zipped,
)

from conftest import MOST, ROOT, Run, eventually, objects, put
from tokenops import (
    catalog,
    config,
    datadir,
    etiquette,
    headroom,
    limit_log,
    limit_windows,
    poll,
    poll_sources,
    projects,
    readers,
    when,
)

SENTINEL = "sk-sentinel-5f0e"
STAMP = "2026-11-21T09:30:00.000Z"
HTTP = [name for name, poller in poll_sources.pollers().items() if poller.url]
MINUTE = etiquette.MINUTE


class Machine:
    """A home with one source enabled, and a clock that can be set."""

    def __init__(self, folder: pathlib.Path, api: Api, name: str, **more: Any) -> None:
        self.folder, self.api, self.name, self.now, self.timeout = folder, api, name, NOW, MOST
        self.home, self.log = folder / "home", folder / "log"
        self.environment = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(self.home / ".config")}
        self.poller = poll_sources.pollers()[name]
        about = {"enabled": True, "consented": "2026-11-21", "url": api.url, **more}
        if self.poller.secret and self.poller.secret not in more:
            secret = put(folder / "secret", SENTINEL.encode())
            secret.chmod(0o600)
            about[self.poller.secret] = f"file:{secret}"
        if name == "anthropic-oauth":
            self.login()
        self.config = self.home / ".config/tokenops/config.yaml"
        put(self.config, json.dumps({"vendor_usage": {self.poller.section: about}}).encode())
        api.answer = good(name)

    def login(self, **more: Any) -> None:
        """Claude Code's own login."""
        about = {
            "accessToken": SENTINEL,
            "refreshToken": "r",
            "expiresAt": NOW * 2,
            "scopes": ["user:inference", "user:profile"],
        }
        document = {"claudeAiOauth": about | {"rateLimitTier": "default_claude_max_5x"} | more, "organizationUuid": ORG}
        put(self.home / ".claude/.credentials.json", json.dumps(document).encode())

    def poll(self, **wanted: Any) -> Json:
        """One run."""
        given = config.load(self.environment, str(self.home))
        edge = poll_sources.Runtime(
            lambda: self.now, lambda s: None, lambda: 0.5, self.timeout, 0, self.environment, str(self.home), "1"
        )
        return poll.run(str(self.log), poll_sources.settings(given, self.poller), edge, poll_sources.Purpose(**wanted))

    def readings(self) -> list[Json]:
        """What the log holds."""
        data = b"".join(path.read_bytes() for path in sorted(self.log.glob("events/*.jsonl")))
        return objects(data)

    def state(self) -> Json:
        """What is remembered."""
        found = json.loads((self.log / "polls.json").read_bytes())["sources"][self.name]
        assert isinstance(found, dict)
        return found


def leaks(*places: pathlib.Path, but: tuple[str, ...] = ("secret", ".credentials.json", "apps.json")) -> list[str]:
    """The files in which the secret stands."""
    return [
        str(path)
        for place in places
        for path in place.rglob("*")
        if path.is_file() and path.name not in but and SENTINEL.encode() in path.read_bytes()
    ]


@pytest.fixture
def machine(tmp_path: pathlib.Path, api: Api) -> Callable[..., Machine]:
    return lambda name, **more: Machine(tmp_path, api, name, **more)


@pytest.mark.parametrize("name", HTTP)
def test_a_healthy_vendor(name: str, machine: Callable[..., Machine]) -> None:
    one = machine(name)
    row = one.poll()
    assert row["status"] == "ok" and row["readings"] == row["new"] == len(one.readings()) > 0, row
    assert row["asked"] == len(one.api.asked)
    assert row["next_due"] == when.stamp(NOW + one.poller.interval * 1000)
    assert {event["source"] for event in one.readings()} == {one.poller.source}
    for asked in one.api.asked:
        assert asked.headers["user-agent"] == "tokenops/1"
        assert any(SENTINEL in value for value in asked.headers.values()) and SENTINEL not in asked.path + str(asked.query)
    assert not leaks(one.folder)
    assert stat.S_IMODE((one.log / "polls.json").stat().st_mode) == 0o600
    assert one.poll()["status"] == "not_due" and one.poll(force=True)["status"] == "ok"


OTHER = (("Location", "http://127.0.0.1:1/elsewhere"),)
DATE = email.utils.formatdate(NOW / 1000 + 7200, usegmt=True)
# Reply, status, part of the sentence, minutes until it may be asked again (None: until the credential changes).
FAILURES: list[tuple[str, Reply, str, str, float | None]] = [
    ("401", Reply({"error": SENTINEL}, 401), "refused", "refused the credential (401)", None),
    ("403", Reply({"error": SENTINEL}, 403), "refused", "refused the credential (403)", None),
    ("challenge", Reply(b"<html>Just a moment", 403), "refused", "accepts browsers only", None),
    ("429", Reply({"type": "error"}, 429), "limited", "too many requests", 15),
    ("429 and 0", Reply(b"", 429, (("Retry-After", "0"),)), "limited", "too many requests", 15),
    ("429 and 272", Reply(b"", 429, (("Retry-After", "272"),)), "limited", "too many requests", 15),
    ("429 and 7999", Reply(b"", 429, (("Retry-After", "7999"),)), "limited", "too many requests", 7999 / 60),
    ("429 and a date", Reply(b"", 429, (("Retry-After", DATE),)), "limited", "too many requests", 60),
    ("500", Reply(b"<html>oops " + SENTINEL.encode(), 500), "failing", "has a problem (500)", 1),
    ("503 and 600", Reply(b"", 503, (("Retry-After", "600"),)), "failing", "has a problem (503)", 10),
    ("half JSON", Reply(b'{"five_hour": {"utiliza'), "failing", "not complete JSON", 1),
    ("nothing", Reply(b""), "failing", "not complete JSON", 1),
    ("a page", Reply(b"<!doctype html><title>Login</title>"), "changed", "a web page came", 1),
    ("other fields", Reply({"hello": [SENTINEL]}), "changed", "unknown format", 1),
    ("elsewhere", Reply(b"", 302, OTHER), "changed", "redirected (302)", 1),
    ("gone", Reply(b"", 404), "changed", "status 404", 1),
    ("broken gzip", Reply(b"\x1f\x8b\x08never", headers=(("Content-Encoding", "gzip"),)), "failing", "cannot be decompressed", 1),
    ("9 MiB", Reply(b" " * (9 << 20)), "changed", "larger than 8 MiB", 1),
    ("silence", Reply(b"{}", held=True), "failing", "no answer within 1 s", 1),
]  # fmt: skip


# What is the same code for all sources, tried with one that asks once and one that asks twice.
ONLY = ("challenge", "429 and 272", "429 and 7999", "503 and 600", "nothing", "gone", "broken gzip", "9 MiB", "silence")
MET = [
    (name, *case) for name in HTTP for case in FAILURES if case[0] not in ONLY or name in ("openrouter", "anthropic-cookie")
]


@pytest.mark.parametrize(
    ("name", "what", "reply", "status", "why", "minutes"), MET, ids=[f"{met[0]}-{met[1]}" for met in MET]
)
def test_what_goes_wrong(
    name: str, what: str, reply: Reply, status: str, why: str, minutes: float | None, machine: Callable[..., Machine]
) -> None:
    one = machine(name)
    one.poll()
    before = one.readings()
    one.now += 60 * MINUTE
    asked = len(one.api.asked)
    one.api.gives(reply)
    one.timeout = 1.0 if reply.held else MOST
    row = one.poll()
    assert (row["status"], row["begun"]) == (status, True) and why in row["why"], row
    eventually(lambda: len(one.api.asked) == asked + 1)
    assert one.readings() == before  # the last good readings stay
    assert SENTINEL not in json.dumps(row) and not leaks(one.folder)
    state = one.state()
    if minutes is None:
        one.now += 99 * 60 * MINUTE
        if name == "anthropic-oauth":
            one.login(accessToken=SENTINEL, expiresAt=one.now + MINUTE)
        assert one.poll(force=True)["status"] == "stopped"
        assert "next_due" not in row and "tok-poll enable" in row["todo"]
    else:
        assert state["wait_until"] - one.now == pytest.approx(minutes * MINUTE, abs=1000)
        assert one.poll(force=True)["status"] == "waiting"
    assert len(one.api.asked) == asked + 1


def test_twice_429_doubles_and_success_forgets(machine: Callable[..., Machine]) -> None:
    one = machine("openrouter")
    one.api.gives(Reply(b"", 429))
    waits = []
    for _ in range(3):
        one.poll()
        waits.append((one.state()["wait_until"] - one.now) // MINUTE)
        one.now = one.state()["wait_until"]
    assert waits == [15, 30, 60]
    one.api.answer = good("openrouter")
    assert one.poll()["status"] == "ok"
    one.now += 20 * MINUTE
    one.api.gives(Reply(b"", 429))
    assert one.poll()["begun"] is True and (one.state()["wait_until"] - one.now) // MINUTE == 15


def test_a_trouble_is_said_when_it_begins(machine: Callable[..., Machine]) -> None:
    one = machine("openrouter")
    one.api.gives(Reply(b"", 500))
    assert one.poll().get("begun") is True
    one.now += 60 * MINUTE
    assert "begun" not in one.poll()


def test_another_credential_goes_on(machine: Callable[..., Machine]) -> None:
    one = machine("openrouter")
    one.api.gives(Reply(b"", 401))
    one.poll()
    one.api.answer = good("openrouter")
    one.now += 60 * MINUTE
    assert one.poll()["status"] == "stopped"
    put(one.folder / "secret", b"another-secret")
    assert one.poll()["status"] == "ok"


def test_a_clock_that_was_set_back(machine: Callable[..., Machine]) -> None:
    one = machine("openrouter")
    one.api.gives(Reply(b"", 429))
    one.poll()
    one.now -= 365 * 24 * 60 * MINUTE
    one.api.answer = good("openrouter")
    assert one.poll()["status"] == "waiting"
    one.now += 20 * MINUTE
    assert one.poll()["status"] == "ok"


def test_a_vendor_that_is_never_done(machine: Callable[..., Machine]) -> None:
    one = machine("openrouter")
    one.api.gives(Reply(openrouter(), endless=True))
    one.timeout = 1.0
    row = one.poll()
    assert row["status"] == "failing" and "no answer within" in row["why"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="it needs openssl to make a certificate")
def test_certificates_are_verified(machine: Callable[..., Machine], tmp_path: pathlib.Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-keyout", "key.pem", "-out", "cert.pem", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    stranger = Api(context)
    one = machine("openrouter", url=stranger.url)
    stranger.answer = good("openrouter")
    row = one.poll()
    assert (row["status"], row["why"]) == ("failing", "its certificate cannot be verified") and not stranger.asked
    stranger.close()


def test_nobody_there(machine: Callable[..., Machine]) -> None:
    row = machine("openrouter", url="http://127.0.0.1:1").poll()
    assert (row["status"], row["why"]) == ("failing", "it cannot be reached (ConnectError)")


def test_zipped_answers_are_read(machine: Callable[..., Machine]) -> None:
    one = machine("openrouter")
    one.api.gives(zipped(openrouter()))
    assert one.poll()["readings"] == 2


def test_an_open_bucket_grows_without_counting_twice(machine: Callable[..., Machine]) -> None:
    one = machine("anthropic-admin")
    counts = [5, 5, 9, 9]

    def answer(asked: Asked) -> Reply:
        if asked.path.endswith("cost_report"):
            return Reply(usage_page())
        closed = ("2026-11-21T08:00:00Z", "2026-11-21T09:00:00Z", [usage_row()])
        opened = ("2026-11-21T09:00:00Z", "2026-11-21T10:00:00Z", [usage_row(output_tokens=counts[0])])
        return Reply(usage_page(closed, opened))

    one.api.answer = answer
    new = []
    while counts:
        new.append(one.poll()["new"])
        counts.pop(0)
        one.now += 5 * MINUTE
    assert new == [2, 0, 1, 0]  # what did not change is not written again
    edge = subprocess.run(
        [str(ROOT / "bin/tok-cat")], env={**os.environ, "TOKENOPS_HOME": str(one.log), "HOME": str(one.home)}, capture_output=True, check=True
    )  # fmt: skip
    assert [event["output_tokens"] for event in objects(edge.stdout)] == [503, 9]
    rolled = subprocess.run([str(ROOT / "bin/tok-rollup"), "--by", "none"], input=edge.stdout, env={**os.environ, "HOME": str(one.home)}, capture_output=True, check=True)  # fmt: skip
    assert rolled.stdout == b""  # an account's aggregate is never added to anything


def test_backfill_pages_through(machine: Callable[..., Machine]) -> None:
    one = machine("anthropic-admin")
    hours = 200
    first = NOW - NOW % 3_600_000 - hours * 3_600_000

    def answer(asked: Asked) -> Reply:
        if asked.path.endswith("cost_report"):
            return Reply(usage_page())
        query = dict(asked.query)
        begins = int(query.get("page", when.moment(query["starting_at"])))
        step = 3_600_000
        buckets = [(when.stamp(at), when.stamp(at + step), [usage_row()]) for at in range(begins, NOW, step)][:168]
        ends = when.moment(buckets[-1][1])
        return Reply(usage_page(*buckets, next_page=str(ends) if ends < NOW else None))

    one.api.answer = answer
    row = one.poll(since=NOW - hours * 3_600_000)
    assert (row["status"], row["asked"], row["readings"], row["new"]) == ("ok", 3, 201, 201)
    assert min(event["ts"] for event in one.readings()) == when.stamp(first)
    assert one.poll(since=NOW - hours * 3_600_000)["new"] == 0
    one.now += 5 * MINUTE
    assert (one.poll()["readings"], len(one.readings())) == (25, 201)  # the usual poll begins where it would have


def test_a_later_page_that_fails_loses_nothing(machine: Callable[..., Machine]) -> None:
    one = machine("anthropic-admin")
    page = usage_page(("2026-11-21T06:00:00Z", "2026-11-21T07:00:00Z", [usage_row()]), next_page="p2")
    one.api.gives(Reply(page), Reply(b"", 500))
    row = one.poll()
    assert (row["status"], row["asked"], row["new"]) == ("failing", 2, 1) and len(one.readings()) == 1
    assert one.state()["marks"] == {"settled_1h": when.moment("2026-11-21T07:00:00Z")}


def test_oauth_asks_only_while_nothing_else_says_it(machine: Callable[..., Machine]) -> None:
    one = machine("anthropic-oauth")
    salt = datadir.salt(str(one.log), make=True)
    account = projects.hash_path(ORG, salt)
    one.poll()
    assert {event["account"] for event in one.readings()} == {account}
    for source, about, age, status in (
        ("proxy", {"account": account}, 10, "fresh"),
        ("proxy", {"account": "another"}, 10, "ok"),
        ("claude-code-statusline", {}, 29, "fresh"),
        ("claude-code-usage-cache", {"account": account}, 31, "ok"),
    ):
        for path in one.log.glob("events/*"):
            path.unlink()
        one.now += 60 * MINUTE
        one.login(expiresAt=one.now + MINUTE)
        from tokenops import events, jsonl, store

        seen = when.stamp(one.now - age * MINUTE)
        store.append(
            str(one.log),
            [
                jsonl.line_of(
                    events.meter(source, "anthropic", seen, window="weekly", window_minutes=10_080, used=0.1, **about)
                )
            ],
        )
        assert one.poll()["status"] == status, (source, about)
    assert one.poll(force=True)["status"] == "ok"


@pytest.mark.parametrize(
    ("given", "status", "why"),
    [
        ({"expiresAt": NOW - 1}, "expired", "start Claude Code to renew it"),
        ({"scopes": ["user:inference"]}, "unset", "no permission to read usage"),
        ({"accessToken": ""}, "unset", "no login of a Claude plan"),
    ],
)
def test_oauth_logins_that_cannot_be_used(given: Json, status: str, why: str, machine: Callable[..., Machine]) -> None:
    one = machine("anthropic-oauth")
    path = one.home / ".claude/.credentials.json"
    one.login(**given)
    before = path.read_bytes()
    row = one.poll()
    assert row["status"] == status and why in row["why"] and row["begun"] is True
    assert "begun" not in one.poll()
    path.write_bytes(before[: len(before) // 2])
    assert one.poll()["status"] == "unset"
    assert not one.api.asked
    path.unlink()
    assert "keychain" in one.poll()["why"]


def test_copilots_token_is_found_where_its_plugins_keep_it(machine: Callable[..., Machine]) -> None:
    one = machine("github-copilot", oauth_token=None)
    assert "no Copilot plugin has stored a token" in one.poll()["why"]
    apps = {
        "github.example.com:Iv1.x": {"oauth_token": "gho_enterprise"},
        "github.com:Iv1.b507": {"user": "ada", "oauth_token": SENTINEL},
    }
    put(one.home / ".config/github-copilot/apps.json", json.dumps(apps).encode())
    assert one.poll()["status"] == "ok"
    assert one.api.asked[0].headers["authorization"] == f"token {SENTINEL}"
    put(one.home / ".config/github-copilot/apps.json", b'{"github.com": {"oauth_to')
    put(one.home / ".copilot/hosts.json", json.dumps({"github.com": {"oauth_token": "gho_other"}}).encode())
    one.now += 10 * MINUTE
    assert one.poll()["status"] == "ok" and one.api.asked[1].headers["authorization"] == "token gho_other"


# Where a secret may stand, and what is said of it.
def test_secrets(machine: Callable[..., Machine], tmp_path: pathlib.Path) -> None:
    one = machine("cursor", cookie="env:MINE")
    assert "MINE is not set" in one.poll()["why"]
    one.environment["MINE"] = f"WorkosCursorSessionToken={SENTINEL}; other=1"
    assert one.poll()["status"] == "ok"
    assert one.api.asked[0].headers["cookie"] == f"WorkosCursorSessionToken={SENTINEL}"
    one.environment["TOKENOPS_CURSOR_COOKIE"] = "first"  # the environment comes before the file
    one.now += 20 * MINUTE
    assert one.poll()["status"] == "ok" and one.api.asked[1].headers["cookie"].endswith("=first")
    one.environment["TOKENOPS_CURSOR_COOKIE"] = "two words"
    row = one.poll(force=True)
    assert row["status"] == "unset" and "spaces or invalid characters" in row["why"] and "two words" not in row["why"]


def test_a_secret_that_others_can_read_is_refused(machine: Callable[..., Machine]) -> None:
    one = machine("openrouter")
    for mode in (0o644, 0o640, 0o604):
        (one.folder / "secret").chmod(mode)
        row = one.poll()
        assert row["status"] == "unset" and f"chmod 600 {one.folder}/secret" in row["why"]
    assert not one.api.asked
    (one.folder / "secret").unlink()
    assert "No such file or directory" in one.poll()["why"]


def test_a_secret_in_clear_works_is_warned_of_and_copied_nowhere(
    machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    catalog.load.cache_clear()
    one = machine("openrouter", api_key=SENTINEL)
    assert one.poll()["status"] == "ok"
    given = config.load(one.environment, str(one.home))
    (warning,) = poll_sources.settings(given, one.poller).warnings
    assert "in clear" in warning and SENTINEL not in warning
    assert leaks(one.folder) == [str(one.config)]
    catalog.load.cache_clear()


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"url": "http://example.org"}, "https address"),
        ({"url": "https://user:pw@example.org"}, "https address"),
        ({"url": "ftp://127.0.0.1"}, "https address"),
        ({"url": "http://[::1"}, "https address"),
        ({"interval": "soon"}, "not a valid duration"),
        ({"enabled": "yes"}, "neither true nor false"),
        ({"bucket_width": "2h"}, "choose from 1m, 1h, 1d"),
        ({"interval": {"a": 1}}, "not a valid duration"),
    ],
)
def test_settings_that_cannot_be_used(about: Json, says: str) -> None:
    given = config.Config({"vendor_usage": {"anthropic": about}}, "config.yaml", [])
    with pytest.raises(config.Unusable, match=says):
        poll_sources.settings(given, poll_sources.pollers()["anthropic-admin"])


@pytest.mark.parametrize(
    ("name", "interval", "seconds", "warned"),
    [
        ("anthropic-admin", "1s", 60, True),
        ("anthropic-admin", "5m", 300, False),
        ("anthropic-admin", 0, 300, False),
        ("anthropic-cookie", "5m", 600, True),
        ("cursor", "2m", 600, True),
        ("github-copilot", "2m", 300, True),
        ("anthropic-oauth", "1h", 3600, False),
        ("codex", "", 300, False),
    ],
)
def test_no_faster_than_is_polite(name: str, interval: object, seconds: int, warned: bool) -> None:
    poller = poll_sources.pollers()[name]
    given = config.Config({"vendor_usage": {poller.section: {"interval": interval}}}, "config.yaml", [])
    found = poll_sources.settings(given, poller)
    assert (found.interval_ms, bool(found.warnings)) == (seconds * 1000, warned)


def test_the_catalogue() -> None:
    page = (ROOT / "docs/pollers.md").read_text()
    for poller in poll_sources.pollers().values():
        assert poller.least <= poller.interval and poller.source.startswith("vendor-")
        assert poller.consent == (poller.rank >= 6) and poller.section in config.KNOWN["vendor_usage"]
        assert set(filter(None, (*poller.settable(), poller.secret))) <= set(config.KNOWN["vendor_usage"][poller.section])
        assert poller.gives and poller.caveat
        asking = poll_sources.web_poller if poller.url else poll_sources.client_poller
        assert callable(asking(poller.name))
        with pytest.raises(ValueError, match=poller.name):
            (poll_sources.client_poller if poller.url else poll_sources.web_poller)(poller.name)
        assert not poller.secret or poller.secret in config.SECRETS
        row = next(line for line in page.splitlines() if line.startswith(f"| {poller.name} |"))
        assert row.endswith(f"| {poller.interval // 60} min | {poller.least // 60} min |")
    assert set(readers.SECTIONS.values()) == set(config.READERS)
    signals = {name: headroom.signal_source(one.source) for name, one in poll_sources.pollers().items()}
    assert signals == dict.fromkeys(signals, "vendor_usage_api") | {
        "codex": "vendor_client",
        "anthropic-cookie": "vendor_web",
        "cursor": "vendor_web",
    }


def test_what_is_asked_counts_in_the_headroom(machine: Callable[..., Machine]) -> None:
    one = machine("anthropic-cookie")
    one.poll()
    found = headroom.states(limit_log.readings(str(one.log), NOW - MINUTE, NOW), NOW)
    bound = headroom.binding(found)
    assert bound is not None and (bound.window, bound.headroom) == ("five_hour", pytest.approx(0.58))
    assert headroom.signal(bound, NOW, config.thresholds(config.Config({}, "", []))["freshness"])["source"] == "vendor_web"


# Real processes from here on.
@pytest.fixture
def settings(environment: dict[str, str]) -> Callable[..., pathlib.Path]:
    """Write the configuration; environment for all that follows."""
    environment["TOKENOPS_NOW"] = STAMP

    def wrote(text: str) -> pathlib.Path:
        return put(pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml", text.encode())

    return wrote


def log_of(environment: dict[str, str]) -> list[Json]:
    return objects(b"".join(path.read_bytes() for path in pathlib.Path(environment["TOKENOPS_HOME"]).glob("events/*")))


def test_from_enable_to_the_budget(
    run: Run, environment: dict[str, str], settings: Callable[..., pathlib.Path], api: Api, tmp_path: pathlib.Path
) -> None:
    path = settings(
        "# mine\npricing:\n  path: ''  # none\nvendor_usage:\n  cursor: # later\n    enabled: false # not yet\n\nplans:\n  cursor: cursor-pro\n"
    )
    api.gives(Reply(cursor({"totalPercentUsed": 36})))
    enable = f"tok-poll enable cursor --set url={api.url}"
    done = run(f"{enable} --key - </dev/null", status=2)
    assert b"needs your consent" in done.stderr and b"Undocumented" in done.stderr
    done = run(f"{enable} --key {SENTINEL} --yes", status=2)
    assert b"other users can read a secret" in done.stderr and SENTINEL.encode() not in done.stderr
    done = run(f"{enable} --set cookie=x --yes", status=2)
    assert b"give a secret with --key" in done.stderr
    done = run(f"{enable} --key - --yes </dev/null", status=2)
    assert b"the secret is empty" in done.stderr
    assert not api.asked
    done = run(f"{enable} --key - --yes", SENTINEL.encode() + b"\n")
    assert objects(done.stdout)[0]["status"] == "ok" and b"enabled; in a crontab" in done.stderr
    secret = pathlib.Path(environment["TOKENOPS_HOME"]) / "secrets/cursor"
    assert secret.read_text() == f"{SENTINEL}\n"
    assert (stat.S_IMODE(secret.stat().st_mode), stat.S_IMODE(secret.parent.stat().st_mode)) == (0o600, 0o700)
    assert path.read_text() == (
        "# mine\npricing:\n  path: ''  # none\nvendor_usage:\n  cursor: # later\n    enabled: true # not yet\n"
        f'    url: "{api.url}"\n    consented: "2026-11-21"\n    cookie: "file:{secret}"\n\nplans:\n  cursor: cursor-pro\n'
    )
    assert len(api.asked) == 1
    (row,) = objects(run("tok-poll --jitter 0").stdout)
    assert row == {"v": 1, "kind": "poll", "source": "cursor", "status": "not_due", "next_due": "2026-11-21T09:40:00.000Z"}
    (row,) = objects(run("tok-poll cursor --force").stdout)
    assert (row["status"], row["asked"], row["readings"]) == ("ok", 1, 1)
    run("tok-log verify")
    (budget,) = objects(run("tok-budget cursor --json").stdout)
    assert budget["headroom_pct"] == 64 and budget["signal_quality"]["source"] == "vendor_web"
    (row,) = objects(run("tok-poll status cursor --json").stdout)
    assert (row["enabled"], row["status"], row["credential"], row["readings_24h"]) == (True, "ok", f"file:{secret}", 1)
    assert (row["last_success"], row["next_due"]) == (STAMP, "2026-11-21T09:40:00.000Z")
    done = run("tok-poll disable cursor")
    assert f"its secret stays in file:{secret}" in done.stderr.decode()
    assert yaml.safe_load(path.read_text())["vendor_usage"]["cursor"] == {
        "enabled": False,
        "url": api.url,
        "cookie": f"file:{secret}",
    }
    assert "# later" in path.read_text() and "# not yet" in path.read_text()
    assert run("tok-poll", status=1).stderr.decode().startswith("tok-poll: no source is enabled")
    assert leaks(tmp_path, but=("cursor",)) == []


def test_enable_checks_first(run: Run, environment: dict[str, str], settings: Callable[..., pathlib.Path], api: Api) -> None:
    path = settings("")
    line = f"tok-poll enable openrouter --key env:MINE --set url={api.url} --set interval=10m"
    for reply, status in ((Reply(b"", 401), "refused"), (Reply(b"", 500), "failing"), (Reply({"x": 1}), "changed")):
        api.gives(reply)
        done = run(line, status=1, env={"MINE": SENTINEL})
        (row,) = objects(done.stdout)
        assert (row["status"], row["todo"]) == (status, "it is not enabled; correct this and try again")
        assert path.read_text() == "" and SENTINEL.encode() not in done.stdout + done.stderr
        (pathlib.Path(environment["TOKENOPS_HOME"]) / "polls.json").unlink()
    api.gives(Reply(b"", 429))
    run(line, status=1, env={"MINE": SENTINEL})
    assert objects(run(line, status=1, env={"MINE": SENTINEL}).stdout)[0]["status"] == "waiting"  # whoever asks
    (pathlib.Path(environment["TOKENOPS_HOME"]) / "polls.json").unlink()
    api.gives(Reply(openrouter()))
    done = run(line, env={"MINE": SENTINEL})
    assert b"cron does not see env:MINE" in done.stderr
    assert yaml.safe_load(path.read_text())["vendor_usage"]["openrouter"] == {
        "url": api.url,
        "interval": "10m",
        "enabled": True,
        "api_key": "env:MINE",
    }


def test_consent_at_a_terminal(environment: dict[str, str], settings: Callable[..., pathlib.Path], api: Api) -> None:
    path = settings("")
    api.gives(Reply(copilot()))
    secret = put(pathlib.Path(environment["HOME"]) / "token", SENTINEL.encode())
    secret.chmod(0o600)
    line = ["tok-poll", "enable", "github-copilot", "--key", f"file:{secret}", "--set", f"url={api.url}", "--json"]
    for answer, status in ((b"n\n", 2), (b"\n", 2), (b"y\n", 0)):
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            line,
            env=environment,
            stdin=follower,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            executable=ROOT / "bin/tok-poll",
        )
        os.write(leader, answer)
        out, err = process.communicate(timeout=MOST)
        assert process.returncode == status, err
        assert b"Enable it anyway? [y/N]" in err and b"GitHub's terms" in err
        os.close(leader)
        os.close(follower)
        assert len(api.asked) == (status == 0)
    assert yaml.safe_load(path.read_text())["vendor_usage"]["github_copilot"]["consented"] == "2026-11-21"
    assert objects(out)[0]["status"] == "ok" and SENTINEL.encode() not in out + err


def test_a_secret_typed_at_a_terminal_is_not_shown(
    environment: dict[str, str], settings: Callable[..., pathlib.Path], api: Api
) -> None:
    settings("")
    api.gives(Reply(openrouter()))
    line = ["tok-poll", "enable", "openrouter", "--key", "-", "--set", f"url={api.url}"]
    process, terminal = pty.fork()
    if not process:
        os.execve(ROOT / "bin/tok-poll", line, environment)
    shown = b""
    while b"api_key of openrouter:" not in shown:
        shown += os.read(terminal, 4096)
    eventually(lambda: not termios.tcgetattr(terminal)[3] & termios.ECHO)
    os.write(terminal, SENTINEL.encode() + b"\n")
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 4096):
            shown += piece
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, shown
    assert b"enabled; in a crontab" in shown and SENTINEL.encode() not in shown
    assert (pathlib.Path(environment["TOKENOPS_HOME"]) / "secrets/openrouter").read_text() == f"{SENTINEL}\n"


def test_an_old_configuration_is_not_asked_without_consent(
    run: Run, settings: Callable[..., pathlib.Path], api: Api
) -> None:
    settings(f"vendor_usage:\n  github_copilot:\n    enabled: true\n    oauth_token: {SENTINEL}\n    url: {api.url}\n")
    (row,) = objects(run("tok-poll", status=1).stdout)
    assert row["status"] == "unconsented" and not api.asked
    done = run("tok-poll status github-copilot --table")
    assert b"not agreed to" in done.stdout and b"holds a secret in clear" in done.stdout
    assert SENTINEL.encode() not in done.stdout + done.stderr


def test_two_at_once_ask_once(environment: dict[str, str], settings: Callable[..., pathlib.Path], api: Api) -> None:
    settings(f"vendor_usage: {{openrouter: {{enabled: true, url: {api.url}}}}}\n")
    api.answer = lambda asked: Reply(openrouter(), held=True)
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"), "http://127.0.0.1:1")
    env = environment | {"OPENROUTER_API_KEY": SENTINEL} | nowhere  # the environment's proxies see no credential
    both = [
        subprocess.Popen(
            ["tok-poll", "--jitter", "0", "--timeout", str(MOST)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            executable=ROOT / "bin/tok-poll",
        )
        for _ in range(2)
    ]
    eventually(lambda: any(process.poll() is not None for process in both))  # while the other one waits for its answer
    api.let_go.set()
    found = []
    for process in both:
        out, err = process.communicate(timeout=MOST)
        assert (process.returncode, err) == (0, b"")
        found.append(objects(out)[0]["status"])
    assert len(api.asked) == 1 and sorted(found) == ["busy", "ok"]
    assert len(log_of(environment)) == 2


def test_a_run_that_is_killed_has_asked(
    environment: dict[str, str], settings: Callable[..., pathlib.Path], api: Api, run: Run
) -> None:
    settings(f"vendor_usage: {{openrouter: {{enabled: true, url: {api.url}}}}}\n")
    api.answer = lambda asked: Reply(openrouter(), held=True)
    environment["OPENROUTER_API_KEY"] = SENTINEL
    process = subprocess.Popen(["tok-poll", "--jitter", "0"], env=environment, executable=ROOT / "bin/tok-poll")
    eventually(lambda: api.asked)
    process.send_signal(signal.SIGKILL)
    process.wait(MOST)
    assert objects(run("tok-poll --jitter 0").stdout)[0]["status"] == "not_due" and len(api.asked) == 1


def test_a_trouble_is_said_on_stderr_once(
    run: Run, settings: Callable[..., pathlib.Path], api: Api, environment: dict[str, str]
) -> None:
    settings(f"vendor_usage: {{openrouter: {{enabled: true, url: {api.url}}}}}\n")
    api.gives(Reply(b"", 401))
    environment["OPENROUTER_API_KEY"] = SENTINEL
    done = run("tok-poll --jitter 0", status=1)
    assert done.stderr.decode() == (
        "tok-poll: openrouter: the vendor refused the credential (401); it is not asked again until you change "
        "the credential: tok-poll enable openrouter\n"
    )
    done = run("tok-poll --jitter 0", status=1)
    assert done.stderr == b"" and objects(done.stdout)[0]["status"] == "stopped"
    table = run("tok-poll --table", status=1).stdout.decode()
    assert "stopped" in table and "refused the credential (401)" in table
    status = run("tok-poll status --table").stdout.decode()
    assert "env:OPENROUTER_API_KEY" in status and "refused the credential (401) (now)" in status


def test_readers_are_switched(run: Run, environment: dict[str, str], settings: Callable[..., pathlib.Path]) -> None:
    path = settings("vendor_usage:\n  # readers\n  opencode:\n    enabled: true\n")
    folder = pathlib.Path(environment["HOME"])
    from conftest import claude, codex_count, codex_meta, codex_model

    put(folder / ".claude/projects/-a/s.jsonl", claude())
    rollout = (
        codex_meta("019aa000-0000-7000-8000-000000000001"),
        codex_model("gpt-6"),
        codex_count((9, 0, 5, 0), (9, 0, 5, 0)),
    )
    put(
        folder / ".codex/sessions/2026/05/02/rollout-2026-05-02T10-00-00-019aa000-0000-7000-8000-000000000001.jsonl",
        *rollout,
    )
    done = run("tok-poll disable claude-code-jsonl")
    assert "tok-sync no longer reads it" in done.stderr.decode()
    assert "# readers" in path.read_text() and yaml.safe_load(path.read_text())["vendor_usage"]["claude_code_jsonl"] == {
        "enabled": False
    }
    assert "claude-code-jsonl" not in {row["source"] for row in objects(run("tok-sync").stdout)}
    assert {event["source"] for event in log_of(environment)} == {"codex-jsonl"}
    (row,) = objects(run("tok-poll status claude-code-jsonl").stdout)
    assert (row["enabled"], row["read_by"]) == (False, "tok-sync")
    assert {row["source"] for row in objects(run("tok-poll status").stdout)} >= {"claude-code-jsonl", "opencode", "cursor"}
    hints = [
        hint for row in objects(run("tok-status --json", status=None).stdout)[0]["clients"] for hint in row.get("hints", ())
    ]
    assert "tok-sync leaves it out: tok-poll enable claude-code-jsonl switches it on" in hints
    run("tok-sync claude")  # who names it means it
    assert "claude-code-jsonl" in {event["source"] for event in log_of(environment)}
    assert "read by tok-sync, not polled" in run("tok-poll enable claude-code-jsonl").stderr.decode()
    done = run("tok-poll claude-code-jsonl", status=2)
    assert "so it is not asked" in done.stderr.decode()


def test_readers_at_another_root(
    run: Run, environment: dict[str, str], settings: Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
    from conftest import claude

    put(tmp_path / "elsewhere/projects/-a/s.jsonl", claude())
    settings(f"vendor_usage: {{claude_code_jsonl: {{enabled: true, root: {tmp_path}/elsewhere/projects, interval: 30s}}}}\n")
    assert run("tok-sync").stderr == b"" and [each["kind"] for each in log_of(environment)].count("turn") == 1
    settings(f"vendor_usage: {{claude_code_jsonl: {{root: {tmp_path}/nowhere}}}}\n")
    assert b"vendor_usage.claude_code_jsonl" in run("tok-sync", status=1).stderr


def test_usage(run: Run, settings: Callable[..., pathlib.Path]) -> None:
    settings("")
    for line, says in (
        ("tok-poll cursr", "no source 'cursr'; the nearest known is 'cursor'"),
        ("tok-poll enable", "name one source"),
        ("tok-poll enable codex --key -", "takes no --key"),
        ("tok-poll enable openrouter --set limit=1", "--set takes KEY=VALUE"),
        ("tok-poll backfill anthropic-admin", "how far back"),
        ("tok-poll backfill cursor --hours 9", "reports only the present"),
    ):
        assert says in run(line, status=2).stderr.decode(), line
    (row,) = objects(run("tok-poll openrouter", status=1).stdout)
    assert (row["status"], row["todo"]) == ("off", "tok-poll enable openrouter")


# Codex: a script that stands for it.
FAKE = """#!@PYTHON@
import json, os, sys, time
assert sys.argv[1:] == ["app-server"], sys.argv
seen = open("@SEEN@", "a", buffering=1)
print(json.dumps(dict(os.environ)), file=seen)
@BEFORE@
for line in sys.stdin:
    asked = json.loads(line)
    print(line.strip(), file=seen)
    if asked.get("id") == 1:
        print(json.dumps({"method": "notice", "params": {}}))
        print(json.dumps({"id": 1, "result": {"userAgent": "codex"}}), flush=True)
    if asked.get("method") == "account/rateLimits/read":
        @ANSWER@
"""


def says(answer: Json) -> str:
    """The line of Python that gives an answer."""
    return f"print(json.dumps({ ({'id': 2, **answer})!r}), flush=True)"


STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
CODEX: list[tuple[str, str, str, str, str]] = [
    ("ok", "", says({"result": {"rateLimits": snapshot()}}), "ok", ""),
    ("an API key", "", says({"error": {"code": -32600, "message": "chatgpt authentication required to read rate limits"}}), "refused", "logged in with an API key"),
    ("offline", "", says({"error": {"code": -32603, "message": SENTINEL}}), "failing", "it may be offline"),
    ("unknown format", "", says({"result": {"limits": []}}), "changed", "unknown format"),
    ("garbage, then an answer", "", "sys.stdout.write('garbage\\n[1]\\n{}\\n'); " + says({"result": {"rateLimits": snapshot()}}), "ok", ""),
    ("garbage for ever", "", "[sys.stdout.write('x' * 65536) for _ in iter(int, 1)]", "changed", "wrote more than 8 MiB"),
    ("hangs", "", STUBBORN, "failing", "no answer within 1 s"),
    ("hangs before", "time.sleep(600)", "", "failing", "no answer within 1 s"),
    ("dies", "", "sys.exit(3)", "failing", "ended before it answered (status 3)"),
    ("dies at once", "sys.exit(127)", "", "failing", "ended before it answered (status 127)"),
]  # fmt: skip


@pytest.fixture
def codex(tmp_path: pathlib.Path, environment: dict[str, str]) -> Callable[[str, str], pathlib.Path]:
    """A script in place of Codex, first on the path; gives the file of what it saw."""

    def made(before: str, answer: str) -> pathlib.Path:
        seen = tmp_path / "seen"
        given = {"PYTHON": sys.executable, "SEEN": str(seen), "BEFORE": before, "ANSWER": answer or "pass"}
        text = FAKE
        for name, value in given.items():
            text = text.replace(f"@{name}@", value)
        script = put(tmp_path / "apps/codex", text.encode())
        script.chmod(0o755)
        environment["PATH"] = f"{script.parent}{os.pathsep}{environment['PATH']}"
        return seen

    return made


@pytest.mark.parametrize(("what", "before", "answer", "status", "why"), CODEX, ids=[case[0] for case in CODEX])
def test_codex(
    what: str,
    before: str,
    answer: str,
    status: str,
    why: str,
    codex: Callable[[str, str], pathlib.Path],
    run: Run,
    environment: dict[str, str],
    settings: Callable[..., pathlib.Path],
) -> None:
    seen = codex(before, answer)
    settings("vendor_usage:\n  codex:\n    enabled: true\n")
    done = run(
        f"tok-poll --jitter 0 --timeout {1 if 'hangs' in what else MOST:g}",
        status=0 if status == "ok" else 1,
        env={"TOKENOPS_CURSOR_COOKIE": SENTINEL},
    )
    (row,) = objects(done.stdout)
    assert row["status"] == status and why in row.get("why", "") and SENTINEL.encode() not in done.stdout + done.stderr
    if "hangs" not in what:  # who is given up after a second may not have begun to write
        environment_, *asked = objects(seen.read_bytes())
        assert "TOKENOPS_CURSOR_COOKIE" not in environment_
    if status == "ok":
        assert [line["method"] for line in asked] == ["initialize", "initialized", "account/rateLimits/read"]
        assert asked[0]["params"]["clientInfo"]["name"] == "tokenops"
        assert [(one["window"], one["used"], one["source"]) for one in log_of(environment)] == [
            ("five_hour", 0.42, "vendor-client-codex"),
            ("weekly", 0.05, "vendor-client-codex"),
        ]
        assert limit_windows.readings_of(log_of(environment))[0].key.account == ""  # as Codex's own rollouts tell it
    left = subprocess.run(["pgrep", "-f", f"{seen.parent}/apps/codex"], capture_output=True, check=False).stdout
    assert left == b"", "the process was left behind"


def test_codex_that_is_not_there_and_enabling_it(
    codex: Callable[[str, str], pathlib.Path], run: Run, environment: dict[str, str], settings: Callable[..., pathlib.Path]
) -> None:
    path = settings("vendor_usage:\n  codex:\n    enabled: true\n    command: /nowhere/codex --flag\n")
    (row,) = objects(run("tok-poll --jitter 0", status=1).stdout)
    assert row["why"] == "/nowhere/codex: No such file or directory; set vendor_usage.codex.command"
    path, without = settings(""), environment["PATH"]
    seen = codex("", says({"result": {"rateLimits": snapshot()}}))
    (pathlib.Path(environment["TOKENOPS_HOME"]) / "polls.json").unlink()
    run("tok-poll enable codex")
    script = str(seen.parent / "apps/codex")
    assert yaml.safe_load(path.read_text())["vendor_usage"]["codex"] == {"enabled": True, "command": script}
    (row,) = objects(run("tok-poll --force", env={"PATH": without}).stdout)
    assert row["status"] == "ok"


def test_an_end_by_a_signal_ends_codex_too(
    codex: Callable[[str, str], pathlib.Path], environment: dict[str, str], settings: Callable[..., pathlib.Path]
) -> None:
    seen = codex("", STUBBORN)
    settings("vendor_usage:\n  codex:\n    enabled: true\n")
    line = ["tok-poll", "--jitter", "0", "--timeout", str(MOST)]
    process = subprocess.Popen(line, env=environment, executable=ROOT / "bin/tok-poll")
    eventually(lambda: seen.exists() and b"rateLimits" in seen.read_bytes())
    process.terminate()
    assert process.wait(MOST) == -signal.SIGTERM
    left = subprocess.run(["pgrep", "-f", f"{seen.parent}/apps/codex"], capture_output=True, check=False).stdout
    assert left == b""


KEYS = st.sampled_from(["vendor_usage", "cursor", "enabled", "cookie", "plans", "x"])
LEAVES = st.booleans() | st.integers(-9, 99) | st.sampled_from(["a", "b: c", "# d", "env:X", "2026-11-21", "", "'", '"'])
TREES = st.dictionaries(
    KEYS, st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3)), max_size=4
)


@given(TREES, st.lists(KEYS, min_size=2, max_size=3, unique=True), st.none() | LEAVES, st.booleans(), st.integers(2, 4))
def test_a_key_is_set_or_the_file_is_left_alone(tree: Json, place: list[str], value: Any, flow: bool, indent: int) -> None:
    text = yaml.safe_dump(tree, default_flow_style=flow or None, indent=indent, sort_keys=False) if tree else ""
    commented = "".join(f"{line}\n# after {line.strip()[:3]}\n\n" for line in text.splitlines())
    for given_ in (text, commented):
        try:
            made = config.edit_at(given_, place, value)
        except config.Unchangeable as error:
            assert "by hand" in str(error) or "correct it" in str(error)
            continue
        assert below(yaml.safe_load(made), place) == value
        if not isinstance(below(tree, place), dict):  # else the comments inside of it go with it
            comments = [[line for line in one.splitlines() if line.startswith("#")] for one in (given_, made)]
            assert comments[0] == comments[1]


def below(tree: Any, place: list[str]) -> Any:
    """The value at a place, None where there is none."""
    for key in place:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


EDITS = [
    ("", ("a", "b", "c"), 1, "a:\n  b:\n    c: 1\n"),
    ("# only words\n", ("a", "b"), 1, "# only words\na:\n  b: 1\n"),
    ("a:\n  b: # here\n    c: 1 # why\n    d: 2\n", ("a", "b", "c"), 9, "a:\n  b: # here\n    c: 9 # why\n    d: 2\n"),
    ("a:\n    b:\n        c: 'x # y' # why\n", ("a", "b", "c"), "z", 'a:\n    b:\n        c: "z"\n'),
    ("a:\n  b:\n    c: 1\n# of d\nd: 1\n", ("a", "b", "e"), True, "a:\n  b:\n    c: 1\n    e: true\n# of d\nd: 1\n"),
    ("a:\n  b:\n    c: 1\n    d: 2\n", ("a", "b", "c"), None, "a:\n  b:\n    d: 2\n"),
    ("a:\nd: 1\n", ("a", "b", "c"), 1, "a:\n  b:\n    c: 1\nd: 1\n"),
    ("\"a\":\n  'b':\n    c: 1\n", ("a", "b", "c"), 2, "\"a\":\n  'b':\n    c: 2\n"),
    ("a:\n  b:\n    c:\n      - 1\n      - 2\n    d: 1\n", ("a", "b", "c"), 2, "a:\n  b:\n    c: 2\n    d: 1\n"),
]


@pytest.mark.parametrize(("text", "place", "value", "expected"), EDITS)
def test_edits_below_edits(text: str, place: tuple[str, ...], value: Any, expected: str) -> None:
    assert config.edit_at(text, place, value) == expected


def test_what_only_a_person_can_change() -> None:
    for text in ("a: {b: {c: 1}}\n", "a: &x\n  b: {c: 1}\n", "a: 5\n", "- 1\n", "a: [1\n"):
        with pytest.raises(config.Unchangeable):
            config.edit_at(text, ("a", "b", "d"), 1)
    with pytest.raises(config.Unchangeable, match=r"write a: \{b: \{d: 1\}\} by hand"):
        config.edit_at("a: {b: {c: 1}}\n", ("a", "b", "d"), 1)
    for place, value in ((("a", "b"), [{"c": "caf\udce9"}]), (("a", "caf\udce9"), 1)):  # YAML cannot hold such text
        with pytest.raises(config.Unchangeable, match="is not UTF-8 text"):
            config.edit_at("a:\n", place, value)
