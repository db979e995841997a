"""The fields of a config, by section: default, type, bounds and meaning of each, declared once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from tfkd.data.augmentation import AUGMENTATIONS
from tfkd.errors import TfkdError
from tfkd.models.preprocess import PUBLISHED
from tfkd.settings import Count, NonNegative, Positive, Range, Settings, field, fields_of
from tfkd.training.optimizers import OptimizerSettings
from tfkd.training.schedules import ScheduleSettings

Long = Annotated[int, Range(low=1, high=10**6)]
Seed = Annotated[int, Range(low=0, high=2**31 - 1)]


class Experiment(Settings):
    """The fields outside of any section."""

    experiment: str | None = field(None, "name of the experiment in results and tables")
    task: str | None = field(
        None, "name of a task, or module:Class / FILE.py:Class; none: that of the data set"
    )
    methods: dict = field(
        {}, "weight and settings of each method by its name; none: plain training"
    )
    student_loss_weight: NonNegative = field(1.0, "weight of the label loss")
    teachers: tuple = field(
        (), "further teachers, each made by teacher(): the probabilities of all are averaged"
    )
    accept_changes: bool = field(
        False,
        "whether a run goes on where the data, teacher, files or code behind its config are others",
    )
    search_space: tuple = field(
        (), "list of (fields, choices) that tools/tune.py tries, each made by vary()"
    )


class Data(Settings):
    """Section ``data``."""

    name: str = field(
        "digits",
        "digits | a tensorflow-datasets name such as cifar10 | tiny_imagenet | folder:PATH",
    )
    directory: str | None = field(
        None, "where prepared sets are kept; none: tensorflow-datasets' own default"
    )
    download: bool = field(False, "whether the data set may be downloaded")
    validation_split: Annotated[float, Range(low=0, below=1)] | None = field(
        None,
        "fraction of the training images held out; none: the set's own validation images, 0: none",
    )
    validation_size: Annotated[int, Range(low=0)] | None = field(
        None, "the same as a number of images; 0: no validation images"
    )
    train_size: Count | None = field(
        None, "number of training images to keep, alike in every class; none: all"
    )
    classes: tuple[str, ...] | None = field(
        None, "names of the classes to keep, numbered in the order of the set; none: all"
    )
    image_size: Annotated[int, Range(low=1, high=4096)] | None = field(
        None, "side to which images are resized; none: as they are (imagenet crops: 224)"
    )
    augment: Literal[*AUGMENTATIONS] | None = field(
        None,
        "none | shift | crop | flip | crop_flip | imagenet | imagenet_fast; unset: the set's own",
    )
    mixup: NonNegative = field(0.0, "alpha of mixup, whose labels are dense; 0: none")
    cutmix: NonNegative = field(
        0.0, "alpha of cutmix likewise; with both, each step draws one of them; 0: none"
    )
    skip_corrupt: bool = field(False, "whether unreadable images of a folder are skipped")

    def check(self) -> None:
        if None not in (self.validation_split, self.validation_size):
            raise TfkdError(
                f"data.validation_split and data.validation_size: found {self.validation_split} "
                f"and {self.validation_size}, wanted one of them"
            )


class Student(Settings):
    """Section ``student``."""

    name: str = field(
        "resnet8", "network that is trained: its name, module:function or FILE.py:function"
    )
    kwargs: dict = field({}, "further arguments of the network")
    preprocess: Literal["dataset", "none", *PUBLISHED] | None = field(
        None,
        "dataset (its mean and deviation) | none | tf | torch | caffe (as in Keras); unset: "
        "dataset, or none for a network that normalizes pixels itself, or what student.weights say",
    )
    weights: str | None = field(
        None,
        "what the student starts from: a .keras or .weights.h5 file, whose last layer may be of "
        "other classes, or imagenet for a network of keras.applications; none: its seed",
    )
    taps: dict = field({}, "names of features as methods know them, and the layers that make them")


class OneTeacher(Settings):
    """What a config says of each teacher."""

    name: str | None = field(
        None, "network of the teacher where only its weights are given, or where it trains too"
    )
    kwargs: dict = field({}, "further arguments of the network")
    config: str | None = field(
        None, "config that trains the teacher on demand, such as configs/quickstart.py:teacher"
    )
    workdir: str | None = field(
        None, "run folder of the teacher, {seed} filled in; trained there if it is missing"
    )
    weights: str | None = field(
        None, "a .keras file of the teacher, or weights of teacher.name; no config or workdir"
    )
    preprocess: Literal["dataset", "none", *PUBLISHED] | None = field(
        None,
        "as student.preprocess, for a teacher without a run folder; unset: what its file says",
    )
    classes: Literal["by_name", "by_number"] = field(
        "by_name",
        "by_name: the teacher must have the student's classes, and its outputs are brought into "
        "their order | by_number: names do not count",
    )
    class_names: str | None = field(
        None, "text file of the names of the teacher's classes, one a line, where it has none"
    )
    taps: dict = field({}, "as student.taps")
    which: str = field("last", "which of the teacher's students teaches: last, best or a variant")
    seed: Seed | None = field(
        None, "seed of the teacher's run, or of its first weights; none: from train.seed"
    )


class Teacher(OneTeacher):
    """Section ``teacher``."""

    dtype: Literal["float32", "bfloat16"] | None = field(
        None, "bfloat16 runs the frozen teacher in that precision; none: as it is"
    )
    fold: bool = field(True, "whether the teacher's batch normalization is folded into its layers")


class Train(Settings):
    """Section ``train``."""

    epochs: Long | None = field(
        None, "passes over the training set; none: 1, or those of a method with stages of its own"
    )
    published_epochs: Long | None = field(
        None,
        "length of the published run: milestones, warm-ups and the methods' settings in epochs are "
        "given for it, and keep their share where epochs differs; none: they are taken as they are",
    )
    extended_from: tuple[Count, ...] = field(
        (), "the epochs that the run was finished with before; only tools/train.py --extend sets it"
    )
    batch_size: Long = field(64, "images of one step over all replicas")
    seed: Seed = field(0, "seed of initialization, order, augmentation and everything drawn")
    learning_rate: Positive = field(0.05, "base learning rate")
    steps_per_execution: Annotated[int, Range(low=1, high=10_000)] = field(
        1, "steps of one compiled call"
    )
    sync_batch_norm: bool = field(
        True, "whether replicas share batch statistics (1 and 2 replicas agree); False is faster"
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = field(
        "float32", "float32 | mixed_bfloat16 | mixed_float16"
    )
    jit_compile: bool = field(False, "XLA; one replica only, and slower on CPUs")
    evaluate_every: Count = field(1, "epochs between two evaluations on the validation images")
    checkpoint_seconds: NonNegative = field(30.0, "least time between two checkpoints")
    verbose: int = field(
        1, "1: progress bar on a terminal, elsewhere one line an epoch; 2: one line; 0: silent"
    )


class Export(Settings):
    """Section ``export``."""

    enabled: bool = field(False, "whether the run ends with a SavedModel in its folder")
    fold: bool = field(True, "whether batch normalization is folded into the exported layers")


class Compare(Settings):
    """Section ``compare``."""

    seeds: tuple[Seed, ...] = field((0, 1, 2), "seeds of tools/compare.py")


SECTIONS: dict[str, type[Settings]] = {
    "": Experiment,
    "data": Data,
    "student": Student,
    "teacher": Teacher,
    "train": Train,
    "train.optimizer": OptimizerSettings,
    "train.schedule": ScheduleSettings,
    "export": Export,
    "compare": Compare,
}
"""The sections by the names that flags give them."""


def with_defaults(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config as ``config.json`` holds it, with defaults for the fields that it lacks.

    A field that tfkd gained since then has as its default what runs did before. Sections that are
    missing stay so.
    """
    config = copy.deepcopy(dict(plain))
    for path, declared in SECTIONS.items():
        section: Any = config
        for key in filter(None, path.split(".")):
            section = section.get(key, {})
        if section or not path:
            for name, each in fields_of(declared).items():
                section.setdefault(name, copy.deepcopy(each.default))
    return config
