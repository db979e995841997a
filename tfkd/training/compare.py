"""Runs of several roles over several seeds, side by side in one table."""

from __future__ import annotations

import csv
import io
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
import tensorflow as tf

from tfkd import evaluation, export
from tfkd.errors import TfkdError
from tfkd.models.storage import load_network
from tfkd.training import build, curves, teachers
from tfkd.training import config as configs
from tfkd.training import strategy as strategies
from tfkd.training.run import run
from tfkd.training.run_folder import RunFolder

ROLES = ("teacher", "alone", "distilled")
COLUMNS = ("role", "seed", "top1", "agreement", "params", "macs", "seconds")


def roles(config: ml_collections.ConfigDict, seed: int, workdir: Path) -> dict[str, tuple]:
    """Returns the config and run folder of each role for one seed.

    ``teacher`` is what ``teacher.config`` trains, ``alone`` the student with the same recipe and no
    distiller, ``distilled`` the config as it is.

    Args:
        config: A distillation experiment with ``teacher.config``.
        seed: Seed of all three runs, unless ``teacher.seed`` sets that of the teacher.
        workdir: Folder that holds a folder for each role and seed.

    Raises:
        TfkdError: When the config distils nothing, or its teacher is not trained from a config.
    """
    if not config.distiller or not config.teacher.config:
        raise TfkdError(
            "compare: found a config without "
            f"{'distiller' if not config.distiller else 'teacher.config'}, wanted a distillation "
            "experiment whose teacher is trained from a config"
        )
    name = config.experiment or config.student.name
    distilled = configs.override(
        config, train__seed=seed, teacher__workdir=str(workdir / "teacher" / "seed{seed}")
    )
    alone = configs.override(
        distilled,
        experiment=f"{name}-alone",
        distiller=(),
        student_loss_weight=1.0,
        teacher__config=None,
        teacher__workdir=None,
    )
    teacher, teacher_folder = teachers.reference(distilled)
    return {
        "teacher": (teacher, teacher_folder),
        "alone": (alone, workdir / "alone" / f"seed{seed}"),
        "distilled": (distilled, workdir / "distilled" / f"seed{seed}"),
    }


def compare(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    seeds: Sequence[int],
    strategy: tf.distribute.Strategy | str = "auto",
) -> list[dict[str, Any]]:
    """Trains every role with every seed and writes ``summary.json``, ``summary.csv`` and ``curves.png``.

    Finished runs are not repeated, and an interrupted one goes on. With ``export.enabled`` the
    distilled student of the first seed is exported to ``export/`` in the folder.

    Args:
        config: See :func:`roles`.
        workdir: Folder of the comparison.
        seeds: Seeds, at least one.
        strategy: See :func:`tfkd.training.run`.

    Returns:
        The rows of ``summary.json``: a dict with :data:`COLUMNS` for each run; percentages go from
        0 to 100. Empty on workers that write nothing.

    Raises:
        TfkdError: For a wrong config or folder.
    """
    if not seeds:
        raise TfkdError("compare: found no seeds, wanted one or more")
    workdir = Path(workdir)
    if isinstance(strategy, str):
        strategy = strategies.create(strategy)
    configs.validate(config)
    writes = strategies.is_chief(strategy)
    exported = config.export.enabled
    config = configs.override(config, export__enabled=False)
    rows = []
    runs: dict[str, list[Path]] = {role: [] for role in ROLES}
    for seed in dict.fromkeys(seeds):
        planned = roles(config, seed, workdir)
        folders = {role: folder for role, (_, folder) in planned.items()}
        for role, (settings, folder) in planned.items():
            print(f"\n{role}, seed {seed}: {folder}", flush=True)
            result = run(settings, folder, strategy)
            if writes:
                rows.append(_row(role, seed, result))
                runs[role].append(folder)
        if writes:
            rows[-2]["agreement"] = _agreement(config, folders["alone"], folders["teacher"])
    if writes:
        _write(config, workdir, rows, runs)
        if exported:
            _export(config, workdir, seeds[0])
    strategies.wait_for_all(strategy)
    return rows


def _write(config, workdir: Path, rows: list[dict[str, Any]], runs: dict[str, list[Path]]) -> None:
    """Writes the numbers of the comparison and their picture."""
    overview = RunFolder(workdir)
    overview.write_json("summary.json", {"experiment": config.experiment, "rows": rows})
    overview.write_text("summary.csv", _as_csv(rows))
    name = config.experiment or config.student.name
    count = len(runs["distilled"])
    curves.draw(runs, rows, workdir / "curves.png", f"{name}: {count} seed(s)")


def _row(role: str, seed: int, result: dict[str, Any]) -> dict[str, Any]:
    return {
        "role": role,
        "seed": seed,
        "top1": result["top1_last"],
        "agreement": result["agreement"],
        "params": result["params"],
        "macs": result["macs"],
        "seconds": result["seconds"],
    }


def _agreement(config, student: Path, teacher: Path) -> float:
    """Returns how often two finished runs name the same class on the test images, in percent."""
    dataset = build.data_set(config)
    return evaluation.agreement(
        evaluation.predictor(load_network(student)),
        evaluation.predictor(load_network(teacher, config.teacher.which)),
        dataset.test(),
    )


def _export(config, workdir: Path, seed: int) -> None:
    info = build.data_set(config).info
    path = export.save(
        load_network(workdir / "distilled" / f"seed{seed}"),
        workdir / "export",
        fold=config.export.fold,
        class_names=info.class_names,
    )
    print(f"\nexported the distilled student of seed {seed} to {path}", flush=True)


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a table for the screen, one line for each role.

    Means over the seeds, with the standard deviation (of a sample) where there are several.
    """
    header = f"{'role':<10} {'top-1 %':>14} {'agreement %':>14} {'params':>11} {'MACs':>14} {'seconds':>8}"
    lines = [header, "-" * len(header)]
    for role in dict.fromkeys(row["role"] for row in rows):
        own = [row for row in rows if row["role"] == role]
        lines.append(
            f"{role:<10} {_spread([row['top1'] for row in own]):>14} "
            f"{_spread([row['agreement'] for row in own]):>14} "
            f"{own[0]['params']:>11,} {own[0]['macs']:>14,} "
            f"{statistics.mean(row['seconds'] for row in own):>8.1f}"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.2f}"
    return f"{mean} ± {statistics.stdev(known):.2f}" if len(known) > 1 else mean
