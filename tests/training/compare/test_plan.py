"""The roles of a comparison: their configs, who teaches whom, and what does not compare."""

import json
from pathlib import Path

import pytest

from tfkd import TfkdError, TfkdWarning
from tfkd.training import config as configs
from tfkd.training.compare import compare, of_methods, roles

EXPERIMENT = Path(__file__).parents[2] / "fixtures" / "tiny_experiment.py"


@pytest.fixture(scope="module")
def config(experiment):
    """A distillation."""
    return experiment("distilled", teacher__workdir=None)


def plain(config):
    return json.loads(config.to_json())


def test_alone_differs_from_distilled_in_nothing_but_the_teacher(config, tmp_path):
    planned = roles({"distilled": config}, 3, tmp_path)
    alone, distilled = (plain(planned[role].config) for role in ("alone", "distilled"))
    assert alone["methods"] == {} and alone["teacher"]["config"] is None
    for section in ("data", "student", "train"):
        assert alone[section] == distilled[section]
    assert {role.config.train.seed for role in planned.values()} == {3}


def test_roles_run_after_the_one_that_trains_their_teacher(config, experiment, tmp_path):
    twin = configs.override(
        config,
        teacher__config=f"{EXPERIMENT}:alone",
        methods=configs.methods(teacher_free=dict(form="self")),
    )
    lonely = configs.override(experiment("alone"), methods=configs.methods(cs_kd={}))
    planned = roles({"kd": config, "twin": twin, "lonely": lonely}, 1, tmp_path)
    assert {name: role.taught_by for name, role in planned.items()} == {
        "teacher": None, "alone": None, "kd": "teacher", "twin": "alone", "lonely": None,
    }  # fmt: skip
    assert list(planned) == ["teacher", "alone", "kd", "twin", "lonely"]
    for name, role in planned.items():
        assert role.folder == tmp_path / name / "seed1"
    assert planned["kd"].config.teacher.workdir == str(tmp_path / "teacher" / "seed{seed}")
    assert planned["twin"].config.teacher.config is None
    assert planned["twin"].config.teacher.workdir == str(tmp_path / "alone" / "seed1")
    assert planned["lonely"].config.teacher.workdir is None


def test_methods_without_a_teacher_have_no_role_of_one(experiment, tmp_path):
    experiments = {
        name: configs.override(experiment("alone"), methods=configs.methods(**{name: {}}))
        for name in ("cs_kd", "ps_kd")
    }
    assert list(roles(experiments, 0, tmp_path)) == ["alone", "cs_kd", "ps_kd"]
    assert list(roles(dict(list(experiments.items())[:1]), 0, tmp_path)) == ["alone", "cs_kd"]


def test_alone_has_no_teacher_where_a_function_trains_beside_the_student(experiment, tmp_path):
    beside = configs.override(
        experiment("alone"),
        methods=configs.methods(pkkd={}),
        teacher__name="some_file.py:network",
    )
    alone = roles({"pkkd": beside}, 0, tmp_path)["alone"].config
    assert not configs.has_teacher(alone)


def test_alone_trains_by_the_config_as_given(config, tmp_path):
    longer = configs.override(config, train__epochs=9, train__learning_rate=0.5)
    given = configs.override(config, train__epochs=4, methods={}, teacher__config=None)
    planned = roles({"kd": longer, "other": longer}, 2, tmp_path, base=given)
    assert planned["alone"].config.train.epochs == 4
    assert planned["alone"].config.train.learning_rate == config.train.learning_rate
    assert planned["alone"].config.train.seed == 2
    assert planned["kd"].config.train.epochs == 9
    assert given.train.seed == config.train.seed


def test_alone_has_the_recipe_of_most_and_others_are_told(config, tmp_path):
    faster = configs.override(config, train__learning_rate=0.5)
    experiments = {"faster": faster, "kd": config, "other": config}
    alone = roles(experiments, 0, tmp_path)["alone"].config
    assert alone.train.learning_rate == config.train.learning_rate
    reverse = dict(reversed(experiments.items()))
    assert roles(reverse, 0, tmp_path)["alone"].config.to_json() == alone.to_json()
    broken = {
        role: configs.override(each, data__name="folder:/nowhere")
        for role, each in experiments.items()
    }
    with pytest.warns(
        TfkdWarning, match="faster trains by a recipe of its own .train.learning_rate.*of kd$"
    ):
        with pytest.raises(TfkdError, match="no such folder"):
            compare(broken, tmp_path, [0])
    with pytest.warns(TfkdWarning) as caught:
        with pytest.raises(TfkdError, match="no such folder"):
            compare(broken, tmp_path, [0], base=broken["faster"])
    told = [str(each.message) for each in caught if each.category is TfkdWarning]
    assert [each.split()[0] for each in told] == ["kd", "other"]
    assert told[0].endswith("with the recipe of the config as given")


def test_experiments_that_do_not_compare_are_refused(config, tmp_path):
    other = configs.override(config, student__kwargs={"width": 4})
    with pytest.raises(TfkdError, match="student.kwargs.* differs between kd and other"):
        compare({"kd": config, "other": other}, tmp_path, [0])
    with pytest.raises(TfkdError, match="wanted methods other than 'teacher' and 'alone'"):
        compare({"alone": config}, tmp_path, [0])
    other = configs.override(config, teacher__config=f"{EXPERIMENT}:distilled")
    with pytest.raises(TfkdError, match="wanted the same teacher for every experiment"):
        compare({"kd": config, "other": other}, tmp_path, [0])
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_compare_is_refused(experiment, teacher_folder, tmp_path):
    with pytest.raises(TfkdError, match="found a config without methods"):
        compare(experiment("alone"), tmp_path, [0])
    no_config = experiment("distilled", teacher__config=None, teacher__workdir=str(teacher_folder))
    with pytest.raises(TfkdError, match="found no config as teacher.config .distilled"):
        compare(no_config, tmp_path, [0])
    with pytest.raises(TfkdError, match="found no seeds"):
        compare(experiment("distilled"), tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_methods_of_a_config():
    reference = f"{EXPERIMENT}:distilled,unused"
    with pytest.raises(TfkdError, match="--methods, phases: .*unknown argument"):
        of_methods(reference, ["phases"])
    found = of_methods(str(EXPERIMENT), ["distilled", "noisy"], {"train.epochs": 7})
    assert [list(each.methods) for each in found.values()] == [["kd"], ["noisy"]]
    assert {each.train.epochs for each in found.values()} == {7}
    pair = of_methods("configs/cifar100.py:kd,resnet56,resnet20", ["dkd"])["dkd"]
    assert (pair.student.name, list(pair.methods)) == ("resnet20", ["dkd"])
    with pytest.raises(TfkdError, match="'noisy' twice"):
        of_methods(str(EXPERIMENT), ["noisy", "noisy"])
    with pytest.raises(TfkdError, match="beside --methods"):
        of_methods(str(EXPERIMENT), ["noisy"], {"methods.noisy.weight": 2.0})
    small = of_methods("configs/cifar100.py:kd,resnet56,smoke,resnet20", ["dkd"])["dkd"]
    assert small.experiment == "cifar100-dkd-resnet56-resnet20-smoke"
