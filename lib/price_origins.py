"""Where rows are from, what they are called, and how they stand among their kin: the checks of `price_lint` about that."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterator
from decimal import Decimal

from tokenops import price_cards, price_causes
from tokenops.price_files import HELD, REFUSED, Book, Data, Fault

_CONFIDENCE = ("high", "medium", "low")
_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z")


def origins(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """Each row says where it is from, and each source where it stands and when it was read."""
    sources = book.body["sources"]
    for name, about in sources.items():
        captured = str(about.get("captured", ""))
        if not str(about.get("url", "")).startswith("https://") or not _DAY.match(captured) or not about.get("kind"):
            yield Fault(
                REFUSED, book.place("sources", name), book.provider, "", f"the source {name} needs url, captured and kind"
            )
        elif captured > today:
            what = f"the source {name} was read on {captured}, which has not come yet"
            yield Fault(REFUSED, book.place("sources", name), book.provider, "", what)
    for model, interval, _ in book.rows():
        begins, given = interval.get("from", ""), interval.get("src") or []
        if unknown := [key for key in given if key not in sources]:
            yield book.fault(REFUSED, model, begins, f"no source {unknown[0]!r} stands under `sources:`")
        if not given:
            yield book.fault(REFUSED, model, begins, "`src` is missing; name the sources that say so")
        sure = interval.get("confidence")
        if sure not in _CONFIDENCE:
            yield book.fault(REFUSED, model, begins, f"confidence is {sure!r}; write {', '.join(_CONFIDENCE)}")
        if sure == "high" and len(given) < 2 and not _by_vendor(sources, given):
            what = "confidence is high with one source that is not the vendor's; write medium, or name a second"
            yield book.fault(HELD, model, begins, what)


def _by_vendor(sources: Data, keys: list[str]) -> bool:
    """Whether the vendor itself says so: its page or news, or its own client."""
    return any(str(sources.get(key, {}).get("kind", "")).startswith(("vendor", "what its")) for key in keys)


def names(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """A name means one row; an alias leads to a model, and its targets follow one another."""
    body = book.body
    for model in body["models"]:
        if "*" in model:
            yield book.fault(REFUSED, model, "", "built-in names hold no `*`: list the names, or use an override")
        if model in body["aliases"] or model in body["unpriced"]:
            yield book.fault(REFUSED, model, "", "the name is also an alias, or stands under `unpriced`")
    for alias, targets in body["aliases"].items():
        yield from (
            Fault(REFUSED, book.place("aliases", alias), book.provider, alias, why) for why in _alias(body, alias, targets)
        )
    for name in set(map(str, book.raw.get("models") or {})) | set(map(str, book.raw.get("aliases") or {})):
        if name != name.lower():
            yield Fault(REFUSED, book.place("models", name), book.provider, name, "names stand in lower case")


def _alias(body: Data, alias: str, targets: list[Data]) -> Iterator[str]:
    if not targets:
        yield "the alias has no target"
    for target in targets:
        if target["to"] in body["aliases"]:
            yield f"{target['to']} is an alias itself; name the model that it means"
        elif target["to"] not in body["models"]:
            yield f"there is no model {target['to']!r}; the nearest is {price_cards.nearest(target['to'], body['models'])!r}"
    for before, after in itertools.pairwise(targets):
        if before.get("until") != after.get("from"):
            ends, begins = before.get("until", "never")[:10], after.get("from", "the beginning")[:10]
            yield f"its targets do not follow one another: {before['to']} ends {ends}, {after['to']} begins {begins}"


def family(model: str) -> str:
    """A model's name without its version: claude-opus, gpt-mini, gemini-flash-lite."""
    words = re.split(r"[-/:.]", model)
    return "-".join(word for word in words if word and not re.search(r"\d", word)) or model


def siblings(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """A price many times that of its family, or in another unit than it."""
    factor = Decimal(rules["limits"]["siblings"])
    groups: dict[tuple[str, str], list[tuple[str, Data, Decimal]]] = {}
    for model, interval, rates in book.rows():
        for name in ("input", "output"):
            if rates.get(name):
                groups.setdefault((family(model), name), []).append((model, interval, rates[name]))
    for (_, name), rows in groups.items():
        for model, interval, value in rows:
            others = [other for sibling, _, other in rows if sibling != model]
            ratio = value / statistics.median(others) if len(others) > 1 else Decimal(1)
            if not 1 / factor < ratio < factor:
                what = f"{name} is {ratio:.4g} times that of its family"
                slip = f", a slip of 10^{power}" if (power := price_causes.slipped(ratio)) else ""
                yield book.fault(REFUSED, model, interval.get("from", ""), what + slip)
