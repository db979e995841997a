"""The taps that a stage computes once for every training image instead of at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfkd import data, evaluation
from tfkd.core import Distiller, Stage
from tfkd.core.step.cached_taps import cached_key


def with_cached_taps(
    stage: Stage, distiller: Distiller, dataset: data.DataSet, say: Callable[..., None]
) -> data.DataSet:
    """Returns the data of a stage with the taps that it keeps, as columns.

    Bytes are told before anything is computed. Taps are kept in the order of ``stage.cached`` as
    long as ``stage.cache_bytes`` hold them, and none where training images are augmented or mixed.

    Args:
        stage: The stage, which the distiller has entered.
        distiller: The distiller.
        dataset: The data of the stage.
        say: Prints a line.
    """
    network, left = distiller.stage_network, stage.cache_bytes
    if not stage.cached or not left:
        return dataset
    if dataset.augmentation.varies or dataset.mixing:
        say(f"stage {stage.name}: no cache, because training images change with every epoch")
        return dataset
    chosen = []
    for tap in stage.cached:
        wanted = evaluation.feature_bytes(network, [tap], dataset)
        kept = wanted <= left
        where = "on disk" if stage.cache_folder else "in memory"
        decided = f"computed once, {where}" if kept else f"at every step, because {left:,} are left"
        say(f"stage {stage.name}: {tap} of all images, {wanted:,} bytes: {decided}", flush=True)
        if kept:
            chosen.append(tap)
            left -= wanted
    if not chosen:
        return dataset
    found = evaluation.features(network, chosen, dataset, stage.cache_folder)
    for tap in chosen:
        dataset = dataset.with_column(cached_key(tap), found[tap])
    return dataset


def cached_keys(stage: Stage, dataset: data.DataSet) -> Sequence[str]:
    """Returns the entries of a batch that hold what a stage keeps.

    Args:
        stage: The stage.
        dataset: What :func:`with_cached_taps` returned.
    """
    return [key for key in map(cached_key, stage.cached) if key in dataset.columns]
