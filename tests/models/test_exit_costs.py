"""The cost up to each exit of networks whose counts can be worked out by hand."""

import keras
import pytest

from tests.fixtures import multi_exit
from tfkd import models
from tfkd.errors import TfkdError

layers = keras.layers
# Of 8x8 images of 3 channels: learned parameters and MACs.
STEM = (4 * (27 + 1), 8 * 8 * 4 * 27)
MIDDLE = (5 * (36 + 1), 8 * 8 * 5 * 36)
DEEP = (6 * (45 + 1), 8 * 8 * 6 * 45)


def head(channels):
    return 3 * (channels + 1), 3 * channels


def total(*parts):
    return tuple(map(sum, zip(*parts)))


def figures(cost):
    return cost.params, cost.macs


def three_exits(extra=0):
    """A stem, a middle and a deep convolution, each with a mean and a linear classifier."""
    image = keras.Input((8, 8, 3))
    maps, exits = image, {}
    for number, name in enumerate(("exit1", "exit2", "logits")):
        maps = layers.Conv2D(4 + number, 3, padding="same", name=f"maps{number}")(maps)
        exits[name] = layers.Dense(3, name=f"of_{name}")(layers.GlobalAveragePooling2D()(maps))
    if extra:
        exits["features"] = layers.Dense(extra, name="extra")(maps)
    return keras.Model(image, exits)


WANTED = {
    "exit1": total(STEM, head(4)),
    "exit2": total(STEM, head(4), MIDDLE, head(5)),
    "logits": total(STEM, head(4), MIDDLE, head(5), DEEP, head(6)),
}


@pytest.mark.parametrize("extra", [0, 7])
def test_an_exit_costs_what_leads_to_it_and_to_those_before(extra):
    model = three_exits(extra)
    costs = models.exit_costs(model)
    assert list(costs) == ["exit1", "exit2", "logits"]
    assert {name: figures(cost) for name, cost in costs.items()} == WANTED
    whole = WANTED["logits"]
    if extra:
        whole = total(whole, (extra * 7, 8 * 8 * 6 * extra))
    assert figures(models.cost(model)) == whole


def test_rows_are_those_of_the_way_to_the_exit():
    costs = models.exit_costs(three_exits())
    paid = [row.name for row in costs["exit2"].layers if row.params]
    assert paid == ["maps0", "maps1", "of_exit1", "of_exit2"]
    assert costs["exit2"].total_params == costs["exit2"].params


def test_moving_statistics_count_up_to_the_exit():
    costs = models.exit_costs(multi_exit.build())
    cost = costs["exit2"]
    assert cost.total_params - cost.params == 2 * 2 * 4


def test_what_an_exit_does_not_read_is_counted_with_a_later_one():
    image = keras.Input((8, 8, 3))
    fine = layers.Conv2D(4, 3, padding="same", name="fine")(image)
    coarse = layers.Conv2D(5, 2, 2, name="coarse")(image)
    exit1 = layers.Dense(3)(layers.GlobalAveragePooling2D()(coarse))
    both = layers.Concatenate()([coarse, layers.MaxPooling2D()(fine)])
    logits = layers.Dense(3)(layers.GlobalAveragePooling2D()(both))
    costs = models.exit_costs(keras.Model(image, {"exit1": exit1, "logits": logits}))
    # The finer map is made before the first exit in the graph, but only the second one reads it.
    coarse = (5 * (12 + 1), 4 * 4 * 5 * 12)
    assert figures(costs["exit1"]) == total(coarse, head(5))
    assert figures(costs["logits"]) == total(coarse, head(5), STEM, head(9))


def test_only_what_an_exit_needs_of_a_model_inside_is_counted():
    image = keras.Input((8, 8, 3))
    found = three_exits()(layers.Rescaling(2.0)(image))
    outer = keras.Model(image, {"exit1": found["exit1"], "logits": found["logits"]})
    costs = models.exit_costs(outer)
    assert {name: figures(cost) for name, cost in costs.items()} == {
        "exit1": WANTED["exit1"],
        "logits": total(STEM, head(4), MIDDLE, DEEP, head(6)),
    }
    assert costs["exit1"].layers[0].kind == "Rescaling"


def test_inputs_of_a_model_inside_are_followed_one_by_one():
    left, right = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model(
        [left, right],
        {"left": layers.Dense(3)(left), "both": layers.Dense(3)(layers.Add()([left, right]))},
        name="inner",
    )
    image = keras.Input((5,))
    first, second = (layers.Dense(4, name=name)(image) for name in ("first", "second"))
    found = inner([first, second])
    model = keras.Model(image, {"exit1": found["left"], "logits": found["both"]})
    costs = models.exit_costs(model)
    assert figures(costs["exit1"]) == (4 * 6 + 3 * 5, 20 + 12)
    assert figures(costs["logits"]) == (2 * 4 * 6 + 2 * 3 * 5, 2 * 20 + 2 * 12)


def test_a_shared_layer_counts_once_in_parameters_and_at_every_call_in_macs():
    image = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    once = shared(image)
    model = keras.Model(
        image, {"exit1": layers.Dense(3)(once), "logits": layers.Dense(3)(shared(once))}
    )
    costs = models.exit_costs(model)
    assert figures(costs["exit1"]) == (20 + 15, 16 + 12)
    assert figures(costs["logits"]) == (20 + 2 * 15, 2 * 16 + 2 * 12)


def test_one_exit_costs_what_the_network_costs():
    model = models.create("resnet8", 10)
    assert models.exit_costs(model) == {"logits": models.cost(model)}


class Subclassed(keras.Model):
    def __init__(self, names):
        super().__init__()
        self.heads = {name: layers.Dense(3) for name in names}

    def call(self, image):
        return {name: head(image) for name, head in self.heads.items()}


def test_of_a_subclassed_model_one_exit_is_counted():
    model = Subclassed(["logits"])
    model(keras.ops.ones((1, 4)))
    assert models.exit_costs(model)["logits"].params == 15
    model = Subclassed(["exit1", "logits"])
    model(keras.ops.ones((1, 4)))
    with pytest.raises(TfkdError, match="found a Subclassed, whose layers cannot be listed"):
        models.exit_costs(model)


def test_a_network_without_exits_is_refused():
    image = keras.Input((4,))
    model = keras.Model(image, {"exit1": layers.Dense(3)(image), "exit2": layers.Dense(3)(image)})
    with pytest.raises(TfkdError, match="wanted the deepest one called 'logits'"):
        models.exit_costs(model)
