"""tools/tune.py as a user calls it, killed in the middle and called again."""

import json
import signal
import time

import pytest

from tfkd.training import config as configs
from tfkd.training.run_folder import comparable

CASES = {
    "nothing to search": ([], "found nothing to vary, wanted search_space in the config or"),
    "field": (
        ["--search=train.learning_rat=1,2"],
        "unknown config field 'train.learning_rat'; did you mean 'train.learning_rate'?",
    ),
    "no value": (["--search=train.epochs="], "search_space[0].choices: found (), wanted a list"),
    "type": (["--search=train.epochs=1,many"], "train.epochs: found 'many', wanted int"),
    "form": (["--search=train.epochs"], "wanted FIELD=VALUE,VALUE"),
    "value": (["--search=train.epochs=1,0"], "train.epochs: found 0, wanted"),
    "method": (["--search=train.epochs=1", "--method=gird"], "--method"),
    "another search": (
        ["--search=train.epochs=1", "--workdir={root}/other"],
        "workdir '{root}/other' holds another search: method is 'random' there and 'grid' here",
    ),
    "a run": (["--search=train.epochs=1", "--workdir={root}/run"], "found a run, wanted a search"),
    "no workdir": (["--workdir="], "wanted --config=FILE and --workdir=FOLDER (see --help)"),
}


@pytest.mark.slow
def test_wrong_input_is_one_line_and_status_2(call_all, experiment, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "other").mkdir()
    plain = comparable(configs.to_dict(configs.load(experiment("alone").partition("=")[2])))
    other = {"config": plain, "method": "random", "space": [], "rows": []}
    (tmp_path / "other" / "search.json").write_text(json.dumps(other))
    before = sorted(path for path in tmp_path.rglob("*"))

    def filled(arguments):
        given = [each.format(root=tmp_path) for each in arguments]
        usual = [] if any("--workdir" in each for each in given) else [f"--workdir={tmp_path}/new"]
        return ["tune.py", experiment("alone"), *usual, *given]

    found = call_all([filled(arguments) for arguments, _ in CASES.values()])
    for (status, stdout, stderr), (case, (_, message)) in zip(found, CASES.items(), strict=True):
        assert status == 2, (case, stderr)
        assert stderr.startswith("tune.py: ") and stderr.count("\n") == 1, (case, stderr)
        assert message.format(root=tmp_path) in stderr, (case, stderr)
        assert stdout == "", case
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_killed_search_goes_on_by_the_same_command(start, experiment, tmp_path):
    folder = tmp_path / "search"
    arguments = (
        "tune.py",
        experiment("alone"),
        f"--workdir={folder}",
        "--search=train.learning_rate=0.5,1",
        "--config.train.epochs=3",
        "--config.train.checkpoint_seconds=0",
    )
    call = start(*arguments)
    running = folder / "trials" / "02"
    for _ in range(2000):
        if list(running.glob("checkpoints/*.npz")):
            break
        time.sleep(0.05)
    call.process.kill()
    assert call.ended()[0] == -signal.SIGKILL
    assert not (running / "result.json").exists()
    status, stdout, stderr = start(*arguments).ended()
    assert (status, stderr) == (0, "")
    assert "trials/01 is finished" in stdout and "continuing after step" in stdout
    best = stdout.splitlines()[-2:]
    assert best[0].startswith(f"best: {folder}/trials/0")
    assert best[1].startswith("  --config.train.learning_rate=")
    assert (folder / "scores.png").exists()
    assert len(json.loads((folder / "search.json").read_text())["rows"]) == 2
