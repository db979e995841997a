"""A VGG-16 on a part of CIFAR-10, replaced block by block, small enough for two CPU cores.

Method: PBKD, https://doi.org/10.24963/ijcai.2018/384 (a reconstruction).
Data: ``folder:PATH`` with train/CLASS/*.jpg and test/CLASS/*.jpg, 32x32. 2,000 training images are
held out to choose the best epoch and 10,000 of the others are trained on, un-augmented. All 10,000
test images are used.
Networks: VGG-16 with batch normalization, half as wide, two hidden layers of 512; the student has
blocks of half the filters.
Recipe: batches of 100, SGD with momentum 0.9. ``pbkd``: five stages of 12 epochs, learning rate
0.01 and a tenth of it after 6, weight decay 0.005, lambda 0.005, with the teacher's classifier.
``kd``, soft labels, and ``scratch``, labels alone: 60 epochs, learning rate 0.05 along a cosine,
weight decay 5e-4, with a classifier of their own. ``teacher``: 30 epochs likewise.
Command: python tools/compare.py --config=configs/pbkd_short.py:kd --methods=kd,pbkd \\
    --workdir=runs/pbkd_short --config.data.name=folder:/data/cifar10
Search: python tools/tune.py --config=configs/pbkd_short.py:pbkd --workdir=runs/pbkd_weights \\
    --config.data.name=folder:/data/cifar10

Argument: ``pbkd`` (default), ``kd``, ``scratch`` or ``teacher``. With the word ``smoke``
(``pbkd,smoke``) one epoch a stage on 40 digits of scikit-learn.
"""

from tfkd.training import arguments, published
from tfkd.training.config import default, shrink, vary

ROLES = ("teacher", "scratch", "kd", "pbkd")
NETWORK = dict(batch_norm=True, width=32, hidden=512)


def get_config(argument: str = ""):
    """Returns the experiment of a role."""
    words = arguments.parse(argument, "ROLE", default="pbkd", ROLE=ROLES)
    role = words.role
    config = default()
    config.experiment = f"cifar10-short-{words.name}"
    config.data.name = "folder:data/cifar10"
    config.data.augment = "none"
    config.data.validation_size = 2000
    config.data.train_size = 10_000
    if role == "teacher":
        config.student.name = "vgg16_32"
        config.student.kwargs = NETWORK
    else:
        config.student.name = "blockwise"
        config.student.kwargs = dict(of="vgg16_32", of_kwargs=NETWORK, ratio=2.0)

    config.train.batch_size = 100
    if role == "pbkd":
        config.train.epochs = 12
        config.train.learning_rate = 0.01
        config.train.optimizer.momentum_style = "keras"
        config.train.optimizer.weight_decay = 0.005
        config.train.schedule.name = "step"
        config.train.schedule.milestones = (6.0,)
    else:
        config.train.epochs = 30 if role == "teacher" else 60
        config.train.learning_rate = 0.05
        config.train.optimizer.weight_decay = 5e-4
        config.train.schedule.name = "cosine"

    if role in ("kd", "pbkd"):
        published.apply(config, role)
        config.teacher.config = f"configs/pbkd_short.py:{words.argument('teacher')}"
    if role == "pbkd":
        weights = (5e-6, 5e-5, 5e-4, 5e-3, 5e-2)
        config.search_space = (vary("methods.pbkd.weight", choices=weights),)

    if words.smoke:
        shrink(config, image_size=32)
    return config
