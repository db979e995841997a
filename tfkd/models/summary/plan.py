"""The plan of a network: its stages and blocks as a person would draw them.

A stage ends at its tap (`stem`, `stage1`..); in a network without such taps, where the size of the
feature maps changes. A block is what the names of layers say (`stage1_block2_conv1`), otherwise a
layer that multiplies together with what follows it. Equal blocks in a row are one row of the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import keras

from tfkd.models.graph.calls import all_calls
from tfkd.models.graph.outputs import output_sizes
from tfkd.models.graph.taps import LOGITS, tap_names
from tfkd.models.summary.cost import Cost, LayerCost, cost

_USUAL_TAP = re.compile(r"(?:stem|stage\d+)(?:_pre)?|pre_pool|pooled|logits")
_STAGE_TAP = re.compile(r"stem|stage\d+")
_BLOCK = re.compile(r".*?block_?\d+[a-z]?(?=_|$)")
_HEAD = "head"


@dataclass(frozen=True)
class Block:
    """One row of a plan: a block, or several equal ones in a row.

    Attributes:
        stage: What the row is part of: `stem`, `stage1`.., `head`, or the size of feature maps.
        layers: What the block is made of, such as `conv 3x3, 16`, in order.
        shortcut: What its shortcut is made of; () for none or a bare one.
        join: "add" or "concat" where the block joins several paths, otherwise "".
        output_shape: The shape of its output after the batch axis.
        params: Learned parameters of one block.
        macs: Multiply-accumulate operations of one block per image.
        taps: The usual taps in it; of the last one, where there are several.
        repeats: How many equal blocks the row stands for.
    """

    stage: str
    layers: tuple[str, ...]
    shortcut: tuple[str, ...]
    join: str
    output_shape: tuple[int | None, ...]
    params: int
    macs: int
    taps: tuple[str, ...] = ()
    repeats: int = 1

    def title(self) -> str:
        """The layers in one line."""
        parts = " · ".join(_counted(self.layers))
        if self.shortcut:
            parts += f"  | shortcut: {' · '.join(_counted(self.shortcut))}"
        return parts


@dataclass(frozen=True)
class Plan:
    """What a picture or a text of a network shows.

    Attributes:
        name: The network's name.
        input_shape: Height, width and channels of an image.
        num_classes: The width of the logits.
        blocks: The rows, from the image to the logits.
        taps: The usual taps of the network and their shapes.
        cost: What it costs.
    """

    name: str
    input_shape: tuple[int | None, ...]
    num_classes: int
    blocks: tuple[Block, ...]
    taps: dict[str, tuple[int | None, ...]]
    cost: Cost


def usual_taps(model: keras.Model) -> tuple[str, ...]:
    """The taps of a model that bear the names which methods know, in order.

    Args:
        model: A functional model.
    """
    return tuple(name for name in tap_names(model) if _USUAL_TAP.fullmatch(name))


def plan(model: keras.Model, name: str | None = None) -> Plan:
    """Returns the plan of a network.

    Args:
        model: A functional model for images of one size.
        name: What to call it; the model's name if None.

    Raises:
        TfkdError: If the model is subclassed, or takes images of any size.
    """
    costs = cost(model)
    operations = {path: call.operation for path, call in all_calls(model)}
    rows = [_block(group, operations) for group in _grouped(costs.layers)]
    staged = any(_STAGE_TAP.fullmatch(tap) for row in rows for tap in row.taps)
    rows = _staged_by_taps(rows) if staged else _staged_by_size(rows)
    # The output is a tap whatever its layer is called.
    if LOGITS not in rows[-1].taps:
        rows[-1] = replace(rows[-1], taps=(*rows[-1].taps, LOGITS))
    shapes = {each.name: each.output_shape for each in costs.layers}
    usual = {
        tap: shapes.get(tap, tuple(output_sizes(model).get(tap, ()))) for tap in usual_taps(model)
    }
    return Plan(
        name=name or model.name,
        input_shape=tuple(model.input_shape[1:]),
        num_classes=output_sizes(model)[LOGITS][-1],
        blocks=tuple(_merged(rows)),
        taps=usual,
        cost=costs,
    )


def _grouped(layers: Iterable[LayerCost]) -> list[list[LayerCost]]:
    """The calls of each block: of one name, or one that multiplies and the rest behind it.

    What stands before the first block, such as a padding, is part of it.
    """
    groups: list[list[LayerCost]] = [[]]
    current = None
    for each in layers:
        named = _BLOCK.match(each.name)
        works = each.macs or each.adder_additions
        if named is not None:
            block = named.group()
        elif works or each.kind.startswith("Global"):
            block = each.name
        else:
            block = current  # Normalization, activation, pooling, taps.
        if block != current:
            if current is not None:
                groups.append([])
            current = block
        groups[-1].append(each)
    return groups


def _block(group: list[LayerCost], operations: dict[str, keras.Operation]) -> Block:
    """The row of one block, of no stage yet."""
    main, shortcut, join = [], [], ""
    for each in group:
        text = _described(operations[each.name])
        if text:
            (shortcut if "shortcut" in each.name else main).append(text)
        if each.kind in ("Add", "Concatenate"):
            join = {"Add": "add", "Concatenate": "concat"}[each.kind]
    shapes = [each.output_shape for each in group if not each.kind.startswith("ZeroPadding")]
    return Block(
        stage="",
        layers=tuple(main),
        shortcut=tuple(shortcut),
        join=join,
        output_shape=shapes[-1] if shapes else group[-1].output_shape,
        params=sum(each.params for each in group),
        macs=sum(each.macs for each in group),
        taps=tuple(each.name for each in group if _USUAL_TAP.fullmatch(each.name)),
    )


def _described(layer: keras.Operation) -> str:
    """What a layer does, in a few words; "" for one that goes without saying."""
    kind = type(layer).__name__
    size = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
    window = "x".join(str(each) for each in size) if isinstance(size, tuple) else ""
    strides = getattr(layer, "strides", None)
    step = f" /{strides[0]}" if isinstance(strides, tuple) and max(strides) > 1 else ""
    if kind.startswith("Global"):
        return "mean" if "Average" in kind else "maximum"
    if "Pooling" in kind:
        return f"{'mean' if 'Average' in kind else 'max'} pool {window}{step}"
    if kind.startswith("DepthwiseConv"):
        return f"depthwise {window}{step}"
    if kind.startswith("Dense"):
        return f"linear {layer.units}"
    if getattr(layer, "filters", None) and window:
        word = "adder" if "Adder" in kind else "transposed" if "Transpose" in kind else "conv"
        word = "separable" if kind.startswith("Separable") else word
        groups = getattr(layer, "groups", 1)
        parted = f" in {groups} groups" if groups > 1 else ""
        return f"{word} {window}, {layer.filters}{parted}{step}"
    heavy = bool(getattr(layer, "weights", ())) and "Normalization" not in kind
    return kind if heavy else ""


def _staged_by_taps(rows: list[Block]) -> list[Block]:
    """Gives each row the stage whose tap comes next; behind the last one is the head."""
    ends = {tap: at for at, row in enumerate(rows) for tap in row.taps if _STAGE_TAP.fullmatch(tap)}
    order = sorted(ends.items(), key=lambda item: item[1])
    stages = [next((tap for tap, end in order if end >= at), _HEAD) for at in range(len(rows))]
    return [replace(row, stage=stage) for row, stage in zip(rows, stages, strict=True)]


def _staged_by_size(rows: list[Block]) -> list[Block]:
    """Gives each row the size of its feature maps as the stage; without any, it is the head."""
    sizes = [row.output_shape[:2] if len(row.output_shape) == 3 else () for row in rows]
    stages = ["x".join(str(side or "?") for side in size) or _HEAD for size in sizes]
    return [replace(row, stage=stage) for row, stage in zip(rows, stages, strict=True)]


def _merged(rows: list[Block]) -> list[Block]:
    """Puts equal blocks in a row together; only the last of them may hold taps."""
    merged: list[Block] = []
    for row in rows:
        last = merged[-1] if merged else None
        same = last is not None and replace(last, repeats=1) == replace(row, taps=())
        if same:
            merged[-1] = replace(row, repeats=last.repeats + 1)
        else:
            merged.append(row)
    return merged


def _counted(parts: Iterable[str]) -> list[str]:
    """Equal parts in a row as one with their number."""
    found: list[list] = []
    for part in parts:
        if found and found[-1][0] == part:
            found[-1][1] += 1
        else:
            found.append([part, 1])
    return [part if number == 1 else f"{number} × {part}" for part, number in found]
