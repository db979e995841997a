"""A config, resolved: its data, task, methods and stages, and the distiller made of them."""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import ml_collections
import tensorflow as tf

from tfkd import data, models
from tfkd.core import Distiller, Objective, Stage, tasks
from tfkd.errors import TfkdError
from tfkd.training import build, config_checks, optimizers, schedules, teachers
from tfkd.training import config as configs

_MOST_EPOCHS = 10**6


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config describes, found out once.

    Attributes:
        config: The config.
        timed: The config with the times of its own run: see
            :func:`tfkd.training.config.in_own_epochs`.
        dataset: Its data.
        task: The name of its task, as :func:`tfkd.tasks.find` takes it.
        epochs: Epochs of a stage that sets no length of its own.
    """

    config: ml_collections.ConfigDict
    timed: ml_collections.ConfigDict
    dataset: data.DataSet
    task: str
    epochs: int

    @classmethod
    def of(cls, config: ml_collections.ConfigDict) -> Experiment:
        """Resolves a config that :func:`tfkd.training.config_checks.validate` has seen.

        Raises:
            TfkdError: For data or a task that cannot be had.
        """
        dataset = build.data_set(config)
        dataset.check_training()
        task = dataset.info.task if config.task is None else config.task
        tasks.find(task)
        return cls(config, configs.in_own_epochs(config), dataset, task, configs.epochs(config))

    def student(self, say: Callable[..., None] = lambda *_, **__: None) -> models.Network:
        """Returns the student as training begins.

        Args:
            say: Prints a line.
        """
        return build.student(self.config, self.dataset.info, self.task, say)

    def distiller(
        self, student: models.Network, taught_by: Sequence[models.Network], *, dry: bool = False
    ) -> Distiller:
        """Returns the distiller of the config's methods.

        Args:
            student: The student.
            taught_by: Its teachers.
            dry: Whether it only serves to check what fits: teachers are then not folded.

        Raises:
            TfkdError: When networks, methods and data do not fit one another.
        """
        config, info = self.config, self.dataset.info
        objectives = configs.objectives(self.timed)
        labels = any(each.requires.train_labels for each in objectives)
        return _kind(objectives)(
            list(taught_by) or None,
            student,
            objectives,
            configs.method_weights(config),
            config.student_loss_weight,
            task=tasks.create(self.task, student),
            train_size=info.train_size,
            train_labels=self.dataset.train_labels if labels else None,
            batch_size=self.dataset.batch_size,
            seed=config.train.seed,
            teacher_dtype="bfloat16" if config.teacher.dtype == "bfloat16" and not dry else None,
            fold_teacher=config.teacher.fold and not dry,
            evaluate_distillation=False,
        )

    def stages(self, distiller: Distiller) -> list[Stage]:
        """Returns the stages of a run: those of the one method that has any, or a single one.

        Raises:
            TfkdError: When several methods have stages of their own, or ``train.epochs`` has no
                effect.
        """
        given = {each.name: each.stages() for each in distiller.objectives}
        staged = {
            name: _listed(name, stages) for name, stages in given.items() if stages is not None
        }
        if len(staged) > 1:
            raise TfkdError(
                f"several methods with stages of their own: {', '.join(staged)}; wanted one"
            )
        if not staged:
            return self._not_endless([Stage("train")])
        ((name, stages),) = staged.items()
        if not stages[-1].evaluate:
            raise TfkdError(
                f"last stage {stages[-1].name!r} of {name}: found evaluate=False, wanted a student "
                "that means something in the end"
            )
        own = all(stage.epochs is not None or stage.steps is not None for stage in stages)
        if own and self.config.train.epochs is not None:
            lengths = ", ".join(
                f"{each.name} {each.steps or each.epochs} {'steps' if each.steps else 'epochs'}"
                for each in stages
            )
            raise TfkdError(
                f"train.epochs: found {self.config.train.epochs} beside {name}, whose stages set "
                f"their own lengths ({lengths}); wanted it unset"
            )
        return self._not_endless(stages)

    def _not_endless(self, stages: list[Stage]) -> list[Stage]:
        per_epoch = self.dataset.steps_per_epoch
        for stage in stages:
            length = stage.length(per_epoch, self.epochs)
            if length > _MOST_EPOCHS * per_epoch:
                raise TfkdError(
                    f"stage {stage.name!r}: found {length:,} steps, wanted {_MOST_EPOCHS:,} epochs "
                    f"of {per_epoch:,} at most"
                )
        return stages

    def recipe(self, stage: Stage) -> ml_collections.ConfigDict:
        """Returns the section ``train`` as it is in a stage.

        Raises:
            TfkdError: For a field that is not there, or a value that it cannot have.
        """
        if not stage.recipe:
            return self.timed.train
        for key in stage.recipe:
            if key != "learning_rate" and str(key).partition(".")[0] not in (
                "optimizer",
                "schedule",
            ):
                raise TfkdError(
                    f"recipe of stage {stage.name!r}: found {key!r}, wanted learning_rate, "
                    "optimizer.* or schedule.*, the fields that a stage may change"
                )
        changes = {f"train__{key.replace('.', '__')}": v for key, v in stage.recipe.items()}
        try:
            changed = configs.override(self.timed, **changes)
            config_checks.check_recipe(changed)
        except TfkdError as error:
            raise TfkdError(f"recipe of stage {stage.name!r}: {error}") from None
        return changed.train

    def optimizer(self, stage: Stage) -> Any:
        """Returns a fresh optimizer for a stage."""
        per_epoch = self.dataset.steps_per_epoch
        if stage.optimizer is not None:
            made = stage.optimizer(per_epoch)
            if not isinstance(made, keras.optimizers.Optimizer):
                raise TfkdError(
                    f"stage {stage.name!r}: found the optimizer {made!r}, wanted one of Keras"
                )
            return made
        train = self.recipe(stage)
        length = stage.length(per_epoch, self.epochs) / per_epoch
        schedule = schedules.create(
            train.schedule,
            base_rate=train.learning_rate,
            steps_per_epoch=per_epoch,
            epochs=int(length) if length == math.floor(length) else length,
        )
        return optimizers.create(train.optimizer, schedule)

    def check(self, workdir: Path) -> None:
        """Looks at everything that can be known before a teacher is trained.

        A distiller is made of networks with whatever weights, enters every stage and is shown the
        form of the batches.

        Args:
            workdir: The run folder.

        Raises:
            TfkdError: When something is wrong.
        """
        with build.precision(self.config.train.precision):
            student = self.student()
        teachers.check(self.config, workdir)
        taught_by = teachers.sketch(self.config, self.dataset.info, self.task)
        with build.precision(self.config.train.precision):
            distiller = self.distiller(student, taught_by, dry=True)
        for stage in self.stages(distiller):
            distiller.enter_stage(stage)
            self.optimizer(stage)
            # The stage itself makes its columns, when what they are made of is trained.
            keys = [key for key in batch_keys(distiller) if key not in stage.columns]
            spec = self.dataset.train(batch_keys=keys).element_spec
            columns = {column: tf.TensorSpec([None]) for column in stage.columns}
            distiller.prepare_for({**spec, **columns})
        # A bank is as large here as in the run.
        del distiller
        gc.collect()


def _listed(name: str, stages: Any) -> list[Stage]:
    """Returns the stages of a method, each with a name of its own."""
    listed = list(stages) if isinstance(stages, (list, tuple)) else []
    if not listed or not all(isinstance(each, Stage) for each in listed):
        raise TfkdError(f"{name}: found the stages {stages!r}, wanted a list of tfkd.Stage")
    names = [each.name for each in listed]
    repeated = sorted({each for each in names if names.count(each) > 1})
    if repeated:
        raise TfkdError(
            f"{name}: found two stages called {repeated[0]!r}, wanted names of their own"
        )
    return listed


def batch_keys(distiller: Distiller) -> list[str]:
    """Returns what the methods of the current stage read of a batch besides image and label."""
    return sorted({key for each in distiller.active_requirements() for key in each.all_keys})


def _kind(objectives: Sequence[Objective]) -> type[Distiller]:
    own = [each for each in objectives if each.distiller_class is not None]
    if len(own) > 1:
        names = ", ".join(each.name for each in own)
        raise TfkdError(f"several methods with a training step of their own: {names}; wanted one")
    return own[0].distiller_class if own else Distiller
