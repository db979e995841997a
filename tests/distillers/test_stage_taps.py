"""Stages by name, and which of two networks belong together."""

import pytest

from tests.distillers.pair_features import network_with
from tfkd import models
from tfkd.distillers.shared.stage_taps import check_tap, paired_stages
from tfkd.errors import TfkdError

THREE = ("stage1", "stage2", "stage3")


@pytest.mark.parametrize(
    ("own", "theirs", "wanted"),
    [
        (THREE, THREE, [("stage1", "stage1"), ("stage2", "stage2"), ("stage3", "stage3")]),
        (THREE, ("stage1", "stage2"), [("stage2", "stage1"), ("stage3", "stage2")]),
        (("stage1",), THREE, [("stage1", "stage3")]),
        (("stem", "stage9", "stage10"), ("stage1", "body"), [("stage10", "stage1")]),
    ],
)
def test_stages_are_paired_from_the_deepest_on(own, theirs, wanted):
    assert paired_stages(network_with(*own), network_with(*theirs), "m") == wanted


def test_named_taps_take_the_place_of_stages():
    own, theirs = network_with("early", *THREE), network_with(*THREE)
    found = paired_stages(own, theirs, "m", student_taps=("early", "stage3"))
    assert found == [("early", "stage2"), ("stage3", "stage3")]
    found = paired_stages(own, theirs, "m", ("stage1",), ("stage2",))
    assert found == [("stage1", "stage2")]


def test_names_that_a_network_gives_count():
    own = network_with("early", "late")
    own = models.Network(own.model, taps={"stage1": "early", "stage2": "late"})
    assert paired_stages(own, network_with("stage1"), "m") == [("stage2", "stage1")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"student_taps": ("early", *THREE)}, "m: found the taps early, stage1, stage2, stage3 of"),
        ({"teacher_taps": ("a", "b", "c", "d")}, "and a, b, c, d of the teacher, wanted equally"),
        ({"student_taps": THREE, "teacher_taps": THREE[:2]}, "wanted equally many"),
        ({"student_taps": THREE[:2], "teacher_taps": THREE}, "wanted equally many"),
    ],
)
def test_named_taps_without_a_partner_are_refused(given, message):
    with pytest.raises(TfkdError, match=message):
        paired_stages(network_with(*THREE), network_with(*THREE), "m", **given)


@pytest.mark.parametrize("lacking", [0, 1])
def test_network_without_stages_is_refused(lacking):
    networks = [network_with(*THREE), network_with(*THREE)]
    networks[lacking] = network_with("early")
    with pytest.raises(TfkdError, match="m: found no taps called stage1, stage2, ... in network"):
        paired_stages(*networks, "m")


def test_missing_tap_is_refused_with_the_nearest_and_the_setting():
    network = network_with("stage1", "stage2")
    check_tap(network, "stage2", "m", "tap")
    check_tap(network, "stage2:1", "m", "tap")
    check_tap(models.Network(network.model, taps={"hint": "stage1"}), "hint", "m", "tap")
    message = "m: found no tap 'stage3' in network '.*'; did you mean 'stage.'.; wanted tap=NAME of"
    with pytest.raises(TfkdError, match=message):
        check_tap(network, "stage3", "m", "tap")
