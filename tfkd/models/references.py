"""Networks that are not tfkd's own, by a reference `module:function` or `path/to/file.py:function`.

The function is called with what it accepts of `num_classes`, `input_shape` and `name`, as the
networks of the registry are; or, where it takes `classes` in place of `num_classes`, with the
arguments of `keras.applications`: `classes`, `input_shape`, `weights=None` (nothing is downloaded
unless asked for) and `classifier_activation=None` (logits). It returns a functional Keras model
from images to logits.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import keras

from tfkd.errors import TfkdError, unknown
from tfkd.models.graph.calls import is_functional
from tfkd.models.graph.inspection import final_activation
from tfkd.models.graph.outputs import in_depth_order, outputs

_REPOSITORY = Path(__file__).resolve().parents[2]
_KERAS_APPLICATIONS = "keras.applications"
# Keras keeps its numbers of unnamed layers in a global store, under this name. The public reset,
# `keras.utils.clear_session`, drops all other state as well, so the store is taken from the public
# function that counts in it.
_COUNTS = "object_name_uids"
_STORE = keras.backend.get_uid.__globals__["global_state"]


def is_reference(name: str) -> bool:
    """Whether a name is `module:function` and not that of a network of the registry."""
    return ":" in name


def is_keras_application(name: str) -> bool:
    """Whether a name stands for a function of `keras.applications`."""
    return name.partition(":")[0].startswith(_KERAS_APPLICATIONS)


def includes_preprocessing(name: str, kwargs: Mapping) -> bool:
    """Whether a network of `keras.applications` normalizes pixels itself.

    Args:
        name: The reference.
        kwargs: The network's own arguments.

    Raises:
        TfkdError: If there is no such function.
    """
    function = find(name)
    choice = inspect.signature(function).parameters.get("include_preprocessing")
    if choice is not None:
        return bool(kwargs.get("include_preprocessing", choice.default))
    # EfficientNetB0 to B7 always do.
    return function.__name__.startswith("EfficientNetB")


def find(reference: str, kind: str = "network") -> Callable:
    """Returns the function or class that a reference names.

    Args:
        reference: `module:function`, the module as in an import (also from the working folder), or
            `path/to/file.py:function`, the file from the working folder or from the repository.
        kind: What it names, for messages.

    Raises:
        TfkdError: If there is no such module, file or function, or importing it fails.
    """
    place, _, name = reference.rpartition(":")
    who = f"{kind} {reference!r}"
    if not place or not name:
        raise TfkdError(
            f"{who}: found no module and function; wanted module:function or "
            "path/to/file.py:function"
        )
    with _working_folder():
        module = _file(who, place) if place.endswith(".py") else _module(who, place)
    found = getattr(module, name, None)
    if not callable(found):
        public = [each for each in dir(module) if not each.startswith("_")]
        functions = [each for each in public if callable(getattr(module, each))]
        raise unknown(f"function of {place}", name, functions)
    return found


def file(reference: str) -> Path | None:
    """Returns the Python file that a reference names, or that of the module; None if it has none.

    Args:
        reference: As `find` takes it, which has imported it.
    """
    place = reference.rpartition(":")[0]
    if place.endswith(".py"):
        return _found(place)
    path = getattr(sys.modules.get(place), "__file__", None) or ""
    return Path(path) if path.endswith(".py") else None


def build(
    reference: str, num_classes: int, input_shape: tuple[int | None, int | None, int], **kwargs
) -> keras.Model:
    """Calls the function that a reference names.

    Args:
        reference: As `find` takes it.
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        **kwargs: The function's own arguments.

    Returns:
        The functional model that the function made.

    Raises:
        TfkdError: If the function cannot be called so or fails, or what it returns is no functional
            model from such images to the logits of so many classes.
    """
    function = find(reference)
    arguments = _arguments(reference, function, num_classes, input_shape, kwargs)
    try:
        with _working_folder(), _names_from_the_first():
            model = function(**arguments)
    except TfkdError as error:
        raise TfkdError(f"network {reference!r}: {error}") from None
    # What a function of the user's does wrong is told in one line, like any other wrong input.
    except Exception as error:
        raise TfkdError(f"network {reference!r}: {_reason(error)}") from error
    _check(reference, model, num_classes, input_shape)
    return model


def _arguments(
    reference: str,
    function: Callable,
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    own: Mapping,
) -> dict:
    """Returns the arguments of the call: what the data say, and the function's own."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        raise TfkdError(
            f"network {reference!r}: found a function without a signature; wanted one written in "
            "Python"
        ) from None
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    if "classes" in parameters and "num_classes" not in parameters:
        given = {"classes": num_classes, "input_shape": input_shape}
        usual = {"weights": None, "classifier_activation": None}
        usual = {key: value for key, value in usual.items() if key in parameters}
    else:
        # What functools.partial returns, or an object that can be called, has no name itself.
        name = getattr(function, "__name__", reference.rpartition(":")[2])
        given = {"num_classes": num_classes, "input_shape": input_shape, "name": name}
        usual = {}
    for argument in own:
        if argument in given:
            raise TfkdError(
                f"network {reference!r}: found argument {argument!r}, which is set for it; wanted "
                "other arguments"
            )
        if argument not in parameters and not takes_any:
            raise unknown(
                f"argument of network {reference!r}", argument, set(parameters) - set(given)
            )
    given = {key: value for key, value in given.items() if takes_any or key in parameters}
    arguments = {**given, **usual, **own}
    missing = [
        each.name
        for each in parameters.values()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        and each.default is each.empty
        and each.name not in arguments
    ]
    if missing:
        raise TfkdError(
            f"network {reference!r}: found no value for {', '.join(missing)}; wanted it among the "
            "network's own arguments"
        )
    return arguments


def _check(reference: str, model, num_classes: int, input_shape: tuple) -> None:
    """Raises if what a function returned is no network for these images and classes."""
    if not isinstance(model, keras.Model) or not is_functional(model):
        raise TfkdError(
            f"network {reference!r}: found that it returns {type(model).__name__}; wanted a "
            "functional keras.Model, or a Sequential with an Input"
        )
    found = model.input_shape
    if not isinstance(found, tuple) or len(found) != 4:
        raise TfkdError(
            f"network {reference!r}: found inputs {found}; wanted one (batch, height, width, "
            "channels)"
        )
    if any(a is not None and a != b for a, b in zip(found[1:], input_shape)):
        raise TfkdError(
            f"network {reference!r}: found that it takes images {found[1:]}; wanted {input_shape}, "
            "as those of the data are"
        )
    try:
        named = outputs(model)
    except TfkdError as error:
        raise TfkdError(f"network {reference!r}: {error}") from None
    for exit in in_depth_order(named):
        shape = tuple(named[exit].shape)
        if len(shape) != 2:
            raise TfkdError(
                f"network {reference!r}: found output {shape}; wanted {exit} (batch, {num_classes})"
            )
        if shape[-1] != num_classes:
            raise TfkdError(
                f"network {reference!r}: found {shape[-1]} classes; wanted {num_classes}, as many "
                "as the data have"
            )
        activation = final_activation(model, exit)
        if activation is not None:
            raise TfkdError(
                f"network {reference!r}: found that it ends in {activation}; wanted logits: a last "
                "layer with activation=None"
            )


def _module(who: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise TfkdError(f"{who}: {name} cannot be imported: {error}") from error
        raise TfkdError(
            f"{who}: found no module {error.name!r}; wanted one of the working "
            "folder or of the Python path"
        ) from None
    except Exception as error:
        reason = _reason(error)
        raise TfkdError(f"{who}: {name} cannot be imported: {reason}") from error


def _file(who: str, name: str) -> ModuleType:
    path = _found(name)
    if path is None:
        raise TfkdError(f"{who}: no such file {name!r}; wanted a Python file")
    state = f"{path.resolve()} {path.stat().st_mtime_ns}"
    # Known to Python under a name of its own, a file is run once, and its classes can be found.
    module_name = f"tfkd_user_{path.stem}_{hashlib.sha256(state.encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise TfkdError(f"{who}: {name} fails: {_reason(error)}") from error
    return module


def _found(name: str) -> Path | None:
    """Returns a file of the working folder, or else of the repository."""
    return next((p for p in (Path(name), _REPOSITORY / name) if p.is_file()), None)


@contextlib.contextmanager
def _working_folder() -> Iterator[None]:
    """Lets modules of the working folder be imported, before others of the same name.

    The first folder on Python's path is that of the program, and a `models.py` is in tools/ too.
    """
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        # Code that was imported may have changed the list as well.
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


@contextlib.contextmanager
def _names_from_the_first() -> Iterator[None]:
    """Numbers layers without a name as in a new process, so that a config can name them as taps."""
    before = dict(_STORE.get_global_attribute(_COUNTS, {}))
    _STORE.set_global_attribute(_COUNTS, collections.defaultdict(int))
    try:
        yield
    finally:
        inside = _STORE.get_global_attribute(_COUNTS, {})
        largest = {key: max(before.get(key, 0), inside.get(key, 0)) for key in {**before, **inside}}
        _STORE.set_global_attribute(_COUNTS, collections.defaultdict(int, largest))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
