"""What may be shared of a log: that nothing else is, that a turn counts once, and that what others send is judged."""

from __future__ import annotations

import collections
import gzip
import json
import os
import pathlib
import random
import shutil
import subprocess

import pytest

from conftest import ROUNDS, Json, Run, claude, lines, objects, put
from tokenops import signing, store_public

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="it needs ssh-keygen to sign")
NOW = {"TOKENOPS_NOW": "2026-11-20T12:00:00Z"}
CWD = "/home/ada/secret-client-x"
FOLDER = f".claude/projects/{CWD.replace('/', '-')}"
TEXT = "PROMPT-SENTINEL sk-ant-api03-KEYSENTINEL ada@example.com /etc/PATH-SENTINEL"
MODELS = ("claude-opus-4-6", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab", "/home/ada/m.gguf")


class Person:
    """One of a team: a home, a log and a key."""

    def __init__(self, run: Run, tmp_path: pathlib.Path, name: str) -> None:
        self.run, self.name, self.home = run, name, tmp_path / name
        self.env = {"HOME": str(self.home), "TOKENOPS_HOME": str(self.home / "log"), **NOW}
        self.key = self.home / "key"
        self.home.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", self.key], check=True)

    def public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text().strip()

    def works(self, session: str, days: tuple[int, ...], **given: str) -> None:
        made = [
            claude(
                f"msg_{session}_{day}_{n}", 9, f"2026-11-{day:02d}T0{n}:17:23.456Z", cwd=CWD, sessionId=session,
                gitBranch="branch-sentinel", m_content=[{"type": "text", "text": TEXT}], **given,
            )
            for day in days
            for n in (1, 2)
        ]  # fmt: skip
        put(self.home / FOLDER / f"{session}.jsonl", *made)

    def tok(self, line: str, status: int | None = 0, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self.run(line, given, status, self.env)

    def export(self, path: pathlib.Path, more: str = "") -> list[Json]:
        self.tok(f"tok-log export --public --user {self.name} --key {self.key} {more} {path}")
        return objects(path.read_bytes())

    def counts(self) -> int:
        """How many turns a report counts."""
        return sum(row["turns"] for row in objects(self.tok("tok-cost --log --since 2026-10-01 --by none --json").stdout))

    def users(self) -> dict[str, int]:
        """Whose turns the log has, and how many."""
        return collections.Counter(event.get("user", "") for event in objects(self.tok("tok-cat --kind turn").stdout))


@pytest.fixture
def ada(run: Run, tmp_path: pathlib.Path) -> Person:
    person = Person(run, tmp_path, "ada")
    person.works("s-ada", (1, 2, 3))
    return person


@pytest.fixture
def bob(run: Run, tmp_path: pathlib.Path) -> Person:
    return Person(run, tmp_path, "bob")


@pytest.fixture
def trust(ada: Person, bob: Person, tmp_path: pathlib.Path) -> pathlib.Path:
    return put(tmp_path / "signers", f"ada {ada.public_key()}\nbob {bob.public_key()}\n".encode())


def resigned(person: Person, text: bytes, namespace: str = store_public.NAMESPACE) -> bytes:
    signature = signing.sign(text, str(person.key), namespace).decode()
    return text + lines([{"signature": signature}])


def body(path: pathlib.Path) -> bytes:
    return b"".join(path.read_bytes().splitlines(keepends=True)[:-1])


def test_nothing_but_counts_leaves(ada: Person, tmp_path: pathlib.Path) -> None:
    """Whatever the log holds: words of prompts, names, paths, accounts, ids."""
    secret = {"v": 1, "ts": "2026-11-04T09:12:13.141Z", "kind": "turn", "source": "test", "client": "opencode", "turns": 1}
    turns = [
        secret | {"id": f"opencode:ses-sentinel:{n}", "session_id": "ses-sentinel", "account": "acc0unt", "model": model}
        for n, model in enumerate(
            (*MODELS, "ft:gpt-4o:org-sentinel::x1", "projects/org-sentinel/m", "me@org-sentinel.com", "a b org-sentinel")
        )
    ]
    odd = secret | {
        "id": "ses-sentinel:9", "provider": "http://org-sentinel/", "tier": "org sentinel", "skill": "skill-sentinel",
        "subagent": "sub-sentinel", "path": "/v1/PATH-SENTINEL", "error": TEXT[:60], "credential": "cred-sentinel",
        "project": "secret-client-x", "agent_id": "opencode:secret-client-x", "machine": "host-sentinel", "branch": "branch-sentinel",
        "latency_ms": 7, "cost_usd": "0.25", "cost_source": "reported",
    }  # fmt: skip
    task = {"v": 1, "ts": "2026-11-04T09:00:00.000Z", "kind": "task", "id": "task-sentinel", "title": TEXT[:60]}
    ada.tok("tok-log append", given=lines([*turns, odd, task]))
    head, *records, last = ada.export(tmp_path / "a.jsonl")
    assert head["from"] == "ada" and head["records"] == len(records) == 6 + 7 + 1
    text = (tmp_path / "a.jsonl").read_text().lower()
    names = ("sentinel", "secret", "client-x", "acc0unt", "/home", "gguf", "arn:", "1234567", "msg_", "s-ada", "sk-ant", "@")
    assert [name for name in names if name in text.replace("ssh signature", "")] == []
    allowed = {
        "v", "ts", "kind", "id", "source", "revision", "client", "machine", "user", "agent_id", "workflow_id", "session_id",
        "provider", "provider_inferred", "model", "turns", "input_tokens", "cache_read_tokens", "cache_write_1h_tokens",
        "output_tokens", "cost_usd", "cost_source",
    }  # fmt: skip
    assert set().union(*records) <= allowed
    assert {record["ts"][13:] for record in records} == {":00:00.000Z"}
    assert {record["model"] for record in records if "model" in record} == {"claude-opus-4-6", "unknown", "ft:gpt-4o"}
    assert records == sorted(records, key=lambda record: (record["ts"], record["kind"], record["id"]))
    assert set(last) == {"signature"}


def test_names_leave_only_if_they_are_named(ada: Person, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.jsonl"
    put(ada.home / ".config/tokenops/config.yaml", b"user: ada\n")
    ada.env["TOKENOPS_MACHINE"] = "laptop"
    more = "--projects --branches --stamp day --fields effort,skill --since 2026-11-02 --until 2026-11-02"
    records = ada.export(path, more)[1:-1]
    assert {(record["project"], record["branch"], record["machine"]) for record in records} == {
        ("secret-client-x", "branch-sentinel", "laptop")
    }
    assert {record["ts"] for record in records} == {"2026-11-02T12:00:00.000Z"} and len(records) == 2
    assert b"/home" not in path.read_bytes()
    for words, why in (
        ("export", "give --public"),
        ("export --public --fields path", "--fields path"),
        ("export --public --fields project", "--projects and --branches"),
        ("export --public --user 'a b'", "cannot sign"),
        ("export --public --key /nowhere x", "no such file"),
        ("export --public a b", "one file"),
        ("export --public --stamp week", "invalid choice"),
    ):
        assert why in ada.tok(f"tok-log {words}", 2).stderr.decode(), words
    put(ada.home / ".config/tokenops/config.yaml", b"{}\n")
    assert "whose is it" in ada.tok("tok-log export --public", 2).stderr.decode()
    done = ada.tok("tok-log export --public --user ada")
    assert len(objects(done.stdout)) == 7 and b"not signed" in done.stderr


def test_each_turn_counts_once(ada: Person, bob: Person, trust: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """One's own export, an export twice, exports that overlap, and the whole log beside them, before or after."""
    team = tmp_path / "team"
    team.mkdir()
    ada.export(team / "ada-1.jsonl", "--until 2026-11-02")
    ada.export(team / "ada-2.jsonl", "--since 2026-11-02 --stamp day --projects")
    (first,) = objects(ada.tok(f"tok-log import --trust {trust} {team}").stdout)
    assert (first["files"], first["events"], first["added"]) == (2, 8, 0)
    assert ada.counts() == 6
    for expected in ((2, 0, 6), (2, 2, 0)):
        (row,) = objects(bob.tok(f"tok-log import --trust {trust} {team}").stdout)
        assert (row["files"], row["unchanged"]) == expected[:2]
        assert bob.users() == {"ada": 6}
    whole = put(tmp_path / "whole.jsonl", ada.tok("tok-cat --kind all").stdout)
    bob.tok(f"tok-log import {whole}")
    assert bob.counts() == 6
    late = Person(bob.run, tmp_path, "late")
    late.tok(f"tok-log import {whole}")
    (row,) = objects(late.tok(f"tok-log import --trust {trust} {team}").stdout)
    assert row["added"] == 0 and late.counts() == 6
    for person in (bob, late):
        person.tok("tok-log compact")
        assert not any(b"public:" in path.read_bytes() for path in (person.home / "log/events").iterdir())
        assert person.counts() == 6 and person.tok("tok-log verify").stdout == b""


def test_what_others_shared_is_not_exported_or_shipped_again(
    ada: Person, bob: Person, trust: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    ada.export(tmp_path / "a.jsonl")
    bob.works("s-bob", (5,))
    bob.tok(f"tok-log import --trust {trust} {tmp_path / 'a.jsonl'}")
    assert len(bob.export(tmp_path / "b.jsonl")) == 2 + 2
    bob.tok("tok-ship ./shipped")
    shipped = b"".join(gzip.decompress(path.read_bytes()) for path in (tmp_path / "shipped").rglob("*.gz"))
    assert shipped.count(b"msg_s-bob") >= 2 and b"public:" not in shipped


def test_a_turn_that_was_exported_under_another_id_counts_once(
    ada: Person, bob: Person, trust: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """tok-proxy saw it first, under an id that the client's log does not have."""
    same = {"v": 1, "kind": "turn", "client": "gemini-cli", "provider": "google", "model": "gemini-3-pro", "turns": 1, "input_tokens": 5, "output_tokens": 3, "alias": "gemini-cli::5:0:0:3:0"}  # fmt: skip
    wire = same | {"ts": "2026-11-04T09:00:00.000Z", "id": "resp-1", "source": "proxy"}
    log = same | {"ts": "2026-11-04T09:00:01.000Z", "id": "gemini-cli:s:1", "source": "gemini-cli", "session_id": "s"}
    ada.tok("tok-log append", given=lines([wire]))
    ada.export(tmp_path / "1.jsonl")
    ada.tok("tok-log append", given=lines([log]))
    ada.export(tmp_path / "2.jsonl")
    bob.tok(f"tok-log import --trust {trust} {tmp_path / '1.jsonl'} {tmp_path / '2.jsonl'}")
    assert bob.counts() == 7
    bob.tok("tok-log compact")
    assert bob.counts() == 7
    bob.tok("tok-log append", given=lines([wire]))
    assert bob.counts() == 7
    bob.tok("tok-log append", given=lines([log]))
    assert bob.counts() == 7


def test_any_order_gives_the_same_log(ada: Person, bob: Person, trust: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rng = random.Random(11)
    team = tmp_path / "team"
    team.mkdir()
    for n, span in enumerate(("", "--until 2026-11-01", "--since 2026-11-02 --stamp day")):
        ada.export(team / f"{n}.jsonl", span)
    whole = put(tmp_path / "whole.jsonl", ada.tok("tok-cat --kind all").stdout)
    logs = []
    for number in range(3 * ROUNDS):
        person = Person(bob.run, tmp_path, f"p{number}")
        steps = [
            f"tok-log import --trust {trust} {team}",
            f"tok-log import {whole}",
            "tok-log compact",
            "tok-log compact --gzip",
        ]
        rng.shuffle(steps)
        for step in [*steps, "tok-log compact"]:
            person.tok(step)
        logs.append(person.tok("tok-cat --kind all").stdout)
    assert len(set(logs)) == 1 and logs[0] == whole.read_bytes()


def test_what_nobody_trusted_signed_is_refused(
    ada: Person, bob: Person, trust: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    good = tmp_path / "good.jsonl"
    ada.export(good)
    data, text = good.read_bytes(), body(good)
    stranger = Person(bob.run, tmp_path, "stranger")
    half = text.splitlines(keepends=True)
    bad = {
        "unsigned": text,
        "cut in a line": data[:-20],
        "cut after a line": b"".join(data.splitlines(keepends=True)[:3]),
        "a record less": half[0] + b"".join(half[2:]) + data[len(text) :],
        "another count": data.replace(b'"output_tokens":9', b'"output_tokens":8', 1),
        "another name": data.replace(b'"from":"ada"', b'"from":"bob"', 1),
        "a stranger's key": resigned(stranger, text),
        "bob for ada": resigned(bob, text),
        "for other things": resigned(ada, text, "git"),
        "two signatures": data + data[len(text) :],
        "no signature": text + b'{"signature":5}\n',
        "damaged signature": text + b'{"signature":"-----BEGIN SSH SIGNATURE-----\\nAAAA\\n-----END SSH SIGNATURE-----"}\n',
        "huge signature": text + b'{"signature":"' + b"A" * 20_000 + b'"}\n',
        "not an export": b'{"v":1}\n' + data,
        "another version": data.replace(b'"v":1', b'"v":2', 1),
        "a damaged header": data.replace(b'"sequence":', b'"sequence":"x","x":', 1),
        "a name that is an option": data.replace(b'"from":"ada"', b'"from":"-Oprint-pubkey"', 1),
        "a damaged signature of much": text * 400 + b'{"signature":"-----BEGIN SSH SIGNATURE-----\\nA"}\n',
        "empty": b"",
        "zeros": bytes(5000),
        "a long line": b'{"format":"tokenops-public","x":"' + b"x" * 9000 + b'"}\n',
    }
    for name, content in bad.items():
        assert content != data, name
        put(tmp_path / "bad.jsonl", content)
        done = bob.tok(f"tok-log import --trust {trust} bad.jsonl", 1)
        assert len(done.stderr.splitlines()) == 1 and b"bad.jsonl: " in done.stderr, (name, done.stderr)
        assert objects(done.stdout)[0]["added"] == 0 and not (bob.home / "log/events").exists(), name
    for at in random.Random(3).sample(range(len(data) - 1), 3 * ROUNDS):
        put(tmp_path / "bad.jsonl", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        bob.tok(f"tok-log import --trust {trust} bad.jsonl", 1)
    assert not (bob.home / "log/events").exists()
    assert b"somebody's export" in bob.tok(f"tok-log import {good}", 2).stderr
    bob.tok(f"tok-log import --trust {trust} {good}")
    assert bob.counts() == 6


def test_an_older_export_does_not_come_after_a_newer_one(
    ada: Person, bob: Person, trust: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for name in ("old", "new"):
        ada.export(tmp_path / f"{name}.jsonl")
    sequence = [json.loads((tmp_path / f"{name}.jsonl").read_bytes().splitlines()[0])["sequence"] for name in ("old", "new")]
    assert sequence[0] < sequence[1]  # also while the clock stands
    bob.tok(f"tok-log import --trust {trust} new.jsonl")
    done = bob.tok(f"tok-log import --trust {trust} old.jsonl", 1)
    assert b"older than the export of ada" in done.stderr
    bob.tok(f"tok-log import --trust {trust} new.jsonl")
    fresh = Person(bob.run, tmp_path, "fresh")
    fresh.tok(f"tok-log import --trust {trust} new.jsonl old.jsonl")  # in the order in which they were exported
    assert fresh.counts() == 6


def hostile(**changes: object) -> Json:
    record = {
        "v": 1,
        "ts": "2026-11-04T09:00:00.000Z",
        "kind": "turn",
        "id": f"public:{'0' * 24}",
        "client": "x",
        "turns": 1,
    }
    return {name: value for name, value in (record | changes).items() if value is not None}


@pytest.mark.parametrize(
    "record",
    [
        hostile(prompt="the words of a prompt"),
        hostile(path="/v1/x"),
        hostile(account="a"),
        hostile(id="msg_1"),
        hostile(alias="msg_1"),
        hostile(session_id="s-1"),
        hostile(model="\x1b]0;x\x07"),
        hostile(model="the words of a prompt"),
        hostile(model="/home/ada"),
        hostile(project="a\x1b[2J"),
        hostile(project="a\u202eb"),
        hostile(client="two words"),
        hostile(agent_id="x:another"),
        hostile(workflow_id="the words of a prompt"),
        hostile(project_id="../../etc"),
        hostile(ts="2027-11-04T09:00:00.000Z"),
        hostile(ts="yesterday"),
        hostile(turns=-1),
        hostile(turns=1 << 60),
        hostile(output_tokens="9"),
        hostile(kind="task", title="x"),
        hostile(kind="usage", covers="account"),
        hostile(kind="meter"),
        hostile(id=None),
        hostile(machine="\n"),
        hostile(skill="x" * 201),
        [1],
        "x" * 5000,
    ],
    ids=lambda record: str(record)[-40:],
)
def test_nothing_of_a_hostile_export_enters(
    record: object, ada: Person, bob: Person, trust: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Somebody who is trusted signed it. One such record, and nothing of the file is imported."""
    head = {"format": "tokenops-public", "v": 1, "from": "ada", "log": "0" * 12, "sequence": 1, "records": 2}
    text = lines([head, hostile(id=f"public:{'1' * 24}")]) + json.dumps(record).encode() + b"\n"
    put(tmp_path / "bad.jsonl", resigned(ada, text))
    done = bob.tok(f"tok-log import --trust {trust} bad.jsonl", 1)
    assert b"bad.jsonl: line 3: " in done.stderr and b"nothing of it was imported" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.decode().isascii() and b"\x1b" not in done.stderr
    assert not (bob.home / "log/events").exists()


def test_the_name_is_that_of_the_signature(ada: Person, bob: Person, trust: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Whatever a record says of its user; and a record of another's turn is not believed where the log has the turn."""
    ada.tok("tok-sync")
    mine = ada.export(tmp_path / "a.jsonl")[1]
    head = {"format": "tokenops-public", "v": 1, "from": "bob", "log": "0" * 12, "sequence": 1, "records": 2}
    claims = [hostile(user="ada", output_tokens=7), mine | {"output_tokens": 999_999}]
    put(tmp_path / "b.jsonl", resigned(bob, lines([head, *claims])))
    ada.tok(f"tok-log import --trust {trust} b.jsonl")
    assert ada.users() == {"": 6, "bob": 1}
    (total,) = objects(ada.tok("tok-cost --log --since 2026-10-01 --by none --json").stdout)
    assert total["output_tokens"] == 6 * 9 + 7


def test_nobody_changes_what_another_shared(
    ada: Person, bob: Person, trust: pathlib.Path, tmp_path: pathlib.Path, run: Run
) -> None:
    """By its ids, by aliases for it, by the session that it is in, or by a later total of that session."""
    team = Person(run, tmp_path, "team")
    ada.tok("tok-sync")
    total = {"v": 1, "ts": "2026-11-05T09:00:00.000Z", "kind": "usage", "id": "total-1", "source": "crush", "client": "crush", "session_id": "c-1", "covers": "session", "input_tokens": 70, "output_tokens": 70}  # fmt: skip
    ada.tok("tok-log append", given=lines([total]))
    head, *shared, _ = ada.export(tmp_path / "a.jsonl")
    team.tok(f"tok-log import --trust {trust} a.jsonl")
    per_user = "tok-rollup --by user"
    before = team.run(per_user, team.tok("tok-cat --kind all").stdout, 0, team.env).stdout
    (summed,) = (record for record in shared if record["kind"] == "usage")
    claims = []
    for number, mine in enumerate(shared):
        fresh = {"id": f"public:{number:024x}"}
        claims.append(mine | {"output_tokens": 999_999, "user": "ada", "ts": "2026-11-01T00:00:00.000Z"})
        claims.append(mine | fresh | {"alias": mine["id"], "output_tokens": 0})
    claims.append(summed | {"id": f"public:{'a' * 24}", "ts": "2026-11-06T09:00:00.000Z", "output_tokens": 7})
    claims.append(hostile(id=f"public:{'b' * 24}", session_id=summed["session_id"]))
    text = lines([head | {"from": "bob", "log": "1" * 12, "records": len(claims)}, *claims])
    put(tmp_path / "b.jsonl", resigned(bob, text))
    done = team.tok(f"tok-log import --trust {trust} b.jsonl")
    assert b"with the id of another person's" in done.stderr
    for step in ("tok-log verify", "tok-log compact", "tok-log verify"):
        after = objects(team.run(per_user, team.tok("tok-cat --kind all").stdout, 0, team.env).stdout)
        assert [row for row in after if row["user"] == "ada"] == objects(before) != []
        team.tok(step)


def test_the_list_of_signers_is_the_users_own(ada: Person, bob: Person, trust: pathlib.Path, tmp_path: pathlib.Path) -> None:
    team = tmp_path / "team"
    team.mkdir()
    ada.export(team / "a.jsonl")
    put(team / ".git/x.jsonl", b"not read\n")
    os.symlink(trust, team / "link.jsonl")
    inside = put(team / "signers", trust.read_bytes())
    assert b"keep your copy" in bob.tok(f"tok-log import --trust {inside} {team}", 2).stderr
    trust.chmod(0o666)
    assert b"other users can change it" in bob.tok(f"tok-log import --trust {trust} {team}", 2).stderr
    trust.chmod(0o644)
    assert b"is empty" in bob.tok(f"tok-log import --trust {put(tmp_path / 'none', b'')} {team}", 2).stderr
    assert b"No such file" in bob.tok(f"tok-log import --trust nowhere {team}", 2).stderr
    assert b"no such file or directory" in bob.tok(f"tok-log import --trust {trust} nowhere", 2).stderr
    (row,) = objects(bob.tok(f"tok-log import --trust {trust} {team}").stdout)
    assert (row["files"], row["added"]) == (1, 6)


def test_sizes_are_bounded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_public, "MOST_BYTES", 1000)
    with pytest.raises(store_public.Refused, match="is larger than"):
        store_public.content(str(put(tmp_path / "big", b"x" * 1001)))
    assert store_public.content(str(put(tmp_path / "small", b"x" * 1000))) == b"x" * 1000


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("claude-opus-4-6", "claude-opus-4-6"),
        ("anthropic/claude-opus-4.6", "anthropic/claude-opus-4.6"),
        ("accounts/fireworks/models/kimi-k2", "accounts/fireworks/models/kimi-k2"),
        ("claude-opus-4@20250514", "claude-opus-4@20250514"),
        ("us.anthropic.claude-opus-4-6-v1:0", "us.anthropic.claude-opus-4-6-v1:0"),
        ("qwen3:32b", "qwen3:32b"),
        ("ft:gpt-4o-2024-08-06:acme::7p4l", "ft:gpt-4o-2024-08-06"),
        ("accounts/acme/models/own", "unknown"),
        ("arn:aws:bedrock:eu-west-1:123456789012:inference-profile/x", "unknown"),
        ("projects/acme/locations/us/models/x", "unknown"),
        ("/models/x", "unknown"),
        ("~/x", "unknown"),
        ("C:\\x", "unknown"),
        ("models/x.gguf", "unknown"),
        ("x@acme.com", "unknown"),
        ("", "unknown"),
    ],
)  # fmt: skip
def test_names_of_models(name: str, shared: str) -> None:
    assert store_public.shareable_model(name) == shared
