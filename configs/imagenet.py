"""ImageNet as the distillation papers compare: ResNet-34 to ResNet-18, ResNet-50 to MobileNetV1.

Recipe: batches of 256, 100 epochs, SGD with momentum 0.9, weight decay 1e-4, learning rate 0.1,
x0.1 after epochs 30, 60 and 90; random resized crop of 224 pixels and mirroring, tested on the
center of images whose shorter side is 256.
Expected: for ResNet-18 about 69.8 % alone, 71 % with KD, 71.7 % with DKD; not run here.
Cost: days on one GPU. Published teacher weights can be taken over with tools/import_torch.py and
--config.teacher.weights.
Command: python tools/train.py --config=configs/imagenet.py:kd,resnet34,resnet18 \\
    --workdir=runs/imagenet/kd --strategy=mirrored

Arguments: ``METHOD,TEACHER,STUDENT`` (default ``kd,resnet34,resnet18``); ``METHOD,STUDENT`` for a
method without a teacher; ``plain,NETWORK`` for a network alone. A shorter run
(``--config.train.epochs=10``) keeps the shares of milestones, warm-ups and stages. With the word
``smoke`` (``kd,resnet34,resnet18,smoke``) one epoch on 40 digits of scikit-learn, which need no
download.
"""

from tfkd import models
from tfkd.training import arguments, published
from tfkd.training.config import default, shrink

PAIRS = (("resnet34", "resnet18"), ("resnet50", "mobilenetv1"))


def get_config(argument: str = ""):
    """Returns an experiment."""
    words = arguments.parse(
        argument, "METHOD,TEACHER,STUDENT", "METHOD,STUDENT", "plain,NETWORK",
        default="kd,resnet34,resnet18", METHOD=published.names("imagenet"),
        **dict.fromkeys(("TEACHER", "STUDENT", "NETWORK"), models.names()),
    )  # fmt: skip
    student = words.network or words.student
    config = default()
    config.experiment = f"imagenet-{words.name}"
    config.data.name = "imagenet2012"
    config.data.augment = "imagenet"
    config.data.image_size = 224
    config.student.name = student

    config.train.epochs = 100
    config.train.batch_size = 256
    config.train.learning_rate = 0.1
    config.train.optimizer.weight_decay = 1e-4
    config.train.schedule.milestones = (30, 60, 90)
    config.train.published_epochs = 100
    if words.method:
        preset = published.apply(
            config, words.method, images="imagenet", teacher=words.teacher, student=student
        )
        teacher = preset.teacher_network(words.teacher, student)
        if teacher:
            config.teacher.config = f"configs/imagenet.py:{words.argument('plain', teacher)}"

    if words.smoke:
        shrink(config, image_size=32)
    return config
