"""Says which machine and which user events are of, and stamps an event when the log first stores it.

The names are the user's (`machine`, `user` in the configuration); without one a machine is called by its host's name, and
the user is not known. A stamp says where an event was read, so only an event that has no machine is stamped, and only by
the machine whose own clients, proxy or pollers it comes from. Identities are made before, so they never depend on a stamp.
An empty name stamps nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import orjson

from tokenops import datadir, events, fields, jsonl, light, untrusted
from tokenops.events import Event

if TYPE_CHECKING:
    from tokenops import config

# Environment variables that come before the file: each container can be given one.
ENVIRONMENT = {"machine": "TOKENOPS_MACHINE", "user": "TOKENOPS_USER"}


class Owner(NamedTuple):
    """The machine and the user of events; "" where not known."""

    machine: str = ""
    user: str = ""


NOBODY = Owner()


def host_name() -> str:
    """The name of this host without its domain, which changes with the network that a laptop is in; "" if it has none."""
    name = os.uname().nodename.partition(".")[0]
    return "" if fields.name_fault(name) else name


def here(settings: config.Config, environment: Mapping[str, str]) -> Owner:
    """This machine and its user, as they are named now. Raises config.Unusable for a name that no event can have."""
    machine, user = (own_name(key, settings, environment) for key in ENVIRONMENT)
    return Owner(host_name() if machine is None else machine, user or "")


def here_if_usable(settings: config.Config, environment: Mapping[str, str]) -> Owner:
    """The same for what must go on whatever the names are, such as a hook: nobody if one cannot be used."""
    try:
        return here(settings, environment)
    except ValueError:
        return NOBODY


def own_name(key: str, settings: config.Config, environment: Mapping[str, str]) -> str | None:
    """The name that the user gave the machine or the user; None if none, "" if there is to be none.

    `ship.machine` and `ship.user`, which named them for tok-ship alone, count where there is no other name. Raises
    config.Unusable.
    """
    location = ENVIRONMENT[key]
    value: object = environment.get(location)
    for path in ((key,), ("ship", key)):
        if value is None:
            location, value = f"{settings.path}: {'.'.join(path)}", settings.get(*path)
    if not value and type(value) is not bool:
        return None if value is None else ""
    name = str(value) if type(value) is int else value
    why = fields.name_fault(name) or (
        f"is {events.UNKNOWN!r}, which reports call what has no name" if name == events.UNKNOWN else ""
    )
    if why:
        from tokenops import config

        raise config.Unusable(location, f"it {why}", "write a short name, such as laptop")
    return str(name)


def names_of(folder: str) -> list[str]:
    """The names that this machine had when it read its own files into a log, the first one first."""
    content = untrusted.mapping(datadir.kept_json(os.path.join(folder, _NAMES)))
    return [name for name in untrusted.items(content.get("names")) if type(name) is str and not fields.name_fault(name)]


def remember(folder: str, owner: Owner) -> None:
    """Note the name that this machine has now: what it recorded stays its own under the next one. Raises OSError."""
    names = names_of(folder)
    if owner.machine and owner.machine not in names:
        datadir.keep_json(os.path.join(folder, _NAMES), {"v": 1, "names": [*names, owner.machine]}, durable=True)


_NAMES = "machines.json"


def owner_of(event: Event) -> Owner:
    """The machine and the user that an event names."""
    return Owner(event.get("machine", ""), event.get("user", ""))


def is_stamped(line: bytes) -> bool:
    """Whether the line of an event names its machine."""
    if _MACHINE not in line:
        return False
    match = _BEFORE.match(line)
    return bool(match and line.startswith(_MACHINE, match.end() + 1)) or "machine" in orjson.loads(line)


def stamp(line: bytes, owner: Owner) -> bytes:
    """The line of an event with its owner, if it names no machine; else as it is. A line that is not JSON stays, too."""
    if not owner.machine:
        return line
    match = _BEFORE.match(line)
    if match is None or _MACHINE in line or _USER in line:
        return _stamp_any(line, owner)
    end = match.end()
    return b"".join((line[:end], b",", _text(owner), line[end:]))


def _stamp_any(line: bytes, owner: Owner) -> bytes:
    """As `stamp`, of a line in any form."""
    try:
        event = orjson.loads(line)
    except ValueError:
        return line
    if type(event) is not dict or "machine" in event:
        return line
    stamped = {"machine": owner.machine, "user": owner.user} if owner.user else {"machine": owner.machine}
    return jsonl.line_of(events.arrange(stamped | event))


def stamp_all(lines: Iterable[bytes], owner: Owner) -> Iterator[bytes]:
    """The lines of events, each stamped."""
    return (stamp(line, owner) for line in lines)


@functools.lru_cache(64)
def _text(owner: Owner) -> bytes:
    text = b'"machine":' + jsonl.data_of(owner.machine)
    return text + b',"user":' + jsonl.data_of(owner.user) if owner.user else text


_MACHINE, _USER = b'"machine":', b'"user":'
_VALUE = r'(?:"(?:[^"\\]++|\\.)*+"|[0-9a-z]++)'
# The fields before the stamp, in the order of the record (events.arrange).
_BEFORE = light.pattern(
    (
        rf'\{{"v":1,"ts":{_VALUE},"kind":{_VALUE},"id":{_VALUE}'
        + "".join(f'(?:,"{name}":{_VALUE})?+' for name in ("alias", "source", "revision", "client", "project", "project_id"))
    ).encode()
)
