"""One run: what it leaves behind, where its teacher comes from, and how it stops."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import NonFiniteLoss, TfkdError, data, evaluation, models
from tfkd.evaluation import reports
from tfkd.models.saving import load_network, save_network
from tfkd.training import run
from tfkd.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    """A distilled run with an export, its config and its result."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    config = experiment("distilled", export__enabled=True)
    return config, folder, run(config, folder)


def test_the_folder_holds_everything(finished):
    _, folder, _ = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "export",
        "metrics.csv",
        "network.json",
        "result.json",
        "student.keras",
        "student_best.keras",
        "tensorboard",
    ]


def test_the_result_has_every_field(finished, teacher_folder):
    config, folder, result = finished
    assert result == json.loads((folder / "result.json").read_text())
    teacher = json.loads((teacher_folder / "result.json").read_text())
    assert result["experiment"] == "tiny-distilled"
    assert (result["seed"], result["dataset"], result["epochs"]) == (0, "digits", 2)
    assert (result["student"], result["teacher"], result["methods"]) == ("tiny", "tiny", ["kd"])
    assert result["teacher_top1"] == teacher["top1_last"]
    assert teacher["teacher"] is teacher["teacher_top1"] is teacher["agreement"] is None
    student = keras.models.load_model(folder / "student.keras", compile=False)
    assert result["params"] == sum(v.numpy().size for v in student.trainable_variables)
    assert result["macs"] == 8 * 8 * 9 * 8 + 32 * 10
    assert 0 < result["images_per_second"]
    assert 0 < result["seconds"]
    assert set(result["versions"]) == {"python", "tensorflow", "keras", "numpy"}
    assert result["best_selected_on"] == "validation"


def test_its_numbers_are_those_of_the_saved_students(finished, teacher_folder):
    _, folder, result = finished
    images, labels, weights = (
        np.concatenate(list(part))
        for part in zip(
            *(
                (batch["image"], batch["label"], batch["sample_weight"])
                for batch in data.load("digits", batch_size=200).test()
            )
        )
    )
    rows = weights > 0
    images, labels = images[rows], labels[rows]

    def logits(path):
        description = json.loads((path.parent / "network.json").read_text())["preprocess"]
        pixels = (images - np.asarray(description["mean"])) / np.asarray(description["std"])
        model = keras.models.load_model(path, compile=False)
        return model.predict(pixels.astype(np.float32), verbose=0)

    for which, stem in (("last", "student"), ("best", "student_best")):
        found = logits(folder / f"{stem}.keras")
        assert result[f"top1_{which}"] == pytest.approx(100 * np.mean(found.argmax(-1) == labels))
        within = np.argsort(-found, axis=-1)[:, :5] == labels[:, None]
        assert result[f"top5_{which}"] == pytest.approx(100 * np.mean(within.any(-1)))
    same = logits(folder / "student.keras").argmax(-1)
    same = same == logits(teacher_folder / "student.keras").argmax(-1)
    assert result["agreement"] == pytest.approx(100 * np.mean(same))


def test_metrics_have_a_row_an_epoch_and_tensorboard_the_same(finished):
    _, folder, _ = finished
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.05, 0.025])
    wanted = {"loss", "student_loss", "kd", "accuracy", "val_student_loss", "val_accuracy"}
    assert wanted <= set(rows[0])
    assert "val_loss" not in rows[0]  # Its evaluations run no teacher, and so form no total.
    (events,) = (folder / "tensorboard").iterdir()
    logged = {}
    for record in tf.compat.v1.train.summary_iterator(str(events)):
        for value in record.summary.value:
            logged[value.tag, record.step] = float(tf.make_ndarray(value.tensor))
    for row in rows:
        for name in wanted:
            assert logged[name, int(row["epoch"])] == pytest.approx(float(row[name]), rel=1e-6)


def test_the_export_is_the_last_student(finished):
    _, folder, result = finished
    predict = evaluation.saved_model_predictor(folder / "export")
    found = evaluation.scores(predict, data.load("digits").test())
    assert found["top1"] == pytest.approx(result["top1_last"])


def test_the_student_loads_without_tfkd(finished):
    _, folder, _ = finished
    names = {
        type(layer).__module__.split(".")[0]
        for layer in keras.models.load_model(folder / "student.keras", compile=False).layers
    }
    assert names == {"keras"}


def test_evaluation_every_second_epoch_and_at_the_end(experiment, tmp_path):
    run(experiment(train__epochs=3, train__evaluate_every=2), tmp_path / "run")
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["val_accuracy"] != "" for row in rows] == [False, True, True]


def make_folder(root, classes, size=8):
    """Writes a folder of images: a few for each class in train and test."""
    for split, count in (("train", 12), ("test", 4)):
        for label in range(classes):
            place = root / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((size, size, 3), 40 * label + number, np.uint8)
                encoded = tf.io.encode_png(pixels).numpy()
                (place / f"{number}.png").write_bytes(encoded)
    return f"folder:{root}"


def test_top5_is_left_out_below_ten_classes(experiment, tmp_path):
    name = make_folder(tmp_path / "images", 3)
    config = experiment(data__name=name, data__augment="none", train__batch_size=12)
    result = run(config, tmp_path / "run")
    assert "top1_last" in result
    assert not [key for key in result if key.startswith("top5")]


def test_best_epochs_that_test_images_chose_are_told(experiment, tmp_path, capsys):
    fields = {"data__name": "digits", "data__validation_size": 0, "train__epochs": 1}
    result = run(experiment(**fields), tmp_path / "run")
    assert result["best_selected_on"] == "test"
    said = capsys.readouterr().out
    assert "no validation images: digits test chooses the best epoch (data.validation_size" in said
    assert said.rstrip().endswith("; the best epoch was chosen on the test images")
    assert result["summary"].endswith("; the best epoch was chosen on the test images")
    report = reports.report(run=tmp_path / "run", which="best")
    assert report["best_selected_on"] == "test"
    line = "the best epoch was chosen on these images"
    assert reports.table(report).splitlines()[-1] == line
    for other in ({"which": "last"}, {"which": "best", "split": "train"}):
        assert line not in reports.table(reports.report(run=tmp_path / "run", **other))
    fields |= {"teacher__config": None, "teacher__workdir": str(tmp_path / "run")}
    run(experiment("distilled", **fields, teacher__which="best"), tmp_path / "taught")
    assert "teacher.which=best: the best epoch was chosen on the test" in capsys.readouterr().out


def test_best_epochs_of_validation_images_need_no_words(finished, experiment, capsys):
    config, folder, result = finished
    assert result["best_selected_on"] == "validation"
    assert "chosen" not in result["summary"]
    report = reports.report(run=folder, which="best")
    assert report["best_selected_on"] == "validation"
    assert "chosen" not in reports.table(report)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_saves_float32(precision, experiment, tmp_path):
    config = experiment("distilled", train__precision=precision, teacher__dtype="bfloat16")
    result = run(config, tmp_path / "run")
    assert keras.config.dtype_policy().name == "float32"
    student = keras.models.load_model(tmp_path / "run" / "student.keras", compile=False)
    assert {layer.compute_dtype for layer in student.layers} == {"float32"}
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[1] < losses[0]
    assert result["epochs"] == 2


def test_xla_gives_the_same_losses(experiment, tmp_path):
    losses = []
    for jit in (False, True):
        folder = tmp_path / str(jit)
        run(experiment("distilled", train__jit_compile=jit, train__epochs=1), folder)
        with open(folder / "metrics.csv", newline="") as file:
            losses += [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


# Where the teacher comes from.


def no_config(**fields):
    return {"teacher__config": None, "teacher__workdir": None, **fields}


def test_a_teacher_from_a_run_folder_of_the_same_seed(
    experiment, teacher_folder, finished, tmp_path
):
    pattern = str(teacher_folder.parent / "seed{seed}")
    config = experiment("distilled", **no_config(teacher__workdir=pattern))
    result = run(config, tmp_path / "run")
    assert result["top1_last"] == finished[2]["top1_last"]
    with pytest.raises(TfkdError, match="seed1': found no such folder"):
        run(experiment("distilled", **no_config(teacher__workdir=pattern), train__seed=1), tmp_path)


def test_the_best_teacher_is_another_file(experiment, teacher_folder, finished, tmp_path):
    teacher = tmp_path / "teacher"
    shutil.copytree(teacher_folder, teacher)
    other = load_network(teacher)
    kernel, bias = other.model.layers[-1].get_weights()
    other.model.layers[-1].set_weights([-kernel, bias])
    save_network(other, teacher, "best")
    wanted = evaluation.scores(evaluation.predictor(other), data.load("digits").test())["top1"]
    fields = {"teacher__workdir": str(teacher), "teacher__which": "best", "train__epochs": 1}
    result = run(experiment("distilled", **fields), tmp_path / "run")
    assert result["teacher_top1"] == pytest.approx(wanted)
    assert result["teacher_top1"] != finished[2]["teacher_top1"]


def test_a_teacher_from_a_keras_file_of_a_run(experiment, teacher_folder, finished, tmp_path):
    weights = str(teacher_folder / "student.keras")
    result = run(experiment("distilled", **no_config(teacher__weights=weights)), tmp_path / "run")
    assert result["top1_last"] == finished[2]["top1_last"]
    assert result["teacher_top1"] == finished[2]["teacher_top1"]


def test_a_teacher_from_a_weights_file(experiment, teacher_folder, finished, tmp_path):
    path = tmp_path / "teacher.weights.h5"
    load_network(teacher_folder).model.save_weights(path)
    fields = no_config(teacher__weights=str(path), teacher__kwargs={"width": 12})
    with pytest.raises(TfkdError, match="needs teacher.name, the network of the weights"):
        run(experiment("distilled", **fields), tmp_path / "run")
    result = run(experiment("distilled", **fields, teacher__name="tiny"), tmp_path / "run")
    assert result["teacher_top1"] == finished[2]["teacher_top1"]
    assert result["top1_last"] == finished[2]["top1_last"]
    fields["teacher__kwargs"] = {"width": 4}
    with pytest.raises(TfkdError, match="teacher.weights.h5' does not fit tiny"):
        run(experiment("distilled", **fields, teacher__name="tiny"), tmp_path / "other")


def test_a_teacher_of_other_classes_or_images_is_refused(experiment, tmp_path):
    for shape, classes, message in (
        ((8, 8, 1), 7, "has 7 classes, but digits has 10"),
        ((8, 8, 3), 10, r"takes images \(8, 8, 3\), but those of digits are \(8, 8, 1\)"),
    ):
        path = tmp_path / f"teacher{classes}.keras"
        models.create("resnet8", classes, shape).save(path)
        config = experiment("distilled", **no_config(teacher__weights=str(path)))
        with pytest.raises(TfkdError, match=message):
            run(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_damaged_teacher_file_is_refused(experiment, tmp_path):
    path = tmp_path / "teacher.keras"
    path.write_bytes(b"not a network")
    config = experiment("distilled", **no_config(teacher__weights=str(path)))
    with pytest.raises(TfkdError, match="teacher.keras"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# How it stops.


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_loss_that_is_not_finite_stops_the_run(steps_per_execution, experiment, tmp_path):
    # The second epoch's rate overflows: its first step is applied, its second finds the damage.
    config = experiment(
        train__epochs=3,
        train__schedule__name="step",
        train__schedule__milestones=(1,),
        train__schedule__decay_factor=1e38,
        train__checkpoint_seconds=0.0,
        train__steps_per_execution=steps_per_execution,
    )
    with pytest.raises(NonFiniteLoss) as caught:
        run(config, tmp_path / "run")
    message = str(caught.value)
    assert "student_loss" in message and "epoch 2" in message and "step 6" in message
    assert "\n" not in message
    assert not (tmp_path / "run" / "result.json").exists()
    arrays, meta = Checkpoints(tmp_path / "run" / "checkpoints").load()
    assert meta["step"] <= 6
    if steps_per_execution == 4:
        assert meta["step"] == 5
        assert all(np.isfinite(value).all() for value in arrays.values())
    with pytest.raises(NonFiniteLoss, match="step 6"):
        run(config, tmp_path / "run")


def test_a_loss_that_is_not_finite_in_the_teacher_is_the_teachers(experiment, tmp_path):
    path = tmp_path / "teacher.py"
    path.write_text(
        "from tfkd.training.config import load\n"
        "def get_config():\n"
        f"    config = load({str(experiment('distilled').teacher.config)!r})\n"
        "    config.train.learning_rate = 1e38\n"
        "    return config\n"
    )
    config = experiment(
        "distilled", teacher__config=str(path), teacher__workdir=str(tmp_path / "teacher")
    )
    with pytest.raises(NonFiniteLoss, match="teacher: loss 'student_loss' is not finite at step"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
