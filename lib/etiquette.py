"""Decides when a vendor may be asked again and what its answer means.

No socket and no clock. A poller is a generator that yields requests and is sent answers; readings from before a failure
are kept. After 429: the time of Retry-After and at least 15 minutes, doubled each time, up to two hours (a Retry-After
of 0 permits nothing sooner). After 5xx and timeouts: 1, 2, 4 ... minutes, up to an hour. After 401 and 403: until the
credential changes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from tokenops import events, projects, untrusted

MINUTE = 60_000
HOUR = 60 * MINUTE
# The kinds of failure.
REFUSED, LIMITED, FAILING, CHANGED = "refused", "limited", "failing", "changed"
TROUBLES = (REFUSED, LIMITED, FAILING, CHANGED)
# Why no request was sent.
NOT_DUE, WAITING, STOPPED = "not_due", "waiting", "stopped"
OK = "ok"

_LIMITED_MS, _LIMITED_MOST_MS = 15 * MINUTE, 2 * HOUR
_FAILING_MS, _FAILING_MOST_MS = MINUTE, HOUR
# A vendor that asks for a longer pause is asked again the next day.
_RETRY_MOST_MS = 24 * HOUR
# Clocks of one machine step by less than this without having been set back.
_STEP_MS = MINUTE


class Request(NamedTuple):
    """What to ask by GET."""

    url: str
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """The vendor's answer; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Message(NamedTuple):
    """A line of JSON for a vendor's own client; if it has an `id`, the answer of that id is waited for."""

    method: str
    params: Any = None
    id: int | None = None

    def object(self) -> dict[str, Any]:
        """The line's JSON."""
        fields = {"method": self.method, "id": self.id, "params": self.params}
        return {key: value for key, value in fields.items() if value is not None}


class Trouble(ValueError):
    """A failed request: a kind of TROUBLES, a sentence, and how long the vendor asks to wait."""

    def __init__(self, kind: str, why: str, retry_ms: int = 0) -> None:
        super().__init__(why)
        self.kind, self.why, self.retry_ms = kind, why, retry_ms


class Ask(NamedTuple):
    """What a poller gets. `marks`: what it kept from its last run; `since`: how far back to read instead, for a backfill."""

    source: str
    url: str
    secret: str
    now: int
    version: str
    salt: bytes
    options: Mapping[str, str]
    rules: Mapping[str, int]
    marks: Mapping[str, int]
    owner: str = ""  # the account's identity and plan, if the credential names them
    plan: str = ""
    since: int | None = None
    checking: bool = False  # only check the credential, with as few requests as possible
    first_salt: bytes = b""  # the log's first one, if it has another now

    def account(self, name: str) -> str | None:
        """The account of a vendor's own identity for it."""
        return projects.hash_path(name, self.salt) if name else None

    def lasting_account(self, name: str) -> str | None:
        """The same for identities: what it was before the log took over another log's salt."""
        return projects.hash_path(name, self.first_salt or self.salt) if name else None

    def headers(self, **more: str) -> dict[str, str]:
        """The headers of a request: our own user agent, and others (with _ for -)."""
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return {"accept": "application/json", "user-agent": f"tokenops/{self.version}", **named}


class Results:
    """What a poller has read so far. `marks`: what to keep for its next run, once its events are in the log."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self.notices: list[str] = []
        self.marks: dict[str, int] = {}


# What a poller is: a generator that yields questions, is sent their answers, and adds what they say to the results.
WebSteps = Generator[Request, Answer, None]
ClientSteps = Generator[Message, untrusted.Raw, None]
Question = TypeVar("Question")
Reply = TypeVar("Reply")


class WebPoller(Protocol):
    """Asks a vendor over HTTPS. Raises Trouble."""

    def __call__(self, ask: Ask, results: Results, /) -> WebSteps:
        """The requests."""
        ...


class ClientPoller(Protocol):
    """Asks a vendor's own client on this machine. Raises Trouble."""

    def __call__(self, ask: Ask, results: Results, /) -> ClientSteps:
        """The messages."""
        ...


def run_steps(steps: Generator[Question, Reply, None], ask: Callable[[Question], Reply]) -> int:
    """Send a poller's requests one after the other; how many there were. Raises Trouble."""
    count = 0
    try:
        request = next(steps)
        while True:
            count += 1
            request = steps.send(ask(request))
    except StopIteration:
        return count


def value_of(answer: Answer, now: int) -> Any:
    """The JSON of an answer. Raises Trouble, whose sentence quotes nothing of the answer."""
    status, page = answer.status, _is_page(answer)
    if status == 429 or (status == 403 and retry_ms(answer.headers, now)):  # GitHub uses 403 for this, too
        raise Trouble(LIMITED, f"the vendor refused it as too many requests ({status})", retry_ms(answer.headers, now))
    if status in (401, 403):
        if page:
            raise Trouble(REFUSED, f"the vendor answered with a web page ({status}): it accepts browsers only")
        raise Trouble(REFUSED, f"the vendor refused the credential ({status})")
    if status == 408 or status >= 500:
        raise Trouble(FAILING, f"the vendor has a problem ({status})", retry_ms(answer.headers, now))
    if 300 <= status < 400:
        raise Trouble(CHANGED, f"redirected ({status}), which is not followed: the login ended, or the address changed")
    if not 200 <= status < 300:
        raise Trouble(CHANGED, f"answered with status {status}: this account has no such report, or the address changed")
    if page:
        raise Trouble(CHANGED, "a web page came instead of data: the login ended, or the address changed")
    try:
        return untrusted.json_value(answer.body)
    except ValueError:
        raise Trouble(FAILING, f"{len(answer.body)} bytes came that are not complete JSON") from None


def object_of(answer: Answer, now: int) -> untrusted.Raw:
    """The JSON object of an answer. Raises Trouble."""
    value = value_of(answer, now)
    if not isinstance(value, dict):
        raise Trouble(CHANGED, "the answer has an unknown format: not an object")
    return value


def unknown_shape(expected: str) -> Trouble:
    """The trouble of an answer without any known field."""
    return Trouble(CHANGED, f"the answer has an unknown format: {expected}")


def _is_page(answer: Answer) -> bool:
    return answer.body.lstrip()[:1] == b"<" or "text/html" in answer.headers.get("content-type", "")


def retry_ms(headers: Mapping[str, str], now: int) -> int:
    """How long Retry-After asks to wait, given in seconds or as a date; 0 if it asks nothing.

    GitHub names a moment instead, once x-ratelimit-remaining is 0.
    """
    text = headers.get("retry-after", "").strip()
    try:
        if not text and headers.get("x-ratelimit-remaining") == "0":
            wait = float(headers.get("x-ratelimit-reset", "")) * 1000 - now
        else:
            wait = float(text) * 1000
    except ValueError:
        wait = _http_date_ms(text) - now
    return int(min(wait, _RETRY_MOST_MS)) if wait > 0 else 0


def _http_date_ms(text: str) -> int:
    from email.utils import parsedate_to_datetime

    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError):
        return 0


class State(NamedTuple):
    """What is remembered of a source between runs, in milliseconds since 1970."""

    at: int = 0  # when it was asked last
    ok_at: int = 0  # when it last answered
    wait_until: int = 0  # no request before this
    limited: int = 0  # answers of 429 in a row
    failures: int = 0  # other failures in a row
    stopped: str = ""  # the fingerprint of the credential that was refused
    status: str = ""
    why: str = ""
    why_at: int = 0
    marks: Mapping[str, int] = {}


def state_of(value: object) -> State:
    """The state from a JSON object; fields of another type have their defaults."""
    fields = untrusted.mapping(value)
    kept = {name: fields[name] for name, usual in State._field_defaults.items() if _is(fields.get(name), usual)}
    kept["marks"] = {key: value for key, value in untrusted.mapping(fields.get("marks")).items() if _is(value, 0)}
    return State(**kept)


def _is(value: object, usual: object) -> bool:
    """Whether a value is of the usual kind; a time or a count, before the year 2100."""
    return type(value) is type(usual) and (type(value) is not int or 0 <= value < 1 << 42)


def with_clock_set_back(state: State, now: int) -> State:
    """The state after the clock was set back: every wait is as long as it was, from now on."""
    back = state.at - now
    if back <= _STEP_MS:
        return state
    return state._replace(at=now, ok_at=min(state.ok_at, now), wait_until=max(state.wait_until - back, 0))


def due_at(state: State, interval_ms: int) -> int:
    """When a source may be asked again; 0 if it never was asked."""
    return max(state.at + interval_ms if state.at else 0, min(state.wait_until, state.at + _RETRY_MOST_MS))


class Due(NamedTuple):
    """Whether to ask: `status` is "" (ask, after a pause), NOT_DUE, WAITING or STOPPED."""

    status: str
    pause_ms: int = 0


def due(state: State, now: int, interval_ms: int, fingerprint: str, jitter_ms: int, draw: float, force: bool = False) -> Due:
    """Whether a source is due. `draw` is a number from 0 to 1, by chance.

    A run that is a little early waits until it is due; a late one waits for a random time, so that not all machines ask in
    the same second. `force` ignores the interval, never a wait that the vendor asked for.
    """
    if state.stopped and state.stopped == fingerprint:
        return Due(STOPPED)
    if min(state.wait_until, state.at + _RETRY_MOST_MS) > now:
        return Due(WAITING)
    if force:
        return Due("")
    left = state.at + interval_ms - now if state.at else 0
    if left > jitter_ms:
        return Due(NOT_DUE)
    return Due("", left if left > 0 else int(jitter_ms * draw))


def after_request(state: State, now: int) -> State:
    """The state just before a request is sent, since a run that is killed has also sent it."""
    return state._replace(at=now)


def after_answer(state: State, now: int, marks: Mapping[str, int]) -> State:
    """The state after a good answer."""
    kept = {**state.marks, **marks}
    return State(at=state.at, ok_at=now, status=OK, why=state.why, why_at=state.why_at, marks=kept)


def after_trouble(state: State, now: int, trouble: Trouble, fingerprint: str, marks: Mapping[str, int]) -> State:
    """The state after a failure, with how long to wait."""
    kept = state._replace(status=trouble.kind, why=trouble.why, why_at=now, marks={**state.marks, **marks})
    if trouble.kind == REFUSED:
        return kept._replace(stopped=fingerprint, wait_until=0)
    if trouble.kind == LIMITED:
        wait = min(max(trouble.retry_ms, _LIMITED_MS) << min(state.limited, 10), _LIMITED_MOST_MS)
        return kept._replace(limited=state.limited + 1, wait_until=now + max(wait, trouble.retry_ms))
    wait = min(_FAILING_MS << min(state.failures, 10), _FAILING_MOST_MS)
    return kept._replace(failures=state.failures + 1, wait_until=now + max(wait, trouble.retry_ms))


def parse_duration(text: str) -> int:
    """Milliseconds of a length of time such as 5m, 300s, 1h30m or a number of seconds; 0 for "" and 0. Raises ValueError."""
    import re

    stripped = text.strip()
    if re.fullmatch(r"\d{1,9}", stripped):
        return int(stripped) * 1000
    match = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", stripped)
    if match is None:
        raise ValueError(f"{text!r} is not a valid duration: use 5m, 1h or 300s")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000
