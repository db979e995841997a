"""Deep supervision: every exit of a network learns the labels.

Gao Huang, Danlu Chen, Tianhong Li, Felix Wu, Laurens van der Maaten and Kilian Q. Weinberger,
"Multi-Scale Dense Networks for Resource Efficient Image Classification", ICLR 2018, arXiv
1703.09844, section 3::

    L = sum_i w_i * mean_batch CE(y, softmax(z_i))

``z_i`` are the logits of exit ``i``. The paper, and the published runs, weigh all exits alike,
``w_i = 1``: that is the label loss that every network with several exits has here, and nothing else
is needed for it (``plain``). This method is for other weights.

Logits are ``(batch, classes)``; shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfkd import models
from tfkd.core import register
from tfkd.distillers.shared.exit_losses import cross_entropies
from tfkd.distillers.shared.exits import OfExits
from tfkd.errors import TfkdError
from tfkd.settings import NonNegative, field


@register("deep_supervision")
class DeepSupervision(OfExits):
    """The weighted sum of the label losses of all exits.

    It takes the place of the label loss: ``student_loss_weight`` does not enter.
    """

    exit_weights: tuple[NonNegative, ...] | None = field(
        None, "weight of each exit, shallow to deep; none: 1 each"
    )

    distills = False

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        super().choose_taps(student, teachers)
        if self.exit_weights is not None and len(self.exit_weights) != len(self.exits):
            raise TfkdError(
                f"{self.name}: found {len(self.exit_weights)} exit_weights, wanted "
                f"{len(self.exits)}, one for each of the exits {', '.join(self.exits)}"
            )

    def compute(self, context) -> dict[str, tf.Tensor]:
        losses = context.means(cross_entropies(context.labels, self.logits(context)))
        if self.exit_weights is not None:
            losses *= tf.constant(self.exit_weights, losses.dtype)
        return self.named(losses)
