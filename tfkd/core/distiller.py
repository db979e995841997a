"""The distiller: a ``keras.Model`` that trains a student on the losses of methods."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.core.arguments import as_list, as_objectives, as_weights, check_name
from tfkd.core.fit.trainer import Trainer
from tfkd.core.networks import Networks
from tfkd.core.objective import Finish, Objective, Requires, Spec
from tfkd.core.stage import Stage
from tfkd.core.state import by_role
from tfkd.core.step.cached_taps import check_constant
from tfkd.core.step.clock import NO_LIMIT, Clock
from tfkd.core.step.freezing import frozen_layers
from tfkd.core.step.losses import OWN, names_of
from tfkd.core.step.nonfinite import NonFiniteWatch
from tfkd.core.step.own_losses import is_regularized
from tfkd.core.step.positions import Positions, checked_labels
from tfkd.core.step.steps import Steps
from tfkd.core.step.term_means import TermMeans
from tfkd.core.step.views import STUDENT, ViewPlan, union_of_taps, view_of_main_rows
from tfkd.core.tasks import registry as tasks
from tfkd.core.tasks.task import Task
from tfkd.core.together import check_together
from tfkd.errors import TfkdError, TfkdWarning, unknown
from tfkd.settings import NonNegative, checked

NOT_VARIANTS = ("last", "best", "teacher")
"""Words for the networks of a run that are no variants."""


class Distiller(Steps, Trainer, keras.Model):
    """Trains a student with a label loss and any number of distillation losses.

    ``total = student_loss_weight * label_loss + sum_i weight_i * schedule_i(epoch) * loss_i``

    The label loss is the task's and what the student holds itself, its ``losses`` in Keras' sense
    (regularizers, ``add_loss``). ``loss`` is this total in training and in evaluation; an
    evaluation that cannot form all of it reports ``student_loss`` and no ``loss``.

    Every network runs once for each view and step; the losses share its outputs. The teacher runs
    as a frozen, folded copy made here and is never changed itself: load its weights first, other
    ones are refused later on. Only the student is ever saved or counted.

    The order of the arguments and the names of the metrics (``student_loss``,
    ``distillation_loss``, ``total_loss``) are those of ``keras.distillation.Distiller``, and its
    ``DistillationLoss`` objects are accepted. One thing differs: Keras weighs the label loss by
    ``a`` and the distillation losses by ``1 - a``. A Keras call with ``student_loss_weight=a`` and
    weights ``w_i`` is, here::

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
        student_loss_weight: Weight >= 0 of the label loss, regularizers of the student included.
        name: Name of the model.
        task: What a label means; by default classification, at every exit of a student with
            several.
        train_size: Number of training images, for methods with banks or memories.
        train_labels: Label of each training image, int ``(train_size,)``, for methods that choose
            negatives of other classes. Images of training at other positions (``index``), or of
            another label than theirs here, stop the training.
        batch_size: Images of one step, for methods that size a memory by it.
        seed: Seed of everything that objectives draw.
        teacher_dtype: ``"bfloat16"`` runs the frozen teacher in that precision.
        fold_teacher: Whether the teacher's batch normalization is folded into its layers (checked
            equal first).
        evaluate_distillation: Whether ``evaluate`` also runs the teacher and reports the
            distillation losses, the total and the agreement of student and teacher, where the
            losses read nothing but the main view.

    Raises:
        TfkdError: When networks, losses and weights do not fit one another.
    """

    trainable_teacher = False
    """Whether the teacher trains beside the student; a method's own distiller may set it."""

    weighted_names: tuple[str, ...] = ("agreement",)
    """Which logged numbers are means by ``sample_weight``, as metrics are, instead of losses."""

    def __init__(
        self,
        teacher,
        student,
        distillation_losses=(),
        distillation_loss_weights=None,
        student_loss_weight: float = 1.0,
        name: str = "distiller",
        *,
        task: Task | None = None,
        train_size: int | None = None,
        train_labels: np.ndarray | None = None,
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
        self.evaluate_distillation = evaluate_distillation
        self.stage: Stage | None = None
        self._seed = int(seed)
        self._evaluating = False
        self._student_at: dict = {}
        student = models.as_network(student)
        teachers = [models.as_network(each) for each in as_list(teacher)]
        self.task = task or tasks.create(student.task, student)
        for objective in self.objectives:
            check_name(objective.name, [self.task.score.metric])
            self._check_kind(objective)
            objective.choose_taps(student, teachers)
        check_together(self.objectives)
        self._networks = Networks(
            student,
            teachers,
            self.task,
            [objective.requires for objective in self.objectives],
            teacher_dtype=teacher_dtype,
            fold_teacher=fold_teacher,
            trainable_teacher=self.trainable_teacher,
        )
        self.student = self._networks.student.model
        self._label_terms = tuple(self.task.label_terms(self._networks.student))
        if is_regularized(self.student):
            self._label_terms += (OWN,)
        self._known: dict[str, Any] = {
            "train_size": train_size,
            "train_labels": train_labels,
            "batch_size": batch_size,
        }
        self._setup_objectives()
        self._positions = Positions(train_size, self._known["train_labels"])
        self._make_state()
        self.enter_stage(None)
        self.built = True

    def _check_kind(self, objective: Objective) -> None:
        kind = objective.distiller_class
        if kind is not None and not isinstance(self, kind):
            raise TfkdError(
                f"{objective.name} has a training step of its own: found {type(self).__name__}, "
                f"wanted {kind.__name__}(teacher, student, ...)"
            )
        known = objective.requires.tasks
        if known is not None and self.task.name not in known:
            raise TfkdError(
                f"{objective.name} works on {' and '.join(known)}: found task {self.task.name!r}"
            )

    def _setup_objectives(self) -> None:
        wanted = {
            "train_size": "the size of the training set",
            "train_labels": "the labels of the training set",
        }
        for objective in self.objectives:
            for argument, words in wanted.items():
                if getattr(objective.requires, argument) and self._known[argument] is None:
                    raise TfkdError(
                        f"{objective.name} needs {words}: found None, wanted "
                        f"Distiller(..., {argument}={words.removeprefix('the ')})"
                    )
        readers = [each for each in self.objectives if self._reads_positions(each.requires)]
        labels = self._known["train_labels"]
        if readers and labels is not None:
            size, who = self._known["train_size"], readers[0].name
            self._known["train_labels"] = checked_labels(labels, size, who)
        else:
            self._known["train_labels"] = None
        spec = Spec(
            num_classes=self._networks.facts.get("classes"),
            image_shape=self._networks.input_shape,
            shapes=self._networks.shapes(),
            seed=self._seed,
            head=self._networks.head,
            network=self._networks.network,
            **self._known,
        )
        for objective in self.objectives:
            objective.setup(spec)
            self._networks.add_companions(objective.companions)
            self._tell_of_regularizers(objective)

    @staticmethod
    def _reads_positions(requires: Requires) -> bool:
        return requires.index or requires.train_labels

    def _tell_of_regularizers(self, objective: Objective) -> None:
        """Warns of regularizers in the layers of a method: ``compute`` alone says what it adds."""
        left_out = self._networks.companion_variable_ids()
        left_out |= {id(v) for v in self.student.variables}
        found = [
            variable.path
            for variable in objective.trainable_variables
            if variable.regularizer is not None and id(variable) not in left_out
        ]
        if found:
            warnings.warn(
                f"{objective.name}: found a regularizer of {found[0]}, which adds nothing by "
                "itself, wanted it in a term that compute returns: tf.add_n(self.losses)",
                TfkdWarning,
                stacklevel=4,
            )

    def _make_state(self) -> None:
        self.clock = Clock()
        self.stage_network = self._networks.student
        self._plan = self._make_plan()
        names = self.loss_names()
        self.watch = NonFiniteWatch(names, self._positions.told)
        self._train_means = TermMeans(names, "train_losses", self.weighted_names)
        self._test_means = TermMeans(self.test_names(), "test_losses", self.weighted_names)

    # What the distiller is made of.

    def active_objectives(self) -> list[tuple[Objective, float]]:
        """Returns the objectives of the current stage with their weights."""
        pairs = list(zip(self.objectives, self.loss_weights))
        if self.stage is None or self.stage.objectives is None:
            return pairs
        return [pair for pair in pairs if pair[0].name in self.stage.objectives]

    def active_requirements(self) -> list[Requires]:
        """Returns what the objectives of the current stage need in it."""
        return [each.requires_in(self.stage_name) for each, _ in self.active_objectives()]

    @property
    def student_rests(self) -> bool:
        """Whether no training step of the stage runs the student, because nothing comes of it.

        So it is where the label loss has weight 0, no objective reads the student, and the stage is
        not evaluated. Label loss and metrics are 0 then, like terms that take no part.
        """
        stage = self.stage
        if stage is None or stage.evaluate or stage.student_loss_weight != 0.0 or stage.network:
            return False
        read = {network for each in self.active_requirements() for network, _ in each.taps}
        return "student" not in read

    @property
    def teachers(self) -> list[keras.Model]:
        """The teachers as they are run: frozen copies, unless they train.

        Of a copy and of what it was made of the weights stay: other ones are refused, because the
        copy, or a graph that holds its weights as constants, would not follow.
        """
        return [network.model for network in self._networks.run_teachers]

    def check_teachers(self) -> None:
        """Checks that the teachers are those that the distiller was made with.

        ``fit`` does so at each epoch, ``evaluate`` when it is called, and the functions for single
        batches at the first and at every fiftieth.

        Raises:
            TfkdError: For one that has other weights than its frozen copy was made of.
        """
        self._networks.check_unchanged()

    def loss_names(self) -> list[str]:
        """Returns the names of all logged losses, in the order of :attr:`StepLosses.values`."""
        return names_of(self.objectives, self._label_terms)

    def test_names(self) -> list[str]:
        """Returns the names of the losses that ``evaluate`` reports in the current stage.

        Those that bear a name of :meth:`loss_names` mean the same: where an evaluation cannot form
        every term, there is no total.
        """
        if not self._total_is_evaluated():
            return ["student_loss"]
        return [*self.loss_names(), *(["agreement"] if self._agreement_is_evaluated() else [])]

    def _total_is_evaluated(self) -> bool:
        """Whether an evaluation forms every term: from images and labels, and if it is wanted."""
        needs = self.active_requirements()
        return not needs or (
            self.evaluate_distillation
            and all(each.views in ((), ("main",)) and not each.all_keys for each in needs)
        )

    def _agreement_is_evaluated(self) -> bool:
        return self.evaluate_distillation and self._plan.gives_agreement

    @property
    def trained_variables(self) -> list[keras.Variable]:
        """The variables of the gradient: student and objectives, or what the stage names."""
        if self.stage is not None and self.stage.trainable is not None:
            found = self.stage.trainable(self)
            listed = isinstance(found, (list, tuple)) and found
            if not listed or not all(isinstance(each, keras.Variable) for each in found):
                raise TfkdError(
                    f"stage {self.stage.name!r}: found trainable variables {found!r}, wanted a "
                    "list of variables"
                )
            return list(found)
        return self.usually_trained()

    def usually_trained(self) -> list[keras.Variable]:
        """Returns the variables that train where no stage says so: student and objectives."""
        untrained = self._networks.companion_variable_ids()
        untrained |= {id(v) for layer in self._untrained_layers() for v in layer.variables}
        found = list(self.student.trainable_variables)
        for objective in self.objectives:
            found += [v for v in objective.trainable_variables if id(v) not in untrained]
        return list({id(variable): variable for variable in found}.values())

    def _untrained_layers(self) -> list[keras.layers.Layer]:
        return [
            inner
            for objective in self.objectives
            for layer in objective.untrained
            for inner in layer._flatten_layers()
        ]

    # Keras hands these to the optimizer after ``fit``, in the order in which it was built.
    trainable_variables = trainable_weights = trained_variables

    @property
    def student_variables(self) -> list[keras.Variable]:
        """The variables that the finished student is made of: its own, and those merged into it."""
        merged = [each for each in self.objectives if each.merges]
        return [*self.student.variables, *(v for each in merged for v in each.variables)]

    def state(self) -> dict[str, keras.Variable]:
        """Returns every variable that a continued run needs, by role and position.

        Roles: ``student``, ``objective`` (banks and seed states included), ``companion``,
        ``teacher`` where it trains, ``stage`` (what its network holds of its own), ``optimizer``,
        ``metrics`` (the sums of the running epoch) and ``distiller`` (epoch and step). Complete
        after ``compile``; where metrics are given by name, after :meth:`prepare_for`.
        """
        roles: dict[str, Sequence[keras.Variable]] = {"student": self.student.variables}
        for position, objective in enumerate(self.objectives):
            own = [v for optimizer in objective.optimizers for v in optimizer.variables]
            roles[f"objective:{position}:{objective.name}"] = [*objective.variables, *own]
        for name, companion in self._networks.companions.items():
            roles[f"companion:{name}"] = companion.model.variables
        if self.trainable_teacher:
            for position, teacher in enumerate(self._networks.teachers):
                roles[f"teacher:{position}"] = teacher.model.variables
        roles["stage"] = self._stage_variables()
        if self.compiled and self.optimizer is not None:
            roles["optimizer"] = self.optimizer.variables
        # An evaluation begins with sums of its own.
        running = [metric for metric in self.metrics if metric is not self._test_means]
        roles["metrics"] = [v for metric in running for v in metric.variables]
        roles["distiller"] = [self.clock.epoch, self.clock.epochs, self.clock.step]
        return by_role(roles)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        own = [self._train_means, self._test_means]
        compiled = [self._compile_metrics] if self.compiled and self._compile_metrics else []
        return own + compiled

    def network(self, name: str, *, as_given: bool = False) -> models.Network:
        """Returns the student or a teacher: :meth:`tfkd.core.networks.Networks.network`."""
        return self._networks.network(name, as_given=as_given)

    def enter_stage(self, stage: Stage | None) -> None:
        """Makes a stage the current one; ``compile`` again afterwards.

        Args:
            stage: The stage, or ``None`` for all objectives and variables.

        Raises:
            TfkdError: When it names an objective that is not there, its network does not go with
                the student or lacks a tap, or a cached tap depends on what the stage trains.
        """
        if stage is not None:
            names = [objective.name for objective in self.objectives]
            for name in stage.objectives or ():
                if name not in names:
                    raise unknown(f"objective of stage {stage.name}", name, names)
        self.stage = stage
        self.stage_network = self._networks.student
        if stage is not None and stage.network is not None:
            self.stage_network = models.as_network(stage.network(self))
            self._networks.check_stands_in(
                self.stage_network, f"the network of stage {stage.name!r}"
            )
        self._plan = self._make_plan()
        names = self.test_names()
        if self._test_means.names != tuple(names):
            # Keras goes on holding what an attribute held before.
            self._tracker.untrack(self._test_means)
            with self.distribute_strategy.scope():
                self._test_means = TermMeans(names, "test_losses", self.weighted_names)
        if stage is not None and not self.trained_variables:
            raise TfkdError(f"stage {stage.name!r}: found nothing to train, wanted variables")
        if stage is not None and stage.cached:
            who = f"stage {stage.name!r}"
            check_constant(self.stage_network, stage.cached, self.trained_variables, who)
        self.train_function = self.test_function = None

    def _make_plan(self) -> ViewPlan:
        """Returns how networks are run in the current stage."""
        needs = self.active_requirements()
        taps = union_of_taps(needs)
        if self.stage is not None and self.stage.taps:
            own = taps.setdefault(STUDENT, [])
            own.extend(tap for tap in self.stage.taps if tap not in own)
        main_rows_of = view_of_main_rows(needs)
        cached = () if self.stage is None else self.stage.cached
        return self._networks.plan(
            self.stage_network, taps, main_rows_of=main_rows_of, cached=cached
        )

    @property
    def stage_name(self) -> str | None:
        """Name of the running stage; ``None`` outside of stages."""
        return None if self.stage is None else self.stage.name

    def _variables_with_losses(self, name: str) -> list[keras.Variable]:
        """Returns the variables of a network, as it is run, that train and may have regularizers.

        Args:
            name: Of a network that trains.
        """
        if name != "student":
            return self.network(name).model.trainable_variables
        trained = {id(variable) for variable in self.trained_variables}
        model = self.stage_network.model
        return [each for each in model.trainable_variables if id(each) in trained]

    def _stage_variables(self) -> list[keras.Variable]:
        """Returns what the network of the stage holds of its own."""
        known = {id(v) for v in self.student.variables}
        for network in (*self._networks.teachers, *self._networks.run_teachers):
            known |= {id(v) for v in network.model.variables}
        return [v for v in self.stage_network.model.variables if id(v) not in known]

    @contextlib.contextmanager
    def step_scope(self) -> Iterator[None]:
        """Holds while a training step is traced: what a stage does not train is frozen."""
        if self.stage is None or (self.stage.trainable is None and self.stage.network is None):
            yield
            return
        roots = [self.stage_network.model, *self.objectives]
        others = {id(layer) for layer in self._networks.companion_layers()}
        others |= {id(layer) for layer in self._untrained_layers()}
        layers = [layer for root in roots for layer in root._flatten_layers()]
        with frozen_layers(
            [layer for layer in layers if id(layer) not in others], self.trained_variables
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

    # The end.

    def finish(self, data=None) -> Finish:
        """Returns what methods may use at the end of training.

        Args:
            data: The :class:`tfkd.data.DataSet`; ``None`` where there is none.
        """
        return Finish(data=data, network=self._networks.network, seed=self._seed)

    def clean_student(self, finish: Finish | None = None) -> models.Network:
        """Returns the student as methods leave it: without anything that only training needs.

        Args:
            finish: See :meth:`finish`; by default without data.
        """
        student = self._networks.student
        for objective in self.objectives:
            student = objective.finalize(student, finish or self.finish())
        return student

    def variants(
        self, student: models.Network, finish: Finish | None = None
    ) -> dict[str, models.Network]:
        """Returns the further students that methods end in, by a word for each.

        Args:
            student: What :meth:`clean_student` returned.
            finish: As there.

        Raises:
            TfkdError: For two of one word, a word that is taken, or what is no network.
        """
        found: dict[str, models.Network] = {}
        for objective in self.objectives:
            for word, variant in dict(objective.variants(student, finish or self.finish())).items():
                self._check_variant(objective, word, variant, found)
                found[word] = variant
        return found

    def _check_variant(self, objective: Objective, word, variant, found) -> None:
        where = f"{objective.name}: variant {word!r} of the student"
        if not isinstance(word, str) or not re.fullmatch(r"[a-z0-9_]+", word):
            raise TfkdError(f"{where}: wanted a word of small letters, digits and underscores")
        if word in (*found, *NOT_VARIANTS):
            raise TfkdError(f"{where}: found that the word is taken, wanted another one")
        if not isinstance(variant, models.Network):
            raise TfkdError(f"{where}: found {type(variant).__name__}, wanted a tfkd Network")
        try:
            tasks.create(variant.task, variant).facts(variant)
        except TfkdError as error:
            raise TfkdError(f"{where}: {error}") from None
