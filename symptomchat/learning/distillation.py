"""From teacher to student with ``keras.distillation``: masked, temperature-scaled KL on tokens and conditions.

The distiller is a thin subclass of ``keras.distillation.Distiller``: only its loss differs, because Keras'
own averages over padding. After Hinton et al. 2015; the student starts from the teacher's own parts, as
DistilBERT (Sanh et al. 2019) and Minitron (Muralidharan et al. 2024) do.

Where a teacher's words are stored (``targets.Lessons``), each kind of them has a loss of its own: conditions, answer
tokens, hidden states through a learned projection, and conditions of questions without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.distillation import DistillationLoss, Distiller, LogitsDistillation

from symptomchat.models.student import PrefixLM, Shape
from symptomchat.recipe import ModelPart


class MaskedLogitsDistillation(LogitsDistillation):
    """KL between the softened distributions of teacher and student, over conditions and over real tokens.

    Where a batch brings questions without labels, the conditions of those too.
    """

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
        conditions = ops.mean(divergence("conditions"))
        if "free" in teacher_outputs:
            conditions += ops.mean(divergence("free"))
        return (conditions + tokens) * self.temperature**2


def top_k_divergence(best: Any, shares: Any, logits: Any, temperature: float) -> Any:
    """KL from a distribution of which only the likeliest outcomes are known; all others count as one outcome.

    Args:
        best, shares: ``[..., K]`` numbers and probabilities of the likeliest outcomes, softened already.
        logits: ``[..., C]``, softened here.

    Returns:
        ``[...]``; never more than the divergence of the whole distributions.
    """
    learned = ops.take_along_axis(ops.log_softmax(logits / temperature, axis=-1), best, axis=-1)
    rest = ops.maximum(1.0 - ops.sum(shares, axis=-1), 1e-6)
    learned_rest = ops.maximum(1.0 - ops.sum(ops.exp(learned), axis=-1), 1e-6)
    known = ops.sum(shares * (ops.log(shares + 1e-9) - learned), axis=-1)
    return known + rest * (ops.log(rest) - ops.log(learned_rest))


class _Stored(DistillationLoss):  # type: ignore[misc]
    """A loss on what was stored of a teacher."""

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Stored outcomes have numbers, so both sides differ in shape."""


class ConditionTargets(_Stored):
    """Mean over examples of the divergence over conditions, times T²."""

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Scalar."""
        best, shares = teacher_outputs["condition_best"], teacher_outputs["condition_shares"]
        each = top_k_divergence(best, shares, student_outputs["conditions"], self.temperature)
        return ops.mean(each) * self.temperature**2


class TokenTargets(_Stored):
    """Mean over the real tokens of the answers of the divergence over the vocabulary, times T²."""

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Scalar."""
        best, shares = teacher_outputs["token_best"], teacher_outputs["token_shares"]
        each = top_k_divergence(best, shares, student_outputs["tokens"], self.temperature)
        real = kwargs["real"]
        return ops.sum(each * real) / ops.maximum(ops.sum(real), 1.0) * self.temperature**2


class FeatureTargets(_Stored):
    """Mean over blocks and examples of one minus the cosine of projected and taught states (FitNets, DistilBERT)."""

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Scalar."""
        taught, learned = teacher_outputs["features"], student_outputs["features"]
        return ops.mean(1.0 - ops.sum(ops.normalize(taught) * ops.normalize(learned), axis=-1))


class FreeTargets(_Stored):
    """As ``ConditionTargets``, of the questions without labels that come with a batch."""

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Scalar."""
        best, shares = teacher_outputs["free_condition_best"], teacher_outputs["free_condition_shares"]
        each = top_k_divergence(best, shares, student_outputs["free"], self.temperature)
        return ops.mean(each) * self.temperature**2


class Tap:
    """The states after some blocks of a model in its latest forward pass, until it is closed."""

    def __init__(self, model: PrefixLM, blocks: Sequence[int]) -> None:
        self.model, self.blocks = model, tuple(blocks)
        self.states: dict[int, Any] = {}
        for at in self.blocks:
            inner = model.blocks[at].call

            def call(
                x: Any, mask: Any, training: bool | None = None, inner: Any = inner, at: int = at
            ) -> Any:
                self.states[at] = inner(x, mask, training=training)
                return self.states[at]

            model.blocks[at].call = call  # type: ignore[method-assign]

    def pooled(self, question: Any) -> list[Any]:
        """For each block the mean ``[B, hidden]`` of its states over the real tokens of questions ``[B, S]``."""
        real = ops.cast(ops.not_equal(question, 0), "float32")[:, :, None]
        lengths = ops.maximum(ops.sum(real, axis=1), 1.0)
        kept = [ops.cast(self.states[at][:, : ops.shape(question)[1]], "float32") for at in self.blocks]
        return [ops.sum(states * real, axis=1) / lengths for states in kept]

    def close(self) -> None:
        """Leave the model as it was."""
        for at in self.blocks:
            del self.model.blocks[at].call


class PrefixDistiller(Distiller):
    """Student loss on labels (masked) and distillation loss on the teacher's distributions (masked).

    Args:
        weight: of the distillation losses together; the labels have the rest.
        losses: on stored words of the teacher, instead of the loss on its live outputs.
        blocks: of the student, whose states are compared with the teacher's features.
        width: size of the teacher's features, by default the student's.
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: PrefixLM,
        temperature: float,
        weight: float,
        losses: Sequence[DistillationLoss] | None = None,
        blocks: Sequence[int] = (),
        width: int = 0,
    ) -> None:
        super().__init__(
            teacher=teacher,
            student=student,
            distillation_losses=[MaskedLogitsDistillation(temperature)] if losses is None else list(losses),
            student_loss_weight=1.0 - weight,
        )
        hidden, width = student.shape_.hidden, width or student.shape_.hidden
        # Where both sides are as wide, the projection starts as none: a student cut from its teacher fits already.
        start = "identity" if width == hidden else "glorot_uniform"
        self.projections = [
            keras.layers.Dense(width, kernel_initializer=start, name=f"projection_{at}", dtype="float32")
            for at in blocks
        ]
        for projection in self.projections:
            projection.build((None, hidden))
        self.tap = Tap(student, blocks)

    def call(self, inputs: dict[str, Any], training: bool | None = None, **options: Any) -> dict[str, Any]:
        """The student's outputs; with them projected states and the conditions of unlabelled questions."""
        outputs: dict[str, Any] = self.student(inputs, training=training, **options)
        if self.projections:
            states = self.tap.pooled(inputs["question"])
            projected = [projection(state) for projection, state in zip(self.projections, states)]
            outputs = outputs | {"features": ops.stack(projected, axis=1)}
        if "free_question" in inputs:
            free = {name: inputs[f"free_{name}"] for name in ("question", "answer")}
            outputs = outputs | {"free": self.student(free, training=training)["conditions"]}
        return outputs

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
            if "free_question" in x and "conditions" in outputs:
                free = {name: x[f"free_{name}"] for name in ("question", "answer")}
                outputs = outputs | {"free": self.teacher(free, training=False)["conditions"]}
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

    @tf.function(reduce_retracing=True, autograph=False)  # type: ignore[untyped-decorator]
    def slopes(x: dict[str, Any], y: dict[str, Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            loss = model.combined(y, model(x, training=False))
        found: list[Any] = tape.gradient(loss, [kernel.value for kernel in kernels])
        return found

    for step in range(min(steps, len(batches))):
        gradients = slopes(*batches[step])
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
