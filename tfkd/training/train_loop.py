"""The training of one run: its stages, one after the other, from wherever it stands."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import keras
import tensorflow as tf

from tfkd import data, interruption
from tfkd.core import Distiller, Stage
from tfkd.errors import TfkdError
from tfkd.training.epoch_lines import EpochLines
from tfkd.training.experiment import Experiment, batch_keys
from tfkd.training.run_state import Progress, State
from tfkd.training.stage_cache import cached_keys, with_cached_taps
from tfkd.training.timeline import Timeline


class TrainLoop:
    """Takes a distiller through the stages of an experiment.

    Args:
        experiment: The experiment.
        distiller: Its distiller, made inside the scope of the strategy.
        strategy: The strategy.
        say: Prints a line; of several workers one does.
    """

    def __init__(
        self,
        experiment: Experiment,
        distiller: Distiller,
        strategy: tf.distribute.Strategy,
        say: Callable[..., None] = print,
    ) -> None:
        self.distiller = distiller
        self.stages = experiment.stages(distiller)
        self.timeline = Timeline(
            [
                stage.length(experiment.dataset.steps_per_epoch, experiment.epochs)
                for stage in self.stages
            ],
            experiment.dataset.steps_per_epoch,
        )
        self._experiment = experiment
        self._strategy = strategy
        self._say = say
        self._dataset = experiment.dataset

    def prepare(self, number: int) -> None:
        """Compiles the distiller for a stage and makes every variable that training will use.

        Args:
            number: Of the stage.

        Raises:
            TfkdError: When the batches lack something that a method needs.
        """
        stage, train = self.stages[number], self._experiment.config.train
        with self._strategy.scope():
            self.distiller.enter_stage(stage)
            self._dataset = self._experiment.dataset
            if stage.data is not None:
                self._dataset = _stage_data(stage, self.distiller, self._dataset)
            self._dataset = with_cached_taps(stage, self.distiller, self._dataset, self._say)
            self.distiller.compile(
                optimizer=self._experiment.optimizer(stage),
                steps_per_execution=train.steps_per_execution,
                jit_compile=train.jit_compile,
            )
            # A checkpoint also holds the sums of the metrics, so these have to exist before it is
            # read.
            spec = self._dataset.train(batch_keys=self._batch_keys(stage)).element_spec
            self.distiller.prepare_for(spec)

    def _batch_keys(self, stage: Stage) -> list[str]:
        """Returns what a batch of a stage holds besides image and label."""
        return [*batch_keys(self.distiller), *cached_keys(stage, self._dataset)]

    def run(self, progress: Progress) -> None:
        """Trains all stages from where the run stands, and writes the last checkpoint.

        Args:
            progress: Where the run stands; the distiller is prepared for its stage.
        """
        progress.start()
        for number in range(progress.state.stage, len(self.stages)):
            if progress.state.step < self.timeline.last_step(number) or progress.awaits_evaluation:
                if number != progress.state.stage:
                    self.prepare(number)
                    progress.enter_stage(number)
                self._fit(number, progress)
                progress.end_stage()
        self.distiller.limit_steps(None)
        progress.finish()

    def _fit(self, number: int, progress: Progress) -> None:
        stage, train = self.stages[number], self._experiment.config.train
        done, wanted = progress.state.step, self._batch_keys(stage)
        epochs = self.timeline.epochs(number)
        # Elsewhere than on a terminal a bar is kilobytes of control characters.
        bar = train.verbose == 1 and sys.stdout.isatty()
        lines = [EpochLines(self._say)] if train.verbose and not bar else []
        evaluation = {}
        if stage.evaluate:
            evaluation = {
                "validation_data": self._validation(),
                "validation_steps": _validation_steps(self._dataset),
                "validation_freq": _evaluated_epochs(epochs, train.evaluate_every),
            }
        try:
            self.distiller.fit(
                # Endless: Keras counts its calls, and some of an epoch that goes on after a kill
                # have nothing left to do.
                self._distributed(
                    lambda context: self._dataset.train(
                        done, batch_keys=wanted, input_context=context
                    )
                ),
                initial_epoch=progress.state.epoch - self.timeline.epochs_before(number),
                epochs=epochs,
                steps_per_epoch=self.timeline.steps_per_epoch,
                callbacks=[
                    _StepLimit(self.timeline, number),
                    _Throughput(self._dataset.batch_size, progress.state),
                    progress,
                    *lines,
                ],
                verbose=int(bar),
                shuffle=False,
                **evaluation,
            )
        except tf.errors.InvalidArgumentError as error:
            # An image of a streamed data set that cannot be read is named in one line.
            raise data.explain(error) or error from None
        finally:
            interruption.defer(False)

    def _distributed(self, make):
        """Returns the data set of one process, or that of each replica."""
        if self._strategy.num_replicas_in_sync == 1 and self._strategy.cluster_resolver is None:
            return make(None)
        return self._strategy.distribute_datasets_from_function(make)

    def _validation(self):
        dataset = self._dataset
        part = dataset.validation if dataset.info.validation_size else dataset.test
        return self._distributed(lambda context: part(input_context=context))


def _stage_data(stage: Stage, distiller: Distiller, dataset: data.DataSet) -> data.DataSet:
    """Returns the data of a stage, which must be cut into steps as that of the run is."""
    made = stage.data(distiller, dataset)
    if not isinstance(made, data.DataSet):
        raise TfkdError(
            f"stage {stage.name!r}: found data {type(made).__name__}, wanted a tfkd.data.DataSet"
        )
    found, wanted = ((each.batch_size, each.steps_per_epoch, each.seed) for each in (made, dataset))
    if found != wanted:
        raise TfkdError(
            f"stage {stage.name!r}: found data of batch size, steps an epoch and seed {found}, "
            f"wanted {wanted} as the run has"
        )
    return made


def _validation_steps(dataset: data.DataSet) -> int:
    info = dataset.info
    return math.ceil((info.validation_size or info.test_size) / dataset.batch_size)


def _evaluated_epochs(epochs: int, every: int) -> list[int]:
    """Returns the epochs, counted from 1, that end with an evaluation; the last always does."""
    return sorted({*range(every, epochs + 1, every), epochs})


class _StepLimit(keras.callbacks.Callback):
    """Ends each epoch at its own last step, also after a continuation in the middle of it."""

    def __init__(self, timeline: Timeline, stage: int) -> None:
        super().__init__()
        self._timeline = timeline
        self._stage = stage

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.model.limit_steps(self._timeline.end_of_epoch(self._stage, epoch))


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
