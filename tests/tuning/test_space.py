"""Search spaces: what may be varied, how it is written, and the configs that follow."""

import numpy as np
import pytest

from tfkd import TfkdError
from tfkd.training import config as configs
from tfkd.training import published
from tfkd.training.config import vary
from tfkd.training.run_folder import RunFolder
from tfkd.tuning import extended, space

RATE = "train.learning_rate"


def spread(config):
    return {each.fields: each.values for each in space.dimensions(config)}


def test_values_take_the_types_of_their_fields(experiment):
    config = experiment(
        vary(RATE, choices=[1, 0.5]),
        vary("train.schedule.milestones", choices=([1], (1, 2))),
        vary("train.optimizer.momentum", choices=(None, 0, 0.9)),
    )
    found = spread(config)
    assert found[(RATE,)] == (1.0, 0.5) and isinstance(found[(RATE,)][0], float)
    assert found[("train.schedule.milestones",)] == ((1,), (1, 2))
    assert found[("train.optimizer.momentum",)] == (None, 0.0, 0.9)


def test_a_grid_has_every_combination_the_last_one_fastest(experiment):
    config = experiment(vary(RATE, choices=(0.1, 0.2)), vary("train.epochs", choices=(1, 2, 3)))
    found = [tuple(each.values()) for each in space.combinations(space.dimensions(config))]
    assert found == [(0.1, 1), (0.1, 2), (0.1, 3), (0.2, 1), (0.2, 2), (0.2, 3)]


def test_tied_fields_take_one_value_each_in_its_own_type(experiment):
    config = extended(experiment(argument="distilled"), ["methods.kd.weight, train.epochs=1,2"])
    dimensions = space.dimensions(config)
    assert [each.name for each in dimensions] == ["methods.kd.weight,train.epochs"]
    chosen = space.combinations(dimensions)
    trials = [space.trial_config(config, dimensions, each) for each in chosen]
    assert [repr(each.methods.kd.weight) for each in trials] == ["1.0", "2.0"]
    assert [repr(each.train.epochs) for each in trials] == ["1", "2"]


def test_a_trial_is_the_experiment_with_its_values_and_no_search(experiment):
    config = experiment(
        vary("methods.kd.weight", "methods.kd.temperature", choices=(0.5, 5)),
        vary("student.kwargs.width", choices=(4, 8)),
        argument="distilled",
    )
    dimensions = space.dimensions(config)
    chosen = list(space.combinations(dimensions))[-1]
    trial = space.trial_config(config, dimensions, chosen)
    assert trial.methods.kd.weight == trial.methods.kd.temperature == 5.0
    assert configs.to_dict(trial.student.kwargs) == {"dropout": 0.2, "width": 8}
    assert trial.search_space == ()
    with pytest.raises(AttributeError):
        trial.train.epoch = 3
    # All other fields are those of the experiment, which itself is as it was.
    assert config.methods.kd.weight == 0.9 and "width" not in config.student.kwargs
    differing = configs.differences(configs.to_dict(config), configs.to_dict(trial))
    assert sorted(line.split()[0] for line in differing) == [
        "methods.kd.temperature", "methods.kd.weight", "search_space", "student.kwargs.width",
    ]  # fmt: skip


def test_networks_of_all_teachers_may_be_varied(experiment):
    config = configs.override(
        experiment(vary("teachers[0].kwargs.width", choices=(4, 8)), argument="distilled"),
        teachers=(configs.teacher(workdir="second"),),
    )
    dimensions = space.dimensions(config)
    trial = space.trial_config(config, dimensions, list(space.combinations(dimensions))[-1])
    assert configs.to_dict(trial.teachers[0].kwargs) == {"width": 8}
    for field in ("teachers[1].kwargs.width", "methods.kd.kwargs.temperature", "data.kwargs.x"):
        wrong = configs.override(config, search_space=(vary(field, choices=(4,)),))
        with pytest.raises(TfkdError) as error:
            space.dimensions(wrong)
        assert f"unknown config field {field!r}" in str(error.value)


def test_flags_add_dimensions(experiment):
    config = experiment(vary(RATE, choices=(0.1, 0.2)))
    texts = [
        "train.optimizer.name=sgd,adam",
        "train.schedule.milestones=(1,2),(1,),()",
        "train.optimizer.nesterov=true,False",
        "data.augment=None,none",
        f"{RATE}=0.3,4",
    ]
    assert spread(extended(config, texts)) == {
        (RATE,): (0.3, 4.0),
        ("train.optimizer.name",): ("sgd", "adam"),
        ("train.schedule.milestones",): ((1, 2), (1,), ()),
        ("train.optimizer.nesterov",): (True, False),
        ("data.augment",): (None, "none"),
    }
    assert spread(config) == {(RATE,): (0.1, 0.2)}


@pytest.mark.parametrize("name", published.names())
def test_the_weight_of_every_published_method_can_be_searched(name):
    config = configs.default()
    preset = published.apply(config, name)
    shipped = {tuple(each["fields"]) for each in config.search_space}  # The method's own space.
    found = spread(extended(config, ["weights"]))
    assert set(found) == shipped | {(f"methods.{each}.weight",) for each in config.methods}
    weight = config.methods[preset.method].weight
    values = found[f"methods.{preset.method}.weight",]
    np.testing.assert_allclose(values, [weight / 4, weight / 2, weight, 2 * weight, 4 * weight])


def test_weights_of_no_methods_cannot_be_searched():
    with pytest.raises(TfkdError, match="search 'weights': found no methods in the config"):
        extended(configs.default(), ["weights"])


@pytest.mark.parametrize("values", [(True, False), (None, 0.5), ("a", "b"), ((1, 2), (3,)), (2, 4)])
def test_keras_tuner_gives_back_what_the_config_takes(values):
    dimensions = (space.Dimension(("x", "y"), values), space.Dimension(("z",), (0.5,)))
    declared = space.hyperparameters(dimensions)
    assert [hp.name for hp in declared.space] == ["x,y", "z"]
    for number, value in enumerate(values):
        seen = list(declared.space[0].values)[number]
        found = space.chosen_values(dimensions, {"x,y": seen, "z": 0.5})
        assert found == {"x,y": value, "z": 0.5} and type(found["x,y"]) is type(value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((), "found nothing to vary, wanted search_space in the config or --search"),
        ((vary("train.epoch", choices=(1,)),), "unknown config field 'train.epoch'; did you mean"),
        (
            (vary("methods.dkd.weight", choices=(1,)),),
            r"'methods.dkd.weight': found no method 'dkd' in this config, .* that it has \(kd\)",
        ),
        ((vary("methods.kd.heat", choices=(1,)),), "unknown config field 'methods.kd.heat'"),
        ((vary("search_space", choices=(1,)),), "unknown config field 'search_space'"),
        ((vary(3, choices=(1,)),), "unknown config field '3'"),
        ((vary(RATE, choices=()),), r"search_space\[0\].choices: found \(\), wanted a list of one"),
        ((vary(choices=(1,)),), r"search_space\[0\].fields: found \(\), wanted a list of one"),
        ((vary("train.epochs", choices=(1, 2.5)),), "train.epochs: found 2.5, wanted int"),
        ((vary("train.epochs", choices=(True,)),), "train.epochs: found True, wanted int"),
        ((vary(RATE, choices=("fast",)),), "train.learning_rate: found 'fast', wanted float"),
        ((vary(RATE, choices=(1, 1.0)),), "learning_rate: found 1.0 twice, wanted each value once"),
        (
            (vary(RATE, choices=(1,)), vary("train.seed", RATE, choices=(1,))),
            "found train.learning_rate twice, wanted each field once",
        ),
        (("train.epochs",), r"search_space\[0\]: found 'train.epochs', wanted fields and choices"),
        (({"fields": ("a",)},), r"search_space\[0\]: found .*, wanted fields and choices"),
    ],
)
def test_a_wrong_space_is_one_line(entries, message, experiment):
    with pytest.raises(TfkdError, match=message) as caught:
        space.dimensions(experiment(*entries, argument="distilled"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["train.epochs", "=1,2", "train.epochs,=1", ""])
def test_a_wrong_flag_shows_the_form(text, experiment):
    with pytest.raises(TfkdError, match="wanted FIELD=VALUE,VALUE"):
        extended(experiment(), [text])


def test_a_combination_that_cannot_be_is_named_before_the_first_trial(experiment):
    config = experiment(vary(RATE, choices=(0.1, -1)), vary("train.epochs", choices=(1, 2)))
    with pytest.raises(TfkdError, match="trial with train.learning_rate=-1.0, train.epochs=1: .*1"):
        space.check_combinations(config, space.dimensions(config))


def test_a_search_space_is_no_part_of_what_a_run_is(experiment, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.hold():
        folder.write_config(configs.to_dict(experiment()))
    folder.check(configs.to_dict(experiment(vary(RATE, choices=(0.1,)))))
