"""Mixed batches through a distiller: what trains on dense labels, and what refuses them."""

import keras
import numpy as np
import pytest

import tfkd
from tfkd import data
from tfkd.core import registry
from tfkd.training import build, config

CLASSES = 4


def network(width):
    image = keras.Input((6, 6, 3))
    hidden = keras.layers.Conv2D(width, 3, activation="relu")(image)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    return keras.Model(image, keras.layers.Dense(CLASSES, name="logits")(hidden))


def make(**settings):
    images = np.random.default_rng(5).integers(0, 256, (32, 6, 6, 3), np.uint8)
    labels = np.arange(32) % CLASSES
    return data.from_arrays((images, labels), (images[:9], labels[:9]), batch_size=8, **settings)


def distiller(*methods):
    made = tfkd.Distiller(network(8) if methods else None, network(4), list(methods))
    made.compile(optimizer=keras.optimizers.SGD(0.01))
    return made


@pytest.mark.parametrize("methods", [(), ("kd",)])
@pytest.mark.parametrize("settings", [{"mixup": 0.2}, {"mixup": 0.2, "cutmix": 1.0}])
def test_a_run_trains_on_mixed_batches_and_is_evaluated_on_plain_ones(methods, settings):
    dataset = make(**settings)
    made = distiller(*map(registry.create, methods))
    history = made.fit(
        dataset.train(),
        steps_per_epoch=dataset.steps_per_epoch,
        epochs=2,
        validation_data=dataset.test(),
        verbose=0,
    ).history
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert np.isfinite(history[name]).all(), name
        assert len(history[name]) == 2


def test_a_method_of_class_numbers_refuses_dense_labels_in_one_line():
    dataset = make(mixup=0.2)
    with pytest.raises(tfkd.TfkdError) as caught:
        distiller(registry.create("dkd")).fit(
            dataset.train(), steps_per_epoch=dataset.steps_per_epoch, verbose=0
        )
    message = str(caught.value)
    assert "\n" not in message
    for word in ("dkd", "class numbers", f"width {CLASSES}"):
        assert word in message


def test_a_config_sets_mixup_and_cutmix():
    chosen = config.default()
    assert not build.data_set(chosen).mixing
    chosen.data.mixup, chosen.data.cutmix = 0.2, 1.0
    mixing = build.data_set(chosen).mixing
    assert (mixing.mixup, mixing.cutmix) == (0.2, 1.0)
    chosen.data.mixup = -0.5
    with pytest.raises(tfkd.TfkdError, match="mixup: found -0.5"):
        build.data_set(chosen)
