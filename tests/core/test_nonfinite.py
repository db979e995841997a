"""Training stops at the first non-finite loss or gradient, and says which, where and when."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD


class Bad(tfkd.Objective):
    """Spoils its loss, or only the gradient of it, at one step."""

    requires = tfkd.Requires(taps={("student", "main"): ["logits"]})

    def __init__(self, step, what="loss", name="bad"):
        super().__init__(name=name)
        self.at, self.what = step, what

    def compute(self, context):
        logits = context.student()
        now = tf.cast(context.step == self.at, tf.float32)
        if self.what == "loss":
            return context.mean(tf.square(logits)) + tf.where(now > 0, np.nan, 0.0)
        # The square root of 0 is 0 with an infinite slope, and 0 times that is no number.
        return context.mean(tf.sqrt(tf.square(logits) * (1 - now)))


class Record(keras.callbacks.Callback):
    """Keeps the student's weights before every call."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_begin(self, batch, logs=None):
        self.weights.append([np.array(each) for each in self.model.student.trainable_variables])


def train(distiller, images, labels, callbacks=()):
    distiller.fit(
        images, labels, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


@pytest.mark.parametrize(
    ("replicas", "what", "steps"),
    [(1, "loss", 4), (1, "gradient", 1), (1, "gradient", 4), (2, "loss", 1), (2, "gradient", 4)],
)
def test_stop(distiller_on, network, images, labels, replicas, what, steps):
    # 16 images in batches of 4: step 6 is the third of the second epoch.
    distiller = distiller_on(
        replicas,
        lambda: network(name="teacher", norm=False),
        lambda: network(norm=False),
        lambda: [KD(), Bad(6, what)],
        compile_settings={"steps_per_execution": steps},
    )
    name = "loss 'bad'" if what == "loss" else "the gradient"
    with pytest.raises(tfkd.NonFiniteLoss, match=rf"{name} is not finite at step 6 \(epoch 2\)"):
        train(distiller, images, labels)
    after = [np.array(each) for each in distiller.student.trainable_variables]
    assert all(np.isfinite(each).all() for each in after)
    # No step ran after the bad one, even where one call holds several.
    assert distiller.step == 7
    if replicas == 1:
        twin = distiller_on(
            1,
            lambda: network(name="teacher", norm=False),
            lambda: network(norm=False),
            lambda: [KD(), Bad(6, what)],
        )
        twin.limit_steps(6)
        train(twin, images, labels)
        for found, expected in zip(after, twin.student.trainable_variables):
            np.testing.assert_allclose(found, expected, atol=1e-6)
        assert int(distiller.optimizer.iterations.numpy()) == 6


def test_an_error_names_the_term_and_not_the_total(network, images, labels):
    distiller = tfkd.Distiller(
        network(name="teacher"), network(), [KD(), Bad(0, name="first"), Bad(9, name="second")]
    )
    distiller.compile()
    with pytest.raises(tfkd.NonFiniteLoss, match="loss 'first' is not finite at step 0"):
        train(distiller, images, labels)
    plain = tfkd.Distiller(None, network())
    plain.student.get_layer("logits").bias.assign([0, np.nan, 0, 0])
    plain.compile()
    with pytest.raises(tfkd.NonFiniteLoss, match="loss 'student_loss' is not finite at step 0"):
        train(plain, images, labels)


def test_training_can_go_on_after_the_cause_is_gone(network, images, labels):
    distiller = tfkd.Distiller(None, network(), Bad(2))
    distiller.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(tfkd.NonFiniteLoss):
        train(distiller, images, labels)
    record = Record()
    train(distiller, images, labels, [record])
    assert distiller.step == 3 + 12
    assert any(np.any(a != b) for a, b in zip(record.weights[0], record.weights[1]))


def test_large_but_finite_gradients_in_float16_go_on(images, labels):
    keras.config.set_dtype_policy("float16")
    try:
        student = keras.Sequential(
            [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
        )
    finally:
        keras.config.set_dtype_policy("float32")

    class Steep(tfkd.Objective):
        requires = tfkd.Requires(taps={("student", "main"): ["logits"]})

        def compute(self, context):
            return 6e4 * context.mean(context.student())

    distiller = tfkd.Distiller(None, student, Steep(), student_loss_weight=0)
    distiller.compile(keras.optimizers.SGD(1e-6))
    train(distiller, np.ones_like(images), labels)
    assert distiller.step == 12
