"""Schedules against rates computed by hand, at and around every change, in eager and in graph."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd.errors import TfkdError, TfkdWarning
from tfkd.training import schedules


def make(settings, *, base_rate=0.05, steps_per_epoch=10, epochs=240):
    return schedules.create(
        settings, base_rate=base_rate, steps_per_epoch=steps_per_epoch, epochs=epochs
    )


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_step_changes_with_the_first_step_of_the_milestone_epoch():
    schedule = make(
        {"name": "step", "milestones": (150, 180, 210), "decay_factor": 0.1}, steps_per_epoch=781
    )
    for epoch, factor in (
        (0, 1.0),
        (149, 1.0),
        (150, 0.1),
        (179, 0.1),
        (180, 0.01),
        (209, 0.01),
        (210, 0.001),
        (239, 0.001),
    ):
        for step in (epoch * 781, epoch * 781 + 780):
            assert np.float32(schedule(step)) == np.float32(0.05 * factor), (epoch, step)


def test_step_agrees_with_a_loop_that_multiplies_at_milestones():
    schedule = make(
        {"name": "step", "milestones": [2, 3.5, 7], "decay_factor": 0.2}, steps_per_epoch=4
    )
    rate, expected = 0.05, []
    for step in range(40):
        if step in (8, 14, 28):
            rate *= 0.2
        expected.append(rate)
    np.testing.assert_allclose(rates(schedule, range(40)), expected, rtol=2e-7)


def test_fractional_milestone_is_not_moved_by_rounding():
    assert 0.07 * 100 > 7  # In floating point.
    schedule = make({"name": "step", "milestones": (0.07,)}, steps_per_epoch=100)
    assert rates(schedule, (6, 7)) == pytest.approx([0.05, 0.005], rel=1e-6)
    # Between two steps, the later one is the first that does not lie before the milestone.
    schedule = make({"name": "step", "milestones": (0.25,)}, steps_per_epoch=30)
    assert rates(schedule, (7, 8)) == pytest.approx([0.05, 0.005], rel=1e-6)


def test_step_without_milestones_and_constant_hold_the_base_rate():
    for name in ("step", "constant"):
        assert rates(make({"name": name}), (0, 1, 10**7)) == [np.float32(0.05)] * 3


def test_cosine_moves_by_epoch_as_the_published_loops_do():
    schedule = make({"name": "cosine"}, base_rate=0.1, steps_per_epoch=7, epochs=20)
    for step in range(20 * 7):
        expected = 0.05 * (1 + math.cos(math.pi * (step // 7) / 20))
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)
    assert rates(schedule, (140, 10**6)) == [0.0, 0.0]


def test_cosine_per_step_ends_at_the_final_rate():
    schedule = make(
        {"name": "cosine", "per_step": True, "final_rate": 0.01},
        base_rate=0.1,
        steps_per_epoch=7,
        epochs=2.5,
    )
    for step in (0, 1, 8, 16, 17):
        expected = 0.01 + 0.045 * (1 + math.cos(math.pi * step / 17.5))
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)
    assert float(schedule(18)) == pytest.approx(0.01, rel=1e-6)


def test_cosine_per_step_keeps_precision_late_in_a_long_run():
    steps = 50_000_001  # Above 2^24, where float32 steps no longer differ by one.
    schedule = make(
        {"name": "cosine", "per_step": True}, base_rate=1.0, steps_per_epoch=steps, epochs=1
    )
    for left in (3001, 3002, 3003):
        expected = (1 + math.cos(math.pi * (steps - left) / steps)) / 2
        assert float(schedule(steps - left)) == pytest.approx(expected, rel=1e-5, abs=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "constant"},
        {"name": "step", "milestones": (6,)},
        {"name": "cosine", "per_step": True},
    ],
)
def test_warmup_rises_in_a_line_and_meets_the_schedule(settings):
    schedule = make(
        {**settings, "warmup_epochs": 1.5, "warmup_factor": 0.2},
        base_rate=0.1,
        steps_per_epoch=10,
        epochs=9,
    )
    expected = [0.1 * (0.2 + 0.8 * step / 15) for step in range(15)]
    np.testing.assert_allclose(rates(schedule, range(15)), expected, rtol=1e-6)
    assert float(schedule(15)) == pytest.approx(0.1, rel=1e-6)


def test_cosine_after_warmup_spans_the_remaining_epochs():
    schedule = make(
        {"name": "cosine", "warmup_epochs": 2, "final_rate": 0.02},
        base_rate=0.1,
        steps_per_epoch=5,
        epochs=10,
    )
    for epoch in range(2, 10):
        expected = 0.02 + 0.04 * (1 + math.cos(math.pi * (epoch - 2) / 8))
        assert float(schedule(epoch * 5)) == pytest.approx(expected, rel=1e-6)
    assert float(schedule(50)) == pytest.approx(0.02, rel=1e-6)


def test_rate_is_computed_in_the_graph_from_the_step():
    schedule = make({"name": "step", "milestones": (1, 2), "warmup_epochs": 0.5})
    traces = []

    @tf.function
    def rate(step):
        traces.append(step)
        return schedule(step)

    found = [float(rate(tf.constant(step, tf.int64))) for step in range(25)]
    assert found == rates(schedule, range(25))
    assert len(set(found)) > 5
    assert len(traces) == 1


def test_an_optimizer_follows_the_schedule_from_its_own_step():
    variable = keras.Variable(0.0)
    optimizer = keras.optimizers.SGD(
        make({"name": "step", "milestones": (1,)}, base_rate=1.0, steps_per_epoch=3)
    )
    for _ in range(5):
        optimizer.apply_gradients([(tf.constant(-1.0), variable)])
    assert float(variable.numpy()) == pytest.approx(3 * 1.0 + 2 * 0.1, rel=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "constant", "warmup_epochs": 1},
        {
            "name": "step",
            "milestones": (2, 3),
            "decay_factor": 0.2,
            "warmup_epochs": 0.5,
            "warmup_factor": 0.3,
        },
        {"name": "cosine", "per_step": True, "final_rate": 0.01, "warmup_epochs": 1},
    ],
)
def test_round_trip_through_the_serialized_form(settings):
    schedule = make(settings, epochs=5)
    twin = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert type(twin) is type(schedule)
    assert twin.get_config() == schedule.get_config()
    assert rates(twin, range(0, 60, 3)) == rates(schedule, range(0, 60, 3))


def test_fields_of_another_schedule_are_set_aside():
    with pytest.warns(TfkdWarning, match="'cosine' makes no use of milestones"):
        schedule = make({"name": "cosine", "milestones": (150,), "decay_factor": 0.1}, epochs=2)
    assert float(schedule(10)) == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "cosin"}, "unknown name of schedule 'cosin'; did you mean 'cosine'"),
        (
            {"name": "step", "milestone": (1,)},
            "unknown setting of schedule 'milestone'; did you mean 'milestones'",
        ),
        ({"name": None}, "schedule: name: found None, wanted 'constant' or 'step' or 'cosine'"),
        ("step", "schedule: found 'step', wanted a dict of settings"),
        (
            {"name": "step", "milestones": (3, 2)},
            r"milestones: found \[3.0, 2.0\], wanted increasing",
        ),
        (
            {"name": "step", "milestones": "150"},
            "milestones: found '150', wanted a list of numbers",
        ),
        ({"name": "step", "milestones": (-1,)}, r"milestones: found \(-1,\), .* numbers >= 0"),
        ({"name": "step", "decay_factor": 0}, "decay_factor: found 0, wanted a number > 0"),
        ({"name": "constant", "warmup_epochs": float("nan")}, "warmup_epochs: found nan, wanted"),
        ({"name": "constant", "warmup_factor": 2}, "warmup_factor: found 2, .* from 0 to 1"),
        (
            {"name": "cosine", "warmup_epochs": 240},
            "warmup_epochs is 240 of 240 epochs; wanted fewer",
        ),
        ({"name": "cosine", "per_step": 1}, "per_step: found 1, wanted True or False"),
        (
            {"name": "cosine", "final_rate": 0.06},
            "final_rate: found 0.06, wanted .* from 0 to 0.05",
        ),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(TfkdError, match=message) as caught:
        make(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"base_rate": 0}, "base_rate: found 0, wanted a number > 0"),
        ({"base_rate": "0.1"}, "base_rate: found '0.1', wanted a number > 0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch: found 0, wanted a whole number >= 1"),
        ({"steps_per_epoch": 2.5}, "steps_per_epoch: found 2.5, wanted a whole number"),
        ({"epochs": 0}, "epochs: found 0, wanted a number > 0"),
    ],
)
def test_wrong_run_lengths_are_named(changed, message):
    with pytest.raises(TfkdError, match=message):
        make({"name": "cosine"}, **changed)
