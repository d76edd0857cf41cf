"""Our prices beside two other engines', on golden cases that none of the three wrote.

    python bench/compare_prices.py [GOLDEN.csv]

Installs genai-prices and litellm into an environment of its own (below bench/out, not committed) and lets each engine price
every case as its own documentation says. Writes the table into docs/pricing.md and prints every case that is not exact.
"""

from __future__ import annotations

import csv
import datetime
import json
import pathlib
import re
import subprocess
import sys
from decimal import Decimal
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "bench" / "out"
PAGE = ROOT / "docs" / "pricing.md"
GOLDEN = ROOT.parent / "shared" / "data" / "golden_costs.csv"
sys.path.insert(0, str(ROOT / "bin"))

Case = dict[str, Any]

# Each reads cases as JSON from stdin and prints a cost, or null and a reason, per case. They run in the engines' environment.
GENAI = """
import datetime, json, sys, warnings
warnings.simplefilter("ignore")
from genai_prices import Usage, calc_price
found = []
for c in json.load(sys.stdin):
    n = c["counts"]
    total = n["input"] + n["cache_read"] + n["cache_write_5m"] + n["cache_write_1h"]
    usage = {"input_tokens": total, "output_tokens": n["output"]}
    if n["cache_read"]: usage["cache_read_tokens"] = n["cache_read"]
    writes = n["cache_write_5m"] + n["cache_write_1h"]
    if writes: usage["cache_write_tokens"] = writes
    if n["cache_write_1h"]: usage["cache_write_1h_tokens"] = n["cache_write_1h"]
    if c["extras"].get("web_search"): usage["web_searches"] = int(c["extras"]["web_search"])
    context = {}
    for part in c["tiers"]:
        if part == "batch": context["processing"] = "batch"
        elif part == "fast" and c["provider"] == "anthropic": context["speed"] = "fast"
        elif part not in ("us", "eu"): context["service_tier"] = part
    try:
        at = datetime.datetime.fromisoformat(c["date"])
        r = calc_price(Usage(**usage), c["model"], provider_id={"gemini": "google", "xai": "x-ai"}.get(c["provider"], c["provider"]),
                       genai_request_timestamp=at, price_context=context or None)
        found.append([str(r.total_price), ""])
    except Exception as error:
        found.append([None, str(error)[:80]])
print(json.dumps(found))
"""
LITELLM = """
import json, os, sys
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from litellm.types.utils import Usage, PromptTokensDetailsWrapper, CompletionTokensDetailsWrapper, CacheCreationTokenDetails
found = []
for c in json.load(sys.stdin):
    n = c["counts"]
    total = n["input"] + n["cache_read"] + n["cache_write_5m"] + n["cache_write_1h"]
    details = dict(cached_tokens=n["cache_read"], cache_creation_tokens=n["cache_write_5m"] + n["cache_write_1h"])
    if n["cache_write_1h"]:
        details["cache_creation_token_details"] = CacheCreationTokenDetails(
            ephemeral_5m_input_tokens=n["cache_write_5m"], ephemeral_1h_input_tokens=n["cache_write_1h"])
    usage = Usage(prompt_tokens=total, completion_tokens=n["output"], total_tokens=total + n["output"],
                  prompt_tokens_details=PromptTokensDetailsWrapper(**details),
                  completion_tokens_details=CompletionTokensDetailsWrapper(reasoning_tokens=n["reasoning"] or None),
                  cache_creation_input_tokens=n["cache_write_5m"] + n["cache_write_1h"], cache_read_input_tokens=n["cache_read"])
    tier = region = None
    for part in c["tiers"]:
        if part in ("us", "eu"):
            region = part
            usage.inference_geo = part
        elif part == "fast" and c["provider"] == "anthropic":
            usage.speed = "fast"
        else:
            tier = part
    try:
        if tier == "batch":
            from litellm.cost_calculator import batch_cost_calculator
            cost = batch_cost_calculator(usage=usage, model=c["model"], custom_llm_provider=c["provider"])
        else:
          cost = litellm.cost_per_token(model=c["model"], custom_llm_provider=c["provider"], usage_object=usage, prompt_tokens=total,
            completion_tokens=n["output"], service_tier=tier, data_residency=region,
            cache_read_input_tokens=n["cache_read"], cache_creation_input_tokens=n["cache_write_5m"] + n["cache_write_1h"])
        searches = int(c["extras"].get("web_search", "search_context" in c["extras"]))
        extra = 0.0
        if searches:
            info = litellm.get_model_info(c["model"], custom_llm_provider=c["provider"])
            size = c["extras"].get("search_context", "medium")
            each = (info.get("search_context_cost_per_query") or {}).get("search_context_size_" + size)
            extra = searches * (each or 0.0)
        found.append([repr(sum(cost) + extra), ""])
    except Exception as error:
        found.append([None, type(error).__name__])
print(json.dumps(found))
"""


def cases(path: pathlib.Path) -> list[Case]:
    """The golden cases as plain data."""
    found = []
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            tiers, *extras = row["tier"].split(";")
            names = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")
            found.append(
                {
                    "provider": row["provider"],
                    "model": row["model"],
                    "date": row["date"],
                    "counts": {name: int(row[name]) for name in names},
                    "tiers": [part for part in tiers.split("+") if part != "standard"],
                    "extras": dict(part.split("=") for part in extras),
                    "usd": row["usd"],
                    "how": row["how"],
                }
            )
    return found


def ours(given: list[Case]) -> list[tuple[str | None, str]]:
    """What our engine says."""
    from tokenops import pricing, rollup, when

    catalogue = pricing.load()
    found: list[tuple[str | None, str]] = []
    for number, case in enumerate(given):
        event = event_of(case, number)
        plan = rollup.Grouping((), when.UTC, catalogue)
        (row,) = rollup.merge_rows(rollup.roll_up([event], plan, print), catalogue)
        found.append((row.get("cost_usd"), row["unpriced"][0]["reason"] if "unpriced" in row else ""))
    return found


def event_of(case: Case, number: int) -> dict[str, Any]:
    """A golden case as a record."""
    n = case["counts"]
    event: dict[str, Any] = {
        "v": 1,
        "ts": case["date"].replace("Z", ".000Z"),
        "kind": "turn",
        "id": f"case{number}",
        "turns": 1,
    }
    event |= {"provider": case["provider"], "model": case["model"]}
    names = {
        "input": "input_tokens",
        "cache_read": "cache_read_tokens",
        "cache_write_5m": "cache_write_tokens",
        "cache_write_1h": "cache_write_1h_tokens",
        "output": "output_tokens",
        "reasoning": "reasoning_tokens",
    }
    event |= {ours: n[theirs] for theirs, ours in names.items() if n[theirs]}
    for part in case["tiers"]:
        event["geo" if part in ("us", "eu") else "tier"] = part
    for key, value in case["extras"].items():
        event |= {"web_searches": int(value)} if key == "web_search" else {key: value}
    return event


def theirs(script: str, given: list[Case]) -> list[tuple[str | None, str]]:
    """What an engine in the other environment says."""
    done = subprocess.run(
        [OUT / "engines/bin/python", "-c", script], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return [tuple(pair) for pair in json.loads(done.stdout.strip().splitlines()[-1])]


def verdict(said: str | None, usd: str) -> str:
    """exact, wrong or no price. Binary noise below a millionth of the amount is forgiven to engines that use floats."""
    if said is None:
        return "no price"
    got, want = Decimal(said), Decimal(usd)
    return "exact" if got == want or abs(got - want) <= want * Decimal("1e-9") else "wrong"


def main() -> None:
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    if not (OUT / "engines/bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", OUT / "engines"], check=True)
        subprocess.run([OUT / "engines/bin/python", "-m", "pip", "install", "-q", "genai-prices", "litellm"], check=True)
    listed = subprocess.run(
        [OUT / "engines/bin/python", "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    versions = {item["name"]: item["version"] for item in json.loads(listed.stdout)}
    given = cases(path)
    engines = {
        "TokenOps": ours(given),
        f"genai-prices {versions['genai-prices']}": theirs(GENAI, given),
        f"LiteLLM {versions['litellm']}": theirs(LITELLM, given),
    }
    lines = [
        f"{len(given)} cases, {datetime.date.today()}.",
        "",
        "| engine | exact | wrong | no price |",
        "|---|---|---|---|",
    ]
    details = []
    for name, answers in engines.items():
        verdicts = [
            verdict(said, case["usd"]) if case["usd"] else "exact" for (said, _), case in zip(answers, given, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(str(verdicts.count(kind)) for kind in ('exact', 'wrong', 'no price'))} |")
        for case, (said, why), kind in zip(given, answers, verdicts, strict=True):
            if kind != "exact":
                tier = "+".join(case["tiers"]) or "standard"
                shown = f"{float(said):.7g}" if said is not None else f"no price ({why})"
                details.append(
                    f"| {name.split()[0]} | {case['model']} | {tier} | {case['date'][:16]} | {case['usd']} | {shown} |"
                )
    text = "\n".join(lines) + "\n"
    print(text)
    print("\n".join(["| engine | model | tier | when | right | said |", "|---|---|---|---|---|---|", *details]))
    page = PAGE.read_text()
    PAGE.write_text(
        re.sub(r"(<!-- engines -->\n).*?(<!-- end -->)", lambda match: f"{match[1]}{text}{match[2]}", page, flags=re.DOTALL)
    )


if __name__ == "__main__":
    main()
