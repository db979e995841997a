"""The state of a distiller: every variable is in it, and a run goes on from it to the last bit."""

import contextlib
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD

STEPS = 4  # of an epoch: 16 images in batches of 4


class Everything(tfkd.Objective):
    """A connector with dropout, a bank written by position, and a moving-average twin."""

    requires = tfkd.Requires(
        taps={
            ("student", "main"): ["pooled", "logits"],
            ("teacher", "main"): ["pooled"],
            ("twin", "main"): ["logits"],
        },
        index=True,
        train_size=True,
    )
    terms = ("hint", "bank", "twin")

    def setup(self, spec):
        narrow = spec.shapes[("student", "main")]["pooled"][-1]
        wide = spec.shapes[("teacher", "main")]["pooled"][-1]
        self.connect = keras.Sequential(
            [
                keras.Input((narrow,)),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(wide),
                keras.layers.BatchNormalization(),
            ]
        )
        self.bank = self.add_weight(
            shape=(spec.train_size, spec.num_classes),
            initializer="zeros",
            trainable=False,
            name="bank",
            aggregation="only_first_replica",
        )
        twin = keras.models.clone_model(spec.network("student").model)
        twin.set_weights(spec.network("student").model.get_weights())
        self.pairs = list(
            zip(twin.trainable_variables, spec.network("student").model.trainable_variables)
        )
        self.companions["twin"] = tfkd.core.Companion(twin)

    def before_step(self, context):
        for slow, fast in self.pairs:
            slow.assign(0.9 * slow + 0.1 * fast)

    def compute(self, context):
        student = context.student()
        hint = self.connect(context.student("pooled"), training=context.training)
        past = tf.gather(self.bank, context.index)
        losses = {
            "hint": context.mean(tf.square(hint - context.teacher("pooled"))),
            "bank": context.mean(tf.square(student - past)),
            "twin": context.mean(tf.square(student - context.output("twin"))),
        }
        return tfkd.Terms(losses, {"logits": tf.stop_gradient(student)})

    def after_step(self, context, carry):
        rows = context.gather(context.index)[:, None]
        self.bank.assign(
            tf.tensor_scatter_nd_update(self.bank, rows, context.gather(carry["logits"]))
        )


def make(network, seed, teacher):
    keras.utils.set_random_seed(seed)
    losses = [KD(), Everything()]
    distiller = tfkd.Distiller(teacher, network(dropout=0.5), losses, train_size=16)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 2 * STEPS)
    distiller.compile(keras.optimizers.SGD(schedule, momentum=0.9, use_ema=True))
    return distiller


def dataset(images, labels, first_step=0):
    batch = {"image": images, "label": labels, "index": np.arange(16, dtype="int32")}
    whole = tf.data.Dataset.from_tensor_slices(batch).batch(4).repeat()
    return whole.skip(first_step)


class Limit(keras.callbacks.Callback):
    """Ends every epoch at its own last step, and gives the first one sums to begin with."""

    def __init__(self, sums=()):
        super().__init__()
        self.sums = dict(sums)

    def on_epoch_begin(self, epoch, logs=None):
        self.model.limit_steps((epoch + 1) * STEPS)
        for name, value in self.sums.items():
            self.model.state()[name].assign(value)
        self.sums = {}


def fit(distiller, data, callbacks, **settings):
    return distiller.fit(
        data, steps_per_epoch=STEPS, epochs=2, verbose=0, callbacks=callbacks, **settings
    ).history


@contextlib.contextmanager
def created_variables():
    """Lists what is made within, as weak references."""
    found = []

    def note(creator, **settings):
        variable = creator(**settings)
        found.append(weakref.ref(variable))
        return variable

    with tf.variable_creator_scope(note):
        yield found


def test_every_variable_is_in_the_state(network, images, labels):
    teacher = network(6, name="teacher", dropout=0.5)
    with created_variables() as made:
        distiller = make(network, 0, teacher)
        metric = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
        distiller.compile(distiller.optimizer, weighted_metrics=[metric])
        listed = set(distiller.state())
        validation = dataset(images, labels).take(4)
        fit(distiller, dataset(images, labels), [], validation_data=validation)
    gc.collect()
    alive = {id(ref()): ref() for ref in made if ref() is not None}
    state = distiller.state()
    # All of it is there before the first step, so that a checkpoint can be read into it.
    assert set(state) == listed
    kept = {id(variable.value) for variable in state.values()}
    frozen = {id(v.value) for teacher in distiller.teachers for v in teacher.variables}
    control = {id(distiller.clock.step_limit.value)}
    watch = distiller.watch
    watched = (watch.step, watch.epoch, watch.term, watch.images)
    control |= {id(variable.value) for variable in watched}
    # Left out is what the frozen teacher is, what a checkpoint must not bring back, the sums of an
    # evaluation, which begins with its own, and the mean loss that Keras makes in ``compile`` and
    # that nothing here writes.
    missing = [each for key, each in alive.items() if key not in kept | frozen | control]
    of_evaluation = {f"test_losses/{part}:0" for part in ("totals", "samples", "weights_sum")}
    usual = {"loss/total:0", "loss/count:0", *of_evaluation}
    assert {each.name for each in missing} <= usual
    assert not any(each.numpy() for each in missing if each.name not in of_evaluation)
    assert kept <= set(alive)
    assert not kept & frozen
    roles = {name.split("/")[0] for name in state}
    assert roles == {
        "student", "objective:1:everything", "companion:twin", "optimizer", "metrics", "distiller",
    }  # fmt: skip
    seeds = [name for name, each in state.items() if each.name == "seed_generator_state"]
    assert {name.split("/")[0] for name in seeds} == roles - {"optimizer", "metrics", "distiller"}


@pytest.mark.parametrize("stop", [4, 5])
def test_a_run_goes_on_to_the_last_bit(stop, network, images, labels):
    class Snapshot(keras.callbacks.Callback):
        """Keeps all of the state after one step."""

        def on_train_batch_end(self, batch, logs=None):
            if self.model.step == stop:
                self.taken = {name: np.array(v) for name, v in self.model.state().items()}

    teacher, snapshot = network(6, name="teacher", dropout=0.5), Snapshot()
    whole = make(network, 0, teacher)
    expected = fit(whole, dataset(images, labels), [Limit(), snapshot])
    continued = make(network, 7, teacher)
    for role in ("student", "objective:1:everything", "companion:twin"):
        names = [name for name in continued.state() if name.startswith(role)]
        assert any(
            np.any(np.array(continued.state()[name]) != snapshot.taken[name]) for name in names
        )
    for name, variable in continued.state().items():
        variable.assign(snapshot.taken.pop(name))
    assert not snapshot.taken
    middle = stop % STEPS
    sums = {n: np.array(v) for n, v in continued.state().items() if n.startswith("metrics")}
    found = fit(
        continued,
        dataset(images, labels, stop),
        [Limit(sums if middle else ())],
        initial_epoch=stop // STEPS,
    )
    for name, values in expected.items():
        assert found[name] == values[stop // STEPS :], name
    for (name, one), other in zip(whole.state().items(), continued.state().values()):
        np.testing.assert_array_equal(one, other, err_msg=name)


def test_state_of_two_replicas_is_that_of_one(distiller_on, network, images, labels):
    names = []
    for replicas in (1, 2):
        distiller = distiller_on(
            replicas,
            lambda: network(6, name="teacher"),
            network,
            lambda: [KD(), Everything()],
            train_size=16,
        )
        names.append([(name, tuple(v.shape)) for name, v in distiller.state().items()])
    assert names[0] == names[1]
