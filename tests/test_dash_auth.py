"""Who may see the dashboard: every path without the token, hosts, origins, tickets, cookies, files and guesses."""

from __future__ import annotations

import json
import os
import pathlib
import re
import stat

import pytest
from dashboards import AT, PORT, Clock, ask, log, site, turn

from tokenops import access, config, dash, dash_api, when

GOOD = f"127.0.0.1:{PORT}"
# Every path that answers something, and spellings that some server would read as one of them.
PATHS = [
    *("/", "/dashboard", "/dashboard/", *dash.ASSETS, *(f"/api/{name}" for name in dash_api.ROUTES)),
    *("/api/workflows/claude-code:p1:s1", "/api", "/api/", "/api/nothing", "/dashboard/nothing", "/nothing", "/favicon.ico"),
    *("//dashboard", "/./dashboard", "/x/../dashboard", "/dashboard/../api/budget", "/%64ashboard", "/dashboard%2fpage.css"),
    *(
        "/api%2fbudget",
        "/api//budget",
        "/API/BUDGET",
        "/Dashboard",
        "/dashboard;a=b",
        "/dashboard?x",
        "/api/budget/",
        "/api/budget#x",
    ),
    *("/healthz/", "//healthz", "/healthz%20", "/Healthz", "/readyz/x", "/version/..", "/healthz/../api/budget"),
    *("/\\dashboard", "/dashboard\\", "/api/spend/../budget", "/.dashboard", "/dashboard.html", "*"),
    *("http://127.0.0.1:7879/api/budget", "http://evil.example/dashboard", "https://127.0.0.1/dashboard", "dashboard"),
]
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get")


@pytest.fixture
def folder(environment: dict[str, str]) -> str:
    log(environment["TOKENOPS_HOME"], *(turn(number, 9 * number) for number in range(1, 20)))
    return environment["TOKENOPS_HOME"]


@pytest.fixture
def made(folder: str, environment: dict[str, str]) -> dash.Site:
    return site(folder, environment)


@pytest.fixture
def token(folder: str) -> str:
    return access.token(folder)


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_there_is_one_answer(made: dash.Site, path: str) -> None:
    answers = {ask(made, path, method, accept="application/json").body for method in METHODS}
    assert {json.loads(body)["error"] for body in answers} == {"this needs the dashboard's token"}
    for method in METHODS:
        for headers in (
            {},
            {"host": "evil.example"},
            {"host": GOOD, "origin": "http://evil.example"},
            {"host": "evil.example", "x_forwarded_host": GOOD},
            {"accept": "text/html"},
            {"authorization": "Bearer"},
            {"authorization": f"Basic {'x' * 40}"},
            {"cookie": f"{access.COOKIE}=1"},
        ):
            said = ask(made, path, method, **headers)
            assert said.status == 401, (path, method, headers)
            assert said.one("www-authenticate").startswith("Bearer")
            assert "set-cookie" not in said.headers and "location" not in said.headers


def test_every_answer_has_the_headers_of_a_page_that_trusts_nobody(made: dash.Site, token: str) -> None:
    bearer = {"authorization": f"Bearer {token}"}
    for said in (
        ask(made, "/dashboard"),
        ask(made, "/dashboard", accept="text/html"),
        ask(made, "/dashboard", **bearer),
        ask(made, "/dashboard?token=" + token),
        ask(made, "/dashboard?since=never", **bearer),
        ask(made, "/api/budget", **bearer),
        ask(made, "/api/coach", **bearer),
        ask(made, "/dashboard/page.js", **bearer),
        ask(made, "/nothing", **bearer),
        ask(made, "/dashboard", "POST", **bearer),
        ask(made, "/dashboard", host="evil.example", **bearer),
    ):
        policy = said.one("content-security-policy")
        # A refusal for people has a style of its own, which the policy names by its hash.
        assert re.match(r"default-src 'none'; script-src 'self'; style-src 'self'( 'sha256-[^']+')?;", policy)
        assert "unsafe" not in policy and "http:" not in policy and "*" not in policy
        assert said.one("x-content-type-options") == "nosniff"
        assert said.one("referrer-policy") == "no-referrer"
        assert said.one("cache-control") in ("no-store", "private, no-cache")
        assert not any(name.startswith("access-control-") for name in said.headers)


def test_the_token_is_taken_as_a_header_in_the_address_and_as_a_cookie(made: dash.Site, token: str) -> None:
    assert ask(made, "/api/budget", authorization=f"Bearer {token}").status == 200
    assert ask(made, "/api/budget", authorization=f"bearer  {token} ").status == 200
    said = ask(made, f"/dashboard?since=7d&token={token}&stack=model")
    assert (said.status, said.one("location"), said.body) == (303, "/dashboard?since=7d&stack=model", b"")
    assert [value.split("; ", 1)[1] for value in said.headers["set-cookie"]] == [
        "Path=/dashboard; Max-Age=86400; HttpOnly; SameSite=Strict",
        "Path=/api; Max-Age=86400; HttpOnly; SameSite=Strict",
    ]
    assert token not in said.cookie
    assert ask(made, "/dashboard", cookie=f"a=b; {said.cookie}; c=d").status == 200
    assert ask(made, f"/api/budget?token={token}").one("location") == "/api/budget"
    assert ask(made, f"/nothing?token={token}").status == 404
    assert ask(made, f"//evil.example/dashboard?token={token}").status == 404
    assert ask(made, f"/dashboard?token={token}", "HEAD").status == 303
    assert ask(made, "/", authorization=f"Bearer {token}").one("location") == "/dashboard"
    assert ask(made, "/dashboard", cookie=f"{access.COOKIE}={token}").status == 401


WRONG = [
    ("a", "Bearer {0}x"), ("b", "Bearer x{0}"), ("c", "{0}"), ("d", "Bearer {1}"), ("e", "Token {0}"), ("f", "Bearer,{0}"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "header"), WRONG)
def test_a_wrong_token_is_none(made: dash.Site, token: str, name: str, header: str) -> None:
    upper = token.swapcase()
    assert ask(made, "/api/budget", authorization=header.format(token, upper)).status == 401
    assert ask(made, f"/dashboard?token={token[:-1]}").status == 401
    assert ask(made, f"/dashboard?token={token}x&token={token}").status == 401


HOSTS = [
    (GOOD, 200), (f"localhost:{PORT}", 200), (f"[::1]:{PORT}", 200), (f"LOCALHOST:{PORT}", 200),
    ("127.0.0.1", 403), ("localhost", 403), ("localhost:80", 403), ("127.0.0.1:7878", 403), ("evil.example", 403),
    (f"evil.example:{PORT}", 403), (f"localhost.evil.example:{PORT}", 403), (f"127.0.0.1.evil.example:{PORT}", 403),
    (f"localhost.:{PORT}", 403), (f"0.0.0.0:{PORT}", 403), (f"127.1:{PORT}", 403), (f"tokenops.local:{PORT}", 403), ("", 403),
    (f"user@localhost:{PORT}", 403), (f"2130706433:{PORT}", 403), (f"::1:{PORT}", 403), (None, 403),
]  # fmt: skip


@pytest.mark.parametrize(("host", "status"), HOSTS)
def test_hosts(made: dash.Site, token: str, host: str | None, status: int) -> None:
    assert ask(made, "/api/budget", host=host, authorization=f"Bearer {token}").status == status
    said = ask(made, f"/dashboard?token={token}", host=host)
    assert (said.status, "set-cookie" in said.headers) == ((303, True) if status == 200 else (403, False))
    target = f"http://{host}/api/budget"
    if host:  # the whole address as the target has to agree as well
        assert ask(made, target, authorization=f"Bearer {token}").status == status


def test_tokenops_local_is_a_host_only_where_it_was_announced(made: dash.Site, token: str) -> None:
    made.hosts = access.hosts(PORT, ("tokenops.local",))
    assert ask(made, "/api/budget", host=f"tokenops.local:{PORT}", authorization=f"Bearer {token}").status == 200


ORIGINS = [
    (f"http://{GOOD}", 200), (f"http://localhost:{PORT}", 200), ("null", 403), ("http://evil.example", 403),
    (f"https://{GOOD}", 403), ("http://127.0.0.1:3000", 403), ("http://localhost", 403), ("", 403), (f"http://{GOOD}/", 403),
]  # fmt: skip


@pytest.mark.parametrize(("origin", "status"), ORIGINS)
def test_origins(made: dash.Site, token: str, origin: str, status: int) -> None:
    assert ask(made, "/api/budget", origin=origin, authorization=f"Bearer {token}").status == status


def fetched(by: str, mode: str, dest: str) -> dict[str, str]:
    return {"sec_fetch_site": by, "sec_fetch_mode": mode, "sec_fetch_dest": dest}


FETCHES = [
    (fetched("none", "navigate", "document"), 200),
    (fetched("same-origin", "cors", "empty"), 200),
    (fetched("cross-site", "navigate", "document"), 200),
    (fetched("cross-site", "no-cors", "image"), 403),
    (fetched("Cross-Site", "no-cors", "image"), 403),
    (fetched("what comes next", "no-cors", "image"), 403),
    (fetched("cross-site", "no-cors", "script"), 403),
    (fetched("cross-site", "navigate", "iframe"), 403),
    (fetched("same-site", "cors", "empty"), 403),
]


@pytest.mark.parametrize(("headers", "status"), FETCHES)
def test_what_other_pages_fetch_is_refused(made: dash.Site, token: str, headers: dict[str, str], status: int) -> None:
    cookie = f"{access.COOKIE}={access.cookie(token, AT)}"
    assert ask(made, "/api/budget", cookie=cookie, **headers).status == status


def test_a_link_of_another_site_asks_once_more_for_the_strict_cookie(made: dash.Site) -> None:
    followed = fetched("cross-site", "navigate", "document")
    assert b'http-equiv="refresh" content="0"' in ask(made, "/dashboard", accept="text/html", **followed).body
    for headers in (fetched("same-origin", "navigate", "document"), fetched("none", "navigate", "document"), {}):
        assert b"http-equiv" not in ask(made, "/dashboard", accept="text/html", **headers).body
    assert b"http-equiv" not in ask(made, "/dashboard?token=x", accept="text/html", **followed).body


def test_only_get_and_head(made: dash.Site, token: str) -> None:
    for method in METHODS:
        said = ask(made, "/api/budget", method, authorization=f"Bearer {token}")
        assert said.status == (200 if method in ("GET", "HEAD") else 405)
        if said.status == 405:
            assert said.one("allow") == "GET, HEAD"


# Cookies.


def test_a_cookie_ends_and_is_renewed_in_its_second_half(folder: str, environment: dict[str, str], token: str) -> None:
    clock = Clock()
    made = site(folder, environment, clock)
    cookie = ask(made, f"/dashboard?token={token}").cookie
    for hours, status, renewed in (
        (0, 200, False),
        (11.9, 200, False),
        (12.1, 200, True),
        (23.9, 200, True),
        (24.1, 401, False),
    ):
        clock.now = AT + round(hours * 3_600_000)
        said = ask(made, "/api/budget", cookie=cookie)
        assert (said.status, "set-cookie" in said.headers) == (status, renewed), hours
    clock.now = AT + 23 * 3_600_000
    fresh = ask(made, "/api/budget", cookie=cookie).cookie
    clock.now = AT + 40 * 3_600_000
    assert ask(made, "/api/budget", cookie=f"{cookie}; {fresh}").status == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.replace(".", "0.", 1),
        lambda value: "99999999999" + value[value.index(".") :],
        lambda value: value[:-1] + ("0" if value[-1] != "0" else "1"),
        lambda value: value.partition(".")[0],
        lambda value: "",
        lambda value: "." + value.partition(".")[2],
        lambda value: "-" + value,
        lambda value: "\xb2" + value,
        lambda value: value.partition(".")[2],
    ],
)
def test_a_changed_cookie_is_none(made: dash.Site, token: str, change: object) -> None:
    value = access.cookie(token, AT)
    assert ask(made, "/api/budget", cookie=f"{access.COOKIE}={value}").status == 200
    assert ask(made, "/api/budget", cookie=f"{access.COOKIE}={change(value)}").status == 401  # type: ignore[operator]


def test_a_new_token_ends_everything_at_once(made: dash.Site, folder: str, token: str) -> None:
    cookie = ask(made, f"/dashboard?token={token}").cookie
    fresh = access.rotate(folder)
    assert ask(made, "/api/budget", cookie=cookie).status == 401
    assert ask(made, "/api/budget", authorization=f"Bearer {token}").status == 401
    assert ask(made, "/api/budget", authorization=f"Bearer {fresh}").status == 200


# Tickets.


def test_a_ticket_opens_the_page_once(made: dash.Site, folder: str) -> None:
    ticket = access.ticket(folder, AT)
    said = ask(made, f"/dashboard?ticket={ticket}&since=7d")
    assert (said.status, said.one("location")) == (303, "/dashboard?since=7d")
    assert ask(made, "/dashboard", cookie=said.cookie).status == 200
    again = ask(made, f"/dashboard?ticket={ticket}&since=7d")
    assert (again.status, again.cookie) == (401, "")
    assert ask(made, f"/dashboard?ticket={ticket}", cookie=said.cookie).status == 303  # who is in already stays in


NOT_OPENED = [
    ("/dashboard?ticket={}", "HEAD", {}),
    ("/dashboard?ticket={}", "POST", {}),
    ("/api/budget?ticket={}", "GET", {}),
    ("/dashboard?token={}", "GET", {}),
    ("/dashboard?ticket={}", "GET", {"host": "evil.example"}),
    ("/dashboard?ticket={}", "GET", {"origin": "http://evil.example"}),
    ("/dashboard?ticket={}", "GET", {"sec_purpose": "prefetch;prerender"}),
    ("/dashboard?ticket={}", "GET", {"purpose": "prefetch"}),
    ("/dashboard?ticket={}", "GET", fetched("cross-site", "no-cors", "image")),
]


@pytest.mark.parametrize(("target", "method", "headers"), NOT_OPENED)
def test_a_ticket_is_not_used_up_by_who_only_looks(
    made: dash.Site, folder: str, target: str, method: str, headers: dict[str, str]
) -> None:
    ticket = access.ticket(folder, AT)
    assert ask(made, target.format(ticket), method, **headers).status == 401
    assert ask(made, f"/dashboard?ticket={ticket}").status == 303


def test_tickets_end(folder: str, environment: dict[str, str]) -> None:
    for late, status in ((access.TICKET_MS - 1, 303), (access.TICKET_MS, 401), (-1, 401)):
        ticket = access.ticket(folder, AT)
        assert ask(site(folder, environment, Clock(AT + late)), f"/dashboard?ticket={ticket}").status == status


def test_the_file_of_tickets_holds_none_and_does_not_grow(folder: str, environment: dict[str, str]) -> None:
    tickets = [access.ticket(folder, AT + number) for number in range(3 * access.MOST_TICKETS)]
    path = pathlib.Path(folder) / access.TICKETS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    held = json.loads(path.read_bytes())
    assert len(held) == access.MOST_TICKETS
    assert not any(ticket in path.read_text() for ticket in tickets)
    assert not access.redeem(folder, tickets[0], AT + 200)
    assert access.redeem(folder, tickets[-1], AT + 200)
    path.write_bytes(b"[not json")
    assert not access.redeem(folder, tickets[-2], AT + 200)
    assert access.redeem(folder, access.ticket(folder, AT), AT)


# The token's file.


def test_the_token_is_made_once_and_only_for_its_owner(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "log")
    token = access.token(folder)
    path = pathlib.Path(folder) / access.TOKEN
    assert len(token) == 43 and access.token(folder) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text() == f"{token}\n"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666, 0o620, 0o601])
def test_a_token_that_others_could_read_is_a_secret_no_more(tmp_path: pathlib.Path, mode: int) -> None:
    folder = str(tmp_path)
    token = access.token(folder)
    path = tmp_path / access.TOKEN
    path.chmod(mode)
    fresh = access.token(folder)
    assert fresh != token and stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 44, b"\xff" * 43, b"a" * 42 + b"="])
def test_a_file_without_a_token_gets_one(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / access.TOKEN
    path.write_bytes(content)
    path.chmod(0o600)
    assert len(access.token(str(tmp_path))) == 43


def test_a_token_is_not_read_through_a_link_or_from_a_folder(tmp_path: pathlib.Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    access.token(str(elsewhere))
    for number, make in enumerate((lambda path: path.symlink_to(elsewhere / access.TOKEN), lambda path: path.mkdir())):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / access.TOKEN)
        with pytest.raises(config.Unusable, match="remove it"):
            access.token(str(folder))


def test_a_server_says_what_is_wrong_with_the_file(made: dash.Site, folder: str) -> None:
    path = pathlib.Path(folder) / access.TOKEN
    path.mkdir()
    said = ask(made, "/api/budget", authorization="Bearer x")
    assert said.status == 503 and "remove it" in json.loads(said.body)["error"]


def test_a_token_of_the_configuration(environment: dict[str, str], folder: str, tmp_path: pathlib.Path) -> None:
    base = str(tmp_path)
    chosen = "a-token-of-somebodys-own"
    (tmp_path / "secret").write_text(chosen)
    (tmp_path / "secret").chmod(0o600)
    assert access.configured_token("env:DASH", {"DASH": chosen}, base) == chosen
    assert access.configured_token("file:secret", {}, base) == chosen
    assert access.configured_token(None, {}, base) == ""
    for value in ("short", "env:DASH", "file:none"):
        with pytest.raises(config.Unusable, match=r"dashboard\.admin_token"):
            access.configured_token(value, {}, base)
    made = site(folder, environment)
    made.runtime = dash.Runtime(token=lambda: chosen)
    assert ask(made, "/api/budget", authorization=f"Bearer {chosen}").status == 200
    assert ask(made, "/api/budget", authorization=f"Bearer {access.token(folder)}").status == 401
    assert config.KNOWN["dashboard"] == {"admin_token": None}


# Guesses.


def test_guesses_wait_longer_and_longer_and_who_has_the_token_never(
    folder: str, environment: dict[str, str], token: str
) -> None:
    clock = Clock()
    made = site(folder, environment, clock)
    waits = [ask(made, "/dashboard?token=wrong").wait_ms for _ in range(30)]
    assert waits[: access.Throttle.FREE] == [0] * access.Throttle.FREE
    assert waits == sorted(waits) and 1000 < waits[-1] <= 30_000
    assert ask(made, "/api/budget", authorization=f"Bearer {token}").wait_ms == 0
    assert ask(made, "/api/budget").wait_ms == 0  # nothing was guessed
    statuses = [ask(made, "/api/budget", authorization="Bearer wrong").status for _ in range(60)]
    assert statuses[-1] == 429 and 401 in statuses
    clock.now += 10 * 60_000
    assert ask(made, "/dashboard?ticket=wrong").wait_ms == 0  # calm again


def test_guesses_cost_no_memory(folder: str, environment: dict[str, str]) -> None:
    throttle = access.Throttle()
    for number in range(10_000):
        throttle.wait_ms(AT + number)
    assert set(vars(throttle)) == {"failures", "last", "free_at"}
    assert throttle.free_at - (AT + 10_000) <= throttle.FULL_MS + throttle.MOST_MS


# Which dashboards run.


def test_a_dashboard_is_found_while_it_runs(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path)
    assert access.running(folder) == []
    with (
        access.announce(folder, "http://127.0.0.1:7879", 7879),
        access.announce(folder, "http://127.0.0.1:7878", 7878),
    ):
        assert [one.url for one in access.running(folder)] == ["http://127.0.0.1:7878", "http://127.0.0.1:7879"]
        place = access.running(folder)[0].path
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o600
    assert access.running(folder) == []
    pathlib.Path(folder, access.RUNNING, "7.json").write_text(json.dumps({"url": "http://127.0.0.1:7"}))  # left by a crash
    assert access.running(folder) == []


def test_a_link_says_until_when(folder: str) -> None:
    url, until = access.link(folder, "http://127.0.0.1:7879", AT)
    assert url.startswith("http://127.0.0.1:7879/dashboard?ticket=") and access.token(folder) not in url
    assert when.moment(until) == AT + access.TICKET_MS
