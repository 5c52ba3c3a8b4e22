"""One run, stage by stage: from sources to a bundle and a report.

Each stage is one function that reads and writes named artefacts under ``models/<run>/work``. A stage that is
done leaves a marker with the key of everything it depended on; the same command after an interruption skips
what is done and goes on, inside a training loop at the last finished epoch.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import gc
import gzip
import io
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from symptomchat.corpus.knowledge import Knowledge, load_knowledge, merge
from symptomchat.corpus.medquad import load_references, reference_exchanges
from symptomchat.corpus.narratives import Generator
from symptomchat.corpus.schema import Condition, Exchange
from symptomchat.corpus.sources import Cleaned, HubUnreachable, Source, clean, from_file, from_hub
from symptomchat.corpus.split import check_no_leak, split_by_group, unknown_questions, withhold
from symptomchat.errors import SymptomChatError
from symptomchat.files import (
    DATA,
    MODELS,
    ROOT,
    atomic,
    fingerprint,
    read_json,
    read_jsonl,
    read_text,
    write_json,
    write_jsonl,
    write_text,
)
from symptomchat.language.grammar import Grammar
from symptomchat.recipe import Recipe

if TYPE_CHECKING:
    from symptomchat.learning.batches import Encoded
    from symptomchat.learning.targets import SoftTargets
    from symptomchat.models.teachers import Card

console = Console()
EXPORTED = ("fp32", "int8", "int4")
"""Precisions of which a run writes a file; the first is compared with Keras most strictly."""
VALIDATION_ROWS = 480
TAUGHT = "taught"
"""Folder, in a run's work, of what a foreign teacher said about the training exchanges."""
TARGETS_KNOWN = 0.5
"""Share of the training exchanges that stored targets must know for a run to do without its own teacher."""
ENGINE_ROWS = 120
SHOWN_UNKNOWN = 12


@dataclass(frozen=True)
class Options:
    """What a run is told on the command line besides its recipe."""

    output: Path
    report: Path
    offline: bool = False
    data: tuple[Path, ...] = ()
    columns: dict[str, str] | None = None
    init: str = ""


@dataclass
class Corpus:
    """Everything that the corpus stage made."""

    knowledge: Knowledge
    training: list[Exchange]
    validation: list[Exchange]
    calibration: list[Exchange]


@dataclass
class Run:
    """State of one run; heavy parts are loaded when a stage needs them."""

    recipe: Recipe
    options: Options
    key: str = ""
    started: float = field(default_factory=time.perf_counter)

    @property
    def work(self) -> Path:
        """Folder of the intermediate artefacts."""
        return self.options.output / "work"

    @cached_property
    def corpus(self) -> Corpus:
        """Read back what the corpus stage wrote."""
        stored = read_json(self.work / "knowledge.json")
        builtin = load_knowledge()
        knowledge = Knowledge(
            conditions=tuple(Condition.model_validate(row) for row in stored["conditions"]),
            findings=builtin.findings,
            red_flags=builtin.red_flags,
        )
        parts: dict[str, list[Exchange]] = {"training": [], "validation": [], "calibration": []}
        for _, row in read_jsonl(self.work / "exchanges.jsonl"):
            part = row.pop("part")
            row["symptoms"], row["treatments"] = tuple(row["symptoms"]), tuple(row["treatments"])
            parts[part].append(Exchange(**row))
        return Corpus(knowledge, parts["training"], parts["validation"], parts["calibration"])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The trimmed tokenizer."""
        return Tokenizer.from_str(read_text(self.work / "tokenizer.json"))

    @cached_property
    def grammar(self) -> Grammar:
        """The exchange grammar over the trimmed tokenizer."""
        return Grammar(self.tokenizer, self.recipe.student.question_tokens, self.recipe.student.answer_tokens)

    @cached_property
    def foreign(self) -> Card | None:
        """The teacher's card where its vocabulary is not the student's, so that it teaches conditions alone."""
        from symptomchat.models.teachers import foreign_card

        return foreign_card(self.recipe)

    @property
    def start(self) -> str:
        """The pretrained encoder that the student is cut from."""
        return "base" if self.foreign else self.recipe.teacher_init

    @cached_property
    def targets(self) -> SoftTargets | None:
        """Soft targets of the run's foreign teacher, or stored ones that know most of the training exchanges."""
        from symptomchat.learning.targets import load_targets

        taught = load_targets(self.work / TAUGHT)
        if taught is not None:
            return taught
        # The teacher behind the stored targets was taught every condition.
        withheld = self.recipe.data.withheld or self.recipe.data.withheld_conditions
        stored = load_targets() if self.recipe.stored_targets and not withheld else None
        if stored is None:
            return None
        found = sum(stored.find(e.question) >= 0 for e in self.corpus.training)
        return stored if found >= TARGETS_KNOWN * len(self.corpus.training) else None

    def taught(self, rows: Sequence[Encoded]) -> np.ndarray:
        """Stored logits ``[B, C]``; the label alone where a question has no stored target."""
        assert self.targets is not None
        conditions = len(self.order) + 1
        out = np.full((len(rows), conditions), np.log(0.05 / conditions), "float32")
        out[np.arange(len(rows)), [row.condition for row in rows]] = np.log(0.95)
        known = [line for line, row in enumerate(rows) if row.taught >= 0]
        found = np.array([rows[line].taught for line in known], "int64")
        out[known] = self.targets.logits(found, self._numbers, conditions)
        return out

    @cached_property
    def _numbers(self) -> np.ndarray:
        assert self.targets is not None
        own = {c.id: at for at, c in enumerate(self.corpus.knowledge.conditions, start=1)} | {"": 0}
        return np.array([own.get(name, -1) for name in self.targets.names])

    @cached_property
    def order(self) -> dict[str, int]:
        """Number of each condition among the condition tokens; 0 is none."""
        return {condition.name: at for at, condition in enumerate(self.corpus.knowledge.conditions, start=1)}

    def encoded(self, part: str, limit: int = 0) -> list[Any]:
        """Exchanges of a part as token ids; a limit takes them evenly over the part."""
        from symptomchat.learning.batches import encode

        exchanges: list[Exchange] = getattr(self.corpus, part)
        if limit and len(exchanges) > limit:
            exchanges = [exchanges[round(i)] for i in np.linspace(0, len(exchanges) - 1, limit)]
        find = self.targets.find if part == "training" and self.targets is not None else None
        return encode(exchanges, self.grammar, self.order, self.recipe.data.spoken, self.recipe.seed, find)


# --- sources and corpus ------------------------------------------------------------------------------------


def gather(recipe: Recipe, options: Options) -> tuple[list[tuple[Source, Cleaned]], list[str]]:
    """Load and clean every source besides the built-in one.

    Returns:
        sources with their cleaned records, and the lines that say what could not be reached.
    """
    sources: list[Source] = []
    notices = []
    if recipe.data.hub and not options.offline:
        try:
            sources.append(from_hub(recipe.data.hub, options.columns if not options.data else None))
        except HubUnreachable as error:
            notices.append(f"{error}. Training on the other sources.")
    elif recipe.data.hub:
        notices.append(f"Offline: Hub dataset {recipe.data.hub} is not used.")
    sources += [from_file(path, options.columns) for path in options.data]
    return [(source, clean(source)) for source in sources], notices


def corpus_stage(run: Run) -> None:
    """Sources → knowledge, exchanges and the split."""
    recipe = run.recipe
    gathered, notices = gather(recipe, run.options)
    for notice in notices:
        console.print(f"[yellow]{notice}[/yellow]", soft_wrap=True)
    use_builtin = recipe.data.builtin or not gathered
    if use_builtin and not recipe.data.builtin:
        console.print("[yellow]No other source could be read: the built-in dataset is used instead.[/yellow]")
    everything = load_knowledge(conditions=recipe.data.conditions)
    everything, withheld = withhold(everything, recipe.data, recipe.seed)
    empty = Knowledge(conditions=(), findings=everything.findings, red_flags=everything.red_flags)
    knowledge = everything if use_builtin else empty
    matches: list[dict[str, str]] = []
    cleaning: list[dict[str, str]] = []
    entries = []
    own: list[tuple[Source, Cleaned]] = []
    for source, cleaned in gathered:
        records = [record for record in cleaned.records if not withheld.find(record[0])]
        if recipe.data.conditions:
            records = records[: recipe.data.conditions]
        knowledge, table = merge(knowledge, records)
        matches += [{"source": source.name, **row} for row in table]
        cleaning += [{"source": source.name, **row} for row in cleaned.report]
        entries.append({"name": source.name, "fingerprint": source.fingerprint, **cleaned.counts})
        own.append((source, Cleaned(records, cleaned.report, cleaned.counts)))
        show_cleaning(source, cleaned, table)
    if use_builtin:
        entries.insert(
            0,
            {
                "name": "data/ (built in)",
                "fingerprint": fingerprint(everything.fingerprints),
                "files": everything.fingerprints,
            },
        )
    generator = Generator(knowledge, recipe.data)
    exchanges = list(generator.all(recipe.seed))
    for source, cleaned in own:
        exchanges += source_exchanges(source, cleaned, knowledge, generator)
    exchanges += read_references(recipe, run.options, knowledge, generator, entries, withheld)
    if not exchanges:
        raise SymptomChatError("corpus: no exchanges could be made; give a source with symptoms")
    training, rest = split_by_group(exchanges, lambda e: e.group, recipe.data.train_share, recipe.seed)
    validation, calibration = split_by_group(rest, lambda e: e.group, 0.5, recipe.seed + 1)
    check_no_leak(training, calibration, lambda e: e.group)
    rows = [
        {"part": part, **asdict(exchange)}
        for part, list_ in (("training", training), ("validation", validation), ("calibration", calibration))
        for exchange in list_
    ]
    write_jsonl(run.work / "exchanges.jsonl", rows)
    write_json(
        run.work / "knowledge.json", {"conditions": [c.model_dump(mode="json") for c in knowledge.conditions]}
    )
    write_csv(run.work / "cleaning.csv", cleaning, ("source", "where", "name", "what", "why"))
    write_csv(
        run.work / "matches.csv", matches, ("source", "name", "result", "condition", "unknown findings")
    )
    write_json(
        run.work / "sources.json",
        {
            "commit": commit(),
            "sources": entries,
            "notices": notices,
            "conditions": len(knowledge.conditions),
            "withheld": [condition.id for condition in withheld.conditions],
            "exchanges": {
                "training": len(training),
                "validation": len(validation),
                "calibration": len(calibration),
            },
        },
    )
    if withheld.conditions:
        unknown = list(unknown_questions(withheld, recipe.seed))
        write_jsonl(run.work / "unknown.jsonl", unknown)
        console.print(
            f"{len(withheld.conditions)} conditions are withheld; {len(unknown)} questions about them: unknown.jsonl"
        )
    console.print(
        f"{len(knowledge.conditions)} conditions, {len(exchanges)} exchanges: {len(training)} for training, "
        f"{len(validation)} for validation, {len(calibration)} for calibration; no group on two sides"
    )


def commit() -> str:
    """The commit of the code and data that a run begins with, ``-dirty`` where files differ from it."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=20,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""


def read_references(
    recipe: Recipe,
    options: Options,
    knowledge: Knowledge,
    generator: Generator,
    entries: list[dict[str, Any]],
    withheld: Knowledge,
) -> list[Exchange]:
    """Passages of reference texts, where the recipe names a source of them; adds it to ``entries``."""
    where = recipe.data.references
    if not where:
        return []
    if options.offline and not Path(where).is_file():
        console.print(f"[yellow]Offline: references of {where} are not used.[/yellow]", soft_wrap=True)
        return []
    try:
        references, mark = load_references(where)
    except HubUnreachable as error:
        console.print(f"[yellow]{error}. Training on the other sources.[/yellow]", soft_wrap=True)
        return []
    references = [r for r in references if not any(map(withheld.find, (r.focus, *r.synonyms)))]
    made = list(reference_exchanges(references, knowledge, generator, recipe.seed))
    entries.append({"name": where, "fingerprint": mark, "answers": len(references), "passages": len(made)})
    console.print(f"{where}: {len(references)} answers, {len(made)} passages about known conditions")
    return made


def source_exchanges(
    source: Source, cleaned: Cleaned, knowledge: Knowledge, generator: Generator
) -> list[Exchange]:
    """One exchange from each record's own symptom list."""
    exchanges = []
    for name, symptoms, _ in cleaned.records:
        condition = knowledge.by_name[knowledge.find(name) or name]
        question = ", ".join(symptoms)
        exchanges.append(
            generator.exchange(question, condition, "diagnose", f"{source.name}/{name}", source.name)
        )
    return exchanges


def show_cleaning(source: Source, cleaned: Cleaned, matches: list[dict[str, str]]) -> None:
    """Print the counts of a source, and what was dropped or merged and why."""
    table = Table(title=f"Source {source.name}")
    table.add_column("count")
    table.add_column("", justify="right")
    for name, value in cleaned.counts.items():
        table.add_row(name, str(value))
    for what in ("merged", "dropped", "mended", "renamed"):
        why: dict[str, int] = {}
        for row in cleaned.report:
            if row["what"] == what:
                reason = "listed before" if row["why"].startswith("listed before") else row["why"]
                why[reason] = why.get(reason, 0) + 1
        for reason, count in why.items():
            table.add_row(f"{what}: {reason}", str(count))
    table.add_row("matched to a known condition", str(sum(row["result"] == "matched" for row in matches)))
    table.add_row("new conditions", str(sum(row["result"] == "new" for row in matches)))
    console.print(table)
    unknown = list(dict.fromkeys(f for row in matches for f in row["unknown findings"].split("; ") if f))
    if unknown:
        shown = "; ".join(unknown[:SHOWN_UNKNOWN]) + (" …" if len(unknown) > SHOWN_UNKNOWN else "")
        console.print(
            f"{len(unknown)} findings of {source.name} are not in the knowledge base and are learned as they "
            f"stand: {shown} (all of them: matches.csv)",
            soft_wrap=True,
            markup=False,
        )


def write_csv(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Write rows as CSV, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


# --- language and models -----------------------------------------------------------------------------------


def vocabulary_stage(run: Run) -> None:
    """Trim the start's vocabulary to the corpus and append the grammar."""
    from symptomchat.language.tokenizer import trim, used_pieces
    from symptomchat.models.teacher import corpus_texts, load_backbone

    _, tokenizer = load_backbone(run.start)
    corpus = run.corpus
    texts = corpus_texts(corpus.knowledge, corpus.training)
    part = run.recipe.student
    keep = used_pieces(tokenizer, texts, part.least_uses)
    # Besides the corpus' pieces, the commonest of the language stay: strangers use words that no corpus has.
    common = part.common_pieces if not run.recipe.data.conditions else 0
    trimmed, old_ids = trim(tokenizer, keep, [c.id for c in corpus.knowledge.conditions], common)
    write_text(run.work / "tokenizer.json", trimmed.to_str())
    write_json(run.work / "old_ids.json", old_ids)
    console.print(f"vocabulary: {tokenizer.get_vocab_size()} pieces trimmed to {len(old_ids)}")


def _save(run: Run, name: str, model: Any) -> None:
    with atomic(run.work / f"{name}.npz") as temporary, temporary.open("wb") as handle:
        np.savez(handle, **model.arrays())
    write_json(run.work / f"{name}.json", model.shape_.to_json())


def load_model(run: Run, name: str) -> Any:
    """A model that an earlier stage saved."""
    from symptomchat.models.student import PrefixLM, Shape

    model = PrefixLM(Shape.from_json(read_json(run.work / f"{name}.json")), name="prefix_lm")
    with np.load(run.work / f"{name}.npz") as arrays:
        model.load_arrays(dict(arrays))
    return model


def _seed(run: Run) -> None:
    import keras

    from symptomchat.learning.training import precision_policy

    keras.mixed_precision.set_global_policy(precision_policy(run.recipe.precision))
    keras.utils.set_random_seed(run.recipe.seed)


def teacher_stage(run: Run) -> None:
    """Fine-tune the whole pretrained encoder, as a prefix language model, on the corpus."""
    from symptomchat.learning.batches import Batches
    from symptomchat.learning.training import fit
    from symptomchat.models.teacher import build_teacher, load_backbone, start_conditions, start_tokens

    _seed(run)
    recipe = run.recipe
    if run.foreign is not None:
        foreign_teacher(run, run.foreign)
        _seed(run)
    elif run.targets is not None:
        console.print(
            "The soft targets in models/targets know these exchanges: no teacher is trained, the student is cut "
            "from the pretrained start."
        )
    backbone, _ = load_backbone(run.start)
    part = recipe.teacher.model_copy(
        update={
            "question_tokens": recipe.student.question_tokens,
            "answer_tokens": recipe.student.answer_tokens,
        }
    )
    model = build_teacher(
        backbone, run.tokenizer, read_json(run.work / "old_ids.json"), len(run.order) + 1, part
    )
    texts: list[list[list[int]]] = [[] for _ in range(len(run.order) + 1)]
    # Authored texts first: they say more about a condition than the generator's.
    for exchange in sorted(run.corpus.training, key=lambda e: e.source != "presentations"):
        number = run.order[exchange.condition] if exchange.condition else 0
        if exchange.intent == "diagnose" and len(texts[number]) < 12:
            texts[number].append(run.grammar.question(exchange.question))
    counts = np.bincount(
        [run.order[e.condition] if e.condition else 0 for e in run.corpus.training], minlength=len(texts)
    )
    start_conditions(model, texts, counts)
    start_tokens(model, [row.answer for row in run.encoded("training")])
    if run.targets is not None:
        _save(run, "teacher", model)
        return
    model.configure(recipe.teaching.label_smoothing, recipe.teaching.condition_weight)
    training = Batches(
        run.encoded("training"), recipe.teaching.batch, recipe.seed, recipe.teaching.steps_per_epoch
    )
    validation = Batches(run.encoded("validation", VALIDATION_ROWS), 64)
    state = run.work / "teacher_state.npz"
    fit(
        model,
        training,
        validation,
        recipe.teaching,
        state,
        "teacher",
        validate=lambda: losses(model, validation),
    )
    _save(run, "teacher", model)


def foreign_teacher(run: Run, card: Card) -> None:
    """Let a teacher of another vocabulary learn the conditions, and keep what it says if it has earned that.

    It must rank the unseen questions better than the frozen start with the same kind of head: that is the least
    that the student will know by itself. Its soft targets, and the comparison, are written to ``work/taught``.
    """
    from symptomchat.learning.foreign import Labelled, teach
    from symptomchat.learning.targets import make, save
    from symptomchat.models.teachers import base_reader, load_reader

    recipe, part = run.recipe, run.recipe.adapting

    def labelled(exchanges: Sequence[Exchange]) -> Labelled:
        numbers = [run.order[e.condition] if e.condition else 0 for e in exchanges]
        return Labelled([e.question for e in exchanges], np.array(numbers, "int64"))

    training = labelled(run.corpus.training)
    rows = run.corpus.validation
    chosen = np.linspace(0, len(rows) - 1, min(VALIDATION_ROWS, len(rows)))
    validation = labelled([rows[round(i)] for i in chosen])
    conditions, cache = len(run.order) + 1, run.options.output / "vectors"
    console.print(
        f"{card.source}: {card.family}, {card.parameters / 1e6:,.1f} M parameters, teaches conditions"
    )
    found: dict[str, Any] = {"source": card.source, "family": card.family, "parameters": card.parameters}
    found |= {"how": part.how, "accuracy": {}}
    probabilities = np.zeros((0, conditions))
    names = [card.source, *(["frozen start"] if part.only_if_better else [])]
    texts = list(dict.fromkeys(training.some(part.texts, recipe.seed).questions))
    for name in names:
        own = name == card.source
        reader = load_reader(card, part.how) if own else base_reader()
        how = part if own else part.model_copy(update={"how": "head"})
        work = run.work / ("foreign" if own else "frozen_start")
        teacher = teach(reader, training, validation, conditions, how, recipe.seed, work, cache)
        found["accuracy"][name] = round(teacher.accuracy(validation), 4)
        if own:
            probabilities = teacher.probabilities(texts)
            teacher.save(work)
        del reader, teacher
        give_memory_back()
    accuracy = found["accuracy"]
    found["used"] = not part.only_if_better or accuracy[card.source] > accuracy["frozen start"]
    write_json(run.work / "foreign" / "choice.json", found)
    told = "; ".join(f"{name} {value:.1%}" for name, value in accuracy.items())
    if not found["used"]:
        console.print(
            f"[yellow]Right condition first on unseen questions: {told}. The teacher knows no more than the start: it "
            "is not used (adapting.only_if_better=false uses it all the same).[/yellow]", soft_wrap=True,
        )  # fmt: skip
        return
    console.print(
        f"Right condition first on unseen questions: {told}. The student learns from {card.source}."
    )
    ids = ["", *(c.id for c in run.corpus.knowledge.conditions)]
    save(
        make(texts, probabilities, ids),
        run.work / TAUGHT,
        {"what": "likeliest conditions of the training questions", "teacher": found, "questions": len(texts)},
    )


def slim_stage(run: Run) -> None:
    """Cut the teacher down to its most important heads and neurons."""
    from symptomchat.learning.batches import Batches
    from symptomchat.learning.distillation import importance, slim

    _seed(run)
    teacher = load_model(run, "teacher")
    teacher.configure(0.0, run.recipe.distilling.condition_weight)
    # Small batches: the gradients of long texts take memory.
    rows = Batches(run.encoded("training"), 8, run.recipe.seed + 3)
    heads, neurons = importance(teacher, rows, 80)
    student = slim(teacher, run.recipe.student, heads, neurons)
    _save(run, "student_start", student)
    write_json(
        run.work / "importance.json",
        {"heads": [h.tolist() for h in heads], "neurons": [n.tolist() for n in neurons]},
    )
    console.print(
        f"student: {teacher.parameters() / 1e6:.2f} M parameters cut to {student.parameters() / 1e6:.2f} M"
    )


def distil_stage(run: Run) -> None:
    """Distil the teacher into the student."""
    _recover(run, "student_start", "student", run.recipe.distilling, "distillation", prune=False)


def prune_stage(run: Run) -> None:
    """Magnitude pruning with recovery, still distilling; then the prior of the world instead of the corpus'."""
    _recover(run, "student", "pruned", run.recipe.pruning_loop, "magnitude pruning", prune=True)
    shift_prior(run)


def shift_prior(run: Run) -> None:
    """Correct the ranking's bias for how much commoner common conditions are than the corpus tells them.

    Label shift (Saerens et al. 2002): log-probabilities move by the log ratio of the priors. A corpus that told
    common conditions as often as they are seen would hardly tell the rare ones at all.
    """
    model = load_model(run, "pruned")
    common = [3, *(condition.common for condition in run.corpus.knowledge.conditions)]
    shift = run.recipe.prior_shift * (np.array(common, "float32") - 3)
    model.condition_bias.assign(np.asarray(model.condition_bias) + shift)
    _save(run, "pruned", model)


def _recover(run: Run, source: str, target: str, part: Any, title: str, prune: bool) -> None:
    from symptomchat.learning.batches import Batches, Mixed
    from symptomchat.learning.distillation import PrefixDistiller
    from symptomchat.learning.pruning import MagnitudePruning, sparsity
    from symptomchat.learning.targets import StoredTeacher
    from symptomchat.learning.training import fit

    _seed(run)
    recipe = run.recipe
    teacher = StoredTeacher() if run.targets is not None else load_model(run, "teacher")
    student = load_model(run, source)
    teacher.trainable = False
    student.configure(part.label_smoothing, part.condition_weight)
    distiller = PrefixDistiller(teacher, student, recipe.distillation.temperature, recipe.distillation.weight)
    training = Batches(
        run.encoded("training"), part.batch, recipe.seed + (2 if prune else 1), part.steps_per_epoch,
        run.taught if run.targets is not None else None,
    )  # fmt: skip
    if part.unlabelled and run.targets is None:
        size = max(1, round(part.unlabelled * part.batch))
        free = unlabelled(run, size * len(training) * part.epochs)
        training = Mixed(training, Batches(free, size, recipe.seed + 4, len(training)))
    validation = Batches(run.encoded("validation", VALIDATION_ROWS), 64)

    def validate() -> dict[str, float]:
        return losses(student, validation)

    callbacks = [MagnitudePruning(student, recipe.pruning, part.epochs * len(training))] if prune else []
    # Pruning must end as sparse as asked: its last epoch is kept, whatever the loss of earlier, denser ones.
    kept = part.model_copy(update={"patience": part.epochs + 1}) if prune else part
    fit(
        distiller,
        training,
        validation,
        kept,
        run.work / f"{target}_state.npz",
        title,
        callbacks,
        validate,
        last=prune,
    )
    _save(run, target, student)
    if prune:
        console.print(f"sparsity of the prunable kernels: {sparsity(student):.3f}")


PHRASES = 3
"""Most ways to say a finding that make one question without a label."""


def unlabelled(run: Run, count: int) -> list[Encoded]:
    """Questions of which only a teacher can say what they mean: half generated ones, half the findings' phrasings.

    A few phrasings in a row are what people type in a hurry; which condition they mean depends on all of them.
    """
    from symptomchat.learning.batches import Encoded

    rng = random.Random(f"{run.recipe.seed}|unlabelled")
    generated = [e.question for e in run.corpus.training if e.intent == "diagnose"]
    ways = [way for finding in run.corpus.knowledge.findings.values() for way in finding.phrasings]
    spoken = (
        [", ".join(rng.sample(ways, rng.randint(1, PHRASES))) for _ in ways] if len(ways) >= PHRASES else []
    )
    texts: list[str] = []
    pools = [pool for pool in (generated, spoken) if pool]
    for at, pool in enumerate(pools):
        share = count // len(pools) + (at < count % len(pools))
        texts += rng.sample(pool, share) if share <= len(pool) else rng.choices(pool, k=share)
    grammar = run.grammar
    # A question alone: its answer is the token of no condition, after which nothing is asked.
    return [Encoded(tuple(grammar.question(text)), 0, (grammar.none, grammar.end)) for text in texts]


def losses(model: Any, batches: Any) -> dict[str, float]:
    """Loss, condition loss, token loss and accuracy over batches, weighted by their sizes; no label smoothing."""
    sums = np.zeros(5)
    smoothing = model.label_smoothing
    model.label_smoothing = 0.0
    try:
        for at in range(len(batches)):
            x, y = batches[at]
            condition, token, accuracy = (float(v) for v in model.losses_of(y, _forward(model)(x)))
            rows, tokens = len(y["condition"]), int((y["next"] != 0).sum())
            sums += (condition * rows, token * tokens, accuracy * rows, rows, tokens)
    finally:
        model.label_smoothing = smoothing
    condition, token, accuracy = sums[0] / sums[3], sums[1] / sums[4], sums[2] / sums[3]
    return {
        "loss": model.condition_weight * condition + token, "condition_loss": condition, "token_loss": token, "accuracy": accuracy,
    }  # fmt: skip


def _forward(model: Any) -> Callable[[Any], Any]:
    import tensorflow as tf

    if not hasattr(model, "_compiled_forward"):
        model._compiled_forward = tf.function(
            lambda x: model(x, training=False), reduce_retracing=True, autograph=False
        )
    forward: Callable[[Any], Any] = model._compiled_forward
    return forward


# --- export, calibration, bundle ---------------------------------------------------------------------------


def export_stage(run: Run) -> None:
    """Write a ``.tflite`` in each precision and compare each with Keras on real prompts."""
    from symptomchat.phone.export import export_tflite, feed_forward
    from symptomchat.phone.parity import compare
    from symptomchat.phone.quantization import quantize

    _float32()
    model = load_model(run, "pruned")
    centroids = learned_centroids(run, model)
    with atomic(run.work / "centroids.npy") as temporary, temporary.open("wb") as handle:
        np.save(handle, centroids)
    results = {}
    rows = run.encoded("calibration", 40)
    full = run.options.output / "model.fp32.tflite"
    export_tflite(model, full, centroids)
    for precision in EXPORTED:
        path = run.options.output / f"model.{precision}.tflite"
        if path != full:
            with atomic(path) as temporary:
                temporary.write_bytes(quantize(full.read_bytes(), precision, feed_forward(model)))
        results[precision] = compare(model, path, rows, run.grammar)
        console.print(
            f"{path.name}: {path.stat().st_size / 2**20:.2f} MiB; against Keras {results[precision]}"
        )
    if results["fp32"]["logits"] > 1e-3 or results["fp32"]["same_tokens"] < 1.0:
        raise SymptomChatError(
            f"export: fp32 differs from Keras ({results['fp32']}); this is a bug, please report it"
        )
    write_json(run.work / "parity.json", results)


def _float32() -> None:
    import keras

    keras.mixed_precision.set_global_policy("float32")


def learned_centroids(run: Run, model: Any) -> np.ndarray:
    """For each condition the mean direction of its training questions, ``[C, hidden]`` unit vectors."""
    from symptomchat.learning.batches import Batches, Encoded

    rows = run.encoded("training", 8 * (len(run.order) + 1))
    batches = Batches([Encoded(row.question, row.condition, row.answer[:2]) for row in rows], 64)
    sums = np.zeros((len(run.order) + 1, model.shape_.hidden), "float32")
    for at in range(len(batches)):
        x, y = batches[at]
        summary = np.asarray(_forward(model)(x)["summary"])
        np.add.at(sums, y["condition"], summary)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    kept = sums[norms[:, 0] > 0]
    return np.asarray(kept / norms[norms[:, 0] > 0], "float32")


def calibrate_stage(run: Run) -> None:
    """Fit temperature, calibrator and threshold on the calibration part with the file that ships."""
    from symptomchat.learning.calibration import calibrate
    from symptomchat.runtime.engine import Engine

    engine = Engine(run.options.output / f"model.{run.recipe.ships}.tflite", threads=2)
    rows = [e for e in run.corpus.calibration if e.source != "narratives"] or run.corpus.calibration
    result = calibrate(engine, run.grammar, rows, run.order, run.recipe.risk, run.recipe.seed)
    write_json(run.options.output / "confidence.json", result)


def bundle_stage(run: Run) -> None:
    """Tokenizer, knowledge and manifest beside the model files."""
    from symptomchat.evaluation.card import card
    from symptomchat.phone.bundle import write_manifest
    from symptomchat.phone.records import compact_tokenizer, pack

    output, knowledge = run.options.output, run.corpus.knowledge
    _write_compact(output / "tokenizer.json", compact_tokenizer(json.loads(run.tokenizer.to_str())))
    _write_compact(output / "knowledge.json", pack(knowledge_json(knowledge)))
    table = stage_table(run)
    write_json(run.work / "table.json", table)
    sources = read_json(run.work / "sources.json")
    values = {
        "precision": run.recipe.ships,
        "recipe": run.recipe.model_dump(mode="json"),
        "seed": run.recipe.seed,
        "commit": sources.get("commit", ""),
        "sources": sources["sources"],
        "notices": sources["notices"],
        "conditions": sources["conditions"],
        "exchanges": sources["exchanges"],
        "versions": {
            name: version(name)
            for name in ("tensorflow", "keras", "keras-hub", "tokenizers", "ai-edge-litert", "numpy")
        },
        "python": platform.python_version(),
        "parity": read_json(run.work / "parity.json"),
        "table": table,
    }
    sizes = {
        path.name: path.stat().st_size for path in output.iterdir() if path.suffix in (".tflite", ".json")
    }
    sizes.pop("manifest.json", None)
    write_text(output / "README.md", card(values, read_json(output / "confidence.json"), sizes))
    write_manifest(output, values)


def refresh_knowledge(folder: Path) -> dict[str, Any]:
    """Give a bundle the records and red flags that ``data/`` has now; the model itself stays as it was trained.

    What is found wrong in a record, or missing in a red flag, should not wait for the next training run. The
    manifest then names the fingerprints of both.

    Raises:
        SymptomChatError: the data's conditions are not the model's.
    """
    from symptomchat.evaluation.card import card
    from symptomchat.language.tokenizer import NONE, condition_token
    from symptomchat.phone.bundle import MANIFEST, verify, write_manifest
    from symptomchat.phone.records import compact_tokenizer, pack

    manifest = verify(folder)
    knowledge = load_knowledge()
    spec = compact_tokenizer(read_json(folder / "tokenizer.json"))
    tokens = [token for token in spec["model"]["vocab"] if token.startswith("<c:") and token != NONE]
    if tokens != [condition_token(condition.id) for condition in knowledge.conditions]:
        raise SymptomChatError(f"{folder}: was trained on other conditions than {DATA} has; train it again")
    _write_compact(folder / "tokenizer.json", spec)
    _write_compact(folder / "knowledge.json", pack(knowledge_json(knowledge)))
    kept = {name: value for name, value in manifest.items() if name not in ("format", "files")}
    kept["knowledge"] = knowledge.fingerprints
    sizes = {
        path.name: path.stat().st_size
        for path in folder.iterdir()
        if path.suffix in (".tflite", ".json") and path.name != MANIFEST
    }
    write_text(folder / "README.md", card(kept, read_json(folder / "confidence.json"), sizes))
    write_manifest(folder, kept)
    return verify(folder)


def _write_compact(path: Path, values: Any) -> None:
    write_text(path, json.dumps(values, ensure_ascii=False, separators=(",", ":")))


def knowledge_json(knowledge: Knowledge) -> dict[str, Any]:
    """What the runtime must know, in the order of the condition tokens, with the emergency classifier."""
    from symptomchat.learning.alarm import builtin_alarm

    # An emergency is one whichever conditions a run knows, so all that is built in teaches the classifier.
    alarm = builtin_alarm()
    cased: dict[str, str] = {}
    conditions = []
    for condition in knowledge.conditions:
        for text in (*(f.name for f in condition.findings), *condition.treatments):
            for word in "".join(c if c.isalnum() else " " for c in text).split():
                if word != word.lower():
                    cased.setdefault(word.lower(), word)
        frequency = {f.name: f.frequency for f in condition.findings}
        conditions.append(
            {
                "name": condition.name,
                "aliases": list(condition.aliases),
                "symptoms": condition.ranked_findings(),
                "frequencies": [round(100 * frequency[name]) for name in condition.ranked_findings()],
                "treatments": list(condition.treatments),
                "self_care": list(condition.self_care),
                "urgency": condition.urgency,
                "emergency_when": condition.emergency_when,
                "confusable": [c.model_dump() for c in condition.confusable],
            }
        )
    used = {f.name for c in knowledge.conditions for f in c.findings}
    # A treatment's first word is capitalised by a sentence's habit, not because it is a name.
    common = {
        word
        for c in knowledge.conditions
        for t in c.treatments
        for word in t.split()[:1]
        if word[1:] == word[1:].lower()
    }
    cased = {k: v for k, v in cased.items() if v not in common}
    return {
        "conditions": conditions,
        "names": knowledge.names,
        "cased": cased,
        "phrasings": {
            n: list(f.phrasings) for n, f in knowledge.findings.items() if n in used and f.phrasings
        },
        "alarm": alarm.to_json(),
        "red_flags": [
            {"id": r.id, "name": r.name, "advice": r.advice, "patterns": r.patterns}
            for r in knowledge.red_flags
        ],
    }


def stage_table(run: Run) -> list[dict[str, Any]]:
    """A row per stage: parameters, bytes, gzip bytes, validation loss, accuracy, milliseconds per token."""
    from symptomchat.learning.batches import Batches
    from symptomchat.phone.export import export_tflite
    from symptomchat.phone.parity import engine_losses, token_milliseconds
    from symptomchat.runtime.engine import Engine

    _float32()
    rows = run.encoded("validation", VALIDATION_ROWS)
    few = run.encoded("validation", ENGINE_ROWS)
    centroids = np.load(run.work / "centroids.npy")
    table = []
    for name, title in (
        ("teacher", "pretrained start" if run.targets is not None else "teacher"),
        ("student_start", "student, cut"),
        ("student", "student, distilled"),
        ("pruned", "student, pruned"),
    ):
        model = load_model(run, name)
        model.configure(0.0, run.recipe.distilling.condition_weight)
        values = losses(model, Batches(rows, 64))
        path = run.work / f"{name}.tflite"
        export_tflite(model, path, centroids)
        table.append(
            _row(title, model.parameters(), path, values, token_milliseconds(Engine(path), run.grammar, few))
        )
        path.unlink()
    parameters = table[-1]["parameters"]
    for precision in EXPORTED:
        path = run.options.output / f"model.{precision}.tflite"
        engine = Engine(path)
        values = engine_losses(engine, few, run.grammar, run.recipe.distilling.condition_weight)
        table.append(
            _row(
                f".tflite {precision}", parameters, path, values, token_milliseconds(engine, run.grammar, few)
            )
        )
    return table


def _row(
    stage: str, parameters: int, path: Path, values: dict[str, float], milliseconds: float
) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "stage": stage,
        "parameters": parameters,
        "bytes": len(content),
        "gzip bytes": len(gzip.compress(content, 6)),
        "validation loss": round(values["loss"], 4),
        "accuracy": round(values["accuracy"], 4),
        "ms per token": round(milliseconds, 3),
    }


def report_stage(run: Run) -> None:
    """Curves, table, confusions and the page that opens by itself."""
    from symptomchat.evaluation.report import write_report

    write_report(run)


Stages = tuple[tuple[str, Callable[["Run"], None]], ...]
STAGES: Stages = (
    ("corpus", corpus_stage),
    ("vocabulary", vocabulary_stage),
    ("teacher", teacher_stage),
    ("slim", slim_stage),
    ("distil", distil_stage),
    ("prune", prune_stage),
    ("export", export_stage),
    ("calibrate", calibrate_stage),
    ("bundle", bundle_stage),
    ("report", report_stage),
)


def inputs_key(recipe: Recipe, options: Options) -> str:
    """Changes whenever the recipe or the content of a local source does."""
    from symptomchat.files import sha256

    files = {str(path): sha256(path) for path in options.data if path.is_file()}
    if recipe.teacher_init != "base" and Path(recipe.teacher_init).is_dir():
        from symptomchat.models.teachers import inspect_source

        files["teacher"] = inspect_source(recipe.teacher_init).mark
    builtin = {path.name: sha256(path) for path in sorted(DATA.glob("*.jsonl"))}
    targets = MODELS / "targets" / "manifest.json"
    if recipe.stored_targets and targets.is_file():
        builtin["targets"] = sha256(targets)
    return fingerprint(
        [recipe.model_dump(mode="json"), options.offline, options.columns, options.init, files, builtin]
    )


def execute(recipe: Recipe, options: Options) -> Path:
    """Run every stage that is not done; gives the folder of the bundle."""
    prepare(options)
    run = Run(recipe, options, inputs_key(recipe, options))
    key_file = run.work / "key.json"
    if key_file.is_file() and read_json(key_file) != run.key:
        console.print(
            "[yellow]The recipe or the data changed since the last run: starting from the first stage.[/yellow]"
        )
        shutil.rmtree(run.work)
    write_json(key_file, run.key)
    stages = STAGES
    if recipe.kind == "talk":
        from symptomchat.learning import talk

        stages = talk.STAGES
    usage = {"seconds": 0.0, "peak_bytes": 0}
    for at, (name, stage) in enumerate(stages, start=1):
        marker = run.work / f"{name}.done"
        previous = read_json(marker) if marker.is_file() else {}
        if previous.get("key") == run.key:
            console.print(f"[dim]{at}/{len(stages)} {name}: done before[/dim]")
            seconds = float(previous["seconds"])
        else:
            console.rule(f"{at}/{len(stages)} {name}")
            start = time.perf_counter()
            stage(run)
            give_memory_back()
            seconds = round(time.perf_counter() - start, 2)
            write_json(marker, {"key": run.key, "seconds": seconds, "peak_bytes": peak_memory()})
        usage["seconds"] += seconds
        usage["peak_bytes"] = max(usage["peak_bytes"], int(read_json(marker).get("peak_bytes", 0)))
    write_json(run.work / "usage.json", usage)
    console.print(
        f"done in {usage['seconds'] / 60:.1f} minutes with at most {usage['peak_bytes'] / 2**30:.2f} GiB of memory: "
        f"{options.output} and {options.report}"
    )
    return options.output


def give_memory_back() -> None:
    """Drop the graphs of a finished stage; a long run would otherwise hold the memory of all its stages."""
    gc.collect()
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory() -> int:
    """Highest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def prepare(options: Options) -> None:
    """Make the folders, or say in one line why that cannot be; drop the state of another recipe or other data."""
    for folder in (options.output, options.report, options.output / "work"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SymptomChatError(
                f"{folder}: cannot be made ({error.strerror}); choose another folder"
            ) from error
        if not os.access(folder, os.W_OK):
            raise SymptomChatError(
                f"{folder}: cannot be written; choose another folder or mend its permissions"
            )
