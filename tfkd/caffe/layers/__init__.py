"""What layers of Caffe do, one file for those that are alike."""

# These are imported for the types of layers that they register.
from tfkd.caffe.layers import activations as _activations  # noqa: F401
from tfkd.caffe.layers import batch_normalization as _batch_normalization  # noqa: F401
from tfkd.caffe.layers import convolution as _convolution  # noqa: F401
from tfkd.caffe.layers import inner_product as _inner_product  # noqa: F401
from tfkd.caffe.layers import joining as _joining  # noqa: F401
from tfkd.caffe.layers import pooling as _pooling  # noqa: F401
from tfkd.caffe.layers import reshaping as _reshaping  # noqa: F401
from tfkd.caffe.layers import response_normalization as _response_normalization  # noqa: F401
from tfkd.caffe.layers.operation import Label, Operation, Shape, operation_of, types

__all__ = ["Label", "Operation", "Shape", "operation_of", "types"]
