"""A search from its first trial to the table, and its continuation after a kill."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import ml_collections
import tensorflow as tf

from tfkd.core.step.nonfinite import NonFiniteLoss
from tfkd.errors import TfkdError, unknown
from tfkd.training import config as configs
from tfkd.training import config_checks, inputs, run
from tfkd.training import strategy as strategies
from tfkd.training.run_folder import RunFolder, comparable
from tfkd.tuning import picture
from tfkd.tuning import space as spaces
from tfkd.tuning.record import Record, best, outcome
from tfkd.tuning.tuner import ORACLES, RunTuner, oracle

METHODS = tuple(ORACLES)
_USUAL_TRIALS = 10


def search(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    strategy: tf.distribute.Strategy | str = "auto",
    *,
    method: str = "grid",
    trials: int | None = None,
) -> list[dict[str, Any]]:
    """Runs a config with the values of its ``search_space``, each trial in a run folder of its own.

    Trials are scored on the validation images, by the best epoch's score of the task; only where a
    data set holds none out do the test images decide, which is said in a warning. Trial N lies in
    ``trials/N`` and is what :func:`tfkd.training.run` makes of its config. A trial whose loss is
    not finite has no score; the search goes on. The same call continues a search that was killed:
    finished trials are not repeated, the interrupted one continues where it stopped, and all
    numbers are those of a search that was not interrupted.

    The folder then also holds ``search.json`` (the rows, written after every trial),
    ``scores.png`` where one or two dimensions were varied, and ``keras_tuner/``.

    Args:
        config: An experiment with ``search_space``; see :func:`tfkd.training.config.vary`.
        workdir: Folder of the search.
        strategy: See :func:`tfkd.training.run`.
        method: ``grid``: every combination, in the order of the lists, the last dimension fastest.
            ``random`` or ``bayesian``: keras-tuner draws from the combinations.
        trials: The most trials; by default all of a grid, 10 of the others. May be raised later.

    Returns:
        A row for each trial, in their order: ``trial``, ``values`` (by field), ``score`` (on the
        validation images), ``scored_on``, ``score_label`` (name and unit of the score),
        ``test_best`` and ``test_last`` (the same on the test images, of the best and the last
        student), ``seconds``, ``folder`` (below the workdir) and ``error`` (why there is no score).

    Raises:
        TfkdError: For a wrong config, search space, method or folder, or when no trial has a score.
    """
    if method not in ORACLES:
        raise unknown("search method", method, ORACLES)
    if trials is not None and trials < 1:
        raise TfkdError(f"trials: found {trials}, wanted a number >= 1")
    if isinstance(strategy, str):
        # First of all: several workers must meet before TensorFlow does anything else.
        strategy = strategies.create(strategy)
    config_checks.validate(config)
    space = spaces.dimensions(config)
    spaces.check_combinations(config, space)
    whole = math.prod(len(each.values) for each in space)
    limit = whole if method == "grid" else min(whole, _USUAL_TRIALS)
    limit = limit if trials is None else min(whole, trials)
    writes = strategies.is_chief(strategy)
    record = Record(Path(workdir), _identity(config, space, method), writes)
    record.check()

    def train(number: int, chosen: dict[str, Any]) -> float:
        folder = record.folder(number)
        name = f"trial {number} of {limit}: {spaces.describe(chosen)}"
        print(f"\n{name}: {folder}", flush=True)
        # One that failed is not run again, and has to be one of this data as well.
        inputs.check_before(spaces.trial_config(config, space, chosen), RunFolder(folder))
        return record.add(number, _values(space, chosen), lambda: _run(name, folder, chosen))

    def _run(name: str, folder: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
        try:
            run(spaces.trial_config(config, space, chosen), folder, strategy)
        except NonFiniteLoss:
            raise
        except TfkdError as error:
            raise TfkdError(f"{name}: {error}") from error
        return outcome(folder)

    with contextlib.ExitStack() as stack:
        if writes:
            stack.enter_context(RunFolder(record.workdir).hold())
            # Another process may have made it a folder of something else by now.
            record.check()
            own = record.workdir / "keras_tuner"
        else:
            own = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "keras_tuner"
        tuner = RunTuner(oracle(method, space, limit, config.train.seed), space, train, own)
        try:
            tuner.search()
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ from None
        finally:
            if not record.rows:
                shutil.rmtree(own, ignore_errors=True)
        if writes:
            title = f"{config.student.name} on {config.data.name}, seed {config.train.seed}"
            picture.draw(record.rows, space, title, record.workdir / "scores.png")
    if best(record.rows) is None:
        raise TfkdError(f"no trial has a score: {record.rows[-1]['error']}")
    return record.rows


def _identity(config, space, method: str) -> dict[str, Any]:
    """Returns what makes two calls the same search."""
    return {
        "config": comparable(configs.to_dict(config)),
        "method": method,
        "space": [{"fields": list(d.fields), "values": configs.to_dict(d.values)} for d in space],
    }


def _values(space, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a trial by the single fields."""
    return {field: configs.to_dict(chosen[each.name]) for each in space for field in each.fields}
