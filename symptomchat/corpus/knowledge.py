"""The knowledge base: conditions, findings with their phrasings, red flags, and the lookup of names.

Read from ``data/`` and, where a run adds other sources, extended by their records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from symptomchat.corpus.schema import (
    Condition,
    ConditionFinding,
    Emergency,
    Finding,
    OutOfScope,
    Presentation,
    RedFlag,
    load_records,
)
from symptomchat.errors import SymptomChatError
from symptomchat.files import DATA, sha256

FILES = (
    "conditions.jsonl", "findings.jsonl", "presentations.jsonl", "red_flags.jsonl", "out_of_scope.jsonl", "emergencies.jsonl",
)  # fmt: skip


def key(name: str) -> str:
    """Form under which names are compared: case, brackets, punctuation and possessives do not count."""
    text = name.lower().replace("’", "'").replace("'s ", " ").replace("ﬁ", "fi")
    text = re.sub(r"\([^)]*\)", " ", text) if re.sub(r"\([^)]*\)", " ", text).strip() else text
    return " ".join(re.findall(r"[^\W_]+", text, flags=re.UNICODE))


@dataclass(frozen=True)
class Knowledge:
    """What the project knows.

    Attributes:
        conditions: in a fixed order, which is the order of the condition tokens.
        findings: by name.
        presentations: authored texts.
        red_flags: rules for what must never wait.
        out_of_scope: questions that must not be answered.
        emergencies: texts that tell of an emergency, and harmless ones that lie near.
        fingerprints: SHA-256 of each file that was read, by its name.
    """

    conditions: tuple[Condition, ...]
    findings: dict[str, Finding]
    presentations: tuple[Presentation, ...] = ()
    red_flags: tuple[RedFlag, ...] = ()
    out_of_scope: tuple[OutOfScope, ...] = ()
    emergencies: tuple[Emergency, ...] = ()
    fingerprints: dict[str, str] = field(default_factory=dict)

    @cached_property
    def names(self) -> dict[str, str]:
        """Canonical name by the key of every name and alias; canonical names win over aliases."""
        table: dict[str, str] = {}
        for condition in self.conditions:
            table.setdefault(key(condition.name), condition.name)
        for condition in self.conditions:
            for alias in condition.aliases:
                table.setdefault(key(alias), condition.name)
                # "Influenza (Flu)": both the part outside the brackets and the part inside are names.
                for inside in re.findall(r"\(([^)]+)\)", alias):
                    table.setdefault(key(inside), condition.name)
        return table

    @cached_property
    def listed(self) -> dict[str, str]:
        """Like ``names``, with what other sets call a condition in their lists."""
        wide = {key(name): condition.name for condition in self.conditions for name in condition.listed_as}
        return wide | self.names

    @cached_property
    def by_name(self) -> dict[str, Condition]:
        """Condition by canonical name."""
        return {condition.name: condition for condition in self.conditions}

    def find(self, name: str) -> str | None:
        """Canonical name of the condition that a list of conditions calls so, or None."""
        return self.listed.get(key(name))

    @cached_property
    def phrase_table(self) -> dict[str, str]:
        """Name of the finding by the key of each of its phrasings and of its name."""
        table: dict[str, str] = {}
        for finding in self.findings.values():
            table.setdefault(key(finding.name), finding.name)
        for finding in self.findings.values():
            for phrase in finding.phrasings:
                table.setdefault(key(phrase), finding.name)
        return table

    def recognise(self, text: str, limit: int = 8) -> list[str]:
        """Findings named in a text by their exact name or phrasing (longest match first)."""
        words = key(text).split()
        found: list[str] = []
        at = 0
        while at < len(words):
            for length in range(min(limit, len(words) - at), 0, -1):
                name = self.phrase_table.get(" ".join(words[at : at + length]))
                if name is not None:
                    if name not in found:
                        found.append(name)
                    at += length
                    break
            else:
                at += 1
        return found


def load_knowledge(folder: Path = DATA, conditions: int = 0) -> Knowledge:
    """Read the built-in dataset.

    Args:
        folder: a folder laid out like ``data/``.
        conditions: keep only that many (the commonest first); 0 keeps all.

    Raises:
        SymptomChatError: a file is missing or a record breaks the schema.
    """
    if not (folder / FILES[0]).is_file():
        raise SymptomChatError(f"{folder}: holds no {FILES[0]}; point to a folder laid out like data/")
    records = load_records(folder / "conditions.jsonl", Condition)
    if conditions:
        order = sorted(range(len(records)), key=lambda i: (-records[i].common, i))[:conditions]
        records = [records[i] for i in sorted(order)]
    kept = {record.name for record in records}
    findings = {finding.name: finding for finding in load_records(folder / "findings.jsonl", Finding)}
    presentations = load_records(folder / "presentations.jsonl", Presentation)
    return Knowledge(
        conditions=tuple(records),
        findings=findings,
        presentations=tuple(p for p in presentations if p.condition in kept),
        red_flags=tuple(load_records(folder / "red_flags.jsonl", RedFlag)),
        out_of_scope=tuple(load_records(folder / "out_of_scope.jsonl", OutOfScope)),
        emergencies=tuple(load_records(folder / "emergencies.jsonl", Emergency)),
        fingerprints={f"data/{name}": sha256(folder / name) for name in FILES},
    )


def _match(name: str, result: str, condition: str, unknown: list[str]) -> dict[str, str]:
    return {"name": name, "result": result, "condition": condition, "unknown findings": "; ".join(unknown)}


def merge(
    knowledge: Knowledge, extra: Iterable[tuple[str, list[str], list[str]]]
) -> tuple[Knowledge, list[dict[str, str]]]:
    """Add ``(name, symptoms, treatments)`` records of other sources.

    A record whose name is known, by name, alias or as other sets list it, belongs to that condition; one that is
    not known becomes a new condition with the findings recognised in its text and, for the rest, findings of its own words.

    Returns:
        the extended knowledge and one row per record: name, "matched" or "new", the condition, and the
        symptoms in whose text no known finding was recognised.
    """
    conditions = list(knowledge.conditions)
    findings = dict(knowledge.findings)
    names = dict(knowledge.listed)
    table = []
    for name, symptoms, treatments in extra:
        canonical = names.get(key(name))
        if canonical is not None:
            unknown = [symptom for symptom in symptoms if not knowledge.recognise(symptom)]
            table.append(_match(name, "matched", canonical, unknown))
            continue
        identifier, taken = key(name).replace(" ", "-"), {c.id for c in conditions}
        identifier = re.sub(r"[^a-z0-9-]", "", identifier) or "condition"
        while identifier in taken:
            identifier += "-x"
        own: list[str] = []
        unknown = []
        for symptom in symptoms:
            recognised = knowledge.recognise(symptom)
            if not recognised:
                unknown.append(symptom)
            for finding in recognised or [symptom.lower()]:
                if finding not in own and len(finding) > 1:
                    own.append(finding)
                    findings.setdefault(finding, Finding(name=finding))
        conditions.append(
            Condition(
                id=identifier,
                name=name,
                findings=tuple(ConditionFinding(name=f, frequency=0.6, typicality=2) for f in own),
                treatments=tuple(treatments),
            )
        )
        names[key(name)] = name
        table.append(_match(name, "new", name, unknown))
    extended = Knowledge(
        conditions=tuple(conditions),
        findings=findings,
        presentations=knowledge.presentations,
        red_flags=knowledge.red_flags,
        out_of_scope=knowledge.out_of_scope,
        emergencies=knowledge.emergencies,
        fingerprints=knowledge.fingerprints,
    )
    return extended, table
