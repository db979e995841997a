"""The teachers of a run: read from files, or from run folders, trained where they are missing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import ml_collections

from tfkd import data, models
from tfkd.core import Objective, tasks
from tfkd.core.classes import aligned
from tfkd.errors import TfkdError, TfkdWarning, reason, unknown
from tfkd.models.class_names import are_same
from tfkd.models.description import description_of_file
from tfkd.models.references import includes_preprocessing, is_keras_application
from tfkd.models.saving import check_finite, load_model, load_network, load_network_file
from tfkd.training import build, config_checks
from tfkd.training import config as configs
from tfkd.training.run_folder import RunFolder, comparable

STUDENTS = ("last", "best")
"""The students that every run leaves."""


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
        accept_changes=config.accept_changes,
    )
    # A network of the user's may be named by a path.
    name = teacher.experiment or re.sub(r"[^\w.-]+", "_", teacher.student.name)
    # Teachers of one name on other data, or of another recipe, get folders of their own; where the
    # data lie does not matter.
    pattern = config.teacher.workdir or f"runs/teachers/{name}-{_digest(teacher)}/seed{{seed}}"
    return teacher, Path(pattern.replace("{seed}", str(seed)))


def _digest(teacher: ml_collections.ConfigDict) -> str:
    plain = comparable(configs.to_dict(configs.override(teacher, train__seed=0)))
    plain["data"]["name"] = data.images_digest(teacher.data.name) or teacher.data.name
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def check(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Checks what can be known of the teachers before they are trained or read.

    Args:
        config: The experiment of the student.
        workdir: The run folder of the student.

    Raises:
        TfkdError: When a teacher's own config is wrong, its folder is that of the student, it is
            another teacher as well, or a method reads features of it where there are several.
    """
    if not configs.has_teacher(config):
        return
    student, taken = workdir.resolve(), {}
    for where, one in _each(config):
        if one.teacher.config:
            teacher, path = reference(one)
            try:
                config_checks.validate(teacher)
            except TfkdError as error:
                raise TfkdError(f"{where}.config {one.teacher.config}: {error}") from None
        else:
            path = _check_there(where, one)
        _given_names(where, one.teacher)
        if path is None:
            continue
        if path.resolve() == student:
            raise TfkdError(
                f"{where}.workdir {str(path)!r} is the --workdir of the student as well; wanted "
                "two folders"
            )
        _check_another(taken, where, path, one.teacher)


def _check_another(
    taken: dict[tuple[Path, str | None], str],
    where: str,
    path: Path,
    fields: ml_collections.ConfigDict,
) -> None:
    """Refuses a teacher that is among those ``taken`` already, and notes it there."""
    which = None if fields.weights else fields.which
    owner = taken.setdefault((path.resolve(), which), where)
    if owner != where:
        raise TfkdError(
            f"{where}: its folder or file {str(path)!r} is that of {owner} as well; wanted another "
            "seed, config, workdir or weights"
        )


def _check_there(where: str, config: ml_collections.ConfigDict) -> Path | None:
    """Refuses a file or folder that is missing, before another teacher is trained.

    Returns:
        The file or folder; none for a network by name alone.
    """
    fields = config.teacher
    if fields.weights:
        if not Path(fields.weights).is_file():
            raise TfkdError(
                f"{where}.weights {fields.weights!r}: no such file, wanted a .keras or .weights.h5 "
                "file"
            )
        return Path(fields.weights)
    if not fields.workdir:
        return None
    if not _folder(config).is_dir():
        raise TfkdError(
            f"{where}.workdir {str(_folder(config))!r}: found no such folder, wanted a finished run"
        )
    return _folder(config)


def _folder(config: ml_collections.ConfigDict) -> Path:
    """Returns the run folder of a teacher that is there already."""
    fields = config.teacher
    seed = config.train.seed if fields.seed is None else fields.seed
    return Path(fields.workdir.replace("{seed}", str(seed)))


def _each(
    config: ml_collections.ConfigDict,
) -> Iterator[tuple[str, ml_collections.ConfigDict]]:
    """Yields what each teacher's section is called, and the config with that teacher alone."""
    for position, one in enumerate(configs.with_one_teacher(config)):
        yield f"teachers[{position - 1}]" if position else "teacher", one


def _given_names(where: str, fields: ml_collections.ConfigDict) -> tuple[str, ...] | None:
    """Returns the names of a teacher's classes that the config gives, if it does."""
    if fields.class_names is None:
        return None
    try:
        return models.read_class_names(fields.class_names)
    except TfkdError as error:
        raise TfkdError(f"{where}.class_names: {error}") from None


def obtain(
    config: ml_collections.ConfigDict,
    info: data.DataInfo,
    train: Callable[[ml_collections.ConfigDict, Path], dict],
    task: str = "classification",
) -> list[models.Network]:
    """Returns the teachers, their classes in the order of the data; none where there are none.

    A warning tells of each whose classes were in another order, and of each of which nothing says
    how pixels reach it.

    Args:
        config: The experiment of the student.
        info: Its data.
        train: ``train(config, workdir)`` runs an experiment, or finds it finished.
        task: Its task.

    Raises:
        TfkdError: When a teacher cannot be found, or does not fit the data.
    """
    if not configs.has_teacher(config):
        return []

    def trained(where: str, one: ml_collections.ConfigDict) -> models.Network:
        teacher, folder = reference(one)
        try:
            train(teacher, folder)
        except TfkdError as error:
            raise type(error)(f"{where}: {error}") from None
        return load_network(folder, one.teacher.which)

    return [_network(where, one, info, task, trained, tell=True) for where, one in _each(config)]


def chosen_on_test(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the names of the sections whose teachers were chosen on the test images of a run.

    Args:
        config: The experiment of the student, whose teachers are trained by now.
    """
    found = []
    for where, one in _each(config):
        fields = one.teacher
        if fields.weights or fields.which != "best" or not (fields.config or fields.workdir):
            continue
        folder = reference(one)[1] if fields.config else _folder(one)
        result = RunFolder(folder).result() or {}
        if result.get("best_selected_on") == "test":
            found.append(where)
    return found


def sketch(
    config: ml_collections.ConfigDict, info: data.DataInfo, task: str = "classification"
) -> list[models.Network]:
    """Returns networks like the teachers, those that are yet to be trained with fresh weights.

    Arguments and errors are those of :func:`obtain`.
    """
    if configs.trains_teacher(config):
        return [build.trained_teacher(config, info, task)]
    if not configs.has_teacher(config):
        return []

    def untrained(where: str, one: ml_collections.ConfigDict) -> models.Network:
        teacher, folder = reference(one)
        if RunFolder(folder).result() is not None:
            return load_network(folder, one.teacher.which)
        makes_variants = any(
            type(each).variants is not Objective.variants for each in configs.objectives(teacher)
        )
        if one.teacher.which not in STUDENTS and not makes_variants:
            raise unknown(f"{where}.which", one.teacher.which, STUDENTS)
        try:
            return build.student(teacher, info, task)
        except TfkdError as error:
            raise TfkdError(f"{where}.config {one.teacher.config}: {error}") from None

    return [_network(where, one, info, task, untrained, tell=False) for where, one in _each(config)]


def _network(
    where: str,
    config: ml_collections.ConfigDict,
    info: data.DataInfo,
    task: str,
    from_config: Callable[[str, ml_collections.ConfigDict], models.Network],
    *,
    tell: bool,
) -> models.Network:
    fields = config.teacher
    if fields.weights:
        network = _from_weights(where, config, info, task, tell)
    elif fields.config:
        network = from_config(where, config)
    elif fields.workdir:
        network = load_network(_folder(config), fields.which)
    else:
        _check_trained(where, fields)
        network = _by_name(where, config, info, task, tell)
    taps = {**network.taps, **configs.to_dict(fields.taps)}
    network = _named(where, fields, dataclasses.replace(network, taps=taps))
    who = f"{where} {network.name}"
    build.check_fits(network, info, who)
    return with_classes_of(network, info, task, fields, where, tell=tell)


def with_classes_of(
    network: models.Network,
    info: data.DataInfo,
    task: str,
    fields: ml_collections.ConfigDict,
    where: str,
    *,
    tell: bool = True,
) -> models.Network:
    """Returns a teacher whose classes are those of some data, in their order.

    Args:
        network: The teacher.
        info: The data.
        task: Their task.
        fields: The section of the config that names the teacher.
        where: What that section is called.
        tell: Whether a warning says that the order was another one.

    Raises:
        TfkdError: When it has other classes; not where the config takes them by their numbers.
    """
    if fields.classes == "by_number":
        return dataclasses.replace(network, class_names=None)
    return aligned(
        network,
        build.class_names(info, task),
        tasks.create(network.task, network),
        who=f"{where} {network.name}",
        whose=info.name,
        accept=f"{where}.classes=by_number",
        tell=tell,
    )


def _named(
    where: str, fields: ml_collections.ConfigDict, network: models.Network
) -> models.Network:
    """Returns a teacher with the names of its classes that the config gives, if it does."""
    names = _given_names(where, fields)
    if names is None:
        return network
    if network.class_names is not None and not are_same(network.class_names, names):
        raise TfkdError(
            f"{where}.class_names {fields.class_names!r}: found other names than {network.name} "
            "has itself, wanted it unset"
        )
    return dataclasses.replace(network, class_names=names)


def _check_trained(where: str, fields: ml_collections.ConfigDict) -> None:
    """Refuses a teacher of keras.applications that is not trained, or sees pixels unlike before."""
    if not is_keras_application(fields.name):
        return
    weights = fields.kwargs.get("weights")
    if weights is None:
        raise TfkdError(
            f"{where} {fields.name}: found no weights, wanted {where}.weights, or 'imagenet' or a "
            f"file in {where}.kwargs.weights"
        )
    if weights != "imagenet" or fields.preprocess is not None:
        return
    if not includes_preprocessing(fields.name, fields.kwargs):
        raise TfkdError(
            f"{where} {fields.name} with weights 'imagenet': found no {where}.preprocess, wanted "
            "what its preprocess_input does: tf, torch, caffe or none"
        )


def _by_name(
    where: str, config: ml_collections.ConfigDict, info: data.DataInfo, task: str, tell: bool
) -> models.Network:
    """Returns the network of ``teacher.name``, with whatever weights it starts from."""
    fields = config.teacher
    # A function that draws something draws the same when the run is continued.
    keras.utils.set_random_seed(config.train.seed if fields.seed is None else fields.seed)
    model = models.create(
        fields.name,
        tasks.find(task).width(info),
        info.image_shape,
        **configs.to_dict(fields.kwargs),
    )
    seen = _pixels(where, fields, model, None, info, tell)
    return models.Network(model, seen, fields.name, task=task)


def _from_weights(
    where: str, config: ml_collections.ConfigDict, info: data.DataInfo, task: str, tell: bool
) -> models.Network:
    fields = config.teacher
    path = Path(fields.weights)
    if path.suffix == ".keras":
        if description_of_file(path) is None:
            network, told = models.Network(load_model(path), task=task), None
        else:
            network = load_network_file(path)
            told = network.preprocess
        seen = _pixels(where, fields, network.model, told, info, tell)
        return dataclasses.replace(network, preprocess=seen, name=path.stem)
    if not fields.name:
        raise TfkdError(
            f"{where}.weights {str(path)!r} needs {where}.name, the network of the weights"
        )
    network = _by_name(where, config, info, task, tell)
    try:
        network.model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise TfkdError(
            f"{where}.weights {str(path)!r} does not fit {fields.name}: {reason(error)}"
        ) from None
    check_finite(network.model, f"{where}.weights {str(path)!r}")
    return network


def _pixels(
    where: str,
    fields: ml_collections.ConfigDict,
    model: keras.Model,
    told: models.Preprocess | None,
    info: data.DataInfo,
    tell: bool,
) -> models.Preprocess:
    """Returns how pixels reach a teacher without a run folder.

    The config says it; where it does not, the file of the teacher; where that does not, the network
    may normalize pixels itself. Otherwise nobody knows, and they are normalized as the student's
    would be by default. What may be wrong in this is told.

    Args:
        where: What the teacher's section is called.
        fields: The section.
        model: The teacher.
        told: What its file says, if it does.
        info: The data.
        tell: Whether to warn.
    """
    field, itself = f"{where}.preprocess", models.own_normalization(model)
    doubt = None
    if fields.preprocess is None:
        seen = build.preprocess(None, model, info) if told is None else told
        if told is None and itself is None:
            doubt = (
                f"{where}: nothing says which pixels its weights were trained on; those of "
                f"{info.name} are normalized by its mean and deviation ({field}=dataset says that, "
                "or none, tf, torch, caffe another)"
            )
    else:
        seen = models.Preprocess.of(fields.preprocess, info)
        if told is not None and told != seen:
            doubt = (
                f"{field}={fields.preprocess}: pixels reach it {seen}, but its file says {told} "
                f"({field} unset heeds that)"
            )
        elif itself is not None and told is None and seen != models.Preprocess.none():
            doubt = build.normalized_twice(where, itself, f"{field}={fields.preprocess}")
    if doubt is not None and tell:
        warnings.warn(doubt, TfkdWarning, stacklevel=2)
    return seen
