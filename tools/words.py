"""The words of a command line, before the flags are read: names of shipped configs, and ``~``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable


def read(given: Iterable[str]) -> list[str]:
    """Returns the words of a command line as the flags take them.

    A config is named by its path or, where it is a shipped one, by its name (``quickstart:kd``);
    and ``~`` is one's home folder, which a shell does not replace behind a ``=``.

    Args:
        given: The words behind the name of the program.
    """
    from tfkd.training import config_file

    found = [re.sub(r"^(--?[\w.]+=(?:folder:)?)(~.*)$", _at_home, word) for word in given]
    for position, word in enumerate(found):
        flag, sign, value = word.partition("=")
        if flag not in ("--config", "-config") or (not sign and position + 1 == len(found)):
            continue
        path, colon, argument = (value if sign else found[position + 1]).partition(":")
        reference = f"{config_file.find(path) or path}{colon}{argument}"
        found[position if sign else position + 1] = f"{flag}={reference}" if sign else reference
    return found


def _at_home(word: re.Match[str]) -> str:
    return word[1] + os.path.expanduser(word[2])
