"""The training and validation loops, with a live table per epoch and a state that survives interruption.

In: a compiled-to-be Keras model and two sets of batches. Out: the model with its best weights, and the
history (epoch, training loss, validation loss, seconds, learning rate) as rows. Losses are means over real
tokens, never over padding.
"""

from __future__ import annotations

import csv
import io
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from symptomchat.files import atomic, write_text
from symptomchat.learning.batches import Batches
from symptomchat.recipe import TrainingPart

COLUMNS = ("epoch", "training loss", "validation loss", "seconds", "learning rate")
console = Console()


def precision_policy(asked: str) -> str:
    """``auto`` becomes mixed bfloat16 where the processor multiplies bfloat16 in hardware, else float32."""
    if asked != "auto":
        return asked
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "float32"
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


@keras.saving.register_keras_serializable(package="symptomchat")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a cosine down to a twentieth of the peak."""

    def __init__(self, peak: float, steps: int, warmup: int) -> None:
        self.peak, self.steps, self.warmup = peak, steps, warmup

    def __call__(self, step: Any) -> Any:
        """Learning rate at a step."""
        step = ops.cast(step, "float32")
        up = (step + 1) / max(1, self.warmup)
        done = ops.clip((step - self.warmup) / max(1, self.steps - self.warmup), 0.0, 1.0)
        down = 0.05 + 0.95 * 0.5 * (1.0 + ops.cos(math.pi * done))
        return self.peak * ops.where(step < self.warmup, up, down)

    def get_config(self) -> dict[str, Any]:
        """For Keras' serialization."""
        return {"peak": self.peak, "steps": self.steps, "warmup": self.warmup}


@keras.saving.register_keras_serializable(package="symptomchat")
class FasterHeadAdamW(keras.optimizers.AdamW):
    """AdamW whose steps are longer for the heads (ranking and text) than for the pretrained layers.

    The heads are new and must move far; the layers know their language already and must not forget it
    (discriminative fine-tuning, Howard and Ruder 2018).
    """

    def __init__(self, learning_rate: Any = 1e-4, head_rate: float = 1.0, **options: Any) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.head_rate = head_rate
        self._heads: set[int] = set()

    def build(self, variables: Any) -> None:
        """Remember which variables belong to the heads."""
        super().build(variables)
        names = (
            "condition_embedding", "condition_bias", "condition_scale", "summary/", "transform/", "token_bias"
        )  # fmt: skip
        self._heads = {id(v.value) for v in variables if any(name in v.path for name in names)}

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one variable."""
        rate = self.head_rate if id(variable) in self._heads else 1.0
        super().update_step(gradient, variable, learning_rate * rate)

    def get_config(self) -> dict[str, Any]:
        """For Keras' serialization."""
        return {**super().get_config(), "head_rate": self.head_rate}


def make_optimizer(part: TrainingPart, steps: int) -> keras.optimizers.Optimizer:
    """AdamW with warm-up, cosine and clipping; biases, norms and embeddings are not decayed."""
    schedule = WarmupCosine(part.learning_rate, max(1, steps), round(steps * part.warmup))
    optimizer = FasterHeadAdamW(
        schedule, head_rate=part.head_rate, weight_decay=part.weight_decay, global_clipnorm=1.0
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "embedding", "scale"])
    return optimizer


@dataclass
class History:
    """What the loops recorded, one row an epoch."""

    rows: list[dict[str, float]] = field(default_factory=list)

    def csv(self) -> str:
        """The rows as CSV text."""
        text = io.StringIO()
        names = list(COLUMNS) + sorted({key for row in self.rows for key in row} - set(COLUMNS))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def table(self, title: str) -> Table:
        """The rows as the demo of the talk printed them."""
        table = Table(title=title)
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(
                f"{row['epoch']:.0f}", f"{row['training loss']:.4f}", f"{row['validation loss']:.4f}",
                f"{row['seconds']:.1f}", f"{row['learning rate']:.2e}",
            )  # fmt: skip
        return table


class _State(keras.callbacks.Callback):
    """Writes weights, optimizer and history after each epoch; restores them before the first."""

    def __init__(
        self,
        path: Path,
        history: History,
        batches: Batches,
        validate: Callable[[], dict[str, float]],
        patience: int,
        live: _Display,
    ) -> None:
        super().__init__()
        self.path, self.history, self.batches = path, history, batches
        self.validate, self.patience, self.live = validate, patience, live
        self.best = math.inf
        self.best_arrays: list[np.ndarray] = []
        self.started = 0.0

    def variables(self) -> list[Any]:
        """Everything that the next step depends on."""
        # Seed generators' states are among the non-trainable variables of the model.
        return [*self.model.variables, *self.model.optimizer.variables]

    def restore(self) -> int:
        """Load a saved state; gives the number of epochs that are done."""
        if not self.path.is_file():
            return 0
        with np.load(self.path, allow_pickle=False) as stored:
            variables = self.variables()
            for at, variable in enumerate(variables):
                variable.assign(stored[f"v{at}"].astype(variable.dtype))
            self.best = float(stored["best"])
            self.best_arrays = [stored[f"b{at}"] for at in range(int(stored["best_count"]))]
            names = [str(name) for name in stored["columns"]]
            self.history.rows = [dict(zip(names, map(float, row))) for row in stored["history"]]
        return len(self.history.rows)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.batches.start_epoch(epoch)
        self.started = time.perf_counter()
        self.live.begin(epoch, len(self.batches))

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.live.step(float((logs or {}).get("loss", 0.0)))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seconds = time.perf_counter() - self.started
        values = self.validate()
        row = {
            "epoch": float(epoch + 1),
            "training loss": float((logs or {})["loss"]),
            "validation loss": values.pop("loss"),
            "seconds": round(seconds, 2),
            "learning rate": float(ops.convert_to_numpy(self.model.optimizer.learning_rate)),
        }
        row.update({f"validation {key}".replace("_", " "): value for key, value in sorted(values.items())})
        self.history.rows.append(row)
        if row["validation loss"] < self.best:
            self.best = row["validation loss"]
            self.best_arrays = [np.asarray(ops.convert_to_numpy(w)) for w in self.model.trainable_weights]
        best_epoch = min(self.history.rows, key=lambda r: r["validation loss"])["epoch"]
        if epoch + 1 - best_epoch >= self.patience:
            self.model.stop_training = True
        columns = list(row)
        arrays: dict[str, Any] = {f"v{at}": ops.convert_to_numpy(v) for at, v in enumerate(self.variables())}
        arrays = {
            name: np.asarray(a, "float32") if str(a.dtype) == "bfloat16" else a for name, a in arrays.items()
        }
        arrays.update({f"b{at}": a for at, a in enumerate(self.best_arrays)})
        with atomic(self.path) as temporary, temporary.open("wb") as handle:
            np.savez(
                handle, best=self.best, best_count=len(self.best_arrays), columns=columns,
                history=np.array([[r[c] for c in columns] for r in self.history.rows]), **arrays,
            )  # fmt: skip
        self.live.end()

    def take_best(self) -> None:
        """Put the weights of the best epoch back."""
        for weight, array in zip(self.model.trainable_weights, self.best_arrays):
            weight.assign(array)


class _Display:
    """The live table with a progress bar and the time left below it."""

    def __init__(self, title: str, history: History, epochs: int) -> None:
        self.title, self.history, self.epochs = title, history, epochs
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"), console=console,
        )  # fmt: skip
        self.task = self.progress.add_task("", total=1, epoch="", loss=0.0)
        self.live = Live(console=console, refresh_per_second=2, transient=True)

    def _draw(self) -> None:
        table = self.history.table(self.title)
        table.caption = None
        grid = Table.grid()
        grid.add_row(table)
        grid.add_row(self.progress)
        self.live.update(grid)

    def begin(self, epoch: int, steps: int) -> None:
        self.progress.reset(self.task, total=steps, epoch=f"{epoch + 1}/{self.epochs}", loss=0.0)
        self._draw()

    def step(self, loss: float) -> None:
        self.progress.update(self.task, advance=1, loss=loss)

    def end(self) -> None:
        self._draw()


def _data(batches: Any) -> Any:
    return batches.dataset() if hasattr(batches, "dataset") else batches


def fit(
    model: keras.Model,
    training: Batches,
    validation: Batches,
    part: TrainingPart,
    state: Path,
    title: str,
    callbacks: list[keras.callbacks.Callback] | None = None,
    validate: Callable[[], dict[str, float]] | None = None,
    last: bool = False,
) -> History:
    """Train with early stopping, keep the best epoch, resume from ``state``.

    Args:
        state: file that holds weights, optimizer and history after each epoch.
        callbacks: further Keras callbacks, such as a pruning schedule.
        validate: gives the validation metrics; by default ``model.evaluate``.
        last: keep the weights of the last epoch instead of the best one's.

    Returns:
        the history, whose CSV is also written beside ``state``.
    """
    model.compile(optimizer=make_optimizer(part, part.epochs * len(training)), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    history = History()

    def evaluate() -> dict[str, float]:
        return {
            k: float(v) for k, v in model.evaluate(_data(validation), verbose=0, return_dict=True).items()
        }

    display = _Display(title, history, part.epochs)
    keeper = _State(state, history, training, validate or evaluate, part.patience, display)
    keeper.set_model(model)
    done = keeper.restore()
    best = min((row for row in history.rows), key=lambda r: r["validation loss"], default=None)
    stopped = best is not None and done - best["epoch"] >= part.patience
    if done < part.epochs and not stopped:
        with display.live, warnings.catch_warnings():
            # A generator's epoch has no declared length; Keras learns it from the first and warns each time.
            warnings.filterwarnings("ignore", message="Your input ran out of data")
            model.fit(
                _data(training), epochs=part.epochs, initial_epoch=done, verbose=0, shuffle=False,
                callbacks=[keeper, *(callbacks or [])],
            )  # fmt: skip
    console.print(history.table(title))
    if not last:
        keeper.take_best()
    write_text(state.with_suffix(".csv"), history.csv())
    return history
