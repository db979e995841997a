"""A finished run that goes on to more epochs, and says ever after that it did."""

from __future__ import annotations

import ml_collections

from tfkd import json_shapes
from tfkd.errors import TfkdError
from tfkd.training import config as configs
from tfkd.training import inputs
from tfkd.training.run_folder import RunFolder

_SHAPE = {
    "train?": {"epochs?": (None, int), "extended_from?": [int], "*": object},
    "*": object,
}
"""What is read of ``config.json`` before it is known to be that of this run."""


def begin(config: ml_collections.ConfigDict, folder: RunFolder) -> ml_collections.ConfigDict:
    """Opens the folder of a finished run for more epochs.

    Its ``config.json`` then has the new length, and the earlier ones in ``train.extended_from``;
    the result so far is kept as ``result_after_N.json``. An extension that was interrupted goes on.

    Args:
        config: The config of the run with more ``train.epochs``.
        folder: Its folder.

    Returns:
        The config of the longer run.

    Raises:
        TfkdError: When the folder holds no finished run of this config, or one that cannot go on.
    """
    there = folder.config()
    if there is None:
        raise TfkdError(f"extend {str(folder.path)!r}: found no run there, wanted a finished one")
    try:
        json_shapes.require(there, _SHAPE)
    except json_shapes.Misfit as error:
        raise TfkdError(
            f"{folder.path / 'config.json'}: {error}; wanted the config of a run"
        ) from None
    train = there.get("train", {})
    done, wanted = train.get("epochs") or 1, configs.epochs(config)
    earlier = tuple(train.get("extended_from") or ())
    same = configs.override(config, train__epochs=done, train__extended_from=earlier)
    folder.check(configs.to_dict(same))
    if wanted == done and earlier:
        return same
    for objective in configs.objectives(config):
        if objective.stages() is not None:
            raise TfkdError(
                f"extend: found the method {objective.name}, which has stages of its own, wanted a "
                "run whose length is train.epochs"
            )
    if wanted <= done:
        raise TfkdError(f"extend: found train.epochs={wanted}, wanted more than the {done} there")
    result, checkpoint = folder.result(), folder.begun()
    if result is None or checkpoint is None or checkpoint["step"] != result.get("steps"):
        raise TfkdError(
            f"extend {str(folder.path)!r}: found no finished run with its last checkpoint, wanted "
            f"one (the same command without --extend, and with {done} epochs, finishes it)"
        )
    inputs.check_finished(same, folder, result)
    longer = configs.override(config, train__extended_from=(*earlier, done))
    with folder.hold():
        folder.reopen(f"result_after_{done}.json", configs.to_dict(longer))
    return longer
