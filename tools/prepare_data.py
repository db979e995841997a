"""Prepares a data set from its official archive on this machine, without network.

    python tools/prepare_data.py --name=cifar10 --archive=cifar-10-binary.tar.gz
    python tools/prepare_data.py --name=cifar100 --archive=cifar-100-binary.tar.gz
    python tools/prepare_data.py --name=stl10 --archive=stl10_binary.tar.gz
    python tools/prepare_data.py --name=tiny_imagenet --archive=tiny-imagenet-200.zip
    python tools/prepare_data.py --name=imagenet2012 \\
        --archive=ILSVRC2012_img_train.tar --archive=ILSVRC2012_img_val.tar

Every later command finds the set by its name (with --directory, also given as
--config.data.directory). tiny_imagenet becomes a folder of images, any other an ordinary prepared
set of tensorflow-datasets. An interrupted preparation leaves no half of a set; start it again.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # Started as a file.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from tools import entry

_NAME = flags.DEFINE_string("name", None, "Name of the data set: cifar10, tiny_imagenet, ...")
_ARCHIVE = flags.DEFINE_multi_string(
    "archive",
    None,
    "Official archive of the set, such as cifar-10-binary.tar.gz (the binary version, not the "
    "Python one). Given once for every file that the set consists of.",
)
_DIRECTORY = flags.DEFINE_string(
    "directory", None, "Where to keep prepared sets; left out: tensorflow-datasets' own folder."
)


def main(_) -> None:
    """Checks the archives, prepares the set and tells where it is."""
    from tfkd.data import prepare
    from tfkd.errors import TfkdError

    if not _NAME.value:
        raise TfkdError("--name: is missing; wanted the name of a data set, such as cifar10")
    if not _ARCHIVE.value:
        raise TfkdError("--archive: is missing; wanted the path of the set's official archive")
    folder = prepare.prepare(_NAME.value, _ARCHIVE.value, _DIRECTORY.value)
    print(f"{_NAME.value}: prepared in {folder}")


if __name__ == "__main__":
    entry.run(main)
