"""The published settings of each method, and the configs that use them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tfkd import TfkdError
from tfkd.training import config as configs
from tfkd.training import config_checks, published, run
from tfkd.training.run_folder import comparable
from tfkd.tuning import space

CONFIGS = Path(__file__).parents[2] / "configs"


def settings(name, **networks):
    config = configs.default()
    preset = published.apply(config, name, **networks)
    return config.methods[preset.method], config.student_loss_weight, preset


@pytest.mark.parametrize("images", published.SETS)
def test_every_preset_makes_its_method(images):
    for name in published.names(images):
        config = configs.default()
        preset = published.apply(config, name, images=images)
        objectives = configs.objectives(config)
        assert configs.method_names(config) == sorted([preset.method, *preset.also])
        needed = any(each.requires.needs_teacher for each in objectives)
        assert needed == bool(preset.teacher), name


def test_a_preset_may_hold_two_methods():
    for name, weight in (("crd_kd", 0.8), ("wcord_kd", 1.0), ("srrl_kd", 1.0)):
        config = configs.default()
        preset = published.apply(config, name)
        assert config.methods[preset.method].weight == weight
        assert (config.methods.kd.weight, config.methods.kd.temperature) == (1.0, 4.0)
        assert config.student_loss_weight == 1.0
        alone = configs.default()
        published.apply(alone, name.removesuffix("_kd"))
        assert list(alone.methods) == [preset.method]
        wanted = configs.to_dict(alone.methods[preset.method]) | preset.settings
        assert configs.to_dict(config.methods[preset.method]) == wanted


def test_every_method_of_logits_has_a_preset():
    methods = {published.preset(name).method for name in published.names()}
    assert methods >= set("kd dkd ipwd wsld cs_kd teacher_free ps_kd nkd uskd mld dist".split())


@pytest.mark.parametrize(
    ("name", "images", "weight", "label_weight", "values"),
    [
        ("kd", "cifar100", 0.9, 0.1, {"temperature": 4.0}),
        ("wsld", "cifar100", 2.25, 1.0, {"temperature": 4.0}),
        ("wsld", "imagenet", 2.5, 1.0, {"temperature": 2.0}),
        ("cs_kd", "cifar100", 1.0, 1.0, {"temperature": 4.0}),
        ("nkd", "cifar100", 1.0, 1.0, {"temperature": 3.0, "nontarget_weight": 3.5}),
        ("nkd", "imagenet", 1.0, 1.0, {"temperature": 1.0, "nontarget_weight": 1.5}),
        ("dist", "cifar100", 2.0, 1.0, {"temperature": 4.0}),
        ("dist", "imagenet", 2.0, 1.0, {"temperature": 1.0}),
        ("dkd", "imagenet", 1.0, 1.0, {"temperature": 1.0, "warmup_epochs": 1.0}),
        ("ipwd", "cifar100", 1.0, 0.1, {"temperature": 4.0, "kd_weight": 0.9}),
        (
            "mld",
            "imagenet",
            1.0,
            1.0,
            {"label_weight": 0.5, "temperatures": (1.0, 3.0, 5.0, 2.0, 6.0)},
        ),
        ("mld_clean", "imagenet", 1.0, 1.0, {"label_weight": 0.5, "variant": "clean"}),
        ("ps_kd", "cifar100", 1.0, 1.0, {"final_memory_weight": 0.8}),
        ("sskd", "cifar100", 1.0, 1.0, {"label_weight": 0.1, "head_epochs": 60.0}),
        ("sskd", "imagenet", 1.0, 1.0, {"label_weight": 1.0, "similarity_weight": 10.0}),
        ("fitnets", "cifar100", 100.0, 1.0, {"form": "joint"}),
        ("fitnets_two_stage", "cifar100", 1.0, 1.0, {"form": "two_stage", "hint_epochs": 30.0}),
        ("at", "cifar100", 1000.0, 1.0, {"power": 2.0}),
        ("vid", "cifar100", 1.0, 1.0, {"initial_variance": 5.0}),
        ("cocord", "cifar100", 1.0, 1.0, {"contrast_weight": 1.0, "prediction_weight": 4.0}),
        ("diffkd", "cifar100", 1.0, 1.0, {"kd_weight": 1.0, "latent_width": None}),
        ("diffkd", "imagenet", 1.0, 1.0, {"kd_weight": 1.0, "latent_width": 1024}),
        ("crd", "cifar100", 0.8, 1.0, {"temperature": 0.07, "width": 128, "negatives": None}),
        ("wcord", "cifar100", 1.0, 1.0, {"global_weight": 0.8, "local_weight": 0.05}),
        ("auxvar", "cifar100", 1.0, 1.0, {"kappa": 10.0, "queue_size": 4096}),
        ("auxvar", "imagenet", 1.0, 1.0, {"objective": "marginal", "queue_size": 16384}),
        ("auxvar_untied", "imagenet", 1.0, 1.0, {"query_temperature": 1.0, "queue_size": 16384}),
        ("auxvar_no_variable", "cifar100", 1.0, 1.0, {"temperature": 4.0}),
        ("auxvar_no_variable_unscaled", "cifar100", 1 / 16, 1.0, {"temperature": 4.0}),
        ("uskd", "imagenet", 1.0, 1.0, {"target_weight": 1.0, "weak_weight": 0.005}),
        ("sp", "cifar100", 3000.0, 1.0, {}),
        ("rkd", "cifar100", 1.0, 1.0, {"distance_weight": 25.0, "angle_weight": 50.0}),
        ("pkt", "cifar100", 30000.0, 1.0, {}),
        ("srrl", "imagenet", 1.0, 1.0, {"connector_on": "map", "regression_weight": 1.0}),
        ("reviewkd", "cifar100", 1.0, 1.0, {"warmup_epochs": 20.0, "max_channels": 512}),
        ("reviewkd", "imagenet", 1.0, 1.0, {"warmup_epochs": 0.0, "student_preactivation": True}),
        ("norm", "cifar100", 1.0, 0.25, {"expansion": 8, "kd_weight": 0.0}),
        ("norm", "imagenet", 1.0, 1.0, {"phase_epochs": (5.0, 15.0, 60.0, 80.0)}),
    ],
)
def test_published_values(name, images, weight, label_weight, values):
    entry, found, _ = settings(name, images=images)
    assert (entry.weight, found) == (weight, label_weight)
    assert {key: entry[key] for key in values} == values


@pytest.mark.parametrize(
    ("teacher", "student", "beta"),
    [
        ("resnet56", "resnet20", 2.0),
        ("resnet110", "resnet32", 2.0),
        ("resnet110", "resnet20", 8.0),
        ("vgg13", "vgg8", 6.0),
        ("wrn_40_2", "wrn_40_1", 6.0),
        ("resnet32x4", "shufflev1", 8.0),
    ],
)
def test_weights_that_depend_on_the_pair(teacher, student, beta):
    entry, _, _ = settings("dkd", teacher=teacher, student=student)
    assert entry.nontarget_weight == beta


@pytest.mark.parametrize(
    ("teacher", "student", "weight"),
    [
        ("wrn_40_2", "wrn_16_2", 5.0),
        ("resnet32x4", "shufflev2", 8.0),
        ("resnet56", "resnet20", 0.6),
        ("vgg13", "vgg8", 1.0),
    ],
)
def test_methods_have_weights_by_pair(teacher, student, weight):
    entry, _, _ = settings("reviewkd", teacher=teacher, student=student)
    assert entry.weight == weight


def test_label_losses_have_weights_by_pair():
    for teacher, student, weight in (
        ("resnet34", "resnet18", 1.0),
        ("resnet50", "mobilenetv1", 0.125),
    ):
        networks = {"images": "imagenet", "teacher": teacher, "student": student}
        entry, found, _ = settings("norm", **networks)
        assert found == weight and "student_loss_weight" not in entry
    entry, _, _ = settings("reviewkd", **networks)
    assert (entry.weight, entry.max_channels) == (8.0, 256)


def test_values_that_nobody_published_for_these_images_are_marked():
    of_both = {images: {n: published.preset(n, images) for n in published.names(images)}
               for images in published.SETS}  # fmt: skip
    for name in ("crd", "at", "ps_kd", "kd_standardized", "fitnets", "cocord"):
        assert not of_both["cifar100"][name].marked
        assert of_both["imagenet"][name].marked == "those for CIFAR-100"
    for name in ("srrl", "diffkd", "imta"):
        assert "published for ImageNet alone" in of_both["cifar100"][name].marked
        assert not of_both["imagenet"][name].marked
    for name in ("wcord", "auxvar", "pbkd", "dense_kd", "fitnets_two_stage"):
        assert of_both["cifar100"][name].marked == of_both["imagenet"][name].marked != ""
    for name in ("kd", "dkd", "nkd", "mld", "dist", "reviewkd", "dbt"):
        assert not any(presets[name].marked for presets in of_both.values())


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(TfkdError, match="unknown method 'dkdd'; did you mean 'dkd'"):
        settings("dkdd")
    with pytest.raises(TfkdError, match="wanted one of cifar100, imagenet"):
        settings("kd", images="mnist")


def load(argument, file="cifar100"):
    config = configs.load(f"configs/{file}.py:{argument}")
    config_checks.validate(config)
    return config


def test_all_pairs_and_their_teachers_are_experiments_for_every_method():
    from configs import cifar100

    assert len(set(cifar100.PAIRS)) == 13
    for teacher, student in cifar100.PAIRS:
        config = load(f"kd,{teacher},{student}")
        assert config.student.name == student
        assert config.train.learning_rate == (0.01 if student[0] in "ms" else 0.05)
        alone = load(f"plain,{teacher}")
        assert config.teacher.config == f"configs/cifar100.py:plain,{teacher}"
        assert alone.student.name == teacher and not alone.methods
        for each in (config, alone):
            assert (each.train.epochs, each.train.batch_size) == (240, 64)
            assert tuple(each.train.schedule.milestones) == (150, 180, 210)
            assert each.train.optimizer.weight_decay == 5e-4
    for name in published.names():
        load(f"{name},resnet56,resnet20")


def test_methods_without_a_teacher_need_none_and_may_have_one():
    assert load("ps_kd,resnet20").teacher.config is None
    assert load("ps_kd,resnet56,resnet20").teacher.config.endswith(":plain,resnet56")
    twin = load("teacher_free_self,resnet56,resnet20")
    assert twin.teacher.config == "configs/cifar100.py:plain,resnet20"
    with pytest.raises(TfkdError, match="kd needs a teacher; wanted METHOD,TEACHER,resnet20"):
        load("kd,resnet20")


def test_recipes_that_differ():
    assert load("mld,resnet32x4,resnet8x4").train.learning_rate == 0.025
    longest = load("mld,resnet32x4,shufflev2").train
    assert (longest.epochs, longest.learning_rate) == (960, 0.01)
    own = load("cs_kd,resnet18_cifar,own").train
    assert (own.epochs, own.batch_size, own.learning_rate) == (200, 128, 0.1)
    assert own.optimizer.weight_decay == 1e-4 and tuple(own.schedule.milestones) == (100, 150)
    twin = load("teacher_free_self,resnet20,own")
    assert twin.train.epochs == 200 and twin.train.schedule.decay_factor == 0.2
    reference = twin.teacher.config.removeprefix("configs/cifar100.py:")
    assert load(reference).train.to_json() == twin.train.to_json(), "the twin's recipe is the same"
    with pytest.raises(TfkdError, match="unknown method with a schedule of its own 'kd'"):
        load("kd,resnet56,resnet20,own")


@pytest.mark.parametrize("file", ["cifar100", "imagenet"])
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("kd,resnet5x,resnet20", "unknown teacher 'resnet5x'; did you mean"),
        ("kd,resnet56,resnet2x", "unknown student 'resnet2x'; did you mean"),
        ("plain,resnet2x", "unknown network 'resnet2x'; did you mean"),
        ("kdd,resnet56,resnet20", "unknown method 'kdd'; did you mean 'kd"),
        ("kd", "wanted METHOD,TEACHER,STUDENT"),
        ("plain,resnet56,resnet20", "found 3 words, wanted .* or plain,NETWORK"),
        ("kd,resnet56,resnet32,resnet20", "found 4 words, wanted METHOD,TEACHER,STUDENT or"),
    ],
)
def test_wrong_arguments_are_one_line(file, argument, message):
    with pytest.raises(TfkdError, match=message):
        load(argument, file)


def test_imagenet_pairs():
    from configs import imagenet

    for teacher, student in imagenet.PAIRS:
        config = load(f"dkd,{teacher},{student}", "imagenet")
        assert config.teacher.config == f"configs/imagenet.py:plain,{teacher}"
        assert (config.data.name, config.data.image_size) == ("imagenet2012", 224)
        assert (config.train.epochs, config.train.batch_size) == (100, 256)
        weights = {"resnet18": 0.5, "mobilenetv1": 2.0}
        assert config.methods.dkd.nontarget_weight == weights[student]


def test_auxvar_comes_with_what_is_searched_and_its_queue_follows_the_images():
    config = load("auxvar,resnet56,resnet20")
    found = {each.name: each.values for each in space.dimensions(config)}
    assert found["methods.auxvar.kappa"] == (5.0, 10.0, 14.3, 20.0)
    assert found["methods.auxvar.temperature"] == (1.0, 2.0, 4.0)
    assert found["methods.auxvar.weight"] == (0.5, 1.0, 2.0, 4.0)
    assert found["methods.auxvar.queue_size"] == (1024, 4096, 16384)
    assert found["methods.auxvar.center"] == (False, True)
    assert not load("kd,resnet56,resnet20").search_space
    for name, lacking in (
        ("auxvar_elbo", set()),
        ("auxvar_infonce", {"methods.auxvar.temperature"}),
    ):
        config = load(name, "cifar10_folder")
        assert config.methods.auxvar.queue_size == 1024
        here = {each.name: each.values for each in space.dimensions(config)}
        assert set(found) - set(here) == lacking
        # Of 5,000 images.
        assert here["methods.auxvar.queue_size"] == (256, 1024, 2048)


def test_every_method_has_an_experiment_on_a_folder():
    for name in ("plain", "teacher", *published.names()):
        config = load(name, "cifar10_folder")
        assert config.student.name == ("resnet20" if name == "teacher" else "resnet8")
        if name != "teacher":
            assert load(f"{name},vgg8", "cifar10_folder").student.name == "vgg8"
    own = load("teacher_free_self,vgg8", "cifar10_folder").teacher.config
    assert own == "configs/cifar10_folder.py:plain,vgg8"
    scaled = configs.in_own_epochs(load("dkd", "cifar10_folder"))
    assert scaled.methods.dkd.warmup_epochs / scaled.train.epochs == pytest.approx(20 / 240)
    for name in ("teacher", "plain", "dkd"):
        found = configs.in_own_epochs(load(name, "cifar10_folder"))
        assert found.train.schedule.warmup_epochs == 1.0
    with pytest.raises(TfkdError, match="unknown method 'kdd'; did you mean 'kd'"):
        load("kdd", "cifar10_folder")
    with pytest.raises(TfkdError, match="teacher,vgg8.*METHOD,STUDENT"):
        load("teacher,vgg8", "cifar10_folder")


def test_shorter_runs_keep_the_shares_of_the_published_one():
    config = configs.override(load("dkd,resnet56,resnet20"), train__epochs=24)
    found = configs.in_own_epochs(config)
    assert found.train.schedule.milestones == (15.0, 18.0, 21.0)
    assert found.methods.dkd.warmup_epochs == 2.0
    assert config.methods.dkd.warmup_epochs == 20.0, "the config itself stays as it was given"
    assert configs.in_own_epochs(found) is found
    assert comparable(configs.to_dict(config)) == comparable(configs.to_dict(found))
    asked = configs.override(config, train__published_epochs=None)
    assert configs.in_own_epochs(asked) is asked


@pytest.mark.parametrize(
    ("name", "method", "setting", "wanted"),
    [
        ("sskd", "sskd", "head_epochs", 6.0),
        ("fitnets_two_stage", "fitnets", "hint_epochs", 3.0),
        ("norm", "norm", "phase_epochs", (1.0, 2.0, 18.0, 21.0)),
        ("reviewkd", "reviewkd", "warmup_epochs", 2.0),
    ],
)
def test_stages_and_phases_keep_their_shares(name, method, setting, wanted):
    config = configs.override(load(f"{name},resnet56,resnet20"), train__epochs=24)
    assert configs.in_own_epochs(config).methods[method][setting] == wanted


def test_a_run_trains_by_its_own_epochs(tmp_path):
    """The milestone of the published run, half way, halves the rate half way through this one."""
    config = configs.override(
        configs.load(f"{CONFIGS}/cifar100.py:plain,resnet8,smoke"),
        train__epochs=2,
        train__published_epochs=240,
        train__schedule__milestones=(120.0,),
        train__verbose=0,
    )
    run(config, tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    np.testing.assert_allclose([float(row["learning_rate"]) for row in rows], [0.05, 0.005])
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["train"]["schedule"]["milestones"] == [120.0]
