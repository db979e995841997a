"""Imports TensorFlow without the lines about the machine that it writes.

They come from C++ initializers that run before TF_CPP_MIN_LOG_LEVEL is looked at, so the file
descriptor of stderr itself is set aside. If the import fails, what was written there is shown.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile

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
        except KeyboardInterrupt:
            failure, status = "interrupted; the same command continues", 130
        except ImportError as error:
            aside.seek(0)
            os.write(stderr, aside.read())
            failure, status = f"TensorFlow cannot be imported ({error}); 'make env' installs it", 2
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    print(f"{program}: {failure}", file=sys.stderr)
    sys.exit(status)


tf = import_tensorflow()
