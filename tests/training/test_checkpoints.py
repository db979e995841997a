"""Checkpoint files: whole or not there, checked, and never a wrong one taken for a right one."""

import os
import re
import resource
import warnings

import keras
import ml_dtypes
import numpy as np
import pytest

from tfkd.errors import TfkdError
from tfkd.training import checkpoints
from tfkd.training.checkpoints import Checkpoints


def arrays(step):
    return {
        "student/0": np.full((3, 4), step, np.float32),
        "seed/0": np.array([step, 2**32 - 1], np.uint32),
        "distiller/0": np.int64(2**40 + step),
    }


@pytest.fixture
def store(tmp_path):
    """Checkpoints of steps 7, 8 and 12, of which the last two are kept."""
    made = Checkpoints(tmp_path / "checkpoints")
    for step in (7, 8, 12):
        made.save(arrays(step), {"epoch": step, "history": [{"loss": 0.1}]}, step)
    return made


def test_the_newest_comes_back_as_it_was(store):
    found, meta = store.load()
    assert meta == {"epoch": 12, "history": [{"loss": 0.1}]}
    assert sorted(found) == sorted(arrays(12))
    for name, value in arrays(12).items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)
    assert [path.stem for path in store.paths()] == ["step_000000000012", "step_000000000008"]


def test_a_full_disk_is_one_line_and_leaves_the_ones_before(store, capfd):
    """A process that may write no more than some bytes to a file, as on a disk with such room."""
    child = os.fork()
    if not child:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            store.save({"student/0": np.ones(100_000)}, {}, 20)
        except TfkdError as error:
            print(error, flush=True)
            status = 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    out, err = capfd.readouterr()
    assert re.fullmatch(r"file '.*/step_0+20.npz': cannot be written \(.*\), wanted .*\n", out)
    assert err == ""
    found, _ = store.load()
    np.testing.assert_array_equal(found["student/0"], arrays(12)["student/0"])
    assert len(list(store.folder.iterdir())) == 2


def test_an_empty_folder_has_none(tmp_path):
    assert Checkpoints(tmp_path / "nowhere").load() is None


def cuts(size):
    return [0, 1, 4, 100, size // 2, size - 30, size - 1]


@pytest.mark.parametrize("position", range(7))
def test_one_that_is_cut_short_is_passed_over(store, position):
    newest = store.paths()[0]
    content = newest.read_bytes()
    newest.write_bytes(content[: cuts(len(content))[position]])
    with pytest.warns(UserWarning, match="step_000000000012.npz is cut short or damaged") as caught:
        _, meta = store.load()
    assert meta["epoch"] == 8
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert "going back to step_000000000008.npz" in str(caught[0].message)


def test_no_flipped_byte_gives_wrong_values(store):
    newest = store.paths()[0]
    content = newest.read_bytes()
    noticed = 0
    for position in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[position] ^= 0x41
        newest.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found, meta = store.load()
        # Some bytes of the archive mean nothing (times, alignment): then the values are right.
        step = 8 if told else 12
        noticed += len(told)
        assert meta["epoch"] == step
        for name, value in arrays(step).items():
            np.testing.assert_array_equal(found[name], value)
    assert noticed > len(content) / 5 / 3


def test_when_all_are_damaged_there_is_none(store):
    for path in store.paths():
        path.write_bytes(b"nothing of the kind")
    with pytest.warns(UserWarning) as caught:
        assert store.load() is None
    assert "going back to step_000000000008.npz" in str(caught[0].message)
    assert "starting afresh" in str(caught[1].message)


def test_a_step_taken_again_replaces_damaged_later_ones(store):
    store.save(arrays(9), {"epoch": 9}, 9)
    assert [path.stem for path in store.paths()] == ["step_000000000009", "step_000000000008"]
    store.save(arrays(1), {"epoch": 1}, 1)
    assert [path.stem for path in store.paths()] == ["step_000000000001"]


def test_an_interrupted_write_leaves_the_ones_before(store, monkeypatch):
    def fails(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(TfkdError, match="step_000000000013.npz': cannot be written .disk full"):
        store.save(arrays(13), {"epoch": 13}, 13)
    monkeypatch.undo()
    assert store.load()[1]["epoch"] == 12
    store.save(arrays(14), {"epoch": 14}, 14)
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "step_000000000012.npz",
        "step_000000000014.npz",
    ]


def variables():
    return {
        "student/0": keras.Variable(np.zeros((3, 4), np.float32)),
        "seed/0": keras.Variable(np.zeros(2, np.uint32), dtype="uint32", trainable=False),
        "distiller/0": keras.Variable(0, dtype="int64", trainable=False),
    }


def test_values_are_written_into_variables(store):
    targets = variables()
    checkpoints.assign(targets, store.load()[0])
    for name, value in arrays(12).items():
        np.testing.assert_array_equal(np.asarray(targets[name]), value)
    assert checkpoints.values(targets).keys() == targets.keys()


def test_half_precision_variables_come_back(tmp_path):
    store = Checkpoints(tmp_path)
    given = {
        "bank/0": keras.Variable([1.5, -3.0], dtype="bfloat16"),
        "bank/1": keras.Variable([2.5], dtype="float16"),
    }
    store.save(checkpoints.values(given), {}, 1)
    targets = {
        "bank/0": keras.Variable([0.0, 0.0], dtype="bfloat16"),
        "bank/1": keras.Variable([0.0], dtype="float16"),
    }
    checkpoints.assign(targets, store.load()[0])
    assert np.asarray(targets["bank/0"]).dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(np.asarray(targets["bank/0"]).astype(float), [1.5, -3.0])
    np.testing.assert_array_equal(np.asarray(targets["bank/1"]), [2.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("seed/0"), r"\['seed/0'\] missing"),
        (lambda found: found.update({"bank/0": np.zeros(1)}), r"found \['bank/0'\] besides"),
        (
            lambda found: found.update({"student/0": np.zeros((4, 3))}),
            r"student/0 has shape \(4, 3\), wanted \(3, 4\)",
        ),
        (
            lambda found: found.update({"student/0": np.zeros((3, 4), "U1")}),
            "student/0 is of type <U1, wanted float32",
        ),
        (
            lambda found: found.update({"student/0": np.full((3, 4), np.nan, np.float32)}),
            "student/0 holds NaN or infinite values, wanted numbers",
        ),
    ],
)
def test_one_of_another_run_is_refused(store, change, message):
    found, _ = store.load()
    change(found)
    with pytest.raises(TfkdError, match=message):
        checkpoints.assign(variables(), found)
