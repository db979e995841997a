"""The opened splits of a data set, as every loader returns them."""

from __future__ import annotations

import dataclasses

from tfkd.data import augmentation as augmentations
from tfkd.data.dataset import DataInfo, DataSet
from tfkd.data.mixing import Mixing
from tfkd.data.source import ImageSource
from tfkd.data.statistics import Statistics
from tfkd.errors import TfkdError


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set without batch size, seed and augmentation.

    Attributes:
        train: The training images.
        test: The test images.
        validation: The validation images, None if there are none.
        statistics: Mean and standard deviation of the training images.
        class_names: Names of the classes, in the order of the labels.
        task: Name of the task that the labels are for.
        crop: How images are resized, as ``DataInfo.crop``.
    """

    train: ImageSource
    test: ImageSource
    validation: ImageSource | None
    statistics: Statistics
    class_names: tuple[str, ...]
    task: str = "classification"
    crop: str | None = None

    def with_train_size(self, count: int) -> Splits:
        """Returns the same splits with fewer training images, alike in every class.

        Mean and deviation stay those of all of them. Of record files that stream, the first images
        are kept, which tensorflow-datasets shuffled when it wrote them.

        Raises:
            TfkdError: There are not so many.
        """
        whole = isinstance(count, int) and not isinstance(count, bool)
        if not whole or not 1 <= count <= self.train.size:
            raise TfkdError(
                f"train_size: found {count!r}, wanted a number of images from 1 to "
                f"{self.train.size}"
            )
        if count == self.train.size:
            return self
        return dataclasses.replace(self, train=self.train.subset(count))

    def data_set(
        self, name: str, augment: str, batch_size: int, seed: int, mixing: Mixing = Mixing()
    ) -> DataSet:
        """Returns the data set; raises TfkdError for settings that do not fit it."""
        augmentation = augmentations.named(augment)
        self.train.check(augmentation)
        info = DataInfo(
            name=name,
            num_classes=len(self.class_names),
            image_shape=self.train.image_shape,
            train_size=self.train.size,
            validation_size=self.validation.size if self.validation else 0,
            test_size=self.test.size,
            statistics=self.statistics,
            class_names=self.class_names,
            task=self.task,
            crop=self.crop,
        )
        return DataSet(
            info,
            self.train,
            self.test,
            self.validation,
            augmentation,
            batch_size,
            seed,
            mixing,
        )
