"""Adder layers beside convolutions of the same shape: speed, threads, memory, exactness."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import functools
import gc
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.adder import AdderConv2D, library, twin
from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.errors import TfkdError

_FORWARD, _BOTH = "forward", "forward and backward"
_EXTRA_MEMORY = 2.0
_STEP = 1.5
_SCALING = 1.8
_NONE = (0, 0, 0, 0)
# Layers of one call: what a call costs by itself is small beside them, as it is in a network.
_LAYERS = 8
# Of a call that has threads share each layer: the rest of the call is not theirs to share.
_LAYERS_IN_TURN = 32

_Layer = tuple[Callable[[tf.Tensor], tf.Tensor], tf.Variable]
"""A function from images to outputs, and its filters."""


@dataclass(frozen=True)
class _Shape:
    """One layer: images of size x size x channels, square filters, padding size // 2."""

    size: int
    channels: int
    filters: int
    kernel: int = 3
    stride: int = 1
    batch_size: int = 64

    def __str__(self) -> str:
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return (
            f"{self.kernel}x{self.kernel}{stride}, {self.channels}@{self.size}x{self.size} -> "
            f"{self.filters}"
        )

    @property
    def multiply_adds(self) -> int:
        """Of the convolution; the adder layer has as many differences."""
        places = -(-self.size // self.stride)
        return self.batch_size * places**2 * self.kernel**2 * self.channels * self.filters


_SHAPES = (
    _Shape(32, 16, 16),
    _Shape(32, 16, 32, stride=2),
    _Shape(16, 32, 32),
    _Shape(16, 32, 64, stride=2),
    _Shape(8, 64, 64),
    _Shape(32, 16, 32, kernel=1, stride=2),
    _Shape(16, 32, 64, kernel=1, stride=2),
)
_TINY_SHAPES = (_Shape(6, 3, 4, batch_size=2), _Shape(6, 3, 4, kernel=1, stride=2, batch_size=2))


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields the layers of an adder ResNet-20 one by one, threads, exactness, and the network.

    Convolutions are TensorFlow's, as this installation runs them, with "SAME" zeros where those are
    the same, which it runs fastest. A call makes several layers of one shape, side by side. The
    backward pass has both gradients, that of the filters normalised as in training. The goals of a
    layer hold only where it needs at most twice its input in memory, besides inputs and results.

    Raises:
        TfkdError: The op cannot be compiled here.
    """
    if library.operations() is None:
        raise TfkdError("benchmark group 'adder': found no compiled adder op, wanted one")
    extra_memory = _extra_memory(tiny)
    for shape in _shapes(tiny):
        yield _layer(shape, extra_memory.get(str(shape), {}))
    if len(_processors()) > 1:
        for shape in _TINY_SHAPES[:1] if tiny else (_SHAPES[0], _SHAPES[4]):
            for batch_size in (shape.batch_size, 1):
                yield _threads(shape, batch_size)
    yield _exactness((18, 36) if tiny else (576, 1152, 2304, 4608))
    yield _network("resnet8" if tiny else "resnet20", 8 if tiny else 32, 2 if tiny else 64)


def _shapes(tiny: bool) -> Sequence[_Shape]:
    return _TINY_SHAPES if tiny else _SHAPES


def _layer(shape: _Shape, extra_memory: Mapping[str, float]) -> Experiment:
    works = _works(shape)
    comparisons = []
    for passes, goal, count in ((_FORWARD, 1.0, 1), (_BOTH, 1.5, 3)):
        adder, convolution = f"adder, {passes}", f"conv2d, {passes}"
        extra = {
            f"extra memory / input{words}": extra_memory.get(case, math.nan)
            for words, case in (("", adder), (" of conv2d", convolution))
        }
        facts = {
            "instructions": library.instructions(),
            "multiply-adds": _LAYERS * count * shape.multiply_adds,
            **extra,
        }
        sound = not extra["extra memory / input"] > _EXTRA_MEMORY
        comparisons.append(Comparison(adder, (convolution,), goal, facts=facts, sound=sound))
    return Experiment(
        str(shape),
        f"{_LAYERS} layers, batch of {shape.batch_size} images",
        [Case(name, work) for name, work in works.items()],
        comparisons,
    )


def _works(shape: _Shape) -> dict[str, Callable[[], object]]:
    """The forward pass, and both passes, of some convolutions and of as many adder layers."""
    images = _images(shape, shape.batch_size)
    works = {}
    for name, make in _KINDS.items():
        layers = [make(shape) for _ in range(_LAYERS)]
        forward, both = tf.function(_forward(layers)), tf.function(_both(layers))
        upstream = [_normal(*outputs.shape) for outputs in forward(images)]
        works[f"{name}, {_FORWARD}"] = functools.partial(forward, images)
        works[f"{name}, {_BOTH}"] = functools.partial(both, images, upstream)
    return works


def _images(shape: _Shape, batch_size: int) -> tf.Tensor:
    return _normal(batch_size, shape.size, shape.size, shape.channels)


def _convolution(shape: _Shape) -> _Layer:
    """The convolution of TensorFlow with the same zeros around the images."""
    pad = shape.kernel // 2
    same = shape.stride == 1 or not pad
    padding = "SAME" if same else [[0, 0], [pad, pad], [pad, pad], [0, 0]]
    filters = tf.Variable(_normal(shape.kernel, shape.kernel, shape.channels, shape.filters))
    return lambda images: tf.nn.conv2d(images, filters, shape.stride, padding), filters


def _adder(shape: _Shape) -> _Layer:
    layer = AdderConv2D(shape.filters, shape.kernel, strides=shape.stride)
    layer.build((None, shape.size, shape.size, shape.channels))
    return layer, layer.kernel.value


_KINDS = {"conv2d": _convolution, "adder": _adder}


def _forward(layers: Sequence[_Layer]) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """The outputs of all layers for the same images."""
    return lambda images: [layer(images) for layer, _ in layers]


def _both(layers: Sequence[_Layer]) -> Callable[[tf.Tensor, Sequence[tf.Tensor]], object]:
    """Outputs and both gradients of each layer by itself."""

    def compute(images, upstream):
        found = []
        for (layer, filters), direction in zip(layers, upstream, strict=True):
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = layer(images)
            found.append((outputs, tape.gradient(outputs, (images, filters), direction)))
        return found

    return compute


def _threads(shape: _Shape, batch_size: int) -> Experiment:
    """The compiled ops alone, with all threads of the process on one processor, then on two.

    A call makes several layers, each after the one before, so that only the threads of an op share
    its work. TensorFlow's convolution tells what the machine has to give.
    """
    images = _images(shape, batch_size)
    filters = [
        _normal(shape.kernel, shape.kernel, shape.channels, shape.filters)
        for _ in range(_LAYERS_IN_TURN)
    ]
    operations, pad = library.operations(), shape.kernel // 2
    settings = {"strides": [shape.stride] * 2, "padding": [pad] * 4}

    def one_by_one(layer):
        made: list[tf.Tensor] = []
        for each in filters:
            with tf.control_dependencies(made[-1:]):
                made.append(layer(each))
        return made

    @tf.function
    def forward():
        return one_by_one(
            lambda each: operations.tfkd_adder_conv2d(x=images, filter=each, **settings)
        )

    upstream = forward()[0]

    @tf.function
    def input_gradient():
        return one_by_one(
            lambda each: operations.tfkd_adder_conv2d_input_grad(
                x=images, filter=each, gradient=upstream, **settings
            )
        )

    @tf.function
    def convolution():
        return one_by_one(lambda each: tf.nn.conv2d(images, each, shape.stride, "SAME"))

    processors = _processors()
    works = {"forward": forward, "input gradient": input_gradient, "conv2d, forward": convolution}
    cases, comparisons = [], []
    for name, work in works.items():
        for count, words in ((1, "one processor"), (2, "two processors")):
            cases.append(
                Case(
                    f"{name}, {words}",
                    work,
                    functools.partial(_move, processors[:count], work),
                )
            )
        # One image alone may be too little work to be shared.
        goal = _SCALING if batch_size > 1 and work is not convolution else None
        comparisons.append(
            Comparison(f"{name}, two processors", (f"{name}, one processor",), goal, True)
        )
    return Experiment(
        f"threads, {shape}",
        f"{_LAYERS_IN_TURN} layers, batch of {batch_size} images",
        cases,
        comparisons,
        lambda: _keep_to(processors),
    )


def _processors() -> list[int]:
    """The processors that this process may use; none where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def _move(processors: Sequence[int], work: Callable[[], object]) -> None:
    """Keeps all threads to these processors; they come there during a run."""
    _keep_to(processors)
    work()


def _keep_to(processors: Sequence[int]) -> None:
    """Lets all threads of this process run on these processors only."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # It ended meanwhile.
            os.sched_setaffinity(int(thread), processors)


def _exactness(lengths: Sequence[int]) -> Experiment:
    """The op beside the sum of absolute differences as it stands, formed by the twin."""
    operations = library.operations()
    cases, comparisons = [], []
    for length in lengths:
        images = _normal(8, 6, 6, length // 9)
        filters = _normal(3, 3, length // 9, 24)

        def compiled(images=images, filters=filters):
            return operations.tfkd_adder_conv2d(
                x=images, filter=filters, strides=[1, 1], padding=_NONE
            )

        def direct(images=images, filters=filters):
            return twin.convolution(images, filters, (1, 1), _NONE)

        facts, sound = {}, True
        for words, offset in (("", 0.0), (" at offset 100", 100.0)):
            wanted, running = _sums(images + offset, filters + offset)
            error = _largest(compiled(images + offset, filters + offset), wanted)
            plain = _largest(running, wanted)
            sound = sound and error <= plain
            facts |= {f"error{words}": error, f"of a running sum{words}": plain}
        cases += [Case(f"{length} terms", compiled), Case(f"{length} terms, twin", direct)]
        comparisons.append(
            Comparison(f"{length} terms", (f"{length} terms, twin",), 1.0, facts=facts, sound=sound)
        )
    return Experiment(
        "exactness against float64, 3x3 on 6x6", "batch of 8 images", cases, comparisons
    )


def _sums(images: tf.Tensor, filters: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Minus the sums of absolute differences, in float64, and as a running sum in float32."""
    patches = tf.image.extract_patches(images, [1, 3, 3, 1], [1] * 4, [1] * 4, "VALID").numpy()
    columns = filters.numpy().reshape(-1, filters.shape[-1]).T
    differences = np.abs(patches[..., None, :] - columns)
    exact = np.abs(np.float64(patches)[..., None, :] - columns).sum(-1)
    return -exact, -np.cumsum(differences, axis=-1, dtype=np.float32)[..., -1]


def _largest(found, wanted: np.ndarray) -> float:
    """The largest relative error."""
    return float(np.abs(np.asarray(found, np.float64) / wanted - 1).max())


def _network(name: str, size: int, batch_size: int) -> Experiment:
    """The training step of a whole network, and of the convolutional one of the same graph."""
    images = _normal(batch_size, size, size, 3)
    labels = tf.random.stateless_uniform((batch_size,), (0, 2), 0, 100, tf.int32)
    steps = {}
    for words, settings in (
        ("convolutions", {"logit_normalization": True}),
        ("adder layers", {"adder": True}),
    ):
        model = models.create(name, 100, (size, size, 3), **settings)
        model.compile(
            keras.optimizers.SGD(1e-3, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
        model.fit(batches, steps_per_epoch=1, verbose=0)
        steps[words] = _step(model.make_train_function(), iter(batches))
    return Experiment(
        f"{name}, training",
        f"step of {batch_size} images",
        [Case(words, step) for words, step in steps.items()],
        [Comparison("adder layers", ("convolutions",), _STEP)],
    )


def _step(train: Callable, batches: Iterator) -> Callable[[], object]:
    return lambda: train(batches)


def _normal(*shape: int) -> tf.Tensor:
    return tf.random.stateless_normal(shape, (len(shape), sum(shape)))


def _bytes(tensors) -> int:
    return sum(each.shape.num_elements() * each.dtype.size for each in tf.nest.flatten(tensors))


def _extra_memory(tiny: bool) -> dict[str, dict[str, float]]:
    """What each case of each shape needs besides inputs and results, in sizes of the input.

    Each is measured in a process of its own, at its first run on a whole batch: TensorFlow may keep
    what a run needed for the next one. Memory that is freed goes back to the system at once (glibc).
    Empty where the system does not tell (not Linux).
    """
    if not os.path.exists("/proc/self/clear_refs"):
        return {}
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "32768",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def measured(shape: _Shape, name: str, passes: str) -> float:
        arguments = _shapes(tiny).index(shape), name, passes, tiny
        code = f"from {__name__} import print_extra_memory as show; show{arguments}"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    cases = [
        (shape, name, passes)
        for shape in _shapes(tiny)
        for name in _KINDS
        for passes in (_FORWARD, _BOTH)
    ]
    found: dict[str, dict[str, float]] = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (shape, name, passes), ratio in zip(
            cases, pool.map(lambda case: measured(*case), cases)
        ):
            found.setdefault(str(shape), {})[f"{name}, {passes}"] = ratio
    return found


def print_extra_memory(position: int, name: str, passes: str, tiny: bool) -> None:
    """Prints the memory of one layer as `_extra_memory` has it.

    Args:
        position: Which of the shapes.
        name: "conv2d" or "adder".
        passes: "forward" or "forward and backward".
        tiny: Whether the shapes are those of tests.
    """
    shape = _shapes(tiny)[position]
    layers = [_KINDS[name](shape)]
    image = _any_batch((shape.size, shape.size, shape.channels))
    forward = tf.function(_forward(layers), input_signature=[image])
    results = [_any_batch(each.shape[1:]) for each in forward.get_concrete_function().outputs]
    both = tf.function(_both(layers), input_signature=[image, results])

    def run_on(batch_size: int) -> Callable[[], object]:
        # Made in place: what a computation of them left behind would hide what is needed.
        images, *upstream = (tf.ones((batch_size, *each.shape[1:])) for each in (image, *results))
        return lambda: forward(images) if passes == _FORWARD else both(images, upstream)

    # One image first: it makes everything that does not grow with the batch.
    run_on(1)()
    size = shape.batch_size * shape.size**2 * shape.channels * tf.float32.size
    print(json.dumps(_held_at_most(run_on(shape.batch_size)) / size))


def _any_batch(size: Sequence[int]) -> tf.TensorSpec:
    return tf.TensorSpec((None, *size), tf.float32)


def _held_at_most(work: Callable[[], object]) -> int:
    """Bytes that a piece of work holds at its height, besides its results."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # What is free already would hide what is needed.
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # The most so far becomes what there is now.
    before = _held("VmRSS")
    results = work()
    return max(0, _held("VmHWM") - before - _bytes(results))


def _held(name: str) -> int:
    """Memory of this process as the system counts it, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        found = [line.split() for line in file if line.startswith(f"{name}:")]
    return 1024 * int(found[0][1])
