"""Any network with exits on its way, by a name and arguments, as a config gives them.

The network `multi_exit` is what :func:`tfkd.models.multi_exit` makes of another one:

    config.student.name = "multi_exit"
    config.student.kwargs.of = "resnet20"
    config.student.kwargs.taps = ("stage1", "stage2")

`of` may be a network of one's own (`FILE.py:function`) with `of_kwargs` as its arguments; without
`taps` the ends of all stages but the last are taken; `head` is the name of a head, or
`FILE.py:function`.

Outputs are named `exit1`, `exit2`, ... and `logits`. Taps: those of the other network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tfkd.errors import TfkdError
from tfkd.models import references, registry
from tfkd.models.graph.multi_exit import multi_exit
from tfkd.models.graph.taps import tap_names
from tfkd.settings import checked

_STAGE = re.compile(r"stage(\d+)")
NAME = "multi_exit"


def _definitions(kwargs: Mapping[str, Any]) -> dict[str, Callable]:
    """Returns what the arguments refer to: the network, and a head of one's own."""
    found = {}
    if "of" in kwargs:
        found["of"] = registry.builder(kwargs["of"])
    if references.is_reference(kwargs.get("head") or ""):
        found["head"] = references.find(kwargs["head"], "head")
    return found


@registry.register(NAME, definitions=_definitions)
def _of_another(
    num_classes,
    input_shape,
    name,
    of="resnet20",
    of_kwargs=None,
    taps=None,
    head="linear",
):
    where = f"network {NAME!r}: "
    taps = checked(f"{where}taps", tuple[str, ...] | None, taps)
    head = checked(f"{where}head", str, head)
    model = registry.create_other(NAME, of, of_kwargs, num_classes, input_shape)
    if references.is_reference(head):
        head = references.find(head, "head")
    return multi_exit(model, _stages(model) if taps is None else taps, head, name=name)


def _stages(model: keras.Model) -> list[str]:
    """Returns the ends of all stages but the last, after which the logits come."""
    numbered = {int(m[1]): name for name in tap_names(model) if (m := _STAGE.fullmatch(name))}
    found = [numbered[number] for number in sorted(numbered)][:-1]
    if not found:
        raise TfkdError(
            f"network {NAME!r}: found no two taps called stage1, stage2, ... in {model.name!r}; "
            "wanted taps=[...], the layers where exits begin"
        )
    return found
