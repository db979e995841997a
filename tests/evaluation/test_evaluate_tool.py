"""tools/evaluate.py as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

from tfkd.evaluation import reports
from tfkd.models.saving import load_network, save_network

TOOLS = Path(__file__).parents[2] / "tools"


def call(tool, *arguments, folder):
    command = [sys.executable, str(TOOLS / tool), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_run_is_exported_and_the_export_evaluated(run_folder, tmp_path):
    exported = call("export.py", "--run=run", "--output=exported", "--which=best", folder=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert "tiny, 10 classes, 1,494 parameters" in exported.stdout
    known = json.loads((tmp_path / "exported" / "tfkd.json").read_text())
    assert known["class_names"][3] == "digit 3"
    arguments = ["--saved_model=exported", "--data=digits", "--json=scores.json"]
    evaluated = call("evaluate.py", *arguments, folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    expected = reports.report(run=run_folder, which="best")["top1"]
    assert json.loads((tmp_path / "scores.json").read_text())["top1"] == expected
    assert f"{expected:.2f}" in evaluated.stdout.splitlines()[-1]


def test_a_further_student_is_named_by_its_word(run_folder, tmp_path):
    save_network(load_network(run_folder, "best"), run_folder, "merged")
    exported = call(
        "export.py", "--run=run", "--output=exported", "--which=merged", folder=tmp_path
    )
    assert exported.returncode == 0, exported.stderr
    evaluated = call(
        "evaluate.py", "--run=run", "--which=merged", "--json=scores.json", folder=tmp_path
    )
    assert evaluated.returncode == 0, evaluated.stderr
    expected = reports.report(run=run_folder, which="best")["top1"]
    assert json.loads((tmp_path / "scores.json").read_text())["top1"] == expected
    found = call("evaluate.py", "--run=run", "--which=mergde", folder=tmp_path)
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert "unknown student 'mergde'; did you mean 'merged'" in found.stderr.splitlines()[-1]


def test_a_wrong_run_folder_is_one_line_and_exit_2(tmp_path):
    found = call("export.py", "--run=missing", "--output=exported", folder=tmp_path)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    assert "run folder 'missing': found no such folder" in found.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
