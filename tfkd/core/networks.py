"""The networks of a distillation and how each is run: once for every view and step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core.divergences import mean_of_probabilities
from tfkd.core.frozen_copy import frozen_copy
from tfkd.core.model_forms import class_count, image_shape
from tfkd.core.objective import VIEW_KEYS, Companion, NetworkView, Requires
from tfkd.core.step.constant_weights import MOST_BYTES, call_with_constants, size_as_constants
from tfkd.errors import TfkdError, unknown
from tfkd.models.graph.adder_conversion import check_normalized

STUDENT: NetworkView = ("student", "main")


class Networks:
    """Student, teachers and companions, each with the union of the taps that were asked for.

    Args:
        student: The network that is trained.
        teachers: Its teachers; none for plain training.
        requirements: What the objectives need.
        teacher_dtype: ``"bfloat16"`` runs frozen teachers in that precision; ``None`` as they are.
        fold_teacher: Whether batch normalisation of frozen teachers is folded into the layers
            before it.
        trainable_teacher: Whether the teacher trains as well; it is then run as it is.

    Raises:
        TfkdError: For a missing teacher, unknown taps, a class count or output that does not fit.
    """

    def __init__(
        self,
        student: models.Network,
        teachers: Iterable[models.Network],
        requirements: Iterable[Requires],
        *,
        teacher_dtype: str | None = None,
        fold_teacher: bool = True,
        trainable_teacher: bool = False,
    ) -> None:
        self.student = student
        self.teachers = list(teachers)
        self._taps = _union(requirements)
        if "logits" not in self._taps.setdefault(STUDENT, []):
            self._taps[STUDENT].insert(0, "logits")
        self._trainable_teacher = trainable_teacher
        self._heads: dict[str, keras.Model] = {}
        self._names = self._teacher_names()
        self._check()
        self.companions: dict[str, Companion] = {}
        self.run_teachers = list(self.teachers)
        if not trainable_teacher:
            self.run_teachers = [
                frozen_copy(
                    teacher, keep=self._taps_of(name), dtype=teacher_dtype, fold=fold_teacher
                )
                for teacher, name in zip(self.teachers, self._names)
            ]
        self._runners: dict[NetworkView, keras.Model | None] = {}
        for place in self._own_places():
            self._runners[place] = self._runner(self.network(place[0]), self._taps[place])
        self._constant = self._constant_places()

    def _constant_places(self) -> set[NetworkView]:
        """Returns which copies of teachers run with constants, as many as the step may hold."""
        left: float = MOST_BYTES
        places: set[NetworkView] = set()
        for place, runner in self._runners.items():
            if place[0] == "student" or self.network(place[0]) in self.teachers:
                continue
            model = self.network(place[0]).model if runner is None else runner
            size = size_as_constants(model)
            if size <= left:
                places.add(place)
                left -= size
        return places

    def _teacher_names(self) -> list[str]:
        if len(self.teachers) == 1:
            return ["teacher"]
        return [f"teacher:{position}" for position in range(len(self.teachers))]

    def _taps_of(self, name: str) -> list[str]:
        wanted = [name, "teacher"]
        return sorted(
            {tap for (each, _), taps in self._taps.items() if each in wanted for tap in taps}
        )

    def _own_places(self) -> list[NetworkView]:
        """Spells ``teacher`` out as each teacher's own place, and leaves companions for later."""
        places: list[NetworkView] = []
        for (network, view), taps in list(self._taps.items()):
            if network == "teacher" and len(self.teachers) > 1:
                if set(taps) != {"logits"}:
                    raise TfkdError(
                        f"taps {sorted(set(taps) - {'logits'})} of 'teacher' with "
                        f"{len(self.teachers)} teachers: name one of them, as in 'teacher:0'"
                    )
                for name in self._names:
                    union = self._taps.setdefault((name, view), [])
                    union.extend(["logits"] if "logits" not in union else [])
                    places.append((name, view))
            elif network == "student" or network in self._names:
                places.append((network, view))
        return list(dict.fromkeys(places))

    def network(self, name: str) -> models.Network:
        """Returns the student or a teacher, as it is run."""
        return self.student if name == "student" else self.run_teachers[self._names.index(name)]

    @staticmethod
    def _runner(network: models.Network, taps: Iterable[str]) -> keras.Model | None:
        """Returns the tapped model, or ``None`` where the model itself gives all that is asked."""
        only_logits = list(taps) == ["logits"]
        return None if only_logits else models.tapped(network.model, network.paths(taps))

    def _check(self) -> None:
        needs_teacher = [network for network, _ in self._taps if network.split(":")[0] == "teacher"]
        if needs_teacher and not self.teachers:
            raise TfkdError(
                "the distillation losses need a teacher: found None, wanted a keras.Model"
            )
        for _, view in self._taps:
            if view not in VIEW_KEYS:
                raise unknown("view", view, VIEW_KEYS)
        check_normalized(self.student.model)
        classes = {name: class_count(net.model, name) for name, net in self._named()}
        for name, count in classes.items():
            if count != classes["student"]:
                raise TfkdError(
                    f"{name} gives {count} classes, but the student gives {classes['student']}"
                )
        shapes = {name: image_shape(net.model, name) for name, net in self._named()}
        for name, shape in shapes.items():
            if not _agree(shape, shapes["student"]):
                raise TfkdError(
                    f"{name} takes images {shape}, but the student takes {shapes['student']}"
                )
        self.num_classes = classes["student"]
        self.input_shape = shapes["student"]
        """Height, width and channels of the student's input; ``None`` where it is not known."""

    def _named(self) -> list[tuple[str, models.Network]]:
        return [("student", self.student), *zip(self._names, self.teachers)]

    @property
    def has_teacher_logits(self) -> bool:
        """Whether some objective reads the teacher's logits on the main view."""
        return "logits" in self._taps.get(("teacher", "main"), ())

    @property
    def keys(self) -> list[str]:
        """The keys of the batch that hold the images of the views that are run."""
        return sorted({VIEW_KEYS[view] for _, view in self._taps})

    def places(self, view: str) -> list[NetworkView]:
        """Returns every network that is run on a view, with that view."""
        return [place for place in self._taps if place[1] == view]

    def shapes(self) -> dict[NetworkView, dict[str, tuple[int | None, ...]]]:
        """Returns the shape of each tap of student and teachers, ``None`` for the batch axis."""
        found: dict[NetworkView, dict[str, tuple[int | None, ...]]] = {}
        for place in self._runners:
            own = self.network(place[0])
            shapes = models.tap_shapes(own.model, own.paths(self._taps[place]))
            found[place] = {name: (None, *shape) for name, shape in shapes.items()}
        for network, view in self._taps:
            if network == "teacher" and (network, view) not in found:
                found[(network, view)] = {"logits": (None, self.num_classes)}
        return found

    def add_companions(self, companions: Mapping[str, Companion]) -> None:
        """Takes in the networks that objectives made in ``setup``.

        Raises:
            TfkdError: For a name that is taken, or a tap of a network that nobody made.
        """
        for name, companion in companions.items():
            if name in self.companions or name.split(":")[0] in ("student", "teacher"):
                raise TfkdError(f"companion {name!r}: the name is taken")
            self.companions[name] = companion
        for (network, view), taps in self._taps.items():
            if network in companions:
                # One that started as a copy of the student has its taps under the same names.
                twin = self.student.with_model(companions[network].model)
                self._runners[(network, view)] = self._runner(twin, taps)

    def check_companions(self) -> None:
        """Checks that every network that an objective reads exists."""
        known = {"student", "teacher", *self._names, *self.companions}
        for network, _ in self._taps:
            if network not in known:
                raise unknown("network", network, known)

    def companion_variable_ids(self) -> set[int]:
        """Returns the identities of the variables that only companions hold."""
        own = {id(v) for each in self.companions.values() for v in each.model.variables}
        return own - {id(v) for v in self.student.model.variables}

    def companion_layers(self) -> list[keras.Layer]:
        """Returns the layers of all companions."""
        return [
            layer for each in self.companions.values() for layer in each.model._flatten_layers()
        ]

    def head(self, name: str) -> keras.Model:
        """Returns the sub-model of ``student`` or a teacher from ``pre_pool`` to the logits."""
        if name not in self._heads:
            network = self.network(name)
            start = network.paths(["pre_pool"])["pre_pool"]
            self._heads[name] = models.head(network.model, start)
        return self._heads[name]

    def run(
        self, batch: Mapping[str, tf.Tensor], places: Iterable[NetworkView], *, training: bool
    ) -> dict[NetworkView, dict[str, tf.Tensor]]:
        """Runs networks on views, each pair once.

        Pixels are normalised once for each view and kind of normalisation. Outputs of frozen
        teachers and of companions carry no gradient.

        Args:
            batch: The batch, with the images of the views.
            places: Which networks to run on which views; ``teacher`` stands for all of them.
            training: Whether the student trains (its batch normalisation uses the batch).

        Returns:
            For each place the taps that objectives asked for.
        """
        places = set(places)
        views_of_all = [view for network, view in places if network == "teacher"]
        places.update((name, view) for name in self._names for view in views_of_all)
        images: dict[tuple[str, models.Preprocess], tf.Tensor] = {}

        def normalised(view: str, preprocess: models.Preprocess) -> tf.Tensor:
            if (view, preprocess) not in images:
                images[(view, preprocess)] = preprocess(batch[VIEW_KEYS[view]])
            return images[(view, preprocess)]

        outputs: dict[NetworkView, dict[str, tf.Tensor]] = {}
        for (name, view), runner in self._runners.items():
            if (name, view) not in places:
                continue
            if name in self.companions:
                companion = self.companions[name]
                model, mode, learns = companion.model, training and companion.training, False
                preprocess = self.student.preprocess
            else:
                network = self.network(name)
                model, preprocess = network.model, network.preprocess
                learns = name == "student" or self._trainable_teacher
                mode = training and learns
            pixels = normalised(view, preprocess)
            run = model if runner is None else runner
            if (name, view) in self._constant:
                result = call_with_constants(run, pixels)
            else:
                result = run(pixels, training=mode)
            result = {"logits": result} if runner is None else dict(result)
            if not learns:
                result = {tap: tf.stop_gradient(value) for tap, value in result.items()}
            outputs[(name, view)] = result
        if len(self.teachers) > 1:
            for view in views_of_all:
                logits = [outputs[(name, view)]["logits"] for name in self._names]
                outputs[("teacher", view)] = {"logits": mean_of_probabilities(logits)}
        return outputs


def _union(requirements: Iterable[Requires]) -> dict[NetworkView, list[str]]:
    taps: dict[NetworkView, list[str]] = {}
    for requires in requirements:
        for place, names in requires.taps.items():
            union = taps.setdefault(tuple(place), [])
            union.extend(name for name in names if name not in union)
    return {
        place: (["logits"] if "logits" in names else []) + [n for n in names if n != "logits"]
        for place, names in taps.items()
    }


def _agree(first: tuple | None, second: tuple | None) -> bool:
    """Returns whether two shapes may be equal; an unknown size fits any."""
    if first is None or second is None:
        return True
    pairs = zip(first, second)
    return len(first) == len(second) and all(a is None or b is None or a == b for a, b in pairs)
