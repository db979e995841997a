"""KD on a folder of CIFAR-10 images, small enough for two CPU cores: ResNet-20 teaches ResNet-8.

Method: KD, https://arxiv.org/abs/1503.02531
Data: ``folder:PATH`` with train/CLASS/*.jpg and test/CLASS/*.jpg, 32x32; 5,000 training images are
held out to choose the best epoch.
Expected: teacher about 87 %, student alone about 80 %, distilled about 1 point above it.
Cost: about 8 minutes for the teacher and 5 for the distilled student on two CPU cores.
Command: python tools/compare.py --config=configs/cifar10_folder.py --workdir=runs/cifar10 --seeds=0 \\
    --config.data.name=folder:/data/cifar10

Arguments: ``kd`` (default), ``plain``, ``teacher``.
"""

from tfkd.errors import unknown
from tfkd.training.config import default, method


def get_config(argument: str = "kd"):
    """Returns the experiment of a role."""
    if argument not in ("kd", "plain", "teacher"):
        raise unknown("argument of configs/cifar10_folder.py", argument, ("kd", "plain", "teacher"))
    config = default()
    config.experiment = f"cifar10-{argument}"
    config.data.name = "folder:data/cifar10"
    config.data.validation = 5000.0

    config.train.epochs = 12
    config.train.batch_size = 128
    config.train.learning_rate = 0.1
    config.train.schedule.name = "cosine"
    config.train.schedule.warmup_epochs = 1.0

    if argument == "teacher":
        config.student.name = "resnet20"
        return config

    config.student.name = "resnet8"
    if argument == "kd":
        config.teacher.config = "configs/cifar10_folder.py:teacher"
        config.distiller = (method("kd", weight=0.9, temperature=4.0),)
        config.student_loss_weight = 0.1
    return config
