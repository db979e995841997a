"""A finished run that goes on to more epochs."""

import csv
import json

import pytest

from tfkd import TfkdError
from tfkd.training import run


def test_a_finished_run_goes_on_from_its_last_state_and_says_so(
    experiment, stopped, tmp_path, capsys
):
    short, long, folder = (
        experiment("alone"),
        experiment("alone", train__epochs=4),
        tmp_path / "run",
    )
    with pytest.raises(TfkdError, match="found no run there"):
        run(long, folder, extend=True)
    before = run(short, folder)
    rows = list(csv.DictReader(open(folder / "metrics.csv", newline="")))
    with pytest.raises(TfkdError, match="found train.epochs=2, wanted more than the 2 there"):
        run(short, folder, extend=True)
    with pytest.raises(TfkdError, match="train.batch_size is 200 there and 100 here"):
        run(experiment("alone", train__epochs=4, train__batch_size=100), folder, extend=True)
    assert before["extended_from"] == []

    # Interrupted in the third epoch, the same call goes on.
    stopped(
        experiment("alone", train__epochs=4, train__checkpoint_seconds=0.0), folder, 2, extend=True
    )
    assert "extending from 2 to 4 epochs" in capsys.readouterr().out
    after = run(long, folder, extend=True)
    assert (after["epochs"], after["extended_from"]) == (4, [2])
    assert "extended from 2 epochs, which is not a run of 4" in after["summary"]
    assert json.loads((folder / "result_after_2.json").read_text()) == before
    later = list(csv.DictReader(open(folder / "metrics.csv", newline="")))
    assert later[:2] == rows and len(later) == 4
    # A cosine over 4 epochs has half of its rate after 2.
    assert float(later[2]["learning_rate"]) == pytest.approx(0.025)
    assert len(list((folder / "tensorboard").iterdir())) == 1

    with pytest.raises(TfkdError, match=r"train.extended_from is \[2\] there"):
        run(long, folder)
    assert run(long, folder, extend=True) == after


def test_only_an_extension_says_that_it_is_one(experiment, tmp_path):
    with pytest.raises(TfkdError, match="wanted it unset, as only an extension sets it"):
        run(experiment("alone", train__extended_from=(1,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_method_with_stages_of_its_own_is_not_extended(experiment, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(experiment("phases").to_json())
    with pytest.raises(TfkdError, match="which has stages of its own"):
        run(experiment("phases"), folder, extend=True)
