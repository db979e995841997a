"""The words of a command line, before the flags are read: shipped configs, ``~`` and ``none``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_UNSET = ("none", "unset")


def read(given: Iterable[str]) -> list[str]:
    """Returns the words of a command line as the flags take them.

    A config is named by its path or, where it is a shipped one, by its name (``quickstart:kd``);
    and ``~`` is one's home folder, which a shell does not replace behind a ``=``.

    Args:
        given: The words behind the name of the program.
    """
    from tfkd.training import config_file  # It imports TensorFlow.

    found = [re.sub(r"^(--?[\w.]+=(?:folder:)?)(~.*)$", _at_home, word) for word in given]
    for position, word in enumerate(found):
        flag, sign, value = word.partition("=")
        if flag not in ("--config", "-config") or (not sign and position + 1 == len(found)):
            continue
        path, colon, argument = (value if sign else found[position + 1]).partition(":")
        reference = f"{config_file.find(path) or path}{colon}{argument}"
        found[position if sign else position + 1] = f"{flag}={reference}" if sign else reference
    return found


def without_unset(given: Iterable[str]) -> tuple[list[str], list[str]]:
    """Returns the words of a command line, and the fields of the config that it unsets.

    ``--config.FIELD=none`` unsets an optional field. Where ``none`` is one of the words that it
    takes, as for ``data.augment``, that is ``--config.FIELD=unset``.

    Args:
        given: The words, as :func:`read` returns them.

    Raises:
        TfkdError: For a config that cannot be read.
    """
    from tfkd.training import config as configs

    given = list(given)
    asked = {}
    for word in given:
        found = re.fullmatch(r"--?config\.([^=]+)=(\w+)", word)
        if found and found[2].lower() in _UNSET:
            asked[word] = found[1]
    reference = re.search(r"(?:^|\n)--?config[=\n]([^\n]+)", "\n".join(given))
    if not asked or reference is None:
        return given, []
    config = configs.load(reference[1])
    unset = {
        word: field
        for word, field in asked.items()
        if configs.is_optional(config, field, word.rpartition("=")[2].lower())
    }
    return [word for word in given if word not in unset], list(unset.values())


def _at_home(word: re.Match[str]) -> str:
    return word[1] + os.path.expanduser(word[2])
