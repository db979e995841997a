"""What every test shares: two logical CPUs, set before TensorFlow starts, for replicas."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests run in a process a core; more threads would only wait for each other.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import pytest
import tensorflow as tf

from tfkd.training import strategy

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


# Tracing makes objects by the million, of which few are garbage.
gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def fixed_seed():
    """Starts every test from the same random state."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def tidy_memory():
    """Drops the graphs of a file's tests after it: thousands take Python minutes to free."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def two_replicas():
    """The mirrored strategy over the two logical CPUs; a process can only have one."""
    return strategy.create("mirrored")
