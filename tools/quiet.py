"""Imports TensorFlow without the lines about the machine that it writes.

They come from C++ initializers that run before TF_CPP_MIN_LOG_LEVEL is looked at, so the file
descriptor of stderr itself is set aside. If the import fails, what was written there is shown.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Iterator

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
            with _without_sklearn():
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


@contextlib.contextmanager
def _without_sklearn() -> Iterator[None]:
    """Keeps Keras from importing scikit-learn, which takes a third of the time of the whole import.

    Keras does so only for ``keras.wrappers``, which then are imported when somebody asks for them.
    """
    if "sklearn" in sys.modules:
        yield
        return
    sys.modules["sklearn"] = None
    try:
        yield
    finally:
        del sys.modules["sklearn"]
        # Those which have noted that there is none are forgotten, and so are read again.
        for name, module in list(sys.modules.items()):
            if name.startswith("keras.") and vars(module).get("sklearn", "unknown") is None:
                del sys.modules[name]
        if "keras.wrappers" in sys.modules:
            _import_lazily("keras.wrappers")


def _import_lazily(name: str) -> None:
    """Puts a module in the place of one that was imported, to be read at the first look at it."""
    before, own = sys.modules.pop(name), name.rpartition(".")[2]
    holders = [
        each for each in sys.modules.values() if getattr(each, "__dict__", {}).get(own) is before
    ]
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for holder in holders:
        setattr(holder, own, module)


tf = import_tensorflow()
