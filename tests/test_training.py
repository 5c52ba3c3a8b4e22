"""Batches and schedules: what makes a run repeatable."""

import keras
import numpy as np

from symptomchat.learning.batches import Batches, Encoded, Mixed, pad
from symptomchat.learning.distillation import PrefixDistiller
from symptomchat.learning.training import History, WarmupCosine
from symptomchat.models.student import PrefixLM, Shape
from symptomchat.runtime.alarm import buckets_of


def rows(count=97):
    random = np.random.default_rng(0)
    return [
        Encoded(tuple(range(1, 3 + int(random.integers(1, 40)))), i % 5, (60 + i % 5, 7, 8))
        for i in range(count)
    ]


def order(batches):
    return [tuple(part) for part in batches.plan]


def test_an_epoch_sees_every_row_once_in_an_order_of_its_own():
    batches = Batches(rows(), 8, seed=3)
    batches.start_epoch(0)
    first = order(batches)
    batches.start_epoch(1)
    assert sorted(i for part in first for i in part) == list(range(97)) and order(batches) != first
    again = Batches(rows(), 8, seed=3)
    again.start_epoch(1)
    assert order(again) == order(batches)


def test_short_epochs_go_on_where_the_last_one_ended():
    whole, short = Batches(rows(), 8, seed=3), Batches(rows(), 8, seed=3, steps=5)
    seen = []
    for epoch in range(3):
        short.start_epoch(epoch)
        seen += order(short)
    whole.start_epoch(0)
    both = order(whole)
    whole.start_epoch(1)
    assert seen == (both + order(whole))[:15]


def test_padding_is_zero_and_targets_are_shifted():
    x, y = pad([Encoded((1, 5, 2), 3, (63, 7, 9, 8)), Encoded((1, 2), 0, (60, 6))])
    assert x["question"].shape[1] % 16 == 0 and x["question"][1, 2:].sum() == 0
    assert x["answer"][0, :3].tolist() == [63, 7, 9] and y["next"][0, :3].tolist() == [7, 9, 8]
    assert y["next"][1, 1:].sum() == 0 and y["condition"].tolist() == [3, 0]


def test_the_learning_rate_warms_up_and_falls():
    schedule = WarmupCosine(1.0, steps=100, warmup=10)
    values = [float(schedule(step)) for step in range(100)]
    assert values[0] < 0.2 and abs(max(values) - 1.0) < 1e-6 and int(np.argmax(values)) in (9, 10)
    assert values[-1] < 0.06 and all(a >= b for a, b in zip(values[10:], values[11:]))


def test_the_history_is_the_table_of_the_talk():
    history = History(
        [{"epoch": 1.0, "training loss": 0.8, "validation loss": 1.2, "seconds": 3.0, "learning rate": 1e-4}]
    )
    assert history.csv().splitlines()[0] == "epoch,training loss,validation loss,seconds,learning rate"
    assert [c.header for c in history.table("x").columns] == [
        "epoch",
        "training loss",
        "validation loss",
        "seconds",
        "learning rate",
    ]


def test_the_head_moves_faster_than_the_pretrained_layers():
    import keras

    from symptomchat.learning.training import FasterHeadAdamW

    def moved(rate):
        head = keras.Variable(np.zeros(3, "float32"), name="condition_embedding")
        layer = keras.Variable(np.zeros(3, "float32"), name="kernel")
        optimizer = FasterHeadAdamW(1e-3, head_rate=rate, weight_decay=0.0)
        optimizer.build([head, layer])
        gradient = keras.ops.ones(3)
        optimizer.apply([gradient, gradient], [head, layer])
        return float(np.asarray(head)[0]), float(np.asarray(layer)[0])

    head, layer = moved(5.0)
    assert layer < 0 and abs(head / layer - 5.0) < 1e-3
    assert abs(moved(1.0)[0] - layer) < 1e-7


def test_many_texts_fall_into_the_buckets_of_each():
    from symptomchat.learning.alarm import buckets_of_all

    texts = [
        "My chest hurts, and my chest is tight.",
        "",
        "...",
        "can\u2019t BREATHE \U0001f62d",
        "\u0130stanbul \u05d0\u05d1 39.5 a_b",
        "a" * 300,
        "\ud800 broken",
    ]
    for buckets in (2**16, 64):
        found = buckets_of_all(texts, buckets)
        assert found.shape == (len(texts), buckets) and set(found.data.tolist()) == {1}
        for row, text in enumerate(texts):
            assert found[row].indices.tolist() == buckets_of(text, buckets).tolist(), text


def test_a_student_learns_from_questions_of_which_only_the_teacher_knows_the_condition():
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(4)
    shape = Shape(40, 6, 32, 8, (4,), (48,), 16, 8, dropout=0.0)
    teacher, student = PrefixLM(shape, name="prefix_lm"), PrefixLM(shape, name="prefix_lm")
    teacher.condition_bias.assign([0.0, 3.0, 0.0, 0.0, -1.0, 0.0])
    teacher.trainable = False
    labelled = [Encoded((1, 5 + i, 2), 1 + i % 5, (41 + i % 5, 7)) for i in range(8)]
    free = [Encoded((1, 20 + i, 21 + i, 2), 0, (40, 7)) for i in range(8)]

    def gap(rows):
        x, _ = Batches(rows, 8)[0]
        said, learned = (
            np.asarray(keras.ops.softmax(model(x, training=False)["conditions"]))
            for model in (teacher, student)
        )
        return float(np.abs(said - learned).sum(axis=1).mean())

    def after(batches):
        student.load_arrays(start)
        distiller = PrefixDistiller(teacher, student, temperature=1.0, weight=0.9)
        distiller.compile(optimizer=keras.optimizers.Adam(2e-3))
        distiller.fit(batches.dataset().repeat(60), verbose=0)
        return gap(free)

    start = student.arrays()
    before = gap(free)
    alone = after(Batches(labelled, 4, seed=1, steps=2))
    together = after(Mixed(Batches(labelled, 4, seed=1, steps=2), Batches(free, 4, seed=2, steps=2)))
    assert together < 0.5 * alone and together < 0.3 * before
