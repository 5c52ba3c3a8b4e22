"""Training speed, Keras on TensorFlow against PyTorch: ``python benchmarks/training.py --run FOLDER``.

Takes the student of a finished run and batches of its own exchanges (32 questions of 49 to 64 tokens with their
answers), and times the training step that the project uses (``Model.fit``: forward, loss on the labels, backward,
clipping, AdamW; float32, dropout on, no XLA) against a plain PyTorch loop over the same model, batch, loss and
optimizer on the same cores. Before anything is timed, the two must give the same outputs and the same loss on the
same weights. PyTorch runs in a process of its own (the two libraries' compilers do not share one), which sleeps
while Keras is timed. Both are warmed up and take turns; the median counts. Prints a table and writes
``docs/results/training_speed.json``. PyTorch is asked for here only: ``pip install -e ".[bench]"``.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from symptomchat.errors import SymptomChatError
from symptomchat.files import read_json, write_json
from symptomchat.recipe import TrainingPart

if TYPE_CHECKING:
    from symptomchat.models.student import PrefixLM, Shape

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "training_speed.json"
BATCH, SHORTEST, LONGEST = 32, 49, 64
LARGEST_DIFFERENCE = 1e-3
PLANNED_STEPS = 1000
"""Length of the learning rate's schedule; the same on both sides, far longer than what is timed."""
KINDS = {"ranking alone": lambda answer: len(answer) == 2, "whole answers": lambda answer: len(answer) > 2}
Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def need_torch() -> None:
    """Say in one line how to get PyTorch where it is missing."""
    if importlib.util.find_spec("torch") is None:
        raise SymptomChatError(
            'PyTorch: is not installed, and this benchmark compares with it; run pip install -e ".[bench]"'
        )


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- the same model in PyTorch -----------------------------------------------------------------------------


def torch_model(shape: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The prefix language model as a ``torch.nn.Module`` with weights copied from Keras.

    Args:
        shape: the fields of ``Shape``.
        arrays: as ``PrefixLM.arrays`` gives them; kernels are ``[in, out]``.
    """
    import torch
    from torch.nn import functional

    class Model(torch.nn.Module):  # type: ignore[misc, name-defined]
        """Inputs and outputs as ``PrefixLM``'s."""

        def __init__(self) -> None:
            super().__init__()
            self.names = {name: name.replace("/", "__") for name in arrays}
            for name, value in arrays.items():
                # A linear layer of PyTorch holds its weights as [out, in].
                held = np.ascontiguousarray(value.T if name.endswith("kernel") else value)
                self.register_parameter(
                    self.names[name], torch.nn.Parameter(torch.tensor(held, dtype=torch.float32))
                )

        def weight(self, name: str) -> Any:
            return getattr(self, self.names[name])

        def dense(self, x: Any, name: str) -> Any:
            return functional.linear(x, self.weight(f"{name}/kernel"), self.weight(f"{name}/bias"))

        def norm(self, x: Any, name: str) -> Any:
            gamma, beta = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
            return functional.layer_norm(x, (shape.hidden,), gamma, beta, shape.epsilon)

        def drop(self, x: Any) -> Any:
            return functional.dropout(x, shape.dropout, self.training)

        def split(self, x: Any, heads: int) -> Any:
            return x.view(x.shape[0], x.shape[1], heads, shape.head_size).transpose(1, 2)

        def block(self, x: Any, index: int, mask: Any) -> Any:
            name, heads = f"block_{index}", shape.heads[index]
            query, key, value = (
                self.split(self.dense(x, f"{name}/{part}"), heads) for part in ("query", "key", "value")
            )
            mixed = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=shape.dropout if self.training else 0.0
            )
            mixed = mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], heads * shape.head_size)
            x = self.norm(x + self.drop(self.dense(mixed, f"{name}/merge")), f"{name}/attention_norm")
            wide = functional.gelu(self.dense(x, f"{name}/expand"), approximate="tanh")
            return self.norm(x + self.drop(self.dense(wide, f"{name}/contract")), f"{name}/output_norm")

        def mask(self, real: Any, told: int) -> Any:
            batch, asked = real.shape
            to_question = real[:, None, None, :].expand(batch, 1, asked + told, asked)
            order = torch.arange(asked + told)[:, None] - asked >= torch.arange(told)[None, :]
            return torch.cat([to_question, order.expand(batch, 1, asked + told, told)], dim=-1)

        def forward(self, question: Any, answer: Any) -> tuple[Any, Any]:
            asked, told = question.shape[1], answer.shape[1]
            real = question != 0
            lengths = real.sum(dim=1)
            text = self.weight("text_embedding")
            first = functional.embedding(
                answer[:, :1] - shape.text_vocabulary, self.weight("condition_embedding")
            )
            rows = torch.cat(
                [functional.embedding(question, text), first, functional.embedding(answer[:, 1:], text)],
                dim=1,
            )
            at = torch.cat(
                [torch.arange(asked).expand(question.shape), lengths[:, None] + torch.arange(told)], dim=1
            )
            x = rows + functional.embedding(at, self.weight("position_embedding"))
            x = self.drop(self.norm(x, "embedding_norm"))
            mask = self.mask(real, told)
            for index in range(len(shape.heads)):
                x = self.block(x, index, mask)
            state = x[torch.arange(len(x)), lengths - 1]
            mean = (x[:, :asked] * real[:, :, None]).sum(dim=1) / lengths[:, None]
            summary = mean + self.dense(state, "summary")
            summary = summary * torch.rsqrt((summary**2).sum(dim=-1, keepdim=True) + 1e-12)
            conditions = summary @ self.weight("condition_embedding").T
            conditions = conditions * self.weight("condition_scale") + self.weight("condition_bias")
            tokens = self.dense(x[:, asked:], "transform") @ text.T + self.weight("token_bias")
            return conditions, tokens

    return Model()


def torch_loss(outputs: tuple[Any, Any], y: dict[str, Any], part: TrainingPart) -> Any:
    """The loss of ``PrefixLM``: conditions, and tokens averaged over real ones."""
    from torch.nn import functional

    conditions, tokens = outputs
    condition = functional.cross_entropy(conditions, y["condition"], label_smoothing=part.label_smoothing)
    # Id 0 is padding.
    token = functional.cross_entropy(tokens.flatten(0, 1), y["next"].flatten(), ignore_index=0)
    return part.condition_weight * condition + token


def torch_optimizer(model: Any, part: TrainingPart) -> tuple[Any, Any]:
    """AdamW and schedule as ``make_optimizer`` builds them: faster heads, no decay of biases, norms, embeddings."""
    import torch

    fast = (
        "condition_embedding", "condition_bias", "condition_scale", "summary/", "transform/", "token_bias"
    )  # fmt: skip
    plain = ("bias", "gamma", "beta", "embedding", "scale")
    groups: dict[tuple[float, float], list[Any]] = {}
    for name in model.names:
        rate = part.head_rate if any(word in name for word in fast) else 1.0
        # Keras decays by the common rate, PyTorch by the group's.
        decay = 0.0 if any(word in name for word in plain) else part.weight_decay / rate
        groups.setdefault((rate, decay), []).append(model.weight(name))
    optimizer = torch.optim.AdamW(
        [
            {"params": held, "lr": part.learning_rate * rate, "weight_decay": decay}
            for (rate, decay), held in groups.items()
        ],
        betas=(0.9, 0.999),
        eps=1e-7,
    )
    warmup = round(PLANNED_STEPS * part.warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / max(1, warmup)
        done = min(1.0, (step - warmup) / max(1, PLANNED_STEPS - warmup))
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


# --- what is timed -----------------------------------------------------------------------------------------


def keras_steps(model: PrefixLM, batch: Batch, part: TrainingPart) -> Callable[[int], float]:
    """A function that trains for a number of steps on one batch and gives the seconds."""
    import tensorflow as tf

    from symptomchat.learning.training import make_optimizer

    model.configure(part.label_smoothing, part.condition_weight)
    model.compile(optimizer=make_optimizer(part, PLANNED_STEPS), jit_compile=False)
    data = tf.data.Dataset.from_tensors(batch).cache().repeat()

    def run(steps: int) -> float:
        start = time.perf_counter()
        model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False)
        return time.perf_counter() - start

    return run


def torch_child(folder: Path) -> None:
    """The side of PyTorch: reads ``job.npz`` and ``job.json``, writes ``outputs.npz``, then obeys lines of input.

    A number trains for so many steps and answers with the seconds; ``loss`` answers with the loss without dropout.
    """
    import torch

    job = read_json(folder / "job.json")
    # Without Keras in this process the shape is plain values.
    shape, part = SimpleNamespace(**job["shape"]), TrainingPart.model_validate(job["part"])
    with np.load(folder / "job.npz") as stored:
        arrays = {name[2:]: stored[name] for name in stored.files if name.startswith("w:")}
        x, y = (
            {
                name[2:]: torch.tensor(stored[name], dtype=torch.int64)
                for name in stored.files
                if name[0] == side
            }
            for side in "xy"
        )
    torch.manual_seed(7)
    torch.set_num_threads(job["cores"])
    model = torch_model(shape, arrays)
    optimizer, schedule = torch_optimizer(model, part)

    def judge() -> tuple[Any, Any, float]:
        model.eval()
        with torch.no_grad():
            outputs = model(x["question"], x["answer"])
            loss = float(torch_loss(outputs, y, part))
        model.train()
        return *outputs, loss

    conditions, tokens, loss = judge()
    np.savez(
        folder / "outputs.npz", conditions=conditions.numpy(), tokens=tokens.numpy(), loss=loss,
        version=str(torch.__version__),
    )  # fmt: skip
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "loss":
            print(judge()[2], flush=True)
            continue
        start = time.perf_counter()
        for _ in range(int(line)):
            optimizer.zero_grad(set_to_none=True)
            torch_loss(model(x["question"], x["answer"]), y, part).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        print(time.perf_counter() - start, flush=True)


class TorchSide:
    """The child process with PyTorch; use as a context."""

    def __init__(self, shape: Shape, arrays: dict[str, np.ndarray], batch: Batch, part: TrainingPart) -> None:
        x, y = batch
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name)
        held = {f"w:{name}": value for name, value in arrays.items()}
        held |= {f"x:{name}": value for name, value in x.items()}
        held |= {f"y:{name}": value for name, value in y.items()}
        np.savez(path / "job.npz", **held)  # type: ignore[arg-type]
        write_json(
            path / "job.json",
            {"shape": shape.to_json(), "part": part.model_dump(), "cores": cores()},
        )
        self.errors = path / "errors.txt"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--child", str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors.open("w"), text=True,
        )  # fmt: skip
        self.answer()
        with np.load(path / "outputs.npz") as stored:
            self.outputs = {name: stored[name] for name in stored.files}
        self.version = str(self.outputs.pop("version"))

    def answer(self) -> str:
        """One line of the child.

        Raises:
            SymptomChatError: it ended instead.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            reason = (self.errors.read_text(encoding="utf-8").strip().splitlines() or ["no reason given"])[
                -1
            ][:200]
            raise SymptomChatError(f"PyTorch: the timing process ended ({reason}); mend its installation")
        return line

    def ask(self, line: str) -> float:
        """Send a line and wait for its number."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return float(self.answer())

    def run(self, steps: int) -> float:
        """Train; the seconds that it took."""
        return self.ask(str(steps))

    def __enter__(self) -> TorchSide:
        return self

    def __exit__(self, *_: object) -> None:
        # An empty input ends the child.
        self.process.communicate()
        self.folder.cleanup()


def differences(model: PrefixLM, other: TorchSide, batch: Batch, part: TrainingPart) -> dict[str, float]:
    """Largest differences of the logits, without dropout, and of the loss.

    Raises:
        SymptomChatError: they are not the same model.
    """
    x, y = batch
    outputs = model(x, training=False)
    model.configure(part.label_smoothing, part.condition_weight)
    real = y["next"] != 0
    result = {
        "conditions": float(np.abs(np.asarray(outputs["conditions"]) - other.outputs["conditions"]).max()),
        "tokens": float(np.abs(np.asarray(outputs["tokens"]) - other.outputs["tokens"])[real].max()),
        "loss": abs(float(model.combined(y, outputs)) - float(other.outputs["loss"])),
    }
    if max(result.values()) > LARGEST_DIFFERENCE:
        raise SymptomChatError(
            f"benchmarks/training.py: Keras and PyTorch differ by {result}; this is a bug, please report it"
        )
    return {name: round(value, 8) for name, value in result.items()}


def make_batch(rows: Sequence[Any], batch: int = BATCH) -> Batch:
    """The first rows, padded to one width.

    Raises:
        SymptomChatError: there are too few.
    """
    from symptomchat.learning.batches import pad

    if len(rows) < batch:
        raise SymptomChatError(f"the run's exchanges: hold {len(rows)} of the asked-for length, not {batch}")
    return pad(rows[:batch])


def take_turns(sides: dict[str, Callable[[int], float]], repeats: int, steps: int) -> dict[str, list[float]]:
    """Seconds of a step in each repeat, after a warm-up of each side."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True
    ) as progress:  # fmt: skip
        task = progress.add_task("warming up", total=repeats * len(sides))
        for run in sides.values():
            run(max(2, steps // 2))
        for _ in range(repeats):
            for name, run in sides.items():
                times[name].append(run(steps) / steps)
                progress.update(task, description=name, advance=1)
    return times


def compare(
    shape: Shape, arrays: dict[str, np.ndarray], batch: Batch, part: TrainingPart, repeats: int, steps: int
) -> dict[str, Any]:
    """Median tokens per second of both on one batch.

    Args:
        repeats: timings of each side, taken in turns.
        steps: training steps of each timing.
    """
    import keras

    from symptomchat.models.student import PrefixLM

    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(7)
    model = PrefixLM(shape, name="prefix_lm")
    model.load_arrays(arrays)
    x, y = batch
    real = int((x["question"] != 0).sum() + (y["next"] != 0).sum())
    with TorchSide(shape, arrays, batch, part) as other:
        same = differences(model, other, batch, part)
        sides = {
            f"Keras {version('keras')} on TensorFlow {version('tensorflow')}": keras_steps(
                model, batch, part
            ),
            f"PyTorch {other.version}": other.run,
        }
        times = take_turns(sides, repeats, steps)
    medians = {name: float(np.median(found)) for name, found in times.items()}
    first, second = medians.values()
    return {
        "question": list(x["question"].shape),
        "answer": list(x["answer"].shape),
        "real tokens": real,
        "largest differences": same,
        "rows": [
            {
                "framework": name,
                "seconds per step": round(value, 4),
                "fastest": round(min(times[name]), 4),
                "slowest": round(max(times[name]), 4),
                "tokens per second": round(real / value),
            }
            for name, value in medians.items()
        ],
        "Keras over PyTorch": round(second / first, 3),
    }


def measure(folder: Path, recipe: str | None, repeats: int, steps: int) -> dict[str, Any]:
    """Both kinds of batch of a run's student."""
    from compression import open_run

    run = open_run(folder, recipe)
    need_torch()
    from symptomchat.models.student import Shape

    shape = Shape.from_json(read_json(run.work / "student.json"))
    with np.load(run.work / "student.npz") as stored:
        arrays = dict(stored)
    rows = [row for row in run.encoded("training") if SHORTEST <= len(row.question) <= LONGEST]
    batches = {kind: make_batch([r for r in rows if chosen(r.answer)]) for kind, chosen in KINDS.items()}
    return {
        "cores": cores(),
        "precision": "float32",
        "repeats": repeats,
        "steps": steps,
        "kinds": {
            kind: compare(shape, arrays, batch, run.recipe.distilling, repeats, steps)
            for kind, batch in batches.items()
        },
    }


def show(results: dict[str, Any]) -> Table:
    """The results as a table."""
    table = Table(
        title=f"The student's training step, float32, {results['cores']} cores, median of {results['repeats']}"
    )
    for column in ("batch", "framework"):
        table.add_column(column)
    for column in ("s per step", "fastest–slowest", "real tokens per s", "Keras over PyTorch"):
        table.add_column(column, justify="right")
    for kind, found in results["kinds"].items():
        asked, told = found["question"], found["answer"]
        for at, row in enumerate(found["rows"]):
            table.add_row(
                "" if at else f"{kind}: {asked[0]} × ({asked[1]} + {told[1]})", row["framework"],
                f"{row['seconds per step']:.3f}", f"{row['fastest']:.3f}–{row['slowest']:.3f}",
                f"{row['tokens per second']:,}", "" if at else f"{found['Keras over PyTorch']:.2f}×",
            )  # fmt: skip
    return table


def main(command: list[str] | None = None) -> int:
    """Measure and print."""
    command = sys.argv[1:] if command is None else command
    if command[:1] == ["--child"]:
        torch_child(Path(command[1]))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="folder of a finished run, such as models/full"
    )
    parser.add_argument("--recipe", help="of the run, where its manifest does not say it")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="training steps of each repeat")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args(command)
    try:
        if min(arguments.repeats, arguments.steps) < 1:
            raise SymptomChatError("--repeats and --steps: must be positive; leave them out for the defaults")
        results = measure(arguments.run, arguments.recipe, arguments.repeats, arguments.steps)
        write_json(arguments.output, results)
    except SymptomChatError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    Console(width=130).print(show(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
