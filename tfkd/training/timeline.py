"""Which steps of a run belong to which stage and epoch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


class Timeline:
    """The steps of a run, counted over all stages.

    A stage begins an epoch of its own; the last one is shorter where the stage is no whole number
    of epochs long.

    Args:
        lengths: Steps of each stage.
        steps_per_epoch: Steps of a whole epoch.
    """

    def __init__(self, lengths: Sequence[int], steps_per_epoch: int) -> None:
        self.lengths = list(lengths)
        self.steps_per_epoch = steps_per_epoch
        self._ends = list(itertools.accumulate(self.lengths))

    def first_step(self, stage: int) -> int:
        """Returns the number of the step that begins a stage."""
        return self._ends[stage] - self.lengths[stage]

    def last_step(self, stage: int) -> int:
        """Returns the step at which a stage is over."""
        return self._ends[stage]

    def epochs(self, stage: int) -> int:
        """Returns how many epochs a stage has, the last perhaps a shorter one."""
        return math.ceil(self.lengths[stage] / self.steps_per_epoch)

    def epochs_done(self, stage: int, step: int) -> int:
        """Returns how many epochs of a stage are over at a step before its end."""
        return (step - self.first_step(stage)) // self.steps_per_epoch

    def epochs_before(self, stage: int) -> int:
        """Returns how many epochs all stages before one have."""
        return sum(self.epochs(each) for each in range(stage))

    def epochs_over(self, stage: int, step: int) -> int:
        """Returns how many epochs, over all stages, have no steps left at a step of a stage."""
        if step == self._ends[stage]:
            return self.epochs_before(stage + 1)
        return self.epochs_before(stage) + self.epochs_done(stage, step)

    def end_of_epoch(self, stage: int, epoch: int) -> int:
        """Returns the step at which an epoch of a stage, counted from 0, is over."""
        end = self.first_step(stage) + (epoch + 1) * self.steps_per_epoch
        return min(end, self._ends[stage])

    def ends_epoch(self, stage: int, step: int) -> bool:
        """Returns whether an epoch of a stage is over at a step."""
        done = step - self.first_step(stage)
        return done % self.steps_per_epoch == 0 or step == self._ends[stage]
