"""The colors of pictures: who sees fewer colors tells them apart as well."""

import itertools

import numpy as np
import pytest

from tfkd import colors

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", IEEE TVCG 2009, table of severity 1; on linear RGB.
SEEN = {
    "all": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(color, seen):
    """CIE L*a*b* of an sRGB color under D65, as somebody sees it."""
    rgb = np.asarray([int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(XYZ @ np.clip(seen @ linear, 0, 1) / [0.9505, 1.0, 1.089])
    return np.asarray([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", SEEN)
def test_any_two_colors_of_roles_are_far_apart(seen):
    of_roles = (colors.TEACHER, colors.ALONE, *colors.METHODS, colors.GRAY)
    found = [lab(color, np.asarray(SEEN[seen])) for color in of_roles]
    assert len(found) == 8
    # 2.3 is just noticeable.
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(found, 2)) > 15
