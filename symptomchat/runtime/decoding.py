"""Which tokens an answer may go on with: only names of findings and treatments that the bundle knows.

In: a grammar, and the records of the conditions. Out: for each step of an answer the tokens that may follow and what
their logits gain. A trie over the token ids of all findings, and one over those of all treatments, leave the model the
choice of the entries, their order and their number, but not of their wording. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from symptomchat.language.grammar import Grammar
from symptomchat.language.tokenizer import INTENTS

BONUS = 10.0
"""Added to the logits of tokens that lead to an entry of the condition's own record.

Chosen on authored texts of the calibration part: above it the answers hardly agree more with the record's eight
commonest findings, and the model could hardly leave the record (docs/experiments.md has the table).
"""
PARTS = ("symptoms", "treatments")
MOST = (8, 4)
"""Most entries of each part, as in the answers that the model learned from: what comes later it was never shown."""
FULL = 40
"""Tokens after which no further finding begins, so that treatments have room in an answer of 64 tokens."""


class Trie:
    """Entries by their token ids; node 0 is the root.

    Args:
        entries: texts with their token ids; of two with the same ids the first counts, one without ids is left out.
    """

    def __init__(self, entries: Iterable[tuple[str, Sequence[int]]]) -> None:
        children: list[dict[int, int]] = [{}]
        self.text: dict[int, str] = {}
        """Text of the entry that is complete at a node."""
        self.paths: dict[str, tuple[int, ...]] = {}
        """Nodes of an entry from the root to the one where it is complete."""
        ends: dict[tuple[int, ...], tuple[int, ...]] = {}
        for text, ids in entries:
            if not ids or text in self.paths:
                continue
            known = ends.get(tuple(ids))
            if known is None:
                path = [0]
                for token in ids:
                    here = children[path[-1]]
                    if token not in here:
                        here[token] = len(children)
                        children.append({})
                    path.append(here[token])
                known = ends[tuple(ids)] = tuple(path)
                self.text[path[-1]] = text
            self.paths[text] = known
        self._children = children
        self._arrays: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.entries = np.zeros(len(children), "int32")
        """Number of entries at or below each node."""
        np.add.at(self.entries, [node for path in ends.values() for node in path], 1)

    def children(self, node: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens ``[n]`` that go on from a node, and the nodes ``[n]`` that they lead to."""
        if node not in self._arrays:
            # By token id, so that every port breaks a tie the same way.
            row = sorted(self._children[node].items())
            tokens = np.array([token for token, _ in row], "int32")
            self._arrays[node] = tokens, np.array([child for _, child in row], "int32")
        return self._arrays[node]


class Vocabulary:
    """The tries of a bundle: findings, and treatments.

    Args:
        conditions: records with ``symptoms`` and ``treatments``.
    """

    def __init__(self, grammar: Grammar, conditions: Sequence[dict[str, Any]]) -> None:
        self.grammar = grammar
        self.tries = []
        for part in PARTS:
            texts = list(dict.fromkeys(text for record in conditions for text in record[part]))
            self.tries.append(Trie(zip(texts, grammar.pieces_of(texts), strict=True)))

    def guide(self, record: dict[str, Any], bonus: float = BONUS, intent: str | None = None) -> Guide:
        """A guide through one answer about the condition of a record; ``intent`` where it is known what is asked."""
        return Guide(self, record, bonus, intent)


@dataclass(frozen=True)
class Entry:
    """An entry that an answer has named; positions of its tokens after the condition token, the last exclusive."""

    part: int
    text: str
    begin: int
    end: int


class Guide:
    """What one answer has said, and how it may go on.

    The answer is an intent; at most ``MOST`` findings, none that begins after ``FULL`` tokens, with ``[;]`` between them; then, where the model wants,
    ``[treatments]`` and treatments in the same way; ``[end]``. Only tokens that continue an entry not named yet are allowed, and a mark
    where such an entry is complete.

    Tokens on the way to an entry of the record that is not named yet gain ``bonus``, and so do the marks where one is
    complete. A mark that opens a part in which the record has nothing left loses it. The bonus steers the choice
    alone: log-probabilities are those of the model's own distribution over all tokens. They tell how much the model
    itself believes a claim. Those of the allowed tokens among themselves would not: where one continuation is left,
    it would be certain however unlikely the model finds it, and an entry of the record would look surer because the
    record lists it.
    """

    def __init__(
        self, vocabulary: Vocabulary, record: dict[str, Any], bonus: float = BONUS, intent: str | None = None
    ) -> None:
        self.grammar, self.tries, self.bonus = vocabulary.grammar, vocabulary.tries, bonus
        intents = self.grammar.intents
        self._intents = intents if intent is None else [intents[INTENTS.index(intent)]]
        # Who asks for the treatment gets no findings first.
        self._skips = intent == "treatment" and bool(record[PARTS[1]])
        self.named: list[Entry] = []
        self._own = [
            {trie.paths[text] for text in record[part] if text in trie.paths}
            for part, trie in zip(PARTS, self.tries)
        ]
        self._left = [trie.entries.copy() for trie in self.tries]
        self._wanted = [np.zeros_like(left) for left in self._left]
        for wanted, own in zip(self._wanted, self._own):
            for path in own:
                wanted[list(path)] += 1
        self._part, self._path, self._at, self._begin = 0, [0], 0, 0

    def _room(self, part: int) -> bool:
        """Whether the part may go on after the entry that is complete here."""
        named = sum(entry.part == part for entry in self.named) + 1
        return named < MOST[part] and not (part == 0 and self._at > FULL)

    @property
    def _text(self) -> str | None:
        """The entry that is complete here and was not named before."""
        trie, node = self.tries[self._part], self._path[-1]
        text = trie.text.get(node)
        if text is None or any(entry.part == self._part and entry.text == text for entry in self.named):
            return None
        return text

    def options(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that may follow, ``[n]``, and what is added to the logits of each, ``[n]`` float32."""
        grammar, part = self.grammar, self._part
        if self._at == 0:
            return np.array(self._intents, "int32"), np.zeros(len(self._intents), "float32")
        if self._at == 1 and self._skips:
            return np.array([grammar.treatments], "int32"), np.zeros(1, "float32")
        tokens, nodes = self.tries[part].children(self._path[-1])
        alive = self._left[part][nodes] > 0
        tokens, nodes = tokens[alive], nodes[alive]
        gains = self.bonus * (self._wanted[part][nodes] > 0).astype("float32")
        marks = self._marks()
        if not marks:
            return tokens, gains
        return (
            np.concatenate([tokens, np.array([token for token, _ in marks], "int32")]),
            np.concatenate([gains, np.array([gain for _, gain in marks], "float32")]),
        )

    def _marks(self) -> list[tuple[int, float]]:
        """Marks that may follow, with what their logits gain."""
        grammar, part = self.grammar, self._part
        complete = self._text is not None
        if not complete and len(self._path) > 1:
            return []
        own = complete and tuple(self._path) in self._own[part]
        gain = self.bonus if own else 0.0
        found = []
        if complete and self._left[part][0] > 1 and self._room(part):
            more = self._wanted[part][0] - own > 0
            found.append((grammar.item, gain if more else gain - self.bonus))
        if part == 0 and self._left[1][0] > 0:
            more = self._wanted[1][0] > 0
            found.append((grammar.treatments, gain if more else gain - self.bonus))
        # Without any entry there is nothing to say but the end.
        if complete or self._left[part][0] == 0:
            found.append((grammar.end, gain))
        return found

    def take(self, token: int) -> None:
        """Go on with a token.

        Raises:
            ValueError: it may not follow.
        """
        if token not in self.options()[0]:
            raise ValueError(f"token {token} may not follow here")
        self._go(token)

    def _go(self, token: int) -> None:
        grammar = self.grammar
        if self._at == 0 or token in (grammar.item, grammar.treatments, grammar.end):
            self._close()
            self._part = 1 if token == grammar.treatments else self._part
            self._path, self._begin = [0], self._at + 1
        else:
            tokens, nodes = self.tries[self._part].children(self._path[-1])
            self._path.append(int(nodes[np.searchsorted(tokens, token)]))
        self._at += 1

    def _close(self) -> None:
        """Note the entry that is complete here; it is not named again."""
        text = self._text
        if text is None:
            return
        self.named.append(Entry(self._part, text, self._begin, self._at))
        self._left[self._part][self._path] -= 1
        if tuple(self._path) in self._own[self._part]:
            self._wanted[self._part][self._path] -= 1

    def choose(self, logits: np.ndarray) -> int:
        """Go on with the token of the highest logit after the gains, and return it.

        Args:
            logits: ``[V]``.
        """
        tokens, gains = self.options()
        token = int(tokens[(logits[tokens] + gains).argmax()])
        self._go(token)
        return token
