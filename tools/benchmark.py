"""Measures how fast tfkd is, beside what it is compared with, in one run.

    python tools/benchmark.py --list
    python tools/benchmark.py kd
    python tools/benchmark.py kd export --json=speed.json

The cases of a group take turns in every round; times are medians over the rounds. A goal that is
not met is shown as such, and nothing fails for it. For numbers that mean something, let nothing
else run on the machine. Unless TF_ENABLE_ONEDNN_OPTS is set, oneDNN is on: all sides at their
fastest.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if not __package__:  # Started as a file.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from tools import entry

_LIST = flags.DEFINE_boolean("list", False, "Print the groups and what each measures.")
_JSON = flags.DEFINE_string("json", None, "A file to write the rows and the machine's facts to.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Turns of each case.", 1, 10**4)
_TINY = flags.DEFINE_boolean(
    "tiny", False, "Smallest sizes and one short round, to see that it runs; times mean nothing."
)


def main(argv: list[str]) -> None:
    from tfkd import benchmarks
    from tfkd.errors import TfkdError

    if _LIST.value:
        for name in benchmarks.names():
            print(f"{name:12} {benchmarks.description(name)}")
        return
    if len(argv) < 2:
        raise TfkdError(f"wanted a group: {', '.join(benchmarks.names())} (see --help)")
    for name in argv[1:]:
        benchmarks.description(name)  # An unknown name is told before anything is measured.
    settings = (
        {"rounds": 1, "turn": 0.0, "tiny": True} if _TINY.value else {"rounds": _ROUNDS.value}
    )
    facts, rows = benchmarks.machine(), []
    for name in argv[1:]:
        rows += benchmarks.run(
            name, show=lambda found: print(f"{benchmarks.table(found)}\n", flush=True), **settings
        )
    if _JSON.value:
        benchmarks.write(rows, _JSON.value, facts)


main.takes_arguments = True

if __name__ == "__main__":
    entry.run(main)
