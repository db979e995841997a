"""Tables of what several runs of tools/benchmark.py wrote."""

import pytest

from tfkd import benchmarks
from tfkd.benchmarks.measure import Row
from tfkd.errors import TfkdError
from tfkd.reporting.benchmarks import facts, ratios

STEP = "step of 64 images"


def case(experiment="kd: a -> b", name="keras", unit=STEP, milliseconds=20.0, **facts):
    return Row(experiment, name, unit, milliseconds, milliseconds, facts=facts)


def compared(ratio, goal=0.8, holds=True, *, experiment="kd: a -> b", name="tfkd", **more):
    settings = {"baseline": "keras", "direction": "<=", "unit": STEP} | more
    return Row(
        experiment=experiment, name=name, milliseconds=1.0, fastest=1.0, ratio=ratio, goal=goal,
        holds=holds, **settings,
    )  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """``write("name", row, row)``: a file as tools/benchmark.py --json writes it."""
    return lambda name, *rows: benchmarks.write(rows, tmp_path / f"{name}.json", {"cpu_count": 2})


def lines(text):
    table, _, sources = text.rstrip("\n").rpartition("\n\n")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return cells, sources


def test_runs_stand_beside_each_other_with_their_misses(tmp_path, write):
    write("one", case(), compared(0.75))
    write("two", case(), compared(0.85, holds=False))
    write("other", case(), compared(6.7264, goal=None, holds=None))
    (header, _, *found), sources = lines(
        ratios(tmp_path, ".", ["kd: ", "AVX-512=one,two", "AVX2 alone=other"])
    )
    assert header == ["experiment; one run", "compared", "AVX-512", "AVX2 alone", "goal"]
    assert found == [
        [
            f"a -> b; {STEP}",
            "`tfkd` / `keras`",
            "0.750, 0.850 (missed)",
            "6.726 (no goal)",
            "<= 0.80",
        ]
    ]
    assert sources == (
        "AVX-512 from [one.json](./one.json), [two.json](./two.json); "
        "AVX2 alone from [other.json](./other.json)."
    )


def test_rows_that_a_run_lacks_are_marked(tmp_path, write):
    write("one", compared(0.75), compared(0.5, None, None, name="mld"))
    write("two", compared(0.78))
    (_, _, *found), _ = lines(ratios(tmp_path, ".", ["kd: ", "A=one,two", "B=two"]))
    assert [cells[1:] for cells in found] == [
        ["`tfkd` / `keras`", "0.750, 0.780", "0.780", "<= 0.80"],
        ["`mld` / `keras`", "0.500, -", "-", "-"],
    ]
    assert [cells[0] for cells in found] == [f"a -> b; {STEP}", ""]


def test_files_with_a_plus_are_one_run(tmp_path, write):
    write("kd", compared(0.75))
    write(
        "run", compared(2.0, 1.8, direction=">=", experiment="run: c", name="two", baseline="one")
    )
    (_, _, *found), sources = lines(ratios(tmp_path, ".", ["run: ", "kd: ", "A=kd+run"]))
    assert found == [
        [f"c; {STEP}", "speed of `two` / `one`", "2.000", ">= 1.80"],
        [f"a -> b; {STEP}", "`tfkd` / `keras`", "0.750", "<= 0.80"],
    ]
    assert sources == "A from [kd.json](./kd.json) and [run.json](./run.json)."
    with pytest.raises(TfkdError, match="'kd: a -> b' a second time in one run"):
        ratios(tmp_path, ".", ["kd: ", "A=kd+run+kd"])


def test_rows_of_other_units_baselines_and_goals_are_told_apart(tmp_path, write):
    write("one", compared(0.7), compared(0.6, unit="step of 1 image"), compared(0.9, baseline="x"))
    write("two", compared(0.7, goal=0.75))
    (_, _, *found), _ = lines(ratios(tmp_path, ".", ["kd: ", "A=one", "B=two"]))
    assert found == [
        [f"a -> b; {STEP}", "`tfkd` / `keras`", "0.700", "0.700", "<= 0.80 or <= 0.75"],
        ["a -> b; step of 1 image", "`tfkd` / `keras`", "0.600", "-", "<= 0.80"],
        [f"a -> b; {STEP}", "`tfkd` / `x`", "0.900", "-", "<= 0.80"],
    ]


def test_times_that_are_wanted_below_a_limit_are_shown_in_seconds(tmp_path, write):
    start = case("run: start", "start", "start", 4613.4, wanted="below 15 s")
    write("one", case("run: start", "baseline", "start"), start)
    (_, _, *found), _ = lines(ratios(tmp_path, ".", ["run: ", "A=one"]))
    assert found == [["start; start", "`start`", "4.6 s", "below 15 s"]]


def test_facts_are_those_of_the_rows_that_have_them(tmp_path, write):
    write("one", compared(0.7, facts={"extra memory / input": 0.1404, "other": 1}), case())
    write("two", compared(0.7, facts={"extra memory / input": 6.8279}), case())
    (header, _, *found), sources = lines(
        facts(tmp_path, ".", ["kd: ", "extra memory / input", "A=one,two"])
    )
    assert header == ["experiment; one run", "measured", "A"]
    assert found == [[f"a -> b; {STEP}", "`tfkd`", "0.14, 6.83"]]
    assert sources.startswith("A from [one.json](./one.json), ")


@pytest.mark.parametrize(
    ("table", "words", "message"),
    [
        (ratios, ["kd: "], "found no column, wanted COLUMN=FILE,FILE"),
        (ratios, ["A=one"], "found no prefix of an experiment"),
        (ratios, ["adder: ", "A=one"], "found no rows of 'adder: '"),
        (ratios, ["kd: ", "A=away"], "away.json': No such file"),
        (facts, ["kd: ", "A=one"], "wanted a prefix of an experiment and a fact"),
        (facts, ["kd: ", "memory", "A=one"], "found no rows of 'kd: '"),
    ],
)
def test_wrong_words_are_refused(tmp_path, write, table, words, message):
    write("one", compared(0.75))
    with pytest.raises(TfkdError, match=message):
        table(tmp_path, ".", words)
