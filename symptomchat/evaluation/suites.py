"""Suites: labelled questions from a file, in any of the formats that the field's sets come in.

Read are CSV files with ``text`` and ``label`` columns, JSON lines with ``text`` and ``label``, and clinical
vignettes as JSON lines with ``correct_diagnosis``, ``presentation`` and their companions.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from symptomchat.corpus.knowledge import key
from symptomchat.errors import SymptomChatError
from symptomchat.files import read_jsonl, read_text


@dataclass(frozen=True)
class Case:
    """A question and the name of the condition that is meant."""

    text: str
    label: str


def vignette_text(row: dict[str, Any]) -> str:
    """One text from a vignette's fields; empty ones and mere dashes are left out."""
    parts = []
    for field, lead in (
        ("demographics", ""), ("chief_complaints", ""), ("presentation", ""), ("absent_findings", ""),
        ("physical_history", "Past history: "), ("family_history", "Family history: "), ("social_history", "Social history: "),
    ):  # fmt: skip
        text = str(row.get(field) or "").strip()
        if text.strip(" -.").lower() not in ("", "none", "nan", "n/a", "no"):
            parts.append(lead + text.rstrip(".") + ".")
    return " ".join(parts)


def load_suite(path: Path) -> list[Case]:
    """Read a suite.

    Raises:
        SymptomChatError: the file or a row of it cannot be used.
    """
    rows: list[tuple[int, dict[str, Any]]]
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(read_text(path)))
        rows = [(at, dict(row)) for at, row in enumerate(reader, start=2)]
    else:
        rows = read_jsonl(path)
    if not rows:
        raise SymptomChatError(f"{path}: holds no cases; give rows with text and label")
    cases = []
    for number, row in rows:
        label = row.get("label") or row.get("correct_diagnosis")
        text = (
            row.get("text")
            or row.get("case_description")
            or (vignette_text(row) if "presentation" in row else "")
        )
        if not label or not str(text).strip():
            raise SymptomChatError(
                f"{path}: line {number}: has no text or no label; name the columns text and label"
            )
        cases.append(Case(str(text), str(label)))
    return cases


def spelling(name: str) -> str:
    """Form in which the spellings of one name agree: accents, British vowels and plurals do not count."""
    plain = unicodedata.normalize("NFKD", key(name))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = re.sub("ae|oe", "e", plain).replace("tumour", "tumor")
    return " ".join(re.sub(r"(?<=[^sui])s$", "", word) if len(word) > 4 else word for word in plain.split())


def label_finder(names: Mapping[str, str]) -> Callable[[str], str | None]:
    """Finds what a suite's label is called in the knowledge: by its name, then by its spelling, then by its parts.

    "Haemorrhoids" is "Hemorrhoids", and "NSTEMI / STEMI" is what one of its parts is. A spelling that two
    conditions share finds neither.

    Args:
        names: canonical name by each name and alias.
    """
    exact = {key(name): canonical for name, canonical in names.items()}
    shared: dict[str, set[str]] = {}
    for name, canonical in exact.items():
        shared.setdefault(spelling(name), set()).add(canonical)

    def one(label: str) -> str | None:
        found = exact.get(key(label))
        meant = shared.get(spelling(label), set())
        return found or (next(iter(meant)) if len(meant) == 1 else None)

    def find(label: str) -> str | None:
        parts = re.split(r"\s*/\s*|\s+or\s+", label)
        return next((found for found in map(one, (label, *parts)) if found is not None), None)

    return find


@dataclass(frozen=True)
class Scores:
    """Accuracy of a ranking on a suite; a label that is not known counts as wrong.

    Attributes:
        coverage: share of the suite's distinct labels that are known.
        top: share of cases whose label is among the first 1, 3 and 5.
        interval: for each of them the 95 % bootstrap interval over the cases.
    """

    system: str
    cases: int
    coverage: float
    top: dict[int, float]
    interval: dict[int, tuple[float, float]]


def bootstrap_interval(hits: Sequence[bool], seed: int = 7) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of hits and misses (Efron 1979)."""
    from scipy.stats import bootstrap

    if len(set(hits)) < 2:
        return (float(hits[0]), float(hits[0]))
    found = bootstrap(
        (np.asarray(hits, "float64"),), np.mean, n_resamples=2000, method="percentile", rng=seed
    ).confidence_interval
    return float(found.low), float(found.high)


def score(
    system: str, cases: list[Case], find: Callable[[str], str | None], rank: Callable[[str], list[str]]
) -> Scores:
    """Rank every case.

    Args:
        find: canonical name of a label, or None.
        rank: names of the conditions, likeliest first.
    """
    hits: dict[int, list[bool]] = {1: [], 3: [], 5: []}
    labels = {case.label for case in cases}
    for case in cases:
        wanted = find(case.label)
        names = rank(case.text)
        for k in hits:
            hits[k].append(wanted is not None and wanted in names[:k])
    known = sum(find(label) is not None for label in labels)
    return Scores(
        system,
        len(cases),
        known / len(labels),
        {k: sum(found) / len(cases) for k, found in hits.items()},
        {k: bootstrap_interval(found) for k, found in hits.items()},
    )
