"""The first walk: ResNet-20 teaches a thin ResNet-8 on scikit-learn's handwritten digits.

Method: KD, https://arxiv.org/abs/1503.02531
Data: 300 of the 1,077 training images, where a thin student alone falls behind; 360 test images, so
that one is 0.28 points.
Expected: teacher about 94 %, student alone about 89 %, distilled about four points above it.
Cost: about ten seconds a run on two CPU cores, most of them to start.
Command: python tools/compare.py --config=configs/quickstart.py --workdir=runs/quickstart

Argument: ``distilled`` (default), ``alone`` or ``teacher``; with ``smoke`` one epoch on 40 images.
"""

from tfkd.training import arguments
from tfkd.training.config import default, methods, shrink

ROLES = ("distilled", "alone", "teacher")


def get_config(argument: str = ""):
    """Returns the experiment of a role."""
    words = arguments.parse(argument, "ROLE", default="distilled", ROLE=ROLES)
    config = default()
    config.experiment = f"quickstart-{words.name}"
    config.data.name = "digits"
    # A pixel is an eighth of these images: shifts hurt a thin student.
    config.data.augment = "none"
    config.data.train_size = 300

    config.train.epochs = 30
    config.train.evaluate_every = 2  # An epoch takes no longer than its evaluation.
    config.train.batch_size = 32
    config.train.learning_rate = 0.05
    config.train.schedule.name = "cosine"

    if words.role == "teacher":
        config.student.name = "resnet20"
        config.train.epochs = 12
    else:
        # 2,646 parameters; the usual ResNet-8 has 77,754 and needs no teacher here.
        config.student.name = "resnet8"
        config.student.kwargs.widths = (4, 4, 8, 8)

    if words.role == "distilled":
        config.teacher.config = f"configs/quickstart.py:{words.argument('teacher')}"
        config.methods = methods(kd=dict(weight=0.9, temperature=4.0))
        config.student_loss_weight = 0.1
        config.export.enabled = True

    if words.smoke:
        shrink(config)
    return config
