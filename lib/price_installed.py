"""Keeps the price catalogues that tok-price update installed, and says which is in force.

`$TOKENOPS_HOME/prices/` holds each as the file that was fetched, named by its checksum, and state.json, which names the one
in force and those before it. A file is on the disk before the state names it, and the state is replaced whole: a reader
finds one catalogue or the other, never a part of one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tokenops import catalog, datadir, light, regular

Data = dict[str, Any]
# How many of those before are kept, to go back to.
MOST_BEFORE = 5
_LINE = re.compile(rb"^---[ \t]*\r?$", re.MULTILINE)
_PROVIDER = re.compile(rb"^provider:[ \t]*[\"']?([\w.-]+)[\"']?[ \t]*(?:#.*)?\r?$", re.MULTILINE)
_REMEDY = "run tok-price update --back, or tok-price update --force"


class Installed(NamedTuple):
    """One catalogue: what its head says, and where it came from."""

    name: str
    serial: int
    published: str  # RFC 3339
    sha256: str
    check: str  # a checksum that is fast to compare at each start
    url: str
    verified: str  # by which key or checksum
    since: str  # in force since, RFC 3339

    @property
    def title(self) -> str:
        """Name and serial, for sentences."""
        return f"{self.name} {self.serial}"


class State(NamedTuple):
    """What is in force (None: what came with the program), what was before it, latest first, and the highest seen."""

    in_force: Installed | None = None
    before: tuple[Installed | None, ...] = ()
    highest: Installed | None = None  # the newest that was ever in force: what is older was seen or replayed


def folder_of(log_folder: str) -> str:
    """The directory of the installed catalogues of a log."""
    return os.path.join(log_folder, "prices")


def state_path(log_folder: str) -> str:
    """The file that says which catalogue is in force; it changes with each update. It need not exist."""
    return os.path.join(folder_of(log_folder), "state.json")


def path_of(log_folder: str, entry: Installed) -> str:
    """The file of an installed catalogue."""
    return os.path.join(folder_of(log_folder), f"{entry.sha256}.yaml")


def state(log_folder: str) -> State:
    """What is in force. Raises catalog.Malformed for a damaged file: its prices would be others without a word. OSError."""
    path = state_path(log_folder)
    try:
        with open(path, "rb", opener=regular.opener) as file:
            data = datadir.unseal(file.read())
        before = tuple(_entry(row) for row in data["before"])
        return State(_entry(data["in_force"]), before, _entry(data["highest"]))
    except FileNotFoundError:
        return State()
    except (ValueError, TypeError, KeyError):
        raise catalog.Malformed(f"{path}: is damaged, so it is not known which prices apply; {_REMEDY}") from None


def _entry(row: Data | None) -> Installed | None:
    return None if row is None else Installed(**row)


def keep(log_folder: str, new: State) -> None:
    """Put a state in force; its files must be there. Raises OSError."""
    row = {"in_force": _row(new.in_force), "before": [_row(entry) for entry in new.before], "highest": _row(new.highest)}
    datadir.keep_json(state_path(log_folder), row, durable=True)


def _row(entry: Installed | None) -> Data | None:
    return None if entry is None else entry._asdict()


def checksum(text: bytes) -> str:
    """A checksum of a file that needs none of hashlib."""
    return light.blake2b(text, digest_size=16).hexdigest()


def text_of(log_folder: str, entry: Installed) -> bytes:
    """The text of an installed catalogue. Raises catalog.Malformed if it is missing or damaged, OSError."""
    path = path_of(log_folder, entry)
    try:
        with open(path, "rb", opener=regular.opener) as file:
            text = file.read()
    except FileNotFoundError:
        raise catalog.Malformed(f"{path}: the prices in force are gone; {_REMEDY}") from None
    if checksum(text) != entry.check:
        raise catalog.Malformed(f"{path}: the prices in force are damaged; {_REMEDY}")
    return text


def texts(log_folder: str) -> dict[str, bytes]:
    """The prices in force that did not come with the program: file -> text per provider. Raises Malformed, OSError."""
    entry = state(log_folder).in_force
    return {} if entry is None else parts(text_of(log_folder, entry), path_of(log_folder, entry))[1]


def parts(text: bytes, path: str) -> tuple[bytes, dict[str, bytes]]:
    """The head of a catalogue's file, and the text of each provider by a name of its own, `path (provider)`.

    Each is a YAML document. Blank lines stand for those before it, so that a message names the line of the file.
    """
    starts = [0, *(match.end() for match in _LINE.finditer(text))]
    ends = [*(match.start() for match in _LINE.finditer(text)), len(text)]
    documents = [b"\n" * text.count(b"\n", 0, start) + text[start:end] for start, end in zip(starts, ends, strict=True)]
    if not documents[0].strip() and len(documents) > 1:  # the file begins with a line of dashes
        documents = documents[1:]
    named: dict[str, bytes] = {}
    for number, document in enumerate(documents[1:], 2):
        owner = provider_of(document)
        name = f"{path} ({owner})" if owner and f"{path} ({owner})" not in named else f"{path} (document {number})"
        named[name] = document
    return documents[0], named


def provider_of(text: bytes) -> str:
    """The provider that a price file names; "" if it names none in the usual way."""
    match = _PROVIDER.search(text)
    return match[1].decode() if match else ""


def files_in_force(built_in: Mapping[str, bytes], own: Mapping[str, bytes]) -> dict[str, bytes]:
    """The price files that are in force: a provider of an installed catalogue replaces the whole provider."""
    replaced = {provider_of(text) for text in own.values()}
    return {name: text for name, text in built_in.items() if provider_of(text) not in replaced} | dict(own)
