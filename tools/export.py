"""Writes the student of a run folder as a SavedModel for plain TensorFlow.

    python tools/export.py --run=runs/quickstart/distilled/seed0 --output=exported/student

The folder then loads without tfkd or Keras:

    student = tf.saved_model.load("exported/student")
    outputs = student.signatures["serving_default"](image=pixels)  # uint8 (batch, H, W, C)
    outputs["logits"], outputs["probabilities"]

A network with several exits gives each of them by its name, and leaves early in the signatures
early_exit (image and thresholds) and, where the run had validation images, early_exit_budget (image
and budget). Another task gives what it serves. Of an adder network the speed is printed too, with
adder layers in stock operations (the default, which loads anywhere) and as the compiled op
(--adder=op, faster, for tfkd.adder.load).
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # Started as a file.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from tools import entry

_RUN = flags.DEFINE_string("run", None, "The run folder: the --workdir of a training run.")
_WHICH = flags.DEFINE_string(
    "which",
    "last",
    "The student: last (of the last epoch), best (of the best one), or the word of a further one.",
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "The folder to write: new, empty, or an earlier export, which is replaced."
)
_FOLD = flags.DEFINE_boolean(
    "fold", True, "Fold batch normalization into the layers before it: faster, equal outputs."
)
_ADDER = flags.DEFINE_enum(
    "adder",
    "plain",
    ["plain", "op"],
    "Adder layers in stock TensorFlow operations, or as the compiled op, which only "
    "tfkd.adder.load loads.",
)


def main(_) -> None:
    """Exports and says what was written."""
    from tfkd import export
    from tfkd.errors import TfkdError
    from tfkd.models.saving import load_network

    if not _RUN.value or not _OUTPUT.value:
        raise TfkdError("wanted --run=FOLDER and --output=FOLDER (see --help)")
    path = export.save_run(
        _RUN.value, _OUTPUT.value, _WHICH.value, fold=_FOLD.value, adder=_ADDER.value
    )
    known = export.describe(path)
    sizes = [
        f"{known[key]:,} {word}"
        for key, word in (("num_classes", "classes"), ("params", "parameters"), ("macs", "MACs"))
        if known[key] is not None
    ]
    print(f"{path}: {known['name']}, {', '.join(sizes)}; outputs checked against the network")
    if known["adder"] is not None:
        network = load_network(_RUN.value, _WHICH.value)
        speeds = export.speed_of_adder_forms(network, path, fold=_FOLD.value)
        print(
            "images per second here: "
            + ", ".join(f"{speed:,.0f} in the form {form!r}" for form, speed in speeds.items())
        )


if __name__ == "__main__":
    entry.run(main)
