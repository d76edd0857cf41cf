"""Measures an agent's replies: the share of articles, filler words, narration and repeated sentences.

Only prose counts: code, lists, tables, headings, paths and URLs have no articles to drop. A verdict needs enough text in a
language that has word lists; shorter texts and other languages are not judged.
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
    """One message: its text, its sentences of prose, and whether the agent then called tools (`calls`)."""

    session: str
    text: str
    sentences: tuple[str, ...]
    calls: bool
    side: bool


def replies(utterances: Iterable[Utterance]) -> list[Reply]:
    """The messages that lines of a transcript add up to."""
    parts: dict[tuple[str, str], list[Utterance]] = {}
    for line in utterances:
        parts.setdefault((line.round, line.message), []).append(line)
    messages = []
    for several in parts.values():
        messages.append(
            reply(several[0].session, [line.text for line in several], any(line.calls for line in several), several[0].side)
        )
    return messages


def reply(session: str, texts: Iterable[str], calls: bool = False, side: bool = False) -> Reply:
    """A message from its parts."""
    text = "\n".join(dict.fromkeys(texts))
    return Reply(session, text, tuple(prose(text)), calls, side)


def prose(text: str) -> list[str]:
    """The sentences of prose in a reply, without the code in them."""
    kept = []
    for line in _FENCE.sub("\n", text).splitlines():
        if not _NO_PROSE.match(line):
            kept += [_CODE.sub(" ", sentence).strip() for sentence in _SENTENCE.split(line)]
    return [sentence for sentence in kept if sentence]


def stats(replies: Sequence[Reply], rules: Rules) -> Event:
    """Counts, densities and the verdict of some replies."""
    sentences = [sentence for reply in replies for sentence in reply.sentences]
    language = work_language.language_of("\n".join(sentences))
    lists = next((other for other in work_language.lists() if other.name == language), None)
    words = [work_language.words(sentence) for sentence in sentences]
    whole = [sentence_words for sentence_words in words if len(sentence_words) >= rules["least_sentence"]]
    count = Counter(word for sentence_words in whole for word in sentence_words)
    total = count.total()
    row: Event = {
        "replies": len(replies),
        "characters": sum(len(reply.text) for reply in replies),
        "language": language or None,
    }
    row |= {"prose_words": sum(map(len, words)), "sentence_words": total}
    for name in ("articles", "auxiliary", "filler"):
        listed: frozenset[str] = getattr(lists, name) if lists else frozenset()
        row[name] = sum(count[word] for word in listed) if listed else None
        row[f"{name}_share"] = round(row[name] / total, 4) if listed and total else None
    row["code_replies"] = sum(_FENCE.search(reply.text) is not None for reply in replies)
    row["median_words"] = statistics.median(len(work_language.words(reply.text)) for reply in replies) if replies else None
    row |= _narration(replies, lists)
    return row | dict(zip(("style", "style_reason"), _verdict(row, lists, rules), strict=True))


def _narration(replies: Sequence[Reply], lists: work_language.Lists | None) -> Event:
    """How much of the text only accompanies work, and how many sentences stand in several replies."""
    working = [reply for reply in replies if reply.calls]
    row: Event = {"narrating": len(working), "narration_characters": sum(len(reply.text) for reply in working)}
    openings = lists.narration if lists else ()
    row["announcing"] = (
        sum(reply.text.lstrip().casefold().replace("’", "'").startswith(openings) for reply in replies) if openings else None
    )
    often = Counter(sentence.casefold() for reply in replies for sentence in set(reply.sentences) if len(sentence) > 20)
    row["repeated_sentences"] = sum(times - 1 for times in often.values() if times > 1)
    return row


def _verdict(counts: Event, lists: work_language.Lists | None, rules: Rules) -> tuple[str | None, str]:
    """`compressed`, `plain`, or None if it cannot be judged; and why."""
    if counts["replies"] < rules["least_replies"] or counts["sentence_words"] < rules["least_words"]:
        return None, f"less than {rules['least_replies']:.0f} replies or {rules['least_words']:.0f} words in sentences"
    if lists is None:
        return None, "there are no word lists for the language"
    if lists.compressed is None:
        return None, f"no measure of compressed prose for {lists.name}"
    articles, auxiliary = lists.compressed
    if counts["articles_share"] < articles and counts["auxiliary_share"] < auxiliary:
        return "compressed", f"articles below {articles:.1%} and auxiliaries below {auxiliary:.1%} of the words"
    return "plain", ""


def report(talk: Talk, turns: Sequence[Event], rules: Rules) -> Event:
    """The replies of a span: all together, by session, and their share of all tokens."""
    messages = [message for message in replies(talk.utterances) if not message.side]
    sessions: dict[str, list[Reply]] = {}
    for message in messages:
        sessions.setdefault(message.session, []).append(message)
    rows: list[Event] = [{"session_id": name, **stats(several, rules)} for name, several in sessions.items()]
    rows.sort(key=lambda row: (row["style"] != "compressed", -row["replies"], row["session_id"]))
    return {
        "all": stats(messages, rules),
        "sessions": rows,
        "compressed_sessions": sum(row["style"] == "compressed" for row in rows),
        "usage": usage(turns),
    }


def usage(turns: Sequence[Event]) -> Event:
    """Output beside all tokens: the most that shorter replies could save."""
    from tokenops import events

    output = sum(turn.get("output_tokens", 0) for turn in turns)
    total = sum(map(events.token_sum, turns))
    return {
        "turns": len(turns),
        "tokens": total,
        "output_tokens": output,
        "output_share": round(output / total, 6) if total else None,
    }
