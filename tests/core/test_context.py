"""What an objective sees of a step: means, outputs and draws."""

import numpy as np
import pytest
import tensorflow as tf

import tfkd

VALUES = np.array([1.0, 2.0, 4.0, 8.0])
WEIGHTS = np.array([0.5, 0.0, 2.0, 1.0])
MASK = np.array([1, 1, 0, 1])


def context(batch=(), *, training=True, step=0, seed=0, outputs=()):
    batch = {"image": tf.zeros((4, 8, 8, 3)), "label": tf.zeros(4, tf.int32), **dict(batch)}
    return tfkd.Context(
        batch,
        training=training,
        epoch=tf.constant(0.0),
        epochs=tf.constant(1.0),
        step=tf.constant(step, tf.int64),
        seed=seed,
        outputs=dict(outputs),
        heads=lambda name: name,
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_mean(training, weighted, masked):
    weights = WEIGHTS if weighted else np.ones(4)
    mask = MASK if masked else np.ones(4)
    here = context({"sample_weight": tf.constant(WEIGHTS)} if weighted else {}, training=training)
    found = here.mean(tf.constant(VALUES), mask if masked else None)
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, (mask * weights * VALUES).sum() / mask.sum(), rtol=1e-12)


def test_means_of_several_losses_are_the_mean_of_each():
    losses = np.stack([VALUES, VALUES[::-1], VALUES**2])
    here = context({"sample_weight": WEIGHTS, "filler": np.array([0, 0, 0, 1])}, training=False)
    wanted = [here.mean(tf.constant(each)) for each in losses]
    np.testing.assert_allclose(here.means(losses), wanted, rtol=1e-12)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("known_size", [True, False])
def test_rows_that_fill_a_batch_are_no_samples(masked, known_size):
    mask = MASK if masked else np.ones(4)
    filler = np.array([False, False, True, True])
    batch = {"sample_weight": WEIGHTS * ~filler, "filler": filler}

    def found(values, batch):
        here = context(batch, training=False)
        return here.mean(values, mask), here.weighted_mean(values), here.count()

    size = 4 if known_size else None
    kinds = {"sample_weight": tf.float64, "filler": tf.bool}
    specs = {key: tf.TensorSpec([size], kind) for key, kind in kinds.items()}
    compiled = tf.function(found, input_signature=[tf.TensorSpec([size], tf.float64), specs])
    mean, weighted, (rows, weight) = compiled(VALUES, batch)
    kept = (mask * ~filler).sum()
    np.testing.assert_allclose(mean, (mask * ~filler * WEIGHTS * VALUES).sum() / kept, rtol=1e-12)
    wanted = np.average(VALUES, weights=WEIGHTS * ~filler)
    np.testing.assert_allclose(weighted, wanted, rtol=1e-12)
    assert (float(rows), float(weight)) == (2.0, 0.5)


def test_weighted_mean_is_that_of_metrics():
    here = context({"sample_weight": tf.constant(WEIGHTS)})
    wanted = np.average(VALUES, weights=WEIGHTS)
    np.testing.assert_allclose(here.weighted_mean(tf.constant(VALUES)), wanted, rtol=1e-12)
    np.testing.assert_allclose(context().weighted_mean(tf.constant(VALUES)), VALUES.mean())


def test_mean_of_nothing_is_zero_and_so_is_its_gradient():
    values = tf.constant(VALUES)
    here = context()
    with tf.GradientTape() as tape:
        tape.watch(values)
        mean = here.mean(values, tf.zeros(4))
    assert mean.numpy() == 0
    assert not np.any(tape.gradient(mean, values))
    assert context({"sample_weight": tf.zeros(4)}, training=False).mean(values).numpy() == 0


def test_mean_averages_further_axes():
    values = np.random.default_rng(0).normal(size=(4, 3, 2))
    here = context({"sample_weight": tf.constant(WEIGHTS)[:, None]})
    expected = (values.mean(axis=(1, 2)) * WEIGHTS).sum() / 4
    np.testing.assert_allclose(here.mean(tf.constant(values)), expected, rtol=1e-12)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_mean_of_pairs_and_triplets(axes, training, masked):
    values = np.random.default_rng(0).normal(size=(*[4] * axes, 3))
    mask = MASK if masked else np.ones(4)
    divisor, expected = mask.sum(), 0.0
    for samples in np.ndindex(*[4] * axes):
        weight = np.prod([mask[each] * WEIGHTS[each] for each in samples])
        expected += weight * values[samples].mean() / divisor**axes
    here = context({"sample_weight": tf.constant(WEIGHTS)}, training=training)
    found = here.mean(tf.constant(values), mask if masked else None, gathered=True, axes=axes)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_mean_of_pairs_without_weights_is_the_mean():
    values = np.random.default_rng(0).normal(size=(4, 4))
    found = context().mean(tf.constant(values), gathered=True, axes=2)
    np.testing.assert_allclose(found, values.mean(), rtol=1e-12)


def test_pairs_are_those_of_the_gathered_batch():
    with pytest.raises(tfkd.TfkdError, match="^mean over 2 axes of samples: found gathered=False"):
        context().mean(tf.zeros((4, 4)), axes=2)


@pytest.mark.parametrize("known_size", [True, False])
def test_weight_of_an_image_counts_for_all_its_rotations(known_size):
    values = np.random.default_rng(0).normal(size=16)
    mask = np.arange(16) % 4 != 0
    expected = (values * mask * np.repeat(WEIGHTS, 4)).sum() / mask.sum()

    def mean(values, weights):
        return context({"sample_weight": weights}).mean(values, mask)

    shapes = [tf.TensorSpec([16 if known_size else None], tf.float64)]
    shapes += [tf.TensorSpec([4 if known_size else None], tf.float64)]
    found = tf.function(mean, input_signature=shapes)(values, WEIGHTS)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_half_precision_is_summed_in_float32():
    values = tf.fill([4], tf.constant(60000, tf.float16))
    mean = context().mean(values)
    assert mean.dtype == tf.float32
    np.testing.assert_allclose(mean, 60000, rtol=1e-2)


def test_seeds_are_a_function_of_run_step_and_salt():
    def draw(seed, step, salt):
        return tuple(context(step=step, seed=seed).seed(salt).numpy())

    assert draw(0, 5, 1) == draw(0, 5, 1)
    places = [(seed, step, salt) for seed in range(2) for step in range(3) for salt in range(3)]
    assert len({draw(*place) for place in places}) == len(places)


def test_outputs_by_network_tap_and_view():
    logits = tf.constant([[1.0, 2.0]], tf.bfloat16)
    here = context(
        outputs={
            ("student", "main"): {"logits": logits, "pooled": 2 * logits},
            ("teacher", "strong"): {"logits": 3 * logits},
        }
    )
    assert here.student().dtype == tf.float32
    assert here.student("pooled").dtype == tf.bfloat16
    np.testing.assert_array_equal(here.teacher(view="strong"), [[3.0, 6.0]])
    with pytest.raises(tfkd.TfkdError, match=r"teacher/main/logits was not asked for.*student/"):
        here.teacher()
    with pytest.raises(tfkd.TfkdError, match="student/main/stage9 was not asked for"):
        here.student("stage9")


def test_replaced_logits_stand_in_for_the_students_own():
    own = tf.constant([[1.0, 2.0]])
    here = context(outputs={("student", "main"): {"logits": own}})
    np.testing.assert_array_equal(here.student_logits, own)
    here.replace_student_logits(tf.constant([[5.0, 6.0]], tf.float16))
    np.testing.assert_array_equal(here.student_logits, [[5.0, 6.0]])
    np.testing.assert_array_equal(here.student(), [[5.0, 6.0]])
    np.testing.assert_array_equal(here.output("student"), own)
    assert here.student_logits.dtype == tf.float32
    with pytest.raises(tfkd.TfkdError, match="two objectives that replace the student's logits"):
        here.replace_student_logits(own)
