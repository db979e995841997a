"""The GPU kernels of the adder layer without TensorFlow: compiled by nvcc, called by ctypes.

They are C functions on device pointers (``native/cuda/launcher.cu``), compiled for every GPU from
compute capability 7.5 on, into the cache of :mod:`tfkd.adder.compiling`.
:func:`tfkd.adder.building.build_for_gpu` makes TensorFlow kernels of them.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
from pathlib import Path

from tfkd.adder import compiling
from tfkd.errors import TfkdError

SOURCES = Path(__file__).parent / "native" / "cuda"
WANTED = "GPU kernels"
_CAPABILITIES = ("75", "80", "86", "89", "90")
_FLAGS = ("-O3", "-std=c++17", "--compiler-options", "-fPIC")
_LAUNCHER = SOURCES / "launcher.cu"


class Geometry(ctypes.Structure):
    """The sizes of one adder layer, the struct of ``native/geometry.h``.

    Input NHWC, filter HWIO, output NHWC; ``output = (size + both pads - kernel) // stride + 1``.
    """

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "batch", "height", "width", "channels",
            "kernel_height", "kernel_width", "filters",
            "stride_height", "stride_width", "pad_top", "pad_left",
            "output_height", "output_width",
        )
    ]  # fmt: skip


def build() -> Path:
    """Returns the path of the library of kernels, compiling it if it is not there.

    Raises:
        TfkdError: There is no CUDA compiler, it fails, or the cache cannot be written.
    """

    def link(target: str) -> None:
        run(compiler(), "--shared", str(objects()), "-o", target)

    return compiling.once(f"adder-cuda-{source()}.so", WANTED, link)


def objects() -> Path:
    """Returns the path of the object file that such libraries are linked from, likewise.

    Raises:
        TfkdError: As :func:`build`.
    """

    def compile_to(target: str) -> None:
        last = _CAPABILITIES[-1]
        targets = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in _CAPABILITIES]
        # Intermediate code, which later GPUs compile for themselves.
        targets.append(f"-gencode=arch=compute_{last},code=compute_{last}")
        run(compiler(), *_FLAGS, *targets, "-c", str(_LAUNCHER), "-o", target)

    return compiling.once(f"adder-cuda-{source()}.o", WANTED, compile_to)


def source() -> str:
    """Returns the part of a library's name that tells its kind of processor and its source."""
    digest = hashlib.sha256(repr((_FLAGS, _CAPABILITIES)).encode())
    for path in (*sorted(SOURCES.iterdir()), *sorted(SOURCES.parent.glob("*.h"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{platform.machine().lower()}-{digest.hexdigest()[:16]}"


def compiler() -> str:
    """Returns the path of the CUDA compiler: ``$NVCC`` or ``nvcc``.

    Raises:
        TfkdError: It is not there.
    """
    wanted = os.environ.get("NVCC") or "nvcc"
    found = shutil.which(wanted)
    if found is None:
        raise TfkdError(f"CUDA compiler: found no {wanted!r}, wanted nvcc (or name one by NVCC)")
    return found


def load(path: str | os.PathLike) -> ctypes.CDLL:
    """Returns a library of kernels with the types of its functions declared.

    ``tfkd_adder_cuda_forward(sizes, input, filter, output, stream)`` and
    ``tfkd_adder_cuda_input_gradient(sizes, input, filter, gradient, input_gradient, stream)`` take
    a pointer to a :class:`Geometry`, then pointers to float32 on the device, and a CUDA stream or
    ``None``; they return CUDA's error code.

    Args:
        path: The path that :func:`build` returned.
    """
    library = ctypes.CDLL(str(path))
    for function, pointers in ((library.tfkd_adder_cuda_forward, 4),
                               (library.tfkd_adder_cuda_input_gradient, 5)):  # fmt: skip
        function.argtypes = [ctypes.POINTER(Geometry)] + [ctypes.c_void_p] * pointers
        function.restype = ctypes.c_int
    return library


def run(*command: str) -> None:
    """Runs a compiler.

    Raises:
        TfkdError: It fails.
    """
    compiling.run([command], "compiler", f"compiled {WANTED}")
