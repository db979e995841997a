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
from tfkd.adder import gpu_building, library
from tfkd.errors import TfkdError, TfkdWarning

HOST = pathlib.Path(__file__).parent / "cuda_on_host" / "host.cc"
SHAPES = {
    # batch, height, width, channels; kernel; filters; strides; padding
    "3x3": ((2, 5, 6, 3), (3, 3), 5, (1, 1), (1, 1, 1, 1)),
    "several tiles": ((2, 7, 6, 70), (3, 3), 67, (1, 1), (1, 1, 1, 1)),
    "strided, uneven": ((2, 8, 7, 3), (3, 3), 2, (2, 2), (1, 1, 1, 1)),
    "1x1 strided": ((3, 9, 8, 17), (1, 1), 33, (2, 2), (0, 0, 0, 0)),
    "oblong everything": ((2, 6, 9, 1), (2, 3), 3, (3, 2), (1, 0, 2, 1)),
    "larger than the image": ((1, 3, 2, 2), (5, 7), 2, (1, 1), (2, 2, 3, 3)),
    "an empty batch": ((0, 4, 4, 2), (3, 3), 2, (1, 1), (1, 1, 1, 1)),
}
REGISTERED = """
from tensorflow.python.framework import kernels
from tfkd.adder import library
if library.operations() is None:
    raise SystemExit(print("no op"))
print(library.load_gpu_kernels())
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
    return gpu_building.load(library)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFKD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield gpu_building.build()


def sizes_of(case):
    (batch, height, width, channels), (rows, columns), filters, strides, padding = SHAPES[case]
    top, bottom, left, right = padding
    output = (height + top + bottom - rows) // strides[0] + 1, (
        width + left + right - columns
    ) // strides[1] + 1
    return gpu_building.Geometry(
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
    np.testing.assert_allclose(found_for_x, for_x, atol=2e-5)


@contextlib.contextmanager
def host_memory(*arrays):
    yield [each.ctypes.data for each in arrays]


@pytest.mark.parametrize("case", SHAPES)
def test_the_text_of_the_kernels_equals_the_sum_over_patches(case, on_host):
    check(case, on_host, host_memory)


def test_nan_stays_nan(on_host):
    (x, weights, gradient), wanted, for_x = arrays_of("3x3")
    x[0, 2, 3, 1] = np.nan
    found, found_for_x = (np.zeros(each.shape, np.float32) for each in (wanted, for_x))
    pointers = [each.ctypes.data for each in (x, weights, gradient, found, found_for_x)]
    sizes = ctypes.byref(sizes_of("3x3"))
    on_host.tfkd_adder_cuda_forward(sizes, *pointers[:2], pointers[3], None)
    on_host.tfkd_adder_cuda_input_gradient(sizes, *pointers[:3], pointers[4], None)
    assert np.isnan(found[0, 1:4, 2:5]).all() and np.isnan(found).sum() == 9 * 5
    assert np.isnan(found_for_x[0, 2, 3, 1]) and np.isnan(found_for_x).sum() == 1


def test_the_kernels_know_nothing_of_tensorflow():
    for path in gpu_building.SOURCES.glob("*.cu*"):
        includes = re.findall(r"#include\s+(\S+)", path.read_text())
        assert set(includes) <= {'"../geometry.h"', '"kernels.cuh"'}


@needs_nvcc
def test_nvcc_compiles_them_once(compiled, monkeypatch):
    monkeypatch.setenv("TFKD_CACHE", str(compiled.parent))
    before = compiled.stat().st_mtime_ns
    assert gpu_building.build() == compiled
    assert compiled.stat().st_mtime_ns == before
    gpu_building.load(compiled)


@needs_nvcc
def test_tensorflow_knows_the_gpu_kernels_of_its_ops():
    """Their registration needs no GPU; a process of its own, as it cannot be undone."""
    done = subprocess.run([sys.executable, "-c", REGISTERED], capture_output=True, text=True,
                          check=False)
    if "no op" in done.stdout:
        pytest.skip("the op cannot be compiled here")
    assert done.stdout.split() == ["True", "CPU", "GPU", "CPU", "GPU"], done.stderr


def test_without_a_compiler_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path))
    monkeypatch.setenv("NVCC", "no-such-nvcc")
    with pytest.raises(TfkdError, match="CUDA compiler: found no 'no-such-nvcc', wanted nvcc"):
        gpu_building.build()
    monkeypatch.setenv("NVCC", "false")
    with pytest.raises(TfkdError, match="compiler .*: found exit status 1 .*, wanted compiled GPU kernels"):
        gpu_building.build()
    assert not list(tmp_path.glob("*.so"))
    with pytest.warns(TfkdWarning, match="no GPU kernels, and run on the CPU: compiler"):
        assert not library.load_gpu_kernels()


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
    runtime = ctypes.CDLL(str(next((each for each in (beside, usual) if each.exists()), usual.name)))
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

    check(case, gpu_building.load(compiled), device_memory)
