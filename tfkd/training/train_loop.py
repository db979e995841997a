"""The training of one run: its stages, one after the other, from wherever it stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import keras
import ml_collections
import tensorflow as tf

from tfkd import data
from tfkd.core import Distiller, Objective, Stage
from tfkd.errors import TfkdError
from tfkd.training import config as configs
from tfkd.training import optimizers, schedules
from tfkd.training.run_state import Progress, State


def stages(config: ml_collections.ConfigDict, objectives: Sequence[Objective]) -> list[Stage]:
    """Returns the stages of a run: those of the one method that has any, or a single one.

    Args:
        config: The experiment.
        objectives: Its methods.

    Raises:
        TfkdError: When several methods have stages of their own.
    """
    staged = {each.name: list(each.stages()) for each in objectives if each.stages() is not None}
    if len(staged) > 1:
        raise TfkdError(
            f"several methods with stages of their own: {', '.join(staged)}; wanted one"
        )
    if staged:
        return next(iter(staged.values()))
    return [Stage("train", configs.epochs(config))]


def batch_keys(distiller: Distiller) -> list[str]:
    """Returns what the methods read of a batch besides image and label."""
    return sorted({key for each in distiller.objectives for key in each.requires.all_keys})


def prepare(
    config: ml_collections.ConfigDict, distiller: Distiller, stage: Stage, dataset: data.DataSet
) -> None:
    """Compiles the distiller for a stage and makes every variable that training will use.

    Args:
        config: The experiment.
        distiller: The distiller, inside the scope of its strategy.
        stage: The stage.
        dataset: The data.

    Raises:
        TfkdError: When the batches lack something that a method needs.
    """
    distiller.enter_stage(stage)
    if stage.optimizer is not None:
        optimizer = stage.optimizer(dataset.steps_per_epoch)
    else:
        schedule = schedules.create(
            config.train.schedule,
            base_rate=config.train.learning_rate,
            steps_per_epoch=dataset.steps_per_epoch,
            epochs=stage.epochs,
        )
        optimizer = optimizers.create(config.train.optimizer, schedule)
    distiller.compile(
        optimizer=optimizer,
        steps_per_execution=config.train.steps_per_execution,
        jit_compile=config.train.jit_compile,
    )
    # A checkpoint also holds the sums of the metrics, so these have to exist before it is read.
    distiller.prepare_for(dataset.train(batch_keys=batch_keys(distiller)).element_spec)


def fit(
    config: ml_collections.ConfigDict,
    distiller: Distiller,
    listed: Sequence[Stage],
    prepare_stage: Callable[[int], None],
    dataset: data.DataSet,
    strategy: tf.distribute.Strategy,
    progress: Progress,
) -> None:
    """Trains all stages from where the run stands, and writes the last checkpoint.

    Args:
        config: The experiment.
        distiller: The distiller, prepared for the stage in which the run stands.
        listed: All stages.
        prepare_stage: ``prepare_stage(number)`` prepares the distiller for another one.
        dataset: The data.
        strategy: Its strategy.
        progress: Where the run stands.
    """
    per_epoch = dataset.steps_per_epoch
    wanted = batch_keys(distiller)
    progress.start()
    first_step = 0
    for number, stage in enumerate(listed):
        last_step = first_step + per_epoch * stage.epochs
        done = progress.state.step
        if done < last_step:
            if number != progress.state.stage:
                with strategy.scope():
                    prepare_stage(number)
                progress.enter_stage(number)
            _fit(
                distiller,
                _distributed(
                    strategy,
                    # Endless: Keras counts its calls, and some of an epoch that goes on after a
                    # kill have nothing left to do.
                    lambda context, done=done: dataset.train(
                        done, batch_keys=wanted, input_context=context
                    ),
                ),
                initial_epoch=(done - first_step) // per_epoch,
                epochs=stage.epochs,
                steps_per_epoch=per_epoch,
                validation_data=_validation(dataset, strategy),
                validation_steps=_validation_steps(dataset),
                validation_freq=_evaluated_epochs(stage.epochs, config.train.evaluate_every),
                callbacks=[
                    _StepLimit(first_step, per_epoch),
                    _Throughput(dataset.batch_size, progress.state),
                    progress,
                ],
                verbose=config.train.verbose,
                shuffle=False,
            )
            progress.state.step = distiller.step
        first_step = last_step
    distiller.limit_steps(None)
    progress.finish()


def _fit(distiller: Distiller, *args, **kwargs) -> None:
    """As ``fit``; an image of a streamed data set that cannot be read is named in one line."""
    try:
        distiller.fit(*args, **kwargs)
    except tf.errors.InvalidArgumentError as error:
        raise data.explain(error) or error from None


def _distributed(strategy: tf.distribute.Strategy, make):
    """Returns the data set of one process, or that of each replica."""
    if strategy.num_replicas_in_sync == 1 and strategy.cluster_resolver is None:
        return make(None)
    return strategy.distribute_datasets_from_function(make)


def _validation(dataset: data.DataSet, strategy: tf.distribute.Strategy):
    part = dataset.validation if dataset.info.validation_size else dataset.test
    return _distributed(strategy, lambda context: part(input_context=context))


def _validation_steps(dataset: data.DataSet) -> int:
    info = dataset.info
    return math.ceil((info.validation_size or info.test_size) / dataset.batch_size)


def _evaluated_epochs(epochs: int, every: int) -> list[int]:
    """Returns the epochs, counted from 1, that end with an evaluation; the last always does."""
    return sorted({*range(every, epochs + 1, every), epochs})


class _StepLimit(keras.callbacks.Callback):
    """Ends each epoch at its own last step, also after a continuation in the middle of it."""

    def __init__(self, first_step: int, steps_per_epoch: int) -> None:
        super().__init__()
        self._first_step = first_step
        self._steps_per_epoch = steps_per_epoch

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.model.limit_steps(self._first_step + (epoch + 1) * self._steps_per_epoch)


class _Throughput(keras.callbacks.Callback):
    """Notes images and their time in the state, those of the first epoch, which compiles, apart."""

    def __init__(self, batch_size: int, state: State) -> None:
        super().__init__()
        self._batch_size = batch_size
        self._state = state
        self._compiled = False
        self._begin: float | None = None

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._begin, self._first = time.perf_counter(), self.model.step

    def on_test_begin(self, logs=None) -> None:
        self._note()

    def on_epoch_end(self, epoch, logs=None) -> None:
        self._note()

    def _note(self) -> None:
        if self._begin is not None:
            images = (self.model.step - self._first) * self._batch_size
            self._state.note(images, time.perf_counter() - self._begin, self._compiled)
            self._compiled, self._begin = True, None
