"""The two plain baselines that a language model must beat, trained on the same exchanges.

TF-IDF with logistic regression, and frozen embeddings of the pretrained start with logistic regression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline

from symptomchat.corpus.knowledge import Knowledge
from symptomchat.corpus.schema import Exchange
from symptomchat.language.grammar import Grammar
from symptomchat.models.teacher import load_backbone

Ranker = Callable[[str], list[str]]


def tfidf(exchanges: Sequence[Exchange], seed: int = 7) -> Ranker:
    """TF-IDF over words and word pairs, logistic regression by stochastic gradient descent."""
    texts, labels = _rows(exchanges)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=60_000),
        SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=20, random_state=seed),
    ).fit(texts, labels)
    return _ranker(lambda text: model.predict_proba([text])[0], model.classes_)


def frozen(exchanges: Sequence[Exchange], seed: int = 7, init: str = "base") -> Ranker:
    """Mean-pooled embeddings of the untouched start, logistic regression on top."""
    texts, labels = _rows(exchanges)
    embed = embedder(init)
    vectors = embed(texts)
    model = LogisticRegression(C=30.0, max_iter=60, random_state=seed).fit(vectors, labels)
    return _ranker(lambda text: model.predict_proba(embed([text]))[0], model.classes_)


def _rows(exchanges: Sequence[Exchange]) -> tuple[list[str], list[str]]:
    chosen = [e for e in exchanges if e.condition is not None and e.intent == "diagnose"]
    return [e.question for e in chosen], [e.condition or "" for e in chosen]


def _ranker(probabilities: Callable[[str], np.ndarray], classes: np.ndarray) -> Ranker:
    def rank(text: str) -> list[str]:
        order = np.argsort(-probabilities(text), kind="stable")[:10]
        return [str(classes[i]) for i in order]

    return rank


def embedder(init: str, tokens: int = 192, batch: int = 64) -> Callable[[list[str]], np.ndarray]:
    """Texts → mean-pooled unit vectors ``[texts, hidden]`` of a keras-hub encoder."""
    import tensorflow as tf

    backbone, tokenizer = load_backbone(init)
    user, answer = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")

    @tf.function(reduce_retracing=True)
    def forward(ids: tf.Tensor) -> tf.Tensor:
        mask = tf.cast(ids != 0, tf.int32)
        states = backbone({"token_ids": ids, "segment_ids": tf.zeros_like(ids), "padding_mask": mask})[
            "sequence_output"
        ]
        weights = tf.cast(mask, tf.float32)[:, :, None]
        return tf.math.l2_normalize(tf.reduce_sum(states * weights, axis=1), axis=-1)

    def embed(texts: list[str]) -> np.ndarray:
        encoded = [
            [user, *e.ids[: tokens - 2], answer]
            for e in tokenizer.encode_batch(texts, add_special_tokens=False)
        ]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        out = np.zeros((len(texts), backbone.hidden_dim), "float32")
        for begin in range(0, len(order), batch):
            part = order[begin : begin + batch]
            width = -(-max(len(encoded[i]) for i in part) // 16) * 16
            ids = np.zeros((len(part), width), "int32")
            for line, i in enumerate(part):
                ids[line, : len(encoded[i])] = encoded[i]
            out[part] = forward(tf.constant(ids)).numpy()
        return out

    return embed


def rank_questions(model: Any, grammar: Grammar, knowledge: Knowledge) -> Ranker:
    """A ranker by a Keras ``PrefixLM`` that has not been exported: ten names, likeliest first."""
    import tensorflow as tf

    names = [condition.name for condition in knowledge.conditions]
    none = np.array([[model.shape_.text_vocabulary]], "int32")
    forward = tf.function(
        lambda ids: model({"question": ids, "answer": tf.constant(none)}, training=False)["conditions"],
        input_signature=[tf.TensorSpec((1, None), tf.int32)],
    )

    def rank(text: str) -> list[str]:
        logits = forward(tf.constant([grammar.question(text)], tf.int32)).numpy()[0, 1:]
        return [names[i] for i in np.argsort(-logits, kind="stable")[:10]]

    return rank


def question_probabilities(model: Any, questions: Sequence[list[int]], batch: int = 64) -> np.ndarray:
    """Probabilities ``[N, C]`` of the conditions for encoded questions, by a Keras ``PrefixLM``."""
    import tensorflow as tf

    forward = tf.function(
        lambda ids, answer: tf.nn.softmax(
            model({"question": ids, "answer": answer}, training=False)["conditions"]
        ),
        input_signature=[tf.TensorSpec((None, None), tf.int32)] * 2,
    )
    order = sorted(range(len(questions)), key=lambda i: len(questions[i]))
    out = np.zeros((len(questions), model.shape_.conditions), "float32")
    for begin in range(0, len(order), batch):
        part = order[begin : begin + batch]
        ids = np.zeros((len(part), max(len(questions[i]) for i in part)), "int32")
        for line, i in enumerate(part):
            ids[line, : len(questions[i])] = questions[i]
        answer = np.full((len(part), 1), model.shape_.text_vocabulary, "int32")
        out[part] = forward(tf.constant(ids), tf.constant(answer)).numpy()
    return out
