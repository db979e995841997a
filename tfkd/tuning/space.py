"""What a search varies: fields of a config, the values each may take, the configs that follow."""

from __future__ import annotations

import ast
import copy
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras_tuner
import ml_collections

from tfkd.errors import TfkdError
from tfkd.training import config as configs
from tfkd.training import config_checks

_WORDS = {"true": True, "false": False}

WEIGHTS = "weights"
"""Stands for the weights of all methods in a search."""

WEIGHT_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)

_CHECKED_AHEAD = 200
"""Combinations of a search that are looked at before it starts; a run looks at its own anyway."""


@dataclasses.dataclass(frozen=True)
class Dimension:
    """Fields that take one value together, and the values to try.

    Attributes:
        fields: Names of fields, as flags give them.
        values: The values, in the order in which a grid tries them.
    """

    fields: tuple[str, ...]
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The fields in one word."""
        return ",".join(self.fields)

    @property
    def numeric(self) -> bool:
        """Whether the values are all int or all float, so that they can stand on an axis."""
        kinds = {type(value) for value in self.values}
        return len(kinds) == 1 and kinds <= {int, float}

    def options(self) -> dict[Any, Any]:
        """Returns the values by what keras-tuner sees of them.

        It takes numbers and words of one type only, and turns truth values into numbers: whatever
        is no number goes by its JSON text.
        """
        if self.numeric:
            return {value: value for value in self.values}
        return {_text(value): value for value in self.values}


def dimensions(config: ml_collections.ConfigDict) -> tuple[Dimension, ...]:
    """Returns the dimensions of ``config.search_space``, their values in the types of the fields.

    Raises:
        TfkdError: For an entry that is not made by :func:`tfkd.training.config.vary`, an unknown
            field or one listed twice, no value, a value listed twice or of another type; or when
            there is nothing to search.
    """
    if not config.search_space:
        raise TfkdError(
            "search space: found nothing to vary, wanted search_space in the config or "
            "--search=FIELD=VALUE,VALUE"
        )
    found: list[Dimension] = []
    for position, entry in enumerate(config.search_space):
        where = f"search_space[{position}]"
        made = isinstance(entry, (Mapping, ml_collections.ConfigDict))
        if not made or sorted(entry) != ["choices", "fields"]:
            raise TfkdError(f"{where}: found {entry!r}, wanted fields and choices, as vary() makes")
        fields = _sequence(f"{where}.fields", entry["fields"])
        values = _sequence(f"{where}.choices", entry["choices"])
        for field in fields:
            if any(field in other.fields for other in found) or fields.count(field) > 1:
                raise TfkdError(f"search space: found {field} twice, wanted each field once")
            _check_field(config, field)
        found.append(Dimension(fields, _typed(config, fields, values)))
    return tuple(found)


def extended(config: ml_collections.ConfigDict, texts: Sequence[str]) -> ml_collections.ConfigDict:
    """Returns the config with further dimensions, each written ``FIELD=VALUE,VALUE``.

    Tied fields are written ``FIELD,FIELD=VALUE,VALUE``. Values with commas of their own stand in
    parentheses. A dimension of the same fields as one of the config takes its place. The word
    ``weights`` alone is the weight of each method of the config, a quarter to four times of what it
    is there.

    Args:
        config: An experiment.
        texts: The dimensions.

    Raises:
        TfkdError: For a text of another form, or an unknown field.
    """
    space = list(config.search_space)
    for text in _spelled_out(config, texts):
        names, equals, listed = text.partition("=")
        fields = tuple(name.strip() for name in names.split(","))
        if not equals or not all(fields):
            raise TfkdError(f"search {text!r}: wanted FIELD=VALUE,VALUE or FIELD,FIELD=VALUE,VALUE")
        kinds = {_check_field(config, field) for field in fields}
        values = [_value(each, kinds == {str}) for each in _split(listed)]
        entry = configs.vary(*fields, choices=values)
        same = [at for at, other in enumerate(space) if tuple(other["fields"]) == fields]
        if same:
            space[same[0]] = entry
        else:
            space.append(entry)
    return configs.override(config, search_space=tuple(space))


def _spelled_out(config: ml_collections.ConfigDict, texts: Sequence[str]) -> Iterator[str]:
    """Yields the dimensions with :data:`WEIGHTS` in the form of all others."""
    for text in texts:
        if text.strip() != WEIGHTS:
            yield text
            continue
        if not config.methods:
            raise TfkdError(f"search {WEIGHTS!r}: found no methods in the config, wanted one")
        for name, entry in config.methods.items():
            values = ",".join(f"{factor * entry.weight:.6g}" for factor in WEIGHT_FACTORS)
            yield f"methods.{name}.weight={values}"


def combinations(space: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    """Yields every combination of values by dimension name, the last one changing fastest."""
    for values in itertools.product(*(dimension.values for dimension in space)):
        yield {dimension.name: value for dimension, value in zip(space, values)}


def trial_config(
    config: ml_collections.ConfigDict, space: Sequence[Dimension], chosen: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Returns the config of one trial: an ordinary experiment without a search space.

    Args:
        config: The experiment of the search.
        space: Its dimensions.
        chosen: A value for the name of each.
    """
    changed = configs.override(config, search_space=())
    for dimension in space:
        for field in dimension.fields:
            _set(changed, field, chosen[dimension.name])
    return changed.lock()


def check_combinations(config: ml_collections.ConfigDict, space: Sequence[Dimension]) -> None:
    """Checks the configs of the trials, as far as that goes before anything is loaded.

    Raises:
        TfkdError: Naming the values of a trial that cannot be.
    """
    for chosen in itertools.islice(combinations(space), _CHECKED_AHEAD):
        try:
            config_checks.validate(trial_config(config, space, chosen))
        except TfkdError as error:
            raise TfkdError(f"trial with {describe(chosen)}: {error}") from None


def describe(chosen: Mapping[str, Any]) -> str:
    """Returns the values of a trial in one line."""
    return ", ".join(f"{name}={_text(value)}" for name, value in chosen.items())


def hyperparameters(space: Sequence[Dimension]) -> keras_tuner.HyperParameters:
    """Returns the space as keras-tuner knows it: one choice for each dimension."""
    declared = keras_tuner.HyperParameters()
    for dimension in space:
        declared.Choice(dimension.name, list(dimension.options()))
    return declared


def chosen_values(space: Sequence[Dimension], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values that keras-tuner chose, as the config takes them."""
    return {each.name: each.options()[values[each.name]] for each in space}


def _sequence(where: str, found: Any) -> tuple[Any, ...]:
    if not isinstance(found, (tuple, list)) or not found:
        raise TfkdError(f"{where}: found {found!r}, wanted a list of one or more")
    return tuple(found)


def _check_field(config: ml_collections.ConfigDict, field: Any) -> type | None:
    """Returns the type of a field; none for one of a network, which checks its own."""
    known = configs.fields(config)
    if isinstance(field, str) and field in known and not field.startswith("search_space"):
        return known[field]
    section = str(field).rpartition(".")[0]
    # Of all sections that may have keywords of their own, only those of networks preprocess.
    if section.endswith(".kwargs") and section.removesuffix("kwargs") + "preprocess" in known:
        return None
    raise configs.unknown_field(config, str(field))


def _typed(
    config: ml_collections.ConfigDict, fields: Sequence[str], values: Sequence[Any]
) -> tuple[Any, ...]:
    """Returns the values as the fields hold them; a whole number, say, as a float."""
    typed: list[Any] = []
    for value in values:
        held = []
        for field in fields:
            kind = _check_field(config, field)
            try:
                if isinstance(value, bool) and kind in (int, float):
                    raise TypeError
                held.append(_set(copy.deepcopy(config), field, value))
            except (TypeError, ValueError):
                raise TfkdError(
                    f"search space, {field}: found {value!r}, wanted {kind.__name__}"
                ) from None
        # Tied fields of several types take the value as it is.
        typed.append(held[0] if len({type(each) for each in held}) == 1 else value)
    texts = [_text(value) for value in typed]
    twice = [text for text in texts if texts.count(text) > 1]
    if twice:
        raise TfkdError(
            f"search space, {','.join(fields)}: found {twice[0]} twice, wanted each value once"
        )
    return tuple(typed)


def _set(config: ml_collections.ConfigDict, field: str, value: Any) -> Any:
    """Changes a field in place and returns what it then holds."""
    *path, last = field.split(".")
    section = config
    for word in path:
        name, position = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", word).groups()
        section = section[name] if position is None else section[name][int(position)]
    with section.unlocked():
        section[last] = value
    return section[last]


def _text(value: Any) -> str:
    return json.dumps(configs.to_dict(value))


def _split(text: str) -> list[str]:
    """Returns the parts of a text between the commas that stand in no parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _value(text: str, words: bool) -> Any:
    """Returns the value that a text stands for; the text itself where a field holds words."""
    if words and text != "None":
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return _WORDS.get(text, text)
