"""The training step of HDKD: the weights learn from held-out images, then the student by them.

**Reconstruction** of the algorithm of Wang and Li, "Harmonized Dense Knowledge Distillation
Training for Multi-Exit Architectures", AAAI 2021; see :mod:`tfkd.distillers.hdkd.objective`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfkd.core import Context, Distiller, Objective, Stage, StepLosses
from tfkd.core.step.clipping import scales
from tfkd.core.step.replicas import replica_count, sum_over_replicas, sums_over_replicas
from tfkd.distillers.hdkd.bilevel import hypergradient
from tfkd.errors import TfkdError


class HDKDDistiller(Distiller):
    """A :class:`tfkd.Distiller` whose one HDKD loss learns its weights on held-out images.

    Arguments are those of :class:`tfkd.Distiller`; batches hold ``heldout_image`` (pixels as those
    of ``image``) and ``heldout_label``, of any number of images. The virtual step follows the loss
    of HDKD alone, other losses beside it and the student's own losses left out.

    Raises:
        TfkdError: When there is no such loss.
    """

    def _learner(self) -> tuple[Objective, float]:
        """Returns the loss that learns its weights, and the weight of that loss itself."""
        found = [
            (each, weight)
            for each, weight in zip(self.objectives, self.loss_weights)
            if each.distiller_class is not None
        ]
        if len(found) != 1:
            raise TfkdError(
                f"{type(self).__name__}: found {len(found)} losses that learn their weights, "
                "wanted one, HDKD()"
            )
        return found[0]

    def enter_stage(self, stage: Stage | None) -> None:
        objective, _ = self._learner()
        if stage is not None and (
            (stage.network is not None or stage.trainable is not None)
            or (stage.objectives is not None and objective.name not in stage.objectives)
        ):
            raise TfkdError(
                f"stage {stage.name!r}: found a network, variables or objectives of its own beside "
                f"{objective.name}, wanted none: that trains the whole student at every step"
            )
        super().enter_stage(stage)

    @property
    def short_step(self) -> Callable | None:
        """The step without an update of the weights; ``None`` where each has one."""
        objective, _ = self._learner()
        return None if objective.update_every == 1 else super().train_step

    def takes_short_step(self) -> tf.Tensor:
        objective, _ = self._learner()
        step = tf.convert_to_tensor(self.clock.step)
        return tf.not_equal(step % objective.update_every, 0)

    def loss_names(self) -> list[str]:
        objective, _ = self._learner()
        weights = [f"{objective.name}/weight/{name}" for name in objective.weight_names]
        return [*super().loss_names(), f"{objective.name}/validation_loss", *weights]

    def combine(self, context: Context) -> StepLosses:
        outcome = super().combine(context)
        objective, _ = self._learner()
        own = [tf.convert_to_tensor(objective.validation_loss)[None]]
        own.append(tf.convert_to_tensor(objective.gamma))
        return dataclasses.replace(outcome, values=tf.concat([outcome.values, *own], axis=0))

    def train_step(self, data):
        """Runs one training step: the networks once, the weights of the losses, then the update."""
        batch = self.task.batch(data)
        tape = tf.GradientTape(persistent=True)
        with tape:
            context = self.forward(batch, training=True)
        self._learn_weights(context, tape)
        with tape:
            losses = self.combine(context)
            scaled = self.optimizer.scale_loss(losses.total / replica_count())
        variables = self.trained_variables
        self.update(context, losses, tape.gradient(scaled, variables), variables)
        return self.train_results()

    def _learn_weights(self, context: Context, tape: tf.GradientTape) -> None:
        """Updates the weights by what a step with the present ones would do to held-out images.

        Args:
            context: The step.
            tape: A persistent tape, which has recorded the networks.
        """
        objective, weight = self._learner()
        with tape:
            losses = weight * objective.means(context)
        scale = self.optimizer.scale_loss(tf.ones(()))
        found: dict[str, tf.Tensor] = {}

        def slopes_at(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as upper:
                upper.watch(values)
                outputs = self.student_at(
                    values, context.batch["heldout_image"], objective.exits, training=True
                )
                own = objective.heldout_means(context.batch["heldout_label"], outputs)
            means = sum_over_replicas(own) / replica_count()
            found["value"], slopes, found["running"] = objective.balanced(means)
            slopes *= scale / replica_count()
            gradients = upper.gradient(
                own, values, slopes, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            return [each / scale for each in sums_over_replicas(gradients)]

        slopes = hypergradient(
            tape,
            losses,
            tf.convert_to_tensor(objective.gamma),
            self.student.trainable_variables,
            self.optimizer.learning_rate,
            slopes_at,
            scale,
        )
        objective.learn(slopes, **found, scaled=scales(self.optimizer))
