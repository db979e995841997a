"""The networks as text: a table of all of them, and one in detail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import keras

from tfkd.models import registry
from tfkd.models.graph.outputs import LOGITS, output_sizes
from tfkd.models.references import is_reference
from tfkd.models.summary.cost import cost
from tfkd.models.summary.plan import Plan, usual_taps

# What a network that is not in the registry is shown for.
_SHAPE, _CLASSES = (32, 32, 3), 100


@dataclass(frozen=True)
class Row:
    """What the table says of one network.

    Attributes:
        name: Its name.
        smallest: The least height and width that it takes; None where that is not known.
        input_shape: Height, width and channels of the images that it was built for.
        num_classes: The number of classes that it was built for.
        params: Learned parameters.
        macs: Multiply-accumulate operations per image.
        taps: The taps that methods know by name.
    """

    name: str
    smallest: int | None
    input_shape: tuple[int, int, int]
    num_classes: int
    params: int
    macs: int
    taps: tuple[str, ...]


def build(name: str, num_classes: int | None = None, image_size: int | None = None) -> keras.Model:
    """Builds a network as it was published, or for other classes or images.

    Args:
        name: A name for `tfkd.models.create`.
        num_classes: The number of classes; None for the network's own (100 for one by
            `module:function`).
        image_size: The side of images of three channels; None for the network's own (32).

    Raises:
        TfkdError: As `create`.
    """
    if is_reference(name):
        shape, classes = _SHAPE, _CLASSES
    else:
        known = registry.entry(name)
        shape, classes = known.default_shape, known.default_classes
    if image_size is not None:
        shape = (image_size, image_size, 3)
    return registry.create(name, classes if num_classes is None else num_classes, shape)


def rows(
    names: Iterable[str],
    num_classes: int | None = None,
    image_size: int | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Row]:
    """Builds networks one after the other and returns their rows.

    Args:
        names: Names for `tfkd.models.create`.
        num_classes: As for `build`.
        image_size: As for `build`; a network that takes only larger images is left out.
        progress: Called with each name before the network is built.
    """
    found = []
    for name in names:
        smallest = None if is_reference(name) else registry.entry(name).smallest
        if image_size is not None and smallest is not None and image_size < smallest:
            continue
        progress(name)
        model = build(name, num_classes, image_size)
        costs = cost(model)
        found.append(
            Row(
                name=name,
                smallest=smallest,
                input_shape=tuple(model.input_shape[1:]),
                num_classes=output_sizes(model)[LOGITS][-1],
                params=costs.params,
                macs=costs.macs,
                taps=usual_taps(model),
            )
        )
    return found


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    header = ("network", "smallest", "input", "classes", "params", "MACs", "taps")
    cells = [
        (
            row.name,
            "?" if row.smallest is None else f"{row.smallest}x{row.smallest}",
            shape_text(row.input_shape),
            str(row.num_classes),
            f"{row.params:,}",
            f"{row.macs:,}",
            taps_text(row.taps),
        )
        for row in rows
    ]
    return _aligned(header, cells, left=(0, 6))


def description(found: Plan) -> str:
    """A network in detail: its blocks, its taps and the cost of each layer."""
    return "\n\n".join((blocks_text(found), shapes_text(found), found.cost.table()))


def blocks_text(found: Plan) -> str:
    """The blocks of a network, from the image to the logits."""
    header = ("stage", "", "block", "output", "params", "MACs", "taps")
    cells, before = [("image", "", "", shape_text(found.input_shape), "", "", "")], "image"
    for block in found.blocks:
        cells.append(
            (
                "" if block.stage == before else block.stage,
                f"{block.repeats} ×" if block.repeats > 1 else "",
                block.title() + {"add": "  (+)", "concat": "  (concat)", "": ""}[block.join],
                shape_text(block.output_shape),
                short(block.params * block.repeats),
                short(block.macs * block.repeats),
                " ".join(block.taps),
            )
        )
        before = block.stage
    lines = [title(found), "", _aligned(header, cells, left=(0, 2, 6))]
    if any(each.join for each in found.blocks):
        lines.append("(+) adds the block's input, or its shortcut; (concat) puts them together")
    return "\n".join(lines)


def shapes_text(found: Plan) -> str:
    """The taps of a network and their shapes."""
    cells = [(tap, shape_text(shape)) for tap, shape in found.taps.items()]
    return _aligned(("tap", "shape"), cells, left=(0, 1))


def title(found: Plan) -> str:
    """Name, input, classes and cost of a network in one line."""
    return (
        f"{found.name}: {shape_text(found.input_shape)} to {found.num_classes:,} classes, "
        f"{short(found.cost.params)} parameters, {short(found.cost.macs)} MACs"
    )


def shape_text(shape: Iterable[int | None]) -> str:
    """A shape as 32x32x16; ? for a side that may vary."""
    return "x".join(str(size or "?") for size in shape)


def short(number: int) -> str:
    """A count in three digits: 278 K, 41.2 M, 1.82 G."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= 0.9995 * factor:
            value = number / factor
            digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:.{digits}f} {unit}"
    return str(number)


def taps_text(taps: Iterable[str]) -> str:
    """Names of taps in one line, those that differ in their number alone as stage1..3."""
    runs: dict[str, list[int | None]] = {}
    for tap in taps:
        number = re.search(r"\d+", tap)
        key = tap if number is None else tap.replace(number.group(), "#", 1)
        runs.setdefault(key, []).append(None if number is None else int(number.group()))
    parts = []
    for key, numbers in runs.items():
        if numbers[0] is None or len(numbers) == 1:
            parts.append(key.replace("#", str(numbers[0])))
        else:
            parts.append(key.replace("#", f"{min(numbers)}..{max(numbers)}"))
    return " ".join(parts)


def _aligned(header: Sequence[str], cells: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Rows in columns, with a line under the header; columns not in `left` are flush right."""
    widths = [max(len(row[at]) for row in (header, *cells)) for at in range(len(header))]

    def line(row):
        texts = (
            text.ljust(width) if at in left else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(texts).rstrip()

    ruler = "  ".join("-" * width for width in widths)
    return "\n".join((line(header), ruler, *map(line, cells)))
