"""Draws a card for each plan: what is left of it first, then what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tokenops import chart_text, dash_html, headroom, limit_view, when
from tokenops.dash_html import Html, tag
from tokenops.dash_view import View
from tokenops.events import Event

# The class, the shape and the words of each action: never a colour alone.
_ACTIONS = {
    headroom.CONTINUE: ("go", "M2 6.5l3 3 5-6", "continue"),
    headroom.SLOW_DOWN: ("slow", "M3.5 2.5v7M8.5 2.5v7", "slow down"),
    headroom.SWITCH_MODEL: ("slow", "M2 4h7l-2-2M10 8H3l2 2", "switch model"),
    headroom.WAIT: ("stop", "M3 3l6 6M9 3l-6 6", "wait for reset"),
}
UNREAD = "unread"  # the pattern of a window that was not read


def section(view: View) -> Html:
    """The cards, or what is needed to have some."""
    heading = tag("h2", "Headroom", id="headroom-title")
    if isinstance(view.budgets, Mapping):
        body = notice(view.budgets)
    elif not view.budgets:
        body = tag(
            "div",
            tag("p", "No plan is set, and no limit was read."),
            steps("tok-init --detect", "tok-plan set anthropic claude-pro"),
            class_="card blank",
        )
    else:
        body = tag("div", *(card(row, view) for row in view.budgets), class_="plans")
    return tag("section", heading, body, aria_labelledby="headroom-title", id="headroom")


def notice(error: Mapping[str, object]) -> Html:
    """A part that failed, and what to do about it."""
    return tag(
        "div", tag("p", str(error["error"])), tag("p", str(error["hint"]), class_="sub"), class_="card blank", role="note"
    )


def pending() -> Html:
    """A part that is not computed yet; the script asks for it soon."""
    return tag("p", "Being added up...", class_="sub", data_pending=True, aria_busy="true")


def steps(*commands: str) -> Html:
    """Commands to run, each on its own line."""
    return tag("ul", *(tag("li", tag("code", command)) for command in commands), class_="steps")


def window_name(row: Event) -> str:
    """A window's name for people."""
    scope = row.get("scope", "")
    name = str(row["window"]).removesuffix(f"_{scope}") if scope else str(row["window"])
    plain = {"five_hour": "5 hours", "weekly": "week", "monthly": "month", "daily": "day", "hourly": "hour"}
    return f"{plain.get(name, name.replace('_', ' '))}{f', {scope}' if scope else ''}"


def card(row: Event, view: View) -> Html:
    """One plan of one account."""
    left, name = row["headroom_pct"], f"plan-{row['provider']}-{row.get('account', '')}"
    plan = view.plans.get(row["provider"], "")
    details = [plan] if plan else []
    details += [f"account {row['account'][:8]}"] if row.get("account") else []
    title = tag(
        "h3",
        limit_view.vendor(row["provider"]),
        " ",
        tag("small", ", ".join(details)) if details else None,
        id=f"{name}-title",
    )
    if left is None:
        big = tag("p", tag("span", "unknown", class_="number"), " how much is used", class_="big")
    else:
        bound = limit_view.binding(row) or {"window": ""}
        resets = row["window_resets_in"]
        used = likely_use(bound)
        big = tag(
            "p",
            tag("data", chart_text.percent(used), value=used, class_="number"),
            tag("span", f" used of the {window_name(bound)}", f", resets in {resets}" if resets else ""),
            class_="big",
        )
    return tag(
        "article",
        tag("header", title, badge(row)),
        big,
        *(window(reading, row, view) for reading in row["windows"]),
        *_notes(row, view),
        class_="card plan",
        data_key=name,
        aria_labelledby=f"{name}-title",
    )


def badge(row: Event) -> Html:
    """What to do, as a shape and a word."""
    action = row["recommended_action"]
    kind, shape, word = _ACTIONS[action]
    if row["headroom_pct"] is None and action == headroom.CONTINUE:
        kind, shape = "", "M2.5 6h7"  # without a reading, all may not be well
    more = f" to {row['switch_to']}" if "switch_to" in row else ""
    icon = Html(f'<svg class="icon" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true"><path d="{shape}"/></svg>')
    return tag("span", icon, tag("data", f"{word}{more}", value=action), class_=f"badge {kind}".strip())


def likely_use(reading: Event) -> float:
    """How much of a window is used, with what turns since its reading have likely added."""
    return float(reading["carried"]["used"]["p50"] if "carried" in reading else reading["used"])


def window(reading: Event, row: Event, view: View) -> Html:
    """One limit window: how much of it is used, and when it is reset."""
    used, left = reading.get("used"), reading.get("headroom")
    name = tag("span", window_name(reading), class_="name")
    if used is None or left is None:
        text = "unknown: reset since it was last read"
        return tag("div", name, tag("span", text, class_="said"), dash_html.bar((), unknown=UNREAD), class_="window")
    likely = likely_use(reading)
    level = headroom.STYLES[reading["action"]]
    shares = [(0.0, likely, level)]
    forecast = reading.get("forecast", {})
    if band := forecast.get("used_in_an_hour"):
        shares.append((likely, band["p90"], f"{level} part"))
    resets: tuple[object, ...] = ()
    if "resets_in" in reading:
        at = when.local(when.moment(reading["resets_at"]), view.tz)
        resets = (
            ", ",
            tag("time", f"resets in {reading['resets_in']}", datetime=reading["resets_at"], title=f"{at:%Y-%m-%d %H:%M}"),
        )
    value = tag("data", f"{chart_text.percent(likely)} used", value=likely)
    bar = dash_html.bar(shares, (view.rules["slow_down"], view.rules["wait_for_reset"]))
    return tag("div", name, tag("span", value, *resets, class_="said"), bar, class_="window")


def _notes(row: Event, view: View) -> Iterator[Html]:
    """What is expected, how far the number can be trusted, and what would make it better."""
    if forecast := row.get("forecast"):
        yield tag("p", *forecast_text(forecast, view), class_="sub")
    signal = row["signal_quality"]
    level = tag("b", f"{signal['level']} signal", class_=f"level {signal['level']}")
    yield tag("p", level, f" ({signal['source'].replace('_', ' ')}): {signal['caveat']}", class_="sub")
    if row["next_actions"]:
        yield tag("ul", *(tag("li", command(action)) for action in row["next_actions"]), class_="steps")


def command(text: str) -> Html:
    """A command as code, a sentence as a sentence."""
    return tag("code", text) if text.startswith("tok-") and "," not in text else tag("span", text)


def forecast_text(forecast: Event, view: View) -> list[object]:
    """The forecast in words."""
    chance = limit_view.chance(forecast["p_cutoff"])
    band = forecast["used_in_an_hour"]
    parts: list[object] = [
        "Runs out before its reset: ",
        tag("data", chance, value=forecast["p_cutoff"]),
        " likely",
        "; there is little data for this account yet" if forecast["few_data"] else "",
    ]
    if "p10" in band and "p90" in band:
        low, high = chart_text.percent(band["p10"]), chart_text.percent(band["p90"])
        parts.append(f". In an hour {low if low == high else f'{low} to {high}'} used")
    if "cutoff_at" in forecast and "p50" in forecast["cutoff_at"]:
        parts.append(f". 50 % likely by {clock(forecast['cutoff_at']['p50'], view)}")
    return [*parts, "."]


def clock(text: str, view: View) -> str:
    """A moment in the reader's zone, with its day unless that is today."""
    at = when.moment(text)
    same = when.local(at, view.tz).date() == when.local(view.now, view.tz).date()
    return chart_text.clock(at, view.tz) if same else dash_html.when_of(at, view.tz)


def pattern() -> Html:
    """The stripes of windows that were not read, once in the page."""
    return Html(
        f'<svg class="tok" width="0" height="0" aria-hidden="true"><defs><pattern id="{UNREAD}" width="6" height="6" '
        'patternUnits="userSpaceOnUse"><path class="stripe" d="M0 6L6 0"/></pattern></defs></svg>'
    )
