"""A model together with the way pixels reach it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import keras

from tfkd.data import CROPS
from tfkd.errors import TfkdError, unknown
from tfkd.models.graph.taps import LOGITS, find_tap, tap_names
from tfkd.models.preprocess import Preprocess


@dataclass(frozen=True)
class Network:
    """A Keras model and its preprocessing, so that networks trained on different pixels can meet.

    Attributes:
        model: Any Keras model from images to logits.
        preprocess: What is done to pixels 0..255 before the model sees them.
        name: What the network is called in tables; the model's name if None.
        taps: Further names for taps of the model, such as `{"pooled": "avg_pool"}`, so that methods
            find the features they know by name in a network that calls them otherwise.
        task: What its outputs mean, as `tfkd.tasks.find` takes it.
        class_names: The names of its classes, in the order of the logits; None where they are not
            known: they are then those of the data, and of other networks, by their numbers.
        crop: How images of other sizes become its input in an evaluation, as ``DataInfo.crop``;
            None where that is not known.

    Raises:
        TfkdError: If `model` is not a Keras model, or has no tap that `taps` names.
    """

    model: keras.Model
    preprocess: Preprocess = Preprocess.none()
    name: str | None = None
    taps: Mapping[str, str] = field(default_factory=dict, hash=False)
    task: str = "classification"
    class_names: tuple[str, ...] | None = None
    crop: str | None = None

    def __post_init__(self):
        if not isinstance(self.model, keras.Model):
            raise TfkdError(f"network: found {type(self.model).__name__}; wanted a keras.Model")
        if self.name is None:
            object.__setattr__(self, "name", self.model.name)
        object.__setattr__(self, "taps", dict(self.taps))
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        if self.crop not in (None, *CROPS):
            raise unknown(f"crop of network {self.name!r}", self.crop, CROPS)
        for name, path in self.taps.items():
            if not isinstance(name, str):
                raise TfkdError(f"taps of network {self.name!r}: found {name!r}, wanted a name")
            if name == LOGITS:
                raise TfkdError(
                    f"taps of network {self.name!r}: found a tap for {LOGITS!r}, which is always "
                    "the output; wanted other names"
                )
            find_tap(self.model, path)

    def __call__(self, pixels, training: bool | None = None):
        """The model's outputs for pixels (batch, height, width, channels) 0..255 of any dtype."""
        return self.model(self.preprocess(pixels), training=training)

    def paths(self, names: Iterable[str]) -> dict[str, str]:
        """The tap of the model that each name stands for, as `tapped` and `tap_shapes` take it."""
        return {name: self.taps.get(name, name) for name in names}

    def with_model(self, model: keras.Model) -> Network:
        """The same network over another form of its model: folded, merged or copied.

        Names of taps that this form no longer has are dropped.
        """
        known = set(tap_names(model)) if self.taps else ()
        taps = {
            name: path
            for name, path in self.taps.items()
            if path in known or path.removesuffix(":1") in known
        }
        return dataclasses.replace(self, model=model, taps=taps)


def as_network(model: keras.Model | Network) -> Network:
    """Returns a network as it is, and a Keras model as a network without preprocessing.

    What the file of a Keras model says of pixels and classes is known to ``load_network_file``.

    Raises:
        TfkdError: If it is neither.
    """
    return model if isinstance(model, Network) else Network(model)
