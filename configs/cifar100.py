"""CIFAR-100 as the distillation papers compare on it: 240 epochs, one recipe for every method.

Networks and recipe: Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020,
https://arxiv.org/abs/1910.10699; batches of 64, SGD with momentum 0.9, weight decay 5e-4, learning
rate 0.05 (0.01 for MobileNets and ShuffleNets), x0.1 after epochs 150, 180 and 210.
Expected: the tables of the papers, for instance 73.3 % for KD and 76.3 % for DKD from resnet32x4 to
resnet8x4; not run here.
Cost: one to several hours a run on one GPU; a teacher is trained on demand and shared between runs.
Command: python tools/train.py --config=configs/cifar100.py:kd,resnet32x4,resnet8x4 \\
    --workdir=runs/kd/seed0

Arguments: ``METHOD,TEACHER,STUDENT`` (default ``kd,resnet32x4,resnet8x4``); ``METHOD,STUDENT`` for
a method without a teacher; ``plain,NETWORK`` for a network alone. METHOD is one of
``tfkd.training.published.names()``, with the weights of its paper. Any two networks make a pair;
:data:`PAIRS` are the thirteen of the papers. With the word ``smoke``
(``kd,resnet56,resnet20,smoke``) one epoch on 40 digits of scikit-learn, which need no download.

A shorter run (``--config.train.epochs=24``) keeps the shares of milestones, warm-ups and stages.

What differs from the recipe: MLD trains with learning rate 0.025, and some pairs for 480 or 960
epochs, as published. A last word ``own`` takes the schedule of the method's own paper: ``cs_kd``
200 epochs, TF-KD in its three forms 200, ``ps_kd`` 300 (that of NKD's and USKD's authors is not
clear). ``plain,NETWORK,own,METHOD`` trains a network alone by that schedule, as TF-KD's
self-teacher.
"""

from tfkd import models
from tfkd.errors import unknown
from tfkd.training import arguments, published
from tfkd.training.config import default, shrink

FORMS = (
    "METHOD,TEACHER,STUDENT",
    "METHOD,STUDENT",
    "METHOD,TEACHER,STUDENT,own",
    "METHOD,STUDENT,own",
    "plain,NETWORK",
    "plain,NETWORK,own,METHOD",
)

PAIRS = (
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("resnet56", "resnet20"),
    ("resnet110", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("vgg13", "vgg8"),
    ("vgg13", "mobilenetv2"),
    ("resnet50_cifar", "mobilenetv2"),
    ("resnet50_cifar", "vgg8"),
    ("resnet32x4", "shufflev1"),
    ("resnet32x4", "shufflev2"),
    ("wrn_40_2", "shufflev1"),
)
SLOW_LEARNERS = ("mobilenetv2", "shufflev1", "shufflev2")
MLD_EPOCHS = {
    ("vgg13", "mobilenetv2"): 480,
    ("resnet50_cifar", "mobilenetv2"): 480,
    ("wrn_40_2", "shufflev1"): 480,
    ("resnet32x4", "shufflev1"): 960,
    ("resnet32x4", "shufflev2"): 960,
}
OWN = {
    "cs_kd": dict(epochs=200, weight_decay=1e-4, milestones=(100, 150)),
    "teacher_free": dict(epochs=200, milestones=(60, 120, 160), factor=0.2, warmup=1.0),
    "ps_kd": dict(epochs=300, milestones=(150, 225), nesterov=True),
}
"""Schedules of the methods' own papers, all with batches of 128 and learning rate 0.1."""


def get_config(argument: str = ""):
    """Returns an experiment."""
    words = arguments.parse(
        argument, *FORMS, default="kd,resnet32x4,resnet8x4", METHOD=published.names(),
        **dict.fromkeys(("TEACHER", "STUDENT", "NETWORK"), models.names()),
    )  # fmt: skip
    student = words.network or words.student
    config = default()
    config.experiment = f"cifar100-{words.name}"
    config.data.name = "cifar100"
    config.student.name = student

    config.train.epochs = 240
    config.train.batch_size = 64
    config.train.learning_rate = 0.01 if student in SLOW_LEARNERS else 0.05
    config.train.optimizer.weight_decay = 5e-4
    config.train.schedule.milestones = (150, 180, 210)
    if words.own:
        _own_schedule(config, published.preset(words.method).method)

    if not words.plain:
        preset = published.apply(config, words.method, teacher=words.teacher, student=student)
        teacher = preset.teacher_network(words.teacher, student)
        if teacher:
            own = (
                ("own", preset.method)
                if words.own and preset.teacher == published.SELF_TEACHER
                else ()
            )
            alone = words.argument("plain", teacher, *own)
            config.teacher.config = f"configs/cifar100.py:{alone}"
        if preset.method == "mld":
            config.train.epochs = MLD_EPOCHS.get((words.teacher, student), 240)
            config.train.learning_rate = 0.01 if student in SLOW_LEARNERS else 0.025
    config.train.published_epochs = config.train.epochs

    if words.smoke:
        shrink(config, image_size=16)
    return config


def _own_schedule(config, method: str) -> None:
    if method not in OWN:
        raise unknown("method with a schedule of its own", method, OWN)
    recipe = OWN[method]
    config.train.batch_size = 128
    config.train.learning_rate = 0.1
    config.train.epochs = recipe["epochs"]
    config.train.optimizer.weight_decay = recipe.get("weight_decay", 5e-4)
    config.train.optimizer.nesterov = recipe.get("nesterov", False)
    config.train.schedule.milestones = recipe["milestones"]
    config.train.schedule.decay_factor = recipe.get("factor", 0.1)
    config.train.schedule.warmup_epochs = recipe.get("warmup", 0.0)
