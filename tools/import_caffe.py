"""Makes a network folder out of a network of Caffe's, without Caffe.

    python tools/import_caffe.py --prototxt=deploy.prototxt --caffemodel=net.caffemodel \\
        --mean=104,117,123 --class_names=synset_words.txt --output=teachers/net
    python tools/evaluate.py --run=teachers/net --data=folder:/data/images

Then, as the teacher of a config: --config.teacher.workdir=teachers/net, or
--config.teacher.weights=teachers/net/student.keras. Takes definitions and weights of Caffe's
versions 1 and 2. Pixels are what the transform_param of the prototxt says, unless a flag says
otherwise: a mean is subtracted, then a scale multiplied.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # Started as a file.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from tools import entry

_PROTOTXT = flags.DEFINE_string("prototxt", None, "The definition of the network.")
_CAFFEMODEL = flags.DEFINE_string("caffemodel", None, "The weights, in Caffe's binary form.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "The folder to write (student.keras and network.json), or a .keras file in one."
)
_CHANNEL_ORDER = flags.DEFINE_enum(
    "channel_order",
    "bgr",
    ["bgr", "rgb"],
    "The order that the network takes channels in; nearly all published ones take bgr.",
)
_MEAN = flags.DEFINE_list(
    "mean",
    None,
    "The mean of each channel of pixels 0..255, in the network's order, as 104,117,123; or a "
    ".binaryproto file of means.",
)
_MEAN_AS = flags.DEFINE_enum(
    "mean_as",
    None,
    ["channel", "image"],
    "Of a file: its mean of each channel, or of each pixel (its middle, for smaller images). Left "
    "out: channel for that of --mean, image (as in Caffe) for that of the prototxt.",
)
_SCALE = flags.DEFINE_float("scale", None, "What pixels less their mean are multiplied by.")
_CLASS_NAMES = flags.DEFINE_string(
    "class_names", None, "Text file of the names of the classes, one a line, in the logits' order."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Height and width of images; left out: as defined.", 1, 4096
)
_KEEP_SOFTMAX = flags.DEFINE_boolean(
    "keep_softmax", False, "Keep a last Softmax; such a network is no teacher."
)
_NETWORK = flags.DEFINE_string(
    "network", None, "A network of tfkd to fill with the weights in order, as vgg16_imagenet."
)
_CHECK = flags.DEFINE_boolean(
    "check_against_opencv",
    False,
    "Compare every layer with OpenCV's (opencv-python-headless>=4.10,<5) before writing.",
)
_EXPORT = flags.DEFINE_boolean(
    "export", False, "Also write a SavedModel on RGB uint8 images, export/ in the folder."
)


def main(_) -> None:
    """Imports, and says what was found and written."""
    from tfkd import caffe, export, models
    from tfkd.caffe import opencv
    from tfkd.errors import TfkdError

    if not _PROTOTXT.value or not _CAFFEMODEL.value or not _OUTPUT.value:
        raise TfkdError(
            "wanted --prototxt=FILE, --caffemodel=FILE and --output=FOLDER (see --help)"
        )

    def check(imported: caffe.Imported) -> None:
        print(caffe.table(imported.plan))
        if _CHECK.value:
            worst, *_ = differences = opencv.check(imported, _PROTOTXT.value, _CAFFEMODEL.value)
            print(
                f"{len(differences)} layers are as OpenCV's; furthest apart {worst.layer!r}, by "
                f"{worst.difference:.1e} of its largest value"
            )

    names = None if _CLASS_NAMES.value is None else models.read_class_names(_CLASS_NAMES.value)
    done = caffe.import_network(
        _PROTOTXT.value,
        _CAFFEMODEL.value,
        _OUTPUT.value,
        network=_NETWORK.value,
        check=check,
        channel_order=_CHANNEL_ORDER.value,
        mean=_given_mean(_MEAN.value),
        mean_as=_MEAN_AS.value,
        scale=_SCALE.value,
        class_names=names,
        image_size=_IMAGE_SIZE.value,
        keep_softmax=_KEEP_SOFTMAX.value,
    )
    outputs = ", ".join(
        f"{name} {'x'.join(map(str, tensor.shape[1:]))}"
        for name, tensor in models.outputs(done.network.model).items()
    )
    params = models.cost(done.network.model).params
    print(f"{done.path}: {done.network.name}, {outputs}, {params:,} parameters")
    # The pixels tell of blue, green, red; of one channel there is no order.
    is_rgb = done.plan.shape[0] == 3 and not done.pixels.preprocess.bgr
    print(f"pixels: {done.pixels}{', red, green, blue' if is_rgb else ''}")
    if _EXPORT.value:
        path = export.save(done.network, done.path.parent / "export")
        print(f"{path}: SavedModel on RGB uint8 images, outputs checked against the network")


def _given_mean(given: list[str] | None) -> list[float] | str | None:
    """Returns the numbers of a flag, or the one file that it names."""
    if not given:
        return None
    try:
        return [float(each) for each in given]
    except ValueError:
        return ",".join(given)


if __name__ == "__main__":
    entry.run(main)
