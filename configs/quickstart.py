"""The first walk: ResNet-20 teaches ResNet-8 on scikit-learn's handwritten digits.

Method: KD, https://arxiv.org/abs/1503.02531
Expected: teacher about 98.5 %, student alone about 95 %, distilled not below it.
Cost: about 20 seconds a run on two CPU cores.
Command: python tools/compare.py --config=configs/quickstart.py --workdir=runs/quickstart

Arguments: ``distilled`` (default), ``alone``, ``teacher``.
"""

from tfkd.errors import unknown
from tfkd.training.config import default, method


def get_config(argument: str = "distilled"):
    """Returns the experiment of a role."""
    if argument not in ("distilled", "alone", "teacher"):
        raise unknown("argument of configs/quickstart.py", argument, ("distilled", "alone", "teacher"))
    config = default()
    config.experiment = f"quickstart-{argument}"
    config.data.name = "digits"

    config.train.epochs = 12
    config.train.batch_size = 64
    config.train.learning_rate = 0.05
    config.train.schedule.name = "cosine"

    if argument == "teacher":
        config.student.name = "resnet20"
        return config

    config.student.name = "resnet8"
    if argument == "distilled":
        config.teacher.config = "configs/quickstart.py:teacher"
        config.distiller = (method("kd", weight=0.9, temperature=4.0),)
        config.student_loss_weight = 0.1
        config.export.enabled = True
    return config
