"""IMTA: exits learn from the deepest one, and their gradients are brought into balance.

Hao Li, Hong Zhang, Xiaojuan Qi, Ruigang Yang and Gao Huang, "Improved Techniques for Training
Adaptive Deep Networks", ICCV 2019, arXiv 1908.06294::

    L = CE_n + sum_{i < n} [(1 - c) * CE_i + c * KD_in]

with ``CE_i`` and ``KD_in`` of :mod:`tfkd.distillers.shared.exit_losses` (the paper's one-for-all
knowledge distillation). The published run on ImageNet has ``c = 0.1`` and ``T = 1``.

*Gradient equilibrium*: where the head of exit ``i`` of ``n`` leaves the network, at the coarsest
maps of block ``i`` of an MSDNet, the gradient is

    (g_head + (n - i) * g_later) / (n - i + 1)

``g_head`` what comes back through the head and ``g_later`` what comes back through all that
follows; so the gradients of many exits do not add up in the first blocks. Other maps are left
alone. The student is run through a twin over the same weights (:func:`tfkd.models.equilibrium`),
in a stage called ``equilibrium``; the student that is saved has no part of it. Runs enter the
stage by themselves; around a distiller of your own, ``distiller.enter_stage(imta.stages()[0])``
does before ``compile``. Without it the losses are the same and the gradients plain.

Formulas and values are those of the authors' code. Departures: that code trains the network with
gradient equilibrium and labels alone first, freezes it, and then distills the frozen deepest exit
into new classifiers; here all is one training, and the deepest exit teaches as it is at each step,
without gradient. The third technique of the paper, inline subnetwork collaboration, which feeds
the logits of an exit to the classifier of the next, changes the network and is not here. That code
averages the divergence over classes as well, which divides ``c`` by their number.

Logits are ``(batch, classes)``; shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfkd import models
from tfkd.core import Stage, register
from tfkd.distillers.shared.exit_losses import cross_entropies, deepest_losses
from tfkd.distillers.shared.exits import OfExits
from tfkd.errors import TfkdError
from tfkd.settings import Fraction, Positive, field


@register("imta")
class IMTA(OfExits):
    """Distillation from the deepest exit, with gradient equilibrium.

    It takes the place of the label loss: ``student_loss_weight`` does not enter.
    """

    kd_share: Fraction = field(
        0.1, "the paper's c: share of distillation in the loss of an exit but the deepest"
    )
    temperature: Positive = field(1.0, "the paper's T")
    equilibrium: bool = field(True, "whether the student runs with gradient equilibrium")

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        super().choose_taps(student, teachers)
        if self.equilibrium:
            self._twin(student)

    def _twin(self, student: models.Network) -> models.Network:
        """Returns the student with gradient equilibrium.

        Raises:
            TfkdError: Where its heads cannot be told from the rest.
        """
        try:
            return student.with_model(models.equilibrium(student.model))
        except TfkdError as error:
            raise TfkdError(f"{self.name}: {error} (or equilibrium=False)") from None

    def stages(self) -> list[Stage] | None:
        if not self.equilibrium:
            return None
        return [Stage("equilibrium", network=lambda made: self._twin(made.network("student")))]

    def compute(self, context) -> dict[str, tf.Tensor]:
        logits = self.logits(context)
        labels = cross_entropies(context.labels, logits)
        labels = tf.concat([(1.0 - self.kd_share) * labels[:-1], labels[-1:]], axis=0)
        distilled = self.kd_share * deepest_losses(logits, self.temperature)
        return self.named(context.means(tf.concat([labels, distilled], axis=0)))
