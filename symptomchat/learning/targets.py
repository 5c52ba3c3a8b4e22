"""Soft targets of a large teacher, computed once and small enough to ship.

In: a trained teacher and questions. Out: for each question the teacher's likeliest conditions with their
probabilities, found again by a hash of the question's text. A run whose exchanges are found here needs no
teacher of its own: its student learns from these distributions (Hinton et al. 2015) at the cost of the
student's step alone.

``python -m symptomchat.learning.targets models/full --recipe laptop`` writes ``models/targets/``.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from symptomchat.errors import SymptomChatError
from symptomchat.files import MODELS, atomic, read_json, sha256, write_json

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


class StoredTeacher(keras.Model):
    """Stands for a teacher whose distributions come with the batch, as ``taught [B, C]`` logits."""

    def __init__(self) -> None:
        super().__init__(name="stored_teacher")
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Pass on what was stored."""
        return {"conditions": inputs["taught"]}


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
