"""Imports TensorFlow without the lines about the machine that it writes.

They come from C++ initializers that run before TF_CPP_MIN_LOG_LEVEL is looked at, so the file
descriptor of stderr itself is set aside. If the import fails, what was written there is shown.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile

# Until tools.entry heeds signals there is nothing to save and nothing to say.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def import_tensorflow():
    """Returns TensorFlow, or ends the program with one line and status 2."""
    program = os.path.basename(sys.argv[0])
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            return importlib.import_module("tensorflow")
        except ImportError as error:
            aside.seek(0)
            os.write(stderr, aside.read())
            failure = f"TensorFlow cannot be imported ({error}); 'make env' installs it"
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    print(f"{program}: {failure}", file=sys.stderr)
    sys.exit(2)


tf = import_tensorflow()
