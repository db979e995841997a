"""tools/results.py as a user calls it."""

import json

RIGHT = """\
<!-- table: comparison runs score -->
| role | top-1 % |
|---|---|
| `kd` | 90.00 |
<!-- end -->
"""


def test_tables_are_checked_and_written(call_all, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "summary.json").write_text(
        json.dumps({"rows": [{"role": "kd", "seed": 0, "top1": 90.0}]})
    )
    right, wrong, broken = (tmp_path / f"{name}.md" for name in ("right", "wrong", "broken"))
    right.write_text(RIGHT)
    wrong.write_text("Text.\n" + RIGHT.replace("90.00", "99.00"))
    broken.write_text(RIGHT.replace("runs", "away"))
    before, written, after, refused, shown = call_all(
        [
            ("results.py", "--check", str(right), str(wrong)),
            ("results.py", str(right), str(wrong)),
            ("results.py", "--check", str(right), str(wrong)),
            ("results.py", "--check", str(broken)),
            ("results.py", "--help"),
        ]
    )
    words = f"{wrong}, line 2: table 'comparison runs score'"
    assert before == [1, f"{words} differs from its files\n", ""]
    assert written == [0, f"{words} written\n", ""]
    assert after == [0, "", ""]
    assert wrong.read_text() == "Text.\n" + RIGHT
    assert right.read_text() == RIGHT
    assert refused[:2] == [2, ""]
    assert "broken.md, line 1: file" in refused[2] and refused[2].count("\n") == 1
    assert shown[0] == 0 and "--check" in shown[1]
