"""MSDNets on CIFAR-100, whose exits learn from one another: HDKD and what it is compared with.

Method: Wang, Li, "Harmonized Dense Knowledge Distillation Training for Multi-Exit Architectures",
AAAI 2021, doi 10.1609/aaai.v35i11.17225; networks https://arxiv.org/abs/1703.09844.
Recipe of the paper: 300 epochs, batches of 128, SGD with momentum 0.9, learning rate 0.1, x0.1
after epochs 150 and 225, weight decay 1e-4; 45,000 images to train on, 5,000 held out for the
weights of the losses and the thresholds of early exits, 10,000 to test.
Expected: not run here, and no table of the paper could be had. A last exit of about 76 % without
distillation is reported elsewhere for seven exits. HDKD is a reconstruction.
Cost: days on two CPU cores; see configs/hdkd_short.py for a short form.
Command: python tools/train.py --config=configs/hdkd_cifar.py:hdkd,msdnet_cifar_even11 \\
    --workdir=runs/hdkd/seed0

Arguments: ``METHOD,NETWORK`` (default ``hdkd,msdnet_cifar_even11``). METHOD is one of
``tfkd.training.published.OF_EXITS``: ``deep_supervision``, the labels alone; ``dbt`` and
``dbt_constant``, the deepest exit as a teacher with a temperature that grows or stays;
``dense_kd``, all pairs alike; ``hdkd``, all pairs with learned weights; ``hmsdnet`` and ``hdbt``,
learned weights of the labels alone and of the losses of DBT; ``imta``, gradient equilibrium.
NETWORK is an MSDNet for CIFAR. With the word ``smoke`` (``hdkd,msdnet_cifar_lin5,smoke``) one epoch
on 40 digits of scikit-learn, which need no download.

A shorter run (``--config.train.epochs=30``) keeps the shares of the milestones. CIFAR-10 is
``--config.data.name=cifar10``.
"""

from tfkd import models
from tfkd.training import arguments, published
from tfkd.training.config import default, shrink

NETWORKS = tuple(name for name in models.names() if name.startswith("msdnet_cifar_"))


def get_config(argument: str = ""):
    """Returns the experiment of a method and a network."""
    words = arguments.parse(
        argument, "METHOD,NETWORK", default="hdkd,msdnet_cifar_even11",
        METHOD=published.OF_EXITS, NETWORK=NETWORKS,
    )  # fmt: skip
    config = default()
    config.experiment = f"cifar100-{words.name}"
    config.data.name = "cifar100"
    config.data.validation_size = 5000
    config.student.name = words.network

    config.train.epochs = 300
    config.train.published_epochs = 300
    config.train.batch_size = 128
    config.train.learning_rate = 0.1
    config.train.optimizer.weight_decay = 1e-4
    config.train.schedule.milestones = (150, 225)
    published.apply(config, words.method, student=words.network)

    if words.smoke:
        shrink(config, image_size=16)
    return config
