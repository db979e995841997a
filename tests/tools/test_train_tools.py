"""tools/train.py and tools/compare.py as a user calls them."""

import json
import signal
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_help_lists_flags_and_fields(call_all):
    paths = (ROOT / "tools").glob("*.py")
    binary = '\nif __name__ == "__main__":\n'
    tools = sorted(path.name for path in paths if binary in path.read_text())
    assert {"train.py", "compare.py"} <= set(tools)
    *calls, full = call_all([*((tool, "--help") for tool in tools), ("tune.py", "--helpfull")])
    for tool, (status, stdout, stderr) in zip(tools, calls, strict=True):
        assert (status, stderr) == (0, ""), tool
        assert "\nFlags:\n" in stdout
        assert f"python tools/{tool}" in stdout
        assert max(map(len, stdout.splitlines())) < 200
        if tool in ("train.py", "compare.py"):
            assert "--workdir" in stdout and "--strategy" in stdout
            assert stdout.endswith("--helpfull lists them all, and the settings of every method.\n")
    assert full[0] == 0
    assert "\n  train.batch_size [64]\n      images of one step over all replicas\n" in full[1]
    assert "\n  methods.kd.temperature [4.0]\n" in full[1]


@pytest.mark.slow
def test_typed_overrides_reach_the_run(start, experiment, tmp_path):
    status, stdout, stderr = start(
        "train.py",
        experiment("distilled"),
        "--workdir=run",
        f"--config.teacher.workdir={tmp_path}/teacher",
        "--config.methods.kd.temperature=2",
        "--config.methods.kd.weight=3",
        "--config.train.schedule.name=step",
        "--config.train.schedule.milestones=(1,2)",
        "--config.data.validation_size=100",
        "--config.train.checkpoint_seconds=5",
        "--noconfig.teacher.fold",
        "--config.train.verbose=1",
        "--config.train.epochs=1",
        cwd=tmp_path,
    ).ended()
    assert (status, stderr) == (0, "")
    assert "teacher tiny: top-1" in stdout
    assert stdout.index("teacher tiny: top-1") < stdout.rindex("epoch 1/1, ")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["methods"]["kd"]["temperature"] == 2.0
    assert config["methods"]["kd"]["weight"] == 3.0
    assert config["train"]["schedule"]["milestones"] == [1, 2]
    assert config["data"]["validation_size"] == 100
    assert config["teacher"]["fold"] is False
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epochs"] == 1


@pytest.mark.slow
def test_an_interrupt_says_what_to_do(start, experiment, tmp_path):
    call = start(
        "train.py",
        experiment("alone"),
        f"--workdir={tmp_path}/run",
        "--config.train.epochs=100000",
        "--config.train.checkpoint_seconds=0",
    )
    for _ in range(600):
        if list(tmp_path.glob("run/checkpoints/*.npz")):
            break
        time.sleep(0.1)
    call.process.send_signal(signal.SIGINT)
    status, _, stderr = call.ended()
    assert status == 130
    step = int(max(tmp_path.glob("run/checkpoints/*.npz")).stem.removeprefix("step_"))
    assert stderr == (
        f"train.py: interrupted by SIGINT; the same command continues {tmp_path}/run after step "
        f"{step:,}\n"
    )


@pytest.mark.slow
def test_a_comparison_is_silent_about_tensorflow(start, experiment, tmp_path):
    arguments = (
        "compare.py",
        experiment("distilled"),
        "--workdir=compared",
        "--seeds=1",
        "--config.export.enabled=True",
        "--config.train.epochs=1",
    )
    status, stdout, stderr = start(*arguments, cwd=tmp_path).ended()
    assert (status, stderr) == (0, "")
    assert [line.split()[0] for line in stdout.splitlines()[-3:]] == [
        "teacher",
        "alone",
        "distilled",
    ]
    rows = json.loads((tmp_path / "compared" / "summary.json").read_text())["rows"]
    assert len(rows) == 3
    assert (tmp_path / "compared" / "export" / "saved_model.pb").exists()
    wrong = start("compare.py", *arguments[1:3], "--seeds=0,one", cwd=tmp_path)
    status, _, stderr = wrong.ended()
    assert status == 2
    assert stderr == "compare.py: --seeds=0,one: wanted whole numbers\n"
