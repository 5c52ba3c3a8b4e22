"""How well other measures of uncertainty tell right answers from wrong ones, beside the calibrated confidence.

In: a bundle and labelled questions. Out: for each score its AUROC with a 95 % bootstrap interval. The scores that
need generated text are the perplexity of the answer (mean log-probability of its tokens) and semantic entropy
(Farquhar et al. 2024): ten answers are sampled, those that mean the same are counted together, and the entropy of
the counts is the uncertainty. Both are slow and are measured on some of the questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from symptomchat.evaluation.suites import Case
from symptomchat.runtime.assistant import Assistant
from symptomchat.runtime.decoding import PARTS, Guide
from symptomchat.runtime.engine import Engine, Question
from symptomchat.runtime.grounding import supported

SAMPLES = 10
"""Answers sampled for each question."""
ALIKE = 0.5
"""Two answers about one condition mean the same where they share at least this part of their findings (Jaccard)."""
RESAMPLES = 2000
GENERATED = (
    "negative log perplexity",
    "negative semantic entropy",
    "negative semantic entropy, conditions alone",
)

Meaning = tuple[int, frozenset[str]]
"""Place of the condition (0 = none) and the findings and treatments by their meaning."""


class SamplingEngine(Engine):
    """An engine that also samples; the runtime's own stays greedy."""

    def sample(
        self, question: Question, condition: int, end: int, guide: Guide, rng: np.random.Generator
    ) -> Iterator[int]:
        """Tokens after a condition token, drawn from the model's distribution at temperature 1, until ``end``.

        Args:
            guide: leaves the tokens that may follow; the distribution is that over them, with what they gain.
        """
        cache, token = self._fresh(question), condition
        for at in range(self.answer_tokens):
            tokens, gains = guide.options()
            logits = self._step(question, token, at, cache)[tokens].astype("float64") + gains
            raised = np.exp(logits - logits.max())
            token = int(rng.choice(tokens, p=raised / raised.sum()))
            guide.take(token)
            yield token
            if token == end:
                return


def sampling_engine(assistant: Assistant) -> SamplingEngine:
    """A sampling engine on the assistant's own model file."""
    return SamplingEngine(assistant.folder / f"model.{assistant.precision}.tflite")


def answer_log_probability(assistant: Assistant, question: Question) -> float:
    """Mean log-probability of the tokens of the greedy answer (minus the logarithm of its perplexity)."""
    probabilities = assistant.calibrator.soften(question.probabilities)
    none = probabilities[0] >= probabilities[1:].max()
    number = 0 if none else int(probabilities[1:].argmax()) + 1
    grammar = assistant.grammar
    # No condition has no record: what the model says of nothing is its own.
    guide = assistant.vocabulary.guide(assistant.conditions[number - 1]) if number else None
    logs = [log for _, log in assistant.engine.generate(question, grammar.none + number, grammar.end, guide)]
    return float(np.mean(logs))


def sampled_meanings(
    assistant: Assistant, engine: SamplingEngine, question: Question, rng: np.random.Generator
) -> list[Meaning]:
    """Meanings of ``SAMPLES`` answers: a condition drawn from the calibrated ranking, then its text.

    The text is drawn without the bonus for the record, which says nothing about how sure the model is. A finding that
    the knowledge base supports is meant by its name, however it is said. What it does not support carries no meaning
    here: two answers that name one condition and other things outside its record say the same.
    """
    probabilities = assistant.calibrator.soften(question.probabilities).astype("float64")
    grammar = assistant.grammar
    found: list[Meaning] = []
    for number in rng.choice(len(probabilities), size=SAMPLES, p=probabilities / probabilities.sum()):
        if number == 0:
            found.append((0, frozenset()))
            continue
        record = assistant.conditions[int(number) - 1]
        guide = assistant.vocabulary.guide(record, bonus=0.0)
        for _ in engine.sample(question, grammar.none + int(number), grammar.end, guide, rng):
            pass
        said = [
            supported(entry.text, record[PARTS[entry.part]], assistant.phrasings) for entry in guide.named
        ]
        found.append((int(number), frozenset(name for name in said if name is not None)))
    return found


def same_meaning(one: Meaning, other: Meaning) -> bool:
    """Whether two answers name one condition and share enough of their findings."""
    if one[0] != other[0]:
        return False
    both = one[1] | other[1]
    return not both or len(one[1] & other[1]) / len(both) >= ALIKE


def semantic_entropy(meanings: Sequence[Meaning]) -> float:
    """Entropy in nats of the clusters of answers that mean the same; each joins the first cluster that it fits."""
    heads: list[Meaning] = []
    counts: Counter[int] = Counter()
    for meaning in meanings:
        at = next((i for i, head in enumerate(heads) if same_meaning(meaning, head)), len(heads))
        if at == len(heads):
            heads.append(meaning)
        counts[at] += 1
    shares = np.array(list(counts.values())) / len(meanings)
    return float(-(shares * np.log(shares)).sum())


def auroc(right: np.ndarray, score: np.ndarray) -> float:
    """Probability that a right answer scores higher than a wrong one, ties by half (Mann and Whitney 1947)."""
    ones = int(right.sum())
    zeros = len(right) - ones
    return float((rankdata(score)[right].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def auroc_interval(right: np.ndarray, score: np.ndarray, seed: int = 7) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the AUROC, right and wrong answers resampled apart.

    Raises:
        ValueError: all are right or all are wrong.
    """
    if right.all() or not right.any():
        raise ValueError("AUROC needs right and wrong answers")
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(right), np.flatnonzero(~right)]
    values = []
    for _ in range(RESAMPLES):
        at = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        values.append(auroc(right[at], score[at]))
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def generated_scores(assistant: Assistant, cases: Sequence[Case], seed: int = 29) -> dict[str, np.ndarray]:
    """Scores that need generated text, ``[len(cases)]`` each (higher = surer)."""
    rng, engine = np.random.default_rng(seed), sampling_engine(assistant)
    rows = []
    for case in cases:
        question = assistant.engine.prefill(assistant.encode(case.text))
        meanings = sampled_meanings(assistant, engine, question, rng)
        alone: list[Meaning] = [(number, frozenset()) for number, _ in meanings]
        rows.append(
            (
                answer_log_probability(assistant, question),
                -semantic_entropy(meanings),
                -semantic_entropy(alone),
            )
        )
    return dict(zip(GENERATED, np.array(rows).T))


def score_rows(right: np.ndarray, scores: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """AUROC and interval of each score; no rows where all answers are right, or all wrong."""
    if right.all() or not right.any():
        return []
    return [
        {
            "score": name,
            "questions": len(right),
            "AUROC": auroc(right, score),
            "interval": list(auroc_interval(right, score)),
        }
        for name, score in scores.items()
    ]
