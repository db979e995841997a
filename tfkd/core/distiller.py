"""The distiller: a ``keras.Model`` that trains a student on the losses of one or several methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core.arguments import as_list, as_objectives, as_weights, non_negative
from tfkd.core.checks import check_batch
from tfkd.core.context import Context
from tfkd.core.finite import FiniteWatch
from tfkd.core.fit_callbacks import EpochClock, StopOnNonFinite
from tfkd.core.gathering import replica_count, sum_over_replicas
from tfkd.core.networks import Networks
from tfkd.core.objective import Objective, Spec, Terms
from tfkd.core.replicated_fit import ReplicatedFit
from tfkd.core.stage import Stage
from tfkd.core.task import Classification
from tfkd.core.term_means import TermMeans
from tfkd.core.updates import apply_if, gradients_are_finite
from tfkd.errors import TfkdError

NO_LIMIT = 2**62
"""Value of the step limit that never stops training."""


@dataclass(frozen=True)
class Outcome:
    """The losses of one step.

    Attributes:
        total: What is differentiated: ``student_loss_weight * label loss + sum of weighted terms``.
        values: Every number of :meth:`Distiller.loss_names`, in that order.
        terms: What each active objective returned.
    """

    total: tf.Tensor
    values: tf.Tensor
    terms: Mapping[str, Terms]


class Distiller(ReplicatedFit, keras.Model):
    """Trains a student with a label loss and any number of distillation losses.

    ``total = student_loss_weight * label_loss + sum_i weight_i * schedule_i(epoch) * loss_i``

    Every network runs once for each view and step; the losses share its outputs. The teacher runs as
    a frozen, folded copy made here (load its weights first) and is never changed itself. Only the
    student is ever saved or counted.

    The order of the arguments and the names of the metrics (``student_loss``,
    ``distillation_loss``, ``total_loss``) are those of ``keras.distillation.Distiller``, and its
    ``DistillationLoss`` objects are accepted. One thing differs: Keras weighs the label loss by ``a``
    and the distillation losses by ``1 - a``. A Keras call with ``student_loss_weight=a`` and weights
    ``w_i`` is, here::

        tfkd.Distiller(teacher, student, losses, [(1 - a) * w for w in weights], a)

    Example::

        distiller = tfkd.Distiller(teacher, student, tfkd.distillers.KD(temperature=4.0), 0.9, 0.1)
        distiller.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
        distiller.fit(images, labels, batch_size=64, epochs=10)
        student.save("student.keras")

    Args:
        teacher: A ``keras.Model`` or :class:`tfkd.models.Network` that gives logits, a list of them
            (the mean of their probabilities then teaches), or ``None``.
        student: The same for the network that is trained.
        distillation_losses: An :class:`Objective` or Keras ``DistillationLoss``, or a list; ``()``
            for plain training.
        distillation_loss_weights: A weight >= 0 for each loss; ``None`` is 1 each.
        student_loss_weight: Weight >= 0 of the label loss.
        name: Name of the model.
        task: What a label means; :class:`Classification` by default.
        train_size: Number of training images, for methods with banks or memories.
        batch_size: Images of one step, for methods that size a memory by it.
        seed: Seed of everything that objectives draw.
        teacher_dtype: ``"bfloat16"`` runs the frozen teacher in that precision.
        fold_teacher: Whether the teacher's batch normalisation is folded into its layers (checked
            equal first).
        evaluate_distillation: Whether ``evaluate`` also runs the teacher and reports the
            distillation losses and the agreement of student and teacher.

    Raises:
        TfkdError: When networks, losses and weights do not fit one another.
    """

    trainable_teacher = False
    """Whether the teacher trains beside the student; a method's own distiller may set it."""

    def __init__(
        self,
        teacher,
        student,
        distillation_losses=(),
        distillation_loss_weights=None,
        student_loss_weight: float = 1.0,
        name: str = "distiller",
        *,
        task: Classification | None = None,
        train_size: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        teacher_dtype: str | None = None,
        fold_teacher: bool = True,
        evaluate_distillation: bool = True,
    ) -> None:
        super().__init__(name=name)
        self.objectives = as_objectives(distillation_losses)
        self.loss_weights = as_weights(distillation_loss_weights, self.objectives)
        self.student_loss_weight = non_negative("student_loss_weight", student_loss_weight)
        self.task = task or Classification()
        self.evaluate_distillation = evaluate_distillation
        self.stage: Stage | None = None
        self._seed = int(seed)
        self._evaluating = False
        self._networks = Networks(
            models.as_network(student),
            [models.as_network(each) for each in as_list(teacher)],
            [objective.requires for objective in self.objectives],
            teacher_dtype=teacher_dtype,
            fold_teacher=fold_teacher,
            trainable_teacher=self.trainable_teacher,
        )
        self.student = self._networks.student.model
        self._known = {"train_size": train_size, "batch_size": batch_size}
        self._setup_objectives()
        self._make_state()
        self.built = True

    def _setup_objectives(self) -> None:
        for objective in self.objectives:
            if objective.requires.train_size and self._known["train_size"] is None:
                raise TfkdError(
                    f"{objective.name} needs the size of the training set: found None, wanted "
                    "Distiller(..., train_size=number of training images)"
                )
        spec = Spec(
            num_classes=self._networks.num_classes,
            image_shape=self._networks.input_shape,
            shapes=self._networks.shapes(),
            seed=self._seed,
            head=self._networks.head,
            network=lambda network: self._networks.network(network).model,
            **self._known,
        )
        for objective in self.objectives:
            objective.setup(spec)
            self._networks.add_companions(objective.companions)
        self._networks.check_companions()

    def _make_state(self) -> None:
        def counter(name: str, dtype: str, start: int = 0) -> keras.Variable:
            return self.add_weight(
                shape=(),
                dtype=dtype,
                initializer=keras.initializers.Constant(start),
                trainable=False,
                autocast=False,
                name=name,
                aggregation="only_first_replica",
            )

        self._epoch = counter("epoch", "float32")
        self._epochs = counter("epochs", "float32")
        self._step = counter("step", "int64")
        self._step_limit = counter("step_limit", "int64", NO_LIMIT)
        self.watch = FiniteWatch(self.loss_names(), counter)
        self._train_means = TermMeans(self.loss_names(), name="train_losses")
        self._test_means = TermMeans(self.test_names(), name="test_losses")

    # What the distiller is made of.

    def active_objectives(self) -> list[tuple[Objective, float]]:
        """Returns the objectives of the current stage with their weights."""
        pairs = list(zip(self.objectives, self.loss_weights))
        if self.stage is None or self.stage.objectives is None:
            return pairs
        return [pair for pair in pairs if pair[0].name in self.stage.objectives]

    def term_names(self) -> list[str]:
        """Returns the names under which the single terms are logged."""
        return [
            name if objective.term_names() == (objective.name,) else f"{objective.name}/{name}"
            for objective in self.objectives
            for name in objective.term_names()
        ]

    def loss_names(self) -> list[str]:
        """Returns the names of all logged losses, in the order of :attr:`Outcome.values`."""
        terms = self.term_names()
        return ["loss", "student_loss", *(["total_loss", "distillation_loss"] if terms else []), *terms]

    def test_names(self) -> list[str]:
        """Returns the names of the losses that ``evaluate`` reports."""
        if not self._distillation_is_evaluated():
            return ["loss", "student_loss"]
        teacher = ["agreement"] if self._networks.has_teacher_logits else []
        return [*self.loss_names(), *teacher]

    def _distillation_is_evaluated(self) -> bool:
        return self.evaluate_distillation and all(
            objective.requires.views in ((), ("main",)) and not objective.requires.keys
            for objective in self.objectives
        )

    @property
    def trained_variables(self) -> list[keras.Variable]:
        """The variables of the gradient: student and objectives, or what the stage names."""
        if self.stage is not None and self.stage.trainable is not None:
            return list(self.stage.trainable(self))
        twins = self._networks.companion_variable_ids()
        found = list(self.student.trainable_variables)
        for objective in self.objectives:
            found += [v for v in objective.trainable_variables if id(v) not in twins]
        return list({id(variable): variable for variable in found}.values())

    def state(self) -> dict[str, keras.Variable]:
        """Returns every variable that a continued run needs, by role and position.

        Roles: ``student``, ``objective`` (banks and seed states included), ``companion``, ``teacher``
        where it trains, ``optimizer``, ``metrics`` (the sums of the running epoch) and
        ``distiller`` (epoch and step). Positions, not paths, because paths repeat when teacher and
        student are of one architecture.
        """
        roles: dict[str, Sequence[keras.Variable]] = {"student": self.student.variables}
        for position, objective in enumerate(self.objectives):
            roles[f"objective:{position}:{objective.name}"] = objective.variables
        for name, companion in self._networks.companions.items():
            roles[f"companion:{name}"] = companion.model.variables
        if self.trainable_teacher:
            for position, teacher in enumerate(self._networks.teachers):
                roles[f"teacher:{position}"] = teacher.model.variables
        if self.compiled and self.optimizer is not None:
            roles["optimizer"] = self.optimizer.variables
        roles["metrics"] = [v for metric in self.metrics for v in metric.variables]
        roles["distiller"] = [self._epoch, self._epochs, self._step]
        listed: dict[str, keras.Variable] = {}
        seen: set[int] = set()
        for role, variables in roles.items():
            for position, variable in enumerate(variables):
                if id(variable) not in seen:
                    seen.add(id(variable))
                    listed[f"{role}/{position}"] = variable
        return listed

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        own = [self._train_means, self._test_means]
        compiled = [self._compile_metrics] if self.compiled and self._compile_metrics else []
        return own + compiled

    # Keras' doors.

    def call(self, inputs, training: bool = False):
        network = self._networks.student
        return self.student(network.preprocess(inputs), training=training)

    def compile(self, optimizer="adam", loss=None, metrics=None, **kwargs) -> None:
        """Sets optimizer, label loss and metrics.

        Args:
            optimizer: A Keras optimizer or its name.
            loss: Label loss of ``(labels, logits)``; ``None`` is the task's own.
            metrics: Keras metrics of ``(labels, logits)``; ``None`` is the task's own, weighted by
                ``sample_weight``.
            **kwargs: Further arguments of ``keras.Model.compile``, such as ``steps_per_execution``.
                ``jit_compile`` is off unless asked for.
        """
        if loss is not None:
            self.task = type(self.task)(loss)
        kwargs.setdefault("jit_compile", False)
        if metrics is None and "weighted_metrics" not in kwargs:
            kwargs["weighted_metrics"] = self.task.metrics()
        super().compile(optimizer=optimizer, loss=None, metrics=metrics, **kwargs)
        self.optimizer.build(self.trained_variables)

    def enter_stage(self, stage: Stage | None) -> None:
        """Makes a stage the current one; ``compile`` again afterwards.

        Args:
            stage: The stage, or ``None`` for all objectives and variables.
        """
        self.stage = stage
        self.train_function = None

    def fit(self, *args, callbacks=None, epochs: int = 1, **kwargs):
        """As ``keras.Model.fit``; objectives also learn the epoch, and a NaN stops the run.

        Raises:
            NonFiniteLoss: When a loss or gradient is not finite.
            TfkdError: When the batches lack something that an objective needs.
        """
        callbacks = [EpochClock(epochs), StopOnNonFinite(), *as_list(callbacks)]
        if args and isinstance(args[0], tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # Keras warns that it leaves a data set's order.
        self.watch.reset()
        return super().fit(*args, callbacks=callbacks, epochs=epochs, **kwargs)

    def evaluate(self, *args, **kwargs):
        """As ``keras.Model.evaluate``: label loss and metrics of the student in inference mode."""
        self._evaluating = True
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._evaluating = False

    def prepare_for(self, element_spec) -> None:
        batch = self.task.batch(element_spec)
        keys = ["image"]
        if not self._evaluating:
            keys = list(self._networks.keys)
            keys += [key for objective in self.objectives for key in objective.requires.keys]
        check_batch(
            batch,
            keys=keys,
            input_shape=self._networks.input_shape,
            num_classes=self._networks.num_classes,
            objectives=self.objectives,
        )
        if self._compile_metrics is not None and not self._compile_metrics.built:
            spec = batch["label"]
            labels = tf.zeros([1, *(size or 1 for size in spec.shape[1:])], spec.dtype)
            with self.distribute_strategy.scope():
                self._compile_metrics.build(labels, tf.zeros((1, self._networks.num_classes)))

    def may_step(self) -> tf.Tensor:
        """Returns whether another step may run: all finite so far, and within the step limit."""
        below = tf.less(tf.convert_to_tensor(self._step), tf.convert_to_tensor(self._step_limit))
        return tf.logical_and(self.watch.good(), below)

    # The clock.

    @property
    def step(self) -> int:
        """Training steps done so far."""
        return int(self._step.numpy())

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0, that schedules and objectives see."""
        self._epoch.assign(epoch)

    def set_epochs(self, epochs: int) -> None:
        """Sets the number of epochs of the run."""
        self._epochs.assign(epochs)

    def limit_steps(self, last_step: int | None) -> None:
        """Makes training stop at a step even within a call of several steps; ``None`` lifts it."""
        self._step_limit.assign(NO_LIMIT if last_step is None else last_step)

    # One step.

    def train_step(self, data):
        """Runs one training step: networks once, all losses, one gradient, one update."""
        batch = self.task.batch(data)
        with tf.GradientTape() as tape:
            context = self.observe(batch, training=True)
            outcome = self.weigh(context)
            scaled = self.optimizer.scale_loss(outcome.total / replica_count())
        variables = self.trained_variables
        gradients = tape.gradient(scaled, variables)
        self.update(context, outcome, gradients, variables)
        return self.train_results()

    def test_step(self, data):
        """Evaluates the student on one batch, in inference mode, without touching any state."""
        batch = self.task.batch(data)
        context = self.observe(batch, training=False)
        weights = batch.get("sample_weight")
        logits = context.student_logits
        if self._distillation_is_evaluated():
            values = list(tf.unstack(self.weigh(context).values))
            if self._networks.has_teacher_logits:
                same = tf.equal(tf.argmax(context.teacher(), -1), tf.argmax(logits, -1))
                values.append(context.mean(tf.cast(same, tf.float32)))
        else:
            loss = context.mean(self.task.label_loss(batch["label"], logits))
            values = [self.student_loss_weight * loss, loss]
        rows = tf.shape(logits)[0] if weights is None else tf.reduce_sum(weights)
        self._test_means.update_state(self._over_replicas(tf.stack(values)), rows)
        if self._compile_metrics is not None:
            self._compile_metrics.update_state(batch["label"], logits, weights)
        return self.test_results()

    def observe(self, batch: Mapping[str, tf.Tensor], *, training: bool) -> Context:
        """Runs the networks on a batch and returns what the objectives see.

        Args:
            batch: The batch as a dict.
            training: Whether this is a training step.
        """
        common = dict(
            training=training,
            epoch=tf.convert_to_tensor(self._epoch),
            epochs=tf.convert_to_tensor(self._epochs),
            step=tf.convert_to_tensor(self._step),
            seed=self._seed,
            heads=self._networks.head,
        )
        objectives = [objective for objective, _ in self.active_objectives()]
        if training:
            before = Context(batch, outputs={}, **common)
            for objective in objectives:
                objective.before_step(before)
        networks = None if training or self._distillation_is_evaluated() else ("student",)
        views = None if training else ("main",)
        outputs = self._networks.run(batch, training=training, views=views, only=networks)
        context = Context(batch, outputs=outputs, **common)
        for objective in objectives if training else ():
            logits = objective.student_logits(context)
            if logits is not None:
                context.replace_student_logits(logits)
        return context

    def weigh(self, context: Context) -> Outcome:
        """Forms every loss of a batch, and their weighted sum.

        Args:
            context: What :meth:`observe` returned.
        """
        label_weight = self.student_loss_weight
        if self.stage is not None and self.stage.student_loss_weight is not None:
            label_weight = self.stage.student_loss_weight
        active = self.active_objectives()
        label_loss = tf.zeros(())
        if not any(objective.label_loss == "own" for objective, _ in active):
            label_loss = context.mean(self.task.label_loss(context.labels, context.student_logits))
        terms: dict[str, Terms] = {}
        values: dict[str, tf.Tensor] = {}
        distillation = tf.zeros(())
        for objective, weight in active:
            found = objective.to_terms(objective.compute(context))
            terms[objective.name] = found
            factors = objective.schedule(context.epoch)
            for name, value in found.losses.items():
                factor = factors[name] if isinstance(factors, Mapping) else factors
                distillation += weight * tf.cast(factor, tf.float32) * tf.cast(value, tf.float32)
                values[f"{objective.name}/{name}"] = tf.cast(value, tf.float32)
        total = label_weight * label_loss + distillation
        listed = [
            values.get(f"{objective.name}/{name}", tf.zeros(()))
            for objective in self.objectives
            for name in objective.term_names()
        ]
        totals = [total, distillation] if listed else []
        return Outcome(total, tf.stack([total, label_loss, *totals, *listed]), terms)

    def update(
        self,
        context: Context,
        outcome: Outcome,
        gradients: Sequence[tf.Tensor | None],
        variables: Sequence[keras.Variable],
    ) -> None:
        """Applies the gradients, lets objectives write their state, and keeps the running means.

        Nothing is applied from the first non-finite loss or gradient on.

        Args:
            context: The step.
            outcome: Its losses.
            gradients: Of the total divided by the number of replicas, one for each variable.
            variables: The variables to update.
        """
        pairs = [(g, v) for g, v in zip(gradients, variables) if g is not None]
        values = self._over_replicas(outcome.values)
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        finite = tf.constant(True) if scaled else gradients_are_finite([g for g, _ in pairs])
        ok = self.watch.observe(values, finite, context.step, context.epoch)
        apply_if(ok, self.optimizer, pairs)
        for objective, _ in self.active_objectives():
            objective.after_step(context, outcome.terms[objective.name].carry)
        weights = context.batch.get("sample_weight")
        self._train_means.update_state(values, tf.shape(context.student_logits)[0])
        if self._compile_metrics is not None:
            self._compile_metrics.update_state(context.labels, context.student_logits, weights)
        self._step.assign(self._step + 1)

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """Returns the means of what is running: an epoch or an evaluation."""
        return self.test_results() if self._evaluating else self.train_results()

    def train_results(self) -> dict[str, tf.Tensor]:
        """Returns the running means of the epoch."""
        return self._results(self._train_means)

    def test_results(self) -> dict[str, tf.Tensor]:
        """Returns the means of an evaluation."""
        return self._results(self._test_means)

    def _results(self, means: TermMeans) -> dict[str, tf.Tensor]:
        compiled = self._compile_metrics.result() if self._compile_metrics is not None else {}
        return {**compiled, **means.result()}

    @staticmethod
    def _over_replicas(values: tf.Tensor) -> tf.Tensor:
        return sum_over_replicas(values) / replica_count()
