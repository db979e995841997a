"""Flags of tools/evaluate.py that do not go together: one line, and nothing is loaded."""

import pytest

CASES = {
    "several runs": (["--run=a", "--run=b"], "--run: found 2 of them, wanted one"),
    "tap": (["--run=a", "--tap=pooled"], "--tap: found it without --probe"),
    "data": (["--run=a", "--probe=digits", "--data=digits"], "--data: found it beside --probe"),
    "no run": (["--probe=digits"], "network to probe: found no --run"),
    "no such run": (["--run=a", "--probe=digits"], "run folder 'a': found no finished run"),
}


@pytest.mark.slow
def test_flags_without_effect_and_missing_runs_are_one_line(call_all):
    found = call_all([["evaluate.py", *arguments] for arguments, _ in CASES.values()])
    for (_, message), (status, _, stderr) in zip(CASES.values(), found, strict=True):
        assert status == 2 and len(stderr.splitlines()) == 1, stderr
        assert stderr.startswith(f"evaluate.py: {message}"), stderr
