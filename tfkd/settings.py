"""Settings declared once: check, default, signature and help follow from one line each.

A setting is a public class attribute with an annotation and a default::

    class Step(Settings):
        factor: Positive = field(0.1, "factor of the rate at each milestone")
        milestones: tuple[NonNegative, ...] = ()

    Step(0.2).factor    # 0.2
    Step(factor=-1)     # TfkdError: Step: factor: found -1, wanted a number > 0

:class:`tfkd.Objective` and :class:`Settings` are declared this way; :mod:`tfkd.value_types` has the
types. No settings are ``ClassVar`` attributes, those without a default, and those that a base class
annotates and that are none there.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from tfkd import value_types
from tfkd.errors import TfkdError, unknown
from tfkd.value_types import Count, Fraction, NonNegative, Positive, Range

__all__ = [
    "Count",
    "Field",
    "Fraction",
    "NonNegative",
    "Positive",
    "Range",
    "Settings",
    "checked",
    "declare",
    "field",
    "fields_of",
    "fill",
    "refuse_unknown",
    "values_of",
]


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting.

    Attributes:
        name: Name of the attribute.
        type: Its type as annotated, such as :data:`Positive`.
        default: Its default.
        meaning: One line for help and tables; empty where none was given.
    """

    name: str
    type: Any
    default: Any
    meaning: str = ""

    @property
    def wanted(self) -> str:
        """The values that it takes, in words: ``a number > 0``."""
        return value_types.wanted(self.type)

    def checked(self, where: str, value: Any) -> Any:
        """Returns a value as its type holds it, see :func:`checked`.

        Args:
            where: What stands before the name in a message: ``"kd: "`` or ``"train."``.
            value: The value.
        """
        return checked(where + self.name, self.type, value)


def checked(where: str, annotation: Any, value: Any) -> Any:
    """Returns a value as a type holds it: a whole number as a float, a list as a tuple.

    Args:
        where: What stands before a message: ``"student_loss_weight"``, ``"kd: temperature"``.
        annotation: The type, such as :data:`Positive`.
        value: The value.

    Raises:
        TfkdError: When it is of another type or out of bounds.
    """
    try:
        return value_types.fit(annotation, value)
    except value_types.Misfit:
        choices = value_types.choices(annotation)
        if choices and isinstance(value, str):
            owner, _, name = where.rpartition(": ")
            raise unknown(f"{name} of {owner}" if owner else name, value, choices) from None
        wanted = value_types.wanted(annotation)
        raise TfkdError(f"{where}: found {value!r}, wanted {wanted}") from None


def field(default: Any, meaning: str) -> Any:
    """Declares a default together with the meaning of its setting, one line for help and tables."""
    return _Declared(default, meaning)


def fields_of(cls: type) -> dict[str, Field]:
    """Returns the settings that a class and its bases declare, in order."""
    return dict(getattr(cls, "_settings", {}))


def values_of(owner: Any) -> dict[str, Any]:
    """Returns the values of an object's settings by name."""
    return {name: getattr(owner, name) for name in fields_of(type(owner))}


def fill(owner: Any, given: Mapping[str, Any], where: str) -> None:
    """Sets every setting of an object, checked; those not given take their defaults.

    Args:
        owner: An object of a class with settings.
        given: Values by name.
        where: As in :meth:`Field.checked`.

    Raises:
        TfkdError: For a name that is no setting, with the nearest, or a value that does not fit.
    """
    fields = fields_of(type(owner))
    refuse_unknown(given, fields, where)
    for name, each in fields.items():
        setattr(owner, name, each.checked(where, given.get(name, each.default)))


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises a :class:`TfkdError` for the first name that is not known, with the nearest."""
    for name in given:
        if name not in known:
            raise unknown(f"setting of {where.rstrip(': .')}", name, known)


def declare(cls: Any, root: Any, last: Sequence[inspect.Parameter] = ()) -> None:
    """Collects the settings of a class, and gives it an ``__init__`` with a signature of them.

    A handwritten ``__init__``, of the class or inherited, stays.

    Args:
        cls: The class, from ``root.__init_subclass__``.
        root: The class whose ``__init__`` takes settings by name and calls :func:`fill`.
        last: Parameters of ``root.__init__`` that follow the settings.

    Raises:
        TfkdError: For a type that no setting can have, or a default that does not fit its type.
    """
    cls._settings = _collect(cls)
    nearest = next(base for base in cls.__mro__ if "__init__" in vars(base))
    if nearest is not root and not hasattr(nearest.__init__, "__signature__"):
        return
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    settings = [
        inspect.Parameter(
            each.name, either, default=each.default, annotation=value_types.plain(each.type)
        )
        for each in cls._settings.values()
    ]
    signature = inspect.Signature([inspect.Parameter("self", either), *settings, *last])

    def __init__(self, *args, **kwargs):
        if "kwargs" not in signature.parameters:
            refuse_unknown(kwargs, cls._settings, cls.__name__)
        arguments = signature.bind(self, *args, **kwargs).arguments
        root.__init__(arguments.pop("self"), **arguments.pop("kwargs", {}), **arguments)

    vars(__init__)["__signature__"] = signature
    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    __init__.__doc__ = "Settings, by position or by name:\n\n" + "\n".join(
        f"{each.name}: {each.meaning or each.wanted}" for each in cls._settings.values()
    )
    cls.__init__ = __init__


class Settings:
    """A group of settings, which a subclass declares; assignments are checked as well."""

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        declare(cls, Settings)

    def __init__(self, **given: Any) -> None:
        fill(self, given, f"{type(self).__name__}: ")
        self.check()

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any], where: str) -> Self:
        """Returns the settings of a mapping, with defaults for those that it lacks.

        Args:
            given: Values by name.
            where: As in :meth:`Field.checked`.

        Raises:
            TfkdError: As :func:`fill`, and for what is no mapping.
        """
        if not hasattr(given, "items"):
            raise TfkdError(f"{where.rstrip(': .')}: found {given!r}, wanted a dict of settings")
        made = cls.__new__(cls)
        fill(made, dict(given.items()), where)
        made.check()
        return made

    def check(self) -> None:
        """Raises a :class:`TfkdError` for values that do not go together; by default none."""

    def __setattr__(self, name: str, value: Any) -> None:
        fields, cls = fields_of(type(self)), type(self).__name__
        refuse_unknown([name], fields, cls)
        super().__setattr__(name, fields[name].checked(f"{cls}: ", value))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and values_of(self) == values_of(other)

    def __repr__(self) -> str:
        listed = ", ".join(f"{name}={value!r}" for name, value in values_of(self).items())
        return f"{type(self).__name__}({listed})"


@dataclasses.dataclass(frozen=True)
class _Declared:
    default: Any
    meaning: str


def _collect(cls: type) -> dict[str, Field]:
    """Returns the settings of the bases, with new defaults, and those of the class itself."""
    found: dict[str, Field] = {}
    for base in reversed(cls.__mro__[1:]):
        found.update(vars(base).get("_settings", {}))
    kinds = _annotations(cls, inherited=found)
    for name in dict.fromkeys([*found, *kinds]):
        if name not in vars(cls):
            continue
        given, kind = vars(cls)[name], kinds.get(name) or found[name].type
        if ClassVar in (kind, typing.get_origin(kind)) or hasattr(given, "__get__"):
            found.pop(name, None)
            continue
        if not isinstance(given, _Declared):
            given = _Declared(given, found[name].meaning if name in found else "")
        declared = Field(name, kind, given.default, given.meaning)
        try:
            value_types.wanted(kind)
        except TypeError as error:
            raise TfkdError(f"{cls.__name__}.{name}: {error}") from None
        default = declared.checked(f"{cls.__name__}.", given.default)
        found[name] = dataclasses.replace(declared, default=default)
        setattr(cls, name, default)
    return found


def _annotations(cls: type, inherited: Iterable[str]) -> dict[str, Any]:
    """Returns the types of a class's own public attributes that have a default."""
    elsewhere = {name for base in cls.__mro__[1:] for name in inspect.get_annotations(base)}
    own = {
        name: annotation
        for name, annotation in inspect.get_annotations(cls).items()
        if name in vars(cls)
        and not name.startswith("_")
        and (name in inherited or name not in elsewhere)
    }
    # The frame that defines the class knows more than sys.modules: local types, and modules that
    # were loaded by their path.
    frame: types.FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != cls.__module__:
        frame = frame.f_back
    known = frame.f_globals | frame.f_locals if frame else vars(sys.modules[cls.__module__])
    probe = type(cls.__name__, (), {"__annotations__": own})
    return typing.get_type_hints(probe, globalns=known, include_extras=True)
