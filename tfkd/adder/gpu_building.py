"""Compiles the GPU kernels of the adder layer, where there is a CUDA compiler.

Two libraries can be had. One is independent of TensorFlow: functions of C on device pointers
(``native/cuda/launcher.cu``), for `ctypes`. The other joins the same functions to the adder ops of
TensorFlow. They lie beside the compiled op of processors, in the same cache
(:mod:`tfkd.adder.compiling`), and serve every GPU from compute capability 7.5 on.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
from pathlib import Path

import tensorflow as tf

from tfkd.adder import building, compiling
from tfkd.errors import TfkdError

SOURCES = building.SOURCES / "cuda"
_CAPABILITIES = ("75", "80", "86", "89", "90")
_FLAGS = ("-O3", "--compiler-options", "-fPIC")
_WANTED = "GPU kernels"
_LAUNCHER = SOURCES / "launcher.cu"
# Where CUDA is usually, for a compiler that is started by a script elsewhere.
_CUDA = "/usr/local/cuda"


class Geometry(ctypes.Structure):
    """The sizes of one adder layer, as ``native/geometry.h`` has them.

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
    """Returns the path of the kernels without TensorFlow, compiling them where it is to be done.

    Raises:
        TfkdError: There is no CUDA compiler, it fails, or the cache cannot be written.
    """
    return compiling.once(f"adder-cuda-{_suffix()}", _WANTED, _compile_kernels)


def build_op() -> Path:
    """Returns the path of the kernels as TensorFlow's, compiling them where it is to be done.

    To be loaded after the op of processors, which registers the names.

    Raises:
        TfkdError: There is no C++ or CUDA compiler, one fails, or the cache cannot be written.
    """
    name = f"adder-cuda-op-tf{tf.__version__}-{_suffix()}"
    return compiling.once(name, _WANTED, _compile_op)


def _suffix() -> str:
    """Returns the end of a library's name: the kind of processor, and the source."""
    digest = hashlib.sha256(repr((_FLAGS, _CAPABILITIES)).encode())
    for path in (*sorted(SOURCES.iterdir()), *sorted(building.SOURCES.glob("*.h"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{platform.machine().lower()}-{digest.hexdigest()[:16]}.so"


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
    ``tfkd_adder_cuda_input_gradient(sizes, input, filter, gradient, input_gradient, stream)`` take a
    pointer to a :class:`Geometry`, then pointers to float32 on the device, and a CUDA stream or
    ``None``; they return CUDA's error code.

    Args:
        path: What :func:`build` returned.
    """
    library = ctypes.CDLL(str(path))
    for function, pointers in ((library.tfkd_adder_cuda_forward, 4),
                               (library.tfkd_adder_cuda_input_gradient, 5)):  # fmt: skip
        function.argtypes = [ctypes.POINTER(Geometry)] + [ctypes.c_void_p] * pointers
        function.restype = ctypes.c_int
    return library


def _compile_kernels(target: str) -> None:
    _run(compiler(), *_FLAGS, *_targets(), "--shared", str(_LAUNCHER), "-o", target)


def _compile_op(target: str) -> None:
    program = compiler()
    # The headers of CUDA lie beside its compiler.
    headers = Path(program).resolve().parents[1] / "include"
    if not (headers / "cuda_runtime.h").exists():
        headers = Path(_CUDA) / "include"
    kernels, op = f"{target}.kernels.o", f"{target}.op.o"
    _run(program, *_FLAGS, *_targets(), "-c", str(_LAUNCHER), "-o", kernels)
    flags = ["-O3", "-fPIC", "-w", "-fvisibility=hidden", *tf.sysconfig.get_compile_flags()]
    source = str(SOURCES / "op.cc")
    _run(building.compiler(), *flags, f"-I{headers}", "-c", source, "-o", op)
    _run(program, "--shared", op, kernels, "-o", target, *tf.sysconfig.get_link_flags())


def _targets() -> list[str]:
    """Returns the flags that say for which GPUs to compile."""
    targets = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in _CAPABILITIES]
    # Text that later GPUs compile for themselves.
    last = _CAPABILITIES[-1]
    return [*targets, f"-gencode=arch=compute_{last},code=compute_{last}"]


def _run(*command: str) -> None:
    compiling.run([command], "compiler", f"compiled {_WANTED}")
