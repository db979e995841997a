"""A signal that asks a program to end: it saves what it has, and leaves with the usual status.

The binaries heed SIGINT and SIGTERM from their start on; whoever uses tfkd as a library is left
alone. Wherever nothing would be lost, :class:`Interrupted` is raised at once. While there are steps
that no checkpoint holds yet, the signal is only noted, and the run looks at :func:`asked` between
two steps, saves, and raises. A second signal ends the process without waiting for anything.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The end that a signal asked for; no handler of errors is to catch it.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self._continues: str | None = None

    @property
    def status(self) -> int:
        """The exit status: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.number

    def continues(self, folder: os.PathLike | str, step: int) -> None:
        """Notes where the same command goes on; the innermost run of several is the one that does.

        Args:
            folder: The run folder.
            step: The step of its newest checkpoint; 0 where there is none.
        """
        if self._continues is None:
            where = f"after step {step:,}" if step else "from its beginning"
            self._continues = f"continues {folder} {where}"

    def __str__(self) -> str:
        word = "interrupted" if self.number == signal.SIGINT else "stopped"
        name = signal.Signals(self.number).name
        return f"{word} by {name}; the same command {self._continues or 'starts again'}"


class _State:
    """What the process was asked, and whether it waits for a moment to save."""

    heeds = False
    asked = 0
    deferred = False


def heed() -> None:
    """Heeds the signals from now on; those that the caller has set to be ignored stay so.

    Only the main thread can; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _State.heeds = True
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def renew() -> None:
    """Heeds the signals again, where they are heeded.

    TensorFlow's service of several workers takes SIGTERM for itself when it starts, without a word
    to Python.
    """
    if _State.heeds:
        heed()


def asked() -> int:
    """Returns the number of the signal that came and waits; 0 for none."""
    return _State.asked


def defer(deferred: bool = True) -> None:
    """Sets whether a signal waits until somebody looks at :func:`asked`."""
    _State.deferred = deferred


def _handle(number: int, frame: FrameType | None) -> None:
    del frame
    if _State.asked:
        program = os.path.basename(sys.argv[0])
        # Neither buffers nor locks, which the interrupted code may hold.
        os.write(2, f"{program}: left at once, after a second signal\n".encode())
        os._exit(128 + number)
    _State.asked = number
    if not _State.deferred:
        raise Interrupted(number)
