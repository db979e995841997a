"""The table of a comparison and its CSV: roles, exits, variants and what failed."""

import csv
import io
import math

from tfkd.training.compare.summary import as_csv, failures, table

EXITS = [{"name": "exit1", "top1": 60.0, "loss": 0.5, "params": 10, "macs": 100}]


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


def test_exits_and_variants_have_lines_below_their_role(row, summary):
    columns = [*summary()["columns"], {"key": "top1", "label": "top-1 %", "form": "{:.1f}"}]
    variants = {"cool": {"mean_top1": 81.0, "loss": 0.4, "top1": 80.0}}
    found = table(
        {
            **summary(
                row("alone", 0, 70.0, top1=71.0, exits=EXITS),
                row("kd", 0, 75.0, top1=76.0, variants=variants, exits=[{**EXITS[0], "top1": 63}]),
            ),
            "columns": columns,
        }
    )
    assert [line.split("  ")[0] for line in found.splitlines()[2:]] == [
        "alone", "alone exit1", "kd", "kd exit1", "kd (cool)",
    ]  # fmt: skip
    # The score is a mean over all exits.
    assert cells(found, 3) == "alone exit1 - - 0.5000 60.0 - 10 100 -".split()
    assert cells(found, 5) == "kd exit1 - - 0.5000 63.0 - 10 100 -".split()
    assert cells(found, 6) == "kd (cool) 81.00 +11.00 0.4000 80.0 - - - -".split()


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


def test_csv_has_a_line_for_every_run_exit_and_variant(row, failed, summary):
    content = summary(
        row("alone", 0, 70.0, exits=EXITS, variants={"cool": {"mean_top1": 71.0}}),
        failed("kd", 0, "found a, wanted b"),
    )
    lines = list(csv.DictReader(io.StringIO(as_csv(content))))
    assert [line["role"] for line in lines] == ["alone", "alone exit1", "alone (cool)", "kd"]
    assert list(lines[0]) == [
        "role", "seed", "score", "mean_top1", "loss", "agreement", "params", "macs", "seconds",
        "error",
    ]  # fmt: skip
    assert [line["score"] for line in lines] == ["70.0", "", "71.0", ""]
    assert [line["macs"] for line in lines] == ["5678901", "100", "", ""]
    assert [line["error"] for line in lines] == ["", "", "", "found a, wanted b"]
