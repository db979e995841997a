"""Adder networks on ImageNet: alone, and taught by their convolutional counterparts.

Method: PKKD, https://arxiv.org/abs/2009.13044; adder networks, https://arxiv.org/abs/1912.13200.
Recipe of the paper: 150 epochs, batches of 256, SGD with momentum 0.9, weight decay 1e-4, learning
rate 0.1 falling as a cosine for student and teacher; alpha = beta is not given, 1 is used. Random
resized crop of 224 pixels and mirroring, tested on the center of images whose shorter side is 256.
Expected, as published: resnet18 cnn 69.8 %, adder 67.0 %, pkkd 68.8 %; resnet50 76.2 %, 74.9 %,
76.8 %. Not run here; PKKD is a reconstruction.
Command: python tools/train.py --config=configs/pkkd_imagenet.py:pkkd,resnet18 \\
    --workdir=runs/pkkd_imagenet --strategy=mirrored

Arguments: ``ROLE,NETWORK`` (default ``pkkd,resnet18``). ROLE: ``cnn``, the network with
convolutions; ``adder``, with adder layers; ``kd``, adder layers and a trained ``cnn`` by soft
labels (equation 4 of the paper with alpha = 1); ``pkkd``, adder layers and a ``cnn`` that trains
beside them; ``fixed``, the same with a trained ``cnn``. NETWORK: ``resnet18``, ``resnet50``. With
the word ``smoke`` (``pkkd,resnet18,smoke``) one epoch on 40 digits of scikit-learn, which need no
download.
"""

from tfkd.training import arguments
from tfkd.training.config import default, methods, shrink

ROLES = ("cnn", "adder", "kd", "pkkd", "fixed")
NETWORKS = ("resnet18", "resnet50")


def get_config(argument: str = ""):
    """Returns the experiment of a role."""
    words = arguments.parse(
        argument, "ROLE,NETWORK", default="pkkd,resnet18", ROLE=ROLES, NETWORK=NETWORKS
    )
    role, network = words.role, words.network
    config = default()
    config.experiment = f"imagenet-{words.name}"
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.augment = "imagenet"
    config.student.name = network
    # The convolutional counterpart of an adder network has normalized logits, as that has.
    counterpart = dict(logit_normalization=True)
    config.student.kwargs = counterpart if role == "cnn" else dict(adder=True)

    config.train.epochs = 150
    config.train.batch_size = 256
    config.train.learning_rate = 0.1
    config.train.optimizer.weight_decay = 1e-4
    config.train.schedule.name = "cosine"

    if role == "kd":
        config.methods = methods(kd=dict(temperature=1.0))
    if role in ("pkkd", "fixed"):
        config.methods = methods(pkkd=dict(progressive=role == "pkkd"))
        config.train.optimizer.decay_exclude = ("*/log_tau",)
    if role in ("kd", "fixed"):
        config.teacher.config = f"configs/pkkd_imagenet.py:{words.argument('cnn', network)}"
    if role == "pkkd":
        config.teacher.name = network
        config.teacher.kwargs = counterpart

    if words.smoke:
        shrink(config, image_size=32)
    return config
