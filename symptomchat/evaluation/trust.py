"""Whether a bundle's confidence means what it says, on text that it has not seen.

In: a bundle, the built-in dataset and labelled suites. Out: figures on the project's own unseen texts, on invented
diseases, on kinds of questions that no step saw, on each suite, and on the red-flag rules, with the plain scores
beside the calibrated confidence.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from symptomchat.corpus.knowledge import key, load_knowledge
from symptomchat.corpus.narratives import Generator
from symptomchat.corpus.split import split_by_group
from symptomchat.evaluation.suites import Case
from symptomchat.recipe import Recipe
from symptomchat.runtime.assistant import Assistant, Judgement
from symptomchat.runtime.confidence import FEATURES
from symptomchat.runtime.triage import ORDER, urgency

OWN = 900
INVENTED = 200
SCORES = ("confidence", "maximum softmax", "margin", "negative entropy", "familiarity")


@dataclass(frozen=True)
class Judged:
    """Questions of one kind with what the bundle made of them; ``right`` is None where nothing is right."""

    kind: str
    judgements: tuple[Judgement, ...]
    right: tuple[bool, ...] | None
    in_set: tuple[bool, ...] | None

    def score(self, name: str) -> np.ndarray:
        """A score by name, higher = surer."""
        if name == "confidence":
            return np.array([j.confidence for j in self.judgements])
        sign, feature = {
            "maximum softmax": (1, "top"),
            "margin": (1, "margin"),
            "negative entropy": (-1, "entropy"),
            "familiarity": (-1, "novelty"),
        }[name]
        return sign * np.array([j.features[FEATURES.index(feature)] for j in self.judgements])

    @property
    def flagged(self) -> np.ndarray:
        """Whether each answer is flagged."""
        return np.array([j.flagged for j in self.judgements])


def own_unseen(assistant: Assistant, most: int = OWN) -> list[Case]:
    """Authored texts on the validation side of the bundle's own split, as many as ``most``."""
    recipe = Recipe.model_validate(assistant.manifest["recipe"])
    knowledge = load_knowledge(conditions=recipe.data.conditions)
    exchanges = list(Generator(knowledge, recipe.data).of_presentations(recipe.seed))
    _, rest = split_by_group(exchanges, lambda e: e.group, recipe.data.train_share, recipe.seed)
    unseen, _ = split_by_group(rest, lambda e: e.group, 0.5, recipe.seed + 1)
    texts = {e.group: e for e in reversed(unseen) if e.condition is not None}
    cases = [Case(e.question, str(e.condition)) for _, e in sorted(texts.items())]
    return [cases[round(i)] for i in np.linspace(0, len(cases) - 1, min(most, len(cases)))]


def invented(seed: int = 1007) -> list[str]:
    """Questions about diseases that do not exist; other names than those that were trained on."""
    generator, rng = Generator(load_knowledge()), random.Random(seed)
    return [generator.ask_about(generator.invented(rng), rng) for _ in range(INVENTED)]


def judge(assistant: Assistant, kind: str, texts: Sequence[str], labels: Sequence[str] | None) -> Judged:
    """Judge questions; with labels also whether the first condition and the prediction set are right."""
    judgements = tuple(assistant.judge(text) for text in texts)
    if labels is None:
        return Judged(kind, judgements, None, None)
    names = {key(name): canonical for name, canonical in assistant.names.items()}
    number = {c["name"]: at for at, c in enumerate(assistant.conditions, start=1)}
    right, in_set = [], []
    for judgement, label in zip(judgements, labels):
        wanted = number.get(names.get(key(label), ""), -1)
        first = int(judgement.probabilities[1:].argmax()) + 1
        right.append(not judgement.none and first == wanted)
        likely = judgement.probabilities[wanted] >= assistant.calibrator.set_limit if wanted > 0 else False
        in_set.append(bool(first == wanted or likely))
    return Judged(kind, judgements, tuple(right), tuple(in_set))


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017)."""
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[at == b].mean() - right[at == b].mean()) * (at == b).mean()
        for b in range(bins)
        if (at == b).any()
    ]
    return float(sum(gaps))


def labelled_row(judged: Judged, limit: float) -> dict[str, Any]:
    """Figures of questions that have a right answer; ``limit`` is the prediction set's."""
    assert judged.right is not None and judged.in_set is not None
    right, kept = np.array(judged.right), ~judged.flagged
    sure = judged.score("confidence")
    row: dict[str, Any] = {
        "kind": judged.kind,
        "questions": len(right),
        "right": float(right.mean()),
        "ECE": calibration_error(sure, right),
        "not flagged": float(kept.mean()),
        "wrong among those": float((~right[kept]).mean()) if kept.any() else 0.0,
        "right but flagged": float((~kept[right]).mean()) if right.any() else 0.0,
        "in the set": float(np.mean(judged.in_set)),
        "size of the set": float(
            np.mean([max(1, (j.probabilities[1:] >= limit).sum()) for j in judged.judgements])
        ),
    }
    if 0 < right.sum() < len(right):
        row |= {f"AUROC {name}": float(roc_auc_score(right, judged.score(name))) for name in SCORES}
        row["AUPRC confidence"] = float(average_precision_score(right, sure))
    return row


def answerable_row(own: Judged, others: Sequence[Judged]) -> dict[str, float]:
    """How well each score tells questions that have an answer from those that have none."""
    labels = np.concatenate([np.ones(len(own.judgements)), *(np.zeros(len(o.judgements)) for o in others)])
    return {
        f"AUROC {name}": float(
            roc_auc_score(labels, np.concatenate([own.score(name), *(o.score(name) for o in others)]))
        )
        for name in SCORES
    }


def triage_row(assistant: Assistant, own: Judged, cases: Sequence[Case]) -> dict[str, float]:
    """Urgency against the knowledge base's: the same, and never less urgent."""
    wanted = {c["name"]: c["urgency"] for c in assistant.conditions}
    levels = [c["urgency"] for c in assistant.conditions]
    same = safe = total = 0
    for judgement, case in zip(own.judgements, cases):
        if case.label not in wanted:
            continue
        order = np.argsort(-judgement.probabilities[1:], kind="stable")[:50]
        ranked = [(levels[i], float(judgement.probabilities[1 + i])) for i in order]
        level = urgency(ranked, assistant.red_flags.check(case.text), not judgement.none)
        # "unknown" gives no urgency at all, which is never safe.
        same += level == wanted[case.label]
        safe += ORDER.index(level) >= ORDER.index(wanted[case.label])
        total += 1
    return {
        "questions": total,
        "same urgency": same / max(1, total),
        "never less urgent": safe / max(1, total),
    }


def red_flag_row(assistant: Assistant) -> dict[str, float]:
    """Recall on the rules' phrasings, and false alarms on their negatives and on presentations of self-care."""
    knowledge = load_knowledge()
    found = [
        rule.id in [f.id for f in assistant.red_flags.check(text)]
        for rule in knowledge.red_flags
        for text in rule.positives
    ]
    false = [
        rule.id in [f.id for f in assistant.red_flags.check(text)]
        for rule in knowledge.red_flags
        for text in rule.negatives
    ]
    mild = [p.text for p in knowledge.presentations if knowledge.by_name[p.condition].urgency == "self_care"]
    alarms = [bool(assistant.red_flags.check(text)) for text in mild[:: max(1, len(mild) // 300)]]
    return {
        "recall": float(np.mean(found)),
        "fired on negatives": float(np.mean(false)),
        "fired on self-care": float(np.mean(alarms)),
    }


def trust(assistant: Assistant, suites: dict[str, list[Case]]) -> dict[str, Any]:
    """Every figure of this module as plain values."""
    cases = own_unseen(assistant)
    own = judge(assistant, "own, unseen", [c.text for c in cases], [c.label for c in cases])
    labelled = [own] + [
        judge(assistant, name, [c.text for c in part], [c.label for c in part])
        for name, part in suites.items()
    ]
    kinds: dict[str, list[str]] = {"invented diseases": invented()}
    for row in load_knowledge().out_of_scope:
        if row.held_out:
            kinds.setdefault(row.kind, []).append(row.text)
    others = [judge(assistant, kind, texts, None) for kind, texts in kinds.items()]
    return {
        "bundle": assistant.folder.name,
        "risk": assistant.calibrator.risk,
        "threshold": assistant.threshold,
        "labelled": [labelled_row(judged, assistant.calibrator.set_limit) for judged in labelled],
        "answerable": answerable_row(own, others),
        "unanswerable": [
            {"kind": o.kind, "questions": len(o.judgements), "flagged": float(o.flagged.mean())}
            for o in others
        ],
        "triage": triage_row(assistant, own, cases),
        "red flags": red_flag_row(assistant),
    }
