"""Makes a network of tfkd out of a file of PyTorch weights, without PyTorch.

    python tools/import_torch.py --checkpoint=ckpt_epoch_240.pth --list
    python tools/import_torch.py --checkpoint=ckpt_epoch_240.pth --network=resnet32x4 \\
        --output=teachers/resnet32x4 --data=cifar100
    python tools/evaluate.py --run=teachers/resnet32x4 --data=cifar100

Then, as the teacher of a config: --config.teacher.workdir=teachers/resnet32x4, or
--config.teacher.weights=teachers/resnet32x4/student.keras. Takes .pth files of torch.save (both
formats), .safetensors and .npz. Nothing in a file is run: it may hold tensors, numbers and strings.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # Started as a file.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from tools import entry

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The file of weights.")
_NETWORK = flags.DEFINE_string(
    "network", None, "The network, by tfkd's name: resnet32x4, wrn_40_2, vgg13, resnet50_cifar, ..."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "The folder to write (student.keras and network.json), or a .keras file in one."
)
_DATA = flags.DEFINE_string(
    "data", None, "The data set whose mean and deviation the network was trained with: cifar100..."
)
_DIRECTORY = flags.DEFINE_string("directory", None, "Where --data lies, as in data.directory.")
_MEAN = flags.DEFINE_list(
    "mean", None, "Instead of --data: mean of each channel of pixels 0..1, as 0.485,0.456,0.406."
)
_STD = flags.DEFINE_list("std", None, "The deviations, likewise.")
_CLASS_NAMES = flags.DEFINE_string(
    "class_names", None, "Text file of the names of the classes, one a line, in the logits' order."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Height and width of images; left out: as published.", 1, 4096
)
_CROP = flags.DEFINE_enum(
    "crop",
    None,
    ["center", "whole"],
    "How images of other sizes are evaluated, which is recorded: center (shorter side to 8/7, then "
    "the middle) or whole; left out: as those of --data are.",
)
_KEY = flags.DEFINE_string(
    "key", None, "The entry of the checkpoint that holds the weights; left out: found."
)
_PREFIX = flags.DEFINE_string(
    "prefix", "", "Takes only the tensors whose names begin so, such as student."
)
_LIST = flags.DEFINE_boolean("list", False, "Only print the names, types and shapes in the file.")


def main(_) -> None:
    """Imports, or lists, and says what was written."""
    from tfkd.errors import TfkdError
    from tfkd.models import read_class_names
    from tfkd.torch import importing

    if not _CHECKPOINT.value:
        raise TfkdError("wanted --checkpoint=FILE (see --help)")
    if _LIST.value:
        for name, kind, shape in importing.listing(_CHECKPOINT.value, _KEY.value, _PREFIX.value):
            print(f"{name:40} {kind:10} {'x'.join(map(str, shape))}")
        return
    if not _NETWORK.value or not _OUTPUT.value:
        raise TfkdError("wanted --network=NAME and --output=FOLDER, or --list (see --help)")
    done = importing.import_checkpoint(
        _CHECKPOINT.value,
        _NETWORK.value,
        _OUTPUT.value,
        preprocess=importing.chosen_preprocess(
            _DATA.value,
            _DIRECTORY.value,
            _MEAN.value,
            _STD.value,
            network=_NETWORK.value,
            image_size=_IMAGE_SIZE.value,
            crop=_CROP.value,
        ),
        image_size=_IMAGE_SIZE.value,
        crop=importing.chosen_crop(_CROP.value, _DATA.value),
        key=_KEY.value,
        prefix=_PREFIX.value,
        class_names=None if _CLASS_NAMES.value is None else read_class_names(_CLASS_NAMES.value),
    )
    classes = done.network.model.output_shape[-1]
    print(f"{done.path}: {done.network.name}, {classes} classes, {done.params:,} parameters")


if __name__ == "__main__":
    entry.run(main)
