"""PBKD: the blocks of a teacher are replaced one after the other by smaller ones.

Hui Wang, Hanbin Zhao, Xi Li and Xu Tan, "Progressive Blockwise Knowledge Distillation for Neural
Network Acceleration", IJCAI 2018, pages 2769-2775, doi 10.24963/ijcai.2018/384.

The teacher is a row of blocks, cut before its poolings, and a classifier. ``A_0`` is the teacher,
``A_k`` is ``A_{k-1}`` with one more block replaced by the student's, ``A_N`` the student. Each
replacement is a stage, with an optimizer and schedule of its own, that trains the new block alone:

    L_k = CE(A_k) + lambda * L_local,   L_local = 1/2 ||F_k(A_k) - F_k(A_{k-1})||^2

with ``F_k`` what block ``k`` makes, after its activation and before its pooling, and lambda the
weight of this method. ``A_k`` and ``A_{k-1}`` differ in one block: what comes before it runs once
and feeds both; what comes after it runs on the student's side, in inference mode, and leads the
gradient of the labels to it (:mod:`tfkd.distillers.pbkd.hybrid`). The classifier and blocks that
are not replaced are the teacher's to the end; the student takes them over when it is set up.

The student is usually the network ``blockwise`` (:func:`tfkd.models.blockwise`): convolutions of
half as many filters, and a 1x1 convolution that restores the channels of the block. Any student
goes whose taps at the cuts have the teacher's shapes.

**Reconstruction**: the text of the paper could not be had, and there is no code of its authors.
Read: its abstract, two figures, notes of readers, and the code of a reproduction. Known from these
are the chain, what trains, both losses, the halved filters and the restoring convolution, the
recipe (SGD 0.01 with momentum 0.9; CIFAR: batches of 100, six epochs a stage, rate / 10 after
three, decay 0.005; ImageNet: batches of 32, 50,000 steps a stage, decay 0.0005), the costs, which
are equal here, and that the order from the image on was the best of three. Lambda, its
normalization, the start of a block and augmentation are not:

- ``local_reduction="caffe"`` sums over elements and averages over images, as Caffe's EuclideanLoss;
  the weight 0.005 is the best of a reproduction's sweep, whose normalization differs slightly. With
  ``"mean"`` the squares are averaged over elements as well, without the 1/2; weight 1 then.
- ``init="he"`` leaves a block as the student has it, He-normal in ``blockwise``; ``"largest"``
  takes the teacher's filters of the largest L1 norms, and leaves what restores channels.
- ``learns_from="local"`` and ``"labels"`` are the paper's ablations.
- Joint training at the end, ``finetune_epochs``, is nowhere mentioned, and off.

Left out: a reference that is the teacher's at every stage, ``F_k(A_0)``; a classifier that trains
along; handing on the best epoch of a stage in the place of its last one; and a line with both terms
before the first step. The terms of every epoch are in ``metrics.csv``.

Without stages (a distiller of your own that enters none) the whole student trains, and the local
losses of all blocks, against the teacher's, are formed at once.

Maps are ``(batch, height, width, channels)`` of any float type; losses are float32 (float64 stays).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Literal

import tensorflow as tf

from tfkd import models
from tfkd.core import Requires, Spec, Stage, register
from tfkd.core.divergences import as_float
from tfkd.core.objective import Objective
from tfkd.distillers.pbkd.hybrid import INPUT, LOCAL, REFERENCE, hybrid
from tfkd.distillers.pbkd.pairs import STUDENT, TEACHER, Pairs
from tfkd.distillers.pbkd.start import take_largest_filters, take_over
from tfkd.errors import TfkdError
from tfkd.settings import Count, NonNegative, Range, field

FINETUNE = "finetune"
"""Name of the stage of joint training; those of blocks are ``block1``, ``block2``, ..."""

Reduction = Literal["caffe", "mean"]


def local_loss(student: tf.Tensor, reference: tf.Tensor, reduction: Reduction) -> tf.Tensor:
    """Returns how far two feature maps are apart, for each image.

    Args:
        student: ``(batch, height, width, channels)``, or any shape with the batch axis first.
        reference: Of the same shape.
        reduction: ``"caffe"``: half the sum of squared differences; ``"mean"``: their mean.

    Returns:
        Shape ``(batch,)``.
    """
    squares = tf.math.squared_difference(as_float(student), as_float(reference))
    axes = list(range(1, squares.shape.rank))
    if reduction == "caffe":
        return 0.5 * tf.reduce_sum(squares, axis=axes)
    return tf.reduce_mean(squares, axis=axes)


@register("pbkd")
class PBKD(Objective):
    """Blocks of the student learn one after the other, each in the place of one of the teacher's.

    Example::

        teacher = tfkd.models.create("vgg16_32", 10, batch_norm=True, hidden=512)  # and its weights
        student = tfkd.models.create(
            "blockwise", 10, of="vgg16_32", of_kwargs={"batch_norm": True, "hidden": 512}
        )
        pbkd = tfkd.distillers.PBKD()
        distiller = tfkd.Distiller(teacher, student, pbkd, 0.005)
        for stage in pbkd.stages():
            distiller.enter_stage(stage)
            distiller.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9))
            distiller.fit(images, labels, batch_size=100, epochs=6)
    """

    cuts: tuple[str, ...] = field(
        (), "taps that blocks end with; none: the last stage of each size of maps"
    )
    order: tuple[Count, ...] = field(
        (), "blocks in the order of their stages; none: those that differ, from the image on"
    )
    learns_from: Literal["both", "local", "labels"] = field(
        "both", "the losses of a stage: both (the paper's), the local one or that of the labels"
    )
    local_reduction: Reduction = field(
        "caffe", "caffe: half the sum of squared differences | mean: their mean"
    )
    init: Literal["he", "largest"] = field(
        "he", "how a block starts: he, as the student has it | largest, with the teacher's filters"
    )
    stage_steps: Count | None = field(None, "steps of a stage; none: train.epochs epochs")
    finetune_epochs: NonNegative = field(
        0.0, "epochs of the whole student on the labels in the end, rounded; 0: none (the paper's)"
    )
    stage_cache_bytes: Annotated[int, Range(low=0)] = field(
        2**30,
        "bytes that what is computed once for all images may take in a stage, where they are not "
        "augmented: the replaced block's maps, then those that it reads",
    )
    stage_cache_folder: str | None = field(None, "folder that keeps these on disk; none: in memory")

    requires = Requires(teacher=True, allows_soft_labels=True, tasks=None)

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        if len(teachers) > 1:
            raise TfkdError(f"{self.name}: found {len(teachers)} teachers, wanted one")
        if not teachers:  # Which is told where all requirements are checked.
            return
        ends = [each.end for each in Pairs.of(self.name, student, teachers[0], self.cuts).listed]
        taps = {(who, "main"): ends for who in (STUDENT, TEACHER)}
        self.requires = Requires(taps=taps, teacher=True, allows_soft_labels=True, tasks=None)

    def requires_in(self, stage: str | None) -> Requires:
        return PBKD.requires if self._is_own(stage) else self.requires

    def term_names(self) -> tuple[str, ...]:
        return () if self.learns_from == "labels" else (self.name,)

    def setup(self, spec: Spec) -> None:
        student, teacher = spec.network(STUDENT), spec.network(TEACHER, as_given=True)
        self._pairs = Pairs.of(self.name, student, teacher, self.cuts)
        self._pairs.check_pixels()
        self._order = self._checked_order()
        take_over(self._pairs, self._order)
        if self.init == "largest":
            for number in self._order:
                take_largest_filters(self._pairs, number)

    def _checked_order(self) -> tuple[int, ...]:
        """Returns the blocks in the order in which they are replaced."""
        known = [each.number for each in self._pairs.listed]
        # Of two equal networks, such as one and its copy, every block learns.
        differing = self._pairs.differing() or known
        order = self.order or tuple(differing)
        repeated = len(set(order)) < len(order)
        if repeated or not set(differing) <= set(order) <= set(known):
            raise TfkdError(
                f"{self.name}: found order={order} of blocks 1 to {known[-1]}, of which the "
                f"student has others than the teacher in {differing}; wanted each of these once"
            )
        return order

    def _stage_name(self, number: int) -> str:
        return f"block{number}"

    def _is_own(self, stage: str | None) -> bool:
        """Whether a stage is one of this method's."""
        own = [self._stage_name(number) for number in getattr(self, "_order", ())]
        return stage in (*own, FINETUNE)

    def stages(self) -> list[Stage]:
        listed = [self._stage(at, number) for at, number in enumerate(self._order)]
        if self.finetune_epochs:
            epochs = max(1, round(self.finetune_epochs))
            listed.append(Stage(FINETUNE, epochs=epochs, objectives=()))
        return listed

    def _stage(self, at: int, number: int) -> Stage:
        """Returns the stage of a block, the ``at``-th."""
        compares = self.learns_from != "labels"
        return Stage(
            self._stage_name(number),
            steps=self.stage_steps,
            trainable=functools.cache(lambda distiller: self._trained(number)),
            student_loss_weight=0.0 if self.learns_from == "local" else None,
            network=lambda distiller: hybrid(self._pairs, number, self._order[:at]),
            taps=(LOCAL, REFERENCE) if compares else (),
            cached=(*([REFERENCE] if compares else []), *([INPUT] if number > 1 else [])),
            cache_bytes=self.stage_cache_bytes,
            cache_folder=self.stage_cache_folder,
        )

    def _trained(self, number: int) -> list:
        """Returns the variables of the student's block."""
        return list(self._pairs.block(STUDENT, number, "trained").trainable_variables)

    def compute(self, context) -> dict[str, tf.Tensor]:
        if self.learns_from == "labels":
            return {}
        if self._is_own(context.stage):
            pairs = [(context.student(LOCAL), tf.stop_gradient(context.student(REFERENCE)))]
        else:
            ends = self.requires.taps[STUDENT, "main"]
            pairs = [(context.student(end), context.teacher(end)) for end in ends]
        losses = [local_loss(*each, self.local_reduction) for each in pairs]
        return {self.name: context.mean(tf.add_n(losses))}
