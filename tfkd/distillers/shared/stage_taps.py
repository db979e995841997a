"""The stages of a network, found by the names that all networks of tfkd give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tfkd import models
from tfkd.core import Spec
from tfkd.core.objective import NetworkView
from tfkd.distillers.shared.layers import check_map, mismatch
from tfkd.errors import TfkdError, did_you_mean

_STAGE = re.compile(r"stage(\d+)")


def stage_taps(network: models.Network, method: str) -> list[str]:
    """Returns the taps ``stage1``, ``stage2``, ... of a network, from the image on.

    Names that the network gives to other taps (:attr:`tfkd.models.Network.taps`) count as well.

    Args:
        network: The network.
        method: Name of the method, for the message.

    Raises:
        TfkdError: When it has none.
    """
    known = {*models.tap_names(network.model), *network.taps}
    found = sorted((name for name in known if _STAGE.fullmatch(name)), key=_number)
    if not found:
        raise TfkdError(
            f"{method}: found no taps called stage1, stage2, ... in network {network.name!r}; "
            "wanted such names, by its layers or by tfkd.models.Network(model, taps=...), or the "
            "taps in the method's settings"
        )
    return found


def has_tap(network: models.Network, name: str) -> bool:
    """Returns whether a network has a tap of this name."""
    return name in network.taps or name in models.tap_names(network.model)


def check_tap(network: models.Network, tap: str, method: str, setting: str) -> None:
    """Checks that a network has the tap that a setting names.

    Args:
        network: The network.
        tap: Name of the tap.
        method: Name of the method, for the message.
        setting: Name of the setting, likewise.

    Raises:
        TfkdError: When it has none of this name.
    """
    # The only call of a layer may be called its first.
    if has_tap(network, tap) or has_tap(network, tap.removesuffix(":1")):
        return
    near = did_you_mean(tap, [*network.taps, *models.tap_names(network.model)])
    raise TfkdError(
        f"{method}: found no tap {tap!r} in network {network.name!r}{near}; wanted {setting}=NAME "
        "of one of its features, or that name for one by tfkd.models.Network(model, taps=...)"
    )


def paired_stages(
    student: models.Network,
    teacher: models.Network,
    method: str,
    student_taps: Sequence[str] = (),
    teacher_taps: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """Returns pairs of a stage of the student and one of the teacher, from the image on.

    They are counted from the end, the deepest with the deepest; of the network with more stages the
    first ones are left out. Taps that were named are all paired.

    Args:
        student: The student.
        teacher: The teacher.
        method: Name of the method, for messages.
        student_taps: Taps of the student in place of its stages, the setting of this name.
        teacher_taps: The teacher's, likewise.

    Raises:
        TfkdError: When a network has no stages, or a tap that was named has no partner.
    """
    students = list(student_taps) or stage_taps(student, method)
    teachers = list(teacher_taps) or stage_taps(teacher, method)
    count = min(len(students), len(teachers))
    if count < max(len(student_taps), len(teacher_taps)):
        raise TfkdError(
            f"{method}: found the taps {', '.join(students)} of the student and "
            f"{', '.join(teachers)} of the teacher, wanted equally many (student_taps, "
            "teacher_taps)"
        )
    return list(zip(students[-count:], teachers[-count:]))


def taps_of_pairs(pairs: Sequence[tuple[str, str]]) -> Mapping[NetworkView, list[str]]:
    """Returns the taps of pairs on the main view, as ``Requires`` takes them."""
    students, teachers = zip(*pairs)
    return {("student", "main"): list(students), ("teacher", "main"): list(teachers)}


def channels_of_pairs(
    spec: Spec, pairs: Sequence[tuple[str, str]], method: str
) -> list[tuple[int, int]]:
    """Returns the channels of student and teacher of pairs of maps that are compared in place.

    Args:
        spec: The run.
        pairs: A tap of the student and one of the teacher each.
        method: Name of the method, for messages.

    Raises:
        TfkdError: When a tap is no feature map, or its height or width is unknown.
    """
    found = []
    for own, theirs in pairs:
        student = spec.shapes["student", "main"][own]
        teacher = spec.shapes["teacher", "main"][theirs]
        *own_size, width = check_map(method, "student", own, student)
        *their_size, teacher_width = check_map(method, "teacher", theirs, teacher)
        if None in (*own_size, *their_size):
            wanted = "maps of known height and width"
            raise mismatch(method, own, student, theirs, teacher, wanted)
        found.append((width, teacher_width))
    return found


def _number(name: str) -> int:
    match = _STAGE.fullmatch(name)
    return int(match[1]) if match else 0
