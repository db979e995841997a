"""tools/models.py as a user calls it."""

from matplotlib import image as images


def test_what_was_shown_once_is_shown_again_without_tensorflow(call_all, start, tmp_path):
    cache = tmp_path / "cache"
    words = ("models.py", "--name=resnet8", "--classes=10")
    ((_, shown, _),) = call_all([words], TFKD_CACHE=str(cache))
    (tmp_path / "tensorflow.py").write_text("raise ImportError('TensorFlow was imported')")
    environment = {"TFKD_CACHE": str(cache), "PYTHONPATH": str(tmp_path)}
    assert start(*words, **environment).ended() == (0, shown, "")
    # Other words, and texts of other code, are made anew.
    assert "TensorFlow was imported" in start(*words[:2], **environment).ended()[2]
    (kept,) = (cache / "printed").iterdir()
    kept.write_text("other\n" + kept.read_text().partition("\n")[2])
    assert "TensorFlow was imported" in start(*words, **environment).ended()[2]


def test_networks_are_shown_and_drawn_and_wrong_calls_told(call_all, tmp_path):
    picture = tmp_path / "resnet8.png"
    shown, unknown, small, ending, help_text = call_all(
        [
            ("models.py", "--name=resnet8", "--classes=10", f"--output={picture}"),
            ("models.py", "--name=resnet9"),
            ("models.py", "--name=resnet8", "--image_size=2"),
            ("models.py", f"--output={tmp_path}/table.png"),
            ("models.py", "--help"),
        ]
    )
    assert shown[0] == 0, shown[2]
    first, *_, last = shown[1].strip().splitlines()
    assert first == "resnet8: 32x32x3 to 10 classes, 78.0 K parameters, 12.5 M MACs"
    assert last == f"wrote {picture}"
    assert images.imread(picture).ndim == 3
    assert help_text[0] == 0
    assert "--image_size" in help_text[1]
    for (status, stdout, stderr), words in (
        (unknown, "unknown network 'resnet9'; did you mean 'resnet"),
        (small, "network 'resnet8': found input_shape=(2, 2, 3); wanted an image of 4x4"),
        (ending, "found ending '.png'; wanted .txt for the table"),
    ):
        assert (status, stdout) == (2, "")
        assert words in stderr
        assert stderr.count("\n") == 1
