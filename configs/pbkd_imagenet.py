"""VGG-16 on ImageNet, its blocks replaced one after the other by narrower ones.

Method: PBKD, https://doi.org/10.24963/ijcai.2018/384 (a reconstruction).
Recipe of the paper for each stage: 50,000 steps, batches of 32, SGD with momentum 0.9 as Caffe has
it, learning rate 0.01, weight decay 5e-4. Not published: lambda (``methods.pbkd.weight``) and
augmentation; here a random resized crop of 224 pixels and mirroring, tested on the center of images
whose shorter side is 256.
Departure: pixels are less the mean of each channel and divided by their deviation, as networks that
are trained from the beginning want them; published are BGR pixels less their mean, not divided,
which ``--config.student.preprocess=caffe`` gives and the published weights below need.
Expected, as published: blocks 1 to 4 replaced (``pbkd``), MACs / 2.53, top-1 2.00 and top-5 1.36
points above the original VGG-16. All five (``pbkd_all``): MACs / 2.96. Not run here.
Command: python tools/train.py --config=configs/pbkd_imagenet.py:pbkd \\
    --workdir=runs/pbkd_imagenet --strategy=mirrored
A teacher with the published weights, in a .keras file: --config.teacher.config= \\
    --config.teacher.weights=FILE.keras --config.student.preprocess=caffe

Argument: ``pbkd`` (default), ``pbkd_all``, ``scratch``, the student of ``pbkd`` on labels for 74
epochs, or ``teacher``, VGG-16 by that recipe (batches of 256, as its paper has them). With the word
``smoke`` (``pbkd,smoke``) one epoch a stage on 40 digits of scikit-learn, which need no download.
"""

from tfkd.training import arguments
from tfkd.training.config import default, methods, shrink

ROLES = ("teacher", "pbkd", "pbkd_all", "scratch")


def get_config(argument: str = ""):
    """Returns the experiment of a role."""
    words = arguments.parse(argument, "ROLE", default="pbkd", ROLE=ROLES)
    role = words.role
    config = default()
    config.experiment = f"imagenet-{words.name}"
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.augment = "imagenet"
    if role == "teacher":
        config.student.name = "vgg16_imagenet"
    else:
        config.student.name = "blockwise"
        config.student.kwargs = dict(of="vgg16_imagenet", ratio=2.0)
        if role != "pbkd_all":
            config.student.kwargs.blocks = (1, 2, 3, 4)

    config.train.learning_rate = 0.01
    config.train.optimizer.momentum_style = "keras"
    config.train.optimizer.weight_decay = 5e-4
    if role in ("teacher", "scratch"):
        config.train.epochs = 74
        config.train.batch_size = 256
        config.train.schedule.name = "cosine"
    else:
        config.train.batch_size = 32
        config.train.schedule.name = "constant"
        stage_steps = None if words.smoke else 50_000
        config.methods = methods(pbkd=dict(weight=0.005, stage_steps=stage_steps))
        config.teacher.config = f"configs/pbkd_imagenet.py:{words.argument('teacher')}"

    if words.smoke:
        shrink(config, image_size=32)
    return config
