"""The exporter of classifiers with exits: all exits at once, and inference that leaves early.

In the signature ``early_exit`` the batch shrinks at every exit: what the next exit needs runs on
the images that are left, and nothing runs once all have left. A layer runs as late as it can: with
the first exit that needs it (:mod:`tfkd.models.graph.exit_parts`).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkd import files, json_shapes
from tfkd.core import tasks
from tfkd.core.tasks.exit_choice import best_by_cost, checked_thresholds, exits_taken
from tfkd.errors import TfkdError
from tfkd.export.exporters import Exported, register
from tfkd.export.named_outputs import Function, NamedOutputs, fits_in_graph
from tfkd.export.verification import TOLERANCE, random_images
from tfkd.models.graph.exit_parts import Part, parts
from tfkd.models.graph.outputs import exits, outputs

FILE_NAME = "early_exit.json"
"""The points of a run's students, in its folder."""

_POINT = {"thresholds": [(str, float)], "exit?": str, "*": float}

Tensors = dict[int, tf.Tensor]
Answer = dict[str, tf.Tensor]


def points_of_run(run_folder: str | os.PathLike, which: str) -> list[dict[str, Any]] | None:
    """Returns the points of a student of a run, of which a budget chooses one.

    ``None`` where the run had no validation images, or the student has one exit.

    Raises:
        TfkdError: When the file is damaged.
    """
    path = Path(run_folder) / FILE_NAME
    if not path.exists():
        return None
    found = points_in(path).get(which)
    if found is None or not found["budgeted"]:
        return None
    return [*found["anytime"], *found["budgeted"]]


def points_in(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the content of ``early_exit.json``: points by the words of the students.

    Raises:
        TfkdError: When the file is damaged or something else.
    """
    points = {"anytime": [_POINT], "budgeted": (None, [_POINT]), "*": object}
    return json_shapes.read_or_tell(path, {"*": points}, "the file that a run writes")


@register("exits")
class EarlyExit(NamedOutputs):
    """Writes what :class:`NamedOutputs` does, and signatures that leave early.

    ``early_exit`` takes pixels and a threshold for each exit; ``early_exit_budget``, where points
    are known, pixels and what an image may cost in the mean. They exist where the task is a
    classification.
    """

    def signatures(self, exported: Exported) -> dict[str, Function]:
        if not leaves_early(exported.task):
            return super().signatures(exported)
        model = exported.model
        names = exits(model)
        others = [name for name in outputs(model) if name not in names]
        # Every part is a function that all signatures call, so that weights are stored once.
        run = _parts_of(model, [[name] for name in names] + [others])
        shape = (None, *model.input_shape[1:])
        pixels = tf.TensorSpec(shape, tf.uint8, "image")

        def compute(image: tf.Tensor) -> dict[str, tf.Tensor]:
            tensors, found = {0: image}, {}
            for each in run:
                found |= each(tensors)
            return found

        def early_exit(image: tf.Tensor, thresholds: tf.Tensor) -> Answer:
            one_each = _checked(thresholds, len(names))
            image = exported.network.preprocess(image)
            rows = tf.range(tf.shape(image)[0])
            found = _leave(run[: len(names)], {0: image}, one_each, rows)
            return {"class": tf.argmax(found["probabilities"], axis=-1), **found}

        early = tf.function(
            early_exit,
            input_signature=[pixels, tf.TensorSpec((None,), tf.float32, "thresholds")],
            autograph=False,
        )
        signatures = {**self.of_all_outputs(exported, compute), "early_exit": early}
        if exported.points:
            signatures["early_exit_budget"] = _within_budget(
                early, len(names), pixels, exported.points
            )
        return signatures

    def facts(self, exported: Exported) -> dict[str, Any]:
        if not leaves_early(exported.task):
            return {}
        points = exported.points and [dict(point) for point in exported.points]
        return {"early_exit": {"points": points}}

    def verify(self, exported: Exported, folder: Path) -> None:
        super().verify(exported, folder)
        if leaves_early(exported.task):
            _verify(exported, folder)


def leaves_early(task: tasks.Task) -> bool:
    """Whether confidence has a meaning for a task."""
    return isinstance(task, tasks.Classification)


class _Part:
    """A part of a network as a function, which reads and adds tensors by their numbers."""

    def __init__(self, part: Part, arrays: Mapping[int, np.ndarray] | None) -> None:
        self.part = part
        self._function = tf.function(functools.partial(_run, part, arrays), autograph=False)

    def __call__(self, tensors: Tensors) -> dict[str, tf.Tensor]:
        found, made = self._function([tensors[number] for number in self.part.reads])
        tensors.update(zip(self.part.makes, made))
        return found


def _parts_of(model: keras.Model, groups: Sequence[Sequence[str]]) -> list[_Part]:
    arrays = None
    if fits_in_graph(model):
        arrays = {id(variable): np.asarray(variable) for variable in model.variables}
    return [_Part(part, arrays) for part in parts(model, groups)]


def _run(
    part: Part, arrays: Mapping[int, np.ndarray] | None, given: Sequence[tf.Tensor]
) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
    """Runs a part; returns its outputs and what later parts read.

    Args:
        part: The part.
        arrays: The weights by the identity of their variables, which become constants; None leaves
            them variables.
        given: What it reads.
    """
    tensors = dict(zip(part.reads, given))
    weights = {
        id(variable): variable
        for step in part.steps
        for variable in getattr(step.call.operation, "variables", ())
    }
    scope = contextlib.nullcontext()
    if arrays is not None:
        scope = keras.StatelessScope(
            [(each, tf.constant(arrays[key])) for key, each in weights.items()]
        )
    with scope:
        for step in part.steps:
            step.run(tensors)
    found = {name: tensors[number] for name, number in part.outputs.items()}
    return found, [tensors[number] for number in part.makes]


def _checked(thresholds: tf.Tensor, exits: int) -> list[tf.Tensor]:
    """Returns the threshold of each exit; running it fails for another number of them, or NaN."""
    thresholds = tf.ensure_shape(thresholds, (exits,), name="thresholds_one_an_exit")
    numbers = tf.reduce_all(tf.equal(thresholds, thresholds))
    tf.debugging.Assert(numbers, ["thresholds: found NaN, wanted numbers", thresholds])
    return tf.unstack(thresholds)


def _leave(
    run: Sequence[_Part],
    tensors: Tensors,
    thresholds: Sequence[tf.Tensor],
    rows: tf.Tensor,
    answered: Sequence[tuple[tf.Tensor, tf.Tensor]] = (),
) -> Answer:
    """Runs the parts on fewer and fewer images.

    Args:
        run: The parts that have not run.
        tensors: What those before have made, of the images that are left.
        thresholds: Those of the exits that have not answered, scalars.
        rows: The places of these images in the batch.
        answered: The places of the images that reached each exit before, and their probabilities.

    Returns:
        The ``probabilities`` of every image where it left, and the number of that ``exit``.
    """
    part, *later = run
    (logits,) = part(tensors).values()
    probabilities = tf.nn.softmax(logits)
    answered = [*answered, (rows, probabilities)]
    if not later:
        return _joined(answered)
    leaves = tf.reduce_max(probabilities, axis=-1) >= thresholds[0]
    # NaN stays. TensorFlow would turn a negation into `<`, by which it left.
    stay = tf.squeeze(tf.where(tf.where(leaves, False, True)), axis=-1)
    alive = sorted({number for each in later for number in each.part.reads} & tensors.keys())

    def those_that_stay() -> tuple[tf.Tensor, list[tf.Tensor]]:
        return tf.gather(rows, stay), [tf.gather(tensors[number], stay) for number in alive]

    def all_of_them() -> tuple[tf.Tensor, list[tf.Tensor]]:
        return tf.identity(rows), [tf.identity(tensors[number]) for number in alive]

    def go_on() -> Answer:
        # Copies cost as much as a layer: where nobody leaves, there are none.
        left, kept = tf.cond(tf.size(stay) < tf.size(rows), those_that_stay, all_of_them)
        return _leave(later, dict(zip(alive, kept)), thresholds[1:], left, answered)

    return tf.cond(tf.size(stay) > 0, go_on, lambda: _joined(answered))


def _joined(answered: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> Answer:
    """Returns the last answer of each image and how many it has, in the order of the batch."""
    rows = [each for each, _ in answered]
    every = tf.concat(rows, axis=0)
    return {
        # Of several values for a place it takes the last.
        "probabilities": tf.dynamic_stitch(rows, [each for _, each in answered]),
        "exit": tf.math.unsorted_segment_sum(tf.ones_like(every), every, tf.size(rows[0])),
    }


def _within_budget(
    early: Function, exits: int, pixels: tf.TensorSpec, points: Sequence[Mapping[str, Any]]
) -> Function:
    """Returns early inference by the most accurate thresholds that a budget affords."""
    best = best_by_cost(points)
    macs = np.asarray([point["validation_macs"] for point in best], np.float64)
    thresholds = np.stack([checked_thresholds(point["thresholds"], exits) for point in best])

    def early_exit_budget(image: tf.Tensor, budget: tf.Tensor) -> Answer:
        affordable = tf.reduce_sum(tf.cast(budget >= macs, tf.int32))
        wanted = f"MACs an image, wanted at least {macs[0]:,.10g}, the cost of the first exit"
        tf.debugging.Assert(affordable > 0, ["budget: found", budget, wanted])
        return early(image, tf.gather(thresholds, tf.maximum(affordable - 1, 0)))

    return tf.function(
        early_exit_budget,
        input_signature=[pixels, tf.TensorSpec((), tf.float64, "budget")],
        autograph=False,
    )


def _verify(exported: Exported, folder: Path) -> None:
    """Loads the SavedModel again and compares where images leave with all exits at once.

    Thresholds are such that half of some random images leave at each exit. An image whose
    confidence is within rounding of a threshold may leave elsewhere. Rounding is 1e-5 of the
    largest logit, which the logits may be off.

    Raises:
        TfkdError: When an image leaves at another exit, or with other probabilities.
    """
    images = random_images(exported.reference)
    names = exits(exported.reference)
    what = f"export of {exported.network.name!r}, early_exit"
    with tf.device("/CPU:0"), files.without_wildcards(folder) as path:
        loaded = tf.saved_model.load(str(path))
        given = loaded.signatures["serving_default"](image=tf.constant(images))
        logits = np.stack([np.asarray(given[name]) for name in names])
        probabilities = np.asarray(tf.nn.softmax(logits))
        confidence = probabilities.max(axis=-1)
        thresholds = np.median(confidence, axis=-1).astype(np.float32)
        found = loaded.signatures["early_exit"](
            image=tf.constant(images), thresholds=tf.constant(thresholds)
        )
    rounding = TOLERANCE * max(1.0, float(np.abs(logits).max()))
    clear = np.abs(confidence - thresholds[:, None])[:-1].min(axis=0, initial=1.0) > rounding
    taken = np.asarray(found["exit"])
    other = int(np.sum(clear & (taken != exits_taken(confidence, thresholds))))
    if other:
        raise TfkdError(f"{what}: found another exit for {other} of {len(images)} images, wanted 0")
    wanted = probabilities[taken - 1, np.arange(len(images))]
    difference = float(np.abs(np.asarray(found["probabilities"]) - wanted).max())
    if not difference <= rounding:
        raise TfkdError(
            f"{what}: found probabilities that differ by {difference:.2e} from those of their "
            f"exit, wanted at most {rounding:.2g}"
        )
