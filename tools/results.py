"""Writes the tables of RESULTS.md from the files under results/.

    python tools/results.py
    python tools/results.py --check
    python tools/results.py PAGE.md

Each table stands between two comments, the first of which says what it is made of; see
tfkd/reporting/page.py. Everything else on the page stays as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a file.
    sys.path.insert(0, str(_ROOT))

from absl import flags

from tools import entry

_CHECK = flags.DEFINE_boolean(
    "check", False, "Write nothing; name the tables that differ from their files and exit with 1."
)


def main(argv: list[str]) -> None:
    from tfkd import reporting

    differ = False
    for page in argv[1:] or [_ROOT / "RESULTS.md"]:
        if _CHECK.value:
            found = [table for table in reporting.tables(page) if not table.holds]
        else:
            found = reporting.rewrite(page)
        for table in found:
            state = "differs from its files" if _CHECK.value else "written"
            print(f"{page}, line {table.line}: table {table.words!r} {state}", flush=True)
        differ |= bool(found)
    if _CHECK.value and differ:
        sys.exit(1)


main.takes_arguments = True

if __name__ == "__main__":
    entry.run(main)
