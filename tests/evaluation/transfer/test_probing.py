"""Probes of runs: which runs a folder stands for, rows, the table, and the binary."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.fixtures import shades
from tfkd import TfkdError, models
from tfkd.evaluation import transfer
from tfkd.evaluation.transfer.runs import runs_of
from tfkd.models.saving import save_network
from tfkd.reporting import tables

ROOT = Path(__file__).parents[3]


def finished(folder, seed=0, name="tiny"):
    """A run folder with an untrained student of RGB images."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(6, 3, activation="relu")(image)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    model = keras.Model(image, keras.layers.Dense(3, name="logits")(pooled))
    save_network(models.Network(model, models.Preprocess((80.0,), (60.0,)), name), folder)
    (folder / "result.json").write_text(json.dumps({"seed": seed}))
    return folder


def comparison(root):
    for role in ("alone", "kd"):
        for seed in (10, 2):
            finished(root / role / f"seed{seed}", seed)
    (root / "kd" / "seed3").mkdir()  # It is not finished.
    return root


def test_a_folder_stands_for_a_run_or_for_those_of_a_comparison(tmp_path):
    root, single = comparison(tmp_path / "runs"), finished(tmp_path / "single", 4)
    found = runs_of([root, single, root / "kd" / "seed2"])
    assert [(each.role, each.seed) for each in found] == [
        ("alone", 2), ("alone", 10), ("kd", 2), ("kd", 10), ("single", 4),
    ]  # fmt: skip
    with pytest.raises(TfkdError, match="run folder .*: found no finished run"):
        runs_of([tmp_path / "nothing"])
    twin = finished(tmp_path / "other" / "kd" / "seed2", 2)
    with pytest.raises(TfkdError, match="both called kd"):
        runs_of([root, twin])
    # Those of another seed are no part of that comparison either.
    other = finished(tmp_path / "other" / "alone" / "seed7", 7)
    with pytest.raises(TfkdError, match="both called alone"):
        runs_of([root, other])


def row(**values):
    usual = dict(
        probe="digits", classes=10, role="kd", seed=0, student="tiny", linear_top1=50.0,
        knn1_top1=40.0, knn20_top1=45.5, logistic_top1=60.0,
    )  # fmt: skip
    return usual | values


TABLE = """\
| probe | classes | role | student | seeds | linear, top-1 % | 1-NN % | 20-NN % | \
logistic regression % |
|---|---|---|---|---|---|---|---|---|
| digits | 10 | `kd` | tiny | 2 | 51.00 ± 1.41 | 40.00 ± 0.00 | 45.50 ± 0.00 | 60.00 ± 0.00 |
| digits | 10 | `alone` | tiny | 1 | 50.00 | 40.00 | 45.50 | 60.00 |
"""


def test_table_is_of_means_over_the_seeds_and_stands_on_pages(tmp_path):
    rows = [row(), row(seed=1, linear_top1=52.0), row(role="alone"), row(probe="stl10")]
    assert transfer.as_markdown(rows[:3]) == TABLE
    transfer.write_rows(rows, tmp_path / "probes.json")
    page = tmp_path / "PAGE.md"
    page.write_text("<!-- table: probes probes.json digits -->\n<!-- end -->\n")
    assert [each.wanted for each in tables(page)] == [TABLE]
    page.write_text("<!-- table: probes probes.json digit -->\n<!-- end -->\n")
    with pytest.raises(TfkdError, match="unknown probe of probes.json 'digit'; did you mean"):
        tables(page)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"which": "bayes"}, "student.*'bayes'"),
        ({"tap": "poled"}, "poled"),
        ({"probes": ["digits", "folder:nowhere"]}, "nowhere"),
        ({"probes": ["digits", "folder:shades"]}, "nearest neighbors: found .* wanted 20 or more"),
        ({"image_size": 9}, "found image_size=9, wanted 8 x 8"),
    ],
)
def test_mistakes_are_told_before_the_first_run_is_probed(settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shades.write(tmp_path / "shades", train=2)
    runs = [finished(tmp_path / "kd" / f"seed{seed}", seed) for seed in (0, 1)]
    save_network(models.load_network(runs[0]), runs[0], "bayes")
    told = []
    with pytest.raises(TfkdError, match=message):
        transfer.probe_runs(runs, **{"probes": ["digits"], **settings}, say=told.append)
    assert not told


@pytest.mark.slow
def test_binary_probes_several_runs_at_once(tmp_path):
    for seed in (0, 1):
        finished(tmp_path / "kd" / f"seed{seed}", seed)
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "tools" / "evaluate.py"), "--run=kd/seed0", "--run=kd/seed1",
            "--probe=digits", "--probe_classes=0,1,2", "--json=rows.json", "--markdown=table.md",
            "--cache=cache",
        ],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(each["run"], each["seed"]) for each in rows] == [("kd/seed0", 0), ("kd/seed1", 1)]
    table = (tmp_path / "table.md").read_text()
    assert table == transfer.as_markdown(rows) and table in done.stdout
    for each in rows:
        assert each["class_names"] == ["0", "1", "2"] and each["width"] == 6
        # A guess is right for a third; the features are those of random filters.
        assert 50 < each["logistic_top1"] <= 100 and 50 < each["knn20_top1"] <= 100
    given = transfer.embeddings(
        models.load_network(tmp_path / "kd" / "seed0"), "digits", classes=("0", "1", "2")
    )
    assert transfer.probe(given).items() <= rows[0].items()
    assert len(list((tmp_path / "cache").iterdir())) == 4
