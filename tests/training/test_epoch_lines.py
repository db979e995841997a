"""What a run says of its epochs: a bar on a terminal, elsewhere a line each."""

import re
import sys

from tfkd.training import run


def test_an_epoch_is_a_line_where_no_terminal_shows_a_bar(
    experiment, tmp_path, monkeypatch, capsys
):
    config = experiment("alone", train__verbose=1)
    run(config, tmp_path / "lines")
    said = capsys.readouterr().out
    lines = re.findall(
        r"^epoch (\d/2), \d+\.\d s: .*\bloss \d.*, val_accuracy 0\.\d+.*$", said, re.M
    )
    assert lines == ["1/2", "2/2"]
    assert "\x1b" not in said and "\b" not in said
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run(config, tmp_path / "bar")
    shown = capsys.readouterr().out
    assert "\x1b" in shown and "Epoch 2/2" in shown
    assert "epoch 2/2" not in shown
