"""What each compression step is worth: ``python benchmarks/compression.py --run FOLDER --suite FILE [--suite FILE]``.

Reads the stages of a finished run (``models/<recipe>`` with its ``work/``) and measures, through exported files on
one thread:

- the family: the teacher, the distilled and the pruned student, and the teacher cut to several sizes by importance
  without recovery, each in every precision; the architecture of the talk's demo for size and speed;
- one model in int8 with calibrated activations, which is kept in the table though it may fail: every operation, the
  matrix products alone, and what TensorFlow's own converter makes of it;
- one-shot magnitude sparsity of the distilled student. One-shot is the lower bound: a schedule that prunes while
  training goes on, as the run's own does (its row stands beside them), recovers what one-shot loses.

With ``--heads`` it measures instead how quality falls with the attention heads and neurons kept, without recovery:
least important first, against random choice (three seeds) and against smallest weights first.

Every model ranks with the run's shift of the prior, so that rows differ by compression alone. Writes
``compression.json``, ``quantization.json``, ``heads.json`` and figures into ``docs/results/``; a row that was measured
before with the same inputs is not measured again, so an interrupted benchmark goes on. ``--quick`` takes sixty cases
of each suite and one cut, for a look, and writes into ``docs/results/quick/`` unless told otherwise.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from phone import DEMO, DEMO_SHAPE, DEMO_TOKENS, child, demo_file
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from symptomchat.errors import SymptomChatError
from symptomchat.evaluation.suites import Case, bootstrap_interval, load_suite
from symptomchat.files import fingerprint, read_json, sha256, write_json
from symptomchat.phone.bundle import PRECISIONS
from symptomchat.pipeline import Options, Run, load_model
from symptomchat.recipe import ModelPart, Recipe, load_recipe

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "compression.json"
VERSION = 1
"""Raised when what a row means changes, so that old rows are measured again."""
CUTS = ((10, 1280), (6, 768), (4, 512), (2, 256))
"""Heads and neurons of each layer that the cuts keep, besides the student's own."""
QUICK_CASES = 60
SPARSITIES: tuple[float | str, ...] = (0.0, 0.3, 0.5, 0.7, "2:4")
HEADS_KEPT = tuple(range(12, 1, -1))
NEURONS_KEPT = (1536, 1280, 1024, 768, 512, 256, 128)
SEEDS = (0, 1, 2)
CALIBRATION_ROWS = 24
STATIC = {
    "int8 static": "all",
    "int8 static, products alone": "products",
    "int8 static by TFLiteConverter": "converter",
}
"""Which operations take integer activations by litert-quantizer, or the converter's own way."""
OWN = "own validation"
Scores = Sequence[np.ndarray]
console = Console(width=150)


# --- inputs ------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """A run, the suites and where results go."""

    run: Run
    suites: dict[str, list[Case]]
    output: Path

    @cached_property
    def marks(self) -> str:
        """Changes with everything that every row depends on, besides the model itself."""
        return fingerprint(
            [
                VERSION,
                sha256(self.run.work / "tokenizer.json"),
                {name: [(case.text, case.label) for case in cases] for name, cases in self.suites.items()},
            ]
        )

    @cached_property
    def questions(self) -> dict[str, list[list[int]]]:
        """Encoded texts of each suite."""
        return {name: [self.run.grammar.question(c.text) for c in cs] for name, cs in self.suites.items()}

    @cached_property
    def wanted(self) -> dict[str, list[int]]:
        """Number of each case's condition; −1 where the knowledge does not hold its label."""
        find = self.run.corpus.knowledge.find
        return {
            name: [self.run.order.get(find(case.label) or "", -1) for case in cases]
            for name, cases in self.suites.items()
        }

    @cached_property
    def common(self) -> np.ndarray:
        """How common each condition is (1–5) less 3, ``[C]``, none first."""
        return np.array([0, *(c.common - 3 for c in self.run.corpus.knowledge.conditions)], "float32")

    @cached_property
    def spoken(self) -> list[Any]:
        """A few validation exchanges, for the time of a decoded token."""
        return self.run.encoded("validation", 4)

    def model(self, name: str, shifted: bool = True) -> Any:
        """A stage's model with the shift of the prior, which the run adds after the last stage only."""
        import keras

        keras.mixed_precision.set_global_policy("float32")
        model = load_model(self.run, name)
        if not shifted:
            return model
        asked = self.run.recipe.prior_shift
        bias = np.asarray(model.condition_bias)
        if name == "pruned" and asked:
            with np.load(self.run.work / "student.npz") as arrays:
                moved = bias - arrays["condition_bias"]
            slope = float(moved @ self.common / (self.common @ self.common))
            asked = 0.0 if slope > asked / 2 else asked
        model.condition_bias.assign(bias + asked * self.common)
        return model

    def centroids(self, model: Any) -> np.ndarray:
        """The run's own, or vectors of the same shape: novelty is not measured here, its time and bytes are."""
        path = self.run.work / "centroids.npy"
        if path.is_file():
            return np.asarray(np.load(path), "float32")
        rows = np.asarray(model.condition_embedding)
        return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12), "float32")


def open_run(folder: Path, recipe: str | None) -> Run:
    """A finished run for reading.

    Raises:
        SymptomChatError: the folder holds no stages, or they are of another recipe.
    """
    work = folder / "work"
    for name in (
        "teacher.npz", "student.npz", "pruned.npz", "importance.json", "exchanges.jsonl", "knowledge.json", "tokenizer.json"
    ):  # fmt: skip
        if not (work / name).is_file():
            raise SymptomChatError(f"{work / name}: is missing; name the folder of a finished run")
    manifest = folder / "manifest.json"
    if recipe is None and manifest.is_file() and "recipe" in (values := read_json(manifest)):
        used = Recipe.model_validate(values["recipe"])
    else:
        used = load_recipe(recipe or "full")
    shape = read_json(work / "student.json")
    if shape["question_tokens"] != used.student.question_tokens:
        raise SymptomChatError(
            f"{work / 'student.json'}: is not of recipe '{used.name}'; name its own with --recipe"
        )
    return Run(used, Options(folder, folder / "report"))


def evenly(cases: list[Any], limit: int) -> list[Any]:
    """At most ``limit`` cases, taken evenly over the whole; 0 takes all."""
    if not limit or len(cases) <= limit:
        return cases
    return [cases[round(at)] for at in np.linspace(0, len(cases) - 1, limit)]


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar that is told the title of each row as it is done."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
        transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=total)
        yield lambda title: bar.update(task, description=title, advance=1)


class Store:
    """Rows of one JSON file, found again by their keys and written after each."""

    def __init__(self, path: Path, section: str) -> None:
        self.path, self.section = path, section
        self.known = {row["key"]: row for row in self._read().get(section, []) if "key" in row}
        self.rows: list[dict[str, Any]] = []

    def _read(self) -> dict[str, Any]:
        return dict(read_json(self.path)) if self.path.is_file() else {}

    def row(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a key: measured before, or now."""
        found = self.known.get(key) or {**make(), "key": key}
        self.known[key] = found
        self.rows.append(found)
        # Rows that are still to come stay in the file until the end.
        later = [row for name, row in self.known.items() if all(name != own["key"] for own in self.rows)]
        write_json(self.path, self._read() | {self.section: self.rows + later})
        return found

    def finish(self, **values: Any) -> None:
        """Drop rows that no longer belong here and add what the file says besides."""
        write_json(self.path, self._read() | {self.section: self.rows} | values)


# --- measuring one file ------------------------------------------------------------------------------------


def measure(bench: Bench, content: bytes, tolerant: bool = False) -> tuple[dict[str, Any], list[int]]:
    """Size, speed and quality of a ``.tflite``, and the first condition of every case.

    Args:
        tolerant: a file that ranks but cannot decode says so in its row instead of ending the benchmark.
    """
    from symptomchat.phone.parity import token_milliseconds
    from symptomchat.runtime.engine import Engine

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        engine = Engine(path, threads=1)
        suites, times, firsts = {}, [], []
        for name, questions in bench.questions.items():
            engine.rank(questions[0])
            orders = []
            for ids in questions:
                start = time.perf_counter()
                probabilities, _ = engine.rank(ids)
                times.append(1000 * (time.perf_counter() - start))
                orders.append(np.argsort(-probabilities[1:], kind="stable")[:5] + 1)
            firsts += [int(order[0]) for order in orders]
            suites[name] = quality(orders, bench.wanted[name])
        token, failure = 0.0, dict[str, str]()
        try:
            token = token_milliseconds(engine, bench.run.grammar, bench.spoken)
        except (RuntimeError, ValueError) as error:
            if not tolerant:
                raise
            failure = {"failed": f"ranks, but cannot decode ({str(error).strip().splitlines()[0][:160]})"}
    row = {
        "bytes": len(content),
        "gzip bytes": len(gzip.compress(content, 6)),
        "ms per rank": round(float(np.median(times)), 2),
        "ms per token": None if failure else round(token, 3),
        "suites": suites,
        **failure,
    }
    return row, firsts


def quality(orders: Sequence[np.ndarray], wanted: Sequence[int]) -> dict[str, Any]:
    """Top-1, top-3 and top-5 with 95 % bootstrap intervals."""
    hits = {k: [want in order[:k] for order, want in zip(orders, wanted)] for k in (1, 3, 5)}
    return {
        "cases": len(wanted),
        "top": {str(k): round(float(np.mean(found)), 4) for k, found in hits.items()},
        "interval": {
            str(k): [round(value, 4) for value in bootstrap_interval(found)] for k, found in hits.items()
        },
    }


def exported(bench: Bench, model: Any) -> bytes:
    """The float32 file of a model."""
    from symptomchat.phone.export import export_tflite

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        export_tflite(model, path, bench.centroids(model))
        return path.read_bytes()


class Member:
    """One model of the family; exported when the first of its rows must be measured."""

    def __init__(
        self, bench: Bench, title: str, source: str, cut: tuple[int, int, int] | None = None,
        change: float | str | None = None,
    ) -> None:  # fmt: skip
        self.bench, self.title, self.source, self.cut, self.change = bench, title, source, cut, change
        self._firsts: list[int] | None = None

    def key(self, precision: str) -> str:
        """Changes with the weights, the cut, the precision and the suites."""
        work = self.bench.run.work
        weights = [sha256(work / f"{self.source}.npz"), self.bench.run.recipe.prior_shift]
        used = sha256(work / "importance.json") if self.cut else ""
        return fingerprint([weights, self.cut, used, self.change, precision, self.bench.marks])

    @cached_property
    def model(self) -> Any:
        """The Keras model, cut or thinned."""
        from symptomchat.learning.distillation import slim

        model = self.bench.model(self.source)
        if self.cut:
            heads, neurons = importances(self.bench.run)
            part = ModelPart(layers=self.cut[0], heads=self.cut[1], neurons=self.cut[2])
            model = slim(model, part, heads, neurons)
        if self.change is not None:
            thin(model, self.change)
        return model

    @cached_property
    def content(self) -> bytes:
        """The float32 file."""
        return exported(self.bench, self.model)

    def firsts(self) -> list[int]:
        """First condition of every case by the float32 file."""
        if self._firsts is None:
            self._firsts = measure(self.bench, self.content)[1]
        return self._firsts

    def measured(self, precision: str, content: bytes, tolerant: bool = False) -> dict[str, Any]:
        """The row of one of its files."""
        row, firsts = measure(self.bench, content, tolerant)
        if precision == "fp32":
            self._firsts = firsts
        same = float(np.mean([a == b for a, b in zip(firsts, self.firsts())]))
        shape = self.model.shape_
        return {
            "model": self.title, "precision": precision, "heads": list(shape.heads), "neurons": list(shape.neurons),
            "parameters": self.model.parameters(), "same first as fp32": round(same, 4), **row,
        }  # fmt: skip

    def row(self, precision: str) -> dict[str, Any]:
        """Quantize and measure."""
        from symptomchat.phone.export import feed_forward
        from symptomchat.phone.quantization import quantize

        return self.measured(precision, quantize(self.content, precision, feed_forward(self.model)))

    def drop(self) -> None:
        """Give the memory of the model back."""
        import keras

        self.__dict__.pop("model", None)
        self.__dict__.pop("content", None)
        keras.utils.clear_session()


def importances(run: Run) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Importance of each head and each neuron by layer, as the run measured it."""
    stored = read_json(run.work / "importance.json")
    return [np.array(h) for h in stored["heads"]], [np.array(n) for n in stored["neurons"]]


# --- sparsity ----------------------------------------------------------------------------------------------


def thinned(kernel: np.ndarray, amount: float | str) -> np.ndarray:
    """A kernel ``[in, out]`` with its smallest weights set to zero.

    Args:
        amount: share of zeros, or ``2:4`` for two zeros among each four weights into the same output.
    """
    if amount == "2:4":
        rows = len(kernel) // 4 * 4
        groups = np.abs(kernel[:rows]).reshape(-1, 4, kernel.shape[1])
        keep = np.ones(kernel.shape, bool)
        # Ranks within each four: the two smallest go.
        keep[:rows] = (groups.argsort(axis=1).argsort(axis=1) >= 2).reshape(rows, -1)
        return np.where(keep, kernel, 0.0).astype(kernel.dtype)
    zeros = round(float(amount) * kernel.size)
    out = kernel.copy().reshape(-1)
    out[np.argsort(np.abs(out), kind="stable")[:zeros]] = 0.0
    return out.reshape(kernel.shape)


def thin(model: Any, amount: float | str) -> None:
    """Thin every kernel that the run's own schedule would prune."""
    from symptomchat.learning.pruning import prunable

    for kernel in prunable(model):
        kernel.assign(thinned(np.asarray(kernel), amount))


# --- full-integer int8 -------------------------------------------------------------------------------------


def static_int8(bench: Bench, member: Member, way: str) -> bytes:
    """Int8 with calibrated activations, in one of the ``STATIC`` ways."""
    from symptomchat.phone.export import converted
    from symptomchat.phone.quantization import quantize_static, shared

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.tflite"
        path.write_bytes(member.content)
        inputs = calibration_inputs(bench, path)
    if way == "converter":
        return shared(converted(member.model, bench.centroids(member.model), inputs))
    return quantize_static(member.content, inputs, way)


def calibration_inputs(bench: Bench, path: Path) -> dict[str, list[dict[str, np.ndarray]]]:
    """Real inputs of each signature: questions, and the steps of their answers with the caches they meet."""
    from symptomchat.runtime.engine import Engine

    engine = Engine(path)
    inputs: dict[str, list[dict[str, np.ndarray]]] = {"rank": [], "prefill": [], "decode": []}
    runner = engine._runners["decode"]
    shapes = {
        name: detail["shape"] for name, detail in runner.get_input_details().items() if name[1:3] == "a_"
    }
    for row in bench.run.encoded("calibration", CALIBRATION_ROWS):
        ids = list(row.question)
        padded = np.zeros((1, engine.question_tokens), "int32")
        padded[0, : len(ids)] = ids
        asked = {"tokens": padded, "length": np.array([len(ids)], "int32")}
        inputs["rank"].append(asked)
        inputs["prefill"].append(asked)
        cache = engine.prefill(ids).cache | {name: np.zeros(s, "float32") for name, s in shapes.items()}
        for step, token in enumerate(row.answer[:4]):
            step_inputs = {
                "token": np.array([token], "int32"), "length": np.array([len(ids)], "int32"),
                "step": np.array([step], "int32"), **cache,
            }  # fmt: skip
            inputs["decode"].append(step_inputs)
            out = runner(**step_inputs)
            cache = cache | {name: value for name, value in out.items() if name != "logits"}
    return inputs


def static_rows(bench: Bench, member: Member) -> list[dict[str, Any]]:
    """What full-integer int8 gives, failure included."""
    rows = []
    for precision, way in STATIC.items():
        try:
            content = static_int8(bench, member, way)
            row = member.measured(precision, content, tolerant=True)
        except Exception as error:  # the quantizer and the interpreter raise many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            rows.append({"model": member.title, "precision": precision, "failed": reason})
            continue
        if row["same first as fp32"] < 0.5:
            decode = f"; {row['failed']}" if "failed" in row else ""
            row["failed"] = f"fewer than half of the questions keep their first condition{decode}"
        rows.append(row)
    return rows


# --- the parts ---------------------------------------------------------------------------------------------


def family(bench: Bench, quick: bool) -> list[Member]:
    """The models of the table, from the teacher to the smallest cut."""
    from symptomchat.models.student import Shape

    small, large = (
        Shape.from_json(read_json(bench.run.work / f"{name}.json")) for name in ("student", "teacher")
    )
    start = "pretrained start" if bench.run.targets is not None else "teacher"
    own = (small.layers, max(small.heads), max(small.neurons))
    others = [
        (large.layers, heads, neurons)
        for heads, neurons in CUTS
        if heads < max(large.heads) and neurons < max(large.neurons)
    ]
    cuts = [own] if quick else sorted({own, *others}, key=lambda cut: (-cut[1], -cut[2]))
    return [
        Member(bench, start, "teacher"),
        Member(bench, "student, distilled", "student"),
        Member(bench, "student, pruned", "pruned"),
        *(
            Member(bench, f"cut alone: {heads} heads, {neurons} neurons", "teacher", (layers, heads, neurons))
            for layers, heads, neurons in cuts
        ),
    ]


def run_family(bench: Bench, quick: bool) -> list[dict[str, Any]]:
    """Every model of the family in every precision."""
    store, members = Store(bench.output, "family"), family(bench, quick)
    with progress(len(members) * len(PRECISIONS)) as done:
        for member in members:
            for precision in PRECISIONS:
                store.row(member.key(precision), lambda m=member, p=precision: m.row(p))  # type: ignore[misc]
                done(f"{member.title}, {precision}")
            member.drop()
    sources = bench.run.work / "sources.json"
    store.finish(
        recipe=bench.run.recipe.name,
        commit=read_json(sources).get("commit", "") if sources.is_file() else "",
        prior_shift=bench.run.recipe.prior_shift,
        threads=1,
    )
    return store.rows


def run_demo(bench: Bench) -> dict[str, Any]:
    """Size and speed of the demo's architecture."""

    def make() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "demo.tflite"
            parameters = demo_file(path)
            found = child("demo", str(path), "20")
            content = path.read_bytes()
        row = {"model": DEMO, "parameters": parameters, "bytes": len(content)}
        return row | {"gzip bytes": len(gzip.compress(content, 6))} | found

    store = Store(bench.output, "demo")
    with progress(1) as done:
        done(DEMO)
        row = store.row(fingerprint([DEMO_SHAPE, DEMO_TOKENS, VERSION]), make)
    store.finish()
    return row


def run_sparsity(bench: Bench) -> list[dict[str, Any]]:
    """One-shot magnitude sparsity, and what the run's own schedule reached."""
    from symptomchat.learning.pruning import sparsity

    members = [
        Member(bench, f"one-shot {amount if amount == '2:4' else format(amount, '.0%')}", "student", None, amount)
        for amount in SPARSITIES
    ]  # fmt: skip
    members.append(Member(bench, "the run's own schedule", "pruned"))
    precisions = ("fp32", bench.run.recipe.ships)
    store = Store(bench.output, "sparsity")
    with progress(len(members) * len(precisions)) as done:
        for member in members:
            for precision in precisions:

                def make(member: Member = member, precision: str = precision) -> dict[str, Any]:
                    row = member.row(precision)
                    return {"model": row.pop("model"), "zeros": round(sparsity(member.model), 4), **row}

                store.row(fingerprint(["sparsity", member.key(precision)]), make)
                done(f"{member.title}, {precision}")
            member.drop()
    store.finish()
    return store.rows


def run_quantization(bench: Bench, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The precisions of the teacher and of the model that ships, and full-integer int8 of the latter."""
    member = Member(bench, "student, pruned", "pruned")
    store = Store(bench.output.with_name("quantization.json"), "static")
    key = fingerprint(["static", STATIC, CALIBRATION_ROWS, member.key("fp32")])
    with progress(1) as done:
        done("int8 with calibrated activations")
        held = store.row(key, lambda: {"rows": static_rows(bench, member)})
    titles = (rows[0]["model"], member.title)
    table = [row for row in rows if row["model"] in titles] + held["rows"]
    store.finish(rows=[{name: value for name, value in row.items() if name != "key"} for row in table])
    return table


# --- heads and neurons -------------------------------------------------------------------------------------


class Masked:
    """A teacher of which heads and neurons can be switched off; the same as cutting them out.

    A head reaches the rest of the model through its rows of ``merge`` alone, a neuron through its row of
    ``contract``: with those at zero the outputs are the smaller model's.
    """

    def __init__(self, model: Any, questions: dict[str, list[list[int]]]) -> None:
        self.model, self.questions = model, questions
        self.kernels = {
            "heads": [block.merge.kernel for block in model.blocks],
            "neurons": [block.contract.kernel for block in model.blocks],
        }
        self.whole = {
            what: [np.asarray(kernel) for kernel in kernels] for what, kernels in self.kernels.items()
        }
        self.size = {"heads": model.shape_.head_size, "neurons": 1}

    def count(self, what: str) -> int:
        """Heads or neurons of the first layer."""
        return len(self.whole[what][0]) // self.size[what]

    def weights(self, what: str) -> list[np.ndarray]:
        """Magnitude of each head or neuron: the norm of all weights that lead into and out of it, by layer."""
        scores = []
        for block, out in zip(self.model.blocks, self.whole[what]):
            into = (block.query, block.key, block.value) if what == "heads" else (block.expand,)
            squares = (out**2).sum(axis=1)
            for dense in into:
                squares = squares + (np.asarray(dense.kernel) ** 2).sum(axis=0)
            scores.append(np.sqrt(squares.reshape(-1, self.size[what]).sum(axis=1)))
        return scores

    def keep(self, what: str, scores: Sequence[np.ndarray], kept: int) -> None:
        """Switch off all but the ``kept`` highest of each layer."""
        for kernel, whole, score in zip(self.kernels[what], self.whole[what], scores):
            mask = np.zeros(len(score), bool)
            mask[np.argsort(-score, kind="stable")[:kept]] = True
            kernel.assign(whole * np.repeat(mask, self.size[what])[:, None])

    def restore(self) -> None:
        """Switch everything on."""
        for what, kernels in self.kernels.items():
            for kernel, whole in zip(kernels, self.whole[what]):
                kernel.assign(whole)

    @cached_property
    def forward(self) -> Callable[[np.ndarray], np.ndarray]:
        """Logits of the conditions; traced once for all masks."""
        import tensorflow as tf

        none = self.model.shape_.text_vocabulary
        traced = tf.function(
            lambda ids: self.model({"question": ids, "answer": tf.fill((tf.shape(ids)[0], 1), none)}, training=False)[
                "conditions"
            ],
            input_signature=[tf.TensorSpec((None, None), tf.int32)],
        )  # fmt: skip
        return lambda ids: np.asarray(traced(tf.constant(ids)))

    def logits(self, place: str, batch: int = 32) -> np.ndarray:
        """Logits ``[N, C]`` of a set of questions."""
        questions = self.questions[place]
        out = np.zeros((len(questions), self.model.shape_.conditions), "float32")
        order = sorted(range(len(questions)), key=lambda i: len(questions[i]))
        for begin in range(0, len(order), batch):
            part = order[begin : begin + batch]
            ids = np.zeros((len(part), len(questions[part[-1]])), "int32")
            for line, at in enumerate(part):
                ids[line, : len(questions[at])] = questions[at]
            out[part] = self.forward(ids)
        return out


def top_three(logits: np.ndarray, wanted: Sequence[int]) -> float:
    """Share of the questions whose condition is among the first three; none is not ranked."""
    order = np.argsort(-logits[:, 1:], axis=1, kind="stable")[:, :3] + 1
    return round(float(np.mean([want in row for want, row in zip(wanted, order)])), 4)


def ways(masked: Masked, what: str, important: Scores) -> list[tuple[str, int | None, list[np.ndarray]]]:
    """Name, seed and scores of each way to choose what stays."""
    layers, count = len(important), masked.count(what)
    chosen: list[tuple[str, int | None, list[np.ndarray]]] = [
        ("importance", None, list(important)),
        ("magnitude", None, masked.weights(what)),
    ]
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        chosen.append(("random", seed, [random.random(count) for _ in range(layers)]))
    return chosen


def head_questions(bench: Bench, rows: int) -> tuple[dict[str, list[list[int]]], dict[str, list[int]]]:
    """Questions and their conditions by place: the run's own validation exchanges, then the suites."""
    own = evenly([row for row in bench.run.encoded("validation", 3 * rows) if row.condition], rows)
    questions = {OWN: [list(row.question) for row in own], **bench.questions}
    return questions, {OWN: [row.condition for row in own], **bench.wanted}


def run_heads(bench: Bench, rows: int, kept: dict[str, Sequence[int]] | None = None) -> dict[str, Any]:
    """Quality against heads and neurons kept.

    Args:
        rows: most questions of the validation part.
        kept: numbers to try, by ``heads`` and ``neurons``.
    """
    kept = kept or {"heads": HEADS_KEPT, "neurons": NEURONS_KEPT}
    questions, wanted = head_questions(bench, rows)
    masked = Masked(bench.model("teacher", shifted=False), questions)
    shift = bench.run.recipe.prior_shift * bench.common
    important = dict(zip(("heads", "neurons"), importances(bench.run)))
    store = Store(bench.output.with_name("heads.json"), "rows")
    files = [sha256(bench.run.work / name) for name in ("teacher.npz", "importance.json")]

    def top() -> dict[str, float]:
        # The prior of the world belongs to strangers' questions, not to the corpus' own.
        return {
            place: top_three(masked.logits(place) + (0 if place == OWN else shift), wanted[place])
            for place in questions
        }

    def measured(what: str, way: str, seed: int | None, number: int, scores: Scores) -> dict[str, Any]:
        label = {"what": what, "way": way, "seed": seed, "kept": number}

        def make() -> dict[str, Any]:
            masked.restore()
            if scores:
                masked.keep(what, scores, number)
            return {**label, "top-3": top()}

        return store.row(fingerprint([files, label, rows, bench.marks]), make)

    jobs = [
        (what, way, seed, number, scores)
        for what, numbers in kept.items()
        for way, seed, scores in ways(masked, what, important[what])
        for number in numbers
        if number < masked.count(what)
    ]
    with progress(len(jobs) + 1) as done:
        whole = measured("all", "all", None, 0, [])
        for job in jobs:
            measured(*job)
            done(f"{job[3]} {job[0]}, {job[1]}")
    # With everything kept there is one model, whatever the way.
    ends = [
        {**whole, "what": what, "way": way, "kept": masked.count(what)}
        for what in kept
        for way, seed, _ in ways(masked, what, important[what])
        if seed in (None, SEEDS[0])
    ]
    found = {
        "questions": {place: len(ids) for place, ids in questions.items()},
        "importance": [[round(float(s), 6) for s in layer] for layer in important["heads"]],
        "student heads": max(read_json(bench.run.work / "student.json")["heads"]),
    }
    store.finish(**found)
    return {**found, "rows": ends + store.rows[1:]}


# --- tables ------------------------------------------------------------------------------------------------


def table(title: str, rows: Sequence[dict[str, Any]], suites: Sequence[str]) -> Table:
    """Rows of models as a table."""
    shown = Table(title=title)
    for column in ("model", "precision"):
        shown.add_column(column)
    numbers = ("parameters M", "MiB", "gzip MiB", "ms per rank", "ms per token", "same first")
    for column in (*numbers, *(f"{name}: top-1 / 3 / 5" for name in suites)):
        shown.add_column(column, justify="right")
    for row in rows:
        if "suites" not in row:
            shown.add_row(f"{row['model']} (failed: {row['failed']})", row["precision"])
            continue
        cells = [
            f"{row['parameters'] / 1e6:.2f}", f"{row['bytes'] / 2**20:.2f}", f"{row['gzip bytes'] / 2**20:.2f}",
            f"{row['ms per rank']:.1f}", f"{row['ms per token']:.2f}" if row["ms per token"] else "", f"{row['same first as fp32']:.1%}",
        ]  # fmt: skip
        for name in suites:
            found = row["suites"][name]
            low, high = found["interval"]["3"]
            top = [100 * found["top"][k] for k in ("1", "3", "5")]
            cells.append(f"{top[0]:.1f} / {top[1]:.1f} ({100 * low:.0f}–{100 * high:.0f}) / {top[2]:.1f}")
        failed = f" (failed: {row['failed']})" if "failed" in row else ""
        shown.add_row(row["model"] + failed, row["precision"], *cells)
    return shown


def heads_table(found: dict[str, Any]) -> Table:
    """Top-3 by heads and neurons kept; random choice is the mean of its seeds."""
    shown = Table(title="top-3 in % without recovery: importance / random (mean) / magnitude")
    shown.add_column("kept of each layer")
    for place in found["questions"]:
        shown.add_column(place, justify="right")
    groups: dict[tuple[str, int], dict[str, list[dict[str, float]]]] = {}
    for row in found["rows"]:
        groups.setdefault((row["what"], row["kept"]), {}).setdefault(row["way"], []).append(row["top-3"])
    for (what, number), by_way in groups.items():
        cells = []
        for place in found["questions"]:
            means = [
                100 * np.mean([value[place] for value in by_way.get(way, [])]) if way in by_way else np.nan
                for way in ("importance", "random", "magnitude")
            ]
            cells.append(" / ".join(f"{mean:.1f}" for mean in means))
        shown.add_row(f"{number} {what}", *cells)
    return shown


def heads_main(bench: Bench, rows: int) -> None:
    """Measure, draw and print heads and neurons."""
    from symptomchat.evaluation.curves import draw_heads

    found = run_heads(bench, rows)
    figure = bench.output.parent / "figures" / "heads.png"
    draw_heads(found["rows"], list(found["questions"]), found["importance"], found["student heads"], figure)
    console.print(heads_table(found))


def table_main(bench: Bench, quick: bool) -> None:
    """Measure, draw and print the family, the demo, quantization and sparsity."""
    from symptomchat.evaluation.curves import draw_sizes

    suites = list(bench.suites)
    rows = run_family(bench, quick)
    demo = run_demo(bench)
    figure = bench.output.parent / "figures" / "compression.png"
    draw_sizes(rows, suites, figure, (demo["model"], demo["bytes"]))
    console.print(table("Size, speed and quality on one thread; top-3 with its 95 % interval", rows, suites))
    speed = f"{demo['ms per token']:.1f} ms a token" if "ms per token" in demo else demo["not measured"]
    console.print(
        f"{demo['model']}: {demo['parameters'] / 1e6:.1f} M parameters, {demo['bytes'] / 2**20:.1f} MiB "
        f"({demo['gzip bytes'] / 2**20:.1f} with gzip), {speed} (no cache: each token is a whole forward pass)"
    )
    if not quick:
        console.print(
            table("Quantization, int8 with calibrated activations too", run_quantization(bench, rows), suites)
        )
    console.print(table("Magnitude sparsity", run_sparsity(bench), suites))


def main(command: list[str] | None = None) -> int:
    """Measure what is missing, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="folder of a finished run, such as models/full"
    )
    parser.add_argument("--suite", type=Path, action="append", required=True)
    parser.add_argument(
        "--output", type=Path, help=f"by default {RESULTS.name} in docs/results; others lie beside it"
    )
    parser.add_argument("--recipe", help="of the run, where its manifest does not say it")
    parser.add_argument("--cases", type=int, default=0, help="most cases of each suite; 0 takes all")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CASES} cases of each suite, one cut")
    parser.add_argument("--heads", action="store_true", help="heads and neurons kept, instead of the tables")
    parser.add_argument("--rows", type=int, default=120, help="with --heads: most questions of each set")
    arguments = parser.parse_args(command)
    try:
        if arguments.cases < 0 or arguments.rows < 1:
            raise SymptomChatError("--cases and --rows: must be positive; leave them out for the defaults")
        run = open_run(arguments.run, arguments.recipe)
        limit = QUICK_CASES if arguments.quick else arguments.rows if arguments.heads else arguments.cases
        suites = {path.name: evenly(load_suite(path), limit) for path in arguments.suite}
        usual = RESULTS.parent / "quick" / RESULTS.name if arguments.quick else RESULTS
        bench = Bench(run, suites, arguments.output or usual)
        if arguments.heads:
            heads_main(bench, QUICK_CASES if arguments.quick else arguments.rows)
        else:
            table_main(bench, arguments.quick)
    except SymptomChatError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
