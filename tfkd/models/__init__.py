"""The networks, and what can be done with any Keras model: taps, heads, copies, costs.

For example:

    student = tfkd.models.create("resnet20", num_classes=100)
    features = tfkd.models.tapped(student, ["stage1", "pooled", "logits"])
    print(tfkd.models.cost(student))
"""

# These are imported for what they register: counting rules and networks.
from tfkd.models import cost_rules as _cost_rules  # noqa: F401
from tfkd.models import mobilenetv1 as _mobilenetv1  # noqa: F401
from tfkd.models import mobilenetv2 as _mobilenetv2  # noqa: F401
from tfkd.models import resnet as _resnet  # noqa: F401
from tfkd.models import resnet_imagenet as _resnet_imagenet  # noqa: F401
from tfkd.models import shufflev1 as _shufflev1  # noqa: F401
from tfkd.models import shufflev2 as _shufflev2  # noqa: F401
from tfkd.models import vgg as _vgg  # noqa: F401
from tfkd.models import vgg_small as _vgg_small  # noqa: F401
from tfkd.models import wrn as _wrn  # noqa: F401
from tfkd.models.batch_normalization import BatchNormalization
from tfkd.models.cost import Cost, LayerCost, Work, cost, rule
from tfkd.models.folding import fold
from tfkd.models.graph import is_functional
from tfkd.models.network import Network, as_network
from tfkd.models.preprocess import Preprocess
from tfkd.models.registry import check_name, create, names, register
from tfkd.models.stock import stock, stock_layer
from tfkd.models.taps import head, tap_names, tap_shapes, tapped

__all__ = [
    "BatchNormalization",
    "Cost",
    "LayerCost",
    "Network",
    "Preprocess",
    "Work",
    "as_network",
    "check_name",
    "cost",
    "create",
    "fold",
    "head",
    "is_functional",
    "names",
    "register",
    "rule",
    "stock",
    "stock_layer",
    "tap_names",
    "tap_shapes",
    "tapped",
]
