"""The generator: from condition profiles and phrasings to exchanges in patients' voices.

In: the knowledge base, options and a seed. Out: ``Exchange`` objects, the same for the same seed.
``python -m symptomchat.corpus.narratives`` prints statistics of what it makes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cached_property

from symptomchat.corpus.knowledge import Knowledge
from symptomchat.corpus.schema import Condition, Exchange, Presentation
from symptomchat.recipe import DataPart

SYMPTOMS_SHOWN = 8
TREATMENTS_SHOWN = 4
OFTEN = {1: 0.4, 2: 0.6, 3: 1.0, 4: 1.6, 5: 2.6}
"""How often a condition is told, by how often it is seen: a mild form of the prior of a consultation."""
VAGUE = {1: 0.05, 2: 0.15, 3: 0.3, 4: 0.45, 5: 0.6}
"""Share of plain texts that tell any of the findings, not those that point to the condition, by how often it is
seen: what a vague text means is a common condition, and a rare one that is told vaguely takes its place."""
ASIDE = 0.15
"""Share of texts that also tell what is long over, or what somebody else has."""
CHILDHOOD = 16
"""A condition that is not seen above this age, in years, is told as a child's."""

_OPENERS = (
    "", "", "", "", "hi, ", "Hello doctor, ", "hey so ", "ok so ", "please help, ", "not sure if this matters but ",
    "Good evening. ", "quick question: ", "I'm worried, ", "sorry for the long message. ", "need some advice, ",
)  # fmt: skip
_CLOSERS = (
    "", "", "", "", "", "", " what could it be?", " any ideas?", " Should I see someone?", " thanks", " is this serious?",
    " what is wrong with me?", " what do I do?", " Can't get in to see my doctor till next week.", " pls help",
)  # fmt: skip
_CLAUSE = re.compile(
    r"^(i|i'm|i've|i'd|my|it|it's|the|there|there's|when|every|whenever|can't|cannot|keep|feel|feels|having|been|"
    r"he|she|his|her|we|one|both|everything|nothing|had|got|get|woke|couldn't|don't|this)\b",
    re.IGNORECASE,
)
_HAVE = (
    "I have {}", "I've got {}", "I've been having {}", "there's {}", "I keep getting {}", "I get {}", "dealing with {}",
    "I'm having {}", "suffering from {}", "noticed {}", "started with {}", "{}", "{}", "bad {}", "some {}", "a lot of {}",
)  # fmt: skip
_ALSO = (
    "also {}",
    "plus {}",
    "and {}",
    "{} too",
    "{} as well",
    "on top of that {}",
    "{}",
    "{}",
    "then {}",
    "sometimes {}",
)
_NOT = (
    "no {}", "no {}", "I don't have {}", "without {}", "no sign of {}", "not had any {}", "no {} at all", "haven't had {}",
)  # fmt: skip
_DENY = (
    "{S} denies {}.", "No {}.", "There is no {}.", "Negative for {}.", "Without {}.", "{S} reports no {}.",
    "No history of {}.",
)  # fmt: skip
_PRESENT = (
    "A {age} {sex} presents with {f}.", "{age} {sex}, {f}.", "{Age} {sex} comes in because of {f}.",
    "A {age} {sex} is brought in with {f}.", "{age} {sex} complaining of {f}.", "{Age} {sex} with {f}.",
    "{Age} {sex} attends the clinic reporting {f}.", "Seen today: {age} {sex}. Main complaint: {f}.",
)  # fmt: skip
_PLAIN_FIRST = (
    "I have had {f} {span}.", "I have been having {f} {span}.", "I have been dealing with {f} {span}.",
    "{span}, I have had {f}.", "My main problem is {f}, which I have had {span}.", "I am writing about {f}. It has been there {span}.",
    "I suffer from {f} {span}.", "{F} has been bothering me {span}.",
)  # fmt: skip
_PLAIN_MORE = (
    "I also have {f}.", "There is also {f}.", "In addition, I notice {f}.", "I have noticed {f} too.", "{F} has come on as well.",
    "On some days there is {f}.", "Besides that I get {f}.", "Along with this I have {f}.", "What worries me most is {f}.", "{F} comes and goes.",
)  # fmt: skip
_PLAIN_NOT = (
    "I do not have {f}.", "There has been no {f}.", "I have not had any {f}.", "So far there is no {f}.", "I have no {f} at all.",
)  # fmt: skip
_SPANS = {
    "sudden": ("since {h} hours ago", "all of a sudden", "it came on suddenly", "since this morning", "started {h} hours ago out of nowhere"),
    "hours": ("since {h} hours", "since last night", "for the past {h} hours", "started this morning"),
    "days": ("for {n} days", "for {n} days now", "since {n} days", "started {n} days ago", "since the weekend", "for about a week"),
    "weeks": ("for {n} weeks", "for the past {n} weeks", "for {n} wks", "over the last {n} weeks", "about a month now"),
    "months": ("for {n} months", "for the last {n} months", "over the past {n} months", "since the spring", "getting worse for months"),
    "years": ("for years", "for {n} years", "since {n} years", "gradually over the years", "for as long as I can remember"),
    "lifelong": ("since birth", "since childhood", "all my life", "ever since I can remember"),
}  # fmt: skip
_DISTRACTORS = (
    "My knee has been stiff since football but that is old.", "I wear glasses.", "I had my wisdom teeth out years ago.",
    "Work has been stressful lately.", "I did change my washing powder.", "The dog has been ill as well.",
    "I take a vitamin every morning.", "My brother had his appendix out as a child.", "I sleep badly when it's hot.",
    "We moved house in March.", "I broke my wrist when I was ten.", "I don't really drink.", "I had a flu jab in autumn.",
    "Otherwise I'm healthy.", "I've not changed my diet.", "My neighbour said it was the weather.", "I work in an office.",
    "I have two kids.", "I cycle to work most days.", "I'm allergic to cats.", "Vegetarian, if that matters.",
    "I tried paracetamol and it did little.", "I looked it up online and only got scared.", "I gave up smoking long ago.",
)  # fmt: skip
_PAST = (
    "{years} years ago I had {f}.", "As a child I had {f}.", "I had {f} back in my twenties, that went away.", "Once, long ago, I had {f}.",
    "Last year I had {f}, it is gone now.", "I used to get {f} but not any more.", "{F} was a problem when I was younger, not now.",
    "{years} summers ago there was {f}.", "Had {f} in 20{at:02}, fully recovered.", "When I was at school I got {f}.",
)  # fmt: skip
_OTHER = (
    "My {who} has {f}.", "My {who} had {f} last week.", "I mention it because my {who} has {f}.", "My {who} gets {f}.",
    "At home my {who} is down with {f}.", "My {who} was treated for {f}.", "{F} is what my {who} has, not me.",
    "My {who} suffers from {f}.",
)  # fmt: skip
_WHO = (
    "neighbour", "mother", "father", "brother", "sister", "colleague", "flatmate", "uncle", "aunt", "grandmother", "cousin", "best friend",
    "boss", "husband", "wife", "teacher", "grandfather", "friend from work",
)  # fmt: skip
_PAST_CLINICAL = (
    "Had {f} {years} years ago, since resolved.", "{F} as a child, long resolved.", "An episode of {f} in 20{at:02} left nothing behind.",
    "A relative was recently seen for {f}.", "The {who} had {f}; the patient has not.", "Remote history of {f}, none now.",
)  # fmt: skip
_CHILD = (
    "My {age} has this: ", "It is about my {age}. ", "This is for my {age}. ", "Asking for my {age}: ", "My {age} is ill. ",
)  # fmt: skip
_ASK_SYMPTOMS = (
    "what are the symptoms of {}?", "symptoms of {}", "{} symptoms", "how do I know if I have {}?", "signs of {}",
    "what does {} feel like?", "how does {} show itself?", "tell me about {}", "what is {}?", "What should I look for in {}?",
    "can you list the signs and symptoms of {}", "how would I recognise {}", "is there a way to tell it's {}?", "{}",
    "explain {} to me", "my doctor said I have {}, what is that", "what happens in {}", "Which symptoms does {} cause?",
)  # fmt: skip
_ASK_TREATMENT = (
    "how is {} treated?", "treatment of {}", "{} treatment", "what helps against {}?", "how do I get rid of {}?",
    "what can be done about {}?", "what do doctors give for {}", "cure for {}", "I was told I have {}. What is the treatment?",
    "What are the options for treating {}?", "how to treat {} at home", "medicine for {}", "remedies for {}",
)  # fmt: skip
_SYLLABLES = (
    "zor", "bit", "quil", "mev", "tra", "lon", "vex", "dru", "pim", "gor", "sna", "fel", "kri", "obu", "xan", "tul",
    "bra", "wis", "cho", "plu", "ner", "yas", "hod", "mig", "cro", "fan", "del", "ush", "rax", "tem",
)  # fmt: skip
_ENDINGS = (
    "itis",
    "osis",
    "emia",
    "opathy",
    "oma",
    " syndrome",
    " disease",
    " fever",
    "algia",
    " disorder",
    "iasis",
    " palsy",
)
_CARER_WORDS = (
    (r"\bi'm\b", "{p}'s"), (r"\bi've\b", "{p}'s"), (r"\bi'd\b", "{p}'d"), (r"\bi am\b", "{p} is"), (r"\bi have\b", "{p} has"),
    (r"\bi was\b", "{p} was"), (r"\bi don't\b", "{p} doesn't"), (r"\bi\b", "{p}"), (r"\bmyself\b", "{o}self"),
    (r"\bmy\b", "{h}"), (r"\bme\b", "{o}"), (r"\bmine\b", "{h}"),
)  # fmt: skip
_NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk", "k": "jl",
    "l": "k", "m": "n", "n": "mb", "o": "ip", "p": "o", "q": "w", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb",
    "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip


def misspell(text: str, rng: random.Random, rate: float) -> str:
    """Drop, double, swap or mistype letters; ``rate`` is the share of words that are touched."""
    words = text.split(" ")
    for at, word in enumerate(words):
        if len(word) < 4 or rng.random() >= rate:
            continue
        i = rng.randrange(1, len(word) - 1)
        kind = rng.random()
        if kind < 0.3:
            word = word[:i] + word[i + 1 :]
        elif kind < 0.5:
            word = word[:i] + word[i] + word[i:]
        elif kind < 0.75:
            word = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        else:
            word = word[:i] + rng.choice(_NEIGHBOURS.get(word[i].lower(), word[i])) + word[i + 1 :]
        words[at] = word
    return " ".join(words)


def _join(parts: list[str], rng: random.Random) -> str:
    style = rng.random()
    if style < 0.35:
        return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
    if style < 0.7:
        return ", ".join(parts)
    return ". ".join(part[:1].upper() + part[1:] for part in parts)


def _list(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


class Generator:
    """Makes exchanges from a knowledge base; every method is a function of its random generator.

    Args:
        knowledge: conditions, findings and authored texts.
        options: which ingredients to use, and how much of each.
    """

    def __init__(self, knowledge: Knowledge, options: DataPart | None = None) -> None:
        self.knowledge = knowledge
        self.options = options or DataPart()

    @cached_property
    def _distinct(self) -> dict[str, list[str]]:
        """Findings of a condition's confusables that it does not have itself: worth denying."""
        table = {}
        for condition in self.knowledge.conditions:
            own = {f.name for f in condition.findings}
            other: list[str] = [a.name for a in condition.absences if a.speaks == "for"]
            if self.options.confusables:
                for confusable in condition.confusable:
                    twin = self.knowledge.by_name.get(self.knowledge.find(confusable.name) or "")
                    if twin is not None:
                        other += [f.name for f in twin.findings if f.typicality >= 2 and f.name not in own]
            table[condition.name] = [
                name for name in dict.fromkeys(other) if name not in own and _deniable(name)
            ]
        return table

    def phrase(self, name: str, rng: random.Random) -> str:
        """One way in which people say a finding."""
        finding = self.knowledge.findings.get(name)
        if finding is None or not finding.phrasings or not self.options.phrasings or rng.random() < 0.15:
            return name
        return rng.choice(finding.phrasings)

    def draw(self, condition: Condition, rng: random.Random, most: int) -> list[str]:
        """Findings of one case: by frequency, never all, at least two where there are two."""
        # The most typical finding of the draw is kept when the case is cut short.
        present = [f for f in condition.findings if rng.random() < f.frequency]
        if len(present) < 2:
            rest = [f for f in condition.findings if f not in present]
            rng.shuffle(rest)
            present += sorted(rest, key=lambda f: -f.typicality)[: 2 - len(present)]
        if len(present) > most:
            rng.shuffle(present)
            present = sorted(present, key=lambda f: -f.typicality * rng.uniform(0.4, 1))[:most]
        rng.shuffle(present)
        return [f.name for f in present]

    def draw_any(self, condition: Condition, rng: random.Random, most: int) -> list[str]:
        """Findings of a case told badly: any that occur, however little they point to the condition."""
        pool = {f.name: f.frequency for f in condition.findings}
        chosen: list[str] = []
        while pool and len(chosen) < most:
            name = rng.choices(list(pool), list(pool.values()))[0]
            chosen.append(name)
            del pool[name]
        return chosen

    def _person(self, condition: Condition, rng: random.Random) -> tuple[float, bool]:
        low, high = condition.age
        return rng.triangular(low, high, (low + high) / 2), rng.random() < condition.sex_female

    def _span(self, condition: Condition, rng: random.Random) -> str:
        choices = _SPANS.get(condition.onset.split()[0] if condition.onset else "", _SPANS["days"])
        return rng.choice(choices).format(h=rng.randint(1, 20), n=rng.randint(2, 6))

    def _lasting(self, condition: Condition, rng: random.Random) -> str:
        """A span that can follow "I have had it"."""
        span = self._span(condition, rng)
        return (
            "for some time" if span.startswith(("started", "it came", "all of", "about", "getting")) else span
        )

    def _risk(self, condition: Condition, rng: random.Random) -> str:
        if not condition.risk_factors:
            return ""
        return rng.choices(condition.risk_factors, [r.weight for r in condition.risk_factors])[0].name

    def clinical(self, condition: Condition, rng: random.Random) -> str:
        """A third-person note with demographics, negatives and history."""
        age, female = self._person(condition, rng)
        if age < 2:
            when = f"{max(1, round(age * 12))}-month-old"
        else:
            when = rng.choice(("{}-year-old", "{}-year-old", "{} year old", "{} yo")).format(round(age))
        child = age < 14
        sex = rng.choice((("girl", "female") if child else ("woman", "female", "lady")) if female else (("boy", "male") if child else ("man", "male", "gentleman")))  # fmt: skip
        pronoun = "She" if female else "He"
        findings = self.draw(condition, rng, rng.randint(3, 8))
        first, rest = findings[: rng.randint(1, 3)], findings
        rest = [f for f in findings if f not in first]
        if not self.options.demographics:
            parts = [f"A patient presents with {_list(first)}."]
        else:
            template = rng.choice(_PRESENT)
            parts = [template.format(age=when, Age=when, sex=sex, f=_list(first))]
        parts[0] = (
            parts[0].replace(".", f" {self._span(condition, rng)}.", 1) if rng.random() < 0.7 else parts[0]
        )
        if rest:
            # A clause ("I can't walk far") does not fit behind "she reports"; the finding's own name does.
            phrases = [self.phrase(f, rng) if rng.random() < 0.35 else f for f in rest]
            said = _list([f if _CLAUSE.match(text) else text for f, text in zip(rest, phrases)])
            said = _third_person(
                said, pronoun.lower(), "her" if female else "his", "her" if female else "him"
            )
            parts.append(
                rng.choice(
                    ("{} also reports {}.", "{} has noticed {}.", "{} describes {}.", "{} has {}.")
                ).format(pronoun, said)
            )
        risk = self._risk(condition, rng)
        if risk and rng.random() < 0.6:
            parts.append(
                rng.choice(
                    ("History of {}.", "Past history: {}.", "Notable for {}.", "Background: {}.")
                ).format(risk)
            )
        denied = self.absent(condition, rng, findings, rng.randint(1, 4))
        if denied:
            parts.append(
                rng.choice(_DENY).format(
                    " or ".join((", ".join(denied[:-1]), denied[-1])) if len(denied) > 1 else denied[0],
                    S=pronoun,
                )
            )
        if rng.random() < 0.3:
            parts.append(rng.choice(("No relevant family history.", "Non-smoker.", "Drinks alcohol socially.", "No regular medication.", "No known allergies.", "Works in an office.")))  # fmt: skip
        if self.options.asides and rng.random() < ASIDE:
            parts.append(self.aside(condition, rng, _PAST_CLINICAL))
        return " ".join(part for part in parts if part)

    def absent(self, condition: Condition, rng: random.Random, present: list[str], count: int) -> list[str]:
        """Findings that this case denies: those that would speak for a confusable condition, and common ones."""
        if not self.options.negation:
            return []
        own = {f.name for f in condition.findings if f.frequency > 0.35} | set(present)
        pool = [f for f in self._distinct[condition.name] if f not in own]
        common = [f for f in ("fever", "weight loss", "cough", "chest pain", "vomiting", "rash", "headache", "shortness of breath", "diarrhea", "night sweats", "trauma", "dizziness", "joint pain", "abdominal pain") if f not in own]  # fmt: skip
        pool = pool * 2 + common
        rng.shuffle(pool)
        return list(dict.fromkeys(pool))[:count]

    def aside(self, condition: Condition, rng: random.Random, forms: tuple[str, ...] | None = None) -> str:
        """A sentence on another condition's finding that is long over, or that somebody else has."""
        pool = [name for name in self._distinct[condition.name] if not _CLAUSE.match(name)]
        if rng.random() < 0.5 or not pool:
            other = rng.choice(self.knowledge.conditions)
            own = {f.name for f in condition.findings}
            pool = [
                f.name
                for f in other.findings
                if f.typicality >= 2 and f.name not in own and _deniable(f.name)
            ]
        if not pool:
            return ""
        said = self.phrase(rng.choice(pool), rng)
        if _CLAUSE.match(said):
            return ""
        form = rng.choice(forms or rng.choice((_PAST, _OTHER)))
        return form.format(
            f=said, F=said[:1].upper() + said[1:], years=rng.randint(2, 30), at=rng.randint(0, 20), who=rng.choice(_WHO)
        )  # fmt: skip

    def first_person(self, condition: Condition, rng: random.Random) -> str:
        """What a patient, or someone who cares for one, types."""
        age, female = self._person(condition, rng)
        carer = age < 12 or rng.random() < 0.12
        short = rng.random() < 0.35
        findings = self.draw(condition, rng, rng.randint(2, 3) if short else rng.randint(3, 6))
        said = [self.phrase(f, rng) for f in findings]
        parts = []
        for at, text in enumerate(said):
            if not _CLAUSE.match(text):
                text = rng.choice(_HAVE).format(text) if at == 0 or rng.random() < 0.2 else text
            parts.append(rng.choice(_ALSO).format(text) if at and rng.random() < 0.4 else text)
        if rng.random() < 0.5:
            parts[0] = f"{parts[0]} {self._span(condition, rng)}"
        text = _join(parts, rng)
        denied = self.absent(condition, rng, findings, rng.randint(1, 2)) if rng.random() < 0.3 else []
        if denied:
            text += rng.choice((", ", ". ", " but ", "; ")) + ", ".join(
                rng.choice(_NOT).format(d) for d in denied
            )
        if self.options.demographics and rng.random() < 0.3 and not carer:
            sex = ("f", "woman", "female") if female else ("m", "man", "male")
            who = rng.choice(
                (
                    "I'm {a}, {s}. ",
                    "{a}{c} here. ",
                    "{s}, {a}. ",
                    "I am a {a} year old {s}. ",
                    "{a} y/o {s}. ",
                )
            )
            text = who.format(a=round(age), s=rng.choice(sex[1:]), c=sex[0]) + text
        if rng.random() < 0.2:
            risk = self._risk(condition, rng)
            text += (
                rng.choice((". I have a history of {}", ". {}, by the way", ". Also {}", " ({})")).format(
                    risk
                )
                if risk
                else ""
            )
        if not short and rng.random() < 0.25:
            distractor = rng.choice(_DISTRACTORS)
            text = f"{distractor} {text}" if rng.random() < 0.5 else f"{text.rstrip('.')}. {distractor}"
        if not carer and self.options.asides and rng.random() < ASIDE:
            aside = self.aside(condition, rng)
            text = f"{aside} {text}" if rng.random() < 0.4 else f"{text.rstrip('.')}. {aside}"
        if carer:
            subject, possessive, objective = ("she", "her", "her") if female else ("he", "his", "him")
            child = (
                ("my daughter", "our baby girl", "my little girl")
                if female
                else ("my son", "our little boy", "my kid")
            )
            adult = (
                ("my wife", "my mum", "my mother", "my partner")
                if female
                else ("my husband", "my dad", "my father")
            )
            who = rng.choice(child if age < 16 else adult)
            text = f"{who} is ill. {_third_person(text, subject, possessive, objective)}"
        return rng.choice(_OPENERS) + text + rng.choice(_CLOSERS)

    def plain(self, condition: Condition, rng: random.Random) -> str:
        """Neutral, complete sentences, as people fill in a form."""
        most = rng.randint(2, 5)
        findings = (self.draw_any if rng.random() < VAGUE[condition.common] else self.draw)(
            condition, rng, most
        )
        said = [self.phrase(f, rng) if rng.random() < 0.5 else f for f in findings]
        nouns = [text for text in said if not _CLAUSE.match(text)]
        sentences = [text[:1].upper() + text[1:] + "." for text in said if _CLAUSE.match(text)]
        lead: list[str] = []
        while nouns:
            taken = _list([nouns.pop() for _ in range(min(len(nouns), rng.randint(1, 2)))])
            templates = _PLAIN_MORE if lead else _PLAIN_FIRST
            text = rng.choice(templates).format(
                f=taken, F=taken[:1].upper() + taken[1:], span=self._lasting(condition, rng)
            )
            lead.append(text[:1].upper() + text[1:])
        if rng.random() < 0.3:
            sentences = lead[1:] + sentences
            rng.shuffle(sentences)
            sentences = lead[:1] + sentences
        else:
            sentences = lead + sentences
        if rng.random() < 0.25:
            sentences += [
                rng.choice(_PLAIN_NOT).format(f=name) for name in self.absent(condition, rng, findings, 1)
            ]
        if self.options.demographics and rng.random() < 0.2:
            age, female = self._person(condition, rng)
            if age >= 14:
                sentences.insert(0, f"I am a {round(age)}-year-old {'woman' if female else 'man'}.")
        risk = self._risk(condition, rng)
        if risk and rng.random() < 0.15:
            sentences.append(
                rng.choice(("My history includes {}.", "I should add {}.", "Background: {}.")).format(risk)
            )
        if self.options.asides and rng.random() < ASIDE:
            sentences.insert(rng.randint(0, len(sentences)), self.aside(condition, rng))
        return " ".join(sentence for sentence in sentences if sentence)

    def terse(self, condition: Condition, rng: random.Random) -> str:
        """A comma-separated list."""
        findings = self.draw(condition, rng, rng.randint(2, 7))
        said = [f if rng.random() < 0.5 else self.phrase(f, rng) for f in findings]
        return rng.choice((", ", ", ", "; ", " + ", " and ")).join(said)

    def turns(self, condition: Condition, rng: random.Random) -> str:
        """Two or three messages, each adding to what was said."""
        findings = self.draw(condition, rng, rng.randint(3, 5))
        said = [self.phrase(f, rng) for f in findings]
        if len(said) < 2:
            return said[0]
        cut = rng.randint(1, len(said) - 1)
        return (
            _join(said[:cut], rng)
            + ". "
            + rng.choice(("Also ", "And ", "Oh and ", "I forgot: ", "Now "))
            + _join(said[cut:], rng)
        )

    def narrative(self, condition: Condition, rng: random.Random) -> str:
        """One generated text in one of the voices, sometimes misspelt or in lower case."""
        draw = rng.random()
        if draw < 0.3:
            text = self.clinical(condition, rng)
        elif draw < 0.58:
            text = self.first_person(condition, rng)
        elif draw < 0.8:
            text = self.plain(condition, rng)
        elif draw < 0.91:
            text = self.terse(condition, rng)
        else:
            text = self.turns(condition, rng)
        if draw >= 0.58 and condition.age[1] <= CHILDHOOD and self.options.demographics:
            text = self._of_child(condition, rng) + text
        return self.roughen(text, rng)

    def _of_child(self, condition: Condition, rng: random.Random) -> str:
        """Says that the text is about a child; without it a child's condition answers for adults too."""
        age, female = self._person(condition, rng)
        kind = ("daughter" if female else "son") if age >= 1 else "baby"
        when = f"{max(1, round(age * 12))}-month-old {kind}" if age < 2 else f"{round(age)}-year-old {kind}"
        return rng.choice(_CHILD).format(age=rng.choice((when, kind)))

    def roughen(self, text: str, rng: random.Random) -> str:
        """Typing habits: lower case, lost punctuation, misspellings."""
        draw = rng.random()
        if draw < 0.15:
            text = misspell(text, rng, 0.12)
        elif draw < 0.25:
            text = text.lower().replace(".", "").replace("'", "")
        elif draw < 0.28:
            text = text.upper()
        return text

    def vary(self, presentation: Presentation, rng: random.Random) -> str:
        """An authored presentation with a sentence left out or moved, an opener, or misspellings."""
        text = presentation.text
        sentences = re.split(r"(?<=[.!?])\s+", text)
        if len(sentences) > 2 and rng.random() < 0.6:
            drop = rng.randrange(len(sentences))
            sentences = sentences[:drop] + sentences[drop + 1 :]
        if len(sentences) > 2 and rng.random() < 0.2:
            at = rng.randrange(len(sentences) - 1)
            sentences[at], sentences[at + 1] = sentences[at + 1], sentences[at]
        text = " ".join(sentences)
        if presentation.voice == "list":
            parts = [part.strip() for part in text.split(",")]
            rng.shuffle(parts)
            text = ", ".join(parts[: max(2, len(parts) - rng.randint(0, 2))])
        if presentation.voice in ("first", "ramble") and rng.random() < 0.25:
            text = rng.choice(_OPENERS) + text + rng.choice(_CLOSERS)
        if rng.random() < 0.1:
            text = f"{text} {rng.choice(_DISTRACTORS)}"
        elif self.options.asides and rng.random() < ASIDE / 2:
            aside = self.aside(self.knowledge.by_name[presentation.condition], rng)
            text = f"{aside} {text}" if rng.random() < 0.3 else f"{text} {aside}"
        return self.roughen(text, rng)

    def exchange(self, question: str, condition: Condition, intent: str, group: str, source: str) -> Exchange:
        """The exchange whose answer is the condition's own profile."""
        return Exchange(
            question=question,
            condition=condition.name,
            intent=intent,  # type: ignore[arg-type]
            symptoms=tuple(condition.ranked_findings()[:SYMPTOMS_SHOWN]),
            treatments=tuple(condition.treatments[:TREATMENTS_SHOWN]),
            group=f"{condition.name}/{group}",
            source=source,
        )

    def of_condition(self, condition: Condition, seed: int) -> Iterator[Exchange]:
        """All exchanges of one condition, both directions."""
        rng = random.Random(f"{seed}|{condition.name}")
        options = self.options
        if condition.findings:
            for at in range(round(options.narratives_per_condition * OFTEN[condition.common])):
                yield self.exchange(
                    self.narrative(condition, rng), condition, "diagnose", f"n{at}", "narratives"
                )
        names = [condition.name, *condition.aliases]
        for at in range(options.questions_per_condition):
            treatment = at % 3 == 2 and bool(condition.treatments)
            name = names[0] if at == 0 else rng.choice(names)
            name = name.lower() if rng.random() < 0.5 and not name.isupper() else name
            template = rng.choice(_ASK_TREATMENT if treatment else _ASK_SYMPTOMS)
            question = misspell(template.format(name), rng, 0.08 if rng.random() < 0.2 else 0)
            yield self.exchange(
                question, condition, "treatment" if treatment else "symptoms", f"q{at}", "questions"
            )

    def of_presentations(self, seed: int) -> Iterator[Exchange]:
        """The authored presentations, as written and varied; the variants share the group of the original."""
        for at, presentation in enumerate(self.knowledge.presentations):
            condition = self.knowledge.by_name[presentation.condition]
            rng = random.Random(f"{seed}|p{at}|{presentation.text}")
            repeats = max(1, round(self.options.repeats_of_presentations * OFTEN[condition.common]))
            for repeat in range(repeats):
                text = presentation.text if repeat == 0 else self.vary(presentation, rng)
                yield self.exchange(text, condition, "diagnose", f"p{at}", "presentations")

    def invented(self, rng: random.Random) -> str:
        """The name of a condition that does not exist."""
        name = "".join(rng.sample(_SYLLABLES, rng.randint(2, 3))) + rng.choice(_ENDINGS)
        return name if key_free(name, self.knowledge) else self.invented(rng)

    def ask_about(self, name: str, rng: random.Random) -> str:
        """A question about a condition by its name."""
        return rng.choice(_ASK_SYMPTOMS + _ASK_TREATMENT).format(name)

    def unanswerable(self, count: int, seed: int) -> Iterator[Exchange]:
        """Questions whose right answer is "nothing that I know"; the held-out kinds are never used."""
        rng = random.Random(f"{seed}|none")
        pool = [row for row in self.knowledge.out_of_scope if not row.held_out]
        for at in range(count):
            if pool and rng.random() < 0.65:
                row = pool[at % len(pool)]
                question, group = self.roughen(row.text, rng), f"none/{row.kind}/{at % len(pool)}"
            else:
                name = self.invented(rng)
                template = rng.choice(
                    _ASK_SYMPTOMS + _ASK_TREATMENT + ("do I have {}?", "my son was diagnosed with {}")
                )
                question, group = template.format(name), f"none/invented/{name}"
            yield Exchange(question, None, "none", (), (), group, "unanswerable")

    def all(self, seed: int) -> Iterator[Exchange]:
        """Every exchange of a run, in a fixed order."""
        count = 0
        for condition in self.knowledge.conditions:
            for exchange in self.of_condition(condition, seed):
                count += 1
                yield exchange
        if self.options.presentations:
            for exchange in self.of_presentations(seed):
                count += 1
                yield exchange
        share = self.options.unanswerable_share
        yield from self.unanswerable(round(count * share / (1 - share)), seed)


def _deniable(name: str) -> bool:
    """Whether "no" can stand before a finding: long names and those that deny something cannot be denied."""
    return len(name.split()) <= 4 and not re.match(r"(no|not|never|without|negative|un\w+ to)\b", name)


def key_free(name: str, knowledge: Knowledge) -> bool:
    """Whether no condition is called by this name."""
    return knowledge.find(name) is None


def _third_person(text: str, subject: str, possessive: str, objective: str) -> str:
    for pattern, replacement in _CARER_WORDS:
        text = re.sub(
            pattern, replacement.format(p=subject, h=possessive, o=objective), text, flags=re.IGNORECASE
        )
    return text


def statistics(
    exchanges: list[Exchange], knowledge: Knowledge, sample: int = 400, seed: int = 7
) -> dict[str, float]:
    """Diversity of generated questions.

    Returns:
        exchanges, mean words, distinct-1 and distinct-2 (share of distinct words and word pairs), mean number
        of recognised findings, and self-similarity: the mean over a sample of the highest share of word pairs
        that a text has in common with another text of the sample (0 = nothing shared).
    """
    texts = [e.question.lower().split() for e in exchanges if e.intent == "diagnose"]
    words = [w for text in texts for w in text]
    pairs = [pair for text in texts for pair in zip(text, text[1:])]
    chosen = [set(zip(t, t[1:])) for t in random.Random(seed).sample(texts, min(sample, len(texts)))]
    highest = [
        max((len(a & b) / max(1, len(a)) for j, b in enumerate(chosen) if i != j), default=0.0)
        for i, a in enumerate(chosen)
    ]
    recognised = [len(knowledge.recognise(" ".join(t))) for t in texts[:sample]]
    return {
        "exchanges": float(len(exchanges)),
        "mean words": round(len(words) / max(1, len(texts)), 2),
        "distinct-1": round(len(set(words)) / max(1, len(words)), 4),
        "distinct-2": round(len(set(pairs)) / max(1, len(pairs)), 4),
        "findings per text": round(sum(recognised) / max(1, len(recognised)), 2),
        "self-similarity": round(sum(highest) / max(1, len(highest)), 4),
    }


def main() -> None:
    """Print the statistics and the speed of the generator on the built-in dataset."""
    import time

    from rich.console import Console

    from symptomchat.corpus.knowledge import load_knowledge

    knowledge = load_knowledge()
    generator = Generator(knowledge)
    start = time.perf_counter()
    exchanges = list(generator.all(seed=7))
    seconds = time.perf_counter() - start
    console = Console()
    for name, value in statistics(exchanges, knowledge).items():
        console.print(f"{name:22} {value:g}")
    console.print(f"{'exchanges a second':22} {len(exchanges) / seconds:.0f}")


if __name__ == "__main__":
    main()
