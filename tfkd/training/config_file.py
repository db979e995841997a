"""How a config file is read, and how its errors are told."""

from __future__ import annotations

import importlib.util
import re
import traceback
from pathlib import Path

import ml_collections

from tfkd.errors import TfkdError, did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "configs"
_SHIPPED = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "configs"


def find(path: str) -> Path | None:
    """Returns the config file that is meant, or ``None`` where there is none.

    Args:
        path: Its path, from the working folder, or that of a shipped config, from the repository
            (``configs/quickstart.py``), or the name of a shipped one (``quickstart``).
    """
    name = path.removeprefix("configs/").removesuffix(".py")
    places = [Path(path), _SHIPPED / f"{name}.py"]
    return next((place for place in places if place.is_file()), None)


def load(reference: str) -> ml_collections.ConfigDict:
    """Reads a config file.

    Args:
        reference: ``PATH`` or ``PATH:ARGUMENT``, the path as :func:`find` takes it.

    Raises:
        TfkdError: When there is no such file, or it has no ``get_config``.
    """
    path, _, argument = reference.partition(":")
    found = find(path)
    if found is None:
        raise TfkdError(f"config {path!r}: no such file, wanted a Python file with get_config")
    spec = importlib.util.spec_from_file_location(f"tfkd_config_{found.stem}", found)
    if spec is None:
        raise TfkdError(
            f"config {path!r}: found a file that is not Python, wanted get_config in a .py"
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise TfkdError("found no function get_config")
        config = module.get_config(argument) if argument else module.get_config()
    # Whatever a config file does wrong is told in one line, leaving the program included.
    except (Exception, SystemExit) as error:
        raise TfkdError(f"config {reference!r}: {explain(error)}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise TfkdError(
            f"config {reference!r}: get_config returned {type(config).__name__}, wanted the "
            "ConfigDict of tfkd.training.config.default()"
        )
    return config


def explain(error: BaseException) -> str:
    """Returns in one line what went wrong in a config file, with the line of the file.

    Args:
        error: What reading it raised.
    """
    text = " ".join(str(error).split())
    if isinstance(error, TfkdError):
        return text
    field = re.search(r'Key "(\w+)" does not exist', text)
    if field:
        near = re.findall(r'Did you mean "(\w+)"', text)
        text = f"unknown config field {field.group(1)!r}{did_you_mean(field.group(1), near)}"
    else:
        text = f"{type(error).__name__}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "get_config" in frame.name or frame.name == "<module>"]
    return f"line {own[-1].lineno}: {text}" if own else text
