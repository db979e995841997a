"""An experiment whose teacher trains beside the student, on a network of one residual block."""

import keras

from tfkd import models
from tfkd.training.config import default, method


@models.register("one_block")
def one_block(num_classes, input_shape, name, width=4):
    """A stem and one residual block; smooth, so that rounding turns nothing on or off."""
    image = keras.Input(input_shape, name="image")
    hidden = keras.layers.Conv2D(width, 3, 2, "same", activation="silu", name="stem")(image)
    features = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name="conv")(hidden)
    features = models.BatchNormalization(name="bn")(features)
    hidden = keras.layers.Add(name="pre_pool")([hidden, features])
    pooled = keras.layers.Flatten(name="pooled")(hidden)
    return keras.Model(image, keras.layers.Dense(num_classes, name="logits")(pooled), name=name)


def get_config(argument: str = "joint"):
    """Returns the experiment."""
    config = default()
    config.experiment = argument
    config.data.name = "digits"
    config.student.name = "one_block"
    config.teacher.name = "one_block"
    config.distiller = (method("pkkd"),)
    config.train.epochs = 2
    config.train.batch_size = 200
    config.train.optimizer.decay_exclude = ("*/log_tau",)
    config.train.schedule.name = "cosine"
    config.train.verbose = 0
    return config
