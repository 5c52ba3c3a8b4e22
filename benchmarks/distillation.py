"""What each part of distillation is worth: ``python benchmarks/distillation.py --run FOLDER --suite FILE [--suite FILE]``.

Trains the student of a finished run (``models/<recipe>`` with its ``work/``: teacher and cut student) again and again for
the same number of steps on the same exchanges in the same order, each time with one thing more or one thing changed:

- labels alone; the teacher's distribution over conditions too; over the answer's tokens too; its hidden states too,
  through a learned projection;
- the same from random weights, and from the teacher's embeddings with random layers;
- unlabelled questions beside each batch, of which the teacher says the conditions: first generated ones alone (the
  same text as the labelled, so what more text is worth), then also the ways in which people say a finding
  (``--synonyms`` adds a file of lay words) and passages of reference texts (``--references``, MedQuAD);
- labels alone once more in another order, so that one can see what chance does.

The teacher is asked once, before the first row; its words are kept, cut to the likeliest outcomes, in the run's
``work/``. Each row is ranked on the suites in float32 with the run's shift of the prior. The difference to labels alone
has a paired bootstrap interval over the cases of a suite. An interval that holds zero is called within noise, and so is
a difference that is no larger than what another order of the same batches makes (the repeated row): the interval knows
the chance of the cases, not that of one training run. Seconds hold the building of the graph, about ten.

``--rows labels,repeat,tokens`` trains some rows only; a row that was trained before with the same inputs is not trained
again. Writes ``docs/results/distillation.json`` and ``figures/distillation.png`` beside it.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from compression import Bench, evenly, open_run, quality
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from symptomchat.corpus.medquad import load_references, passages
from symptomchat.errors import SymptomChatError
from symptomchat.evaluation.suites import bootstrap_interval, load_suite
from symptomchat.files import atomic, fingerprint, read_json, read_text, sha256, write_json
from symptomchat.pipeline import VALIDATION_ROWS, give_memory_back, load_model, losses

if TYPE_CHECKING:
    from symptomchat.learning.batches import Batches, Encoded
    from symptomchat.learning.targets import Lessons

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "distillation.json"
VERSION = 1
"""Raised when what a row means changes, so that old rows are trained again."""
KEPT = (32, 16)
"""Conditions, and tokens of each position, that are kept of the teacher's distributions."""
FREE_SHARE = 0.5
"""Unlabelled questions beside a batch, as a share of its exchanges."""
RANDOM_RATE = 3.0
"""Random layers learn at a multiple of the recipe's rate, which is meant for pretrained ones."""
PHRASES = 3
"""Most lay words that make one unlabelled question."""
FIRST = (1, 3, 5)
console = Console(width=170)


@dataclass(frozen=True)
class Row:
    """One training.

    Attributes:
        title: for the table.
        uses: what is learned of the teacher besides the labels: ``conditions``, ``tokens``, ``features``.
        start: ``cut`` (the teacher's own layers and trimmed embeddings), ``embeddings`` or ``random``.
        free: pools of the unlabelled questions.
        beside: the row that differs by one thing.
        order: added to the seed of order and dropout.
    """

    title: str
    uses: tuple[str, ...] = ()
    start: str = "cut"
    free: tuple[str, ...] = ()
    beside: str = "labels"
    order: int = 0
    trained: bool = True


TARGETS = ("conditions", "tokens")
ROWS = {
    "untrained": Row("cut from the teacher, not trained", trained=False),
    "labels": Row("labels only"),
    "repeat": Row("labels only, another order", order=1),
    "conditions": Row("+ condition targets", ("conditions",)),
    "tokens": Row("+ token targets", TARGETS, beside="conditions"),
    "features": Row("+ features through a projection", (*TARGETS, "features"), beside="tokens"),
    "random": Row("the targets, from random weights", TARGETS, "random", beside="tokens"),
    "embeddings": Row(
        "the targets, from the teacher's embeddings", TARGETS, "embeddings", beside="tokens"
    ),
    "generated": Row("the targets + unlabelled, generated", TARGETS, free=("generated",), beside="tokens"),
    "unlabelled": Row(
        "the targets + unlabelled, all pools", TARGETS, free=("generated", "lay words", "references"),
        beside="generated",
    ),
}  # fmt: skip


# --- what all rows share -----------------------------------------------------------------------------------


@dataclass
class Lab:
    """A run with its teacher, the exchanges that every row sees, and where results go."""

    bench: Bench
    steps: int
    batch: int
    references: str = ""
    synonyms: Path | None = None

    @property
    def seed(self) -> int:
        """Of the run's recipe."""
        return self.bench.run.recipe.seed

    @cached_property
    def rows(self) -> list[Encoded]:
        """As many training exchanges as the steps take, evenly over the part; each knows its place."""
        rows = self.bench.run.encoded("training", self.steps * self.batch)
        return [replace(row, taught=at) for at, row in enumerate(rows)]

    @cached_property
    def pools(self) -> dict[str, list[str]]:
        """Unlabelled questions of each kind."""
        corpus, rng = self.bench.run.corpus, random.Random(f"{self.seed}|unlabelled")
        own = {row.question for row in self.rows}
        encode = self.bench.run.grammar.question
        texts = [e.question for e in corpus.training if e.intent == "diagnose"]
        drawn = rng.sample(texts, min(len(texts), 3 * self.steps * self.batch))
        made = [text for text in dict.fromkeys(drawn) if tuple(encode(text)) not in own]
        words = [phrase for finding in corpus.knowledge.findings.values() for phrase in finding.phrasings]
        if self.synonyms is not None:
            words += lay_words(self.synonyms)
        spoken = [", ".join(rng.sample(words, rng.randint(1, PHRASES))) for _ in words] if words else []
        read: list[str] = []
        if self.references:
            for reference in load_references(self.references)[0]:
                names = {reference.focus, *reference.synonyms}
                read += passages(reference.answer, names, rng)
        return {"generated": made, "lay words": spoken, "references": read}

    def free(self, pools: Sequence[str]) -> list[Encoded]:
        """Unlabelled questions for every step, the same number of each pool that has any."""
        wanted = self.steps * self.free_batch
        having = [name for name in pools if self.pools[name]]
        if not having:
            raise SymptomChatError("unlabelled questions: there are none; give --references or --synonyms")
        rng = random.Random(f"{self.seed}|{having}")
        texts: list[str] = []
        for at, name in enumerate(having):
            pool, share = self.pools[name], wanted // len(having) + (at < wanted % len(having))
            texts += rng.sample(pool, share) if share <= len(pool) else rng.choices(pool, k=share)
        from symptomchat.learning.batches import Encoded

        grammar = self.bench.run.grammar
        # A question alone: its answer is the token of no condition, after which nothing is asked.
        return [
            Encoded(tuple(grammar.question(text)), 0, (grammar.none, grammar.end), at)
            for at, text in enumerate(texts)
        ]

    @property
    def free_batch(self) -> int:
        """Unlabelled questions beside a batch."""
        return max(1, round(FREE_SHARE * self.batch))

    @cached_property
    def marks(self) -> str:
        """Changes with everything that every row depends on."""
        run = self.bench.run
        files = [sha256(run.work / name) for name in ("teacher.npz", "student_start.npz", "exchanges.jsonl")]
        recipe = run.recipe
        part = [recipe.distilling.model_dump(), recipe.distillation.model_dump(), recipe.prior_shift]
        return fingerprint([VERSION, files, part, self.seed, self.steps, self.batch, self.bench.marks])

    def key(self, name: str) -> str:
        """Changes with the row and everything that it depends on."""
        row = ROWS[name]
        sources: list[Any] = []
        if "references" in row.free:
            path = Path(self.references)
            sources.append(sha256(path) if path.is_file() else self.references)
        if "lay words" in row.free and self.synonyms is not None:
            sources.append(sha256(self.synonyms))
        what = {name: value for name, value in asdict(row).items() if name not in ("title", "beside")}
        return fingerprint([self.marks, what, sources])

    def lessons(self, rows: Sequence[Encoded], name: str) -> Lessons:
        """What the teacher says of some rows: asked before, or now."""
        from symptomchat.learning.targets import Lessons, teach

        run = self.bench.run
        recipe = run.recipe
        mark = fingerprint(
            [
                VERSION, KEPT, sha256(run.work / "teacher.npz"), recipe.distillation.temperature,
                [(row.question, row.answer) for row in rows],
            ]
        )  # fmt: skip
        path = run.work / f"lessons_{name}_{mark}.npz"
        if path.is_file():
            return Lessons.load(path)
        set_precision(run.recipe.precision)
        teacher = load_model(run, "teacher")
        temperature, blocks = recipe.distillation.temperature, taught_blocks(teacher.shape_.layers)
        with Bar(f"the teacher on {name}", len(rows)) as (shown, task):
            found = teach(
                teacher, rows, temperature, KEPT, blocks,
                progress=lambda done: shown.update(task, completed=done),
            )  # fmt: skip
        found.save(path)
        return found


def lay_words(path: Path) -> list[str]:
    """Lay words of a table of terms with a column whose name holds ``layperson`` (the HPO's synonyms, tab-separated).

    Raises:
        SymptomChatError: there is no such column.
    """
    reader = csv.DictReader(io.StringIO(read_text(path)), delimiter="\t")
    column = next((name for name in reader.fieldnames or () if "layperson" in name), None)
    if column is None:
        raise SymptomChatError(
            f"{path}: line 1: has no column 'layperson'; give a tab-separated table with one"
        )
    return [text for row in reader if (text := (row[column] or "").strip())]


def taught_blocks(layers: int) -> list[int]:
    """The blocks whose states are compared: at a third, at two thirds and at the end of a stack."""
    return sorted({max(0, round(layers * share) - 1) for share in (1 / 3, 2 / 3, 1)})


def set_precision(policy: str) -> None:
    """Compute as the run did."""
    import keras

    from symptomchat.learning.training import precision_policy

    keras.mixed_precision.set_global_policy(precision_policy(policy))


class Bar:
    """A progress bar as a context: gives the bar and its task."""

    def __init__(self, title: str, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.shown = Progress(*columns, console=console, transient=True)
        self.task = self.shown.add_task(title, total=total)

    def __enter__(self) -> tuple[Progress, Any]:
        self.shown.start()
        return self.shown, self.task

    def __exit__(self, *_: object) -> None:
        self.shown.stop()


# --- one row -----------------------------------------------------------------------------------------------


def begin(lab: Lab, start: str) -> Any:
    """The student before the first step."""
    from symptomchat.models.student import PrefixLM

    cut = load_model(lab.bench.run, "student_start")
    if start == "cut":
        return cut
    student = PrefixLM(cut.shape_, name="prefix_lm")
    if start == "embeddings":
        kept = ("text_embedding", "position_embedding", "embedding_norm/gamma", "embedding_norm/beta")
        source = cut.arrays()
        student.load_arrays(student.arrays() | {name: source[name] for name in kept})
    return student


def batches(lab: Lab, row: Row) -> Batches:
    """The exchanges of a row with what it uses of the teacher."""
    from symptomchat.learning.batches import Batches, Mixed

    uses, taught = row.uses, None
    if uses:
        lessons = lab.lessons(lab.rows, "labelled")

        def taught(part: Sequence[Encoded]) -> dict[str, np.ndarray]:
            return lessons.arrays(part, uses)

    labelled = Batches(lab.rows, lab.batch, lab.seed + row.order, lab.steps, taught)
    if not row.free:
        return labelled
    free = lab.free(row.free)
    said = lab.lessons(free, "unlabelled")
    beside = Batches(
        free, lab.free_batch, lab.seed, lab.steps, lambda part: said.arrays(part, ("conditions",))
    )
    return Mixed(labelled, beside)


def train(lab: Lab, row: Row) -> tuple[Any, dict[str, Any]]:
    """Train the student of a row; gives it with the tokens that it saw and the seconds that it took."""
    import keras

    from symptomchat.learning import distillation
    from symptomchat.learning.targets import StoredTeacher
    from symptomchat.learning.training import make_optimizer

    recipe = lab.bench.run.recipe
    data = batches(lab, row)
    set_precision(recipe.precision)
    keras.utils.set_random_seed(lab.seed + row.order)
    student = begin(lab, row.start)
    rate = recipe.distilling.learning_rate * (1.0 if row.start == "cut" else RANDOM_RATE)
    part = recipe.distilling.model_copy(update={"learning_rate": rate})
    student.configure(part.label_smoothing, part.condition_weight)
    temperature = recipe.distillation.temperature
    kinds = {
        "conditions": distillation.ConditionTargets, "tokens": distillation.TokenTargets,
        "features": distillation.FeatureTargets,
    }  # fmt: skip
    terms = [kinds[name](temperature) for name in row.uses]
    if row.free:
        terms.append(distillation.FreeTargets(temperature))
    blocks = taught_blocks(student.shape_.layers) if "features" in row.uses else []
    # With no term at all the labels have the whole weight; the list must still hold one, which is never asked.
    distiller = distillation.PrefixDistiller(
        StoredTeacher(), student, temperature, recipe.distillation.weight if terms else 0.0,
        terms or [distillation.ConditionTargets(temperature)], blocks,
    )  # fmt: skip
    distiller.compile(optimizer=make_optimizer(part, lab.steps), jit_compile=False)
    with Bar(row.title, lab.steps) as (shown, task), warnings.catch_warnings():
        # A generator's epoch has no declared length; Keras learns it from the first and warns.
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        step = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: shown.advance(task))
        before = time.perf_counter()
        distiller.fit(data.dataset(), epochs=1, verbose=0, shuffle=False, callbacks=[step])
        seconds = time.perf_counter() - before
    distiller.tap.close()
    return student, {"tokens": tokens(data), "seconds": round(seconds, 1), "learning rate": rate}


def tokens(data: Batches) -> int:
    """Real tokens of all batches: questions and answers, never padding."""
    names = ("question", "answer", "free_question")
    return int(
        sum(
            (x[name] != 0).sum()
            for x, _ in (data[at] for at in range(len(data)))
            for name in names
            if name in x
        )
    )


def measured(lab: Lab, name: str) -> dict[str, Any]:
    """Train one row and measure it."""
    import keras

    from symptomchat.evaluation.baselines import question_probabilities
    from symptomchat.learning.batches import Batches
    from symptomchat.models.student import PrefixLM

    row, run = ROWS[name], lab.bench.run
    spent: dict[str, Any] = {"tokens": 0, "seconds": 0.0, "learning rate": None}
    if row.trained:
        trained, spent = train(lab, row)
    else:
        trained = begin(lab, row.start)
    keras.mixed_precision.set_global_policy("float32")
    student = PrefixLM(trained.shape_, name="prefix_lm")
    student.load_arrays(trained.arrays())
    student.configure(0.0, run.recipe.distilling.condition_weight)
    validation = losses(student, Batches(run.encoded("validation", VALIDATION_ROWS), 64))
    student.condition_bias.assign(
        np.asarray(student.condition_bias) + run.recipe.prior_shift * lab.bench.common
    )
    suites = {}
    for suite, questions in lab.bench.questions.items():
        ranked = question_probabilities(student, questions)[:, 1:]
        orders = np.argsort(-ranked, axis=1, kind="stable")[:, : max(FIRST)] + 1
        wanted = lab.bench.wanted[suite]
        suites[suite] = quality(list(orders), wanted) | {"places": places(orders, wanted)}
    used = [pool for pool in row.free if lab.pools[pool]]
    return {
        "row": name, "title": row.title, "start": row.start, "targets": list(row.uses), "unlabelled": used,
        "steps": lab.steps if row.trained else 0, "batch": lab.batch, **spent,
        "validation": {key: round(value, 4) for key, value in validation.items()}, "suites": suites,
    }  # fmt: skip


def places(orders: np.ndarray, wanted: Sequence[int]) -> str:
    """Where each case's condition stands: a digit from 1 for each, ``-`` where it is not among the first five."""
    found = [np.flatnonzero(order == want) for order, want in zip(orders, wanted)]
    return "".join(str(at[0] + 1) if len(at) else "-" for at in found)


# --- comparison --------------------------------------------------------------------------------------------


def compared(
    row: dict[str, Any], other: dict[str, Any], chance: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Difference of two rows on the same cases, by suite and number of first places, with a paired interval.

    Args:
        chance: the same comparison of two rows that differ by chance alone.
    """
    found: dict[str, Any] = {}
    for suite, values in row["suites"].items():
        pairs = list(zip(values["places"], other["suites"][suite]["places"], strict=True))
        found[suite] = {}
        for k in FIRST:
            # Resampling the cases' differences is resampling both rows with the same cases.
            gains = [int(hit(a, k)) - int(hit(b, k)) for a, b in pairs]
            low, high = bootstrap_interval(gains)  # type: ignore[arg-type]
            difference = round(float(np.mean(gains)), 4)
            verdict = "gain" if low > 0 else "loss" if high < 0 else "within noise"
            if chance is not None and abs(difference) <= abs(chance[suite][str(k)]["difference"]):
                verdict = "within noise"
            found[suite][str(k)] = {
                "difference": difference,
                "interval": [round(low, 4), round(high, 4)],
                "verdict": verdict,
            }
    return found


def hit(place: str, first: int) -> bool:
    """Whether a place is among the first so many."""
    return place != "-" and int(place) <= first


def with_differences(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with what they differ by from labels alone and from the row beside them."""
    by_name = {row["row"]: row for row in rows}
    chance = None
    if {"labels", "repeat"} <= by_name.keys():
        chance = compared(by_name["repeat"], by_name["labels"])
    out = []
    for row in rows:
        plain = {name: value for name, value in row.items() if not name.startswith("against ")}
        for other in dict.fromkeys(("labels", ROWS[row["row"]].beside)):
            if other in by_name and other != row["row"]:
                plain[f"against {other}"] = compared(row, by_name[other], chance)
        out.append(plain)
    return out


def run_rows(lab: Lab, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Train what is missing; the file holds every row of these inputs, whether it was asked for now or before."""
    output = lab.bench.output
    stored = read_json(output).get("rows", []) if output.is_file() else []
    keys = {name: lab.key(name) for name in ROWS}
    known = {row["row"]: row for row in stored if row.get("key") == keys.get(row["row"])}
    for name in wanted:
        if name in known:
            console.print(f"[dim]{ROWS[name].title}: trained before[/dim]")
            continue
        known[name] = measured(lab, name) | {"key": keys[name]}
        give_memory_back()
        write(lab, known)
        console.print(f"{ROWS[name].title}: {known[name]['seconds']:.0f} s")
    return write(lab, known)


def write(lab: Lab, known: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the rows in their order, with their differences."""
    rows = with_differences([known[name] for name in ROWS if name in known])
    run = lab.bench.run
    sources = run.work / "sources.json"
    values = {
        "recipe": run.recipe.name,
        "commit": read_json(sources).get("commit", "") if sources.is_file() else "",
        "teacher": load_shape(run.work / "teacher.json"),
        "student": load_shape(run.work / "student_start.json"),
        "temperature": run.recipe.distillation.temperature,
        "weight": run.recipe.distillation.weight,
        "prior_shift": run.recipe.prior_shift,
        "seed": lab.seed,
        "rows": rows,
    }
    write_json(lab.bench.output, values)
    return rows


def load_shape(path: Path) -> dict[str, Any]:
    """Sizes of a model, for the results."""
    shape = read_json(path)
    return {name: shape[name] for name in ("text_vocabulary", "conditions", "hidden", "heads", "neurons")}


# --- table and figure --------------------------------------------------------------------------------------


def table(rows: Sequence[dict[str, Any]], suites: Sequence[str]) -> Table:
    """One line for each row."""
    shown = Table(title="Distillation at equal steps; in brackets the difference to labels only, 95 % paired")
    shown.add_column("row", overflow="fold")
    for column in ("steps", "tokens", "seconds", "validation loss", "conditions", "text"):
        shown.add_column(column, justify="right")
    for suite in suites:
        shown.add_column(f"{suite}\ntop-1 / 3 / 5 (95 % of top-3)", justify="right", overflow="fold")
        shown.add_column("top-3 against labels", justify="right")
    for row in rows:
        values = row["validation"]
        cells = [
            str(row["steps"]), f"{row['tokens']:,}", f"{row['seconds']:.0f}", f"{values['loss']:.3f}",
            f"{values['condition_loss']:.3f}", f"{values['token_loss']:.3f}",
        ]  # fmt: skip
        for suite in suites:
            found = row["suites"][suite]
            top = " / ".join(f"{100 * found['top'][str(k)]:.1f}" for k in FIRST)
            low, high = found["interval"]["3"]
            cells.append(f"{top} ({100 * low:.0f}–{100 * high:.0f})")
            cells.append(said(row.get("against labels", {}).get(suite, {}).get("3")))
        shown.add_row(row["title"], *cells)
    return shown


def said(difference: dict[str, Any] | None) -> str:
    """A difference in points with its interval and what it is called."""
    if difference is None:
        return ""
    low, high = difference["interval"]
    points = f"{100 * difference['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{points} {difference['verdict']}"


def draw(rows: Sequence[dict[str, Any]], suites: Sequence[str], path: Path) -> None:
    """Difference of top-3 to labels only by row, with its paired interval; one panel for each suite."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {"gain": "#2e8b57", "loss": "#b8324f", "within noise": "#777777"}
    compared_rows = [row for row in rows if "against labels" in row]
    figure, axes = pyplot.subplots(
        1, len(suites), figsize=(3.2 + 4.4 * len(suites), 1.4 + 0.42 * max(1, len(compared_rows))),
        squeeze=False, sharey=True, layout="constrained",
    )  # fmt: skip
    for axis, suite in zip(axes[0], suites):
        for line, row in enumerate(compared_rows):
            found = row["against labels"][suite]["3"]
            middle = 100 * found["difference"]
            low, high = (100 * value for value in found["interval"])
            axis.errorbar(
                middle, line, xerr=[[max(0.0, middle - low)], [max(0.0, high - middle)]], fmt="o", capsize=3,
                color=colours[found["verdict"]],
            )  # fmt: skip
        axis.axvline(0, color="#1d2733", linewidth=1)
        axis.set_yticks(range(len(compared_rows)), [row["title"] for row in compared_rows])
        axis.set(title=suite, xlabel="top-3 less that of labels only, points (95 %, paired)")
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].invert_yaxis()
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    pyplot.close(figure)


# --- command -----------------------------------------------------------------------------------------------


def open_lab(arguments: argparse.Namespace) -> Lab:
    """Check what was asked for and open the run.

    Raises:
        SymptomChatError: the run has no trained teacher, or an argument cannot be used.
    """
    if min(arguments.steps, arguments.batch) < 1 or arguments.cases < 0:
        raise SymptomChatError(
            "--steps, --batch and --cases: must be positive; leave them out for the defaults"
        )
    unknown = [name for name in arguments.rows if name not in ROWS]
    if unknown:
        raise SymptomChatError(f"--rows: {unknown[0]} is unknown; use some of {','.join(ROWS)}")
    run = open_run(arguments.run, arguments.recipe)
    for name in ("student_start.npz", "student_start.json", "teacher.json"):
        if not (run.work / name).is_file():
            raise SymptomChatError(f"{run.work / name}: is missing; name the folder of a finished run")
    if run.targets is not None:
        raise SymptomChatError(
            f"{arguments.run}: has no trained teacher, it learned from models/targets; name a run of recipe full"
        )
    suites = {path.name: evenly(load_suite(path), arguments.cases) for path in arguments.suite}
    bench = Bench(run, suites, arguments.output)
    return Lab(bench, arguments.steps, arguments.batch, arguments.references, arguments.synonyms)


def main(command: list[str] | None = None) -> int:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="folder of a finished run, such as models/full"
    )
    parser.add_argument("--suite", type=Path, action="append", required=True)
    parser.add_argument("--steps", type=int, default=300, help="of each row (default 300)")
    parser.add_argument("--batch", type=int, default=32, help="exchanges of each step (default 32)")
    parser.add_argument(
        "--rows", type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        default=list(ROWS), metavar="A,B", help=f"some of {','.join(ROWS)} (default all)",
    )  # fmt: skip
    parser.add_argument(
        "--references", default="", metavar="FILE|ID", help="MedQuAD, for unlabelled passages"
    )
    parser.add_argument(
        "--synonyms", type=Path, metavar="FILE", help="tab-separated table with a column layperson"
    )
    parser.add_argument("--cases", type=int, default=0, help="most cases of each suite; 0 takes all")
    parser.add_argument("--recipe", help="of the run, where its manifest does not say it")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args(command)
    try:
        lab = open_lab(arguments)
        rows = run_rows(lab, arguments.rows)
    except SymptomChatError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    suites = list(lab.bench.suites)
    draw(rows, suites, arguments.output.parent / "figures" / "distillation.png")
    console.print(table(rows, suites))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
