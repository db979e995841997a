"""Measures a run folder's student or a SavedModel on a data set, or what its features are worth.

python tools/evaluate.py --run=runs/quickstart/distilled/seed0
python tools/evaluate.py --saved_model=runs/quickstart/export --data=digits --json=scores.json
python tools/evaluate.py --run=runs/msdnet --budget=2e7
python tools/evaluate.py --run=runs/methods --probe=stl10 --probe=digits --markdown=probes.md

With --probe the student is a frozen backbone: its pooled features of the images of another data
set, which are resized to its input, train a linear layer by the published protocol, nearest
neighbors and a logistic regression. They are formed once and kept (--cache); --run may be given
several times, and the folder of a comparison stands for all its runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # Started as a file.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from tools import entry

_RUN = flags.DEFINE_multi_string(
    "run",
    None,
    "The run folder: the --workdir of a training run. With --probe there may be several, and "
    "folders of comparisons.",
)
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
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a batch.", 1, 10**6)
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
    "Height and width of the images that the network sees, with --probe as well; left out: as it "
    "is recorded.",
    lower_bound=1,
    upper_bound=4096,
)
_CROP = flags.DEFINE_enum(
    "crop",
    None,
    ["center", "whole"],
    "How images of other sizes become those: center (shorter side to 8/7, then the middle) or "
    "whole (whatever the proportions); left out: as it is recorded.",
)
_BUDGET = flags.DEFINE_float(
    "budget",
    None,
    "MACs of an image in the mean: every image leaves a network with exits where it is sure, by "
    "the most accurate thresholds that cost no more on the validation images.",
)
_PROBE = flags.DEFINE_multi_string(
    "probe",
    None,
    "A data set to probe the features on, as in a config's data.name: stl10, tiny_imagenet, "
    "folder:PATH, digits, ...; may be given several times.",
)
_PROBE_CLASSES = flags.DEFINE_list(
    "probe_classes", None, "Names of the classes to keep of the data sets of --probe."
)
_TAP = flags.DEFINE_string("tap", "pooled", "The feature that --probe looks at.")
_CACHE = flags.DEFINE_string(
    "cache", None, "Folder that keeps the features of --probe; by default one of the user's cache."
)
_MARKDOWN = flags.DEFINE_string("markdown", None, "A file to write the table of --probe to.")
_JSON = flags.DEFINE_string("json", None, "A file to write the numbers to.")

_OF_PROBES = ("probe_classes", "tap", "cache", "markdown")
_NOT_OF_PROBES = (
    "saved_model", "data", "split", "classes", "class_names", "preprocess", "budget",
)  # fmt: skip


def main(_) -> None:
    """Evaluates, prints a table and writes the files."""
    if _PROBE.value:
        _probe()
        return
    from tfkd.errors import TfkdError
    from tfkd.evaluation import reports

    _refuse(_OF_PROBES, "without --probe, which alone has a use for it")
    runs = _RUN.value or [None]
    if len(runs) > 1:
        raise TfkdError(f"--run: found {len(runs)} of them, wanted one (several go with --probe)")
    report = reports.report(
        run=runs[0],
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


def _probe() -> None:
    from tfkd import files
    from tfkd.errors import TfkdError
    from tfkd.evaluation import transfer

    _refuse(_NOT_OF_PROBES, "beside --probe, which has no use for it")
    if not _RUN.value:
        raise TfkdError("network to probe: found no --run, wanted one or more")
    rows = transfer.probe_runs(
        _RUN.value,
        _PROBE.value,
        which=_WHICH.value,
        classes=_PROBE_CLASSES.value,
        directory=_DIRECTORY.value,
        image_size=_IMAGE_SIZE.value,
        crop=_CROP.value,
        tap=_TAP.value,
        cache=_CACHE.value or files.cache() / "features",
        batch_size=_BATCH_SIZE.value,
    )
    table = transfer.as_markdown(rows)
    print(f"\n{table}", end="")
    if _JSON.value:
        transfer.write_rows(rows, _JSON.value)
    if _MARKDOWN.value:
        files.write(_MARKDOWN.value, table)


def _refuse(names: tuple[str, ...], why: str) -> None:
    """Refuses flags that would have no effect."""
    from tfkd.errors import TfkdError

    given = [name for name in names if flags.FLAGS[name].present]
    if given:
        raise TfkdError(f"--{given[0]}: found it {why}, wanted it unset")


if __name__ == "__main__":
    entry.run(main)
