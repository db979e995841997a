"""IMTA: the loss, and a student that trains with gradient equilibrium and is saved without."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import runs
from tests.distillers.exits import CE, network, terms
from tfkd import Distiller, models
from tfkd.distillers import DBT, IMTA
from tfkd.errors import TfkdError
from tfkd.training import config as configs
from tfkd.training import run


def test_exits_but_the_deepest_share_their_weight_between_labels_and_the_deepest():
    found = terms(IMTA(kd_share=0.1, temperature=2.0))
    of_deepest = terms(DBT("constant", kd_share=1.0, temperature=2.0, variant="clean"))
    wanted = [
        0.9 * CE[0],
        0.9 * CE[1],
        CE[2],
        *(0.1 * v for k, v in of_deepest.items() if "kd" in k),
    ]
    np.testing.assert_allclose(list(found.values()), wanted, atol=1e-7)


@pytest.mark.parametrize("equilibrium", [True, False])
def test_a_step_of_its_stage_follows_the_balanced_gradient(equilibrium):
    student, objective = network(), IMTA(equilibrium=equilibrium)
    distiller = Distiller(None, student, objective)
    stages = objective.stages()
    assert bool(stages) == equilibrium
    if stages:
        distiller.enter_stage(stages[0])
    distiller.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    [batch] = runs.batches().take(1)
    model = models.equilibrium(student.model) if equilibrium else student.model
    with tf.GradientTape() as tape:
        outputs = model(batch["image"], training=True)
        losses = [
            tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], each))
            for each in outputs.values()
        ]
        total = losses[-1] + 0.9 * tf.add_n(losses[:-1])
        teacher = tf.nn.softmax(tf.stop_gradient(outputs["logits"]))
        for exit in ("exit1", "exit2"):
            cross = -tf.reduce_sum(teacher * tf.nn.log_softmax(outputs[exit]), axis=-1)
            total += 0.1 * tf.reduce_mean(cross)
    variables = student.model.trainable_variables
    slopes = tape.gradient(total, [v.value for v in variables])
    before = [np.array(v) for v in variables]
    distiller.fit(runs.batches().take(1), verbose=0)
    for variable, value, slope in zip(variables, before, slopes):
        np.testing.assert_allclose(value - variable, slope, atol=2e-6, err_msg=variable.path)


def test_a_run_saves_a_student_without_a_trace_of_it(tmp_path):
    config = configs.default()
    config.data.train_size, config.train.batch_size = 40, 20
    config.train.epochs, config.train.verbose = 1, 0
    config.student.name = "multi_exit"
    config.student.kwargs.of = "resnet8"
    config.student.kwargs.of_kwargs = {"widths": (4, 4, 4, 4)}
    config.methods = configs.methods(imta={})
    result = run(config, tmp_path / "run")
    assert [each["name"] for each in result["exits"]] == ["exit1", "exit2", "logits"]
    assert [each["name"] for each in result["stages"]] == ["equilibrium"]
    saved = keras.models.load_model(tmp_path / "run" / "student.keras")
    assert not any("scaled_gradient" in layer.name for layer in saved.layers)
    described = json.loads((tmp_path / "run" / "network.json").read_text())
    assert list(described["outputs"]) == ["exit1", "exit2", "logits"]


def test_heads_that_cannot_be_told_apart_are_refused():
    image = keras.Input((8, 8, 3))
    first = keras.layers.Dense(4, name="exit1")(keras.layers.Flatten()(image))
    outputs = {"exit1": first, "logits": keras.layers.Dense(4)(first)}
    student = keras.Model(image, outputs, name="row")
    message = r"imta: gradient .* lead to 'exit1' alone, .* \(or equilibrium=False\)"
    with pytest.raises(TfkdError, match=message):
        Distiller(None, student, IMTA())
    Distiller(None, student, IMTA(equilibrium=False))
