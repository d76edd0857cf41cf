"""The matrix of clients that the rig runs, out of tests/data/clients.yaml, and what a run of one found."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import rig
import yaml
from proxies import Proxy
from rig import Charge, Ledger, Step
from rig_clients import base, ended, started
from test_clients import INSTALLED, RUNS
from upstream import Upstream

from conftest import DATA, Json, eventually, put

TABLE: Json = yaml.safe_load((DATA / "clients.yaml").read_text())
PROVIDERS = {"messages": "anthropic", "responses": "openai", "chat": "openai", "gemini": "gemini"}
Turn = tuple[str, tuple[tuple[str, int], ...]]  # a model, and its tokens by class
NONE: Mapping[str, Any] = MappingProxyType({})


class Client(NamedTuple):
    """A client on one wire: a row of the matrix."""

    client: str  # as in the record
    npm: str = ""
    pip: str = ""
    command: str = ""
    read: str = ""  # as tok-read names it; empty where its logs hold no counts
    shown: str = ""
    wire: str = ""
    python: str = ""  # the first version that it runs on
    node: int = 0  # the first version that it runs on, where a newer one than the machine's is installed for it
    own: str = ""  # the tests that run it instead, where it has tests of its own
    own_wire: str = ""
    integrity: str = ""  # the hash of the package, where npm has it
    models: tuple[str, ...] = ()
    files: Mapping[str, str] = NONE
    settings: Mapping[str, str] = NONE
    before: tuple[str, ...] = ()  # what is run before each prompt
    first: tuple[str, ...] = ()
    resumed: tuple[str, ...] = ()
    session: str = ""
    asks: str = ""  # a pattern of hosts that it asks for something else; they are out of its reach here
    tools: Mapping[str, Any] = NONE
    aside: str = ""  # a pattern of requests outside the conversation: names of their tools, and their last text
    keeps_model: bool = False  # whether a resumed session stays with its model
    apart: bool = False  # whether its log and the proxy's share no name of a request, so that both count
    lacks: Mapping[str, Any] = NONE
    acp: Mapping[str, Any] = NONE  # how it is an agent of the Agent Client Protocol, and what it states of a prompt
    says: str = ""

    @property
    def name(self) -> str:
        """As tests and runs are named."""
        return f"{self.client}-{self.wire}"

    def scripts(self) -> dict[str, tuple[Step, ...]]:
        """What the vendor answers to each prompt."""
        tools = {use: Step(*call) for use, call in self.tools.items()}
        shell = [tools["shell"]] if "shell" in tools else []
        work = [step._replace(thought="A thought.") for step in shell]
        work += [tools[use] for use in ("mcp", "agent") if use in tools]
        scripts = {
            "work": (*work, *shell, Step()),
            "more": (*shell, Step()),
            "limited": (*shell, Step(refused=429)),
            "switched": (*shell, Step()),
            "cut": (Step(hangs=True),),
        }
        if "agent" in tools:
            scripts["look"] = (*shell, Step())
        return {name: tuple(step._replace(labels={"part": name}) for step in steps) for name, steps in scripts.items()}


MATRIX = tuple(Client(**row) for row in TABLE["clients"])
RUN_HERE = tuple(client for client in MATRIX if not client.own)


class Place(NamedTuple):
    """Where a client runs, and whom it asks."""

    environment: dict[str, str]
    vendor: Upstream
    where: pathlib.Path
    proxy: Proxy | None


class Session:
    """One session of a client: its prompts, one after another."""

    def __init__(self, client: Client, place: Place) -> None:
        self.client, self.place = client, place
        self.output = ""
        self.server = put(place.where.parent / "server.py", rig.SERVER.encode())

    def filled(self, text: str, prompt: str, model: str) -> str:
        """A text of the matrix with the values of this run."""
        values = {
            "BASE": base(self.place.vendor, self.place.proxy, PROVIDERS[self.client.wire]),
            "HOME": self.place.environment["HOME"],
            "WHERE": str(self.place.where),
            "PYTHON": sys.executable,
            "SERVER": str(self.server),
            "WIRE": self.client.wire,
            "MODEL": model,
            "INDEX": str(self.client.models.index(model)),
            "PROMPT": prompt,
            "SESSION": self.name(),
        }
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        return text

    def name(self) -> str:
        """The session's name, where the client is told which one to resume: that of its newest file."""
        home = pathlib.Path(self.place.environment["HOME"])
        return max((path.name for path in home.glob(self.client.session)), default="") if self.client.session else ""

    def write_files(self, prompt: str, model: str) -> None:
        """Write the client's settings."""
        for path, text in self.client.files.items():
            put(pathlib.Path(self.filled(path, prompt, model)), self.filled(text, prompt, model).encode())

    def ask(self, prompt: str, model: str, hangs: Ledger | None = None) -> None:
        """Run the client with a prompt; `hangs`: interrupt it once a stream hangs."""
        client = self.client
        self.write_files(prompt, model)
        arguments = [self.filled(text, prompt, model) for text in (client.resumed if self.output else client.first)]
        settings = {name: self.filled(value, prompt, model) for name, value in client.settings.items()}
        place = self.place
        where = (place.environment, place.vendor, place.where)
        if client.before:
            ended(
                started([client.command, *(self.filled(text, prompt, model) for text in client.before)], *where, **settings)
            )
        process = started([client.command, *arguments], *where, **settings)
        if hangs:
            eventually(lambda: hangs.hanging or process.poll() is not None)
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself: the charges will show it
                os.killpg(process.pid, signal.SIGINT)
        printed = ended(process, check=not hangs)
        if hangs:
            hangs.let_go = True
        self.output = self.output or printed.decode(errors="replace") or "nothing"


def run_session(client: Client, place: Place, ledger: Ledger) -> None:
    """Several turns with tools, a resumed session, a limit, another model, and an answer that is interrupted."""
    first, second = client.models
    session = Session(client, place)
    session.ask("Do it: [[work]]", first)
    session.ask("Do it: [[more]]", first)
    session.ask("Do it: [[limited]]", first)
    session.ask("Do it: [[switched]]", second)
    session.ask("Do it: [[cut]]", second, ledger)


def counted(row: Json) -> Counter[str]:
    """The tokens of a row or a turn by class."""
    return Counter({name: row.get(f"{name}_tokens", 0) for name in rig.CLASSES})


def turn_of(model: str, counts: Counter[str], lacks: Mapping[str, Any]) -> Turn:
    """What a client that lacks something records of these counts."""
    counts = Counter(counts)
    for name, into in lacks.get("merged", {}).items():
        counts[into] += counts.pop(name, 0)
    for name in lacks.get("classes", ()):
        counts.pop(name, None)
    return model, tuple(sorted((+counts).items()))


def kind_of(charge: Charge) -> str:
    """What a request was for, as the matrix names it."""
    return "title" if "script" in charge.labels else str(charge.labels["part"])


class Found(NamedTuple):
    """What a reader has of a ledger."""

    requests: int
    turns: int
    missing: list[Charge]
    surplus: list[Json]

    def record(self) -> Json:
        """As it is kept for the table."""
        kinds: Counter[str] = Counter()
        tokens: Counter[str] = Counter()
        for charge in self.missing:
            kinds[kind_of(charge)] += 1
            tokens[kind_of(charge)] += charge.counts.total() - charge.counts["reasoning"]
        missing = {kind: {"requests": kinds[kind], "tokens": tokens[kind]} for kind in sorted(kinds)}
        wrong = [turn for turn in self.surplus if turn.get("usage") not in ("partial", "unknown")]
        return {"requests": self.requests, "turns": self.turns, "missing": missing, "surplus": len(wrong)}


def compared(charges: Iterable[Charge], turns: Iterable[Json], lacks: Mapping[str, Any]) -> Found:
    """Charges beside turns, each matched once by its model and every count."""
    charges, turns = list(charges), list(turns)
    free: dict[Turn, list[Json]] = {}
    for turn in turns:
        free.setdefault(turn_of(turn.get("model", ""), counted(turn), lacks), []).append(turn)
    missing = []
    for charge in charges:
        if same := free.get(turn_of(charge.model, charge.counts, lacks)):
            same.pop()
        else:
            missing.append(charge)
    return Found(len(charges), len(turns), missing, [turn for left in free.values() for turn in left])


def totals_of(charges: Iterable[Charge], lacks: Mapping[str, Any]) -> Counter[str]:
    """The sum of charges, as a client that lacks something records it."""
    sums: Counter[str] = Counter()
    for charge in charges:
        sums.update(dict(turn_of("", charge.counts, lacks)[1]))
    return sums


def version(client: Client) -> str:
    """The version that is installed, or nothing."""
    rows = json.loads(INSTALLED.read_text()) if INSTALLED.exists() else {}
    return str(rows.get(client.client, ""))


def keep(client: Client, way: str, found: Json) -> None:
    """Write down what a run found, for the table."""
    if RUNS.is_dir():
        wire = client.wire or client.own_wire
        put(RUNS / f"{client.client}-{wire}-{way}.json", {"client": client.client, "wire": wire, "way": way, **found})


def kept() -> Iterator[Json]:
    """What the last runs found."""
    for path in sorted(RUNS.glob("*.json")):
        yield json.loads(path.read_text())
