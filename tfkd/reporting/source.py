"""The JSON files that tables are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfkd import json_shapes
from tfkd.errors import TfkdError, reason


def read(path: Path, *wanted: str) -> dict[str, Any]:
    """Returns the content of a JSON file.

    Args:
        path: The file.
        *wanted: The fields that it must have.

    Raises:
        TfkdError: When the file is missing, no JSON or without these fields.
    """
    try:
        found = json_shapes.read(path, object)
    except OSError as error:
        raise TfkdError(f"file {str(path)!r}: {error.strerror}, wanted a JSON file") from None
    except ValueError as error:
        raise TfkdError(f"file {str(path)!r}: not readable as JSON ({reason(error)})") from None
    missing = [field for field in wanted if not isinstance(found, dict) or field not in found]
    if missing:
        raise TfkdError(f"file {str(path)!r}: found no {missing[0]!r}, wanted {', '.join(wanted)}")
    return found
