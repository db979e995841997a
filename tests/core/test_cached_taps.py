"""Taps that a batch brings along, in the place of the frozen parts that make them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd

FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


class Local(tfkd.Objective):
    """Compares a block with another one."""

    requires = tfkd.Requires(teacher=True)

    def compute(self, context):
        reference = tf.stop_gradient(context.student("reference"))
        return context.mean(tf.square(context.student("local") - reference))


def hybrid(distiller):
    """A frozen first layer, two second ones that read it, and the teacher's classifier."""
    student = distiller.network("student").model
    teacher = distiller.network("teacher", as_given=True).model

    def piece(model, start, end, name, training=False):
        return tfkd.models.segment(model, start, end, name=name, training=training)

    image = keras.Input(student.input_shape[1:])
    hidden = piece(teacher, None, "stage1", "before")(image)
    local = piece(student, "stage1", "pre_pool", "block", None)(hidden)
    outputs = {
        "logits": piece(teacher, "pre_pool", "logits", "after")(local),
        "local": local,
        "reference": piece(teacher, "stage1", "pre_pool", "other")(hidden),
        "hidden": hidden,
    }
    return tfkd.models.Network(keras.Model(image, outputs, name="hybrid"))


def block(distiller):
    return distiller.student.get_layer("stage2").trainable_variables


def stage(**fields):
    return tfkd.Stage(
        "s", 1, network=hybrid, taps=("local", "reference"), trainable=block, **fields
    )


def trained(network, images, labels, brought=()):
    """The block after two steps on batches that hold some taps, and the distiller."""
    keras.utils.set_random_seed(1)
    distiller = tfkd.Distiller(network(name="teacher"), network(), Local())
    distiller.enter_stage(stage(cached=("reference", "hidden")))
    distiller.compile(keras.optimizers.SGD(0.1))
    taps = distiller.stage_network.model(images, training=False)
    batch = {"image": images, "label": labels}
    for tap in brought:
        batch[f"cached_{tap}"] = np.asarray(taps[tap])
        batch["image"] = np.zeros_like(images) if set(brought) >= {"hidden"} else images
    history = distiller.fit(batch, **FIT).history
    return [np.array(each) for each in block(distiller)], history, distiller


@pytest.mark.parametrize("brought", [("reference", "hidden"), ("reference",)])
def test_taps_of_a_batch_stand_for_the_parts_that_make_them(network, images, labels, brought):
    wanted, logged, _ = trained(network, images, labels)
    found, again, distiller = trained(network, images, labels, brought)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    for name, values in logged.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-4)
    # An evaluation runs the whole network, whatever training is given.
    one = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    distiller.enter_stage(stage())
    distiller.compile(keras.optimizers.SGD(0.1))
    assert distiller.evaluate(images, labels, verbose=0, return_dict=True) == pytest.approx(one)


def noisy(distiller):
    student = distiller.student
    image = keras.Input(student.input_shape[1:])
    hidden = keras.layers.Dropout(0.5, name="noise")(image)
    logits = tfkd.models.segment(student, None, "logits", name="rest")(hidden)
    return tfkd.models.Network(keras.Model(image, {"logits": logits, "hidden": hidden}, name="n"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cached": ("local",)}, "found '.*stage2/kernel', which trains, before the cached tap"),
        ({"cached": ("hiden",)}, "unknown tap of model 'hybrid' 'hiden'"),
        (
            {"network": noisy, "taps": (), "cached": ("hidden",)},
            "found 'noise' before the cached tap 'hidden', which may act in training alone",
        ),
    ],
)
def test_taps_that_may_change_are_not_cached(fields, message, network):
    distiller = tfkd.Distiller(network(name="teacher"), network(), Local())
    fields = {"network": hybrid, "taps": ("local", "reference"), "trainable": block, **fields}
    with pytest.raises(tfkd.TfkdError, match=message):
        distiller.enter_stage(tfkd.Stage("s", **fields))
