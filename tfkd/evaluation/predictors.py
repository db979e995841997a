"""Anything that classifies, as one function from raw pixels to logits."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from tfkd import adder, models
from tfkd.core.divergences import mean_of_probabilities
from tfkd.errors import TfkdError, reason, unknown
from tfkd.export import describe

Predict = Callable[[tf.Tensor], tf.Tensor]


def predictor(network: models.Network | keras.Model) -> Predict:
    """Returns a network as a function of raw pixels, its preprocessing included.

    Args:
        network: A network, or a model that takes pixels as they are.

    Returns:
        A ``tf.function``: images (batch, height, width, channels) of any dtype, pixels 0..255, to
        float32 logits (batch, classes), in inference mode.
    """
    network = models.as_network(network)

    def predict(images: tf.Tensor) -> tf.Tensor:
        logits = network.model(network.preprocess(images), training=False)
        return tf.cast(logits, tf.float32)

    return as_graph(predict)


def ensemble(networks: Sequence[models.Network | keras.Model]) -> Predict:
    """Returns several networks as one function of raw pixels: the mean of their probabilities.

    Args:
        networks: One or more, as :func:`predictor` takes them.

    Returns:
        A function like that of :func:`predictor`, of the one network or, of several, of the
        logarithm of the mean of their probabilities.
    """
    members = [predictor(network) for network in networks]
    if len(members) == 1:
        return members[0]
    return as_graph(lambda images: mean_of_probabilities([each(images) for each in members]))


def as_graph(function: Callable) -> Callable:
    """Returns a plain function as a ``tf.function``."""
    # TensorFlow warns of retracing when functions of the same code are traced one after the other,
    # as those of several networks are. A partial object has no code of its own to be counted by.
    return tf.function(functools.partial(function), reduce_retracing=True)


def saved_model_predictor(path: str | os.PathLike, signature: str = "serving_default") -> Predict:
    """Returns a SavedModel as a function of raw pixels.

    An export of tfkd fits as it is. Another SavedModel fits if its signature takes one image tensor
    of raw pixels and returns one output, or several of which one is called ``logits``.

    Args:
        path: The folder of the SavedModel.
        signature: The signature to call.

    Returns:
        A function: images (batch, height, width, channels), pixels 0..255, cast to the dtype that
        the signature wants, to float32 logits (batch, classes).

    Raises:
        TfkdError: When the folder is not a SavedModel, is damaged, or has no such signature.
    """
    if not tf.saved_model.contains_saved_model(str(path)):
        found = "a folder without saved_model.pb" if Path(path).is_dir() else "no such folder"
        raise TfkdError(f"SavedModel {str(path)!r}: found {found}, wanted an exported folder")
    try:
        loaded = adder.load(path) if _has_adder_op(path) else tf.saved_model.load(str(path))
    # A damaged file fails in as many ways as it has parts: protocol buffers, variables, functions.
    except Exception as error:
        raise TfkdError(
            f"SavedModel {str(path)!r}: found one that does not load ({reason(error)}), "
            "wanted a whole one"
        ) from error
    if signature not in loaded.signatures:
        raise unknown(f"signature of SavedModel {str(path)!r}:", signature, loaded.signatures)
    function = loaded.signatures[signature]
    inputs = function.structured_input_signature[1]
    outputs = sorted(function.structured_outputs)
    if len(inputs) != 1 or (len(outputs) != 1 and "logits" not in outputs):
        raise TfkdError(
            f"signature {signature!r} of SavedModel {str(path)!r}: found inputs {sorted(inputs)} "
            f"and outputs {outputs}, wanted one image and one output or one called 'logits'"
        )
    (name, spec), *_ = inputs.items()
    output = "logits" if "logits" in outputs else outputs[0]

    def predict(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(function(**{name: tf.cast(images, spec.dtype)})[output], tf.float32)

    # A signature owns its variables through the loaded object, which must outlive this call.
    predict.loaded = loaded
    return predict


def _has_adder_op(path: str | os.PathLike) -> bool:
    """Whether a SavedModel is an export that says it holds the compiled adder op."""
    try:
        return describe(path).get("adder") == "op"
    except TfkdError:
        return False
