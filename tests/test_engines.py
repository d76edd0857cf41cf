"""Other engines come to the same numbers: ClickHouse's server and chdb, DuckDB, Parquet, and a decoder of OpenTelemetry.

Each is skipped where it is not installed; `make engines` installs them and sets TOKENOPS_ENGINES, which makes it a million
events and fifty kills instead of twenty thousand and a few.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from engines import Chdb, Engine, Receiver, needs_server, server
from test_ship import killed_again_and_again, turn

from conftest import ROOT, Json, Run, lines, objects
from tokenops import catalog, events, ship_clickhouse, ship_rows

LARGE = "TOKENOPS_ENGINES" in os.environ
COUNT = 1_000_000 if LARGE else 20_000
SUMS = ("turns", "input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "output_tokens")
NOW = {"TOKENOPS_NOW": "2026-11-22T00:00:00Z"}
SIDE = {"sidechain": True}


def made(count: int, seed: int) -> Iterator[bytes]:
    """Turns of a year, one in twenty sighted a second time in another way; totals that turns stand for, and some alone."""
    rng = random.Random(seed)
    models = [
        ("anthropic", "claude-opus-4-6"),
        ("openai", "gpt-5.5"),
        ("anthropic", "claude-sonnet-4-6"),
        ("who", "no-model"),
    ]
    for number in range(count):
        day = number * 365 // count
        ts = f"{2025 + (day + 324) // 365}-{MONTHS[(day + 324) % 365]}T{number % 24:02d}:{number % 60:02d}:07.{number % 997:03d}Z"
        provider, model = models[number % 7 % 4]
        one: Json = {"v": 1, "ts": ts, "kind": "turn", "id": f"msg_{number:09d}", "source": "claude-code-jsonl"}
        one |= {"client": "claude-code", "project": f"p{number % 13}", "session_id": f"s{number // 40}"}
        one |= {"provider": provider, "model": model, "turns": 1, "input_tokens": rng.randrange(1, 300_000)}
        one |= {"cache_read_tokens": rng.randrange(1, 200_000), "output_tokens": rng.randrange(1, 3000)}
        if number % 31 == 0:
            one |= {"cost_usd": f"0.{rng.randrange(1, 10**9):09d}", "cost_source": "reported"}
        yield lines([one])
        if rng.random() < 0.05:
            yield lines([other(one, rng)])
    for number in range(count // 1000):
        for source in ("droid", "goose"):
            total: Json = {"v": 1, "ts": "2026-03-01T10:00:00.000Z", "kind": "usage", "id": f"usage:{source}:{number}"}
            total |= {"source": source, "client": source, "covers": "session", "provider": "openai", "model": "gpt-5.5"}
            session = f"s{number * 3}" if number % 2 else f"alone{number}"
            yield lines([total | {"session_id": session, "output_tokens": 11 + number}])


MONTHS = [f"{month:02d}-{day:02d}" for month, size in enumerate((31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), 1) for day in range(1, size + 1)]  # fmt: skip


def other(one: Json, rng: random.Random) -> Json:
    """A second sighting: less was known, or of a side chain, or on the wire a little earlier."""
    kind = rng.randrange(4)
    if kind == 0:
        return one | {"output_tokens": one["output_tokens"] + rng.randrange(9)}
    if kind == 1:
        return one | SIDE | {"output_tokens": 10**6, "project": "side"}
    if kind == 2:
        wire = {name: value for name, value in one.items() if name not in ("project", "session_id")}
        return wire | {"source": "proxy", "latency_ms": rng.randrange(9000), "ts": one["ts"][:17] + "00.001Z"}
    return one | {"usage": "unknown", "output_tokens": 1}


@pytest.fixture(scope="session")
def year(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two machines' events: what the second saw of the first's turns, and turns of its own."""
    folder = tmp_path_factory.mktemp("year")
    with open(folder / "one.jsonl", "wb") as one, open(folder / "two.jsonl", "wb") as two:
        rng, seen = random.Random(5), set()
        for line in made(COUNT, 7):
            name = line.split(b'"id":"', 1)[1].split(b'"', 1)[0]
            # Each line goes to one of them at least, second sightings to both sides of a turn.
            (two if (name in seen) == (rng.random() < 0.7) else one).write(line)
            seen.add(name)
    return folder


def long(line: str, env: dict[str, str], folder: pathlib.Path) -> bytes:
    """What a line of shell prints; a million events take longer than `run` waits."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], env=env, cwd=folder, capture_output=True, timeout=900, check=False
    )
    assert done.returncode in (0, 1), done.stderr.decode()
    return done.stdout


@pytest.fixture
def two_logs(year: pathlib.Path, environment: dict[str, str], tmp_path: pathlib.Path) -> tuple[Json, Json]:
    """The environments of two machines with a log each."""
    found = []
    for name in ("one", "two"):
        env = {"TOKENOPS_HOME": str(tmp_path / name)} | NOW
        long(f"tok-log append {year}/{name}.jsonl > /dev/null", environment | env, tmp_path)
        found.append(env)
    return found[0], found[1]


def here(environment: dict[str, str], year: pathlib.Path, tmp_path: pathlib.Path, by: str) -> list[Json]:
    """What tok-rollup and tok-cost say of all of it."""
    env = environment | {"TOKENOPS_HOME": str(tmp_path / "all")} | NOW
    if not (tmp_path / "all").exists():
        long(f"cat {year}/one.jsonl {year}/two.jsonl | tok-log append > /dev/null", env, tmp_path)
    return objects(long(f"tok-cat | tok-rollup --by {by} --tz UTC | tok-cost --json", env, tmp_path))


def agreed(engine: Engine, rows: list[Json]) -> None:
    """The engine's numbers are ours, by month, project and model, to the last digit."""
    sums = ", ".join(f"toString(sum({name})) AS {name}_" for name in SUMS)
    asked = f"SELECT substring(ts, 1, 7) AS month, project, provider, model, {sums}, toString(sum(priced_usd)) AS usd_"
    there = engine.ask(f"{asked} FROM tokenops_counted GROUP BY month, project, provider, model")
    assert compared(there, "_") == ours(rows)


def compared(rows: list[Json], suffix: str = "") -> dict[tuple[str, str], list[Decimal]]:
    found: dict[tuple[str, str], list[Decimal]] = {}
    for row in rows:
        at = found.setdefault((str(row["month"]), str(row["model"])), [Decimal(0)] * (len(SUMS) + 1))
        for place, name in enumerate((*SUMS, "usd")):
            at[place] += Decimal(str(row[name + suffix]))
    return found


def ours(rows: list[Json]) -> dict[tuple[str, str], list[Decimal]]:
    made = [
        {name: row.get(name, 0) for name in SUMS}
        | {"month": row["bucket"], "model": row["model"], "usd": row.get("cost_usd", 0)}
        for row in rows
    ]
    return compared(made)


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    yield from server(tmp_path_factory.mktemp("clickhouse"))


@pytest.fixture(scope="module")
def chdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    pytest.importorskip("chdb", reason="chdb is not installed (make engines)")
    bridge = Chdb(tmp_path_factory.mktemp("chdb"))
    yield Engine(bridge.url)
    bridge.close()


ENGINES = [pytest.param("clickhouse", marks=needs_server), "chdb"]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    for name in ("tokenops_joined", "tokenops_counted", "tokenops_daily", "tokenops_events", "tokenops_days"):
        found.ask(f"DROP TABLE IF EXISTS {name}")
    return found


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_an_engine_comes_to_the_same_numbers(
    engine: Engine,
    year: pathlib.Path,
    two_logs: tuple[Json, Json],
    run: Run,
    environment: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    ship = f"tok-ship {engine.url} --kind clickhouse"
    assert "run tok-ship TARGET --setup" in run(ship, status=1, env=two_logs[0]).stderr.decode()
    run(f"{ship} --setup")
    run(f"{ship} --setup")
    rows = here(environment, year, tmp_path, "month,model")
    for env in two_logs:
        killed_again_and_again(environment | env, Engine(engine.url), (50 if LARGE else 4) // 2)
    agreed(engine, rows)
    long(f"{ship} --backfill", environment | two_logs[1], tmp_path)  # all of it again
    agreed(engine, rows)
    (seen,) = engine.ask("SELECT count() AS n, uniqExact(id) AS ids FROM tokenops_events")
    assert int(seen["n"]) > int(seen["ids"])


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_table_of_an_earlier_version_gets_its_columns(engine: Engine, run: Run, environment: dict[str, str]) -> None:
    """Without tags it takes rows as before; what was there stays, and is joined with what is sent again."""
    text = (pathlib.Path(catalog.FOLDER) / "clickhouse.sql").read_text()
    create = next(ship_clickhouse.statements(text))
    for name in events.TAGS:
        create = re.sub(rf"\b{name} String,\s+", "", create)
    engine.ask(create)
    engine.ask("CREATE VIEW tokenops_joined AS SELECT id, kind FROM tokenops_events")
    tags = {"skill": "review", "branch": "main", "effort": "high"}
    run("tok-log append", lines([turn(1, **tags), turn(2)]))
    config = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"ship: {{targets: {{team: {{url: '{engine.url}', kind: clickhouse}}}}}}\n")
    assert objects(run("tok-ship team").stdout)[0]["rows"] == 2
    config.write_text(config.read_text().replace("kind: clickhouse", "kind: clickhouse, tags: [skill, branch, effort]"))
    assert "run tok-ship TARGET --setup" in run("tok-ship team", status=1).stderr.decode()
    for _ in range(2):
        run("tok-ship team --setup")
    assert objects(run("tok-ship team --now").stdout)[0]["rows"] == 1
    asked = (
        "SELECT skill, branch, effort, plugin, sum(turns) AS n FROM tokenops_counted GROUP BY skill, branch, effort, plugin"
    )
    found = {(row["skill"], row["branch"], row["effort"], row["plugin"]): int(row["n"]) for row in engine.ask(asked)}
    assert found == {("review", "main", "high", ""): 1, ("", "", "", ""): 1}


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_the_example_queries(engine: Engine, run: Run) -> None:
    given = [turn(n) for n in range(50)]
    run("tok-log append", lines([*given, {**turn(0), "kind": "meter", "id": "meter:1", "window": "weekly", "used": 0.25}]))
    ship = f"tok-ship {engine.url} --kind clickhouse"
    run(f"{ship} --setup")
    run(ship)
    found = {}
    text = (pathlib.Path(catalog.FOLDER) / "clickhouse.sql").read_text().partition("-- == queries ==")[2]
    for name, body in re.findall(r"-- query: (\w+)\n(.*?;)\n", text, re.DOTALL):
        (query,) = ship_clickhouse.statements(body.replace("{since}", "2026-11-01").replace("{until}", "2026-11-30") + "\n")
        for _ in range(2 if name == "rollup" else 1):
            found[name] = engine.ask(query)
    ((spent,),) = [found["spend"]]
    assert (int(spent["counted"]), Decimal(spent["usd"])) == (50, Decimal("0.014875"))
    assert sum(int(row["turns"]) for row in found["people"]) == 50
    assert [float(row["share"]) for row in found["limits"]] == [0.25]
    (daily,) = engine.ask("SELECT sum(turns) AS n, toString(sum(priced_usd)) AS usd FROM tokenops_daily")
    assert (int(daily["n"]), Decimal(daily["usd"])) == (50, Decimal("0.014875"))


@needs_server
def test_the_server_s_own_refusals(clickhouse: Engine, run: Run, environment: dict[str, str]) -> None:
    run("tok-log append", lines([turn(1)]))
    config = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"ship: {{targets: {{team: {{url: '{clickhouse.url}', user: writer, password: 'env:PW'}}}}}}\n")
    done = run("tok-ship team --setup", status=2, env={"PW": "wrong-word"})
    assert b"password is wrong" in done.stderr
    assert b"wrong-word" not in done.stderr
    run("tok-ship team --setup", env={"PW": "s3cret-word"})
    assert objects(run("tok-ship team --now", env={"PW": "s3cret-word"}).stdout)[0]["rows"] == 1
    assert "no such database" in run(f"tok-ship '{clickhouse.url}?database=none'", status=1).stderr.decode()


# -- DuckDB and Parquet


def test_duckdb_over_the_plain_log(
    run: Run, year: pathlib.Path, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """The query of docs/shipping.md, over a log that is compacted: each turn stands there once."""
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed (make engines)")
    rows = here(environment, year, tmp_path, "month,model")
    run("tok-log compact --gzip", env={"TOKENOPS_HOME": str(tmp_path / "all")} | NOW)
    page = (ROOT / "docs/shipping.md").read_text()
    query = page.partition("<!-- duckdb: log -->\n```sql\n")[2].partition("```")[0]
    con = duckdb.connect()
    con.execute("SET threads = 2")
    found = con.execute(query.replace("~/.local/share/tokenops", str(tmp_path / "all"))).fetchall()
    counted = {(month, model): (int(turns), int(output)) for month, model, turns, output in found}
    turns_only = {key: value for key, value in ours(rows).items() if value[0]}
    assert {key: value[0] for key, value in counted.items()} == {key: int(value[0]) for key, value in turns_only.items()}
    assert sum(output for _, output in counted.values()) == sum(
        json.loads(line)["output_tokens"]
        for line in run("tok-cat --kind turn", env={"TOKENOPS_HOME": str(tmp_path / "all")}).stdout.splitlines()
    )


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_duckdb_over_a_folder_of_two_machines(
    form: str, run: Run, year: pathlib.Path, two_logs: tuple[Json, Json], environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed (make engines)")
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (make engines)")
    config = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    config.parent.mkdir(parents=True)
    for number, env in enumerate(two_logs):
        config.write_text(f"ship: {{machine: machine-{number}}}\n")
        (told,) = objects(long(f"tok-ship ./lake --format {form}", environment | env, tmp_path))
        assert told["rows"] > 0
        assert objects(long(f"tok-ship ./lake --format {form} --backfill", environment | env, tmp_path))[0]["rows"] == 0
    page = (ROOT / "docs/shipping.md").read_text()
    query = page.partition("<!-- duckdb: lake -->\n```sql\n")[2].partition("```")[0]
    if form == "jsonl":
        query = query.replace("read_parquet('lake/*/*.parquet')", JSON_LAKE)
    con = duckdb.connect()
    con.execute("SET threads = 2")
    con.execute(query.replace("lake/", f"{tmp_path}/lake/"))
    sums = ", ".join(f"coalesce(sum({name}), 0)::VARCHAR AS {name}" for name in SUMS)
    cursor = con.execute(
        f"SELECT substring(ts, 1, 7) AS month, model, {sums}, coalesce(sum(priced_usd), 0)::VARCHAR AS usd FROM turns GROUP BY ALL"
    )
    names = [column[0] for column in cursor.description]
    there = compared([dict(zip(names, row, strict=True)) for row in cursor.fetchall()])
    alone = [
        row for row in here(environment, year, tmp_path, "month,model,client") if row.get("client") not in ("droid", "goose")
    ]
    assert there == ours(alone)


DUCK = {"text": "VARCHAR", "flag": "BOOLEAN", "count": "BIGINT", "money": "DECIMAL(38,18)", "real": "DOUBLE"}
JSON_LAKE = "read_json('lake/*/*.jsonl.gz', format='newline_delimited', columns={COLUMNS})".replace(
    "COLUMNS", str({name: DUCK[kind] for name, kind in ship_rows.COLUMNS.items()}).strip("{}")
)


# -- OpenTelemetry


def test_a_decoder_of_opentelemetry_takes_it(run: Run, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("opentelemetry.proto", reason="opentelemetry-proto is not installed (make engines)")
    from google.protobuf import json_format  # type: ignore[import-not-found, unused-ignore]
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # type: ignore[import-not-found, unused-ignore]
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # type: ignore[import-not-found, unused-ignore]

    receiver = Receiver()
    given = [
        turn(n, cache_read_tokens=n, cost_usd="0.5", cost_source="reported") if n % 9 == 0 else turn(n)
        for n in range(1, 200)
    ]
    run("tok-log append", lines(given))
    run(f"tok-ship {receiver.url} --kind otlp --batch 64")
    records: list[Any] = []
    sums: dict[str, float] = {}
    for asked in receiver.taken:
        assert asked.headers["content-type"] == "application/json"
        if asked.path == "/v1/logs":
            logs = json_format.Parse(asked.body, logs_service_pb2.ExportLogsServiceRequest())
            records += logs.resource_logs[0].scope_logs[0].log_records
            continue
        export = json_format.Parse(asked.body, metrics_service_pb2.ExportMetricsServiceRequest())
        for metric in export.resource_metrics[0].scope_metrics[0].metrics:
            points = metric.sum.data_points or metric.histogram.data_points
            sums[metric.name] = (
                sum(getattr(p, "sum", 0) or p.as_int or p.as_double for p in points)
                if metric.HasField("sum")
                else sum(p.count for p in points)
            )
    (row,) = objects(run("tok-cat | tok-rollup --by none | tok-cost --json").stdout)
    prompt = sum(row.get(name, 0) for name in events.CONTEXT)
    assert len(records) == 199
    assert sums["tokenops.turns"] == row["turns"] == 199
    assert sums["gen_ai.client.inference.usage.input_tokens"] == prompt
    assert sums["gen_ai.client.inference.usage.output_tokens"] == row["output_tokens"]
    assert sums["gen_ai.client.token.usage"] == 2 * 199
    assert round(sums["tokenops.cost"], 9) == float(row["cost_usd"])
    said = [{one.key: one.value for one in record.attributes} for record in records]
    assert sum(one["gen_ai.usage.input_tokens"].int_value for one in said) == prompt
    assert sum(Decimal(one["tokenops.priced_usd"].string_value) for one in said) == Decimal(row["cost_usd"])
    assert {record.event_name for record in records} == {"gen_ai.client.inference.operation.details"}
    receiver.close()
