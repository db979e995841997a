"""One step of training or evaluation, as :class:`tfkd.Distiller` makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core.host import Host
from tfkd.core.objective import NetworkView
from tfkd.core.step.context import Context
from tfkd.core.step.losses import StepLosses, combine, label_losses
from tfkd.core.step.own_losses import own_losses
from tfkd.core.step.replicas import replica_count, sum_over_replicas
from tfkd.core.step.term_means import TermMeans
from tfkd.core.step.updates import Pairs, apply_if, gradients_are_finite
from tfkd.core.step.views import STUDENT
from tfkd.errors import TfkdError


class Steps(Host):
    """The part of :class:`tfkd.Distiller` that runs inside a compiled step.

    A method with a step of its own overrides ``train_step`` and builds it from :meth:`forward`,
    :meth:`combine` and :meth:`update`.
    """

    def train_step(self, data):
        """Runs one training step: networks once, all losses, one gradient, one update."""
        batch = self.task.batch(data)
        with tf.GradientTape() as tape:
            context = self.forward(batch, training=True)
            losses = self.combine(context)
            scaled = self.optimizer.scale_loss(losses.total / replica_count())
        variables = self.trained_variables
        gradients = tape.gradient(scaled, variables)
        self.update(context, losses, gradients, variables)
        return self.train_results()

    def test_step(self, data):
        """Evaluates the student on one batch, in inference mode, without touching any state."""
        batch = self.task.batch(data)
        context = self.forward(batch, training=False)
        values, _, *counts = _of_all(tf.stack(self.test_values(context)), context)
        self._test_means.update_state(values, *counts)
        self._update_metrics(context)
        return self.test_results()

    def test_views(self) -> set[NetworkView]:
        """Returns which networks ``evaluate`` runs on which views."""
        with_losses = self._total_is_evaluated()
        return {STUDENT, *(self._plan.views("main") if with_losses else ())}

    def test_values(self, context: Context) -> list[tf.Tensor]:
        """Returns the numbers of :meth:`test_names` for a batch of an evaluation.

        Args:
            context: What :meth:`forward` returned.
        """
        if not self._total_is_evaluated():
            parts, own = label_losses(context, self.task), self.own_losses(context)
            return [tf.add_n([*parts.values(), *([] if own is None else [own])])]
        values = list(tf.unstack(self.combine(context).values))
        if self._agreement_is_evaluated():
            same = self.task.agreement(context.outputs("student"), context.outputs("teacher"))
            values.append(context.weighted_mean(same))
        return values

    def own_losses(self, context: Context, network: str = "student") -> tf.Tensor | None:
        """Returns the sum of the losses that a network that trains holds itself.

        Args:
            context: What :meth:`forward` returned.
            network: Its name.

        Returns:
            A scalar formed as :meth:`Context.mean` forms it, or ``None`` without such losses.
        """
        added = [context.of_own_rows(each) for each in context.added_losses.get(network, ())]
        return own_losses(self._variables_with_losses(network), added)

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
            "output_names": self._plan.output_names,
            "stage": self.stage_name,
        }
        objectives = [objective for objective, _ in self.active_objectives()]
        if training:
            batch = self._plan.training_batch(batch)
            wrong = None
            if any(map(self._reads_positions, self.active_requirements())):
                batch, wrong = self._positions.checked(batch)
            before = Context(batch, outputs={}, **common)
            common["wrong"] = wrong
            for objective in objectives:
                objective.before_step(before)
            views = {view for each in self.active_requirements() for view in each.taps}
            if not self.student_rests:
                views.add(STUDENT)
        else:
            views = self.test_views()
        added: dict[str, list[tf.Tensor]] = {}
        outputs = self._plan.run(batch, views, training=training, added_losses=added)
        context = Context(batch, outputs=outputs, added_losses=added, **common)
        for objective in objectives:
            logits = objective.student_logits(context)
            if logits is not None:
                context.replace_student_logits(logits)
        return context

    def combine(self, context: Context) -> StepLosses:
        """Forms every loss of a batch, and their weighted sum.

        Args:
            context: What :meth:`forward` returned.
        """
        return combine(
            context,
            self.task,
            self.objectives,
            self.active_objectives(),
            self._label_weight(),
            self._label_terms,
            self.own_losses(context),
        )

    def _label_weight(self) -> float:
        if self.stage is not None and self.stage.student_loss_weight is not None:
            return self.stage.student_loss_weight
        return self.student_loss_weight

    def update(
        self,
        context: Context,
        losses: StepLosses,
        gradients: Sequence[tf.Tensor | None],
        variables: Sequence[keras.Variable],
        further: Sequence[tuple[keras.optimizers.Optimizer, Pairs]] = (),
    ) -> None:
        """Applies the gradients, lets objectives write their state, and keeps the running means.

        Nothing is applied from the first non-finite loss or gradient on.

        Args:
            context: The step.
            losses: Its losses.
            gradients: Of the total divided by the number of replicas, one for each variable.
            variables: The variables to update.
            further: Optimizers of networks that train beside the student, each with its gradients,
                divided in the same way, and their variables.
        """
        pairs = [(g, v) for g, v in zip(gradients, variables) if g is not None]
        values, wrong, *counts = _of_all(losses.values, context)
        # An optimizer with a loss scale looks for overflow itself, and goes on after one.
        watched = [
            gradient
            for optimizer, each in [(self.optimizer, pairs), *further]
            if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
            for gradient, _ in each
        ]
        finite = gradients_are_finite(watched)
        ok = self.watch.observe(values, finite, context.step, context.epoch, wrong)

        def write_state() -> None:
            for objective, _ in self.active_objectives():
                objective.after_step(context, losses.terms[objective.name].carry)

        apply_if(ok, self.optimizer, pairs, write_state)
        for optimizer, each in further:
            apply_if(ok, optimizer, each)
        self._train_means.update_state(values, *counts)
        self._update_metrics(context)
        self.clock.tick()

    def _update_metrics(self, context: Context) -> None:
        outputs = context.outputs("student")
        if self._compile_metrics is None or not outputs:
            return
        if self.metrics_are_own:
            for metric in self._compile_metrics.metrics:
                metric.update_state(context.batch, outputs)
        else:
            weights = context.batch.get("sample_weight")
            self._compile_metrics.update_state(context.labels, outputs["logits"], weights)

    def student_at(
        self,
        values: Sequence[tf.Tensor],
        images: tf.Tensor,
        taps: Sequence[str] = ("logits",),
        *,
        training: bool,
    ) -> dict[str, tf.Tensor]:
        """Runs the student at other weights; nothing is written.

        The pass is differentiable with respect to ``values`` and to whatever they were formed of,
        as a virtual step needs it.

        Args:
            values: A tensor for each of ``student.trainable_variables``.
            images: Pixels 0..255, ``(batch, height, width, channels)``.
            taps: The features wanted.
            training: Whether batch normalization uses the batch.

        Returns:
            The features by tap.
        """
        network = self._networks.student
        wanted = len(network.model.trainable_variables)
        if len(values) != wanted:
            raise TfkdError(
                f"student at other weights: found {len(values)} tensors, wanted {wanted}, one for "
                "each trainable variable"
            )
        if isinstance(taps, str):
            raise TfkdError(f"taps: found the string {taps!r}; wanted a list of names")
        key = tuple(taps)
        if key not in self._student_at:
            self._student_at[key] = _with_variables_of(network, key)
        model, positions = self._student_at[key]
        found, _ = model.stateless_call(
            [values[position] for position in positions],
            [tf.convert_to_tensor(each) for each in model.non_trainable_variables],
            network.preprocess(images),
            training=training,
        )
        return dict(found)

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


def _of_all(
    values: tf.Tensor, context: Context
) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor, tf.Tensor]:
    """Returns what all replicas say together, by one exchange.

    The means of some values, the sums of wrong images, if they are counted, and the means of the
    samples and of their weights.
    """
    wrong = [] if context.wrong is None else [context.wrong]
    together = tf.concat([*wrong, values, tf.stack(context.count())], axis=0)
    total = sum_over_replicas(together)
    means, kinds = total / replica_count(), sum(each.shape[0] for each in wrong)
    return means[kinds:-2], total[:kinds] if wrong else None, means[-2], means[-1]


def _with_variables_of(
    network: models.Network, taps: Sequence[str]
) -> tuple[keras.Model, list[int]]:
    """Returns the tapped model, and which of the student's variables each of its own is."""
    tapped = models.tapped(network.model, network.paths(taps))
    place = {id(v): number for number, v in enumerate(network.model.trainable_variables)}
    return tapped, [place[id(variable)] for variable in tapped.trainable_variables]
