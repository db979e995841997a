"""Methods by name."""

import pytest

import tfkd
from tfkd import distillers


def test_method_is_made_with_its_settings():
    assert {"kd", "plain"} <= set(distillers.names())
    made = distillers.create("kd", temperature=2.0, name="soft")
    assert isinstance(made, distillers.KD)
    assert (made.temperature, made.name) == (2.0, "soft")


def test_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(tfkd.TfkdError, match="unknown method 'kdd'; did you mean 'kd'"):
        distillers.create("kdd")


def test_name_is_given_once():
    class Other:
        pass

    with pytest.raises(tfkd.TfkdError, match="'kd' is registered twice"):
        tfkd.register("kd")(Other)
