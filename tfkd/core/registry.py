"""Published methods by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tfkd.errors import TfkdError, unknown
from tfkd.models.registry import is_defined_again

_METHODS: dict[str, Callable] = {}


def register(name: str) -> Callable:
    """Returns a decorator that makes an objective class (or a function that makes one) available.

    Args:
        name: The word used in configurations, the default name of the objectives; also the name of
            the file.

    Raises:
        TfkdError: When the name is taken.
    """

    def decorate(maker: Callable) -> Callable:
        if name in _METHODS and not is_defined_again(_METHODS[name], maker):
            raise TfkdError(f"distiller {name!r} is registered twice")
        _METHODS[name] = maker
        if isinstance(maker, type):
            maker.default_name = name
        return maker

    return decorate


def names() -> list[str]:
    """Returns the names of all registered methods, sorted."""
    return sorted(_METHODS)


def defaults(name: str) -> dict[str, Any]:
    """Returns the hyper-parameters of a method that have a default other than ``None``.

    Args:
        name: One of :func:`names`.

    Raises:
        TfkdError: For an unknown name.
    """
    if name not in _METHODS:
        raise unknown("distiller", name, names())
    return {
        key: value.default
        for key, value in inspect.signature(_METHODS[name]).parameters.items()
        if key != "name" and value.default not in (value.empty, None)
    }


def create(name: str, /, **settings):
    """Returns the objective of a method.

    Args:
        name: One of :func:`names`.
        **settings: The method's own hyper-parameters.

    Raises:
        TfkdError: For an unknown name or setting; the nearest known one is named.
    """
    if name not in _METHODS:
        raise unknown("distiller", name, names())
    maker = _METHODS[name]
    parameters = inspect.signature(maker).parameters
    known = [key for key, value in parameters.items() if value.kind is not value.VAR_KEYWORD]
    for key in settings:
        if key not in known and key != "name":
            raise unknown(f"setting of distiller {name}", key, known)
    return maker(**settings)
