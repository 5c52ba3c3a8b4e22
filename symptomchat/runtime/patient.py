"""What in a text is the patient's, and is now: the clauses that the ranking reads.

In: the user's words. Out: the same words without the clauses that tell what somebody else has ("my neighbour's big
toe is red") or what is long over ("when I was small my ear hurt"), where enough remains. A doctor does not count
them as findings either. A clause stays wherever it is not plain whose it is: what names a condition (family history
and contacts), what somebody reports about the patient ("my wife says I stop breathing"), what began in the past and
may go on, and everything in a text that is not told in the first person. Red flags and the emergency classifier read
the whole text, whatever is left out here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from symptomchat.runtime.findings import lower, stem
from symptomchat.runtime.grounding import normal

_FAMILY = (
    "mother|father|mum|mom|mam|mummy|dad|daddy|parents?|brother|sister|siblings?|son|daughter|husband|wife|spouse|partner"
    "|boyfriend|girlfriend|fianc[eé]e?|uncle|aunt|auntie|cousin|nephew|niece|grand(?:mother|father|ma|pa|son|daughter|child|dad|mum)"
    "|gran|granny|nan|nana|grandparents?|(?:mother|father|sister|brother|son|daughter)-in-law|in-laws|step\\w+|twin|family|relative"
)
_CHILD = "child|children|kid|kids|baby|babies|infant|newborn|toddler|boy|girl|teenager|teen|lad"
_STRANGER = (
    "friend|neighbou?r|colleague|co-?worker|work-?mate|flat-?mate|room-?mate|house-?mate|class-?mate|team-?mate|tent-?mate|mate|pal|buddy"
    "|boss|manager|teacher|tutor|coach|trainer|instructor|professor|dentist|plumber|electrician|builder|carpenter|gardener"
    "|mailman|postman|postwoman|porter|cashier|baker|butcher|barber|hairdresser|cleaner|babysitter|nanny|landlord|landlady"
    "|tenant|lodger|client|customer|passenger|student|guest|visitor|stranger|man|woman|lady|gentleman|guy|bloke|person"
    "|driver|groom|bride|priest|pastor|vicar|officer|soldier|singer|secretary|receptionist|apprentice|intern|employee"
    "|teammate|opponent|fellow|patient|resident|inmate|people|others|policeman|fireman|waiter|waitress|chef|cook|lawyer|librarian"
)
PERSON = rf"(?:{_FAMILY}|{_CHILD}|{_STRANGER})"
_BETWEEN = r"(?:(?!(?:and|or|but|is|are|was|were|has|have|had|my|the|since|when|with|in|on|at|of|from|after|as)\b)[\w-]+\s+){0,3}?"
_OPENER = r"^\W*(?:(?:and|but|also|while|whereas|then|oh|well|so|because|meanwhile|last week|this week|yesterday|at work|at home|i mention it because)\b\W*)*"
_WHOSE = rf"(?:(?:my|our|a|an|the|his|her|their|another|one|some|that|this)\s+{_BETWEEN}{PERSON}\b(?:'s\b|s'(?=\s))?|someone\b|somebody\b)"
SOMEBODY = re.compile(rf"{_OPENER}{_WHOSE}(?:\s+{_BETWEEN}{PERSON}\b(?:'s\b)?)?")
"""A clause that begins with a person other than the writer."""
_STRANGE = rf"(?:(?:a|an|another|one|some)\s+{_BETWEEN}{PERSON}\b|(?:his|her|their)\s+{_BETWEEN}(?:{_STRANGER})\b|(?:my|our|the)\s+{_BETWEEN}{PERSON}'s\s+{_BETWEEN}{PERSON}\b|(?:my|our|the)\s+(?:{_STRANGER})\b|someone\b|somebody\b)"
STRANGER = re.compile(_OPENER + _STRANGE)
"""A clause that begins with a person who is not of the writer's household: where a carer writes, not the patient."""
CARED_FOR = re.compile(
    rf"\b(?:my|our)\s+{_BETWEEN}(?:(?:{_FAMILY}|{_CHILD})\b|[\w-]+[ -](?:year|month|week|day)s?[ -]old\b)"
)
"""Somebody for whom a carer may write."""
ANYONE = re.compile(rf"\b{PERSON}\b|\b(?:year|month|week|day)s?[ -]old\b")
FIRST = re.compile(r"\b(?:i|i'm|i've|i'd|i'll|im|ive|my|me|mine|myself|we|we're|we've|our|us)\b")
SINGULAR = re.compile(r"\b(?:i|i'm|i've|im|ive|my|me|myself)\b")
BEING = re.compile(r"\b(?:i'm|i am|im)\b")
WORRY = re.compile(
    r"\b(?:worried|worry|scared|afraid|frightened|concerned|asking|calling|writing|here|posting|found|think|panicking)\b"
)
"""A writer who says so may be anyone's carer."""
REPORT = re.compile(
    r"^\W*(?:who\b.{0,30}\b)?(?:(?:also|has|had|just|then|even)\b\W*)*(?:says?|said|thinks?|thought|tells?|told|notic\w+|reckons?|wants?|asked|brought|took|drove|made|makes"
    r"|insist\w*|suspect\w*|believe\w*|suggest\w*|prescribed|gave|sent|called|saw|found|noted|point\w*|checked|looked)\b"
)
THIRD = re.compile(r"\b(?:he|she|he's|she's|his|her|hers|him|they|their)\b")
_NUMBER = r"(?:\d+|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty)"
_AGES = r"(?:teens|twenties|thirties|forties|fifties|sixties|childhood|youth)"
_OVER = (
    r"(?:(?:years|decades|summers|winters) (?:ago|back|before)|a (?:decade|year) ago|long(?: time)? ago|ages ago"
    r"|(?<!the )last (?:year|summer|autumn|winter|spring|christmas|easter)|(?:in|of) (?:\w+ )?(?:19|20)\d\d|\w+ last year"
    rf"|when (?:i|he|she|we) (?:was|were) (?:{_NUMBER}|small|little|young|younger|a \w+|an \w+|pregnant|at school|at university|still)"
    rf"|as an? (?:young |small |little )?(?:child|kid|boy|girl|teen\w*|student|baby|toddler)|in (?:my|his|her) {_AGES}"
    r"|in (?:my|her) (?:first|last|earlier|previous) pregnancy|used to (?:have|get|be|suffer|wake|feel)|once had|back in (?:the|my|his|her|those|19|20)|(?:had|was) once|once was)"
)
OVER = re.compile(rf"\b{_OVER}\b")
ENDED = re.compile(
    r"\b(?:gone|went away|recovered|resolved|not any ?more|no longer|healed|cleared up|got over|none now|not now|cured)\b"
)
LASTS = re.compile(
    r"\b(?:since|began|begun|begin|appear\w*|stopped|start\w*|notic\w+|develop\w*|diagnos\w+|ever|still|continu\w*|again|now|today|tonight"
    r"|yesterday|keeps?|keeping|(?:get|gets|got|getting) worse|worsen\w*|surgery|operated|removed|came back|come back|comes back|comes and goes|transplant\w*|stent|bypass|same|like this|returned|back again"
    r"|i have|i've|i am|i'm|i feel|i get|i can't|it's|it is|hurts|aches|is|are|has)\b"
)
"""Marks of what goes on, or may come back: a clause that holds one is not over."""
_BREAK = rf"(?:,\s*|\s+)(?:and|but|while|whereas)\s+(?=(?:{_WHOSE}|(?:\w+\s+){{0,2}}{_OVER})\b)"
CUT = re.compile(rf"[!?;\n]+\s*|\.(?!\d)\s*|{_BREAK}")
"""Ends of clauses: marks, and an "and" before another person or a mark of the past."""
TRAILING = re.compile(r"(?:,\s*|\s+)(?:and|but|while|whereas)\s*$")
"""What joined a clause that is gone."""
ENOUGH_TOLD = 3
"""Words of findings from which a clause tells what somebody has; a shorter one is left for the model to judge."""
EARLY = 30
"""Characters within which a mark of the past stands that is meant for the whole clause."""
SHORTEST_WORD = 4
SHORT_NAMES = frozenset(["flu", "uti", "hiv", "tb", "ibs", "copd", "ms", "adhd", "pox"])
"""Names of conditions that are shorter than a word which tells anything."""
COUNTS = re.compile(
    r"\b(?:died|dead|death|same|similar|identical|too|as well|also|like (?:me|mine|this)|tested|treated|treatment|surgery|operations?"
    r"|operated|injections?|dialysis|tablets?|pills?|medication|medicine|needed|diagnos\w+|inherited|runs in)\b"
)
"""Family history and contacts are no findings of a relative: they count for the patient."""
PLACE = re.compile(
    r"\b(?:in|at|from|on|of|next to|down) (?:my|our) (?:office|class|course|school|street|house|home|work|team|building|village|town|gym|club|choir|ward|room|flat|bus|train|band)\b|\bof (?:mine|ours)\b"
)
"""Whereabouts and ties of somebody else: "a woman in my office", "a friend of mine"."""


@dataclass(frozen=True)
class Clause:
    """A clause, its place in the text in characters, and its words in lower case."""

    begin: int
    end: int
    text: str


class Patient:
    """Tells the patient's own clauses from others.

    Args:
        findings: names of all findings.
        conditions: canonical names of all conditions.
        aliases: their other names, normalised; those of one word that no finding uses ("pox", but not "numb") tell
            a condition too.
    """

    def __init__(self, findings: Iterable[str], conditions: Iterable[str], aliases: Iterable[str]) -> None:
        words = {word for name in findings for word in normal(name).split() if len(word) >= SHORTEST_WORD}
        self._stems = {stem(word) for word in words}
        single = {name for name in aliases if " " not in name and len(name) >= SHORTEST_WORD}
        self._names = {normal(name) for name in conditions} | (single - words) | SHORT_NAMES
        self._longest = max((len(name.split()) for name in self._names), default=0)

    def own(self, text: str) -> str:
        """The text that the ranking reads: the text itself, or what remains of it."""
        left = self.left_out(text)
        if not left:
            return text
        kept, at = [], 0
        for begin, end in left:
            kept.append(text[at:begin])
            at = end
        kept.append(text[at:])
        return TRAILING.sub("", "".join(kept).strip())

    def left_out(self, text: str) -> list[tuple[int, int]]:
        """Places, in characters, of the clauses that are another person's or over."""
        low = lower(text)
        if not FIRST.search(low):
            return []
        clauses = _clauses(low)
        if len(clauses) < 2:
            return []
        over = [at > 0 and self._is_over(clause.text) for at, clause in enumerate(clauses)]
        opened = SOMEBODY.search(clauses[0].text) or CARED_FOR.search(clauses[0].text)
        own = not opened and any(self._is_own(c.text) and not late for c, late in zip(clauses, over))
        # Where a text begins with somebody, that is the patient, and only strangers are told apart.
        pattern = SOMEBODY if own else STRANGER
        if not own and not any(CARED_FOR.search(clause.text) for clause in clauses):
            return []
        others = [at > 0 and self._is_somebodys(clause.text, pattern) for at, clause in enumerate(clauses)]
        dropped = [a or b for a, b in zip(others, over)]
        # Something that can be ranked must remain.
        if not any(self._told(c.text) for c, gone in zip(clauses, dropped) if not gone):
            return []
        return [(c.begin, c.end) for c, gone in zip(clauses, dropped) if gone]

    def _told(self, clause: str) -> int:
        """Number of different words in a clause that stand in a finding's name."""
        words = {stem(word) for word in normal(clause).split() if len(word) >= SHORTEST_WORD}
        return len(words & self._stems)

    def _is_own(self, clause: str) -> bool:
        """Whether the writer tells a finding of their own."""
        if (
            "?" in clause
            or not SINGULAR.search(clause)
            or THIRD.search(clause)
            or WORRY.search(clause)
            or SOMEBODY.search(clause)
        ):
            return False
        if ANYONE.search(clause) and not BEING.search(clause):
            return False
        return self._told(clause) > 0

    def _is_somebodys(self, clause: str, pattern: re.Pattern[str]) -> bool:
        """Whether a clause tells what another person has, and neither a condition nor what that person reports."""
        match = pattern.search(clause)
        if match is None or self._told(clause) < ENOUGH_TOLD:
            return False
        rest = PLACE.sub(" ", clause[match.end() :])
        if FIRST.search(rest) or COUNTS.search(rest) or self._names_condition(rest):
            return False
        return not REPORT.search(rest) or bool(THIRD.search(rest))

    def _is_over(self, clause: str) -> bool:
        """Whether a clause tells what the patient once had, and no condition by its name."""
        mark = OVER.search(clause)
        if mark is None or mark.start() > EARLY or self._told(clause) < ENOUGH_TOLD:
            return False
        if self._names_condition(clause):
            return False
        return bool(ENDED.search(clause)) or not LASTS.search(clause)

    def _names_condition(self, clause: str) -> bool:
        """Whether a clause names a condition: family history, a contact, or what is known of the patient."""
        words = normal(clause).split()
        return any(
            " ".join(words[begin : begin + length]) in self._names
            for length in range(1, self._longest + 1)
            for begin in range(len(words) - length + 1)
        )


def _clauses(low: str) -> list[Clause]:
    """Clauses of a text, each with the mark or word that ends it."""
    ends = [match.end() for match in CUT.finditer(low)] + [len(low)]
    found, begin = [], 0
    for end in ends:
        if re.search(r"\w", low[begin:end]):
            found.append(Clause(begin, end, low[begin:end]))
            begin = end
    return found
