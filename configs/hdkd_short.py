"""MSDNets on a part of CIFAR-10, by every method of several exits, small enough for CPU cores.

Methods: HDKD, doi 10.1609/aaai.v35i11.17225; DBT, ICCV 2019; networks
https://arxiv.org/abs/1703.09844.
Data: ``folder:PATH`` with train/CLASS/*.jpg and test/CLASS/*.jpg. 2,000 training images are held
out for the best epoch, the thresholds of early exits and the weights of HDKD, and 10,000 of the
others are trained on. All 10,000 test images are used.
Recipe, the same for every method: 20 epochs, batches of 64, SGD with momentum 0.9, weight decay
1e-4, learning rate 0.1 falling as a cosine.
Command: python tools/train.py --config=configs/hdkd_short.py:hdkd --workdir=runs/hdkd/seed0 \\
    --config.data.name=folder:/data/cifar10
All of them: python tools/compare.py --config=configs/hdkd_short.py --methods=dbt,dense_kd,hdkd \\
    --workdir=runs/exits --config.data.name=folder:/data/cifar10
The student alone is there that of deep supervision.

Argument: ``METHOD`` (default ``hdkd``), one of ``tfkd.training.published.OF_EXITS`` as in
configs/hdkd_cifar.py: an MSDNet of two scales and four exits, which end blocks of 1, 2, 3 and 4
layers, on images of 16x16. DBT has no factor 10 / exits here (``variant="clean"``), so that its
loss is as large as those of the others. ``early_exit``: an MSDNet of seven exits on 32x32 by HDKD,
whose weights learn at every fifth step, and its SavedModel that leaves early. With the word
``smoke`` (``hdkd,smoke``) one epoch on 40 digits of scikit-learn.
"""

from tfkd.training import arguments, published
from tfkd.training.config import default, shrink


def get_config(argument: str = ""):
    """Returns the experiment of a method."""
    words = arguments.parse(
        argument, "METHOD", "early_exit", default="hdkd", METHOD=published.OF_EXITS
    )
    config = default()
    config.experiment = f"cifar10-exits-{words.name}"
    config.data.name = "folder:data/cifar10"
    config.data.image_size = 16
    config.data.validation_size = 2000
    config.data.train_size = 10_000
    config.student.name = "msdnet"
    config.student.kwargs = dict(blocks=(1, 2, 3, 4), scales=2)

    config.train.epochs = 20
    config.train.batch_size = 64
    config.train.learning_rate = 0.1
    config.train.optimizer.weight_decay = 1e-4
    config.train.schedule.name = "cosine"

    published.apply(config, words.method or "hdkd")
    if "dbt" in config.methods:
        config.methods.dbt.variant = "clean"
    if words.early_exit:
        config.data.image_size = 32
        config.student.name = "msdnet_cifar_even7"
        config.student.kwargs = {}
        config.methods.hdkd.update_every = 5
        config.export.enabled = True

    if words.smoke:
        shrink(config, image_size=16)
    return config
