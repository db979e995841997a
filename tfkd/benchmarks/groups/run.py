"""The cost of a run besides its training steps: start, logging, files and progress bar."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from tfkd import core, data, distillers, models
from tfkd.benchmarks import steps
from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.benchmarks.networks import as_trained
from tfkd.errors import TfkdError
from tfkd.training.run_folder import RunFolder
from tfkd.training.run_state import Progress, State
from tfkd.training.timeline import Timeline

_OVERHEAD = 1.05
_START = 15.0
_CHECKPOINT_SECONDS = 30.0
_EPOCHS = 8
_ENDLESS = 10**6
"""Epochs of a run that no turn of measurements comes to the end of."""

_ROOT = Path(__file__).resolve().parents[3]


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields the cost of logging over a bare loop of the same steps, and the time to a first step.

    Some epochs of ResNet-20 on all digits go through one `fit` with all that a run does
    meanwhile (progress bar, metrics.csv, TensorBoard, a checkpoint every 30 seconds), and through a
    loop that calls the same train function. The start is that of tools/train.py as a process of
    its own, until the first step of the quickstart's student is done; it has no baseline, and 15
    seconds are wanted.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield _logging(Path(folder), "resnet8" if tiny else "resnet20")
    yield Experiment(
        "start of tools/train.py with configs/quickstart.py",
        "start until the first step",
        [Case("start", _start)],
        [Comparison("start", (), facts={"wanted": f"below {_START:g} s"})],
    )


def _logging(folder: Path, network: str) -> Experiment:
    dataset = data.load("digits", batch_size=32)
    shape, classes = dataset.info.image_shape, dataset.info.num_classes

    def distiller() -> core.Distiller:
        student = models.Network(as_trained(network, classes, shape), steps.PREPROCESS_GREY)
        return steps.distiller(None, student, distillers.create("plain"), 1.0, 1.0)

    logged, bare = distiller(), distiller()
    for each in (logged, bare):
        each.prepare_for(dataset.train().element_spec)
    return Experiment(
        f"{network} on digits, {_EPOCHS} epochs of {dataset.steps_per_epoch} steps",
        f"fit of {_EPOCHS} epochs",
        [
            Case("bare steps", _bare(bare, dataset)),
            Case("run", _run(logged, dataset, folder)),
        ],
        [Comparison("run", ("bare steps",), _OVERHEAD, name="logging, files, progress bar")],
    )


def _bare(distiller: core.Distiller, dataset: data.DataSet) -> Callable[[], object]:
    train = distiller.make_train_function()

    def epochs() -> None:
        batches = iter(dataset.train())
        for _ in range(_EPOCHS * dataset.steps_per_epoch):
            train(batches)

    return epochs


def _run(distiller: core.Distiller, dataset: data.DataSet, folder: Path) -> Callable[[], object]:
    progress = Progress(
        RunFolder(folder),
        State(),
        stages=[core.Stage("train")],
        timeline=Timeline([_ENDLESS * dataset.steps_per_epoch], dataset.steps_per_epoch),
        score=distiller.task.score,
        checkpoint_seconds=_CHECKPOINT_SECONDS,
        strategy=tf.distribute.get_strategy(),
    )
    progress.start()

    def epochs() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            distiller.fit(
                dataset.train(),
                epochs=_EPOCHS,
                steps_per_epoch=dataset.steps_per_epoch,
                callbacks=[progress],
                verbose=1,
                shuffle=False,
            )

    return epochs


def _start() -> None:
    """Runs the binary until its progress bar shows a first step."""
    tool = _ROOT / "tools" / "train.py"
    if not tool.exists():
        raise TfkdError(f"benchmark run: found no {tool}, wanted a checkout of the repository")
    with tempfile.TemporaryDirectory() as folder:
        config = f"--config={_ROOT / 'configs' / 'quickstart.py'}:alone"
        command = [sys.executable, tool, config, "--workdir=run"]
        terminal, end = pty.openpty()  # Elsewhere there is no bar.
        process = subprocess.Popen(command, cwd=folder, stdout=end, stderr=subprocess.STDOUT)
        os.close(end)
        said = b""
        try:
            # The bar is drawn for the first time when the first step is done.
            while b"1/9\x1b" not in said:
                said += os.read(terminal, 4096)
        except OSError:  # The other end is closed.
            told = said.decode(errors="replace")[-500:]
            raise TfkdError(f"benchmark run: the run ended early: {told}") from None
        finally:
            process.kill()
            process.wait()
            os.close(terminal)
