"""Valid JSON of another shape is told in one line that says where and what."""

import json

import pytest

from tfkd import TfkdError, json_shapes

SHAPE = {
    "name": str,
    "sizes": [(None, int)],
    "score": (None, float),
    "more?": {"*": {"file": str}},
}
GOOD = {"name": "a", "sizes": [1, None], "score": 1, "more": {"x": {"file": "f"}}, "other": []}


def test_what_fits_comes_back(tmp_path):
    (tmp_path / "file.json").write_text(json.dumps(GOOD))
    assert json_shapes.read(tmp_path / "file.json", SHAPE) == GOOD
    assert json_shapes.parse('{"name": "a", "sizes": [], "score": null}', SHAPE)["sizes"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the file is [], not an object"),
        ("3", "the file is 3, not an object"),
        ("{", "the file is no JSON: Expecting property name"),
        (b"\xff\xfe", "the file is no JSON: "),
        ("[" * 100_000, "the file is nested too deep"),
        ("{}", "the file has no 'name'"),
        (json.dumps({**GOOD, "name": None}), "name is null, not a string"),
        (json.dumps({**GOOD, "sizes": {}}), "sizes is {}, not a list"),
        (json.dumps({**GOOD, "sizes": [1, True]}), "sizes[1] is true, not a whole number"),
        (json.dumps({**GOOD, "sizes": [10**30]}), "sizes[0] is 10000000"),
        (json.dumps({**GOOD, "sizes": [1.5]}), "sizes[0] is 1.5, not a whole number"),
        (json.dumps({**GOOD, "score": "1"}), 'score is "1", not a number'),
        (json.dumps({**GOOD, "more": {"x": {}}}), "more.x has no 'file'"),
        (json.dumps({**GOOD, "name": ["a"] * 100}), 'name is a list (["a", "a", "a",'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(text, message, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TfkdError) as caught:
        json_shapes.read_or_tell(path, SHAPE, "a file of mine")
    line = str(caught.value)
    assert line.startswith(f"file {str(path)!r}: {message}")
    assert line.endswith("; wanted a file of mine") and "\n" not in line and len(line) < 300


def test_a_file_that_is_too_large_or_missing_is_not_read(tmp_path):
    with open(tmp_path / "file.json", "wb") as file:
        file.truncate(json_shapes.MOST_BYTES + 1)  # Takes no room.
    with pytest.raises(TfkdError, match=r"the file has 268,435,457 bytes; wanted mine"):
        json_shapes.read_or_tell(tmp_path / "file.json", SHAPE, "mine")
    with pytest.raises(TfkdError, match=r"cannot be read \(No such file or directory\), wanted"):
        json_shapes.read_or_tell(tmp_path / "gone.json", SHAPE, "mine")
