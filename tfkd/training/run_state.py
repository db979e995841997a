"""What happens between the steps of a run: metrics, the best student, checkpoints, TensorBoard."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkd import files, interruption
from tfkd.core import Distiller, Stage
from tfkd.core.tasks import Score
from tfkd.errors import TfkdError
from tfkd.training import checkpoints, record_picture, shapes, stage_picture, stage_table
from tfkd.training import strategy as strategies
from tfkd.training.run_folder import RunFolder
from tfkd.training.timeline import Timeline

_RECORDS = "records/"
_SUMS = "metrics/"

AGREE_EVERY = 16
"""Most calls between two moments at which several workers agree on what to do."""
AGREE_SECONDS = 0.5
"""Time that they let pass at most, where a single call does not take longer."""


@dataclass
class State:
    """Where a run stands, besides its variables.

    Attributes:
        stage: Number of the running stage.
        epoch: Epochs done, over all stages.
        step: Training steps done, over all stages.
        history: The rows of ``metrics.csv``.
        learning_rate: Rate of the first step of the running epoch.
        best_score: Best score of the running stage so far, in the unit of its label; ``None``
            before the first.
        best_epoch: The epoch that reached it, counted from 1.
        seconds: Time of the run before this process.
        images: Training images of the epochs that compiled nothing.
        image_seconds: Their time, without evaluations.
        first_images: Training images of the epochs that compiled.
        first_seconds: Their time.
        inputs: What the config points at: see :mod:`tfkd.training.inputs`.
        accepted_changes: What of that was another one when the run went on, in words.
        stage_costs: Parameters and MACs of what each stage ran in the student's place, by its name.
        teachers_worth: See :data:`tfkd.training.teaching.Worth`.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    learning_rate: float = 0.0
    best_score: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    images: int = 0
    image_seconds: float = 0.0
    first_images: int = 0
    first_seconds: float = 0.0
    inputs: dict[str, Any] = field(default_factory=dict)
    accepted_changes: list[str] = field(default_factory=list)
    stage_costs: dict[str, dict[str, int]] = field(default_factory=dict)
    teachers_worth: dict[str, Any] = field(default_factory=dict)

    def note(self, images: int, seconds: float, compiled: bool) -> None:
        """Adds an epoch's images and their time.

        Args:
            images: Training images.
            seconds: Their time.
            compiled: Whether the step had been compiled before.
        """
        if compiled:
            self.images += images
            self.image_seconds += seconds
        else:
            self.first_images += images
            self.first_seconds += seconds

    @property
    def images_per_second(self) -> float:
        """Training images per second; epochs that compiled count only where there are no others."""
        if self.images:
            return self.images / max(self.image_seconds, 1e-9)
        return self.first_images / max(self.first_seconds, 1e-9)


class Progress(keras.callbacks.Callback):
    """Keeps :class:`State`, writes the files of the run folder, and restores them.

    Args:
        folder: The run folder.
        state: The state to keep.
        stages: The stages of the run.
        timeline: Their steps.
        score: The number that the best epoch is chosen by.
        checkpoint_seconds: Least time between two checkpoints.
        strategy: The strategy; of several workers only the chief writes files.
    """

    def __init__(
        self,
        folder: RunFolder,
        state: State,
        *,
        stages: Sequence[Stage],
        timeline: Timeline,
        score: Score,
        checkpoint_seconds: float,
        strategy: tf.distribute.Strategy,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.state = state
        self.best_student: list[np.ndarray] | None = None
        self._stages = stages
        self._timeline = timeline
        self._score = score
        self._records: dict[str, list[np.ndarray]] = {}
        self._checkpoint_seconds = checkpoint_seconds
        self._strategy = strategy
        self._writes = strategies.is_chief(strategy)
        self._store = checkpoints.Checkpoints(folder.checkpoints, shapes.META)
        self._restored_sums: dict[str, np.ndarray] = {}
        self._sums_of_epoch: dict[str, np.ndarray] = {}
        self._agreement = _Agreement(strategy)
        self._saved_step = -1
        self._started = self._saved = time.monotonic()
        self._events: tf.summary.SummaryWriter | None = None

    def restore(self, distiller: Distiller, prepare_stage) -> bool:
        """Brings the distiller and this state to the newest checkpoint, if there is one.

        Args:
            distiller: The distiller.
            prepare_stage: ``prepare_stage(number)`` compiles it for a stage.

        Returns:
            Whether a checkpoint was found.
        """
        self.set_model(distiller)
        found = self._store.load()
        if found is None:
            prepare_stage(0)
            self._note_cost(0)
            return False
        arrays, meta = found
        self._check_place(meta)
        # What a stage makes of the networks when it begins, it makes of trained ones.
        checkpoints.assign_known(distiller.state(), arrays)
        prepare_stage(meta["stage"])
        best = [key for key in arrays if key.startswith("best/")]
        if best:
            self.best_student = _best_student(distiller, {key: arrays.pop(key) for key in best})
        for key in [key for key in arrays if key.startswith(_RECORDS)]:
            self._records[key.removeprefix(_RECORDS)] = list(np.atleast_1d(arrays.pop(key)))
        checkpoints.assign(distiller.state(), arrays)
        for name, value in meta.items():
            # Those are of now, and were compared with these.
            if name not in ("inputs", "accepted_changes", "teachers_worth"):
                setattr(self.state, name, value)
        self._note_cost(self.state.stage)
        self._saved_step = self.state.step
        if not self._ends_epoch(self.state.step) or self.awaits_evaluation:
            self._restored_sums = {
                name: value for name, value in arrays.items() if name.startswith(_SUMS)
            }
        if self._writes:
            self.folder.write_metrics(self.state.history)
            if self._records:
                self.folder.write_arrays("records.npz", self._stacked_records())
        return True

    def _check_place(self, meta: Mapping[str, Any]) -> None:
        """Refuses the state of a run of other stages or another length."""
        stage, step, epoch = meta["stage"], meta["step"], meta["epoch"]
        inside = 0 <= stage < len(self._stages)
        if inside:
            first, last = self._timeline.first_step(stage), self._timeline.last_step(stage)
            over = self._timeline.epochs_over(stage, min(max(step, first), last))
            inside = first <= step <= last and epoch in (over - 1, over)
        if not inside or len(meta["history"]) != epoch:
            raise TfkdError(
                f"checkpoint in {self.folder.checkpoints}: found stage {stage}, step {step} and "
                f"{len(meta['history'])} rows at epoch {epoch}, wanted those of this run; remove "
                "the folder to begin anew"
            )

    @property
    def awaits_evaluation(self) -> bool:
        """Whether all steps of an epoch are done, and it was left before its row was written."""
        state = self.state
        return state.epoch < self._timeline.epochs_over(state.stage, state.step)

    @property
    def seconds(self) -> float:
        """Training time so far, over all processes."""
        return self.state.seconds + time.monotonic() - self._started

    def start(self) -> None:
        """Starts the time between checkpoints, and opens the event file.

        It begins with the rows so far, in the place of the event files that earlier processes wrote
        of this run: those may hold rows that are written again after a kill. Their times are those
        of this process.
        """
        self._saved = time.monotonic()
        if not self._writes:
            return
        suffix = self.folder.events_suffix
        earlier = list(self.folder.events.glob(f"events.out.tfevents.*{suffix}"))
        self._events = tf.summary.create_file_writer(
            str(self.folder.events), filename_suffix=suffix
        )
        self._write_events(self.state.history)
        for path in earlier:
            path.unlink(missing_ok=True)

    def _write_events(self, rows: Sequence[Mapping[str, Any]]) -> None:
        try:
            with self._events.as_default():
                for row in rows:
                    for name, number in row.items():
                        if name not in ("epoch", "stage"):
                            tf.summary.scalar(name, number, step=row["epoch"])
            self._events.flush()
        except tf.errors.OpError as error:
            raise TfkdError(
                f"folder {str(self.folder.events)!r}: cannot be written "
                f"({error.message.splitlines()[0].rpartition('}} ')[2]}), wanted a folder with "
                "write permission and space"
            ) from error

    def enter_stage(self, number: int) -> None:
        """Begins a stage; what was best so far was another, unfinished network."""
        self.state.stage = number
        self.state.best_score, self.state.best_epoch = None, 0
        self.best_student = None
        self._note_cost(number)

    def _note_cost(self, number: int) -> None:
        """Keeps what the network costs that the distiller, which has entered a stage, runs."""
        cost = stage_table.cost_of(self.model)
        name = self._stages[number].name
        self.state.stage_costs[name] = {"params": cost.params, "macs": cost.macs}

    def on_epoch_begin(self, epoch, logs=None) -> None:
        # Keras has just reset the metrics; an epoch that a kill interrupted goes on with its sums.
        if self._restored_sums:
            variables = self.model.state()
            for name, value in self._restored_sums.items():
                variables[name].assign(value)
            self._restored_sums = {}
        else:
            self.state.learning_rate = float(np.asarray(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None) -> None:
        # From now on there is something to save.
        interruption.defer()
        signal, due = self._agreement.reached(self._is_due)
        # The end of an epoch belongs to on_epoch_end, which first evaluates it and writes its row.
        if self._ends_epoch(self.model.step):
            return
        if due or signal:
            self.save()
        self._leave(signal)

    def on_test_begin(self, logs=None) -> None:
        # An evaluation begins by setting all sums to zero.
        state = self.model.state()
        self._sums_of_epoch = checkpoints.values(
            {name: each for name, each in state.items() if name.startswith(_SUMS)}
        )
        self._stop_evaluating(at_once=True)

    def on_test_batch_end(self, batch, logs=None) -> None:
        self._stop_evaluating()

    def _stop_evaluating(self, *, at_once: bool = False) -> None:
        """After a signal saves the epoch as one that is yet to be evaluated, and ends the run."""
        signal, _ = self._agreement.reached(self._is_due, at_once)
        if signal:
            self.save(self._sums_of_epoch)
        self._leave(signal)

    def _leave(self, signal: int) -> None:
        """Ends the run after a signal, when all workers know that the chief has saved."""
        if signal:
            strategies.wait_for_all(self._strategy)
            stop = interruption.Interrupted(signal)
            stop.continues(self.folder.path, self._saved_step)
            raise stop

    def _ends_epoch(self, step: int) -> bool:
        return self._timeline.ends_epoch(self.state.stage, step)

    def on_epoch_end(self, epoch, logs=None) -> None:
        logs = {name: float(value) for name, value in (logs or {}).items()}
        self.state.epoch += 1
        numbers = {"learning_rate": self.state.learning_rate, **logs}
        stage = self._stages[self.state.stage].name
        self.state.history.append({"epoch": self.state.epoch, "stage": stage, **numbers})
        self._note_best(logs)
        for objective, _ in self.model.active_objectives():
            for name, array in objective.records().items():
                listed = self._records.setdefault(f"{objective.name}/{name}", [])
                listed.append(np.asarray(array))
                if listed[-1].shape != listed[0].shape:
                    raise TfkdError(
                        f"{objective.name}: record {name!r} has shape {listed[-1].shape}, wanted "
                        f"{listed[0].shape} as in its first epoch"
                    )
        if self._writes:
            self.folder.write_metrics(self.state.history)
            if self._records:
                self.folder.write_arrays("records.npz", self._stacked_records())
            self._write_events(self.state.history[-1:])
        signal, due = self._agreement.reached(self._is_due, at_once=True)
        # What the next stage prepares may take long.
        if due or signal or self.model.step == self._timeline.last_step(self.state.stage):
            self.save()
        self._leave(signal)

    def _note_best(self, logs: Mapping[str, float]) -> None:
        """Keeps the student where its score is the best of the stage."""
        found = logs.get(f"val_{self._score.metric}")
        if found is None:
            return
        value, best = self._score.scale * found, self.state.best_score
        # Written so that a NaN is never the best.
        if value > (-math.inf if best is None else best):
            self.state.best_score = value
            self.state.best_epoch = self.state.epoch
            self.best_student = [np.asarray(v) for v in self.model.student_variables]

    def _stacked_records(self) -> dict[str, np.ndarray]:
        return {name: np.stack(arrays) for name, arrays in self._records.items()}

    def stage_rows(self) -> list[dict[str, Any]]:
        """Returns the stages in numbers: :func:`tfkd.training.stage_table.rows`."""
        state = self.state
        return stage_table.rows(
            self._stages, self._timeline, state.history, state.stage_costs, self._score
        )

    def draw_stages(self, title: str) -> None:
        """Draws the stages of a run that has several, ``stages.png``.

        Args:
            title: What stands above.
        """
        if len(self._stages) > 1:
            history, folder = self.state.history, self.folder.path
            stage_picture.draw(self.stage_rows(), history, self._score, title, folder)

    def draw_records(self, title: str) -> None:
        """Draws the records whose entries have names, ``<method>_<record>.png``.

        Args:
            title: What stands above.
        """
        for objective in self.model.objectives:
            for name, entries in objective.record_names().items():
                kept = self._records.get(f"{objective.name}/{name}")
                if kept is None:  # The method took part in no stage.
                    continue
                values = np.stack(kept)
                above = f"{title}: {name} of {objective.name} at the end of each epoch"
                path = self.folder.path / f"{objective.name}_{name}.png"
                draw = functools.partial(record_picture.draw, values, entries, above, name)
                files.write(path, draw)

    def _is_due(self) -> bool:
        """Returns whether it is time for a checkpoint by the clock of this worker."""
        return time.monotonic() - self._saved >= self._checkpoint_seconds

    def save(self, sums: Mapping[str, np.ndarray] | None = None) -> None:
        """Writes a checkpoint of this moment; all workers take part.

        Args:
            sums: Those of the metrics, where an evaluation has set them to others.
        """
        distiller = self.model
        distiller.watch.check()
        self.state.step = distiller.step
        self._saved, self._saved_step = time.monotonic(), self.state.step
        # Reading the sums of metrics adds up those of all workers, so each of them has to read.
        arrays = {**checkpoints.values(distiller.state()), **(sums or {})}
        if not self._writes:
            return
        for position, value in enumerate(self.best_student or ()):
            arrays[f"best/{position}"] = value
        arrays |= {_RECORDS + name: array for name, array in self._stacked_records().items()}
        meta = {**vars(self.state), "seconds": self.seconds}
        self._store.save(arrays, meta, self.state.step)

    def end_stage(self) -> None:
        """Notes that all steps of the running stage are done, and heeds a signal that has come."""
        self.state.step = self.model.step
        signal, _ = self._agreement.reached(self._is_due, at_once=True)
        self._leave(signal)

    def finish(self) -> None:
        """Writes the checkpoint of the end and finishes the event file."""
        if self.model.step != self._saved_step:
            self.save()
        if self._events is not None:
            self._events.close()


def _best_student(distiller: Distiller, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Returns the variables of the best student, in their order."""
    wanted = distiller.student_variables
    names = [f"best/{position}" for position in range(len(wanted))]
    shapes_found = [arrays[name].shape for name in names if name in arrays]
    if len(arrays) != len(names) or shapes_found != [tuple(each.shape) for each in wanted]:
        raise TfkdError(
            f"checkpoint: found a best student of {len(arrays)} variables, wanted the {len(names)} "
            "of this one"
        )
    return [arrays[name] for name in names]


class _Agreement:
    """What several workers agree on between calls: signals, and whether a checkpoint is due.

    Clocks of workers differ, and a signal may come to one of them alone.

    Args:
        strategy: The strategy.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self._single = strategies.is_single(strategy)
        self._calls, self._every = 0, 1
        self._reached = time.monotonic()

    def reached(self, is_due: Callable[[], bool], at_once: bool = False) -> tuple[int, bool]:
        """Returns the number of a signal, or 0, and whether a checkpoint is due; equal on all.

        Every worker has to call this as often.

        Args:
            is_due: Whether one is due by the clock of this worker.
            at_once: Whether to ask the others in any case.
        """
        if self._single:
            return interruption.asked(), is_due()
        self._calls += 1
        if self._calls < self._every and not at_once:
            return 0, False
        now = time.monotonic()
        pace = max(now - self._reached, 1e-9) / self._calls
        self._calls, self._reached = 0, now
        every = min(AGREE_EVERY, max(1, int(AGREE_SECONDS / pace)))
        came = [interruption.asked() == each for each in interruption.SIGNALS]
        due, *signals, total = strategies.sums(self._strategy, [is_due(), *came, every])
        self._every = total // self._strategy.num_replicas_in_sync
        found = [each for each, count in zip(interruption.SIGNALS, signals) if count]
        # Of two, that which ends the process for good.
        return max(found, default=0), due > 0
