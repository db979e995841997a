"""Searches for the best values of config fields, by keras-tuner; every trial is a run folder.

    python tools/tune.py --config=configs/quickstart.py --workdir=runs/tune \\
        --search=methods.kd.temperature=1,2,4,8

Trials are scored on the validation images. The same command continues an interrupted search:
finished trials are not repeated and the interrupted one goes on where it stopped. WORKDIR/trials/N
is what tools/train.py makes of the config of trial N; the rows go to WORKDIR/search.json, and for
one or two varied fields a picture to WORKDIR/scores.png.

A config file says what to search in its search_space, with vary of tfkd.training.config:

    config.search_space = (vary("train.learning_rate", choices=(0.05, 0.1)),)

--search adds to that. Several of them make a grid. Fields that are tied take the same value:
--search="FIELD,FIELD=VALUE,VALUE", in Python vary("FIELD", "FIELD", choices=(VALUE, VALUE)).
--search=weights tries the weight of each method of the config at a quarter to four times of what
the config gives it, which is the published one in the configs of tfkd.
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
    "config", None, "Experiment: a Python file with get_config, or FILE:ARGUMENT."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the search.")
_SEARCH = flags.DEFINE_multi_string(
    "search",
    [],
    'FIELD=VALUE,VALUE to try, such as "train.learning_rate=0.05,0.1"; "weights" alone tries '
    "a quarter to four times the weight of each method.",
)
_METHOD = flags.DEFINE_enum(
    "method",
    "grid",
    ["grid", "random", "bayesian"],
    "grid: every combination in order; random, bayesian: keras-tuner draws combinations.",
)
_TRIALS = flags.DEFINE_integer(
    "trials", None, "The most trials; by default all of a grid, 10 of the other methods."
)
_STRATEGY, _CPU_DEVICES = device_flags.define()


def main(_) -> None:
    from tfkd import tuning
    from tfkd.errors import TfkdError
    from tfkd.training import strategy

    if _CONFIG.value is None or not _WORKDIR.value:
        raise TfkdError("wanted --config=FILE and --workdir=FOLDER (see --help)")
    config = tuning.extended(_CONFIG.value, _SEARCH.value)
    strategy.split_cpu(_CPU_DEVICES.value)
    rows = tuning.search(
        config,
        _WORKDIR.value,
        _STRATEGY.value,
        method=_METHOD.value,
        trials=_TRIALS.value,
    )
    print(f"\n{tuning.report(rows, _WORKDIR.value)}")


if __name__ == "__main__":
    entry.run(main, epilog=entry.config_help)
