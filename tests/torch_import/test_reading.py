"""Files of weights: what torch.save writes, safetensors and npz, read to the same arrays."""

import base64
import json
import pathlib

import ml_dtypes
import numpy as np
import pytest

from tests.torch_import import files
from tfkd import torch
from tfkd.errors import TfkdError

REAL = json.loads((pathlib.Path(__file__).parents[1] / "fixtures" / "torch_files.json").read_text())
WEIGHTS = {"conv1.weight": files.counting(2, 3, 1, 1), "fc.bias": files.counting(5, start=100)}
WRITERS = {
    "zip": files.zipped,
    "legacy": files.legacy,
    "safetensors": files.safetensors_of,
    "npz": files.npz,
    "compressed npz": lambda arrays: files.npz(arrays, compressed=True),
}


@pytest.fixture
def read(tmp_path):
    """``read(bytes, ...)``: what tfkd.torch.read makes of a file of these bytes."""

    def of(data, **arguments):
        path = tmp_path / "weights"
        path.write_bytes(data)
        return torch.read(path, **arguments)

    return of


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].shape == array.shape


@pytest.mark.parametrize("name", [name for name in REAL["files"] if name.startswith("check")])
def test_a_checkpoint_of_pytorch(read, name):
    found = read(base64.b64decode(REAL["files"][name]))
    shapes = {
        "0.weight": (0, (4, 3, 3, 3)),
        "1.weight": (1, (4,)),
        "1.bias": (2, (4,)),
        "1.running_mean": (3, (4,)),
        "1.running_var": (4, (4,)),
        "4.weight": (6, (10, 4)),
        "4.bias": (7, (10,)),
    }
    wanted = {
        key: files.counting(*shape, start=1000 * place) for key, (place, shape) in shapes.items()
    }
    assert_same(found, wanted)


@pytest.mark.parametrize("name", [name for name in REAL["files"] if name.startswith("tensors")])
def test_tensors_of_pytorch_of_every_type_and_stride(read, name):
    found = read(base64.b64decode(REAL["files"][name]))
    base = files.counting(24)
    types = {"double": np.float64, "bfloat16": ml_dtypes.bfloat16, "parameter": np.float32}
    types |= {name: np.dtype(name) for name in ("float16", "int16", "int32", "int64", "int8")}
    types["uint8"] = np.uint8
    wanted = {name: base.astype(dtype) for name, dtype in types.items()}
    wanted["bool"] = base > 3
    wanted["empty"] = np.zeros((0, 3), np.float32)
    wanted["part"], wanted["strided"] = base[3:9], base[::5]
    wanted["transposed"] = base.reshape(4, 6).T
    assert_same(found, {name: wanted[name] for name in sorted(wanted)})


def test_a_whole_module_of_pytorch_is_refused(read):
    with pytest.raises(TfkdError, match="global 'torch.nn.modules.container.Sequential'"):
        read(base64.b64decode(REAL["files"]["module-zip-2"]))


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_gives_the_same_arrays(read, form):
    found = read(WRITERS[form](WEIGHTS))
    assert_same(found, WEIGHTS)
    assert not any(array.flags.writeable for array in found.values())


def test_tensors_may_share_a_storage(read):
    base = files.counting(12)
    views = {
        "whole": files.View(base, (12,), (1,), key="a"),
        "transposed": files.View(base, (4, 3), (1, 4), key="a"),
        "tail": files.View(base, (2, 2), (2, 1), 8, key="a"),
    }
    wanted = {"whole": base, "transposed": base.reshape(3, 4).T, "tail": base[8:].reshape(2, 2)}
    for data in (files.zipped(views), files.legacy(views)):
        assert_same(read(data), wanted)


WRAPPED = {
    "RepDistiller": {"epoch": 240, "model": WEIGHTS, "best_acc": files.counting(1)},
    "state_dict": {"state_dict": WEIGHTS, "arch": "resnet", "lr": 0.1, "done": None},
    "another name": {"epoch": 3, "ema": WEIGHTS, "accuracy": files.counting(1)},
    "with an optimizer": {"net": WEIGHTS, "optimizer": {"state": {0: {"buffer": WEIGHTS}}}},
    "beside others": {"model": WEIGHTS, "ema": {"x": files.counting(2)}},
    "flat, with numbers": {**WEIGHTS, "epoch": 3, "accuracy": files.counting(), "name": "x"},
    "parallel": {"model": {f"module.{name}": each for name, each in WEIGHTS.items()}},
    "counters": {**WEIGHTS, "bn1.num_batches_tracked": files.counting(dtype=np.int64)},
}


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("case", WRAPPED)
def test_the_state_dict_of_a_checkpoint_is_found(read, case, form):
    assert_same(read(WRITERS[form](WRAPPED[case])), WEIGHTS)


def test_a_key_chooses_among_state_dicts(read):
    other = {"fc.bias": files.counting(3)}
    data = files.zipped({"student": WEIGHTS, "teacher": other})
    with pytest.raises(TfkdError, match="found 2 state dicts .*'student', 'teacher', wanted one"):
        read(data)
    assert_same(read(data, key="teacher"), other)
    with pytest.raises(TfkdError, match="unknown key .*'studnt'; did you mean 'student'"):
        read(data, key="studnt")


def test_a_prefix_chooses_among_names(read):
    both = {f"module.student.{name}": each for name, each in WEIGHTS.items()}
    data = files.zipped({"model": {**both, "module.teacher.fc.bias": files.counting(3)}})
    assert_same(read(data, prefix="student."), WEIGHTS)
    with pytest.raises(TfkdError, match="begins with 'pupil.', but 'student.conv1.weight'"):
        read(data, prefix="pupil.")


NUMBER = files.named("numpy.core.multiarray", "scalar")
TYPE = files.named("numpy", "dtype") + b"(X\x02\x00\x00\x00f8\x89\x88tR"
ORDER = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
PYTHON_2 = files.Raw(b"U\x04name")


@pytest.mark.parametrize(
    "extra",
    [
        NUMBER + b"(" + TYPE + ORDER + b"U\x08" + b"\0" * 8 + b"tR",
        files.named("argparse", "Namespace") + b")\x81}X\x01\x00\x00\x00aK\x01sb",
        files.named("torch", "Size") + b"((K\x01K\x02ttR",
        files.named("torch", "device") + b"(X\x04\x00\x00\x00cudaK\x00tR",
        files.named("collections", "OrderedDict") + b"(](](X\x01\x00\x00\x00aK\x01eetR",
        PYTHON_2.code,
    ],
)
def test_extra_entries_of_training_scripts_are_passed_over(read, extra):
    assert_same(read(files.legacy({"model": WEIGHTS, "extra": files.Raw(extra)})), WEIGHTS)


def test_an_ordered_dict_with_the_versions_of_its_modules(read):
    pairs = files.Writer()
    code = files.named("collections", "OrderedDict") + b")R("
    code += b"".join(pairs.code(key) + pairs.code(each) for key, each in WEIGHTS.items())
    code += b"u}X\x09\x00\x00\x00_metadata}sb"
    writer = files.Writer()
    for each in WEIGHTS.values():
        writer.code(each)
    data = files.MAGIC + files.VERSION + files.MACHINE + b"\x80\x02" + code + b"."
    data += files.Writer().pickle(list(writer.storages))
    for numbers in writer.storages.values():
        data += numbers.size.to_bytes(8, "little") + numbers.tobytes()
    assert_same(read(data), WEIGHTS)


BASE = files.counting(6)
WRONG_TENSORS = {
    "past the end": (files.View(BASE, (6,), (1,), 1), "wanted a part of its 6 numbers"),
    "long stride": (files.View(BASE, (2,), (6,)), "wanted a part of its 6 numbers"),
    "repeated": (files.View(BASE, (10**9, 10**9), (0, 0)), "wanted a part of its 6 numbers"),
    "negative": (files.View(BASE, (2,), (-1,), 3), "wanted whole numbers >= 0"),
    "huge": (files.View(BASE, (2,), (2**60,)), "wanted whole numbers >= 0"),
    "ragged": (files.View(BASE, (2, 3), (1,)), "found 2 lengths and 1 strides"),
    "many axes": (files.View(BASE, (1,) * 40, (1,) * 40), "at most 32 axes"),
    "no numbers": (files.View(BASE, ("a",), (1,)), "wanted whole numbers >= 0"),
    "oversize": (files.View(BASE, (6,), (1,), count=10**12), "storage"),
    "undersize": (files.View(BASE, (2,), (1,), count=2), "storage '0'"),
}


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("case", WRONG_TENSORS)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(read, case, form):
    tensor, message = WRONG_TENSORS[case]
    with pytest.raises(TfkdError, match=message) as caught:
        read(WRITERS[form]({"model": {"fc.weight": tensor}}))
    assert "\n" not in str(caught.value) and "weights'" in str(caught.value)


def bomb():
    """An archive of a few kilobytes that claims fifty megabytes."""
    return files.npz({"a": np.zeros(50 * 2**20, np.uint8)}, compressed=True)


def entry(**changes):
    """The table of a safetensors file with one array of two float32."""
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


PICKLED = files.npz({"a": np.array([{}], object)})
WRONG_FILES = {
    "empty": (b"", "begins with b''"),
    "text": (b"not weights at all", "begins with b'not weig'"),
    "another zip": (files.zipped(WEIGHTS, leave_out=["archive/data.pkl"]), "zip archive of some"),
    "missing member": (files.zipped(WEIGHTS, leave_out=["archive/data/1"]), "no member .*data/1'"),
    "compressed": (files.zipped(WEIGHTS, compression=8), "compressed or larger than the file"),
    "long storage": (files.zipped(WEIGHTS, lengthen=4), "found 28 bytes, wanted 24"),
    "big-endian zip": (files.zipped(WEIGHTS, order="big"), "big-endian"),
    "big-endian": (files.legacy(WEIGHTS, machine=files.MACHINE.replace(b"\x88", b"\x89")), "big-e"),
    "magic": (files.legacy(WEIGHTS, magic=files.MAGIC.replace(b"l", b"m")), "another magic number"),
    "version": (files.legacy(WEIGHTS, version=b"\x80\x02K\x01."), "another version than 1001"),
    "no storage": (files.legacy(WEIGHTS, leave_out=["0"]), "found 1 storages .* has 2, '0' among"),
    "cut legacy": (files.legacy(WEIGHTS)[:-3], "storage '1': found 17 bytes, wanted 20"),
    "cut zip": (files.zipped(WEIGHTS)[:-3], "cannot be read"),
    "a list": (files.zipped([1, 2]), "found a list, wanted a state dict"),
    "no weights": (files.zipped({"epoch": 1, "name": "x"}), "0 state dicts .*'epoch', 'name'"),
    "objects": (PICKLED, "type object, wanted numbers"),
    "bomb": (bomb(), "found arrays of 524.* bytes in an archive of .* at most 32 times"),
    "long table": (files.safetensors(entry(), b"\0" * 8, 2**40), "found a table of 10995"),
    "no table": (files.safetensors(b"{]"), "cannot be read"),
    "odd type": (files.safetensors(entry(dtype="F4"), b"\0" * 8), "array 'a': found type 'F4'"),
    "short": (files.safetensors(entry(), b"\0" * 4), "bytes 0 to 8 of 4, wanted 8"),
    "shape": (files.safetensors(entry(shape=[3]), b"\0" * 8), "wanted 12 for shape"),
    "huge": (files.safetensors(entry(shape=[2**62, 8]), b"\0" * 8), "bytes 0 to 8 of 8"),
    "backwards": (files.safetensors(entry(data_offsets=[8, 0]), b"\0" * 8), "bytes 8 to 0"),
    "no entry": (files.safetensors({"a": 3}), "array 'a': found no entry"),
    "twice": (files.safetensors(b'{"a": 1, "a": 2}'), "found a name twice"),
    "deep": (files.safetensors(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}"), "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file_is_one_line_that_names_it(read, case):
    data, message = WRONG_FILES[case]
    with pytest.raises(TfkdError, match=message) as caught:
        read(data)
    assert str(caught.value).startswith("checkpoint '") and "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(TfkdError, match="no such file, wanted a .pth file"):
        torch.read(tmp_path / "nothing.pth")


def test_claimed_sizes_are_not_allocated(read):
    """A member that claims more bytes than the file has is not unpacked first."""
    data = bytearray(files.zipped(WEIGHTS))
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(b"archive/data/1"))
    data[place + 24 : place + 28] = (2**31).to_bytes(4, "little")
    with pytest.raises(TfkdError, match="'archive/data/1' is compressed or larger than the file"):
        read(bytes(data))


def test_storages_that_lie_upon_each_other_do_not_add_up(read):
    with pytest.raises(TfkdError, match="found storages of 36000 bytes in a file of"):
        read(files.overlapping(9, files.counting(1000)))
