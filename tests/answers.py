"""Answers of vendors from tests/data/wire.yaml: their bytes, and what a right reader finds in them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import yaml

from conftest import DATA, Json

TYPES = {
    "json": "application/json",
    "events": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "text": "application/json",
}


class Answer(NamedTuple):
    """What comes, and its usage: input in all, read from a cache, written to one, output in all, reasoning."""

    provider: str
    status: int
    kind: str
    body: bytes
    messages: list[Json]
    usage: tuple[int, ...] | None
    cost: str


def _event(event: Any) -> str:
    if isinstance(event, str):
        return f"data: {event}\n\n"
    named = f"event: {event.pop('event')}\n" if "event" in event else ""
    return f"{named}data: {json.dumps(event)}\n\n"


def _body(row: Json, form: str) -> str:
    if form == "json":
        return json.dumps(row["json"])
    if form == "events":
        return "".join(map(_event, row["events"]))
    return "".join(json.dumps(one) + "\n" for one in row["ndjson"]) if form == "ndjson" else str(row["text"])


def _answer(row: Json) -> Answer:
    form = next((name for name in TYPES if name in row), "")
    usage = None if row["usage"] == "none" else tuple(row["usage"])
    kind, body = row.get("type", TYPES.get(form, "")), _body(row, form).encode() if form else b""
    return Answer(row["provider"], row.get("status", 200), kind, body, row.get("messages", []), usage, row.get("cost", ""))


ANSWERS = [_answer(row) for row in yaml.safe_load((DATA / "wire.yaml").read_text())]
