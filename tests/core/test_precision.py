"""Mixed precision: networks and connectors in half precision, losses and weights in float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD


class Connected(tfkd.Objective):
    """A connector on features that come in half precision."""

    requires = tfkd.Requires(
        taps={("student", "main"): ["pooled"], ("teacher", "main"): ["pooled"]}
    )

    def setup(self, spec):
        self.connect = keras.layers.Dense(spec.shapes[("teacher", "main")]["pooled"][-1])
        self.connect.build(spec.shapes[("student", "main")]["pooled"])

    def compute(self, context):
        features = context.student("pooled")
        seen.update({features.dtype.name, context.student().dtype.name})
        return context.mean(tf.square(self.connect(features) - context.teacher("pooled")))


seen: set = set()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(dtype, network, images, labels):
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        hint = keras.distillation.FeatureDistillation("mse", "stage1", "stage1")
        losses = [KD(), Connected(), hint]
        distiller = tfkd.Distiller(network(name="teacher"), network(), losses)
        distiller.compile(keras.optimizers.SGD(0.1))
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (dtype == "float16")
    before = distiller.student.get_weights()
    seen.clear()
    history = distiller.fit(
        images, labels, batch_size=8, epochs=4, verbose=0, validation_data=(images, labels)
    ).history
    # Features come as the networks compute them, logits in float32.
    assert seen == {dtype, "float32"}
    assert all(np.isfinite(values).all() for values in history.values())
    assert history["loss"][-1] < history["loss"][0]
    assert all(each.dtype == "float32" for each in distiller.trained_variables)
    assert np.any(distiller.student.get_weights()[0] != before[0])
