"""What the processor can do, as far as times depend on it."""

from __future__ import annotations

import platform
from pathlib import Path

import tensorflow as tf

_CPU_FACTS = Path("/proc/cpuinfo")


def name() -> str:
    """Returns the processor's own name where the system tells it (Linux), or its kind."""
    found = _fields("model name")
    return found[0] if found else platform.processor()


def has_bfloat16() -> bool:
    """Returns whether products of bfloat16 numbers are instructions of the device that trains.

    GPUs have them. Of CPUs, those with AVX-512 BF16 or AMX have; others emulate them, several times
    slower than float32.
    """
    if tf.config.list_physical_devices("GPU"):
        return True
    flags = set(" ".join(_fields("flags")[:1]).split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "avx_ne_convert"})


def _fields(field: str) -> list[str]:
    """Returns the values of a field of all processors, as Linux lists them; none elsewhere."""
    try:
        lines = _CPU_FACTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(field)]
