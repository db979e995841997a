"""AuxVar: the numbers of its reconstruction, its queue, and the student with the Bayes head."""

import contextlib
import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import runs
from tests.distillers.contexts import context_of
from tfkd import data, models
from tfkd.core import Distiller, Spec
from tfkd.core.divergences import cross_entropy
from tfkd.distillers.auxvar import AuxVar, bayes_head, mixture
from tfkd.distillers.auxvar.class_vectors import class_vectors
from tfkd.distillers.shared.queue import EMPTY, Queue
from tfkd.errors import TfkdError, TfkdWarning

# Four stored images of three classes, and the embedding of an image that is the first of them.
V = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
T = np.array([[4.0, 1, 0], [3, 2, 0], [0, 3, 1], [0, 1, 4]])
U = np.array([0.6, 0.8])
KAPPA = 2.0
CLOSE = {"rtol": 0, "atol": 1e-6}
EVERY = tf.ones((1, 4), tf.bool)
CLASSES = tf.nn.softmax(tf.constant(T) / 2.0)
TARGET = CLASSES[:1]


def logits_of(vector, kappa):
    return mixture.instance_logits(tf.constant(vector)[None], tf.constant(V), kappa, EVERY)


LOGITS = logits_of(U, KAPPA)


def softmax(values):
    powers = np.exp(values - np.max(values, axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_marginal_loss_and_its_gradient():
    np.testing.assert_allclose(
        tf.nn.softmax(LOGITS)[0], [0.197101, 0.404930, 0.294040, 0.103930], **CLOSE
    )
    np.testing.assert_allclose(TARGET[0], [0.736125, 0.164252, 0.099624], **CLOSE)

    def loss(scores):
        found = mixture.class_probabilities(KAPPA * scores, CLASSES)
        return found, mixture.marginal_loss(TARGET, found)[0]

    scores = tf.constant(V @ U)[None]
    with tf.GradientTape() as tape:
        tape.watch(scores)
        found, divergence = loss(scores)
    np.testing.assert_allclose(found[0], [0.417996, 0.368492, 0.213512], **CLOSE)
    np.testing.assert_allclose(divergence, 0.207932, **CLOSE)
    entropy = -np.sum(TARGET * np.log(TARGET))
    np.testing.assert_allclose(divergence + entropy, 0.959913, **CLOSE)
    slope = tape.gradient(divergence, scores)[0]
    np.testing.assert_allclose(slope, [-0.164016, -0.135394, 0.214630, 0.084779], **CLOSE)
    steps = 1e-5 * np.eye(4)
    differences = [float(loss(scores + d)[1] - loss(scores - d)[1]) / 2e-5 for d in steps]
    np.testing.assert_allclose(slope, differences, atol=1e-8)


def test_a_student_with_the_features_of_the_teacher_has_its_classes():
    found = mixture.class_probabilities(logits_of(V[0], 1000.0), CLASSES)
    assert abs(float(mixture.marginal_loss(TARGET, found)[0])) < 1e-6


def test_without_concentration_the_classes_are_their_mean():
    found = mixture.class_probabilities(logits_of(U, 0.0), CLASSES)
    np.testing.assert_allclose(found[0], [0.380636, 0.322133, 0.297231], **CLOSE)
    np.testing.assert_allclose(found[0], np.mean(CLASSES, axis=0), rtol=1e-12)


def test_bound_its_targets_and_its_limit():
    targets = mixture.elbo_targets(TARGET, CLASSES, logits_of(V[0], 2.0))
    np.testing.assert_allclose(targets[0], [0.578758, 0.349492, 0.054476, 0.017274], **CLOSE)
    loss = float(mixture.elbo_loss(targets, LOGITS)[0])
    np.testing.assert_allclose(loss, 1.361672, **CLOSE)
    # The bound itself, with what no student can change.
    joint = CLASSES.numpy() * softmax(2.0 * V @ V[0])[:, None]
    guess = joint / joint.sum(axis=0)
    constant = np.sum(TARGET.numpy() * guess * (np.log(guess) - np.log(CLASSES)))
    np.testing.assert_allclose(loss + constant, 1.232836, **CLOSE)
    own = float(mixture.infonce_loss(tf.constant([0]), LOGITS)[0])
    np.testing.assert_allclose(own, 1.624041, **CLOSE)
    for kappa, wanted in ((10.0, 1.540070), (500.0, 1.624041)):
        targets = mixture.elbo_targets(TARGET, CLASSES, logits_of(V[0], kappa))
        np.testing.assert_allclose(mixture.elbo_loss(targets, LOGITS)[0], wanted, **CLOSE)


def test_bayes_rule_gives_the_same_classes():
    prior = np.mean(CLASSES, axis=0)
    kernel = np.exp(KAPPA * V @ U) @ (CLASSES.numpy() / np.sum(CLASSES, axis=0))
    posterior = prior * kernel / np.sum(prior * kernel)
    found = mixture.class_probabilities(LOGITS, CLASSES)
    np.testing.assert_allclose(found[0], posterior, rtol=1e-12)


def prototypes() -> bayes_head.Prototypes:
    found = bayes_head.Prototypes(3, 2)
    for rows in (slice(0, 3), slice(3, 4)):
        found.add(V[rows], CLASSES.numpy()[rows])
    return found


def test_directions_of_classes_and_the_bound_that_they_stand_for():
    found = prototypes()
    bound = KAPPA * found.means() @ U
    np.testing.assert_allclose(bound, [1.453428, 1.498767, 0.955388], **CLOSE)
    share = CLASSES.numpy() / np.sum(CLASSES, axis=0)
    exact = np.log(np.exp(KAPPA * V @ U) @ share)
    np.testing.assert_allclose(exact, [1.531377, 1.572199, 1.106930], **CLOSE)
    wanted = [[0.897284, 0.441453], [0.326227, 0.945292], [-0.263986, 0.964527]]
    np.testing.assert_allclose(found.directions(), wanted, **CLOSE)
    scores = KAPPA * found.directions() @ U
    np.testing.assert_allclose(softmax(scores), [0.370147, 0.417703, 0.212150], **CLOSE)


def test_projector_and_directions_fold_to_one_matrix():
    projector = np.array([[1, 0.5, -0.2], [0.3, -0.4, 0.9]]).T
    feature = np.array([0.2, -0.1, 0.7])
    scores = feature @ bayes_head.folded(prototypes().directions(), projector)
    np.testing.assert_allclose(scores, [0.331234, 0.693325, 0.701465], **CLOSE)
    vector = feature @ projector
    unfolded = KAPPA * prototypes().directions() @ (vector / np.linalg.norm(vector))
    np.testing.assert_allclose(softmax(scores).argmax(), softmax(unfolded).argmax())


def test_a_class_that_no_image_has_has_no_direction():
    found = bayes_head.Prototypes(2, 2)
    found.add(V, np.array([[1.0, 0.0]] * 4))
    np.testing.assert_array_equal(found.directions()[1], [0.0, 0.0])


# Single steps.


def objective_of(width=2, classes=3, teacher_head=None, **settings) -> AuxVar:
    """An objective whose projector leaves features as they are."""
    objective = AuxVar(**{"kappa": KAPPA, "temperature": 2.0, "queue_size": 6, **settings})
    shapes = {
        ("student", "main"): {objective.student_tap: (None, width)},
        ("teacher", "main"): {objective.teacher_tap: (None, width), "logits": (None, classes)},
    }
    image = keras.Input((width,))
    feature = keras.layers.Identity(name=objective.student_tap)(image)
    student = models.as_network(keras.Model(image, keras.layers.Dense(classes)(feature)))
    objective.setup(
        Spec(
            classes, (2, 2, 1), shapes, None, None, 1, lambda *_: teacher_head, lambda name: student
        )
    )
    objective.projector.kernel.assign(np.eye(width))
    return objective


def step(objective, index, student, features, logits, writes=True, **batch):
    """A training step; returns its loss and the gradients of all that it was given."""
    given = [tf.constant(np.asarray(each, "float32")) for each in (student, features, logits)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        outputs = {
            "student": {objective.student_tap: given[0]},
            "teacher": {objective.teacher_tap: given[1], "logits": given[2]},
        }
        context = context_of(outputs, np.zeros(len(index), int), index=index, **batch)
        replaced = objective.student_logits(context)
        if replaced is not None:
            context.replace_student_logits(replaced)
        terms = objective.to_terms(objective.compute(context))
        loss = terms.losses["auxvar"]
    if writes:
        objective.after_step(context, terms.carry)
    return float(loss), tape.gradient(loss, given)


def test_a_step_is_the_loss_over_batch_and_queue():
    objective = objective_of()
    step(objective, [1, 2, 3], U[None].repeat(3, 0), 5 * V[1:], T[1:])
    loss, slopes = step(objective, [0], U[None], 3 * V[:1], T[:1])
    np.testing.assert_allclose(loss, 0.207932, atol=1e-6)
    assert np.any(slopes[0] != 0) and slopes[1] is None and slopes[2] is None


def test_stored_images_have_a_temperature_of_their_own_and_features_any_tap():
    objective = objective_of(query_temperature=0.5, student_tap="neck", teacher_tap="last")
    step(objective, [1, 2, 3], U[None].repeat(3, 0), V[1:], T[1:])
    loss, _ = step(objective, [0], U[None], V[:1], T[:1])
    target, found = softmax(T[0] / 2.0), softmax(KAPPA * V @ U) @ softmax(T / 0.5)
    np.testing.assert_allclose(loss, np.sum(target * np.log(target / found)), atol=1e-6)


def test_rows_of_the_batch_that_do_not_count_are_not_stored_images():
    rows = [0, 3]
    given = objective_of(), rows, U[None].repeat(2, 0), V[rows], T[rows]
    loss, _ = step(*given, sample_weight=np.array([1.0, 0.0], np.float32))
    # The image that counts can only be like itself.
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"objective": "elbo"}, 1.361672),
        ({"objective": "elbo", "teacher_kappa": 10.0}, 1.540070),
        ({"objective": "infonce"}, 1.624041),
    ],
)
def test_the_other_losses_in_a_step(settings, wanted):
    objective = objective_of(**settings)
    step(objective, [1, 2, 3], U[None].repeat(3, 0), V[1:], T[1:])
    loss, slopes = step(objective, [0], U[None], V[:1], T[:1])
    np.testing.assert_allclose(loss, wanted, atol=1e-6)
    assert slopes[1] is None and slopes[2] is None


def test_earlier_entries_of_an_image_take_no_part_and_itself_only_where_told():
    def loss(stored, **settings):
        objective = objective_of(**settings)
        for index, row in stored:
            step(objective, [index], U[None], V[[row]], T[[row]])
        return step(objective, [0], U[None], V[:1], T[:1])[0]

    others = [(1, 1), (2, 2), (3, 3)]
    assert loss([(0, 2), *others]) == pytest.approx(loss(others), rel=1e-6)
    without = mixture.class_probabilities(LOGITS[:, 1:], CLASSES[1:])
    wanted = float(mixture.marginal_loss(TARGET, without)[0])
    assert loss([(0, 0), *others], own_instance=False) == pytest.approx(wanted, rel=1e-5)
    # Where there is nothing else, there is nothing to learn.
    assert loss([], own_instance=False) == 0.0


def test_order_of_the_queue_and_rows_that_do_not_count_do_not_matter():
    def loss(order, weights):
        objective = objective_of()
        rows = np.array(order)
        step(
            objective, rows + 1, U[None].repeat(len(rows), 0), V[rows], T[rows],
            sample_weight=np.array(weights, np.float32),
        )  # fmt: skip
        return step(objective, [0], U[None], V[:1], T[:1])[0], objective.queue

    wanted, queue = loss([1, 2, 3], [1, 1, 1])
    np.testing.assert_array_equal(queue.numbers, [2, 3, 4, 0, EMPTY, EMPTY])
    for order, weights in (([3, 1, 2], [1, 1, 1]), ([1, 0, 2, 3], [1, 0, 1, 1])):
        assert loss(order, weights)[0] == pytest.approx(wanted, rel=1e-6)


def test_queue_wraps_and_takes_batches_larger_than_itself():
    queue = Queue(4, {"a": 2}, name="queue")
    for first in (0, 3, 6):
        rows = np.arange(first, first + 3, dtype=np.int32)
        queue.put({"a": tf.cast(np.stack([rows, -rows], 1), tf.float32)}, tf.constant(rows))
    np.testing.assert_array_equal(queue.numbers, [8, 5, 6, 7])
    np.testing.assert_array_equal(queue.rows["a"][:, 1], [-8, -5, -6, -7])
    rows = tf.range(20, 29)
    queue.put({"a": tf.cast(tf.stack([rows, rows], 1), tf.float32)}, rows)
    assert sorted(np.array(queue.numbers)) == [25, 26, 27, 28]
    assert queue.next == (9 + 9) % 4


def test_centered_features_have_the_mean_of_all_taken_from_each():
    objective = objective_of(center=True)
    step(objective, [1, 2, 3], U[None].repeat(3, 0), V[1:], T[1:])
    loss, _ = step(objective, [0], U[None], V[:1], T[:1])
    centered = V - V.mean(axis=0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    found = softmax(KAPPA * centered @ U) @ CLASSES.numpy()
    wanted = float(mixture.marginal_loss(TARGET, tf.constant(found[None]))[0])
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_evaluation_of_the_trained_bayes_head_goes_by_the_centered_queue():
    objective = objective_of(head="bayes", center=True)

    def evaluated():
        outputs = {"student": {"pooled": tf.constant(U[None], tf.float32)}}
        return objective.student_logits(context_of(outputs, [0], training=False))

    # Nothing is known before the first step, which is no guess at the first class.
    assert np.isnan(evaluated().numpy()).all()
    step(objective, [0, 1, 2, 3], U[None].repeat(4, 0), V, T)
    centered = V - V.mean(axis=0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    wanted = softmax(KAPPA * centered @ U) @ CLASSES.numpy()
    np.testing.assert_allclose(tf.nn.softmax(evaluated())[0], wanted, rtol=1e-5)


def linear(kernel, bias) -> keras.Model:
    head = keras.Sequential([keras.Input((len(kernel),)), keras.layers.Dense(len(bias))])
    head.set_weights([np.array(kernel, "float32"), np.array(bias, "float32")])
    return head


def test_cosines_with_the_weights_of_classes_share_one_temperature():
    kernel, bias = np.array([[1.0, 0.0, -3], [2.0, 0.5, 4]]), [5.0, -1, 2]
    directions = (kernel / np.linalg.norm(kernel, axis=0)).T
    np.testing.assert_allclose(class_vectors(linear(kernel, bias), 2, "it"), directions, atol=1e-6)
    objective = objective_of(
        teacher_head=linear(kernel, bias), class_posterior="cosine", temperature=None, queue_size=3
    )
    step(objective, [1, 2, 3], U[None].repeat(3, 0), V[1:], T[1:])
    # The teacher's logits tell nothing here.
    loss, _ = step(objective, [0], U[None], V[:1], 7 * T[2:3])
    classes = softmax(KAPPA * V @ directions.T)
    found = softmax(KAPPA * V @ U) @ classes
    wanted = np.sum(classes[0] * np.log(classes[0] / found))
    np.testing.assert_allclose(loss, wanted, atol=1e-6)


def test_a_head_of_several_layers_has_no_directions_of_classes():
    head = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(9, "relu"), keras.layers.Dense(3)]
    )
    with pytest.raises(TfkdError, match="^auxvar with .*found more than a linear layer"):
        objective_of(teacher_head=head, class_posterior="cosine")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_kappa": 5.0}, "found teacher_kappa=5 with objective='marginal'"),
        ({"objective": "infonce", "own_instance": False}, "objective='infonce' with own_instance"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(settings, message):
    with pytest.raises(TfkdError, match=message):
        AuxVar(**settings)


def test_student_with_several_exits_is_refused():
    student = models.multi_exit(runs.network("student"), ["stage1"])
    with pytest.raises(TfkdError, match="auxvar works on classification"):
        Distiller(runs.network("teacher"), student, AuxVar())


# Students with the Bayes head.


def data_set() -> data.DataSet:
    images = np.random.default_rng(4).integers(0, 256, (21, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(21) % 4
    return data.from_arrays((images, labels), (images[:4], labels[:4]), batch_size=8, num_classes=4)


def necked(width: int, *names: str) -> keras.Model:
    """A network with a linear layer on another vector than ``pooled``.

    Args:
        width: Filters of its convolution.
        *names: Names of that and of the linear layer.
    """
    image = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(width, 3, activation="silu", name=names[0])(image)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    hidden = keras.layers.Activation("tanh", name="neck")(hidden)
    return keras.Model(image, keras.layers.Dense(runs.NUM_CLASSES, name=names[1])(hidden))


def by_hand(distiller, dataset):
    """Logits of the Bayes head for the training images, from the models alone."""
    [objective] = distiller.objectives
    pixels = np.concatenate([batch["image"] for batch in dataset.train_evaluation()])[:21]
    student, teacher = (
        models.tapped(network.model, [tap, "logits"])(network.preprocess(pixels))
        for network, tap in (
            (distiller.network("student"), objective.student_tap),
            (distiller.network("teacher"), objective.teacher_tap),
        )
    )
    vectors = np.float64(tf.math.l2_normalize(teacher[objective.teacher_tap], axis=1))
    logits = np.float64(teacher["logits"])
    if objective.class_posterior == "cosine":
        kernel = np.float64(distiller.network("teacher").model.get_layer("logits").kernel)
        logits = vectors @ (kernel / np.linalg.norm(kernel, axis=0))
    classes = softmax(logits / (objective.head_temperature or 4.0))
    if objective.center:
        vectors = vectors - vectors.mean(axis=0)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    means = (classes / classes.sum(axis=0)).T @ vectors
    directions = means / np.linalg.norm(means, axis=1, keepdims=True)
    projected = student[objective.student_tap] @ objective.projector.kernel
    return pixels, projected @ directions.T.astype("float32")


def check_bayes_student(distiller):
    distiller.fit(runs.batches("index").take(1), verbose=0)
    dataset = data_set()
    finish = distiller.finish(dataset)
    student = distiller.clean_student(finish)
    assert student.model is distiller.student
    found = distiller.variants(student, finish)["bayes"]
    pixels, wanted = by_hand(distiller, dataset)
    np.testing.assert_allclose(found(pixels, training=False), wanted, rtol=1e-4, atol=1e-5)
    cost, usual = models.cost(found.model), models.cost(student.model)
    assert (cost.params, cost.macs) == (usual.params, usual.macs)
    assert not np.any(found.model.layers[-1].bias)
    assert "not calibrated" in found.name and "pooled" in models.tap_names(found.model)
    assert dataclasses.replace(found, model=student.model, name=student.name) == student


@pytest.mark.parametrize("settings", [{}, {"center": True, "head_temperature": 2.0}])
def test_run_ends_in_a_student_with_the_bayes_head(settings):
    check_bayes_student(runs.distiller_of(AuxVar(**settings), eager=True))


def test_bayes_head_of_other_taps_of_cosines_and_of_a_teacher_with_pixels_of_its_own():
    settings = dict(class_posterior="cosine", head_temperature=0.3)
    objective = AuxVar(student_tap="neck", teacher_tap="neck", **settings)
    teacher = models.Network(necked(6, "conv", "logits"), models.Preprocess((90.0,), (50.0,)))
    # The name of the new layer is taken.
    distiller = Distiller(teacher, necked(4, "logits", "classes"), objective)
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    check_bayes_student(distiller)


def test_layers_that_the_bayes_head_leaves_out_are_told():
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(image)
    hidden = keras.layers.Dense(6, activation="silu")(pooled)
    student = keras.Model(image, keras.layers.Dense(runs.NUM_CLASSES)(hidden))
    with pytest.warns(TfkdWarning, match="auxvar: found 52 parameters behind 'pooled' .* 16 of"):
        Distiller(runs.network("teacher"), student, AuxVar())


def test_student_without_a_graph_is_refused():
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = runs.network("inner")

        def call(self, images):
            return self.inner(images)

    student = Plain()
    student(np.zeros((1, 8, 8, 3), "float32"))
    with pytest.raises(TfkdError, match="^auxvar: found the student .* no functional model"):
        Distiller(runs.network("teacher"), student, AuxVar(student_tap="logits"))


def test_without_data_there_is_no_bayes_head():
    distiller = runs.distiller_of(AuxVar(), eager=True)
    with pytest.raises(TfkdError, match="^auxvar: found no data for its Bayes classifier"):
        distiller.variants(distiller.network("student"))


def test_trained_bayes_head_is_what_labels_validation_and_the_end_see():
    objective = AuxVar(head="bayes", queue_size=16)
    distiller = runs.distiller_of(objective, eager=True, student_loss_weight=1.0)
    batch = next(iter(runs.batches("index")))
    distiller.fit(runs.batches("index").take(1), verbose=0)
    context = distiller.forward(batch, training=True)
    stored = mixture.class_probabilities(
        *(lambda stored, logits: (logits, stored.classes))(*context.scratch["auxvar"])
    )
    label_loss = distiller.task.label_loss(context.batch, context.outputs("student"))
    picked = -tf.math.log(tf.gather(stored, batch["label"], axis=1, batch_dims=1))
    np.testing.assert_allclose(label_loss, picked, rtol=1e-4)
    np.testing.assert_allclose(label_loss, cross_entropy(batch["label"], context.student_logits))

    # An evaluation has neither teacher nor positions: it goes by the queue.
    found = distiller.forward({"image": batch["image"], "label": batch["label"]}, training=False)
    vectors = models.tapped(distiller.student, ["pooled"])(batch["image"])["pooled"]
    vectors = tf.math.l2_normalize(vectors @ objective.projector.kernel, axis=1)
    filled = np.array(objective.queue.numbers) != EMPTY
    assert filled.sum() == 8
    kept = [np.array(objective.queue.rows[kind])[filled] for kind in ("vectors", "classes")]
    wanted = softmax(objective.kappa * vectors @ kept[0].T) @ kept[1]
    np.testing.assert_allclose(tf.nn.softmax(found.student_logits), wanted, rtol=1e-4)

    dataset = data_set()
    finish = distiller.finish(dataset)
    student = distiller.clean_student(finish)
    assert distiller.variants(student, finish) == {}
    pixels, wanted = by_hand(distiller, dataset)
    np.testing.assert_allclose(student(pixels, training=False), wanted, rtol=1e-4, atol=1e-5)
    # The best epoch's student has the projector of that epoch.
    assert any(each is objective.projector.kernel for each in distiller.student_variables)


def test_trained_bayes_head_gives_one_update_on_two_replicas(two_replicas):
    states = []
    for scope in (contextlib.nullcontext(), two_replicas.scope()):
        with scope:
            objective = AuxVar(head="bayes", objective="infonce", queue_size=12)
            distiller = runs.distiller_of(objective, learning_rate=0.05)
            batches = runs.batches("index", "sample_weight")
            if states:
                batches = two_replicas.experimental_distribute_dataset(batches)
            distiller.fit(batches, steps_per_epoch=runs.STEPS, shuffle=False, verbose=0)
            states.append(runs.state(distiller))
    for key, wanted in states[0].items():
        if key.startswith(("student/", "objective:")):
            np.testing.assert_allclose(states[1][key], wanted, rtol=1e-4, atol=2e-6, err_msg=key)
