"""Red flags and urgency: rules that stand above whatever the model thinks.

In: the user's words. Out: the red flags that fire. A rule's pattern is a list of groups of alternatives; it
matches where one alternative of every group stands within one passage, none of them negated, long past, or
told of someone in a book or on a screen. Words of four letters and more may be misspelt by one letter, words of
eight and more by two; but an ordinary word is never read as a misspelling of another ("black" is not "back").
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

WINDOW = 16
NEGATIONS = frozenset(
    [
        "no",
        "not",
        "never",
        "without",
        "denies",
        "deny",
        "denied",
        "negative",
        "don't",
        "dont",
        "doesn't",
        "doesnt",
        "didn't",
        "didnt",
        "isn't",
        "isnt",
        "hasn't",
        "hasnt",
        "haven't",
        "havent",
        "wasn't",
        "wasnt",
        "nor",
        "neither",
        "nobody",
        "none",
        "aren't",
        "weren't",
        "hadn't",
    ]
)
WRITTEN = {
    "cannot": "can't", "cant": "can't", "wont": "won't", "arent": "aren't", "werent": "weren't", "hadnt": "hadn't",
    "hav": "have", "wen": "when",
}  # fmt: skip
"""Other ways to write a word, read as the one that the rules use."""
FAR_REACHING = ("denies", "denied", "without", "negative")
"""Negations that reach to the end of their sentence."""
AFTERWARDS = ("absent", "ruled out", "excluded", "not present")
"""A finding is denied where one of these ends its clause: "neck stiffness and photophobia absent"."""
MANNER = frozenset(["fast", "quickly", "heavily", "hard", "deeply", "badly", "much", "well"])
"""After a phrase that holds a negation they are what is denied: "not breathing fast" is no stopped breath."""
_TENS = r"(?:teens|twenties|thirties|forties|fifties|sixties|seventies|eighties|nineties)"
_YOUNG = r"(?:child|boy|girl|kid|teenager|teen|toddler|baby|student|schoolboy|schoolgirl|young \w+)"
_DEAD = r"(?:grand\w+|father|mother|husband|wife|brother|sister|uncle|aunt|dad|mum|mom)"
PAST = re.compile(
    r"\b(?:"
    r"(?:years?|months|decades?|summers|winters|ages) (?:ago|back|earlier|before)|long(?: time)? ago"
    r"|last (?:year|summer|autumn|winter|spring)|(?:in|of|since) (?:19|20)\d\d|back in"
    rf"|in (?:the|my|his|her|their) (?:past|childhood|youth|{_TENS}|(?:student|school) days|(?:first|earlier) pregnancy)"
    rf"|as an? {_YOUNG}|(?:was|were) (?:an? |still )?(?:{_YOUNG}|small|little|young|younger|at school|in school)"
    r"|when (?:i|he|she|we|they) (?:was|were) (?:\d+|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen)"
    r"|primary school|at university|went away|used to (?:have|get)|has gone|is gone|recovered from"
    r"|(?:had|was|were) once|once (?:had|was|were)"
    rf"|late (?:{_DEAD})|long dead|died (?:of|from|after)|passed away"
    r")\b"
)
"""Marks of what is over, in the words of a clause."""
NOSE = re.compile(r"\bthrough (?:my|the|his|her|either|one) (?:nose|nostrils?)\b")
"""A clause about a blocked nose: "I can't breathe through my nose" is no stopped breath."""
NOW = re.compile(
    r"\b(?:now|today|tonight|currently|again|yesterday|at the moment|(?:have|has|had|only) just"
    r"|this (?:morning|afternoon|evening|week|time)|(?:minutes?|hours?|days?) ago"
    r"|i'm|i (?:am|want|can't|feel|keep)|(?:he|she) (?:is|wants|can't|keeps))\b"
)
"""Marks of what is now: the nearer of the two marks decides."""
TOLD = re.compile(
    r"\b(?:(?:in|on|from) (?:an?|the|this|that|my|some) (?:\w+ )?"
    r"(?:film|movie|series|show|book|novel|thriller|story|cartoon|news|documentary|course)"
    r"|(?:film|movie|novel|thriller|story|cartoon) (?:in which|where|about)|on (?:tv|television))\b"
)
"""Marks of what happens in a story and to nobody here."""
SELF = frozenset(["i", "i'm", "i've", "my", "me", "myself", "we", "our", "us", "he", "she"])
LOOKS_ON = frozenset(["read", "watch", "watched", "saw", "follow", "heard"])
HYPOTHETICAL = (
    "what are the symptoms",
    "symptoms of",
    "what is",
    "what if",
    "in case of",
    "how do i know",
    "prevent",
)
RESET = frozenset(["but", "however", "although", "except", "yet", "though"])


@dataclass(frozen=True)
class Fired:
    """A red flag that fired."""

    id: str
    name: str
    advice: str


def words_of(text: str) -> list[str]:
    """Lower-case words; clause marks stay as ``.``."""
    text = text.lower().replace("’", "'")
    found = re.findall(r"[a-z0-9][a-z0-9'.]*[a-z0-9]|[a-z0-9]|[.;!?\n]", text)
    return [WRITTEN.get(word, word) for word in found]


@lru_cache(maxsize=65536)
def same_word(word: str, wanted: str) -> bool:
    """Equal, a simple inflection, or misspelt by one (from five letters) or two (from eight) letters."""
    if same_inflected(word, wanted):
        return True
    room = 2 if len(wanted) >= 8 else 1 if len(wanted) >= 5 else 0
    if word[:1] != wanted[:1]:
        # "neumonia" is a misspelling, "conscious" is the opposite.
        room = min(room, 1) if len(wanted) >= 8 else 0
    if not room or abs(len(word) - len(wanted)) > room:
        return False
    return _distance(word, wanted, room) <= room


def same_inflected(word: str, wanted: str) -> bool:
    """Equal but for a plural's ending, or two endings of one verb ("vomited" and "vomiting")."""
    return word == wanted or (len(word) > 3 and _form(word) == _form(wanted))


@lru_cache(maxsize=65536)
def _form(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    # "chokin" is "choking".
    for ending in ("ing", "in", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)] + "~"
    return word.rstrip("s")


def _distance(a: str, b: str, most: int) -> int:
    """Optimal string alignment distance, cut off above ``most``."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return row[-1]


def _read_as(word: str, wanted: str) -> bool:
    """``same_word``, and short words misspelt by one letter: "hed", "fase", "blud"."""
    if same_word(word, wanted):
        return True
    short = len(wanted) == 4 and 3 <= len(word) <= 5 and word[0] == wanted[0] and wanted.isalpha()
    return short and _distance(word, wanted, 1) <= 1


@lru_cache(maxsize=8192)
def _words_of_phrase(phrase: str) -> tuple[str, ...]:
    return tuple(words_of(phrase))


class _Spots:
    """Where each word of a phrase stands in one text; every word is looked up once."""

    def __init__(self, words: list[str], ordinary: frozenset[str]) -> None:
        self.words = words
        self.ordinary = ordinary
        self._found: dict[str, frozenset[int]] = {}
        self._by_letter: dict[str, list[int]] = {}
        for at, word in enumerate(words):
            self._by_letter.setdefault(word[:1], []).append(at)

    def of(self, wanted: str) -> frozenset[int]:
        """Places of a word: an ordinary word stands for itself and its inflections alone."""
        if wanted not in self._found:
            # Inflections keep the first letter, and only in words of eight letters may it be misspelt.
            places = range(len(self.words)) if len(wanted) >= 8 else self._by_letter.get(wanted[:1], ())
            self._found[wanted] = frozenset(
                at
                for at in places
                if (same_inflected if self.words[at] in self.ordinary else _read_as)(self.words[at], wanted)
            )
        return self._found[wanted]

    def places(self, phrase: str) -> list[int]:
        """Places where a phrase begins."""
        wanted = _words_of_phrase(phrase)
        return [
            at
            for at in sorted(self.of(wanted[0]))
            if all(at + k in self.of(word) for k, word in enumerate(wanted[1:], start=1))
        ]


def commas_of(text: str) -> frozenset[int]:
    """Places in ``words_of(text)`` before which a comma stands."""
    pieces = re.findall(r",|[a-z0-9][a-z0-9'.]*[a-z0-9]|[a-z0-9]|[.;!?\n]", text.lower().replace("’", "'"))
    found, at = set(), 0
    for piece in pieces:
        if piece == ",":
            found.add(at)
        else:
            at += 1
    return frozenset(found)


def _negated(words: list[str], commas: frozenset[int], at: int) -> bool:
    """Whether a negation reaches this place: up to four words before it in the same clause.

    "no tears, diarrhea" denies the tears alone; "no tears, diarrhea or fever" denies all three.
    """
    for back in range(at - 1, max(-1, at - 5), -1):
        if words[back] in ".;!?\n" or words[back] in RESET:
            return False
        if words[back] in NEGATIONS:
            if not any(back < comma <= at for comma in commas):
                return True
            return _lists_alternatives(words, back)
    # "denies fever, weight loss, chest pain": a clinical negation reaches to the end of its sentence, and so does
    # "no swelling of the lids, change of vision or neck stiffness".
    for back in range(at - 1, max(-1, at - 14), -1):
        if words[back] in ".;!?\n" or words[back] in RESET:
            return False
        if words[back] in FAR_REACHING:
            return True
        if words[back] in ("no", "nor") and any(back < comma <= at for comma in commas):
            return _lists_alternatives(words, back)
    return False


def _lists_alternatives(words: list[str], begin: int) -> bool:
    """Whether an "or" stands between a place and the end of its clause: then a negation denies the whole list."""
    for word in words[begin:]:
        if word in ".;!?\n" or word in RESET:
            return False
        if word in ("or", "nor"):
            return True
    return False


def _clause(words: list[str], at: int) -> tuple[int, int]:
    """Begin and end (exclusive) of the clause that holds a place."""
    begin, end = at, at
    while begin > 0 and words[begin - 1] not in ".;!?\n" and words[begin - 1] not in RESET:
        begin -= 1
    while end < len(words) and words[end] not in ".;!?\n" and words[end] not in RESET:
        end += 1
    return begin, end


def _marks(pattern: re.Pattern[str], words: list[str], begin: int, end: int) -> list[tuple[int, int]]:
    """First word and last word (exclusive) of every mark in a clause."""
    clause = " ".join(words[begin:end])
    return [
        (begin + clause[: m.start()].count(" "), begin + clause[: m.end()].count(" ") + 1)
        for m in pattern.finditer(clause)
    ]


def _distance_to(marks: list[tuple[int, int]], at: int) -> int:
    """Words from a place to the nearest mark; a large number where there is none."""
    return min((first - at if at < first else max(0, at - last + 1) for first, last in marks), default=999)


def _past(words: list[str], at: int) -> bool:
    """Whether what stands at a place is over (or of the nose alone).

    A mark of the past after "since" or "for" tells how long it has lasted.
    """
    begin, end = _clause(words, at)
    if NOSE.search(" ".join(words[begin:end])):
        return True
    over = [
        (first, last)
        for first, last in _marks(PAST, words, begin, end)
        if not {"since", "for"} & set(words[max(begin, first - 3) : first + 1])
    ]
    return bool(over) and _distance_to(over, at) < _distance_to(_marks(NOW, words, begin, end), at)


def _told(words: list[str], at: int, length: int) -> bool:
    """Whether what stands at a place happens in a story: nobody here is named between its mark and the place."""
    begin, end = _clause(words, at)
    for first, last in _marks(TOLD, words, begin, end):
        between = words[last : at + length] if first <= at else words[at:first]
        named = [
            word for word, after in zip(between, [*between[1:], ""]) if word in SELF and after not in LOOKS_ON
        ]
        if not named:
            return True
    return False


def _denied_afterwards(words: list[str], at: int, length: int) -> bool:
    """Whether the clause ends in a denial, or the denial within a phrase is of how and not of whether."""
    end = _clause(words, at)[1]
    rest = " ".join(words[at + length : end])
    if any(rest == mark or rest.endswith(" " + mark) for mark in AFTERWARDS):
        return True
    held = {"not", "won't", "can't", "never"} & set(words[at : at + length])
    return bool(held) and at + length < end and words[at + length] in MANNER


class RedFlags:
    """The rules of a bundle.

    Args:
        rules: objects with ``id``, ``name``, ``advice`` and ``patterns``.
        ordinary: words that are no misspelling of others; a bundle's are the whole words of its vocabulary.
    """

    def __init__(self, rules: list[dict[str, Any]], ordinary: frozenset[str] = frozenset()) -> None:
        self.rules = rules
        self.ordinary = ordinary

    def check(self, text: str) -> list[Fired]:
        """Red flags in a text, in the order of the rules."""
        words, commas = words_of(text), commas_of(text)
        asks = any(mark in text.lower() for mark in HYPOTHETICAL) and not re.search(
            r"\b(i|my|he|she|his|her)\b", text.lower()
        )
        if asks or not words:
            return []
        spots = _Spots(words, self.ordinary)
        found: dict[str, list[int]] = {}

        def places(phrase: str) -> list[int]:
            if phrase not in found:
                length = len(_words_of_phrase(phrase))
                found[phrase] = [
                    at
                    for at in spots.places(phrase)
                    if not _negated(words, commas, at)
                    and not _past(words, at)
                    and not _told(words, at, length)
                    and not _denied_afterwards(words, at, length)
                ]
            return found[phrase]

        fired = []
        for rule in self.rules:
            if any(
                _matches([at for phrase in group for at in places(phrase)] for group in pattern)
                for pattern in rule["patterns"]
            ):
                fired.append(Fired(rule["id"], rule["name"], rule["advice"]))
        return fired


def _matches(groups: Iterable[list[int]]) -> bool:
    """Whether every group has a place within ``WINDOW`` words of one place of the first group."""
    found: list[list[int]] = []
    for group in groups:
        # A group without a place decides, and those after it need not be looked for.
        if not group:
            return False
        found.append(group)
    return any(
        all(any(abs(at - first) <= WINDOW for at in group) for group in found[1:]) for first in found[0]
    )


ORDER = ("unknown", "self_care", "see_doctor", "emergency")
ENOUGH = 0.2
"""Share of the probability at which an urgency counts: missing one is held four times as bad as a vain alarm."""


def more_urgent(a: str, b: str) -> str:
    """The more urgent of two urgencies."""
    return max(a, b, key=ORDER.index)


def urgency(
    ranked: list[tuple[str, float]], fired: list[Fired], answered: bool, alarmed: bool = False
) -> str:
    """Urgency of an answer, erring to the safe side.

    Args:
        ranked: ``(urgency, probability)`` of the conditions.
        fired: red flags.
        answered: whether a condition was recognised at all.
        alarmed: whether the emergency classifier rings.

    Returns:
        emergency when a red flag fires, the classifier rings or emergencies together hold ``ENOUGH`` of the probability; otherwise the
        more urgent of the first condition's urgency and of what holds as much.
    """
    if fired or alarmed:
        return "emergency"
    if not answered:
        return "unknown"
    mass = {name: sum(p for u, p in ranked if u == name) for name in ORDER}
    if mass["emergency"] >= ENOUGH:
        return "emergency"
    first = ranked[0][0] if ranked else "unknown"
    return more_urgent(first, "see_doctor" if mass["see_doctor"] + mass["emergency"] >= ENOUGH else "unknown")
