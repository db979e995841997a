"""A keras-tuner tuner whose trials are runs of tfkd."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras_tuner
from keras_tuner.engine import base_tuner

from tfkd.core.step.nonfinite import NonFiniteLoss
from tfkd.tuning.space import Dimension, chosen_values, hyperparameters

OBJECTIVE = "score"
"""What keras-tuner makes large: the best score of the task on the validation images."""

ORACLES = {
    "grid": keras_tuner.oracles.GridSearchOracle,
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
}


def oracle(method: str, space: Sequence[Dimension], trials: int, seed: int) -> keras_tuner.Oracle:
    """Returns what chooses the values of the next trial.

    Args:
        method: A key of :data:`ORACLES`.
        space: What is varied.
        trials: The most trials.
        seed: Decides what random and bayesian search draw; a grid draws nothing.
    """
    made = ORACLES[method](
        objective=keras_tuner.Objective(OBJECTIVE, "max"),
        max_trials=trials,
        hyperparameters=hyperparameters(space),
        # keras-tuner takes 0 for "any seed".
        seed=seed + 1,
        # A trial that diverges is a result, however many of them follow each other.
        max_consecutive_failed_trials=trials + 1,
    )
    made.verbose = 0
    return made


class RunTuner(base_tuner.BaseTuner):
    """Runs the trials of an oracle, always from the first one.

    keras-tuner's saved state is not what a killed search continues from. That of its grid search
    lacks what it would go on with (1.4.8: after a kill between two trials it ends at once, after a
    kill within one it fails with a KeyError), and a kill while a file is written leaves half of it.
    An oracle is, however, a function of its seed and of the scores so far: it is asked anew, and a
    trial whose run folder is finished answers without training.

    Args:
        oracle: See :func:`oracle`.
        space: What is varied.
        train: ``train(number, chosen)`` runs a trial, counted from 1, and returns its score.
        folder: Where keras-tuner keeps its files; emptied first.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        space: Sequence[Dimension],
        train: Callable[[int, dict[str, Any]], float],
        folder: str | os.PathLike,
    ) -> None:
        parent, name = os.path.split(folder)
        super().__init__(oracle, directory=parent, project_name=name, overwrite=True)
        self._space = space
        self._train = train

    def run_trial(self, trial, *fit_args, **fit_kwargs) -> dict[str, float]:
        """Runs one trial; keras-tuner calls it.

        Raises:
            FailedTrialError: When the loss is not finite, which ends this trial only.
            FatalError: For any other error, its cause, which ends the search.
        """
        chosen = chosen_values(self._space, trial.hyperparameters.values)
        try:
            return {OBJECTIVE: self._train(int(trial.trial_id) + 1, chosen)}
        except NonFiniteLoss as error:
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            raise keras_tuner.errors.FatalError(str(error)) from error
