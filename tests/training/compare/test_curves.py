"""The picture of a comparison: what is drawn, in which color, and which words stand beside it."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tfkd import colors
from tfkd.training.compare import curves


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn."""
    made = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(curves, "Figure", Kept)
    return made


def drawn_colors(axes):
    """Returns the color of the curve of each role."""
    return {line.get_label(): to_hex(line.get_color()) for line in axes.lines}


def test_few_roles_have_mean_range_and_legend(drawn, figures, tmp_path):
    summary, folders = drawn(
        {
            "teacher": [[10.0, 90.0], [20.0, 92.0]],
            "alone": [[10.0, 70.0], [10.0, 60.0]],
            "kd": [[None, 75.0], [20.0, 77.0]],
        }
    )
    path = curves.draw(summary, folders, tmp_path / "curves.png")
    assert path.read_bytes()[1:4] == b"PNG"
    left, right = figures[0].axes
    means = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    assert means["teacher"] == pytest.approx([15.0, 91.0])
    # The first epoch of a seed was not evaluated: there is no mean, and no line to it.
    assert means["kd"] == pytest.approx([76.0])
    assert [list(line.get_xdata()) for line in left.lines if line.get_label() == "kd"] == [[2]]
    assert left.get_ylabel() == "validation mean top-1 %"
    assert right.get_xlabel() == "test mean top-1 %, one dot a seed"
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["teacher", "kd", "alone"]
    assert len(left.collections) == 3
    names = [label.get_text() for label in right.get_yticklabels()]
    assert names == ["alone  65.00", "kd  76.00", "teacher  91.00"]
    assert figures[0].get_suptitle() == "tiny teaches tiny on digits, mean and range of seeds 0, 1"
    assert len(set(drawn_colors(left).values())) == 3


def test_of_many_roles_the_best_methods_are_named_and_the_rest_gray(drawn, figures, tmp_path):
    methods = {f"method{number}": [[10.0 + number, 70.0 + number]] for number in range(30)}
    summary, folders = drawn({"teacher": [[1.0, 2.0]], "alone": [[1.0, 60.0]], **methods})
    curves.draw(summary, folders, tmp_path / "curves.png")
    left, right = figures[0].axes
    best = [f"method{number}" for number in range(25, 30)]
    texts = {text.get_text(): text for text in left.texts}
    assert set(texts) == {"teacher", "alone", *best, "gray: the 25 other methods"}
    found = drawn_colors(left)
    assert {role for role, color in found.items() if color != curves.GRAY} == {
        "teacher",
        "alone",
        *best,
    }
    assert len({found[role] for role in ("teacher", "alone", *best)}) == 7
    for role in ("teacher", *best):
        assert to_hex(texts[role].get_color()) == found[role]
    assert left.get_legend() is None
    assert len(right.get_yticklabels()) == 32
    assert figures[0].get_suptitle() == (
        "tiny teaches tiny on digits, seed 0; 30 methods, the best 5 in color"
    )
    # The five names are far enough from each other to be read.
    places = sorted(texts[role].xyann[1] for role in best)
    height = left.get_window_extent().height * 72 / figures[0].dpi
    assert min(np.diff(places)) * height > 10


def test_runs_that_failed_are_counted_and_not_drawn(drawn, figures, tmp_path):
    summary, folders = drawn({"alone": [[1.0, 2.0], None], "kd": [None, None]})
    curves.draw(summary, folders, tmp_path / "curves.png")
    left, right = figures[0].axes
    assert list(drawn_colors(left)) == ["alone"]
    title = "tiny on digits, mean and range of seeds 0, 1; 3 runs failed"
    assert figures[0].get_suptitle() == title


def test_nothing_finished_draws_nothing(drawn, tmp_path):
    summary, folders = drawn({"alone": [None]})
    assert curves.draw(summary, folders, tmp_path / "curves.png") is None
    assert not (tmp_path / "curves.png").exists()


def test_one_epoch_is_a_point(drawn, figures, tmp_path):
    summary, folders = drawn({"alone": [[1.0]], "kd": [[1.0, 3.0]]})
    curves.draw(summary, folders, tmp_path / "curves.png")
    markers = {line.get_label(): line.get_marker() for line in figures[0].axes[0].lines}
    assert markers == {"alone": "o", "kd": "None"}


def test_color_of_a_role_does_not_depend_on_the_teacher(drawn, figures, tmp_path):
    summary, folders = drawn({"alone": [[1.0, 2.0]], "kd": [[1.0, 3.0]]})
    curves.draw(summary, folders, tmp_path / "curves.png")
    found = drawn_colors(figures[0].axes[0])
    assert found == {"alone": colors.ALONE, "kd": colors.METHODS[0]}
