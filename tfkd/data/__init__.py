"""Data sets: ``tf.data`` batches, which are dicts, from the name of a set or from arrays.

    data = tfkd.data.load("cifar10", batch_size=64, seed=0)
    for batch in data.train(first_step=0, last_step=data.steps_per_epoch):
        batch["image"], batch["label"]

A training batch is a pure function of (seed, global step): a run can be resumed at any step.
"""

from tfkd.data.arrays import from_arrays
from tfkd.data.dataset import DataInfo, DataSet, same_images
from tfkd.data.decoding import CENTER, CROPS
from tfkd.data.loading import IN_MEMORY_BYTES, crop_of, files, images_digest, load
from tfkd.data.one_by_one import explain
from tfkd.data.survey import SeveralSizes

__all__ = [
    "CENTER",
    "CROPS",
    "IN_MEMORY_BYTES",
    "DataInfo",
    "DataSet",
    "SeveralSizes",
    "crop_of",
    "explain",
    "files",
    "from_arrays",
    "images_digest",
    "load",
    "same_images",
]
