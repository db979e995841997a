"""The student of blockwise distillation of any network, by a name and arguments.

The network `blockwise` is what :func:`tfkd.models.blockwise` makes of another one:

    config.student.name = "blockwise"
    config.student.kwargs.of = "vgg16_32"
    config.student.kwargs.of_kwargs = {"hidden": 512}
    config.student.kwargs.blocks = (1, 2, 3, 4)

`of` may be a network of one's own (`FILE.py:function`) with `of_kwargs` as its arguments; without
`cuts` it is cut at the last of the taps `stem`, `stage1`, ... of each size of feature maps; without
`blocks` all of them are replaced.

Taps: those of the other network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from tfkd.models import registry
from tfkd.models.graph.narrowing import ReceptiveField, blockwise
from tfkd.settings import Count, Range, checked

NAME = "blockwise"

Ratio = Annotated[float, Range(above=1)]


def _definitions(kwargs: Mapping[str, Any]) -> dict[str, Callable]:
    """Returns the network that the argument `of` refers to."""
    return {"of": registry.builder(kwargs["of"])} if "of" in kwargs else {}


@registry.register(NAME, definitions=_definitions)
def _of_another(
    num_classes,
    input_shape,
    name,
    of="resnet20",
    of_kwargs=None,
    cuts=None,
    ratio=2.0,
    blocks=None,
    receptive_field="kept",
):
    where = f"network {NAME!r}: "
    cuts = checked(f"{where}cuts", tuple[str, ...] | None, cuts)
    ratio = checked(f"{where}ratio", Ratio, ratio)
    blocks = checked(f"{where}blocks", tuple[Count, ...] | None, blocks)
    receptive_field = checked(f"{where}receptive_field", ReceptiveField, receptive_field)
    model = registry.create_other(NAME, of, of_kwargs, num_classes, input_shape)
    return blockwise(model, cuts, ratio, blocks, receptive_field, name=name)
