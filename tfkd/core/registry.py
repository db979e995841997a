"""Published methods by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from tfkd.errors import TfkdError, unknown
from tfkd.models.registry import is_defined_again
from tfkd.settings import Field, fields_of

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
            raise TfkdError(f"method {name!r} is registered twice")
        _METHODS[name] = maker
        if isinstance(maker, type):
            setattr(maker, "default_name", name)  # noqa: B010
        return maker

    return decorate


def names() -> list[str]:
    """Returns the names of all registered methods, sorted."""
    return sorted(_METHODS)


def settings(name: str) -> dict[str, Field]:
    """Returns the hyper-parameters of a method that have a default, by name.

    Of a function, or a class with an ``__init__`` of its own, those whose default is not ``None``.

    Args:
        name: One of :func:`names`.

    Raises:
        TfkdError: For an unknown name.
    """
    made_by = maker(name)
    declared = fields_of(made_by) if isinstance(made_by, type) else {}
    found = {}
    for key, parameter in inspect.signature(made_by).parameters.items():
        if key in declared:
            found[key] = declared[key]
        elif key != "name" and parameter.default not in (parameter.empty, None):
            found[key] = Field(key, type(parameter.default), parameter.default)
    return found


def create(name: str, /, **settings):
    """Returns the objective of a method.

    Args:
        name: One of :func:`names`.
        **settings: The method's own hyper-parameters.

    Raises:
        TfkdError: For an unknown name or setting; the nearest known one is named.
    """
    made_by = maker(name)
    parameters = inspect.signature(made_by).parameters
    known = [key for key, value in parameters.items() if value.kind is not value.VAR_KEYWORD]
    for key in settings:
        if key not in known and key != "name":
            raise unknown(f"setting of method {name}", key, known)
    return made_by(**settings)


def maker(name: str) -> Callable:
    """Returns the class of a method, or the function that makes its objective.

    Raises:
        TfkdError: For an unknown name.
    """
    if name not in _METHODS:
        raise unknown("method", name, names())
    return _METHODS[name]
