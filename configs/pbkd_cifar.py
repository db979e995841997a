"""VGG-16 on CIFAR-10 and CIFAR-100, its blocks replaced one after the other by narrower ones.

Method: PBKD, https://doi.org/10.24963/ijcai.2018/384 (a reconstruction).
Recipe of the paper for each of the five stages: 6 epochs, batches of 100, SGD with momentum 0.9 as
Caffe has it, learning rate 0.01 and a tenth of it after 3, weight decay 0.005. Not published:
lambda (``methods.pbkd.weight``, searched below), how the teacher is trained (here 100 epochs along
a cosine, decay 5e-4) and augmentation (none, so that what frozen parts make is computed once).
Expected, as published: CIFAR-100 2.22 points below the teacher, with 1/1.40 of its parameters and
1/2.69 of its MACs; CIFAR-10 student on labels alone 72.4 %, with both losses 83.6 % (figures of
readers of the paper). Not run here.
Cost: days on two CPU cores; see configs/pbkd_short.py for a short form.
Command: python tools/train.py --config=configs/pbkd_cifar.py:pbkd,cifar10 \\
    --workdir=runs/pbkd/seed0
Search: python tools/tune.py --config=configs/pbkd_cifar.py:pbkd,cifar10 \\
    --workdir=runs/pbkd_weights --config.data.validation_size=5000

Arguments: ``ROLE,DATA`` (default ``pbkd,cifar10``). ROLE: ``teacher``; ``pbkd``; ``local`` and
``labels``, the same with one of its two losses (the paper's ablations); ``kd``, the student with a
classifier of its own by soft labels, and ``scratch``, by labels, for as many epochs in all. DATA:
``cifar10``, ``cifar100``. With the word ``smoke`` (``pbkd,cifar10,smoke``) one epoch a stage on 40
digits of scikit-learn, which need no download.
"""

from tfkd.training import arguments, published
from tfkd.training.config import default, methods, shrink, vary

ROLES = ("teacher", "pbkd", "local", "labels", "kd", "scratch")
DATA = ("cifar10", "cifar100")


def get_config(argument: str = ""):
    """Returns the experiment of a role."""
    words = arguments.parse(argument, "ROLE,DATA", default="pbkd,cifar10", ROLE=ROLES, DATA=DATA)
    role, data = words.role, words.data
    config = default()
    config.experiment = words.name
    config.data.name = data
    config.data.augment = "none"
    if role == "teacher":
        config.student.name = "vgg16_32"
    else:
        config.student.name = "blockwise"
        config.student.kwargs = dict(of="vgg16_32", ratio=2.0)

    config.train.epochs = {"teacher": 100, "kd": 30, "scratch": 30}.get(role, 6)
    config.train.batch_size = 100
    config.train.learning_rate = 0.01
    config.train.optimizer.momentum_style = "keras"
    config.train.optimizer.weight_decay = 5e-4
    config.train.schedule.name = "cosine"
    if role in ("pbkd", "local", "labels"):
        config.train.optimizer.weight_decay = 0.005
        config.train.schedule.name = "step"
        config.train.schedule.milestones = (3.0,)

    if role == "kd":
        published.apply(config, "kd")
    if role in ("pbkd", "local", "labels"):
        learns_from = "both" if role == "pbkd" else role
        config.methods = methods(pbkd=dict(weight=0.005, learns_from=learns_from))
    if role == "pbkd":
        weights = (5e-6, 5e-5, 5e-4, 5e-3, 5e-2)
        config.search_space = (vary("methods.pbkd.weight", choices=weights),)
    if role not in ("teacher", "scratch"):
        config.teacher.config = f"configs/pbkd_cifar.py:{words.argument('teacher', data)}"

    if words.smoke:
        shrink(config, image_size=32)
    return config
