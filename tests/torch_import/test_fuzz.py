"""Damaged files of every format: an error of tfkd's, or weights, and nothing else."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from tests.torch_import import files
from tfkd import torch
from tfkd.errors import TfkdError

WEIGHTS = {"model": {"conv1.weight": files.counting(2, 3, 1, 1), "fc.bias": files.counting(3)}}
VALID = {
    "zip": files.zipped(WEIGHTS),
    "legacy": files.legacy(WEIGHTS),
    "safetensors": files.safetensors_of(WEIGHTS["model"]),
    "npz": files.npz(WEIGHTS["model"]),
    "compressed npz": files.npz(WEIGHTS["model"], compressed=True),
}
FUZZ = hypothesis.settings(max_examples=100, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "weights"


def check(path, data):
    """Reads bytes; whatever comes out is weights that are really there."""
    path.write_bytes(data)
    try:
        found = torch.read(path)
    except TfkdError as error:
        assert "\n" not in str(error)
        return
    for name, array in found.items():
        assert isinstance(name, str)
        assert np.array(array).nbytes <= max(len(data), 64)


@pytest.mark.parametrize("form", VALID)
@FUZZ
@hypothesis.given(data=strategies.data())
def test_a_cut_off_file(form, data, path):
    whole = VALID[form]
    end = data.draw(strategies.integers(0, len(whole) - 1))
    check(path, whole[:end])


@pytest.mark.parametrize("form", VALID)
@FUZZ
@hypothesis.given(data=strategies.data())
def test_a_file_with_changed_bytes(form, data, path):
    changed = bytearray(VALID[form])
    spots = strategies.tuples(strategies.integers(0, len(changed) - 1), strategies.integers(0, 255))
    for spot, value in data.draw(strategies.lists(spots, min_size=1, max_size=8)):
        changed[spot] = value
    check(path, bytes(changed))


INSTRUCTIONS = [
    b"(", b"}", b"]", b")", b"t", b"\x85", b"\x86", b"\x87", b"u", b"s", b"e", b"a", b"R", b"b",
    b"Q", b"\x81", b"N", b"\x88", b"K\x02", b"q\x01", b"h\x01", b"\x94", b"\x93", b"0", b"2", b"o",
    files.text("storage"), files.text("0"), files.text("latin1"), files.text("f8"),
    files.named("torch", "FloatStorage"), files.named("torch._utils", "_rebuild_tensor_v2"),
    files.named("torch._utils", "_rebuild_parameter"), files.named("collections", "OrderedDict"),
    files.named("_codecs", "encode"), files.named("numpy", "dtype"), files.named("torch", "Size"),
    files.named("numpy.core.multiarray", "scalar"), files.named("argparse", "Namespace"),
]  # fmt: skip


@FUZZ
@hypothesis.given(code=strategies.lists(strategies.sampled_from(INSTRUCTIONS), max_size=30))
def test_any_pickle_of_known_instructions(code, path):
    value = {"model": WEIGHTS["model"], "extra": files.Raw(b"".join(code))}
    check(path, files.legacy(value))
