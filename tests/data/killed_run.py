"""Starts the experiment ``noisy`` for each of several moments, in a process that is killed then.

    python killed_run.py FOLDER TEACHER_WORKDIR MOMENT [MOMENT ...]

The runs lie in FOLDER/MOMENT. Prints a line with moment and exit status of each process. They are
copies of one process, which has imported TensorFlow once.
"""

import os
import signal
import sys
from pathlib import Path

from tfkd import Distiller
from tfkd.training import config as configs
from tfkd.training import results, run
from tfkd.training.checkpoints import Checkpoints
from tfkd.training.run_folder import RunFolder


def killed_at(call, *, before=True):
    """Returns a decorator: the function kills the process on that call of it, from 1 on."""

    def decorate(function):
        left = [call]

        def wrapped(*arguments, **keywords):
            left[0] -= 1
            if before and not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            value = function(*arguments, **keywords)
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        return wrapped

    return decorate


PLACES = {
    "first_checkpoint": (Checkpoints, "save", killed_at(1)),
    "rename_of_checkpoint": (os, "replace", killed_at(8)),
    "end_of_epoch": (RunFolder, "write_metrics", killed_at(2, before=False)),
    "evaluation": (Distiller, "evaluate", killed_at(2)),
    "final_students": (results, "save_students", killed_at(1)),
}


def start(moment, workdir, teacher):
    """Runs the experiment up to the moment."""
    owner, name, decorate = PLACES[moment]
    setattr(owner, name, decorate(getattr(owner, name)))
    experiment = Path(__file__).with_name("tiny_experiment.py")
    config = configs.override(
        configs.load(f"{experiment}:noisy"),
        teacher__workdir=teacher,
        train__checkpoint_seconds=0.0,
    )
    run(config, workdir)


def main(folder, teacher, *moments):
    for moment in moments:
        child = os.fork()
        if not child:
            try:
                start(moment, Path(folder, moment), teacher)
            finally:
                os._exit(1)
        print(moment, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
