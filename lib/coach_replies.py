"""What an agent's replies are like: how dense in articles and filler, how much is narration, what is said twice.

Prose only: code, lists, tables, headings, paths and URLs are left out, since they have no articles to leave out. A verdict
needs evidence, and a language whose prose is known: what is short, or in another language, is not judged.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tokenops import work_language
from tokenops.coach_transcripts import Talk
from tokenops.events import Event
from tokenops.work import Utterance

Rules = Mapping[str, float]

_FENCE = re.compile(r"(?ms)^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)")
_NO_PROSE = re.compile(r"^\s*(?:[-*+•#|>]|\d+[.)]|\[[ x]\])")
_CODE = re.compile(r"`[^`\n]*`|https?://\S+|\S*[/\\]\S+|\S*[_(){}<>=]\S*")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")


class Reply(NamedTuple):
    """One message: its text, the sentences of it that are prose, and whether the agent went on to work."""

    session: str
    text: str
    sentences: tuple[str, ...]
    calls: bool
    side: bool


def replies(said: Iterable[Utterance]) -> list[Reply]:
    """Messages out of the lines that they stand in."""
    parts: dict[tuple[str, str], list[Utterance]] = {}
    for one in said:
        parts.setdefault((one.round, one.message), []).append(one)
    made = []
    for several in parts.values():
        made.append(
            reply(several[0].session, [one.text for one in several], any(one.calls for one in several), several[0].side)
        )
    return made


def reply(session: str, texts: Iterable[str], calls: bool = False, side: bool = False) -> Reply:
    """A message of these parts."""
    text = "\n".join(dict.fromkeys(texts))
    return Reply(session, text, tuple(prose(text)), calls, side)


def prose(text: str) -> list[str]:
    """The sentences of a reply that are prose, without what is code in them."""
    kept = []
    for line in _FENCE.sub("\n", text).splitlines():
        if not _NO_PROSE.match(line):
            kept += [_CODE.sub(" ", sentence).strip() for sentence in _SENTENCE.split(line)]
    return [sentence for sentence in kept if sentence]


def stats(given: Sequence[Reply], rules: Rules) -> Event:
    """Counts, densities and the verdict of some replies."""
    sentences = [sentence for one in given for sentence in one.sentences]
    told = work_language.language_of("\n".join(sentences))
    known = next((one for one in work_language.lists() if one.name == told), None)
    words = [work_language.words(sentence) for sentence in sentences]
    whole = [said for said in words if len(said) >= rules["least_sentence"]]
    count = Counter(word for said in whole for word in said)
    total = count.total()
    made: Event = {"replies": len(given), "characters": sum(len(one.text) for one in given), "language": told or None}
    made |= {"prose_words": sum(map(len, words)), "sentence_words": total}
    for name in ("articles", "auxiliary", "filler"):
        listed: frozenset[str] = getattr(known, name) if known else frozenset()
        made[name] = sum(count[word] for word in listed) if listed else None
        made[f"{name}_share"] = round(made[name] / total, 4) if listed and total else None
    made["code_replies"] = sum(_FENCE.search(one.text) is not None for one in given)
    made["median_words"] = statistics.median(len(work_language.words(one.text)) for one in given) if given else None
    made |= _narration(given, known)
    return made | dict(zip(("style", "style_reason"), _verdict(made, known, rules), strict=True))


def _narration(given: Sequence[Reply], known: work_language.Lists | None) -> Event:
    """How much of what was written only accompanies work, and how much was written before."""
    working = [one for one in given if one.calls]
    made: Event = {"narrating": len(working), "narration_characters": sum(len(one.text) for one in working)}
    openings = known.narration if known else ()
    made["announcing"] = (
        sum(one.text.lstrip().casefold().replace("’", "'").startswith(openings) for one in given) if openings else None
    )
    often = Counter(sentence.casefold() for one in given for sentence in set(one.sentences) if len(sentence) > 20)
    made["repeated_sentences"] = sum(times - 1 for times in often.values() if times > 1)
    return made


def _verdict(made: Event, known: work_language.Lists | None, rules: Rules) -> tuple[str | None, str]:
    """`compressed`, `plain`, or None where it cannot be told; and why."""
    if made["replies"] < rules["least_replies"] or made["sentence_words"] < rules["least_words"]:
        return None, f"less than {rules['least_replies']:.0f} replies or {rules['least_words']:.0f} words in sentences"
    if known is None:
        return None, "a language that there are no lists for"
    if known.compressed is None:
        return None, f"no measure of compressed prose for {known.name}"
    articles, auxiliary = known.compressed
    if made["articles_share"] < articles and made["auxiliary_share"] < auxiliary:
        return "compressed", f"articles below {articles:.1%} and auxiliaries below {auxiliary:.1%} of the words"
    return "plain", ""


def report(talk: Talk, turns: Sequence[Event], rules: Rules) -> Event:
    """The replies of a span: all of them, by session, and what they are of all that was used."""
    made = [one for one in replies(talk.said) if not one.side]
    sessions: dict[str, list[Reply]] = {}
    for one in made:
        sessions.setdefault(one.session, []).append(one)
    rows: list[Event] = [{"session_id": name, **stats(several, rules)} for name, several in sessions.items()]
    rows.sort(key=lambda row: (row["style"] != "compressed", -row["replies"], row["session_id"]))
    return {
        "all": stats(made, rules),
        "sessions": rows,
        "compressed_sessions": sum(row["style"] == "compressed" for row in rows),
        "usage": usage(turns),
    }


def usage(turns: Sequence[Event]) -> Event:
    """What was written, beside what was read: how much shorter replies could save at all."""
    from tokenops import events

    output = sum(turn.get("output_tokens", 0) for turn in turns)
    total = sum(map(events.token_sum, turns))
    return {
        "turns": len(turns),
        "tokens": total,
        "output_tokens": output,
        "output_share": round(output / total, 6) if total else None,
    }
