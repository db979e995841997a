"""What CRD and the methods after it share: two heads, and a memory of their embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras
import tensorflow as tf

from tfkd.core import Context, Requires, Spec
from tfkd.distillers.shared.contrast import Vectors
from tfkd.distillers.shared.idle_settings import refuse_idle
from tfkd.distillers.shared.labeled_queue import LabeledQueue
from tfkd.distillers.shared.layers import check_width
from tfkd.distillers.shared.memory_bank import MemoryBank
from tfkd.distillers.shared.negatives import PUBLISHED, Negatives, published_count
from tfkd.distillers.shared.tap_pair import TapPair
from tfkd.errors import TfkdError
from tfkd.settings import Count, Fraction, Positive, field


class Contrastive(TapPair):
    """Embeds the pooled features of student and teacher, and remembers the embeddings.

    Both heads are trained. Everything is float32, whatever the precision of the networks.

    Attributes:
        kept: The banks or queues; made by :meth:`setup`.
    """

    width: Count = field(128, "width of the embeddings")
    temperature: Positive = field(0.07, "the paper's tau, by which scores are divided")
    mode: Literal["exact", "relax"] = field(
        "exact", "positive of an image: exact, itself; relax, any image of its class"
    )
    negatives: Count | None = field(
        None,
        f"the paper's K, negatives of an image; None: {PUBLISHED}, and of a training set smaller "
        "than CIFAR-100's the same share, 33 %",
    )
    shared_negatives: bool = field(
        True, "whether the images of a batch share their negatives; False: as published, slower"
    )
    memory: Literal["bank", "queue"] = field(
        "bank", "bank: a row for each training image; queue: the last `negatives` embeddings"
    )
    bank_momentum: Fraction = field(0.5, "share of a row of the bank that stays when it is written")
    student_tap: str = field("pooled", "feature of the student, a vector")
    teacher_tap: str = field("pooled", "feature of the teacher, a vector")

    def check(self) -> None:
        if self.memory == "queue" and (self.mode == "relax" or not self.shared_negatives):
            raise TfkdError(
                f"{self.name}: found memory='queue' with mode={self.mode!r} and shared_negatives="
                f"{self.shared_negatives}, wanted 'exact' and True, or memory='bank'"
            )

        if self.memory == "queue":
            refuse_idle(self, ["bank_momentum"], "memory='queue'", "memory='bank'")

    @property
    def requires(self) -> Requires:
        banks = self.memory == "bank"
        return Requires(
            taps={(network, "main"): [tap] for network, tap in self._taps.items()},
            index=banks,
            train_labels=banks,
            train_size=banks or self.negatives is None,
        )

    @property
    def _taps(self) -> dict[str, str]:
        return {"student": self.student_tap, "teacher": self.teacher_tap}

    def make_head(self, inputs: int, seed: int, name: str) -> keras.layers.Layer:
        """Returns a linear layer, ``(batch, inputs)`` -> ``(batch, width)``, in float32.

        Args:
            inputs: Width of the feature.
            seed: Seed of the first weights; the two after it are the layer's as well.
            name: Name of the layer.
        """
        raise NotImplementedError

    def setup(self, spec: Spec) -> None:
        self.student_head, self.teacher_head = (
            self.make_head(
                check_width(self.name, network, tap, spec.shapes[network, "main"][tap]),
                spec.seed + 3 * number,
                f"{self.name}_{network}_head",
            )
            for number, (network, tap) in enumerate(self._taps.items())
        )
        count = self.negatives or published_count(spec.train_size)
        name = f"{self.name}_{self.memory}"
        if self.memory == "queue":
            self.kept = LabeledQueue(count, self.width, name=name)
            return
        self.kept = MemoryBank(
            Negatives(spec.train_labels, count, self.name),
            spec.train_size,
            self.width,
            momentum=self.bank_momentum,
            same_class=self.mode == "relax",
            shares_negatives=self.shared_negatives,
            seed=spec.seed + 6,
            name=name,
        )

    def embed(self, context: Context) -> Vectors:
        """Returns the embeddings of both networks, of length 1."""
        heads = {"student": self.student_head, "teacher": self.teacher_head}
        features = {name: context.output(name, tap) for name, tap in self._taps.items()}
        return {
            name: tf.math.l2_normalize(
                head(tf.cast(features[name], tf.float32), training=context.training), axis=1
            )
            for name, head in heads.items()
        }

    def after_step(self, context: Context, carry: Mapping[str, Any]) -> None:
        self.kept.write(context, carry["vectors"])
