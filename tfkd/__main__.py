"""``python -m tfkd``: the command ``tfkd``, whose binaries lie beside the library."""

import importlib
import importlib.util
import sys
from pathlib import Path

# The second one is that of a checkout.
_FOLDERS = [Path(__file__).resolve().parents[1] / name for name in ("tfkd_tools", "tools")]


def main() -> None:
    """Starts the binary that the first word of the command line names."""
    folder = next(each for each in _FOLDERS if (each / "command.py").is_file())
    spec = importlib.util.spec_from_file_location(
        "tools", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["tools"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["tools"])
    importlib.import_module("tools.command").main()


if __name__ == "__main__":
    main()
