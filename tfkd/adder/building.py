"""Compiles the adder op, and its GPU kernels as TensorFlow's, once for each TensorFlow and source.

The libraries go into a folder of the user's (:mod:`tfkd.adder.compiling`), and are compiled only
where they are not there yet; ``make op`` compiles the op ahead of time.

TensorFlow's C++ interface differs from release to release, so a library serves one release only. It
serves every processor of its kind: the kernels are compiled for several instruction sets, and the
fastest is found at run time (``native/simd_dispatch.cc``).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from tfkd.adder import compiling, gpu_kernels
from tfkd.errors import TfkdError

SOURCES = Path(__file__).parent / "native"
_X86 = ("x86_64", "amd64")
# -w: TensorFlow's headers alone give hundreds of warnings.
_FLAGS = ("-O3", "-fPIC", "-w", "-fvisibility=hidden", "-ffp-contract=off")
# Instruction sets of single files; a processor that lacks them never enters these files.
_INSTRUCTIONS: Mapping[str, Sequence[str]] = {
    "microkernels_avx2": ("-mavx2", "-mfma"),
    "microkernels_avx512vl": ("-mavx512f", "-mavx512vl", "-mfma"),
    "microkernels_avx512": ("-mavx512f",),
}
_GPU_SOURCE = gpu_kernels.SOURCES / "op.cc"
_GPU_FLAGS = ("-O3", "-fPIC", "-w", "-fvisibility=hidden")
# The usual place of CUDA, where nvcc is a script that lies elsewhere.
_CUDA = "/usr/local/cuda"


def build() -> Path:
    """Returns the path of the compiled op, compiling it if it is not there.

    Raises:
        TfkdError: There is no compiler, it fails, or the folder cannot be written.
    """
    return compiling.once(name(), "op", _compile)


def name() -> str:
    """Returns the file name of the op's library: TensorFlow's version, processor, source."""
    digest = hashlib.sha256(repr((_FLAGS, sorted(_INSTRUCTIONS.items()))).encode())
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".cc", ".h"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    machine = platform.machine().lower()
    return f"adder-tf{tf.__version__}-{machine}-{digest.hexdigest()[:16]}.so"


def build_for_gpu() -> Path:
    """Returns the path of the library that joins the GPU kernels to the op, compiling it likewise.

    Load it after the op's own library, which registers the names.

    Raises:
        TfkdError: There is no C++ or CUDA compiler, one fails, or the folder cannot be written.
    """
    library = f"adder-cuda-op-tf{tf.__version__}-{gpu_kernels.source()}.so"
    return compiling.once(library, gpu_kernels.WANTED, _compile_for_gpu)


def compiler() -> str:
    """Returns the path of the C++ compiler: ``$CXX`` or ``g++``.

    Raises:
        TfkdError: It is not there.
    """
    wanted = os.environ.get("CXX") or "g++"
    found = shutil.which(wanted)
    if found is None:
        raise TfkdError(f"C++ compiler: found no {wanted!r}, wanted g++ (or name one by CXX)")
    return found


def _compile(target: str) -> None:
    """Compiles all sources at once and links them."""
    program = compiler()
    commands = []
    objects = []
    for source in sorted(SOURCES.glob("*.cc")):
        made = f"{target}.{source.stem}.o"
        flags = [*_FLAGS, *_instructions(source.stem), *tf.sysconfig.get_compile_flags()]
        commands.append([program, *flags, "-c", str(source), "-o", made])
        objects.append(made)
    compiling.run(commands, "C++ compiler", "a compiled adder op")
    link = [program, "-shared", *objects, "-o", target, *tf.sysconfig.get_link_flags()]
    compiling.run([link], "C++ compiler", "a compiled adder op")


def _instructions(stem: str) -> Sequence[str]:
    return _INSTRUCTIONS.get(stem, ()) if platform.machine().lower() in _X86 else ()


def _compile_for_gpu(target: str) -> None:
    program = gpu_kernels.compiler()
    # CUDA's headers lie beside its compiler.
    headers = Path(program).resolve().parents[1] / "include"
    if not (headers / "cuda_runtime.h").exists():
        headers = Path(_CUDA) / "include"
    objects = str(gpu_kernels.objects())
    op = f"{target}.o"
    flags = [*_GPU_FLAGS, *tf.sysconfig.get_compile_flags(), f"-I{headers}"]
    gpu_kernels.run(compiler(), *flags, "-c", str(_GPU_SOURCE), "-o", op)
    gpu_kernels.run(program, "--shared", op, objects, "-o", target, *tf.sysconfig.get_link_flags())
