"""Walking functional Keras models: the one place that reads how Keras stores their graphs.

Keras has no public way to list the calls of a functional model, so this file uses the attributes
`_functional`, `_nodes_by_depth`, `_inbound_nodes`, a node's `arguments.fill_in`, and
`_keras_history`, by which a tensor knows what made it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras

from tfkd.errors import TfkdError


class InferenceModel(keras.Model):
    """A functional model that runs in inference mode wherever it is called.

    Keras hands the mode of an outer model on to every layer inside, also to one that was called
    with ``training=False`` when the outer graph was made.
    """

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=False, mask=mask)


@dataclass(frozen=True)
class Call:
    """One call of one operation (a layer, a sub-model, or a function of `keras.ops`) in a graph.

    Attributes:
        name: The operation's name, with ":1", ":2".. in order of calling if it is called more than
            once in this graph.
        operation: What is called.
        node: Keras' record of the call.
    """

    name: str
    operation: keras.Operation
    node: object

    @property
    def inputs(self) -> list:
        """The symbolic tensors that the call reads."""
        return self.node.input_tensors

    @property
    def outputs(self) -> list:
        """The symbolic tensors that the call makes."""
        return self.node.outputs

    @property
    def output(self):
        """The one symbolic tensor that the call makes, or None if it makes several."""
        return self.outputs[0] if len(self.outputs) == 1 else None

    @property
    def keywords(self) -> dict:
        """The keyword arguments of the call."""
        return self.node.arguments.kwargs


def named(tensor, name: str):
    """A symbolic tensor whose function of `keras.ops` bears a name.

    Such a function takes none, and gets one by itself (`square`, `square_1`), which may be that of
    a layer of the same model; Keras then refuses to make it.
    """
    tensor._keras_history.operation.name = name
    return tensor


def is_functional(model) -> bool:
    """Whether a graph of layers says all of a model: a functional one, or a built Sequential."""
    if isinstance(model, keras.Sequential):
        return type(model).call is keras.Sequential.call and model._functional is not None
    functional = _functional_class()
    if not isinstance(model, functional):
        return False
    return type(model).call in (functional.call, InferenceModel.call)


def like(model: keras.Model, inputs, outputs, name: str) -> keras.Model:
    """A functional model of the same mode as `model`: one that never trains stays so."""
    kind = InferenceModel if isinstance(model, InferenceModel) else keras.Model
    return kind(inputs, outputs, name=name)


@functools.cache
def _functional_class() -> type[keras.Model]:
    """The class that ``keras.Model(inputs, outputs)`` makes, which has no public name."""
    # With names of their own these two leave Keras' numbers of unnamed layers as they are.
    image = keras.Input((1,), name="input")
    return type(keras.Model(image, image, name="functional"))


def graph_of(model: keras.Model) -> keras.Model:
    """The functional model that holds a model's graph: itself, or a Sequential's inner one.

    Raises:
        TfkdError: If the model has no graph: it is subclassed, or a Sequential without input shape.
    """
    if not is_functional(model):
        raise TfkdError(
            f"model {getattr(model, 'name', model)!r}: found {type(model).__name__}, whose layers "
            "cannot be listed; wanted a functional model, or a Sequential with an Input"
        )
    return model._functional if isinstance(model, keras.Sequential) else model


def calls(model: keras.Model) -> list[Call]:
    """The calls in a model's graph in order; a sub-model is one call.

    A call comes after those it depends on, and the second call of a layer after its first, so that
    a copy that makes its calls in this order has them under the same names.
    """
    graph = graph_of(model)
    # Among nodes of equal depth Keras keeps no order; its list of operations is in graph order.
    position = {id(operation): index for index, operation in enumerate(graph.operations)}
    nodes = [
        node
        for depth in sorted(graph._nodes_by_depth, reverse=True)
        for node in sorted(
            graph._nodes_by_depth[depth], key=lambda node: position[id(node.operation)]
        )
        if not node.is_input
    ]
    by_operation: dict[int, list] = {}
    for node in nodes:
        by_operation.setdefault(id(node.operation), []).append(node)
    for shared in by_operation.values():
        shared.sort(key=lambda node: node.operation._inbound_nodes.index(node))
    inside = {id(node) for node in nodes}
    ordered: dict[int, Call] = {}

    def place(node) -> None:
        if id(node) in ordered or id(node) not in inside:
            return
        shared = by_operation[id(node.operation)]
        number = shared.index(node)
        for earlier in (*node.parent_nodes, *shared[:number]):
            place(earlier)
        suffix = f":{number + 1}" if len(shared) > 1 else ""
        ordered[id(node)] = Call(node.operation.name + suffix, node.operation, node)

    for node in nodes:
        place(node)
    return list(ordered.values())


def all_calls(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, Call]]:
    """Pairs of path and call for every call in a model and its sub-models.

    The path of a call inside sub-model `backbone` is `backbone/` and its path there. A sub-model
    comes before its content.
    """
    for call in calls(model):
        yield prefix + call.name, call
        if is_functional(call.operation):
            yield from all_calls(call.operation, f"{prefix}{call.name}/")


def run(
    model: keras.Model,
    inputs,
    perform: Callable[[Call, tuple, dict], object],
    feed: Callable[[Call, list], list] = lambda call, tensors: tensors,
):
    """Runs a model's graph with `perform(call, args, kwargs)` in place of every call.

    Args:
        model: A model with a graph.
        inputs: Tensors in the structure of the model's inputs, real or symbolic.
        perform: Returns the outputs of a call for the given arguments.
        feed: Returns what a call reads in the place of its input tensors.

    Returns:
        The outputs, in the structure of the model's outputs.
    """
    graph = graph_of(model)
    tensors = {
        id(reference): tensor
        for reference, tensor in zip(graph.inputs, keras.tree.flatten(inputs), strict=True)
    }
    for call in calls(model):
        read = feed(call, [tensors[id(each)] for each in call.inputs])
        args, kwargs = call.node.arguments.fill_in(dict(zip(map(id, call.inputs), read)))
        outputs = keras.tree.flatten(perform(call, args, kwargs))
        for reference, tensor in zip(call.outputs, outputs, strict=True):
            tensors[id(reference)] = tensor
    return keras.tree.map_structure(lambda reference: tensors[id(reference)], graph.output)


def new_inputs(model: keras.Model):
    """Fresh symbolic inputs like those of `model`, in the same structure."""
    return keras.tree.map_structure(
        lambda tensor: keras.Input(
            batch_shape=tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse, name=tensor.name
        ),
        graph_of(model).input,
    )


def trace(
    model: keras.Model, inputs=None, prefix: str = ""
) -> Iterator[tuple[str, Call, tuple, dict, object]]:
    """Follows shapes through a model and its sub-models, without leaving a mark on either.

    Unlike the tensors that Keras recorded inside a sub-model, which have the shape of the
    sub-model's own input, these have the shapes that the outer model gives it.

    Args:
        model: A model with a graph.
        inputs: Symbolic tensors in the structure of the model's inputs; the model's own if None.
        prefix: Put before every path.

    Yields:
        Path, call, symbolic arguments, keyword arguments and symbolic outputs of every call, a
        sub-model's after its content.
    """
    found = []

    def perform(call, args, kwargs):
        if is_functional(call.operation):
            outer = f"{prefix}{call.name}/"
            inner = list(trace(call.operation, args[0] if args else kwargs["inputs"], outer))
            found.extend(inner)
        outputs = call.operation.compute_output_spec(*args, **kwargs)
        found.append((prefix + call.name, call, args, kwargs, outputs))
        return outputs

    run(model, graph_of(model).input if inputs is None else inputs, perform)
    yield from found
