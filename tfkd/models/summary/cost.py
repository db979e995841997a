"""What a network costs: parameters and multiply-accumulate operations (MACs), layer by layer.

One MAC is one multiplication with its addition, for one image. As is the custom of the field, only
convolutions and linear layers count: normalization, activations, pooling and biases are free.
Additions of adder layers (sums of absolute differences) are counted apart, as their paper counts
them: two for every term |x - f|, one for the difference and one for the sum, none for the sign.

A layer class counts by its rule, or its nearest ancestor's; `rule` adds one for a class of yours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import keras

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import is_functional, trace


@dataclass(frozen=True)
class Work:
    """The operations of one call of one layer, for one image.

    Attributes:
        macs: Multiply-accumulate operations.
        adder_additions: Additions of adder layers, two for every absolute difference.
    """

    macs: int = 0
    adder_additions: int = 0


@dataclass(frozen=True)
class LayerCost:
    """One row of the table: one call of one layer.

    Attributes:
        name: The layer's name, as a tap.
        kind: The layer's class.
        output_shape: The shape of its output after the batch axis; () if it has several.
        params: Learned parameters, frozen or not; 0 for the second and later calls of a layer.
        macs: Multiply-accumulate operations per image.
        adder_additions: Additions of adder layers per image.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    params: int
    macs: int
    adder_additions: int = 0


@dataclass(frozen=True)
class Cost:
    """The cost of a model.

    Attributes:
        params: Learned parameters, whether they are frozen or not. Moving statistics are none.
        total_params: All weights, moving statistics included.
        macs: Multiply-accumulate operations per image.
        adder_additions: Additions of adder layers per image.
        layers: A row per call, in order.
        unknown: The names of what no rule counts though it may well multiply; `macs` is too low
            by their part.
    """

    params: int
    total_params: int
    macs: int
    adder_additions: int
    layers: tuple[LayerCost, ...]
    unknown: tuple[str, ...] = ()

    @property
    def multiplications(self) -> int:
        """Multiplications per image: one a MAC."""
        return self.macs

    @property
    def additions(self) -> int:
        """Additions per image: one a MAC, and those of adder layers."""
        return self.macs + self.adder_additions

    def table(self) -> str:
        """The rows and their totals as text; rows that cost nothing are left out."""
        header = ("layer", "kind", "output", "params", "MACs", "additions")
        rows = [
            (
                each.name,
                each.kind,
                "x".join(str(size or "?") for size in each.output_shape),
                f"{each.params:,}",
                "?" if each.name in self.unknown else f"{each.macs:,}",
                f"{each.adder_additions:,}",
            )
            for each in self.layers
            if each.params or each.macs or each.adder_additions or each.name in self.unknown
        ]
        total = ("total", "", "", f"{self.params:,}", f"{self.macs:,}", f"{self.adder_additions:,}")
        columns = len(header) if self.adder_additions else len(header) - 1
        cells = [row[:columns] for row in (header, *rows, total)]
        widths = [max(len(row[column]) for row in cells) for column in range(columns)]
        ruler = "  ".join("-" * width for width in widths)
        lines = [
            "  ".join(
                cell.ljust(width) if column < 3 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        lines = [lines[0], ruler, *lines[1:-1], ruler, lines[-1]]
        if self.unknown:
            lines.append("not counted in the MACs: " + ", ".join(self.unknown))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


Shapes = list[tuple[int, ...]]
Rule = Callable[[keras.Layer, Shapes, Shapes], Work]
Operation = tuple[str, keras.Operation, Shapes, Shapes]
_rules: dict[type, Rule] = {}
# What multiplies without holding weights, by class name: functions of `keras.ops`, and layers.
_WEIGHTLESS_PRODUCTS = frozenset(
    "Matmul Dot Tensordot Einsum Inner Outer Vdot Conv DepthwiseConv SeparableConv ConvTranspose "
    "DotProductAttention Attention AdditiveAttention".split()
)


def rule(*classes: type) -> Callable[[Rule], Rule]:
    """Returns a decorator that makes a function the counting rule of layer classes.

    The function takes the layer and the shapes of its inputs and of its outputs, each a list of
    tuples without the batch axis, and returns `Work`. A subclass without a rule of its own counts
    by its ancestor's.
    """

    def add(count: Rule) -> Rule:
        for each in classes:
            _rules[each] = count
        return count

    return add


def cost(model: keras.Model) -> Cost:
    """Counts parameters and multiply-accumulate operations of a model for one image.

    Sub-models are counted by their layers, shared layers once per call in MACs and once in all in
    parameters. Count the network itself and not its folded copy, whose normalization is gone.

    Args:
        model: Any Keras model. Of a subclassed model only the parameters can be counted: its
            name is in `Cost.unknown`.

    Raises:
        TfkdError: If the model has no weights yet, or images of no fixed size.
    """
    if not model.built:
        raise TfkdError(f"cost of model {model.name!r}: found no weights; wanted a built model")
    return total(operations(model))


def total(counted: Iterable[Operation]) -> Cost:
    """Adds up the cost of some of the operations of a model."""
    rows, unknown, weights = [], [], []
    seen: set[int] = set()
    for name, operation, inputs, outputs in counted:
        work = work_of(operation, inputs, outputs)
        if work is None:
            unknown.append(name)
            work = Work()
        fresh = [each for each in _learned(operation) if id(each) not in seen]
        seen.update(id(each) for each in fresh)
        weights += getattr(operation, "weights", ())
        rows.append(
            LayerCost(
                name=name,
                kind=type(operation).__name__,
                output_shape=outputs[0] if len(outputs) == 1 else (),
                params=_size(fresh),
                macs=work.macs,
                adder_additions=work.adder_additions,
            )
        )
    return Cost(
        params=sum(each.params for each in rows),
        total_params=_size(weights),
        macs=sum(each.macs for each in rows),
        adder_additions=sum(each.adder_additions for each in rows),
        layers=tuple(rows),
        unknown=tuple(unknown),
    )


def work_of(operation: keras.Operation, inputs: Shapes, outputs: Shapes) -> Work | None:
    """Counts one call by the rule of its class, or returns None if it has work but no rule.

    Args:
        operation: A layer or a function of `keras.ops`.
        inputs: The shapes of its inputs without the batch axis.
        outputs: The shapes of its outputs without the batch axis.

    Raises:
        TfkdError: If a rule needs a size that is not fixed.
    """
    for each in type(operation).__mro__:
        if each in _rules:
            try:
                return _rules[each](operation, inputs, outputs)
            except TypeError:
                if not any(size is None for shape in inputs + outputs for size in shape):
                    raise
                raise TfkdError(
                    f"cost of layer {operation.name!r}: found inputs of shape {inputs}; wanted a "
                    "model built for images of one size"
                ) from None
    silent = not getattr(operation, "weights", ())
    return Work() if silent and type(operation).__name__ not in _WEIGHTLESS_PRODUCTS else None


def operations(model: keras.Model) -> Iterator[Operation]:
    """Name, operation, input shapes and output shapes of every call that is not a sub-model."""
    if not is_functional(model):
        yield model.name, model, [], []
        return
    for name, call, args, kwargs, outputs in trace(model):
        if not is_functional(call.operation):
            yield name, call.operation, _shapes((args, kwargs)), _shapes(outputs)


def _shapes(tensors) -> Shapes:
    return [
        tuple(each.shape[1:])
        for each in keras.tree.flatten(tensors)
        if isinstance(each, keras.KerasTensor)
    ]


def _learned(operation: keras.Operation) -> list:
    """The variables that a layer would train, whether it is frozen or not."""
    if not isinstance(operation, keras.Layer):
        return []
    # `trainable_variables` is empty when frozen; these lists are not.
    return [each for layer in operation._flatten_layers() for each in layer._trainable_variables]


def _size(variables) -> int:
    """The number of values in variables, each counted once."""
    return sum(math.prod(each.shape) for each in {id(each): each for each in variables}.values())
