"""Tables and links as GitHub's Markdown writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table, one line for the header, the rule and each row.

    Args:
        header: Headings of the columns.
        rows: Cells; a bar in one of them is escaped.
    """
    lines = [_line(header), "|" + "---|" * len(header), *map(_line, rows)]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
