"""HDKD: every exit of a network learns from every deeper one, by weights that are learned as well.

Hao Wang and Li Li, "Harmonized Dense Knowledge Distillation Training for Multi-Exit Architectures",
AAAI 2021, pages 10218-10226, doi 10.1609/aaai.v35i11.17225::

    L(theta; g) = sum_i g_i CE_i + sum_{i < j} g_ij KD_ij

with the losses of :mod:`tfkd.distillers.shared.exit_losses`. The weights ``g`` minimize a loss
``V`` of held-out images (:mod:`tfkd.distillers.hdkd.validation`), which the network reaches by a
step of gradient descent on ``L``; they and the network learn in turns, at every step::

    theta' = theta - eta * grad_theta L(theta; g)       on the batch, nothing is written
    h      = dV(theta')/dg                              on held-out images, in closed form
    g     <- an Adam step by h, then max(g, 0), then the initial sum
    theta <- the step of the run's own optimizer on L(theta; g), with the new g, on the same batch

``h`` is exact, see :mod:`tfkd.distillers.hdkd.bilevel`; ``eta`` is the current learning rate. The
batch passes forward once, for both steps, and held-out images once more at ``theta'``. Batch
normalization uses the images of the pass in both; the first alone writes moving statistics. The
step is :class:`HDKDDistiller`'s.

- ``form="hdkd"`` learns the weights of all losses; ``"hmsdnet"`` those of the label losses alone,
  ``"hdbt"`` those of the label losses and of the divergences from the deepest exit, the
  comparisons of the paper.
- ``update_every=n`` learns ``g`` at every n-th step, from the first on; the others cost what dense
  KD does.

**Reconstruction**. The text of the paper could not be had, and there is no code. Read: abstract,
caption of figure 1, and a third-party digest of its parts. So it is known that all pairs
distill, that one vector weighs labels and pairs and is learned by bilevel optimization on held-out
images in turns with the network, that a balanced validation loss with running means, softplus and
``alpha = 0.5`` keeps early exits from dominating, and that the starts of DBT, of deep supervision
and at random end alike. Ours are: the formula of ``V``; the virtual step, plain gradient descent
without momentum and decay on this loss alone; the projection; Adam with rate 1e-3 and betas 0.5 and
0.999; ``T = 4`` for all pairs; the same batch for both passes. What is uncertain is a setting.

Images held out for ``g`` come un-augmented as ``heldout_image`` and ``heldout_label``: runs take
them from the validation images, which must fill a batch. The best epoch is then chosen on images
that were seen in training, though not by the network.

Published recipe (CIFAR-100): SGD with momentum 0.9, weight decay 1e-4, batches of 128, 300 epochs,
learning rate 0.1, x0.1 after 150 and 225, 45,000 images to train on and 5,000 held out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import keras
import numpy as np
import tensorflow as tf

from tfkd.core import Context, Spec, register
from tfkd.core.step.clipping import is_normalized
from tfkd.core.step.replicas import replica_count, sum_over_replicas
from tfkd.core.step.updates import apply_if
from tfkd.distillers.hdkd.distiller import HDKDDistiller
from tfkd.distillers.hdkd.validation import balanced_loss
from tfkd.distillers.hdkd.weights import initial_weights, projected, restricted, support
from tfkd.distillers.shared.exit_losses import cross_entropies, exit_losses, loss_names, pairs
from tfkd.distillers.shared.exits import OfExits
from tfkd.errors import TfkdError
from tfkd.settings import Count, Fraction, Positive, Range, field

HELDOUT = ("heldout_image", "heldout_label")
"""The entries of a batch that hold the images of the upper level, and their labels."""

Beta = Annotated[float, Range(low=0, below=1)]


@register("hdkd")
class HDKD(OfExits):
    """Dense distillation between exits with learned weights, in the place of the label loss.

    ``student_loss_weight`` does not enter. Each epoch's weights are kept in ``records.npz`` and
    drawn, their means over the epoch are logged as ``hdkd/weight/NAME``, that of the last ``V`` as
    ``hdkd/validation_loss``.

    Example::

        distiller = tfkd.distillers.HDKDDistiller(None, msdnet, tfkd.distillers.HDKD())
        distiller.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
        distiller.fit(batches_with_heldout_images, epochs=10)
    """

    form: Literal["hdkd", "hmsdnet", "hdbt"] = field(
        "hdkd", "the losses that have a weight: all, of labels, or those of DBT"
    )
    initial: Literal["dbt", "deep_supervision", "dense"] = field("dbt", "the weights at the start")
    temperature: Positive = field(4.0, "the T of all pairs")
    update_every: Count = field(1, "steps from one update of the weights to the next")
    absolute_share: Fraction = field(0.5, "alpha: share of the cross-entropy itself in V")
    running_momentum: Fraction = field(0.99, "rho: what an update keeps of the running means in V")
    keep_sum: bool = field(True, "whether the weights always have the sum of the start")
    weight_optimizer: Literal["adam", "sgd"] = field("adam", "what updates the weights")
    weight_learning_rate: Positive = field(1e-3, "its learning rate")
    weight_beta1: Beta = field(0.5, "its first beta; of adam alone")
    weight_beta2: Beta = field(0.999, "its second beta; of adam alone")

    requires = dataclasses.replace(OfExits.requires, batch_keys=HELDOUT)
    distiller_class = HDKDDistiller

    def check(self) -> None:
        self.distills = self.form != "hmsdnet"

    def setup(self, spec: Spec) -> None:
        student = spec.network("student")
        if any(map(is_normalized, student.model.trainable_variables)):
            raise TfkdError(
                f"{self.name}: found adder layers in network {student.name!r}, whose gradients are "
                "normalized and have no derivative, wanted convolutions"
            )
        count = len(self.exits)
        self._chosen = support(self.form, count)
        self._learners = np.array([i for i, _ in pairs(count)])[self._chosen[count:] - count]
        first = restricted(initial_weights(self.initial, count), self._chosen)
        self._total = float(first.sum()) if self.keep_sum else None
        # Every replica writes the same values, so that the first one's stand for all.
        kept = dict(
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )
        self.gamma = self.add_weight(
            shape=first.shape,
            initializer=lambda shape, dtype: tf.constant(first, dtype),
            name="gamma",
            **kept,
        )
        self.running = self.add_weight(
            shape=(count,), initializer="zeros", name="running_losses", **kept
        )
        self.validation_loss = self.add_weight(
            shape=(), initializer="zeros", name="validation_loss", **kept
        )
        if self.weight_optimizer == "adam":
            learner = keras.optimizers.Adam(
                self.weight_learning_rate, self.weight_beta1, self.weight_beta2
            )
        else:
            learner = keras.optimizers.SGD(self.weight_learning_rate)
        learner.build([self.gamma])
        self.optimizers = [learner]

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The losses that have a weight, in the order of the weights."""
        names = loss_names(self.exits)
        return tuple(names[number] for number in self._chosen)

    def means(self, context: Context) -> tf.Tensor:
        """Returns the losses that have a weight, ``(losses,)``, formed once a step."""
        if self.name not in context.scratch:
            logits = self.logits(context)
            if self.distills:
                losses = exit_losses(context.labels, logits, self.temperature)
                losses = tf.gather(losses, self._chosen)
            else:
                losses = cross_entropies(context.labels, logits)
            context.scratch[self.name] = context.means(losses)
        return context.scratch[self.name]

    def compute(self, context) -> dict[str, tf.Tensor]:
        means = self.means(context)
        weighted = tf.cast(tf.stop_gradient(tf.convert_to_tensor(self.gamma)), means.dtype) * means
        count = len(self.exits)
        of_labels, of_pairs = weighted[:count], weighted[count:]
        if not self.distills:
            return self.named(of_labels)
        distilled = tf.math.segment_sum(of_pairs, self._learners)
        return self.named(tf.concat([of_labels, distilled], axis=0))

    def heldout_means(self, labels: tf.Tensor, outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the cross-entropy of each exit, whose mean over replicas is that of all images.

        Args:
            labels: Of the held-out images of this replica.
            outputs: Their logits by exit.
        """
        losses = cross_entropies(labels, [outputs[name] for name in self.exits])
        rows = tf.cast(tf.shape(losses)[1], losses.dtype)
        of_all = sum_over_replicas(rows) / replica_count()
        return tf.reduce_sum(losses, axis=1) / of_all

    def balanced(self, losses: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns ``V``, its derivative by each loss, and the running means after it.

        Args:
            losses: The cross-entropy of each exit on all held-out images of the step.
        """
        running = tf.convert_to_tensor(self.running)
        running = tf.where(running > 0.0, running, losses)
        value, slopes = balanced_loss(losses, running, self.absolute_share)
        kept = self.running_momentum
        return value, slopes, kept * running + (1.0 - kept) * losses

    def learn(
        self, hypergradient: tf.Tensor, value: tf.Tensor, running: tf.Tensor, *, scaled: bool
    ) -> None:
        """Updates the weights; where something is not finite they stay, and so do the means of V.

        Their optimizer is then left out as that of the network is: on one device it does not see
        the step, on mirrored replicas it makes one without slopes.

        Args:
            hypergradient: The derivative of ``V`` by each weight, equal on every replica.
            value: The ``V``.
            running: The running means after it.
            scaled: Whether gradients had a loss scale, under which some overflow: the step is then
                left out, as the optimizer of the network leaves out its own. Otherwise what is not
                finite is logged, which ends the run.
        """
        finite = tf.reduce_all(tf.math.is_finite(tf.concat([hypergradient, value[None]], axis=0)))
        before = tf.convert_to_tensor(self.gamma)
        # The optimizer sums over replicas.
        apply_if(finite, self.optimizers[0], [(hypergradient / replica_count(), self.gamma)])
        after = projected(tf.convert_to_tensor(self.gamma), self._total)
        ok = tf.logical_and(finite, tf.reduce_sum(after) > 0.0)
        self.gamma.assign(tf.where(ok, after, before))
        self.running.assign(tf.where(finite, running, tf.convert_to_tensor(self.running)))
        logged = value + 0.0 * tf.reduce_sum(hypergradient)
        if scaled:
            logged = tf.where(finite, logged, tf.convert_to_tensor(self.validation_loss))
        self.validation_loss.assign(logged)

    def records(self) -> Mapping[str, np.ndarray]:
        return {"weights": np.array(self.gamma)}

    def record_names(self) -> Mapping[str, Sequence[str]]:
        return {"weights": self.weight_names}
