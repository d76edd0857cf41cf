"""Judges a fetched catalogue of prices, puts it in force, and goes back to the one before.

What lint refuses is never installed. What is old, was seen before, or changes a price tenfold waits until the user says
--force.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import (
    catalog,
    config,
    datadir,
    price_cards,
    price_files,
    price_history,
    price_installed,
    price_lint,
    pricing,
    show,
    when,
)
from tokenops.price_fetch import Refused
from tokenops.price_installed import Installed, State

Data = dict[str, Any]
# A price that became so many times larger or smaller is more often in a wrong unit than a new price.
JUMP = 10
_HEAD = ("schema", "catalogue", "serial", "published", "note")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_CAPTURED = re.compile(rb"captured: *[\"']?(\d{4}-\d\d-\d\d)")


class Incoming(NamedTuple):
    """A catalogue that was fetched and verified, and has the right form."""

    text: bytes
    name: str
    serial: int
    published: str
    parts: Mapping[str, bytes]  # file -> text per provider

    def entry(self, url: str, verified: str, now: str) -> Installed:
        """The catalogue as one that is installed."""
        sha256, check = hashlib.sha256(self.text).hexdigest(), price_installed.checksum(self.text)
        return Installed(self.name, self.serial, self.published, sha256, check, url, verified, now)


class Verdict(NamedTuple):
    """What speaks against a catalogue: always, and unless the user says --force. `changes`: what it changes."""

    refused: list[str]
    waiting: list[str]
    changes: list[Data]


def read(text: bytes, url: str) -> Incoming:
    """A verified catalogue, if its form is right. Raises Refused."""
    path = url.rpartition("/")[2]
    try:
        head, parts = price_installed.parts(text, path)
        name, serial, published = _head(_plain(head, path), path)
        for part, body in parts.items():
            owner = price_installed.provider_of(body)
            if not owner or _plain(body, part).get("provider") != owner:
                raise Refused(f"{part}: write `provider: NAME` on a line of its own")
        owners = [price_installed.provider_of(body) for body in parts.values()]
        if not owners or len(owners) != len(set(owners)):
            raise Refused(f"{path}: {'a provider stands in it twice' if owners else 'no provider stands in it'}; correct it")
        _catalogue_of(parts)
        return Incoming(text, name, serial, published, parts)
    except catalog.Malformed as error:
        raise Refused(str(error).removesuffix("; or go back with tok-price update --back")) from None


def _catalogue_of(texts: Mapping[str, bytes]) -> pricing.Catalogue:
    """Some price files as a catalogue. Raises catalog.Malformed."""
    return pricing.from_texts(catalog.sources("providers.yaml") | dict(texts))


def _plain(text: bytes, name: str) -> Data:
    """One document without aliases, which can stand for more than fits into memory, and without characters that hide.

    Raises Refused, catalog.Malformed.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, loader)):
            raise Refused(f"{name}: has a YAML alias (*name); write the value out")
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError):
        pass  # parse says where
    data = catalog.parse(text, name)
    level = [data]
    while level:
        for value in level:
            if isinstance(value, str) and (spelled := value.replace("\n", " ")) != show.safe(spelled):
                raise Refused(f"{name}: a value holds control characters ({show.safe(value)[:60]}); remove them")
        level = [item for part in level if isinstance(part, (dict, list)) for item in _items(part)]
    return data if isinstance(data, dict) else {}


def _items(part: Data | list[Any]) -> list[Any]:
    return [*part, *part.values()] if isinstance(part, dict) else part


def _head(head: Data, path: str) -> tuple[str, int, str]:
    """Name, serial and time of a catalogue. Raises Refused."""
    schema, name, serial = head.get("schema"), head.get("catalogue"), head.get("serial")
    if schema != 1 or isinstance(schema, bool):
        shown = show.safe(str(schema))[:20]
        raise Refused(f"{path}:1: `schema` is {shown}, not 1; is it a catalogue, or one for a newer version of TokenOps?")
    if unknown := [str(key) for key in head if key not in _HEAD]:
        raise Refused(f"{path}:1: unknown key {unknown[0][:40]!r}; the first document has {', '.join(_HEAD)}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refused(f"{path}:1: `catalogue` must be a name of small letters, digits, `.`, `_` and `-`")
    if isinstance(serial, bool) or not isinstance(serial, int) or not 1 <= serial < 2**53:
        raise Refused(f"{path}:1: `serial` must be a whole number, 1 or more, that grows with each version")
    try:
        return name, serial, price_cards.instant(head.get("published"))
    except config.Unusable:
        raise Refused(f"{path}:1: `published` must be a time such as 2026-12-01T09:00:00Z") from None


def texts_in_force(log_folder: str) -> dict[str, bytes]:
    """The price files in force. Raises catalog.Malformed, OSError."""
    return price_installed.files_in_force(price_files.texts(), price_installed.texts(log_folder))


def judge(incoming: Incoming, state: State, old: Mapping[str, bytes], now: int) -> Verdict:
    """What speaks against a catalogue, and what it changes. `old`: the price files in force."""
    new = price_installed.files_in_force(price_files.texts(), incoming.parts)
    same = set(old.values()) & set(new.values())  # providers that stay as they are need no comparison
    before, after = ({name: text for name, text in texts.items() if text not in same} for texts in (old, new))
    refused: list[str] = []
    waiting: list[str] = []
    if when.moment(incoming.published) > now + when.DAY:
        refused.append(f"it is dated {incoming.published[:10]}, in the future; check this machine's clock")
    rules, day = price_lint.rules(), incoming.published[:10]  # the day on which it was right, or not
    for fault in price_lint.faults(incoming.parts, rules, day):
        (refused if fault.level == price_files.REFUSED else waiting).append(_sentence(fault))
    waiting += _age(incoming, state, old)
    waiting += map(_sentence, price_history.faults(after, before, rules, day))
    changed = list(changes(_catalogue_of(after), _catalogue_of(before), when.stamp(now)))
    waiting += [
        f"{row['provider']} {row['model']}: {row['change']}, ten times or more" for row in changed if row.get("jump")
    ]
    return Verdict(refused, list(dict.fromkeys(waiting)), changed)


def _sentence(fault: price_files.Fault) -> str:
    return f"{fault.location}: {fault.model + ': ' if fault.model else ''}{fault.what}"


def _age(incoming: Incoming, state: State, old: Mapping[str, bytes]) -> Iterator[str]:
    """Whether a catalogue is older than what was seen before: by its own serial and date, and by when prices were read."""
    seen = state.highest
    if seen is not None and seen.name != incoming.name:
        yield f"it is the catalogue {incoming.name}, and {seen.name} was installed before"
    elif seen is not None and incoming.serial <= seen.serial:
        yield f"its serial is {incoming.serial}, and {seen.serial} was installed before: it is older, or was sent again"
    elif seen is not None and incoming.published < seen.published:
        yield f"it is dated {incoming.published[:10]}, before the one of {seen.published[:10]} that was installed"
    read_on = {price_installed.provider_of(text): _latest_reading(text) for text in old.values()}
    for part, text in incoming.parts.items():
        latest = read_on.get(price_installed.provider_of(text), "")
        if _latest_reading(text) < latest:
            yield f"{part}: its prices were read on {_latest_reading(text) or 'no day'}, those in force on {latest}"


def _latest_reading(text: bytes) -> str:
    """The latest day on which a source of a price file was read."""
    return max((day.decode() for day in _CAPTURED.findall(text)), default="")


def changes(new: pricing.Catalogue, old: pricing.Catalogue, now: str) -> Iterator[Data]:
    """A row for each name whose prices differ; `jump` if a price is ten times larger or smaller."""
    for provider in sorted(old.providers.keys() | new.providers.keys()):
        before, after = old.providers.get(provider), new.providers.get(provider)
        names = {name for body in (before, after) if body for name in (*body["models"], *body["aliases"])}
        for name in sorted(names):
            was = pricing.rows_of(before, name) if before else None
            will = pricing.rows_of(after, name) if after else None
            row: Data = {"v": 1, "kind": "price_update_change", "provider": provider, "model": name}
            if was and will:
                if _prices(was) != _prices(will):
                    jumps = _jumps(was, will, now)
                    words = jumps or list(_differences(was, will, now)) or ["other dates, tiers, steps or fees"]
                    yield row | {"change": ", ".join(words)} | ({"jump": True} if jumps else {})
            elif was or will:
                yield row | {"change": "new" if will else "gone: it has no price any more"}


def _prices(rows: list[Data]) -> list[Data]:
    """Intervals without what only explains them."""
    explaining = ("src", "confidence", "note", "correction", "scheduled")
    return [{key: value for key, value in row.items() if key not in explaining} for row in rows]


def _at(rows: list[Data], ts: str) -> dict[str, str]:
    """Tier and class -> price in force at a moment."""
    row = next((row for row in rows if row.get("from", "") <= ts < row.get("until", "9")), None)
    prices: dict[str, str] = {}
    for tier, block in row["tiers"].items() if row else ():
        for name, value in block["rates"].items():
            price = block["rates"]["input"] if value == price_cards.SAME else value
            if price is not None:
                prices[f"{tier}/{name}" if tier else name] = price
    return prices


def _differences(was: list[Data], will: list[Data], ts: str) -> Iterator[str]:
    """The prices of the standard tier that differ now."""
    before, after = _at(was, ts), _at(will, ts)
    for key in sorted(before.keys() | after.keys()):
        if "/" not in key and before.get(key) != after.get(key):
            yield f"{key} {before.get(key, 'none')} -> {after.get(key, 'none')}"


def _jumps(was: list[Data], will: list[Data], now: str) -> list[str]:
    """The prices that are ten times larger or smaller, or became free, at any moment at which either state changes."""
    jumps = {}
    for ts in sorted({now, *(row.get("from", "") for row in (*was, *will))}):
        before, after = _at(was, ts), _at(will, ts)
        for key in before.keys() & after.keys():
            old, new = Decimal(before[key]), Decimal(after[key])
            if old != new and (not old or not new or new >= JUMP * old or old >= JUMP * new):
                jumps[key] = f"{key} {before[key]} -> {after[key]}"
    return [jumps[key] for key in sorted(jumps)]


def update(log_folder: str, incoming: Incoming, entry: Installed, force: bool, dry_run: bool) -> list[Data]:
    """Judge a catalogue and put it in force if nothing speaks against it: a row about it, and one for each change.

    `entry.since` is now. Raises catalog.Malformed if the prices in force cannot be read, unless forced; OSError.
    """
    datadir.ensure_folder(log_folder)
    with datadir.lock(price_installed.folder_of(log_folder)):
        state, old = _in_force(log_folder, force)
        row: Data = {"v": 1, "kind": "price_update", "result": "unchanged"} | _facts_of(entry)
        if state.in_force is not None and state.in_force.sha256 == entry.sha256:
            return [row | {"in_force_since": state.in_force.since}]
        verdict = judge(incoming, state, old, when.moment(entry.since))
        if verdict.refused or (verdict.waiting and not force):
            row["result"] = "refused" if verdict.refused else "held"
        elif dry_run:
            row["result"] = "not_installed"
        else:
            install(log_folder, incoming.text, entry, state)
            row |= {"result": "installed", "in_force_since": entry.since}
        row["before"] = state.in_force.title if state.in_force else "built_in"
        row |= {"refused": verdict.refused} if verdict.refused else {}
        return [row | ({"held": verdict.waiting} if verdict.waiting else {}), *verdict.changes]


def _in_force(log_folder: str, force: bool) -> tuple[State, dict[str, bytes]]:
    """The state, and the price files in force; what is damaged counts as not there if forced. Raises Malformed, OSError."""
    state = State()
    try:
        state = price_installed.state(log_folder)
        return state, texts_in_force(log_folder)
    except catalog.Malformed:
        if not force:
            raise
        return state._replace(in_force=None), price_files.texts()


def _facts_of(entry: Installed) -> Data:
    row = {"catalogue": entry.name, "serial": entry.serial, "published": entry.published, "sha256": entry.sha256}
    return row | {"url": entry.url, "verified": entry.verified}


def standing(log_folder: str) -> Data:
    """Which catalogue is in force, since when, and what there is to go back to. Raises catalog.Malformed, OSError."""
    state = price_installed.state(log_folder)
    row: Data = {"v": 1, "kind": "price_catalogue", "catalogue": "built_in"}
    if state.in_force is not None:
        row |= _facts_of(state.in_force) | {"in_force_since": state.in_force.since}
        parts = price_installed.parts(price_installed.text_of(log_folder, state.in_force), "")[1]
        row["providers"] = sorted(map(price_installed.provider_of, parts.values()))
    return row | {"before": [entry.title if entry else "built_in" for entry in state.before]}


def install(log_folder: str, text: bytes, entry: Installed, state: State) -> State:
    """Put a catalogue in force, and keep those before it. The caller holds the lock. Raises OSError."""
    datadir.replace(price_installed.path_of(log_folder, entry), text)
    seen = state.highest
    highest = entry if seen is None or seen.name != entry.name or seen.serial < entry.serial else seen
    before = (state.in_force, *state.before)[: price_installed.MOST_BEFORE]
    new = State(entry, before, highest)
    price_installed.keep(log_folder, new)
    _remove_unnamed(log_folder, (entry, *before))
    return new


def _remove_unnamed(log_folder: str, named: tuple[Installed | None, ...]) -> None:
    """Remove the files that the state does not name, such as those that a crash left."""
    folder = price_installed.folder_of(log_folder)
    names = {f"{entry.sha256}.yaml" for entry in named if entry is not None}
    for name in os.listdir(folder):
        if re.fullmatch(r"[0-9a-f]{64}\.yaml(\.\d+)?", name) and name not in names:
            os.unlink(os.path.join(folder, name))


def go_back(log_folder: str, now: str) -> State:
    """Put the catalogue before in force again, or the last that is whole; under the lock. Raises Refused, OSError."""
    try:
        state = price_installed.state(log_folder)
    except catalog.Malformed:
        state = State(None, (None,))
    if not state.before:
        raise Refused("there is nothing to go back to: the prices that came with TokenOps are in force")
    usable = [entry for entry in state.before if entry is None or _is_whole(log_folder, entry)]
    earlier, *rest = usable or [None]
    new = State(earlier and earlier._replace(since=now), tuple(rest), state.highest)
    price_installed.keep(log_folder, new)
    return new


def _is_whole(log_folder: str, entry: Installed) -> bool:
    try:
        price_installed.text_of(log_folder, entry)
    except (catalog.Malformed, OSError):
        return False
    return True


def pack(texts: Mapping[str, bytes], name: str, serial: int, published: str) -> bytes:
    """Price files as one catalogue to publish. Raises Refused."""
    if not _NAME.fullmatch(name) or serial < 1:
        raise Refused("give --name (small letters, digits, `.`, `_`, `-`) and --serial (a whole number, 1 or more)")
    head = f"schema: 1\ncatalogue: {name}\nserial: {serial}\npublished: {published}\n".encode()
    files = [text.strip(b"\n") + b"\n" for text in texts.values() if price_installed.provider_of(text)]
    return b"---\n".join([head, *files])
