"""The configs of adder networks: every argument is an experiment, a wrong one one line."""

import itertools

import pytest

from tfkd import models
from tfkd.errors import TfkdError
from tfkd.models.registry import create
from tfkd.training import config as configs
from tfkd.training import config_checks, optimizers

ROLES = ("cnn", "adder", "kd", "pkkd", "fixed")
SHORT = ("cnn", "adder", "adder_kd", "pkkd", "pkkd_fixed")
CIFAR = [
    ",".join(words)
    for words in itertools.product(
        ROLES, ("resnet20", "resnet32", "vgg_small"), ("cifar10", "cifar100")
    )
]
IMAGENET = [",".join(words) for words in itertools.product(ROLES, ("resnet18", "resnet50"))]
REFERENCES = [
    *(f"configs/pkkd_cifar.py:{argument}" for argument in CIFAR),
    *(f"configs/pkkd_imagenet.py:{argument}" for argument in IMAGENET),
    *(f"configs/pkkd_short.py:{argument}" for argument in SHORT),
]


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_argument_is_an_experiment(reference):
    config = configs.load(reference)
    config_checks.validate(config)
    role = reference.split(":")[1].split(",")[0]
    twin = {"logit_normalization": True}
    assert configs.to_dict(config.student.kwargs) == (twin if role == "cnn" else {"adder": True})
    assert configs.trains_teacher(config) == (role == "pkkd")
    trained = role in ("kd", "adder_kd", "fixed", "pkkd_fixed")
    assert configs.has_teacher(config) == trained
    if trained:
        # The teacher is the twin with convolutions, trained by the same recipe on the same data.
        teacher = configs.load(config.teacher.config)
        config_checks.validate(teacher)
        assert configs.to_dict(teacher.student.kwargs) == twin
        assert teacher.student.name == config.student.name
        assert configs.to_dict(teacher.data) == configs.to_dict(config.data)
        assert teacher.train.epochs == config.train.epochs
    if role == "pkkd":
        assert config.teacher.name == config.student.name
        assert configs.to_dict(config.teacher.kwargs) == twin
        assert config.train.optimizer.decay_exclude == ("*/log_tau",)


def test_recipe_of_the_paper():
    cifar = configs.load("configs/pkkd_cifar.py").train
    imagenet = configs.load("configs/pkkd_imagenet.py").train
    assert (cifar.epochs, imagenet.epochs) == (400, 150)
    assert (cifar.optimizer.weight_decay, imagenet.optimizer.weight_decay) == (5e-4, 1e-4)
    for train in (cifar, imagenet):
        assert (train.batch_size, train.learning_rate, train.schedule.name) == (256, 0.1, "cosine")
        assert optimizers.create(train.optimizer, train.learning_rate).momentum == 0.9


def test_weights_of_the_paper_are_a_search():
    (entry,) = configs.load("configs/pkkd_cifar.py").search_space
    assert entry.fields == ("methods.pkkd.weight",)
    assert entry.choices == (0.1, 0.5, 1.0, 5.0, 10.0)


@pytest.mark.parametrize("argument", ["pkkd,resnet20,cifar10", "fixed,vgg_small,cifar10"])
def test_the_layers_of_twins_are_found_and_fit(argument):
    config = configs.load(f"configs/pkkd_cifar.py:{argument}")
    (loss,) = configs.objectives(config)
    twins = [
        create(config.student.name, 10, (32, 32, 3), **settings)
        for settings in ({"adder": True}, {"logit_normalization": True})
    ]
    student, teacher = map(models.as_network, twins)
    loss.choose_taps(student, [teacher])
    taps = loss.requires.taps
    assert taps["student", "main"] == taps["teacher", "main"]
    found = taps["student", "main"][1:]
    assert len(found) == (9 if "resnet20" in argument else 5)
    for name in found:
        own, other = (twin.get_layer(name) for twin in twins)
        assert type(own).__name__ == "AdderConv2D"
        assert type(other).__name__ == "Conv2D"
        assert own.output.shape == other.output.shape


@pytest.mark.parametrize(
    "reference, message",
    [
        ("pkkd_cifar.py:pkkd,resnet20", "found 2 words, wanted ROLE,NETWORK,DATA"),
        ("pkkd_cifar.py:pkd,resnet20,cifar10", "unknown role 'pkd'; did you mean 'pkkd'"),
        ("pkkd_cifar.py:pkkd,resnet56,cifar10", "unknown network 'resnet56'; did you mean"),
        ("pkkd_cifar.py:pkkd,resnet20,digits", "unknown data 'digits'"),
        ("pkkd_imagenet.py:pkkd", "found 1 words, wanted ROLE,NETWORK"),
        ("pkkd_imagenet.py:pkkd,resnet20", "unknown network 'resnet20'; did you mean"),
        ("pkkd_short.py:kd", "unknown role 'kd'; did you mean 'pkkd'"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(reference, message):
    with pytest.raises(TfkdError, match=message):
        configs.load(f"configs/{reference}")
