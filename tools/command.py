"""The command ``tfkd``: starts a binary by its name.

    tfkd --help
    tfkd train --config=quickstart --workdir=runs/example

``python -m tfkd`` is the same.
"""

from __future__ import annotations

import ast
import difflib
import runpy
import sys
from pathlib import Path

COMMANDS = (
    "train",
    "compare",
    "tune",
    "evaluate",
    "export",
    "models",
    "benchmark",
    "import_torch",
    "import_caffe",
    "prepare_data",
)


def main() -> None:
    """Starts the binary that the first word of the command line names; the others are its flags."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "-help", "help"):
        print(help_text())
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"tfkd: unknown command {name!r}{hint} (--help lists the commands)", file=sys.stderr)
        sys.exit(2)
    # Installed, this package has another name than the one that its modules know one another by.
    sys.modules["tools"] = sys.modules[__package__]
    sys.argv = [f"tfkd {name}", *words]
    runpy.run_module(f"tools.{name}", run_name="__main__")


def help_text() -> str:
    """Returns the list of the commands, each with the first line of its docstring."""
    lines = ["tfkd COMMAND --flag=value ...", "", "Commands:"]
    for name in COMMANDS:
        source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        meaning, *_ = ast.get_docstring(ast.parse(source)).splitlines()
        lines.append(f"  {name:14}{meaning}")
    return "\n".join([*lines, "", "tfkd COMMAND --help lists the flags of a command."])
