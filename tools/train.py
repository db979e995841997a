"""Trains one experiment: a teacher, a student alone, or a distilled student.

    python tools/train.py --config=configs/quickstart.py --workdir=runs/example

The same command continues an interrupted run, and says so when the run is finished. Any field of
the config can be changed on the command line, for instance --config.train.epochs=3; an optional one
is unset by none, such as --config.data.train_size=none. With --extend a finished run goes on to the
epochs that are given, and its result says that it is not a run of that length.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # Started as a file.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags
from ml_collections import config_flags

from tools import device_flags, entry, finished

_GIVEN = sys.argv[1:]
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment: a Python file with get_config, or FILE:ARGUMENT."
)
_EXTEND = flags.DEFINE_boolean(
    "extend", False, "Continue the finished run of this config to more epochs (train.epochs)."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder, made if it does not exist.")
_STRATEGY, _CPU_DEVICES = device_flags.define()


def main(_) -> None:
    from tfkd import training
    from tfkd.errors import TfkdError
    from tfkd.training import strategy

    if _CONFIG.value is None or not _WORKDIR.value:
        raise TfkdError("wanted --config=FILE and --workdir=FOLDER (see --help)")
    strategy.split_cpu(_CPU_DEVICES.value)
    with finished.noted(_GIVEN, _WORKDIR.value):
        training.run(_CONFIG.value, _WORKDIR.value, _STRATEGY.value, extend=_EXTEND.value)


if __name__ == "__main__":
    entry.run(main, epilog=entry.config_help, at_once=finished.said_again)
