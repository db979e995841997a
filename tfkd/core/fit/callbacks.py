"""What the distiller itself does during ``fit``: tells the epoch, stops, draws the bar."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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


class ShortProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar without some numbers, which history and other callbacks get all the same.

    Args:
        hidden: Their names, without ``val_``.
    """

    async_safe = True  # As Keras takes its own to be.

    def __init__(self, hidden: Collection[str]) -> None:
        super().__init__()
        self._hidden = frozenset(hidden)

    def on_train_batch_end(self, batch, logs=None) -> None:
        super().on_train_batch_end(batch, self._shown(logs))

    def on_test_batch_end(self, batch, logs=None) -> None:
        super().on_test_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch, logs=None) -> None:
        super().on_epoch_end(epoch, self._shown(logs))

    def on_test_end(self, logs=None) -> None:
        super().on_test_end(self._shown(logs))

    def _shown(self, logs: Mapping | None) -> dict:
        return {
            name: value
            for name, value in (logs or {}).items()
            if name.removeprefix("val_") not in self._hidden
        }
