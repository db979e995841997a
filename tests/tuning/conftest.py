"""The small experiment that searches vary."""

from pathlib import Path

import pytest

from tfkd.training import config as configs

EXPERIMENT = Path(__file__).parents[1] / "fixtures" / "tiny_experiment.py"


@pytest.fixture(scope="session")
def experiment():
    """``experiment(*space, argument="alone", **fields)``: a config with a search space."""

    def make(*space, argument="alone", **fields):
        config = configs.load(f"{EXPERIMENT}:{argument}")
        return configs.override(config, search_space=space, **fields)

    return make
