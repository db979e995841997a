"""A run folder's student or a SavedModel, measured on a part of a data set, as a small report."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd import files, models
from tfkd.core import tasks
from tfkd.core.tasks import Column
from tfkd.core.tasks.exit_choice import check_budget, within_budget
from tfkd.errors import TfkdError
from tfkd.evaluation.early_exit import accuracy_over_cost, exit_answers
from tfkd.evaluation.measuring import evaluate
from tfkd.evaluation.subjects import (
    Subject,
    best_selected_on,
    check_part,
    load_data,
    run_data_settings,
    run_subject,
    saved_model_subject,
    split_of,
)
from tfkd.export import early_exit_speed
from tfkd.export.early_exit import points_of_run

_TIMED = 1000
"""Images on which leaving early is timed."""


def report(
    *,
    run: str | os.PathLike | None = None,
    saved_model: str | os.PathLike | None = None,
    data_name: str | None = None,
    which: str = "last",
    directory: str | os.PathLike | None = None,
    split: str = "test",
    batch_size: int = 64,
    class_names: str | os.PathLike | None = None,
    by_number: bool = False,
    preprocess: str | None = None,
    image_size: int | None = None,
    crop: str | None = None,
    budget: float | None = None,
) -> dict:
    """Evaluates the student of a run folder, or a SavedModel.

    Args:
        run: The run folder.
        saved_model: A SavedModel; either this or ``run``.
        data_name: A data set as ``tfkd.data.load`` names it; None is the run's own, with the run's
            validation part.
        which: The student of the run: ``"last"``, ``"best"`` or the word of a further one.
        directory: Where the named data set lies.
        split: ``"test"``, ``"validation"`` or ``"train"`` (without augmentation).
        batch_size: Images in a batch.
        class_names: A text file with the names of the network's classes, one a line, where it has
            none itself.
        by_number: Whether the classes of network and data go together by their numbers; otherwise
            by their names, where both have some.
        preprocess: How pixels reach a SavedModel that tfkd did not export: ``dataset``, ``none``,
            ``tf``, ``torch`` or ``caffe``; None gives them as they are, with a warning.
        image_size: Height and width that images are brought to; None for those of the network.
        crop: How they are brought to it, ``center`` or ``whole`` (see ``tfkd.data.DataInfo``); None
            for what is recorded of the network, or of its run. Where nothing is, images must have
            one size.
        budget: MACs of an image in the mean, for a network with exits: each image leaves where it
            is sure, by the most accurate thresholds that cost no more on the validation images.
            Those are the run's, also where ``data_name`` is another data set, or those that an
            export was made with.

    Returns:
        A dict with ``network`` (the path), ``task``, ``dataset``, ``split``, the scores of the
        task, ``images``, ``images_per_second``, ``params`` and ``macs`` (None where unknown), and
        for the best student of a run ``best_selected_on``, the part that chose its epoch. The
        scores of classification are ``top1``, ``top5`` (percent, 0..100; from 10 classes on) and
        ``loss`` (nats); of several exits also ``mean_top1`` and ``exits``, a list with the ``name``
        of each exit, its scores, and ``params`` and ``macs`` up to there where they are known. With
        a budget there is ``early_exit``, a dict of ``budget``, ``validation_top1``,
        ``validation_macs``, ``top1`` and ``macs``, and the exits have ``threshold`` (``"inf"`` and
        ``"-inf"`` where nobody and where all leave) and ``leave``, the percentage of the images.
        Of a SavedModel that dict also has ``images_per_second`` and, where all exits run,
        ``images_per_second_of_all``, both on the first thousand images.

    Raises:
        TfkdError: For a network, data set or split that is missing or does not fit, or a budget
            that is below the cost of the first exit or cannot be kept.
    """
    if (run is None) == (saved_model is None):
        found = "neither" if run is None else "both"
        raise TfkdError(
            f"network to evaluate: found {found} of --run and --saved_model, wanted one of them"
        )
    if run is None and data_name is None:
        raise TfkdError("data to evaluate a SavedModel on: found none, wanted --data=NAME")
    subject = saved_model_subject(saved_model) if run is None else run_subject(run, which)
    if budget is not None and run is not None:
        subject = dataclasses.replace(subject, points=points_of_run(run, which))
    if data_name is None:
        settings = run_data_settings(run)
        if image_size is not None or crop is not None:
            settings |= subject.data_settings(image_size=image_size, crop=crop)
    else:
        settings = {"name": data_name}
        settings |= subject.data_settings(image_size=image_size, crop=crop)
    if directory is not None:
        settings["directory"] = directory
    dataset = load_data(settings, batch_size)
    validation = None
    if data_name is None:
        check_part(run, dataset, split)
        if budget is not None and subject.points is None and dataset.info.validation_size:
            if split != "validation":
                check_part(run, dataset, "validation")
            validation = dataset.validation()
    if class_names is not None:
        subject = subject.named(models.read_class_names(class_names))
    subject = subject.for_data(dataset.info, by_number=by_number, preprocess=preprocess)
    point = None if budget is None else _point(subject, validation, budget)
    found = evaluate({"network": subject.predict}, split_of(dataset, split), subject.task)
    scores = found.scores["network"]
    if "exits" in scores:
        costs = subject.exits
        scores["exits"] = [{**each, **costs.get(each["name"], {})} for each in scores["exits"]]
    if point is not None:
        scores["early_exit"] = _leaving_early(subject, split_of(dataset, split), point, scores)
        scores["early_exit"]["budget"] = budget
        if saved_model is not None:
            images = _first_images(split_of(dataset, split), _TIMED)
            early, whole = early_exit_speed(saved_model, images, point["thresholds"], batch_size)
            scores["early_exit"] |= {
                "images_per_second": early,
                "images_per_second_of_all": whole,
            }
    return {
        "network": str(saved_model if run is None else run),
        "task": subject.task_name,
        "dataset": dataset.info.name,
        "split": split,
        **{key: value for key, value in scores.items() if key != "count"},
        "images": found.count,
        "images_per_second": found.images_per_second,
        "params": subject.params,
        "macs": subject.macs,
        **({"best_selected_on": best_selected_on(run)} if which == "best" and run else {}),
    }


def _point(
    subject: Subject, validation: tf.data.Dataset | None, budget: float
) -> Mapping[str, Any]:
    """Returns the thresholds that a budget affords, with their accuracy and cost.

    Args:
        subject: The network, which may know thresholds.
        validation: Images that it was not trained on, to choose thresholds where it knows none.
        budget: MACs of an image, the mean.
    """
    if not subject.exits or not isinstance(subject.task, tasks.Classification):
        raise TfkdError(
            f"budget: found {budget:,.10g} MACs for a network with one exit or of unknown cost, "
            "wanted a classifier with several exits"
        )
    check_budget(budget, _macs(subject)[0])
    points = subject.points
    if points is None:
        if validation is None:
            raise TfkdError(
                "budget: found no thresholds and no validation images of the run to choose them, "
                "wanted a run that held some out (data.validation_size), or its export"
            )
        answers = exit_answers({"it": subject.predict}, validation, subject.task)["it"]
        found = accuracy_over_cost(_macs(subject), answers, answers)
        points = [*found["anytime"], *found["budgeted"]]
    return within_budget(points, budget)


def _leaving_early(
    subject: Subject, part: tf.data.Dataset, point: Mapping[str, Any], scores: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what thresholds give on a part of a data set, and adds it to the scores of exits."""
    answers = exit_answers({"it": subject.predict}, part, subject.task)["it"]
    top1, macs, counts = answers.outcome(point["thresholds"], _macs(subject))
    for each, threshold, count in zip(scores["exits"], point["thresholds"], counts, strict=True):
        each["threshold"], each["leave"] = threshold, 100 * int(count) / int(counts.sum())
    known = {key: point[key] for key in ("validation_top1", "validation_macs")}
    return {**known, "top1": top1, "macs": macs}


def _first_images(part: tf.data.Dataset, count: int) -> np.ndarray:
    """Returns the pixels of the first images, without those that fill the last batch."""
    found: list[np.ndarray] = []
    for batch in part:
        images = np.asarray(batch["image"])
        found.append(images[np.asarray(batch.get("sample_weight", np.ones(len(images)))) > 0])
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]


def _macs(subject: Subject) -> list[int]:
    return [each["macs"] for each in subject.exits.values()]


def table(report: Mapping[str, Any]) -> str:
    """Returns a report as two lines of text columns, and a table of the exits where there are some.

    A line tells what leaving early gives within a budget; another one says so where the images are
    those that chose the student. Numbers that are not known are left out.
    """
    task = tasks.find(report["task"])
    columns = (
        Column("dataset", "data", "{}"),
        Column("split", "split", "{}"),
        *task.columns,
        Column("images", "images", "{:,}"),
        Column("images_per_second", "images/s", "{:,.0f}"),
        Column("params", "params", "{:,}"),
        Column("macs", "MACs", "{:,}"),
    )
    lines = _lines([report], columns)
    if "exits" in report:
        of_exit = (
            Column("name", "exit", "{}"),
            Column("macs", "MACs", "{:,}"),
            Column("params", "params", "{:,}"),
            *task.exit_columns,
            Column("threshold", "threshold", "{}"),
            Column("leave", "leave %"),
        )
        rows = [each | {"threshold": _shown(each.get("threshold"))} for each in report["exits"]]
        lines += ["", *_lines(rows, of_exit)]
    if "early_exit" in report:
        found = report["early_exit"]
        lines += [
            "",
            f"leaving early within {found['budget']:,.10g} MACs an image: top-1 "
            f"{found['top1']:.2f} % at {found['macs']:,.0f} MACs (validation "
            f"{found['validation_top1']:.2f} % at {found['validation_macs']:,.0f})",
        ]
        if "images_per_second" in found:
            early, whole = found["images_per_second"], found["images_per_second_of_all"]
            lines.append(
                f"the SavedModel, {early:,.0f} images/s, is {early / whole:.2f} times as fast as "
                f"with all exits ({whole:,.0f} images/s)"
            )
    if report.get("best_selected_on") == report["split"] == "test":
        lines.append("the best epoch was chosen on these images")
    return "\n".join(lines)


def _shown(threshold: float | str | None) -> str | None:
    return threshold if threshold is None or isinstance(threshold, str) else f"{threshold:.4f}"


def _lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[str]:
    """Returns a heading and a line for each row; columns that lack a value are left out."""
    known = [each for each in columns if all(row.get(each.key) is not None for row in rows)]
    cells = [[each.label, *(each.form.format(row[each.key]) for row in rows)] for each in known]
    widths = [max(map(len, column)) for column in cells]
    return [
        "  ".join(text.rjust(width) for text, width in zip(line, widths)) for line in zip(*cells)
    ]


def write_report(report: dict, path: str | os.PathLike) -> None:
    """Writes a report as JSON.

    Raises:
        TfkdError: When the file cannot be written.
    """
    with files.writing(f"JSON file {str(path)!r}", "a writable path"):
        Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
