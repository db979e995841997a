"""What every test shares: two logical CPUs, set before TensorFlow starts, so that replicas can be tested."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True)
def fixed_seed():
    """Starts every test from the same random state."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def two_replicas():
    """A mirrored strategy over two logical CPUs."""
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
