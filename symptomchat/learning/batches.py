"""Exchanges as padded arrays: what the loops eat.

In: encoded exchanges. Out: batches of similar length in an order that depends on seed and epoch alone, so
that an interrupted run goes on with exactly the batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from symptomchat.corpus.schema import Exchange
from symptomchat.language.grammar import Grammar


@dataclass(frozen=True)
class Encoded:
    """One exchange as token ids; ``answer`` begins with the condition token."""

    question: tuple[int, ...]
    condition: int
    answer: tuple[int, ...]
    taught: int = -1
    """Row of stored soft targets; −1 where there are none."""


def encode(
    exchanges: Sequence[Exchange],
    grammar: Grammar,
    order: dict[str, int],
    spoken: float,
    seed: int,
    find: Callable[[str], int] | None = None,
) -> list[Encoded]:
    """Encode exchanges.

    Args:
        order: number of each condition among the condition tokens (0 is ``<c:none>``).
        spoken: share of the exchanges whose whole answer is trained; the others end after the intent token,
            which costs a quarter of the tokens. Questions about a condition are always whole.
        seed: of the choice.
        find: row of a question among stored soft targets, or −1.
    """
    random = np.random.default_rng(seed)
    encoded = []
    for exchange in exchanges:
        number = order[exchange.condition] if exchange.condition is not None else 0
        answer = grammar.reply(number, exchange.intent, exchange.symptoms, exchange.treatments)
        if exchange.intent == "diagnose" and random.random() >= spoken:
            answer = answer[:2]
        taught = find(exchange.question) if find else -1
        encoded.append(Encoded(tuple(grammar.question(exchange.question)), number, tuple(answer), taught))
    return encoded


def lengths(rows: Sequence[Encoded], multiple: int = 16) -> tuple[int, int]:
    """Padded lengths of the questions and of the answers of a batch."""
    wide = -(-max(len(row.question) for row in rows) // multiple) * multiple
    long = max(len(row.answer) for row in rows) - 1
    return wide, 1 if long <= 1 else -(-long // multiple) * multiple


def pad(rows: Sequence[Encoded], multiple: int = 16) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs ``question [B, S]``, ``answer [B, A]`` and targets ``condition [B]``, ``next [B, A]`` (0 = padding)."""
    wide, long = lengths(rows, multiple)
    question, answer = np.zeros((len(rows), wide), "int32"), np.zeros((len(rows), long), "int32")
    following = np.zeros((len(rows), long), "int32")
    for line, row in enumerate(rows):
        question[line, : len(row.question)] = row.question
        answer[line, : len(row.answer) - 1] = row.answer[:-1]
        following[line, : len(row.answer) - 1] = row.answer[1:]
    condition = np.array([row.condition for row in rows], "int32")
    return {"question": question, "answer": answer}, {"condition": condition, "next": following}


class Batches(keras.utils.PyDataset):
    """Batches of similar length; shuffled by ``(seed, epoch)`` when training.

    Args:
        steps: batches an epoch; 0 takes all. With fewer than all, epoch n continues where n − 1 ended.
        taught: gives what a teacher said of the rows, which then comes with each batch: ``[B, C]`` logits (as
            ``taught``), or several arrays by name.
    """

    def __init__(
        self,
        rows: Sequence[Encoded],
        batch: int,
        seed: int | None = None,
        steps: int = 0,
        taught: Callable[[Sequence[Encoded]], np.ndarray | Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        super().__init__()
        self.taught = taught
        self.rows, self.batch, self.seed, self.steps = rows, batch, seed, steps
        self.plan: list[np.ndarray] = []
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Plan the batches of an epoch."""
        full = max(1, -(-len(self.rows) // self.batch))
        steps = self.steps or full
        first = epoch * steps
        plan: list[np.ndarray] = []
        for cycle in range(first // full, (first + steps - 1) // full + 1):
            plan += self._cycle(cycle)
        offset = first % full
        self.plan = plan[offset : offset + steps]

    def _cycle(self, cycle: int) -> list[np.ndarray]:
        order = np.arange(len(self.rows))
        random = np.random.default_rng((self.seed or 0, cycle))
        if self.seed is not None:
            random.shuffle(order)
        # Neighbours of similar length within chunks of fifty batches: little padding, still well mixed.
        chunk = self.batch * 50
        batches: list[np.ndarray] = []
        for begin in range(0, len(order), chunk):
            part = order[begin : begin + chunk]
            sizes = [(len(self.rows[i].answer) > 2, len(self.rows[i].question)) for i in part]
            part = part[sorted(range(len(part)), key=lambda i: sizes[i])]
            batches += [part[i : i + self.batch] for i in range(0, len(part), self.batch)]
        if self.seed is not None:
            random.shuffle(batches)  # type: ignore[arg-type]
        return batches

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        rows = [self.rows[i] for i in self.plan[index]]
        x, y = pad(rows)
        if self.taught is None:
            return x, y
        said = self.taught(rows)
        return {**x, **(said if isinstance(said, Mapping) else {"taught": said})}, y

    def dataset(self) -> Any:
        """The planned batches as a ``tf.data.Dataset`` of free lengths.

        Keras guesses a ``PyDataset``'s shapes from its first batches, which fails when later ones are wider.
        """
        import tensorflow as tf

        signature = tuple(
            {name: tf.TensorSpec((None,) * array.ndim, array.dtype) for name, array in arrays.items()}
            for arrays in self[0]
        )

        def generate() -> Iterator[Any]:
            for index in range(len(self)):
                yield self[index]

        return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(2)


class Mixed(Batches):
    """Batches with as many unlabelled questions beside each as another set's batches hold, names begin with ``free_``.

    Args:
        labelled: gives each batch its exchanges.
        free: gives each batch its unlabelled questions and what a teacher said of them; as many batches.
    """

    def __init__(self, labelled: Batches, free: Batches) -> None:
        if len(free) < len(labelled):
            raise ValueError(f"mixed batches: {len(free)} unlabelled for {len(labelled)} labelled ones")
        self.labelled, self.free = labelled, free
        super().__init__(labelled.rows, labelled.batch, labelled.seed, labelled.steps, labelled.taught)

    def start_epoch(self, epoch: int) -> None:
        """Plan the batches of an epoch on both sides."""
        super().start_epoch(epoch)
        self.free.start_epoch(epoch)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        x, y = super().__getitem__(index)
        beside = {f"free_{name}": array for name, array in self.free[index][0].items()}
        return x | beside, y
