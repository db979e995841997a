"""Networks of Caffe, read from their files without Caffe, as Keras models.

For example:

    imported = tfkd.caffe.load("deploy.prototxt", "net.caffemodel", mean=(104, 117, 123))
    logits = imported.network(pixels)  # uint8 (batch, height, width, 3), red, green, blue
"""

from tfkd.caffe.caffemodel import read_weights
from tfkd.caffe.errors import CaffeFormatError
from tfkd.caffe.importing import Imported, import_network, load, table
from tfkd.caffe.prototxt import read_prototxt

__all__ = [
    "CaffeFormatError",
    "Imported",
    "import_network",
    "load",
    "read_prototxt",
    "read_weights",
    "table",
]
