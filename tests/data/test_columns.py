"""Columns: values of the user that arrive in the batches by index, from memory and from disk."""

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import data

SIZE, HELD, TEST, BATCH = 52, 9, 11, 8
STEPS = SIZE // BATCH


def images_of(size):
    return np.random.default_rng(size).integers(0, 256, (size, 6, 5, 3), np.uint8)


def make(**settings):
    parts = [(images_of(size), np.arange(size) % 4) for size in (SIZE, TEST, HELD)]
    settings = {"batch_size": BATCH, "augment": "crop_flip"} | settings
    return data.from_arrays(*parts[:2], validation=parts[2], **settings)


def values_of(size=SIZE, shape=(3,), dtype=np.float32):
    return np.random.default_rng(1).integers(0, 100, (size, *shape)).astype(dtype)


def drawn(dataset, first=0, last=STEPS, batch_keys=("index", "value"), **settings):
    return list(dataset.train(first, last, batch_keys=batch_keys, **settings).as_numpy_iterator())


def in_memory(values, folder):
    return values


def mapped(values, folder):
    np.save(folder / "values.npy", values)
    return np.load(folder / "values.npy", mmap_mode="r")


def mapped_view(values, folder):
    """A plain array over a part of a mapped file."""
    np.save(folder / "values.npy", np.concatenate([values[:1], values]))
    return np.asarray(np.load(folder / "values.npy", mmap_mode="r"))[1:]


def raw_map(values, folder):
    values.tofile(folder / "values.bin")
    return np.memmap(folder / "values.bin", values.dtype, "r", shape=values.shape)


def hdf5(values, folder):
    file = h5py.File(folder / "values.h5", "w")
    return file.create_dataset("values", data=values)


STORES = (in_memory, mapped, mapped_view, raw_map, hdf5)


class Recorded:
    """Values that are no array, and that know which rows were read."""

    def __init__(self, values):
        self._values = values
        self.shape, self.dtype = values.shape, values.dtype
        self.read = []

    def __getitem__(self, rows):
        self.read.append(rows.tolist())
        return self._values[rows]


@pytest.mark.parametrize("store", STORES)
def test_a_training_batch_has_the_value_of_each_image(store, tmp_path):
    values = values_of()
    dataset = make().with_column("value", store(values, tmp_path))
    batches = drawn(dataset, 0, 2 * STEPS)
    assert batches[0]["value"].dtype == np.float32
    for batch in batches:
        np.testing.assert_array_equal(batch["value"], values[batch["index"]])
    for plain, batch in zip(drawn(make(), 0, 2 * STEPS, ("index",)), batches, strict=True):
        for key, value in plain.items():
            np.testing.assert_array_equal(value, batch[key], err_msg=key)


@pytest.mark.parametrize(
    "store, shape, dtype",
    [
        (in_memory, (), np.int64),
        (mapped, (), bool),
        (mapped, (2, 3, 1), np.float64),
        (mapped, (4,), np.float16),
        (mapped, (4,), np.uint8),
        (mapped, (2,), ">f4"),
        (in_memory, (0,), np.float32),
    ],
)
def test_values_keep_their_shape_and_type(store, shape, dtype, tmp_path):
    values = values_of(shape=shape, dtype=dtype)
    dataset = make().with_column("value", store(values, tmp_path))
    spec = dataset.train(batch_keys=["value"]).element_spec["value"]
    native = values.dtype.newbyteorder("=")
    assert spec == tf.TensorSpec((BATCH, *shape), tf.as_dtype(native))
    (batch,) = drawn(dataset, 3, 4)
    assert batch["value"].dtype == native
    np.testing.assert_array_equal(batch["value"], values[batch["index"]])


@pytest.mark.parametrize(
    "store, first",
    [(in_memory, 1), (in_memory, STEPS), *((store, STEPS + 2) for store in STORES)],
)
def test_a_resumed_run_sees_the_same_values(store, first, tmp_path):
    dataset = make().with_column("value", store(values_of(), tmp_path))
    whole = drawn(dataset, 0, 2 * STEPS)
    tf.random.set_seed(first)
    for left, right in zip(drawn(dataset, first, 2 * STEPS), whole[first:], strict=True):
        for key in left:
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)


@pytest.mark.parametrize(
    "store, pipelines, replicas",
    [(in_memory, 1, 1), (in_memory, 1, 2), (mapped, 2, 2), (hdf5, 2, 4)],
)
def test_replicas_together_see_the_values_of_the_global_batch(store, pipelines, replicas, tmp_path):
    dataset = make().with_column("value", store(values_of(), tmp_path), test=values_of(TEST))
    local = replicas // pipelines
    contexts = [tf.distribute.InputContext(pipelines, each, replicas) for each in range(pipelines)]
    for whole, shards in (
        (drawn(dataset, 4, 7), [drawn(dataset, 4, 7, input_context=each) for each in contexts]),
        (
            list(dataset.test().as_numpy_iterator()),
            [list(dataset.test(input_context=each).as_numpy_iterator()) for each in contexts],
        ),
    ):
        for step, batch in enumerate(whole):
            slices = [
                shard[step * local + each]["value"] for shard in shards for each in range(local)
            ]
            assert all(len(each) == BATCH // replicas for each in slices)
            np.testing.assert_array_equal(np.concatenate(slices), batch["value"])


@pytest.mark.parametrize("store", [in_memory, mapped])
def test_mirrored_replicas_share_the_values(store, two_replicas, tmp_path):
    dataset = make().with_column("value", store(values_of(), tmp_path))
    shared = two_replicas.distribute_datasets_from_function(
        lambda context: dataset.train(1, 4, batch_keys=["value"], input_context=context)
    )
    for mine, wanted in zip(shared, drawn(dataset, 1, 4), strict=True):
        found = two_replicas.experimental_local_results(mine["value"])
        np.testing.assert_array_equal(np.concatenate(found), wanted["value"])


def test_only_the_rows_of_a_batch_are_read_from_disk():
    values = Recorded(values_of())
    dataset = make().with_column("value", values)
    drawn(dataset, 0, 2, ("index",))
    assert values.read == []
    batches = drawn(dataset, 3, 5)
    assert sorted(values.read) == sorted(sorted(batch["index"].tolist()) for batch in batches)


@pytest.mark.parametrize("view", [lambda mapping: mapping, lambda mapping: np.asarray(mapping)[:]])
def test_a_mapped_file_is_not_copied_but_an_array_is(view, tmp_path):
    values = values_of()
    np.save(tmp_path / "values.npy", values)
    array = values.copy()
    mapping = np.load(tmp_path / "values.npy", mmap_mode="r+")
    both = make().with_column("value", view(mapping)).with_column("copied", array)
    mapping[:] = 7
    array[:] = 7
    for batch in drawn(both, batch_keys=("index", "value", "copied")):
        assert (batch["value"] == 7).all()
        np.testing.assert_array_equal(batch["copied"], values[batch["index"]])


def test_the_data_set_without_the_column_stays_as_it_is():
    dataset = make()
    first = dataset.with_column("value", values_of(), test=values_of(TEST))
    second = first.with_column("other", values_of(shape=()))
    assert "value" not in dataset.test().element_spec
    assert "value" not in dataset.train_evaluation().element_spec
    with pytest.raises(tfkd.TfkdError, match="unknown batch entry 'value'"):
        dataset.train(batch_keys=["value"])
    with pytest.raises(tfkd.TfkdError, match="'othre'; did you mean 'other'"):
        second.train(batch_keys=["othre"])
    assert "other" not in first.train_evaluation().element_spec
    assert set(second.train_evaluation().element_spec) == {
        *("image", "label", "sample_weight", "filler", "value", "other")
    }
    assert set(second.train().element_spec) == {"image", "label"}
    assert set(second.train(batch_keys="other").element_spec) == {"image", "label", "other"}


@pytest.mark.parametrize("store", STORES)
def test_evaluation_batches_have_the_values_of_their_part(store, tmp_path):
    sizes = {"train": SIZE, "test": TEST, "validation": HELD}
    values, stored = {}, {}
    for part, size in sizes.items():
        (tmp_path / part).mkdir()
        values[part] = values_of(size) + size
        stored[part] = store(values[part], tmp_path / part)
    dataset = make().with_column(
        "value", stored["train"], test=stored["test"], validation=stored["validation"]
    )
    for part, batches in (
        ("train", dataset.train_evaluation()),
        ("test", dataset.test()),
        ("validation", dataset.validation()),
    ):
        found = np.concatenate([batch["value"] for batch in batches.as_numpy_iterator()])
        np.testing.assert_array_equal(found[: sizes[part]], values[part])
        # The rows that fill up the last batch repeat the last image, and so its value.
        assert len(found) % BATCH == 0 and (found[sizes[part] :] == values[part][-1]).all()


def test_a_column_of_the_training_part_alone_is_in_no_other_part():
    dataset = make().with_column("value", values_of())
    assert "value" not in dataset.test().element_spec
    assert "value" not in dataset.validation().element_spec


def test_another_batch_size_keeps_columns_and_images():
    dataset = make().with_column("value", values_of())
    other = dataset.with_batch_size(13)
    assert (dataset.batch_size, other.batch_size, other.steps_per_epoch) == (BATCH, 13, 4)
    for batch in drawn(other, 0, 4):
        assert len(batch["image"]) == 13
        np.testing.assert_array_equal(batch["value"], values_of()[batch["index"]])
    for wrong in (0, 2.0, True):
        with pytest.raises(tfkd.TfkdError, match=f"batch_size: found {wrong}"):
            dataset.with_batch_size(wrong)


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_image_files_have_columns(tmp_path, in_memory_bytes):
    for part, size in (("train", 6), ("test", 3)):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for number, image in enumerate(images_of(size)):
                encoded = tf.io.encode_png(image).numpy()
                (tmp_path / part / name / f"{number}.png").write_bytes(encoded)
    dataset = data.load(f"folder:{tmp_path}", batch_size=4, in_memory_bytes=in_memory_bytes)
    values = values_of(12)
    dataset = dataset.with_column("value", values, test=values[:6])
    for batch in drawn(dataset, 0, 6):
        np.testing.assert_array_equal(batch["value"], values[batch["index"]])
    found = np.concatenate([batch["value"] for batch in dataset.test().as_numpy_iterator()])
    np.testing.assert_array_equal(found[:6], values[:6])


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_distiller_trains_and_evaluates_on_batches_with_columns(replicas, two_replicas, tmp_path):
    dataset = make().with_column("value", mapped(values_of(), tmp_path), test=values_of(TEST))
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()

    def batches(part, **settings):
        if replicas == 1:
            return part(**settings)
        return two_replicas.distribute_datasets_from_function(
            lambda context: part(input_context=context, **settings)
        )

    with strategy.scope():
        image = keras.Input((6, 5, 3))
        student = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(image)))
        distiller = tfkd.Distiller(None, student, [])
        distiller.compile(optimizer=keras.optimizers.SGD(1e-4))
    history = distiller.fit(
        batches(dataset.train, batch_keys=["value"]),
        steps_per_epoch=STEPS,
        epochs=2,
        validation_data=batches(dataset.test),
        validation_steps=2,
        shuffle=False,
        verbose=0,
    ).history
    for key in ("loss", "val_loss", "val_accuracy"):
        assert len(history[key]) == 2 and np.isfinite(history[key]).all(), key


def test_mixed_batches_refuse_columns():
    dataset = make(mixup=0.2).with_column("value", values_of())
    with pytest.raises(tfkd.TfkdError) as caught:
        dataset.train(batch_keys=["index", "value"])
    message = str(caught.value)
    assert "\n" not in message and "found also value," in message and "data.mixup=0" in message
    assert "value" not in next(iter(dataset.train(batch_keys=["index"])))


def without_validation():
    part = images_of(SIZE), np.arange(SIZE) % 4
    return data.from_arrays(part, part, batch_size=BATCH)


@pytest.mark.parametrize(
    "call, words",
    [
        *[
            (lambda name=name: make().with_column(name, values_of()), [repr(name), "another"])
            for name in (
                *("image", "label", "index", "sample_weight", "image_pair", "image_mine"),
                *("heldout_label", "heldout_value"),
            )
        ],
        (
            lambda: make().with_column("value", values_of()).with_column("value", values_of()),
            ["'value'", "another batch entry"],
        ),
        (lambda: make().with_column("", values_of()), ["''", "text"]),
        (lambda: make().with_column(3, values_of()), ["3", "text"]),
        (
            lambda: make().with_column("value", values_of(SIZE - 1)),
            ["column 'value', train", "(51, 3)", "52 rows"],
        ),
        (
            lambda: make().with_column("value", Recorded(values_of(SIZE + 1))),
            ["column 'value', train", "(53, 3)", "52 rows"],
        ),
        (
            lambda: make().with_column("value", values_of(), test=values_of()),
            ["column 'value', test", "(52, 3)", "11 rows"],
        ),
        (
            lambda: make().with_column("value", values_of(), validation=values_of()),
            ["column 'value', validation", "9 rows"],
        ),
        (
            lambda: without_validation().with_column("v", values_of(), validation=values_of(HELD)),
            ["no validation part"],
        ),
        (lambda: make().with_column("value", 3.0), ["shape ()", "52 rows"]),
        (lambda: make().with_column("value", None), ["object", "numbers or booleans"]),
        (lambda: make().with_column("value", ["a"] * SIZE), ["<U1", "numbers or booleans"]),
        (
            lambda: make().with_column("value", np.array([None] * SIZE)),
            ["object", "numbers or booleans"],
        ),
        (lambda: make().with_column("value", [[1], [1, 2]] * 26), ["no array", "one row"]),
    ],
)
def test_a_wrong_column_is_named(call, words):
    with pytest.raises(tfkd.TfkdError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
