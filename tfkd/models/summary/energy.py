"""The energy of a network's operations, beside those of its convolutional counterpart.

The energy of an operation is that of its arithmetic alone, in 45 nm CMOS at 0.9 V. Moving numbers
costs more than computing with them, so this is a lower bound, for comparing networks.

Source of the energies: Horowitz, "Computing's Energy Problem (and what we can do about it)", ISSCC
2014, figure 1.1.9.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras

from tfkd.errors import unknown
from tfkd.models.summary.cost import cost

PICOJOULES = {
    "float32": {"multiplication": 3.7, "addition": 0.9},
    "float16": {"multiplication": 1.1, "addition": 0.4},
    "int32": {"multiplication": 3.1, "addition": 0.1},
    "int8": {"multiplication": 0.2, "addition": 0.03},
}
"""Picojoules of one operation by the format of the numbers."""


@dataclass(frozen=True)
class Operations:
    """The operations of one network for one image.

    Attributes:
        name: The network.
        multiplications: How many.
        additions: How many.
        picojoules: The energy of both.
    """

    name: str
    multiplications: int
    additions: int
    picojoules: float


@dataclass(frozen=True)
class Energy:
    """The operations of a network and of its convolutional counterpart.

    Attributes:
        number_format: The format of the numbers, a key of ``PICOJOULES``.
        network: The network's operations.
        conv_counterpart: Those of the network with a convolution for every adder layer.
    """

    number_format: str
    network: Operations
    conv_counterpart: Operations

    @property
    def ratio(self) -> float:
        """The energy of the network over that of its convolutional counterpart."""
        return self.network.picojoules / self.conv_counterpart.picojoules

    def table(self) -> str:
        """The two networks as text."""
        header = ("network", "multiplications", "additions", "microjoules", "ratio")
        cells = [header] + [
            (
                each.name,
                f"{each.multiplications:,}",
                f"{each.additions:,}",
                f"{each.picojoules / 1e6:,.1f}",
                f"{each.picojoules / self.conv_counterpart.picojoules:.2f}",
            )
            for each in (self.network, self.conv_counterpart)
        ]
        widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
        lines = [
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        ruler = "  ".join("-" * width for width in widths)
        source = f"{self.number_format} arithmetic in 45 nm, Horowitz, ISSCC 2014; one image"
        return "\n".join([lines[0], ruler, *lines[1:], source])

    def __str__(self) -> str:
        return self.table()


def energy(model: keras.Model, number_format: str = "float32") -> Energy:
    """Counts the operations of a network and of its convolutional counterpart, and their energy.

    An adder layer has two additions where the counterpart's convolution has a multiplication and an
    addition. Only convolutions, linear and adder layers count, as in ``tfkd.models.summary.cost``.

    Args:
        model: A functional model for images of one size.
        number_format: A key of ``PICOJOULES``.

    Raises:
        TfkdError: The format is unknown, or the model cannot be counted.
    """
    if number_format not in PICOJOULES:
        raise unknown("number format", number_format, PICOJOULES)
    counted = cost(model)
    macs = counted.macs + counted.adder_additions // 2
    return Energy(
        number_format,
        _operations(model.name, counted.multiplications, counted.additions, number_format),
        _operations("its convolutional counterpart", macs, macs, number_format),
    )


def _operations(name: str, multiplications: int, additions: int, number_format: str) -> Operations:
    each = PICOJOULES[number_format]
    spent = multiplications * each["multiplication"] + additions * each["addition"]
    return Operations(name, multiplications, additions, spent)
