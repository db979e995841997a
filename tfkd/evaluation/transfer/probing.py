"""All probes of a network, and of the students of any number of runs."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tfkd import data, models
from tfkd.evaluation.transfer.embedding import (
    POOLED,
    Embeddings,
    check_tap,
    embedded,
    images_for,
)
from tfkd.evaluation.transfer.linear import linear_probe
from tfkd.evaluation.transfer.logistic import logistic_probe
from tfkd.evaluation.transfer.neighbors import check_images, neighbor_probe
from tfkd.evaluation.transfer.runs import Run, runs_of
from tfkd.models.saving import load_network

Row = dict[str, Any]


def probe(given: Embeddings, seed: int = 0) -> Row:
    """Returns what every probe finds.

    Args:
        given: Features and labels.
        seed: Seed of the linear layer.

    Returns:
        ``classes``, ``train_images``, ``test_images`` and ``width``, numbers; in percent of the
        test images ``linear_top1``, ``knn1_top1``, ``knn20_top1`` and ``logistic_top1``;
        ``logistic_c``, the inverse regularization that was chosen, ``logistic_c_at_edge``, whether
        it is the largest or smallest that was tried, and ``logistic_converged``.
    """
    logistic = logistic_probe(given)
    neighbors = neighbor_probe(given)
    return {
        "classes": len(given.class_names),
        "train_images": len(given.train),
        "test_images": len(given.test),
        "width": given.train.shape[1],
        "linear_top1": linear_probe(given, seed),
        **{f"knn{count}_top1": score for count, score in neighbors.items()},
        "logistic_top1": logistic.top1,
        "logistic_c": logistic.strength,
        "logistic_c_at_edge": logistic.at_edge,
        "logistic_converged": logistic.converged,
    }


@dataclasses.dataclass(frozen=True)
class _Pair:
    """A run and the images that its student is probed on."""

    run: Run
    network: models.Network
    name: str
    dataset: data.DataSet


def probe_runs(
    folders: Iterable[str | os.PathLike],
    probes: Sequence[str],
    *,
    which: str = "last",
    classes: Sequence[str] | None = None,
    directory: str | os.PathLike | None = None,
    image_size: int | None = None,
    crop: str | None = None,
    tap: str = POOLED,
    cache: str | os.PathLike | None = None,
    batch_size: int = 64,
    say: Callable[..., None] = print,
) -> list[Row]:
    """Probes the students of runs on other data sets; all are loaded before the first is probed.

    Args:
        folders: Run folders, or folders of comparisons, which stand for all their runs.
        probes: Data sets, as ``tfkd.data.load`` names them.
        which: The student of each run: ``"last"``, ``"best"`` or the word of a further one.
        classes: Names of the classes to keep of the data sets; ``None`` keeps all.
        directory, image_size, crop, tap, cache, batch_size: As for
            :func:`tfkd.evaluation.transfer.embeddings`.
        say: Prints a line when a run is probed.

    Returns:
        A row for each data set and run: ``probe``, ``run``, ``role``, ``seed``, ``student``,
        ``which``, ``tap``, ``class_names``, the numbers of :func:`probe` and ``seconds``.

    Raises:
        TfkdError: For a run or data set that is missing or does not fit.
    """
    networks = [(run, load_network(run.folder, which)) for run in runs_of(folders)]
    for _, network in networks:
        check_tap(network, tap)
    settings = dict(classes=classes, directory=directory, image_size=image_size, crop=crop)
    pairs, loaded = [], {}
    for name in dict.fromkeys(probes):
        for run, network in networks:
            # Networks of one input share the images.
            key = name, getattr(network.model, "input_shape", None), network.crop
            if key not in loaded:
                loaded[key] = images_for(network, name, **settings, batch_size=batch_size)
                check_images(loaded[key].info.train_size)
            pairs.append(_Pair(run, network, name, loaded[key]))
    rows = []
    for pair in pairs:
        begin = time.perf_counter()
        given = embedded(pair.network, pair.dataset, tap, cache)
        row = {
            "probe": pair.name,
            "run": str(pair.run.folder),
            "role": pair.run.role,
            "seed": pair.run.seed,
            "student": pair.network.name,
            "which": which,
            "tap": tap,
            "class_names": list(given.class_names),
            **probe(given),
            "seconds": round(time.perf_counter() - begin, 1),
        }
        rows.append(row)
        say(
            f"{pair.run.role}, seed {pair.run.seed} on {pair.name}: "
            f"linear {row['linear_top1']:.2f} % ({row['seconds']} s)",
            flush=True,
        )
    return rows
