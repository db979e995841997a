"""The table of a comparison and its CSV: roles, exits, variants and what failed."""

import csv
import io
import math
import re
from pathlib import Path

import pytest

from tfkd import tasks
from tfkd.training.compare.summary import Outcome, as_csv, failures, summarize, table


def cells(text, line):
    return text.splitlines()[line].split()


def test_table_gives_mean_and_deviation_over_seeds(row, summary):
    found = table(
        summary(
            row("teacher", 0, 98.0),
            row("alone", 0, 90.0, agreement=91.0),
            row("alone", 1, 92.0, agreement=95.0),
            row("method", 0, 92.0, agreement=91.0),
            row("method", 1, 93.0, agreement=91.0),
        )
    )
    assert len(found.splitlines()) == 5
    assert found.splitlines()[0].split("  ")[0] == "role"
    for label in ("mean top-1 %", "over alone", "loss", "agreement %", "MACs"):
        assert label in found.splitlines()[0]
    assert cells(found, 2) == "teacher 98.00 - 0.9800 - 1,234 5,678,901 2.0".split()
    assert cells(found, 3) == (
        "alone 91.00 ± 1.41 - 0.9100 ± 0.0141 93.00 ± 2.83 1,234 5,678,901 2.5".split()
    )
    # Its gain is paired with the seeds: 2 and 1, though the means differ by 1.5.
    assert cells(found, 4)[:7] == "method 92.50 ± 0.71 +1.50 ± 0.71".split()


def test_table_tells_of_best_epochs_that_test_images_chose(row, summary):
    line = "scores are those of the last epoch; the best epochs were chosen on the test images"
    chosen = {"best_selected_on": "test"}
    assert table(summary(row("alone", 0, 90.0, **chosen))).splitlines()[-1] == line
    held_out = {"best_selected_on": "validation"}
    assert line not in table(summary(row("alone", 0, 90.0, **held_out)))


def outcome(role, mean, first_exit, **fields):
    """What came of a run of a student with two exits."""
    deepest = 2 * mean - first_exit
    exits = [
        {"name": "exit1", "top1": first_exit, "loss": 0.5, "ece": 3.0, "params": 10, "macs": 100},
        {"name": "logits", "top1": deepest, "loss": 0.4, "ece": 2.0, "params": 20, "macs": 200},
    ]
    result = {
        "score": "mean_top1",
        "mean_top1_last": mean,
        "top1_last": deepest,
        "loss_last": 0.4,
        "ece_last": 2.0,
        "exits": exits,
        "params": 20,
        "macs": 200,
        "seconds": 1.0,
    }
    return Outcome(role, 0, Path(role), {**result, **fields})


VARIANTS = {"cool": {"mean_top1": 81.0, "top1": 82.0, "loss": 0.3, "ece": 1.0}}


@pytest.fixture
def exits():
    """A comparison of students with two exits, one of which has a variant and one failed."""
    outcomes = [
        outcome("alone", 70.0, 66.0),
        outcome("kd", 75.0, 69.5, variants=VARIANTS),
        Outcome("crd", 0, Path("crd"), error="found a, wanted b"),
    ]
    return summarize("exits", outcomes, tasks.MultiExitClassification())


def test_exits_and_variants_have_lines_below_their_role(exits):
    found = table(exits)
    labels = re.split("  +", found.splitlines()[0].strip())
    assert labels == [
        "role", "mean top-1 %", "over alone", "top-1 %", "loss", "ECE %", "agreement %", "params",
        "MACs", "seconds",
    ]  # fmt: skip
    assert [cells(found, line) for line in range(2, 9)] == [
        "alone 70.00 - 74.00 0.4000 2.00 - 20 200 1.0".split(),
        "alone exit1 66.00 - 66.00 0.5000 3.00 - 10 100 -".split(),
        "alone logits 74.00 - 74.00 0.4000 2.00 - 20 200 -".split(),
        "kd 75.00 +5.00 80.50 0.4000 2.00 - 20 200 1.0".split(),
        # Its gain is over the same exit of the student alone.
        "kd exit1 69.50 +3.50 69.50 0.5000 3.00 - 10 100 -".split(),
        "kd logits 80.50 +6.50 80.50 0.4000 2.00 - 20 200 -".split(),
        "kd (cool) 81.00 +11.00 82.00 0.3000 1.00 - - - -".split(),
    ]
    assert found.splitlines()[9].split(maxsplit=1) == ["crd", "failed: found a, wanted b"]


def test_rows_hold_the_numbers_of_the_task(exits):
    alone, kd, failed = exits["rows"]
    assert [column["key"] for column in exits["columns"]] == ["mean_top1", "top1", "loss", "ece"]
    assert (kd["score"], kd["mean_top1"], kd["top1"], kd["ece"]) == (75.0, 75.0, 80.5, 2.0)
    assert [(each["name"], each["score"]) for each in kd["exits"]] == [
        ("exit1", 69.5), ("logits", 80.5),
    ]  # fmt: skip
    assert kd["variants"] == {"cool": {**VARIANTS["cool"], "score": 81.0}}
    assert alone["variants"] == {} and alone["error"] is None
    assert sorted(failed) == sorted(kd)
    assert failed["error"] == "found a, wanted b" and failed["score"] is failed["top1"] is None


def test_task_that_names_no_columns_has_its_score():
    class Plain(tasks.Classification):
        columns = ()

    result = {"score": "top1", "top1_last": 5.0, "loss_last": 1.0}
    found = summarize("plain", [Outcome("alone", 0, Path("alone"), result)], Plain())
    assert [column["label"] for column in found["columns"]] == ["top-1 %"]
    assert found["rows"][0]["score"] == 5.0 and found["rows"][0]["params"] is None


def test_failed_run_has_a_line_that_says_why(row, failed, summary):
    found = table(
        summary(
            failed("alone", 0, "loss is not finite"),
            row("alone", 1, 90.0),
            row("kd", 0, 91.0),
            row("kd", 1, 92.5),
            failed("crd", 0, "too few images"),
            failed("crd", 1, "too few images"),
        )
    ).splitlines()
    assert found[2].split()[:2] == ["alone", "90.00"]
    assert found[3] == "alone       failed (seed 0): loss is not finite"
    # Only the seed that has a score of both gives a gain.
    assert found[4].split()[4] == "+2.50" and found[4].split()[1:4] == ["91.75", "±", "1.06"]
    assert found[5] == "crd         failed (seed 0, 1): too few images"
    assert len(found) == 6


def test_table_of_failures_alone(failed, summary):
    content = {**summary(failed("alone", 0, "no"), failed("kd", 0, "neither")), "columns": []}
    found = table(content).splitlines()
    assert found[0].split()[:2] == ["role", "score"]
    assert [line.split() for line in found[2:]] == [
        ["alone", "failed:", "no"],
        ["kd", "failed:", "neither"],
    ]
    assert [each["role"] for each in failures(content)] == ["alone", "kd"]


def test_loss_that_is_no_number_is_shown(row, summary):
    rows = [row("alone", seed, 50.0, loss=math.nan if seed else 1.0) for seed in (0, 1)]
    assert cells(table(summary(*rows)), 2)[5:8] == ["nan", "±", "nan"]


def test_csv_has_a_line_for_every_run_exit_and_variant(exits):
    lines = list(csv.DictReader(io.StringIO(as_csv(exits))))
    assert [line["role"] for line in lines] == [
        "alone", "alone exit1", "alone logits", "kd", "kd exit1", "kd logits", "kd (cool)", "crd",
    ]  # fmt: skip
    assert list(lines[0]) == [
        "role", "seed", "score", "mean_top1", "top1", "loss", "ece", "agreement", "params", "macs",
        "seconds", "error",
    ]  # fmt: skip
    assert [line["score"] for line in lines[3:]] == ["75.0", "69.5", "80.5", "81.0", ""]
    assert [line["macs"] for line in lines[3:]] == ["200", "100", "200", "", ""]
    assert [line["seed"] for line in lines] == ["0"] * 8
    assert [line["error"] for line in lines[-2:]] == ["", "found a, wanted b"]
