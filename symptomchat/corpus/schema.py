"""The records a corpus is made of, and their validation.

``Condition``, ``Finding`` and ``Presentation`` are the built-in knowledge; ``Exchange`` is what the model
learns from. Validation errors name file, line and field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from symptomchat.errors import SymptomChatError
from symptomchat.files import read_jsonl

Urgency = Literal["emergency", "see_doctor", "self_care"]
Intent = Literal["diagnose", "symptoms", "treatment", "none"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConditionFinding(_Record):
    """A finding of a condition: how often it occurs and how much it points to the condition."""

    name: str = Field(min_length=2)
    frequency: float = Field(gt=0, le=1)
    typicality: int = Field(ge=1, le=3)


class Weighted(_Record):
    """A risk factor and its relative weight (1 = no influence)."""

    name: str = Field(min_length=2)
    weight: float = Field(gt=0)


class Absence(_Record):
    """A finding whose absence speaks for or against the condition."""

    name: str = Field(min_length=2)
    speaks: Literal["for", "against"]


class Confusable(_Record):
    """Another condition that is mistaken for this one, and what tells them apart."""

    name: str = Field(min_length=2)
    difference: str = Field(min_length=3)


class Condition(_Record):
    """One condition of the knowledge base. Ages in years, frequencies and sex as shares of 1.

    Attributes:
        listed_as: what other sets call it in their lists, but which is too wide to be its name ("thyroid disease").
            Their records are merged with it; a question about that name is none about it.
    """

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    name: str = Field(min_length=2)
    aliases: tuple[str, ...] = ()
    listed_as: tuple[str, ...] = ()
    system: str = "other"
    icd10: str = ""
    age: tuple[float, float] = (0, 100)
    sex_female: float = Field(0.5, ge=0, le=1)
    common: int = Field(3, ge=1, le=5)
    risk_factors: tuple[Weighted, ...] = ()
    onset: str = ""
    course: str = ""
    findings: tuple[ConditionFinding, ...] = ()
    absences: tuple[Absence, ...] = ()
    confusable: tuple[Confusable, ...] = ()
    urgency: Urgency = "see_doctor"
    emergency_when: str = ""
    treatments: tuple[str, ...] = ()
    self_care: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Condition:
        names = [finding.name for finding in self.findings]
        if len(set(names)) != len(names):
            raise ValueError("a finding is listed twice")
        if self.age[0] > self.age[1]:
            raise ValueError("age: the first number must not exceed the second")
        return self

    def ranked_findings(self) -> list[str]:
        """Names of the findings, those that say most about the condition first."""
        return [f.name for f in sorted(self.findings, key=lambda f: -f.frequency * (1 + f.typicality))]


class Finding(_Record):
    """A symptom, sign or circumstance with the ways in which people say it."""

    name: str = Field(min_length=2)
    phrasings: tuple[str, ...] = ()
    near_misses: tuple[str, ...] = ()


class Presentation(_Record):
    """An authored text of someone who has the condition."""

    condition: str = Field(min_length=2)
    voice: Literal["first", "carer", "clinical", "list", "ramble"]
    kind: str
    text: str = Field(min_length=8)


class Emergency(_Record):
    """An authored text that tells of an emergency, or of something harmless that lies near one."""

    text: str = Field(min_length=8)
    emergency: bool
    kind: str = Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")


class OutOfScope(_Record):
    """A question that must not be answered. Whole kinds are held out from training."""

    kind: str
    held_out: bool
    text: str = Field(min_length=1)


class RedFlag(_Record):
    """A rule for what must never wait.

    ``patterns``: each is a list of groups of alternatives; a pattern matches where one alternative of
    every group stands within one passage of the text, none of them negated or long past.
    """

    id: str
    name: str
    advice: str
    patterns: tuple[tuple[tuple[str, ...], ...], ...]
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


@dataclass(frozen=True)
class Exchange:
    """A question and the answer that the model is to give.

    Attributes:
        question: what the user says.
        condition: canonical name, or None for "nothing that I know".
        intent: what the question asks for.
        symptoms: names of findings that the answer lists.
        treatments: first-line treatments that the answer lists.
        group: texts of one group never stand on both sides of the split.
        source: where the question comes from.
    """

    question: str
    condition: str | None
    intent: Intent
    symptoms: tuple[str, ...]
    treatments: tuple[str, ...]
    group: str
    source: str


Model = TypeVar("Model", bound=_Record)


def slug(name: str) -> str:
    """``"Crohn's disease"`` → ``"crohns-disease"``: lower-case letters, digits and single hyphens."""
    text = name.lower().replace("'", "").replace("’", "")
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "condition"


def load_records(path: Path, model: type[Model]) -> list[Model]:
    """Read a JSON-lines file of one record type.

    Raises:
        SymptomChatError: naming file, line and field of the first record that breaks the schema.
    """
    records = []
    for line, row in read_jsonl(path):
        records.append(validate(row, model, f"{path}: line {line}"))
    return records


def validate(row: dict[str, Any], model: type[Model], where: str) -> Model:
    """One record from its JSON object; ``where`` begins the error message."""
    try:
        return model.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        raise SymptomChatError(
            f"{where}: field '{field}': {first['msg'].lower()}; mend the record"
        ) from error
