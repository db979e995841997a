"""The distiller: a ``keras.Model`` that trains a student on the losses of one or several methods."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core.arguments import as_list, as_objectives, as_weights
from tfkd.core.fit.trainer import Trainer
from tfkd.core.networks import STUDENT, Networks
from tfkd.core.objective import NetworkView, Objective, Spec
from tfkd.core.stage import Stage, frozen_layers
from tfkd.core.state import by_role
from tfkd.core.step.clock import NO_LIMIT, Clock
from tfkd.core.step.context import Context
from tfkd.core.step.losses import StepLosses, combine, names_of
from tfkd.core.step.nonfinite import NonFiniteWatch
from tfkd.core.step.replicas import replica_count, sum_over_replicas
from tfkd.core.step.term_means import TermMeans
from tfkd.core.step.updates import Pairs, apply_if, gradients_are_finite
from tfkd.core.tasks.classification import Classification
from tfkd.errors import TfkdError, unknown
from tfkd.settings import NonNegative, checked


class Distiller(Trainer, keras.Model):
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
        self.student_loss_weight = checked("student_loss_weight", NonNegative, student_loss_weight)
        self.task = task or Classification()
        self.evaluate_distillation = evaluate_distillation
        self.stage: Stage | None = None
        self._seed = int(seed)
        self._evaluating = False
        student = models.as_network(student)
        teachers = [models.as_network(each) for each in as_list(teacher)]
        for objective in self.objectives:
            self._check_kind(objective)
            objective.choose_taps(student.model, [each.model for each in teachers])
        self._networks = Networks(
            student,
            teachers,
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

    def _check_kind(self, objective: Objective) -> None:
        kind = objective.distiller_class
        if kind is not None and not isinstance(self, kind):
            raise TfkdError(
                f"{objective.name} has a training step of its own: found {type(self).__name__}, "
                f"wanted {kind.__name__}(teacher, student, ...)"
            )

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
        self.clock = Clock()
        self.watch = NonFiniteWatch(self.loss_names())
        self._train_means = TermMeans(self.loss_names(), name="train_losses")
        self._test_means = TermMeans(self.test_names(), name="test_losses")

    # What the distiller is made of.

    def active_objectives(self) -> list[tuple[Objective, float]]:
        """Returns the objectives of the current stage with their weights."""
        pairs = list(zip(self.objectives, self.loss_weights))
        if self.stage is None or self.stage.objectives is None:
            return pairs
        return [pair for pair in pairs if pair[0].name in self.stage.objectives]

    @property
    def teachers(self) -> list[keras.Model]:
        """The teachers as they are run: frozen copies, unless they train.

        Once training or evaluation has begun, new weights of a copy may not be heeded: the graph
        may hold the old ones as constants.
        """
        return [network.model for network in self._networks.run_teachers]

    def loss_names(self) -> list[str]:
        """Returns the names of all logged losses, in the order of :attr:`StepLosses.values`."""
        return names_of(self.objectives)

    def test_names(self) -> list[str]:
        """Returns the names of the losses that ``evaluate`` reports."""
        if not self._distillation_is_evaluated():
            return ["loss", "student_loss"]
        teacher = ["agreement"] if self._networks.has_teacher_logits else []
        return [*self.loss_names(), *teacher]

    def _distillation_is_evaluated(self) -> bool:
        return self.evaluate_distillation and all(
            objective.requires.views in ((), ("main",)) and not objective.requires.all_keys
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

    # Keras hands these to the optimizer after ``fit``, in the order in which it was built.
    trainable_variables = trainable_weights = trained_variables

    @property
    def student_variables(self) -> list[keras.Variable]:
        """The variables that the finished student is made of: its own, and those merged into it."""
        merged = [each for each in self.objectives if each.merges]
        return [*self.student.variables, *(v for each in merged for v in each.variables)]

    def state(self) -> dict[str, keras.Variable]:
        """Returns every variable that a continued run needs, by role and position.

        Roles: ``student``, ``objective`` (banks and seed states included), ``companion``, ``teacher``
        where it trains, ``optimizer``, ``metrics`` (the sums of the running epoch) and
        ``distiller`` (epoch and step). Complete after ``compile``; where metrics are given by name,
        after :meth:`prepare_for`.
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
        roles["distiller"] = [self.clock.epoch, self.clock.epochs, self.clock.step]
        return by_role(roles)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        own = [self._train_means, self._test_means]
        compiled = [self._compile_metrics] if self.compiled and self._compile_metrics else []
        return own + compiled

    def enter_stage(self, stage: Stage | None) -> None:
        """Makes a stage the current one; ``compile`` again afterwards.

        Args:
            stage: The stage, or ``None`` for all objectives and variables.

        Raises:
            TfkdError: When it names an objective that is not there.
        """
        names = [objective.name for objective in self.objectives]
        for name in (stage.objectives or ()) if stage is not None else ():
            if name not in names:
                raise unknown(f"objective of stage {stage.name}", name, names)
        self.stage = stage
        self.train_function = self.test_function = None

    @contextlib.contextmanager
    def step_scope(self) -> Iterator[None]:
        """Holds while a training step is traced: what a stage does not train is frozen."""
        if self.stage is None or self.stage.trainable is None:
            yield
            return
        roots = [self.student, *self.objectives]
        twins = {id(layer) for layer in self._networks.companion_layers()}
        layers = [layer for root in roots for layer in root._flatten_layers()]
        with frozen_layers(
            [layer for layer in layers if id(layer) not in twins], self.stage.trainable(self)
        ):
            yield

    def may_step(self) -> tf.Tensor:
        """Returns whether another step may run: all finite so far, and within the step limit."""
        return tf.logical_and(self.watch.good(), self.clock.may_step())

    # The clock.

    @property
    def step(self) -> int:
        """Training steps done so far."""
        return int(self.clock.step.numpy())

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0, that schedules and objectives see."""
        self.clock.epoch.assign(epoch)

    def set_epochs(self, epochs: int) -> None:
        """Sets the number of epochs of the run."""
        self.clock.epochs.assign(epochs)

    def limit_steps(self, last_step: int | None) -> None:
        """Makes training stop at a step even within a call of several steps; ``None`` lifts it."""
        self.clock.step_limit.assign(NO_LIMIT if last_step is None else last_step)

    # One step.

    def train_step(self, data):
        """Runs one training step: networks once, all losses, one gradient, one update."""
        batch = self.task.batch(data)
        with tf.GradientTape() as tape:
            context = self.forward(batch, training=True)
            outcome = self.combine(context)
            scaled = self.optimizer.scale_loss(outcome.total / replica_count())
        variables = self.trained_variables
        gradients = tape.gradient(scaled, variables)
        self.update(context, outcome, gradients, variables)
        return self.train_results()

    def test_step(self, data):
        """Evaluates the student on one batch, in inference mode, without touching any state."""
        batch = self.task.batch(data)
        context = self.forward(batch, training=False)
        weights = batch.get("sample_weight")
        logits = context.student_logits
        values = self.test_values(context)
        rows = tf.shape(logits)[0] if weights is None else tf.reduce_sum(weights)
        self._test_means.update_state(self._over_replicas(tf.stack(values)), rows)
        if self._compile_metrics is not None:
            self._compile_metrics.update_state(batch["label"], logits, weights)
        return self.test_results()

    def test_places(self) -> set[NetworkView]:
        """Returns which networks ``evaluate`` runs on which views."""
        with_losses = self._distillation_is_evaluated()
        return {STUDENT, *(self._networks.places("main") if with_losses else ())}

    def test_values(self, context: Context) -> list[tf.Tensor]:
        """Returns the numbers of :meth:`test_names` for a batch of an evaluation.

        Args:
            context: What :meth:`forward` returned.
        """
        logits = context.student_logits
        if not self._distillation_is_evaluated():
            loss = context.mean(self.task.label_loss(context.labels, logits))
            return [self.student_loss_weight * loss, loss]
        values = list(tf.unstack(self.combine(context).values))
        if self._networks.has_teacher_logits:
            same = tf.equal(tf.argmax(context.teacher(), -1), tf.argmax(logits, -1))
            values.append(context.mean(tf.cast(same, tf.float32)))
        return values

    def forward(self, batch: Mapping[str, tf.Tensor], *, training: bool) -> Context:
        """Runs the networks on a batch and returns what the objectives see.

        Args:
            batch: The batch as a dict.
            training: Whether this is a training step.
        """
        common = {
            "training": training,
            "epoch": tf.convert_to_tensor(self.clock.epoch),
            "epochs": tf.convert_to_tensor(self.clock.epochs),
            "step": tf.convert_to_tensor(self.clock.step),
            "seed": self._seed,
            "heads": self._networks.head,
        }
        objectives = [objective for objective, _ in self.active_objectives()]
        if training:
            before = Context(batch, outputs={}, **common)
            for objective in objectives:
                objective.before_step(before)
            places = {place for objective in objectives for place in objective.requires.taps}
        else:
            places = self.test_places()
        outputs = self._networks.run(batch, places, training=training)
        context = Context(batch, outputs=outputs, **common)
        for objective in objectives:
            logits = objective.student_logits(context)
            if logits is not None:
                context.replace_student_logits(logits)
        if not context.student_logits_are_replaced and STUDENT not in outputs:
            outputs.update(self._networks.run(batch, {STUDENT}, training=training))
        return context

    def combine(self, context: Context) -> StepLosses:
        """Forms every loss of a batch, and their weighted sum.

        Args:
            context: What :meth:`forward` returned.
        """
        label_weight = self.student_loss_weight
        if self.stage is not None and self.stage.student_loss_weight is not None:
            label_weight = self.stage.student_loss_weight
        active = self.active_objectives()
        return combine(context, self.task, self.objectives, active, label_weight)

    def update(
        self,
        context: Context,
        outcome: StepLosses,
        gradients: Sequence[tf.Tensor | None],
        variables: Sequence[keras.Variable],
        further: Sequence[tuple[keras.optimizers.Optimizer, Pairs]] = (),
    ) -> None:
        """Applies the gradients, lets objectives write their state, and keeps the running means.

        Nothing is applied from the first non-finite loss or gradient on.

        Args:
            context: The step.
            outcome: Its losses.
            gradients: Of the total divided by the number of replicas, one for each variable.
            variables: The variables to update.
            further: Optimizers of networks that train beside the student, each with its gradients,
                divided in the same way, and their variables.
        """
        pairs = [(g, v) for g, v in zip(gradients, variables) if g is not None]
        values = self._over_replicas(outcome.values)
        # An optimizer with a loss scale looks for overflow itself, and goes on after one.
        watched = [
            gradient
            for optimizer, each in [(self.optimizer, pairs), *further]
            if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
            for gradient, _ in each
        ]
        finite = gradients_are_finite(watched)
        ok = self.watch.observe(values, finite, context.step, context.epoch)

        def write_state() -> None:
            for objective, _ in self.active_objectives():
                objective.after_step(context, outcome.terms[objective.name].carry)

        apply_if(ok, self.optimizer, pairs, write_state)
        for optimizer, each in further:
            apply_if(ok, optimizer, each)
        weights = context.batch.get("sample_weight")
        self._train_means.update_state(values, tf.shape(context.student_logits)[0])
        if self._compile_metrics is not None:
            self._compile_metrics.update_state(context.labels, context.student_logits, weights)
        self.clock.tick()

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
