"""The tables of a Markdown page, between comments that say what each is made of.

A comment at the start of a line names the kind of the table, a folder beside the page and what
that kind wants to know; the table goes up to the end comment::

    <!-- table: comparison results/quickstart score over_alone params -->
    <!-- end -->

The words are split as a shell splits them, and may stand on several lines. The kinds are
``comparison`` (:mod:`tfkd.reporting.comparisons`), ``ratios`` and ``facts``
(:mod:`tfkd.reporting.benchmarks`); and ``probes``, which has a file in the place of the folder
(:mod:`tfkd.reporting.probes`).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfkd import files
from tfkd.errors import TfkdError, reason, unknown
from tfkd.reporting import benchmarks, comparisons, probes

_START, _END = "<!-- table:", "<!-- end -->"
_BLOCK = re.compile(
    rf"^{_START}(?P<words>.*?)-->\n(?P<content>.*?)^{_END}$", flags=re.DOTALL | re.MULTILINE
)
_MARK = re.compile(rf"^(?:{_START}|{_END})", flags=re.MULTILINE)

_KINDS: dict[str, Callable[[Path, str, Sequence[str]], str]] = {
    "comparison": comparisons.comparison,
    "ratios": benchmarks.ratios,
    "facts": benchmarks.facts,
    "probes": probes.probes,
}


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        line: Number of the line that its comment starts on.
        words: What the comment says.
        written: The lines that stand there.
        wanted: The lines that its files give.
    """

    line: int
    words: str
    written: str
    wanted: str

    @property
    def holds(self) -> bool:
        """Whether the page shows what the files say."""
        return self.written == self.wanted


def tables(page: str | os.PathLike) -> list[Table]:
    """Returns the tables of a page in order, with what their files give.

    Args:
        page: A Markdown file; folders are looked for beside it.

    Raises:
        TfkdError: For a page that cannot be read, comments that do not pair, an unknown kind of
            table, or a file that is missing or holds something else.
    """
    page = Path(page)
    text = _text(page)
    return [_table(page, text, block) for block in _blocks(page, text)]


def rewrite(page: str | os.PathLike) -> list[Table]:
    """Writes the tables of a page anew, and leaves everything else as it is.

    Args:
        page: See :func:`tables`.

    Returns:
        The tables that changed; without one, the page is not written.

    Raises:
        TfkdError: As for :func:`tables`, or when the page cannot be written.
    """
    page = Path(page)
    text = _text(page)
    pieces, end, changed = [], 0, []
    for block in _blocks(page, text):
        table = _table(page, text, block)
        pieces += [text[end : block.start("content")], table.wanted]
        end = block.end("content")
        if not table.holds:
            changed.append(table)
    if changed:
        files.write(page, "".join([*pieces, text[end:]]))
    return changed


def _text(page: Path) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TfkdError(f"page {str(page)!r}: found {reason(error)}, wanted a text file") from None


def _blocks(page: Path, text: str) -> list[re.Match[str]]:
    """Returns each pair of comments with what stands between them."""
    marks = [match.group() for match in _MARK.finditer(text)]
    blocks = list(_BLOCK.finditer(text))
    if marks != [_START, _END] * len(blocks):
        raise TfkdError(
            f"page {str(page)!r}: found {marks.count(_START)} lines that begin with {_START!r} and "
            f"{marks.count(_END)} of {_END!r}, wanted one of these after each of those"
        )
    return blocks


def _table(page: Path, text: str, block: re.Match[str]) -> Table:
    line = text.count("\n", 0, block.start()) + 1
    words = " ".join(block["words"].split())
    try:
        wanted = _content(page.parent, words)
    except TfkdError as error:
        raise TfkdError(f"{page.name}, line {line}: {error}") from error
    return Table(line, words, block["content"], wanted)


def _content(beside: Path, words: str) -> str:
    try:
        kind, folder, *others = shlex.split(words)
    except ValueError:
        raise TfkdError(f"table: found {words!r}, wanted a kind, a folder and words") from None
    if kind not in _KINDS:
        raise unknown("kind of table", kind, _KINDS)
    return _KINDS[kind](beside, folder, others)
