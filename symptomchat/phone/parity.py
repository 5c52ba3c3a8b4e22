"""Whether an exported file computes what its Keras model computes, and how fast.

In: model, file, encoded exchanges. Out: largest differences, agreement of greedy tokens, losses through the
file, milliseconds per decoded token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from symptomchat.language.grammar import Grammar
from symptomchat.runtime.engine import Engine


def compare(
    model: Any, path: Path, rows: Sequence[Any], grammar: Grammar, prompts: int = 12
) -> dict[str, float]:
    """Largest differences between the file and Keras (float32) on real prompts.

    Returns:
        ``probabilities`` and ``logits``: largest absolute differences; ``same_first``: share of prompts with the
        same first condition; ``same_tokens``: share of answer positions where the greedy token is the same,
        both given the file's own answer.
    """
    engine = Engine(path)
    worst_probability = worst_logit = 0.0
    same_first, same, total = 0, 0, 0
    for at, row in enumerate(rows):
        ids = list(row.question)
        question = engine.prefill(ids)
        ranked, _ = engine.rank(ids)
        worst_probability = max(worst_probability, float(np.abs(ranked - question.probabilities).max()))
        answer = [grammar.none + int(question.probabilities.argmax())]
        if at < prompts:
            answer += [token for token, _ in engine.generate(question, answer[0], grammar.end)][
                : grammar.answer_tokens - 1
            ]
        outputs = model(
            {"question": np.array([ids], "int32"), "answer": np.array([answer], "int32")}, training=False
        )
        logits = np.asarray(outputs["conditions"][0])
        expected = np.exp(logits - logits.max())
        expected /= expected.sum()
        worst_probability = max(worst_probability, float(np.abs(expected - question.probabilities).max()))
        same_first += int(expected.argmax() == question.probabilities.argmax())
        if at < prompts:
            ours, theirs = engine.logits(question, answer), np.asarray(outputs["tokens"][0])
            worst_logit = max(worst_logit, float(np.abs(ours - theirs).max()))
            same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
            total += len(answer)
    return {
        "probabilities": round(worst_probability, 7),
        "logits": round(worst_logit, 6),
        "same_first": round(same_first / len(rows), 4),
        "same_tokens": round(same / total, 4),
    }


def engine_losses(
    engine: Engine, rows: Sequence[Any], grammar: Grammar, condition_weight: float
) -> dict[str, float]:
    """The validation loss and accuracy, computed through the file."""
    condition = token = right = 0.0
    tokens = 0
    for row in rows:
        question = engine.prefill(list(row.question))
        condition -= float(np.log(question.probabilities[row.condition] + 1e-12))
        right += float(question.probabilities.argmax() == row.condition)
        logits = engine.logits(question, list(row.answer[:-1]))
        shifted = logits - logits.max(axis=-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        token -= float(logs[np.arange(len(row.answer) - 1), list(row.answer[1:])].sum())
        tokens += len(row.answer) - 1
    loss = condition_weight * condition / len(rows) + token / tokens
    return {"loss": loss, "accuracy": right / len(rows)}


def token_milliseconds(engine: Engine, grammar: Grammar, rows: Sequence[Any], tokens: int = 40) -> float:
    """Median milliseconds of one decoded token on one thread, after a warm-up."""
    question = engine.prefill(list(rows[0].question))
    times: list[float] = []
    while len(times) < tokens:
        before = time.perf_counter()
        for _ in engine.generate(question, grammar.none + 1, end=-1):
            now = time.perf_counter()
            times.append((now - before) * 1000)
            before = now
    return float(np.median(times[5:]))
