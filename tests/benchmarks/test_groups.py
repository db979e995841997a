"""Every group of benchmarks runs, at its smallest size, and names what it compares."""

import math

import pytest

from tfkd import benchmarks, models
from tfkd.adder import compiled_ops
from tfkd.benchmarks import memory, plain_networks, processor
from tfkd.benchmarks.groups import adder, blockwise, features, multiexit, run
from tfkd.benchmarks.groups import distillers as methods
from tfkd.training import published

QUICK = ("blockwise", "data", "export", "kd", "models")


@pytest.mark.slow
@pytest.mark.parametrize("group", QUICK)
def test_a_group_measures_what_it_names(group):
    shown = []
    rows = benchmarks.run(group, rounds=1, turn=0.0, tiny=True, show=shown.append)
    assert rows == [row for each in shown for row in each]
    assert any(row.ratio is not None for row in rows)
    for row in rows:
        assert row.experiment.startswith(f"{group}: ")
        assert math.isfinite(row.milliseconds) and row.milliseconds > 0
        assert row.goal is None and row.holds is None, "the smallest size has no goal"


@pytest.mark.slow
def test_what_a_run_writes_is_measured_beside_bare_steps():
    experiments = run.experiments(tiny=True)  # Its folder lasts as long.
    experiment = next(experiments)  # The next one starts a process.
    for case in experiment.cases:
        case.run()
    (compared,) = experiment.comparisons
    assert (compared.case, compared.baseline) == ("run", ("bare steps",))


@pytest.mark.slow
def test_adder_layers_are_compared_with_convolutions(monkeypatch):
    if compiled_ops.operations() is None:
        pytest.skip("the adder op cannot be compiled here")
    # Each of its numbers is measured in a process of its own, which takes seconds.
    monkeypatch.setattr(adder.memory, "extra_memory", lambda tiny: {})
    rows = benchmarks.run("adder", rounds=1, turn=0.0, tiny=True, show=lambda rows: None)
    assert all(math.isfinite(row.milliseconds) and row.milliseconds > 0 for row in rows)
    layers = [row for row in rows if "multiply-adds" in row.facts]
    assert [row.baseline for row in layers] == [
        "conv2d, forward",
        "conv2d, forward and backward",
    ] * 2
    errors = [row.facts["error"] for row in rows if "error" in row.facts]
    assert len(errors) == 2 and all(0 <= error < 1e-6 for error in errors)
    assert rows[-1].name == "adder layers" and rows[-1].ratio > 0


@pytest.mark.slow
@pytest.mark.parametrize("passes", ["forward", "forward and backward"])
def test_memory_of_a_layer_is_a_number(passes):
    if compiled_ops.operations() is None:
        pytest.skip("the adder op cannot be compiled here")
    if not memory.is_told():
        pytest.skip("this system does not tell how much memory was needed")
    assert adder.memory.of_layer(0, "adder", passes, tiny=True) >= 0


@pytest.mark.slow
def test_the_import_of_a_caffemodel_is_measured_with_its_memory():
    rows = {row.name: row for row in benchmarks.run("caffe", rounds=1, turn=0.0, tiny=True)}
    assert list(rows) == [
        "keras.models.load_model",
        "import without saving",
        "import with saving",
    ]
    for row in list(rows.values())[1:]:
        assert row.facts["wanted"] == "below 20 s"
        assert row.facts["peak / file"] > 0 or not memory.is_told()


@pytest.mark.slow
def test_methods_are_compared_with_kd():
    experiment = next(methods.experiments(tiny=True))
    assert [case.name for case in experiment.cases][0] == "kd"
    for case in experiment.cases:
        case.run()
    experiment.check()
    goals = {each.case: each.goal for each in experiment.comparisons}
    assert goals["dkd"] == 1.10
    assert all(each.baseline == ("kd",) for each in experiment.comparisons)


@pytest.mark.slow
def test_feature_methods_are_compared_with_kd_and_their_arithmetic():
    experiment = next(features.experiments(tiny=True))
    for case in experiment.cases:
        case.run()
    experiment.check()
    assert {each.case: each.baseline for each in experiment.comparisons} == {
        "crd": ("kd",),
        "cocord": ("cocord passes", "cocord arithmetic"),
    }


@pytest.mark.slow
def test_methods_of_exits_are_compared_with_a_plain_step(monkeypatch):
    # Each of these numbers is measured in a process of its own, which takes seconds.
    monkeypatch.setattr(multiexit, "memory_of_steps", lambda tiny: {"dbt": 1.1, "hdkd": 2.6})
    monkeypatch.setattr(multiexit, "METHODS", ("dbt", "hdkd"))
    (experiment,) = multiexit.experiments(tiny=True)
    for case in experiment.cases:
        case.run()
    experiment.check()
    compared = {each.case: each for each in experiment.comparisons}
    stock, plain, *others = experiment.cases
    assert compared["plain"].baseline == (stock.name,) and compared["plain"].goal == 1.0
    assert [case.name for case in others[:-1]] == list(multiexit.METHODS)
    now_and_then = others[-1]
    assert now_and_then.units == 5
    assert all(compared[case.name].baseline == ("plain",) for case in others)
    goals = [compared[case.name].goal for case in others]
    assert goals == [1.05, 4.0, 1.8]
    unsound = {name for name, each in compared.items() if not each.sound}
    assert unsound == {"hdkd", now_and_then.name}, "more memory than wanted"


@pytest.mark.slow
def test_both_heads_of_auxvar_are_compared():
    (row,) = (
        row
        for row in benchmarks.run(
            "bayes_head", rounds=1, turn=0.0, tiny=True, show=lambda rows: None
        )
        if row.baseline
    )
    assert (row.name, row.baseline) == ("bayes", "linear") and row.ratio > 0
    assert row.facts == {"more parameters": 0, "more MACs": 0}


def test_the_plain_networks_are_the_same_networks():
    shape = (8, 8, 3)
    for name, plain in (
        ("resnet8", plain_networks.resnet(8, 10, shape)),
        ("wrn_16_2", plain_networks.wrn(16, 2, 10, shape)),
    ):
        found, wanted = models.cost(plain), models.cost(models.create(name, 10, shape))
        assert (found.params, found.macs) == (wanted.params, wanted.macs)


def test_every_published_method_is_measured():
    own = {published.preset(name).method for name in published.names()}
    measured = {"kd", *methods.METHODS, *features.METHODS, *multiexit.METHODS, *blockwise.METHODS}
    assert own <= measured


def test_a_processor_without_bfloat16_is_known_by_its_flags(monkeypatch, tmp_path):
    facts = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPU_FACTS", facts)
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [])
    for flags, found in (
        ("sse avx2 fma", False),
        ("avx512f avx512_bf16", True),
        ("amx_bf16", True),
    ):
        facts.write_text(f"model name\t: Some Processor\nflags\t\t: {flags}\n")
        assert processor.has_bfloat16() == found
        assert processor.name() == "Some Processor"
    facts.unlink()
    assert not processor.has_bfloat16()
