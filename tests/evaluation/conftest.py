"""A run folder as training leaves it, made by hand."""

import json

import keras
import numpy as np
import pytest

from tfkd import models
from tfkd.models.saving import save_network


@pytest.fixture
def run_folder(tmp_path):
    """A run on the digits whose best student has other weights than its last."""
    image = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(4, 3, use_bias=False)(image)
    hidden = keras.layers.ReLU()(models.BatchNormalization()(hidden))
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(hidden)))
    names = [f"digit {each}" for each in range(10)]
    preprocess = models.Preprocess((80.0,), (90.0,))
    network = models.Network(model, preprocess, name="tiny", class_names=names)
    folder = tmp_path / "run"
    save_network(network, folder)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([-kernel, bias + np.arange(10, dtype=np.float32)])
    save_network(network, folder, "best")
    settings = {"name": "digits", "validation": 100, "augment": "shift", "download": False}
    (folder / "config.json").write_text(json.dumps({"data": settings, "train": {"epochs": 1}}))
    return folder
