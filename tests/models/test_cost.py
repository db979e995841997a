"""The cost counter on layers whose counts can be worked out by hand."""

import keras
import numpy as np
import pytest

from tfkd import models
from tfkd.errors import TfkdError

layers = keras.layers
# An 8x6 image of 4 channels; per layer: learned parameters, and MACs as
# outputs x window x input channels of one group.
CASES = {
    "convolution": (layers.Conv2D(10, (3, 5), padding="same"), 10 * (60 + 1), 8 * 6 * 10 * 15 * 4),
    "stride and no padding": (
        layers.Conv2D(10, 3, strides=2, use_bias=False),
        360,
        3 * 2 * 10 * 9 * 4,
    ),
    "groups": (layers.Conv2D(10, 3, padding="same", groups=2), 190, 8 * 6 * 10 * 9 * 2),
    "dilation": (layers.Conv2D(10, 3, dilation_rate=2), 370, 4 * 2 * 10 * 9 * 4),
    "depthwise": (
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
        8 * 10,
        8 * 6 * 8 * 9,
    ),
    "separable": (
        layers.SeparableConv2D(10, 3, depth_multiplier=2, strides=2, padding="same"),
        4 * 2 * 9 + 8 * 10 + 10,
        4 * 3 * 8 * 9 + 4 * 3 * 8 * 10,
    ),
    "transposed": (
        layers.Conv2DTranspose(10, 3, strides=2, padding="same"),
        370,
        8 * 6 * 4 * 9 * 10,
    ),
    "dense on the last axis": (layers.Dense(10), 50, 8 * 6 * 4 * 10),
    "normalization": (layers.BatchNormalization(), 8, 0),
    "pooling": (layers.AveragePooling2D(2), 0, 0),
    "one-dimensional, once per row": (
        layers.TimeDistributed(layers.Conv1D(10, 3, padding="same")),
        130,
        8 * 6 * 10 * 3 * 4,
    ),
}


def on_image(layer, shape=(8, 6, 4)):
    image = keras.Input(shape)
    return keras.Model(image, layer(image))


@pytest.mark.parametrize("case", CASES)
def test_a_layer_counts_as_by_hand(case):
    layer, params, macs = CASES[case]
    cost = models.cost(on_image(layer))
    assert (cost.params, cost.macs, cost.adder_additions, cost.unknown) == (params, macs, 0, ())


def test_one_and_three_dimensional_convolutions_count():
    line, volume = layers.Conv1D(5, 3), layers.Conv3D(5, 3)
    assert models.cost(on_image(line, (10, 4))).macs == 8 * 5 * 3 * 4
    assert models.cost(on_image(volume, (5, 5, 5, 2))).macs == 27 * 5 * 27 * 2


def test_rows_bear_tap_names_and_sum_to_the_totals():
    model = models.create("resnet8", 10)
    cost = models.cost(model)
    names = [row.name for row in cost.layers]
    assert set(names) <= set(models.tap_names(model))
    assert sum(row.params for row in cost.layers) == cost.params
    assert sum(row.macs for row in cost.layers) == cost.macs
    row = cost.layers[names.index("stage2_block1_conv1")]
    assert row == models.LayerCost(
        "stage2_block1_conv1", "Conv2D", (16, 16, 32), 16 * 32 * 9, 16 * 16 * 32 * 9 * 16
    )


def test_moving_statistics_are_weights_but_not_parameters():
    cost = models.cost(models.create("resnet8", 10))
    channels = 16 * 3 + 32 * 3 + 64 * 3
    assert cost.total_params == cost.params + 2 * channels == 78042 + 2 * channels


def test_freezing_changes_no_count():
    model = models.create("resnet8", 10)
    before = models.cost(model)
    model.trainable = False
    assert models.cost(model) == before


def test_a_sub_model_counts_by_its_layers_at_the_size_it_is_called_with():
    image = keras.Input((None, None, 3))
    inner = keras.Model(image, layers.Conv2D(4, 3, padding="same", name="conv")(image), name="in")
    image = keras.Input((8, 8, 3))
    pooled = layers.MaxPooling2D(2)(image)
    cost = models.cost(keras.Model(image, inner(inner(pooled)[..., :3])))
    rows = {row.name: row for row in cost.layers if row.kind == "Conv2D"}
    macs = 4 * 4 * 4 * 9 * 3
    assert {name: row.macs for name, row in rows.items()} == {"in:1/conv": macs, "in:2/conv": macs}
    assert cost.params == 4 * 27 + 4
    assert cost.macs == 2 * macs


def test_a_layer_with_weights_and_no_rule_is_announced():
    image = keras.Input((5, 4))
    model = keras.Model(image, layers.Dense(3)(layers.LSTM(6, name="memory")(image)))
    cost = models.cost(model)
    assert cost.unknown == ("memory",)
    assert cost.macs == 18
    assert cost.params == 4 * (4 * 6 + 6 * 6 + 6) + 21
    assert str(cost).endswith("not counted in the MACs: memory")


def test_a_product_without_weights_is_announced_too():
    image = keras.Input((5, 4))
    cost = models.cost(keras.Model(image, keras.ops.matmul(image, keras.ops.swapaxes(image, 1, 2))))
    assert cost.unknown == ("matmul",)


def test_a_rule_can_be_added_for_a_class_and_serves_its_subclasses():
    class Adder(layers.Layer):
        def build(self, input_shape):
            self.filters = self.add_weight(shape=(input_shape[-1], 7))

        def call(self, inputs):
            return keras.ops.sum(keras.ops.abs(inputs[..., None] - self.filters), -2)

    class Special(Adder):
        pass

    @models.rule(Adder)
    def count(layer, inputs, outputs):
        return models.Work(adder_additions=np.prod(outputs[0]) * inputs[0][-1])

    cost = models.cost(on_image(Special(name="adder")))
    assert (cost.macs, cost.adder_additions, cost.params) == (0, 8 * 6 * 7 * 4, 28)
    header, _, row, _, total = str(cost).splitlines()
    assert header.split() == ["layer", "kind", "output", "params", "MACs", "additions"]
    assert row.split() == ["adder", "Special", "8x6x7", "28", "0", "1,344"]
    assert total.split() == ["total", "28", "0", "1,344"]


def test_the_table_lists_what_costs_and_the_totals():
    lines = models.cost(models.create("resnet8", 10)).table().splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "params", "MACs"]
    assert lines[2].split() == ["stem_conv", "Conv2D", "32x32x16", "432", "442,368"]
    assert lines[-1].split() == ["total", "78,042", f"{12500992 + 640:,}"]
    assert not any(line.startswith(("pooled", "pre_pool")) for line in lines)


def test_an_open_image_size_cannot_be_counted():
    with pytest.raises(TfkdError, match="'stem_conv'.*wanted a model built for images of one size"):
        models.cost(models.create("resnet8", 10, (None, None, 3)))


def test_of_a_subclassed_model_the_parameters_are_counted():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.dense = layers.Dense(3)

        def call(self, inputs):
            return self.dense(inputs)

    model = Subclassed()
    with pytest.raises(TfkdError, match="'mine': found no weights"):
        models.cost(model)
    model(np.ones((2, 4)))
    cost = models.cost(model)
    assert (cost.params, cost.unknown) == (15, ("mine",))
