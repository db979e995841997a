"""The GPU kernels of the adder layer as TensorFlow's, where there is a CUDA compiler.

The library joins the functions of :mod:`tfkd.adder.gpu_kernels` to the adder ops. It lies beside the
compiled op of processors, in the same cache (:mod:`tfkd.adder.compiling`).
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from tfkd.adder import building, compiling, gpu_kernels

_SOURCE = gpu_kernels.SOURCES / "op.cc"
# Where CUDA is usually, for a compiler that is started by a script elsewhere.
_CUDA = "/usr/local/cuda"


def build() -> Path:
    """Returns the path of the library, compiling it where it is to be done.

    To be loaded after the op of processors, which registers the names.

    Raises:
        TfkdError: There is no C++ or CUDA compiler, one fails, or the cache cannot be written.
    """
    name = f"adder-cuda-op-tf{tf.__version__}-{gpu_kernels.source()}.so"
    return compiling.once(name, gpu_kernels.WANTED, _compile)


def _compile(target: str) -> None:
    program = gpu_kernels.compiler()
    # The headers of CUDA lie beside its compiler.
    headers = Path(program).resolve().parents[1] / "include"
    if not (headers / "cuda_runtime.h").exists():
        headers = Path(_CUDA) / "include"
    objects = str(gpu_kernels.objects())
    op = f"{target}.o"
    flags = ["-O3", "-fPIC", "-w", "-fvisibility=hidden", *tf.sysconfig.get_compile_flags()]
    gpu_kernels.run(building.compiler(), *flags, f"-I{headers}", "-c", str(_SOURCE), "-o", op)
    gpu_kernels.run(program, "--shared", op, objects, "-o", target, *tf.sysconfig.get_link_flags())
