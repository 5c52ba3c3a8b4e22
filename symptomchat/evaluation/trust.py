"""Whether a bundle's confidence means what it says, on text that it has not seen.

In: a bundle, the built-in dataset and labelled suites. Out: figures on the project's own unseen texts, on invented
diseases, on kinds of questions that no step saw, on each suite, and on the red-flag rules, with the plain scores
beside the calibrated confidence; minimal pairs, what the generated lists claim, whether the words that an
explanation marks are those that count, and what happens with conditions that the bundle does not know.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from symptomchat.corpus.knowledge import key, load_knowledge
from symptomchat.corpus.narratives import Generator
from symptomchat.corpus.split import split_by_group, withhold
from symptomchat.errors import SymptomChatError
from symptomchat.evaluation.figures import reliability, risk_coverage
from symptomchat.evaluation.pairs import log_odds, pair_rows
from symptomchat.evaluation.suites import Case, label_finder, load_suite
from symptomchat.evaluation.uncertainty import (
    RESAMPLES,
    auroc_interval,
    generated_scores,
    score_rows,
)
from symptomchat.recipe import Recipe
from symptomchat.runtime.assistant import Answer, Assistant, Claim, Judgement
from symptomchat.runtime.confidence import FEATURES
from symptomchat.runtime.explain import MATTERS, which_words, without
from symptomchat.runtime.grounding import supported
from symptomchat.runtime.triage import ORDER, urgency

OWN = 900
INVENTED = 200
SAMPLED = 200
"""Own unseen questions for which ten answers are sampled (semantic entropy), by default."""
ANSWERED = 300
"""Own unseen questions that are answered in full to count unsupported claims."""
EXPLAINED = 60
"""Own unseen questions whose explanations are checked by deletion."""
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
    knowledge, _ = withhold(load_knowledge(conditions=recipe.data.conditions), recipe.data, recipe.seed)
    exchanges = list(Generator(knowledge, recipe.data).of_presentations(recipe.seed))
    _, rest = split_by_group(exchanges, lambda e: e.group, recipe.data.train_share, recipe.seed)
    unseen, _ = split_by_group(rest, lambda e: e.group, 0.5, recipe.seed + 1)
    texts = {e.group: e for e in reversed(unseen) if e.condition is not None}
    cases = [Case(e.question, str(e.condition)) for _, e in sorted(texts.items())]
    return spread(cases, most)


def invented(seed: int = 1007) -> list[str]:
    """Questions about diseases that do not exist; other names than those that were trained on."""
    generator, rng = Generator(load_knowledge()), random.Random(seed)
    return [generator.ask_about(generator.invented(rng), rng) for _ in range(INVENTED)]


def judge(assistant: Assistant, kind: str, texts: Sequence[str], labels: Sequence[str] | None) -> Judged:
    """Judge questions; with labels also whether the first condition and the prediction set are right."""
    judgements = tuple(assistant.judge(text) for text in texts)
    if labels is None:
        return Judged(kind, judgements, None, None)
    find = label_finder(assistant.names)
    number = {c["name"]: at for at, c in enumerate(assistant.conditions, start=1)}
    right, in_set = [], []
    for judgement, label in zip(judgements, labels):
        wanted = number.get(find(label) or "", -1)
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
        level = urgency(
            ranked,
            assistant.red_flags.check(case.text),
            not judgement.none,
            assistant.alarm.rings(case.text),
        )
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


def spread(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of a list, evenly spread over it, in order."""
    return [values[round(i)] for i in np.linspace(0, len(values) - 1, min(most, len(values)))]


def mean_interval(values: Sequence[float], seed: int = 7) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean."""
    table = np.asarray(values, "float64")
    means = np.random.default_rng(seed).choice(table, (RESAMPLES, len(table))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def unmarked(answer: Answer) -> list[str]:
    """Claims that the knowledge base does not support and that the reply lists without saying so."""
    lists: tuple[tuple[str, tuple[Claim, ...]], ...] = (
        (r"^(?:Typical|Symptoms) of .*$", answer.symptoms),
        (r"^Usual treatment: .*$", answer.treatments),
    )
    found = []
    for line, claims in lists:
        shown = "\n".join(re.findall(line, answer.reply, re.MULTILINE))
        for claim in claims:
            # As a whole item: after the heading or a comma, and before the next comma or the end.
            bare = rf"(?:: |, ){re.escape(claim.text)}(?=, |\.$)"
            if not claim.grounded and re.search(bare, shown, re.MULTILINE):
                found.append(claim.text)
    return found


def claims_row(assistant: Assistant, kind: str, texts: Sequence[str]) -> dict[str, Any]:
    """Generated findings and treatments that the sources do not support, and whether any is shown unmarked.

    ``wrongly marked`` counts claims whose mark differs from a second look at the knowledge base.
    """
    records = {c["name"]: c for c in assistant.conditions}
    unsupported, claims, unmarked_ones, wrong = [], 0, 0, 0
    for text in texts:
        answer = assistant.ask(text)
        said = (*answer.symptoms, *answer.treatments)
        unsupported.append(sum(not claim.grounded for claim in said))
        claims += len(said)
        unmarked_ones += len(unmarked(answer))
        if answer.intent == "none":
            continue
        record = records[answer.conditions[0].name]
        for part, listed in (("symptoms", answer.symptoms), ("treatments", answer.treatments)):
            wrong += sum(
                claim.grounded != (supported(claim.text, record[part], assistant.phrasings) is not None)
                for claim in listed
            )
    return {
        "kind": kind,
        "answers": len(texts),
        "claims": claims,
        "unsupported per answer": float(np.mean(unsupported)),
        "interval": list(mean_interval(unsupported)),
        "answers with an unsupported claim": float(np.mean([n > 0 for n in unsupported])),
        "claims unsupported": sum(unsupported) / max(1, claims),
        "shown unmarked": unmarked_ones,
        "wrongly marked": wrong,
    }


def deletion_row(assistant: Assistant, texts: Sequence[str], seed: int = 31) -> dict[str, Any]:
    """Whether the words that an explanation marks are those that count.

    All marked words are left out together, and then as many of the others, drawn at random; falls are in log odds
    of the first condition. Texts without marked words, or without others, are left out.
    """
    rng = random.Random(seed)
    marked_falls, other_falls, probability = [], [], []
    for text in texts:
        spans = sorted(which_words(assistant.judge, text), key=lambda span: -span.effect)
        marked = [span for span in spans if span.effect >= MATTERS]
        rest = spans[len(marked) :]
        number = min(len(marked), len(rest))
        if not number:
            continue
        whole = assistant.judge(text).probabilities
        at = int(whole[1:].argmax()) + 1
        falls = []
        for chosen in (marked[:number], rng.sample(rest, number)):
            left = without(text, [(span.begin, span.end) for span in chosen])
            falls.append(float(assistant.judge(left).probabilities[at]) if left.strip(" .,;!?") else 0.0)
        marked_falls.append(log_odds(float(whole[at])) - log_odds(falls[0]))
        other_falls.append(log_odds(float(whole[at])) - log_odds(falls[1]))
        probability.append(falls[1] - falls[0])
    if not marked_falls:
        return {"texts": 0}
    more = np.array(marked_falls) - np.array(other_falls)
    return {
        "texts": len(marked_falls),
        "fall without the marked words": float(np.mean(marked_falls)),
        "fall without as many others": float(np.mean(other_falls)),
        "difference": float(more.mean()),
        "interval": list(mean_interval(more.tolist())),
        "difference in probability": float(np.mean(probability)),
        "interval in probability": list(mean_interval(probability)),
        "marked fall more": float((more > 0).mean()),
    }


def load_unknown(path: Path, assistant: Assistant) -> dict[str, list[str]]:
    """Texts by condition of a suite whose labels the bundle does not know.

    Raises:
        SymptomChatError: the file cannot be used, or the bundle knows one of its labels.
    """
    known = {key(name) for name in assistant.names}
    texts: dict[str, list[str]] = {}
    for case in load_suite(path):
        if key(case.label) in known:
            raise SymptomChatError(
                f"{path}: the bundle knows the label {case.label}; an open set holds other conditions alone"
            )
        texts.setdefault(case.label, []).append(case.text)
    return texts


def held_out_row(
    assistant: Assistant, texts_by_condition: Mapping[str, Sequence[str]], known: Judged | None = None
) -> dict[str, Any]:
    """Flags on conditions that the bundle was never taught, and how well scores tell them from known ones.

    Args:
        known: judged questions about known conditions; by default the project's own unseen texts.

    Returns:
        ``flagged`` with an interval by resampling conditions (texts of one condition are not independent),
        ``answered none``, the share flagged among the known, and AUROC known/unknown of each score.

    Raises:
        SymptomChatError: there are no texts.
    """
    names = [name for name, texts in texts_by_condition.items() if texts]
    if not names:
        raise SymptomChatError(
            "open set: holds no texts; give texts of conditions that the bundle does not know"
        )
    judged = {name: judge(assistant, name, texts_by_condition[name], None) for name in names}
    if known is None:
        cases = own_unseen(assistant)
        known = judge(assistant, "own, unseen", [c.text for c in cases], [c.label for c in cases])
    unknown = Judged("unknown", tuple(j for one in judged.values() for j in one.judgements), None, None)
    flagged = np.array([[one.flagged.sum(), len(one.flagged)] for one in judged.values()])
    drawn = np.random.default_rng(7).integers(len(names), size=(RESAMPLES, len(names)))
    shares = flagged[drawn, 0].sum(axis=1) / flagged[drawn, 1].sum(axis=1)
    is_known = np.concatenate([np.ones(len(known.judgements), bool), np.zeros(len(unknown.judgements), bool)])
    scores = {name: np.concatenate([known.score(name), unknown.score(name)]) for name in SCORES}
    return {
        "conditions": len(names),
        "questions": len(unknown.judgements),
        "flagged": float(unknown.flagged.mean()),
        "interval": [float(x) for x in np.quantile(shares, (0.025, 0.975))],
        "answered none": float(np.mean([j.none for j in unknown.judgements])),
        "known questions": len(known.judgements),
        "flagged among known": float(known.flagged.mean()),
        **{f"AUROC {name}": float(roc_auc_score(is_known, score)) for name, score in scores.items()},
        "AUROC confidence interval": list(auroc_interval(is_known, scores["confidence"])),
        "not flagged": [
            {"label": name, "questions": len(one.flagged), "not flagged": int((~one.flagged).sum())}
            for name, one in judged.items()
            if not one.flagged.all()
        ],
    }


def uncertainty_rows(
    assistant: Assistant, own: Judged, cases: Sequence[Case], sampled: int
) -> list[dict[str, Any]]:
    """AUROC right/wrong of every score, those that need generated text on ``sampled`` of the questions."""
    assert own.right is not None
    chosen = spread(range(len(cases)), sampled)
    right = np.array(own.right)
    scores = {name: own.score(name) for name in SCORES}
    rows = [row | {"on": "all"} for row in score_rows(right, scores)]
    if not chosen:
        return rows
    part = {name: score[chosen] for name, score in scores.items()}
    part |= generated_scores(assistant, [cases[i] for i in chosen])
    return rows + [row | {"on": "sampled"} for row in score_rows(right[chosen], part)]


def trust(
    assistant: Assistant,
    suites: dict[str, list[Case]],
    unknown: Mapping[str, Sequence[str]] | None = None,
    sampled: int = SAMPLED,
) -> dict[str, Any]:
    """Every figure of this module as plain values.

    Args:
        suites: labelled questions by name.
        unknown: texts of conditions that the bundle does not know, by condition.
        sampled: own unseen questions for which ten answers are sampled; 0 leaves the slow scores out.
    """
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
    answered = {"own, unseen": [c.text for c in spread(cases, ANSWERED)]}
    answered["invented diseases"] = kinds["invented diseases"]
    curves = {judged.kind: (judged.score("confidence"), np.array(judged.right)) for judged in labelled}
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
        "pairs": pair_rows(assistant),
        "uncertainty": uncertainty_rows(assistant, own, cases, sampled),
        "claims": [claims_row(assistant, kind, texts) for kind, texts in answered.items()],
        "explanations": deletion_row(assistant, [c.text for c in spread(cases, EXPLAINED)]),
        "held out": held_out_row(assistant, unknown, own) if unknown else None,
        "reliability": {kind: reliability(*pair) for kind, pair in curves.items()},
        "risk coverage": {kind: risk_coverage(*pair) for kind, pair in curves.items()},
    }
