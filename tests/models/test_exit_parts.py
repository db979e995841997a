"""Networks cut at their exits."""

import keras
import numpy as np

from tests.fixtures import multi_exit
from tfkd.models.graph.exit_parts import exit_parts, parts

layers = keras.layers


def with_sub_models():
    """Three exits of a sub-model that is called twice and has two outputs; the second is early."""
    inside = keras.Input((4,))
    hidden = layers.Dense(4, name="hidden")(inside)
    inner = keras.Model(
        inside, {"far": layers.Dense(4, name="far")(hidden), "near": hidden}, name="inner"
    )
    image = keras.Input((4,))
    once = inner(image)
    twice = inner(once["near"])
    classify = layers.Dense(3, name="classify")
    exit2 = classify(once["near"])
    # The first exit cannot do without the second one.
    exit1 = layers.Dense(3, name="after")(exit2)
    return keras.Model(image, {"exit1": exit1, "exit2": exit2, "logits": classify(twice["far"])})


def test_parts_one_after_the_other_compute_what_the_network_does():
    model = multi_exit.lively(with_sub_models())
    image = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    cut = exit_parts(model)
    tensors, found = {0: image}, {}
    for part in cut:
        # A part needs no more than what it says.
        own = {number: tensors[number] for number in part.reads}
        for step in part.steps:
            step.run(own)
        found |= {name: np.asarray(own[number]) for name, number in part.outputs.items()}
        tensors |= {number: own[number] for number in part.makes}
    for name, values in model(image).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)
    assert [[step.path for step in part.steps] for part in cut] == [
        ["inner:1/hidden", "classify:1", "after"],
        [],
        ["inner:2/hidden", "inner:2/far", "classify:2"],
    ]


def test_only_what_the_wanted_outputs_need_is_in_a_part():
    (part,) = parts(with_sub_models(), [["logits"]])
    assert [step.path for step in part.steps] == [
        "inner:1/hidden",
        "inner:2/hidden",
        "inner:2/far",
        "classify:2",
    ]
    assert (part.reads, part.makes) == ((0,), ())


def test_parts_run_in_inference_mode_whatever_a_call_was_recorded_with():
    image = keras.Input((4,))
    dropped = layers.Dropout(0.9)(image, training=True)
    model = keras.Model(image, {"exit1": dropped, "logits": layers.Dropout(0.9)(dropped)})
    tensors = {0: np.ones((2, 4), "float32")}
    for part in exit_parts(model):
        for step in part.steps:
            step.run(tensors)
    assert all(np.all(np.asarray(each) == 1) for each in tensors.values())
