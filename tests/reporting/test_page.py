"""Pages with tables between comments."""

import json

import pytest

from tfkd.errors import TfkdError
from tfkd.reporting import rewrite, tables

TABLE = """\
| role | top-1 % |
|---|---|
| `teacher` | 90.00 |
"""


@pytest.fixture
def page(tmp_path):
    """``page(text)``: the path of a page beside a comparison of one run."""
    folder = tmp_path / "runs"
    folder.mkdir()
    row = dict(role="teacher", seed=0, top1=90.0, agreement=None, params=1, macs=2, seconds=3.0)
    (folder / "summary.json").write_text(json.dumps({"experiment": "one", "rows": [row]}))

    def write(text):
        path = tmp_path / "PAGE.md"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_table_takes_the_place_between_its_comments(page):
    before = "# Page ±\n\n<!-- table: comparison runs score -->\n"
    path = page(before + "| old |\n<!-- end -->\n\nText.")
    (changed,) = rewrite(path)
    assert path.read_text(encoding="utf-8") == before + TABLE + "<!-- end -->\n\nText."
    assert (changed.line, changed.words) == (3, "comparison runs score")
    assert (changed.written, changed.wanted) == ("| old |\n", TABLE)
    assert not changed.holds


def test_page_that_is_right_is_not_written(page):
    path = page(f"<!-- table: comparison runs score -->\n{TABLE}<!-- end -->\n")
    path.chmod(0o444)
    before = path.stat()
    assert rewrite(path) == []
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [table.holds for table in tables(path)] == [True]


def test_only_what_differs_changes(page):
    right = f"<!-- table: comparison runs score -->\n{TABLE}<!-- end -->\n"
    path = page(right + "Between.\n" + right.replace("90.00", "91.00") + "After.\n")
    assert [table.holds for table in tables(path)] == [True, False]
    assert [table.line for table in rewrite(path)] == [7]
    assert path.read_text() == right + "Between.\n" + right + "After.\n"


def test_comment_may_have_several_lines(page):
    path = page("<!-- table: comparison\n    runs\n    score -->\n<!-- end -->\n")
    (table,) = rewrite(path)
    assert table.words == "comparison runs score"
    assert path.read_text().startswith("<!-- table: comparison\n    runs\n    score -->\n| role |")


def test_page_without_comments_has_no_tables(page):
    assert tables(page("| by hand |\n`<!-- table: comparison runs score -->` is a comment\n")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: comparison runs score -->\n", "found 1 lines .* and 0 of"),
        ("<!-- end -->\n", "found 0 lines .* and 1 of"),
        (
            "<!-- table: comparison runs -->\n<!-- table: comparison runs -->\n<!-- end -->\n",
            "found 2 lines .* and 1 of",
        ),
        (
            "\n<!-- table: comparisons runs -->\n<!-- end -->\n",
            "line 2: .*did you mean 'comparison'",
        ),
        ("<!-- table: comparison -->\n<!-- end -->\n", "wanted a kind, a folder and words"),
        ('<!-- table: comparison "runs -->\n<!-- end -->\n', "wanted a kind, a folder and words"),
        ("<!-- table: comparison away score -->\n<!-- end -->\n", "summary.json': No such file"),
    ],
)
def test_wrong_comments_are_refused_in_one_line(page, text, message):
    path = page(text)
    with pytest.raises(TfkdError, match=message) as raised:
        rewrite(path)
    assert "\n" not in str(raised.value)
    assert path.read_text() == text


def test_missing_page_is_refused(tmp_path):
    with pytest.raises(TfkdError, match="AWAY.md.*wanted a text file"):
        tables(tmp_path / "AWAY.md")
