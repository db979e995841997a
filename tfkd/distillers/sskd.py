"""SSKD: the student also learns which turned image the teacher takes for which upright one.

Guodong Xu, Ziwei Liu, Xiaoxiao Li and Chen Change Loy, "Knowledge Distillation Meets
Self-Supervision", ECCV 2020, arXiv 2006.07114. Rows, losses, selection and both stages are those of
the published code::

    L = 0.1 * CE + 0.9 * L_kd + 2.7 * L_tf + 10 * L_ss

    L_kd = T^2 * mean of KL(teacher || student) over the upright rows             T = 4
    L_tf = T^2 * mean of KL(teacher || student) over chosen turned rows
    L_ss = tau^2 * mean of KL(softmax(A_t / tau) || softmax(A_s / tau)) over
           chosen turned rows                                                     tau = 0.5
    A[i, j] = cos(h(pooled of turned row i), h(pooled of upright row j))

Each of the B images of a batch comes in four rotations (the view ``rotations``, rows ``4 i + r``):
mirrored or not once, then turned, then each padded and cropped on its own. Row ``r = 0`` is
upright, the other 3B are turned, so that ``A`` is 3B x B. The student runs once, on all 4B rows,
and so does the teacher; the upright rows are the main view of the whole run
(``Requires.main_rows_of``), on which CE and other methods rest. Evaluation sees plain images.

``h``, one for each network, is Dense(C) - ReLU - Dense(C) on its C pooled features. The teacher's
is trained in a stage of its own, before the student is: cross-entropy of the row of ``A_t`` against
the row's own image, without a temperature, for 60 epochs at learning rate 0.05, x0.1 after 1/2 and
3/4 of them, with the optimizer of the run. That stage does not run the student. Then the student
and its head train for ``train.epochs``, 240 as published, while the teacher's head holds. In a
:class:`tfkd.Distiller` that enters neither stage all of this trains at once.

Choice of rows: the teacher ranks the entries of a row, and the rank of the true one (the label for
L_tf, the own image for L_ss) is 0 where it is right. All rows that are right count, and of the n
wrong ones the ``floor(ratio * n)`` of lowest rank; the ratio is 1 for L_tf and 0.75 for L_ss. Equal
entries and equal ranks keep their order (the published sort leaves it open).

``A`` and the choice of rows span the batch of all replicas. An image of ``sample_weight`` 0 is left
out of both: it is no column, and its rows are not counted.

The published teachers are better than those of other comparisons (resnet32x4: 79.63 %), which
raises the published numbers.

Logits and embeddings are ``(4 * images, ...)`` of any float type, labels class numbers
``(images,)``; losses are float32 (float64 for float64).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfkd.core import Requires, Spec, Stage, register
from tfkd.core.divergences import LEFT_OUT, as_float, cross_entropy, kl_divergence
from tfkd.core.objective import VIEW_ROWS
from tfkd.distillers.shared.layers import check_width, dense, sequence
from tfkd.distillers.shared.tap_pair import TapPair
from tfkd.errors import TfkdError
from tfkd.settings import Fraction, NonNegative, Positive, field

VIEW = "rotations"
TURNS = VIEW_ROWS[VIEW]

HEAD_STAGE, STUDENT_STAGE = "teacher_head", "student"
TERMS = {HEAD_STAGE: ("head",), STUDENT_STAGE: ("label", "kd", "transfer", "similarity")}
"""The losses of each stage."""

Rows = tuple[tf.Tensor, tf.Tensor | None]
"""A loss of each row, and which rows count, as booleans; ``None`` is all."""


def similarities(embeddings: tf.Tensor, counted: tf.Tensor | None = None) -> tf.Tensor:
    """Returns A: the cosine of each turned row with each upright one.

    Args:
        embeddings: Shape ``(4 * images, width)``.
        counted: Booleans ``(images,)``: which images are columns; the entries of the others are
            those of a class that takes no part. ``None`` is all.

    Returns:
        Shape ``(3 * images, images)``.
    """
    upright, turned = _by_turn(tf.math.l2_normalize(as_float(embeddings), axis=-1))
    found = tf.matmul(turned, upright, transpose_b=True)
    if counted is None:
        return found
    return tf.where(counted[None, :], found, tf.constant(LEFT_OUT, found.dtype))


def ranks_of(scores: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns how many entries of each row come before its true one, the largest first.

    Args:
        scores: Shape ``(rows, entries)``.
        targets: Position of the true entry, ``(rows,)``. Of equal entries the first comes first.

    Returns:
        int32 ``(rows,)``.
    """
    targets = tf.cast(targets, tf.int32)
    true = tf.gather(scores, targets, batch_dims=1)[:, None]
    earlier = tf.range(tf.shape(scores)[1])[None, :] < targets[:, None]
    before = (scores > true) | ((scores == true) & earlier)
    return tf.reduce_sum(tf.cast(before, tf.int32), axis=1)


def chosen_rows(ranks: tf.Tensor, ratio: float, counted: tf.Tensor | None = None) -> tf.Tensor:
    """Returns which rows count: all of rank 0, and the least wrong of the others.

    Args:
        ranks: Those of :func:`ranks_of`, ``(rows,)``.
        ratio: The share of the wrong rows, rounded down to whole rows.
        counted: Booleans ``(rows,)``: the rows that there are; ``None`` is all.

    Returns:
        Booleans ``(rows,)``.
    """
    if counted is None:
        counted = tf.ones_like(ranks, tf.bool)
    ranks = tf.where(counted, ranks, ranks.dtype.max)
    right = tf.math.count_nonzero(ranks == 0, dtype=tf.int32)
    wrong = tf.math.count_nonzero(counted, dtype=tf.int32) - right
    kept = right + tf.cast(tf.floor(ratio * tf.cast(wrong, tf.float64)), tf.int32)
    place = tf.argsort(tf.argsort(ranks, stable=True))
    return place < kept


def head_loss(embeddings: tf.Tensor, counted: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the loss of the first stage: cross-entropy of each row of A against its own image.

    Args:
        embeddings: Those of the teacher, ``(4 * images, width)``.
        counted: As for :func:`similarities`.

    Returns:
        Shape ``(3 * images,)``.
    """
    found = similarities(embeddings, counted)
    return cross_entropy(_own_images(found), found)


def sskd_losses(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    student_embeddings: tf.Tensor,
    teacher_embeddings: tf.Tensor,
    labels: tf.Tensor,
    *,
    temperature: float = 4.0,
    similarity_temperature: float = 0.5,
    transfer_ratio: float = 1.0,
    similarity_ratio: float = 0.75,
    counted: tf.Tensor | None = None,
) -> dict[str, Rows]:
    """Returns the losses of the second stage before they are weighted.

    Args:
        student_logits: Shape ``(4 * images, classes)``.
        teacher_logits: The same.
        student_embeddings: What the student's head gives, ``(4 * images, width)``.
        teacher_embeddings: What the teacher's head gives, of any width; without gradient.
        labels: Class numbers, ``(images,)``.
        temperature: T.
        similarity_temperature: tau.
        transfer_ratio: The share of the wrong rows that count for L_tf.
        similarity_ratio: The same for L_ss.
        counted: Booleans ``(images,)``: which images there are; ``None`` is all.

    Returns:
        ``label`` (CE) and ``kd`` of each image; ``transfer`` and ``similarity`` of each of the
        ``3 * images`` turned rows. The mean over the rows that count is the loss.
    """
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    of_rows = None if counted is None else tf.repeat(counted, TURNS - 1)
    (upright, turned), (teacher_upright, teacher_turned) = map(
        _by_turn, (student_logits, tf.stop_gradient(as_float(teacher_logits)))
    )
    student = similarities(student_embeddings, counted)
    teacher = tf.stop_gradient(similarities(teacher_embeddings, counted))
    transferred = chosen_rows(
        ranks_of(teacher_turned, tf.repeat(labels, TURNS - 1)), transfer_ratio, of_rows
    )
    similar = chosen_rows(ranks_of(teacher, _own_images(teacher)), similarity_ratio, of_rows)
    return {
        "label": (cross_entropy(labels, upright), None),
        "kd": (kl_divergence(teacher_upright, upright, temperature), None),
        "transfer": (kl_divergence(teacher_turned, turned, temperature), transferred),
        "similarity": (kl_divergence(teacher, student, similarity_temperature), similar),
    }


def _by_turn(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the upright rows ``(images, width)`` and the turned ones ``(3 * images, width)``."""
    width = rows.shape[-1]
    images = tf.reshape(rows, [-1, TURNS, width])
    return images[:, 0], tf.reshape(images[:, 1:], [-1, width])


def _own_images(similarity: tf.Tensor) -> tf.Tensor:
    """Returns the image that each row of A is of, ``(3 * images,)``."""
    return tf.repeat(tf.range(tf.shape(similarity)[1]), TURNS - 1)


@register("sskd")
class SSKD(TapPair):
    """Distillation with self-supervision by rotations, in two stages and with its own label term.

    The label loss is part of the loss: ``student_loss_weight`` does not enter.
    """

    label_weight: NonNegative = field(0.1, "weight of the label loss")
    kd_weight: NonNegative = field(0.9, "weight of L_kd, on the upright rows")
    transfer_weight: NonNegative = field(2.7, "weight of L_tf, on turned rows")
    similarity_weight: NonNegative = field(10.0, "weight of L_ss, on turned rows")
    temperature: Positive = field(4.0, "T of L_kd and L_tf")
    similarity_temperature: Positive = field(0.5, "tau of L_ss")
    transfer_ratio: Fraction = field(1.0, "share of the wrong rows in L_tf, the least wrong first")
    similarity_ratio: Fraction = field(0.75, "share of the wrong rows in L_ss, likewise")
    head_epochs: Positive = field(
        60.0, "length of the stage that trains the teacher's head; rounded, at least one epoch"
    )
    head_learning_rate: Positive = field(0.05, "first learning rate of that stage")
    student_tap: str = field("pooled", "feature under the student's head, a vector")
    teacher_tap: str = field("pooled", "feature under the teacher's head, a vector")

    terms = (*TERMS[HEAD_STAGE], *TERMS[STUDENT_STAGE])
    replaces_label_loss = True

    @property
    def requires(self) -> Requires:
        taps = {
            ("student", VIEW): ["logits", self.student_tap],
            ("teacher", VIEW): ["logits", self.teacher_tap],
        }
        return Requires(taps=taps, main_rows_of=VIEW)

    def requires_in(self, stage: str | None) -> Requires:
        if stage == HEAD_STAGE:
            return Requires(taps={("teacher", VIEW): [self.teacher_tap]})
        return self.requires

    def terms_in(self, stage: str | None) -> tuple[str, ...]:
        return TERMS.get(stage, self.terms)

    def setup(self, spec: Spec) -> None:
        height, width = (spec.image_shape or (None, None))[:2]
        if None not in (height, width) and height != width:
            raise TfkdError(
                f"{self.name}: found images of {height} x {width} pixels, wanted square ones, "
                "which keep their shape when turned (data.image_size)"
            )
        self.student_head = self._head(spec, "student", self.student_tap, spec.seed)
        self.teacher_head = self._head(spec, "teacher", self.teacher_tap, spec.seed + 4)

    def _head(self, spec: Spec, network: str, tap: str, seed: int) -> keras.Sequential:
        shape = spec.shapes[network, VIEW][tap]
        width = check_width(self.name, network, tap, shape)
        name = f"{self.name}_{network}_head"
        first, last = (
            dense(width, width, seed + 2 * number, name=f"{name}{number}", dtype="float32")
            for number in range(2)
        )
        return sequence([first, keras.layers.ReLU(dtype="float32"), last], shape, name=name)

    def stages(self) -> Sequence[Stage]:
        epochs = max(1, round(self.head_epochs))
        recipe = {
            "learning_rate": self.head_learning_rate,
            "schedule.name": "step",
            "schedule.milestones": (epochs / 2, epochs * 3 / 4),
            "schedule.decay_factor": 0.1,
            "schedule.warmup_epochs": 0.0,
        }
        head = Stage(
            HEAD_STAGE,
            epochs,
            recipe=recipe,
            trainable=lambda distiller: self.teacher_head.trainable_variables,
            objectives=(self.name,),
            student_loss_weight=0.0,
            evaluate=False,
        )
        return [head, Stage(STUDENT_STAGE, trainable=self._all_but_the_teachers_head)]

    def _all_but_the_teachers_head(self, distiller) -> list[keras.Variable]:
        held = {id(variable) for variable in self.teacher_head.variables}
        return [each for each in distiller.usually_trained() if id(each) not in held]

    def compute(self, context) -> dict[str, tf.Tensor]:
        terms = self.terms_in(context.stage)
        weights = context.batch.get("sample_weight")
        counted = None if weights is None else context.gather(tf.reshape(weights, [-1])) > 0
        teacher = context.gather(self.teacher_head(context.teacher(self.teacher_tap, VIEW)))
        losses = {}
        if "head" in terms:
            losses["head"] = context.mean(head_loss(teacher, counted), gathered=True)
        if "similarity" in terms:
            student = context.gather(self.student_head(context.student(self.student_tap, VIEW)))
            losses |= self._of_student(context, student, teacher, counted)
        return losses

    def _of_student(self, context, student, teacher, counted) -> dict[str, tf.Tensor]:
        rows = sskd_losses(
            context.gather(context.student("logits", VIEW)),
            context.gather(context.teacher("logits", VIEW)),
            student,
            teacher,
            context.gather(context.labels),
            temperature=self.temperature,
            similarity_temperature=self.similarity_temperature,
            transfer_ratio=self.transfer_ratio,
            similarity_ratio=self.similarity_ratio,
            counted=counted,
        )
        weights = {
            "label": self.label_weight,
            "kd": self.kd_weight,
            "transfer": self.transfer_weight,
            "similarity": self.similarity_weight,
        }
        return {
            name: weights[name] * context.mean(loss, chosen, gathered=True)
            for name, (loss, chosen) in rows.items()
        }
