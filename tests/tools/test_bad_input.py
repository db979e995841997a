"""Wrong input to the binaries: one clear line, status 2, and nothing written or lost."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tfkd import models
from tfkd.training import config as configs

CASES = {
    "flag": (["--epochs=3"], "Unknown command line flag 'epochs'"),
    "argument": (["more"], "unexpected argument 'more'; every option is a --flag"),
    "config file": (["--config=nowhere.py"], "config 'nowhere.py': no such file"),
    "config argument": (
        ["--config={experiment}:alnoe"],
        "unknown argument 'alnoe'; did you mean 'alone'?",
    ),
    "config field": (
        ["--config.train.epoch=3"],
        "unknown config field 'train.epoch'; did you mean 'train.epochs'? (--helpfull lists",
    ),
    "setting": (
        ["--config={experiment}:distilled", "--config.methods.kd.temprature=2"],
        "unknown config field 'methods.kd.temprature'; did you mean 'methods.kd.temperature'?",
    ),
    "method": (
        ["--config={experiment}:distilled", "--config.methods.dkd.weight=2"],
        "config field 'methods.dkd.weight': found no method 'dkd' in this config, wanted one of "
        "those that it has (kd)",
    ),
    "type": (["--config.train.epochs=many"], "config field train.epochs: found 'many', wanted int"),
    "data set": (["--config.data.name=digit"], "unknown data set 'digit'; did you mean 'digits'?"),
    "class": (["--config.data.classes=('3','x')"], "unknown class of digits 'x' (known: 0, 1, 2"),
    "numbers of classes": (
        ["--config.data.classes=3,5"],
        "data.classes: found (3, 5), wanted a list of strings or None",
    ),
    "image size": (
        ["--config.student.name=resnet8", "--config.data.image_size=2"],
        "network 'resnet8': found input_shape=(2, 2, 1); wanted an image of 4x4 pixels or more",
    ),
    "classes": (
        [
            "--config={experiment}:distilled",
            "--config.teacher.config=",
            "--config.teacher.weights={root}/seven.keras",
        ],
        "teacher seven has 7 classes, but digits has 10",
    ),
    "empty folder": (["--config.data.name=folder:{root}/empty"], "{root}/empty"),
    "corrupt image": (
        ["--config.data.name=folder:{root}/corrupt", "--config.train.batch_size=2"],
        "{root}/corrupt/train/b/1.jpg",
    ),
    "workdir": (["--workdir={root}/file/run"], "'{root}/file/run' cannot be written"),
    "workdir is a file": (["--workdir={root}/file"], "found a file, wanted a folder"),
    "another config": (
        ["--workdir={root}/other"],
        "workdir '{root}/other' holds a run of another config: train.epochs is 9 there and 2 here",
    ),
    "replicas": (
        ["--strategy=mirrored", "--cpu_devices=3"],
        "train.batch_size 200: cannot be shared by 3 replicas; wanted a multiple of 3",
    ),
    "cluster": (["--strategy=multi_worker"], "found no TF_CONFIG in the environment"),
    "endless epochs": (
        [f"--config.train.epochs={10**30}"],
        f"train.epochs: found {10**30}, wanted a whole number from 1 to 1,000,000 or None",
    ),
    "many devices": (
        ["--strategy=mirrored", f"--cpu_devices={10**6}"],
        "cpu_devices: found 1000000, wanted a number from 1 to 256",
    ),
    "large images": (
        ["--config.data.image_size=10101"],
        "data.image_size: found 10101, wanted a whole number from 1 to 4,096 or None",
    ),
    "images that fill the memory": (
        ["--config.data.image_size=4096"],
        "image_size: found 4096 x 4096 pixels, with which digits has 30,148,657,152 bytes",
    ),
    "seed": ([f"--config.train.seed={10**30}"], f"train.seed: found {10**30}, wanted a whole"),
    "long name": ([f"--workdir={'a' * 300}"], "found a path that cannot be (File name too long)"),
    "flagfile": (
        ["--flagfile={root}/gone"],
        "'{root}/gone'; wanted a text file of flags, one a line",
    ),
    "config that fails": (["--config={root}/fails.py"], "line 2: ZeroDivisionError: division"),
    "config that ends": (["--config={root}/ends.py"], "line 1: SystemExit: 0"),
    "config of another shape": (
        ["--workdir={root}/shape"],
        "{root}/shape/config.json': the file is [], not an object; wanted the config of a run",
    ),
    "no workdir": (["--workdir="], "wanted --config=FILE and --workdir=FOLDER (see --help)"),
}


def contents(root):
    return {path: path.is_file() and path.read_bytes() for path in root.rglob("*")}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of wrong files."""
    root = tmp_path_factory.mktemp("bad")
    (root / "file").write_text("kept")
    (root / "empty" / "train").mkdir(parents=True)
    (root / "fails.py").write_text("def get_config():\n    return 1 / 0\n")
    (root / "ends.py").write_text("raise SystemExit(0)\n")
    (root / "shape").mkdir()
    (root / "shape" / "config.json").write_text("[]")
    models.create("resnet8", 7, (8, 8, 1)).save(root / "seven.keras")
    image = tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy()
    for split in ("train", "test"):
        for label in ("a", "b"):
            (root / "corrupt" / split / label).mkdir(parents=True)
            for number in range(3):
                (root / "corrupt" / split / label / f"{number}.jpg").write_bytes(image)
    (root / "corrupt" / "train" / "b" / "1.jpg").write_bytes(image[: len(image) // 2])
    return root


@pytest.fixture(scope="module")
def outcomes(root, call_all, experiment):
    """What each call ended with, and the folder before and after all of them."""
    path = experiment("").removeprefix("--config=").removesuffix(":")
    other = json.loads(configs.load(f"{path}:alone").to_json())
    other["train"]["epochs"] = 9
    (root / "other").mkdir()
    (root / "other" / "config.json").write_text(json.dumps(other))
    before = contents(root)

    def filled(arguments):
        given = [each.format(root=root, experiment=path) for each in arguments]
        names = {each.partition("=")[0] for each in given}
        usual = {"--config": experiment("alone"), "--workdir": f"--workdir={root}/new/run"}
        return ["train.py", *(flag for name, flag in usual.items() if name not in names), *given]

    found = call_all([filled(arguments) for arguments, _ in CASES.values()])
    return dict(zip(CASES, found, strict=True)), before, contents(root)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_one_line_and_status_2(case, outcomes, root):
    status, stdout, stderr = outcomes[0][case]
    assert status == 2, stderr
    # The JPEG library inside TensorFlow writes lines of its own, which nothing can turn off.
    own = [line for line in stderr.splitlines() if "JPEG library" not in line]
    assert len(own) == 1, stderr
    assert own[0].startswith("train.py: ")
    assert CASES[case][1].format(root=root) in stderr
    assert "step" not in stdout


@pytest.mark.slow
def test_nothing_was_written_or_lost(outcomes):
    _, before, after = outcomes
    assert before == after


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_named(start, experiment, tmp_path):
    status, _, stderr = start(
        "train.py",
        experiment("alone"),
        f"--workdir={tmp_path}/run",
        "--config.train.learning_rate=1e38",
        "--config.train.checkpoint_seconds=0",
    ).ended()
    assert status == 2, stderr
    assert stderr.count("\n") == 1, stderr
    assert "loss 'student_loss' is not finite at step" in stderr and "(epoch 1)" in stderr
    assert not (tmp_path / "run" / "result.json").exists()


BROKEN = """
from tfkd import Objective, Requires, TfkdError, register
from tfkd.training.config import load, methods


@register("broken")
class Broken(Objective):
    requires = Requires(taps={{("student", "main"): ["logits"]}})

    def compute(self, context):
        raise TfkdError("broken: found a, wanted b")


def get_config():
    config = load({experiment!r})
    config.methods = methods(broken={{}})
    return config
"""


@pytest.mark.slow
def test_a_mistake_of_a_method_is_one_line(start, experiment, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(BROKEN.format(experiment=experiment("alone").removeprefix("--config=")))
    status, _, stderr = start("train.py", f"--config={path}", f"--workdir={tmp_path}/run").ended()
    assert (status, stderr) == (2, "train.py: broken: found a, wanted b\n")
