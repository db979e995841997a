"""Compiling the adder op: once for each source, by one process, and without harm where it fails."""

import ctypes
import hashlib
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import threading
import tomllib
import warnings

import pytest

from tfkd import files
from tfkd.adder import building, compiled_ops
from tfkd.errors import TfkdError, TfkdWarning

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = 'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }\n'

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and for sources a file that needs no TensorFlow."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "op.cc").write_text(SOURCE)
    monkeypatch.setattr(building, "SOURCES", source)
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "cache" / "compiled"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A slow compiler that keeps a list of its calls; its path is changed by the test at will."""
    program, calls = tmp_path / "compiler", tmp_path / "calls"
    calls.touch()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\nsleep 0.1\n'
        'while [ "$1" != "-o" ]; do shift; done\necho compiled > "$2"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(program))
    return calls


@needs_compiler
def test_the_library_holds_what_the_source_says(cache):
    path = building.build()
    assert path.parent == cache
    assert ctypes.CDLL(str(path)).answer() == 42


def test_an_existing_library_is_not_compiled_again(compiler, monkeypatch):
    first = building.build()
    calls = compiler.read_text()
    assert len(calls.splitlines()) == 2  # One source and the linking.
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert building.build() == first
    assert compiler.read_text() == calls


@pytest.mark.parametrize("damage", ["cut", "other bytes", "no digest", "killed while it was made"])
def test_a_library_that_is_not_as_it_was_compiled_is_compiled_again(damage, compiler, cache):
    path = building.build()
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:4])
    elif damage == "other bytes":
        path.write_bytes(content[::-1])
    elif damage == "no digest":
        path.with_name(f"{path.name}.sha256").unlink()
    else:
        path.unlink()
        (cache / f"{files.NEW}{0:032x}").mkdir()
    assert building.build() == path
    assert path.read_bytes() == content
    assert len(compiler.read_text().splitlines()) == 4
    assert not list(cache.glob(f"{files.NEW}*"))


@pytest.mark.parametrize("place", ["folder", "library"])
def test_what_others_can_write_is_not_run(place, compiler, cache):
    path = building.build()
    changed = cache if place == "folder" else path
    changed.chmod(0o775)
    with pytest.raises(TfkdError, match=r"whose content is run: found one that others can write"):
        building.build()
    changed.chmod(0o755)
    if os.geteuid():
        pytest.skip("only root can give a file to another user")
    os.chown(changed, 12345, -1)
    with pytest.raises(TfkdError, match=r"found one of user 12345, wanted one that only you can"):
        building.build()


def test_a_link_in_the_place_of_the_cache_is_not_followed(compiler, cache, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    cache.parent.mkdir()
    cache.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TfkdError, match="found a link, wanted one that only you can write"):
        building.build()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("change", ["source", "header", "new file", "flags", "tensorflow"])
def test_another_source_makes_another_library(change, compiler, monkeypatch):
    (building.SOURCES / "sizes.h").write_text("// sizes\n")
    first = building.build()
    if change == "source":
        (building.SOURCES / "op.cc").write_text(SOURCE.replace("42", "43"))
    elif change == "header":
        (building.SOURCES / "sizes.h").write_text("// other sizes\n")
    elif change == "new file":
        (building.SOURCES / "more.cc").write_text("\n")
    elif change == "flags":
        monkeypatch.setattr(building, "_FLAGS", ("-O1",))
    else:
        monkeypatch.setattr(building.tf, "__version__", "9.9")
    second = building.build()
    assert second != first
    assert first.exists() and second.exists()


def test_the_name_tells_tensorflow_and_processor():
    assert building.name().startswith(f"adder-tf{building.tf.__version__}-")
    assert building.platform.machine().lower() in building.name()


def test_several_threads_compile_once(compiler):
    found = []
    threads = [threading.Thread(target=lambda: found.append(building.build())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 4
    assert len(compiler.read_text().splitlines()) == 2


def test_two_processes_compile_once(compiler, cache):
    """The second process has no TensorFlow: it stands in line by the lock file alone."""
    lock = cache / f"{building.name()}.lock"
    lock.parent.mkdir(parents=True)
    holding = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'a')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\nsys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holding, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "locked\n"
    found = []
    thread = threading.Thread(target=lambda: found.append(building.build()))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive() and not compiler.read_text()
    # The other process finishes the library while this one waits.
    library_path = lock.with_suffix("")
    content = b"compiled by another\n"
    library_path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    library_path.with_name(f"{library_path.name}.sha256").write_text(digest)
    other.communicate()
    thread.join()
    assert found == [library_path]
    assert not compiler.read_text()


@needs_compiler
def test_a_failure_tells_the_complaint_of_the_compiler_and_leaves_nothing(cache):
    (building.SOURCES / "op.cc").write_text("int answer() { return undeclared; }\n")
    with pytest.raises(TfkdError, match=r"exit status 1 .*'undeclared' was not declared"):
        building.build()
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_an_unwritable_folder_is_named(tmp_path, monkeypatch, compiler):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(TfkdError, match="cache/compiled'.*cannot be written.*TFKD_CACHE"):
        building.build()


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    assert files.cache() == tmp_path / "cache"
    monkeypatch.delenv("TFKD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert files.cache() == tmp_path / "user" / "tfkd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache() == tmp_path / ".cache" / "tfkd"


def test_without_a_compiler_one_warning_and_no_ops(monkeypatch):
    monkeypatch.setattr(compiled_ops, "_loaded", [])
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(TfkdWarning, match="found no 'no-such-compiler'") as found:
        assert compiled_ops.operations() is None
    assert len(found) == 1
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled_ops.operations() is None
        assert compiled_ops.instructions() is None
    with pytest.raises(TfkdError, match="no compiled adder op"):
        compiled_ops.use_instructions("portable")


def test_a_library_that_does_not_load_is_warned_of(monkeypatch, compiler):
    monkeypatch.setattr(compiled_ops, "_loaded", [])
    with pytest.warns(TfkdWarning, match="cannot be used"):
        assert compiled_ops.operations() is None


def test_the_ops_can_be_switched_off(monkeypatch, compiler):
    monkeypatch.setattr(compiled_ops, "_loaded", [])
    monkeypatch.setenv("TFKD_ADDER_OP", "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled_ops.operations() is None
    assert not compiler.read_text()
    monkeypatch.setenv("TFKD_ADDER_OP", "maybe")
    with pytest.raises(TfkdError, match="TFKD_ADDER_OP: found 'maybe', wanted 'on' or 'off'"):
        compiled_ops.operations()


def test_every_source_is_installed():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]["package-data"]["tfkd.adder"]
    folder = ROOT / "tfkd" / "adder"
    installed = {path for pattern in patterns for path in folder.glob(pattern)}
    assert {path for path in (folder / "native").rglob("*") if path.is_file()} == installed


def test_make_op_compiles_ahead_of_time():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    lines = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "op"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "building.build()" in lines[-1]
