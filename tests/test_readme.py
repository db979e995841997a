"""The README: its Python is run as it stands there, and its numbers are those of committed runs."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

import tfkd
from tests.fixtures import pages
from tfkd import reporting
from tfkd.training import config as configs

README = "README.md"


@pytest.fixture(autouse=True)
def registries():
    """Forgets what the README registers."""
    with pages.registries_restored():
        yield


def test_the_readme_holds_the_two_examples_and_is_short():
    assert len(pages.blocks(README, "python")) == 2
    assert len(pages.text(README).splitlines()) <= 165


@pytest.mark.slow
def test_the_ten_lines_train_a_teacher_and_with_it_a_student(tmp_path, capsys):
    code = pages.blocks(README, "python")[0]
    statements = [line for line in code.splitlines() if line and not line.startswith("import")]
    assert len(statements) <= 10
    names = pages.run_blocks(README, [code], tmp_path)
    printed = re.findall(r"^0\.\d+$", capsys.readouterr().out, flags=re.M)
    teacher, student = map(float, printed)
    assert teacher > 0.85 and student > 0.7
    saved = tfkd.Distiller(None, keras.models.load_model(tmp_path / "student.keras"))
    saved.compile()
    found = saved.evaluate(names["digits"].test(), verbose=0, return_dict=True)
    np.testing.assert_allclose(found["accuracy"], student, rtol=1e-5)


def test_the_method_of_the_readme_has_at_most_20_lines_and_trains_its_connector(tmp_path):
    code = pages.blocks(README, "python")[1]
    written = [line for line in code.splitlines() if line.strip()]
    assert len(written) <= 20
    names = pages.run_blocks(README, [code], tmp_path)
    teacher = tfkd.models.create("resnet8x4", 10, (8, 8, 1))
    student = tfkd.models.create("resnet8", 10, (8, 8, 1))
    losses = [tfkd.distillers.KD(), names["Hint"](0.5)]
    distiller = tfkd.Distiller(teacher, student, losses, [0.9, 1.0])
    connector = losses[1].connector
    before = np.array(connector.kernel)
    distiller.compile(optimizer="sgd")
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1)).astype("uint8")
    history = distiller.fit(images, np.arange(32) % 10, batch_size=16, epochs=1, verbose=0).history
    assert history["hint"][0] > 0
    assert np.abs(np.array(connector.kernel) - before).max() > 0
    assert "hint" in tfkd.distillers.names()
    assert not any(variable is connector.kernel for variable in student.variables)


def test_the_method_of_the_readme_enters_a_config_whose_flags_are_checked(tmp_path):
    line = next(code for code in pages.inline_code(README) if code.startswith("config.methods = "))
    file = tmp_path / "experiment.py"
    file.write_text(
        pages.blocks(README, "python")[1]
        + "\nfrom tfkd.training.config import default, methods\n\n"
        + f"def get_config(argument=''):\n    config = default()\n    {line}\n    return config\n"
    )
    config = configs.load(str(file))
    assert config.methods.hint.to_dict() == {"weight": 1.0, "delta": 0.5}
    flag = next(code for code in pages.inline_code(README) if code.startswith("--config.methods."))
    field, value = flag.removeprefix("--config.").split("=")
    changed = configs.override(config, **{field.replace(".", "__"): float(value)})
    assert [each.name for each in configs.objectives(changed)] == ["hint", "kd"]
    assert configs.objectives(changed)[0].delta == 2.0
    with pytest.raises(tfkd.TfkdError, match="hint: delta: found 0.0, wanted a number > 0"):
        configs.objectives(configs.override(config, methods__hint__delta=0.0))


def test_the_table_of_the_readme_is_that_of_the_committed_runs():
    (table,) = reporting.tables(pages.ROOT / README)
    assert table.words.startswith("comparison results/quickstart") and table.holds
