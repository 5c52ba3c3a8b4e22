"""Fit the emergency classifier of ``runtime.alarm`` from the built-in texts.

In: the knowledge base. Out: an ``Alarm``. Its threshold is chosen on texts that the classifier has not seen (five
folds): the lowest at which the false alarms stay within what is allowed.

``python -m symptomchat.learning.alarm`` prints recall and false alarms on unseen texts, by kind of text.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from symptomchat.corpus.knowledge import Knowledge, load_knowledge
from symptomchat.runtime.alarm import LEAST, Alarm, buckets_of, parts_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from scipy.sparse import csr_matrix

BUCKETS = 2**16
FOLDS = 5
STRENGTH = 30.0
"""Inverse of the L2 penalty."""
OF_PRESENTATIONS = {"presentations": 0.1, "self-care": 0.6}
"""Weight of an authored presentation: its label is its condition's, and not every telling of it is urgent; that of a
condition which needs self-care is surer."""
ALLOWED = {"self-care": 0.04, "neighbours": 0.1}
"""Share of false alarms allowed: among texts that need self-care or nothing, and among those that lie close to an
emergency on purpose."""


@dataclass(frozen=True)
class Text:
    """A labelled text; ``source`` says where it comes from, ``weight`` how much it counts."""

    text: str
    emergency: bool
    source: str
    weight: float = 1.0


def texts_of(knowledge: Knowledge) -> list[Text]:
    """Everything built in that says whether it is an emergency."""
    texts = [
        Text(row.text, row.emergency, "emergencies" if row.emergency else "neighbours")
        for row in knowledge.emergencies
    ]
    for rule in knowledge.red_flags:
        texts += [Text(text, True, "rules") for text in rule.positives]
        texts += [Text(text, False, "rules") for text in rule.negatives]
    for row in knowledge.presentations:
        urgency = knowledge.by_name[row.condition].urgency
        source = "self-care" if urgency == "self_care" else "presentations"
        texts.append(Text(row.text, urgency == "emergency", source, OF_PRESENTATIONS[source]))
    texts += [Text(row.text, False, "out of scope") for row in knowledge.out_of_scope if not row.held_out]
    return texts


def buckets_of_all(texts: Sequence[str], buckets: int) -> csr_matrix:
    """``runtime.alarm.buckets_of`` of many texts at once, ``[texts, buckets]`` with a one in each bucket of a text.

    The pieces of a word are hashed once, however many texts have it: a text's buckets are those of its words and
    of its pairs.
    """
    from scipy.sparse import csr_matrix

    def incidence(columns: ArrayLike, lengths: Sequence[int], width: int) -> csr_matrix:
        numbered, ends = np.asarray(columns, "int32"), np.cumsum([0, *lengths])
        ones = np.ones(len(numbered), "int32")
        return csr_matrix((ones, numbered, ends), shape=(len(lengths), width))

    numbers: dict[str, int] = {}
    words, pairs = array("i"), array("i")
    words_of, pairs_of = [], []
    for text in texts:
        parts = parts_of(text)
        words.extend(numbers.setdefault(part, len(numbers)) for part in parts)
        both = [f"w{a} {b}" for a, b in zip(parts, parts[1:])] + [
            f"s{a} {b}" for a, b in zip(parts, parts[2:])
        ]
        pairs.extend(zlib.crc32(pair.encode("utf-8", "surrogatepass")) % buckets for pair in both)
        words_of.append(len(parts))
        pairs_of.append(len(both))
    of_words = [buckets_of(word, buckets) for word in numbers]
    spelling = incidence(np.concatenate(of_words), [len(row) for row in of_words], buckets)
    found = incidence(words, words_of, len(numbers)) @ spelling + incidence(pairs, pairs_of, buckets)
    found.sort_indices()
    return csr_matrix((np.ones(found.nnz), found.indices, found.indptr), shape=found.shape)


def fit_alarm(knowledge: Knowledge, seed: int = 7) -> tuple[Alarm, dict[str, float]]:
    """The classifier, and what it reaches on texts it has not seen.

    Returns:
        the classifier; recall on emergencies and false alarms by source, each by out-of-fold predictions.
    """
    from scipy.sparse import diags
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    texts = texts_of(knowledge)
    matrix = buckets_of_all([row.text for row in texts], BUCKETS)
    seen = np.asarray(matrix.sum(axis=0)).ravel()
    lengths = np.diff(matrix.indptr)
    matrix.data = np.repeat(1.0 / np.sqrt(np.maximum(LEAST, lengths)), lengths)
    # Rare pieces say more (inverse document frequency); the factor is folded into the weights afterwards.
    rarity = np.log((1 + len(texts)) / (1 + seen))
    rarity = rarity / rarity.mean()
    matrix = matrix @ diags(rarity)
    labels = np.array([row.emergency for row in texts])
    weights = np.array([row.weight for row in texts])
    model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=400, random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    # The vectors are short: on busy cores two threads of the linear algebra took eight times as long as one.
    with threadpool_limits(1):
        unseen = cross_val_predict(
            model, matrix, labels, cv=folds, method="predict_proba", params={"sample_weight": weights}
        )[:, 1]
        model.fit(matrix, labels, sample_weight=weights)
    sources = np.array([row.source for row in texts])
    threshold = max(
        float(np.quantile(unseen[(sources == source) & ~labels], 1 - allowed))
        for source, allowed in ALLOWED.items()
        if ((sources == source) & ~labels).any()
    )
    reached = {
        f"{'recall' if emergency else 'false alarms'}, {source}": float(np.mean(unseen[chosen] >= threshold))
        for source in dict.fromkeys(sources)
        for emergency in (True, False)
        if (chosen := (sources == source) & (labels == emergency)).any()
    }
    folded = model.coef_[0] * rarity
    scale = float(np.abs(folded).max()) / 127
    alarm = Alarm(
        np.round(folded / scale).astype("int8"), scale, float(model.intercept_[0]), round(threshold, 4)
    )
    return alarm, reached


@lru_cache(maxsize=1)
def builtin_alarm() -> Alarm:
    """The classifier of everything built in; fitted once in a process, in a few seconds."""
    return fit_alarm(load_knowledge())[0]


def main() -> None:
    """Print what the classifier reaches on texts it has not seen."""
    from rich.console import Console

    alarm, reached = fit_alarm(load_knowledge())
    console = Console()
    console.print(f"threshold {alarm.threshold}")
    for name, value in reached.items():
        console.print(f"{name:30} {value:.3f}")


if __name__ == "__main__":
    main()
