"""The GPU kernels: their text run on a processor, compiled by nvcc, and on a GPU where one is."""

import contextlib
import ctypes
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.adder.adder_oracles import reference
from tfkd.adder import compiled_ops, gpu_kernels
from tfkd.errors import TfkdError, TfkdWarning

TILES = 4
HOST = pathlib.Path(__file__).parent / "cuda_on_host" / "host.cc"
SHAPES = {
    # batch, height, width, channels; kernel; filters; strides; padding
    "3x3": ((2, 5, 6, 3), (3, 3), 5, (1, 1), (1, 1, 1, 1)),
    "several tiles": ((2, 7, 6, 70), (3, 3), 67, (1, 1), (1, 1, 1, 1)),
    "quads": ((2, 5, 6, 8), (3, 3), 12, (1, 1), (1, 1, 1, 1)),
    "quads, several tiles": ((3, 7, 7, 68), (3, 3), 72, (1, 1), (1, 1, 1, 1)),
    "quads, strided": ((2, 9, 8, 20), (3, 3), 16, (2, 2), (1, 0, 1, 2)),
    "quads, 1x1 strided": ((3, 9, 8, 16), (1, 1), 36, (3, 2), (0, 0, 0, 0)),
    "strided, uneven": ((2, 8, 7, 3), (3, 3), 2, (2, 2), (1, 1, 1, 1)),
    "1x1 strided": ((3, 9, 8, 17), (1, 1), 33, (2, 2), (0, 0, 0, 0)),
    "oblong everything": ((2, 6, 9, 1), (2, 3), 3, (3, 2), (1, 0, 2, 1)),
    "larger than the image": ((1, 3, 2, 2), (5, 7), 2, (1, 1), (2, 2, 3, 3)),
    "no channels": ((2, 4, 4, 0), (3, 3), 5, (1, 1), (1, 1, 1, 1)),
    "no filters": ((2, 4, 4, 3), (3, 3), 0, (1, 1), (1, 1, 1, 1)),
    "an empty batch": ((0, 4, 4, 2), (3, 3), 2, (1, 1), (1, 1, 1, 1)),
}
REGISTERED = """
from tensorflow.python.framework import kernels
from tfkd.adder import compiled_ops
if compiled_ops.operations() is None:
    raise SystemExit(print("no op"))
print(compiled_ops.load_gpu_kernels())
for op in ("TfkdAdderConv2D", "TfkdAdderConv2DInputGrad"):
    print(*sorted(each.device_type for each in kernels.get_registered_kernels_for_op(op).kernel))
"""
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")


@pytest.fixture(scope="module")
def on_host(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    library = tmp_path_factory.mktemp("host") / "host.so"
    command = ["g++", "-std=c++20", "-O1", "-fPIC", "-shared", "-pthread", str(HOST), "-o"]
    subprocess.run([*command, str(library)], check=True)
    return gpu_kernels.load(library)


@pytest.fixture(scope="module")
def compiled():
    return gpu_kernels.build()


def sizes_of(case):
    (batch, height, width, channels), (rows, columns), filters, strides, padding = SHAPES[case]
    top, bottom, left, right = padding
    output = (
        (height + top + bottom - rows) // strides[0] + 1,
        (width + left + right - columns) // strides[1] + 1,
    )
    return gpu_kernels.Geometry(
        batch, height, width, channels, rows, columns, filters, *strides, top, left, *output
    )


def arrays_of(case):
    """Input, filter and gradient, and the wanted output and input gradient."""
    shape, kernel, filters, *settings = SHAPES[case]
    sizes, random = sizes_of(case), np.random.default_rng(len(case))
    x = random.normal(size=shape).astype(np.float32)
    weights = random.normal(size=(*kernel, shape[-1], filters)).astype(np.float32)
    outputs = (shape[0], sizes.output_height, sizes.output_width, filters)
    gradient = random.normal(size=outputs).astype(np.float32)
    wanted, for_x, _ = reference(x, weights, lambda shape: gradient, *settings)
    return (x, weights, gradient), wanted, for_x


def check(case, library, memory):
    """Runs both kernels; `memory` makes device memory of arrays, and arrays of it again."""
    (x, weights, gradient), wanted, for_x = arrays_of(case)
    sizes = ctypes.byref(sizes_of(case))
    # What nobody writes shows.
    found, found_for_x = (np.full(each.shape, np.nan, np.float32) for each in (wanted, for_x))
    with memory(x, weights, gradient, found, found_for_x) as pointers:
        given, filters, upstream, output, for_input = pointers
        assert library.tfkd_adder_cuda_forward(sizes, given, filters, output, None) == 0
        status = library.tfkd_adder_cuda_input_gradient(
            sizes, given, filters, upstream, for_input, None
        )
        assert status == 0
    np.testing.assert_allclose(found, wanted, rtol=2e-6)
    # A term is half a gradient plus or minus so much: what is rounded is of the size of their sum.
    kernel, filters = SHAPES[case][1:3]
    of_a_pixel = np.abs(gradient).mean() * kernel[0] * kernel[1] * filters if gradient.size else 0
    bound = np.finfo(np.float32).eps * of_a_pixel
    np.testing.assert_allclose(found_for_x, for_x, rtol=1e-6, atol=bound)


@contextlib.contextmanager
def host_memory(*arrays):
    yield [each.ctypes.data for each in arrays]


def tiles_of(case):
    """The tiles for a layer; where numbers do not come in quads, there is only one."""
    (*_, channels), _, filters, *_ = SHAPES[case]
    return range(TILES) if channels % 4 == filters % 4 == 0 else [0]


@pytest.mark.parametrize(
    ("case", "tile"), [(case, tile) for case in SHAPES for tile in tiles_of(case)]
)
def test_the_text_of_the_kernels_equals_the_sum_over_patches(case, tile, on_host):
    assert on_host.choose(tile) == TILES
    check(case, on_host, host_memory)


def results_with(case, library, change):
    """Outputs and input gradients of what `change` made of inputs and filters."""
    (x, weights, gradient), wanted, for_x = arrays_of(case)
    change(x, weights)
    found, found_for_x = (np.zeros(each.shape, np.float32) for each in (wanted, for_x))
    pointers = [each.ctypes.data for each in (x, weights, gradient, found, found_for_x)]
    sizes = ctypes.byref(sizes_of(case))
    library.tfkd_adder_cuda_forward(sizes, *pointers[:2], pointers[3], None)
    library.tfkd_adder_cuda_input_gradient(sizes, *pointers[:3], pointers[4], None)
    return found, found_for_x


@pytest.mark.parametrize("case", ["3x3", "quads"])
def test_nan_in_an_input_stays_nan(case, on_host):
    def change(x, weights):
        x[0, 2, 3, 1] = np.nan

    found, found_for_x = results_with(case, on_host, change)
    assert np.isnan(found[0, 1:4, 2:5]).all() and np.isnan(found).sum() == 9 * found.shape[-1]
    assert np.isnan(found_for_x[0, 2, 3, 1]) and np.isnan(found_for_x).sum() == 1


@pytest.mark.parametrize("case", ["3x3", "quads"])
def test_nan_in_a_filter_stays_nan(case, on_host):
    def change(x, weights):
        weights[1, 1, 2, 0] = np.nan

    found, found_for_x = results_with(case, on_host, change)
    assert np.isnan(found[..., 0]).all() and not np.isnan(found[..., 1:]).any()
    assert np.isnan(found_for_x[..., 2]).all()
    assert not np.isnan(np.delete(found_for_x, 2, axis=-1)).any()


def test_the_gradient_is_clipped_at_both_ends(on_host):
    """Differences of exactly -1, 0 and 1, far beyond and infinite: one filter, one tap."""
    differences = np.float32([-np.inf, -300, -1, -0.5, 0, 0.25, 1, 4000, np.inf])
    sizes = gpu_kernels.Geometry(
        1, 1, len(differences), 1, 1, 1, 1, 1, 1, 0, 0, 1, len(differences)
    )
    x, weights, found = 2 - differences, np.float32([2]), np.zeros_like(differences)
    gradient = np.full_like(differences, 3)
    pointers = [each.ctypes.data for each in (x, weights, gradient, found)]
    on_host.tfkd_adder_cuda_input_gradient(ctypes.byref(sizes), *pointers, None)
    np.testing.assert_array_equal(found, 3 * np.clip(differences, -1, 1))


def test_the_kernels_know_nothing_of_tensorflow():
    for path in gpu_kernels.SOURCES.glob("*.cu*"):
        includes = re.findall(r"#include\s+(\S+)", path.read_text())
        own = {f'"{each.name}"' for each in gpu_kernels.SOURCES.glob("*.cuh")}
        assert (
            set(includes) <= {'"../geometry.h"', "<algorithm>", "<cstdint>", "<type_traits>"} | own
        )


@needs_nvcc
def test_nvcc_compiles_the_kernels_once(compiled):
    before = compiled.stat().st_mtime_ns
    assert gpu_kernels.build() == compiled
    assert compiled.stat().st_mtime_ns == before
    gpu_kernels.load(compiled)


@needs_nvcc
def test_tensorflow_knows_the_gpu_kernels_of_its_ops():
    """Their registration needs no GPU; a process of its own, as it cannot be undone."""
    done = subprocess.run(
        [sys.executable, "-c", REGISTERED], capture_output=True, text=True, check=False
    )
    if "no op" in done.stdout:
        pytest.skip("the op cannot be compiled here")
    assert done.stdout.split() == ["True", "CPU", "GPU", "CPU", "GPU"], done.stderr


def test_a_missing_cuda_compiler_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path))
    monkeypatch.setenv("NVCC", "no-such-nvcc")
    with pytest.raises(TfkdError, match="CUDA compiler: found no 'no-such-nvcc', wanted nvcc"):
        gpu_kernels.build()
    monkeypatch.setenv("NVCC", "false")
    with pytest.raises(
        TfkdError, match="compiler .*: found exit status 1 .*, wanted compiled GPU kernels"
    ):
        gpu_kernels.build()
    assert not list(tmp_path.glob("*.so"))
    with pytest.warns(TfkdWarning, match="no GPU kernels, and run on the CPU: compiler"):
        assert not compiled_ops.load_gpu_kernels()


@pytest.fixture
def runtime():
    """The CUDA runtime, where there is a GPU."""
    if shutil.which("nvcc") is None:
        pytest.skip("there is no nvcc")
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        pytest.skip(f"there is no GPU: {error}")
    beside = pathlib.Path(shutil.which("nvcc")).resolve().parents[1] / "lib64" / "libcudart.so"
    usual = pathlib.Path("/usr/local/cuda/lib64/libcudart.so")
    runtime = ctypes.CDLL(
        str(next((each for each in (beside, usual) if each.exists()), usual.name))
    )
    count = ctypes.c_int(0)
    if driver.cuInit(0) or runtime.cudaGetDeviceCount(ctypes.byref(count)) or not count.value:
        pytest.skip("there is no GPU")
    return runtime


@pytest.mark.parametrize("case", SHAPES)
def test_a_gpu_equals_the_sum_over_patches(case, runtime, compiled):
    @contextlib.contextmanager
    def device_memory(*arrays):
        pointers = [ctypes.c_void_p() for _ in arrays]
        for pointer, array in zip(pointers, arrays):
            assert runtime.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(array.nbytes)) == 0
            size = ctypes.c_size_t(array.nbytes)
            assert runtime.cudaMemcpy(pointer, ctypes.c_void_p(array.ctypes.data), size, 1) == 0
        yield pointers
        for pointer, array in zip(pointers, arrays):
            size = ctypes.c_size_t(array.nbytes)
            assert runtime.cudaMemcpy(ctypes.c_void_p(array.ctypes.data), pointer, size, 2) == 0
            runtime.cudaFree(pointer)

    check(case, gpu_kernels.load(compiled), device_memory)
