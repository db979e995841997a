"""How the student of blockwise distillation starts: with what it keeps of its teacher."""

from __future__ import annotations

from collections.abc import Collection

import keras
import numpy as np

from tfkd.core.frozen_copy import folding_error
from tfkd.distillers.pbkd.pairs import STUDENT, TEACHER, Pairs
from tfkd.errors import TfkdError
from tfkd.models.graph.calls import Call, calls
from tfkd.models.graph.channels import Channels, Group, is_convolution, is_depthwise
from tfkd.models.graph.narrowing import NARROW

_TOLERANCE = 0.02
"""Largest difference of a part that was taken over, relative to the largest output: in half
precision it computes a little else."""


def take_over(pairs: Pairs, replaced: Collection[int]) -> None:
    """Gives the student the teacher's blocks that are not replaced, and its classifier.

    Args:
        pairs: The blocks of both networks.
        replaced: Numbers of those that are replaced.

    Raises:
        TfkdError: Where the parts of both networks differ.
    """
    parts = [
        (f"block {each.number}", "", *(pairs.block(w, each.number, w) for w in (STUDENT, TEACHER)))
        for each in pairs.listed
        if each.number not in replaced
    ]
    end = pairs.listed[-1].end
    classes = " and the classes in the same order"
    parts.append((f"the part after {end!r}", classes, *(pairs.head(w, w) for w in pairs.networks)))
    for part, also, student, teacher in parts:
        shapes = [[tuple(v.shape) for v in each.weights] for each in (student, teacher)]
        if shapes[0] == shapes[1]:
            for variable, value in zip(student.weights, teacher.weights, strict=True):
                variable.assign(np.asarray(value))
        if shapes[0] != shapes[1] or not folding_error(teacher, student) <= _TOLERANCE:
            raise TfkdError(
                f"{pairs.method}: found that {part} is another one in student "
                f"{pairs.networks[STUDENT].name!r} than in teacher "
                f"{pairs.networks[TEACHER].name!r}, wanted the same layers{also}, because the "
                "student takes their weights over"
            )


def take_largest_filters(pairs: Pairs, number: int) -> None:
    """Starts a block with the filters of the teacher's that have the largest L1 norms.

    Of channels that belong together the same are taken: the convolutions that make them, those that
    read them, and the batch normalization between. What restores the channels stays as it is.

    Args:
        pairs: The blocks of both networks.
        number: The block.

    Raises:
        TfkdError: Where the block has other layers than the teacher's.
    """
    student, teacher = (pairs.block(who, number, "piece") for who in (STUDENT, TEACHER))
    several = {each.operation.name for each in calls(teacher) if ":" in each.name}
    channels = Channels(teacher, sorted(several))
    known = {each.operation.name: each.operation for each in calls(student)}

    def of_student(layer: keras.Operation) -> keras.Operation:
        found = known.get(layer.name + NARROW, known.get(layer.name))
        if type(found) is not type(layer):
            raise TfkdError(
                f"{pairs.method}: init='largest' found no layer {layer.name!r} in block {number} "
                f"of student {pairs.networks[STUDENT].name!r}, wanted a student by the network "
                "'blockwise', or init='he'"
            )
        return found

    chosen: dict[int, np.ndarray] = {}

    def positions(groups: tuple[Group, ...]) -> np.ndarray:
        found, offset = [], 0
        for group in groups:
            if id(group) not in chosen:
                chosen[id(group)] = _largest(group, of_student)
            found.append(offset + chosen[id(group)])
            offset += group.width
        return np.concatenate(found)

    for call in calls(teacher):
        if getattr(call.operation, "weights", None):
            made = channels.of(call.outputs[0])
            _take(
                call, of_student(call.operation), positions(channels.read_by(call)), positions(made)
            )


def _largest(group: Group, of_student) -> np.ndarray:
    """Returns which channels of a group are kept, in ascending order."""
    if group.pinned or not group.makers:
        return np.arange(group.width)
    filters = {of_student(call.operation).filters for call in group.makers}
    norms = sum(np.abs(np.asarray(call.operation.kernel)).sum((0, 1, 2)) for call in group.makers)
    return np.sort(np.argsort(-norms, kind="stable")[: min(filters)])


def _take(call: Call, own: keras.layers.Layer, read: np.ndarray, made: np.ndarray) -> None:
    """Gives a layer of the student the weights of one of the teacher's on some channels."""
    for variable, given in zip(own.weights, call.operation.weights, strict=True):
        value = np.asarray(given)
        if is_convolution(call.operation) and value.ndim == 4:
            value = _center(value, variable.shape[:2])[:, :, read][..., made]
        elif is_depthwise(call.operation) and value.ndim == 4:
            value = value[:, :, read]
        elif value.shape[-1:] != variable.shape[-1:]:
            value = value[..., made]
        variable.assign(value)


def _center(kernel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the middle of a kernel, ``size`` high and wide."""
    rows, columns = ((has - wants) // 2 for has, wants in zip(kernel.shape, size))
    return kernel[rows : rows + size[0], columns : columns + size[1]]
