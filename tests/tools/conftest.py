"""The binaries as a user calls them."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 240


@dataclasses.dataclass(frozen=True)
class Call:
    """A binary that was started; reading one of its results waits for the end."""

    process: subprocess.Popen

    def ended(self):
        """Returns status, stdout and stderr."""
        try:
            stdout, stderr = self.process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            stdout, stderr = self.process.communicate()
            raise AssertionError(f"still running after {LIMIT} s: {stdout} {stderr}") from None
        return self.process.returncode, stdout, stderr


@pytest.fixture(scope="session")
def start():
    """``start("train.py", "--flag=value", ..., cwd=folder)`` starts a binary."""

    def launch(tool, *arguments, cwd=ROOT, **environment):
        # The tests' own level would hide what the binaries themselves have to keep quiet.
        inherited = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL",)}
        return Call(
            subprocess.Popen(
                [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)],
                cwd=cwd,
                env={**inherited, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    return launch


@pytest.fixture(scope="session")
def experiment():
    """``experiment("alone")``: the flag with a config of tests/data/tiny_experiment.py."""
    path = ROOT / "tests" / "data" / "tiny_experiment.py"
    return lambda argument: f"--config={path}:{argument}"
