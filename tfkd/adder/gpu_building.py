"""Compiles the GPU kernels of the adder layer, where there is a CUDA compiler.

The library is independent of TensorFlow: functions of C on device pointers
(``native/cuda/launcher.cu``), for `ctypes`. It lies beside the compiled op, in the same cache
(:mod:`tfkd.adder.building`), and serves every GPU from compute capability 7.5 on.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from tfkd.adder import building
from tfkd.errors import TfkdError

SOURCES = building.SOURCES / "cuda"
_CAPABILITIES = ("75", "80", "86", "89", "90")
_FLAGS = ("-O3", "--shared", "--compiler-options", "-fPIC")


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
    """Returns the path of the compiled GPU kernels, compiling them where that has not been done.

    Raises:
        TfkdError: There is no CUDA compiler, it fails, or the cache cannot be written.
    """
    folder = building.cache()
    library = folder / name()
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with building.locked(library.with_suffix(".lock")):
            if not library.exists():
                _compile(library)
    except OSError as error:
        raise TfkdError(
            f"folder {str(folder)!r}: cannot be written ({error.strerror or error}), wanted one "
            f"that can hold the compiled GPU kernels (set TFKD_CACHE)"
        ) from error
    return library


def name() -> str:
    """Returns the file name of the library: the kind of processor, and the source."""
    digest = hashlib.sha256(repr((_FLAGS, _CAPABILITIES)).encode())
    for path in (*sorted(SOURCES.iterdir()), building.SOURCES / "geometry.h"):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"adder-cuda-{platform.machine().lower()}-{digest.hexdigest()[:16]}.so"


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


def _compile(library: Path) -> None:
    """Compiles the kernels; the library appears whole or not at all."""
    program = compiler()
    targets = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in _CAPABILITIES]
    # Text that later GPUs compile for themselves.
    targets.append(f"-gencode=arch=compute_{_CAPABILITIES[-1]},code=compute_{_CAPABILITIES[-1]}")
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".build-") as scratch:
        target = os.path.join(scratch, library.name)
        command = [program, *_FLAGS, *targets, str(SOURCES / "launcher.cu"), "-o", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [*done.stderr.splitlines(), *done.stdout.splitlines()]
            complaints = [line for line in lines if "error" in line.lower()] or lines
            complaint = (complaints or ["no message"])[0].strip()
            raise TfkdError(
                f"CUDA compiler {program!r}: found exit status {done.returncode} ({complaint}), "
                "wanted compiled GPU kernels"
            )
        with contextlib.suppress(FileNotFoundError):
            os.replace(target, library)
    if not library.exists():
        raise TfkdError(f"CUDA compiler {program!r}: found no library, wanted compiled GPU kernels")
