"""The table of linear probes and their kin: what ``tools/evaluate.py --probe`` wrote as JSON.

``probes FILE [PROBE ...]``: a line for each data set and role, mean and deviation over the seeds.
Words after the file choose data sets by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfkd.errors import TfkdError, unknown
from tfkd.evaluation import transfer
from tfkd.reporting import source


def probes(beside: Path, file: str, words: Sequence[str]) -> str:
    """Returns the table of a file of probes.

    Args:
        beside: Where the file is looked for.
        file: The file.
        words: Data sets to show; all without any.

    Raises:
        TfkdError: For a file that is missing or holds something else, or an unknown data set.
    """
    rows = source.read(beside / file, "rows")["rows"]
    known = list(dict.fromkeys(row["probe"] for row in rows))
    for word in words:
        if word not in known:
            raise unknown(f"probe of {file}", word, known)
    shown = [row for row in rows if not words or row["probe"] in words]
    if not shown:
        raise TfkdError(f"file {file!r}: found no rows, wanted some")
    return transfer.as_markdown(shown)
