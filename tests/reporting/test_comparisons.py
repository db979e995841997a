"""Tables of comparisons, of this version and the one before it."""

import json
import math

import pytest

from tfkd.errors import TfkdError
from tfkd.reporting.comparisons import comparison

SCORES = {"alone": (70.0, 74.0), "kd": (71.0, 78.0), "dkd": (75.0, 79.0), "teacher": (90.0, 91.0)}


def earlier_row(role, seed, top1):
    agreement = None if role == "teacher" else top1 + 1
    return dict(
        role=role, seed=seed, top1=top1, agreement=agreement, params=2646, macs=40016, seconds=8.5
    )


def row(role, seed, score, **more):
    return dict(
        role=role, seed=seed, score=score, top1=score, loss=None if score is None else score / 100,
        exits=[], variants={}, agreement=None, params=None if score is None else 2646,
        macs=None if score is None else 40016, seconds=None if score is None else 8.5, error=None,
    ) | more  # fmt: skip


COLUMNS = [
    {"key": "top1", "label": "top-1 %", "form": "{:.2f}"},
    {"key": "loss", "label": "loss", "form": "{:.4f}"},
]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def lines(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


@pytest.fixture
def earlier(tmp_path):
    """A comparison of the version before, with two seeds of each role."""
    rows = [
        earlier_row(role, seed, scores[seed]) for seed in (0, 1) for role, scores in SCORES.items()
    ]
    write(tmp_path / "runs" / "summary.json", {"experiment": "earlier", "rows": rows})
    return tmp_path


def test_roles_stand_in_order_of_their_scores_with_means_and_deviations(earlier):
    header, _, *found = lines(comparison(earlier, "runs", ["score", "over_alone"]))
    assert header == ["role", "top-1 %", "over alone"]
    assert found == [
        ["`teacher`", "90.50 ± 0.71", "-"],
        ["`alone`", "72.00 ± 2.83", "-"],
        ["`dkd`", "77.00 ± 2.83", "+5.00 ± 0.00"],
        ["`kd`", "74.50 ± 4.95", "+2.50 ± 2.12"],
    ]


def test_columns_come_as_they_are_asked_for(earlier):
    header, _, teacher, alone, *_ = lines(
        comparison(earlier, "runs", ["seconds", "params", "macs", "agreement"])
    )
    assert header == [
        "role", "seconds a run", "parameters", "MACs", "agreement with the teacher %",
    ]  # fmt: skip
    assert teacher == ["`teacher`", "8.5 ± 0.0", "2,646", "40,016", "-"]
    assert alone == ["`alone`", "8.5 ± 0.0", "2,646", "40,016", "73.00 ± 2.83"]


def test_gains_pair_the_seeds(tmp_path):
    rows = [earlier_row("alone", 1, 74.0), earlier_row("kd", 0, 60.0), earlier_row("kd", 1, 73.0)]
    write(tmp_path / "runs" / "summary.json", {"experiment": "pairs", "rows": rows})
    *_, kd = lines(comparison(tmp_path, "runs", ["over_alone"]))
    assert kd == ["`kd`", "-1.00"]


def test_variants_have_lines_and_any_role_may_be_compared_with(tmp_path):
    def bayes(score):
        return {"bayes": dict(score=score, top1=score, loss=1.0, params=2646, macs=40016)}

    rows = [row("kd", 0, 75.0), row("kd", 1, 77.0), row("teacher", 0, 90.0)]
    rows += [row("auxvar", seed, 78.0, variants=bayes(74.0 + 4 * seed)) for seed in (0, 1)]
    write(tmp_path / "runs" / "summary.json", {"columns": COLUMNS, "rows": rows})
    header, _, *found = lines(comparison(tmp_path, "runs", ["score", "over_kd", "params"]))
    assert header == ["role", "top-1 %", "over kd", "parameters"]
    assert found == [
        ["`teacher`", "90.00", "-", "2,646"],
        ["`auxvar`", "78.00 ± 0.00", "+2.00 ± 1.41", "2,646"],
        ["`kd`", "76.00 ± 1.41", "-", "2,646"],
        ["`auxvar (bayes)`", "76.00 ± 2.83", "+0.00 ± 1.41", "2,646"],
    ]
    with pytest.raises(TfkdError, match="unknown column 'over_dk'; did you mean 'over_kd'"):
        comparison(tmp_path, "runs", ["over_dk"])


def test_networks_and_teachers_are_those_of_the_runs(earlier):
    for role in SCORES:
        kwargs = {"widths": [4, 8], "adder": True} if role != "teacher" else {}
        config = {"distiller": [], "student": {"name": "resnet8", "kwargs": kwargs}}
        for seed in (0, 1):
            folder = earlier / "runs" / role / f"seed{seed}"
            taught = 90.0 + seed if role in ("kd", "dkd") else None
            write(folder / "config.json", config)
            write(
                folder / "result.json",
                {"seed": seed, "teacher_top1": taught, "top1_last": 1.0, "top1_best": 1.0},
            )
    header, _, *found = lines(comparison(earlier, "runs", ["network", "own_teacher"]))
    assert header == ["role", "network", "its own teacher, top-1 %"]
    assert found == [
        ["`teacher`", "resnet8", "-"],
        ["`alone`", "resnet8, widths 4-8, adder", "-"],
        ["`dkd`", "resnet8, widths 4-8, adder", "90.50 ± 0.71"],
        ["`kd`", "resnet8, widths 4-8, adder", "90.50 ± 0.71"],
    ]


def test_summary_of_this_version_shows_its_columns_and_its_failures(tmp_path):
    rows = [
        row("teacher", 0, 90.0),
        row("alone", 0, 70.0),
        row("lost", 0, None, error="out of memory"),
        row("kd", 0, 72.5),
        row("kd", 1, None, error="out of memory"),
    ]
    content = {"experiment": "today", "columns": COLUMNS, "rows": rows}
    write(tmp_path / "runs" / "summary.json", content)
    asked = ["network", "score", "over_alone", "loss", "params", "own_teacher"]
    write(
        tmp_path / "runs/kd/seed0/result.json", {"seed": 0, "score": "top1", "teacher_top1": 90.0}
    )
    for role in ("teacher", "alone", "kd"):
        write(
            tmp_path / "runs" / role / "seed0" / "config.json",
            {"methods": {}, "student": {"name": "resnet8", "kwargs": {}}},
        )
    for role in ("teacher", "alone"):
        write(
            tmp_path / "runs" / role / "seed0" / "result.json",
            {"seed": 0, "score": "top1", "teacher_top1": None},
        )
    header, _, *found = lines(comparison(tmp_path, "runs", asked))
    assert header[2:5] == ["top-1 %", "over alone", "loss"]
    assert found == [
        ["`teacher`", "resnet8", "90.00", "-", "0.9000", "2,646", "-"],
        ["`alone`", "resnet8", "70.00", "-", "0.7000", "2,646", "-"],
        ["`kd`", "resnet8", "72.50; failed: 1", "+2.50", "0.7250", "2,646", "90.00"],
        ["`lost`", "-", "-; failed: 1", "-", "-", "-", "-"],
    ]


def test_loss_of_a_diverged_run_has_no_deviation(tmp_path):
    rows = [row("kd", 0, 10.0, loss=math.inf), row("kd", 1, 72.5)]
    content = {"experiment": "diverged", "columns": COLUMNS, "rows": rows}
    write(tmp_path / "runs" / "summary.json", content)
    assert lines(comparison(tmp_path, "runs", ["loss"]))[-1] == ["`kd`", "inf ± nan"]


def test_unknown_column_is_refused(earlier):
    with pytest.raises(TfkdError, match="unknown column 'scores'; did you mean 'score'"):
        comparison(earlier, "runs", ["scores"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "found no 'rows', wanted rows"),
        ('{"columns": [], "rows": []}', "found no runs with a score"),
    ],
)
def test_file_with_something_else_is_refused(tmp_path, content, message):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(TfkdError, match=message):
        comparison(tmp_path, ".", ["score"])


def test_missing_run_is_refused(earlier):
    with pytest.raises(TfkdError, match="config.json': No such file"):
        comparison(earlier, "runs", ["network"])
