"""What does not fit is refused before the first step, in one line that says what is wanted."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD

STUDENT = {("student", "main"): ["logits"]}


def objective(name="mine", **requires):
    """An objective with these requirements that adds nothing."""
    made = type("Mine", (tfkd.Objective,), {"compute": lambda self, context: tf.zeros(())})(name)
    made.requires = tfkd.Requires(**{"taps": STUDENT, **requires})
    return made


@contextlib.contextmanager
def refused(match):
    """Expects the error, in a single line."""
    with pytest.raises(tfkd.TfkdError, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        ({"taps": {("teacher", "main"): ["logits"]}}, "need a teacher: found None"),
        ({"taps": {("student", "main"): ["stage7"]}}, "unknown tap of model 'student' 'stage7'"),
        ({"taps": {("student", "side"): ["logits"]}}, r"unknown view 'side' \(known: main, pair"),
        (
            {"taps": {("twin", "main"): ["logits"]}},
            "unknown network 'twin' .known: student, teacher",
        ),
        ({"train_size": True}, "mine needs the size of the training set: found None"),
    ],
    ids=["teacher", "tap", "view", "network", "train_size"],
)
def test_requirements_of_the_distiller(requires, message, network):
    with refused(message):
        tfkd.Distiller(None, network(), objective(**requires))


def test_taps_of_the_teacher(network):
    hint = objective(taps={("teacher", "main"): ["stag1"]})
    with refused("unknown tap of model 'teacher' 'stag1'; did you mean 'stage1'"):
        tfkd.Distiller(network(name="teacher"), network(), hint)
    hint = objective(taps={("teacher", "main"): ["stage1"]})
    with refused("taps stage1 of 'teacher': found 2 teachers, .* wanted one teacher, or an objec"):
        tfkd.Distiller([network(name="one"), network(name="two")], network(), hint)


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        ({"index": True}, "batch lacks index, .*found image, label"),
        ({"taps": {("student", "strong"): ["logits"]}}, "batch lacks image_strong"),
        ({"taps": {("student", "rotations"): ["logits"]}}, "batch lacks image_rotations"),
        ({"batch_keys": ("image_other",)}, "batch lacks image_other"),
    ],
    ids=["index", "view", "rotations", "key"],
)
def test_requirements_of_the_batch(requires, message, network, images, labels):
    distiller = tfkd.Distiller(None, network(), objective(**requires))
    distiller.compile()
    with refused(message):
        distiller.fit(images, labels, verbose=0)
    with refused(message):
        distiller.train_on_batch(images, labels)
    # The label loss and the accuracy need nothing of this.
    assert np.isfinite(distiller.evaluate(images, labels, verbose=0)[0])


def test_rows_in_the_place_of_the_main_view(network, images, labels):
    with refused("unknown view with several rows for each image 'strong'"):
        tfkd.Distiller(None, network(), objective(main_rows_of="strong"))
    distiller = tfkd.Distiller(None, network(), objective(main_rows_of="rotations"))
    distiller.compile()
    batch = {"image": images, "image_rotations": images, "label": labels}
    with refused("image_rotations of 16 rows beside 16 images, wanted 64, 4 for each image"):
        distiller.train_on_batch(batch)


def test_number_of_epochs(network, images, labels):
    distiller = tfkd.Distiller(None, network(), objective(epochs=True))
    distiller.compile()
    with refused("mine needs the number of epochs of the run: found none, wanted set_epochs"):
        distiller.train_on_batch(images, labels)
    distiller.set_epochs(3)
    distiller.train_on_batch(images, labels)


def test_form_of_the_batch(network, images, labels):
    distiller = tfkd.Distiller(network(name="teacher"), network(), [KD(), objective()])
    distiller.compile()
    with refused(r"images of shape \(6, 6, 3\), but the student wants \(8, 8, 3\)"):
        distiller.fit(images[:, :6, :6], labels, verbose=0)
    with refused(r"images of shape \(8, 8, 1\), but the student wants \(8, 8, 3\)"):
        distiller.evaluate(images[..., :1], labels, verbose=0)
    with refused("mine works on class numbers: found dense labels of width 4"):
        distiller.fit(images, np.eye(4)[labels], verbose=0)
    with refused("labels of width 3, wanted class numbers or 4 probabilities"):
        distiller.fit(images, np.zeros((16, 3)), verbose=0)
    with refused("batch without label: found .*image.*, wanted a dict with image and label"):
        distiller.fit(images, verbose=0)
    with refused("batch without image: found .*label"):
        distiller.fit(tf.data.Dataset.from_tensors({"label": labels}), verbose=0)
    unknown = tf.data.Dataset.from_generator(
        lambda: iter([(images, labels)]), output_types=(tf.float32, tf.int32)
    )
    with refused("images of unknown shape"):
        distiller.fit(unknown, verbose=0)


def test_networks_that_do_not_fit(network, images):
    with refused("teacher gives 5 classes, but the student gives 4"):
        tfkd.Distiller(network(classes=5, name="teacher"), network(), KD())
    with refused("teacher:1 gives 5 classes, but the student gives 4"):
        tfkd.Distiller([network(name="a"), network(classes=5, name="b")], network(), KD())
    large = tfkd.models.create("resnet8", 4, (16, 16, 3))
    with refused(r"teacher takes images \(16, 16, 3\), but the student takes \(8, 8, 3\)"):
        tfkd.Distiller(large, network(), KD())
    with refused("student 'sequential.*' is not built: call it once on a batch, or build it"):
        tfkd.Distiller(None, keras.Sequential([keras.layers.Dense(4)]))
    with refused("network: found str; wanted a keras.Model"):
        tfkd.Distiller(None, "resnet20")


def test_outputs_that_are_no_logits(network):
    inputs = keras.Input((8, 8, 3))
    hidden = keras.layers.Flatten()(inputs)
    ends = {
        "softmax": keras.layers.Dense(4, activation="softmax")(hidden),
        "sigmoid": keras.layers.Dense(4, activation="sigmoid")(hidden),
    }
    logits = keras.layers.Dense(4)(hidden)
    more = [
        keras.layers.Softmax()(logits),
        keras.layers.Activation("softmax")(logits),
        keras.ops.softmax(logits),
        keras.Model(inputs, keras.layers.Softmax()(logits))(inputs),
    ]
    for activation, output in [*ends.items(), *(("softmax", each) for each in more)]:
        model = keras.Model(inputs, output, name="wrong")
        with refused(f"student 'wrong' ends in {activation}, wanted logits"):
            tfkd.Distiller(None, model)
        with refused(f"teacher 'wrong' ends in {activation}, wanted logits"):
            tfkd.Distiller(model, network(), KD())
    with refused(r"student 'wrong' has output \(None, 8, 8, 3\), wanted logits"):
        tfkd.Distiller(None, keras.Model(inputs, keras.layers.ReLU()(inputs), name="wrong"))
    with refused("model 'wrong': found outputs without a name each .a list of 2."):
        tfkd.Distiller(None, keras.Model(inputs, [logits, logits + 1], name="wrong"))
    second = keras.Input((8, 8, 3))
    both = keras.Model([inputs, second], keras.layers.Add()([logits, logits]), name="wrong")
    with refused("student 'wrong' has inputs .*, wanted one tensor of images"):
        tfkd.Distiller(None, both)


@pytest.mark.parametrize(
    ("losses", "weights", "label_weight", "message"),
    [
        (lambda: [KD(), KD(name="b")], [1.0], 1, "distillation_loss_weights: found 1, wanted 2"),
        (lambda: KD(), [1.0, 2.0], 1, "distillation_loss_weights: found 2, wanted 1"),
        (lambda: KD(), -1.0, 1, "distillation_loss_weights: found -1.0, wanted a number >= 0"),
        (lambda: KD(), "1", 1, "distillation_loss_weights: found '1', wanted a number"),
        (lambda: KD(), None, -0.1, "student_loss_weight: found -0.1, wanted a number >= 0"),
        (lambda: KD(), None, float("nan"), "student_loss_weight: found nan, wanted a number"),
        (lambda: KD(), None, float("inf"), "student_loss_weight: found inf, wanted a number"),
        (lambda: KD(), None, None, "student_loss_weight: found None, wanted a number"),
        (lambda: [KD(), KD()], None, 1, "objectives named alike: kd; give each its own name="),
        (lambda: KD(name="loss"), None, 1, "objective named 'loss': found a name that"),
        (lambda: KD(name="accuracy"), None, 1, "objective named 'accuracy': found a name that"),
        (lambda: "kd", None, 1, "distillation loss 'kd': found str, wanted a tfkd Objective"),
        (lambda: KD, None, 1, "distillation loss .*KD.*: found type, wanted a tfkd Objective"),
    ],
)
def test_wrong_losses_and_weights(losses, weights, label_weight, message, network):
    with refused(message):
        tfkd.Distiller(network(name="teacher"), network(), losses(), weights, label_weight)


def test_numpy_numbers_are_numbers(network):
    distiller = tfkd.Distiller(
        network(name="teacher"), network(), KD(), np.float32(0.5), np.int64(2)
    )
    assert distiller.loss_weights == [0.5]
    assert distiller.student_loss_weight == 2.0


@pytest.mark.parametrize(
    "name",
    ["weights", "losses", "variables", "metrics", "trainable_variables", "call", "build", "path"],
)
def test_a_method_cannot_take_a_name_of_keras(name):
    with refused(f"objective Shadow: found {name}, which Keras layers already use"):
        type("Shadow", (tfkd.Objective,), {name: lambda self: None})


def test_a_method_may_take_any_other_name():
    class Own(tfkd.Objective):
        temperature = 2.0
        weighting = "none"

        def get_config(self):
            return {}

        def compute(self, context):
            return tf.zeros(())

    assert Own().name == "own"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            lambda: {"other": tf.zeros(())},
            r"compute returned the losses \['other'\], but its terms",
        ),
        (lambda: tf.zeros(4), r"loss mine has shape \(4,\), wanted a scalar"),
    ],
    ids=["names", "shape"],
)
def test_results_of_compute_are_checked(result, message, network, images, labels):
    mine = objective()
    mine.compute = lambda context: result()
    distiller = tfkd.Distiller(None, network(), mine)
    distiller.compile(run_eagerly=True)
    with refused(message):
        distiller.train_on_batch(images, labels)


def test_features_that_nobody_asked_for(network, images, labels):
    mine = objective()
    mine.compute = lambda context: context.mean(context.student("pooled"))
    distiller = tfkd.Distiller(None, network(), mine)
    distiller.compile(run_eagerly=True)
    with refused("feature student/main/pooled was not asked for in requires"):
        distiller.train_on_batch(images, labels)


def test_objective_of_a_stage(network):
    distiller = tfkd.Distiller(network(name="teacher"), network(), KD())
    with refused("unknown objective of stage first 'kdd'; did you mean 'kd'"):
        distiller.enter_stage(tfkd.Stage("first", 1, objectives=("kdd",)))
