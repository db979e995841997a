"""Configs: typed fields with a meaning, and one clear error for whatever is wrong with them."""

import pytest

from tfkd.errors import TfkdError
from tfkd.training import config as configs
from tfkd.training import config_checks

OPEN = ("student.kwargs", "teacher.kwargs", "student.taps", "teacher.taps")


def leaves(section, path=""):
    for key in section:
        value = section[key]
        if hasattr(value, "items") and path + key not in OPEN:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield path + key


def test_every_field_has_a_meaning_and_every_meaning_a_field():
    assert sorted(leaves(configs.default())) == sorted(configs.MEANINGS)


def test_the_default_is_valid_and_a_fresh_one_each_time():
    first = configs.default()
    config_checks.validate(first)
    first.train.epochs = 7
    assert configs.default().train.epochs == 1


def test_empty_fields_keep_their_type_and_are_not_shared():
    config = configs.default()
    config.data.image_size = 16
    assert config.teacher.seed is None
    assert configs.default().data.image_size is None
    with pytest.raises(TypeError):
        config.data.image_size = "large"


def test_a_method_brings_all_its_settings(experiment):
    experiment("noisy")  # Its file registers the method.
    entry = configs.method("noisy", weight=2, noise=1)
    settings = {"noise": 1.0, "dropout": 0.3}
    assert configs.to_dict(entry) == {"name": "noisy", "weight": 2.0, "settings": settings}
    assert isinstance(entry.settings.noise, float)
    assert configs.method("kd").settings.temperature == 4.0
    with pytest.raises(TfkdError, match="unknown distiller 'kb'; did you mean 'kd'"):
        configs.method("kb")


def test_fields_are_listed_with_their_types(experiment):
    fields = configs.fields(experiment("distilled"))
    assert fields["train.epochs"] is int
    assert fields["data.validation"] is float
    assert fields["distiller[0].weight"] is float
    assert fields["distiller[0].settings.temperature"] is float


def test_load_finds_repository_configs_and_passes_the_argument(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert configs.load("configs/quickstart.py:teacher").experiment == "quickstart-teacher"
    assert configs.load("configs/quickstart.py").distiller[0].name == "kd"
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
        ({"train__epochs": 0}, "train.epochs: found 0, wanted a number >= 1"),
        ({"train__batch_size": -3}, "train.batch_size: found -3"),
        ({"train__evaluate_every": 0}, "train.evaluate_every: found 0"),
        ({"train__checkpoint_seconds": -1.0}, "train.checkpoint_seconds: found -1.0"),
        ({"train__precision": "float16"}, "unknown train.precision 'float16'; did you mean"),
        (
            {"train__batch_norm": "locale"},
            "unknown train.batch_norm 'locale'; did you mean 'local'",
        ),
        ({"student__preprocess": "nothing"}, "unknown student.preprocess"),
        ({"teacher__which": "lost"}, "unknown teacher.which 'lost'; did you mean 'last'"),
        ({"teacher__dtype": "float61"}, "unknown teacher.dtype"),
        ({"student_loss_weight": -0.5}, "student_loss_weight: found -0.5, wanted a number >= 0"),
        ({"student_loss_weight": float("nan")}, "student_loss_weight: found nan"),
        ({"train__optimizer__name": "sdg"}, "unknown optimizer 'sdg'; did you mean 'sgd'"),
        ({"train__optimizer__momentum": 1.5}, "momentum is 1.5"),
        ({"train__schedule__name": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"train__schedule__milestones": (3, 2)}, "milestones"),
        ({"train__learning_rate": -1.0}, "-1.0"),
    ],
)
def test_a_wrong_value_names_field_found_and_wanted(fields, message):
    config = configs.override(configs.default(), **fields)
    with pytest.raises(TfkdError, match=message):
        config_checks.validate(config)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"name": "kd", "weight": -1.0},
            r"distiller\[0\].weight: found -1.0, wanted a number >= 0",
        ),
        ({"name": "plan", "weight": 1.0}, "unknown distiller 'plan'; did you mean 'plain'"),
        (
            {"name": "kd", "settings": {"temprature": 4.0}},
            "unknown setting of distiller kd 'temprature'; did you mean 'temperature'",
        ),
        ({"name": "kd", "settings": {"temperature": 0.0}}, "temperature"),
        ({"name": "kd", "wight": 1.0}, r"unknown field of distiller\[0\] 'wight'; did you mean"),
        ({"weight": 1.0}, r"distiller\[0\]: found .*, wanted name, weight and settings"),
        ("kd", r"distiller\[0\]: found 'kd', wanted name, weight and settings"),
    ],
)
def test_a_wrong_method_names_what_is_wrong(entry, message):
    config = configs.override(configs.default(), distiller=(entry,))
    with pytest.raises(TfkdError, match=message):
        config_checks.validate(config)


def test_a_method_without_its_teacher_is_refused():
    config = configs.override(configs.default(), distiller=(configs.method("kd"),))
    with pytest.raises(TfkdError, match="the distiller needs a teacher: found none of"):
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
    with pytest.raises(TfkdError, match="config without train.batch_norm; wanted one that starts"):
        config_checks.validate(config)
    config = configs.default()
    with config.unlocked(), config.ignore_type():
        config.train.epochs = 2.5
    with pytest.raises(TfkdError, match="config field train.epochs: found 2.5, wanted int"):
        config_checks.validate(config)


def test_override_leaves_the_original_alone_and_refuses_new_fields():
    config = configs.default()
    changed = configs.override(config, train__epochs=9, teacher__config="x.py")
    assert (config.train.epochs, changed.train.epochs) == (1, 9)
    assert (config.teacher.config, changed.teacher.config) == (None, "x.py")
    with pytest.raises(TfkdError, match="unknown config field 'train.epoch'; did you mean"):
        configs.override(config, train__epoch=9)
    with pytest.raises(TfkdError, match="config field train.epochs: "):
        configs.override(config, train__epochs="many")
    changed.distiller = (configs.method("kd"),)
    configs.override(changed).distiller[0].weight = 3.0
    assert changed.distiller[0].weight == 1.0


def test_differences_name_the_fields():
    found = {"train": {"epochs": 1, "seed": 0}, "distiller": [1]}
    wanted = {"train": {"epochs": 2, "seed": 0}, "distiller": [1], "extra": None}
    assert configs.differences(found, wanted) == ["train.epochs is 1 there and 2 here"]
    assert configs.differences(found, found) == []
