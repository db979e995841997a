"""tools/compare.py: a method that fails is a row, and the exit status says so."""

import json

import pytest

CONFIG = """
from tfkd.training import config as configs

def get_config(argument="ps_kd"):
    config = configs.load("{experiment}")
    config = configs.override(config, methods=configs.methods(**{{argument: {{}}}}))
    if argument == "teacher_free":
        config.train.learning_rate = 1e38
    return config
"""


@pytest.mark.slow
def test_a_failed_method_is_a_row_and_status_1(start, experiment, tmp_path):
    alone = experiment("alone").removeprefix("--config=")
    (tmp_path / "experiments.py").write_text(CONFIG.format(experiment=alone))
    status, stdout, stderr = start(
        "compare.py",
        f"--config={tmp_path}/experiments.py",
        f"--workdir={tmp_path}/out",
        "--methods=teacher_free,ps_kd",
        "--seeds=0",
        "--config.train.epochs=1",
    ).ended()
    assert status == 1
    assert stderr.startswith("warning: teacher_free trains by a recipe of its own")
    assert "the config as given" in stderr and stderr.count("\n") == 1
    alone, failed, other = stdout.splitlines()[-3:]
    assert [line.split()[0] for line in (alone, failed, other)] == [
        "alone", "teacher_free", "ps_kd",
    ]  # fmt: skip
    assert failed.split(maxsplit=1)[1].startswith("failed: ") and "is not finite" in failed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["error"] is None for row in summary["rows"]] == [True, False, True]
    written = json.loads((tmp_path / "out" / "alone" / "seed0" / "config.json").read_text())
    assert written["train"]["epochs"] == 1 and written["train"]["learning_rate"] < 1
