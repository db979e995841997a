"""The Python of the README is run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import tfkd

README = Path(__file__).resolve().parents[1] / "README.md"


def python_blocks() -> list[str]:
    """Returns the Python code blocks of the README in order."""
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)


def test_the_readme_holds_the_two_examples():
    assert len(python_blocks()) == 2


def test_the_ten_lines_train_and_save_a_student(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = python_blocks()[0]
    statements = [line for line in code.splitlines() if line and not line.startswith("import")]
    assert len(statements) <= 10
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "student.keras").is_file()
    assert names["distiller"].step == names["dataset"].steps_per_epoch


def test_the_distiller_of_the_readme_has_at_most_20_lines_and_trains_its_connector():
    code = python_blocks()[1]
    written = [line for line in code.splitlines() if line.strip()]
    assert len(written) <= 20
    names: dict = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    teacher = tfkd.models.create("resnet8x4", 10, (8, 8, 1))
    student = tfkd.models.create("resnet8", 10, (8, 8, 1))
    losses = [tfkd.distillers.KD(), names["Hint"]()]
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


def test_the_fidelity_table_has_a_row_for_every_method():
    text = README.read_text(encoding="utf-8").split("## Fidelity")[1].split("##")[0]
    rows = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.M))
    from_tfkd = {
        name
        for name in tfkd.distillers.names()
        if (README.parent / "tfkd" / "distillers" / f"{name}.py").is_file()
    }
    assert rows == from_tfkd


def test_every_relative_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    relative = [link for link in links if not link.startswith("http")]
    assert relative
    missing = [link for link in relative if not (README.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize(
    "command", re.findall(r"python (tools/\w+\.py)", README.read_text("utf-8"))
)
def test_every_binary_that_the_readme_names_exists(command):
    assert (README.parent / command).is_file()
