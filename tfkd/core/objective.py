"""The contract of a distillation method: what it needs, and what it adds to the loss."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.errors import TfkdError
from tfkd.settings import declare, fill

NetworkView = tuple[str, str]
"""A (network, view): ``("student", "main")``, ``("teacher", "strong")``."""

_MAY_OVERRIDE = ("get_config", "from_config", "supports_masking")
_OF_LAYERS = ("trainable", "dtype", "autocast", "activity_regularizer")
"""Arguments of Keras layers, which ``from_config`` hands on."""


@dataclass(frozen=True)
class Requires:
    """What an objective needs; checked against data and models before the first step.

    Attributes:
        taps: For each (network, view) the names of the features that :meth:`Objective.compute`
            reads. Networks: ``student``, ``teacher`` (``teacher:0``, ``teacher:1`` for the features
            of one of several teachers) or the name of a companion; views: ``main`` and those of
            :data:`VIEW_KEYS`. ``"logits"`` is a tap like any other.
        index: Whether the batch must hold the position of each image in the training set.
        epochs: Whether the number of epochs of the run must be known.
        train_size: Whether the size of the training set must be known (banks, memories).
        train_labels: Whether the labels of the whole training set must be known (negatives of
            other classes).
        allows_soft_labels: Whether labels may be distributions (mixup, cutmix).
        batch_keys: Further keys that the batch must hold.
        teacher: Whether a teacher is needed; ``None`` is where the taps name one.
        tasks: The tasks that the objective knows; ``None`` is any.
        main_rows_of: One of :data:`VIEW_ROWS`, whose first row of each image stands for the main
            view in training steps (of rotations: the upright one). Networks that are read on both
            views then run once, on this one, and batch normalization sees nothing else; every
            objective of the run finds its features of the main view there. Evaluation runs the main
            view itself.
    """

    taps: Mapping[NetworkView, Sequence[str]] = field(default_factory=dict)
    index: bool = False
    epochs: bool = False
    train_size: bool = False
    train_labels: bool = False
    allows_soft_labels: bool = False
    batch_keys: tuple[str, ...] = ()
    teacher: bool | None = None
    tasks: tuple[str, ...] | None = ("classification", "multi_exit")
    main_rows_of: str | None = None

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher is needed."""
        if self.teacher is not None:
            return self.teacher
        return any(network.split(":")[0] == "teacher" for network, _ in self.taps)

    def taps_of(self, network: str) -> set[str]:
        """Returns the taps of a network that are read, on whatever view."""
        return {tap for (name, _), taps in self.taps.items() if name == network for tap in taps}

    @property
    def views(self) -> tuple[str, ...]:
        """The views that are read, in a fixed order."""
        found = {view for _, view in self.taps}
        if self.main_rows_of is not None:
            found.add(self.main_rows_of)
        return tuple(sorted(found))

    @property
    def all_keys(self) -> tuple[str, ...]:
        """The keys, besides image and label, that the batch must hold."""
        views = [VIEW_KEYS[view] for view in self.views if view != "main"]
        return tuple(views) + (("index",) if self.index else ()) + tuple(self.batch_keys)


VIEW_KEYS = {
    "main": "image",
    "strong": "image_strong",
    "second": "image_second",
    "third": "image_third",
    "pair": "image_pair",
    "rotations": "image_rotations",
}
"""The key of the batch that holds the images of each view."""

VIEW_ROWS = {"rotations": 4}
"""How many rows an image has in the views where it has several: image i has rows ``n i + r``."""


@dataclass(frozen=True)
class Spec:
    """What :meth:`Objective.setup` is told about the run.

    Attributes:
        num_classes: Number of classes; ``None`` for a task without classes.
        image_shape: ``(height, width, channels)`` of the student's input; ``None`` for a subclassed
            one that never said.
        shapes: For each (network, view) the shape of each tap that was asked for, with ``None`` for
            the batch axis.
        train_size: Number of training images, or ``None`` where it is not known.
        batch_size: Images of one step over all replicas, or ``None``.
        seed: Seed of everything that an objective draws.
        head: ``head("teacher" | "student", start="pre_pool")`` is the sub-model from a tap to the
            logits.
        network: ``network("student" | "teacher" | "teacher:1")`` is the
            :class:`tfkd.models.Network` behind a name, as it is run; with ``as_given=True`` a
            teacher as it was given, whose layers are not folded.
        train_labels: Label of each training image, int ``(train_size,)``, or ``None`` where nobody
            asked for them.
    """

    num_classes: int | None
    image_shape: tuple[int | None, ...] | None
    shapes: Mapping[NetworkView, Mapping[str, tuple[int | None, ...]]]
    train_size: int | None
    batch_size: int | None
    seed: int
    head: Callable[..., keras.Model]
    network: Callable[..., models.Network]
    train_labels: np.ndarray | None = None


@dataclass(frozen=True)
class Terms:
    """What :meth:`Objective.compute` returns.

    Attributes:
        losses: Named scalars, each formed by ``context.mean``. The names are those of
            :attr:`Objective.terms`.
        carry: Tensors that :meth:`Objective.after_step` stores in banks, queues and memories.
        factors: A weight of its own for some of the losses, such as one that is learned. It enters
            the total as a constant, beside the objective's weight and schedule.
    """

    losses: Mapping[str, tf.Tensor]
    carry: Mapping[str, Any] = field(default_factory=dict)
    factors: Mapping[str, tf.Tensor | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finish:
    """What the end of a run may use.

    Attributes:
        data: The :class:`tfkd.data.DataSet`, whose ``train_evaluation()`` gives the training images
            un-augmented and in order; ``None`` where a distiller is used without one.
        network: ``network("student" | "teacher" | ...)`` is the :class:`tfkd.models.Network` behind
            a name, as it was run, or ``as_given=True``.
        seed: Seed of the run.
    """

    data: Any
    network: Callable[..., models.Network]
    seed: int


@dataclass(frozen=True)
class Companion:
    """A network that an objective owns and the distiller runs, such as an EMA copy.

    Attributes:
        model: A functional model of images, which are normalized as the student's are.
        training: Whether its batch normalization uses the statistics of the batch in training.
    """

    model: keras.Model
    training: bool = True


class Objective(keras.layers.Layer):
    """One loss of one paper.

    A method writes ``requires`` and ``compute``; every other hook has a default. Its
    hyper-parameters are annotated class attributes with defaults (see :mod:`tfkd.settings`), from
    which ``__init__`` is made: settings by position or by name, then ``name``. The layer may hold
    weights and sub-layers (connectors, heads), which are trained with the student, and weights with
    ``trainable=False`` (banks, queues), which are checkpointed; neither is ever part of the saved
    student.

    Attributes:
        requires: A :class:`Requires`, as a class attribute, an instance attribute or a property.
        terms: The names of the losses that ``compute`` returns; ``()`` means one, called as the
            objective is.
        replaces_label_loss: Whether a term of this objective takes the place of the label loss
            (``student_loss`` is then logged, with weight 0).
        rescales_logits: What to set where the logits of :meth:`student_logits` are of another scale
            than a teacher's, with which others compare them; empty where they are of one.
        distiller_class: The :class:`tfkd.Distiller` that a method with a training step of its own
            needs; ``None`` is the common one. Runs from a config make it, and the common one
            refuses such a method.
        default_name: Name of an objective that is given none: the registered word; ``None`` is the
            name of the class in snake case.
        companions: Networks by name that the distiller runs as it runs teacher and student; filled
            by :meth:`setup`.
        untrained: Layers of this objective that take no gradient and no place in the optimizer,
            such as the moving average of a projector; filled by :meth:`setup`, and checkpointed.
        optimizers: Optimizers of the objective's own, built by :meth:`setup`, for weights that it
            updates itself; checkpointed.
    """

    requires: Requires = Requires()
    terms: tuple[str, ...] = ()
    replaces_label_loss: bool = False
    rescales_logits: str = ""
    distiller_class: type | None = None
    default_name: str | None = None

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        taken = [
            name
            for name in vars(cls)
            if (hasattr(keras.layers.Layer, name) or name in _OF_LAYERS)
            and not name.startswith("__")
            and name not in _MAY_OVERRIDE
        ]
        if taken:
            raise TfkdError(
                f"objective {cls.__name__}: found {', '.join(taken)}, which Keras layers already "
                "use for something else; wanted another name"
            )
        last = inspect.signature(Objective.__init__, eval_str=True).parameters.values()
        declare(cls, Objective, last=list(last)[1:])

    def __init__(self, name: str | None = None, **kwargs) -> None:
        of_layer = {key: kwargs.pop(key) for key in _OF_LAYERS if key in kwargs}
        name = name or self.default_name or snake_case(type(self).__name__)
        super().__init__(name=name, **of_layer)
        self.companions: dict[str, Companion] = {}
        self.untrained: list[keras.layers.Layer] = []
        self.optimizers: list[keras.optimizers.Optimizer] = []
        self.built = True
        fill(self, kwargs, f"{name}: ")
        self.check()

    def check(self) -> None:
        """Runs when all settings have their values; for rules that tie several of them.

        Raises:
            TfkdError: When they do not go together.
        """

    @property
    def replaces_logits(self) -> bool:
        """Whether :meth:`student_logits` gives logits in training."""
        return type(self).student_logits is not Objective.student_logits

    @property
    def merges(self) -> bool:
        """Whether :meth:`finalize` makes another student than the one that was trained."""
        return type(self).finalize is not Objective.finalize

    def term_names(self) -> tuple[str, ...]:
        """Returns the names of this objective's losses."""
        return tuple(self.terms) or (self.name,)

    def requires_in(self, stage: str | None) -> Requires:
        """Returns what the objective needs in a stage; by default :attr:`requires` in all of them.

        Args:
            stage: Name of the stage; ``None`` outside of stages.
        """
        del stage
        return self.requires

    def terms_in(self, stage: str | None) -> tuple[str, ...]:
        """Returns which of :meth:`term_names` are formed in a stage; by default all.

        Those that are not count as 0.
        """
        del stage
        return self.term_names()

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        """Sets :attr:`requires` from the graphs of the networks, if a method finds its taps there.

        Called once, before ``requires`` is read by the distiller.

        Args:
            student: The network that is trained.
            teachers: Its teachers, as they were given.

        Raises:
            TfkdError: When there is nothing to be found.
        """

    def setup(self, spec: Spec) -> None:
        """Makes connectors, heads, banks, queues and companions from the shapes of the run.

        Called once, when the distiller is made, inside the scope of its strategy. All variables
        must exist afterwards.

        Args:
            spec: Shapes of the taps, class count, size of the training set.

        Raises:
            TfkdError: When the shapes cannot be made to fit.
        """

    def before_step(self, context) -> None:
        """Runs before the networks of a training step; EMA copies are updated here.

        Args:
            context: The batch without network outputs.
        """
        return  # AutoGraph cannot convert a body that is a docstring alone.

    def student_logits(self, context) -> tf.Tensor | None:
        """Returns logits that stand in for the student's own, or ``None``.

        Label loss, the other objectives and the metrics then see these. Also called in evaluation,
        where only the student has outputs, on the main view alone; a method whose student is whole
        without it returns ``None`` there.

        Args:
            context: The batch with the outputs of the networks.
        """
        return None

    def compute(self, context) -> Terms | Mapping[str, tf.Tensor] | tf.Tensor:
        """Returns the losses of a batch.

        Args:
            context: A :class:`tfkd.core.step.context.Context`: outputs of every network that
                ``requires`` names, labels, epoch, ``mean`` and ``gather``. Nothing is written here,
                but for this objective's own batch-normalization statistics and spectral-norm
                vectors.

        Returns:
            :class:`Terms`, or its losses alone, or, for one loss, the scalar.
        """
        raise NotImplementedError(f"{type(self).__name__} must define compute(context)")

    def after_step(self, context, carry: Mapping[str, Any]) -> None:
        """Writes banks, queues and memories after the update of a training step.

        Args:
            context: That of ``compute``.
            carry: What ``compute`` handed on.
        """
        return  # As above.

    def schedule(self, epoch: tf.Tensor) -> Mapping[str, tf.Tensor] | tf.Tensor | float:
        """Returns the factor of each term, or one for all, at an epoch.

        Args:
            epoch: Scalar float32, counted from 0. It is read from a variable inside the compiled
                step, so nothing retraces; use TensorFlow operations on it.
        """
        return 1.0

    def stages(self) -> Sequence | None:
        """Returns the list of :class:`tfkd.core.stage.Stage` of a method that trains in phases."""
        return None

    def step_bytes(self, batch_size: int) -> int:
        """Returns how many bytes a step takes for tables of more than one image; by default 0.

        A run prints it before training.

        Args:
            batch_size: Images of one step over all replicas.
        """
        return 0

    def records(self) -> Mapping[str, np.ndarray]:
        """Returns what is kept of each epoch besides scalars, such as a vector of weights, by name.

        Runs stack the arrays of all epochs in ``records.npz``.
        """
        return {}

    def record_names(self) -> Mapping[str, Sequence[str]]:
        """Returns names for the entries of vectors among :meth:`records`, which runs then draw.

        The picture is a map of the entries over the epochs.
        """
        return {}

    def finalize(self, student: models.Network, finish: Finish) -> models.Network:
        """Returns the clean student after training; by default the student as it is.

        Args:
            student: The trained student.
            finish: The data, the other networks and the seed.
        """
        return student

    def variants(self, student: models.Network, finish: Finish) -> Mapping[str, models.Network]:
        """Returns further students that the run ends in, by a word for each.

        The student called ``word`` is saved as ``student_<word>.keras`` and scored by that name.

        Args:
            student: The clean student.
            finish: As for :meth:`finalize`.
        """
        return {}

    def to_terms(self, result, stage: str | None = None) -> Terms:
        """Returns what ``compute`` returned as :class:`Terms`, checked against :attr:`terms`.

        Raises:
            TfkdError: When names differ from the declared ones or a loss is not a scalar.
        """
        if not isinstance(result, Terms):
            result = Terms(result if isinstance(result, Mapping) else {self.name: result})
        unknown_factors = sorted(set(result.factors) - set(self.term_names()))
        if unknown_factors:
            raise TfkdError(
                f"objective {self.name}: compute returned factors of {unknown_factors}, "
                f"but its terms are {sorted(self.term_names())}"
            )
        if set(result.losses) != set(self.terms_in(stage)):
            raise TfkdError(
                f"objective {self.name}: compute returned the losses {sorted(result.losses)}, "
                f"but its terms are {sorted(self.terms_in(stage))}"
            )
        for name, value in result.losses.items():
            shape = tf.convert_to_tensor(value).shape
            if shape.rank != 0:
                raise TfkdError(
                    f"objective {self.name}: loss {name} has shape {tuple(shape)}, wanted a scalar "
                    "(form it with context.mean)"
                )
        return result


def snake_case(name: str) -> str:
    """Returns a class name in snake case: ``WeightedLoss`` -> ``weighted_loss``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
