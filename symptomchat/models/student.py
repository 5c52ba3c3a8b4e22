"""The prefix language model: one transformer stack, bidirectional over the question, causal over the answer.

In: token ids of a question and of the answer so far. Out: logits over the conditions, read at the position
of ``[SEP]``, and logits of the next token at each position of the answer. After Dong et al. 2019 (UniLM),
with the post-normalised blocks of BERT so that a pretrained encoder's weights fit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops


@dataclass(frozen=True)
class Shape:
    """Sizes of a prefix language model.

    Attributes:
        text_vocabulary: number of text and grammar tokens (ids below ``<c:none>``).
        conditions: number of condition tokens, ``<c:none>`` included.
        heads, neurons: of each layer; layers may differ after structured pruning.
        question_tokens, answer_tokens: longest sequences.
    """

    text_vocabulary: int
    conditions: int
    hidden: int
    head_size: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    question_tokens: int
    answer_tokens: int
    dropout: float = 0.1
    epsilon: float = 1e-12

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self.heads)

    @property
    def positions(self) -> int:
        """Number of position embeddings."""
        return self.question_tokens + self.answer_tokens

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Shape:
        """The inverse of ``to_json``."""
        values = dict(values, heads=tuple(values["heads"]), neurons=tuple(values["neurons"]))
        return cls(**values)


def gelu(x: Any) -> Any:
    """GELU in its tanh form, as keras-hub's BERT computes it."""
    return keras.activations.gelu(x, approximate=True)


class Block(keras.layers.Layer):
    """Self-attention and feed-forward, each followed by dropout, a residual sum and layer normalisation."""

    def __init__(self, shape: Shape, index: int, **options: Any) -> None:
        super().__init__(name=f"block_{index}", **options)
        self.heads, self.head_size = shape.heads[index], shape.head_size
        width = self.heads * self.head_size
        self.query = keras.layers.Dense(width, name="query")
        self.key = keras.layers.Dense(width, name="key")
        self.value = keras.layers.Dense(width, name="value")
        self.merge = keras.layers.Dense(shape.hidden, name="merge")
        self.attention_norm = keras.layers.LayerNormalization(epsilon=shape.epsilon, name="attention_norm")
        self.expand = keras.layers.Dense(shape.neurons[index], activation=gelu, name="expand")
        self.contract = keras.layers.Dense(shape.hidden, name="contract")
        self.output_norm = keras.layers.LayerNormalization(epsilon=shape.epsilon, name="output_norm")
        self.dropout = keras.layers.Dropout(shape.dropout)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the weights for inputs of ``[batch, tokens, hidden]``."""
        hidden = shape[-1]
        for layer in (self.query, self.key, self.value, self.expand):
            layer.build((None, None, hidden))
        self.merge.build((None, None, self.heads * self.head_size))
        self.contract.build((None, None, self.expand.units))
        self.attention_norm.build((None, None, hidden))
        self.output_norm.build((None, None, hidden))
        self.built = True

    def split(self, x: Any) -> Any:
        """``[batch, tokens, heads × size]`` → ``[batch, heads, tokens, size]``."""
        batch, tokens = ops.shape(x)[0], ops.shape(x)[1]
        return ops.transpose(ops.reshape(x, (batch, tokens, self.heads, self.head_size)), (0, 2, 1, 3))

    def call(self, x: Any, mask: Any, training: bool | None = None) -> Any:
        """Args: x ``[batch, tokens, hidden]``; mask ``[batch, 1, tokens, tokens]``, True where attention may look."""
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / self.head_size**0.5
        scores = ops.where(mask, ops.cast(scores, "float32"), -1e9)
        weights = self.dropout(ops.cast(ops.softmax(scores), x.dtype), training=training)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        mixed = ops.reshape(mixed, (ops.shape(x)[0], ops.shape(x)[1], self.heads * self.head_size))
        x = self.attention_norm(x + self.dropout(self.merge(mixed), training=training))
        return self.output_norm(x + self.dropout(self.contract(self.expand(x)), training=training))


class PrefixLM(keras.Model):
    """The student, and the teacher turned into the same form.

    Inputs: ``question [batch, S]`` and ``answer [batch, A]`` int32 (id 0 is padding; the answer begins with the
    condition token). Outputs: ``conditions [batch, C]`` and ``tokens [batch, A, V]`` logits, where row i of
    ``tokens`` predicts what follows answer token i.
    """

    def __init__(self, shape: Shape, **options: Any) -> None:
        super().__init__(**options)
        self.shape_ = shape
        hidden = shape.hidden
        self.text_embedding = self.add_weight(
            shape=(shape.text_vocabulary, hidden),
            name="text_embedding",
            initializer="truncated_normal",
            autocast=False,
        )
        self.condition_embedding = self.add_weight(
            shape=(shape.conditions, hidden),
            name="condition_embedding",
            initializer="truncated_normal",
            autocast=False,
        )
        self.position_embedding = self.add_weight(
            shape=(shape.positions, hidden),
            name="position_embedding",
            initializer="truncated_normal",
            autocast=False,
        )
        self.embedding_norm = keras.layers.LayerNormalization(epsilon=shape.epsilon, name="embedding_norm")
        self.dropout = keras.layers.Dropout(shape.dropout)
        self.blocks = [Block(shape, index) for index in range(shape.layers)]
        # The ranking reads the mean over the question, which is what the pretrained encoder was trained to
        # fill with meaning, plus what the [SEP] position learns to add (nothing at the start).
        self.summary = keras.layers.Dense(hidden, kernel_initializer="zeros", name="summary")
        self.transform = keras.layers.Dense(hidden, kernel_initializer="identity", name="transform")
        self.condition_bias = self.add_weight(
            shape=(shape.conditions,), name="condition_bias", initializer="zeros", autocast=False
        )
        self.condition_scale = self.add_weight(
            shape=(), name="condition_scale", initializer=keras.initializers.Constant(16.0), autocast=False
        )
        self.token_bias = self.add_weight(
            shape=(shape.text_vocabulary,), name="token_bias", initializer="zeros", autocast=False
        )
        for layer in (self.embedding_norm, self.summary, self.transform, *self.blocks):
            layer.build((None, None, hidden))
        self.built = True
        self.label_smoothing, self.condition_weight = 0.0, 1.0
        self.trackers = {
            name: keras.metrics.Mean(name=name) for name in ("condition_loss", "token_loss", "accuracy")
        }

    def embed(self, rows: Any, positions: Any, training: bool | None) -> Any:
        """Sum of token rows and position embeddings, normalised."""
        x = rows + ops.take(self.position_embedding, positions, axis=0)
        return self.dropout(self.embedding_norm(ops.cast(x, self.compute_dtype)), training=training)

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """One full forward pass; see the class for shapes."""
        question, answer = inputs["question"], inputs["answer"]
        asked, told = ops.shape(question)[1], ops.shape(answer)[1]
        real = ops.not_equal(question, 0)
        lengths = ops.sum(ops.cast(real, "int32"), axis=1)
        first = ops.take(self.condition_embedding, answer[:, :1] - self.shape_.text_vocabulary, axis=0)
        rows = ops.concatenate(
            [
                ops.take(self.text_embedding, question, axis=0),
                first,
                ops.take(self.text_embedding, answer[:, 1:], axis=0),
            ],
            axis=1,
        )
        positions = ops.concatenate(
            [
                ops.broadcast_to(ops.arange(asked)[None], ops.shape(question)),
                lengths[:, None] + ops.arange(told)[None],
            ],
            axis=1,
        )
        x = self.embed(rows, positions, training)
        to_question = ops.broadcast_to(
            real[:, None, None, :], (ops.shape(question)[0], 1, asked + told, asked)
        )
        order = ops.arange(asked + told)[:, None] - asked >= ops.arange(told)[None, :]
        to_answer = ops.broadcast_to(order[None, None], (ops.shape(question)[0], 1, asked + told, told))
        mask = ops.concatenate([to_question, to_answer], axis=-1)
        for block in self.blocks:
            x = block(x, mask, training=training)
        mark = ops.one_hot(lengths - 1, asked, dtype=x.dtype)[:, None, :]
        # Row order: the state at [SEP], and the mean over the question.
        state = ops.matmul(mark, x[:, :asked])[:, 0]
        weight = ops.cast(real, x.dtype)[:, None, :] / ops.cast(lengths, x.dtype)[:, None, None]
        mean = ops.matmul(weight, x[:, :asked])[:, 0]
        summary = ops.cast(self.summarise(mean, state), x.dtype)
        conditions = ops.matmul(summary, ops.transpose(ops.cast(self.condition_embedding, x.dtype)))
        conditions = ops.cast(conditions, "float32") * self.condition_scale + self.condition_bias
        tokens = ops.matmul(
            self.transform(x[:, asked:]), ops.transpose(ops.cast(self.text_embedding, x.dtype))
        )
        return {
            "conditions": conditions,
            "tokens": ops.cast(tokens, "float32") + self.token_bias,
            "summary": ops.cast(summary, "float32"),
        }

    def summarise(self, mean: Any, state: Any) -> Any:
        """Unit vector that is compared with the condition embeddings, ``[batch, hidden]``."""
        x = ops.cast(mean + self.summary(state), "float32")
        return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-12)

    def configure(self, label_smoothing: float, condition_weight: float) -> None:
        """Set the constants of the loss."""
        self.label_smoothing, self.condition_weight = label_smoothing, condition_weight

    def losses_of(self, y: dict[str, Any], outputs: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Condition loss, token loss (mean over real tokens, never over padding) and accuracy; scalars."""
        conditions = ops.one_hot(y["condition"], self.shape_.conditions)
        condition = ops.mean(
            keras.losses.categorical_crossentropy(
                conditions, outputs["conditions"], from_logits=True, label_smoothing=self.label_smoothing
            )
        )
        real = ops.cast(ops.not_equal(y["next"], 0), "float32")
        each = keras.losses.sparse_categorical_crossentropy(y["next"], outputs["tokens"], from_logits=True)
        token = ops.sum(each * real) / ops.maximum(ops.sum(real), 1.0)
        right = ops.equal(ops.argmax(outputs["conditions"], axis=-1), ops.cast(y["condition"], "int64"))
        return condition, token, ops.mean(ops.cast(right, "float32"))

    def combined(self, y: dict[str, Any], outputs: dict[str, Any]) -> Any:
        """The loss that is minimised; also updates the trackers."""
        condition, token, accuracy = self.losses_of(y, outputs)
        for tracker, value in zip(self.trackers.values(), (condition, token, accuracy)):
            tracker.update_state(value)
        return self.condition_weight * condition + token

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Keras calls this in its training and validation loops."""
        return self.combined(y, y_pred)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The trackers are updated with the loss; Keras only collects them."""
        return self.get_metrics_result()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Keras' own loss tracker and ours."""
        return [*super().metrics, *self.trackers.values()]

    def parameters(self) -> int:
        """Number of trainable parameters."""
        return int(sum(np.prod(weight.shape) for weight in self.trainable_weights))

    def arrays(self) -> dict[str, np.ndarray]:
        """Weights by path, in float32."""
        return {
            self._key(weight): np.asarray(ops.convert_to_numpy(weight), "float32")
            for weight in self.trainable_weights
        }

    def _key(self, weight: Any) -> str:
        return str(weight.path).removeprefix(f"{self.name}/")

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """The inverse of ``arrays``; every weight must be there with its shape."""
        for weight in self.trainable_weights:
            weight.assign(arrays[self._key(weight)])
