"""DBT: every exit of a network learns from the deepest one.

Mary Phuong and Christoph H. Lampert, "Distillation-Based Training for Multi-Exit Architectures",
ICCV 2019::

    L = s * [(1 - C) * sum_{i <= n} CE_i + C * sum_{i < n} KD_in]
    CE_i = mean_batch CE(y, softmax(z_i))
    KD_in = T^2 * mean_batch KL(softmax(z_n / T) || softmax(z_i / T))

``z_1 .. z_n`` are the logits of the exits, shallow to deep; the deepest takes no gradient as
teacher. ``C = 0.5``.

- ``form="annealed"``: ``T`` starts at 1 and is multiplied by 1.05 after each training batch in
  which the mean over the images of ``max_c softmax(z_n / T)_c`` is above 0.5. ``T`` is part of the
  state of the run, the mean is that of the whole batch on any number of replicas, and runs keep
  ``T`` of each epoch in ``records.npz``.
- ``form="constant"``: ``T = 4``.

``variant="code"`` has the factor of the published code, ``s = 10 / n``, which undoes the 0.5 and
scales the loss as if there were five exits; ``variant="clean"`` has ``s = 1``. The published
CIFAR-100 runs train ``msdnet_cifar_dbt11`` on few images of each class, 300 epochs, batches of 64,
learning rate 0.1, x0.1 after 150 and 225, weight decay 1e-4, Nesterov momentum.

Formulas and values are those of the authors' code. Departures: the code has the cross-entropy in
the place of the divergence, which differs by a constant; images count by their weight
(``sample_weight``) in the mean that moves ``T``.

Logits are ``(batch, classes)``; shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfkd.core import Spec, Terms, register
from tfkd.core.divergences import as_float
from tfkd.core.step.replicas import replica_count, sum_over_replicas
from tfkd.distillers.shared.exit_losses import cross_entropies, deepest_losses
from tfkd.distillers.shared.exits import OfExits
from tfkd.errors import TfkdError
from tfkd.settings import Fraction, Positive, field, values_of

FORMS = {
    "annealed": {"temperature": 1.0, "growth": 1.05, "confidence": 0.5},
    "constant": {"temperature": 4.0},
}
"""The forms, each with its settings of the temperature and their published values."""


def confidence(logits: tf.Tensor, temperature: tf.Tensor | float) -> tf.Tensor:
    """Returns the largest softened probability of each sample, ``(batch,)``."""
    return tf.reduce_max(tf.nn.softmax(logits / temperature), axis=-1)


@register("dbt")
class DBT(OfExits):
    """Distillation from the deepest exit, in the place of the label loss.

    ``student_loss_weight`` does not enter. Settings without a value take the published one of their
    form, see :data:`FORMS`.
    """

    form: Literal["annealed", "constant"] = field(
        "annealed", "whether the temperature grows with the confidence of the deepest exit"
    )
    kd_share: Fraction = field(0.5, "the paper's C: share of distillation; labels have the rest")
    temperature: Positive | None = field(
        None, "the paper's T, or the one that annealing starts from; none: 4, or 1"
    )
    growth: Positive | None = field(
        None, "annealed: factor of T after a confident batch; none: 1.05"
    )
    confidence: Fraction | None = field(
        None, "annealed: mean confidence of a batch above which T grows; none: 0.5"
    )
    variant: Literal["code", "clean"] = field(
        "code", "code: the whole loss times 10 / exits; clean: as it is"
    )

    def check(self) -> None:
        published = FORMS[self.form]
        for name, value in values_of(self).items():
            if value is None:
                setattr(self, name, published.get(name))
            elif name in FORMS["annealed"] and name not in published:
                raise TfkdError(
                    f"{self.name}: {name}={value!r} with form={self.form!r}, whose temperature "
                    "stays; wanted form='annealed'"
                )

    def setup(self, spec: Spec) -> None:
        if self.form == "annealed":
            # Every replica writes the same value, so that the first one's stands for all.
            self.current = self.add_weight(
                shape=(),
                dtype="float32",
                initializer=keras.initializers.Constant(self.temperature),
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
                name="temperature",
            )

    def compute(self, context) -> Terms:
        logits = [as_float(each) for each in self.logits(context)]
        annealed = self.form == "annealed"
        temperature = tf.cast(self.current, logits[-1].dtype) if annealed else self.temperature
        labels = (1.0 - self.kd_share) * cross_entropies(context.labels, logits)
        distilled = self.kd_share * deepest_losses(logits, temperature)
        scale = 10.0 / len(self.exits) if self.variant == "code" else 1.0
        terms = self.named(scale * context.means(tf.concat([labels, distilled], axis=0)))
        if not annealed:
            return Terms(terms)
        mean = context.weighted_mean(confidence(tf.stop_gradient(logits[-1]), temperature))
        return Terms(terms, {"confidence": mean})

    def after_step(self, context, carry: Mapping[str, Any]) -> None:
        if self.form == "annealed":
            mean = sum_over_replicas(carry["confidence"]) / replica_count()
            self.current.assign(
                tf.where(mean > self.confidence, self.growth * self.current, self.current)
            )

    def records(self) -> Mapping[str, np.ndarray]:
        return {"temperature": np.array(self.current)} if self.form == "annealed" else {}
