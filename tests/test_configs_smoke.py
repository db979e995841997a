"""The word ``smoke`` makes every shipped config small enough for a laptop without network."""

import pytest

from tfkd.training import config as configs
from tfkd.training import config_checks, published, run

ARGUMENTS = {
    "quickstart": ["", "distilled", "alone", "teacher"],
    "cifar100": [
        "",
        "plain,vgg8",
        "plain,resnet20,own,teacher_free",
        "ps_kd,resnet20,own",
        "teacher_free_self,resnet20,own",
        *(f"{name},resnet56,resnet20" for name in published.names()),
    ],
    "imagenet": ["", "plain,resnet18", "dkd,resnet50,mobilenetv1"],
    "cifar10_folder": ["", "plain", "teacher", *published.names()],
    "folder": ["", "plain,resnet20", "dkd,resnet34,resnet18", "cs_kd,resnet20"],
    "pkkd_cifar": [
        "",
        *(f"{role},vgg_small,cifar100" for role in ("cnn", "adder", "kd", "pkkd", "fixed")),
    ],
    "pkkd_imagenet": ["", *(f"{role},resnet50" for role in ("cnn", "adder", "kd", "fixed"))],
    "pkkd_short": ["", "cnn", "adder", "adder_kd", "pkkd_fixed"],
    "pbkd_cifar": ["", *(f"{role},cifar100" for role in ("teacher", "labels"))],
    "pbkd_imagenet": ["", "teacher"],
    "pbkd_short": ["", "scratch", "kd"],
    "hdkd_cifar": ["", "dbt_constant,msdnet_cifar_lin5"],
    "hdkd_imagenet": ["imta,msdnet_imagenet_4"],
    "hdkd_short": ["early_exit", "dense_kd", "hdkd", "hmsdnet", "hdbt", "imta"],
}
CASES = [(file, argument) for file, listed in ARGUMENTS.items() for argument in listed]


def reference(file, argument, *words):
    return f"configs/{file}.py:{','.join(filter(None, [argument, *words]))}"


@pytest.mark.parametrize(("file", "argument"), CASES)
def test_smoke_is_one_small_epoch_of_the_same_networks_and_methods(file, argument):
    whole = configs.load(reference(file, argument))
    config = configs.load(reference(file, argument, "smoke"))
    config_checks.validate(config)
    assert config.experiment == f"{whole.experiment}-smoke"
    assert (config.data.name, config.data.train_size) == ("digits", 40)
    assert (configs.epochs(config), config.train.batch_size) == (1, 20)
    for same in ("student", "student_loss_weight"):
        assert configs.to_dict(config[same]) == configs.to_dict(whole[same])
    # A stage whose length is given in steps has that of an epoch here.
    methods = configs.to_dict(whole.methods)
    in_steps = [each for each in methods.values() if each.get("stage_steps")]
    for each in in_steps:
        each["stage_steps"] = None
    assert configs.to_dict(config.methods) == methods
    assert config.train.optimizer.to_json() == whole.train.optimizer.to_json()
    if whole.teacher.config:
        assert config.teacher.config == f"{whole.teacher.config},smoke"
        assert configs.epochs(configs.load(config.teacher.config)) == 1
    assert configs.epochs(whole) > 1 or in_steps


QUICK = [
    ("quickstart", ""),
    ("cifar100", "kd,resnet14,resnet8"),
    ("imagenet", "plain,resnet18"),
    ("cifar10_folder", "plain"),
    ("pkkd_cifar", "adder,resnet20,cifar10"),
    ("pkkd_imagenet", "cnn,resnet18"),
    ("pkkd_short", "cnn"),
    ("pbkd_short", "scratch"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "argument"), QUICK)
def test_smoke_runs_offline(file, argument, tmp_path):
    config = configs.load(reference(file, argument, "smoke"))
    config = configs.override(config, teacher__workdir=str(tmp_path / "teacher"), train__verbose=0)
    if not config.teacher.config:
        config = configs.override(config, teacher__workdir=None)
    result = run(config, tmp_path / "run")
    assert (result["epochs"], result["dataset"]) == (1, "digits")
    assert 0 <= result["top1_last"] <= 100
    assert (result["teacher"] is None) == (not config.teacher.config)


def test_an_argument_of_smoke_alone_is_the_default():
    for file in ARGUMENTS:
        config = configs.load(f"configs/{file}.py:smoke")
        assert config.to_json() == configs.load(reference(file, "", "smoke")).to_json()
        assert config.experiment == f"{configs.load(f'configs/{file}.py').experiment}-smoke"
