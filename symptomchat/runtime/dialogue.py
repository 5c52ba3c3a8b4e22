"""A conversation: what a person said in several messages becomes the text and the evidence of one question.

In: messages, and answers to the questions that the conversation asks. Out: turns, each with what was done with
the message and an ``Answer``. A case is what was said since the last new topic: follow-ups add to it, corrections
change it, questions about a condition leave it alone. A turn can be followed while it grows: what is urgent and
the ranking first, each generated claim as it is written. No user interface, no files, no clock: the whole state
is ``to_json``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from symptomchat.errors import SymptomChatError
from symptomchat.runtime import reading
from symptomchat.runtime.assistant import (
    EMERGENCY,
    LONGEST_QUESTION,
    SHOWN,
    Answer,
    Assistant,
    Claim,
    ConditionProbability,
    Judgement,
    asked_name,
    check_question,
)
from symptomchat.runtime.explain import Span, which_words
from symptomchat.runtime.grounding import normal
from symptomchat.runtime.inquiry import ANSWERS, NO, UNSURE, YES, Inquiry, Question
from symptomchat.runtime.triage import Fired

SHORTENED = 400
"""Characters of a refused message that are kept to show which one it was."""


@dataclass(frozen=True)
class Turn:
    """One message and what became of it.

    Attributes:
        said: the message, or the question and the button that was pressed.
        kind: case, follow_up, correction, new_topic, aside, reply or error.
        asked: the text that the model was given; empty where it was not asked.
        note: what was done with the message, in words; the error line of an error.
        about: the condition that an aside asks about, where its name is known.
    """

    said: str
    kind: str
    asked: str = ""
    answer: Answer | None = None
    note: str = ""
    about: str = ""


def answer_from_json(values: dict[str, Any]) -> Answer:
    """Read ``Answer.to_json`` back; fields that this version does not know are left out."""
    known = {field.name for field in fields(Answer)}
    values = {name: value for name, value in values.items() if name in known}
    # Conversations that were kept by an earlier version have no clauses left out.
    for name in ("likely", "red_flags", "reasons", "left_out"):
        values[name] = tuple(values.get(name, ()))
    for name in ("symptoms", "treatments"):
        values[name] = tuple(Claim(**claim) for claim in values[name])
    values["conditions"] = tuple(ConditionProbability(**condition) for condition in values["conditions"])
    return Answer(**values)


class Conversation:
    """The state of one person's conversation.

    Args:
        assistant: answers; any number of conversations may share it.
        inquiry: of the assistant's knowledge; made here where it is not given.
    """

    def __init__(self, assistant: Assistant, inquiry: Inquiry | None = None) -> None:
        self.assistant = assistant
        self.inquiry = inquiry or Inquiry(assistant.conditions, assistant.phrasings)
        self.turns: list[Turn] = []
        self.statements: list[str] = []
        self.replies: dict[str, str] = {}
        self.question: Question | None = None
        self.red_flags: tuple[str, ...] = ()
        self._checked: dict[str, list[Fired]] = {}

    @property
    def case(self) -> str:
        """All that was said of the case, as one text that the model can take."""
        told = [f"Also: {finding}" for finding, value in self.replies.items() if value == YES]
        parts = [part.strip() for part in (*self.statements, *told)]
        text = " ".join(part if part[-1:] in ".!?" else f"{part}." for part in parts if part)
        if len(text) > LONGEST_QUESTION:
            # The model reads the beginning and the end of a long text; the rules below read every statement.
            head = LONGEST_QUESTION * 2 // 3
            text = f"{text[:head]} {text[head + 1 - LONGEST_QUESTION :]}"
        return text

    @property
    def known(self) -> dict[str, bool]:
        """Findings that were said to be present or absent, answers included."""
        found = self.inquiry.findings.recognise(" . ".join(self.statements))
        return found | {name: value == YES for name, value in self.replies.items() if value != UNSURE}

    def say(self, text: str) -> Turn:
        """Take one message; what cannot be used becomes a turn of kind error."""
        return last(self.stream(text))

    def stream(self, text: str) -> Iterator[Turn]:
        """Take one message and follow its turn while it grows; the last is what ``say`` returns.

        The first comes right after the ranking. The turn stands among ``turns`` from the first on; the next
        question is chosen after the last, so whoever stops early leaves the conversation without one.
        """
        try:
            text = check_question(text).strip()
        except SymptomChatError as error:
            shown = text if isinstance(text, str) else str(text)
            shown = shown[:SHORTENED] + ("…" if len(shown) > SHORTENED else "")
            return self._keep(Turn(shown, "error", note=str(error)))
        reply = None if reading.is_correction(text) else reading.read_reply(text)
        if reply is not None:
            if self.question is None and not reply.rest:
                return self._keep(Turn(text, "aside", note="No question is open. Tell me what you feel."))
            if self.question is not None:
                self._count(reply.value)
                if not reply.rest:
                    return self._answer_case(text, "reply", f"Taken as: {reply.value}.")
                self.statements.append(reply.rest)
                return self._answer_case(text, "reply", f"Taken as: {reply.value}. The rest is added.")
        rest = reading.new_topic(text)
        if rest is not None:
            return self._begin(text, rest, "A new topic, as you said; what was said before no longer counts.")
        aside = self._aside(text)
        if aside is not None:
            return aside
        return self._add(text)

    def reply(self, value: str) -> Turn:
        """Answer the question that is open.

        Raises:
            ValueError: no question is open, or the value is none of yes, no and not sure.
        """
        return last(self.stream_reply(value))

    def stream_reply(self, value: str) -> Iterator[Turn]:
        """``reply``, followed while the turn grows."""
        if self.question is None or value not in ANSWERS:
            raise ValueError(f"'{value}' answers no open question")
        said = f"{self.question.finding}: {value}"
        self._count(value)
        return self._answer_case(said, "reply", "")

    def new_topic(self) -> None:
        """Leave the case; what was said stays to be read."""
        self.statements, self.replies = [], {}
        self.question, self.red_flags = None, ()

    def clear(self) -> None:
        """Forget everything."""
        self.new_topic()
        self.turns = []

    def judge(self) -> Judgement:
        """How sure the model is of the case, answers included, without generating."""
        return self.assistant.judge(self.case, self.inquiry.evidence(self.replies))

    def explain(self, turn: Turn) -> list[Span]:
        """Effect of the words of a turn's message on the condition that came first.

        Words that the model never read ("new topic:", a correction) have none and are left out.
        """
        if turn.answer is None or not turn.asked:
            return []
        numbers = {record["name"]: at for at, record in enumerate(self.assistant.conditions)}
        first = numbers.get(turn.answer.conditions[0].name) if turn.answer.intent != "none" else None
        for word in re.finditer(r"[^\W_]+", turn.said):
            read = turn.said[word.start() :].rstrip(" .!?")
            where = turn.asked.rfind(read)
            if where >= 0:
                break
        else:
            return []
        context = turn.asked[:where].replace("{}", "") + "{}" + turn.asked[where + len(read) :]
        spans = which_words(self.assistant.judge, read, first, context)
        at = word.start()
        return [replace(span, begin=span.begin + at, end=span.end + at) for span in spans]

    def to_json(self) -> dict[str, Any]:
        """The whole state in plain values."""
        return {
            "turns": [asdict(turn) for turn in self.turns],
            "statements": self.statements,
            "replies": self.replies,
            "question": asdict(self.question) if self.question else None,
            "red_flags": list(self.red_flags),
        }

    @classmethod
    def from_json(
        cls, values: dict[str, Any], assistant: Assistant, inquiry: Inquiry | None = None
    ) -> Conversation:
        """A conversation as ``to_json`` left it, on this or another model."""
        conversation = cls(assistant, inquiry)
        for turn in values["turns"]:
            answer = answer_from_json(turn["answer"]) if turn["answer"] else None
            conversation.turns.append(Turn(**{**turn, "answer": answer}))
        conversation.statements = list(values["statements"])
        conversation.replies = dict(values["replies"])
        question = values["question"]
        if question:
            conversation.question = Question(question["finding"], tuple(question["ways"]), question["gain"])
        conversation.red_flags = tuple(values["red_flags"])
        return conversation

    def _keep(self, turn: Turn) -> Iterator[Turn]:
        """A turn that is complete at once."""
        self.turns.append(turn)
        yield turn

    def _grow(self, turn: Turn, answers: Iterator[Answer]) -> Iterator[Turn]:
        """A turn with each of its growing answers; it replaces itself among the turns."""
        at = len(self.turns)
        for answer in answers:
            self.turns[at:] = [replace(turn, answer=answer)]
            yield self.turns[at]

    def _count(self, value: str) -> None:
        if self.question is not None:
            self.replies[self.question.finding] = value
            self.question = None

    def _begin(self, said: str, text: str, note: str) -> Iterator[Turn]:
        """A new case; an empty one asks for words."""
        self.new_topic()
        if not re.search(r"\w", text):
            return self._keep(Turn(said, "new_topic", note=f"{note} What do you feel, and since when?"))
        self.statements = [text]
        return self._answer_case(said, "new_topic", note)

    def _aside(self, text: str) -> Iterator[Turn] | None:
        """The turn of a question about a condition, which leaves the case alone; None for anything else."""
        findings = self.inquiry.findings
        asked: str | None = None
        about = re.match(
            r"^\W*(?:and |so )?(?:what|how) about (?:a |an |the )?(.+?)\W*$", text, re.IGNORECASE
        )
        if about and normal(about.group(1)) in self.assistant.names:
            asked = f"What are the symptoms of {about.group(1)}?"
        elif reading.asks_about(text, findings):
            asked = text
        elif self.statements and reading.asks(text):
            first = self.assistant.conditions[int(self.judge().probabilities[1:].argmax())]["name"]
            asked = reading.about_the_case(text, findings, first)
            if asked == "":
                return self._answer_case(text, "aside", "About what you described so far:")
        if asked is None:
            return None
        note = "Answered on its own; it does not change what you described." if self.statements else ""
        if asked != text:
            note = f"Taken as: {asked} {note}".strip()
        name = self.assistant.names.get(normal(asked_name(asked) or ""), "")
        return self._grow(Turn(text, "aside", asked, None, note, name), self.assistant.stream(asked))

    def _add(self, text: str) -> Iterator[Turn]:
        """A message that describes a case: the first, a correction, a follow-up, or a case of its own."""
        if not self.statements:
            self.statements = [text]
            return self._answer_case(text, "case", "")
        if reading.is_correction(text):
            self.statements = reading.correct(self.statements, text)
            for finding, present in self.inquiry.findings.recognise(text).items():
                if self.replies.get(finding) == YES and not present:
                    self.replies[finding] = NO
            if not self.statements:
                self.question = None
                return self._keep(Turn(text, "correction", note="Taken back. What do you feel instead?"))
            return self._answer_case(text, "correction", f"Corrected. I now have: {self.case}")
        if not reading.FOLLOW_UP.search(text) and self._stands_alone(text):
            return self._begin(
                text, text, "Taken as a new topic: it fits other conditions than what you said before."
            )
        self.statements.append(text)
        return self._answer_case(text, "follow_up", "Added to what you said before.")

    def _stands_alone(self, text: str) -> bool:
        """Whether a message is answered with confidence by itself and shares no likely condition with the case."""
        alone = self.assistant.judge(text)
        if alone.flagged or alone.none:
            return False
        return not self._likely(alone.probabilities) & self._likely(self.judge().probabilities)

    def _likely(self, probabilities: np.ndarray) -> set[int]:
        order = np.argsort(-probabilities[1:], kind="stable")[:SHOWN]
        limit = self.assistant.calibrator.set_limit
        return {int(i) for at, i in enumerate(order) if at == 0 or probabilities[1 + i] >= limit}

    def _answer_case(self, said: str, kind: str, note: str) -> Iterator[Turn]:
        """Ask the model about the whole case, apply the rules to all that was said, choose the next question."""
        case, evidence = self.case, self.inquiry.evidence(self.replies)
        fired, self.question = self._fired(), None
        doubt = evidence is not None and self.assistant.judge(case).flagged

        def answers() -> Iterator[Answer]:
            for answer in self.assistant.stream(case, evidence=evidence):
                if doubt and not answer.flagged:
                    answer = doubted(answer)
                answer = with_red_flags(answer, fired)
                self.red_flags = answer.red_flags
                yield answer

        turn = None
        for turn in self._grow(Turn(said, kind, case, None, note), answers()):
            yield turn
        known = self.known
        # In an emergency nothing is asked: help comes first. Where nothing known fits, a named finding is a start.
        if (
            turn
            and turn.answer
            and not self.red_flags
            and (turn.answer.intent != "none" or any(known.values()))
        ):
            probabilities = self.assistant.judge(case, evidence).probabilities
            self.question = self.inquiry.next(probabilities, known, self.replies)

    def _fired(self) -> list[Fired]:
        """Red flags in every statement, and in every yes beside every statement.

        The rules look for words near each other; a finding that was answered with yes belongs to each of them.
        """
        told = ". ".join(finding for finding, value in self.replies.items() if value == YES)
        fired: dict[str, Fired] = {}
        texts = [f"{told}. {statement}" if told else statement for statement in self.statements]
        self._checked = {
            text: self._checked[text] if text in self._checked else self.assistant.red_flags.check(text)
            for text in texts
        }
        for flags in self._checked.values():
            for flag in flags:
                fired.setdefault(flag.id, flag)
        return list(fired.values())


def last(turns: Iterator[Turn]) -> Turn:
    """The turn as it is when it has grown."""
    *_, turn = turns
    return turn


ANSWERS_ONLY = (
    "I am surer only through your answers to my questions, and how often that is wrong was not measured."
)
"""Why an answer stays flagged whose words alone would be: the calibration knows texts, not interviews."""


def doubted(answer: Answer) -> Answer:
    """An answer with the mark of doubt, where the words alone are not sure enough."""
    return replace(
        answer,
        flagged=True,
        reasons=(*answer.reasons, ANSWERS_ONLY),
        reply=f"I am not sure; this may be made up. {ANSWERS_ONLY}\n{answer.reply}",
    )


def with_red_flags(answer: Answer, fired: Sequence[Fired]) -> Answer:
    """An answer with further red flags, which put it among the emergencies."""
    more = [flag for flag in fired if flag.name not in answer.red_flags]
    if not more:
        return answer
    lines = [f"{flag.name}: {flag.advice}" for flag in more]
    head = [] if answer.red_flags else [EMERGENCY]
    return replace(
        answer,
        triage="emergency",
        red_flags=(*answer.red_flags, *(flag.name for flag in more)),
        reply="\n".join([*head, *lines, answer.reply]),
    )
