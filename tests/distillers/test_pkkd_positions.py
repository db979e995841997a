"""Where PKKD compares networks: found in their graphs."""

import keras
import pytest

import tfkd
from tfkd.distillers.pkkd.positions import fan_in, matched_layers


def image():
    return keras.Input((8, 8, 3), name="image")


def conv(inputs, filters, name, size=3, **settings):
    return keras.layers.Conv2D(filters, size, padding="same", name=name, **settings)(inputs)


def ending(features):
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    return keras.layers.Dense(4, name="logits")(pooled)


def plain(classifier="dense"):
    inputs = image()
    hidden = inputs
    for number in (1, 2, 3):
        hidden = conv(hidden, 4 * number, f"conv{number}", use_bias=False)
        hidden = tfkd.models.BatchNormalization()(hidden)
        hidden = keras.layers.ReLU()(hidden)
    if classifier == "dense":
        return keras.Model(inputs, ending(hidden), name="plain")
    hidden = keras.layers.GlobalAveragePooling2D(keepdims=True)(hidden)
    logits = keras.layers.BatchNormalization()(conv(hidden, 4, "logits_conv", 1))
    return keras.Model(inputs, keras.layers.Flatten(name="logits")(logits), name="plain")


@pytest.mark.parametrize("name, blocks", [("resnet8", 3), ("resnet20", 9)])
def test_positions_are_the_last_layers_of_blocks(name, blocks):
    found = matched_layers(tfkd.models.create(name, 10, (8, 8, 3)))
    per_stage = blocks // 3
    assert found == [
        f"stage{stage}_block{block}_conv2"
        for stage in (1, 2, 3)
        for block in range(1, per_stage + 1)
    ]


@pytest.mark.parametrize("classifier", ["dense", "convolution"])
def test_positions_without_blocks_are_all_layers_but_stem_and_classifier(classifier):
    assert matched_layers(plain(classifier)) == ["conv2", "conv3"]


def test_positions_in_bottlenecks_sums_by_sign_and_sub_models():
    inputs = image()
    hidden = conv(inputs, 8, "stem")
    for block in (1, 2):
        short = conv(hidden, 8, f"short{block}", 1) if block == 1 else hidden
        long = hidden
        for number, size in enumerate((1, 3, 1), start=1):
            long = keras.layers.ReLU()(conv(long, 8, f"block{block}_conv{number}", size))
        # One sum is written with the shortcut first, by a sign, the other by a layer.
        hidden = short + long if block == 1 else keras.layers.Add()([long, short])
    backbone = keras.Model(inputs, hidden, name="backbone")
    assert matched_layers(backbone) == ["block1_conv3", "block2_conv3"]
    outer = image()
    whole = keras.Model(outer, ending(backbone(outer)), name="whole")
    assert matched_layers(whole) == ["backbone/block1_conv3", "backbone/block2_conv3"]
    assert fan_in(whole, "backbone/block2_conv2") == 72


def test_position_is_a_layer_with_raw_sums():
    inputs = image()
    hidden = conv(inputs, 4, "active", activation="relu")
    model = keras.Model(inputs, ending(conv(hidden, 6, "raw", use_bias=False)), name="small")
    assert fan_in(model, "raw") == 36
    wanted = "found the activation relu inside the layer, wanted its raw output"
    with pytest.raises(tfkd.TfkdError, match=wanted):
        fan_in(model, "active")
    for name, kind in (("pooled", "GlobalAveragePooling2D"), ("logits", "the output")):
        with pytest.raises(tfkd.TfkdError, match=f"found {kind}, wanted a convolution or an adder"):
            fan_in(model, name)
    with pytest.raises(tfkd.TfkdError, match="did you mean 'raw'"):
        fan_in(model, "rav")


def test_network_without_such_layers_is_refused():
    inputs = image()
    model = keras.Model(inputs, ending(conv(inputs, 4, "stem")), name="flat")
    with pytest.raises(tfkd.TfkdError, match=r"'flat': found no convolution .* positions=\[...\]"):
        matched_layers(model)

    class Own(keras.Model):
        """A model that says nothing of its layers."""

    with pytest.raises(tfkd.TfkdError, match="wanted a functional model"):
        matched_layers(Own())
