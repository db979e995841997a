"""tools/import_torch.py as a user calls it."""

import json

import pytest

from tests.fixtures import shades
from tests.torch_import import files, published


@pytest.mark.slow
def test_a_checkpoint_is_listed_imported_and_evaluated(call_all, tmp_path):
    state = published.state_of("resnet8", 10, 8, channels=1)
    path = tmp_path / "resnet8.pth"
    path.write_bytes(files.zipped({"epoch": 1, "model": dict(state)}))
    call = ("import_torch.py", f"--checkpoint={path}")
    output = f"--output={tmp_path}/teacher"
    (tmp_path / "names.txt").write_text("\n".join(f"digit {number}" for number in range(10)))
    animals = shades.write(tmp_path / "animals")
    listed, imported, evaluated, other, wrong, missing = call_all(
        [
            (*call, "--list"),
            (
                *call,
                "--network=resnet8",
                output,
                "--image_size=8",
                "--crop=whole",
                "--mean=0.3",
                "--std=0.4",
                f"--class_names={tmp_path}/names.txt",
            ),
            ("evaluate.py", f"--run={tmp_path}/teacher", "--data=digits", "--classes=by_number"),
            ("evaluate.py", f"--run={tmp_path}/teacher", f"--data={animals}", "--batch_size=8"),
            (*call, "--network=vgg8", f"--output={tmp_path}/vgg8"),
            call,
        ]
    )
    assert listed[0] == 0
    assert listed[1].splitlines()[0].split() == ["conv1.weight", "float32", "16x1x3x3"]
    assert len(listed[1].splitlines()) == 47
    assert (imported[0], imported[2]) == (0, "")
    assert f"{tmp_path}/teacher/student.keras: resnet8, 10 classes, 77,754 para" in imported[1]
    described = json.loads((tmp_path / "teacher" / "network.json").read_text())
    assert described["preprocess"]["mean"] == [pytest.approx(76.5)]
    assert described["class_names"][3] == "digit 3" and described["crop"] == "whole"
    assert evaluated[0] == 0, evaluated[2]
    assert other[0] == 2 and "found 4 classes, wanted 10 as the network has" in other[2]
    assert wrong[0] == missing[0] == 2
    assert wrong[2].count("\n") == missing[2].count("\n") == 1
    assert "look like those of 'resnet8'" in wrong[2]
    assert "wanted --network=NAME and --output=FOLDER, or --list" in missing[2]
