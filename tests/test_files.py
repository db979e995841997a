"""Files and folders appear whole or not at all; locks hold between processes."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tfkd import TfkdError, files


@pytest.fixture
def path(tmp_path):
    """A file with earlier content."""
    made = tmp_path / "result.json"
    made.write_text("earlier")
    return made


@pytest.fixture
def folder(tmp_path):
    """A folder with earlier content, which may be replaced."""
    made = tmp_path / "exported"
    made.mkdir()
    (made / "mine").write_text("earlier")
    return made


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def whole_folder(directory):
    return files.whole_folder(directory, lambda place: (place / "mine").exists(), "one of mine")


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def killed_at(name, call, write):
    """Runs ``write`` in a copy of this process, killed before a call of ``os.NAME``."""
    usual, left = getattr(os, name), [call]

    def kill(*arguments, **keywords):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(*arguments, **keywords)

    child = os.fork()
    if not child:
        try:
            setattr(os, name, kill)
            write()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("fsync", [False, True])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("größer\r\n", "größer\r\n".encode()),
        (b"\0\xff", b"\0\xff"),
        (lambda fresh: fresh.write_bytes(b"called"), b"called"),
    ],
)
def test_content_takes_the_place_of_the_earlier_file(path, content, expected, fsync, alone):
    assert files.write(path, content, fsync=fsync, alone=alone) == path
    assert path.read_bytes() == expected
    assert names(path.parent) == [path.name]


def test_a_file_is_written_under_its_own_name_by_whoever_can_read_it(path):
    def write(fresh):
        assert fresh.name == path.name and fresh.parent.parent == path.parent
        assert path.read_text() == "earlier"
        (fresh.parent / "object.o").write_text("made on the way")
        fresh.write_text("new")

    usual = path.stat().st_mode
    files.write(path, write)
    assert path.stat().st_mode == usual
    assert names(path.parent) == [path.name]


def test_json_is_indented_and_sorted_on_request(path):
    files.write_json(path, {"b": [1], "a": None})
    assert path.read_text() == '{\n  "b": [\n    1\n  ],\n  "a": null\n}\n'
    files.write_json(path, {"b": [1], "a": None}, sort_keys=True)
    assert list(json.loads(path.read_text())) == ["a", "b"]


def test_the_disk_holds_the_content_before_the_file_takes_its_place(path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        usual = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *given, name=name, usual=usual: (order.append(name), usual(*given))
        )
    files.write(path, "new", fsync=True)
    assert order == ["fsync", "replace"]
    files.write(path, "new")
    assert order == ["fsync", "replace", "replace"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_disk_error_is_one_line_and_leaves_the_earlier_file(path, call, monkeypatch):
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(TfkdError) as caught:
        files.write(path, "new", fsync=True)
    assert str(caught.value) == (
        f"file {str(path)!r}: cannot be written (No space left on device), wanted a folder with "
        "write permission and space"
    )
    assert path.read_text() == "earlier"
    assert names(path.parent) == [path.name]


def test_a_writer_that_fails_half_way_leaves_the_earlier_file(path):
    def half(fresh):
        fresh.write_text("ha")
        raise KeyError("half")

    with pytest.raises(KeyError, match="half"):
        files.write(path, half)
    assert path.read_text() == "earlier"
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("first\nsecond"), "first"),
        (OSError(28, "first\nsecond"), "first"),
        (OSError(), "OSError"),
    ],
)
def test_the_reason_of_a_disk_error_is_one_line(path, error, message):
    def fail(_):
        raise error

    with pytest.raises(TfkdError, match=rf"cannot be written \({message}\), wanted a folder"):
        files.write(path, fail)


def test_a_file_needs_its_folder(path):
    with pytest.raises(TfkdError, match=r"cannot be written \(No such file or directory\)"):
        files.write(path.parent / "gone" / "file", "new")
    with pytest.raises(TfkdError, match=r"cannot be written \(Not a directory\)"):
        files.write(path / "file", "new")
    assert names(path.parent) == [path.name]


def test_a_kill_before_the_rename_leaves_the_earlier_file(path):
    killed_at("replace", 1, lambda: files.write(path, "new"))
    assert path.read_text() == "earlier"
    left, mine = names(path.parent)
    assert mine == path.name and left.startswith(files.NEW)
    files.write(path, "newer")
    assert path.read_text() == "newer"


def test_who_writes_alone_writes_over_what_a_kill_left(path):
    for _ in range(2):
        killed_at("replace", 1, lambda: files.write(path, "new", alone=True))
        assert len(names(path.parent)) == 2
    files.write(path.with_name("other"), "newer", alone=True)
    assert names(path.parent) == ["other", path.name]
    assert path.read_text() == "earlier"


def test_several_writers_at_once_leave_one_whole_file(path):
    texts = [letter * 100_000 for letter in "abcd"]
    threads = [threading.Thread(target=files.write, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert names(path.parent) == [path.name]


def test_a_fresh_folder_takes_the_place_of_the_earlier_one(folder):
    with whole_folder(folder) as fresh:
        assert names(folder) == ["mine"]
        (fresh / "new").write_text("new")
    assert names(folder) == ["new"]
    assert names(folder.parent) == [folder.name]


def test_parents_are_made_and_an_empty_folder_is_used(tmp_path):
    empty = tmp_path / "deep" / "exported"
    empty.mkdir(parents=True)
    for place in (empty, tmp_path / "new" / "deep" / "exported"):
        with whole_folder(place) as fresh:
            (fresh / "new").write_text("new")
        assert names(place) == ["new"]
        assert names(place.parent) == [place.name]


@pytest.mark.parametrize("error", [KeyError("half"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_earlier_folder(folder, error):
    with pytest.raises(type(error)), whole_folder(folder) as fresh:
        (fresh / "new").write_text("new")
        raise error
    assert (folder / "mine").read_text() == "earlier"
    assert names(folder.parent) == [folder.name]


def test_a_full_disk_leaves_the_earlier_folder(folder):
    with pytest.raises(TfkdError) as caught, whole_folder(folder) as fresh:
        (fresh / "new").write_text("new")
        full_disk()
    assert str(caught.value) == (
        f"output {str(folder)!r}: cannot be written (No space left on device), wanted a folder "
        "with write permission and space"
    )
    assert names(folder) == ["mine"]
    assert names(folder.parent) == [folder.name]


@pytest.mark.parametrize("call", [1, 2])
def test_a_rename_that_fails_restores_the_earlier_folder(folder, call, monkeypatch):
    usual, calls = Path.rename, []

    def rename(path, target):
        calls.append(path)
        return full_disk() if len(calls) == call else usual(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(TfkdError, match="cannot be written"), whole_folder(folder) as fresh:
        (fresh / "new").write_text("new")
    assert len(calls) == call + (call == 2)
    assert (folder / "mine").read_text() == "earlier"
    assert names(folder.parent) == [folder.name]


def test_a_kill_between_the_renames_loses_neither_folder(folder):
    def write():
        with whole_folder(folder) as fresh:
            (fresh / "new").write_text("new")

    killed_at("rename", 2, write)
    new, old = names(folder.parent)
    assert new.startswith(files.NEW) and old.startswith(files.OLD)
    assert names(folder.parent / new / folder.name) == ["new"]
    assert old.endswith(f"-{folder.name}") and names(folder.parent / old) == ["mine"]


def test_the_next_start_clears_what_a_kill_left(folder):
    def write():
        with whole_folder(folder) as fresh:
            (fresh / "new").write_text("new")

    killed_at("rename", 2, write)
    killed_at("rename", 1, write)  # As it puts the earlier folder back.
    files.clear_leftovers(folder.parent)
    assert names(folder.parent) == [folder.name] and names(folder) == ["mine"]


def test_what_another_process_is_writing_is_not_cleared(path):
    def write(fresh):
        fresh.write_text("new")
        (path.parent / f"{files.NEW}{'0' * 32}").mkdir()
        files.clear_leftovers(path.parent)
        assert names(path.parent) == [fresh.parent.name, path.name]

    files.write(path, write)
    assert path.read_text() == "new"
    files.clear_leftovers(path.parent / "gone")


def test_links_out_of_a_folder_are_refused(tmp_path):
    (tmp_path / "checkpoints").symlink_to("/elsewhere")
    with pytest.raises(TfkdError, match="found a link to '/elsewhere', which would be written to"):
        files.refuse_links(tmp_path, ["tensorboard", "checkpoints"])
    (tmp_path / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(OSError), files.locked(tmp_path / ".lock"):
        pass
    assert not (tmp_path / "made").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("kept")
    with pytest.raises(TfkdError) as caught, whole_folder(other):
        pass
    assert str(caught.value) == (
        f"output {str(other)!r}: found a folder with other files, wanted a new folder, an empty "
        "one or one of mine"
    )
    assert names(other) == ["notes.txt"]


def test_a_file_is_left_alone(path):
    with pytest.raises(TfkdError, match="found a file, wanted a new folder"), whole_folder(path):
        pass
    with pytest.raises(TfkdError, match="cannot be written"), whole_folder(path / "exported"):
        pass
    assert path.read_text() == "earlier"


HOLDING = """
import sys
from tfkd import files
with files.locked(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Starts another process that holds the lock on a path until its input ends."""
    started = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDING, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(files.__file__).parents[1],
        )
        started.append(process)
        assert process.stdout.readline() == "locked\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("place", ["", "deep/.lock"])
@pytest.mark.parametrize("end", ["done", "killed"])
def test_a_second_process_waits_for_the_first(tmp_path, holder, place, end, capsys):
    path = tmp_path / place
    first = holder(path)
    held = threading.Event()

    def second():
        with files.locked(path, "waiting for the other"):
            held.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not held.wait(0.3)
    if end == "done":
        first.communicate()
    else:
        first.kill()
    assert held.wait(20)
    thread.join()
    assert capsys.readouterr().out == "waiting for the other\n"


def test_a_lock_that_is_free_is_held_without_a_word(tmp_path, capsys):
    for _ in range(2):
        with files.locked(tmp_path / "new" / ".lock", "waiting for the other"):
            assert names(tmp_path / "new") == [".lock"]
    assert capsys.readouterr().out == ""


def test_a_lock_is_free_again_after_a_failure(tmp_path):
    with pytest.raises(KeyError), files.locked(tmp_path):
        raise KeyError
    with files.locked(tmp_path):
        pass


def test_a_lock_file_removed_by_its_holder_is_made_anew(tmp_path):
    path = tmp_path / "run" / ".lock"
    held, release = [threading.Event(), threading.Event()], threading.Event()

    def hold(number):
        with files.locked(path):
            held[number].set()
            release.wait(20)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(2)]
    with files.locked(path):
        threads[0].start()
        assert not held[0].wait(0.3)
        path.unlink()
        path.parent.rmdir()
    assert held[0].wait(20)
    threads[1].start()
    assert not held[1].wait(0.3)
    release.set()
    for thread in threads:
        thread.join(20)
    assert held[1].is_set()


def test_a_lock_below_a_file_cannot_be_made(path):
    with pytest.raises(OSError), files.locked(path / ".lock"):
        pass
    assert path.read_text() == "earlier"
