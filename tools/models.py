"""Lists the networks, or shows one of them.

    python tools/models.py
    python tools/models.py --name=resnet20
    python tools/models.py --name=resnet20 --classes=10 --output=resnet20.png
    python tools/models.py --name=keras.applications:MobileNetV2 --image_size=96

The table gives for each network the smallest image that it takes, the images and classes that it
was published for, its parameters and multiply-accumulate operations for these, and the taps that
methods read. For one network: its blocks, its taps with their shapes, and the cost of every layer.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # Started as a file.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from tools import entry, remembered

_NAME = flags.DEFINE_string(
    "name", None, "One network: a name of the table, module:function, or FILE.py:function."
)
_CLASSES = flags.DEFINE_integer(
    "classes", None, "Number of classes. Left out: those it was published for.", 2, 10**6
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side of the images. Left out: as it was published.", 1, 4096
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "A file to write: .txt for the text; with --name, .png or .svg for a picture."
)


def main(_) -> None:
    from tfkd.models.summary import showing

    text = showing.show(_NAME.value, _CLASSES.value, _IMAGE_SIZE.value, _OUTPUT.value)
    print(text)
    # A network of somebody else's may be another one tomorrow.
    if _OUTPUT.value is None and ":" not in (_NAME.value or ""):
        remembered.keep("models", sys.argv[1:], text)


def _said_before(words: list[str]) -> bool:
    text = remembered.find("models", words)
    if text is not None:
        print(text)
    return text is not None


if __name__ == "__main__":
    entry.run(main, at_once=_said_before)
