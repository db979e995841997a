"""The memory of a piece of work, where the system tells it."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfkd.benchmarks import memory

MIB = 2**20

if not memory.is_told():
    pytest.skip("this system does not tell how much memory was needed", allow_module_level=True)


def test_memory_is_what_work_holds_besides_its_results():
    def holding():
        held = np.ones(32 * MIB, np.uint8)
        return tf.constant(held[-1])

    assert 31 * MIB < memory.peak(holding) < 40 * MIB
    assert memory.peak(lambda: [tf.ones((8 * MIB,))]) < 8 * MIB


def test_each_case_has_a_process_of_its_own():
    assert memory.in_processes(math.pow, [(2.0, 3.0), (3.0, 2.0)]) == [8.0, 9.0]
