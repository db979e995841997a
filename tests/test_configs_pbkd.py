"""The configs of blockwise distillation: every argument is an experiment, by the paper's recipe."""

import itertools

import pytest

from tfkd.training import config as configs
from tfkd.training import config_checks, optimizers
from tfkd.tuning import space

ROLES = ("teacher", "pbkd", "local", "labels", "kd", "scratch")
REFERENCES = [
    *(
        f"configs/pbkd_cifar.py:{role},{data}"
        for role, data in itertools.product(ROLES, ("cifar10", "cifar100"))
    ),
    *(f"configs/pbkd_imagenet.py:{role}" for role in ("teacher", "pbkd", "pbkd_all", "scratch")),
    *(f"configs/pbkd_short.py:{role}" for role in ("teacher", "scratch", "kd", "pbkd")),
]


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_argument_is_an_experiment(reference):
    config = configs.load(reference)
    config_checks.validate(config)
    role = reference.split(":")[1].split(",")[0]
    assert configs.has_teacher(config) == (role not in ("teacher", "scratch"))
    if role == "teacher":
        assert config.student.name.startswith("vgg16_")
        return
    assert config.student.name == "blockwise"
    if configs.has_teacher(config):
        # The teacher is the network that the student is made of, on the same data.
        teacher = configs.load(config.teacher.config)
        config_checks.validate(teacher)
        made_of = configs.to_dict(config.student.kwargs)
        assert teacher.student.name == made_of["of"]
        assert configs.to_dict(teacher.student.kwargs) == made_of.get("of_kwargs", {})
        assert configs.to_dict(teacher.data) == configs.to_dict(config.data)


def test_recipe_of_the_paper():
    cifar, imagenet = (configs.load(f"configs/pbkd_{name}.py") for name in ("cifar", "imagenet"))
    assert (cifar.train.epochs, cifar.train.batch_size) == (6, 100)
    assert (cifar.train.schedule.name, cifar.train.schedule.milestones) == ("step", (3.0,))
    assert (imagenet.methods.pbkd.stage_steps, imagenet.train.batch_size) == (50_000, 32)
    assert imagenet.train.schedule.name == "constant"
    assert configs.to_dict(imagenet.student.kwargs.blocks) == [1, 2, 3, 4]
    for config, decay in ((cifar, 0.005), (imagenet, 0.0005)):
        assert config.train.learning_rate == 0.01
        assert config.train.optimizer.weight_decay == decay
        made = optimizers.create(config.train.optimizer, config.train.learning_rate)
        assert made.momentum == 0.9
    ablations = [configs.load(f"configs/pbkd_cifar.py:{role},cifar10") for role in ROLES[1:4]]
    assert [each.methods.pbkd.learns_from for each in ablations] == ["both", "local", "labels"]


@pytest.mark.parametrize("name", ["cifar", "short"])
def test_lambda_is_a_search(name):
    config = configs.load(f"configs/pbkd_{name}.py")
    (dimension,) = space.dimensions(config)
    assert dimension.fields == ("methods.pbkd.weight",)
    assert dimension.values == (5e-6, 5e-5, 5e-4, 5e-3, 5e-2)
