"""Graphs of a finished run are freed, and functions that outlive one keep their gradients."""

import gc
import weakref

import tensorflow as tf

from tfkd.training import graph_memory


def traced():
    """Returns a compiled function with a custom gradient."""

    @tf.custom_gradient
    def scaled(x):
        return x, lambda gradient: 3.0 * gradient * x

    return tf.function(lambda x: scaled(x) + tf.nn.silu(x) * 0.0).get_concrete_function(
        tf.TensorSpec((), tf.float32)
    )


def slope(function):
    x = tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return float(tape.gradient(y, x))


def test_a_graph_goes_with_its_function():
    with graph_memory.released():
        function = traced()
        graph = weakref.ref(function.graph)
    assert slope(function) == 6.0
    del function
    gc.collect()
    assert graph() is None


def test_the_table_holds_no_names_of_graphs_that_are_gone():
    with graph_memory.released():
        pass
    before = len(graph_memory._TABLE)
    for _ in range(2):
        with graph_memory.released():
            traced()
        gc.collect()
    with graph_memory.released():
        pass
    assert len(graph_memory._TABLE) == before
