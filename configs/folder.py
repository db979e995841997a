"""Images of your own, in a folder: one network teaches another, by a recipe that fits the images.

Data: ``folder:PATH`` with train/CLASS/*.jpg and test/CLASS/*.jpg (or val/CLASS/*.jpg). A glance at
the training images says how many there are and how large; unless a flag says otherwise, follow
    size       that of the images, rounded down: 16 to 64 pixels for networks of small images, up to
               224 for those of ImageNet
    augment    crops of the padded image, mirrored, below 96 pixels, random mirrored rectangles from
               there on; signs, which mirrored are others, want --config.data.augment=crop
    held out   val/CLASS where there is test/CLASS too, else a tenth of the training images, or none
               of fewer than 500; these choose the best epoch
    batch      8 to 64 images, so that an epoch has 20 steps or more
    epochs     so that about two million images are seen, 30 to 200
    rate       0.05 at batches of 64 and in proportion, falling as a cosine after a short warm-up
Methods have their published weights, those for CIFAR-100 with networks of small images and those
for ImageNet with others; their warm-ups keep their shares of the published run.
Cost: that of about two million images, of the teacher and of each student.
Command: python tools/compare.py --config=configs/folder.py:kd,resnet56,resnet20 \\
    --workdir=runs/mine --config.data.name=folder:/data/flowers

Arguments: ``METHOD,TEACHER,STUDENT`` (default ``kd,resnet56,resnet20``, for small images; for
larger ones such as ``kd,resnet34,resnet18``); ``METHOD,STUDENT`` for a method without a teacher;
``plain,NETWORK`` for a network alone. METHOD is one of ``tfkd.training.published.names()``. With
the word ``smoke`` one epoch on 40 digits of scikit-learn.
"""

from tfkd import models
from tfkd.data.glance import Glance, glance
from tfkd.training import arguments, published
from tfkd.training.config import default, following, shrink

SIDES = (16, 24, 28, 32, 48, 64, 96, 128, 160, 192, 224)
SMALL = 64
"""The largest side for networks that were published for images of 32 pixels."""

SETS = {True: ("cifar100", 240), False: ("imagenet", 100)}
"""The published weights and epochs for networks of small images, and for others."""


def get_config(argument: str = ""):
    """Returns an experiment."""
    words = arguments.parse(
        argument, "METHOD,TEACHER,STUDENT", "METHOD,STUDENT", "plain,NETWORK",
        default="kd,resnet56,resnet20", METHOD=published.names(),
        **dict.fromkeys(("TEACHER", "STUDENT", "NETWORK"), models.names()),
    )  # fmt: skip
    student = words.network or words.student
    small = max(models.published_shape(student)[:2]) <= SMALL
    images, published_epochs = SETS[small]
    config = default()
    config.experiment = f"folder-{words.name}"
    config.data.name = "folder:data/images"
    config.student.name = student

    def follow(kind, choose):
        return following(config, "data.name", kind, lambda name: choose(glance(name) or UNKNOWN))

    def side(seen):
        largest = min(seen.side, SMALL if small else SIDES[-1])
        return max([each for each in SIDES if each <= largest], default=SIDES[0])

    config.data.image_size = follow(int, side)
    config.data.augment = follow(str, lambda seen: "imagenet" if side(seen) >= 96 else "crop_flip")
    config.data.validation_split = follow(float, held_out)

    config.train.batch_size = follow(int, batch_size)
    config.train.epochs = follow(int, epochs)
    config.train.learning_rate = follow(float, lambda seen: 0.05 * batch_size(seen) / 64)
    config.train.optimizer.weight_decay = 5e-4 if small else 1e-4
    config.train.schedule.name = "cosine"
    config.train.schedule.warmup_epochs = published_epochs / 40
    config.train.published_epochs = published_epochs
    if words.method:
        preset = published.apply(
            config, words.method, images=images, teacher=words.teacher, student=student
        )
        teacher = preset.teacher_network(words.teacher, student)
        if teacher:
            config.teacher.config = f"configs/folder.py:{words.argument('plain', teacher)}"

    if words.smoke:
        shrink(config, image_size=32)
        config.train.learning_rate = 0.05
    return config


UNKNOWN = Glance(images=5000, side=SMALL, held_out=False)
"""Stands for a folder that is not there, which a run then says."""


def held_out(seen: Glance) -> float | None:
    """Returns the fraction of the training images to hold out, ``None`` for the folder's own."""
    if seen.held_out:
        return None
    return 0.1 if seen.images >= 500 else 0.0


def batch_size(seen: Glance) -> int:
    """Returns the largest power of two from 8 to 64 with 20 steps an epoch."""
    return next((each for each in (64, 32, 16) if seen.images >= 20 * each), 8)


def epochs(seen: Glance) -> int:
    """Returns the epochs in which about two million images are seen, from 30 to 200."""
    return min(max(2_000_000 // seen.images, 30), 200)
