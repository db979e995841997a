"""The adder layer: convolution by additions only (Chen et al., CVPR 2020), at its speed."""

from tfkd.adder.function import adder_convolution, plain_operations
from tfkd.adder.layer import AdderConv2D

__all__ = ["AdderConv2D", "adder_convolution", "plain_operations"]
