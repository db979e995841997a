"""A phase of training: what is run and trained, for how long, by which recipe, on which losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import keras

from tfkd import models
from tfkd.errors import TfkdError
from tfkd.settings import NonNegative, Range, checked


@dataclass(frozen=True)
class Stage:
    """One phase of a run. Most methods have one; a progressive or two-stage method returns several.

    Attributes:
        name: A word for logs and checkpoints.
        epochs: Length in epochs; ``None`` is ``train.epochs`` of the config, unless ``steps`` is
            given.
        steps: Length in steps, where a paper counts iterations; never beside ``epochs``.
        recipe: Fields of the config's section ``train`` that the stage changes, by their dotted
            names: ``{"learning_rate": 0.01, "schedule.name": "cosine"}``.
        optimizer: ``optimizer(steps_per_epoch)`` makes an optimizer that no recipe can describe.
        trainable: ``trainable(distiller)`` lists the variables that the stage trains; ``None`` is
            the student and every objective. Layers that hold none of them are frozen: they run in
            inference mode.
        objectives: Names of the objectives that take part; ``None`` is all of them.
        student_loss_weight: Weight of the label loss in this stage; ``None`` is the distiller's.
        network: ``network(distiller)`` makes the :class:`tfkd.models.Network` that runs in the
            place of the student, such as a hybrid of student and teacher blocks. The distiller's
            student stays the one that is saved. Frozen parts of it are made by
            ``tfkd.models.segment(..., training=False)``.
        taps: Further taps of that network that the objectives read.
        data: ``data(distiller, dataset)`` makes the :class:`tfkd.data.DataSet` of the stage, for
            instance with a column of cached features; ``None`` is the data set of the run. A run
            that is continued within the stage makes it again, so it may depend on frozen parts
            alone.
        columns: Names of the columns that ``data`` adds and objectives read.
        cached: Taps of ``network``, or of the student, that are functions of the image alone while
            the stage trains, nearest the output first. Where training images come as they are
            stored, a run computes each of them once for every image, as far as ``cache_bytes``
            hold them, and adds them to the batches; what only they need is then not run.
        cache_bytes: Bytes that the cached taps of the stage may take.
        cache_folder: A folder that keeps them on disk; ``None`` keeps them in memory.
        evaluate: Whether the epochs of the stage are evaluated, and may be the best; ``False``
            where the student means nothing yet. If the label loss has weight 0 and no objective
            reads the student either, the stage does not run it; its label loss and metrics are 0.
    """

    name: str
    epochs: int | None = None
    steps: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Callable[[int], keras.optimizers.Optimizer] | None = None
    trainable: Callable[[keras.Model], Sequence[keras.Variable]] | None = None
    objectives: tuple[str, ...] | None = None
    student_loss_weight: float | None = None
    network: Callable[[keras.Model], models.Network] | None = None
    taps: tuple[str, ...] = ()
    data: Callable[[keras.Model, Any], Any] | None = None
    columns: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    cache_bytes: int = 0
    cache_folder: str | None = None
    evaluate: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or "\n" in self.name:
            raise TfkdError(f"stage: found name={self.name!r}, wanted a word")
        where = f"stage {self.name!r}"
        for field_name in ("optimizer", "trainable", "network", "data"):
            given = getattr(self, field_name)
            if given is not None and not callable(given):
                raise TfkdError(f"{where}: found {field_name}={given!r}, wanted a function")
        for field_name in ("objectives", "taps", "columns", "cached"):
            given = getattr(self, field_name)
            listed = isinstance(given, (tuple, list)) and all(isinstance(e, str) for e in given)
            if not listed and not (given is None and field_name == "objectives"):
                raise TfkdError(f"{where}: found {field_name}={given!r}, wanted a list of names")
        if not isinstance(self.recipe, Mapping):
            raise TfkdError(f"{where}: found recipe={self.recipe!r}, wanted a dict of fields")
        checked(f"{where}: evaluate", bool, self.evaluate)
        checked(f"{where}: cache_bytes", Annotated[int, Range(low=0)], self.cache_bytes)
        checked(f"{where}: cache_folder", str | None, self.cache_folder)
        checked(f"{where}: student_loss_weight", NonNegative | None, self.student_loss_weight)
        if self.columns and self.data is None:
            raise TfkdError(
                f"{where}: found columns {list(self.columns)} without data, wanted both"
            )
        if self.epochs is not None and self.steps is not None:
            raise TfkdError(
                f"stage {self.name!r}: found epochs={self.epochs} and steps={self.steps}, wanted "
                "one of them"
            )
        for unit, length in (("epochs", self.epochs), ("steps", self.steps)):
            whole = isinstance(length, int) and not isinstance(length, bool) and length >= 1
            if length is not None and not whole:
                raise TfkdError(
                    f"stage {self.name!r}: found {unit}={length!r}, wanted a whole number >= 1"
                )
        if self.taps and self.network is None:
            raise TfkdError(
                f"stage {self.name!r}: found taps {list(self.taps)} without a network, wanted a "
                "network that has them"
            )
        if self.optimizer is not None and self.recipe:
            raise TfkdError(
                f"stage {self.name!r}: found a recipe beside an optimizer, wanted one of them"
            )

    def length(self, steps_per_epoch: int, epochs: int) -> int:
        """Returns the number of steps.

        Args:
            steps_per_epoch: Steps of an epoch.
            epochs: Epochs of a stage that sets no length of its own.
        """
        if self.steps is not None:
            return self.steps
        return steps_per_epoch * (epochs if self.epochs is None else self.epochs)
