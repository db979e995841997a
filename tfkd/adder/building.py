"""Compiles the adder op, once for each TensorFlow, source and kind of processor.

The library goes into a folder of the user's (:mod:`tfkd.adder.compiling`). What is there already is
used as it is; ``make op`` puts it there ahead of time.

TensorFlow's C++ interface differs from release to release, so a library serves one only. It serves
every processor of its kind, however: the kernels are compiled for several instruction sets, and
which of them run is decided when they do.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from tfkd.adder import compiling
from tfkd.errors import TfkdError

SOURCES = Path(__file__).parent / "native"
_X86 = ("x86_64", "amd64")
# Warnings are TensorFlow's own, hundreds of them.
_FLAGS = ("-O3", "-fPIC", "-w", "-fvisibility=hidden", "-ffp-contract=off")
# Instruction sets of single files; a processor that lacks them never enters these files.
_INSTRUCTIONS: Mapping[str, Sequence[str]] = {
    "level_avx2": ("-mavx2", "-mfma"),
    "level_avx512vl": ("-mavx512f", "-mavx512vl", "-mfma"),
    "level_avx512": ("-mavx512f",),
}


def build() -> Path:
    """Returns the path of the compiled op, compiling it where that has not been done.

    Raises:
        TfkdError: There is no compiler, it fails, or the folder cannot be written.
    """
    return compiling.once(name(), "op", _compile)


def name() -> str:
    """Returns the file name of the library: TensorFlow's version, the processor, the source."""
    digest = hashlib.sha256(repr((_FLAGS, sorted(_INSTRUCTIONS.items()))).encode())
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".cc", ".h"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    machine = platform.machine().lower()
    return f"adder-tf{tf.__version__}-{machine}-{digest.hexdigest()[:16]}.so"


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
