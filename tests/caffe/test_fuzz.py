"""Damaged files: a network, or one error of one line, in little memory.

tests/fixtures/caffe_fuzz.py runs many more, and builds what comes out.
"""

import pytest

from tests.caffe import nets
from tests.fixtures.caffe_fuzz import ALLOWED, Files
from tfkd.benchmarks import memory


@pytest.mark.filterwarnings("ignore::tfkd.TfkdWarning")
@pytest.mark.parametrize("change_text", [False, True])
def test_a_thousand_changed_files(change_text, tmp_path):
    fuzz = Files(tmp_path, [(nets.small(), False), (nets.v1(), True)])
    found = []

    def work():
        found.extend(fuzz.planned(number % 2, change_text) for number in range(1000))
        return ()

    most = memory.peak(work) if memory.is_told() else work() or 0
    assert most <= 2 * fuzz.largest + ALLOWED
    # Neither all of them nor none.
    assert 10 < sum(found) < 990
