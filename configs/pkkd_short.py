"""An adder ResNet-20 on a part of CIFAR-10, alone and taught, small enough for two CPU cores.

Method: PKKD, https://arxiv.org/abs/2009.13044; adder networks, https://arxiv.org/abs/1912.13200.
Data: ``folder:PATH`` with train/CLASS/*.jpg and test/CLASS/*.jpg. 2,000 training images are held
out to choose the best epoch and 10,000 of the others are trained on; all are resized to 16x16. All
10,000 test images are used.
Recipe, the same for every role: 20 epochs, batches of 64, SGD with momentum 0.9, weight decay 5e-4,
learning rate 0.1 falling as a cosine.
Expected, measured over three seeds: cnn 63.4 ± 1.2 %, adder 53.9 ± 2.8 %, adder_kd 58.7 ± 0.4 %,
pkkd 58.6 ± 0.4 %; see RESULTS.md.
Cost: 8 minutes (cnn) to 19 (pkkd) a run on one CPU core.
Command: python tools/train.py --config=configs/pkkd_short.py:pkkd --workdir=runs/pkkd/seed0 \\
    --config.data.name=folder:/data/cifar10

Argument: ``cnn``, the network with convolutions; ``adder``, with adder layers; ``adder_kd``, adder
layers and a trained ``cnn`` by soft labels (equation 4 of the paper with alpha = 1); ``pkkd``
(default), adder layers and a ``cnn`` that trains beside them; ``pkkd_fixed``, the same with a
trained ``cnn``. With the word ``smoke`` (``pkkd,smoke``) one epoch on 40 digits of scikit-learn.
"""

from tfkd.training import arguments
from tfkd.training.config import default, methods, shrink, vary

ROLES = ("cnn", "adder", "adder_kd", "pkkd", "pkkd_fixed")


def get_config(argument: str = ""):
    """Returns the experiment of a role."""
    words = arguments.parse(argument, "ROLE", default="pkkd", ROLE=ROLES)
    role = words.role
    config = default()
    config.experiment = f"cifar10-short-{words.name}"
    config.data.name = "folder:data/cifar10"
    config.data.image_size = 16
    config.data.validation_size = 2000
    config.data.train_size = 10_000
    config.student.name = "resnet20"
    # The convolutional counterpart of an adder network has normalized logits, as that has.
    counterpart = dict(logit_normalization=True)
    config.student.kwargs = counterpart if role == "cnn" else dict(adder=True)

    config.train.epochs = 20
    config.train.batch_size = 64
    config.train.learning_rate = 0.1
    config.train.optimizer.weight_decay = 5e-4
    config.train.schedule.name = "cosine"

    if role == "adder_kd":
        config.methods = methods(kd=dict(temperature=1.0))
    if role in ("pkkd", "pkkd_fixed"):
        config.methods = methods(pkkd=dict(progressive=role == "pkkd"))
        config.train.optimizer.decay_exclude = ("*/log_tau",)
    if role in ("adder_kd", "pkkd_fixed"):
        config.teacher.config = f"configs/pkkd_short.py:{words.argument('cnn')}"
    if role == "pkkd":
        config.teacher.name = "resnet20"
        config.teacher.kwargs = counterpart
        config.search_space = (vary("methods.pkkd.weight", choices=(0.1, 0.5, 1.0, 5.0, 10.0)),)

    if words.smoke:
        shrink(config, image_size=16)
    return config
