"""What the distiller itself needs to do during ``fit``: tell the epoch, and stop where it must."""

from __future__ import annotations

import keras

CHECK_EVERY = 50
"""Steps between two looks at the watch; the graph itself stops updating at once."""


class EpochClock(keras.callbacks.Callback):
    """Writes the epoch into the distiller's variable, and looks whether teachers have changed."""

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.model.set_epoch(epoch)
        self.model.check_teachers()


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises :class:`NonFiniteLoss` soon after the first bad step."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._next = 0

    def on_train_batch_end(self, batch, logs=None) -> None:
        # Reading a variable waits for the device, so it is not done at every step.
        if batch >= self._next:
            self._next = batch + CHECK_EVERY
            self.model.watch.check()

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.model.watch.check()
