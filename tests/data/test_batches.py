"""Batches: pure functions of (seed, step), permutations, slices for replicas, padding."""

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import data

SIZE, BATCH = 52, 8
STEPS = SIZE // BATCH


def make(seed=0, augment="crop_flip", batch_size=BATCH, size=SIZE):
    generator = np.random.default_rng(3)
    images = generator.integers(0, 256, (size, 6, 5, 3), np.uint8)
    labels = np.arange(size) % 4
    return data.from_arrays(
        (images, labels),
        (images[:11], labels[:11]),
        augment=augment,
        batch_size=batch_size,
        seed=seed,
        validation=(images[:16], labels[:16]),
    )


def drawn(dataset, *arguments, **settings):
    settings.setdefault("batch_keys", ("index",))
    return list(dataset.train(*arguments, **settings).as_numpy_iterator())


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for left, right in zip(found, wanted):
        assert left.keys() == right.keys()
        for key in left:
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)


def test_form_of_a_training_batch():
    dataset = make()
    assert dataset.steps_per_epoch == STEPS
    spec = dataset.train(batch_keys=["index"]).element_spec
    assert spec == {
        "image": tf.TensorSpec((BATCH, 6, 5, 3), tf.uint8),
        "label": tf.TensorSpec((BATCH,), tf.int32),
        "index": tf.TensorSpec((BATCH,), tf.int32),
    }
    assert set(dataset.train().element_spec) == {"image", "label"}
    assert int(dataset.train(2, 9).cardinality()) == 7
    assert dataset.train().cardinality() == tf.data.INFINITE_CARDINALITY


@pytest.mark.parametrize("first", [1, STEPS - 1, STEPS, STEPS + 2, 2 * STEPS])
def test_a_run_that_starts_later_sees_the_same_batches(first):
    whole = drawn(make(), 0, 3 * STEPS)
    assert_equal(drawn(make(), first, 3 * STEPS), whole[first:])


def test_the_endless_form_gives_the_same_batches():
    endless = list(make().train(3, batch_keys=("index",)).take(STEPS).as_numpy_iterator())
    assert_equal(endless, drawn(make(), 3, 3 + STEPS))


def test_no_steps_left_gives_no_batches():
    assert drawn(make(), STEPS, STEPS) == []


def test_batches_do_not_depend_on_tensorflows_global_seed():
    tf.random.set_seed(1)
    first = drawn(make(), 0, 3)
    tf.random.set_seed(2)
    assert_equal(drawn(make(), 0, 3), first)


def test_every_epoch_is_another_permutation():
    batches = drawn(make(), 0, 3 * STEPS)
    epochs = np.array([batch["index"] for batch in batches]).reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch)) == STEPS * BATCH and set(epoch) <= set(range(SIZE))
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()
    # The images left over are not always the same ones.
    assert set(epochs[0]) != set(epochs[1])


def test_another_seed_is_another_order_and_another_augmentation():
    zero, one = drawn(make(seed=0), 0, STEPS), drawn(make(seed=1), 0, STEPS)
    assert (zero[0]["index"] != one[0]["index"]).any()
    same_image = {
        index: image for batch in zero for index, image in zip(batch["index"], batch["image"])
    }
    shared = [
        np.array_equal(image, same_image[index])
        for batch in one
        for index, image in zip(batch["index"], batch["image"])
        if index in same_image
    ]
    assert len(shared) > SIZE / 2 and np.mean(shared) < 0.2


def test_an_image_is_augmented_anew_in_every_epoch():
    batches = drawn(make(), 0, 2 * STEPS)
    first, second = (
        {i: image for b in part for i, image in zip(b["index"], b["image"])}
        for part in (batches[:STEPS], batches[STEPS:])
    )
    same = [np.array_equal(first[i], second[i]) for i in first.keys() & second.keys()]
    assert np.mean(same) < 0.2


def test_labels_belong_to_the_images():
    for batch in drawn(make(), 0, STEPS):
        np.testing.assert_array_equal(batch["label"], batch["index"] % 4)


@pytest.mark.parametrize("pipelines, replicas", [(1, 1), (1, 2), (2, 2), (2, 4)])
def test_replicas_together_see_the_global_batch(pipelines, replicas):
    whole = drawn(make(), 4, 4 + STEPS)
    local = replicas // pipelines
    parts = []
    for pipeline in range(pipelines):
        context = tf.distribute.InputContext(pipelines, pipeline, replicas)
        part = drawn(make(), 4, 4 + STEPS, input_context=context)
        assert len(part) == STEPS * local
        assert all(len(batch["image"]) == BATCH // replicas for batch in part)
        parts.append(part)
    for step in range(STEPS):
        slices = [part[step * local + replica] for part in parts for replica in range(local)]
        for key, value in whole[step].items():
            np.testing.assert_array_equal(np.concatenate([each[key] for each in slices]), value)


@pytest.mark.parametrize("pipelines, replicas", [(1, 1), (1, 2), (2, 2), (2, 4)])
def test_replicas_together_see_the_test_set(pipelines, replicas):
    local = replicas // pipelines
    whole = list(make().test().as_numpy_iterator())
    parts = [
        list(
            make()
            .test(input_context=tf.distribute.InputContext(pipelines, pipeline, replicas))
            .as_numpy_iterator()
        )
        for pipeline in range(pipelines)
    ]
    for step, batch in enumerate(whole):
        slices = [part[step * local + replica] for part in parts for replica in range(local)]
        for key, value in batch.items():
            np.testing.assert_array_equal(np.concatenate([each[key] for each in slices]), value)


def test_mirrored_replicas_share_the_global_batch(two_replicas):
    dataset = make()
    shared = two_replicas.distribute_datasets_from_function(
        lambda context: dataset.train(1, 4, input_context=context)
    )
    for mine, wanted in zip(shared, drawn(make(), 1, 4), strict=True):
        values = two_replicas.experimental_local_results(mine["image"])
        np.testing.assert_array_equal(np.concatenate(values), wanted["image"])


def test_evaluation_keeps_the_order_and_fills_up_the_last_batch():
    dataset = make()
    batches = list(dataset.test().as_numpy_iterator())
    assert [len(batch["image"]) for batch in batches] == [BATCH, BATCH]
    weight = np.concatenate([batch["sample_weight"] for batch in batches])
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, [1] * 11 + [0] * 5)
    images = np.concatenate([batch["image"] for batch in batches])[weight > 0]
    labels = np.concatenate([batch["label"] for batch in batches])[weight > 0]
    source = np.random.default_rng(3).integers(0, 256, (SIZE, 6, 5, 3), np.uint8)
    np.testing.assert_array_equal(images, source[:11])
    np.testing.assert_array_equal(labels, np.arange(11) % 4)
    assert (
        sum(batch["sample_weight"].sum() for batch in dataset.validation().as_numpy_iterator())
        == 16
    )
    train = list(dataset.train_evaluation().as_numpy_iterator())
    np.testing.assert_array_equal(
        np.concatenate([batch["image"] for batch in train])[:SIZE], source
    )
    assert int(dataset.test().cardinality()) == 2


def test_an_evaluation_batch_larger_than_the_part_is_filled_up():
    (batch,) = make(batch_size=SIZE).test().as_numpy_iterator()
    assert batch["image"].shape[0] == SIZE and batch["sample_weight"].sum() == 11


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: make(batch_size=53).train(), ["batch_size", "53", "52"]),
        (lambda: make(batch_size=53).steps_per_epoch, ["batch_size", "53", "52"]),
        (lambda: make(batch_size=0), ["batch_size", "0"]),
        (lambda: make(batch_size=2.0), ["batch_size", "2.0"]),
        (lambda: make(seed=-1), ["seed", "-1"]),
        (lambda: make(seed=0.5), ["seed", "0.5"]),
        (lambda: make().train(batch_keys=["indx"]), ["indx", "did you mean 'index'"]),
        (lambda: make().train(5, 4), ["5 to 4"]),
        (lambda: make().train(-1), ["-1"]),
        (
            lambda: make().train(input_context=tf.distribute.InputContext(1, 0, 3)),
            ["batch_size 8", "3 replicas"],
        ),
        (
            lambda: make().test(input_context=tf.distribute.InputContext(4, 0, 2)),
            ["4", "2 replicas"],
        ),
    ],
)
def test_wrong_settings_are_named(call, words):
    with pytest.raises(tfkd.TfkdError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_validation_part_is_named():
    images = np.zeros((4, 2, 2, 1), np.uint8)
    dataset = data.from_arrays((images, np.arange(4)), (images, np.arange(4)), batch_size=2)
    with pytest.raises(tfkd.TfkdError, match="no validation part"):
        dataset.validation()
