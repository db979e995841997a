"""A digest of a traced function: its operations and the values of its variables."""

from __future__ import annotations

import functools
import hashlib

import tensorflow as tf

from tfkd.errors import TfkdError

_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def fingerprint(function) -> str:
    """Returns a digest that is equal only for functions that compute the same.

    It is one of the graph, not of a Keras config, and covers the code of custom layers, the
    preprocessing and subclassed models. Networks that differ in names alone have other digests.

    Args:
        function: A ``tf.types.experimental.ConcreteFunction``.

    Raises:
        TfkdError: The function calls Python code or uses resources other than variables, whose
            contents cannot be compared.
    """
    definition = function.graph.as_graph_def()
    digest = hashlib.sha256(_graph_digest(definition))
    for output in function.outputs:
        digest.update(f"{output.name} {output.dtype.name} {output.shape}\n".encode())
    # In the order of the graph; `function.variables` has none. Large constants are captured, too.
    variables = {id(each.handle): each for each in function.variables}
    for captured in function.captured_inputs:
        if captured.dtype in (tf.resource, tf.variant) and id(captured) not in variables:
            raise TfkdError(
                "digest of a network: found resources other than variables, such as tables, whose "
                "contents cannot be compared; wanted variables alone, or no cache"
            )
        value = variables.get(id(captured), captured)
        digest.update(tf.io.serialize_tensor(value).numpy())
    return digest.hexdigest()


def _graph_digest(definition) -> bytes:
    """Returns the digest of a ``GraphDef``."""
    library = {each.signature.name: each for each in definition.library.function}

    # Names of functions and attributes that begin with an underscore hold numbers that count the
    # traces of the process.
    @functools.cache
    def function_digest(name: str) -> bytes:
        if name not in library:
            return name.encode()
        each = library[name]
        results = repr(sorted(each.ret.items())).encode()
        return nodes_digest(each.node_def) + hashlib.sha256(results).digest()

    def nodes_digest(nodes) -> bytes:
        digest = hashlib.sha256()
        for node in nodes:
            if node.op in _PYTHON:
                raise TfkdError(
                    f"digest of a network: found the operation {node.name!r}, which calls Python "
                    f"code that cannot be compared; wanted TensorFlow operations alone, or no cache"
                )
            digest.update(repr((node.name, node.op, list(node.input))).encode())
            for key in sorted(each for each in node.attr if not each.startswith("_")):
                value = node.attr[key]
                called = [value.func, *value.list.func]
                names = [each.name for each in called if each.name]
                digest.update(key.encode())
                for name in names:
                    digest.update(function_digest(name))
                if not names:
                    digest.update(value.SerializeToString(deterministic=True))
        return digest.digest()

    return nodes_digest(definition.node)
