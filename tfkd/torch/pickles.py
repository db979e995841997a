"""Reads pickles of weights without running anything that they ask for.

A pickle is a program for a small stack machine, and Python's own machine calls whatever function
the program names. This one knows the instructions that PyTorch writes and nothing else, and a name
stands for no Python object: it is looked up in a table of the few that tensors, numbers and
strings need, each of which is answered by a function here that checks what it is given.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfkd.errors import TfkdError
from tfkd.torch.tensors import STORAGE_TYPES, Storage, Tensor


@dataclass(frozen=True)
class Global:
    """A name that stood in a pickle and is in the table."""

    name: str


class Settings:
    """Stands for an `argparse.Namespace`, which some training scripts save along; holds nothing."""


@dataclass
class _NumberType:
    """A `numpy.dtype` of one number."""

    code: str
    order: str = "<"


START = b"\x80"
"""What every pickle since protocol 2 begins with."""

_MARK = object()
_LONGEST_NUMBER = 16
_KEYS = (str, int, float, bool, type(None))


def load(data: bytes, start: int = 0) -> tuple[object, int, dict[str, Storage]]:
    """Reads one pickle.

    Args:
        data: Bytes that hold it.
        start: Where it begins.

    Returns:
        What it holds (dicts, lists, tuples, numbers, strings and `Tensor`), where it ends, and the
        storages that it names, still without their numbers.

    Raises:
        TfkdError: For a name that is not admitted, naming it, for an instruction that weights do
            not need, and for arguments that do not fit.
        Exception: Of several kinds, for bytes that are no pickle.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    machine = _Machine()
    for instruction, argument, _ in pickletools.genops(stream):
        machine.perform(instruction.name, argument)
    return machine.result(), stream.tell(), machine.storages


class _Machine:
    """The stack, the memo and the storages of one pickle."""

    def __init__(self):
        self.stack: list = []
        self.memo: dict[int, object] = {}
        self.storages: dict[str, Storage] = {}

    def perform(self, instruction: str, argument) -> None:
        if instruction in _PUSH:
            self.stack.append(_PUSH[instruction](argument))
        elif instruction in _INSTRUCTIONS:
            _INSTRUCTIONS[instruction](self, argument)
        elif instruction == "INST":
            admitted(argument)  # Names what it would have made.
            raise TfkdError(_unneeded(instruction))
        else:
            raise TfkdError(_unneeded(instruction))

    def result(self) -> object:
        if len(self.stack) != 1:
            raise TfkdError(f"found a pickle that ends with {len(self.stack)} values, wanted one")
        return self.stack[0]

    def pop(self):
        value = self.stack.pop()
        if value is _MARK:
            raise TfkdError("found a pickle that takes more values than it gave")
        return value

    def pop_to_mark(self) -> list:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def top(self, kind: type):
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise TfkdError(f"found a pickle that fills something else than a {kind.__name__}")
        return self.stack[-1]

    def fill_list(self, values: list) -> None:
        self.top(list).extend(values)

    def fill_dict(self, values: list) -> None:
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            # A key is hashed, and the hash of a tuple in a tuple in a tuple can take forever.
            if not isinstance(key, _KEYS):
                raise TfkdError(
                    f"found a dict with a key that is a {type(key).__name__}, wanted strings or "
                    "numbers"
                )
            target[key] = value

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)][::-1]
        self.stack.append(tuple(values))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TfkdError(f"found a pickle that calls a {type(function).__name__}")
        answer = _ADMITTED[function.name]
        if answer is None:
            raise TfkdError(f"found a call of {function.name!r}, wanted only its name")
        try:
            self.stack.append(answer(*arguments))
        except (TypeError, ValueError) as error:
            if isinstance(error, TfkdError):
                raise
            raise TfkdError(
                f"found a call of {function.name!r} with arguments that do not fit ({error})"
            ) from None

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, _NumberType) and isinstance(state, tuple) and len(state) > 1:
            target.order = state[1]
        elif not isinstance(target, (Settings, dict)):
            raise TfkdError(f"found a pickle that sets the state of a {type(target).__name__}")
        # The state of a state dict is the versions of its modules: nothing that is needed.

    def persistent(self) -> None:
        """A storage: ("storage", type, key, device, count), and None in the older format."""
        words = self.pop()
        if not isinstance(words, tuple) or words[:1] != ("storage",) or len(words) not in (5, 6):
            kind = words[0] if isinstance(words, tuple) and words else words
            raise TfkdError(
                f"found a reference to {_shown(kind)} outside of the pickle, wanted storages alone"
            )
        _, kind, key, _, count = words[:5]
        if words[5:] not in ((), (None,)):
            raise TfkdError("found a storage that is a part of another one, wanted whole ones")
        dtype = isinstance(kind, Global) and STORAGE_TYPES.get(kind.name.split(".")[-1])
        if not dtype or not isinstance(key, str) or type(count) is not int or count < 0:
            raise TfkdError(
                f"found a storage of type {_shown(kind)}, key {_shown(key)} and {_shown(count)} "
                "numbers"
            )
        storage = self.storages.setdefault(key, Storage(key, dtype, count))
        if (storage.dtype, storage.count) != (dtype, count):
            raise TfkdError(f"storage {key!r}: found two descriptions that differ")
        self.stack.append(storage)


def admitted(name: str) -> Global:
    """Returns the global "module attribute", if it is in the table.

    Raises:
        TfkdError: If it is not, naming it.
    """
    name = ".".join(name.split(" ", 1))
    if name not in _ADMITTED:
        raise TfkdError(
            f"found the global {name[:100]!r}, which is not run; wanted tensors, numbers and "
            "strings alone, as torch.save(model.state_dict(), FILE) writes them"
        )
    return Global(name)


def _stack_global(machine: _Machine) -> None:
    attribute, module = machine.pop(), machine.pop()
    if not isinstance(module, str) or not isinstance(attribute, str):
        raise TfkdError("found a global whose name is no string")
    machine.stack.append(admitted(f"{module} {attribute}"))


def _get(machine: _Machine, index: int) -> None:
    if index not in machine.memo:
        raise TfkdError(f"found a pickle that reads value {index} before it was stored")
    machine.stack.append(machine.memo[index])


def _put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _nothing(machine: _Machine, _) -> None:
    """Frames and the number of the protocol change nothing."""


def _stop(machine: _Machine, _) -> None:
    """The end; what is left on the stack is the result."""


def _unneeded(instruction: str) -> str:
    return f"found the pickle instruction {instruction}, which no file of weights needs"


def _dictionary(pairs=()) -> dict:
    if not isinstance(pairs, list):
        if pairs == ():
            return {}
        raise TfkdError(f"found an OrderedDict of a {type(pairs).__name__}, wanted a list of pairs")
    result = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise TfkdError(f"found an OrderedDict with a {type(key).__name__} for a key")
        result[key] = value
    pairs.clear()  # A list that is used a million times would make a million dicts.
    return result


def _tensor(storage, offset, shape, strides, *_) -> Tensor:
    if not isinstance(storage, Storage):
        raise TfkdError(f"found a tensor of a {type(storage).__name__}, wanted one of a storage")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TfkdError("found a tensor without a shape, wanted a tuple of whole numbers")
    return Tensor(storage, offset, shape, strides)


def _parameter(tensor, *_) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TfkdError(f"found a parameter of a {type(tensor).__name__}, wanted a tensor")
    return tensor


def _size(values) -> tuple:
    if not isinstance(values, tuple):
        raise TfkdError(f"found a torch.Size of a {type(values).__name__}, wanted a tuple")
    return values


def _device(kind, *_) -> str:
    if not isinstance(kind, str):
        raise TfkdError(f"found a torch.device of a {type(kind).__name__}, wanted a string")
    return kind


def _bytes(text, encoding) -> bytes:
    if not isinstance(text, str) or len(text) > _LONGEST_NUMBER or encoding != "latin1":
        raise TfkdError("found an encoded text, wanted the few bytes of a number in latin1")
    return text.encode("latin1")


def _number_type(code, *_) -> _NumberType:
    if not isinstance(code, str) or not re.fullmatch("[biuf][0-9]{1,2}", code):
        raise TfkdError(f"found the numpy type {_shown(code)}, wanted one of numbers")
    return _NumberType(code)


def _number(kind, raw) -> bool | int | float:
    if isinstance(raw, str):  # As Python 2 wrote bytes.
        raw = _bytes(raw, "latin1")
    if not isinstance(kind, _NumberType) or kind.order not in ("<", ">", "|", "="):
        raise TfkdError("found a numpy number of no known type")
    dtype = np.dtype(kind.code).newbyteorder(kind.order)
    if not isinstance(raw, bytes) or len(raw) != dtype.itemsize:
        raise TfkdError(f"found a numpy number that does not have the {dtype.itemsize} bytes of it")
    return np.frombuffer(raw, dtype)[0].item()


def _shown(value) -> str:
    """A value in a message; only its type where its text could be of any length."""
    if isinstance(value, Global):
        return value.name
    return repr(value)[:60] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


_ADMITTED: dict[str, Callable | None] = {
    "_codecs.encode": _bytes,
    "argparse.Namespace": lambda: Settings(),
    "collections.OrderedDict": _dictionary,
    "numpy._core.multiarray.scalar": _number,
    "numpy.core.multiarray.scalar": _number,
    "numpy.dtype": _number_type,
    "torch.Size": _size,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.device": _device,
    **{f"torch.{name}": None for name in STORAGE_TYPES},
}
"""What a name in a pickle stands for; None where it may be named and not called."""

_PUSH: dict[str, Callable] = {
    "BINBYTES": bytes,
    "BINFLOAT": float,
    "BININT": int,
    "BININT1": int,
    "BININT2": int,
    "BINSTRING": str,
    "BINUNICODE": str,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "GLOBAL": admitted,
    "LONG1": int,
    "MARK": lambda _: _MARK,
    "NEWFALSE": lambda _: False,
    "NEWTRUE": lambda _: True,
    "NONE": lambda _: None,
    "SHORT_BINBYTES": bytes,
    "SHORT_BINSTRING": str,
    "SHORT_BINUNICODE": str,
}
"""Instructions that put one value on the stack, made of their argument."""

_INSTRUCTIONS: dict[str, Callable[[_Machine, object], None]] = {
    "APPEND": lambda machine, _: machine.fill_list([machine.pop()]),
    "APPENDS": lambda machine, _: machine.fill_list(machine.pop_to_mark()),
    "BINGET": _get,
    "BINPERSID": lambda machine, _: machine.persistent(),
    "BINPUT": _put,
    "BUILD": lambda machine, _: machine.build(),
    "FRAME": _nothing,
    "LONG_BINGET": _get,
    "LONG_BINPUT": _put,
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "NEWOBJ": lambda machine, _: machine.call(),
    "PROTO": _nothing,
    "REDUCE": lambda machine, _: machine.call(),
    "SETITEM": lambda machine, _: machine.fill_dict([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.fill_dict(machine.pop_to_mark()),
    "STACK_GLOBAL": lambda machine, _: _stack_global(machine),
    "STOP": _stop,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
}
"""All other instructions that are known."""
