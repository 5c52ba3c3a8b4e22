"""From teacher to student with ``keras.distillation``: masked, temperature-scaled KL on tokens and conditions.

The distiller is a thin subclass of ``keras.distillation.Distiller``: only its loss differs, because Keras'
own averages over padding. After Hinton et al. 2015; the student starts from the teacher's own parts, as
DistilBERT (Sanh et al. 2019) and Minitron (Muralidharan et al. 2024) do.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from keras.distillation import Distiller, LogitsDistillation

from symptomchat.models.student import PrefixLM, Shape
from symptomchat.recipe import ModelPart


class MaskedLogitsDistillation(LogitsDistillation):
    """KL between the softened distributions of teacher and student, over conditions and over real tokens."""

    def __init__(self, temperature: float) -> None:
        super().__init__(temperature=temperature, loss=keras.losses.KLDivergence(reduction=None))

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Both sides must rank the same conditions and speak the same vocabulary."""
        for name in teacher_outputs.keys() & {"conditions", "tokens"}:
            widths = {teacher_outputs[name].shape[-1], student_outputs[name].shape[-1]}
            if len(widths - {None}) > 1:
                raise ValueError(f"distillation: teacher and student differ in the width of '{name}'")

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Mean over examples for the conditions plus mean over real tokens for the answer, times T²."""

        def divergence(name: str) -> Any:
            taught = ops.softmax(teacher_outputs[name] / self.temperature, axis=-1)
            learned = ops.log_softmax(student_outputs[name] / self.temperature, axis=-1)
            return ops.sum(taught * (ops.log(taught + 1e-9) - learned), axis=-1)

        if "tokens" not in teacher_outputs:
            # Stored targets hold the conditions alone.
            return ops.mean(divergence("conditions")) * self.temperature**2
        real = kwargs["real"]
        tokens = ops.sum(divergence("tokens") * real) / ops.maximum(ops.sum(real), 1.0)
        return (ops.mean(divergence("conditions")) + tokens) * self.temperature**2


class PrefixDistiller(Distiller):
    """Student loss on labels (masked) and distillation loss on the teacher's distributions (masked)."""

    def __init__(self, teacher: keras.Model, student: PrefixLM, temperature: float, weight: float) -> None:
        super().__init__(
            teacher=teacher,
            student=student,
            distillation_losses=[MaskedLogitsDistillation(temperature)],
            student_loss_weight=1.0 - weight,
        )

    def compile(self, optimizer: Any = "adamw", **options: Any) -> None:
        """As every Keras model: the losses are this class's own, so none is asked for."""
        keras.Model.compile(self, optimizer=optimizer, **options)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The trackers are updated with the loss; Keras only collects them."""
        return self.get_metrics_result()

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Combined loss; validation batches are judged by the labels alone."""
        if y_pred is None:
            y_pred = self(x, training=training)
        labels = self.student.combined(y, y_pred)
        taught = 0.0
        if training and self.student_loss_weight < 1.0:
            real = ops.cast(ops.not_equal(y["next"], 0), "float32")
            outputs = self.teacher(x, training=False)
            for loss, weight in zip(self.distillation_losses, self.distillation_loss_weights):
                loss.validate_outputs(outputs, y_pred)
                taught += weight * loss.compute_loss(outputs, y_pred, real=real)
        total = self.student_loss_weight * labels + (1.0 - self.student_loss_weight) * taught
        self.student_loss_tracker.update_state(labels)
        self.distillation_loss_tracker.update_state(taught)
        self.total_loss_tracker.update_state(total)
        return total


def importance(
    model: PrefixLM, batches: keras.utils.PyDataset, steps: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """How much the loss depends on each attention head and each feed-forward neuron.

    First-order Taylor expansion (Molchanov et al. 2019; for heads Michel et al. 2019): the sum over a
    structure's output weights of |weight × gradient|, added up over batches.

    Returns:
        for each layer ``[heads]`` and ``[neurons]``.
    """
    import tensorflow as tf

    kernels = [kernel for block in model.blocks for kernel in (block.merge.kernel, block.contract.kernel)]
    heads = [np.zeros(block.heads) for block in model.blocks]
    neurons = [np.zeros(block.expand.units) for block in model.blocks]
    for step in range(min(steps, len(batches))):
        x, y = batches[step]
        with tf.GradientTape() as tape:
            loss = model.combined(y, model(x, training=False))
        gradients = tape.gradient(loss, [kernel.value for kernel in kernels])
        for layer in range(len(model.blocks)):
            for at, sums in ((2 * layer, heads), (2 * layer + 1, neurons)):
                product = np.asarray(kernels[at]) * np.asarray(gradients[at])
                groups = product.reshape(len(sums[layer]), -1)
                sums[layer] += np.abs(groups.sum(axis=1)) if at % 2 else np.abs(groups).sum(axis=1)
    return heads, neurons


def slim(teacher: PrefixLM, part: ModelPart, heads: list[np.ndarray], neurons: list[np.ndarray]) -> PrefixLM:
    """A smaller model made of the teacher's most important heads and neurons, and of its evenly spaced layers.

    Args:
        part: asked-for layers, heads and neurons (0 keeps the teacher's number).
        heads, neurons: importance by layer.
    """
    old = teacher.shape_
    layers = part.layers or old.layers
    chosen = [round(i) for i in np.linspace(0, old.layers - 1, min(layers, old.layers))]
    keep_heads = [_top(heads[at], part.heads) for at in chosen]
    keep_neurons = [_top(neurons[at], part.neurons) for at in chosen]
    values = old.to_json() | {
        "heads": tuple(map(len, keep_heads)),
        "neurons": tuple(map(len, keep_neurons)),
        "dropout": part.dropout,
    }
    student = PrefixLM(Shape.from_json(values), name="prefix_lm")
    source, arrays = teacher.arrays(), student.arrays()
    for name in arrays:
        if not name.startswith("block_"):
            arrays[name] = source[name]
    for new, at in enumerate(chosen):
        columns = (keep_heads[new][:, None] * old.head_size + np.arange(old.head_size)).reshape(-1)
        for name in [n for n in arrays if n.startswith(f"block_{new}/")]:
            value = source[name.replace(f"block_{new}/", f"block_{at}/", 1)]
            part_name = name.split("/")[1]
            if part_name in ("query", "key", "value"):
                value = value[..., columns]
            elif name.endswith("merge/kernel"):
                value = value[columns]
            elif part_name == "expand":
                value = value[..., keep_neurons[new]]
            elif name.endswith("contract/kernel"):
                value = value[keep_neurons[new]]
            arrays[name] = value
    student.load_arrays(arrays)
    return student


def _top(scores: np.ndarray, count: int) -> np.ndarray:
    keep = len(scores) if count == 0 else min(count, len(scores))
    return np.sort(np.argsort(-scores, kind="stable")[:keep])
