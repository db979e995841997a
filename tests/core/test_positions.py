"""Images that are not where a batch says, and labels that are not those of the training set."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd


class Rows(tfkd.Objective):
    """Writes the label of each image into its row of a memory."""

    requires = tfkd.Requires(
        taps={("student", "main"): ["logits"]}, index=True, train_size=True, train_labels=True
    )

    def setup(self, spec):
        self.known = spec.train_labels
        self.rows = self.add_weight(
            shape=(spec.train_size,),
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )

    def compute(self, context):
        read = tf.gather(self.rows.value, context.index)
        loss = context.mean(tf.square(context.student_logits) + 0.0 * read[:, None])
        return tfkd.Terms({self.name: loss}, {"read": read})

    def after_step(self, context, carry):
        rows = context.gather(tf.cast(context.index, tf.int32))
        found = tf.IndexedSlices(context.gather(carry["read"]) + 1.0, rows)
        self.rows.value.scatter_update(found)


def distiller_of(network, labels, **settings):
    made = tfkd.Distiller(
        None, network(norm=False), Rows(), **{"train_size": 16, "train_labels": labels, **settings}
    )
    made.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels[:12], "found 12, wanted 16, one for each training image"),
        (lambda labels: np.eye(4)[labels], r"found float64 of shape \(16, 4\), wanted a class num"),
        (lambda labels: labels + 0.5, r"found float64 of shape \(16,\), wanted a class number"),
    ],
    ids=["few", "dense", "halves"],
)
def test_labels_of_another_form_or_number_are_refused(network, labels, change, message):
    with pytest.raises(tfkd.TfkdError, match=f"^train_labels for rows: {message}"):
        distiller_of(network, change(labels))


def test_labels_in_a_column_are_taken(network, labels):
    distiller = distiller_of(network, labels[:, None].tolist())
    np.testing.assert_array_equal(distiller.objectives[0].known, labels)
    with pytest.raises(tfkd.TfkdError, match=r"index of type float32 and shape \(16, 1\), wanted"):
        index = np.arange(16, dtype="float32")[:, None]
        distiller.train_on_batch(
            {"image": np.zeros((16, 8, 8, 3)), "label": labels, "index": index}
        )


def batches(images, labels, index, **further):
    data = {"image": images, "label": labels, "index": index, **further}
    return tf.data.Dataset.from_tensor_slices(data).batch(8)


BEYOND = "^index: found 2 image.s. of a batch beyond the training set, wanted 0 to 15"
OTHERS = "^index: found 3 image.s. of a batch with another label than train_labels has"


# Of four classes in turn, the next one is another.
@pytest.mark.parametrize(
    ("replicas", "rows", "change", "message"),
    [
        (1, [9, 10], 16, BEYOND),
        (1, [9, 10], -16, BEYOND),
        (1, [8, 9, 10], 1, OTHERS),
        (2, [9, 14], 16, BEYOND),
        (2, [8, 9, 14], 1, OTHERS),
    ],
)
def test_training_stops_at_images_that_are_not_there(
    distiller_on, network, images, labels, replicas, rows, change, message
):
    distiller = distiller_on(
        replicas,
        None,
        lambda: network(norm=False),
        lambda: [Rows()],
        compile_settings={"run_eagerly": replicas == 1},
        train_size=16,
        train_labels=labels,
    )
    index = np.arange(16, dtype="int32")
    index[rows] += change
    [objective] = distiller.objectives
    data = batches(images, labels, index)
    with pytest.raises(tfkd.TfkdError, match=message + ".*at step 1$"):
        distiller.fit(data.repeat(2), epochs=1, steps_per_epoch=4, verbose=0)
    # What the batch before it wrote is there, and nothing was made after it.
    np.testing.assert_array_equal(objective.rows[:8], 1.0)
    assert distiller.step == 2
    if replicas == 1:
        [_, wrong] = data.as_numpy_iterator()
        distiller.watch.reset()
        with pytest.raises(tfkd.TfkdError, match=message):
            distiller.train_on_batch(wrong)
        np.testing.assert_array_equal(objective.rows[8:], 0.0)


def test_rows_of_weight_0_may_have_any_label(network, images, labels):
    distiller = distiller_of(network, labels)
    others, weights = labels.copy(), np.ones(16, "float32")
    others[12:], weights[12:] = (others[12:] + 1) % 4, 0.0
    index = np.arange(16, dtype="int64")
    distiller.fit(batches(images, others, index, sample_weight=weights), verbose=0)
    assert distiller.step == 2
