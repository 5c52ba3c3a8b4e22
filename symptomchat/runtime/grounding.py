"""Whether a generated claim is supported by the knowledge base.

In: a condition and a generated symptom or treatment. Out: supported or not. Findings are compared by
meaning: the name, its phrasings, or the same content words count as the same finding.
"""

from __future__ import annotations

import re
from functools import lru_cache

STOP = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "to",
        "and",
        "or",
        "with",
        "for",
        "from",
        "by",
        "my",
        "your",
        "is",
        "are",
        "be",
        "it",
        "that",
        "this",
        "when",
    ]
)


def normal(text: str) -> str:
    """Lower-case words without punctuation."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


# The ways to say one record are compared with each claim of an answer: without this a sixth of its time.
@lru_cache(maxsize=8192)
def content(text: str) -> frozenset[str]:
    """Content words, with a plural s taken off."""
    words = (word for word in normal(text).split() if word not in STOP)
    return frozenset(
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
        for word in words
    )


def supported(claim: str, records: list[str], phrasings: dict[str, list[str]] | None = None) -> str | None:
    """The record that supports a claim, or None.

    Args:
        claim: generated text.
        records: findings or treatments that the knowledge base lists for the condition.
        phrasings: other ways to say a record.
    """
    words = content(claim)
    if not words:
        return None
    for record in records:
        if any(content(way) == words for way in (record, *(phrasings or {}).get(record, []))):
            return record
    return None


def restore_case(text: str, cased: dict[str, str]) -> str:
    """Give acronyms and names their capitals back (``mri`` → ``MRI``) and tidy the spacing of punctuation."""
    text = re.sub(r"\s+([,.;:!?%)])", r"\1", text)
    text = re.sub(r"([(])\s+", r"\1", text)
    text = re.sub(r"\s*([-/'’])\s*", r"\1", text)
    return re.sub(r"[^\W_]+", lambda match: cased.get(match.group(0), match.group(0)), text)
