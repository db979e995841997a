"""Networks and SavedModels as functions from raw pixels to named outputs."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfkd import adder, files, models
from tfkd.core import tasks
from tfkd.core.classes import aligned
from tfkd.errors import TfkdError, reason, unknown
from tfkd.export import describe
from tfkd.models.graph.outputs import LOGITS, by_name

Predict = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def predictor(network: models.Network | keras.Model) -> Predict:
    """Returns a network as a function of raw pixels, its preprocessing included.

    Args:
        network: A network, or a model that takes pixels as they are.

    Returns:
        A ``tf.function``: images (batch, height, width, channels) of any dtype, pixels 0..255, to
        the outputs (batch, ...) by the names of :func:`tfkd.models.outputs`, in inference mode;
        floating ones are float32. Its ``class_names`` are those of the network.

    Raises:
        TfkdError: For outputs without names.
    """
    network = models.as_network(network)
    if models.is_functional(network.model):
        models.outputs(network.model)

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return _in_float32(by_name(network.model(network.preprocess(images), training=False)))

    return _named(as_graph(predict), network.class_names)


def ensemble(
    networks: Sequence[models.Network | keras.Model], task: tasks.Task | None = None
) -> Predict:
    """Returns several networks as one function of raw pixels.

    Args:
        networks: One or more, as :func:`predictor` takes them.
        task: The task that joins their outputs; by default that of the first network. Classifiers
            are joined to the logarithm of the mean of their probabilities.

    Returns:
        A function like that of :func:`predictor`; of one network its own.

    Raises:
        TfkdError: As :func:`predictor`; for networks that name other classes than the first that
            names any; joining raises it where the task cannot join.
    """
    networks = _in_one_order([models.as_network(network) for network in networks])
    members = [predictor(network) for network in networks]
    if len(members) == 1:
        return members[0]
    task = tasks.create(networks[0].task, networks[0]) if task is None else task
    # Without conversion an error of the task stays as it is.
    joined = as_graph(lambda images: task.ensemble([each(images) for each in members]), False)
    names = (network.class_names for network in networks)
    return _named(joined, next((each for each in names if each is not None), None))


def _in_one_order(networks: Sequence[models.Network]) -> list[models.Network]:
    """Returns networks whose classes are in the order of the first that names them."""
    named = next((network for network in networks if network.class_names is not None), None)
    if named is None:
        return list(networks)
    return [
        aligned(
            network,
            named.class_names,
            tasks.create(network.task, network),
            who=f"network {network.name}",
            whose=f"network {named.name}",
            accept="a Network with class_names=None",
        )
        for network in networks
    ]


def in_order(predict: Predict, task: tasks.Task, places: Sequence[int]) -> Predict:
    """Returns a function whose classes come in another order.

    Args:
        predict: The function.
        task: The task, which knows what outputs have a place for each class.
        places: For each class of the new order its position in that of ``predict``.
    """

    def moved(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = by_name(predict(images))
        names = [*task.class_outputs(outputs), *({"probabilities"} & set(outputs))]
        return {**outputs, **{name: tf.gather(outputs[name], places, axis=-1) for name in names}}

    return moved


def _named(predict: Callable, class_names: Sequence[str] | None) -> Callable:
    predict.class_names = class_names
    return predict


def as_graph(function: Callable, autograph: bool = True) -> Callable:
    """Returns a plain function as a ``tf.function``."""
    # TensorFlow warns of retracing when functions of the same code are traced one after the other,
    # as those of several networks are. A partial object has no code of its own to be counted by.
    return tf.function(functools.partial(function), autograph=autograph, reduce_retracing=True)


def saved_model_predictor(path: str | os.PathLike, signature: str = "serving_default") -> Predict:
    """Returns a SavedModel as a function of raw pixels.

    An export of tfkd fits as it is. Another SavedModel fits if its signature takes one image tensor
    of raw pixels.

    Args:
        path: The folder of the SavedModel.
        signature: The signature to call.

    Returns:
        A function: images (batch, height, width, channels), pixels 0..255, cast to the dtype that
        the signature wants, to the outputs (batch, ...) by name; floating ones are float32. One
        output alone is called ``logits``; beside ``logits`` there are no ``probabilities``. Its
        ``class_names`` are those of an export of tfkd, otherwise ``None``.

    Raises:
        TfkdError: When the folder is not a SavedModel, is damaged, or has no such signature, or the
            signature takes several inputs.
    """
    if not tf.saved_model.contains_saved_model(str(path)):
        found = "a folder without saved_model.pb" if Path(path).is_dir() else "no such folder"
        raise TfkdError(f"SavedModel {str(path)!r}: found {found}, wanted an exported folder")
    known = _described(path)
    try:
        load = adder.load if known.get("adder") == "op" else tf.saved_model.load
        with files.without_wildcards(path) as place:
            loaded = load(str(place))
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
    names = {name: name for name in sorted(function.structured_outputs)}
    if len(inputs) != 1 or not names:
        raise TfkdError(
            f"signature {signature!r} of SavedModel {str(path)!r}: found inputs {sorted(inputs)} "
            f"and outputs {list(names)}, wanted one image and one output or more"
        )
    (image, spec), *_ = inputs.items()
    if len(names) == 1:
        names = {LOGITS: next(iter(names))}

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = function(**{image: tf.cast(images, spec.dtype)})
        return _in_float32({name: found[key] for name, key in names.items()})

    # A signature owns its variables through the loaded object, which must outlive this call.
    predict.loaded = loaded
    predict.dtype = spec.dtype
    predict.input_shape = tuple(spec.shape[1:]) if spec.shape.rank == 4 else None
    return _named(predict, known.get("class_names"))


def _in_float32(outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {
        name: tf.cast(output, tf.float32) if output.dtype.is_floating else output
        for name, output in outputs.items()
    }


def _described(path: str | os.PathLike) -> dict[str, Any]:
    """Returns what an export says of itself; nothing for another SavedModel."""
    try:
        return describe(path)
    except TfkdError:
        return {}
