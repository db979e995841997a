"""Blockwise students: what they cost, what is narrowed, and where a network can be cut."""

import keras
import numpy as np
import pytest

from tfkd import TfkdError, models
from tfkd.models.graph.cuts import Block

VGG = {"of": "vgg16_32", "of_kwargs": {"batch_norm": True, "width": 8, "hidden": 16}}
# Parameters and MACs of the three linear layers for ImageNet, 4096 and 1 hidden units.
LINEAR, LINEAR_MACS = 123_642_856, 123_633_664
SMALL_LINEAR, SMALL_MACS = 25_088 + 1 + 1 + 1 + 1000 + 1000, 25_088 + 1 + 1000


@pytest.fixture(scope="module")
def imagenet():
    """VGG-16 for ImageNet with one hidden unit a layer."""
    return models.create("vgg16_imagenet", 1000, (224, 224, 3), hidden=1)


def student(**settings):
    return models.create("blockwise", 10, (32, 32, 3), **{**VGG, **settings})


def convolutions(model):
    layers = (each for each in model.layers if isinstance(each, keras.layers.Conv2D))
    return {each.name: each for each in layers}


def test_costs_for_cifar_are_those_of_the_paper():
    teacher = models.cost(models.create("vgg16_32", 100))
    assert (teacher.params, teacher.macs) == (34_006_948, 332_480_512)
    # What a student saves has nothing to do with the hidden layers.
    small = {"of": "vgg16_32", "of_kwargs": {"hidden": 1}}
    before, after = (
        models.cost(models.create(name, 100, **settings))
        for name, settings in (("vgg16_32", small["of_kwargs"]), ("blockwise", small))
    )
    params = teacher.params - before.params + after.params
    macs = teacher.macs - before.macs + after.macs
    assert (params, macs) == (24_255_940, 123_453_440)
    assert round(teacher.macs / macs, 3) == 2.693


@pytest.mark.parametrize(
    ("replaced", "params", "ratio"),
    [((1,), 138_331_080, None), ((1, 2), 138_191_816, None), ((1, 2, 3), 137_192_264, None)]
    + [((1, 2, 3, 4), 133_194_312, 2.525), (None, 128_606_536, 2.959)],
)
def test_costs_for_imagenet_after_each_stage_are_those_of_the_paper(
    replaced, params, ratio, imagenet
):
    found = models.cost(models.blockwise(imagenet, blocks_to_replace=replaced))
    assert found.params - SMALL_LINEAR + LINEAR == params
    if ratio is not None:
        assert round(15_470_264_320 / (found.macs - SMALL_MACS + LINEAR_MACS), 3) == ratio


def test_a_block_keeps_its_layers_and_restores_its_channels():
    teacher, made = models.create("vgg16_32", 10, **VGG["of_kwargs"]), student(ratio=3.0)
    found = {name: (each.filters, each.kernel_size[0]) for name, each in convolutions(made).items()}
    assert found["stage2_conv1"] == found["stage2_conv3"] == (11, 3)  # 32 / 3, rounded
    assert found["stage2_restore"] == (32, 1)
    assert set(found) == {
        *convolutions(teacher),
        *(f"{cut}_restore" for cut in ("stem", "stage1", "stage2", "stage3", "stage4")),
    }
    names = [each.name for each in made.layers]
    at = names.index("stage2_bn3")
    assert names[at : at + 7] == [
        "stage2_bn3", "stage2_pre_narrow", "stage2_narrow", "stage2_restore", "stage2_restore_bn",
        "stage2_pre", "stage2",
    ]  # fmt: skip
    cuts = [each.end for each in models.blocks(teacher)]
    assert models.tap_shapes(made, cuts) == models.tap_shapes(teacher, cuts)
    assert made.get_layer("stage2_restore_bn").synchronized
    kernel = made.get_layer("stage4_conv1").kernel.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.05)
    assert not made.get_layer("stage4_restore").bias.numpy().any()


def test_a_network_without_normalization_gets_none():
    made = student(of_kwargs={"width": 4, "hidden": 4})
    assert not any(isinstance(each, keras.layers.BatchNormalization) for each in made.layers)


@pytest.mark.parametrize(("field", "sizes"), [("smaller", (3, 3, 1, 1)), ("larger", (3, 3, 3, 3))])
def test_the_receptive_field_of_a_block_may_change(field, sizes):
    found = convolutions(student(receptive_field=field))
    names = ("stage3_conv1", "stage3_conv2", "stage3_conv3", "stage3_restore")
    assert tuple(found[name].kernel_size[0] for name in names) == sizes


def test_other_blocks_stay_as_they_are():
    found = convolutions(student(blocks=(2, 4)))
    assert {name for name in found if name.endswith("_restore")} == {
        "stage1_restore",
        "stage3_restore",
    }
    assert [found[f"{block}_conv1"].filters for block in ("stem", "stage1", "stage2")] == [8, 8, 32]


def test_what_is_added_to_the_input_of_a_block_keeps_its_channels():
    made = models.create(
        "blockwise", 10, (16, 16, 3), of="resnet8", cuts=("stem", "stage1", "stage3")
    )
    found = {name: each.filters for name, each in convolutions(made).items()}
    assert found["stage1_block1_conv1"] == 8 and found["stage1_block1_conv2"] == 16
    assert "stage1_restore" not in found
    assert found["stage3_block1_shortcut_conv"] == found["stage3_block1_conv2"] == 32
    assert found["stage3_restore"] == 64
    shapes = models.tap_shapes(made, ["stage1", "stage1_pre", "stage3", "stage3_pre"])
    assert set(shapes.values()) == {(16, 16, 16), (4, 4, 64)}


def own_network():
    """Maps that are concatenated, added by a function, gated and convolved depthwise; no names."""
    image = keras.Input((16, 16, 3), name="image")
    maps = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(image)
    maps = keras.layers.MaxPooling2D(name="halve")(maps)
    left = keras.layers.Conv2D(5, 3, padding="same", name="left")(maps)
    right = keras.layers.DepthwiseConv2D(3, padding="same", name="right")(left)
    maps = keras.layers.Concatenate(name="both")([left + right, maps])
    maps = keras.layers.Conv2D(8, 1, name="mix")(maps)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(maps)
    gate = keras.layers.Dense(8, activation="sigmoid", name="gate")(gate)
    maps = keras.layers.ReLU(name="gated")(maps * gate)
    hidden = keras.layers.Flatten(name="flat")(keras.layers.Dropout(0.5, name="drop")(maps))
    return keras.Model(image, keras.layers.Dense(4, name="logits")(hidden), name="own")


def test_a_network_of_ones_own_is_cut_and_loads_without_tfkd(tmp_path):
    model = own_network()
    made = models.blockwise(model, ["first", "gated:1"])
    found = {name: each.filters for name, each in convolutions(made).items() if name != "right"}
    # Half of five is rounded up; what a linear layer reads or weighs keeps its channels.
    assert found == {"first_narrow": 3, "first": 6, "left": 3, "mix": 8}
    assert made.get_layer("first").activation is keras.activations.relu
    assert made.output_shape == model.output_shape and made.name == "own"
    made.save(tmp_path / "own.keras")
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    loaded = keras.models.load_model(tmp_path / "own.keras")
    np.testing.assert_array_equal(loaded(images), made(images))
    assert models.blocks(model, ["first", "gated"]) == [
        Block(1, None, "first"),
        Block(2, "halve", "gated"),
    ]


def passed_by():
    image = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", name="first")(image)
    second = keras.layers.Conv2D(4, 3, padding="same", name="second")(first)
    flat = keras.layers.Flatten()(keras.layers.Add()([first, second]))
    return keras.Model(image, keras.layers.Dense(4, name="logits")(flat), name="passed")


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ([], "found no cuts"),
        ("first", "found cuts 'first'; wanted a list of names"),
        (None, "found no taps called stage1, ...; wanted cuts="),
        (["frist"], "unknown tap of model 'passed' 'frist'"),
        (["first", "first"], "found the cut 'first' before 'first'; wanted each once"),
        (["second"], "the output needs more than the cut 'second'"),
        (["first", "logits"], "found the cut 'logits', the output"),
    ],
)
def test_cuts_that_make_no_blocks_are_refused(cuts, message):
    with pytest.raises(TfkdError, match=message):
        models.blocks(passed_by(), cuts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 1.0}, "network 'blockwise': ratio: found 1.0, wanted a number > 1"),
        ({"blocks": (6,)}, "found block 6; wanted numbers from 1 to 5"),
        ({"blocks": ()}, r"found ratio=2.0 and blocks \[\]"),
        ({"of": "vgg16"}, "unknown network 'vgg16'; did you mean 'vgg1"),
        ({"receptive_field": "large"}, "unknown receptive_field of network 'blockwise' 'large'"),
        (
            {"of": "resnet8", "of_kwargs": {}, "cuts": ("stem", "stage1")}
            | {"receptive_field": "larger"},
            "block 2: found receptive_field='larger' and channels that are all kept",
        ),
    ],
)  # fmt: skip
def test_students_that_cannot_be_made_are_refused(settings, message):
    with pytest.raises(TfkdError, match=message):
        student(**settings)


def test_a_block_that_cannot_be_narrowed_is_refused():
    image = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, name="stage1")(image)
    maps = keras.layers.Add(name="stage2")(
        [maps, keras.layers.Conv2D(4, 3, padding="same", name="inner")(maps)]
    )
    logits = keras.layers.Dense(4, name="logits")(keras.layers.Flatten()(maps))
    model = keras.Model(image, logits, name="kept")
    with pytest.raises(TfkdError, match="block 2: found no convolution that can be narrowed"):
        models.blockwise(model, ["stage1", "stage2"])
    with pytest.raises(TfkdError, match="block 1: found receptive_field='smaller' and no last"):
        models.blockwise(model, ["stage1"], receptive_field="smaller")
