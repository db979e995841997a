"""tools/import_caffe.py as a user calls it."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.caffe import reference
from tests.caffe.test_building import written
from tests.caffe.test_importing import classifier
from tfkd import export


@pytest.mark.slow
def test_a_network_is_imported_exported_and_evaluated(call_all, tmp_path):
    net = classifier(channels=1)
    prototxt, caffemodel = written(tmp_path, net)
    (tmp_path / "names.txt").write_text("\n".join(map(str, range(10))))
    call = ("import_caffe.py", f"--prototxt={prototxt}", f"--caffemodel={caffemodel}")
    output = f"--output={tmp_path}/teacher"
    names = f"--class_names={tmp_path}/names.txt"
    imported, evaluated, wrong, missing, kept = call_all(
        [
            (*call, output, "--mean=80", "--scale=0.5", names, "--export"),
            ("evaluate.py", f"--run={tmp_path}/teacher", "--data=digits"),
            (*call, output, "--mean=nothing.binaryproto"),
            call,
            (*call, f"--output={tmp_path}/kept", "--keep_softmax", "--network=resnet8"),
        ]
    )
    assert (imported[0], imported[2]) == (0, "")
    lines = imported[1].splitlines()
    assert lines[0].split() == ["layer", "type", "blobs", "parameters", "output"]
    assert lines[-3].startswith(f"{tmp_path}/teacher/student.keras: net, logits 10, 622 parameters")
    assert lines[-2] == "pixels: less 80, divided by 2"
    described = json.loads((tmp_path / "teacher" / "network.json").read_text())
    assert described["class_names"][3] == "3" and described["input_shape"] == [8, 8, 1]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    exported = tf.saved_model.load(str(tmp_path / "teacher" / "export"))
    found = exported.signatures["serving_default"](image=tf.constant(pixels))["logits"]
    wanted = reference.outputs(net, ((pixels - 80.0) * 0.5).transpose(0, 3, 1, 2))["fc"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    assert export.describe(tmp_path / "teacher" / "export")["name"] == "net"
    assert evaluated[0] == 0, evaluated[2]
    for ended, match in (
        (wrong, "mean 'nothing.binaryproto': no such file, wanted a mean of Caffe's"),
        (missing, "wanted --prototxt=FILE, --caffemodel=FILE and --output=FOLDER"),
        (kept, "network 'resnet8' from 'net': found as layer 1 with weights 'conv'"),
    ):
        # A warning may stand before the error.
        assert ended[0] == 2 and match in ended[2].splitlines()[-1]
        assert not any("Traceback" in line for line in ended[2].splitlines())
