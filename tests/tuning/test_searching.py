"""Searches: the trials they run, their order, their rows, and what they refuse."""

import csv
import itertools
import json
import re

import pytest

from tfkd import training, tuning
from tfkd.core.step.nonfinite import NonFiniteLoss
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.training import config as configs
from tfkd.training import inputs
from tfkd.training.config import vary
from tfkd.training.run_folder import RunFolder
from tfkd.training.train_loop import TrainLoop
from tfkd.tuning import searching

# Of threading.currentThread in its oracle.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")

RATE = "train.learning_rate"


@pytest.fixture
def quick(monkeypatch):
    """Replaces runs by ones that end at once; lists the configs of those that were trained.

    Their score is highest at a rate of 0.5; above 100 their loss is not finite.
    """
    trained = []

    def run(config, workdir, strategy):
        folder = RunFolder(workdir)
        folder.check(configs.to_dict(config))
        if folder.result() is None:
            with folder.hold():
                trained.append(config)
                rate = config.train.learning_rate
                if rate > 100:
                    raise NonFiniteLoss(f"loss at rate {rate}")
                score = 90 - abs(rate - 0.5)
                folder.write_config(configs.to_dict(config))
                on = "test" if config.data.validation_size == 0 else "validation"
                result = {
                    "summary": "quality",
                    "score_metric": "quality",
                    "score_scale": 100.0,
                    "params": 1234,
                    "macs": 5678,
                    "seed": 0,
                    "student": "tiny",
                    "dataset": "digits",
                    "score": "quality",
                    "score_label": "quality %",
                    "best_score": score,
                    "best_selected_on": on,
                    "quality_best": score - 1,
                    "quality_last": score - 2,
                    "seconds": 1.0,
                }
                folder.write_json("result.json", result)
        return folder.result()

    monkeypatch.setattr(searching, "run", run)
    return trained


@pytest.mark.slow
def test_a_trial_is_an_ordinary_run(experiment, tmp_path, monkeypatch, capsys):
    config = experiment(vary(RATE, choices=(1.0, 1e38)), train__epochs=1)
    rows = tuning.search(config, tmp_path / "search")
    assert [row["trial"] for row in rows] == [1, 2]
    trial = configs.override(config, search_space=(), train__learning_rate=1.0)
    monkeypatch.setattr(TrainLoop, "run", None)
    result = training.run(trial, tmp_path / "search" / "trials" / "01")
    assert rows[0]["test_best"] == result["top1_best"]
    assert rows[0]["test_last"] == result["top1_last"]
    assert rows[0]["score_label"] == result["score_label"] == "top-1 %"
    with open(tmp_path / "search" / "trials" / "01" / "metrics.csv", newline="") as file:
        (epoch,) = csv.DictReader(file)
    assert rows[0]["score"] == pytest.approx(100 * float(epoch["val_accuracy"]))
    assert rows[0]["scored_on"] == result["best_selected_on"] == "validation"
    assert rows[1]["score"] is None and "is not finite at step" in rows[1]["error"]
    written = json.loads((tmp_path / "search" / "trials" / "01" / "config.json").read_text())
    assert written["search_space"] == [] and written["train"]["learning_rate"] == 1.0
    # What failed is known as well.
    capsys.readouterr()
    assert tuning.search(config, tmp_path / "search") == rows
    assert "trials/02 failed: " in capsys.readouterr().out


def test_a_grid_runs_every_combination_in_order_and_ties_fields(quick, experiment, tmp_path):
    config = experiment(
        vary("methods.kd.weight", "methods.kd.temperature", choices=(0.5, 1, 5)),
        vary(RATE, choices=(0.1, 0.5)),
        argument="distilled",
    )
    rows = tuning.search(config, tmp_path)
    expected = list(itertools.product((0.5, 1.0, 5.0), (0.1, 0.5)))
    assert [(each.methods.kd.weight, each.train.learning_rate) for each in quick] == expected
    for each in quick:
        assert each.methods.kd.temperature == each.methods.kd.weight
        assert each.train.seed == config.train.seed
    assert [tuple(row["values"].values()) for row in rows] == [(a, a, b) for a, b in expected]
    assert [row["folder"] for row in rows] == [f"trials/{n:02d}" for n in range(1, 7)]
    assert rows[1]["score"] == pytest.approx(90.0)
    assert (rows[1]["test_best"], rows[1]["test_last"]) == (89.0, 88.0)
    assert rows[1]["score_label"] == "quality %"
    content = json.loads((tmp_path / "search.json").read_text())
    assert content["rows"] == rows and content["best"] == "trials/02"
    assert (tmp_path / "scores.png").read_bytes()[1:4] == b"PNG"


def test_the_published_alpha_grid_is_five_trials(quick, experiment, tmp_path):
    alphas = (0.1, 0.5, 1, 5, 10)
    rows = tuning.search(experiment(vary(RATE, choices=alphas)), tmp_path)
    assert [row["values"][RATE] for row in rows] == list(alphas)


def test_values_that_are_no_numbers_reach_the_trials(quick, experiment, tmp_path):
    config = experiment(
        vary("train.schedule.milestones", choices=((1,), ())),
        vary("train.optimizer.nesterov", choices=(False, True)),
        vary("data.augment", choices=(None, "shift")),
    )
    rows = tuning.search(config, tmp_path)
    assert len(rows) == 8 and not (tmp_path / "scores.png").exists()
    last = quick[-1]
    assert last.train.schedule.milestones == () and last.train.optimizer.nesterov is True
    assert last.data.augment == "shift" and quick[0].data.augment is None


@pytest.mark.parametrize("method", ["random", "bayesian"])
def test_draws_repeat_and_more_trials_follow_the_first_ones(method, quick, experiment, tmp_path):
    config = experiment(
        vary(RATE, choices=(0.1, 0.2, 0.3, 0.4)), vary("train.epochs", choices=(1, 2))
    )
    three = tuning.search(config, tmp_path / "a", method=method, trials=3)
    five = tuning.search(config, tmp_path / "a", method=method, trials=5)
    assert five[:3] == three and len(quick) == 5
    assert tuning.search(config, tmp_path / "b", method=method, trials=5) == five
    assert len({tuple(row["values"].values()) for row in five}) == 5
    other = configs.override(config, train__seed=1)
    others = tuning.search(other, tmp_path / "c", method=method, trials=5)
    assert [row["values"] for row in others] != [row["values"] for row in five]


def test_fewer_trials_of_a_grid_are_its_first_ones(quick, experiment, tmp_path):
    config = experiment(vary(RATE, choices=(0.1, 0.5, 1.0)))
    two = tuning.search(config, tmp_path, trials=2)
    assert tuning.search(config, tmp_path)[:2] == two
    tuning.search(config, tmp_path, trials=1)
    # What a shorter call did not ask for is not forgotten.
    assert len(json.loads((tmp_path / "search.json").read_text())["rows"]) == len(quick) == 3


def test_a_trial_that_diverges_ends_neither_the_search_nor_is_repeated(
    quick, experiment, tmp_path, capsys
):
    rates = (101.0, 102.0, 103.0, 104.0, 0.5)
    config = experiment(vary(RATE, choices=rates))
    rows = tuning.search(config, tmp_path)
    assert [row["error"] for row in rows] == [f"loss at rate {rate}" for rate in rates[:4]] + [None]
    assert [row["score"] for row in rows[:4]] == [None] * 4
    assert "best: " + str(tmp_path / "trials/05") in tuning.report(rows, tmp_path)
    assert tuning.search(config, tmp_path) == rows
    assert len(quick) == 5


def test_a_search_in_which_all_diverge_says_so(quick, experiment, tmp_path):
    with pytest.raises(TfkdError, match="no trial has a score: loss at rate 101.0"):
        tuning.search(experiment(vary(RATE, choices=(101.0,))), tmp_path)


def test_scores_on_test_images_come_with_one_warning(quick, experiment, tmp_path):
    config = experiment(vary(RATE, choices=(0.1, 0.5)), data__validation_size=0)
    with pytest.warns(TfkdWarning, match="holds no validation images: .* test images") as caught:
        rows = tuning.search(config, tmp_path)
    assert len([each for each in caught if each.category is TfkdWarning]) == 1
    # The test score of the best student would be the same number again.
    header = re.split("  +", tuning.report(rows, tmp_path).splitlines()[0].strip())
    assert header == ["learning_rate", "test quality %", "seconds", "run folder"]


def test_an_error_of_a_run_ends_the_search_and_names_the_trial(
    quick, experiment, tmp_path, monkeypatch
):
    def run(config, workdir, strategy):
        raise TfkdError("data: found nothing")

    monkeypatch.setattr(searching, "run", run)
    config = experiment(vary(RATE, choices=(0.1, 0.5)))
    with pytest.raises(TfkdError, match="trial 1 of 2: train.learning_rate=0.1: data: found noth"):
        tuning.search(config, tmp_path / "a" / "search")
    assert list(tmp_path.iterdir()) == []


def test_a_score_without_unit_is_said_as_it_is():
    row = {
        "trial": 1, "values": {RATE: 0.5}, "score": 0.75, "scored_on": "validation",
        "score_label": "mAP", "test_best": 0.5, "test_last": 0.25, "seconds": 1.0,
        "folder": "trials/01", "error": None,
    }  # fmt: skip
    assert "best: x/trials/01, validation mAP 0.75, test mAP 0.50\n" in tuning.report([row], "x")


def test_a_trial_without_a_best_score_ends_the_search(quick, experiment, tmp_path):
    config = experiment(vary(RATE, choices=(0.1, 0.5)))
    tuning.search(config, tmp_path)
    path = tmp_path / "trials" / "02" / "result.json"
    path.write_text(path.read_text().replace('"best_score": 90.0', '"best_score": null'))
    with pytest.raises(TfkdError, match="trials/02': found no best_score in result.json"):
        tuning.search(config, tmp_path)


def test_a_finished_trial_of_other_code_stops_the_search(quick, experiment, tmp_path, capsys):
    config = experiment(vary(RATE, choices=(0.1, 0.5)))
    tuning.search(config, tmp_path)
    path = tmp_path / "trials" / "01" / "result.json"
    result = json.loads(path.read_text())
    result["inputs"] = inputs.record(config)
    result["inputs"]["code"]["student.name tiny"]["digest"] = "another"
    path.write_text(json.dumps(result))
    with pytest.raises(TfkdError, match="01' holds a run .* tiny_experiment.py was edited; wanted"):
        tuning.search(config, tmp_path)
    tuning.search(configs.override(config, accept_changes=True), tmp_path)
    assert len(quick) == 2


def test_folders_of_something_else_are_refused(quick, experiment, tmp_path):
    config = experiment(vary(RATE, choices=(0.1, 0.5)))
    tuning.search(config, tmp_path / "search")
    before = (tmp_path / "search" / "search.json").read_text()

    def refused(other, message, folder="search", **options):
        with pytest.raises(TfkdError, match=message):
            tuning.search(other, tmp_path / folder, **options)

    changed = configs.override(config, train__epochs=5)
    refused(changed, "holds another search: config.train.epochs is 2 there and 5 here")
    refused(experiment(vary(RATE, choices=(0.1,))), "holds another search: space is .*0.5")
    refused(config, "holds another search: method is 'grid' there and 'random'", method="random")
    refused(config, "found a run, wanted a search", folder="search/trials/01")
    (tmp_path / "file").write_text("kept")
    refused(config, "found a file, wanted a folder", folder="file")
    assert (tmp_path / "search" / "search.json").read_text() == before
    earlier = before.replace('"methods"', '"distiller"')
    (tmp_path / "search" / "search.json").write_text(earlier)
    refused(config, "holds a search of the version before, which cannot be continued; wanted a new")
    (tmp_path / "search" / "search.json").write_text(before[:50])
    refused(config, "search.json': the file is no JSON: .*; wanted the file of a search")
    for wrong in ("[]", '{"rows": 3}', before.replace('"trial": 1', '"trial": "1"')):
        (tmp_path / "search" / "search.json").write_text(wrong)
        refused(config, "search.json': .*; wanted the file of a search")
    assert len(quick) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gird"}, "unknown search method 'gird'; did you mean 'grid'"),
        ({"trials": 0}, "trials: found 0, wanted a number >= 1"),
    ],
)
def test_wrong_options_are_refused(options, message, quick, experiment, tmp_path):
    with pytest.raises(TfkdError, match=message):
        tuning.search(experiment(vary(RATE, choices=(0.1,))), tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_the_report_shows_values_scores_folders_and_the_flags_of_the_best(tmp_path):
    def row(trial, rate, name, score):
        return {
            "trial": trial, "values": {RATE: rate, "train.optimizer.name": name},
            "score": score, "scored_on": score and "validation", "score_label": score and "top-1 %",
            "test_best": score and score - 1, "test_last": 0.0, "seconds": score and 12.34,
            "folder": f"trials/{trial:02d}", "error": None if score else "loss",
        }  # fmt: skip

    rows = [row(1, 0.5, "sgd", 91.0), row(2, 0.05, "adam", 92.5), row(3, 5.0, "sgd", None)]
    lines = tuning.report(rows, "runs/x").splitlines()
    assert re.split("  +", lines[0].strip()) == [
        "learning_rate", "name", "validation top-1 %", "test top-1 %", "seconds", "run folder",
    ]  # fmt: skip
    assert lines[3].split() == ["0.05", '"adam"', "92.50", "91.50", "12.3", "runs/x/trials/02"]
    assert lines[4].split() == ["5.0", '"sgd"', "failed", "failed", "failed", "runs/x/trials/03"]
    assert lines[-2] == "best: runs/x/trials/02, validation top-1 92.50 %, test top-1 91.50 %"
    assert lines[-1] == "  --config.train.learning_rate=0.05 --config.train.optimizer.name=adam"
