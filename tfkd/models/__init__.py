"""The networks, and what can be done with any Keras model: taps, heads, copies, costs.

For example:

    student = tfkd.models.create("resnet20", num_classes=100)
    features = tfkd.models.tapped(student, ["stage1", "pooled", "logits"])
    print(tfkd.models.cost(student))
"""

# These are imported for what they register: counting rules and networks.
from tfkd.models.class_names import read_class_names
from tfkd.models.families import blockwise as _blockwise  # noqa: F401
from tfkd.models.families import mobilenetv1 as _mobilenetv1  # noqa: F401
from tfkd.models.families import mobilenetv2 as _mobilenetv2  # noqa: F401
from tfkd.models.families import msdnet as _msdnet  # noqa: F401
from tfkd.models.families import multi_exit as _multi_exit  # noqa: F401
from tfkd.models.families import resnet as _resnet  # noqa: F401
from tfkd.models.families import resnet_imagenet as _resnet_imagenet  # noqa: F401
from tfkd.models.families import shufflev1 as _shufflev1  # noqa: F401
from tfkd.models.families import shufflev2 as _shufflev2  # noqa: F401
from tfkd.models.families import vgg as _vgg  # noqa: F401
from tfkd.models.families import vgg_small as _vgg_small  # noqa: F401
from tfkd.models.families import wrn as _wrn  # noqa: F401
from tfkd.models.graph.calls import is_functional
from tfkd.models.graph.cuts import Block, blocks
from tfkd.models.graph.equilibrium import equilibrium
from tfkd.models.graph.folding import fold
from tfkd.models.graph.inspection import OwnNormalization, own_normalization
from tfkd.models.graph.keras_layers import stock, stock_layer
from tfkd.models.graph.multi_exit import multi_exit
from tfkd.models.graph.narrowing import blockwise
from tfkd.models.graph.outputs import exits, outputs
from tfkd.models.graph.segments import chain, segment
from tfkd.models.graph.taps import head, tap_names, tap_shapes, tapped
from tfkd.models.layers.batch_normalization import BatchNormalization
from tfkd.models.network import Network, as_network
from tfkd.models.preprocess import Preprocess
from tfkd.models.registry import check_name, create, names, published_shape, register
from tfkd.models.saving import load_network, load_network_file
from tfkd.models.summary import cost_rules as _cost_rules  # noqa: F401
from tfkd.models.summary.cost import Cost, LayerCost, Work, cost, rule
from tfkd.models.summary.exit_costs import exit_costs

__all__ = [
    "BatchNormalization",
    "Block",
    "Cost",
    "LayerCost",
    "Network",
    "OwnNormalization",
    "Preprocess",
    "Work",
    "as_network",
    "blocks",
    "blockwise",
    "chain",
    "check_name",
    "cost",
    "create",
    "equilibrium",
    "exit_costs",
    "exits",
    "fold",
    "head",
    "is_functional",
    "load_network",
    "load_network_file",
    "multi_exit",
    "names",
    "outputs",
    "own_normalization",
    "published_shape",
    "read_class_names",
    "register",
    "rule",
    "segment",
    "stock",
    "stock_layer",
    "tap_names",
    "tap_shapes",
    "tapped",
]
