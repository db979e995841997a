"""How fast things are, always beside what they are compared with, in one run.

    rows = tfkd.benchmarks.run("kd", rounds=9)
    print(tfkd.benchmarks.table(rows))

Absolute times drift from run to run; every goal is a ratio of two medians of the same run.
"""

from tfkd.benchmarks.measure import Case, Comparison, Experiment, Row, measure
from tfkd.benchmarks.report import machine, table, write
from tfkd.benchmarks.runner import description, names, run

__all__ = [
    "Case",
    "Comparison",
    "Experiment",
    "Row",
    "description",
    "machine",
    "measure",
    "names",
    "run",
    "table",
    "write",
]
