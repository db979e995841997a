"""Adder networks on CIFAR-10 and CIFAR-100: alone, and taught by their convolutional counterparts.

Method: PKKD, https://arxiv.org/abs/2009.13044; adder networks, https://arxiv.org/abs/1912.13200.
Recipe of the paper: 400 epochs, batches of 256, SGD with momentum 0.9, learning rate 0.1 falling as
a cosine for student and teacher, weight decay 5e-4 (that of the adder networks' code), the best of
alpha = beta in 0.1, 0.5, 1, 5, 10. Both are the weight of the method here: ``methods.pkkd.weight``.
Expected, as published (CIFAR-10 / CIFAR-100): resnet20 cnn 92.93 / 68.75, adder 92.02 / 67.60, pkkd
92.96 / 69.93; resnet32 93.59 / 70.46, 93.01 / 69.17, 93.62 / 72.41; vgg_small 94.25 / 75.96,
93.72 / 74.58, 95.03 / 76.94. Not run here; PKKD is a reconstruction.
Cost: days on two CPU cores; see configs/pkkd_short.py for a short form.
Command: python tools/train.py --config=configs/pkkd_cifar.py:pkkd,resnet20,cifar10 \\
    --workdir=runs/pkkd/seed0
Search: python tools/tune.py --config=configs/pkkd_cifar.py:pkkd,resnet20,cifar10 \\
    --workdir=runs/pkkd_weights --config.data.validation_size=5000

Arguments: ``ROLE,NETWORK,DATA`` (default ``pkkd,resnet20,cifar10``). ROLE: ``cnn``, the network
with convolutions; ``adder``, with adder layers; ``kd``, adder layers and a trained ``cnn`` by soft
labels (equation 4 of the paper with alpha = 1); ``pkkd``, adder layers and a ``cnn`` that trains
beside them; ``fixed``, the same with a trained ``cnn``. NETWORK: ``resnet20``, ``resnet32``,
``vgg_small``. DATA: ``cifar10``, ``cifar100``. With the word ``smoke``
(``pkkd,resnet20,cifar10,smoke``) one epoch on 40 digits of scikit-learn, which need no download.
"""

from tfkd.training import arguments
from tfkd.training.config import default, methods, shrink, vary

ROLES = ("cnn", "adder", "kd", "pkkd", "fixed")
NETWORKS = ("resnet20", "resnet32", "vgg_small")
DATA = ("cifar10", "cifar100")


def get_config(argument: str = ""):
    """Returns the experiment of a role."""
    words = arguments.parse(
        argument, "ROLE,NETWORK,DATA", default="pkkd,resnet20,cifar10",
        ROLE=ROLES, NETWORK=NETWORKS, DATA=DATA,
    )  # fmt: skip
    role, network, data = words.role, words.network, words.data
    config = default()
    config.experiment = words.name
    config.data.name = data
    config.student.name = network
    # The convolutional counterpart of an adder network has normalized logits, as that has.
    counterpart = dict(logit_normalization=True)
    config.student.kwargs = counterpart if role == "cnn" else dict(adder=True)

    config.train.epochs = 400
    config.train.batch_size = 256
    config.train.learning_rate = 0.1
    config.train.optimizer.weight_decay = 5e-4
    config.train.schedule.name = "cosine"

    if role == "kd":
        config.methods = methods(kd=dict(temperature=1.0))
    if role in ("pkkd", "fixed"):
        config.methods = methods(pkkd=dict(progressive=role == "pkkd"))
        config.train.optimizer.decay_exclude = ("*/log_tau",)
    if role in ("kd", "fixed"):
        config.teacher.config = f"configs/pkkd_cifar.py:{words.argument('cnn', network, data)}"
    if role == "pkkd":
        config.teacher.name = network
        config.teacher.kwargs = counterpart
        config.search_space = (vary("methods.pkkd.weight", choices=(0.1, 0.5, 1.0, 5.0, 10.0)),)

    if words.smoke:
        shrink(config, image_size=16)
    return config
