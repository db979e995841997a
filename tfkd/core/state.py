"""The variables of a run by role and position, which is what checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras


def by_role(roles: Mapping[str, Sequence[keras.Variable]]) -> dict[str, keras.Variable]:
    """Returns every variable once, under ``role/position``.

    Positions, not paths, because paths repeat when teacher and student are of one architecture.

    Args:
        roles: The variables of each role; one that has appeared before is left out.
    """
    listed: dict[str, keras.Variable] = {}
    seen: set[int] = set()
    for role, variables in roles.items():
        for position, variable in enumerate(variables):
            if id(variable) not in seen:
                seen.add(id(variable))
                listed[f"{role}/{position}"] = variable
    return listed
