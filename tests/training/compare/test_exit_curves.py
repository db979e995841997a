"""The picture of accuracy over cost: the mean of each role's students with exits."""

import json

import pytest
from matplotlib.figure import Figure

from tfkd.training.compare import exit_curves, palette


def points(*pairs):
    return [{"thresholds": ["-inf"], "test_macs": macs, "test_top1": top1} for macs, top1 in pairs]


def test_means_of_the_roles_with_exits_are_drawn(drawn, monkeypatch, tmp_path):
    figures = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(exit_curves, "Figure", Kept)
    roles = ("teacher", "alone", "dbt")
    summary, folders = drawn({role: [[60.0], [70.0]] for role in roles})
    path = tmp_path / "early_exit.png"
    assert exit_curves.draw(summary, folders, path) is None and not path.exists()
    for role, further in (("alone", 0.0), ("dbt", 5.0)):
        for seed, folder in enumerate(folders[role]):
            found = {
                "anytime": points((2e6, 50.0 + further), (4e6, 60.0 + 2 * seed + further)),
                "budgeted": points((3e6 + seed * 1e6, 62.0), (2e6, 55.0)) if further else None,
            }
            (folder / "early_exit.json").write_text(json.dumps({"last": found}))
    assert exit_curves.draw(summary, folders, path).read_bytes()[1:4] == b"PNG"
    anytime, budgeted = (
        {line.get_label(): [*zip(*line.get_data())] for line in axes.lines}
        for axes in figures[-1].axes
    )
    assert anytime == {
        "alone": [pytest.approx((2.0, 50.0)), pytest.approx((4.0, 61.0))],
        "dbt": [pytest.approx((2.0, 55.0)), pytest.approx((4.0, 66.0))],
    }
    colors = {line.get_label(): line.get_color() for line in figures[-1].axes[0].lines}
    assert colors == palette.of_roles(summary, roles[1:]), "those of the other picture"
    # Without validation images there are no thresholds.
    assert budgeted == {"dbt": [pytest.approx((2.0, 55.0)), pytest.approx((3.5, 62.0))]}
    assert figures[-1].get_suptitle() == "tiny teaches tiny on digits, mean of seeds 0, 1"
