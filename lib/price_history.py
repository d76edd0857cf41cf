"""Checks that an edit of the catalogue left past prices unchanged.

Two states of the price files are compared after compiling. An interval that had begun in the older state may change only
if its row has `correction: true`.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from tokenops import price_cards, price_lint
from tokenops.price_files import HELD, REFUSED, Book, Data, Fault, Texts, books, rates_of
from tokenops.price_lint import Rules

# The prices of an interval; sources, notes and confidence may be edited in place.
_COSTS = ("tiers", "geo", *price_cards.FEES)


def faults(texts: Texts, older: Texts, rules: Rules, today: str) -> list[Fault]:
    """The problems of some price files as an edit of older ones, on a day (YYYY-MM-DD)."""
    before = {book.provider: book for book in books(older)[0]}
    now = {book.provider: book for book in books(texts)[0]}
    problems: list[Fault] = []
    for provider, was in before.items():
        book = now.get(provider)
        if book is None:
            if not any(book_name == was.name for book_name in texts):
                problems.append(Fault(HELD, was.name, provider, "", "the provider is gone; its turns would have no price"))
            continue
        for check in (_models, _aliases, _sources, _rest):
            problems += check(book, was, rules, today)
    return problems


def _models(book: Book, was: Book, rules: Rules, today: str) -> Iterator[Fault]:
    for model, card in was.body["models"].items():
        if model not in book.body["models"]:
            yield Fault(HELD, book.name, book.provider, model, "the row is gone; retired models stay, with `retired:`")
            continue
        yield from _card(book, was, model, card, rules, today)


def _card(book: Book, was: Book, model: str, card: list[Data], rules: Rules, today: str) -> Iterator[Fault]:
    new = {interval.get("from", ""): interval for interval in book.body["models"][model]}
    old = {interval.get("from", ""): interval for interval in card}
    for begins, interval in old.items():
        if begins[:10] <= today:
            yield from _past(book, was, model, interval, new.get(begins), today)
        elif begins not in new and not any("note" in other for other in new.values()):
            what = f"the change scheduled for {begins[:10]} is gone; say in a row's `note:` who cancelled it or put it off"
            yield book.fault(HELD, model, "", what)
    before: Data | None = None
    for begins, interval in sorted(new.items()):
        if begins not in old:
            yield from _new_interval(book, model, interval, before, max(old), rules)
        before = interval


def _past(book: Book, was: Book, model: str, old: Data, new: Data | None, today: str) -> Iterator[Fault]:
    """An interval that had begun: its prices stay, and it may only end when a later one begins."""
    begins = old.get("from", "")
    since = f"from {begins[:10]} on" if begins else "from the beginning on"
    if new is None:
        yield book.fault(REFUSED, model, "", f"the interval {since} is gone: history stays; append an interval")
        return
    if new.get("correction"):
        return
    changed = [name for name in _COSTS if _same_free(old.get(name)) != _same_free(_priced_before(name, old, new))]
    if changed:
        what = f"prices {since} were changed in place; close the interval and append one, or say `correction: true`"
        yield book.fault(REFUSED, model, begins, what)
    if old.get("until") == new.get("until"):
        return
    if old.get("until", "9")[:10] <= today:
        what = f"the end of an interval that is over was moved to {new.get('until', 'never')[:10]}"
        yield book.fault(REFUSED, model, begins, what)
    read = max((str(was.body["sources"].get(key, {}).get("captured", "")) for key in old.get("src", ())), default="")
    if new.get("until", "9")[:10] < read:
        what = (
            f"it was read as still in force on {read}, and is said to end on {new['until'][:10]}; if so, `correction: true`"
        )
        yield book.fault(HELD, model, begins, what)


def _priced_before(name: str, old: Data, new: Data) -> Any:
    """A price of the new state, without regions of which the old state had none: a region that is added changes no price."""
    value = new.get(name)
    return {key: value[key] for key in old["geo"] if key in value} if name == "geo" and "geo" in old and value else value


def _same_free(value: Any) -> Any:
    """Prices without trailing zeros, so that 2.50 equals 2.5."""
    if isinstance(value, dict):
        return {key: _same_free(interval) for key, interval in value.items()}
    if isinstance(value, list):
        return [_same_free(interval) for interval in value]
    return value.rstrip("0").rstrip(".") if isinstance(value, str) and "." in value and value[:1].isdigit() else value


def _new_interval(book: Book, model: str, interval: Data, before: Data | None, last: str, rules: Rules) -> Iterator[Fault]:
    """A new interval: after all others, from a source read since then, without a large change unless a note explains it."""
    begins = interval.get("from", "")
    if begins < last and not interval.get("correction"):
        yield book.fault(REFUSED, model, begins, f"begins before an interval that was there; history stays ({last[:10]})")
    sources = book.body["sources"]
    read = max((str(sources.get(key, {}).get("captured", "")) for key in interval.get("src", ())), default="")
    if read < begins[:10] and not interval.get("scheduled"):
        what = (
            f"none of its sources was read since {begins[:10]}; add one under `sources:` with the day on which it was read"
        )
        yield book.fault(HELD, model, begins, what)
    if before is None or "note" in interval:
        return
    most = Decimal(rules["change"])
    old, new = rates_of(before), rates_of(interval)
    for name in sorted(old.keys() & new.keys()):
        if not new[name] and old[name]:
            yield book.fault(HELD, model, begins, f"{name} became 0; say in `note:` where that is published")
        elif old[name] and not 1 / most <= new[name] / old[name] <= most:
            what = f"{name} went from {old[name]} to {new[name]}, more than {most} times"
            yield book.fault(HELD, model, begins, f"{what}; say in `note:` where that is published")


def _aliases(book: Book, was: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """An alias may change its target from a day on, but not for the past."""
    for alias, old in was.body["aliases"].items():
        new = book.body["aliases"].get(alias, [])
        if new == old:
            continue
        location = book.location("aliases", alias)
        if not new:
            if alias not in book.body["models"]:
                yield Fault(
                    HELD, location, book.provider, alias, "the alias is gone; turns of that name would have no price"
                )
            continue
        kept = [_meaning(target) for target in new[: len(old)]]
        ends = [_meaning(target) for target in old]
        ends[-1]["until"] = kept[-1]["until"] if len(kept) == len(ends) else ""
        if kept != ends:
            yield Fault(
                REFUSED,
                location,
                book.provider,
                alias,
                "what the alias meant before was changed; append a target `from` a day",
            )
        elif any("note" not in target for target in new[len(old) :]):
            yield Fault(
                HELD,
                location,
                book.provider,
                alias,
                "the alias leads elsewhere; say in the target's `note:` where that is published",
            )


def _meaning(target: Data) -> Data:
    return {name: target.get(name, "") for name in ("to", "from", "until")}


def _sources(book: Book, was: Book, rules: Rules, today: str) -> Iterator[Fault]:
    for name, source in was.body["sources"].items():
        now = book.body["sources"].get(name)
        if now is not None and str(now.get("captured", "")) < str(source.get("captured", "")):
            what = f"the source {name} was read on {source['captured']}, and is now said to be older"
            yield Fault(REFUSED, book.location("sources", name), book.provider, "", what)


def _rest(book: Book, was: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """Retirements, holidays, and confidence without a second source."""
    for model, day in was.body["retired"].items():
        if day <= today and book.body["retired"].get(model) != day and model in book.body["models"]:
            yield book.fault(
                HELD, model, "", f"it was retired on {day}, and now on {book.body['retired'].get(model, 'no day')}"
            )
    for name, days in was.body["holidays"].items():
        gone = {str(day) for day in days} - {str(day) for day in book.body["holidays"].get(name, ())}
        added = {str(day) for day in book.body["holidays"].get(name, ())} - {str(day) for day in days}
        if past := sorted(day for day in gone | added if day <= today):
            yield Fault(HELD, book.location("holidays"), book.provider, "", f"past holidays were changed: {', '.join(past)}")
    for model in book.body["models"].keys() - was.body["models"].keys():
        if model in was.body["aliases"]:
            yield book.fault(HELD, model, "", "it was an alias, and has prices of its own now")


def all_faults(texts: Texts, older: Texts | None, today: str) -> list[Fault]:
    """All problems of some price files, also as an edit of older ones if there are any."""
    rules = price_lint.rules()
    problems = price_lint.faults(texts, rules, today)
    return problems + (faults(texts, older, rules, today) if older is not None else [])
