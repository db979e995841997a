"""The hybrids: networks that are made of blocks of the teacher and of the student."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import keras

from tfkd import models
from tfkd.distillers.pbkd.pairs import STUDENT, TEACHER, Pairs
from tfkd.models.graph.outputs import LOGITS

LOCAL, REFERENCE, INPUT = "local", "reference", "block_input"
"""Taps of a hybrid: what the block that trains makes, what the one that it replaces makes, and the
maps that both read, which the first block does not have."""


@dataclass(frozen=True)
class _Piece:
    """A part of a network between two of its taps, ``None`` being its input."""

    who: str
    start: str | None
    end: str


def hybrid(pairs: Pairs, number: int, done: Collection[int]) -> models.Network:
    """Returns the network of the stage that replaces a block.

    Everything but that block is frozen. What comes before it runs once and feeds both blocks; what
    comes after it runs on what the student's block makes, and so leads the gradient of the labels
    to it. The rest is the teacher's, where it is not replaced yet.

    Args:
        pairs: The blocks of both networks.
        number: The block that trains.
        done: Those that the student's have replaced.

    Returns:
        A network with the outputs ``logits``, ``local``, ``reference`` and, except in the first
        block, ``block_input``. Pixels reach it as they reach the student.
    """
    student = pairs.networks[STUDENT]
    image = keras.Input(student.model.input_shape[1:], name="image")
    names = (f"frozen{position}" for position in itertools.count(1))
    before = _frozen(pairs, _before(pairs, number, done), image, names)
    local = pairs.block(STUDENT, number, "block")(before)
    outputs = {
        LOGITS: _frozen(pairs, _after(pairs, number, done), local, names),
        LOCAL: local,
        REFERENCE: pairs.block(TEACHER, number, "replaced", training=False)(before),
    }
    if before is not image:
        outputs[INPUT] = before
    return student.with_model(keras.Model(image, outputs, name=f"hybrid{number}"))


def _before(pairs: Pairs, number: int, done: Collection[int]) -> list[_Piece]:
    """Returns the pieces from the image to what a block reads."""
    found: list[_Piece] = []
    for pair in pairs.listed[:number]:
        if found:  # What stands between two blocks, such as a pooling, goes with the earlier one.
            who = found[-1].who
            found.append(_Piece(who, found[-1].end, pair.blocks[who].start))
        if pair.number < number:
            who = STUDENT if pair.number in done else TEACHER
            found.append(_Piece(who, pair.blocks[who].start, pair.blocks[who].end))
    return found


def _after(pairs: Pairs, number: int, done: Collection[int]) -> list[_Piece]:
    """Returns the pieces from what a block makes to the logits."""
    found: list[_Piece] = []
    last = pairs.listed[number - 1]
    for pair in pairs.listed[number:]:
        who = STUDENT if pair.number in done else TEACHER
        found.append(_Piece(who, last.blocks[who].end, pair.blocks[who].start))
        found.append(_Piece(who, pair.blocks[who].start, pair.blocks[who].end))
        last = pair
    who = found[-1].who if found else TEACHER
    return [*found, _Piece(who, last.blocks[who].end, LOGITS)]


def _frozen(pairs: Pairs, pieces: list[_Piece], maps: keras.KerasTensor, names: Iterator[str]):
    """Calls pieces one after the other, frozen, those in a row of one network as one."""
    for who, row in itertools.groupby(pieces, key=lambda piece: piece.who):
        first, *others = row
        last = others[-1] if others else first
        model = pairs.networks[who].model
        piece = models.segment(model, first.start, last.end, name=next(names), training=False)
        maps = piece(maps)
    return maps
