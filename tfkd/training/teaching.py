"""Who teaches in a run: nobody, networks trained before, or one that trains beside the student."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from tfkd import evaluation, models
from tfkd.core import Task, tasks
from tfkd.errors import TfkdWarning
from tfkd.evaluation.predictors import Predict
from tfkd.training import build, results, teachers
from tfkd.training import config as configs
from tfkd.training.experiment import Experiment
from tfkd.training.run_folder import RunFolder

Train = Callable[[ml_collections.ConfigDict, Path], dict]
Say = Callable[..., None]
Worth = dict[str, Any]
"""What teachers are worth: ``of``, a digest of what the run was made of, ``summaries`` on the test
images, one a teacher, and ``doubts``, lines or None."""

_TRIED_ON = 500


class Teaching(abc.ABC):
    """The teachers of a run.

    Args:
        experiment: The experiment.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    @abc.abstractmethod
    def obtain(self, train: Train) -> list[models.Network]:
        """Gets the teachers that there are before the student is made, and returns them.

        Args:
            train: ``train(config, workdir)`` runs an experiment, or finds it finished.

        Raises:
            TfkdError: When a teacher cannot be found, or does not fit the data.
        """

    @abc.abstractmethod
    def networks(self) -> list[models.Network]:
        """Returns the teachers; called once, inside the scope of the strategy."""

    @abc.abstractmethod
    def finished(self, folder: RunFolder) -> Predict | None:
        """Returns the teachers as one function of pixels, after training.

        Args:
            folder: The run folder, where a teacher that was trained is written.
        """

    def tell(self, say: Say, of: str, known: Worth) -> Worth:
        """Says before training what the teachers are worth, if that is known by then.

        Args:
            say: Prints a line.
            of: A digest of what the run is made of.
            known: What the newest checkpoint holds of their worth; it is measured again only where
                the run was made of something else.

        Returns:
            What the checkpoints are to hold of it, as JSON can.
        """
        del say, of, known
        return {}

    def tell_in_the_end(self, scores: Mapping[str, Any], task: Task, say: Say) -> None:
        """Says after training what a teacher is worth that was not told before.

        Args:
            scores: Those of the teachers together.
            task: The task.
            say: Prints a line.
        """
        del scores, task, say


class TrainedBefore(Teaching):
    """Teachers from run folders, files or functions, perhaps trained on demand; or none at all."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        self._networks: list[models.Network] = []
        self._together: Predict | None = None

    def obtain(self, train: Train) -> list[models.Network]:
        experiment = self._experiment
        self._networks = teachers.obtain(
            experiment.config, experiment.dataset.info, train, experiment.task
        )
        if self._networks:
            self._together = evaluation.ensemble(self._networks, self._task())
        return self._networks

    def networks(self) -> list[models.Network]:
        return self._networks

    def finished(self, folder: RunFolder) -> Predict | None:
        return self._together

    def tell(self, say: Say, of: str, known: Worth) -> Worth:
        if not self._networks:
            return {}
        dataset, task = self._experiment.dataset, self._task()
        named = [(f"teacher {each.name}", evaluation.predictor(each)) for each in self._networks]
        listed = list(named)
        if len(named) > 1:
            listed.append((f"mean of {len(named)} teachers", self._together))
        before = " (measured before)" if known.get("of") == of else ""
        worth = known if before else {"of": of, "summaries": [], "doubts": []}
        summaries, doubts = worth["summaries"], worth["doubts"]
        for number, (who, predict) in enumerate(listed):
            if not before:
                summaries.append(task.summary(evaluation.scores(predict, dataset.test(), task)))
            say(f"{who}: {summaries[number]} on {dataset.info.name} test{before}", flush=True)
        for where in teachers.chosen_on_test(self._experiment.config):
            say(f"{where}.which=best: {results.CHOSEN_ON_TEST}", flush=True)
        for network, (who, predict) in zip(self._networks, named):
            build.tell_of_pixels(who, network, say)
            if not before:
                doubts.append(self._doubt(who, network, predict))
        for doubt in filter(None, doubts):
            warnings.warn(doubt, TfkdWarning, stacklevel=2)
        return worth

    def _doubt(self, who: str, network: models.Network, predict: Predict) -> str | None:
        """Returns a line on a teacher that hardly knows the student's classes, else None.

        Where names tell, it is not tried.
        """
        dataset = self._experiment.dataset
        task = tasks.create(network.task, network)
        least = task.doubtful(task.facts(network))
        names = build.class_names(dataset.info, self._experiment.task)
        if least is None or (names is not None and network.class_names == names):
            return None
        found = evaluation.scores(predict, dataset.sample(_TRIED_ON), task)
        if not found[task.score.key] < least:
            return None
        return (
            f"{who}: {task.summary(found)} on {found['count']} training images of "
            f"{dataset.info.name}, hardly more than a guess: its classes may be others, or in "
            "another order (teacher.class_names names them), or its pixels others "
            "(teacher.preprocess)"
        )

    def _task(self) -> Task:
        return tasks.create(self._experiment.task, self._networks[0])


class TrainsBeside(Teaching):
    """A fresh teacher that trains beside the student."""

    def obtain(self, train: Train) -> list[models.Network]:
        del train
        return []

    def networks(self) -> list[models.Network]:
        experiment = self._experiment
        self._network = build.trained_teacher(
            experiment.config, experiment.dataset.info, experiment.task
        )
        return [self._network]

    def finished(self, folder: RunFolder) -> Predict:
        return evaluation.predictor(results.save_teacher(self._network, folder))

    def tell_in_the_end(self, scores: Mapping[str, Any], task: Task, say: Say) -> None:
        where = self._experiment.dataset.info.name
        say(f"teacher {self._network.name}: {task.summary(scores)} on {where} test", flush=True)


def of(experiment: Experiment) -> Teaching:
    """Returns who teaches in an experiment."""
    beside = configs.trains_teacher(experiment.config)
    return (TrainsBeside if beside else TrainedBefore)(experiment)
