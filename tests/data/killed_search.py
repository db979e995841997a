"""Starts a search for each of several moments, in a process that is killed then.

    python killed_search.py FOLDER MOMENT [MOMENT ...]

The searches lie in FOLDER/MOMENT. Prints a line with moment and exit status of each process. They
are copies of one process, which has imported TensorFlow once.
"""

import os
import sys
from pathlib import Path

from killed_run import killed_at

from tfkd import tuning
from tfkd.training import config as configs
from tfkd.training.checkpoints import Checkpoints
from tfkd.tuning import record, tuner

STEPS = 12
"""Checkpoints of one trial: one for each step."""

PLACES = {
    "within_trial_2": (Checkpoints, "save", killed_at(STEPS + 8)),
    "before_the_row": (record.Record, "_append", killed_at(2)),
    "end_of_trial_2": (tuner.RunTuner, "on_trial_end", killed_at(2, before=False)),
}


def experiment():
    """Returns an experiment of three trials, with dropout."""
    config = configs.load(f"{Path(__file__).with_name('tiny_experiment.py')}:alone")
    return configs.override(
        config,
        train__checkpoint_seconds=0.0,
        search_space=(configs.vary("train.learning_rate", choices=(0.1, 1.0, 10.0)),),
    )


def main(folder, *moments):
    for moment in moments:
        child = os.fork()
        if not child:
            try:
                owner, name, decorate = PLACES[moment]
                setattr(owner, name, decorate(getattr(owner, name)))
                tuning.search(experiment(), Path(folder, moment))
            finally:
                os._exit(1)
        print(moment, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
