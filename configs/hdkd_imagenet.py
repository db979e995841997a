"""MSDNets on ImageNet, whose exits learn from one another: HDKD and what it is compared with.

Method: Wang, Li, "Harmonized Dense Knowledge Distillation Training for Multi-Exit Architectures",
AAAI 2021, doi 10.1609/aaai.v35i11.17225; networks https://arxiv.org/abs/1703.09844.
Recipe: batches of 1024, SGD with momentum 0.9, weight decay 1e-4, 50,000 training images held out
for the weights of the losses and the thresholds of early exits, as the paper has it; 90 epochs,
learning rate 0.4 after five epochs of warm-up, x0.1 after epochs 30 and 60, the usual schedule for
such batches (Goyal et al., https://arxiv.org/abs/1706.02677), as the paper's could not be had.
Random resized crops of 224 pixels and mirroring, tested on the center of images whose shorter side
is 256.
Expected: not run here; HDKD is a reconstruction.
Cost: days on several GPUs.
Command: python tools/train.py --config=configs/hdkd_imagenet.py:hdkd,msdnet_imagenet_7 \\
    --workdir=runs/hdkd_imagenet --strategy=mirrored

Arguments: ``METHOD,NETWORK`` (default ``hdkd,msdnet_imagenet_7``). METHOD is one of
``tfkd.training.published.OF_EXITS``, as in configs/hdkd_cifar.py; NETWORK an MSDNet for ImageNet. A
shorter run (``--config.train.epochs=10``) keeps the shares of milestones and warm-up. With the word
``smoke`` (``hdkd,msdnet_imagenet_4,smoke``) one epoch on 40 digits of scikit-learn, which need no
download.
"""

from tfkd import models
from tfkd.training import arguments, published
from tfkd.training.config import default, shrink

NETWORKS = tuple(name for name in models.names() if name.startswith("msdnet_imagenet_"))


def get_config(argument: str = ""):
    """Returns the experiment of a method and a network."""
    words = arguments.parse(
        argument, "METHOD,NETWORK", default="hdkd,msdnet_imagenet_7",
        METHOD=published.OF_EXITS, NETWORK=NETWORKS,
    )  # fmt: skip
    config = default()
    config.experiment = f"imagenet-{words.name}"
    config.data.name = "imagenet2012"
    config.data.augment = "imagenet"
    config.data.image_size = 224
    config.data.validation_size = 50_000
    config.student.name = words.network

    config.train.epochs = 90
    config.train.published_epochs = 90
    config.train.batch_size = 1024
    config.train.learning_rate = 0.4
    config.train.optimizer.weight_decay = 1e-4
    config.train.schedule.warmup_epochs = 5.0
    config.train.schedule.milestones = (30, 60)
    published.apply(config, words.method, images="imagenet", student=words.network)

    if words.smoke:
        shrink(config, image_size=64)
    return config
