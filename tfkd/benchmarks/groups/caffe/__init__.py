"""A file of Caffe's as large as VGG-16's (528 MB), imported: seconds and memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras

from tfkd import caffe
from tfkd.benchmarks import memory
from tfkd.benchmarks.groups.caffe import files
from tfkd.benchmarks.measure import Case, Comparison, Experiment

_MEAN = (103.939, 116.779, 123.68)
_SECONDS, _PEAK = 20, 3
_WITHOUT, _WITH = "import without saving", "import with saving"


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields the import of a VGG-16 with random weights, which is written first.

    It reads, checks and builds; once more it also saves the network folder. Below 20 seconds and a
    peak below three times the file are wanted. The peak is what the process holds at most above
    what it held before, in a process of its own. For comparison plain Keras loads what was saved.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(path) for path in files.write(Path(folder), tiny)]
        size = Path(paths[1]).stat().st_size
        cases = {_WITHOUT: "", _WITH: f"{folder}/memory"}
        peaks = dict.fromkeys(cases, float("nan"))
        if memory.is_told():
            arguments = [(*paths, output) for output in cases.values()]
            found = memory.in_processes(peak_of_import, arguments)
            peaks = {name: each / size for name, each in zip(cases, found)}
        output = f"{folder}/network"
        yield Experiment(
            f"VGG-16 of {size / 2**20:,.0f} MiB",
            "import",
            [
                Case(_WITHOUT, lambda: _load(*paths)),
                Case(_WITH, lambda: _save(*paths, output)),
                Case("keras.models.load_model", lambda: _keras(f"{output}/student.keras")),
            ],
            [
                Comparison(
                    name,
                    (),
                    facts={
                        "wanted": f"below {_SECONDS} s",
                        "peak / file": peaks[name],
                        "peak wanted": f"below {_PEAK}",
                    },
                )
                for name in cases
            ],
        )


def peak_of_import(prototxt: str, caffemodel: str, output: str) -> int:
    """Returns the most bytes that an import holds above what the process held before.

    Args:
        prototxt: The definition.
        caffemodel: The weights.
        output: The folder to write; ``""`` for none.
    """
    keras.layers.Dense(1)(keras.Input((1,)))  # What TensorFlow makes once is made.
    kept = []

    def work() -> tuple:
        kept.append(_save(prototxt, caffemodel, output) if output else _load(prototxt, caffemodel))
        return ()

    return memory.peak(work)


def _load(prototxt: str, caffemodel: str) -> caffe.Imported:
    return caffe.load(prototxt, caffemodel, mean=_MEAN)


def _save(prototxt: str, caffemodel: str, output: str) -> caffe.Imported:
    return caffe.import_network(prototxt, caffemodel, output, mean=_MEAN)


def _keras(path: str) -> None:
    # It is dropped at once; two of them would not fit into the memory of small machines.
    keras.models.load_model(path, compile=False)
