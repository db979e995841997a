"""Compares a teacher, a student alone and the same student distilled, over several seeds.

    python tools/compare.py --config=configs/quickstart.py --workdir=runs/quickstart
    python tools/compare.py --config=configs/cifar100.py:kd,resnet56,resnet20 --workdir=runs/many \\
        --methods=kd,dkd,dist --seeds=0,1,2

With --methods the config is read once for each of them, with the method in the place of the first
word of its argument; further flags such as --config.train.epochs=3 hold for all of them, those of
data for the teacher too, which otherwise trains by its own config: a line says so. The student
alone trains by the train section of the config as given, whatever a method changes in it.
Methods without a teacher need none in the config; then there is no row of a teacher.
Each run is an ordinary run folder, WORKDIR/ROLE/seedN, that tools/train.py with the same config
also makes. The same command continues where it stopped. The rows go to WORKDIR/summary.json.
A run that fails has a row that says why, and all others go on; the exit status is then 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # Started as a file.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags
from ml_collections import config_flags

from tools import device_flags, entry

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Distillation experiment: a Python file with get_config, or FILE:ARGUMENT."
)
_METHODS = flags.DEFINE_list("methods", None, "Methods to compare, such as kd,dkd,dist.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the comparison.")
_SEEDS = flags.DEFINE_list("seeds", None, "Seeds, such as 0,1,2; by default compare.seeds.")
_STRATEGY, _CPU_DEVICES = device_flags.define()


def main(_) -> None:
    from tfkd.errors import TfkdError
    from tfkd.training import compare, strategy

    experiments = config = _CONFIG.value
    if config is None or not _WORKDIR.value:
        raise TfkdError("wanted --config=FILE and --workdir=FOLDER (see --help)")
    try:
        seeds = [
            int(seed) for seed in (config.compare.seeds if _SEEDS.value is None else _SEEDS.value)
        ]
    except (TypeError, ValueError):
        given = "compare.seeds" if _SEEDS.value is None else f"--seeds={','.join(_SEEDS.value)}"
        raise TfkdError(f"{given}: wanted whole numbers") from None
    strategy.split_cpu(_CPU_DEVICES.value)
    flag = flags.FLAGS["config"]
    changes = config_flags.get_override_values(flag)
    if _METHODS.value:
        experiments = compare.of_methods(
            config_flags.get_config_filename(flag), _METHODS.value, changes
        )
    for line in compare.holds_for(experiments, changes):
        print(line, flush=True)
    summary = compare.compare(experiments, _WORKDIR.value, seeds, _STRATEGY.value, base=config)
    if not summary:
        return  # A worker that writes nothing.
    print(f"\n{compare.table(summary)}")
    if compare.failures(summary):
        sys.exit(1)


if __name__ == "__main__":
    entry.run(main, epilog=entry.config_help)
