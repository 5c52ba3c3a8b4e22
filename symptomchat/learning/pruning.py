"""Magnitude pruning by the schedules of tensorflow-model-optimization, on Keras 3 variables.

The library wraps Keras 2 layers only, but its engine (``pruning_impl.Pruning``) works on plain variables:
a callback drives it once a step while training goes on, so that the model recovers as it is pruned.
After Zhu and Gupta 2017.
"""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from symptomchat.models.student import PrefixLM
from symptomchat.recipe import PruningPart


class MagnitudePruning(keras.callbacks.Callback):
    """Sets the smallest weights of every attention and feed-forward kernel to zero, step by step.

    Args:
        student: whose kernels are pruned (under a distiller, the distiller's student).
        part: final sparsity and the shares of training at which pruning begins and ends.
        steps: of the whole loop.
    """

    def __init__(self, student: PrefixLM, part: PruningPart, steps: int) -> None:
        super().__init__()
        # Importing the library would switch a process that has not loaded Keras yet to Keras 2.
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
        import tensorflow as tf
        from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_schedule

        begin, end = round(steps * part.begin), max(round(steps * part.begin) + 1, round(steps * part.end))
        schedule = pruning_schedule.PolynomialDecay(0.0, part.sparsity, begin, end, frequency=1)
        self.at = tf.Variable(0, dtype=tf.int64, trainable=False)
        triples = []
        for kernel in prunable(student):
            mask = tf.Variable(tf.ones(kernel.shape), trainable=False)
            triples.append((kernel.value, mask, tf.Variable(0.0, trainable=False)))
        self.masks = [mask for _, mask, _ in triples]
        engine = pruning_impl.Pruning(lambda: self.at, triples, schedule, (1, 1), "AVG")

        @tf.function
        def update() -> None:
            engine.conditional_mask_update()
            engine.weight_mask_op()

        self.update = update
        self.steps = steps

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Go on from the right place of the schedule after an interruption."""
        self.at.assign(epoch * int(self.params.get("steps") or 0))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Prune after the optimizer's step."""
        self.update()
        self.at.assign_add(1)


def prunable(model: PrefixLM) -> list[Any]:
    """Kernels of attention and feed-forward layers; embeddings, norms and biases are left alone."""
    names = ("query", "key", "value", "merge", "expand", "contract")
    return [getattr(block, name).kernel for block in model.blocks for name in names]


def sparsity(model: PrefixLM) -> float:
    """Share of zeros in the prunable kernels."""
    zeros = sum(int(np.sum(np.asarray(kernel) == 0)) for kernel in prunable(model))
    return zeros / sum(int(np.prod(kernel.shape)) for kernel in prunable(model))
