"""Cases timed in turn, round by round, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tfkd.errors import TfkdError


@dataclass(frozen=True)
class Case:
    """One thing whose time is measured.

    Attributes:
        name: What it is called, unique in its experiment.
        run: Does the work once (a step, a batch) and returns when it is done.
        prepare: Called before each turn and not timed: empties the buffers that filled up while
            other cases had their turns.
        units: How many of the experiment's units one run is; times are those of one unit.
    """

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] | None = None
    units: int = 1


@dataclass(frozen=True)
class Comparison:
    """A case beside its baseline, and what is wanted of the two.

    Attributes:
        case: Name of the case.
        baseline: Names of the cases whose times, added up, are the baseline.
        goal: What the ratio should be at most or at least; None for a ratio without a goal.
        at_least: False: the ratio is the case's time over the baseline's, and the goal its upper
            limit. True: the ratio is one of speeds, and the goal its lower limit.
        name: Name of the row; by default the case's.
        facts: Further findings on the case, such as its largest error, for the report.
        sound: Whether the case computes what it should; where not, no goal holds.
    """

    case: str
    baseline: tuple[str, ...]
    goal: float | None = None
    at_least: bool = False
    name: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    sound: bool = True


@dataclass(frozen=True)
class Experiment:
    """Cases that are measured side by side.

    Attributes:
        name: What is measured.
        unit: What is timed, such as "step of 64 images"; one run of a case, or each of several.
        cases: The cases, in the order of their turns.
        comparisons: What is compared.
        check: Called after the measurement; raises where a case did not do its work.
    """

    name: str
    unit: str
    cases: Sequence[Case]
    comparisons: Sequence[Comparison]
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Row:
    """A line of the report.

    Attributes:
        experiment: Name of the experiment.
        name: Name of the comparison, or of a case that is only a baseline.
        unit: What is timed.
        milliseconds: Median time of one unit.
        fastest: Its least time, in milliseconds.
        baseline: Name of the baseline; None for a case that has none, as are the following four.
        ratio: Of the medians: time over time, or with direction ">=" speed over speed.
        goal: Limit of the ratio.
        direction: "<=" or ">=", how ratio and goal should lie.
        holds: Whether they do.
        facts: As in `Comparison`.
    """

    experiment: str
    name: str
    unit: str
    milliseconds: float
    fastest: float
    baseline: str | None = None
    ratio: float | None = None
    goal: float | None = None
    direction: str | None = None
    holds: bool | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


def measure(
    experiment: Experiment,
    rounds: int = 9,
    turn: float = 0.4,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Row]:
    """Measures the cases of an experiment and forms its rows.

    Args:
        experiment: The cases and comparisons.
        rounds: Turns of each case; in every round each case has one.
        turn: Seconds that a turn lasts at least; a case is run until they have passed.
        clock: Tells the time in seconds.

    Raises:
        TfkdError: For fewer than one round, cases of one name, or a comparison of unknown ones.
    """
    if rounds < 1:
        raise TfkdError(f"rounds: found {rounds}, wanted at least 1")
    _check_names(experiment)
    seconds = _seconds(experiment.cases, rounds, turn, clock)
    experiment.check()
    compared = {comparison.case for comparison in experiment.comparisons}
    rows = [
        _row(experiment, seconds, Comparison(case.name, ()))
        for case in experiment.cases
        if case.name not in compared
    ]
    return rows + [_row(experiment, seconds, each) for each in experiment.comparisons]


def _check_names(experiment: Experiment) -> None:
    known = [case.name for case in experiment.cases]
    wanted = {name for each in experiment.comparisons for name in (each.case, *each.baseline)}
    if len(set(known)) < len(known) or wanted - set(known):
        raise TfkdError(
            f"experiment {experiment.name!r}: found cases {known} and comparisons of "
            f"{sorted(wanted)}, wanted cases of different names and comparisons of these"
        )


def _seconds(
    cases: Sequence[Case], rounds: int, turn: float, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Returns the seconds of one unit of each case, once for each round."""
    for case in cases:
        case.run()  # Whatever is made at the first run (graphs, caches) is not counted.
    found: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            found[case.name].append(_turn(case, turn, clock))
    return found


def _turn(case: Case, seconds: float, clock: Callable[[], float]) -> float:
    """Returns the mean time of a unit, over runs until the turn has lasted its time."""
    if case.prepare is not None:
        case.prepare()
    runs, start = 0, clock()
    while True:
        case.run()
        runs += 1
        passed = clock() - start
        if passed >= seconds:
            return passed / (runs * case.units)


def _row(
    experiment: Experiment, seconds: Mapping[str, Sequence[float]], comparison: Comparison
) -> Row:
    own = statistics.median(seconds[comparison.case])
    row = dict(
        experiment=experiment.name,
        name=comparison.name or comparison.case,
        unit=experiment.unit,
        milliseconds=1e3 * own,
        fastest=1e3 * min(seconds[comparison.case]),
        facts=dict(comparison.facts),
    )
    if not comparison.baseline:
        return Row(**row)
    baseline = sum(statistics.median(seconds[name]) for name in comparison.baseline)
    ratio = baseline / own if comparison.at_least else own / baseline
    holds = None
    if comparison.goal is not None:
        reached = ratio >= comparison.goal if comparison.at_least else ratio <= comparison.goal
        holds = reached and comparison.sound
    return Row(
        **row,
        baseline=" + ".join(comparison.baseline),
        ratio=ratio,
        goal=comparison.goal,
        direction=">=" if comparison.at_least else "<=",
        holds=holds,
    )
