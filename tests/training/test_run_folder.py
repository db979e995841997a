"""The run folder: what belongs to another run stays, what is wrong leaves nothing."""

import json
import re
import shutil
import subprocess
import sys
import threading

import pytest

from tfkd import files
from tfkd.errors import TfkdError
from tfkd.training import config as configs
from tfkd.training import run, shapes
from tfkd.training.checkpoints import Checkpoints
from tfkd.training.run_folder import RunFolder

CONFIG = {"train": {"epochs": 3, "verbose": 1}, "methods": {"kd": {}}, "teacher": {}}


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "a" / "run")
    with made.hold():
        made.write_config(CONFIG)
    return made


def test_the_same_config_is_welcome_again(folder):
    folder.check(CONFIG)
    folder.check({**CONFIG, "train": {"epochs": 3, "verbose": 0}})


def test_another_config_is_refused_by_its_fields(folder):
    other = {**CONFIG, "train": {"epochs": 4, "verbose": 1}, "methods": {}}
    with pytest.raises(TfkdError) as caught:
        folder.check(other)
    message = str(caught.value)
    assert "holds a run of another config" in message
    assert "train.epochs is 3 there and 4 here" in message
    assert re.search(r"methods\.kd is \{'temperature': 4.0, .*\} there and None here", message)
    assert json.loads((folder.path / "config.json").read_text()) == CONFIG


@pytest.mark.parametrize(
    ("teacher", "same"), [({"config": "x.py", "workdir": "b"}, True), ({"workdir": "b"}, False)]
)
def test_the_folder_of_a_teacher_counts_where_it_is_all_that_is_known(teacher, same, folder):
    (folder.path / "config.json").unlink()
    folder.write_config({**CONFIG, "teacher": {**teacher, "workdir": "a"}})
    if same:
        folder.check({**CONFIG, "teacher": teacher})
    else:
        with pytest.raises(TfkdError, match="teacher.workdir is 'a' there and 'b' here"):
            folder.check({**CONFIG, "teacher": teacher})


def test_a_file_and_an_unreadable_config_are_refused(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(TfkdError, match="file': found a file, wanted a folder"):
        RunFolder(tmp_path / "file").check(CONFIG)
    with pytest.raises(TfkdError, match=r"found a path that cannot be \(File name too long\)"):
        RunFolder(tmp_path / ("a" * 300) / "run").check(CONFIG)
    with pytest.raises(TfkdError, match="found a zero byte, wanted another path"):
        RunFolder(f"{tmp_path}/a\0b").check(CONFIG)


WRONG_CONFIGS = ("{", "[]", "3", '"x"', "null", '{"data": 3}', '{"train": []}',
                 '{"methods": 3}', '{"methods": {"kd": 3}}', '{"methods": {"kd": {"method": []}}}',
                 '{"teacher": "a"}', '{"teachers": 3}', '{"teachers": [3]}',
                 '{"distiller": 3}', '{"distiller": [3]}',
                 '{"data": {"validation": "x"}}', '{"data": {"name": 3}}', "[" * 100_000,
                 '{"train": {"epochs": "x", "published_epochs": 3}}')  # fmt: skip


@pytest.mark.parametrize("text", WRONG_CONFIGS, ids=lambda text: text[:40])
def test_a_config_of_another_shape_is_one_line(text, folder):
    (folder.path / "config.json").write_text(text)
    with pytest.raises(TfkdError) as caught:
        folder.check(CONFIG)
    assert "config" in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


RESULT = {
    "summary": "top-1 50 %", "score": "top1", "score_label": "top-1 %", "score_metric": "accuracy",
    "score_scale": 100.0, "best_score": 51.0, "best_selected_on": "test", "seed": 0, "seconds": 1.5,
    "params": 10, "macs": 20, "student": "tiny", "dataset": "digits",
    "top1_last": 50, "top1_best": 50,
}  # fmt: skip
META = {"stage": 0, "epoch": 1, "step": 5, "history": [{"epoch": 1, "stage": "train", "loss": 0.5}]}


@pytest.mark.parametrize(
    "change",
    [{"summary": 3}, {"score": []}, {"score": "top5"}, {"top1_last": None}, {"seconds": "long"},
     {"best_score": {}}, {"inputs": []}, {"inputs": {"data": 3}}, {"exits": [3]}, {"variants": []},
     {"params": 10**30}, {"seed": 0.5}, None],
    ids=str,
)  # fmt: skip
def test_a_result_of_another_shape_is_none(change, folder):
    folder.write_json("result.json", RESULT)
    assert folder.result() == RESULT
    wrong = [RESULT] if change is None else {**RESULT, **change}
    (folder.path / "result.json").write_text(json.dumps(wrong))
    assert folder.result() is None


@pytest.mark.parametrize(
    "change",
    [{"stage": "0"}, {"step": 5.5}, {"epoch": True}, {"history": {}}, {"history": [3]},
     {"history": [{"epoch": 1, "loss": "x"}]}, {"inputs": {"data": []}}, {"accepted_changes": 3},
     {"stage_costs": {"train": 3}}, {"teachers_worth": []}, {"learning_rate": []}],
    ids=str,
)  # fmt: skip
def test_a_checkpoint_of_another_shape_counts_as_damaged(change, folder):
    store = Checkpoints(folder.checkpoints)
    store.save({}, META, 5)
    assert folder.begun() == META
    store.save({}, {**META, **change}, 6)
    assert folder.begun() == META
    with pytest.warns(UserWarning, match="step_000000000006.npz is cut short or damaged"):
        assert Checkpoints(folder.checkpoints, shapes.META).load() == ({}, META)


def test_links_inside_are_not_written_through(folder, tmp_path):
    (folder.path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TfkdError, match="checkpoints': found a link to"):
        folder.check(CONFIG)


def test_what_a_kill_left_is_cleared(folder):
    for place in (folder.path, folder.checkpoints):
        (place / f"{files.NEW}{0:032x}" / "student.keras").mkdir(parents=True)
    with folder.hold():
        assert not list(folder.path.rglob(f"{files.NEW}*"))


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path):
    with RunFolder(tmp_path / "a" / "b").hold():
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyError), RunFolder(tmp_path / "mine" / "b").hold():
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("kept")
    with (
        pytest.raises(TfkdError, match=r"'.*file/run' cannot be written \(Not a directory\)"),
        RunFolder(tmp_path / "file" / "run").hold(),
    ):
        pass
    assert (tmp_path / "file").read_text() == "kept"


def test_the_second_one_waits_for_the_first(folder, capsys):
    order = []
    started = threading.Event()

    def second():
        started.set()
        with folder.hold():
            order.append("second")

    with folder.hold():
        thread = threading.Thread(target=second)
        thread.start()
        started.wait(5)
        thread.join(0.3)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert "waiting for another run" in capsys.readouterr().out


def test_one_who_waited_for_a_folder_that_went_makes_it_anew(tmp_path):
    folder = RunFolder(tmp_path / "run")

    def second():
        with folder.hold():
            folder.write_config(CONFIG)

    with folder.hold():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
    thread.join(5)
    assert json.loads((folder.path / "config.json").read_text()) == CONFIG


def test_a_finished_run_is_not_trained_again(experiment, teacher_folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in teacher_folder.rglob("*")}
    result = run(experiment("teacher"), teacher_folder)
    assert result == json.loads((teacher_folder / "result.json").read_text())
    assert "is finished: top-1" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in teacher_folder.rglob("*")} == before


def test_a_field_that_a_config_lacks_has_its_default(experiment, teacher_folder, tmp_path, capsys):
    """Runs of a version that did not have the field yet are those of today's default."""
    shutil.copytree(teacher_folder, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    plain = json.loads(path.read_text())
    del plain["train"]["published_epochs"], plain["data"]["mixup"], plain["teacher"]["classes"]
    plain["student"]["preprocess"] = "dataset"  # The default of that version.
    path.write_text(json.dumps(plain))
    run(experiment("teacher"), tmp_path / "run")
    assert "is finished: top-1" in capsys.readouterr().out
    with pytest.raises(TfkdError, match="data.mixup is 0.0 there and 0.2 here"):
        run(experiment("teacher", data__mixup=0.2), tmp_path / "run")


def test_a_run_of_another_config_keeps_its_folder(experiment, teacher_folder):
    with pytest.raises(TfkdError, match="train.epochs is 2 there and 5 here"):
        run(experiment("teacher", train__epochs=5), teacher_folder)
    assert json.loads((teacher_folder / "result.json").read_text())["epochs"] == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data__name": "digit"}, "unknown data set 'digit'; did you mean 'digits'"),
        ({"student__name": "resnet8", "data__image_size": 2}, r"found input_shape=\(2, 2, 1\)"),
        ({"student__kwargs": {"widht": 3}}, "unknown argument of network 'tiny' 'widht'"),
        ({"train__batch_size": 1078}, "batch_size: found 1078, wanted at most 1077"),
        ({"teacher__config": "nowhere.py"}, "config 'nowhere.py': no such file"),
        ({"teacher__workdir": "nowhere", "teacher__config": ""}, "'nowhere': found no such folder"),
    ],
)
def test_a_wrong_config_leaves_no_run_folder(fields, message, experiment, tmp_path):
    config = experiment("distilled", **fields)
    with pytest.raises(TfkdError, match=message):
        run(config, tmp_path / "some" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_teacher_config_is_found_before_anything_is_trained(experiment, tmp_path):
    path = tmp_path / "teacher.py"
    path.write_text(
        "from tfkd.training.config import default\n"
        "def get_config():\n"
        "    config = default()\n"
        "    config.student.name = 'resnet9'\n"
        "    return config\n"
    )
    config = experiment("distilled", teacher__config=str(path))
    with pytest.raises(TfkdError, match=r"teacher.config .*teacher.py: unknown network .*resnet9"):
        run(config, tmp_path / "run")
    assert [each.name for each in tmp_path.iterdir()] == ["teacher.py"]


def test_student_and_teacher_need_two_folders(experiment, tmp_path):
    config = experiment("distilled", teacher__workdir=str(tmp_path / "x" / ".." / "run"))
    with pytest.raises(TfkdError, match="is the --workdir of the student as well; wanted two"):
        run(config, tmp_path / "run")


SCRIPT = """
import sys
from tfkd.training import config, run
experiment, workdir, teacher = sys.argv[1:]
run(config.override(config.load(experiment), teacher__workdir=teacher), workdir)
"""


@pytest.mark.slow
def test_two_processes_train_one_teacher_once(tmp_path, experiment):
    # The import ties the file's path to the fixture's, wherever the tests lie.
    path = experiment("distilled").teacher.config.rpartition(":")[0]
    teacher = tmp_path / "teacher"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, f"{path}:distilled", tmp_path / f"run{number}", teacher],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=configs.__file__.rpartition("/tfkd/")[0],
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    text = "".join(stdout for stdout, _ in outputs)
    assert text.count(f"{teacher}: top-1") == 1
    assert text.count(f"{teacher} is finished: top-1") == 1
    events = list((teacher / "tensorboard").iterdir())
    assert len(events) == 1
    first, second = (json.loads((tmp_path / f"run{n}" / "result.json").read_text()) for n in (0, 1))
    assert first["top1_last"] == second["top1_last"]
