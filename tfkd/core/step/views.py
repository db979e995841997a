"""How the networks are run in a step: each once for every view, with the taps asked for."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core.objective import VIEW_KEYS, VIEW_ROWS, Companion, NetworkView, Requires
from tfkd.core.step.cached_taps import Resumed, cached_key
from tfkd.core.step.constant_weights import MOST_BYTES, call_with_constants, size_as_constants
from tfkd.core.step.own_losses import AddedLosses
from tfkd.core.tasks.task import Task
from tfkd.errors import TfkdError, unknown

MAIN = "main"
STUDENT: NetworkView = ("student", MAIN)

Taps = dict[NetworkView, list[str]]


def union_of_taps(requirements: Iterable[Requires]) -> Taps:
    """Returns the taps that any of some objectives asks for, each once, the logits first."""
    taps: Taps = {}
    for requires in requirements:
        for view, names in requires.taps.items():
            union = taps.setdefault(view, [])
            union.extend(name for name in names if name not in union)
    return {
        view: (["logits"] if "logits" in names else []) + [n for n in names if n != "logits"]
        for view, names in taps.items()
    }


def view_of_main_rows(requirements: Iterable[Requires]) -> str | None:
    """Returns the view whose rows stand for the main view in training; ``None`` is the main view.

    Raises:
        TfkdError: For a view that has not several rows for each image.
    """
    found = {each.main_rows_of for each in requirements if each.main_rows_of is not None}
    for view in found:
        if view not in VIEW_ROWS:
            raise unknown("view with several rows for each image", view, VIEW_ROWS)
    return found.pop() if found else None


class ViewPlan:
    """Which model gives the taps of each network on each view.

    Args:
        networks: Student and teachers by name, as they are run.
        companions: The objectives' own networks; ``None`` before they are made.
        taps: For each network and view the taps that are read; ``teacher`` stands for all teachers.
        task: What the outputs mean.
        teachers: Names of the teachers.
        given: Identities of the networks that were given, whose weights may still change.
        trainable_teacher: Whether the teacher trains.
        main_rows_of: The view whose rows stand for the main view in training steps; ``None`` where
            the main view is run.
        of_teachers: Identities of the layers of teachers, which may be parts of what runs in the
            student's place.
        cached: Taps of the student on the main view that batches of training may bring along: see
            :func:`tfkd.core.step.cached_taps.cached_key`.

    Raises:
        TfkdError: For a tap or network that is not there.
    """

    def __init__(
        self,
        networks: Mapping[str, models.Network],
        companions: Mapping[str, Companion] | None,
        taps: Taps,
        task: Task,
        *,
        teachers: Sequence[str],
        given: Collection[int],
        trainable_teacher: bool,
        main_rows_of: str | None = None,
        of_teachers: Collection[int] = (),
        cached: Sequence[str] = (),
    ) -> None:
        self._networks = dict(networks)
        self._companions = dict(companions or {})
        self._task = task
        self._teachers = list(teachers)
        self._trainable_teacher = trainable_teacher
        self._main_rows_of = main_rows_of
        self._cached = tuple(cached)
        self._resumed: dict[tuple[str, ...], Resumed] = {}
        self.taps = self._with_outputs(taps)
        listed = self._single_views()
        self._by_rows = self._read_by_rows(listed)
        known = {"teacher", *self._networks, *self._companions}
        self._runners: dict[NetworkView, keras.Model | None] = {}
        for network, view in listed:
            if network in self._networks:
                self._runners[network, view] = self._runner(network, self.taps[network, view])
            elif network in self._companions:
                # One that started as a copy of the student has its taps under the same names.
                copy = self._networks["student"].with_model(self._companions[network].model)
                self._runners[network, view] = _tapped(copy, self.taps[network, view])
            elif companions is not None:
                raise unknown("network", network, known)
        self._constant = self._constant_views(given)
        self._added = {
            name: AddedLosses(
                self._networks[name].model if runner is None else runner,
                of_teachers if name == "student" else (),
            )
            for (name, view), runner in self._runners.items()
            if view == "main" and name in self._networks and self._learns(name)
        }

    def _with_outputs(self, taps: Taps) -> Taps:
        """Returns the taps with the outputs that label loss and metrics read, these first."""
        own = list(self._task.taps(self._networks["student"]))
        others = [name for name in taps.get(STUDENT, ()) if name not in own]
        return {**{STUDENT: own + others}, **{v: t for v, t in taps.items() if v != STUDENT}}

    def _single_views(self) -> list[NetworkView]:
        """Spells ``teacher`` out as each teacher's own view."""
        listed: list[NetworkView] = []
        several = len(self._teachers) > 1
        for (network, view), taps in list(self.taps.items()):
            if network != "teacher" or not several:
                listed.append((network, view))
                continue
            features = sorted(set(taps) - set(self._task.taps(self._networks[self._teachers[0]])))
            if features:
                raise TfkdError(
                    f"taps {', '.join(features)} of 'teacher': found {len(self._teachers)} "
                    "teachers, whose logits alone can be averaged, wanted one teacher, or an "
                    "objective of your own whose requires names 'teacher:0'"
                )
            for name in self._teachers:
                union = self.taps.setdefault((name, view), [])
                union.extend(tap for tap in taps if tap not in union)
                listed.append((name, view))
        return list(dict.fromkeys(listed))

    def _read_by_rows(self, listed: Sequence[NetworkView]) -> dict[NetworkView, NetworkView]:
        """Returns the main views that training reads as rows of another view, with that view.

        Their taps are added to those of the other view.
        """
        found: dict[NetworkView, NetworkView] = {}
        for network, view in listed:
            if view == self._main_rows_of and (network, MAIN) in listed:
                found[network, MAIN] = (network, view)
                own = self.taps[network, view]
                own.extend(tap for tap in self.taps[network, MAIN] if tap not in own)
        return found

    def _runner(self, name: str, taps: Sequence[str]) -> keras.Model | None:
        return _tapped(self._networks[name], taps)

    def _constant_views(self, given: Collection[int]) -> set[NetworkView]:
        """Returns which copies of teachers run with constants, as many as the step may hold."""
        left: float = MOST_BYTES
        chosen: set[NetworkView] = set()
        for (name, view), runner in self._runners.items():
            network = self._networks.get(name)
            if name == "student" or network is None or id(network) in given:
                continue
            if (name, view) in self._by_rows:  # Training, which counts, does not run it.
                continue
            size = size_as_constants(network.model if runner is None else runner)
            if size <= left:
                chosen.add((name, view))
                left -= size
        return chosen

    @property
    def keys(self) -> list[str]:
        """The keys of the batch that hold the images of the views that are run."""
        return sorted({VIEW_KEYS[view] for _, view in self.taps})

    @property
    def gives_agreement(self) -> bool:
        """Whether the teacher's outputs on the main view are read, for the agreement."""
        taps = self.taps.get(("teacher", "main"), ())
        whole = bool(taps) and set(self.output_names("teacher")) <= set(taps)
        return self._task.knows_agreement and (whole or "logits" in taps)

    def views(self, view: str) -> list[NetworkView]:
        """Returns every network that is run on a view, with that view."""
        return [each for each in self.taps if each[1] == view]

    def output_names(self, network: str) -> tuple[str, ...]:
        """Returns the outputs of a network that the task reads."""
        name = self._teachers[0] if network == "teacher" else network
        # A companion is a form of the student.
        return self._task.taps(self._networks.get(name, self._networks["student"]))

    def shapes(self) -> dict[NetworkView, dict[str, tuple[int | None, ...]]]:
        """Returns the shape of each tap of student and teachers, ``None`` for the batch axis."""
        found: dict[NetworkView, dict[str, tuple[int | None, ...]]] = {}
        for name, view in self._runners:
            own = self._networks.get(name)
            if own is not None:
                shapes = models.tap_shapes(own.model, own.paths(self.taps[name, view]))
                found[name, view] = {tap: (None, *shape) for tap, shape in shapes.items()}
        for network, view in self.taps:
            if network == "teacher" and (network, view) not in found and self._teachers:
                first = found[self._teachers[0], view]
                found[network, view] = {tap: first[tap] for tap in self.taps[network, view]}
        return found

    def training_batch(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns a batch with the main view that training steps see."""
        if self._main_rows_of is None:
            return dict(batch)
        view = self._main_rows_of
        return {**batch, VIEW_KEYS[MAIN]: batch[VIEW_KEYS[view]][:: VIEW_ROWS[view]]}

    def _resumes_from(self, batch: Mapping[str, tf.Tensor]) -> Resumed | None:
        """Returns how the student runs from what a batch brings along; ``None`` without any."""
        given = tuple(tap for tap in self._cached if cached_key(tap) in batch)
        if not given:
            return None
        if given not in self._resumed:
            with tf.init_scope():  # The graph of the step has no part in its making.
                taps = self.taps[STUDENT]
                self._resumed[given] = Resumed(self._networks["student"], taps, given)
        return self._resumed[given]

    def _learns(self, name: str) -> bool:
        return name == "student" or self._trainable_teacher

    def run(
        self,
        batch: Mapping[str, tf.Tensor],
        views: Iterable[NetworkView],
        *,
        training: bool,
        added_losses: dict[str, list[tf.Tensor]] | None = None,
    ) -> dict[NetworkView, dict[str, tf.Tensor]]:
        """Runs networks on views, each pair once.

        Pixels are normalized once for each view and kind of normalization. Outputs of frozen
        teachers and of companions carry no gradient. In training, a main view that is rows of
        another view is read from there.

        Args:
            batch: The batch, with the images of the views; in training from :meth:`training_batch`.
            views: Which networks to run on which views; ``teacher`` stands for all of them.
            training: Whether the student trains (its batch normalization uses the batch).
            added_losses: Filled with what the layers of each network that trains gave to
                ``add_loss`` on the main view.

        Returns:
            For each network and view the taps that were asked for.
        """
        wanted = set(views)
        views_of_all = [view for network, view in wanted if network == "teacher"]
        wanted.update((name, view) for name in self._teachers for view in views_of_all)
        by_rows = {main: of for main, of in self._by_rows.items() if training and main in wanted}
        wanted = (wanted | set(by_rows.values())) - set(by_rows)
        # What stands for the main view has its losses as well.
        mains = {(name, view) for name, view in wanted if view == MAIN} | set(by_rows.values())
        images: dict[tuple[str, models.Preprocess], tf.Tensor] = {}

        def normalized(view: str, preprocess: models.Preprocess) -> tf.Tensor:
            if (view, preprocess) not in images:
                images[view, preprocess] = preprocess(batch[VIEW_KEYS[view]])
            return images[view, preprocess]

        outputs: dict[NetworkView, dict[str, tf.Tensor]] = {}
        for (name, view), runner in self._runners.items():
            if (name, view) not in wanted:
                continue
            if name in self._companions:
                companion = self._companions[name]
                model, mode, learns = companion.model, training and companion.training, False
                preprocess = self._networks["student"].preprocess
            else:
                network = self._networks[name]
                model, preprocess = network.model, network.preprocess
                learns = self._learns(name)
                mode = training and learns
            pixels = normalized(view, preprocess)
            run = model if runner is None else runner
            resumed = None
            if training and (name, view) == STUDENT:
                resumed = self._resumes_from(batch)
            if resumed is not None:
                run = functools.partial(resumed, batch)
            if (name, view) in self._constant:
                result = call_with_constants(run, pixels)
            elif name in self._added and (name, view) in mains:
                with self._added[name].collected() as added:
                    result = run(pixels, training=mode)
                if added_losses is not None:
                    added_losses[name] = added
            else:
                result = run(pixels, training=mode)
            result = dict(result) if isinstance(result, Mapping) else {"logits": result}
            if not learns:
                result = {tap: tf.stop_gradient(value) for tap, value in result.items()}
            outputs[name, view] = result
        for main, (name, view) in by_rows.items():
            whole, rows = outputs[name, view], VIEW_ROWS[view]
            outputs[main] = {tap: whole[tap][::rows] for tap in self.taps[main]}
        if len(self._teachers) > 1:
            for view in views_of_all:
                own = [outputs[name, view] for name in self._teachers]
                outputs["teacher", view] = self._task.ensemble(own)
        return outputs


def _tapped(network: models.Network, taps: Sequence[str]) -> keras.Model | None:
    """Returns the tapped model, or ``None`` where the model itself gives all that is asked."""
    if set(taps) == set(models.outputs(network.model)):
        return None
    return models.tapped(network.model, network.paths(taps))
