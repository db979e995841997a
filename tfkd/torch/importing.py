"""From a file of PyTorch weights to a folder that tfkd takes for a trained network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfkd import data, models
from tfkd.data import presets
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models import registry
from tfkd.models.class_count import check_count
from tfkd.models.imported import output_file
from tfkd.models.saving import save_network_file
from tfkd.torch.checkpoint import read
from tfkd.torch.porting import port


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        path: The `.keras` file.
        network: The network.
        params: The number of its learned parameters.
    """

    path: Path
    network: models.Network
    params: int


def import_checkpoint(
    checkpoint: str | os.PathLike,
    network: str,
    output: str | os.PathLike,
    *,
    preprocess: models.Preprocess | None = None,
    image_size: int | None = None,
    key: str | None = None,
    prefix: str = "",
    class_names: Sequence[str] | None = None,
    crop: str | None = None,
    **kwargs,
) -> Imported:
    """Writes a network with the weights of a file of PyTorch's.

    The result is what a training run leaves: `student.keras` in stock Keras layers, and
    `network.json`, which says how pixels reach it. So it can be a config's `teacher.workdir` or,
    by its file, `teacher.weights`, and be evaluated and exported.

    Args:
        checkpoint: The file, as `tfkd.torch.read` takes it.
        network: The name of the network.
        output: A folder, or the `.keras` file to write in one.
        preprocess: What is done to pixels 0..255; None for nothing, with a warning.
        image_size: Height and width of an image, in pixels; None for those that the network was
            published for.
        key: The entry of the checkpoint that is the state dict; None finds it.
        prefix: Takes only the names that begin so, without it.
        class_names: The names of the classes in the order of the logits, if they are known.
        crop: How images of other sizes become its input, as `tfkd.data.DataInfo.crop`, if that is
            known.
        **kwargs: The network's own arguments.

    Raises:
        TfkdError: As `read` and `port`; for names of another number of classes; and for a folder
            that holds something else.
    """
    path = output_file(output)
    weights = read(checkpoint, key, prefix)
    try:
        model = port(weights, network, image_size=image_size, **kwargs)
    except TfkdError as error:
        raise TfkdError(f"checkpoint {str(checkpoint)!r}: {error}") from None
    if preprocess is None:
        warnings.warn(
            f"{network} is recorded as taking pixels 0..255 as they are, for nothing was said of "
            "mean and deviation",
            TfkdWarning,
            stacklevel=2,
        )
        preprocess = models.Preprocess.none()
    channels = model.input_shape[-1]
    if len(preprocess.mean) not in (0, 1, channels):
        raise TfkdError(
            f"network {network!r}: found {len(preprocess.mean)} means for images of {channels} "
            "channels, wanted one of each"
        )
    ported = models.Network(model, preprocess, network, class_names=class_names, crop=crop)
    check_count(ported, f"network {network!r}")
    return Imported(save_network_file(ported, path), ported, models.cost(model).params)


def chosen_preprocess(
    name: str | None = None,
    directory: str | None = None,
    mean: Sequence[float | str] | None = None,
    std: Sequence[float | str] | None = None,
    *,
    network: str | None = None,
    image_size: int | None = None,
    crop: str | None = None,
) -> models.Preprocess | None:
    """The preprocessing that a user names by a data set, or by its numbers.

    Args:
        name: The data set, as a config's `data.name`: its published mean and deviation, or those
            of its training images.
        directory: Where it lies, as in `data.directory`.
        mean: Instead of `name`, of each channel or of all, for pixels between 0 and 1, as in
            torchvision's Normalize.
        std: The deviation, likewise.
        network: The name of the network.
        image_size: Height and width of its images; None for those that it was published for.
        crop: How the images of a data set without published values become those, one of
            `tfkd.data.CROPS`; None leaves them as they are.

    Returns:
        The preprocessing, or None if nothing is named.

    Raises:
        TfkdError: For both, for values that are none or not of pixels between 0 and 1, and for a
            data set without published values that cannot be loaded.
    """
    if mean is None and std is None:
        return None if name is None else _of_data(name, directory, network, image_size, crop)
    if name is not None or mean is None or std is None:
        raise TfkdError("wanted either the mean and the deviation, or a data set that tells them")
    means, deviations = _numbers("mean", mean), _numbers("deviation", std)
    return models.Preprocess([255 * each for each in means], [255 * each for each in deviations])


def _of_data(
    name: str, directory: str | None, network: str, image_size: int | None, crop: str | None
) -> models.Preprocess:
    published = presets.preset(name).statistics
    if published is not None:
        return models.Preprocess(*published)
    settings = {}
    if crop is not None:
        settings = {
            "image_size": image_size or registry.entry(network).default_shape[0],
            "augment": "imagenet" if crop == data.CENTER else "none",
        }
    try:
        info = data.load(name, directory=directory, **settings).info
    except data.SeveralSizes:
        raise TfkdError(
            f"data {name!r} to measure mean and deviation of: found images of several sizes, "
            "wanted --crop=center or --crop=whole, as the network sees them"
        ) from None
    return models.Preprocess(info.mean, info.std)


def chosen_crop(crop: str | None, name: str | None) -> str | None:
    """The crop that a user names, or that of the evaluation on a data set; None if unknown.

    Args:
        crop: One of `tfkd.data.CROPS`.
        name: The data set, as a config's `data.name`.
    """
    return data.crop_of(name) if crop is None and name is not None else crop


def _numbers(what: str, values: Sequence[float | str]) -> list[float]:
    wanted = "numbers for pixels between 0 and 1, as torchvision's Normalize takes them"
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        raise TfkdError(f"{what} {','.join(map(str, values))!r}: wanted {wanted}") from None
    if not numbers or not all(abs(number) <= 1 for number in numbers):
        raise TfkdError(f"{what} {numbers}: wanted {wanted}")
    return numbers


def listing(
    checkpoint: str | os.PathLike, key: str | None = None, prefix: str = ""
) -> list[tuple[str, str, tuple[int, ...]]]:
    """The name, type and shape of every tensor of a file; arguments and errors as `read`."""
    return [
        # Whatever is in a name, it is shown in one line of plain characters.
        (ascii(name)[1:-1], str(values.dtype), values.shape)
        for name, values in read(checkpoint, key, prefix).items()
    ]
