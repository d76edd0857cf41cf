"""Makes the records that may be shared with others out of the log's, and checks those that others made.

    header      {"format":"tokenops-public","v":1,"from":...,"log":...,"sequence":...,"records":...}
    records     turns and totals of sessions: counts, times by the hour or day, models; ids and sessions as hashes
    signature   {"signature":"-----BEGIN SSH SIGNATURE-----..."} over all bytes before this line

An id is a hash of the record's own, without a secret: every log makes the same one of the same turn. So a turn counts once,
however often it is exported, and in a log that has the turn itself the public record counts nothing (store.DayRecords).
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import datadir, events, fields, jsonl, light, regular, signing, store, store_days, store_files, when
from tokenops.events import Event

FORMAT, VERSION = "tokenops-public", 1
NAMESPACE = "tokenops-public"
EXPORTS, IMPORTS = "exports.json", "imports.json"
# A year of one person's turns has some 100 MB.
MOST_BYTES, MOST_LINE, MOST_SIGNATURE = 256 << 20, 4096, 16 << 10
# So many digests of imported files are remembered of each log.
_MOST_DIGESTS = 2000
HOUR, DAY = "hour", "day"
_MARK = b'{"format":"tokenops-public"'
_SIGNATURE = b'{"signature":'

# Fields that are always shared, if a record has them. Names are short words of a fixed alphabet.
_WORDS = (
    *("source", "client", "provider", "tier", "geo", "search_context", "usage", "covers", "cost_source"),
    *("kind", "id", "alias", "session_id"),  # the last three are hashes
)
_PLAIN = ("v", "ts", "revision", "sidechain", "provider_inferred", "cost_usd", "total_tokens", *events.SUMS)
_MODELS = ("model", "request_model")
# Fields that are shared only if the user asks for them by name.
OPTIONAL = ("effort", "subagent", "skill", "plugin", "mcp_server", "mcp_tool", "latency_ms", "ttft_ms")
_NAMES = ("project", "branch", "machine", "user", *OPTIONAL[1:6])
_MADE = ("project_id", "agent_id", "workflow_id")
FIELDS = frozenset((*_WORDS, *_PLAIN, *_MODELS, *OPTIONAL, *_NAMES, *_MADE))
_WORD = light.pattern(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,79}")
_MODEL = light.pattern(r"[A-Za-z0-9][A-Za-z0-9._:+@-]{0,99}(?:/[A-Za-z0-9][A-Za-z0-9._:+@-]{0,99}){0,3}")
# Models whose names are a place on a disk, or say whose they are: of a cloud's account, a fine-tune, an address.
_PRIVATE = light.pattern(
    r"arn:|projects/|users/|home/|(?:[^/]*/)*accounts/(?!fireworks/models/)|.*\.(?:gguf|ggml|bin|safetensors)\Z|.*@[^/@]+\.[A-Za-z]",
    re.IGNORECASE,
)
_TUNED = light.pattern(r"(ft:[A-Za-z0-9._-]{1,80}):.*")
_PERSON = light.pattern(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_ID, _KEY = light.pattern(rf"{events.PUBLIC}[0-9a-f]{{24}}"), light.pattern(r"[0-9a-f]{20}")
_LOG = light.pattern(r"[0-9a-f]{12}")


class Refused(ValueError):
    """A file of somebody's that is not imported: a sentence with the remedy. It quotes nothing of the file."""


class Share(NamedTuple):
    """What a user shares: under which name, how exact the times are, and which names go along."""

    person: str
    stamp: str = HOUR
    projects: bool = False
    branches: bool = False
    fields: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()  # those that the user named; others are hashed


class Header(NamedTuple):
    """Who made a file, of which log, and in which order: as tuples they sort so."""

    person: str
    log: str
    sequence: int
    records: int


def rows(folder: str, since: str, until: str, share: Share, salt: bytes) -> tuple[list[bytes], int]:
    """The public records of a span as lines, each once, and how many hold what cannot be shared. Raises OSError.

    Their order says no more than they do.
    """
    first = store.day_before(since[:10]) if since else ""
    last = store.day_after(until[:10]) if until != "9" else "9"
    lines, left = [], 0
    for _, records in store.records_by_day(folder, first, last):
        ids: dict[str, list[str]] = {}
        for other in records.same:
            ids.setdefault(records.name_of(other), []).append(other)
        for name, line in records.lines.items():
            if store_files.kind_of(line) in (b"turn", b"usage") and not name.startswith(events.PUBLIC):
                event = orjson.loads(line)
                if since <= event["ts"] < until and _is_shared(event, share):
                    row = public(event, _order(records, name, ids.get(name, [])), share, salt)
                    shared = jsonl.line_of(row)
                    if len(shared) > MOST_LINE or _fault(row, "9"):
                        left += 1
                    else:
                        lines.append(shared)
    return sorted(lines), left


def _is_shared(event: Event, share: Share) -> bool:
    """Whether a record is the user's own, and counts."""
    counts = event["kind"] == "turn" or event.get("covers") in (events.SESSION, events.REMAINDER)
    return counts and event.get("user", share.person) == share.person


def _order(records: store.DayRecords, name: str, others: list[str]) -> list[str]:
    """The ids of a record, first the one that all logs choose: of the client's own log, of the newest reader, by name."""

    def rank(identity: str) -> tuple[bool, int, str]:
        return identity in records.older, events.PLANES.index(records.planes.get(identity, "log")), identity

    return sorted([name, *others], key=rank)


def public(event: Event, ids: list[str], share: Share, salt: bytes) -> Event:
    """The public record of one of the log's, which has some ids."""
    row: Event = {name: event[name] for name in _PLAIN if name in event}
    row |= {name: event[name] for name in _WORDS if _WORD.fullmatch(str(event.get(name, "")))}
    row |= {name: shareable_model(event[name]) for name in _MODELS if name in event}
    if row.get("request_model") in (row.get("model"), "unknown"):
        row.pop("request_model", None)
    row |= {name: event[name] for name in share.fields if name in event and _is_printable(event[name])}
    row["ts"] = f"{event['ts'][:13]}:00:00.000Z" if share.stamp == HOUR else f"{event['ts'][:10]}T12:00:00.000Z"
    row["id"] = events.public_id(ids[0])
    row.pop("alias", None)
    older = [*ids[1:], *([event["alias"]] if events.names_older(event) else [])]
    if older:
        row["alias"] = events.public_id(older[0])
    agent = str(row.get("client", "unknown"))
    if share.projects and event.get("project") and _is_printable(event["project"]):
        row["project"] = event["project"]
        agent = f"{agent}:{event['project']}"
        if event.get("project_id"):
            row["project_id"] = _hash("project", event["project_id"], salt)[:12]
    if share.branches and event.get("branch") and _is_printable(event["branch"]):
        row["branch"] = event["branch"]
    row["agent_id"] = agent
    if session := event.get("session_id"):
        row["session_id"] = _hash("session", session, salt)
        row["workflow_id"] = f"{agent}:{row['session_id']}"
    machine = event.get("machine", "")
    row |= {"machine": machine if machine in share.machines else f"h:{_hash('machine', machine, salt)[:12]}"}
    return events.arrange(fields.fit_all(row | {"user": share.person}))


def _is_printable(value: object) -> bool:
    return type(value) is not str or value.isprintable()


def _hash(what: str, name: str, salt: bytes) -> str:
    """A hash that only this log's salt gives, and always the same."""
    return light.blake2b(events.order_of((what, name)), key=salt[:64], digest_size=10).hexdigest()


def shareable_model(name: str) -> str:
    """A model's name if it is nobody's own; of a fine-tune the model that it was made from; else `unknown`."""
    if tuned := _TUNED.fullmatch(name):
        return tuned[1]
    return name if _MODEL.fullmatch(name) and not _PRIVATE.match(name) else "unknown"


def document(lines: list[bytes], person: str, folder: str, now: int, salt: bytes) -> bytes:
    """A header and public records, to be signed. Raises OSError."""
    path = os.path.join(folder, EXPORTS)
    with datadir.lock(folder):
        before = datadir.kept_json(path)
        last = before.get("sequence") if type(before) is dict else 0
        sequence = max(now, last + 1 if type(last) is int else 0)
        datadir.keep_json(path, {"sequence": sequence}, durable=True)
    head = {"format": FORMAT, "v": VERSION, "from": person, "log": _hash("log", "", salt)[:12], "sequence": sequence}
    return b"".join([orjson.dumps(head | {"made": when.stamp(now), "records": len(lines)}) + b"\n", *lines])


def with_signature(text: bytes, key: str) -> bytes:
    """A document with its signature as the last line. Raises signing.NotSigned, OSError."""
    return text + orjson.dumps({"signature": signing.sign(text, key, NAMESPACE).decode()}) + b"\n"


def is_public(path: str) -> bool:
    """Whether a file is such a document. Raises OSError."""
    if os.path.isdir(path):
        return False
    with open(path, "rb", opener=regular.opener) as file:
        return file.read(len(_MARK)) == _MARK


def files_in(path: str) -> list[str]:
    """A file, or those of a folder whose names end with .jsonl; links and hidden folders are left out. Raises OSError."""
    if not os.path.isdir(path):
        return [path]
    files = []
    for at, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [os.path.join(at, name) for name in sorted(names) if name.endswith(".jsonl") and not name.startswith(".")]
        files += [file for file in paths if not os.path.islink(file)]
    return files


def is_person(name: str) -> bool:
    """Whether a person can sign under a name: ssh-keygen gives some characters a meaning."""
    return _PERSON.fullmatch(name) is not None


def beginning(path: str) -> bytes:
    """The bytes of a document in which its header is. Raises OSError."""
    with open(path, "rb", opener=regular.opener) as file:
        return file.read(MOST_LINE)


def content(path: str) -> bytes:
    """The bytes of a document. Raises Refused, OSError."""
    with open(path, "rb", opener=regular.opener) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise Refused(f"is larger than {MOST_BYTES >> 20} MiB; ask for an export of a shorter span (--since)")
    return data


def header_of(data: bytes) -> Header:
    """The header of a document, checked by nobody yet. Raises Refused."""
    end = data.find(b"\n", 0, MOST_LINE) + 1
    head = _object(data[:end])
    if head is None or head.get("format") != FORMAT:
        raise Refused("is not an export of tok-log export --public; leave it out")
    if head.get("v") != VERSION:
        raise Refused("is of another version of the format; install a newer TokenOps")
    person, log, sequence, count = (head.get(name) for name in ("from", "log", "sequence", "records"))
    named = type(person) is str and _PERSON.fullmatch(person) and type(log) is str and _LOG.fullmatch(log)
    if not named or not all(type(number) is int and 0 <= number < fields.MOST for number in (sequence, count)):
        raise Refused("has a damaged header; ask for a new export")
    return Header(str(person), str(log), int(sequence or 0), int(count or 0))


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except ValueError:
        return None
    return value if type(value) is dict else None


def verify(data: bytes, head: Header, signers: bytes) -> list[bytes]:
    """The lines of the records of a document that the person in its header signed. Raises Refused, OSError."""
    at = data.rfind(b"\n", 0, len(data) - 1) + 1
    if not data.endswith(b"}\n") or not data.startswith(_SIGNATURE, at):
        raise Refused("is not signed, or its end is missing; ask for a whole export made with --key")
    last = _object(data[at:]) if len(data) - at <= MOST_SIGNATURE else None
    signature = last.get("signature") if last else None
    if type(signature) is not str:
        raise Refused("has a damaged signature; ask for a new export")
    text = data[:at]
    if signing.signer(text, signature.encode(errors="replace"), signers, head.person, NAMESPACE) is None:
        raise Refused(
            f"is not signed by a key that the list of signers has for {head.person}, or was changed afterwards; "
            "compare the key with theirs, or ask for a new export"
        )
    lines = text.split(b"\n")[1:-1]
    if len(lines) != head.records:
        raise Refused(f"has {len(lines):,} records and announces {head.records:,}; ask for a new export")
    return lines


def records_of(lines: Iterable[bytes], head: Header, now: int) -> Iterator[bytes]:
    """The lines of a document as the log takes them, of the person that signed it. Raises Refused."""
    latest = when.stamp(now + when.DAY)
    for number, line in enumerate(lines, 2):
        record = _object(line) if len(line) <= MOST_LINE else None
        why = "not a record" if record is None else _fault(record, latest)
        if why or record is None:
            raise Refused(f"line {number}: {why}; nothing of it was imported, ask {head.person} for a new export")
        yield jsonl.line_of(events.arrange(record | {"user": head.person} | _session_of(record, head.person)))


def _session_of(record: Event, person: str) -> Event:
    """The session of a record as the log names it: a person's own, so that nobody adds to the sessions of another."""
    if "session_id" not in record:
        return {}
    key = light.blake2b(events.order_of((person, record["session_id"])), digest_size=10).hexdigest()
    workflow = {"workflow_id": f"{record['workflow_id'].rpartition(':')[0]}:{key}"} if "workflow_id" in record else {}
    return {"session_id": key} | workflow


def _fault(record: Event, latest: str) -> str:
    """Why a record is not one that an export has, "" if it is. Nothing of it is quoted."""
    if not record.keys() <= FIELDS:
        return "a field that is never shared"
    if why := fields.fault(record):
        return why
    if record["kind"] != "turn" and (
        record["kind"] != "usage" or record.get("covers") not in (events.SESSION, events.REMAINDER)
    ):
        return "a kind of record that is never shared"
    if record["ts"] > latest:
        return "a time in the future"
    if not all(_ID.fullmatch(record[name]) for name in ("id", "alias") if name in record):
        return "an id in clear"
    if "session_id" in record and not _KEY.fullmatch(record["session_id"]):
        return "a session in clear"
    words = [record[name] for name in (*_WORDS[:-3], "effort") if name in record]
    models = [record[name] for name in _MODELS if name in record]
    if not all(map(_WORD.fullmatch, words)) or models != list(map(shareable_model, models)):
        return "a name that is never shared"
    if not all(record[name].isprintable() for name in _NAMES if name in record):
        return "a name that cannot be printed"
    agent = ":".join([record.get("client", "unknown"), *([record["project"]] if "project" in record else [])])
    session = f"{agent}:{record.get('session_id')}"
    usual = {"agent_id": agent, "workflow_id": session, "project_id": record.get("project_id", "")}
    is_usual = _LOG.fullmatch(record.get("project_id", "0" * 12)) and all(
        record[name] == usual[name] for name in _MADE if name in record
    )
    return "" if is_usual else "ids that an export does not have"


class Imports:
    """Remembers which documents of each person's log were imported, so that an older one does not come after a newer one."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, IMPORTS)
        data = datadir.kept_json(self.path)
        self.streams: dict[str, Any] = data if type(data) is dict else {}

    def has(self, head: Header, digest: str) -> bool:
        """Whether a document was imported before. Raises Refused for another one that is older than the last."""
        stream = self._stream(head)
        if digest in stream["digests"]:
            return True
        if head.sequence <= stream["sequence"]:
            raise Refused(
                f"is older than the export of {head.person} that was imported last; ask {head.person} for a new export"
            )
        return False

    def keep(self, head: Header, digest: str) -> None:
        """Note that a document was imported. Raises OSError."""
        digests = [*self._stream(head)["digests"], digest][-_MOST_DIGESTS:]
        self.streams[f"{head.person}/{head.log}"] = {"sequence": head.sequence, "digests": digests}
        datadir.keep_json(self.path, self.streams, durable=True)

    def _stream(self, head: Header) -> dict[str, Any]:
        entry = self.streams.get(f"{head.person}/{head.log}")
        if type(entry) is dict and type(entry.get("sequence")) is int and type(entry.get("digests")) is list:
            return entry
        return {"sequence": -1, "digests": []}


def digest_of(data: bytes) -> str:
    """By what a document is remembered."""
    return light.blake2b(data, digest_size=12).hexdigest()


class Added(NamedTuple):
    """How many records were added, and how many were left out because another person's have their ids."""

    records: int
    others: int


def add(folder: str, lines: list[bytes], person: str) -> Added:
    """Add a person's public records to a log, without those that it has itself or that change nothing. Raises OSError.

    Nor those whose ids another person's records have: what somebody signs changes nothing that is another's.
    """
    days = {store_files.day_of(line) for line in lines}
    near = {other for day in days for other in store_days.near(day)}
    own, others = _ids_in(folder, near, person)
    foreign = [line for line in lines if own.isdisjoint(_ids_of(line))]
    sound = [line for line in foreign if others.isdisjoint(_ids_of(line))]
    return Added(store.append(folder, store.new_lines(folder, sound)[0]), len(foreign) - len(sound))


def _ids_of(line: bytes) -> list[str]:
    record: Mapping[str, Any] = orjson.loads(line)
    return [record["id"], *([record["alias"]] if "alias" in record else [])]


def _ids_in(folder: str, days: Container[str], person: str) -> tuple[set[str], set[str]]:
    """The public ids of the records that the log has itself, on some days; and those that others than a person shared."""
    own: set[str] = set()
    others: set[str] = set()
    for _, records in store.records_by_day(folder, among=days):
        own |= records.own_ids()
        for name in {*records.lines, *records.same}:
            if name.startswith(events.PUBLIC) and (line := records.lines.get(records.name_of(name))):
                record: Mapping[str, Any] = orjson.loads(line)
                if record.get("user") != person:
                    others |= {name, *_ids_of(line)}
    return own, others
