"""The teacher of a run: read from a file, or from a run folder that is trained when it is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import ml_collections

from tfkd import data, models
from tfkd.errors import TfkdError
from tfkd.models.storage import DESCRIPTION, load_description, load_model, load_network
from tfkd.training import build
from tfkd.training import config as configs
from tfkd.training.run_folder import comparable


def reference(config: ml_collections.ConfigDict) -> tuple[ml_collections.ConfigDict, Path]:
    """Returns the config and the run folder of a teacher that is trained on demand.

    The teacher sees the student's data, whatever its own config says.

    Args:
        config: The experiment of the student, with ``teacher.config``.

    Raises:
        TfkdError: When the teacher's config cannot be read.
    """
    seed = config.train.seed if config.teacher.seed is None else config.teacher.seed
    teacher = configs.override(
        configs.load(config.teacher.config),
        train__seed=seed,
        **{f"data__{field}": value for field, value in config.data.items()},
        train__verbose=config.train.verbose,
    )
    name = teacher.experiment or teacher.student.name
    # Teachers of one name on other data, or of another recipe, get folders of their own.
    pattern = config.teacher.workdir or f"runs/teachers/{name}-{_digest(teacher)}/seed{{seed}}"
    return teacher, Path(pattern.replace("{seed}", str(seed)))


def _digest(teacher: ml_collections.ConfigDict) -> str:
    plain = comparable(configs.to_dict(configs.override(teacher, train__seed=0)))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def check(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Checks what can be known of the teacher before it is trained or read.

    Args:
        config: The experiment of the student.
        workdir: The run folder of the student.

    Raises:
        TfkdError: When the teacher's own config is wrong, or its folder is that of the student.
    """
    if not config.teacher.config:
        return
    teacher, folder = reference(config)
    try:
        configs.validate(teacher)
    except TfkdError as error:
        raise TfkdError(f"teacher.config {config.teacher.config}: {error}") from None
    if folder.resolve() == workdir.resolve():
        raise TfkdError(
            f"teacher.workdir {str(folder)!r} is the --workdir of the student as well; wanted two "
            "folders"
        )


def obtain(
    config: ml_collections.ConfigDict,
    info: data.DataInfo,
    train: Callable[[ml_collections.ConfigDict, Path], dict],
) -> models.Network | None:
    """Returns the teacher, or ``None`` where the config names none.

    Args:
        config: The experiment of the student.
        info: Its data.
        train: ``train(config, workdir)`` runs an experiment, or finds it finished.

    Raises:
        TfkdError: When the teacher cannot be found, or does not fit the data.
    """
    if not configs.has_teacher(config):
        return None
    fields = config.teacher
    if fields.weights:
        network = _from_weights(config, info)
    elif fields.config:
        teacher, folder = reference(config)
        try:
            train(teacher, folder)
        except TfkdError as error:
            raise type(error)(f"teacher: {error}") from None
        network = load_network(folder, fields.which)
    else:
        seed = config.train.seed if fields.seed is None else fields.seed
        network = load_network(fields.workdir.replace("{seed}", str(seed)), fields.which)
    build.check_fits(network, info, f"teacher {network.name}")
    return network


def _from_weights(config: ml_collections.ConfigDict, info: data.DataInfo) -> models.Network:
    fields = config.teacher
    path = Path(fields.weights)
    if not path.is_file():
        raise TfkdError(
            f"teacher.weights {str(path)!r}: no such file, wanted a .keras or .weights.h5 file"
        )
    if path.suffix == ".keras":
        # A run folder tells how pixels reach its network; for a file by itself the data set does.
        if (path.parent / DESCRIPTION).is_file():
            seen = models.Preprocess.from_config(load_description(path.parent)["preprocess"])
        else:
            seen = build.preprocess("dataset", info)
        return models.Network(load_model(path), seen, path.stem)
    if not fields.name:
        raise TfkdError(
            f"teacher.weights {str(path)!r} needs teacher.name, the network of the weights"
        )
    model = models.create(
        fields.name, info.num_classes, info.image_shape, **configs.to_dict(fields.kwargs)
    )
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise TfkdError(
            f"teacher.weights {str(path)!r} does not fit {fields.name}: {reason}"
        ) from None
    return models.Network(model, build.preprocess("dataset", info), fields.name)
