"""Says in which states a client's connection can be, and every way from one to another: the proxy's table.

Any other step raises IllegalTransition.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from tokenops.proxy_phases import Answering, AtSite, Closed, Collecting, Connecting, Idle, Tunnel, Waiting


class State(enum.Enum):
    """Where a client's connection stands. A state's value is the class of what is kept in it."""

    __hash__ = object.__hash__  # a fifth of what Enum's own takes; two are looked up at each step

    IDLE = Idle  # between requests; the next one's head may have begun
    AT_SITE = AtSite  # the dashboard makes the answer, in a thread of its own
    COLLECTING = Collecting  # a request's body is read to its end first, because a setting may change it
    CONNECTING = Connecting  # the request waits for a connection to its upstream
    WAITING = Waiting  # for the head of the answer; the request's body may still be passing
    ANSWERING = Answering  # the answer's body passes; the request's may still be passing, too
    TUNNEL = Tunnel  # bytes pass both ways until one side ends
    CLOSED = Closed  # nothing more is read or sent


class Trigger(enum.Enum):
    """What takes a connection from one state to another."""

    __hash__ = object.__hash__

    SITE_REQUEST = "a request for the site came"
    SITE_ANSWER = "the site's answer was sent"
    COLLECT = "a request came whose body is read first"
    REQUEST = "a request came that is sent on at once"
    COLLECTED = "the request's body is whole"
    CACHE_HIT = "the answer was sent from the cache"
    CONNECTED = "a connection to the upstream is there"
    UNREACHABLE = "no connection to the upstream could be made"
    ANSWER_BEGINS = "the head of the answer came"
    SWITCHED = "the upstream switched to another protocol (101)"
    NO_ANSWER = "the upstream left before it answered, or sent no HTTP"
    ANSWER_ENDS = "the answer is whole"
    ANSWER_CUT = "the upstream left, or broke the framing, within the answer"
    TUNNEL_ENDS = "the upstream ended the tunnel"
    BAD_BODY = "the framing of the request's body is broken"
    LAST_ANSWER = "an answer was sent after which the connection closes"
    CLIENT_LEFT = "the client ended its connection"


TRANSITIONS: Mapping[tuple[State, Trigger], State] = {
    (State.IDLE, Trigger.SITE_REQUEST): State.AT_SITE,
    (State.IDLE, Trigger.COLLECT): State.COLLECTING,
    (State.IDLE, Trigger.REQUEST): State.CONNECTING,
    (State.IDLE, Trigger.LAST_ANSWER): State.CLOSED,
    (State.IDLE, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.AT_SITE, Trigger.SITE_ANSWER): State.IDLE,
    (State.AT_SITE, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.COLLECTING, Trigger.COLLECTED): State.CONNECTING,
    (State.COLLECTING, Trigger.CACHE_HIT): State.IDLE,
    (State.COLLECTING, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.CONNECTING, Trigger.CONNECTED): State.WAITING,
    (State.CONNECTING, Trigger.UNREACHABLE): State.CLOSED,
    (State.CONNECTING, Trigger.BAD_BODY): State.CLOSED,
    (State.CONNECTING, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.WAITING, Trigger.ANSWER_BEGINS): State.ANSWERING,
    (State.WAITING, Trigger.SWITCHED): State.TUNNEL,
    (State.WAITING, Trigger.NO_ANSWER): State.CLOSED,
    (State.WAITING, Trigger.BAD_BODY): State.CLOSED,
    (State.WAITING, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.ANSWERING, Trigger.ANSWER_ENDS): State.IDLE,
    (State.ANSWERING, Trigger.ANSWER_CUT): State.CLOSED,
    (State.ANSWERING, Trigger.BAD_BODY): State.CLOSED,
    (State.ANSWERING, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.TUNNEL, Trigger.TUNNEL_ENDS): State.CLOSED,
    (State.TUNNEL, Trigger.CLIENT_LEFT): State.CLOSED,
}


class IllegalTransition(RuntimeError):
    """A step that is not in `TRANSITIONS`: a fault of the caller, or of `proxy`."""

    def __init__(self, state: State, what: str) -> None:
        super().__init__(f"the connection is {state.name}, and {what}")
