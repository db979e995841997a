"""The argument of a config file: ``a,b,c`` of ``--config=FILE.py:a,b,c``.

A form names the words: those in capitals stand for any word of a kind, the others for themselves.

    words = arguments.parse(
        argument, "METHOD,TEACHER,STUDENT", "plain,NETWORK", default="kd,resnet56,resnet20",
        METHOD=published.names(), TEACHER=models.names(), STUDENT=models.names(),
        NETWORK=models.names(),
    )
    words.plain, words.method, words.teacher  # False, "kd", "resnet56"

The word ``smoke`` may stand anywhere in any argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

from tfkd.errors import TfkdError, unknown

SMOKE = "smoke"
"""Asks for the experiment in small: see :func:`tfkd.training.config.shrink`."""


class Words(SimpleNamespace):
    """The words of an argument by the names that the forms give them, in small letters.

    A word in capitals is ``None`` where the argument has none; any other is ``True`` where it was
    given.

    Attributes:
        name: All of them in one word, for ``config.experiment``.
        smoke: Whether the word ``smoke`` is among them.
    """

    name: str
    smoke: bool

    def argument(self, *words: str) -> str:
        """Returns an argument of other words, ``smoke`` among them if it was given."""
        return ",".join([*words, SMOKE] if self.smoke else words)


def parse(argument: str, *forms: str, default: str, **known: Iterable[str]) -> Words:
    """Reads the argument of a config file.

    Args:
        argument: Words with commas between them; empty for the default.
        *forms: The words that may be given, such as ``"METHOD,TEACHER,STUDENT"``.
        default: The words that stand for none.
        **known: The words that may take the place of one in capitals; those of others are not
            checked.

    Raises:
        TfkdError: When the argument has none of the forms, or a word is unknown; the nearest known
            one is named.
    """
    words, smoke = _without_smoke(argument)
    words = words or default.split(",")
    names = _form(argument, words, [form.split(",") for form in forms], default)
    found: dict[str, str | bool | None] = {
        name.lower(): None if name.isupper() else False
        for form in forms
        for name in form.split(",")
    }
    for name, word in zip(names, words):
        if name in known and word not in known[name]:
            raise unknown(name.lower(), word, known[name])
        found[name.lower()] = word if name.isupper() else True
    return Words(**found, name="-".join([*words, SMOKE] if smoke else words), smoke=smoke)


def with_first(argument: str, word: str) -> str:
    """Returns an argument with another first word, apart from ``smoke``."""
    words, smoke = _without_smoke(argument)
    return ",".join([word, *words[1:], *([SMOKE] if smoke else [])])


def _without_smoke(argument: str) -> tuple[list[str], bool]:
    words = argument.split(",") if argument else []
    return [word for word in words if word != SMOKE], SMOKE in words


def _form(argument: str, words: list[str], forms: list[list[str]], example: str) -> list[str]:
    """Returns the names of the words.

    A word that stands for itself in some form stands for nothing else in that place.
    """
    fixed = {(at, name) for form in forms for at, name in enumerate(form) if not name.isupper()}
    for form in forms:
        if len(form) == len(words) and all(
            (at, word) not in fixed if name.isupper() else word == name
            for at, (name, word) in enumerate(zip(form, words))
        ):
            return form
    wanted = " or ".join(",".join(form) for form in forms)
    raise TfkdError(
        f"argument {argument!r}: found {len(words)} words, wanted {wanted}, such as {example}"
    )
