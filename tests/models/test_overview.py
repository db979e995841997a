"""Plans, tables and pictures of networks."""

import re

import keras
import matplotlib
import numpy as np
import pytest
from matplotlib import image as images

from tfkd import models
from tfkd.errors import TfkdError
from tfkd.models import registry
from tfkd.models.summary import drawing, overview, showing
from tfkd.models.summary.plan import plan, usual_taps

TAPS = ["stem", *(f"stage{n}{end}" for n in (1, 2, 3) for end in ("_pre", "")), "pre_pool"]


def small(num_classes, input_shape, name):
    """Two sizes of feature maps, bare and concatenated shortcuts, layer names of no scheme."""
    image = keras.Input(input_shape)
    maps = keras.layers.ZeroPadding2D(1)(image)
    maps = keras.layers.Conv2D(4, 3, name="first")(maps)
    maps = keras.layers.ReLU()(maps)
    for number in (1, 2, 3):
        inner = keras.layers.Conv2D(4, 3, padding="same", name=f"block{number}_conv")(maps)
        maps = keras.layers.Add(name=f"block{number}_add")([maps, inner])
    maps = keras.layers.MaxPooling2D(2, name="halve")(maps)
    inner = keras.layers.DepthwiseConv2D(3, padding="same", name="block4_depthwise")(maps)
    maps = keras.layers.Concatenate(name="block4_concat")([maps, inner])
    mean = keras.layers.GlobalAveragePooling2D(name="mean")(maps)
    return keras.Model(image, keras.layers.Dense(num_classes, name="scores")(mean), name=name)


@pytest.fixture(scope="module")
def resnet20():
    return plan(models.create("resnet20", 100))


@pytest.fixture(scope="module")
def own_plan():
    return plan(small(5, (8, 8, 3), "own"))


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_networks", {})
    models.register("own", smallest=4, default_shape=(8, 8, 3), default_classes=5)(small)
    models.register("large", smallest=16, default_shape=(16, 16, 3), default_classes=7)(small)


def test_a_plan_has_the_stages_and_taps_in_order_and_all_of_the_cost(resnet20):
    stages = list(dict.fromkeys(block.stage for block in resnet20.blocks))
    assert stages == ["stem", "stage1", "stage2", "stage3", "head"]
    taps = [tap for block in resnet20.blocks for tap in block.taps]
    assert taps == [*TAPS, "pooled", "logits"] == list(resnet20.taps)
    for part in ("params", "macs"):
        total = sum(getattr(block, part) * block.repeats for block in resnet20.blocks)
        assert total == getattr(resnet20.cost, part)
    assert (resnet20.cost.params, resnet20.cost.macs) == (278_324, 40_818_944)
    assert resnet20.taps["stage2"] == (16, 16, 32)


def test_equal_blocks_are_one_row_and_a_shortcut_is_told(resnet20):
    rows = [(b.repeats, b.title(), b.join) for b in resnet20.blocks if b.stage == "stage2"]
    assert rows == [
        (1, "conv 3x3, 32 /2 · conv 3x3, 32  | shortcut: conv 1x1, 32 /2", "add"),
        (2, "2 × conv 3x3, 32", "add"),
    ]
    (block,) = [b for b in resnet20.blocks if b.stage == "stage1"]
    assert (block.repeats, block.taps) == (3, ("stage1_pre", "stage1"))


def test_without_usual_taps_stages_are_sizes_of_feature_maps(own_plan):
    rows = [(b.stage, b.repeats, b.title(), b.join) for b in own_plan.blocks]
    assert rows == [
        ("8x8", 1, "conv 3x3, 4", ""),
        ("8x8", 2, "conv 3x3, 4", "add"),
        ("4x4", 1, "conv 3x3, 4 · max pool 2x2 /2", "add"),
        ("4x4", 1, "depthwise 3x3", "concat"),
        ("head", 1, "mean", ""),
        ("head", 1, "linear 5", ""),
    ]
    assert own_plan.taps == {"logits": (5,)}
    assert own_plan.blocks[-1].taps == ("logits",)


def test_only_taps_that_methods_know_are_usual():
    model = small(5, (8, 8, 3), "own")
    assert usual_taps(model) == ("logits",)


def test_the_table_lists_networks_as_published_or_as_asked_for(own_registry):
    built = []
    rows = overview.rows(registry.names(), progress=built.append)
    assert built == ["own", "large"]
    found = [(row.name, row.smallest, row.input_shape, row.num_classes) for row in rows]
    assert found == [("own", 4, (8, 8, 3), 5), ("large", 16, (16, 16, 3), 7)]
    (row,) = overview.rows(registry.names(), num_classes=3, image_size=12)
    assert (row.name, row.input_shape, row.num_classes) == ("own", (12, 12, 3), 3)
    lines = overview.table(rows).splitlines()
    # 112 + 3 * 148 + 40 + 45 parameters; 64 * (108 + 3 * 144) + 16 * 36 + 40 MACs.
    assert lines[0].split() == "network smallest input classes params MACs taps".split()
    assert lines[2].split() == ["own", "4x4", "8x8x3", "5", "641", "35,176", "logits"]


def test_a_network_by_reference_is_described(tmp_path):
    (tmp_path / "nets.py").write_text(
        "import keras\n"
        "def net(num_classes, input_shape):\n"
        "    image = keras.Input(input_shape)\n"
        "    flat = keras.layers.Flatten()(image)\n"
        "    return keras.Model(image, keras.layers.Dense(num_classes)(flat))\n"
    )
    text = showing.show(f"{tmp_path}/nets.py:net", num_classes=4, image_size=6)
    first = text.splitlines()[0]
    assert first.endswith("nets.py:net: 6x6x3 to 4 classes, 436 parameters, 432 MACs")
    assert re.search(r"^logits +4$", text, re.M)
    assert re.search(r"^total +436 +432$", text, re.M)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 K"), (278_324, "278 K"), (999_600, "1.00 M")]
    + [(40_818_944, "40.8 M"), (9_996_000, "10.0 M"), (15_470_264_320, "15.5 G")],
)
def test_counts_are_told_in_three_digits(number, text):
    assert overview.short(number) == text


def test_taps_that_differ_in_their_number_are_told_together():
    assert overview.taps_text([*TAPS, "logits"]) == "stem stage1..3_pre stage1..3 pre_pool logits"
    assert overview.taps_text(["stage2", "pooled"]) == "stage2 pooled"


def test_a_picture_is_written_and_grows_with_the_network(resnet20, own_plan, tmp_path):
    sizes = {}
    for found in (resnet20, own_plan):
        path = drawing.draw(found, tmp_path / f"{found.name}.png")
        pixels = images.imread(path)
        assert np.ptp(pixels[..., :3]) > 0.5
        sizes[found.name] = pixels.shape
    assert sizes["resnet20"][0] > sizes["own"][0]


def test_a_drawing_bears_stages_taps_shapes_and_counts(resnet20, tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    text = drawing.draw(resnet20, tmp_path / "resnet20.svg").read_text()
    words = ("head", "16x16x32", "278 K parameters", "40.8 M MACs", "linear 100")
    for word in (*resnet20.taps, *words):
        assert word in text


def test_networks_that_cannot_be_drawn_are_refused(own_plan, tmp_path, monkeypatch):
    with pytest.raises(TfkdError, match="found ending '.pdf'; wanted .png or .svg"):
        drawing.draw(own_plan, tmp_path / "own.pdf")
    with pytest.raises(TfkdError, match="own.png.*cannot be written"):
        drawing.draw(own_plan, tmp_path / "no" / "own.png")
    monkeypatch.setattr(drawing, "_MOST_ROWS", 3)
    with pytest.raises(TfkdError, match="picture of own: found 6 blocks; wanted 3 or fewer"):
        drawing.draw(own_plan, tmp_path / "own.png")


def test_text_is_written_to_a_file(own_registry, tmp_path):
    for name in (None, "own"):
        path = tmp_path / f"{name}.txt"
        shown = showing.show(name, output=str(path))
        assert shown == f"{path.read_text()}\nwrote {path}"
    assert "block" in path.read_text()


@pytest.mark.parametrize(
    ("name", "output", "message"),
    [
        (None, "table.png", "found ending '.png'; wanted .txt for the table"),
        ("own", "own.jpg", "found ending '.jpg'; wanted .txt or .png or .svg for one network"),
        ("own", "no/own.txt", "no such folder"),
        ("won", None, "unknown network 'won'; did you mean 'own'"),
    ],
)
def test_networks_that_cannot_be_shown_are_told_first(
    own_registry, tmp_path, name, output, message
):
    output = None if output is None else str(tmp_path / output)
    with pytest.raises(TfkdError, match=message):
        showing.show(name, output=output)
