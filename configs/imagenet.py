"""ImageNet as the distillation papers compare on it: ResNet-34 to ResNet-18, ResNet-50 to MobileNetV1.

Recipe: batches of 256, 100 epochs, SGD with momentum 0.9, weight decay 1e-4, learning rate 0.1, x0.1
after epochs 30, 60 and 90; random resized crop of 224 pixels and mirroring, tested on the centre of
images whose shorter side is 256.
Expected: for ResNet-18 about 69.8 % alone, 71 % with KD, 71.7 % with DKD; not run here.
Cost: days on one GPU. Published teacher weights can be taken over with tools/import_torch.py and
--config.teacher.weights.
Command: python tools/train.py --config=configs/imagenet.py:kd,resnet34,resnet18 \\
    --workdir=runs/imagenet/kd --strategy=mirrored

Arguments: ``METHOD,TEACHER,STUDENT`` (default ``kd,resnet34,resnet18``); ``plain,NETWORK`` trains a
network alone; ``METHOD,STUDENT`` is enough for methods without a teacher.
"""

from tfkd import models
from tfkd.errors import TfkdError, unknown
from tfkd.training import published
from tfkd.training.config import default

PAIRS = (("resnet34", "resnet18"), ("resnet50", "mobilenetv1"))


def get_config(argument: str = "kd,resnet34,resnet18"):
    """Returns an experiment."""
    method, *networks = argument.split(",")
    if not 1 <= len(networks) <= (1 if method == "plain" else 2):
        wanted = "plain,NETWORK" if method == "plain" else "METHOD,TEACHER,STUDENT"
        raise TfkdError(f"argument {argument!r} of configs/imagenet.py: wanted {wanted}")
    for network in networks:
        if network not in models.names():
            raise unknown("network", network, models.names())
    student = networks[-1]

    config = default()
    config.experiment = "-".join(["imagenet", method, *networks])
    config.data.name = "imagenet2012"
    config.data.augment = "imagenet"
    config.data.image_size = 224
    config.student.name = student

    config.train.epochs = 100
    config.train.batch_size = 256
    config.train.learning_rate = 0.1
    config.train.optimizer.weight_decay = 1e-4
    config.train.schedule.milestones = (30, 60, 90)
    if method == "plain":
        return config

    teacher = networks[0] if len(networks) == 2 else None
    preset = published.apply(config, method, images="imagenet", teacher=teacher, student=student)
    if preset.teacher == published.TWIN:
        teacher = student
    if teacher is not None:
        config.teacher.config = f"configs/imagenet.py:plain,{teacher}"
    elif preset.teacher:
        raise TfkdError(f"{method} needs a teacher; wanted {method},TEACHER,{student}")
    return config
