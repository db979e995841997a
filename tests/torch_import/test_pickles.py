"""Nothing that a pickle asks for is run."""

import builtins
import codecs
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from tests.torch_import import files
from tfkd import torch
from tfkd.errors import TfkdError


class Reduced:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def call(module, name, *arguments):
    return files.named(module, name) + files.Writer().code(arguments) + b"R"


MARK = "mark"
PAYLOADS = {
    "os.system": (call("os", "system", f"touch {MARK}"), "os.system"),
    "posix.system": (call("posix", "system", f"touch {MARK}"), "posix.system"),
    "eval": (call("builtins", "eval", f"open('{MARK}', 'w')"), "builtins.eval"),
    "exec of Python 2": (call("__builtin__", "eval", f"open('{MARK}', 'w')"), "__builtin__.eval"),
    "getattr": (call("builtins", "getattr", "", "format"), "builtins.getattr"),
    "import": (call("importlib", "import_module", "os"), "importlib.import_module"),
    "attribute of torch": (call("torch", "load", MARK), "torch.load"),
    "hub": (call("torch.hub", "load", "a", "b"), "torch.hub.load"),
    "numpy": (call("numpy", "load", MARK), "numpy.load"),
    "dotted": (call("torch._utils", "_rebuild_tensor_v2.__globals__"), "__globals__"),
    "instance": (b"(X\x01\x00\x00\x00aios\nsystem\n", "os.system"),
    "protocol 4": (b"\x8c\x02os\x8c\x06system\x93\x8c\x01a\x85R", "os.system"),
    "new object": (files.named("subprocess", "Popen") + b")\x81", "subprocess.Popen"),
    "only named": (files.named("os", "system"), "os.system"),
}


def checkpoints(code):
    value = {"model": {"fc.bias": files.counting(3)}, "extra": files.Raw(code)}
    return files.zipped(value), files.legacy(value)


@pytest.mark.parametrize("case", PAYLOADS)
def test_a_payload_is_refused_by_name_and_does_nothing(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, name = PAYLOADS[case]
    for data in checkpoints(code):
        Path("weights.pth").write_bytes(data)
        with pytest.raises(TfkdError, match=name) as caught:
            torch.read("weights.pth")
        assert "\n" not in str(caught.value)
    assert os.listdir() == ["weights.pth"]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "function, argument",
    [
        (os.system, "exit 1"),
        (builtins.eval, "1"),
        (builtins.exec, "pass"),
        (subprocess.check_output, "true"),
        (codecs.decode, "a"),
        (sys.exit, "0"),
    ],
)
def test_pickled_calls_of_python_are_refused(tmp_path, protocol, function, argument):
    path = tmp_path / "weights.pth"
    payload = pickle.dumps(Reduced(function, argument), protocol)
    path.write_bytes(files.MAGIC + files.VERSION + files.MACHINE + payload)
    with pytest.raises(TfkdError):
        torch.read(path)
    path.write_bytes(payload)
    with pytest.raises(TfkdError):
        torch.read(path)


STORAGE = files.named("torch", "FloatStorage")
ODD = {
    "a storage is no function": (STORAGE + b")R", "call of 'torch.FloatStorage', wanted only"),
    "a value is no function": (b"K\x01)R", "calls a int"),
    "a tensor of no storage": (
        call("torch._utils", "_rebuild_tensor_v2", 1, 0, (1,), (1,)),
        "found a tensor of a int",
    ),
    "too few arguments": (call("torch._utils", "_rebuild_tensor_v2", 1), "do not fit"),
    "a parameter of no tensor": (call("torch._utils", "_rebuild_parameter", 1), "of a int"),
    "a size of a number": (call("torch", "Size", 1), "torch.Size of a int"),
    "state of a number": (b"K\x01}b", "sets the state of a int"),
    "items of a list": (b"](K\x01K\x02u", "fills something else than a dict"),
    "entries of a dict": (b"}(K\x01e", "fills something else than a list"),
    "a tuple as a key": (b"}(K\x01K\x02tK\x03s", "a key that is a tuple"),
    "a value out of nowhere": (b"h\x09", "reads value 9 before"),
    "another reference": (b"(X\x06\x00\x00\x00module))tQ", "reference to 'module'"),
    "a storage of no type": (b"(X\x07\x00\x00\x00storageNNNK\x01tQ", "storage of type a NoneType"),
    "an odd encoding": (call("_codecs", "encode", "a", "rot13"), "wanted the few bytes"),
    "a long text": (call("_codecs", "encode", "a" * 100, "latin1"), "wanted the few bytes"),
    "an array type": (call("numpy", "dtype", "O"), "numpy type 'O'"),
    "a compound type": (call("numpy", "dtype", "f8,f8"), "numpy type 'f8,f8'"),
    "an instruction for objects": (b"(o", "instruction OBJ"),
    "an extension": (b"\x82\x01", "instruction EXT1"),
}


@pytest.mark.parametrize("case", ODD)
def test_opcodes_that_weights_do_not_need_are_refused(case, tmp_path):
    code, message = ODD[case]
    path = tmp_path / "weights.pth"
    for data in checkpoints(code):
        path.write_bytes(data)
        with pytest.raises(TfkdError, match=message):
            torch.read(path)


def doubling():
    """A list of two lists of two lists and so on, a hundred levels deep, under the memo's 127."""
    return b"]" + b"".join(b"q%c](h%ch%ce" % (n, n, n) for n in range(100)) + b"q\x7f"


def many_dicts():
    """A thousand pairs in a list, which five hundred dicts are made of."""
    pairs = b"".join(b"](" + files.text(str(number)) + b"Ne" for number in range(1000))
    ordered = files.named("collections", "OrderedDict") + b"(h\x01tR"
    return b"](" + pairs + b"eq\x01](" + ordered * 500 + b"e"


DEEP = b"N" + b"\x85" * 20_000
SMALL = {
    "shown": b"(" + doubling() + b"K\x01tQ",
    "shown as a key": b"(X\x07\x00\x00\x00storage" + doubling() + b"h\x7fNK\x01tQ",
    "a global": doubling() + b"h\x7f\x93",
    "deep": DEEP,
    "deep key": b"}" + DEEP + b"Ns",
    "copied": many_dicts(),
}


@pytest.mark.parametrize("case", SMALL)
def test_a_small_pickle_stays_small(case, tmp_path):
    """What is nested or used again and again is not walked, shown or copied."""
    path = tmp_path / "weights.pth"
    for data in checkpoints(SMALL[case]):
        path.write_bytes(data)
        tracemalloc.start()
        try:
            torch.read(path)
        except TfkdError as error:
            assert len(str(error)) < 1000
        finally:
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert most < 10 * 2**20
