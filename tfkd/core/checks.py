"""Checks of the batches against what networks and objectives need, before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from tfkd.core.objective import Objective
from tfkd.errors import TfkdError


def check_batch(
    batch: Mapping[str, tf.TypeSpec],
    *,
    keys: Iterable[str],
    input_shape: Sequence[int | None] | None,
    num_classes: int,
    objectives: Iterable[Objective],
) -> None:
    """Checks the form of a batch.

    Args:
        batch: Type of each entry.
        keys: The entries that must be there.
        input_shape: ``(height, width, channels)`` that the student takes; ``None`` where it is not
            known.
        num_classes: Width of the logits.
        objectives: The objectives that will read the batch.

    Raises:
        TfkdError: Naming what is missing or does not fit.
    """
    missing = sorted({key for key in keys if key not in batch})
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
    if input_shape is not None:
        found, wanted = tuple(shape[1:]), tuple(input_shape)
        fits = len(found) == len(wanted) and all(
            a is None or b is None or a == b for a, b in zip(found, wanted)
        )
        if not fits:
            raise TfkdError(f"images of shape {found}, but the student wants {wanted}")
    label = batch["label"]
    width = label.shape[-1] if label.shape.rank == 2 else 1
    if width not in (1, None, num_classes):
        raise TfkdError(
            f"labels of width {width}, wanted class numbers or {num_classes} probabilities"
        )
    if width == num_classes and num_classes > 1:
        for objective in objectives:
            if not objective.requires.allows_soft_labels:
                raise TfkdError(
                    f"{objective.name} works on class numbers: found dense labels of width {width}"
                )
