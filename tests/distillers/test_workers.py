"""Methods on two worker processes end as in one; the script runs all of them.

Here are those that gather entries of the batch, keep a bank, or see further views.
"""

import pytest

from tests.fixtures import methods_on_workers


@pytest.mark.slow
def test_two_workers_train_as_one_process():
    table = methods_on_workers.main("dist", "mld", "ps_kd")
    assert {label.split()[0] for label in table} == {"dist", "mld", "ps_kd"}
    for label, (distance, mistake) in table.items():
        assert mistake == "", label
        assert distance < 2e-5, label
