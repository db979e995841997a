"""A student of several teachers: how a config names them, and that the mean of them teaches."""

import json

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tests.training.conftest import EXPERIMENT
from tfkd import evaluation
from tfkd.errors import TfkdError
from tfkd.models.saving import load_network
from tfkd.training import build, config_checks, run, teachers
from tfkd.training import compare as comparison
from tfkd.training import config as configs

TEACHER = f"{EXPERIMENT}:teacher"


@tfkd.register("reads_features")
class _ReadsFeatures(tfkd.Objective):
    requires = tfkd.Requires(taps={("teacher", "main"): ["pre_pool"]})

    def compute(self, context):
        return context.mean(tf.reduce_mean(context.teacher("pre_pool"), (1, 2, 3)))


@pytest.fixture(scope="module")
def second_folder(experiment, tmp_path_factory):
    """The run folder of a second teacher, of another seed."""
    folder = tmp_path_factory.mktemp("second") / "run"
    run(experiment("teacher", train__seed=5), folder)
    return folder


@pytest.fixture(scope="module")
def two(experiment, second_folder):
    """A config with two teachers."""
    further = (configs.teacher(workdir=str(second_folder)),)
    return experiment("distilled", teachers=further, train__checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def finished(two, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    run(two, folder)
    return folder


def test_the_mean_of_their_probabilities_is_measured(finished, two, teacher_folder, second_folder):
    dataset = build.data_set(two)
    networks = [load_network(teacher_folder), load_network(second_folder)]
    right, agreed, count = 0, 0, 0
    student = load_network(finished)
    for batch in dataset.test():
        softmax = [
            tf.nn.softmax(each.model(each.preprocess(batch["image"]), training=False)).numpy()
            for each in networks
        ]
        mean = np.mean(softmax, axis=0).argmax(-1)
        own = student.model(student.preprocess(batch["image"]), training=False).numpy().argmax(-1)
        counts = batch["sample_weight"].numpy() if "sample_weight" in batch else np.ones(len(mean))
        right += (counts * (mean == batch["label"].numpy())).sum()
        agreed += (counts * (mean == own)).sum()
        count += counts.sum()
    result = json.loads((finished / "result.json").read_text())
    assert result["teacher_top1"] == pytest.approx(100 * right / count)
    assert result["agreement"] == pytest.approx(100 * agreed / count)
    assert result["teacher"] == "tiny + tiny"


def test_both_teach(finished, two, experiment, teacher_folder, second_folder, tmp_path):
    """Neither alone leads to the same student, and their order is nothing to it but rounding."""
    for folder, seed in ((teacher_folder, 0), (second_folder, 5)):
        fields = {"teacher__workdir": str(folder), "teacher__seed": seed}
        run(configs.override(two, teachers=(), **fields), tmp_path / folder.name)
        alone = load_network(tmp_path / folder.name).model.get_weights()
        both = load_network(finished).model.get_weights()
        assert not all(
            np.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(alone, both)
        )
    further = (configs.teacher(workdir=str(teacher_folder)),)
    run(
        experiment(
            "distilled", teacher__workdir=str(second_folder), teacher__seed=5, teachers=further
        ),
        tmp_path / "swapped",
    )
    students = [load_network(each).model.get_weights() for each in (finished, tmp_path / "swapped")]
    for one, other in zip(*students, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_an_interrupted_run_ends_the_same(finished, two, stopped, same_run, tmp_path):
    stopped(two, tmp_path / "run", after=3)
    run(two, tmp_path / "run")
    same_run(tmp_path / "run", finished)


def test_each_is_told_and_then_their_mean(two, tmp_path, capsys):
    run(configs.override(two, train__epochs=1), tmp_path / "run")
    said = [line for line in capsys.readouterr().out.splitlines() if "on digits test" in line]
    starts = [line.split(": ")[0] for line in said]
    assert starts == ["teacher tiny", "teacher tiny", "mean of 2 teachers"]


def test_several_teachers_are_trained_on_demand_in_folders_of_their_own(
    experiment, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    config = experiment(
        "distilled",
        train__epochs=1,
        teacher__config=TEACHER,
        teacher__workdir=None,
        teacher__seed=1,
        teachers=(configs.teacher(config=TEACHER, seed=2), configs.teacher(config=TEACHER, seed=3)),
    )
    run(config, "student")
    (folder,) = (tmp_path / "runs" / "teachers").iterdir()
    assert sorted(each.name for each in folder.iterdir()) == ["seed1", "seed2", "seed3"]
    again = run(config, "student")
    assert again["teacher"] == "tiny + tiny + tiny"


def test_fields_of_further_teachers_can_be_changed_by_flags(two):
    kinds = configs.fields(two)
    assert kinds["teachers[0].workdir"] is str and kinds["teachers[0].seed"] is int


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (
            "tiny",
            r"teachers\[0\]: found 'tiny', wanted what tfkd.training.config.teacher\(\) gives",
        ),
        (configs.teacher(), r"teachers\[0\]: found none of config, workdir and weights"),
        (configs.teacher(name="resnet8"), r"teachers\[0\]: found none of config, workdir"),
        (
            configs.teacher(workdir="a", weights="b"),
            r"found teachers\[0\].weights besides teachers\[0\].workdir",
        ),
        (
            configs.teacher(workdir="a", preprocess="tf"),
            r"teachers\[0\].preprocess: found 'tf' besides teachers\[0\].workdir",
        ),
    ],
)
def test_a_wrong_further_teacher_is_named(further, message, experiment):
    with pytest.raises(TfkdError, match=message):
        config_checks.validate(experiment("distilled", teachers=(further,)))


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (("lost", "last"), "unknown teacher.which 'lost'; did you mean 'last'"),
        (("last", "first"), r"unknown teachers\[0\].which 'first'"),
    ],
)
def test_a_student_that_no_teacher_leaves_is_refused_before_one_is_trained(
    which, message, experiment, tmp_path
):
    second = configs.teacher(
        config=TEACHER, workdir=str(tmp_path / "second"), seed=4, which=which[1]
    )
    config = experiment(
        "distilled",
        teacher__config=TEACHER,
        teacher__workdir=str(tmp_path / "first"),
        teacher__which=which[0],
        teachers=(second,),
    )
    with pytest.raises(TfkdError, match=message):
        run(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_further_teacher_needs_a_first(experiment):
    config = experiment("alone", teachers=(configs.teacher(workdir="a"),))
    with pytest.raises(TfkdError, match=r"teachers\[0\]: found it without a trained teacher"):
        config_checks.validate(config)


def test_teacher_refuses_unknown_fields_and_other_types():
    with pytest.raises(TfkdError, match="field of teacher().*'seeds'.*seed"):
        configs.teacher(seeds=1)
    with pytest.raises(TfkdError, match="field seed of teacher()"):
        configs.teacher(seed="one")


def test_one_folder_for_two_teachers_is_refused(experiment, tmp_path):
    config = experiment(
        "distilled",
        teacher__config=TEACHER,
        teacher__workdir=str(tmp_path / "same"),
        teachers=(configs.teacher(config=TEACHER, workdir=str(tmp_path / "same"), seed=4),),
    )
    with pytest.raises(TfkdError, match=r"teachers\[0\]: its .*same' is that of teacher as well"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_finished_run_is_one_teacher_but_its_last_and_best_are_two(
    experiment, teacher_folder, tmp_path
):
    def of_the_same(which):
        return experiment(
            "distilled",
            teacher__config=None,
            teacher__workdir=str(teacher_folder),
            teachers=(configs.teacher(workdir=str(teacher_folder), which=which),),
            train__epochs=1,
        )

    with pytest.raises(TfkdError, match=r"teachers\[0\]: its .* is that of teacher as well"):
        run(of_the_same("last"), tmp_path / "run")
    run(of_the_same("best"), tmp_path / "run")


def test_a_finished_run_is_not_taught_by_itself(experiment, teacher_folder):
    config = experiment("teacher", teacher__workdir=str(teacher_folder))
    with pytest.raises(
        TfkdError, match="is the --workdir of the student as well; wanted two folders"
    ):
        teachers.check(config, teacher_folder)


def test_features_of_several_teachers_are_refused_before_one_is_trained(experiment, tmp_path):
    further = (configs.teacher(config=TEACHER, workdir=str(tmp_path / "second"), seed=4),)
    config = experiment(
        "distilled",
        teacher__config=TEACHER,
        teacher__workdir=str(tmp_path / "first"),
        teachers=further,
        methods=configs.methods(reads_features={}),
    )
    with pytest.raises(
        TfkdError, match="taps pre_pool of 'teacher': found 2 teachers, .* wanted one teacher"
    ):
        run(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workdir": "typo"}, r"teachers\[0\].workdir 'typo': found no such folder"),
        ({"weights": "typo.keras"}, r"teachers\[0\].weights 'typo.keras': no such file"),
    ],
)
def test_a_missing_teacher_is_found_before_the_first_is_trained(
    fields, message, experiment, tmp_path
):
    config = experiment(
        "distilled",
        teacher__workdir=str(tmp_path / "teacher"),
        teachers=(configs.teacher(**fields),),
    )
    with pytest.raises(TfkdError, match=message):
        run(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_weights_of_a_further_teacher_are_named_as_its_own(experiment, tmp_path):
    path = tmp_path / "some.weights.h5"
    path.touch()
    further = (configs.teacher(weights=str(path)),)
    with pytest.raises(TfkdError, match=r"teachers\[0\].weights .* needs teachers\[0\].name"):
        run(experiment("distilled", teachers=further), tmp_path / "run")


def test_a_comparison_wants_one_teacher(two, tmp_path):
    with pytest.raises(TfkdError, match=r"compare: found 2 teachers \(distilled\), wanted one"):
        comparison.compare(two, tmp_path, [0])


def test_a_run_of_one_teacher_knows_its_folder_from_before_there_were_several(experiment, tmp_path):
    """Its config.json lacks the field."""
    config = experiment("alone", train__epochs=1)
    run(config, tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    plain = json.loads(file.read_text())
    del plain["teachers"]
    file.write_text(json.dumps(plain))
    run(config, tmp_path / "run")


def test_an_ensemble_of_one_is_its_member(teacher_folder):
    network = load_network(teacher_folder)
    images = np.random.default_rng(0).integers(0, 17, (4, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(
        evaluation.ensemble([network])(images)["logits"],
        evaluation.predictor(network)(images)["logits"],
    )
