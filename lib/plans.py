"""Lists flat-rate plans as vendors publish them, and which of them the user has, since when.

A plan in force covers its provider's turns through a login. Reports show what those turns would have cost at list price.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import catalog, config, light, show, when
from tokenops.config import Unusable

_DATE = light.pattern(r"\d{4}-\d{2}-\d{2}\Z")


# The word for a plan that applies to all time, as in --since all.
ALWAYS = "all"


class Plan(NamedTuple):
    """One plan. `windows` are as meters call them: window, minutes, and scope, limit and unit if they are published."""

    name: str
    provider: str
    display: str
    usd: str  # per month and seat; "" if it is not published
    windows: tuple[Mapping[str, Any], ...]
    clients: tuple[str, ...]
    note: str
    source: tuple[str, ...]


class Binding(NamedTuple):
    """A plan that the user has: from a day on ("": always), until another begins; of one account, or of any."""

    provider: str
    plan: str
    since: str
    account: str
    written: str = ""  # the day on which it was set, if tok-plan set it


def all_plans() -> dict[str, Plan]:
    """All plans of the catalogue, by name."""
    entries = catalog.load("plans")["plans"]
    plans = {}
    for name, entry in entries.items():
        fields = {**entries[entry["same_as"]], **entry} if "same_as" in entry else entry
        plans[name] = Plan(
            name,
            fields["provider"],
            fields["display"],
            fields.get("usd", ""),
            tuple(fields["windows"]),
            tuple(fields["clients"]),
            fields.get("note", ""),
            tuple(fields["source"]),
        )
    return plans


def current_plans() -> list[Plan]:
    """The plans that a vendor offers now, each once."""
    aliases = {name for name, plan in catalog.load("plans")["plans"].items() if "same_as" in plan}
    return [plan for plan in all_plans().values() if plan.name not in aliases]


def find(name: str) -> Plan:
    """A plan by its present name or an earlier one. Raises Unusable."""
    listed = all_plans()
    plan = listed.get(name) or listed.get(catalog.load("plans")["aliases"].get(name, ""))
    if plan is None:
        nearest = show.nearest(name, {**listed, **catalog.load("plans")["aliases"]})
        raise Unusable("", f"no plan {name!r}", f"the nearest known is {nearest!r} (tok-plan catalog lists all)")
    return plan


def resolve(words: Sequence[str]) -> Plan:
    """The plan that is meant: by its name, or by words that only one plan of the catalogue has. Raises Unusable.

    The first word may be its provider. `max5`, `Claude Max 5x` and `anthropic claude-max-5x` are one plan.
    """
    listed = all_plans()
    provider = words[0] if words[0] in {plan.provider for plan in listed.values()} else ""
    rest = words[1:] if provider else words
    name = "-".join(" ".join(rest).lower().split())
    earlier = catalog.load("plans")["aliases"]
    if (plan := listed.get(name) or listed.get(earlier.get(" ".join(rest), ""))) is not None:
        if provider not in ("", plan.provider):
            raise Unusable("", f"{plan.name} is a plan of {plan.provider}", f"run tok-plan set {plan.provider} {plan.name}")
        return plan
    typed = _words(name)
    of_provider = [plan for plan in current_plans() if provider in ("", plan.provider)]
    fitting = [plan for plan in of_provider if typed and typed <= _words(f"{plan.name} {plan.display} {plan.provider}")]
    # Of Pro, Pro 5x and Pro+, `pro` is the first: the plan whose name says no more than the vendor's, and that.
    exact = [plan for plan in fitting if _words(plan.name) - typed <= _vendor_words(plan)]
    if len(fitting) == 1 or len(exact) == 1:
        return (exact if len(exact) == 1 else fitting)[0]
    if not fitting:
        if not rest:
            choice = ", ".join(plan.name for plan in of_provider)
            raise Unusable("", f"no plan of {provider} is named", f"choose from {choice}")
        return find(name)  # which names the nearest
    raise Unusable("", f"{' '.join(words)!r} fits several plans", f"choose from {', '.join(plan.name for plan in fitting)}")


# Runs of letters, runs of digits, and the plus that some plans end with; `5x` is 5.
_WORD = light.pattern(r"[a-z]+|\d+|\+")


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - {"x"}


def _vendor_words(plan: Plan) -> set[str]:
    """The words that the names of all the vendor's present plans have."""
    return set.intersection(*(_words(other.name) for other in current_plans() if other.provider == plan.provider))


def bindings(settings: config.Config) -> list[Binding]:
    """The user's plans from the configuration, in order of provider, account and date. Raises Unusable.

    `plans: {anthropic: claude-max-20x}`, or a list of {plan, from, account} per provider.
    """
    entries = settings.get("plans") or {}
    if not isinstance(entries, Mapping):
        raise Unusable(f"{settings.path}: plans", "expected providers with plans")
    return sorted(_bindings(entries, settings.path), key=_order)


def _bindings(entries: Mapping[str, Any], path: str) -> Iterator[Binding]:
    for provider, value in entries.items():
        location = f"{path}: plans.{provider}"
        for item in value if isinstance(value, list) else [value]:
            entry = item if isinstance(item, Mapping) else {"plan": item}
            since = str(entry.get("from") or "")
            if since and not _DATE.match(since):
                raise Unusable(location, f"from is {since!r}", "expected a day such as 2026-11-01")
            try:
                plan = find(str(entry.get("plan")))
            except Unusable as error:
                raise Unusable(location, error.why, error.remedy) from None
            if plan.provider != provider:
                raise Unusable(location, f"{plan.name} is a plan of {plan.provider}")
            account, written = str(entry.get("account") or ""), str(entry.get("set") or "")
            yield Binding(str(provider), plan.name, since, account, written)


def _order(binding: Binding) -> tuple[str, str, str]:
    return binding.provider, binding.account, binding.since


def of_providers(bound: Sequence[Binding], day: str) -> dict[str, str]:
    """Provider -> its plan on a day, or one that was set for another day."""
    names = {binding.provider: binding.plan for binding in bound}
    return names | {each.provider: each.plan for name in names for each in in_force(list(bound), name, day)[:1]}


def in_force(bound: list[Binding], provider: str, day: str, account: str = "") -> list[Binding]:
    """The plans of a provider in force on a day (YYYY-MM-DD): for each account the one that began last."""
    latest: dict[str, Binding] = {}
    for binding in bound:
        if binding.provider == provider and binding.since <= day and binding.account in ("", account or binding.account):
            latest[binding.account] = binding
    return list(latest.values())


def covering_plans(settings: config.Config, day: str) -> dict[str, str]:
    """Provider -> the plans that cover its turns on a day. Raises Unusable."""
    bound = bindings(settings)
    return {
        binding.provider: ", ".join(binding_in_force.plan for binding_in_force in in_force(bound, binding.provider, day))
        for binding in bound
        if binding.since <= day
    }


def with_binding(bound: list[Binding], new: Binding) -> list[dict[str, str]]:
    """The bindings of a provider with a new one, as the configuration holds them.

    One of the same day is replaced, and so is the same plan with another start: a plan that begins twice began once.
    """
    others = [
        binding
        for binding in bound
        if binding.provider == new.provider
        and (binding.account, binding.since) != (new.account, new.since)
        and binding not in _same_plan_beside(bound, new)
    ]
    return [
        {
            key: value
            for key, value in (
                ("plan", binding.plan),
                ("from", binding.since),
                ("account", binding.account),
                ("set", binding.written),
            )
            if value
        }
        for binding in sorted([*others, new], key=_order)
    ]


def _same_plan_beside(bound: Sequence[Binding], new: Binding) -> list[Binding]:
    """The bindings before and after a new one in its account, if they name the same plan."""
    mine = sorted((each for each in bound if each.provider == new.provider and each.account == new.account), key=_order)
    before = [each for each in mine if each.since < new.since][-1:]
    after = [each for each in mine if each.since > new.since][:1]
    return [each for each in (*before, *after) if each.plan == new.plan]


def first_day(text: str, now: int, tz: datetime.tzinfo) -> str:
    """The day on which a plan begins, from a day or span as in when.SPANS; "" for `all`: always. Raises Unusable."""
    if text == ALWAYS:
        return ""
    try:
        return when.bucket(when.parse_since(text, now, tz), "day", tz)
    except ValueError:
        raise Unusable("", f"--from is {text!r}", "expected a day such as 2026-11-01, or all") from None


def new_binding(bound: list[Binding], plan: Plan, since: str | None, account: str, today: str) -> Binding:
    """A new binding: for all time if it is the provider's and account's first, else from a day on.

    A plan that corrects one of the same day begins when that one did, and so does the plan in force, set again.
    """
    mine = [binding for binding in bound if binding.provider == plan.provider and binding.account == account]
    now = sorted((binding for binding in mine if binding.since <= today), key=_order)[-1:]
    kept = [binding.since for binding in mine if binding.written == today or (binding in now and binding.plan == plan.name)]
    begins = max(kept, default=today if mine else "")
    return Binding(plan.provider, plan.name, begins if since is None else since, account, today)


def set_text(plan: Plan, began: str, is_dated: bool) -> str:
    """What setting a plan did, in a sentence, and unless it was dated, how to date it. `began`: its first day, or "".

    The first plan without a date covers all history. Most people set a plan that they have had for months: to report
    those months as pay-per-token would be wrong, and would count against budgets. It may also cover too much.
    """
    text = f"{plan.display} is set {f'from {began} on' if began else 'for all your history'}"
    case = "had it before" if began else "got it later"
    return text if is_dated else f"{text}; if you {case}: tok-plan set {plan.provider} {plan.name} --from DAY"


def row(plan: Plan) -> dict[str, Any]:
    """A plan as a record for programs."""
    record = {"v": 1, "kind": "plan", "plan": plan.name, "provider": plan.provider, "display": plan.display, "usd": plan.usd}
    record |= {"windows": [dict(window) for window in plan.windows], "note": plan.note, "source": list(plan.source)}
    return {key: value for key, value in record.items() if value or key == "windows"}


def binding_row(binding: Binding) -> dict[str, Any]:
    """A binding as a record for programs."""
    plan = all_plans()[binding.plan]
    record = row(plan) | {"kind": "binding", "from": binding.since, "account": binding.account}
    return {key: value for key, value in record.items() if value or key == "windows"}


def table(rows: list[dict[str, Any]], shape: str, color: bool, verbose: bool = False) -> str:
    """Plans or bindings for people."""

    def texts(title: str, name: str, rank: int) -> show.Column:
        return show.Column(title, [row.get(name, "") for row in rows], False, rank, prose=name == "display")

    columns = [texts("provider", "provider", 1), texts("plan", "plan", 0), texts("display", "display", 4)]
    if any("from" in row or "account" in row for row in rows):
        columns += [texts("from", "from", 2), texts("account", "account", 3)]
    columns.append(show.Column("USD a month", [row.get("usd", "") for row in rows], rank=0, heading="USD"))
    columns.append(show.Column("windows", [", ".join(map(_window, row["windows"])) for row in rows], False, 2, prose=True))
    notes = [f"{row['plan']}: {row['note']}" for row in rows if "note" in row]
    return show.table(columns, shape, color=color) + show.notes(notes, shape, color, verbose)


def _window(window: Mapping[str, Any]) -> str:
    limit = f" ({window['limit']} {window['unit']})" if "limit" in window else ""
    return f"{when.window_text(window['window']).removesuffix(' limit')}{limit}"
