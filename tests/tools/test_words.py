"""What words of a command line mean besides flags: shipped configs, one's home, unset fields."""

import json

import pytest


@pytest.mark.slow
def test_configs_by_name_home_folders_and_unset_fields(call_all, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    digits = ("--config=quickstart:distilled,smoke", "--workdir=~/compared")
    trained, none, twice, wrong = call_all(
        [
            (
                "train.py",
                "--config=quickstart:alone,smoke",
                "--workdir=~/run",
                "--config.data.augment=none",
                "--config.student.preprocess=unset",
                "--config.data.train_size=80",
                "--config.data.validation_size=none",
                "--config.experiment=none",
            ),
            ("compare.py", *digits, "--seeds="),
            (
                "compare.py",
                *digits,
                "--seeds=1,0,1",
                "--config.train.epochs=none",
                "--config.methods.kd.temperature=2",
                "--config.data.train_size=80",
            ),
            ("train.py", *digits, "--config.train.batch_size=none"),
        ]
    )
    assert trained[0] == 0, trained[2]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["augment"] == "none"
    assert config["data"]["train_size"] == 80
    assert config["data"]["validation_size"] is config["student"]["preprocess"] is None
    assert config["experiment"] is None
    for found, words in (
        (none, "compare: found no seeds, wanted one or more, each once"),
        (twice, "compare: found seed 1 more than once, wanted one or more, each once"),
        (wrong, "config field train.batch_size: found 'none', wanted int"),
    ):
        assert found[0] == 2
        assert words in found[2]
    assert not (tmp_path / "compared").exists()
    # For whom the changes hold; those of the data hold for everybody.
    teacher = "the teacher is that of configs/quickstart.py:teacher,smoke"
    assert twice[1].splitlines() == [
        f"--config.train.epochs=none: for alone, distilled; {teacher}",
        f"--config.methods.kd.temperature=2.0: for distilled; not for alone, {teacher}",
    ]
