"""Soft targets of a large teacher, computed once and small enough to keep.

In: a trained teacher and questions. Out: for each question the teacher's likeliest conditions with their
probabilities, found again by a hash of the question's text. A run whose exchanges are found here needs no
teacher of its own: its student learns from these distributions (Hinton et al. 2015) at the cost of the
student's step alone. ``SoftTargets`` are those that ship; ``Lessons`` say more (answers, hidden states) of exchanges
in a fixed order and serve comparisons that repeat the same steps.

``python -m symptomchat.learning.targets models/full --recipe laptop`` writes ``models/targets/``.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from symptomchat.errors import SymptomChatError
from symptomchat.files import MODELS, atomic, read_json, sha256, write_json
from symptomchat.learning.batches import Encoded, lengths, pad
from symptomchat.learning.distillation import Tap
from symptomchat.models.student import PrefixLM

KEPT = 8
"""Conditions stored for each question; what the teacher gives the others is spread evenly over them."""
FOLDER = MODELS / "targets"


def question_hash(text: str) -> int:
    """64 bits of a text."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )


@dataclass(frozen=True)
class SoftTargets:
    """Distributions over conditions by question.

    Attributes:
        names: identifiers of the conditions; ``""`` stands for none of them.
        hashes: ``[N]`` uint64, ascending.
        best: ``[N, KEPT]`` numbers into ``names``.
        shares: ``[N, KEPT]`` uint16, probabilities times 65,535.
    """

    names: tuple[str, ...]
    hashes: np.ndarray
    best: np.ndarray
    shares: np.ndarray

    def find(self, text: str) -> int:
        """Row of a question, or −1."""
        wanted = np.uint64(question_hash(text))
        at = int(np.searchsorted(self.hashes, wanted))
        return at if at < len(self.hashes) and self.hashes[at] == wanted else -1

    def logits(self, rows: np.ndarray, numbers: np.ndarray, conditions: int) -> np.ndarray:
        """Log-probabilities ``[len(rows), conditions]``.

        Args:
            rows: found rows (no −1).
            numbers: for each of ``names`` its number among the condition tokens, −1 where it is unknown.
        """
        out = np.zeros((len(rows), conditions), "float64")
        for line, row in enumerate(rows):
            at = numbers[self.best[row]]
            known = at >= 0
            out[line, at[known]] = self.shares[row][known] / 65535.0
        rest = np.maximum(1.0 - out.sum(axis=1, keepdims=True), 1e-4)
        # What is left belongs to the conditions that are not among the kept ones.
        out += rest / conditions
        return np.log(out / out.sum(axis=1, keepdims=True)).astype("float32")


def save(targets: SoftTargets, folder: Path, manifest: dict[str, Any]) -> None:
    """Write ``targets.npz`` and a manifest with its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "targets.npz") as temporary, temporary.open("wb") as handle:
        np.savez_compressed(
            handle, names=np.array(targets.names), hashes=targets.hashes, best=targets.best, shares=targets.shares
        )  # fmt: skip
    write_json(folder / "manifest.json", {**manifest, "sha256": sha256(folder / "targets.npz")})


def load_targets(folder: Path = FOLDER) -> SoftTargets | None:
    """The stored targets, or None where there are none.

    Raises:
        SymptomChatError: the file is not the one that its manifest names.
    """
    path = folder / "targets.npz"
    if not path.is_file():
        return None
    if read_json(folder / "manifest.json").get("sha256") != sha256(path):
        raise SymptomChatError(f"{path}: is damaged; restore it with git checkout {folder}")
    with np.load(path, allow_pickle=False) as stored:
        return SoftTargets(
            tuple(str(name) for name in stored["names"]), stored["hashes"], stored["best"], stored["shares"]
        )


def make(texts: Sequence[str], probabilities: np.ndarray, names: Sequence[str]) -> SoftTargets:
    """Keep the likeliest conditions of each text.

    Args:
        probabilities: ``[N, C]``.
        names: ``[C]`` identifiers, the first that of none.
    """
    hashes = np.array([question_hash(text) for text in texts], "uint64")
    _, first = np.unique(hashes, return_index=True)
    best = np.argsort(-probabilities[first], axis=1)[:, :KEPT].astype("uint16")
    shares = np.round(np.take_along_axis(probabilities[first], best, axis=1) * 65535).astype("uint16")
    return SoftTargets(tuple(names), hashes[first], best, shares)


@dataclass(frozen=True)
class Lessons:
    """What a teacher says of encoded exchanges, in their order; distributions are softened and cut to the likeliest.

    Attributes:
        condition_best, condition_shares: ``[N, K]`` numbers of the likeliest conditions and their probabilities.
        token_best, token_shares: ``[P, K]``, the same for the positions of all answers, one exchange after another.
        begins: ``[N + 1]`` first position of each exchange.
        features: ``[N, L, hidden]`` mean over the question of the states after some of the teacher's blocks.
    """

    condition_best: np.ndarray
    condition_shares: np.ndarray
    token_best: np.ndarray
    token_shares: np.ndarray
    begins: np.ndarray
    features: np.ndarray

    def arrays(self, rows: Sequence[Encoded], names: Collection[str]) -> dict[str, np.ndarray]:
        """The arrays of a batch, each row found by its ``taught``.

        Args:
            names: any of ``conditions``, ``tokens`` and ``features``.
        """
        at = np.array([row.taught for row in rows])
        found: dict[str, np.ndarray] = {}
        if "conditions" in names:
            found["condition_best"] = self.condition_best[at].astype("int32")
            found["condition_shares"] = self.condition_shares[at].astype("float32")
        if "tokens" in names:
            shape = (len(rows), lengths(rows)[1], self.token_best.shape[1])
            found["token_best"], found["token_shares"] = np.zeros(shape, "int32"), np.zeros(shape, "float32")
            for line, row in enumerate(at):
                own = slice(self.begins[row], self.begins[row + 1])
                count = own.stop - own.start
                found["token_best"][line, :count] = self.token_best[own]
                found["token_shares"][line, :count] = self.token_shares[own]
        if "features" in names:
            found["features"] = self.features[at].astype("float32")
        return found

    def save(self, path: Path) -> None:
        """Write an ``.npz``."""
        with atomic(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> Lessons:
        """The inverse of ``save``."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(**stored)


def teach(
    model: PrefixLM,
    rows: Sequence[Encoded],
    temperature: float,
    kept: tuple[int, int] = (32, 16),
    blocks: Sequence[int] = (),
    batch: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> Lessons:
    """Ask a teacher once about every exchange.

    Args:
        temperature: by which the logits are divided before the likeliest are kept.
        kept: how many conditions, and how many tokens of each position.
        blocks: whose states are averaged over the question.
        progress: told the number of exchanges that are done.
    """
    import tensorflow as tf

    kept = (min(kept[0], model.shape_.conditions), min(kept[1], model.shape_.text_vocabulary))
    tap = Tap(model, blocks)

    def outputs(x: dict[str, Any]) -> dict[str, Any]:
        found = model(x, training=False)
        conditions = tf.math.top_k(tf.nn.softmax(found["conditions"] / temperature), kept[0])
        tokens = tf.math.top_k(tf.nn.softmax(found["tokens"] / temperature), kept[1])
        states = tap.pooled(x["question"])
        empty = tf.zeros((tf.shape(x["question"])[0], 0, model.shape_.hidden))
        return {
            "condition_best": conditions.indices, "condition_shares": conditions.values,
            "token_best": tokens.indices, "token_shares": tokens.values,
            "features": tf.stack(states, axis=1) if states else empty,
        }  # fmt: skip

    matrix = tf.TensorSpec((None, None), tf.int32)
    ask = tf.function(outputs, input_signature=[{"question": matrix, "answer": matrix}], autograph=False)
    counts = [len(row.answer) - 1 for row in rows]
    begins = np.concatenate([[0], np.cumsum(counts)]).astype("int64")
    sizes = {"condition": (len(rows), kept[0]), "token": (int(begins[-1]), kept[1])}
    arrays: dict[str, np.ndarray] = {}
    for name, size in sizes.items():
        arrays[f"{name}_best"], arrays[f"{name}_shares"] = np.zeros(size, "uint16"), np.zeros(size, "float16")
    arrays["features"] = np.zeros((len(rows), len(blocks), model.shape_.hidden), "float16")
    order = sorted(range(len(rows)), key=lambda i: (counts[i], len(rows[i].question)))
    for begin in range(0, len(order), batch):
        part = order[begin : begin + batch]
        x, _ = pad([rows[i] for i in part])
        found = {name: np.asarray(value) for name, value in ask(x).items()}
        for name in ("condition_best", "condition_shares", "features"):
            arrays[name][part] = found[name]
        for line, at in enumerate(part):
            for name in ("token_best", "token_shares"):
                arrays[name][begins[at] : begins[at + 1]] = found[name][line, : counts[at]]
        progress(begin + len(part))
    tap.close()
    return Lessons(begins=begins, **arrays)


class StoredTeacher(keras.Model):
    """Stands for a teacher whose distributions come with the batch: ``taught [B, C]`` logits, or ``Lessons``."""

    def __init__(self) -> None:
        super().__init__(name="stored_teacher")
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Pass on what was stored."""
        if "taught" in inputs:
            return {"conditions": inputs["taught"]}
        return {name: value for name, value in inputs.items() if name not in ("question", "answer")}


def main(arguments: list[str] | None = None) -> None:
    """Rank the exchanges of a recipe with the teacher of a finished run."""
    parser = argparse.ArgumentParser(description="store a teacher's soft targets for a recipe's exchanges")
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--recipe", default="laptop")
    parser.add_argument("--output", type=Path, default=FOLDER)
    parsed = parser.parse_args(arguments)
    from symptomchat.corpus.knowledge import load_knowledge
    from symptomchat.corpus.narratives import Generator
    from symptomchat.corpus.split import split_by_group
    from symptomchat.evaluation.baselines import question_probabilities
    from symptomchat.pipeline import Options, Run, load_model
    from symptomchat.recipe import load_recipe

    recipe = load_recipe(parsed.recipe)
    run = Run(recipe, Options(parsed.run, parsed.run / "report"))
    teacher = load_model(run, "teacher")
    exchanges = list(Generator(load_knowledge(), recipe.data).all(recipe.seed))
    training, _ = split_by_group(exchanges, lambda e: e.group, recipe.data.train_share, recipe.seed)
    texts = list(dict.fromkeys(e.question for e in training))
    probabilities = question_probabilities(teacher, [run.grammar.question(text) for text in texts])
    names = ["", *(c.id for c in run.corpus.knowledge.conditions)]
    save(
        make(texts, probabilities, names),
        parsed.output,
        {
            "what": "likeliest conditions of the questions of a recipe, by its teacher",
            "made_by": f"python -m symptomchat.learning.targets {parsed.run.name} --recipe {parsed.recipe}",
            "teacher": read_json(parsed.run / "work" / "teacher.json"),
            "questions": len(texts),
        },
    )


if __name__ == "__main__":
    main()
