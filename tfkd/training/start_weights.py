"""The weights that a student starts from: of a file, or published ones of keras.applications."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import ml_collections

from tfkd import models
from tfkd.errors import TfkdError, reason
from tfkd.models.description import description_of_file
from tfkd.models.references import find, includes_preprocessing, is_keras_application
from tfkd.models.saving import load_model

PUBLISHED = "imagenet"
"""Stands for the weights that keras.applications fetches."""


def check(fields: ml_collections.ConfigDict) -> None:
    """Refuses weights that are not there, or published ones whose pixels nobody tells.

    Args:
        fields: The section ``student``.

    Raises:
        TfkdError: Naming the field.
    """
    given = fields.weights
    if given is None:
        return
    if given != PUBLISHED:
        if not Path(given).is_file():
            raise TfkdError(
                f"student.weights {given!r}: no such file, wanted a .keras or .weights.h5 file"
            )
        return
    if not is_keras_application(fields.name):
        raise TfkdError(
            f"student.weights: found {given!r} for {fields.name}, wanted a network of "
            "keras.applications, or a file"
        )
    if fields.preprocess is None and not includes_preprocessing(fields.name, fields.kwargs):
        raise TfkdError(
            f"student {fields.name} with weights {given!r}: found no student.preprocess, wanted "
            "what its preprocess_input does: tf, torch, caffe or none"
        )


def preprocess(fields: ml_collections.ConfigDict) -> models.Preprocess | None:
    """Returns how pixels reached the network of the weights, where their file says so.

    Args:
        fields: The section ``student``.
    """
    given = fields.weights
    if given is None or Path(given).suffix != ".keras":
        return None
    told = description_of_file(Path(given))
    return None if told is None else models.Preprocess.from_config(told["preprocess"])


def assign(model: keras.Model, fields: ml_collections.ConfigDict, say: Callable[..., None]) -> None:
    """Gives a fresh student the weights that it starts from.

    Layers go together in their order. The last one with weights stays fresh where it is of another
    shape, that is, of other classes.

    Args:
        model: The student.
        fields: The section ``student``.
        say: Prints a line.

    Raises:
        TfkdError: When the weights are not those of such a network.
    """
    if fields.weights is None:
        return
    source, who = _source(model, fields), f"student.weights {fields.weights!r}"
    there, here = (_weighted(each) for each in (source, model))
    if len(there) != len(here):
        raise TfkdError(
            f"{who}: found {len(there)} layers with weights, wanted {len(here)} as "
            f"{fields.name} has"
        )
    fresh = ""
    for position, (before, layer) in enumerate(zip(there, here)):
        found, wanted = ([tuple(each.shape) for each in of.weights] for of in (before, layer))
        if found == wanted:
            layer.set_weights(before.get_weights())
        elif position + 1 < len(here):
            raise TfkdError(
                f"{who}: found weights {found} in {before.name}, wanted {wanted} as {layer.name} "
                f"of {fields.name} has"
            )
        else:
            fresh = f"; its last layer {layer.name} is fresh"
    say(f"student {fields.name} starts from {fields.weights}{fresh}", flush=True)


def _source(model: keras.Model, fields: ml_collections.ConfigDict) -> keras.Model:
    if fields.weights == PUBLISHED:
        own = {**fields.kwargs.to_dict(), "weights": PUBLISHED}
        try:
            return find(fields.name)(**own)
        except Exception as error:  # It downloads.
            raise TfkdError(
                f"student.weights {PUBLISHED!r} of {fields.name} cannot be had ({reason(error)}), "
                "wanted a network of keras.applications and its weights, fetched or in ~/.keras"
            ) from error
    path = Path(fields.weights)
    if path.suffix == ".keras":
        return load_model(path)
    source = keras.models.clone_model(model)
    try:
        source.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise TfkdError(
            f"student.weights {str(path)!r} does not fit {fields.name}: {reason(error)}"
        ) from None
    return source


def _weighted(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers with weights of their own, in order, those of inner models among them."""
    found: list[keras.layers.Layer] = []
    for layer in model.layers:
        found += (
            _weighted(layer) if isinstance(layer, keras.Model) else [layer] * bool(layer.weights)
        )
    return found
