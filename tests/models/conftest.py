import pytest
import tensorflow as tf


@pytest.fixture(scope="session")
def two_replicas():
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
