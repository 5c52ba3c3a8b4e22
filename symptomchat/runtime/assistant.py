"""One question in, one Answer out, from a bundle alone.

``Assistant(folder).ask(text)`` ranks the conditions, generates symptoms and treatments, checks each of them
against the knowledge base, calibrates the confidence, flags what may be made up, and puts red flags first.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from symptomchat.errors import SymptomChatError
from symptomchat.files import MODELS, read_json, read_text
from symptomchat.language.grammar import Grammar
from symptomchat.language.tokenizer import INTENTS
from symptomchat.phone.bundle import unzipped, verify
from symptomchat.phone.records import unpack
from symptomchat.runtime.alarm import Alarm
from symptomchat.runtime.confidence import Calibrator, statistics
from symptomchat.runtime.decoding import PARTS, Entry, Vocabulary
from symptomchat.runtime.engine import Engine
from symptomchat.runtime.grounding import normal, supported
from symptomchat.runtime.patient import Patient
from symptomchat.runtime.triage import Fired, RedFlags, same_word, urgency

ANSWER_FORMAT = 1
LONGEST_QUESTION = 10_000
SHOWN = 10
NOTICE = "This is information, not a diagnosis."
EMERGENCY = "This may be an emergency. Call your emergency number (112, 911, 999) now."
SOUNDS = "This sounds like an emergency. If you are not sure that it is none, call your emergency number (112, 911, 999) or get medical help now."
"""Said first where no rule names an emergency and the classifier hears one."""
NOT_COUNTED = "Not counted as yours now, because it reads as somebody else's or long over"


@dataclass(frozen=True)
class ConditionProbability:
    """A ranked condition; probability 0–1, calibrated."""

    name: str
    probability: float


@dataclass(frozen=True)
class Claim:
    """A generated symptom or treatment; confidence is its geometric mean token probability, 0–1."""

    text: str
    confidence: float
    grounded: bool


@dataclass(frozen=True)
class Judgement:
    """How sure the model is of a question, before anything is generated.

    Attributes:
        probabilities: ``[C]``, calibrated, the first that of none.
        features: the calibrator's inputs (``confidence.FEATURES``).
        none: nothing that is known fits.
        stranger: a condition asked about by a name that nobody knows.
        unknown: share of pieces outside the vocabulary.
    """

    probabilities: np.ndarray
    features: np.ndarray
    confidence: float
    none: bool
    stranger: str | None
    unknown: float
    novelty: float
    flagged: bool


@dataclass(frozen=True)
class Answer:
    """What ``ask`` returns; ``to_json`` gives the documented output line."""

    id: str | None
    intent: str
    conditions: tuple[ConditionProbability, ...]
    likely: tuple[str, ...]
    symptoms: tuple[Claim, ...]
    treatments: tuple[Claim, ...]
    triage: str
    red_flags: tuple[str, ...]
    confidence: float
    flagged: bool
    reasons: tuple[str, ...]
    reply: str
    milliseconds: float
    left_out: tuple[str, ...] = ()
    """Clauses of the question that were not ranked: somebody else's, or long over."""

    def to_json(self) -> dict[str, Any]:
        """Plain values in the documented order."""
        return asdict(self)


def check_question(text: Any) -> str:
    """The question, or one clear line about what is wrong with it."""
    if not isinstance(text, str):
        raise SymptomChatError(f"question: is a {type(text).__name__}, not text; give a string")
    if not text.strip():
        raise SymptomChatError("question: is empty; describe the symptoms in a sentence")
    if len(text) > LONGEST_QUESTION:
        raise SymptomChatError(
            f"question: has {len(text)} characters, the limit is {LONGEST_QUESTION}; shorten it to what matters"
        )
    strange = sum(not (char.isprintable() or char.isspace()) or char == "\ufffd" for char in text)
    if strange > len(text) * 0.1:
        raise SymptomChatError("question: holds binary data; give plain text")
    return text


class Assistant:
    """Answers questions with one bundle.

    Args:
        folder: a bundle (see ``symptomchat.phone.bundle``).
        precision: one of those that the bundle has; by default the one that it was calibrated for.
        threads: processor threads.
        risk: share of wrong answers to accept among those that are not flagged; by default the bundle's own.

    Raises:
        SymptomChatError: the bundle is missing, damaged or foreign, or not calibrated for the risk.
    """

    def __init__(
        self, folder: Path, precision: str | None = None, threads: int = 1, risk: float | None = None
    ) -> None:
        if folder.suffix == ".zip":
            # Kept here, because the folder goes when its owner does.
            folder, self._unpacked = unzipped(folder)
        self.folder = folder
        self.manifest = verify(folder)
        precision = precision or str(self.manifest.get("precision", "int8"))
        self.precision = precision
        model = folder / f"model.{precision}.tflite"
        if not model.is_file():
            raise SymptomChatError(f"{model}: is missing; this bundle has no {precision} model")
        knowledge = read_json(folder / "knowledge.json")
        self.engine = Engine(model, threads)
        try:
            tokenizer = Tokenizer.from_str(read_text(folder / "tokenizer.json"))
            self.grammar = Grammar(tokenizer, self.engine.question_tokens, self.engine.answer_tokens)
            self.calibrator = Calibrator.from_json(read_json(folder / "confidence.json"))
            knowledge = unpack(knowledge)
            self.conditions: list[dict[str, Any]] = knowledge["conditions"]
            self.names: dict[str, str] = knowledge["names"]
            self.cased: dict[str, str] = knowledge["cased"]
            self.phrasings: dict[str, list[str]] = knowledge["phrasings"]
            self.red_flags = RedFlags(knowledge["red_flags"], whole_words(tokenizer))
            self.alarm = Alarm.from_json(knowledge["alarm"])
            self.patient = Patient(
                (name for c in self.conditions for name in c["symptoms"]),
                (c["name"] for c in self.conditions),
                self.names,
            )
            # What a finding is called is no condition, and yet nothing made up: "what is a dry cough?"
            known = {normal(name) for c in self.conditions for name in c["symptoms"]} | set(self.names)
            findings = {normal(way) for ways in self.phrasings.values() for way in ways}
            findings |= {normal(name) for c in self.conditions for name in c["symptoms"]}
            place = {c["name"]: at for at, c in enumerate(self.conditions, start=1)}
            self._numbers = {
                name: place[canonical] for name, canonical in self.names.items() if name not in findings
            }
            self._known_names: dict[int, list[list[str]]] = {}
            for words in (name.split() for name in sorted(known)):
                self._known_names.setdefault(len(words), []).append(words)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SymptomChatError(
                f"{folder}: holds files of another version ({error}); make the bundle again"
            ) from error
        except Exception as error:  # the tokenizers library raises plain Exception
            raise SymptomChatError(
                f"{folder / 'tokenizer.json'}: is not a tokenizer; make the bundle again"
            ) from error
        self.threshold = self.calibrator.threshold
        if risk is not None:
            try:
                self.threshold = self.calibrator.threshold_for(risk)
            except ValueError as error:
                raise SymptomChatError(f"{error}; choose another") from error
        if len(self.conditions) + 1 != self.grammar.conditions:
            raise SymptomChatError(
                f"{folder}: knowledge and tokenizer name different conditions; make the bundle again"
            )

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Findings and treatments that an answer may name; made for the first answer, since judging needs none."""
        return Vocabulary(self.grammar, self.conditions)

    def ask(self, text: str, id: str | None = None, evidence: np.ndarray | None = None) -> Answer:
        """Answer one question.

        Args:
            evidence: ``[C]``, logarithms of likelihood ratios that the ranking is weighed with, the first that
                of none: what is known beside the text, such as the answers to questions.

        Raises:
            SymptomChatError: the question is empty, too long or not text.
        """
        *_, answer = self.stream(text, id, evidence)
        return answer

    def stream(
        self, text: str, id: str | None = None, evidence: np.ndarray | None = None
    ) -> Iterator[Answer]:
        """The answer while it grows; the last is what ``ask`` returns.

        The first comes right after the ranking: red flags, ranking, confidence, flag and urgency are final, claims
        are still missing. Each finished claim makes one more.

        Raises:
            SymptomChatError: as ``ask`` does, before the first answer.
        """
        start = time.perf_counter()
        text = check_question(text)
        fired = self.red_flags.check(text)
        alarmed = self.alarm.rings(text)
        left_out = tuple(text[begin:end].strip() for begin, end in self.patient.left_out(text))
        question = self.engine.prefill(self.encode(text))
        judged = self._judge(text, question.probabilities, question.novelty, evidence)
        probabilities, none, flagged = judged.probabilities, judged.none, judged.flagged
        order = np.argsort(-probabilities[1:], kind="stable")
        ranked = tuple(
            ConditionProbability(self.conditions[i]["name"], round(float(probabilities[1 + i]), 4))
            for i in order[:SHOWN]
        )
        likely = tuple(
            self.conditions[i]["name"]
            for at, i in enumerate(order[:SHOWN])
            if at == 0 or probabilities[1 + i] >= self.calibrator.set_limit
        )
        for intent, symptoms, treatments in self._speak(
            question, 0 if none else int(order[0]) + 1, self._intent(text)
        ):
            reasons = self._reasons(judged, ranked, (*symptoms, *treatments))
            level = urgency(
                [(self.conditions[i]["urgency"], float(probabilities[1 + i])) for i in order[:50]],
                fired,
                not none,
                alarmed,
            )
            if intent in ("symptoms", "treatment") and not fired and not alarmed and not none:
                level = str(self.conditions[order[0]]["urgency"])
            yield Answer(
                id=id,
                intent="none" if none else intent,
                conditions=ranked,
                likely=() if none else likely,
                symptoms=symptoms,
                treatments=treatments,
                triage=level,
                red_flags=tuple(flag.name for flag in fired),
                confidence=round(judged.confidence, 4),
                flagged=flagged,
                reasons=reasons if flagged else (),
                reply=self._reply(
                    fired,
                    alarmed,
                    none,
                    flagged,
                    reasons,
                    ranked,
                    symptoms,
                    treatments,
                    level,
                    intent,
                    left_out,
                ),
                milliseconds=round((time.perf_counter() - start) * 1000, 2),
                left_out=left_out,
            )

    def encode(self, text: str) -> list[int]:
        """Token ids of what the model reads of a question: the patient's own clauses."""
        return self.grammar.question(self.patient.own(text))

    def judge(self, text: str, evidence: np.ndarray | None = None) -> Judgement:
        """How sure an answer would be, without generating it; the same numbers as ``ask`` gives."""
        return self._judge(text, *self.engine.rank(self.encode(check_question(text))), evidence)

    def _judge(
        self, text: str, raw: np.ndarray, novelty: float, evidence: np.ndarray | None = None
    ) -> Judgement:
        if evidence is not None:
            # The temperature divides logarithms later; what stands beside the model is not to be sharpened by it.
            logits = np.log(np.maximum(raw, 1e-12)) + self.calibrator.temperature * evidence
            raw = np.exp(logits - logits.max())
            raw = raw / raw.sum()
        number = self.named(text)
        if number is not None:
            # A name is no guess: what the ranking makes of its words keeps a small share.
            raw = raw * (1 - NAMED)
            raw[number] += NAMED
        ids = self.encode(text)
        unknown = self.grammar.unknown_share(ids)
        features = statistics(raw, novelty, unknown, len(ids))
        probabilities = self.calibrator.soften(raw)
        none = bool(probabilities[0] >= probabilities[1:].max())
        confidence = self.calibrator.confidence(features)
        stranger = self._unknown_name(text)
        # A condition that is asked for by a name nobody knows is never answered unmarked, however sure the model is.
        flagged = none or stranger is not None or confidence < self.threshold
        return Judgement(probabilities, features, confidence, none, stranger, unknown, novelty, flagged)

    def _intent(self, text: str) -> str | None:
        """What a question by name asks for; None where the model is to say what it is asked."""
        if self.named(text) is None:
            return None
        return "treatment" if TREATED.search(text) else "symptoms"

    def _speak(
        self, question: Any, number: int, asked: str | None
    ) -> Iterator[tuple[str, tuple[Claim, ...], tuple[Claim, ...]]]:
        """Intent, symptoms and treatments after a condition token (0 = none), once more after each finished claim."""
        grammar = self.grammar
        if number == 0:
            yield "none", (), ()
            return
        guide = self.vocabulary.guide(self.conditions[number - 1], intent=asked)
        logs: list[float] = []
        intent, told = "", 0
        for token, log in self.engine.generate(question, grammar.none + number, grammar.end, guide):
            logs.append(log)
            if not intent:
                intent = INTENTS[grammar.intents.index(token)]
                intent = intent if intent in INTENTS[:3] else "diagnose"
                yield intent, (), ()
            elif len(guide.named) > told and token != grammar.end:
                told = len(guide.named)
                yield intent, *self._claims(guide.named, logs, number)
        yield intent, *self._claims(guide.named, logs, number)

    def _claims(
        self, named: list[Entry], logs: list[float], number: int
    ) -> tuple[tuple[Claim, ...], tuple[Claim, ...]]:
        """Symptoms and treatments that an answer has named, each checked against the record of the condition."""
        record = self.conditions[number - 1]
        claims: tuple[list[Claim], ...] = ([], [])
        for entry in named:
            grounded = supported(entry.text, record[PARTS[entry.part]], self.phrasings) is not None
            confidence = round(float(np.exp(np.mean(logs[entry.begin : entry.end]))), 4)
            claims[entry.part].append(Claim(entry.text, confidence, grounded))
        return tuple(claims[0]), tuple(claims[1])

    def named(self, text: str) -> int | None:
        """Number (from 1) of the condition that a question asks about by name, without telling a case.

        A name that is a finding's too ("back pain") may be a complaint, so it names nothing here.
        """
        alone = normal(text)
        name = alone if alone in self._numbers else asked_name(text)
        if name is None or CASE.search(ASKING.sub(" ", text)):
            return None
        words = normal(name).split()
        if " ".join(words) in self._numbers:
            return self._numbers[" ".join(words)]
        alike = {
            self._numbers[" ".join(known)]
            for known in self._known_names.get(len(words), [])
            if " ".join(known) in self._numbers and all(map(same_word, words, known))
        }
        return alike.pop() if len(alike) == 1 else None

    def _unknown_name(self, text: str) -> str | None:
        """The condition that a question asks about by name, where that is no name of a known one."""
        name = asked_name(text)
        if name is None:
            return None
        words = normal(name).split()
        if not words or len(words) > 5 or NOT_A_NAME & set(words):
            return None
        # Any run of its words may be a known name, also misspelt: "type 2 diabetis in adults".
        for length in range(len(words), 0, -1):
            for begin in range(len(words) - length + 1):
                part = words[begin : begin + length]
                if any(all(map(same_word, part, known)) for known in self._known_names.get(length, [])):
                    return None
        return name

    def _reasons(
        self, judged: Judgement, ranked: tuple[ConditionProbability, ...], claims: tuple[Claim, ...]
    ) -> tuple[str, ...]:
        """Why an answer is doubtful, in words."""
        reasons = []
        if judged.stranger is not None:
            reasons.append(f"I do not know a condition called {judged.stranger}.")
        elif judged.none:
            reasons.append("This fits nothing that I know.")
        if judged.novelty > self.calibrator.novelty_limit:
            reasons.append("Your words are unlike anything that I learned.")
        if judged.unknown > 0.2:
            reasons.append("Many of these words or characters are unknown to me.")
        if len(ranked) > 1 and not judged.none and ranked[1].probability > 0.6 * ranked[0].probability:
            reasons.append(f"Two conditions fit about equally: {ranked[0].name} and {ranked[1].name}.")
        made_up = [claim.text for claim in claims if not claim.grounded]
        if made_up:
            reasons.append(f"Not in my sources: {', '.join(made_up)}.")
        if not reasons and judged.confidence < self.threshold:
            reasons.append("What you describe fits several conditions; I cannot tell them apart from this.")
        return tuple(reasons)

    def _reply(
        self, fired: list[Fired], alarmed: bool, none: bool, flagged: bool, reasons: tuple[str, ...], ranked: tuple[ConditionProbability, ...],
        symptoms: tuple[Claim, ...], treatments: tuple[Claim, ...], level: str, intent: str,
        left_out: tuple[str, ...],
    ) -> str:  # fmt: skip
        """What a person reads."""
        lines = []
        if fired:
            lines.append(EMERGENCY)
            lines += [f"{flag.name}: {flag.advice}" for flag in fired]
        elif alarmed:
            lines.append(SOUNDS)
        if left_out:
            lines.append(f"{NOT_COUNTED}: {' '.join(left_out)}")
        if none:
            lines.append(" ".join(("I cannot answer this.", *reasons)))
            lines.append("If you feel ill, describe what you feel and since when, or ask a doctor.")
            return "\n".join([*lines, NOTICE])
        if flagged:
            lines.append(" ".join(("I am not sure; this may be made up.", *reasons)))
        first = next(c for c in self.conditions if c["name"] == ranked[0].name)
        if intent == "diagnose":
            several = ", ".join(f"{c.name} ({c.probability:.0%})" for c in ranked[:3])
            lines.append(f"What you describe may fit: {several}.")
        heading = {"diagnose": "Typical of {}", "symptoms": "Symptoms of {}", "treatment": "Symptoms of {}"}[
            intent
        ]
        marked = [claim.text if claim.grounded else f"{claim.text} (not in my sources)" for claim in symptoms]
        treated = [
            claim.text if claim.grounded else f"{claim.text} (not in my sources)" for claim in treatments
        ]
        parts = []
        if marked:
            parts.append(f"{heading.format(first['name'])}: {', '.join(marked)}.")
        if treated:
            parts.append(f"Usual treatment: {', '.join(treated)}.")
        lines += reversed(parts) if intent == "treatment" else parts
        if level == "emergency" and not fired and not alarmed:
            lines.append("This can be an emergency: get medical help now.")
        elif level == "see_doctor":
            lines.append("See a doctor about this.")
        elif level == "self_care" and first["self_care"]:
            lines.append(f"Self-care: {', '.join(first['self_care'])}.")
        if (
            first["emergency_when"]
            and level != "emergency"
            and not first["emergency_when"].startswith("never")
        ):
            lines.append(f"When it becomes an emergency: {first['emergency_when']}.")
        return "\n".join([*lines, NOTICE])


def whole_words(tokenizer: Tokenizer) -> frozenset[str]:
    """Words that a vocabulary holds in one piece: ordinary words, which are no misspellings of others."""
    return frozenset(word for word in tokenizer.get_vocab() if word.isalpha())


NOT_A_NAME = frozenset(
    [
        "i",
        "me",
        "my",
        "mine",
        "you",
        "your",
        "he",
        "him",
        "his",
        "she",
        "her",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "we",
        "they",
        "wrong",
        "with",
        "happening",
        "going",
        "there",
        "here",
        "best",
        "better",
        "normal",
        "safe",
        "serious",
        "dangerous",
        "causing",
        "to",
        "possible",
        "bad",
        "good",
        "time",
        "matter",
    ]
)
"""Words that no name of a condition holds: "what is wrong with me" asks about none."""
_NAME = r"(?:a |an |the )?([^?.!,;:]{3,60}?)"
_END = (
    r"(?= treated| to me| at home| caused| feel like| show itself| cause| in (?:a |an |the )?\w+$|[?.!,;:]|$)"
)
ASKED = re.compile(
    "|".join(
        (
            rf"(?:symptoms?|signs|treatments?|cure|medicine|remedies|causes?) (?:of|for|against) {_NAME}{_END}",
            rf"(?:^|[.!?] )(?:(?:how|what) is|what's|explain) {_NAME}{_END}",
            rf"(?:tell me about|diagnosed with|told i have|said i have|do i have|know if i have|get rid of|helps against"
            rf"|how (?:to|do i|do you|can i|can you|should i|would you) (?:treat|cure)|treating|doctors give for|would i recogni[sz]e|look for in|happens in|tell it's"
            rf"|done about) {_NAME}{_END}",
            rf"(?:what does|how does|symptoms does) {_NAME} (?:feel like|show itself|cause)",
            rf"^{_NAME} (?:symptoms|signs|treatment)\W*$",
        )
    ),
    re.IGNORECASE,
)


NAMED = 0.99
"""Share of the probability of a condition that is asked about by name."""
ASKING = re.compile(
    r"\b(?:(?:do|would|should|can|could|will|shall|must) i(?! have)|(?:know|tell|sure) (?:if|whether|that) i have"
    r"|(?:tell|give|show) me)\b",
    re.IGNORECASE,
)
"""First persons that ask and tell nothing."""
CASE = re.compile(r"\b(?:i|i'm|i've|i'd|my|me|he|she|his|her|him|we|our|us|told|diagnosed)\b", re.IGNORECASE)
"""Words of a question that tells a case, or asks whether it is one."""
TREATED = re.compile(
    r"\b(?:treat(?:ed|ment|ments|ing)?|cure[ds]?|helps?|medicines?|remed(?:y|ies)|get rid|doctors give|done about)\b",
    re.IGNORECASE,
)
"""Words of a question about what is done for a condition."""


def asked_name(text: str) -> str | None:
    """The name of the condition that a question asks about, where its form shows one."""
    match = ASKED.search(text)
    return next((group.strip() for group in match.groups() if group), None) if match else None


def default_model() -> Path:
    """The shipped bundle, or else the newest bundle under ``models/``.

    Raises:
        SymptomChatError: there is none yet.
    """
    shipped = MODELS / "symptomchat"
    if (shipped / "manifest.json").is_file():
        return shipped
    made = [path.parent for path in MODELS.glob("*/manifest.json") if path.parent.name != "base"]
    if not made:
        raise SymptomChatError(
            f"{MODELS}: holds no model bundle yet; make one with python train.py, or pass --model"
        )
    return max(made, key=lambda folder: (folder / "manifest.json").stat().st_mtime)


def load(
    model: str | Path | None = None,
    precision: str | None = None,
    threads: int = 1,
    risk: float | None = None,
) -> Assistant:
    """Open a bundle, a folder or a ``.zip``: ``load("models/laptop").ask("…")``; ``risk`` moves the threshold of the flag."""
    return Assistant(Path(model) if model is not None else default_model(), precision, threads, risk)
