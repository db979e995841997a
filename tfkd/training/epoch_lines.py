"""What a run says where no terminal can show a progress bar: one line an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras


class EpochLines(keras.callbacks.Callback):
    """Says an epoch's time and numbers in one line, those that a progress bar shows.

    Args:
        say: Prints a line.
    """

    def __init__(self, say: Callable[..., None]) -> None:
        super().__init__()
        self._say = say
        self._begin = 0.0

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None) -> None:
        in_bar = self.model.task.in_bar
        numbers = ", ".join(
            f"{name} {float(value):.4g}"
            for name, value in (logs or {}).items()
            if not in_bar or name.removeprefix("val_") in in_bar
        )
        seconds = time.perf_counter() - self._begin
        self._say(
            f"epoch {epoch + 1}/{self.params['epochs']}, {seconds:.1f} s: {numbers}", flush=True
        )
