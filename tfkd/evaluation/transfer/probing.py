"""All probes of a network, and of the students of any number of runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tfkd.evaluation.transfer.embedding import POOLED, Embeddings, embeddings
from tfkd.evaluation.transfer.linear import linear_probe
from tfkd.evaluation.transfer.logistic import logistic_probe
from tfkd.evaluation.transfer.neighbors import neighbor_probe
from tfkd.evaluation.transfer.runs import runs_of
from tfkd.models.saving import load_network

Row = dict[str, Any]


def probe(given: Embeddings, seed: int = 0) -> Row:
    """Returns what every probe finds.

    Args:
        given: Features and labels.
        seed: Seed of the linear layer.

    Returns:
        ``classes``, ``train_images``, ``test_images`` and ``width``, numbers; in percent of the
        test images ``linear_top1``, ``knn1_top1``, ``knn20_top1`` and ``logistic_top1``; and
        ``logistic_c``, the inverse regularization that was chosen.
    """
    logistic, strength = logistic_probe(given)
    neighbors = neighbor_probe(given)
    return {
        "classes": len(given.class_names),
        "train_images": len(given.train),
        "test_images": len(given.test),
        "width": given.train.shape[1],
        "linear_top1": linear_probe(given, seed),
        **{f"knn{count}_top1": score for count, score in neighbors.items()},
        "logistic_top1": logistic,
        "logistic_c": strength,
    }


def probe_runs(
    folders: Iterable[str | os.PathLike],
    probes: Sequence[str],
    *,
    which: str = "last",
    classes: Sequence[str] | None = None,
    directory: str | os.PathLike | None = None,
    tap: str = POOLED,
    cache: str | os.PathLike | None = None,
    batch_size: int = 64,
    say: Callable[..., None] = print,
) -> list[Row]:
    """Probes the students of runs on other data sets.

    Args:
        folders: Run folders, or folders of comparisons, which stand for all their runs.
        probes: Data sets, as ``tfkd.data.load`` names them.
        which: The student of each run: ``"last"``, ``"best"`` or the word of a further one.
        classes: Names of the classes to keep of the data sets; ``None`` keeps all.
        directory, tap, cache, batch_size: As for :func:`embeddings`.
        say: Prints a line when a run is probed.

    Returns:
        A row for each data set and run: ``probe``, ``run``, ``role``, ``seed``, ``student``,
        ``which``, ``tap``, ``class_names``, the numbers of :func:`probe` and ``seconds``.

    Raises:
        TfkdError: For a run or data set that is missing or does not fit.
    """
    runs, rows = runs_of(folders), []
    for name in dict.fromkeys(probes):
        for run in runs:
            begin = time.perf_counter()
            network = load_network(run.folder, which)
            given = embeddings(
                network,
                name,
                classes=classes,
                directory=directory,
                tap=tap,
                cache=cache,
                batch_size=batch_size,
            )
            row = {
                "probe": name,
                "run": str(run.folder),
                "role": run.role,
                "seed": run.seed,
                "student": network.name,
                "which": which,
                "tap": tap,
                "class_names": list(given.class_names),
                **probe(given),
                "seconds": round(time.perf_counter() - begin, 1),
            }
            rows.append(row)
            say(
                f"{run.role}, seed {run.seed} on {name}: linear {row['linear_top1']:.2f} % "
                f"({row['seconds']} s)",
                flush=True,
            )
    return rows
