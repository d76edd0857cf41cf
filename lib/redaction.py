"""Secrets taken out of a text that is about to be shown. Best effort: what is shown nowhere needs none of this."""

from __future__ import annotations

import re

MASK = "[secret]"

# The shapes that vendors give their keys, 2026: a prefix that is theirs, then a run of random characters.
_SHAPES = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"\b(?:sk|pk|rk|gsk|xai|hf|r8|pplx|tvly|dop_v1|glpat|npm|pypi|shpat|sq0atp|whsec|lin_api|figd|key|tok)[-_][A-Za-z0-9_-]{16,}",
    r"\bgh[opusr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}",
    r"\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9._-]{20,}",
    r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
)
_WHOLE = re.compile("|".join(_SHAPES), re.DOTALL)
_BEARER = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9+/._~=-]{12,}", re.IGNORECASE)
# A value behind a name that says it is one.
_NAMED = re.compile(
    r"(\b[\w-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential)s?[\w-]*"
    r"[\"']?\s*(?:[:=]|\bis\b)\s*[\"']?)([^\s\"',;]{4,})",
    re.IGNORECASE,
)
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]+@", re.IGNORECASE)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# Long runs of one alphabet that hold digits and letters: hashes, keys without a prefix.
_RUN = re.compile(r"(?<![\w/.-])(?=[A-Za-z0-9+_=-]*\d)(?=[A-Za-z0-9+_=-]*[A-Za-z])[A-Za-z0-9+_=-]{28,}(?![\w/.-])")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")


def redacted(text: str) -> str:
    """The text with every key, password, mail address and the like replaced by a mask."""
    text = _WHOLE.sub(MASK, text)
    text = _USER.sub(rf"\1{MASK}@", text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    text = _NAMED.sub(rf"\1{MASK}", text)
    text = _MAIL.sub(MASK, text)
    return _RUN.sub(lambda found: found[0] if _UUID.match(found[0]) else MASK, text)


def sample(text: str, most: int = 100) -> str:
    """The beginning of a text on one line, without secrets and without characters that a terminal would obey."""
    line = "".join(char if char.isprintable() else " " for char in redacted(text))
    line = " ".join(line.split())
    return line if len(line) <= most else f"{line[: most - 3].rstrip()}..."
