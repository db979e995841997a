"""How messages are made: the nearest name, and the reason of another error."""

import pytest

from tfkd import TfkdError
from tfkd.errors import did_you_mean, reason, unknown


def test_an_unknown_name_is_told_with_the_nearest_and_all_known_ones():
    error = unknown("network", "resnet9", {"vgg8": 0, "resnet8": 1})
    assert isinstance(error, TfkdError)
    assert str(error) == (
        "unknown network 'resnet9'; did you mean 'resnet8'? (known: resnet8, vgg8)"
    )


def test_an_unknown_name_far_from_all_is_told_without_a_guess():
    assert str(unknown("network", "x", ["vgg8"])) == "unknown network 'x' (known: vgg8)"
    assert str(unknown("network", "x", [])) == "unknown network 'x' (known: none)"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", "; did you mean 'temperature'?"),
        ("weight", "; did you mean 'weights'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_offered(name, hint):
    assert did_you_mean(name, iter(["weights", "temperature", "tap"])) == hint


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one line"), "one line"),
        (ValueError("\n  first\nsecond"), "first"),
        (ValueError("first\r\nsecond"), "first"),
        (ValueError(), "ValueError"),
        (EOFError(" \n "), "EOFError"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_the_reason_is_the_first_line_or_the_type(error, expected):
    assert reason(error) == expected
