"""Asks Codex itself for the windows of a ChatGPT plan, in JSON lines to and from `codex app-server`.

Codex uses its own login; no token is seen here and no model is called. Source: the app-server's own description
(learn.chatgpt.com/docs/app-server, 2026-11) and its tests. `rateLimits` is the family of limits that Codex shows;
`rateLimitsByLimitId` repeats it.
"""

from __future__ import annotations

from tokenops import etiquette, untrusted, when, wire_limits
from tokenops.etiquette import Ask, ClientSteps, Message, Results, Trouble

CLIENT = "codex"


def app_server(ask: Ask, results: Results) -> ClientSteps:
    """The windows of the plan that Codex is logged in to. Raises Trouble."""
    me = {"clientInfo": {"name": "tokenops", "title": "TokenOps", "version": ask.version}}
    _result((yield Message("initialize", me, 1)))
    yield Message("initialized")
    result = _result((yield Message("account/rateLimits/read", id=2)))
    families = [untrusted.mapping(family) for family in untrusted.mapping(result.get("rateLimitsByLimitId")).values()]
    shown = untrusted.mapping(result.get("rateLimits"))
    if not families and not shown:
        raise etiquette.unknown_shape("neither rateLimits nor rateLimitsByLimitId")
    named = {untrusted.text(family.get("limitId")) for family in families}
    for family in [*families, *([] if untrusted.text(shown.get("limitId")) in named else [shown])]:
        results.events += wire_limits.app_server(family, ask.source, when.stamp(ask.now), client=CLIENT)
    if not results.events:
        results.notices.append("Codex reported no window for this plan; its use is unknown, not 0")


def _result(answer: untrusted.Raw) -> untrusted.Raw:
    """The result of a request. Raises Trouble; of the error's words only what is known is looked for."""
    if "result" in answer:
        return untrusted.mapping(answer["result"])
    error = untrusted.mapping(answer.get("error"))
    text = str(error.get("message", "")).lower()
    if "authentication required" in text or "not logged in" in text:
        key = "chatgpt" in text
        why = "Codex is logged in with an API key, which has no plan" if key else "Codex is not logged in; run codex login"
        raise Trouble(etiquette.REFUSED, why)
    if error.get("code") == -32601:
        raise Trouble(etiquette.CHANGED, "this version of Codex cannot report limits (account/rateLimits/read); update it")
    raise Trouble(etiquette.FAILING, "Codex could not answer; it may be offline, or its login may have expired")
