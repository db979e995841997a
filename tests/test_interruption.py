"""Signals raise at once, wait where there is something to save, and leave at the second time."""

import os
import signal

import pytest

from tfkd import interruption


def in_child(act):
    """Runs a function in a copy of this process and returns its exit status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            interruption.heed()
            act()
            status = 0
        except interruption.Interrupted as stop:
            status = stop.status
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_raises_at_once_where_nothing_is_lost(number, status):
    assert in_child(lambda: os.kill(os.getpid(), number)) == status


def test_a_signal_waits_while_it_is_deferred_and_a_second_one_does_not(capfd):
    def act():
        interruption.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.asked() == signal.SIGTERM
        print("waits", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        print("too late", flush=True)

    assert in_child(act) == 130
    out, err = capfd.readouterr()
    assert out == "waits\n" and err.endswith(": left at once, after a second signal\n")


def test_what_the_caller_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert in_child(lambda: os.kill(os.getpid(), signal.SIGINT)) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_line_names_the_innermost_run():
    stop = interruption.Interrupted(signal.SIGINT)
    assert str(stop) == "interrupted by SIGINT; the same command starts again"
    stop.continues("runs/teacher", 1234)
    stop.continues("runs/student", 0)
    assert str(stop) == (
        "interrupted by SIGINT; the same command continues runs/teacher after step 1,234"
    )


def test_a_library_sets_no_handlers():
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    interruption.renew()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
