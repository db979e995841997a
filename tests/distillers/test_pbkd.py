"""PBKD: losses and update of a stage, what a step runs, what the student keeps of its teacher."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import Distiller, TfkdError, models
from tfkd.distillers import PBKD, local_loss
from tfkd.distillers.pbkd import start
from tfkd.distillers.pbkd.pairs import Pairs

IMAGES = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
LABELS = np.arange(8) % 4


def network(name="teacher", width=6, classes=4, joint="max", norm=True):
    """Three blocks of a convolution, batch normalization and ReLU, poolings between them."""
    image = maps = keras.Input((8, 8, 3), name="image")
    pooling = keras.layers.MaxPooling2D if joint == "max" else keras.layers.AveragePooling2D
    for number in (1, 2, 3):
        if number > 1:
            maps = pooling(2, name=f"pool{number - 1}")(maps)
        maps = keras.layers.Conv2D(width, 3, padding="same", name=f"conv{number}")(maps)
        if norm:
            maps = models.BatchNormalization(name=f"bn{number}")(maps)
        maps = keras.layers.ReLU(name=f"stage{number}")(maps)
    hidden = keras.layers.Dropout(0.5, name="drop")(keras.layers.Flatten(name="flat")(maps))
    return keras.Model(image, keras.layers.Dense(classes, name="logits")(hidden), name=name)


def shaken(model):
    """A model whose every weight is drawn, the statistics of normalization as well."""
    draw = np.random.default_rng(1)
    for variable in model.weights:
        spread = draw.normal(0.0, 0.4, variable.shape)
        positive = variable.name in ("gamma", "moving_variance")
        variable.assign(np.abs(spread) + 0.5 if positive else spread)
    return model


def distiller_of(objective, teacher=None, student=None, weight=0.3):
    teacher = shaken(network()) if teacher is None else teacher
    student = models.blockwise(network("student")) if student is None else student
    return Distiller(teacher, student, objective, weight)


def enter(distiller, stage, optimizer=None):
    distiller.enter_stage(stage)
    distiller.compile(optimizer or keras.optimizers.SGD(1.0))


def values(model):
    return {variable.path: np.array(variable) for variable in model.weights}


def test_local_losses_are_half_a_sum_or_a_mean():
    student, reference = np.random.default_rng(2).normal(size=(2, 3, 4, 4, 5))
    squares = (student - reference) ** 2
    np.testing.assert_allclose(
        local_loss(student, reference, "caffe"), 0.5 * squares.sum((1, 2, 3)), rtol=1e-12
    )
    np.testing.assert_allclose(
        local_loss(student, reference, "mean"), squares.mean((1, 2, 3)), rtol=1e-12
    )
    halves = tf.constant(100.0 * np.ones((1, 4, 4, 5)), tf.float16)
    np.testing.assert_allclose(local_loss(halves, 0.0 * halves, "caffe"), [0.5 * 80 * 1e4])


@pytest.mark.parametrize("learns_from", ["both", "local", "labels"])
def test_a_stage_follows_the_gradient_of_its_losses_by_its_block_alone(learns_from):
    objective = PBKD(order=(3, 1, 2), learns_from=learns_from)
    distiller = distiller_of(objective)
    student, teacher = distiller.student, distiller.network("teacher", as_given=True).model
    enter(distiller, objective.stages()[1])

    def piece(model, begin, end, training=False):
        return models.segment(model, begin, end, name="piece", training=training)

    # Block 1 of the student, then the teacher's second, the student's third and the classifier.
    block = piece(student, None, "stage1", None)
    rest = [
        piece(teacher, "stage1", "stage2"),
        piece(student, "stage2", "stage3"),
        piece(teacher, "stage3", "logits"),
    ]
    twin = keras.models.clone_model(block)
    twin.set_weights(block.get_weights())
    with tf.GradientTape() as tape:
        local = maps = twin(IMAGES, training=True)
        for each in rest:
            maps = each(maps)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, maps)
        reference = piece(teacher, None, "stage1")(IMAGES)
        apart = 0.3 * 0.5 * tf.reduce_mean(tf.reduce_sum((local - reference) ** 2, (1, 2, 3)))
        labels = tf.reduce_mean(losses)
        total = {"both": labels + apart, "local": apart, "labels": labels}[learns_from]
    slopes = tape.gradient(total, [each.value for each in twin.trainable_variables])
    before = [np.array(each) for each in block.trainable_variables]
    others, of_teacher = values(student), values(teacher)
    logged = distiller.train_on_batch(IMAGES, LABELS, return_dict=True)
    np.testing.assert_allclose(logged["student_loss"], labels, rtol=1e-5)
    np.testing.assert_allclose(logged["loss"], total, rtol=1e-5)
    if learns_from != "labels":
        np.testing.assert_allclose(logged["pbkd"], apart, rtol=1e-5)
    for variable, value, slope in zip(block.trainable_variables, before, slopes, strict=True):
        bound = 1e-4 * np.abs(slope).max() + 1e-6
        np.testing.assert_allclose(value - variable, slope, atol=bound, err_msg=variable.path)
    moved = {path for path, value in values(student).items() if np.any(value != others[path])}
    assert moved == {each.path for each in block.weights}
    for path, value in values(teacher).items():
        np.testing.assert_array_equal(value, of_teacher[path])


def operations(distiller, batch):
    """How often each kind of convolution is computed in a training step."""
    step = tf.function(distiller.train_step).get_concrete_function(batch)
    graph = step.graph
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    found = set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    kinds = [graph.get_operation_by_name(name).type for name in found]
    wanted = ("Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput", "MaxPool")
    return tuple(kinds.count(kind) for kind in wanted)


def test_a_step_runs_each_frozen_part_once_and_no_gradient_into_what_comes_before():
    objective = PBKD()
    student = models.blockwise(network("student", norm=False))
    distiller = distiller_of(objective, network(norm=False), student)
    enter(distiller, objective.stages()[1])
    batch = {"image": tf.constant(IMAGES), "label": tf.constant(LABELS)}
    # Before: the student's convolution and the restoring one; both second blocks; the teacher's
    # third. Gradients: two filters, and of the inputs those behind the first of the block.
    with distiller.step_scope():
        assert operations(distiller, batch) == (2 + 2 + 1 + 1, 2, 1 + 1, 2)
    # With what a run may keep, the blocks before and the replaced one are not run.
    kept = distiller.stage_network.model(IMAGES, training=False)
    batch |= {f"cached_{tap}": kept[tap] for tap in ("reference", "block_input")}
    with distiller.step_scope():
        assert operations(distiller, batch) == (2 + 1, 2, 1 + 1, 1)


def test_a_stage_begins_where_the_one_before_has_ended_and_the_last_is_the_student():
    objective = PBKD(order=(2, 3, 1), finetune_epochs=1.6)
    distiller = distiller_of(objective)
    stages = objective.stages()
    assert [each.name for each in stages] == ["block2", "block3", "block1", "finetune"]
    after = distiller.network("teacher")(IMAGES)
    for stage in stages[:3]:
        enter(distiller, stage, keras.optimizers.SGD(0.01))
        model = distiller.stage_network.model
        # With the block that it replaces, the network of a stage is that of the stage before.
        rest = models.segment(model, "local", "logits", name="rest", training=False)
        found = rest(model(IMAGES, training=False)["reference"])
        np.testing.assert_allclose(found, after, rtol=1e-4, atol=1e-5)
        distiller.train_on_batch(IMAGES, LABELS)
        after = model(IMAGES, training=False)["logits"]
    np.testing.assert_allclose(after, distiller.student(IMAGES, training=False), atol=1e-5)
    assert (stages[3].epochs, stages[3].objectives, stages[3].network) == (2, (), None)


EXAMPLES = {
    "vgg16_32": (32, {"batch_norm": True, "width": 4, "hidden": 8}, ()),
    "resnet20": (8, {"widths": (4, 4, 8, 8)}, ()),
    "own": (8, {}, ("stage2", "stage3")),
}


@pytest.mark.parametrize("of", EXAMPLES)
def test_any_network_that_can_be_cut_is_replaced_block_by_block(of):
    side, settings, cuts = EXAMPLES[of]
    shape = (side, side, 3)
    make = network if of == "own" else lambda: models.create(of, 4, shape, **settings)
    teacher = shaken(make())
    student = models.blockwise(make(), cuts or None, name="student")
    objective = PBKD(cuts=cuts)
    distiller = distiller_of(objective, teacher, student)
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    stages = objective.stages()
    blocks = [each.number for each in models.blocks(teacher, cuts or None)]
    assert [each.name for each in stages] == [f"block{number}" for number in blocks]
    for done, wanted in (
        (blocks[:1], models.blockwise(make(), cuts or None, 2.0, [1])),
        (blocks, student),
    ):
        distiller.enter_stage(stages[len(done) - 1])
        hybrid = distiller.stage_network.model
        found = models.cost(keras.Model(hybrid.input, hybrid.output["logits"]))
        assert (found.params, found.macs) == (models.cost(wanted).params, models.cost(wanted).macs)
    np.testing.assert_allclose(
        hybrid(images, training=False)["logits"], student(images, training=False), rtol=1e-5
    )


def test_what_is_not_replaced_is_the_teachers():
    student = models.blockwise(network("student"), blocks_to_replace=(2,))
    objective = PBKD()
    distiller = distiller_of(objective, student=student)
    assert [each.name for each in objective.stages()] == ["block2"]
    teacher = distiller.network("teacher", as_given=True).model
    for layer in ("conv1", "bn1", "conv3", "bn3", "logits"):
        pairs = zip(student.get_layer(layer).weights, teacher.get_layer(layer).weights, strict=True)
        for own, given in pairs:
            np.testing.assert_array_equal(own, given)
    assert student.get_layer("conv2").filters == 3


def without_odd_channels(model):
    """A model whose odd channels are 0 behind every convolution, so that their filters are."""
    for layer in shaken(model).layers:
        for variable in layer.weights if not isinstance(layer, keras.layers.Dense) else ():
            value = np.array(variable)
            value[..., 1::2] = value[..., 1::2] if variable.name == "moving_variance" else 0.0
            variable.assign(value)
    return model


def tied():
    """A sum with a shortcut, and maps that are concatenated and convolved depthwise."""
    image = keras.Input((8, 8, 3), name="image")
    first = keras.layers.Conv2D(4, 3, padding="same", name="first")(image)
    other = keras.layers.Conv2D(4, 1, name="shortcut")(image)
    maps = keras.layers.ReLU(name="sum_relu")(keras.layers.Add(name="sum")([first, other]))
    deep = keras.layers.DepthwiseConv2D(3, padding="same", name="deep")(maps)
    maps = keras.layers.Concatenate(name="both")([deep, maps])
    maps = keras.layers.Conv2D(8, 3, padding="same", name="last")(maps)
    maps = keras.layers.ReLU(name="stage1")(models.BatchNormalization(name="norm")(maps))
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(maps)
    return keras.Model(image, keras.layers.Dense(4, name="logits")(hidden), name="tied")


@pytest.mark.parametrize(
    ("make", "taps"),
    [
        (network, {"stage1_narrow": "stage1"}),
        (tied, {"sum_relu": "sum_relu", "stage1_narrow": "stage1"}),
    ],
)
def test_the_largest_filters_make_the_channels_that_they_made(make, taps):
    teacher, student = without_odd_channels(make()), models.blockwise(make())
    distiller_of(PBKD(init="largest"), teacher, student)
    found = models.tapped(student, list(taps))(IMAGES, training=False)
    wanted = models.tapped(teacher, list(taps.values()))(IMAGES, training=False)
    for own, theirs in taps.items():
        np.testing.assert_allclose(found[own], wanted[theirs][..., ::2], rtol=1e-4, atol=1e-5)


def test_the_largest_filters_of_a_smaller_field_are_their_middles():
    teacher = shaken(network())
    student = models.blockwise(network("student"), receptive_field="smaller")
    distiller_of(PBKD(init="largest"), teacher, student)
    norms = np.abs(np.array(teacher.get_layer("conv1").kernel)).sum((0, 1, 2))
    kept = np.sort(np.argsort(-norms)[:3])
    kernel, whole = (np.array(each.get_layer("conv1").kernel) for each in (student, teacher))
    np.testing.assert_array_equal(kernel, whole[1:2, 1:2][..., kept])


def reordered_head(model):
    logits = model.output[:, ::-1]
    return keras.Model(model.input, logits, name="reordered")


@pytest.mark.parametrize(
    ("settings", "networks", "message"),
    [
        ({"order": (1, 2)}, {}, r"order=\(1, 2\) of blocks 1 to 3, of which .* in \[1, 2, 3\]"),
        ({"order": (1, 2, 3, 3)}, {}, "wanted each of these once"),
        ({"cuts": ("stage1", "stag2")}, {}, "unknown tap of model 'student' 'stag2'"),
        (
            {},
            {"student": lambda: models.blockwise(network("student", width=8))},
            "student tap 'stage1' of shape 8 x 8 x 8 and teacher tap .* wanted maps of one shape",
        ),
        (
            {"cuts": ("stage1",)},
            {},
            "the part after 'stage1' is another one in student 'student' than in teacher",
        ),
        (
            {},
            {"teacher": lambda: reordered_head(network())},
            "the part after 'stage3' is another one .* the same layers and the classes in the same",
        ),
        (
            {},
            {"teacher": lambda: models.Network(network(), models.Preprocess((9.0,), (9.0,)))},
            "pixels reach the student as .*, the teacher as",
        ),
        ({}, {"teacher": lambda: [network(), network("other")]}, "found 2 teachers, wanted one"),
        (
            {"init": "largest"},
            {"student": lambda: own_student()},
            "init='largest' found no layer 'conv1' in block 1 of student 'mine'",
        ),
    ],
)  # fmt: skip
def test_networks_that_do_not_go_together_are_refused(settings, networks, message):
    made = usual() | {who: make() for who, make in networks.items()}
    with pytest.raises(TfkdError, match=message):
        distiller_of(PBKD(**settings), **made)


@functools.cache
def usual():
    """A teacher and its student, which nobody trains."""
    return {"teacher": network(), "student": models.blockwise(network("student"))}


def own_student():
    """One layer in the place of each block, and other poolings than the teacher's."""
    student = network("mine", width=6, joint="average")
    image = maps = keras.Input((8, 8, 3))
    for number in (1, 2, 3):
        if number > 1:
            maps = keras.layers.AveragePooling2D(2)(maps)
        maps = keras.layers.Conv2D(6, 1, activation="relu", name=f"stage{number}")(maps)
    rest = models.head(student, "stage3")
    return keras.Model(image, rest(maps), name="mine")


def test_a_student_of_ones_own_needs_maps_of_the_same_shapes_alone():
    teacher, student = shaken(network()), own_student()
    distiller = distiller_of(PBKD(), teacher, student)
    # The poolings of the student are others, so each block has its own.
    pairs = distiller.objectives[0]._pairs
    assert [each.blocks["student"].start for each in pairs.listed] == [None, "stage1", "stage2"]
    enter(distiller, distiller.objectives[0].stages()[1])
    logged = distiller.train_on_batch(IMAGES, LABELS, return_dict=True)
    assert logged["pbkd"] > 0


def test_what_stands_between_blocks_is_compared_with_its_numbers():
    def scaled(factor, name):
        image = keras.Input((8, 8, 3))
        maps = keras.layers.ReLU(name="stage1")(keras.layers.Conv2D(6, 3)(image))
        maps = keras.layers.MaxPooling2D(2, name="pool")(maps * factor)
        maps = keras.layers.ReLU(name="stage2")(keras.layers.Conv2D(6, 1)(maps))
        hidden = keras.layers.Flatten()(maps)
        return models.Network(keras.Model(image, keras.layers.Dense(4)(hidden), name=name))

    for factor, begin in ((1.0, "pool"), (5.0, "stage1")):
        pairs = Pairs.of("pbkd", scaled(factor, "student"), scaled(1.0, "teacher"), ())
        assert pairs.listed[1].blocks["student"].start == begin


def test_parts_are_compared_by_what_they_compute():
    teacher, student = shaken(network()), network("student")
    student.get_layer("drop").rate = 0.9  # Which is off.
    start.take_over(Pairs.of("pbkd", models.Network(student), models.Network(teacher), ()), ())
    np.testing.assert_allclose(student(IMAGES), teacher(IMAGES), rtol=1e-5)
