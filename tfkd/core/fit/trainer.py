"""How Keras reaches the distiller: ``compile``, ``fit``, ``evaluate``, ``predict``, ``save``."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.core.arguments import as_list
from tfkd.core.checks import check_batch
from tfkd.core.fit.callbacks import (
    CHECK_EVERY,
    EpochClock,
    ShortProgressBar,
    StopOnNonFinite,
)
from tfkd.core.fit.distributed import DistributedFit
from tfkd.core.step.updates import check_optimizer
from tfkd.core.tasks.task import Task
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models.description import describe_in_file, description_in_file


class Trainer(DistributedFit):
    """The part of :class:`tfkd.Distiller` that overrides methods of ``keras.Model``."""

    task: Task

    def call(self, inputs, training: bool = False):
        images = inputs["image"] if isinstance(inputs, Mapping) else inputs
        return self.student(self._networks.student.preprocess(images), training=training)

    def compile(self, optimizer="adam", loss=None, metrics=None, **kwargs) -> None:
        """Sets optimizer, label loss and metrics.

        Args:
            optimizer: A Keras optimizer or its name.
            loss: Label loss of ``(labels, logits)``; ``None`` is the task's own. Methods that have
                one themselves train with theirs, which a warning tells.
            metrics: Keras metrics of ``(labels, logits)``; ``None`` are the task's own, weighted by
                ``sample_weight``.
            **kwargs: Further arguments of ``keras.Model.compile``, such as ``steps_per_execution``.
                ``jit_compile`` is off unless asked for.

        Raises:
            TfkdError: For a loss of probabilities or one that is no mean over the samples,
                ``loss_weights``, or an optimizer that cannot work here.
        """
        if kwargs.get("loss_weights") is not None:
            raise TfkdError(
                f"compile: found loss_weights={kwargs['loss_weights']!r}, which weigh nothing, "
                "wanted student_loss_weight and distillation_loss_weights of the distiller"
            )
        if loss is not None:
            self.task = self.task.with_loss(loss)
        self._tell_of_replaced_loss(loss is not None or self.task.has_given_loss)
        kwargs.setdefault("jit_compile", False)
        # Keras holds the task's metrics, names and resets them; the step itself updates them,
        # because they see the batch and all outputs.
        self.metrics_are_own = metrics is None and "weighted_metrics" not in kwargs
        if self.metrics_are_own:
            with self.distribute_strategy.scope():
                kwargs["weighted_metrics"] = self.task.metrics(self._networks.student)
            made = [metric.name for metric in kwargs["weighted_metrics"]]
            if self.task.score.metric not in made:
                raise TfkdError(
                    f"task {self.task.name!r}: found the metrics {', '.join(made) or 'none'}, "
                    f"wanted {self.task.score.metric!r}, that of its score, among them"
                )
        super().compile(optimizer=optimizer, loss=None, metrics=metrics, **kwargs)
        self._single_batches = 0
        check_optimizer(self.optimizer, self.distribute_strategy, self.trained_variables)
        self.optimizer.build(self.trained_variables)
        listed = keras.tree.flatten([metrics, kwargs.get("weighted_metrics")])
        if not any(isinstance(metric, str) for metric in listed):
            self._build_metrics(tf.TensorSpec((None,), tf.int32))

    def _tell_of_replaced_loss(self, given: bool) -> None:
        """Warns of a label loss that no gradient sees, because a method has one in its place."""
        replacing = [each.name for each in self.objectives if each.replaces_label_loss]
        if given and replacing:
            warnings.warn(
                f"compile: found a label loss, but {replacing[0]} has one of its own in its place: "
                "the given one is logged as student_loss and trains nothing",
                TfkdWarning,
                stacklevel=3,
            )

    def _build_metrics(self, label: tf.TypeSpec) -> None:
        """Makes the variables of the metrics; what one named by a word is depends on the labels."""
        if self._compile_metrics is None or self._compile_metrics.built:
            return
        if self.metrics_are_own:
            with self.distribute_strategy.scope():
                self._compile_metrics.build(tf.zeros((1, 1)), tf.zeros((1, 1)))
            return
        logits = models.outputs(self.student).get("logits")
        if logits is None:
            raise TfkdError(
                f"metrics of {self.name!r}: found a student without an output 'logits', wanted "
                f"metrics=None, those of task {self.task.name!r}"
            )
        labels = tf.zeros([1, *(size or 1 for size in label.shape[1:])], label.dtype)
        with self.distribute_strategy.scope():
            self._compile_metrics.build(labels, tf.zeros((1, logits.shape[-1])))

    def fit(
        self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs
    ):
        """As ``keras.Model.fit``; objectives also learn the epoch, and a NaN stops the run.

        Raises:
            NonFiniteLoss: When a loss or gradient is not finite.
            TfkdError: When the batches lack something that an objective needs, labels are none of
                the task, a callback monitors what no evaluation gives, or a frozen teacher has
                other weights than its copy was made of.
        """
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # Keras warns that it leaves a data set's order.
        self.watch.reset()
        self.set_epochs(epochs)
        callbacks = as_list(callbacks)
        for callback in callbacks:
            self._check_monitor(callback)
        self._check_labels(x, y, training=True)
        callbacks = [EpochClock(), StopOnNonFinite(), *callbacks, *self._bar(verbose, callbacks)]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def _bar(self, verbose, callbacks: Sequence) -> list[ShortProgressBar]:
        """Returns the progress bar, where it is drawn and is not Keras' own or a given one."""
        given = any(isinstance(each, keras.callbacks.ProgbarLogger) for each in callbacks)
        if not verbose or given or not self.task.in_bar:
            return []
        own = {*self.loss_names(), *self.test_names()}
        if self.metrics_are_own:
            own |= {metric.name for metric in self._compile_metrics.metrics}
        return [ShortProgressBar(own - set(self.task.in_bar))]

    def _check_monitor(self, callback) -> None:
        """Refuses a callback that waits for a loss which evaluations leave out."""
        monitored = getattr(callback, "monitor", None)
        if not isinstance(monitored, str) or not monitored.startswith("val_"):
            return
        name = monitored.removeprefix("val_")
        if name in self.loss_names() and name not in self.test_names():
            raise TfkdError(
                f"callback {type(callback).__name__}: found monitor={monitored!r}, but evaluations "
                "here do not form every distillation loss and so no total, wanted "
                f"'val_{self.task.score.metric}', or 'val_student_loss' with mode='min'"
            )

    def _check_labels(self, x, y, *, training: bool) -> None:
        """Looks at labels that are given as an array, which can be done before the first step."""
        labels = x.get("label") if y is None and isinstance(x, Mapping) else y
        if hasattr(labels, "__array__"):  # Of NumPy, TensorFlow, pandas, ...
            labels = np.asarray(labels)
        if isinstance(labels, np.ndarray) and labels.size:
            self.task.check_labels(labels, self._networks.facts, training=training)

    def train_on_batch(self, *args, **kwargs):
        """As ``keras.Model.train_on_batch``; the epoch stays what :meth:`set_epoch` made it.

        Raises:
            TfkdError: When an objective needs the number of epochs, and nobody gave it, or images
                are not where their ``index`` says.
        """
        self._check_teachers_now_and_then()
        waiting = [each.name for each in self.objectives if each.requires.epochs]
        if waiting and not int(self.clock.epochs.numpy()):
            raise TfkdError(
                f"{waiting[0]} needs the number of epochs of the run: found none, wanted "
                "set_epochs before train_on_batch, or fit"
            )
        found = super().train_on_batch(*args, **kwargs)
        if any(map(self._reads_positions, self.active_requirements())):
            self.watch.check_images()
        return found

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        """As ``keras.Model.evaluate``: losses and metrics of the student in inference mode.

        ``loss`` means what it does in training; where an evaluation cannot form all of it, the list
        begins with ``student_loss``.
        """
        self._check_labels(x, y, training=False)
        self.check_teachers()
        if not isinstance(callbacks, keras.callbacks.CallbackList):  # Those of fit have a bar.
            callbacks = as_list(callbacks)
            callbacks += self._bar(verbose, callbacks)
        with self._as_evaluation():
            return super().evaluate(
                x, y, batch_size, verbose, sample_weight, steps, callbacks, return_dict, **kwargs
            )

    def test_on_batch(self, *args, **kwargs):
        """As ``keras.Model.test_on_batch``."""
        self._check_teachers_now_and_then()
        with self._as_evaluation():
            return super().test_on_batch(*args, **kwargs)

    def _check_teachers_now_and_then(self) -> None:
        """Looks at the teachers at the first of single batches and at every fiftieth."""
        if self._single_batches % CHECK_EVERY == 0:  # Reading them may take as long as a step.
            self.check_teachers()
        self._single_batches += 1

    @contextlib.contextmanager
    def _as_evaluation(self) -> Iterator[None]:
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False

    @property
    def metrics_names(self) -> list[str]:
        """Names of the numbers of ``evaluate``, in the order of its list.

        First the loss, or without a total the student's.
        """
        compiled = list(self._compile_metrics.result()) if self._compile_metrics is not None else []
        return _loss_first([*compiled, *self.test_names()])

    def _flatten_metrics_in_order(self, logs) -> list:
        return [logs[name] for name in _loss_first(logs)]

    def save(self, filepath, overwrite: bool = True, **kwargs) -> None:
        """Saves the student alone, as ``keras.Model.save`` does; so does ``ModelCheckpoint``.

        A ``.keras`` file also says how pixels reach the network, and names its classes, for
        :func:`tfkd.models.load_network_file`.
        """
        student = self.clean_student()
        student.model.save(filepath, overwrite=overwrite, **kwargs)
        described = str(filepath).endswith(".keras") and Path(filepath).is_file()
        if described and models.is_functional(student.model):
            if description_in_file(filepath) is None:
                describe_in_file(Path(filepath), student)
        elif student.preprocess != models.Preprocess.none() or student.class_names is not None:
            warnings.warn(
                f"{str(filepath)!r}: nothing in it says how pixels reach {student.name!r} "
                f"({student.preprocess}) or names its classes; a .keras file of a functional "
                "model does",
                TfkdWarning,
                stacklevel=2,
            )

    def export(self, filepath, *args, **kwargs) -> None:
        """Exports the student alone, as ``keras.Model.export`` does.

        What is done to pixels before the network is left out, which a warning tells:
        :func:`tfkd.export.save` puts it inside.
        """
        student = self.clean_student()
        if student.preprocess != models.Preprocess.none():
            warnings.warn(
                f"export of {student.name!r}: what is done to pixels before it is left out "
                f"({student.preprocess}); tfkd.export.save puts it inside",
                TfkdWarning,
                stacklevel=2,
            )
        student.model.export(filepath, *args, **kwargs)

    def prepare_for(self, element_spec) -> None:
        batch = self.task.batch(element_spec)
        keys = ["image"]
        needs = {o.name: o.requires_in(self.stage_name) for o, _ in self.active_objectives()}
        if not self._evaluating:
            keys = list(self._plan.keys)
            keys += [key for each in needs.values() for key in each.all_keys]
        check_batch(batch, keys=keys, input_shape=self._networks.input_shape)
        facts = self._networks.facts
        self.task.check_batch(batch, facts)
        if self.task.has_soft_labels(batch, facts):
            for name, each in needs.items():
                if not each.allows_soft_labels:
                    raise TfkdError(
                        f"{name} works on class numbers: found dense labels of width "
                        f"{batch['label'].shape[-1]}"
                    )
        self._build_metrics(batch["label"])


def _loss_first(names: Iterable[str]) -> list[str]:
    """Orders names as Keras does, by the alphabet, but begins with the loss."""
    names = set(names)
    first = "loss" if "loss" in names else "student_loss"
    return sorted(names, key=lambda name: (name != first, name))
