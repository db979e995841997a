"""Configs: typed fields with a meaning, and one clear error for whatever is wrong with them."""

import json

import pytest

from tfkd import Objective, register
from tfkd.errors import TfkdError
from tfkd.training import config as configs
from tfkd.training import config_checks

OPEN = ("methods", "student.kwargs", "teacher.kwargs", "student.taps", "teacher.taps")


def leaves(section, path=""):
    for key in section:
        value = section[key]
        if hasattr(value, "items") and path + key not in OPEN:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield path + key


def test_every_field_has_a_meaning_and_every_meaning_a_field():
    assert sorted(leaves(configs.default())) == sorted(configs.MEANINGS)
    assert all(configs.MEANINGS.values())


def test_the_default_is_valid_and_a_fresh_one_each_time():
    first = configs.default()
    config_checks.validate(first)
    first.train.batch_size = 7
    first.student.kwargs.width = 3
    second = configs.default()
    assert (second.train.batch_size, second.student.kwargs.to_dict()) == (64, {})


def test_empty_fields_keep_their_type_and_are_not_shared():
    config = configs.default()
    config.data.image_size = 16
    assert config.teacher.seed is None
    assert configs.default().data.image_size is None
    with pytest.raises(TypeError):
        config.data.image_size = "large"


def test_a_method_brings_all_its_settings(experiment):
    experiment("noisy")  # Its file registers the method.
    found = configs.methods(noisy=dict(weight=2, noise=1), kd={})
    assert configs.to_dict(found) == {
        "kd": {"weight": 1.0, "temperature": 4.0, "standardize": False, "variant": "clean"},
        "noisy": {"weight": 2.0, "noise": 1.0, "dropout": 0.3},
    }
    assert isinstance(found.noisy.noise, float)
    with pytest.raises(TfkdError, match="unknown method 'kb'; did you mean 'kd'"):
        configs.methods(kb={})
    with pytest.raises(TfkdError, match="methods.kd: found 0.9, wanted a dict of weight and"):
        configs.methods(kd=0.9)


def test_a_setting_without_a_value_keeps_its_type():
    found = configs.methods(pkkd={})
    assert found.pkkd.student_tau is None
    found.pkkd.student_tau = 3.0
    with pytest.raises(TypeError):
        found.pkkd.student_tau = "wide"
    assert configs.methods(pkkd={}).pkkd.student_tau is None


def test_methods_take_effect_in_the_order_of_their_names_also_from_json():
    config = configs.default()
    config.methods = configs.methods(
        nkd=dict(weight=2.0), dkd=dict(weight=0.5), cold=dict(method="kd", temperature=1.0)
    )
    config.methods.kd = dict(weight=3)
    read = configs.default()
    read.methods = json.loads(config.to_json())["methods"]
    for each in (config, read):
        made = configs.objectives(each)
        assert [objective.name for objective in made] == ["cold", "dkd", "kd", "nkd"]
        assert configs.method_names(each) == ["kd", "dkd", "kd", "nkd"]
        assert configs.method_weights(each) == [1.0, 0.5, 3.0, 2.0]
        assert [made[0].temperature, made[2].temperature] == [1.0, 4.0]
        assert [type(objective).__name__ for objective in made] == ["KD", "DKD", "KD", "NKD"]
    assert configs.objectives(configs.default()) == []


def test_a_setting_that_is_misspelt_in_a_config_file_is_refused():
    config = configs.default()
    config.methods = configs.methods(kd={})
    with pytest.raises(AttributeError, match="temperature"):
        config.methods.kd.temprature = 2.0
    config.methods.nkd = {}
    assert configs.method_names(config) == ["kd", "nkd"]


def test_a_method_whose_settings_are_called_as_those_of_an_entry_is_refused():
    @register("heavy")
    class Heavy(Objective):
        def __init__(self, weight: float = 1.0, name: str = "heavy") -> None:
            super().__init__(name=name)

    with pytest.raises(TfkdError, match="method heavy: found a setting 'weight', which an entry"):
        configs.methods(heavy={})


def test_epochs_are_one_unless_they_are_given():
    config = configs.default()
    assert (config.train.epochs, configs.epochs(config)) == (None, 1)
    config.train.epochs = 7
    assert configs.epochs(config) == 7


def test_fields_are_listed_with_their_types(experiment):
    fields = configs.fields(experiment("distilled"))
    assert fields["train.epochs"] is int
    assert fields["data.validation_size"] is int
    assert fields["data.validation_split"] is float
    assert fields["methods.kd.weight"] is float
    assert fields["methods.kd.temperature"] is float


def test_load_finds_repository_configs_and_passes_the_argument(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert configs.load("configs/quickstart.py:teacher").experiment == "quickstart-teacher"
    assert list(configs.load("configs/quickstart.py").methods) == ["kd"]
    (tmp_path / "mine.py").write_text(
        "from tfkd.training.config import default\n"
        "def get_config(argument='none'):\n"
        "    config = default()\n"
        "    config.experiment = argument\n"
        "    return config\n"
    )
    assert configs.load("mine.py").experiment == "none"
    assert configs.load("mine.py:a,b:c").experiment == "a,b:c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file, wanted a Python file with get_config"),
        ("value = 1", "found no function get_config"),
        ("def get_config():\n    return 3", "get_config returned int, wanted the ConfigDict"),
        ("def get_config():\n    return None", "get_config returned NoneType"),
        ("def get_config(:", "line 1|SyntaxError"),
        ("import no_such_module", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "from tfkd.training.config import default\n"
            "def get_config():\n"
            "    config = default()\n"
            "    config.train.epoch = 3\n"
            "    return config",
            "line 4: unknown config field 'epoch'; did you mean 'epochs'",
        ),
        (
            "from tfkd.training.config import default\n"
            "def get_config():\n"
            "    config = default()\n"
            "    config.train.epochs = 'many'\n"
            "    return config",
            "line 4: TypeError: .*'epochs'",
        ),
    ],
)
def test_a_wrong_config_file_is_one_line(text, message, tmp_path):
    path = tmp_path / "experiment.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TfkdError, match=message) as caught:
        configs.load(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"student__name": "resnet21"}, r"unknown network \(student.name\) 'resnet21'; did you"),
        (
            {"train__epochs": 0},
            "train.epochs: found 0, wanted a whole number from 1 to 1,000,000 or None",
        ),
        ({"train__batch_size": -3}, "train.batch_size: found -3"),
        ({"train__evaluate_every": 0}, "train.evaluate_every: found 0"),
        ({"train__checkpoint_seconds": -1.0}, "train.checkpoint_seconds: found -1.0"),
        ({"train__precision": "float16"}, "unknown train.precision 'float16'; did you mean"),
        ({"data__validation_split": 1.0}, "data.validation_split: found 1.0, wanted a number >= 0"),
        ({"data__validation_size": -1}, "data.validation_size: found -1, wanted a whole number"),
        (
            {"data__validation_size": 9, "data__validation_split": 0.5},
            "data.validation_split and data.validation_size: found 0.5 and 9, wanted one of them",
        ),
        ({"data__mixup": -1.0}, "data.mixup: found -1.0, wanted a number >= 0"),
        ({"student__preprocess": "nothing"}, "unknown student.preprocess"),
        ({"teacher__dtype": "float61"}, "unknown teacher.dtype"),
        ({"student_loss_weight": -0.5}, "student_loss_weight: found -0.5, wanted a number >= 0"),
        ({"student_loss_weight": float("nan")}, "student_loss_weight: found nan"),
        ({"train__optimizer__name": "sdg"}, "unknown train.optimizer.name 'sdg'; did you mean"),
        ({"train__optimizer__momentum": 1.5}, "train.optimizer.momentum: found 1.5, wanted a num"),
        ({"train__schedule__name": "cosin"}, "unknown train.schedule.name 'cosin'; did you mean"),
        ({"train__schedule__milestones": (3, 2)}, "milestones: found .*, wanted increasing"),
        ({"train__learning_rate": -1.0}, "train.learning_rate: found -1.0, wanted a number > 0"),
        ({"student__taps": {"pooled": 3}}, "student.taps: found {'pooled': 3}, wanted a dict of"),
    ],
)
def test_a_wrong_value_names_field_found_and_wanted(fields, message):
    config = configs.override(configs.default(), **fields)
    with pytest.raises(TfkdError, match=message):
        config_checks.validate(config)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kd": {"weight": -1.0}}, "methods.kd.weight: found -1.0, wanted a number >= 0"),
        ({"kd": {"weight": "much"}}, "methods.kd.weight: found 'much', wanted a number >= 0"),
        ({"plan": {}}, r"unknown method \(methods.plan\) 'plan'; did you mean 'plain'"),
        ({"a": {"method": "plan"}}, r"unknown method \(methods.a\) 'plan'; did you mean 'plain'"),
        ({"kd": {"temprature": 4.0}}, "kd 'temprature'; did you mean 'temperature'"),
        ({"kd": {"temperature": 0.0}}, "kd: temperature: found 0.0, wanted a number > 0"),
        ({"kd": "strong"}, "methods.kd: found 'strong', wanted its weight and settings"),
    ],
)
def test_a_wrong_method_names_what_is_wrong(entries, message):
    config = configs.override(configs.default(), methods=entries)
    with pytest.raises(TfkdError, match=message):
        config_checks.validate(config)


def test_a_method_without_its_teacher_is_refused():
    config = configs.override(configs.default(), methods=configs.methods(kd={}, cs_kd={}))
    with pytest.raises(TfkdError, match="method kd needs a teacher: found none of"):
        config_checks.validate(config)
    config_checks.validate(configs.override(config, teacher__workdir="somewhere"))


def test_two_sources_of_the_teacher_are_refused():
    config = configs.override(
        configs.default(), teacher__weights="a.keras", teacher__config="configs/quickstart.py"
    )
    with pytest.raises(TfkdError, match="found teacher.weights besides teacher.config"):
        config_checks.validate(config)


def test_fields_too_many_too_few_or_of_another_kind():
    config = configs.default()
    with config.unlocked():
        config.train.epoch = 3
    with pytest.raises(TfkdError, match="unknown config field 'train.epoch'; did you mean"):
        config_checks.validate(config)
    config = configs.default()
    config.train = {"epochs": 3}
    with pytest.raises(TfkdError, match="config without train.published_epochs; wanted one"):
        config_checks.validate(config)
    config = configs.default()
    with config.unlocked(), config.ignore_type():
        config.train.epochs = 2.5
    with pytest.raises(TfkdError, match="train.epochs: found 2.5, wanted a whole number"):
        config_checks.validate(config)


def test_override_leaves_the_original_alone_and_refuses_new_fields():
    config = configs.default()
    changed = configs.override(config, train__epochs=9, teacher__config="x.py")
    assert (config.train.epochs, changed.train.epochs) == (None, 9)
    assert (config.teacher.config, changed.teacher.config) == (None, "x.py")
    with pytest.raises(TfkdError, match="unknown config field 'train.epoch'; did you mean"):
        configs.override(config, train__epoch=9)
    with pytest.raises(TfkdError, match="config field train.epochs: "):
        configs.override(config, train__epochs="many")
    changed.methods = configs.methods(kd={})
    configs.override(changed).methods.kd.weight = 3.0
    assert changed.methods.kd.weight == 1.0
    assert configs.override(changed, methods__kd__weight=2.0).methods.kd.weight == 2.0
    with pytest.raises(TfkdError, match="'methods.dkd.weight': found no method 'dkd' in this conf"):
        configs.override(changed, methods__dkd__weight=2.0)


def test_differences_name_the_fields():
    found = {"train": {"epochs": 1, "seed": 0}, "teachers": [1]}
    wanted = {"train": {"epochs": 2, "seed": 0}, "teachers": [1], "extra": None}
    assert configs.differences(found, wanted) == ["train.epochs is 1 there and 2 here"]
    assert configs.differences(found, found) == []
