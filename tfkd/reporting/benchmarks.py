"""Tables of what ``tools/benchmark.py --json`` wrote, beside each other for several machines.

``ratios FOLDER PREFIX... COLUMN=RUN,RUN...`` shows the ratios with their goals and the times that
have no baseline; ``facts FOLDER PREFIX FACT COLUMN=RUN,RUN...`` one of the facts, such as
``"extra memory / input"``. A prefix chooses experiments by the start of their names. A run is the
name of a file without its ending, or several, ``kd+models``, which were measured apart. Runs stand
in one cell in their order, "-" for what one of them did not measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfkd import markdown
from tfkd.errors import TfkdError
from tfkd.reporting import source

_Key = tuple[str, str, str, str]
"""What a row is: experiment, name, baseline and unit."""

_Row = Mapping[str, Any]
_Run = dict[_Key, _Row]


def ratios(beside: Path, folder: str, words: Sequence[str]) -> str:
    """Returns a table of ratios, each with its goal, and a line on the files.

    Args:
        beside: Where the folder is looked for.
        folder: The folder of the files.
        words: Prefixes and columns, see above.

    Raises:
        TfkdError: For words of another form, a prefix without rows, or a file that is missing or
            holds something else.
    """
    prefixes, columns = _split(words)
    if not prefixes:
        raise TfkdError("ratios: found no prefix of an experiment, wanted one or more")
    runs = _read(beside / folder, columns)
    shown = [
        key
        for prefix in prefixes
        for key in _keys(runs, prefix, lambda row: row["ratio"] is not None or _wanted(row) != "")
    ]
    return markdown.table(
        ["experiment; one run", "compared", *runs, "goal"],
        _without_repeats(_ratio_cells(key, runs) for key in shown),
    ) + _sources(folder, columns)


def facts(beside: Path, folder: str, words: Sequence[str]) -> str:
    """Returns a table of one of the facts that rows have, and a line on the files.

    Args:
        beside: Where the folder is looked for.
        folder: The folder of the files.
        words: A prefix, the name of the fact, and columns, see above.

    Raises:
        TfkdError: As for :func:`ratios`.
    """
    given, columns = _split(words)
    if len(given) != 2:
        raise TfkdError(f"facts: found {given}, wanted a prefix of an experiment and a fact")
    prefix, fact = given
    runs = _read(beside / folder, columns)

    def cell(row: _Row) -> str:
        value = row["facts"].get(fact)
        return "-" if value is None else f"{value:.2f}"

    return markdown.table(
        ["experiment; one run", "measured", *runs],
        _without_repeats(
            [_experiment(key), f"`{key[1]}`", *(_cell(each, key, cell) for each in runs.values())]
            for key in _keys(runs, prefix, lambda row: fact in row["facts"])
        ),
    ) + _sources(folder, columns)


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Returns the words without "=", and for each column the files of each of its runs."""
    columns = {}
    for word in words:
        name, is_column, listed = word.partition("=")
        if is_column:
            columns[name] = [run.split("+") for run in listed.split(",")]
    if not columns:
        raise TfkdError("table of benchmarks: found no column, wanted COLUMN=FILE,FILE")
    return [word for word in words if "=" not in word], columns


def _read(folder: Path, columns: Mapping[str, list[list[str]]]) -> dict[str, list[_Run]]:
    return {
        name: [_run(folder / f"{file}.json" for file in files) for files in runs]
        for name, runs in columns.items()
    }


def _run(paths: Iterable[Path]) -> _Run:
    found: _Run = {}
    for path in paths:
        for row in source.read(path, "machine", "rows")["rows"]:
            key = (row["experiment"], row["name"], row["baseline"] or "", row["unit"])
            if key in found:
                raise TfkdError(
                    f"file {str(path)!r}: found {row['experiment']!r} a second time in one run, "
                    "wanted files of different experiments"
                )
            found[key] = row
    return found


def _keys(runs: Mapping[str, list[_Run]], prefix: str, shows: Callable[[_Row], bool]) -> list[_Key]:
    """Returns the rows to show, in the order in which the files first have them."""
    found = dict.fromkeys(
        key
        for column in runs.values()
        for run in column
        for key, row in run.items()
        if row["experiment"].startswith(prefix) and shows(row)
    )
    if not found:
        raise TfkdError(f"table of benchmarks: found no rows of {prefix!r}, wanted some")
    return list(found)


def _ratio_cells(key: _Key, runs: Mapping[str, list[_Run]]) -> list[str]:
    rows = [run[key] for column in runs.values() for run in column if key in run]
    goals = dict.fromkeys(goal for goal in map(_goal, rows) if goal)

    def cell(row: _Row) -> str:
        if row["ratio"] is None:
            return f"{row['milliseconds'] / 1e3:.1f} s"
        note = {None: " (no goal)" if goals else "", True: "", False: " (missed)"}[row["holds"]]
        return f"{row['ratio']:.3f}{note}"

    return [
        _experiment(key),
        _compared(key, rows[0]),
        *(_cell(column, key, cell) for column in runs.values()),
        " or ".join(goals) or "-",
    ]


def _goal(row: _Row) -> str:
    if row["goal"] is None:
        return _wanted(row)
    return f"{row['direction']} {row['goal']:.2f}"


def _wanted(row: _Row) -> str:
    """Returns what is wanted of a time without a baseline, in the words of its benchmark."""
    return row["facts"].get("wanted", "")


def _compared(key: _Key, row: _Row) -> str:
    _, name, baseline, _ = key
    if not baseline:
        return f"`{name}`"
    return f"{'speed of ' if row['direction'] == '>=' else ''}`{name}` / `{baseline}`"


def _experiment(key: _Key) -> str:
    """Returns the name of an experiment without that of its group, and what one run of it is."""
    return f"{key[0].partition(': ')[2]}; {key[3]}"


def _without_repeats(lines: Iterable[list[str]]) -> Iterator[list[str]]:
    """Yields the lines of a table, without a first cell that is that of the line above."""
    above = None
    for first, *others in lines:
        yield ["" if first == above else first, *others]
        above = first


def _cell(column: Sequence[_Run], key: _Key, cell: Callable[[_Row], str]) -> str:
    cells = [cell(run[key]) if key in run else "-" for run in column]
    return "-" if set(cells) == {"-"} else ", ".join(cells)


def _sources(folder: str, columns: Mapping[str, list[list[str]]]) -> str:
    """Returns a line that links the files of each column."""
    named = [
        f"{name} from {', '.join(_links(folder, files) for files in runs)}"
        for name, runs in columns.items()
    ]
    return f"\n{'; '.join(named)}.\n"


def _links(folder: str, files: Sequence[str]) -> str:
    return " and ".join(f"[{file}.json]({folder}/{file}.json)" for file in files)
