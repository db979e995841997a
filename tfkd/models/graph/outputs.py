"""The named outputs of a network, and which of them are the exits of a multi-exit network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import graph_of, is_functional

LOGITS = "logits"
_EXIT = re.compile(r"exit([1-9]\d*)")


def outputs(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the outputs of a model by name.

    A single output is called ``logits``; those of a model with a dict of outputs keep their keys,
    in the order of the dict (Keras sorts it as text: ``exit1``, ``exit10``, ``exit2``).

    Args:
        model: Any Keras model; a subclassed one must have been called once.

    Returns:
        Symbolic tensors, ``(batch, ...)``.

    Raises:
        TfkdError: For a list of outputs or nested ones, which have no names, or a subclassed model
            that was never called.
    """
    found = graph_of(model).output if is_functional(model) else _subclassed_output(model)
    return by_name(found, f"model {model.name!r}")


def by_name(found, who: str = "model") -> dict[str, Any]:
    """Returns what a call of a model gave by the names of :func:`outputs`.

    Args:
        found: A tensor, or a dict of them.
        who: Who gave it, for the message.

    Raises:
        TfkdError: For several tensors without a name each.
    """
    if isinstance(found, Mapping):
        nested = any(isinstance(each, (Mapping, list, tuple)) for each in found.values())
        if found and not nested and all(isinstance(name, str) and name for name in found):
            return dict(found)
    elif not isinstance(found, (list, tuple)):
        return {LOGITS: found}
    elif len(found) == 1:
        return {LOGITS: found[0]}
    raise TfkdError(
        f"{who}: found outputs without a name each ({_described(found)}), wanted one tensor or a "
        "dict of them: keras.Model(inputs, {'exit1': first, 'logits': last})"
    )


def output_sizes(model: keras.Model) -> dict[str, list[int | None]]:
    """Returns the shape of each output of a model after the batch axis, as JSON keeps it."""
    return {name: list(tensor.shape[1:]) for name, tensor in outputs(model).items()}


def class_width(sizes: Mapping[str, list[int | None]]) -> int | None:
    """Returns the width of ``logits``, ``None`` where no output is called so.

    Args:
        sizes: Those of :func:`output_sizes`.
    """
    return sizes[LOGITS][-1] if sizes.get(LOGITS) else None


def outputs_if_named(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the outputs of a model with a graph by name; none where they have no names.

    A part inside a larger model may have a list of them.
    """
    try:
        return outputs(model)
    except TfkdError:
        if is_functional(model):
            return {}
        raise


def exits(model: keras.Model) -> tuple[str, ...]:
    """Returns the exits of a network, shallow to deep.

    Exits are the outputs ``exit1``, ``exit2``, ... in the order of their numbers, and ``logits``,
    the deepest. A network with one output has the exit ``logits`` alone.

    Args:
        model: Any Keras model.

    Raises:
        TfkdError: For exits whose deepest is not called ``logits``, whose numbers have a gap, or as
            :func:`outputs`.
    """
    found = in_depth_order(outputs(model))
    if found and found[-1] != LOGITS:
        raise TfkdError(
            f"model {model.name!r}: found the exits {', '.join(found)}, wanted the deepest one "
            f"called {LOGITS!r}"
        )
    # An exit is also told of by its number, as an image that leaves early tells it.
    wanted = (*(f"exit{number}" for number in range(1, len(found))), LOGITS)
    if found and found != wanted:
        raise TfkdError(
            f"model {model.name!r}: found the exits {', '.join(found)}, wanted {', '.join(wanted)}"
        )
    return found


def in_depth_order(names: Iterable[str]) -> tuple[str, ...]:
    """Returns those of some names that exits bear: by their number, and ``logits`` last."""
    numbers = {name: int(match[1]) for name in names if (match := _EXIT.fullmatch(name))}
    return (*sorted(numbers, key=numbers.__getitem__), *(n for n in names if n == LOGITS))


def _described(found) -> str:
    if isinstance(found, Mapping):
        return f"a dict of {', '.join(map(str, found)) or 'nothing'}"
    return f"a list of {len(found)}"


def _subclassed_output(model: keras.Model):
    config = model.get_build_config() if model.built else None
    if not config or not config.get("input_shape"):
        raise TfkdError(
            f"model {model.name!r}: found a {type(model).__name__} that was never called; wanted "
            "one called on a batch, so that its shapes are known"
        )
    return model.compute_output_spec(keras.KerasTensor(config["input_shape"], dtype="float32"))
