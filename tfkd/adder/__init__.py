"""The adder layer: convolution by additions only (Chen et al., CVPR 2020), compiled.

For example:

    layer = tfkd.adder.AdderConv2D(64, 3)
    network = tfkd.models.create("resnet20", num_classes=10, adder=True)
    adder_network = tfkd.adder.convert(any_functional_convolutional_model)
    print(tfkd.adder.energy(adder_network))
"""

import importlib

from tfkd.adder.compiled_ops import operations as compiled_operations
from tfkd.adder.function import adder_convolution, plain_operations
from tfkd.adder.layer import AdderConv2D, has_adder_layers
from tfkd.adder.loading import load

__all__ = [
    "AdderConv2D",
    "adder_convolution",
    "check_normalized",
    "compiled_operations",
    "convert",
    "energy",
    "has_adder_layers",
    "load",
    "plain_operations",
]

# Functions of whole networks live in ``tfkd.models``, which imports this package: they are imported
# at their first use, so that imports run one way.
_OF_NETWORKS = {
    "check_normalized": "tfkd.models.graph.adder_conversion",
    "convert": "tfkd.models.graph.adder_conversion",
    "energy": "tfkd.models.summary.energy",
}


def __getattr__(name: str):
    if name not in _OF_NETWORKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_OF_NETWORKS[name]), name)
