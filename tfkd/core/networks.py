"""The networks of a distillation: who they are, and whether they fit one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import keras

from tfkd import models
from tfkd.core.classes import aligned, order_of
from tfkd.core.frozen_copy import frozen_copy, weights_digest
from tfkd.core.objective import VIEW_KEYS, Companion, NetworkView, Requires
from tfkd.core.step.views import ViewPlan, union_of_taps
from tfkd.core.tasks import registry as tasks
from tfkd.core.tasks.task import Task
from tfkd.errors import TfkdError, unknown
from tfkd.models.graph.adder_conversion import check_normalized
from tfkd.models.graph.inspection import image_shape, shapes_agree

_BY_NUMBER = "a Network with class_names=None"


class Networks:
    """Student, teachers and companions.

    Args:
        student: The network that is trained.
        teachers: Its teachers; none for plain training.
        task: What their outputs mean.
        requirements: What the objectives need.
        teacher_dtype: ``"bfloat16"`` runs frozen teachers in that precision; ``None`` as they are.
        fold_teacher: Whether batch normalization of frozen teachers is folded into the layers
            before it.
        trainable_teacher: Whether the teacher trains as well; it is then run as it is.

    Raises:
        TfkdError: For a missing teacher, unknown taps, other classes, or an output that does not
            fit.
    """

    def __init__(
        self,
        student: models.Network,
        teachers: Iterable[models.Network],
        task: Task,
        requirements: Iterable[Requires],
        *,
        teacher_dtype: str | None = None,
        fold_teacher: bool = True,
        trainable_teacher: bool = False,
    ) -> None:
        self.student = student
        self.teachers = list(teachers)
        self.task = task
        self.trainable_teacher = trainable_teacher
        self.companions: dict[str, Companion] = {}
        self.names = self._teacher_names()
        requirements = list(requirements)
        self._taps = union_of_taps(requirements)
        self._heads: dict[tuple[str, str], keras.Model] = {}
        self._check(requirements)
        self.teachers = [
            self._in_order(teacher, name) for name, teacher in zip(self.names, self.teachers)
        ]
        self.run_teachers = list(self.teachers)
        if not trainable_teacher:
            self.run_teachers = [
                frozen_copy(
                    teacher, keep=self._taps_of(name), dtype=teacher_dtype, fold=fold_teacher
                )
                for teacher, name in zip(self.teachers, self.names)
            ]
        # Of each copy the network that it was made of, and itself: both have to stay as they are.
        self._copied = {
            name: [(each.model, weights_digest(each.model)) for each in (given, run)]
            for name, given, run in zip(self.names, self.teachers, self.run_teachers)
            if given is not run
        }

    def check_unchanged(self) -> None:
        """Checks that frozen copies are still those of the teachers, which were loaded before.

        Raises:
            TfkdError: For a teacher, or a copy, that has other weights by now.
        """
        for name, both in self._copied.items():
            if any(weights_digest(model) != digest for model, digest in both):
                raise TfkdError(
                    f"{name} {both[0][0].name!r}: found other weights than those that "
                    "Distiller(...) made a folded copy of, wanted them loaded before, or "
                    "fold_teacher=False, which follows them"
                )

    def _teacher_names(self) -> list[str]:
        if len(self.teachers) == 1:
            return ["teacher"]
        return [f"teacher:{position}" for position in range(len(self.teachers))]

    def _taps_of(self, name: str) -> list[str]:
        wanted = [name, "teacher"]
        return sorted(
            {tap for (each, _), taps in self._taps.items() if each in wanted for tap in taps}
        )

    def _check(self, requirements: Sequence[Requires]) -> None:
        if any(each.needs_teacher for each in requirements) and not self.teachers:
            raise TfkdError(
                "the distillation losses need a teacher: found None, wanted a keras.Model"
            )
        for _, view in self._taps:
            if view not in VIEW_KEYS:
                raise unknown("view", view, VIEW_KEYS)
        check_normalized(self.student.model)
        self.facts = self.check_fits(self.student, "student")
        self.input_shape = image_shape(self.student.model, "student")
        """Height, width and channels of the student's input; ``None`` where it is not known."""
        for name, teacher in zip(self.names, self.teachers):
            self.check_fits(teacher, name)
            self._check_task(teacher, name)
            for each in requirements:
                self._check_exits(teacher, name, each)

    def _check_exits(self, teacher: models.Network, name: str, requires: Requires) -> None:
        """Refuses a teacher with several exits where a method knows one output.

        Of a student all exits are trained, and the deepest is taught; of a teacher those that
        nobody reads would be left out without a word.
        """
        exits = models.exits(teacher.model)
        read = {tap for who in (name, "teacher") for tap in requires.taps_of(who)}
        if len(exits) > 1 and read & set(exits) == {exits[-1]}:
            raise TfkdError(
                f"{name} {teacher.name!r}: found the exits {', '.join(exits)}, of which a "
                "distillation loss reads the deepest alone, wanted a network with one output, such "
                "as keras.Model(teacher.input, teacher.output['logits'])"
            )

    def _check_task(self, teacher: models.Network, name: str) -> None:
        """Refuses a teacher whose outputs mean something else, however alike their shapes are.

        A model that says nothing of its task counts as a classifier, and is taken as it is.
        """
        kind = tasks.find(teacher.task)
        if kind is tasks.find("classification"):
            return
        if not isinstance(self.task, kind) and not issubclass(kind, type(self.task)):
            raise TfkdError(
                f"{name} {teacher.name!r} is of task {teacher.task!r}, but the student of "
                f"{self.task.name!r}; wanted one task"
            )

    def _in_order(self, teacher: models.Network, name: str) -> models.Network:
        """Returns a teacher whose classes are in the order of the student's."""
        return aligned(
            teacher,
            self.student.class_names,
            tasks.create(teacher.task, teacher),
            who=f"{name} {teacher.name}",
            whose=f"student {self.student.name}",
            accept=_BY_NUMBER,
        )

    def check_fits(self, network: models.Network, who: str) -> Mapping:
        """Checks that a network goes with the student.

        Args:
            network: The student itself, a teacher, or what runs in the student's place.
            who: What it is called in messages.

        Returns:
            The facts of the task about it.

        Raises:
            TfkdError: When it has outputs that are not those of the task, other facts than the
                student, or takes other images.
        """
        try:
            facts = self.task.facts(network)
        except TfkdError as error:
            raise TfkdError(f"{who} {str(error).removeprefix('network ')}") from None
        if network is self.student:
            return facts
        for fact in self.task.compared:
            if facts.get(fact) != self.facts.get(fact):
                raise TfkdError(
                    f"{who} gives {facts.get(fact)} {fact}, but the student gives "
                    f"{self.facts.get(fact)}"
                )
        shape = image_shape(network.model, who)
        if not shapes_agree(shape, self.input_shape):
            raise TfkdError(f"{who} takes images {shape}, but the student takes {self.input_shape}")
        return facts

    def check_stands_in(self, network: models.Network, who: str) -> None:
        """Checks that a network can run in the student's place.

        Raises:
            TfkdError: As :meth:`check_fits`, for other outputs than the task reads, or for other
                classes than the student's, or another order of them.
        """
        self.check_fits(network, who)
        names = network.class_names, self.student.class_names
        if order_of(*names, who, f"student {self.student.name}", _BY_NUMBER) is not None:
            raise TfkdError(
                f"{who}: found the classes of the student in another order, wanted the same order"
            )
        wanted, found = self.task.taps(self.student), models.outputs(network.model)
        lacking = [name for name in wanted if name not in found]
        if lacking or self.task.taps(network) != wanted:
            raise TfkdError(
                f"{who} has the outputs {', '.join(found)}, wanted {', '.join(wanted)} as the "
                "student has"
            )

    def network(self, name: str, *, as_given: bool = False) -> models.Network:
        """Returns the student or a teacher.

        Args:
            name: ``"student"``, ``"teacher"`` or, of several, ``"teacher:1"``.
            as_given: Whether a frozen teacher is wanted as it was given, instead of the folded copy
                that is run.

        Raises:
            TfkdError: For another name; ``"teacher"`` where there are several.
        """
        if name == "student":
            return self.student
        if name not in self.names:
            raise unknown("network", name, ["student", *self.names])
        return (self.teachers if as_given else self.run_teachers)[self.names.index(name)]

    def head(self, name: str, start: str = "pre_pool") -> keras.Model:
        """Returns the sub-model of ``student`` or a teacher from a tap to the logits."""
        if (name, start) not in self._heads:
            network = self.network(name)
            tap = network.paths([start])[start]
            self._heads[name, start] = models.head(network.model, tap)
        return self._heads[name, start]

    def add_companions(self, companions: Mapping[str, Companion]) -> None:
        """Takes in the networks that an objective made in ``setup``.

        Raises:
            TfkdError: For a name that is taken.
        """
        for name, companion in companions.items():
            if name in self.companions or name.split(":")[0] in ("student", "teacher"):
                raise TfkdError(f"companion {name!r}: the name is taken")
            self.companions[name] = companion

    def companion_variable_ids(self) -> set[int]:
        """Returns the identities of the variables that only companions hold."""
        own = {id(v) for each in self.companions.values() for v in each.model.variables}
        return own - {id(v) for v in self.student.model.variables}

    def companion_layers(self) -> list[keras.Layer]:
        """Returns the layers of all companions."""
        return [
            layer for each in self.companions.values() for layer in each.model._flatten_layers()
        ]

    def shapes(self) -> dict[NetworkView, dict[str, tuple[int | None, ...]]]:
        """Returns the shape of each tap of student and teachers, ``None`` for the batch axis."""
        return self.plan(self.student, self._taps, companions=False).shapes()

    def plan(
        self,
        student: models.Network,
        taps: Mapping[NetworkView, Iterable[str]],
        *,
        companions: bool = True,
        main_rows_of: str | None = None,
        cached: Sequence[str] = (),
    ) -> ViewPlan:
        """Returns how each network is run on each view to give the taps asked for.

        Args:
            student: What runs in the student's place.
            taps: For each network and view the taps that are read.
            companions: Whether the objectives' own networks are there by now.
            main_rows_of: The view whose rows stand for the main view in training steps.
            cached: Taps of the student that batches of training may bring along.

        Raises:
            TfkdError: For a tap or network that is not there.
        """
        named = dict(zip(self.names, self.run_teachers))
        return ViewPlan(
            {"student": student, **named},
            self.companions if companions else None,
            {network: list(names) for network, names in taps.items()},
            self.task,
            teachers=self.names,
            given={id(each) for each in self.teachers},
            trainable_teacher=self.trainable_teacher,
            main_rows_of=main_rows_of,
            of_teachers=self._teacher_layer_ids(),
            cached=cached,
        )

    def _teacher_layer_ids(self) -> set[int]:
        """Returns the identities of the layers that only teachers hold."""
        both = [*self.teachers, *self.run_teachers]
        found = {id(layer) for each in both for layer in each.model._flatten_layers()}
        return found - {id(layer) for layer in self.student.model._flatten_layers()}
