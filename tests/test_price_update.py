"""tok-price update: what is fetched counts only if a pinned key or checksum confirms it, whole, and can be taken back."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from vendors import Api, Reply

from conftest import MOST, ROOT, ROUNDS, Json, Run, lines, objects, put
from tokenops import catalog, price_fetch, price_files, price_installed, price_update, pricing

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="it needs ssh-keygen to sign")
NOW = {"TOKENOPS_NOW": "2026-12-01T12:00:00Z"}
MODEL = "qwen/qwen3.8-27b"
BUILT_IN = (ROOT / "catalog/pricing/groq.yaml").read_text()
SOURCE = '  acme: {url: "https://prices.example.com/", captured: 2026-11-30, kind: "vendor page"}\n'
TURN = {"v": 1, "ts": "2026-11-28T09:00:00.000Z", "kind": "turn", "id": "t1", "source": "test", "turns": 1}
TURN |= {"provider": "groq", "model": MODEL, "input_tokens": 1_000_000}


def interval(price: str, **more: str) -> str:
    fields = {"from": "2026-11-25T00:00:00Z", "input": f'"{price}"', "cache_read": "same_as_input", "output": '"5"'}
    fields |= {"src": "[acme]", "confidence": "high"} | more
    return "".join(f"      {'-' if n == 0 else ' '} {key}: {value}\n" for n, (key, value) in enumerate(fields.items()))


def provider(price: str = "1", **more: str) -> str:
    """Groq's prices, with one model at another price since 2026-11-25."""
    head, _, rest = BUILT_IN.partition(f'  "{MODEL}":\n    prices:\n      - input')
    old, rest = re.split(r"\n(?=  \S)", rest, maxsplit=1)
    before = f"      - until: 2026-11-25T00:00:00Z\n        input{old}\n"
    text = f'{head}  "{MODEL}":\n    prices:\n{before}{interval(price, **more)}{rest}'
    return text.replace("models:\n", f"{SOURCE}models:\n", 1)


def catalogue(body: str = "", serial: int = 1, name: str = "acme", published: str = "2026-11-30T09:00:00Z") -> bytes:
    head = f"schema: 1\ncatalogue: {name}\nserial: {serial}\npublished: {published}\n"
    return f"{head}---\n{body or provider()}".encode()


class Publisher:
    """Who signs catalogues, and the user's configuration that pins the key."""

    def __init__(self, folder: pathlib.Path, home: pathlib.Path) -> None:
        self.folder, self.config = folder, home / ".config/tokenops/config.yaml"
        self.file = folder / "prices.yaml"
        self.make_key("key")

    def make_key(self, name: str) -> str:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "prices@acme", "-f", str(self.folder / name)]
        subprocess.run(command, check=True, capture_output=True)
        return (self.folder / f"{name}.pub").read_text().strip()

    def sign(self, text: bytes, key: str = "key", namespace: str = price_fetch.NAMESPACE) -> bytes:
        command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(self.folder / key), "-n", namespace]
        return subprocess.run(command, input=text, check=True, capture_output=True).stdout

    def publish(self, text: bytes, signature: bytes | None = None) -> None:
        self.file.write_bytes(text)
        pathlib.Path(f"{self.file}.sig").write_bytes(self.sign(text) if signature is None else signature)

    def pin(self, url: str = "", **pins: str) -> None:
        pins = pins or {"key": (self.folder / "key.pub").read_text().strip()}
        spec = {"url": url or self.file.as_uri()} | pins
        put(
            self.config, ("pricing:\n  update:\n" + "".join(f"    {key}: {value}\n" for key, value in spec.items())).encode()
        )


@pytest.fixture
def acme(environment: dict[str, str], tmp_path: pathlib.Path) -> Publisher:
    environment |= NOW
    folder = tmp_path / "acme"
    folder.mkdir()
    publisher = Publisher(folder, pathlib.Path(environment["HOME"]))
    publisher.publish(catalogue())
    publisher.pin()
    return publisher


def price(run: Run) -> str:
    (record,) = objects(run(f"tok-price show {MODEL} --provider groq --json").stdout)
    rate: str = record["rates"]["input"]
    return rate


def in_force(run: Run) -> Json:
    (row,) = objects(run("tok-price status --json").stdout)
    return row


def update(run: Run, options: str = "", status: int = 0) -> tuple[Json, list[Json]]:
    row, *changes = objects(run(f"tok-price update --json {options}", status=status).stdout)
    return row, changes


def test_every_answer_uses_the_new_prices_and_the_old_ones_after_going_back(
    run: Run, acme: Publisher, environment: dict[str, str]
) -> None:
    """Also sums of closed days that were kept before."""

    def cost() -> list[str]:
        whole = run("tok-cost --log --since 2026-11-01 --by model --json").stdout
        piped = run("tok-cost --by model --json", lines([TURN])).stdout
        return [row["cost_usd"] for row in (*objects(whole), *objects(piped))]

    run("tok-log append", lines([TURN]))
    assert (cost(), price(run), in_force(run)["catalogue"]) == (["0.8", "0.8"], "0.8", "built_in")
    assert list((pathlib.Path(environment["TOKENOPS_HOME"]) / "summaries").rglob("*")) != []
    row, changes = update(run)
    assert (row["result"], row["before"], "held" in row) == ("installed", "built_in", False)
    assert [(change["model"], change["change"]) for change in changes] == [
        (MODEL, "cache_read 0.8 -> 1, input 0.8 -> 1, output 4 -> 5")
    ]
    assert (cost(), price(run)) == (["1", "1"], "1")
    standing = in_force(run)
    assert (standing["catalogue"], standing["serial"], standing["in_force_since"][:10]) == ("acme", 1, "2026-12-01")
    assert standing["providers"] == ["groq"] and "SHA256:" in standing["verified"]
    (report,) = objects(run("tok-status --json").stdout)
    assert report["prices"]["catalogue"] == "acme 1" and report["prices"]["in_force_since"][:10] == "2026-12-01"
    assert b"acme 1, in force since 2026-12-01" in run("tok-status --table").stdout
    run("tok-price update --back")
    assert (cost(), price(run), in_force(run)["catalogue"]) == (["0.8", "0.8"], "0.8", "built_in")


def test_nothing_new_is_no_failure(run: Run, acme: Publisher) -> None:
    update(run)
    row, changes = update(run)
    assert (row["result"], changes, in_force(run)["before"]) == ("unchanged", [], ["built_in"])


def test_a_dry_run_installs_nothing(run: Run, acme: Publisher) -> None:
    row, changes = update(run, "--dry-run")
    assert (row["result"], len(changes), price(run)) == ("not_installed", 1, "0.8")


def test_a_pinned_checksum_is_enough_and_both_must_hold(run: Run, acme: Publisher) -> None:
    right, wrong = hashlib.sha256(catalogue()).hexdigest(), "a" * 64
    key = (acme.folder / "key.pub").read_text().strip()
    acme.pin(sha256=wrong, key=key)
    assert b"is pinned; nothing was installed" in run("tok-price update", status=1).stderr and price(run) == "0.8"
    other = acme.make_key("other")
    acme.pin(sha256=right, key=other)
    assert b"no pinned key has signed it" in run("tok-price update", status=1).stderr and price(run) == "0.8"
    acme.pin(sha256=right)
    pathlib.Path(f"{acme.file}.sig").unlink()
    assert update(run)[0]["verified"] == "the pinned SHA-256" and price(run) == "1"


def test_one_of_several_keys(run: Run, acme: Publisher) -> None:
    other = acme.make_key("other")
    key = (acme.folder / "key.pub").read_text().strip()
    acme.pin(key=f'["{other}", "{key}"]')
    assert update(run)[0]["result"] == "installed"


def changed(text: bytes) -> bytes:
    return text.replace(b'"1"', b'"2"', 1)


@pytest.mark.parametrize(
    ("text", "signature"),
    [
        pytest.param(changed, lambda acme, text: acme.sign(text), id="changed"),
        pytest.param(lambda text: text[:-30], lambda acme, text: acme.sign(text), id="truncated"),
        pytest.param(lambda text: b"", lambda acme, text: acme.sign(text), id="empty"),
        pytest.param(lambda text: text, lambda acme, text: acme.sign(text)[:-60], id="truncated signature"),
        pytest.param(lambda text: text, lambda acme, text: b"", id="no signature"),
        pytest.param(lambda text: text, lambda acme, text: acme.sign(text, namespace="git"), id="made for something else"),
        pytest.param(lambda text: text, lambda acme, text: acme.sign(text, acme.make_key("x") and "x"), id="another key"),
    ],
)
def test_what_no_pinned_key_has_signed_is_not_even_parsed(
    run: Run, acme: Publisher, text: Callable[[bytes], bytes], signature: Callable[[Publisher, bytes], bytes]
) -> None:
    acme.publish(text(catalogue()), signature(acme, catalogue()))
    done = run("tok-price update", status=1)
    assert b"no pinned key has signed it" in done.stderr and done.stdout == b""
    assert price(run) == "0.8" and in_force(run)["catalogue"] == "built_in"


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        ({"url": "http://127.0.0.1:1/p.yaml", "sha256": "a" * 64}, "neither https:// nor file:///"),
        ({"url": "prices.yaml", "sha256": "a" * 64}, "neither https:// nor file:///"),
        ({"url": "https://ada:secret@example.com/p.yaml", "sha256": "a" * 64}, "has a password"),
        ({"url": "file:///x.yaml", "sha256": "123"}, "64 hexadecimal digits"),
        ({"url": "file:///x.yaml", "sha256": "1" * 64}, "64 hexadecimal digits in quotes"),
        ({"url": "file:///x.yaml", "sha256": "0" * 64, "key": "ssh-ed25519 AAAA"}, "64 hexadecimal digits in quotes"),
        ({"url": "file:///x.yaml", "key": "cert-authority ssh-ed25519 AAAA"}, "is not a public key"),
        ({"url": "file:///x.yaml", "key": "~"}, "pins neither a key nor a checksum"),
    ],
)
def test_settings_that_cannot_be_used_are_named(run: Run, acme: Publisher, pins: dict[str, str], words: str) -> None:
    acme.pin(**pins)
    done = run("tok-price update", status=2)
    assert words in done.stderr.decode() and "config.yaml" in done.stderr.decode() and "secret" not in done.stderr.decode()


def test_only_the_users_own_configuration_counts(run: Run, acme: Publisher, tmp_path: pathlib.Path) -> None:
    """Not one of the directory in which the command runs, and none that others can write."""
    text = acme.config.read_text()
    acme.config.unlink()
    for name in ("config.yaml", ".tokenops/config.yaml", "tokenops/config.yaml", ".config/tokenops/config.yaml"):
        put(tmp_path / name, text.encode())
    assert b"names no catalogue" in run("tok-price update", status=2).stderr
    done = run("tok-price update", status=2, env={"XDG_CONFIG_HOME": "."})
    assert b"depends on where you are" in done.stderr and price(run) == "0.8"
    put(acme.config, text.encode())
    acme.config.chmod(0o666)
    assert b"other users can change it" in run("tok-price update", status=2).stderr
    acme.config.chmod(0o600)
    assert update(run)[0]["result"] == "installed"


HELD: list[tuple[str, bytes, str]] = [
    ("an older one", catalogue(serial=4), "its serial is 4, and 5 was installed before"),
    ("the same number again", catalogue(provider("1.1"), serial=5), "its serial is 5, and 5 was installed before"),
    ("an earlier day", catalogue(provider().replace("2026-11-30", "2026-11-29"), serial=6, published="2026-11-29T09:00:00Z"), "it is dated 2026-11-29, before"),
    ("another catalogue", catalogue(name="evil", serial=9), "it is the catalogue evil, and acme was installed before"),
    ("ten times cheaper", catalogue(provider("0.1", note='"so"', correction="true"), serial=6), "input 1 -> 0.1"),
    ("free", catalogue(provider("0", note='"so"', correction="true"), serial=6), "input 1 -> 0"),
    ("a changed past", catalogue(BUILT_IN.replace("captured: 2026-11-22", "captured: 2026-11-30"), serial=6), "history stays"),
    ("a model less", catalogue(provider().replace(f'"{MODEL}"', '"qwen/other"'), serial=6), "the row is gone"),
    ("read before", catalogue(provider().replace("2026-11-30", "2026-11-26"), serial=6), "its prices were read on 2026-11-26"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in HELD], ids=[case[0] for case in HELD])
def test_what_waits_for_a_look(run: Run, acme: Publisher, text: bytes, words: str) -> None:
    acme.publish(catalogue(serial=5))
    update(run)
    acme.publish(text)
    row, _ = update(run, status=1)
    assert row["result"] == "held" and words in " ".join(row["held"]), row["held"]
    assert (in_force(run)["serial"], price(run)) == (5, "1")
    assert words in run("tok-price update --table", status=1).stdout.decode()
    assert update(run, "--force")[0]["result"] == "installed"
    assert in_force(run)["sha256"] == hashlib.sha256(text).hexdigest()


def test_what_was_left_by_going_back_does_not_come_again_by_itself(run: Run, acme: Publisher) -> None:
    update(run)
    acme.publish(catalogue(provider("1.1", correction="true"), serial=2))
    update(run)
    run("tok-price update --back")
    assert price(run) == "1"
    row, _ = update(run, status=1)
    assert "its serial is 2, and 2 was installed before" in row["held"][0] and price(run) == "1"
    acme.publish(catalogue(provider("1.2", correction="true"), serial=3))
    assert update(run)[0]["result"] == "installed" and price(run) == "1.2"
    for expected in ("1", "0.8"):
        run("tok-price update --back")
        assert price(run) == expected
    assert b"nothing to go back to" in run("tok-price update --back", status=1).stderr


REFUSED: list[tuple[str, bytes, str]] = [
    ("output cheaper than input", catalogue(provider("9")), "they may be swapped"),
    ("a price of another unit", catalogue(provider("5000", output='"6000"', note='"so"')), "prices are"),
    ("no price at all", catalogue(provider("1e9")), "is not a price"),
    ("the future", catalogue(published="2027-01-01T00:00:00Z"), "check this machine's clock"),
    ("an unknown key", catalogue(provider(discount='"0.5"')), "unknown key 'discount'"),
    ("no head", provider().encode(), "unknown key 'provider'; the first document has"),
    ("an unknown head", catalogue().replace(b"schema: 1", b"schema: 1\nrun: x", 1), "unknown key 'run'"),
    ("a newer form", catalogue().replace(b"schema: 1", b"schema: 2", 1), "`schema` is 2, not 1"),
    ("no number", catalogue().replace(b"serial: 1", b"serial: one", 1), "`serial` must be"),
    ("no provider", catalogue().partition(b"---\n")[0], "no provider stands in it"),
    ("a provider twice", catalogue(f"{provider()}---\n{provider()}"), "a provider stands in it twice"),
    ("a hidden provider", catalogue(provider().replace("provider: groq", '"provider": groq')), "on a line of its own"),
    ("no YAML", catalogue("provider: groq\nmodels: {"), "prices.yaml (groq):"),
    ("an alias", catalogue(provider().replace("models:", "holidays: {a: &a [x], b: [*a, *a]}\nmodels:")), "YAML alias"),
    ("escape sequences", catalogue(provider(note='"\\e]0;x\\a"')), "control characters"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_lint_refuses_is_never_installed(run: Run, acme: Publisher, text: bytes, words: str) -> None:
    acme.publish(text)
    done = run("tok-price update --force --table", status=1)
    assert words in (done.stdout + done.stderr).decode() and b"\x1b" not in done.stdout + done.stderr
    assert (in_force(run)["catalogue"], price(run)) == ("built_in", "0.8")


def test_a_huge_file_is_read_no_further_than_its_bound(run: Run, acme: Publisher) -> None:
    acme.file.write_bytes(b"x")
    os.truncate(acme.file, 1 << 40)
    assert b"is larger than 4,096 KiB" in run("tok-price update", status=1).stderr
    acme.publish(catalogue(), b"x" * (1 << 20))
    assert b"is larger than 16 KiB" in run("tok-price update", status=1).stderr
    assert price(run) == "0.8"


def test_a_pipe_in_the_files_place_is_not_waited_for(run: Run, acme: Publisher) -> None:
    acme.file.unlink()
    os.mkfifo(acme.file)
    assert b"expected a regular file" in run("tok-price update", status=1).stderr


@pytest.fixture
def server(acme: Publisher, environment: dict[str, str], tmp_path: pathlib.Path) -> Iterator[Api]:
    """An https server whose certificate this machine trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("it needs openssl to make a certificate")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-keyout", "key.pem", "-out", "cert.pem", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    api = Api(context)
    environment["SSL_CERT_FILE"] = str(tmp_path / "cert.pem")
    files = {"/p.yaml": catalogue(), "/p.yaml.sig": acme.sign(catalogue())}
    api.answer = lambda asked: Reply(files[asked.path]) if asked.path in files else Reply(b"", 404)
    acme.pin(f"{api.url}/p.yaml")
    yield api
    api.close()


def test_https(run: Run, server: Api, environment: dict[str, str]) -> None:
    trusted = environment.pop("SSL_CERT_FILE")
    assert b"certificate cannot be verified" in run("tok-price update", status=1).stderr and not server.asked
    environment["SSL_CERT_FILE"] = trusted
    assert update(run)[0]["result"] == "installed" and price(run) == "1"
    assert [asked.path for asked in server.asked] == ["/p.yaml", "/p.yaml.sig"]
    assert not any("cookie" in asked.headers or "authorization" in asked.headers for asked in server.asked)


def test_redirects_stay_on_https_and_end(run: Run, server: Api, acme: Publisher) -> None:
    served, plain = server.answer, Api()
    targets = {"/p.yaml": "/moved/p.yaml", "/p.yaml.sig": f"{server.url}/moved/p.yaml.sig"}
    server.answer = lambda asked: (
        Reply(b"", 302, (("Location", targets[asked.path]),))
        if asked.path in targets
        else served(asked._replace(path=asked.path.removeprefix("/moved")))
    )
    assert update(run)[0]["result"] == "installed"
    run("tok-price update --back")
    for target in (f"{plain.url}/p.yaml", acme.file.as_uri(), "ftp://localhost/p.yaml"):
        targets["/p.yaml"] = target
        assert b"which is not https" in run("tok-price update --force", status=1).stderr
    targets["/p.yaml"] = "/p.yaml"
    assert b"more than 5 redirects" in run("tok-price update --force", status=1).stderr
    assert not plain.asked and in_force(run)["catalogue"] == "built_in"
    plain.close()


def test_answers_that_are_no_catalogue(run: Run, server: Api) -> None:
    served = server.answer
    for reply, words in (
        (Reply(b"no such file", 404), b"the server answered 404"),
        (Reply(b"x" * (9 << 20)), b"larger than 8 MiB"),
        (Reply(b"x" * (5 << 20)), b"larger than 4,096 KiB"),
        (Reply(catalogue()[:200]), b"no pinned key has signed it"),
    ):
        server.answer = lambda asked, reply=reply: reply if asked.path == "/p.yaml" else served(asked)  # type: ignore[misc]
        done = run("tok-price update", status=1)
        assert words in done.stderr, (words, done.stderr)
    server.close()
    assert b"it cannot be reached" in run("tok-price update", status=1).stderr
    assert price(run) == "0.8"


def test_a_server_that_is_never_done(server: Api, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", environment["SSL_CERT_FILE"])
    server.gives(Reply(b"schema: 1", endless=True))
    with pytest.raises(price_fetch.Refused, match="no answer within"):
        price_fetch.fetch(price_fetch.Settings(f"{server.url}/p.yaml", ("k",), ""), 1.0)


@pytest.mark.parametrize("kind", ["kill", "fail"])
def test_a_crash_at_any_step_leaves_the_old_prices_or_the_new(
    run: Run, acme: Publisher, environment: dict[str, str], kind: str
) -> None:
    update(run)
    acme.publish(catalogue(provider("1.1", correction="true"), serial=2))
    log = pathlib.Path(environment["TOKENOPS_HOME"])
    before = {path.name: path.read_bytes() for path in (log / "prices").iterdir()}

    def crash(number: int) -> subprocess.CompletedProcess[bytes]:
        shutil.rmtree(log / "prices")
        for name, content in before.items():
            put(log / "prices" / name, content)
        command = [sys.executable, str(ROOT / "tests/faults.py"), str(number), kind, "tok-price", "update"]
        return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=MOST)

    done = crash(0)
    assert done.returncode == 0 and price(run) == "1.1", done.stderr
    calls = int(done.stderr.split()[-1])
    assert calls > 10
    seen = set()
    for number in range(1, calls + 1, 1 if ROUNDS > 1 else 3):
        done = crash(number)
        assert b"Traceback" not in done.stderr
        seen.add(price(run))
        assert price(run) == {1: "1", 2: "1.1"}[in_force(run)["serial"]]
        assert update(run)[0]["result"] in ("installed", "unchanged") and price(run) == "1.1"
    assert seen <= {"1", "1.1"} and "1" in seen
    names = {path.name for path in (log / "prices").iterdir()}
    assert len([name for name in names if re.fullmatch(r"[0-9a-f]{64}\.yaml", name)]) == 2
    assert not any(re.search(r"yaml\.\d+$", name) for name in names)


def test_damage_is_named_and_never_changes_a_price_in_silence(
    run: Run, acme: Publisher, environment: dict[str, str]
) -> None:
    update(run)
    folder = pathlib.Path(environment["TOKENOPS_HOME"]) / "prices"
    (file,) = folder.glob("*.yaml")
    state, text = (folder / "state.json").read_bytes(), file.read_bytes()
    for path, content in (
        (file, text.replace(b'"1"', b'"2"')),
        (folder / "state.json", state[:-9]),
        (folder / "state.json", b"{}"),
    ):
        path.write_bytes(content)
        for command in (f"tok-price show {MODEL}", "tok-price status", "tok-price check", "tok-price update", "tok-cost"):
            done = run(command, lines([TURN]), status=2)
            assert b"tok-price update --back" in done.stderr and b"Traceback" not in done.stderr, command
        (report,) = objects(run("tok-status --json", status=None).stdout)
        assert "--back" in report["prices"]["error"]
        (folder / "state.json").write_bytes(state)
        file.write_bytes(text)
    file.unlink()
    assert update(run, "--force")[0]["result"] == "installed" and price(run) == "1"
    (folder / "state.json").write_bytes(b"x")
    run("tok-price update --back")
    assert price(run) == "0.8"


def test_files_are_private(run: Run, acme: Publisher, environment: dict[str, str]) -> None:
    run("umask 0 && tok-price update")
    folder = pathlib.Path(environment["TOKENOPS_HOME"])
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "prices")] == [0o700, 0o700]
    assert {path.stat().st_mode & 0o777 for path in (folder / "prices").iterdir()} == {0o600}


def test_check_lint_and_overrides_speak_of_the_prices_in_force(run: Run, acme: Publisher, tmp_path: pathlib.Path) -> None:
    def differing() -> list[Json]:
        rows = objects(run("tok-price check --json", status=None).stdout)
        return [row for row in rows if row.get("model") == MODEL and row.get("verdict") == "differs"]

    assert differing() == []
    update(run)
    assert {(row["field"], row["ours"]) for row in differing()} >= {("input", "1")}
    assert objects(run("tok-price lint --json", status=None).stdout) == objects(
        run(f"tok-price lint --json --catalogue {ROOT}/catalog", status=None).stdout
    )
    put(tmp_path / "own.yaml", b'schema: 1\nproviders: {groq: {models: {"qwen/qwen3.8-27b": {prices: [{input: "3"}]}}}}\n')
    (row,) = objects(run("tok-price override check own.yaml --json").stdout)
    assert row["replaces"] == f"groq/{MODEL}"
    (shown,) = objects(run(f"tok-price show {MODEL} --provider groq", env={"TOKENOPS_PRICING_PATH": "own.yaml"}).stdout)
    assert shown["rates"]["input"] == "3"  # the user's own prices come before those of a catalogue


def test_what_pack_writes_can_be_signed_published_and_installed(run: Run, acme: Publisher, tmp_path: pathlib.Path) -> None:
    done = run("tok-price pack --name acme --serial 7 --output all.yaml")
    assert done.stdout == b""
    text = (tmp_path / "all.yaml").read_bytes()
    assert text == run("tok-price pack --name acme --serial 7").stdout
    acme.publish(text)
    row, changes = update(run, "--force")
    assert (row["result"], changes) == ("installed", [])
    assert set(in_force(run)["providers"]) == set(pricing.load().providers)
    assert b"give --name" in run("tok-price pack", status=2).stderr


def test_an_installed_catalogue_names_its_own_lines() -> None:
    """A message about a price leads to the line of the file that was published."""
    text = catalogue(f"{provider()}---\n{(ROOT / 'catalog/pricing/cohere.yaml').read_text()}")
    head, parts = price_installed.parts(text, "p.yaml")
    assert list(parts) == ["p.yaml (groq)", "p.yaml (cohere)"] and b"serial: 1" in head
    for name, part in parts.items():
        owner = price_installed.provider_of(part)
        line = catalog.line_of(part, ("provider",))
        assert text.splitlines()[line - 1] == f"provider: {owner}".encode(), name


def test_a_change_in_what_only_explains_a_price_is_no_change() -> None:
    texts = price_files.texts()
    again = texts | {"pricing/groq.yaml": BUILT_IN.replace("medium", "low").encode()}
    assert again != texts
    both = pricing.from_texts(again), pricing.from_texts(texts)
    assert list(price_update.changes(*both, "2026-12-01T12:00:00.000Z")) == []
