"""Benchmarks: what is compared with what. No test asserts a time; the clock is made here."""

import json

import pytest

from tfkd.benchmarks import report, runner
from tfkd.benchmarks.measure import Case, Comparison, Experiment, measure
from tfkd.errors import TfkdError


class Clock:
    """A clock that only the cases move."""

    def __init__(self):
        self.now = 0.0
        self.turns = []

    def __call__(self):
        return self.now

    def case(self, name, seconds):
        def work():
            self.now += seconds
            self.turns.append(name)

        return Case(name, work)


def experiment(clock, **comparison):
    cases = [clock.case("slow", 4.0), clock.case("other", 1.0), clock.case("fast", 2.0)]
    return Experiment("trial", "run", cases, [Comparison("fast", ("slow", "other"), **comparison)])


def test_ratio_goal_and_holds_follow_the_times():
    clock = Clock()
    rows = {row.name: row for row in measure(experiment(clock, goal=0.5), 3, 0.5, clock)}
    assert rows["fast"].milliseconds == pytest.approx(2000.0)
    assert rows["fast"].ratio == pytest.approx(2.0 / 5.0)
    assert rows["fast"].holds is True and rows["slow"].ratio is None
    clock = Clock()
    strict = {row.name: row for row in measure(experiment(clock, goal=0.3), 3, 0.5, clock)}
    assert strict["fast"].holds is False
    clock = Clock()
    speed = measure(experiment(clock, goal=2.0, at_least=True), 3, 0.5, clock)[-1]
    assert speed.ratio == pytest.approx(5.0 / 2.0) and speed.holds is True


def test_an_unsound_case_holds_no_goal():
    clock = Clock()
    assert measure(experiment(clock, goal=9.0, sound=False), 1, 0.5, clock)[-1].holds is False


def test_the_cases_take_turns():
    clock = Clock()
    measure(experiment(clock), 2, 0.5, clock)
    names = {"slow", "other", "fast"}
    assert set(clock.turns[-3:]) == names and set(clock.turns[-6:-3]) == names


def test_a_case_of_several_units_counts_one():
    clock = Clock()
    cases = [
        Case(name, clock.case(name, 6.0).run, units=units) for name, units in (("a", 1), ("b", 3))
    ]
    rows = measure(Experiment("trial", "unit", cases, [Comparison("b", ("a",))]), 1, 0.5, clock)
    assert [row.milliseconds for row in rows] == pytest.approx([6000.0, 2000.0])
    assert rows[-1].ratio == pytest.approx(1 / 3)


def test_the_rows_are_written_with_their_machine(tmp_path):
    clock = Clock()
    rows = measure(experiment(clock, goal=0.5), 2, 0.5, clock)
    report.write(rows, tmp_path / "rows.json", {"cores": 2})
    text = json.loads((tmp_path / "rows.json").read_text())
    last = text["rows"][-1]
    assert {"name", "milliseconds", "baseline", "ratio", "goal", "holds"} <= set(last)
    assert "fast" in report.table(rows)


def test_an_unknown_group_is_named_with_the_nearest():
    with pytest.raises(TfkdError, match="did you mean 'export'"):
        runner.run("exports")
    assert {"kd", "data", "export", "models"} <= set(runner.names())
