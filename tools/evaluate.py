"""Measures a run folder's student or a SavedModel on a data set.

python tools/evaluate.py --run=runs/quickstart/distilled/seed0
python tools/evaluate.py --saved_model=runs/quickstart/export --data=digits --json=scores.json
python tools/evaluate.py --run=runs/msdnet --budget=2e7
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from tools import entry

_RUN = flags.DEFINE_string("run", None, "The run folder: the --workdir of a training run.")
_WHICH = flags.DEFINE_string(
    "which",
    "last",
    "The student: last (of the last epoch), best (of the best one), or the word of a further one.",
)
_SAVED_MODEL = flags.DEFINE_string("saved_model", None, "A SavedModel, instead of --run.")
_DATA = flags.DEFINE_string(
    "data",
    None,
    "A data set as in a config's data.name: digits, cifar10, folder:PATH, ... "
    "Left out: the run's own.",
)
_DIRECTORY = flags.DEFINE_string("directory", None, "Where --data lies, as in data.directory.")
_SPLIT = flags.DEFINE_enum("split", "test", ["test", "validation", "train"], "The part to use.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
_CLASSES = flags.DEFINE_enum(
    "classes",
    "by_name",
    ["by_name", "by_number"],
    "Whether classes of network and data go together by name, where both have names (outputs are "
    "put in the order of the data), or by number.",
)
_CLASS_NAMES = flags.DEFINE_string(
    "class_names", None, "Text file of the names of the network's classes, one a line."
)
_PREPROCESS = flags.DEFINE_enum(
    "preprocess",
    None,
    ["dataset", "none", "tf", "torch", "caffe"],
    "How pixels reach a SavedModel that tfkd did not export, as in student.preprocess.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Height and width of the images that the network sees; left out: as it is recorded.",
    lower_bound=1,
)
_CROP = flags.DEFINE_enum(
    "crop",
    None,
    ["center", "whole"],
    "How images of other sizes become those: center (the shorter side becomes 8/7 of that, then "
    "the middle is cut out) or whole (whatever the proportions); left out: as it is recorded.",
)
_BUDGET = flags.DEFINE_float(
    "budget",
    None,
    "MACs of an image in the mean: every image leaves a network with exits where it is sure, by "
    "the most accurate thresholds that cost no more on the validation images.",
)
_JSON = flags.DEFINE_string("json", None, "A file to write the numbers to.")


def main(_) -> None:
    """Evaluates, prints a table and writes the JSON file."""
    from tfkd.evaluation import reports

    report = reports.report(
        run=_RUN.value,
        which=_WHICH.value,
        saved_model=_SAVED_MODEL.value,
        data_name=_DATA.value,
        directory=_DIRECTORY.value,
        split=_SPLIT.value,
        batch_size=_BATCH_SIZE.value,
        class_names=_CLASS_NAMES.value,
        by_number=_CLASSES.value == "by_number",
        preprocess=_PREPROCESS.value,
        image_size=_IMAGE_SIZE.value,
        crop=_CROP.value,
        budget=_BUDGET.value,
    )
    print(reports.table(report))
    if _JSON.value:
        reports.write_report(report, _JSON.value)


if __name__ == "__main__":
    entry.run(main)
