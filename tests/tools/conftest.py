"""The binaries as a user calls them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 240


def inherited():
    """Returns the environment without the tests' own log level: the binaries set theirs."""
    return {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}


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
        return Call(
            subprocess.Popen(
                [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)],
                cwd=cwd,
                env={**inherited(), **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                # A suite in the background is deaf to SIGINT, and so would its children be.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        )

    return launch


@pytest.fixture(scope="session")
def call_all(tmp_path_factory):
    """``call_all([("train.py", "--flag=value"), ...])``: status, stdout and stderr of each."""

    def run(calls, **environment):
        path = tmp_path_factory.mktemp("calls") / "calls.json"
        path.write_text(json.dumps([[f"{ROOT}/tools/{tool}", *more] for tool, *more in calls]))
        command = [sys.executable, ROOT / "tests" / "fixtures" / "forked_calls.py", path]
        done = subprocess.run(
            command,
            env={**inherited(), **environment},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def experiment():
    """``experiment("alone")``: the flag with a config of tests/fixtures/tiny_experiment.py."""
    path = ROOT / "tests" / "fixtures" / "tiny_experiment.py"
    return lambda argument: f"--config={path}:{argument}"
