"""A run folder's student or a SavedModel, measured on a part of a data set, as a small report."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tfkd import data, files
from tfkd.errors import TfkdError
from tfkd.evaluation.scores import evaluate
from tfkd.evaluation.subjects import (
    run_data_settings,
    run_subject,
    saved_model_subject,
    split_of,
)


def report(
    *,
    run: str | os.PathLike | None = None,
    saved_model: str | os.PathLike | None = None,
    data_name: str | None = None,
    which: str = "last",
    directory: str | os.PathLike | None = None,
    split: str = "test",
    batch_size: int = 64,
) -> dict:
    """Evaluates the student of a run folder, or a SavedModel.

    Args:
        run: The run folder.
        saved_model: A SavedModel; either this or ``run``.
        data_name: A data set as ``tfkd.data.load`` names it; None is the run's own, with the run's
            validation part.
        which: ``"last"`` or ``"best"`` student of the run.
        directory: Where the named data set lies.
        split: ``"test"``, ``"validation"`` or ``"train"`` (without augmentation).
        batch_size: Images in a batch.

    Returns:
        A dict with ``network`` (the path), ``dataset``, ``split``, ``top1``, ``top5`` (percent,
        0..100; from 10 classes on), ``loss`` (nats), ``images``, ``images_per_second``, ``params``
        and ``macs`` (None where unknown).

    Raises:
        TfkdError: For a network, data set or split that is missing or does not fit.
    """
    if (run is None) == (saved_model is None):
        found = "neither" if run is None else "both"
        raise TfkdError(
            f"network to evaluate: found {found} of --run and --saved_model, wanted one of them"
        )
    if run is None and data_name is None:
        raise TfkdError("data to evaluate a SavedModel on: found none, wanted --data=NAME")
    subject = saved_model_subject(saved_model) if run is None else run_subject(run, which)
    settings = run_data_settings(run) if data_name is None else {"name": data_name}
    if directory is not None:
        settings["directory"] = directory
    dataset = data.load(**settings, batch_size=batch_size)
    subject.check(dataset.info)
    found = evaluate({"network": subject.predict}, split_of(dataset, split))
    scores = found.scores["network"]
    return {
        "network": str(saved_model if run is None else run),
        "dataset": dataset.info.name,
        "split": split,
        **{key: value for key, value in scores.items() if key != "count"},
        "images": found.count,
        "images_per_second": found.images_per_second,
        "params": subject.params,
        "macs": subject.macs,
    }


def table(report: dict) -> str:
    """Returns a report as two lines of text columns; numbers that are not known are left out."""
    forms = {
        "dataset": ("data", "{}"),
        "split": ("split", "{}"),
        "top1": ("top-1 %", "{:.2f}"),
        "top5": ("top-5 %", "{:.2f}"),
        "loss": ("loss", "{:.4f}"),
        "images": ("images", "{:,}"),
        "images_per_second": ("images/s", "{:,.0f}"),
        "params": ("params", "{:,}"),
        "macs": ("MACs", "{:,}"),
    }
    known = [key for key in forms if report.get(key) is not None]
    cells = [(forms[key][0], forms[key][1].format(report[key])) for key in known]
    widths = [max(map(len, column)) for column in cells]
    rows = [[text.rjust(width) for text, width in zip(row, widths)] for row in zip(*cells)]
    return "\n".join("  ".join(row) for row in rows)


def write_report(report: dict, path: str | os.PathLike) -> None:
    """Writes a report as JSON.

    Raises:
        TfkdError: When the file cannot be written.
    """
    with files.writing(f"JSON file {str(path)!r}", "a writable path"):
        Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
