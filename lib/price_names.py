"""Parses a model's name by its structure, never by substring.

The same model is `claude-opus-4-6` to Anthropic, `us.anthropic.claude-opus-4-6-v1:0` to Bedrock, `claude-opus-4-6[1m]`
to a client with a long context, `anthropic/claude-opus-4.6` to a router. `readings` yields what a name may mean, the
most literal first; `pricing` takes the first that has a price.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from tokenops import catalog, light


class Reading(NamedTuple):
    """One way to read a name: a model id in lower case, and the facts in the rest of the name."""

    model: str
    provider: str = ""  # named by the name itself
    region: str = ""  # of a cloud: us, eu, ..., us-gov, global, or "in-region"
    tier: str = ""
    free: bool = False
    notes: tuple[str, ...] = ()


GOVCLOUD = "us-gov"  # Amazon's cloud for the US government; its prices are not those of other regions
_ONE_SOURCE = "prices in GovCloud are known from one source only (LiteLLM)"
_PATH = light.pattern(r"(?:(?:locations/([a-z0-9-]+)/)?publishers/([a-z0-9-]+)/)?models/|accounts/fireworks/routers/")
# LiteLLM's paths of Bedrock: the API, and the region or the platform that Anthropic runs itself.
_BEDROCK_PATH = light.pattern(r"(?:converse/|invoke/)?(?:(us-gov|[a-z]{2})-[a-z]+-\d/|(claude_platform)/)?")
_ARN = light.pattern(r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:\d*:(?:application-)?(?:inference-profile|foundation-model)/")
_BEDROCK = light.pattern(
    r"(?:(us-gov|us|eu|apac|jp|au|ca|global)\.)?(anthropic|amazon|meta|mistral|cohere|deepseek|openai|qwen)\."
)
_BEDROCK_VERSION = light.pattern(r"-v\d+(?::\d+)?(?:\[1m\])?\Z|:\d+\Z")
_AZURE_ZONE = light.pattern(r"(eu|us|global|global-standard)/")
_SNAPSHOT = light.pattern(r"(?:@(?:20\d{6}|default|latest)|-20\d{2}-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01]))\Z")
# Clients append the effort that was asked for; only to models that have one.
_EFFORT = light.pattern(
    r"(?:gpt-[5-9][\w.-]*|o\d[\w-]*|claude-[a-z][\w-]*|claude-\d[\w-]*|gemini-[\w.-]+|grok-[\w.-]+)"
    r"(-(?:none|minimal|low|medium|high|xhigh|max|ultra|thinking))\Z"
)
_ROUTE = light.pattern(r":(nitro|floor|online|beta|extended|thinking|exacto)\Z")
_CLAUDE_DOTS = light.pattern(r"(?<=\d)\.(?=\d)")


def readings(name: str) -> Iterator[Reading]:
    """What a model's name may mean, the most literal reading first."""
    text = name.strip().lower()
    latest = Reading(text)
    yield latest
    if text.endswith(":free"):
        yield latest._replace(model=text.removesuffix(":free"), free=True)
        return
    for step in (_without_path, _without_prefixes, _without_route, _without_cloud, _without_marks):
        for reading in step(latest):
            latest = reading
            yield latest
    yield from _without_suffixes(latest)


def _without_path(before: Reading) -> Iterator[Reading]:
    if arn := _ARN.match(before.model):
        region = GOVCLOUD if arn[0].startswith(f"arn:aws-{GOVCLOUD}:") else before.region
        yield before._replace(model=before.model[arn.end() :], provider="bedrock", region=region)
    elif path := _PATH.search(before.model):
        # Only Anthropic's models have a price for regions there.
        region = path[1] if path[1] and path[2] == "anthropic" else ""
        region = "in-region" if region not in ("", "global") else region
        yield before._replace(
            model=before.model[path.end() :], provider="vertex" if path[2] else before.provider, region=region
        )


def _without_prefixes(before: Reading) -> Iterator[Reading]:
    """Each router's prefix in turn: `openrouter/anthropic/claude...` is billed by openrouter."""
    prefixes = catalog.load("providers")["prefixes"]
    while "/" in before.model:
        head, _, rest = before.model.partition("/")
        if head not in prefixes or not rest:
            return
        before = before._replace(model=rest, provider=before.provider or prefixes[head])
        if before.provider == "azure" and (zone := _AZURE_ZONE.match(rest)):
            region = "global" if zone[1].startswith("global") else zone[1]
            before = before._replace(model=rest[zone.end() :], region=region)
        elif before.provider == "bedrock" and (path := _BEDROCK_PATH.match(rest)) and path[0]:
            region = "global" if path[2] else "in-region" if path[1] else ""
            before = before._replace(model=rest[path.end() :], region=GOVCLOUD if path[1] == GOVCLOUD else region)
        yield before


def _without_route(before: Reading) -> Iterator[Reading]:
    if route := _ROUTE.search(before.model):
        notes = (*before.notes, f"the variant {route[0]} is priced as its model")
        yield before._replace(model=before.model[: route.start()], notes=notes)


def _without_cloud(before: Reading) -> Iterator[Reading]:
    cloud = _BEDROCK.match(before.model)
    if cloud or (before.provider == "bedrock" and before.region):
        bare = _BEDROCK_VERSION.sub("", before.model[cloud.end() if cloud else 0 :])
        region = (cloud[1] if cloud else "") or before.region or "in-region"
        notes = (*before.notes, _ONE_SOURCE) if region == GOVCLOUD else before.notes
        yield before._replace(model=bare, provider="bedrock", region=region, notes=notes)


def _without_marks(before: Reading) -> Iterator[Reading]:
    if before.model.startswith("ft:"):  # ft:base:organisation:name:id has a price of its own, never its base's
        yield before._replace(model=":".join(before.model.split(":")[:2]))
        return
    model = before.model.removesuffix("[1m]")
    if model.startswith("claude-"):
        model = _CLAUDE_DOTS.sub("-", model)
    if model != before.model:
        yield before._replace(model=model)
    if model.startswith("claude-") and model.endswith("-fast"):
        yield before._replace(model=model.removesuffix("-fast"), tier="fast")


def _without_suffixes(before: Reading) -> Iterator[Reading]:
    """Without a snapshot's date, without a reasoning effort, without both."""
    for _ in range(2):
        if mark := _SNAPSHOT.search(before.model):
            before = before._replace(model=before.model[: mark.start()])
        elif (mark := _EFFORT.fullmatch(before.model)) and not before.model.endswith(
            "-codex-max"
        ):  # a product's name, not an effort
            before = before._replace(model=before.model.removesuffix(mark[1]))
        else:
            return
        yield before


@functools.lru_cache(4096)
def provider_of(name: str) -> str:
    """The provider of a model, by its name's prefix or first word; "" if neither is known."""
    families = catalog.load("providers")["families"]
    last = Reading("")
    for last in readings(name):
        if last.provider:
            return last.provider
    last = last._replace(model=last.model.removeprefix("ft:"))
    for provider, words in families.items():
        for word in words:
            if last.model == word or (last.model.startswith(word) and last.model[len(word)] in "-.:@0123456789"):
                return str(provider)
    return ""


def biller(name: str) -> str:
    """The provider that a client's own word means; "" for a gateway, which can serve any provider's models."""
    providers = catalog.load("providers")
    word = name.lower()
    if word in providers["gateways"]:
        return ""
    return str(providers["billers"].get(word) or providers["prefixes"].get(word) or name)
