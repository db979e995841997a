"""Teacher and student cut into blocks that stand for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfkd import models
from tfkd.distillers.shared.layers import mismatch
from tfkd.errors import TfkdError
from tfkd.models.graph.calls import run
from tfkd.models.graph.outputs import LOGITS

STUDENT, TEACHER = "student", "teacher"


@dataclass(frozen=True)
class Pair:
    """A block of the teacher and the one that replaces it.

    Attributes:
        number: Its number, from 1 on.
        end: The cut, as methods and users know it.
        blocks: The block of each network, by ``student`` and ``teacher``. Both read maps of one
            shape and make maps of one shape.
    """

    number: int
    end: str
    blocks: dict[str, models.Block]


@dataclass(frozen=True)
class Pairs:
    """Two networks of the same blocks.

    Attributes:
        method: Name of the method, for messages.
        networks: Both, by ``student`` and ``teacher``, the latter as it was given.
        listed: The pairs, from the image on.
    """

    method: str
    networks: dict[str, models.Network]
    listed: tuple[Pair, ...]

    @classmethod
    def of(
        cls, method: str, student: models.Network, teacher: models.Network, cuts: Sequence[str]
    ) -> Pairs:
        """Cuts both networks.

        Args:
            method: Name of the method, for messages.
            student: The student.
            teacher: The teacher.
            cuts: The taps of both that blocks end with; none: as :func:`tfkd.models.blocks` finds
                them in the teacher.

        Raises:
            TfkdError: For taps that cut no blocks, or maps of other shapes there.
        """
        networks = {STUDENT: student, TEACHER: teacher}
        names = tuple(cuts) or tuple(each.end for each in models.blocks(teacher.model))
        found = {
            who: models.blocks(each.model, list(each.paths(names).values()))
            for who, each in networks.items()
        }
        listed = []
        for name, *both in zip(names, found[STUDENT], found[TEACHER], strict=True):
            blocks = dict(zip((STUDENT, TEACHER), both, strict=True))
            before = listed[-1].blocks if listed else None
            if before is not None and not _same_between(networks, before, blocks):
                # What stands before the first layers with weights then belongs to the blocks.
                blocks = {
                    who: models.Block(each.number, before[who].end, each.end)
                    for who, each in blocks.items()
                }
            listed.append(Pair(len(listed) + 1, name, blocks))
        made = cls(method, networks, tuple(listed))
        made._check_shapes()
        return made

    def _check_shapes(self) -> None:
        for pair in self.listed:
            student, teacher = (self._shape(who, pair.blocks[who].end) for who in self.networks)
            if student != teacher:
                raise mismatch(
                    self.method, pair.end, student, pair.end, teacher,
                    "maps of one shape where blocks end (a student by the network 'blockwise', or "
                    "other cuts)",
                )  # fmt: skip

    def _shape(self, who: str, tap: str) -> tuple[int | None, ...]:
        """Returns the shape of a tap, batch axis first."""
        return (None, *models.tap_shapes(self.networks[who].model, [tap])[tap])

    def block(self, who: str, number: int, name: str, training: bool | None = None) -> keras.Model:
        """Returns a block as a model.

        Args:
            who: ``student`` or ``teacher``.
            number: Its number.
            name: Name of the model.
            training: ``False`` for one that is frozen.
        """
        block = self.listed[number - 1].blocks[who]
        model = self.networks[who].model
        return models.segment(model, block.start, block.end, name=name, training=training)

    def head(self, who: str, name: str, training: bool | None = None) -> keras.Model:
        """Returns what follows the last block, down to the logits; arguments as of :meth:`block`.

        Raises:
            TfkdError: Where the output needs more than the last block.
        """
        end = self.listed[-1].blocks[who].end
        model = self.networks[who].model
        return models.segment(model, end, LOGITS, name=name, training=training)

    def differing(self) -> list[int]:
        """Returns the numbers of the blocks whose weights have other shapes in both networks."""
        found = []
        for pair in self.listed:
            student, teacher = (
                [tuple(each.shape) for each in self.block(who, pair.number, "piece").weights]
                for who in (STUDENT, TEACHER)
            )
            if student != teacher:
                found.append(pair.number)
        return found

    def check_pixels(self) -> None:
        """Checks that both networks see the same pixels: the student keeps parts of the teacher.

        Raises:
            TfkdError: Where they are normalized in another way.
        """
        student, teacher = (self.networks[who] for who in (STUDENT, TEACHER))
        channels = student.model.input_shape[-1]
        # Black, white, and one channel alone.
        pixels = np.zeros((3, 1, 1, channels), "float32")
        pixels[1], pixels[2, ..., 0] = 255.0, 255.0
        seen = [np.asarray(each.preprocess(pixels)) for each in (student, teacher)]
        # Those of two parts of one data set have nearly the same mean and deviation.
        if not np.allclose(*seen, rtol=0.02, atol=0.05):
            raise TfkdError(
                f"{self.method}: found that pixels reach the student as {student.preprocess}, the "
                f"teacher as {teacher.preprocess}; wanted the same (student.preprocess), because "
                "the student keeps parts of the teacher"
            )


def _same_between(
    networks: dict[str, models.Network],
    before: dict[str, models.Block],
    after: dict[str, models.Block],
) -> bool:
    """Whether both networks do the same between two blocks, such as one pooling."""
    found = []
    for who, network in networks.items():
        made = []
        if after[who].start != before[who].end:
            piece = models.segment(network.model, before[who].end, after[who].start, name="piece")
            made = _computed(piece)
        found.append(made)
    return found[0] == found[1]


def _computed(piece: keras.Model) -> list[tuple]:
    """Returns the calls of a model: what is called, its settings, and what it is given.

    Functions of ``keras.ops`` have no settings; a factor, say, is an argument.
    """
    made: list[tuple] = []

    def perform(call, args, kwargs):
        settings = {**call.operation.get_config(), "name": None}
        given = [np.asarray(each).tolist() for each in keras.tree.flatten((args, kwargs))]
        made.append((type(call.operation), settings, given))
        return [f"output {number} of {len(made)}" for number in range(len(call.outputs))]

    run(piece, "input", perform)
    return made
