"""A ChatGPT plan's windows, asked of Codex itself: JSON lines to and from `codex app-server`.

Codex uses its own login; no token is seen here and no model is called. Source: the app-server's own description
(learn.chatgpt.com/docs/app-server, 2026-11) and its tests. `rateLimits` is the family of limits that Codex shows, and
stands again among `rateLimitsByLimitId`.
"""

from __future__ import annotations

from tokenops import etiquette, untrusted, when, wire_limits
from tokenops.etiquette import Ask, ClientSteps, Message, Results, Trouble

CLIENT = "codex"


def app_server(ask: Ask, found: Results) -> ClientSteps:
    """The windows of the plan that Codex is logged in to. Raises Trouble."""
    me = {"clientInfo": {"name": "tokenops", "title": "TokenOps", "version": ask.version}}
    _result((yield Message("initialize", me, 1)))
    yield Message("initialized")
    result = _result((yield Message("account/rateLimits/read", id=2)))
    families = [untrusted.mapping(one) for one in untrusted.mapping(result.get("rateLimitsByLimitId")).values()]
    shown = untrusted.mapping(result.get("rateLimits"))
    if not families and not shown:
        raise etiquette.unknown_shape("neither rateLimits nor rateLimitsByLimitId")
    named = {untrusted.text(one.get("limitId")) for one in families}
    for one in [*families, *([] if untrusted.text(shown.get("limitId")) in named else [shown])]:
        found.events += wire_limits.app_server(one, ask.source, when.stamp(ask.now), client=CLIENT)
    if not found.events:
        found.notices.append("Codex names no window of this plan: how much is used is unknown, not 0")


def _result(answer: untrusted.Raw) -> untrusted.Raw:
    """The result of a request. Raises Trouble; of the error's words only what is known is looked for."""
    if "result" in answer:
        return untrusted.mapping(answer["result"])
    error = untrusted.mapping(answer.get("error"))
    said = str(error.get("message", "")).lower()
    if "authentication required" in said or "not logged in" in said:
        key = "chatgpt" in said
        why = "Codex is logged in with an API key, which has no plan" if key else "Codex is not logged in; run codex login"
        raise Trouble(etiquette.REFUSED, why)
    if error.get("code") == -32601:
        raise Trouble(etiquette.CHANGED, "this Codex does not know account/rateLimits/read; update it")
    raise Trouble(etiquette.FAILING, "Codex could not say; it may be offline, or its login may have run out")
