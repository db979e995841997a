"""A network as a SavedModel: raw pixels in, named outputs out, stock operations only.

Adder layers are rewritten to stock operations as well, unless their compiled op is asked for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tfkd import files, models
from tfkd.adder import compiled_operations, has_adder_layers, plain_operations
from tfkd.core import tasks
from tfkd.errors import TfkdError, unknown
from tfkd.export import description, early_exit

# Imported for the exporter that it registers.
from tfkd.export import named_outputs as _named_outputs  # noqa: F401
from tfkd.export.exporters import Exported, exporter_of
from tfkd.models.class_names import are_numbers, are_same
from tfkd.models.graph.outputs import class_width, output_sizes
from tfkd.models.saving import in_precision, load_network

ADDER_FORMS = ("plain", "op")


def save(
    network: models.Network | keras.Model,
    directory: str | os.PathLike,
    *,
    fold: bool = True,
    verify: bool = True,
    adder: str = "plain",
    class_names: Sequence[str] | None = None,
    points: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Writes a network as a SavedModel that loads with plain TensorFlow, without tfkd or Keras.

    Signatures, each with any batch size and called by keyword::

        serving_default(image: uint8   (batch, height, width, channels), pixels 0..255)
        normalised     (image: float32 (batch, height, width, channels), after preprocessing)
            -> the outputs by name, each (batch, ...)

    The outputs are those of the network and what its task derives from them. A classifier gives
    ``logits`` and ``probabilities``, float32 ``(batch, classes)``; one with several exits gives
    ``exit1``, ``exit2``, ... as well, and the probabilities of the deepest. That one has further
    signatures, in which an image leaves at the first exit where its largest probability is at least
    a threshold, and what only later exits need runs on the images that are left alone::

        early_exit       (image: uint8, thresholds: float32 (exits,))
        early_exit_budget(image: uint8, budget: float64 (), MACs of an image in the mean)
            -> class int64 (batch,), probabilities (batch, classes) of the exit taken, exit int32
               (batch,), the number of that exit from 1 on

    The threshold of the deepest exit is not read. A budget takes the most accurate of ``points``
    that costs no more on the validation images.

    The preprocessing is part of ``serving_default``. The weights are constants of the graph, which
    lets TensorFlow prepare them once. Everything computes in float32, whatever precision the
    network was trained in. ``tfkd.json`` beside the graph holds what ``tfkd.export.describe``
    returns.

    Args:
        network: The network, or a classifier that takes pixels as they are. It is not changed.
        directory: The folder to write: a new one, an empty one, or an earlier export, which is
            replaced once the new one is complete.
        fold: Whether to fold batch normalization into the layers before it; the outputs stay equal
            within rounding, and a network of small convolutions runs about a tenth faster.
        verify: Whether to load the folder again and compare it with the network on random images.
        adder: How adder layers are written: ``"plain"`` in stock operations, which load anywhere
            and are slow; ``"op"`` as the compiled op, for :func:`tfkd.adder.load`. It is nothing to
            networks without adder layers.
        class_names: The names of the classes in the order of the logits, for a network that has
            none; by default those of the network.
        points: What ``early_exit_budget`` chooses among: those of
            :func:`tfkd.evaluation.accuracy_over_cost`. Without them there is no such signature.

    Returns:
        The folder.

    Raises:
        TfkdError: When the network takes something else than one image or its outputs are not those
            of its task, the class names do not fit, the folder is occupied or cannot be written, or
            an output of the written export differs by more than 1e-5 of its max |value| (of adder
            networks, whose layers amplify rounding: see :func:`tfkd.export.verification.verify`) or
            names another class; the folder is then as it was before.
    """
    network = models.as_network(network)
    exporter = exporter_of(network.model)
    task = tasks.create(network.task, network)
    names = _checked(network, task, class_names)
    form = _adder_form(network.model, adder)
    if points is not None and not isinstance(exporter, early_exit.EarlyExit):
        raise TfkdError(
            f"points of {network.name!r}: found {len(points)} for one exit, wanted none"
        )
    with files.whole_folder(directory, description.is_export, "an export of tfkd") as folder:
        source = in_precision(network.model)
        model = models.fold(source) if fold else models.stock(source)
        exported = Exported(network, task, source, model, points)
        with plain_operations() if form == "plain" else contextlib.nullcontext():
            served = exporter.write(exported, folder)
        further = exporter.facts(exported)
        description.write(
            folder, network, served, fold=fold, class_names=names, adder=form, further=further
        )
        if verify:
            exporter.verify(exported, folder)
    return Path(directory)


def save_run(
    run_folder: str | os.PathLike, output: str | os.PathLike, which: str = "last", **settings
) -> Path:
    """Writes a student of a run folder as a SavedModel.

    Args:
        run_folder: The folder of a training run.
        output: The folder to write.
        which: The student, as :func:`tfkd.models.saving.load_network` takes it.
        **settings: Those of a config's section ``export``, or ``fold``, ``verify`` and ``adder``
            of :func:`save`; ``enabled``, by which a run asks whether to come here, is set aside.

    Returns:
        The folder that was written.

    Raises:
        TfkdError: As :func:`tfkd.models.saving.load_network` and :func:`save`.
    """
    settings.pop("enabled", None)
    points = early_exit.points_of_run(run_folder, which)
    return save(load_network(run_folder, which), output, points=points, **settings)


def _adder_form(model: keras.Model, adder: str) -> str | None:
    """How the adder layers of a model are written; ``None`` where it has none."""
    if adder not in ADDER_FORMS:
        raise unknown("form of adder layers", adder, ADDER_FORMS)
    if not has_adder_layers(model):
        return None
    if adder == "op" and compiled_operations() is None:
        raise TfkdError(
            f"model {model.name!r} to export with the adder op: found no compiled op on this "
            "machine, wanted a compiler (see the warning), or the form 'plain'"
        )
    return adder


def _checked(
    network: models.Network, task: tasks.Task, class_names: Sequence[str] | None
) -> list[str] | None:
    """Returns the class names; raises for a network that cannot be exported or other names."""
    image = network.model.input_shape
    if not isinstance(image, tuple) or len(image) != 4:
        raise TfkdError(
            f"network {network.name!r} to export: found input {image}, wanted one image (batch, "
            "height, width, channels)"
        )
    # Probabilities of a network that ends in a softmax would be wrong without notice.
    task.facts(network)
    names, own = class_names, network.class_names
    if names is None:
        names = own
    elif own is not None and not are_numbers(own) and not are_same(names, own):
        raise TfkdError(
            f"class names of {network.name!r}: found other ones, or another order, than it has "
            "itself, wanted none (a Network with class_names=None takes any)"
        )
    if names is None:
        return None
    classes = class_width(output_sizes(network.model))
    if classes not in (None, len(names)):
        raise TfkdError(f"class names of {network.name!r}: found {len(names)}, wanted {classes}")
    return [str(name) for name in names]
