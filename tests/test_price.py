"""tok-price: what a model costs and who says so, drift told apart from what is understood, and nothing edited by itself."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import zipfile
from decimal import Decimal
from typing import Any

import pytest

from conftest import ROOT, Json, Run, lines, objects
from tokenops import (
    catalog,
    price_causes,
    price_check,
    price_files,
    price_report,
    price_snapshot,
    price_tables,
    pricing,
)

AT = "2026-12-01T12:00:00.000Z"
ENV = {"TOKENOPS_NOW": AT}


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    """A catalogue of our own to edit."""
    for name in ("pricing", "snapshots"):
        shutil.copytree(ROOT / "catalog" / name, tmp_path / "cat" / name)
    return tmp_path / "cat"


def edit(folder: pathlib.Path, provider: str, at: str, old: str, new: str) -> None:
    path = folder / "pricing" / f"{provider}.yaml"
    text = path.read_text()
    start = text.index(at)
    assert old in text[start:]
    path.write_text(text[:start] + text[start:].replace(old, new, 1))


# show, list, explain.

SHOWN: list[tuple[str, dict[str, Any]]] = [
    ("claude-sonnet-5-5", {"row": "anthropic/claude-sonnet-5-5", "matched_by": "the name itself", "from": "2026-10-07T00:00:00.000Z"}),
    ("claude-sonnet-5-5 --at 2026-10-06", {"until": "2026-10-07T00:00:00.000Z", "confidence": "high"}),
    ("gpt-5.6", {"row": "openai/gpt-5.6", "matched_by": "the name itself an alias of gpt-5.6-sol"}),
    ("us.anthropic.claude-opus-4-6-v1:0", {"provider": "bedrock", "matched_by": "read as claude-opus-4-6 sold by bedrock at the prices of anthropic"}),
    ("claude-opus-4-6[1m]", {"row": "anthropic/claude-opus-4-6", "matched_by": "read as claude-opus-4-6"}),
    ("gpt-5.4-mini-2026-03-17 --provider azure", {"provider": "azure", "row": "openai/gpt-5.4-mini"}),
    ("gpt-4.1-nano", {"retired": "2026-10-23"}),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "wanted"), SHOWN)
def test_show(asked: str, wanted: dict[str, Any], run: Run) -> None:
    (told,) = objects(run(f"tok-price show '{asked.partition(' ')[0]}' {asked.partition(' ')[2]}", env=ENV).stdout)
    assert {name: told[name] for name in wanted} == wanted
    assert all(one["url"].startswith("https://") and one["captured"] for one in told["sources"])


def test_show_names_tiers_windows_and_changes(run: Run) -> None:
    (told,) = objects(run("tok-price show deepseek-v4-pro", env=ENV).stdout)
    assert told["rates"]["input"] == "0.66" and [one["rates"]["input"] for one in told["windows"]] == ["1.32"]
    assert len(told["intervals"]) == 2
    text = run("tok-price show gpt-6.1-sol --table", env=ENV).stdout.decode()
    for part in (
        "priority",
        "ultrafast",
        "> 272,000",
        "eu          x 1.1",
        "web_search  10 per thousand",
        "read 2026-11-21",
    ):
        assert part in text
    (told,) = objects(run("tok-price show gpt-5.5-cyber --at 2026-10-18", env=ENV).stdout)
    assert told["rates"]["cache_read"] is None  # nobody published one


def test_what_has_no_price_says_why(run: Run) -> None:
    done = run("tok-price show claude-opus-4-9", env=ENV, status=1)
    (told,) = objects(done.stdout)
    assert told["unpriced"] == "no price is known for 'claude-opus-4-9' at anthropic" and "rates" not in told
    assert told["nearest_known"].startswith("claude-opus-4-")
    (told,) = objects(run("tok-price show deepseek-chat", env=ENV, status=1).stdout)
    assert told["unpriced"] == "no price is known for deepseek/deepseek-chat on 2026-12-01" and told["intervals"]
    assert run("tok-price show some-model", env=ENV, status=1).stdout
    assert "name one model" in run("tok-price show", env=ENV, status=2).stderr.decode()
    assert "'soon' is not a valid time" in run("tok-price show x --at soon", env=ENV, status=2).stderr.decode()
    assert "choose from show, list" in run("tok-price shwo", status=2).stderr.decode()


def test_show_knows_the_users_own_prices(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        'providers: {anthropic: {models: {"claude-*": {prices: [{input: "1", output: "2"}]}}}}'
    )
    env = ENV | {"TOKENOPS_PRICING_PATH": str(tmp_path / "mine.yaml")}
    (told,) = objects(run("tok-price show claude-opus-4-9", env=env).stdout)
    assert (told["row"], told["rates"]) == ("override/anthropic/claude-*", {"input": "1", "output": "2"})
    assert told["matched_by"].startswith("an override:")


def test_list(run: Run) -> None:
    rows = objects(run("tok-price list", env=ENV).stdout)
    assert len(rows) > 300 and {row["provider"] for row in rows} == set(pricing.load().providers)
    assert all(row["captured"] >= "2026-09-30" for row in rows)
    (row,) = [row for row in rows if row["model"] == "mistral-large-latest"]
    assert row["alias_of"] == ["mistral-large-2411", "mistral-large-2512"] and row["rates"]["input"] == "0.5"
    old = objects(run("tok-price list --provider mistral --at 2025-11-01", env=ENV).stdout)
    assert next(row for row in old if row["model"] == "mistral-large-latest")["rates"]["input"] == "2"
    listed = list(csv.DictReader(run("tok-price list --provider groq --csv", env=ENV).stdout.decode().splitlines()))
    assert listed and {row["provider"] for row in listed} == {"groq"} and all(Decimal(row["rates.input"]) for row in listed)
    assert (
        "no prices of this provider are known" in run("tok-price list --provider nobody", env=ENV, status=2).stderr.decode()
    )


def test_explain(run: Run) -> None:
    one = {"v": 1, "ts": AT, "kind": "turn", "id": "msg_1", "turns": 1, "provider": "anthropic", "model": "claude-opus-5-5"}
    one |= {"input_tokens": 11, "cache_read_tokens": 1_000_003, "output_tokens": 7, "tier": "fast", "geo": "us"}
    (told,) = objects(run("tok-price explain", lines([one])).stdout)
    assert [(line["class"], line["rate"]) for line in told["cost_lines"]] == [
        ("input_tokens", "8.8"), ("cache_read_tokens", "0.44"), ("output_tokens", "44"),
    ]  # fmt: skip
    assert Decimal(told["cost_usd"]) == sum(Decimal(line["usd"]) for line in told["cost_lines"])
    run("tok-log append", lines([one]))
    assert objects(run("tok-price explain msg_1").stdout) == [told]
    assert "cost at anthropic/claude-opus-5-5" in run("tok-price explain msg_1 --table").stdout.decode()
    assert "neither the id of a record in the log nor a file" in run("tok-price explain msg_2", status=2).stderr.decode()
    made = lines(
        [one | {"model": "claude-opus-4-9"}, {**one, "kind": "ping", "tool": "x"}, {"kind": "turn", "secret": "words"}]
    )
    done = run("tok-price explain -v", made, status=1)
    assert objects(done.stdout)[0]["unpriced"] and done.stderr.count(b"\n") == 2 and b"words" not in done.stderr


# check.


def test_todays_snapshots_leave_nothing_unexplained(run: Run) -> None:
    rows = objects(run("tok-price check", env=ENV).stdout)
    totals = [row for row in rows if row["kind"] == "price_check_total"]
    assert [(one["unexplained"], one["agreed"] > 2000, one["models"] > 250) for one in totals] == [(0, True, True)] * 2
    found = [row for row in rows if row["kind"] == "price_check"]
    assert all(row["cause"] and row["why"] for row in found)
    seen = {row["cause"] for row in found}
    assert {"alias", "retired", "time_of_day", "unit_slip", "tier", "dated", "cache_class", "rounding", "modality"} <= seen
    assert {row["verdict"] for row in found} == {"differs", "missing", "only_ours"}
    text = run("tok-price check --table", env=ENV).stdout.decode()
    assert "0 differences are not explained" in text and "unit_slip" in text
    assert len(run("tok-price check --all --table", env=ENV).stdout) > 10 * len(text)


CAUSES = [
    ("litellm", "cohere", "embed-multilingual-light-v3.0", "input", "unit_slip"),
    ("litellm", "groq", "openai/gpt-oss-safeguard-20b", "cache_read", "rounding"),
    ("litellm", "gemini", "gemini-4-argon", "input", "newer"),
    ("litellm", "openai", "gpt-4o-transcribe", "audio_input", "modality"),
    ("litellm", "openai", "ft:gpt-4o-2024-11-20", "cache_write", "cache_class"),
    ("litellm", "openai", "gpt-5.6-cyber", "input>272000", "tier"),
    ("litellm", "deepseek", "deepseek-v4-pro", "cache_write", "placeholder"),
    ("genai", "deepseek", "deepseek-v4-pro", "input", "time_of_day"),
    ("genai", "gemini", "gemini-1.5-flash-8b", "output", "alias"),
    ("genai", "mistral", "mistral-large-latest", "input", "dated"),
    ("genai", "openai", "o3", "cache_read", "dated"),
    ("genai", "xai", "grok-4", "input", "dated"),
    ("genai", "anthropic", "claude-sonnet-5-5", "cache_read", "dated"),
    ("genai", "deepseek", "deepseek-chat", "input", "retired"),
]


@pytest.mark.parametrize(("source", "provider", "model", "field", "wanted"), CAUSES)
def test_the_cause_of_a_known_difference(source: str, provider: str, model: str, field: str, wanted: str) -> None:
    tables, known = price_tables.tables(), price_causes.known_causes()
    table = next(one for one in tables if one.source == source)
    found = [
        one
        for one in price_check.compare(pricing.load(), table).findings
        if (one.provider, one.model, one.field) == (provider, model, field)
    ]
    assert found
    assert wanted in {cause.name for one in found if (cause := price_causes.cause_of(one, tables, known))}


def test_where_both_tables_are_against_us_nothing_explains_it_by_itself(run: Run, copy: pathlib.Path) -> None:
    """1,000 times too much would be a slip of theirs, if not both said the same."""
    edit(copy, "anthropic", "  claude-opus-5:", 'input: "5"', 'input: "0.005"')
    done = run(f"tok-price check --catalogue {copy}", env=ENV, status=1)
    alone = [row for row in objects(done.stdout) if row["kind"] == "price_check" and "cause" not in row]
    assert {(row["model"], row["field"], row["theirs"]) for row in alone} >= {("claude-opus-5", "input", "5")}
    assert {row["table"].split()[0] for row in alone} == {"litellm", "genai-prices"}


def test_an_entry_of_known_causes_holds_only_for_its_values(copy: pathlib.Path) -> None:
    known = price_causes.known_causes()
    edit(copy, "mistral", "  open-mistral-nemo:", 'input: "0.15"', 'input: "0.16"')
    catalogue = pricing.from_texts(price_files.texts(str(copy)))
    tables = price_tables.tables()
    found = [one for one in price_check.compare(catalogue, tables[0]).findings if one.model == "open-mistral-nemo"]
    assert any(one.field == "input" and price_causes.cause_of(one, tables, known) is None for one in found)
    for entry in known:
        assert entry["url"].startswith("https://") and entry["why"] and entry["date"] >= "2026-11"


def test_every_known_cause_is_still_needed() -> None:
    """An entry that explains nothing any more is to be deleted."""
    tables, catalogue = price_tables.tables(), pricing.load()
    found = [one for table in tables for one in price_check.compare(catalogue, table).findings]
    for entry in price_causes.known_causes():
        assert any(
            price_causes.cause_of(one, tables, [entry]) and price_causes.cause_of(one, tables, [entry]).url == entry["url"]
            for one in found
        ), entry  # type: ignore[union-attr]


def test_a_snapshot_that_was_touched_is_refused(run: Run, copy: pathlib.Path) -> None:
    path = copy / "snapshots" / "litellm.json"
    path.write_text(path.read_text().replace('"input":"5"', '"input":"6"', 1))
    done = run(f"tok-price check --catalogue {copy}", status=2)
    assert "its models do not match its checksum; restore it" in done.stderr.decode()
    path.write_text("{}")
    assert "it is not a snapshot" in run(f"tok-price check --catalogue {copy}", status=2).stderr.decode()


def test_the_notices_are_there_and_snapshots_say_what_they_are() -> None:
    notices = (ROOT / "THIRD_PARTY_NOTICES").read_text()
    assert "Copyright (c) 2023 Berri AI" in notices and "Copyright (c) Pydantic Services Inc." in notices
    for table in price_tables.tables():
        about = table.details
        assert about["license"] == "MIT" and len(about["file_sha256"]) == 64 and about["version"] in notices
        assert (
            os.path.getsize(price_tables.path_of(catalog.FOLDER, table.source)) < 300_000
        )  # OpenRouter lists more models than all others together


# lint and propose.


def test_lint(run: Run, copy: pathlib.Path) -> None:
    assert "21 files checked: no problem" in run("tok-price lint --table", env=ENV).stdout.decode()
    assert run(f"tok-price lint --catalogue {copy} --against {ROOT / 'catalog'}", env=ENV).stdout == b""
    edit(copy, "openai", "  gpt-5.5:", 'output: "30"', 'output: "3"')
    done = run(f"tok-price lint --catalogue {copy} --against {ROOT / 'catalog'}", env=ENV, status=1)
    faults = objects(done.stdout)
    assert faults[0]["level"] == "refused" and {fault["model"] for fault in faults} == {"gpt-5.5"}
    place = faults[0]["place"]
    number = int(place.rpartition(":")[2])
    assert '- input: "5"' in (copy / "pricing/openai.yaml").read_text().splitlines()[number - 1]
    text = run(f"tok-price lint --catalogue {copy} --table", env=ENV, status=1).stdout.decode()
    assert f"{place}: refused: gpt-5.5: output is 3, less than input 5; they may be swapped" in text
    (copy / "pricing/openai.yaml").write_text("models: [")
    assert (
        objects(run(f"tok-price lint --catalogue {copy}", env=ENV, status=1).stdout)[0]["place"] == "pricing/openai.yaml:2"
    )
    assert "holds no price files" in run("tok-price lint --catalogue .", status=2).stderr.decode()
    assert "nor a revision of git" in run("tok-price lint --against nowhere", status=2).stderr.decode()


def test_lint_against_a_revision_of_git(run: Run, copy: pathlib.Path) -> None:
    git = ["git", "-C", str(copy), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    assert run(f"tok-price lint --catalogue {copy} --against HEAD", env=ENV).stdout == b""
    edit(copy, "mistral", "  mistral-large-4:", 'input: "0.68"', 'input: "0.67"')
    done = run(f"tok-price lint --catalogue {copy} --against HEAD --table", env=ENV, status=1)
    assert "prices from the beginning on were changed in place" in done.stdout.decode()


def applied(patch: bytes, folder: pathlib.Path) -> None:
    at = folder.parent / "tree"
    (at / "catalog").mkdir(parents=True)
    shutil.copytree(folder / "pricing", at / "catalog/pricing")
    subprocess.run(["patch", "-p1", "--quiet"], input=patch, cwd=at, check=True)
    shutil.rmtree(folder / "pricing")
    shutil.copytree(at / "catalog/pricing", folder / "pricing")


def test_a_proposal_is_a_patch_that_appends_and_passes(run: Run, copy: pathlib.Path) -> None:
    """Prices that both tables state: an interval is appended, and check has nothing left to say."""
    edit(copy, "mistral", "  mistral-small-2603:", 'input: "0.15"\n        cache_read: "0.015"\n        output: "0.6"', 'input: "0.1"\n        cache_read: "0.01"\n        output: "0.4"')  # fmt: skip
    edit(copy, "xai", "aliases:", "  grok-4.5-latest:\n    - {to: grok-4.5}\n", "")
    edit(copy, "openai", "models:", '  gpt-rosalind-discovery:\n    prices:\n      - input: "5"\n        cache_read: "0.5"\n        output: "25"\n        src: [litellm-2026-11-22, genai-2026-11-22]\n        confidence: high\n', "")  # fmt: skip
    before = {path.name: path.read_bytes() for path in (copy / "pricing").iterdir()}
    done = run(f"tok-price propose --catalogue {copy}", env=ENV)
    assert done.stderr == b"" and {path.name: path.read_bytes() for path in (copy / "pricing").iterdir()} == before
    old = copy.parent / "old"
    shutil.copytree(copy, old)
    applied(done.stdout, copy)
    text = (copy / "pricing/mistral.yaml").read_text()
    assert '- until: 2026-12-01T00:00:00Z\n        input: "0.1"' in text
    assert '- from: 2026-12-01T00:00:00Z\n        input: "0.15"\n        cache_read: "0.015"\n        output: "0.6"' in text
    assert "  grok-4.5-latest:\n    - {to: grok-4.5}" in (copy / "pricing/xai.yaml").read_text()
    assert "  gpt-rosalind-discovery:\n    prices:" in (copy / "pricing/openai.yaml").read_text()
    assert run(f"tok-price lint --catalogue {copy} --against {old}", env=ENV).stdout == b""
    assert b'"unexplained":0' in run(f"tok-price check --catalogue {copy}", env=ENV).stdout
    assert run(f"tok-price propose --catalogue {copy}", env=ENV).stdout == b""


def test_what_lint_holds_goes_in_only_when_somebody_vouches(run: Run, copy: pathlib.Path) -> None:
    edit(copy, "groq", '  "openai/gpt-oss-20b":', 'input: "0.075"\n        cache_read: "0.0375"\n        output: "0.3"', 'input: "0.01"\n        cache_read: "0.005"\n        output: "0.04"')  # fmt: skip
    done = run(f"tok-price propose --catalogue {copy}", env=ENV, status=1)
    assert done.stdout == b"" and b"held: groq/openai/gpt-oss-20b: " in done.stderr and b"more than 3 times" in done.stderr
    (row,) = objects(run(f"tok-price propose --catalogue {copy} --json", env=ENV, status=1).stdout)
    assert (row["verdict"], row["prices"]["input"], len(row["tables"])) == ("held", "0.075", 2)
    vouch = "--vouch groq/openai/gpt-oss-20b=https://groq.com/pricing"
    done = run(f"tok-price propose --catalogue {copy} {vouch} --from 2026-12-01 --output p.diff", env=ENV)
    assert done.stdout == b""
    applied((copy.parent / "p.diff").read_bytes(), copy)
    text = (copy / "pricing/groq.yaml").read_text()
    assert 'kind: "vendor page"' in text and "see the vendor's page: https://groq.com/pricing" in text
    assert (
        run(f"tok-price lint --catalogue {copy} --against {ROOT / 'catalog'}", env=ENV, status=1).stdout.count(
            b"changed in place"
        )
        == 1
    )
    assert "write PROVIDER/MODEL=https://" in run("tok-price propose --vouch x", status=2).stderr.decode()


def test_what_one_table_says_is_not_enough(run: Run, copy: pathlib.Path) -> None:
    edit(copy, "anthropic", "  claude-fable-5-2:", 'output: "40"', 'output: "41"')
    done = run(f"tok-price propose --catalogue {copy}", env=ENV, status=1)
    assert done.stdout == b"" and b"held: anthropic/claude-fable-5-2" in done.stderr


def test_what_lint_refuses_goes_in_never(run: Run, copy: pathlib.Path) -> None:
    """Both tables with a slip: a thousand times too much is in no patch, whoever vouches for it."""
    for source in price_tables.SOURCES:
        table = price_tables.load(str(copy), source)
        row = price_tables.find(table, "anthropic", "claude-opus-5")
        assert row is not None
        for one in row["prices"]:
            one["rates"] = {key: f"{Decimal(value) * 1000:f}" for key, value in one["rates"].items() if "/" not in key}
        (copy / "snapshots" / f"{source}.json").write_bytes(price_tables.text_of(table.details, table.models))
    vouch = "--vouch anthropic/claude-opus-5=https://example.com/"
    done = run(f"tok-price propose --catalogue {copy} {vouch}", env=ENV, status=1)
    assert done.stdout == b"" and b"refused: anthropic/claude-opus-5: " in done.stderr


def test_an_interval_is_appended_line_by_line() -> None:
    text = (ROOT / "catalog/pricing/openai.yaml").read_text()
    made = price_files.append_interval(
        text, "gpt-5.5", "2026-12-01T00:00:00Z", {"input": "4", "input>272000": "8"}, ["page"], "high", 'a "note"'
    )
    gone, new = set(text.splitlines()) - set(made.splitlines()), [line for line in made.splitlines() if line not in text]
    assert not gone and len(made.splitlines()) - len(text.splitlines()) == 10
    assert '          - {op: gt, tokens: 272000, input: "8", output: "45", cache_read: "1"}' in new
    assert '        note: "a \\"note\\""' in new
    for change in ({"input>128000": "8"},):
        with pytest.raises(price_files.ByHand):
            price_files.append_interval(text, "gpt-5.5", "2026-12-01T00:00:00Z", change, ["page"], "high")
    with pytest.raises(price_files.ByHand):
        price_files.append_interval(text, "gpt-none", "2026-12-01T00:00:00Z", {}, ["page"], "high")


# snapshot.


def wheel(folder: pathlib.Path, package: str, version: str, file: str, data: bytes, **odd: Any) -> None:
    """A wheel as a registry would give it, with a RECORD and a licence."""
    name = package.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    license_ = odd.get("license", "MIT License\n\nPermission is hereby granted, free of charge, to any person")
    files = {file: data, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode()}
    files |= {f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    files |= {f"{info}/licenses/LICENSE": license_.encode()}
    rows = [f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},{len(content)}" for path, content in files.items()]  # fmt: skip
    if odd.get("torn"):
        files[file] = data.replace(b"5e-06", b"6e-06")
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]))


MAP: Json = {
    "sample_spec": {"litellm_provider": "one of many", "mode": "chat"},
    "claude-new": {"litellm_provider": "anthropic", "mode": "chat", "input_cost_per_token": 5e-06, "output_cost_per_token": 2.5e-05},
    "gpt-new": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2e-06, "output_cost_per_token": 1e-05, "cache_read_input_token_cost": 2e-07, "input_cost_per_token_above_272k_tokens": 4e-06, "input_cost_per_token_batches": 1e-06},
    "gpt-image": {"litellm_provider": "openai", "mode": "image_generation", "output_cost_per_image": 0.04},
    "other/model": {"litellm_provider": "somebody", "input_cost_per_token": 1.0},
}  # fmt: skip
DATA = """import datetime
from decimal import Decimal
from .types import *
raise SystemExit("this is read, not run")
providers: list[Provider] = [
    Provider(id='anthropic', models=[
        ModelInfo(id='claude-new', match=ClauseOr(or_=[ClauseStartsWith(starts_with='claude-new')]), prices=[
            ConditionalPrice(prices=ModelPrice(input_mtok=Decimal('5'), output_mtok=Decimal('25'))),
            ConditionalPrice(constraint=StartDateConstraint(start_date=datetime.date(2026, 12, 1)), prices=ModelPrice(input_mtok=Decimal('4'), output_mtok=Decimal('20'))),
            ConditionalPrice(constraint=TimeOfDateConstraint(start_time=datetime.time(1, 0, tzinfo=datetime.UTC), end_time=datetime.time(4, 0, tzinfo=datetime.UTC)), prices=ModelPrice(input_mtok=Decimal('6'))),
        ], price_variants=[PriceVariant(when={'processing': 'batch'}, prices=ModelPrice(input_mtok=TieredPrices(base=Decimal('2.5'), tiers=[Tier(start=200000, price=Decimal('5'))])))]),
    ]),
    Provider(id='somebody', models=[]),
]
"""


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> Any:
    """A registry that pip takes wheels from without a network."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull, **ENV}

    def offer(litellm: Any = MAP, genai: str = DATA, version: str = "9.9.9", **odd: Any) -> dict[str, str]:
        data = litellm if isinstance(litellm, bytes) else json.dumps(litellm).encode()
        wheel(folder, "litellm", version, price_snapshot.LITELLM_FILE, data, **odd)
        wheel(folder, "genai-prices", version, price_snapshot.GENAI_FILE, genai.encode())
        return env

    return offer


def test_a_snapshot_is_read_out_of_the_packages(run: Run, registry: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "cat/pricing").mkdir(parents=True)
    shutil.copy(ROOT / "catalog/pricing/anthropic.yaml", tmp_path / "cat/pricing")
    rows = objects(run("tok-price snapshot --catalogue cat", env=registry()).stdout)
    assert [(row["package"], row["version"], row["models"]) for row in rows] == [
        ("litellm", "9.9.9", 2),
        ("genai-prices", "9.9.9", 1),
    ]
    litellm, genai = price_tables.tables(str(tmp_path / "cat"))
    assert litellm.details["captured"] == "2026-12-01" and litellm.details["left_out"] == {"no price per token": 1}
    row = price_tables.find(litellm, "openai", "gpt-new")
    assert row and row["prices"][0]["rates"] == {
        "input": "2",
        "output": "10",
        "cache_read": "0.2",
        "input>272000": "4",
        "batch/input": "1",
    }
    new = price_tables.find(genai, "anthropic", "claude-new-20261122")
    assert new is not None
    for ts, wanted in (("2026-11-22T12:00", "5"), ("2026-12-02T12:00", "4"), ("2026-11-22T02:00", "6")):
        assert price_tables.rates_at(new, f"{ts}:00.000Z")["input"] == wanted
    assert price_tables.rates_at(new, AT)["batch/input>200000"] == "5"
    # The next one says what changed.
    changed = json.loads(json.dumps(MAP))
    changed["claude-new"]["input_cost_per_token"] = 4e-06
    rows = objects(run("tok-price snapshot --catalogue cat --dry-run", env=registry(changed, version="9.10.0")).stdout)
    (row,) = [row for row in rows if row["kind"] == "price_snapshot_change"]
    assert (row["model"], row["change"]) == ("claude-new", "input 5 -> 4")
    assert price_tables.load(str(tmp_path / "cat"), "litellm").details["version"] == "9.9.9"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"torn": True}, "its checksum is not the one in the wheel's RECORD"),
    ({"license": "All rights reserved"}, "licence is no longer MIT"),
    ({"litellm": b"{"}, "the package's format has changed"),
    ({"litellm": {"claude-new": {"litellm_provider": "anthropic", "input_cost_per_token": "cheap"}}}, "is not a price"),
    (
        {"litellm": {"claude-new": {"litellm_provider": "anthropic", "input_cost_per_token": -1.0}}},
        "not a price; the snapshot is unchanged",
    ),
    ({"genai": "providers = 3\n"}, "defines no `providers`"),
    ({"genai": "providers: list = [Provider(id='openai', models=[open('x')])]\n"}, "the package's format has changed"),
    ({"version": "0.0.1"}, "is older than the snapshot's"),
    ({"litellm": {"claude-new": MAP["claude-new"]}}, "most of its models are gone"),
]


@pytest.mark.parametrize(("odd", "why"), REFUSED)
def test_what_cannot_become_a_snapshot(odd: dict[str, Any], why: str, registry: Any, copy: pathlib.Path) -> None:
    wheels = registry(**odd)["PIP_FIND_LINKS"]
    with pytest.raises(price_tables.SnapshotError, match=re.escape(why)):
        given = []
        for engine in price_snapshot.ENGINES:
            (path,) = pathlib.Path(wheels).glob(f"{engine.package.replace('-', '_')}-*.whl")
            given.append((engine.source, price_snapshot.reduce(engine, str(path), "2026-11-22")))
        for source, (about, models) in given:
            price_report.snapshot_changes(source, price_tables.load(str(copy), source), about, models)


def test_a_refused_snapshot_changes_nothing(run: Run, registry: Any, copy: pathlib.Path) -> None:
    before = {path.name: path.read_bytes() for path in (copy / "snapshots").iterdir()}
    done = run(f"tok-price snapshot --catalogue {copy}", env=registry(torn=True), status=2)
    assert "is not the one in the wheel's RECORD" in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert {path.name: path.read_bytes() for path in (copy / "snapshots").iterdir()} == before


def test_without_a_registry_there_is_one_sentence(run: Run, tmp_path: pathlib.Path) -> None:
    env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    done = run("tok-price snapshot", env=env, status=2)
    assert done.stderr.startswith(b"tok-price: pip download litellm: ") and done.stderr.count(b"\n") == 1


# override.


def test_an_override_to_begin_with(run: Run, tmp_path: pathlib.Path) -> None:
    records = [
        {"v": 1, "ts": "2026-11-20T12:00:00.000Z", "kind": "turn", "id": f"t{n}", "turns": 1, "output_tokens": 7}
        for n in range(5)
    ]
    models = [
        ("openrouter", "z-ai/glm-99"),
        ("anthropic", "claude-opus-5-5"),
        ("openrouter", "z-ai/glm-99"),
        ("", "aide"),
        ("xai", "grok-9"),
    ]
    run(
        "tok-log append",
        lines(
            [
                one | {"provider": p, "model": m} if p else one | {"model": m}
                for one, (p, m) in zip(records, models, strict=True)
            ]
        ),
    )
    run("tok-price override init mine.yaml", env=ENV)
    text = (tmp_path / "mine.yaml").read_text()
    assert '"z-ai/glm-99": {prices: [{input: "", cache_read: "", output: ""}]}' in text and '"grok-9"' in text
    assert 'claude-opus-5-5"' not in text
    env = ENV | {"TOKENOPS_PRICING_PATH": str(tmp_path / "mine.yaml")}
    assert run("tok-price override check", env=env).stdout == b""  # all of it is commented
    assert "exists already" in run("tok-price override init mine.yaml", env=ENV, status=2).stderr.decode()
    (tmp_path / "mine.yaml").write_text(
        'providers:\n  openrouter: {models: {"z-ai/*": {prices: [{input: "1", output: "2"}]}}}\n'
        '  anthropic: {models: {claude-opus-5-5: {prices: [{input: "3", output: "4"}]}, claude-haiku-4-5: {remove: true}}}\n'
        '  "*": {models: {aide: {prices: [{input: "1", output: "2"}]}}}\n  azure: {aliases: {ours: [{to: gpt-5.5}]}}\n'
    )
    rows = {row["model"]: row for row in objects(run("tok-price override check", env=env).stdout)}
    assert {name: (row["effect"], row["turns"]) for name, row in rows.items()} == {
        "z-ai/*": ("adds", 2), "claude-opus-5-5": ("replaces", 1), "claude-haiku-4-5": ("removes", 0), "aide": ("adds", 1), "ours": ("alias", 0),
    }  # fmt: skip
    assert rows["claude-opus-5-5"]["replaces"] == "anthropic/claude-opus-5-5"
    assert rows["z-ai/*"]["recorded"][0]["before"] == "openrouter sets its own prices; add an override"
    assert b"z-ai/glm-99" in run("tok-price override check --table", env=env).stdout
    (tmp_path / "mine.yaml").write_text("providers: {x: {models: {a: {prices: []}}}}")
    assert (
        "mine.yaml:1: providers.x.models.a: `prices` is missing"
        in run("tok-price override check", env=env, status=2).stderr.decode()
    )
    assert "no file is configured" in run("tok-price override check", status=2).stderr.decode()
    assert "write init or check" in run("tok-price override", status=2).stderr.decode()


def test_the_doctor_names_prices_that_nobody_looked_at(run: Run) -> None:
    (told,) = objects(run("tok-status --json", env={"TOKENOPS_NOW": "2026-12-01T00:00:00Z"}, status=None).stdout)
    assert (told["prices"]["older_than_30_days"], told["prices"]["scheduled_due"]) == ([], [])
    (told,) = objects(run("tok-status --json", env={"TOKENOPS_NOW": "2027-01-02T00:00:00Z"}, status=None).stdout)
    assert {"provider": "gemini", "model": "gemini-3.8-flash", "from": "2027-01-01"} in told["prices"]["scheduled_due"]
    assert "anthropic" in told["prices"]["older_than_30_days"]
    assert {"update_prices", "look_at_prices"} <= {one["id"] for one in told["next_actions"]}
