"""The flags of the binaries that train: which devices they use."""

from __future__ import annotations

from absl import flags

# Those of the binary that calls `define`, so that its --help lists them.
flags.disclaim_key_flags()


def define() -> tuple[flags.FlagHolder[str], flags.FlagHolder[int]]:
    """Defines ``--strategy`` and ``--cpu_devices`` and returns them."""
    strategy = flags.DEFINE_enum(
        "strategy",
        "auto",
        ["auto", "one", "mirrored", "multi_worker"],
        "Devices: one, all GPUs of the machine, or the cluster of TF_CONFIG; auto chooses.",
    )
    cpu_devices = flags.DEFINE_integer(
        "cpu_devices", 1, "Splits the CPU into so many devices, to try replicas without GPUs."
    )
    return strategy, cpu_devices
