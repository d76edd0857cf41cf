"""Tar streams from elsewhere: only files that were asked for are taken, whatever else stands in the stream."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from tokenops import pull_files, pull_tar, read_clients

ASKED = {"a/one.jsonl": 1000, "a/two.jsonl": 1000, "b/" + "long" * 60 + ".jsonl": 1000}


def archive(*entries: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as file:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                file.addfile(entry, io.BytesIO(b"x" * entry.size))
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                file.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def odd(name: str, kind: bytes, link: str = "", **headers: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, link, headers
    return info


def taken(data: bytes, most: dict[str, int] = ASKED) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    refusals: list[tuple[str, str]] = []
    files = {}
    for member in pull_tar.members(io.BytesIO(data), most, lambda name, why: refusals.append((name, why))):
        files[member.name] = b"".join(member.pieces())
    return files, refusals


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_files_of_each_format(form: int) -> None:
    names = [name for name in ASKED if len(name) < 100 or form != tarfile.USTAR_FORMAT]
    files, refusals = taken(archive(*((f"./{name}", name.encode() * 3) for name in names), form=form))
    assert files == {name: name.encode() * 3 for name in names}
    assert refusals == []


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (("/a/one.jsonl", b"x"), "an absolute path"),
        (("../a/one.jsonl", b"x"), "a path that leads out of the home directory"),
        (("a/../../one.jsonl", b"x"), "a path that leads out of the home directory"),
        (("a/other.jsonl", b"x"), "it was not asked for"),
        ((".claude/.credentials.json", b"x"), "it was not asked for"),
        (("a/one.jsonl", b"x" * 1001), "larger than 1,000 bytes"),
        (odd("a/one.jsonl", tarfile.SYMTYPE, "/etc/passwd"), "a link, expected a file"),
        (odd("a/one.jsonl", tarfile.LNKTYPE, "a/two.jsonl"), "a link, expected a file"),
        (odd("a/one.jsonl", tarfile.CHRTYPE), "a device, expected a file"),
        (odd("a/one.jsonl", tarfile.BLKTYPE), "a device, expected a file"),
        (odd("a/one.jsonl", tarfile.FIFOTYPE), "a pipe, expected a file"),
        (odd("a/one.jsonl", tarfile.DIRTYPE), "a directory, expected a file"),
        (odd("a/one.jsonl", tarfile.GNUTYPE_SPARSE), "a sparse file, expected a file"),
        (odd("a/one.jsonl", b"Z"), "not a file, expected a file"),
    ],
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_is_not_taken(entry: tuple[str, bytes] | tarfile.TarInfo, why: str, form: int) -> None:
    """Each with a sentence; the files around it are taken."""
    files, refusals = taken(archive(("a/two.jsonl", b"before"), entry, ("b/" + "long" * 60 + ".jsonl", b"after"), form=form))
    assert files == {"a/two.jsonl": b"before", "b/" + "long" * 60 + ".jsonl": b"after"}
    assert [reason for _, reason in refusals] == [why]


def test_a_sparse_file_of_pax() -> None:
    entry = odd("a/one.jsonl", tarfile.REGTYPE, **{"GNU.sparse.major": "1", "GNU.sparse.realsize": "9999999999"})
    assert taken(archive(entry, form=tarfile.PAX_FORMAT)) == ({}, [("a/one.jsonl", "a sparse file, expected a file")])


def test_a_second_file_of_a_name() -> None:
    files, refusals = taken(archive(("a/one.jsonl", b"first"), ("./a/one.jsonl", b"second")))
    assert files == {"a/one.jsonl": b"first"}
    assert refusals == [("a/one.jsonl", "a second file of this name")]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "without its end"),
        (b"Last login: today\n" * 100, "it is damaged"),
        (archive(("a/one.jsonl", b"x" * 900))[:700], "middle of a file"),
        (archive(("a/one.jsonl", b"x" * 900))[:1024], "middle of a file"),
        (archive(*((f"x{n}", b"") for n in range(300))), "too much that was not asked for"),
        (archive(("n" * 70_000, b"")), "a header of it is too large"),
        (archive(odd("a", tarfile.REGTYPE, comment="c" * 70_000), form=tarfile.PAX_FORMAT), "a header of it is too large"),
    ],
)
def test_streams_that_end_the_reading(data: bytes, why: str) -> None:
    with pytest.raises(pull_tar.Broken, match=why):
        taken(data)


def test_a_size_that_is_no_number() -> None:
    block = bytearray(archive(("a/one.jsonl", b"x")))
    for field in (b"-0000000001\0", b"\x80" + b"\xff" * 11, b"9" * 12):
        block[124:136] = field
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:512]) + 256)
        with pytest.raises(pull_tar.Broken, match="too large, or it is damaged"):
            taken(bytes(block))


@pytest.mark.hypothesis
@examples(200)
@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    """Whatever bytes change, files that were asked for are taken or not; nothing else is, and no more than allowed."""
    whole = bytearray(
        archive(("a/one.jsonl", b"one" * 99), ("a/two.jsonl", b"two" * 99), form=data.draw(st.sampled_from([0, 1, 2])))
    )
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=20))
    if data.draw(st.booleans()):  # checksums are no protection against intent
        for at in range(0, len(whole) - 512, 512):
            if whole[at + 257 : at + 262] == b"ustar":
                whole[at + 148 : at + 156] = b"%06o\0 " % (sum(whole[at : at + 148]) + sum(whole[at + 156 : at + 512]) + 256)
    files: dict[str, int] = {}
    try:
        for member in pull_tar.members(io.BytesIO(bytes(whole)), ASKED, lambda name, why: None):
            files[member.name] = sum(map(len, member.pieces()))
    except pull_tar.Broken:
        pass
    assert files.keys() <= ASKED.keys()
    assert all(size <= ASKED[name] for name, size in files.items())


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (".claude/projects/-home-ada-app/s1.jsonl", ["claude"]),
        (".config/claude/projects/p/s1/subagents/agent-a.meta.json", ["claude"]),
        (".claude/.credentials.json", []),
        (".claude/settings.json", []),
        (".claude.json", []),
        (".claude/history.jsonl", []),
        (".claude/stats-cache.json", ["stats-cache"]),
        (".codex/sessions/2026/05/02/rollout-2026-05-02T10-00-00-x.jsonl", ["codex"]),
        (".codex/sessions/rollout.jsonl.zst", ["codex"]),
        (".codex/auth.json", []),
        (".codex/config.toml", []),
        (".gemini/oauth_creds.json", []),
        (".gemini/tmp/abc/chats/session-1.json", ["gemini"]),
        (".gemini/tmp/abc/chats/oauth_creds.json", []),
        (".kimi/config.toml", []),
        (".kimi/sessions/g/s/wire.jsonl", ["kimi"]),
        (".factory/settings.json", []),
        (".factory/sessions/p/s.settings.json", ["droid"]),
        (".local/share/opencode/auth.json", []),
        (".local/share/opencode/opencode.db-wal", ["opencode"]),
        (".openclaw/openclaw.json", []),
        (".openclaw/credentials/whatsapp.json", []),
        (".ssh/id_ed25519", []),
        (".aws/credentials", []),
        ("notes.jsonl", []),
    ],
)
def test_what_may_be_asked_for(path: str, names: list[str]) -> None:
    assert [client.name for client in pull_files.clients_of(path)] == names


def test_each_client_has_patterns() -> None:
    """A new client is added to them, or it is said why not."""
    listed = {client.name for client in read_clients.CLIENTS if client.homes}
    assert listed - pull_files.PATTERNS.keys() == {"claude-usage"}
    assert pull_files.PATTERNS.keys() <= listed
