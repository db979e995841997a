"""Compiles the adder op, once for each TensorFlow, source and kind of processor.

The library goes into a folder of the user's, ``$TFKD_CACHE``, else ``$XDG_CACHE_HOME/tfkd``, else
``~/.cache/tfkd``. What is there already is used as it is; ``make op`` puts it there ahead of time.

TensorFlow's C++ interface differs from release to release, so a library serves one only. It serves
every processor of its kind, however: the kernels are compiled for several instruction sets, and
which of them run is decided when they do.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow as tf

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
    folder = cache()
    library = folder / name()
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(library.with_suffix(".lock")):
            if not library.exists():
                _compile(library)
    except OSError as error:
        raise TfkdError(
            f"folder {str(folder)!r}: cannot be written ({error.strerror or error}), wanted one "
            f"that can hold the compiled op (set TFKD_CACHE)"
        ) from error
    return library


def cache() -> Path:
    """Returns the folder of compiled libraries, which may not exist yet."""
    if own := os.environ.get("TFKD_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tfkd"


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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps every other process, and thread, out while the block runs."""
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(library: Path) -> None:
    """Compiles all sources at once and links them; the library appears whole or not at all."""
    program = compiler()
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".build-") as scratch:
        commands = []
        objects = []
        for source in sorted(SOURCES.glob("*.cc")):
            target = os.path.join(scratch, source.stem + ".o")
            flags = [*_FLAGS, *_instructions(source.stem), *tf.sysconfig.get_compile_flags()]
            commands.append([program, *flags, "-c", str(source), "-o", target])
            objects.append(target)
        _run(commands)
        linked = os.path.join(scratch, library.name)
        _run([[program, "-shared", *objects, "-o", linked, *tf.sysconfig.get_link_flags()]])
        os.replace(linked, library)


def _instructions(stem: str) -> Sequence[str]:
    return _INSTRUCTIONS.get(stem, ()) if platform.machine().lower() in _X86 else ()


def _run(commands: Sequence[Sequence[str]]) -> None:
    """Runs the commands side by side.

    Raises:
        TfkdError: One of them fails; its first complaint is part of the message.
    """
    plain = {**os.environ, "LC_ALL": "C"}  # Complaints in English, so that they can be found.
    running = [
        subprocess.Popen(
            command, env=plain, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    said = [process.communicate()[1] for process in running]
    for process, command, lines in zip(running, commands, said):
        if process.returncode:
            complaints = [line for line in lines.splitlines() if "error" in line.lower()]
            complaint = (complaints or lines.splitlines() or ["no message"])[0].strip()
            raise TfkdError(
                f"C++ compiler {command[0]!r}: found exit status {process.returncode} "
                f"({complaint}), wanted a compiled adder op"
            )
