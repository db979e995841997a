"""Checks of the batches against what networks and objectives need, before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from tfkd.core.objective import VIEW_KEYS, VIEW_ROWS
from tfkd.errors import TfkdError
from tfkd.models.graph.inspection import shapes_agree


def check_batch(
    batch: Mapping[str, tf.TypeSpec],
    *,
    keys: Iterable[str],
    input_shape: Sequence[int | None] | None,
) -> None:
    """Checks the entries of a batch, and the form of its images.

    Args:
        batch: Type of each entry.
        keys: The entries that must be there.
        input_shape: ``(height, width, channels)`` that the student takes; ``None`` where it is not
            known.

    Raises:
        TfkdError: Naming what is missing or does not fit.
    """
    keys = set(keys)
    missing = sorted(keys - set(batch))
    if missing:
        raise TfkdError(
            f"the batch lacks {', '.join(missing)}, which the distillation losses need; "
            f"found {', '.join(sorted(batch))}"
        )
    shape = batch["image"].shape
    if shape.rank is None:
        raise TfkdError(
            "images of unknown shape: wanted a data set whose element_spec says (batch, height, "
            "width, channels)"
        )
    for view, each in VIEW_ROWS.items():
        if VIEW_KEYS[view] not in keys:
            continue
        rows = batch[VIEW_KEYS[view]].shape[0]
        if None not in (rows, shape[0]) and rows != each * shape[0]:
            raise TfkdError(
                f"{VIEW_KEYS[view]} of {rows} rows beside {shape[0]} images, wanted "
                f"{each * shape[0]}, {each} for each image"
            )
    if "index" in keys:
        index = batch["index"]
        if not index.dtype.is_integer or index.shape.rank not in (None, 1):
            raise TfkdError(
                f"index of type {index.dtype.name} and shape {tuple(index.shape)}, wanted whole "
                "numbers (batch,), the position of each image in the training set"
            )
    if input_shape is not None:
        found, wanted = tuple(shape[1:]), tuple(input_shape)
        if not shapes_agree(found, wanted):
            raise TfkdError(f"images of shape {found}, but the student wants {wanted}")
