"""Two replicas make the update of one: weights, banks and logs, whatever the loss and the batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD

LOGITS = {("student", "main"): ["logits"], ("teacher", "main"): ["logits"]}


class Coupled(tfkd.Objective):
    """A loss that needs the whole batch: products of all pairs of samples."""

    requires = tfkd.Requires(taps=LOGITS)

    def compute(self, context):
        student = tf.nn.softmax(context.gather(context.student()))
        teacher = tf.nn.softmax(context.gather(context.teacher()))
        difference = tf.matmul(student, student, transpose_b=True)
        difference -= tf.matmul(teacher, teacher, transpose_b=True)
        return context.mean(tf.square(difference), gathered=True)


class Masked(tfkd.Objective):
    """A loss of some samples only, all of them on one replica in some steps."""

    requires = tfkd.Requires(taps=LOGITS)
    terms = ("chosen", "gathered")

    def compute(self, context):
        chosen = context.labels < 2
        loss = tf.reduce_sum(tf.square(context.student() - context.teacher()), axis=1)
        return {
            "chosen": context.mean(loss, chosen),
            "gathered": context.mean(context.gather(loss), context.gather(chosen), gathered=True),
        }


class Noisy(tfkd.Objective):
    """A loss with a draw for each sample of the global batch."""

    requires = tfkd.Requires(taps=LOGITS)

    def compute(self, context):
        rows = tf.shape(context.gather(context.labels))[0]
        noise = tf.random.stateless_normal([rows, 4], context.seed(3))
        return context.mean(tf.square(context.student() - context.own_rows(noise)))


def keras_loss():
    return keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence())


CASES = {
    "weights": {"losses": lambda: [KD(2.0), Coupled(), Masked(), Noisy()], "weighted": True},
    "uneven, several steps": {
        "losses": lambda: [KD(2.0), Coupled(), Masked(), keras_loss()],
        "rows": 15,
        "compile_settings": {"steps_per_execution": 3},
    },
    "norm, adam": {
        "losses": lambda: KD(2.0),
        "norm": True,
        "optimizer": lambda: keras.optimizers.Adam(0.01),
    },
    "eagerly": {"losses": lambda: KD(2.0), "compile_settings": {"run_eagerly": True}},
}


def order_of(labels):
    """An order in which the chosen classes of a batch lie on one replica."""
    batches = np.split(np.arange(16), 4)
    return np.concatenate([rows[np.argsort(labels[rows] >= 2)] for rows in batches])


def run(distiller, images, labels, rows, weighted):
    order = order_of(labels)[:rows]
    weights = np.linspace(0, 2, 16)[order].astype("float32") if weighted else None
    data = {"x": images[order], "y": labels[order], "sample_weight": weights, "batch_size": 4}
    history = distiller.fit(**data, epochs=2, shuffle=False, verbose=0).history
    logs = {name: values[-1] for name, values in history.items()}
    evaluated = distiller.evaluate(**data, verbose=0, return_dict=True)
    return {**logs, **{f"val_{name}": value for name, value in evaluated.items()}}


@pytest.mark.parametrize("case", CASES)
def test_two_replicas_are_as_one(case, distiller_on, network, images, labels):
    settings = {"rows": 16, "weighted": False, "norm": False, **CASES[case]}
    rows, weighted, norm = (settings.pop(key) for key in ("rows", "weighted", "norm"))
    logs, weights = [], []
    for replicas in (1, 2):
        distiller = distiller_on(
            replicas,
            lambda: network(8, name="teacher", norm=norm),
            lambda: network(norm=norm),
            **settings,
        )
        before = distiller.student.get_weights()
        logs.append(run(distiller, images, labels, rows, weighted))
        weights.append(distiller.student.get_weights())
    one, two = weights
    assert any(np.abs(now - then).max() > 1e-3 for now, then in zip(one, before))
    for found, expected in zip(two, one):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert set(logs[0]) == set(logs[1])
    for name, value in logs[0].items():
        np.testing.assert_allclose(logs[1][name], value, atol=1e-5, rtol=1e-5, err_msg=name)


def test_distillers_that_replicas_cannot_run_are_refused(distiller_on, network, images, labels):
    parts = (2, None, lambda: network(norm=False), lambda: ())
    distiller = distiller_on(*parts, compile_settings={"jit_compile": True})
    with pytest.raises(tfkd.TfkdError, match=r"jit_compile=True \(XLA\) under 2 mirrored replica"):
        distiller.fit(images, labels, verbose=0)
    plain = distiller_on(*parts)
    # The seventeenth image would leave one replica with none, which no collective survives.
    for use in (plain.fit, plain.evaluate):
        with pytest.raises(tfkd.TfkdError, match="last batch of size 1 under 2 replicas"):
            use(np.concatenate([images, images[:1]]), np.zeros(17), batch_size=8, verbose=0)
    accumulate = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    with pytest.raises(
        tfkd.TfkdError, match="gradient_accumulation_steps=2 under 2 mirrored replica"
    ):
        distiller.compile(accumulate)


def test_predict_on_two_replicas(distiller_on, network, images):
    distiller = distiller_on(
        2,
        None,
        lambda: network(norm=False),
        lambda: (),
        compile_settings={"steps_per_execution": 2},
    )
    found = distiller.predict(images, batch_size=4, verbose=0)
    np.testing.assert_allclose(found, distiller.student(images), atol=1e-6)
