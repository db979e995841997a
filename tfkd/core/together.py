"""Whether objectives may stand beside one another in one run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from tfkd.core.objective import Objective
from tfkd.errors import TfkdError, TfkdWarning


def check_together(objectives: Sequence[Objective]) -> None:
    """Checks that logits in the place of the student's go with the losses of other objectives.

    They are those of the student that is saved. What makes them would stay untrained where another
    method has a label loss of its own and forms it of other logits, as SSKD does. Of another scale,
    they are not what a teacher's are to be compared with, which a warning tells.

    Args:
        objectives: The objectives of a distiller, their taps chosen.

    Raises:
        TfkdError: Where no label loss would see them.
    """
    for changing in objectives:
        if not changing.replaces_logits:
            continue
        for other in objectives:
            if other is not changing:
                _check_pair(changing, other)


def _check_pair(changing: Objective, other: Objective) -> None:
    taps = other.requires.taps
    reads_them = "logits" in taps.get(("student", "main"), ())
    if other.replaces_label_loss and not reads_them:
        raise TfkdError(
            f"{changing.name} beside {other.name}: found that {other.name} has a label loss of its "
            f"own, of the student's own logits, so that what {changing.name} puts in their place "
            "would never be trained on labels; wanted one of the two alone"
        )
    teachers = {tap for (network, _), names in taps.items() for tap in names
                if network.split(":")[0] == "teacher"}  # fmt: skip
    if changing.rescales_logits and reads_them and "logits" in teachers:
        warnings.warn(
            f"{other.name} beside {changing.name} compares logits that {changing.name} rescales "
            f"with a teacher's that are not; {changing.name} with {changing.rescales_logits} "
            "does not",
            TfkdWarning,
            stacklevel=4,
        )
