"""AuxVar: the student's classes are told by which stored training images it resembles.

Bo Peng, Zhen Fang, Guangquan Zhang and Jie Lu, "Knowledge Distillation with Auxiliary Variable",
ICML 2024, PMLR 235. Usual distillation gives the student the teacher's form of ``p(y | x)``; here
the student's goes by way of an auxiliary variable, which training image is meant::

    u = L2(W h_s),   v = L2(h_t)                    W: linear, without bias; h: pooled features
    p_s(z | x) = softmax_z(kappa u . v_z)           z: the batch and a queue of earlier images
    p(y | z)   = softmax_y(t_z / tau_q)             t: logits of the teacher
    p_s(y | x) = sum_z p(y | z) p_s(z | x)
    L = KL(softmax(t / tau_t) || p_s(y | x))        no factor tau^2

Features and logits of the teacher are frozen, so that the queue never grows stale; it holds
``p(y | z)`` in the place of ``t_z``, and takes in the batch after the update. Empty places, and
earlier entries of the image itself, take no part. Student and teacher see the same view.

RECONSTRUCTION: abstract and experimental setup were read, and a summary by others of the rest;
neither the equations nor any code. So it is known that the variable is the membership of an
instance, that Bayes' rule and the law of total probability lead to one loss of features and logits,
that a non-parametric Bayes classifier takes the place of the linear layer at no further cost, that
a queue of the teacher's features is held, and the names of the hyper-parameters, alpha, beta, tau
and kappa; none of their values. The formulas are ours, and so are all defaults. What is uncertain
is a setting:

- ``objective="marginal"`` is the literal reading of the abstract. ``"elbo"`` is the bound by
  Jensen's inequality that the summary names: the cross-entropy of ``p_s(z | x)`` with what the
  teacher, of concentration ``teacher_kappa``, takes it for where the class is known. ``"infonce"``
  is its limit for a large ``teacher_kappa``: ``-log p_s(z = own | x)``.
- ``teacher_kappa`` and ``query_temperature`` are tied to ``kappa`` and ``temperature`` unless
  given: the larger ``kappa``, the nearer a student that has the teacher's features then is to its
  classes. At the default it mixes them with those of all images that are a little alike, and
  something is left that no student can learn.
- ``class_posterior="cosine"`` takes ``t_z`` to be the cosines of ``v_z`` with the weights of the
  classes in the teacher's linear layer, for target and stored images alike, and shares one
  temperature, ``1 / kappa``.
- The gradient of the marginal form falls as ``kappa / temperature^2``, which the ``temperature^2``
  of KD would even out; the weight is a setting of the run.
- ``own_instance=False`` leaves the image itself out of ``z``.
- ``center=True`` takes the mean of all ``v_z`` from each before ``L2``: features behind a ReLU have
  no cosine below 0.
- ``head="linear"`` trains the student's own linear layer on the labels, and the run also ends in
  the student ``bayes`` with the classifier of :mod:`tfkd.distillers.auxvar.bayes_head` in its
  place: as many parameters and operations where the student has one linear layer behind its
  feature (a warning tells of others), but probabilities that are not calibrated.
  ``head="bayes"`` trains that one alone: the label loss is that of ``p_s(y | x)``, validation goes
  by the queue, and every student of the run ends with it.

That classifier takes one pass of the teacher over the training images at the end (two where it
centers). ``head_temperature`` divides the teacher's logits there alone and changes nothing of the
training. It is ``query_temperature`` unless given; but that was chosen for the loss, and where it
makes ``p(y | z)`` nearly flat, every class is the mean of nearly the same images, and the
directions of the classes nearly coincide. ``W`` is never part of a student.

Everything is float32, whatever the precision of the networks. The queue holds
``4 L (width + classes + 1)`` bytes on each replica: 23 MB for 16,384 of width 256 and 100 classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.core import Context, Finish, Requires, Spec, Terms, register
from tfkd.distillers.auxvar import bayes_head, mixture, support
from tfkd.distillers.auxvar.class_vectors import class_vectors
from tfkd.distillers.auxvar.support import CLASSES, VECTORS, Stored, Taught
from tfkd.distillers.shared.layers import check_width, dense
from tfkd.distillers.shared.queue import Queue
from tfkd.distillers.shared.tap_pair import TapPair
from tfkd.errors import TfkdError
from tfkd.settings import Count, Positive, field

_TEMPERATURE = 4.0


@register("auxvar")
class AuxVar(TapPair):
    """Knowledge distillation with an auxiliary variable; a reconstruction."""

    objective: Literal["marginal", "elbo", "infonce"] = field(
        "marginal", "the loss: divergence of the classes, the bound, or the bound's limit"
    )
    kappa: Positive = field(10.0, "concentration of p(z | x), which multiplies cosines")
    teacher_kappa: Positive | None = field(
        None, "elbo: concentration of the teacher's own; none: kappa"
    )
    temperature: Positive | None = field(
        None, "divides the teacher's logits of the target; none: 4, for cosines 1 / kappa"
    )
    query_temperature: Positive | None = field(
        None, "divides those of stored images; none: that of the target"
    )
    class_posterior: Literal["logit", "cosine"] = field(
        "logit", "what classes are told by: logits, or cosines with the weights of the classes"
    )
    queue_size: Count = field(4096, "L, earlier images that are stored")
    own_instance: bool = field(True, "whether an image may be like itself")
    center: bool = field(False, "whether the teacher's features are centered by their mean")
    head: Literal["linear", "bayes"] = field(
        "linear", "what is trained on labels: the student's linear layer, or the Bayes classifier"
    )
    head_temperature: Positive | None = field(
        None, "divides those of the images that make the Bayes classifier; none: query_temperature"
    )
    student_tap: str = field("pooled", "feature of the student, a vector")
    teacher_tap: str = field("pooled", "feature of the teacher, a vector")

    def check(self) -> None:
        if self.teacher_kappa is not None and self.objective != "elbo":
            raise TfkdError(
                f"{self.name}: found teacher_kappa={self.teacher_kappa:g} with objective="
                f"{self.objective!r}, which has no use for it, wanted objective='elbo'"
            )
        if self.objective == "infonce" and not self.own_instance:
            raise TfkdError(
                f"{self.name}: found objective='infonce' with own_instance=False, wanted True: the "
                "image itself is what it looks for"
            )

    @property
    def requires(self) -> Requires:
        return Requires(
            taps={
                ("student", "main"): [self.student_tap],
                ("teacher", "main"): ["logits", self.teacher_tap],
            },
            index=True,
            allows_soft_labels=True,
            tasks=("classification",),
        )

    @property
    def merges(self) -> bool:
        return self.head == "bayes"

    @property
    def replaces_logits(self) -> bool:
        return self.head == "bayes"

    @property
    def _temperature(self) -> float:
        usual = 1.0 / self.kappa if self.class_posterior == "cosine" else _TEMPERATURE
        return self.temperature or usual

    @property
    def _query_temperature(self) -> float:
        return self.query_temperature or self._temperature

    def setup(self, spec: Spec) -> None:
        width, own = (
            check_width(self.name, network, tap, spec.shapes[network, "main"][tap])
            for network, tap in (("teacher", self.teacher_tap), ("student", self.student_tap))
        )
        self.projector = dense(
            own, width, spec.seed, use_bias=False, name=f"{self.name}_projector", dtype="float32"
        )
        widths = {VECTORS: width, CLASSES: spec.num_classes}
        self.queue = Queue(self.queue_size, widths, name=f"{self.name}_queue")
        self._class_vectors = None
        if self.class_posterior == "cosine":
            who = f"{self.name} with class_posterior='cosine', teacher tap {self.teacher_tap!r}"
            head = spec.head("teacher", self.teacher_tap)
            self._class_vectors = class_vectors(head, width, who)
        student = spec.network("student")
        bayes_head.check_student(self.name, student, self.student_tap, spec.num_classes)
        self._directions: tuple[Any, np.ndarray] | None = None

    # The loss of a step.

    def student_logits(self, context: Context) -> tf.Tensor | None:
        if self.head == "linear":
            return None
        if context.training:
            stored = self._stored(context, self._taught(context))
        else:
            stored = support.queued(self.queue, self.center)
        logits = self._instance_logits(context, stored)
        context.scratch[self.name] = stored, logits
        probabilities = mixture.class_probabilities(logits, stored.classes)
        if not context.training:
            # Before the first step the queue knows nothing, and equal logits would be a guess.
            known = tf.reduce_any(stored.allowed)
            probabilities = tf.where(known, probabilities, tf.constant(math.nan))
        # Up to a constant, which no softmax sees, these are the logits of p(y | x).
        return tf.math.log(probabilities + mixture.EPSILON)

    def compute(self, context: Context) -> Terms:
        taught = self._taught(context)
        if self.head == "linear":
            stored = self._stored(context, taught)
            logits = self._instance_logits(context, stored)
        else:
            stored, logits = context.scratch[self.name]
        if self.objective == "infonce":
            loss = mixture.infonce_loss(stored.own, logits)
        elif self.objective == "marginal":
            found = mixture.class_probabilities(logits, stored.classes)
            loss = mixture.marginal_loss(taught.target, found)
        else:
            own = tf.gather(stored.vectors, stored.own)
            kappa = self.teacher_kappa or self.kappa
            guess = mixture.instance_logits(own, stored.vectors, kappa, stored.allowed)
            wanted = mixture.elbo_targets(taught.target, stored.classes, guess)
            loss = mixture.elbo_loss(wanted, logits)
        known = tf.reduce_any(stored.allowed, axis=1)
        carry = {VECTORS: taught.vectors, CLASSES: taught.classes, "numbers": taught.numbers}
        return Terms({self.name: context.mean(loss, known)}, carry)

    def after_step(self, context: Context, carry: Mapping[str, Any]) -> None:
        rows = {kind: context.gather(carry[kind]) for kind in (VECTORS, CLASSES)}
        self.queue.put(rows, support.counted_numbers(context, carry["numbers"]))

    def _instance_logits(self, context: Context, stored: Stored) -> tf.Tensor:
        """Returns the logits of ``p(z | x)`` for this replica's images."""
        feature = tf.cast(context.output("student", self.student_tap), tf.float32)
        vectors = support.unit(self.projector(feature))
        return mixture.instance_logits(vectors, stored.vectors, self.kappa, stored.allowed)

    def _taught(self, context: Context) -> Taught:
        vectors = support.unit(context.teacher(self.teacher_tap))
        logits = self._class_logits(vectors, context.teacher())
        target = tf.nn.softmax(logits / self._temperature)
        numbers = tf.cast(context.index, tf.int32)
        classes = tf.nn.softmax(logits / self._query_temperature)
        return Taught(vectors, classes, target, numbers)

    def _stored(self, context: Context, taught: Taught) -> Stored:
        return support.stored(context, taught, self.queue, self.own_instance, self.center)

    def _class_logits(self, vectors: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns what tells the classes of images: logits of the teacher, or cosines."""
        if self._class_vectors is None:
            return tf.cast(logits, tf.float32)
        return tf.linalg.matmul(vectors, self._class_vectors, transpose_b=True)

    # The end of a run.

    def finalize(self, student: models.Network, finish: Finish) -> models.Network:
        return self._with_bayes_head(student, finish) if self.head == "bayes" else student

    def variants(self, student: models.Network, finish: Finish) -> Mapping[str, models.Network]:
        if self.head == "bayes":
            return {}
        return {"bayes": self._with_bayes_head(student, finish)}

    def _with_bayes_head(self, student: models.Network, finish: Finish) -> models.Network:
        if finish.data is None:
            raise TfkdError(
                f"{self.name}: found no data for its Bayes classifier, which reads all training "
                "images, wanted distiller.finish(DATA)"
            )
        # The teacher is frozen: the directions of the best epoch are those of the last.
        if self._directions is None or self._directions[0] is not finish.data:
            embed = self._embedding_of(finish.network("teacher"))
            found = bayes_head.directions(embed, finish.data.train_evaluation, self.center)
            self._directions = finish.data, found
        projector = keras.ops.convert_to_numpy(self.projector.kernel)
        kernel = bayes_head.folded(self._directions[1], projector)
        return bayes_head.with_kernel(student, self.student_tap, kernel)

    def _embedding_of(self, teacher: models.Network) -> bayes_head.Embed:
        """Returns the function of pixels to embeddings, not centered, and ``p(y | z)``."""
        model = models.tapped(teacher.model, teacher.paths([self.teacher_tap, "logits"]))
        temperature = self.head_temperature or self._query_temperature

        @tf.function(reduce_retracing=True)
        def embed(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            found = model(teacher.preprocess(pixels), training=False)
            vectors = support.unit(found[self.teacher_tap])
            return vectors, tf.nn.softmax(
                self._class_logits(vectors, found["logits"]) / temperature
            )

        return embed
