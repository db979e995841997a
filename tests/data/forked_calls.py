"""Calls binaries one after the other in copies of one process, which has imported TensorFlow once.

    python forked_calls.py CALLS.json

CALLS.json holds a list of calls, each a list of words, the first one the path of a binary. Prints a
list of status, stdout and stderr for each.
"""

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import tools.quiet  # noqa: F401

# isort: split
import tfkd.training  # noqa: F401


def call(words, stdout, stderr):
    """Becomes the binary; does not return."""
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    sys.argv = words
    status = 1
    try:
        runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def result(words):
    """Returns status, stdout and stderr of a call."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        child = os.fork()
        if not child:
            call(words, stdout, stderr)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stdout.seek(0)
        stderr.seek(0)
        return status, stdout.read(), stderr.read()


if __name__ == "__main__":
    print(json.dumps([result(words) for words in json.loads(Path(sys.argv[1]).read_text())]))
