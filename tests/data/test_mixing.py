"""Mixup and cutmix: what is drawn, what an image and its label become, what is refused."""

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import data
from tfkd.data import mixing

SIZE, BATCH, CLASSES = 24, 8, 4
STEPS = SIZE // BATCH
LABELS = np.arange(SIZE) % CLASSES


def sources():
    return np.random.default_rng(5).integers(0, 256, (SIZE, 6, 5, 3), np.uint8)


def make(batch_size=BATCH, augment="none", **settings):
    images = sources()
    return data.from_arrays(
        (images, LABELS), (images, LABELS), augment=augment, batch_size=batch_size, **settings
    )


def drawn(dataset, first, last, **settings):
    settings.setdefault("batch_keys", ("index",))
    return list(dataset.train(first, last, **settings).as_numpy_iterator())


def pairs(batch):
    """Yields for each row its image, its label, its own position and that of its partner."""
    for row, (image, label) in enumerate(zip(batch["image"], batch["label"])):
        yield image, label, batch["index"][row], batch["index"][row ^ 1]


def share_of(label, own, other):
    """Returns the share of the row's own label, after checking the rest of the label."""
    wanted = np.zeros(CLASSES)
    share = label[LABELS[own]]
    if LABELS[own] == LABELS[other]:
        share = None
        wanted[LABELS[own]] = 1
    else:
        wanted[LABELS[own]], wanted[LABELS[other]] = share, 1 - share
    np.testing.assert_allclose(label, wanted, atol=1e-6)
    return share


def shares(batch):
    return [
        share
        for _, label, own, other in pairs(batch)
        if (share := share_of(label, own, other)) is not None
    ]


def test_form_of_a_mixed_batch():
    spec = make(mixup=0.2).train(batch_keys=["index"]).element_spec
    assert spec == {
        "image": tf.TensorSpec((BATCH, 6, 5, 3), tf.uint8),
        "label": tf.TensorSpec((BATCH, CLASSES), tf.float32),
        "index": tf.TensorSpec((BATCH,), tf.int32),
    }
    assert make().train().element_spec["label"] == tf.TensorSpec((BATCH,), tf.int32)
    # What is evaluated stays as it is.
    assert make(mixup=0.2).test().element_spec["label"] == tf.TensorSpec((BATCH,), tf.int32)


def test_mixup_mixes_images_and_labels_by_one_share():
    images = sources().astype(float)
    for batch in drawn(make(mixup=1.0), 0, 2 * STEPS):
        found = shares(batch)
        assert np.ptp(found) < 1e-6
        for image, _, own, other in pairs(batch):
            wanted = found[0] * images[own] + (1 - found[0]) * images[other]
            assert np.abs(image - wanted).max() <= 0.501


def test_cutmix_exchanges_one_rectangle_and_mixes_labels_by_its_area():
    images = sources()
    kept = []
    for batch in drawn(make(cutmix=1.0), 0, 4 * STEPS):
        found = shares(batch)
        masks = []
        for image, _, own, other in pairs(batch):
            from_own = (image == images[own]).all(-1)
            from_other = (image == images[other]).all(-1)
            assert (from_own | from_other).all()
            masks.append(~from_own)
        # The same rectangle in the whole batch.
        mask = masks[0]
        assert all((each == mask).all() for each in masks)
        rows, columns = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns[None, :])
        for span in (rows, columns):
            assert np.abs(np.diff(span.astype(int))).sum() <= 2
        np.testing.assert_allclose(found, 1 - mask.mean(), atol=1e-6)
        kept.append(1 - mask.mean())
    assert len(set(kept)) > 4 and min(kept) < 0.8


def test_cutmix_cuts_the_rectangle_at_the_border():
    images = tf.constant(sources()[:2])
    mixed, kept = mixing.cutmix(images, tf.constant(0.0), tf.constant([0, 0]))
    # Half of 6 rows and half of 5 columns, rounded down, lie inside.
    assert float(kept) == pytest.approx(1 - 3 * 2 / 30)
    np.testing.assert_array_equal(mixed[0, :3, :2], images[1, :3, :2])
    np.testing.assert_array_equal(mixed[0, 3:], images[0, 3:])
    whole, kept = mixing.cutmix(images, tf.constant(1.0), tf.constant([3, 3]))
    np.testing.assert_array_equal(whole, images)
    assert float(kept) == 1.0


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_follow_the_beta_distribution(alpha):
    @tf.function
    def drawn_shares():
        return tf.map_fn(
            lambda step: mixing.draw_share(alpha, 3, "mixup", step),
            tf.range(1500, dtype=tf.int64),
            fn_output_signature=tf.float32,
        )

    found = drawn_shares().numpy().astype(float)
    assert ((found >= 0) & (found <= 1)).all()
    # Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2a + 1)).
    variance = 1 / (4 * (2 * alpha + 1))
    deviation = np.sqrt(variance / len(found))
    assert abs(found.mean() - 0.5) < 5 * deviation
    assert found.var() == pytest.approx(variance, rel=0.15)
    # A third moment of the distribution: E|x - 1/2| tells its form.
    sample = np.random.default_rng(0).beta(alpha, alpha, 200_000)
    assert np.abs(found - 0.5).mean() == pytest.approx(np.abs(sample - 0.5).mean(), rel=0.06)


def test_a_tiny_alpha_is_drawn_without_underflow():
    found = [float(mixing.draw_share(1e-3, 0, "mixup", step)) for step in range(12)]
    assert set(np.round(found, 3)) == {0.0, 1.0}


def test_mixup_and_cutmix_together_draw_one_of_them_each_step():
    images = sources()
    kinds = []
    for batch in drawn(make(mixup=1.0, cutmix=1.0), 0, 10 * STEPS):
        image, _, own, other = next(pairs(batch))
        whole = (image == images[own]).all(-1) | (image == images[other]).all(-1)
        kinds.append(whole.all())
    assert 5 < sum(kinds) < 25


@pytest.mark.parametrize("settings", [{"mixup": 0.2}, {"cutmix": 1.0}])
def test_a_mixed_batch_is_a_function_of_seed_and_step(settings):
    def batches(first, last, seed=0, **more):
        return drawn(make(augment="crop_flip", seed=seed, **settings), first, last, **more)

    whole = batches(0, 2 * STEPS)
    tf.random.set_seed(7)
    for left, right in zip(batches(STEPS + 1, 2 * STEPS), whole[STEPS + 1 :], strict=True):
        for key in left:
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)
    # Each step draws anew; an image this small has few rectangles.
    assert len({max(shares(each)) for each in whole}) >= STEPS
    assert (batches(0, 1, seed=1)[0]["image"] != whole[0]["image"]).any()
    context = tf.distribute.InputContext(1, 0, 4)
    parts = batches(2, 3, input_context=context)
    for key in ("image", "label"):
        np.testing.assert_array_equal(np.concatenate([each[key] for each in parts]), whole[2][key])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: make(mixup=-1.0), ["mixup", "-1.0", "0 for none"]),
        (lambda: make(cutmix="1"), ["cutmix", "'1'"]),
        (lambda: make(cutmix=float("nan")), ["cutmix", "nan"]),
        (lambda: make(mixup=True), ["mixup", "True"]),
        (lambda: make(9, mixup=0.2).train(), ["batch of 9", "even"]),
        (
            lambda: make(mixup=0.2).train(input_context=tf.distribute.InputContext(1, 0, 8)),
            ["batch of 1", "even"],
        ),
        (
            lambda: make(mixup=0.2).train(batch_keys=["index", "image_strong", "image_pair"]),
            ["image_pair, image_strong", "data.mixup=0"],
        ),
    ],
)
def test_impossible_mixing_is_named(call, words):
    with pytest.raises(tfkd.TfkdError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
