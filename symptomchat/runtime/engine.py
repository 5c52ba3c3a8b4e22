"""Prefill, decode and rank over the ``.tflite`` of a bundle.

In: token ids. Out: probabilities, novelty, and generated token ids with their log-probabilities. Needs numpy
and ai-edge-litert alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from symptomchat.errors import SymptomChatError
from symptomchat.runtime.decoding import Guide


@dataclass(frozen=True)
class Question:
    """A question after its single prefill."""

    length: int
    probabilities: np.ndarray
    novelty: float
    cache: dict[str, np.ndarray]


class Engine:
    """One model file, opened once; not safe for use from two threads at a time.

    Args:
        path: the ``.tflite``.
        threads: processor threads.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(str(path), num_threads=threads)
            interpreter.allocate_tensors()
            self._runners: dict[str, Any] = {
                name: interpreter.get_signature_runner(name) for name in ("rank", "prefill", "decode")
            }
        except (ValueError, RuntimeError) as error:
            raise SymptomChatError(
                f"{path}: is not a SymptomChat model file; make the bundle again"
            ) from error
        self._interpreter = interpreter
        self._asked: Question | None = None
        """The question whose cache the decoder holds."""
        details = self._runners["prefill"].get_input_details()
        self.question_tokens = int(details["tokens"]["shape"][1])
        caches = self._runners["decode"].get_input_details()
        self._answer_caches = {name: tuple(d["shape"]) for name, d in caches.items() if name[1:3] == "a_"}
        self.answer_tokens = next(iter(self._answer_caches.values()))[2]

    def _pad(self, ids: list[int]) -> dict[str, np.ndarray]:
        if not 0 < len(ids) <= self.question_tokens:
            raise ValueError(f"a question has 1 to {self.question_tokens} tokens, not {len(ids)}")
        tokens = np.zeros((1, self.question_tokens), "int32")
        tokens[0, : len(ids)] = ids
        return {"tokens": tokens, "length": np.array([len(ids)], "int32")}

    def rank(self, ids: list[int]) -> tuple[np.ndarray, float]:
        """Probabilities ``[C]`` and novelty of a question."""
        out = self._runners["rank"](**self._pad(ids))
        return out["probabilities"][0], float(out["novelty"][0])

    def prefill(self, ids: list[int]) -> Question:
        """Run a question into a cache."""
        out = self._runners["prefill"](**self._pad(ids))
        cache = {name: value for name, value in out.items() if name[:2] in ("k_", "v_")}
        return Question(len(ids), out["probabilities"][0], float(out["novelty"][0]), cache)

    def logits(self, question: Question, tokens: list[int]) -> np.ndarray:
        """Logits ``[len(tokens), V]`` after each of the given answer tokens (teacher forcing)."""
        cache = self._fresh(question)
        return np.stack([self._step(question, token, at, cache) for at, token in enumerate(tokens)])

    def _fresh(self, question: Question) -> dict[str, np.ndarray]:
        return question.cache | {
            name: np.zeros(shape, "float32") for name, shape in self._answer_caches.items()
        }

    def _step(self, question: Question, token: int, at: int, cache: dict[str, np.ndarray]) -> np.ndarray:
        given = cache | {
            "token": np.array([token], "int32"),
            "length": np.array([question.length], "int32"),
            "step": np.array([at], "int32"),
        }
        out = self._decode(question, given)
        cache.update({name: value for name, value in out.items() if name != "logits"})
        return np.asarray(out["logits"][0])

    def _decode(self, question: Question, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call of the signature; what a question's cache was copied to in the step before is not copied again.

        The library's own call copies every input each time, of which the question's cache is three quarters. The
        inputs of a signature stay as they are until they are set: no other signature shares their memory.
        """
        runner = self._runners["decode"]
        if self._asked is not question:
            self._asked = None
            found: dict[str, np.ndarray] = runner(**given)
            self._asked = question
            return found
        wrapper, graph = runner._interpreter_wrapper, runner._subgraph_index
        for name, value in given.items():
            if name not in question.cache:
                wrapper.SetTensor(runner._inputs[name], value, graph)
        wrapper.Invoke(graph)
        return {name: wrapper.GetTensor(tensor, graph) for name, tensor in runner._outputs}

    def generate(
        self, question: Question, condition: int, end: int, guide: Guide | None = None
    ) -> Iterator[tuple[int, float]]:
        """Greedy decoding after a condition token: ``(token, log-probability)`` until ``end``.

        Args:
            guide: chooses each token from the logits; without it the likeliest of all tokens is taken.

        Yields:
            log-probabilities in the model's own distribution over all tokens, whatever the guide leaves out or adds.
        """
        cache, token = self._fresh(question), condition
        for at in range(self.answer_tokens):
            logits = self._step(question, token, at, cache)
            token = int(logits.argmax()) if guide is None else guide.choose(logits)
            highest = logits.max()
            yield token, float(logits[token] - highest - np.log(np.exp(logits - highest).sum()))
            if token == end:
                return
