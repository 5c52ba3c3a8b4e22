"""What kind of message a person sent in a conversation, from its words alone.

In: one message. Out: its kind (a question about a condition, a new topic, a correction, a follow-up, an answer to
a question) and, for a correction, the statements as they read afterwards. Nothing here asks the model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from symptomchat.runtime.assistant import NOT_A_NAME, asked_name
from symptomchat.runtime.findings import FILLERS, Findings, lower, stem
from symptomchat.runtime.grounding import STOP, normal
from symptomchat.runtime.inquiry import NO, UNSURE, YES

_LEAD = r"^\W*(?:(?:ok|okay|thanks|thank you|right|so|well|now|hi|hello|please|let's|let us|i have|i've got|i want|can we|talk about|to|a|an)\b\W*)*"
NEW_TOPIC = re.compile(
    _LEAD
    + r"(?:new (?:topic|question|problem|case|subject|complaint)|(?:on |about |ask )*(?:something|someone|somebody) else"
    r"|(?:different|separate|unrelated) (?:topic|question|problem|case|subject|matter|thing)"
    r"|another (?:topic|question|problem|case|subject|person|matter)|start (?:over|again|afresh|anew)"
    r"|forget (?:that|it|all that|about that|everything)|change (?:of )?(?:the )?(?:topic|subject)|on another note"
    r"|unrelated(?:ly)?|this is about (?:someone|somebody|something) else)\b[\s:,.;!?–-]*",
    re.IGNORECASE,
)
"""Explicit words for a new topic, at the beginning; what follows them is the new case."""
FOLLOW_UP = re.compile(
    r"^\W*(?:and|also|plus|but|or|with|then|it|it's|its|they|this|that|these|those|since|still|now|too|besides|as well"
    r"|another thing|oh|i also|i've also|i have also|there is also|there's also|sometimes|only|especially|mostly|worse"
    r"|better|no|yes|not|on top of|in addition|the pain|the rash|forgot)\b|\b(?:too|as well|also)\W*$",
    re.IGNORECASE,
)
CORRECTION = re.compile(
    r"^\W*(?:(?:(?:no|nope|sorry|wait|oh|ah|hmm)\b\W*)*(?:actually|i meant|i mean|correction|scratch that|i was wrong"
    r"|i misspoke|that'?s (?:not right|not what|wrong)|that is (?:not right|wrong))\b\W*"
    r"|(?:no|nope|sorry|wait)\b\W+(?=(?:not|it'?s|it is|it was|on the|in the|i said|i didn'?t)\b)"
    r"|(?=not (?:the|my|on|in|at|both)\b)"
    r"|sorry\b\W+)",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:not|isn'?t|is not|wasn'?t|don'?t have|do not have|didn'?t mean|did not mean|no longer have|haven'?t got|without|no)\s+"
    r"(?:really |in |on |at )*(.+?)(?=[,.;!?]|\bbut\b|\bit'?s\b|\bit is\b|$)",
    re.IGNORECASE,
)
_DENIED_VERB = re.compile(
    r"\b(?:it |i |he |she |they )?(?:doesn'?t|does not|don'?t|do not|didn'?t|did not)\s+(?!have\b|mean\b)(.+?)(?=[,.;!?]|\bbut\b|$)",
    re.IGNORECASE,
)
"""A verb that is taken back: its whole clause goes."""
_REPLIES = (
    (UNSURE, r"(?:i(?:'m| am) )?not (?:so |really |quite )?sure|unsure|(?:i )?(?:don'?t|do not) know|maybe|perhaps|no idea|idk|(?:i )?can'?t (?:tell|say)|hard to say"),
    (YES, r"yes|yeah|yep|yup|y|i do|it does|correct|that'?s right|definitely|a (?:bit|little)|very much"),
    (NO, r"no|nope|nah|n|not really|not at all|i don'?t|i do not|it doesn'?t|never"),
)  # fmt: skip
_QUESTION = re.compile(
    r"\?\W*$|^\W*(?:(?:and|so|ok|okay)\b\W*)?(?:what|what's|how|which|why|is|are|can|could|do|does|should|tell me|explain"
    r"|symptoms|signs|treatments?)\b",
    re.IGNORECASE,
)
_TREATED = re.compile(
    r"\b(?:treat(?:ed|ment|ments|ing)?|cure[ds]?|helps?|medicines?|remed(?:y|ies)|get rid|do about|can i (?:do|take)|should i (?:do|take))\b",
    re.IGNORECASE,
)
_SHOWN = re.compile(
    r"\b(?:symptoms|signs|look for|notice|feel like|expect|tell me (?:more|about)|more about)\b",
    re.IGNORECASE,
)
_URGENT = re.compile(
    r"\b(?:serious|dangerous|emergency|urgent|worr(?:y|ied)|doctor|hospital|ambulance|wait|contagious)\b",
    re.IGNORECASE,
)
_OPPOSITES = (
    "left right", "upper lower", "top bottom", "front back", "inside outside", "inner outer", "morning evening",
    "night day", "dry wet", "hot cold", "before after", "above below", "constant intermittent", "sudden gradual",
    "better worse", "older younger", "male female", "son daughter", "husband wife", "mother father", "boy girl",
    "hours days", "days weeks", "weeks months", "months years",
)  # fmt: skip
OPPOSITES: dict[str, frozenset[str]] = {}
for _pair in _OPPOSITES:
    _one, _other = _pair.split()
    OPPOSITES[_one] = OPPOSITES.get(_one, frozenset()) | {_other}
    OPPOSITES[_other] = OPPOSITES.get(_other, frozenset()) | {_one}
_EMPTY = STOP | FILLERS | frozenset(
    ["i", "i'm", "im", "i've", "have", "had", "has", "got", "get", "am", "feel", "feeling", "felt", "been", "there", "s", "me", "he", "she", "also", "both", "it's", "its", "that's"]
)  # fmt: skip
"""Words that say nothing once what they stood for is gone: "I have a fever" less "fever"."""
_BARE = frozenset(["hurts", "hurt", "hurting", "pain", "pains", "ache", "aches", "aching", "sore", "painful"])
"""What remains of "my chest hurts" without the chest says nothing either."""


@dataclass(frozen=True)
class Reply:
    """An answer to the question that was asked, and what else the message says."""

    value: str
    rest: str


def read_reply(text: str) -> Reply | None:
    """Whether a message begins with yes, no or not sure, as a word of its own."""
    for value, words in _REPLIES:
        match = re.match(
            rf"^\W*(?:{words})(?!['’\w])(?:\s*(?:[,.;:!?–-]\s*|$)|\s+(?=(?:and|but|i|it)\b))",
            text,
            re.IGNORECASE,
        )
        if match:
            rest = re.sub(r"^\W*(?:and|but)\b\W*", "", text[match.end() :].strip())
            return Reply(value, rest if re.search(r"\w", rest) else "")
    return None


def new_topic(text: str) -> str | None:
    """What follows explicit words for a new topic (it may be empty), or None where there are none."""
    match = NEW_TOPIC.match(text)
    return text[match.end() :].strip() if match else None


def asks_about(text: str, findings: Findings) -> bool:
    """Whether a message asks about a condition or a treatment instead of describing a case.

    A message in the first person that names findings outside the name asked for describes a case as well.
    """
    name = asked_name(text)
    if name is None or NOT_A_NAME & set(normal(name).split()):
        return False
    begin = text.find(name)
    outside = text[:begin] + " . " + text[begin + len(name) :]
    personal = re.search(r"\b(?:i|i'm|i've|my|me|he|she|his|her)\b", outside, re.IGNORECASE)
    # "have I got", "do I have" and "told I have" are first persons that only ask.
    asking = re.search(r"\b(?:do|if|have|told|said|would|should|can) i\b", outside, re.IGNORECASE)
    described = any(mention.present for mention in findings.mentions(outside))
    if personal and described:
        return False
    return bool(_QUESTION.search(text) or asking or not personal)


def about_the_case(text: str, findings: Findings, first: str) -> str | None:
    """The question that "how is it treated?" means where ``first`` is the likeliest condition of the case.

    Returns:
        a question by name; the empty string for a question about how urgent the case is; or None.
    """
    if not _QUESTION.search(text) or asked_name(text) and asks_about(text, findings):
        return None
    if any(mention.present for mention in findings.mentions(text)):
        return None
    if _URGENT.search(text):
        return ""
    if _TREATED.search(text):
        return f"How is {first} treated?"
    if _SHOWN.search(text):
        return f"What are the symptoms of {first}?"
    return None


def asks(text: str) -> bool:
    """Whether a message has the form of a question."""
    return _QUESTION.search(text) is not None


def is_correction(text: str) -> bool:
    """Whether a message takes something back."""
    return CORRECTION.match(text) is not None


def words(text: str) -> list[str]:
    """Lower-case words, with apostrophes."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", lower(text))


def correct(statements: list[str], text: str) -> list[str]:
    """The statements of a case after a correction.

    What the correction denies is cut out of them, or replaced where the message names the opposite ("left" by
    "right", "3" by "5"); whatever else it says is added.
    """
    match = CORRECTION.match(text)
    body = text[match.end() :].strip() if match else text
    verb = _DENIED_VERB.search(body)
    denied = verb or _DENIED.search(body)
    wrong = denied.group(1) if denied else ""
    right = f"{body[: denied.start()]} {body[denied.end() :]}" if denied else body
    swaps = _swaps(statements, wrong, right)
    if swaps:
        changed = [_swap(statement, swaps) for statement in statements]
        left = _meaning(right) - set(swaps.values())
        known = {stem(word) for statement in changed for word in words(statement)}
        return changed if {stem(word) for word in left} <= known else [*changed, _tidy(right)]
    changed = [_cut(statement, wrong, verb is not None) for statement in statements] if wrong else statements
    if changed == statements:
        return [*statements, body]
    added = [_tidy(right)] if _meaning(right) else []
    return [statement for statement in changed if _meaning(statement)] + added


def _meaning(text: str) -> set[str]:
    return {word for word in words(text) if word not in _EMPTY}


def _swaps(statements: list[str], wrong: str, right: str) -> dict[str, str]:
    """Word → its replacement, where a correction names a word's opposite or another number."""
    said = {word for statement in statements for word in words(statement)}
    denied, stated = words(wrong), words(right)
    swaps = {}
    for word in stated:
        for other in OPPOSITES.get(word, ()):
            if other in said and other not in stated and (not denied or other in denied):
                swaps[other] = word
    numbers = [word for word in stated if word.isdigit()]
    for word in denied:
        if word.isdigit() and word in said and len(numbers) == 1:
            swaps[word] = numbers[0]
    if not denied and len(numbers) == 1:
        # "actually 5 days" where "for 3 days" was said: the same unit, another number.
        unit = re.search(rf"\b{numbers[0]}\s+([a-z]+)", lower(right))
        if unit:
            earlier = re.findall(rf"\b(\d+)\s+{stem(unit.group(1))}s?\b", lower(" . ".join(statements)))
            if len(set(earlier)) == 1 and earlier[0] != numbers[0]:
                swaps[earlier[0]] = numbers[0]
    return swaps


def _swap(statement: str, swaps: dict[str, str]) -> str:
    pattern = r"\b(" + "|".join(map(re.escape, swaps)) + r")\b"
    return re.sub(pattern, lambda match: swaps[match.group(1).lower()], statement, flags=re.IGNORECASE)


def _cut(statement: str, wrong: str, clause: bool) -> str:
    """The statement without what a correction denies; its clause goes where asked, or where it then says nothing."""
    gone = {stem(word) for word in _meaning(wrong)}
    sided = gone & set(OPPOSITES)
    if not gone or not gone <= {stem(word) for word in words(statement)}:
        return statement
    pieces = re.split(r"(\s*[,;.]\s*|\s+(?:and|but|with|or)\s+)", statement)
    kept: list[str] = []
    for at in range(0, len(pieces), 2):
        stems = {stem(word) for word in words(pieces[at])}
        piece = pieces[at]
        if gone <= stems:
            if clause:
                continue
            drop = sided if sided and stems - gone - _EMPTY else gone
            piece = _less(piece, drop)
            if _meaning(piece) <= (frozenset() if drop is sided else _BARE):
                continue
        kept += [pieces[at - 1] if kept and at else "", piece]
    return re.sub(r"\s+", " ", "".join(kept)).strip(" ,;")


def _less(text: str, stems: set[str]) -> str:
    """A text without the words of these stems."""
    return re.sub(
        r"[^\W_]+(?:['’][^\W_]+)*",
        lambda match: "" if stem(lower(match.group(0))) in stems else match.group(0),
        text,
    )


def _tidy(text: str) -> str:
    text = re.sub(r"^\W*(?:but|and|it'?s|it is|rather)\b\W*", "", text.strip(), flags=re.IGNORECASE)
    return re.sub(r"\s+", " ", text).strip(" ,;.–-")
