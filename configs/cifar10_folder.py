"""Every method on a tenth of the CIFAR-10 images, small enough for two CPU cores.

Data: ``folder:PATH`` with train/CLASS/*.jpg and test/CLASS/*.jpg. 1,000 training images are held
out to choose the best epoch and 5,000 of the others are trained on; all are resized to 16x16. All
10,000 test images are used.
Networks: ResNet-20 teaches ResNet-8, or another network that is named. Recipe, the same for every
method: 10 epochs, batches of 64, SGD with momentum 0.9, weight decay 5e-4, learning rate 0.05
falling as a cosine after one epoch of warm-up. The teacher trains for 16 epochs.
Expected: teacher 48.6 %, student alone 44.3 %, with KD 45.5 %, with the best methods 47.5 %; see
RESULTS.md.
Cost: about a minute a run on two CPU cores.
Command: python tools/compare.py --config=configs/cifar10_folder.py --workdir=runs/cifar10 \\
    --methods=kd,dkd,dist --config.data.name=folder:/data/cifar10

Argument: ``METHOD`` or ``METHOD,STUDENT`` (default ``kd,resnet8``), or ``teacher``. METHOD is one
of ``tfkd.training.published.names()``, with its published weights for CIFAR-100, or ``plain``
(``auxvar``, ``auxvar_elbo``, ``auxvar_infonce``, ``auxvar_no_variable``,
``auxvar_no_variable_unscaled``, ``auxvar_untied`` are the ablation of AuxVar, whose queue holds
1,024 images here, and 256 to 2,048 where it is searched);
STUDENT is the name of a network (``kd,vgg8``). Warm-ups and stages of methods keep the
share that they have of 240 epochs. With the word ``smoke`` (``kd,smoke``) one epoch on 40 digits of
scikit-learn.
"""

from tfkd import models
from tfkd.training import arguments, published
from tfkd.training.config import default, shrink, vary


def get_config(argument: str = ""):
    """Returns the experiment of a method."""
    words = arguments.parse(
        argument, "METHOD", "METHOD,STUDENT", "teacher", default="kd",
        METHOD=("plain", *published.names()), STUDENT=models.names(),
    )  # fmt: skip
    student = words.student or "resnet8"
    config = default()
    config.experiment = f"cifar10-{words.name}"
    config.data.name = "folder:data/cifar10"
    config.data.image_size = 16
    config.data.validation_size = 1000
    config.data.train_size = 5000

    config.train.epochs = 10
    config.train.batch_size = 64
    config.train.learning_rate = 0.05
    config.train.schedule.name = "cosine"

    config.student.name = student
    if words.teacher:
        config.student.name = "resnet20"
        config.train.epochs = 16
    elif words.method != "plain":
        preset = published.apply(config, words.method, teacher="resnet20", student=student)
        if preset.method == "auxvar":
            config.methods.auxvar.queue_size = 1024  # 4,096 would be most of these images.
            queue = "methods.auxvar.queue_size"
            config.search_space = tuple(
                vary(queue, choices=(256, 1024, 2048)) if queue in each.fields else each
                for each in config.search_space
            )
        teacher = words.argument("teacher")
        if preset.teacher == published.SELF_TEACHER:
            teacher = words.argument("plain", *([words.student] if words.student else []))
        config.teacher.config = f"configs/cifar10_folder.py:{teacher}"
    config.train.published_epochs = 240
    config.train.schedule.warmup_epochs = 240 / config.train.epochs  # One epoch of these.

    if words.smoke:
        shrink(config, image_size=16)
    return config
