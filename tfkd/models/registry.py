"""The networks that tfkd knows by name, and how one is made."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from tfkd.errors import TfkdError, unknown
from tfkd.models import references
from tfkd.settings import checked


@dataclass(frozen=True)
class Entry:
    """What the registry keeps of one network.

    Attributes:
        build: Takes `num_classes`, `input_shape`, `name` and the network's own keyword arguments,
            and returns a functional model from images to logits.
        smallest: The least height and width, in pixels, that the network takes.
        default_shape: Height, width and channels of the images that it was published for.
        default_classes: The number of classes that it was published for.
        definitions: `definitions(kwargs)` returns what the arguments of the network refer to by
            name, such as another network or a function of the user's, by the argument; None where
            they refer to nothing.
    """

    build: Callable[..., keras.Model]
    smallest: int
    default_shape: tuple[int, int, int] = (32, 32, 3)
    default_classes: int = 100
    definitions: Callable[[Mapping[str, Any]], Mapping[str, Callable]] | None = None


_networks: dict[str, Entry] = {}


def register(
    name: str,
    *,
    smallest: int = 1,
    default_shape: tuple[int, int, int] = (32, 32, 3),
    default_classes: int = 100,
    definitions: Callable[[Mapping[str, Any]], Mapping[str, Callable]] | None = None,
) -> Callable:
    """Returns a decorator that makes a builder known as `name`.

    The builder is called as `build(num_classes=, input_shape=, name=, **kwargs)` with arguments
    that were checked here, and returns a functional model, image -> logits, whose layers bear the
    tap names `stem`, `stage1..N`, `stage1_pre..`, `pre_pool`, `pooled` and `logits`.

    Args:
        name: The name for `create`.
        smallest: The least height and width of an image, in pixels.
        default_shape: Height, width and channels of the images that the network was published for;
            tables and pictures show it for these.
        default_classes: The number of classes that it was published for.
        definitions: As of `Entry`.

    Raises:
        TfkdError: If the name is taken.
    """

    def add(build: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
        if name in _networks and not is_defined_again(_networks[name].build, build):
            raise TfkdError(f"network {name!r}: found it registered already; wanted a new name")
        shape = tuple(default_shape)
        _networks[name] = Entry(build, smallest, shape, default_classes, definitions)
        return build

    return add


def is_defined_again(known: Callable, new: Callable) -> bool:
    """Whether a definition outside tfkd was run once more and may replace itself.

    A notebook cell is, and a config file that is read both for a student and for its teacher.

    Args:
        known: What is registered under a name.
        new: What is to be registered under it.
    """
    own = known.__module__.split(".")[0] == __name__.split(".")[0]
    return known.__qualname__ == new.__qualname__ and not own


def entry(name: str) -> Entry:
    """What is known of one of `names()`.

    Raises:
        TfkdError: For another name.
    """
    if name not in _networks:
        raise unknown("network", name, names())
    return _networks[name]


def published_shape(name: str) -> tuple[int, int, int]:
    """Height, width and channels of the images that one of `names()` was published for.

    Raises:
        TfkdError: For another name.
    """
    return entry(name).default_shape


def names() -> tuple[str, ...]:
    """The names that `create` accepts, family by family, small to large."""
    return tuple(_networks)


def check_name(name: str, kind: str = "network") -> None:
    """Checks that `create` knows a name, and imports what it refers to.

    Args:
        name: A name for `create`.
        kind: What is named, for the message.

    Raises:
        TfkdError: If no network, or no function, has that name.
    """
    if references.is_reference(name):
        references.find(name)
    elif name not in _networks:
        raise unknown(kind, name, names())


def builder(name: str) -> Callable:
    """What makes a network: the registered function, or that of a reference.

    Raises:
        TfkdError: As `check_name`.
    """
    return references.find(name) if references.is_reference(name) else entry(name).build


def definitions(name: str, kwargs: Mapping[str, Any]) -> dict[str, Callable]:
    """What the arguments of a network refer to by name, by the argument.

    Args:
        name: A name for `create`.
        kwargs: The arguments.

    Raises:
        TfkdError: For something that is not there.
    """
    known = _networks.get(name)
    found = None if known is None or known.definitions is None else known.definitions(kwargs)
    return dict(found or {})


def create(
    name: str,
    num_classes: int,
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    **kwargs,
) -> keras.Model:
    """Builds a network with fresh weights.

    Args:
        name: One of `names()`; or, for any other network, `module:function` or
            `path/to/file.py:function`, such as `keras.applications:MobileNetV2` (see
            `tfkd.models.references`).
        num_classes: The number of classes, at least 2.
        input_shape: Height, width and channels of an image. A side that is None may vary.
        **kwargs: The network's own arguments.

    Returns:
        A functional model from normalized images (batch, height, width, channels) to float32
        logits (batch, num_classes).

    Raises:
        TfkdError: For an unknown name, a class count, image or argument that does not fit.
    """
    check_name(name)
    known = _networks.get(name)
    if not _is_count(num_classes) or num_classes < 2:
        raise TfkdError(
            f"network {name!r}: found num_classes={num_classes!r}; wanted a whole number, 2 or more"
        )
    input_shape = _checked_shape(name, input_shape, 1 if known is None else known.smallest)
    if known is None:
        return references.build(name, int(num_classes), input_shape, **kwargs)
    accepted = inspect.signature(known.build).parameters
    for argument in kwargs:
        if argument not in accepted:
            own = set(accepted) - {"num_classes", "input_shape", "name"}
            raise unknown(f"argument of network {name!r}", argument, own)
    return known.build(num_classes=int(num_classes), input_shape=input_shape, name=name, **kwargs)


def create_other(
    name: str, of, of_kwargs, num_classes: int, input_shape: tuple[int | None, int | None, int]
) -> keras.Model:
    """Builds the network that a registered one is made of.

    Args:
        name: The name of the registered one, for messages.
        of: Its argument `of`, a name for `create`.
        of_kwargs: Its argument `of_kwargs`: arguments of that network, or None.
        num_classes: As for `create`.
        input_shape: As for `create`.

    Raises:
        TfkdError: As `create`, and for arguments of other types.
    """
    of = checked(f"network {name!r}: of", str, of)
    of_kwargs = checked(f"network {name!r}: of_kwargs", dict | None, of_kwargs) or {}
    return create(of, num_classes, input_shape, **of_kwargs)


def _is_count(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _checked_shape(name: str, input_shape, smallest: int) -> tuple[int | None, int | None, int]:
    """Returns `input_shape` as a tuple, or raises if no image of the network's has it."""
    found = f"network {name!r}: found input_shape={input_shape!r}"
    try:
        height, width, channels = input_shape
    except (TypeError, ValueError):
        raise TfkdError(f"{found}; wanted (height, width, channels)") from None
    if not _is_count(channels) or channels < 1:
        raise TfkdError(f"{found}; wanted 1 or more channels")
    for side in (height, width):
        if side is not None and (not _is_count(side) or side < smallest):
            raise TfkdError(f"{found}; wanted an image of {smallest}x{smallest} pixels or more")
    return height, width, channels
