"""Imports TensorFlow without the lines about the machine that it writes meanwhile.

They come from C++ initialisers that run before TF_CPP_MIN_LOG_LEVEL is looked at, so the file
descriptor of stderr itself is set aside. If the import fails, what was written there is shown.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def import_tensorflow() -> None:
    """Imports TensorFlow, or ends the program with one line and status 2."""
    program = os.path.basename(sys.argv[0])
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        failure = None
        try:
            importlib.import_module("tensorflow")
        except KeyboardInterrupt:
            failure, status = f"{program}: interrupted; the same command continues", 130
        except ImportError as error:
            failure, status = f"{program}: no TensorFlow ({error}); 'make env' installs it", 2
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        if failure:
            aside.seek(0)
            os.write(2, aside.read())
            print(failure, file=sys.stderr)
            sys.exit(status)


import_tensorflow()
