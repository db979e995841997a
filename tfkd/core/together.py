"""Whether objectives may stand beside one another in one run."""

from __future__ import annotations

from collections.abc import Sequence

from tfkd.core.objective import Objective
from tfkd.errors import TfkdError


def check_together(objectives: Sequence[Objective]) -> None:
    """Checks that logits in the place of the student's meet the label loss.

    They are those of the student that is saved. What makes them would stay untrained where another
    method has a label loss of its own and forms it of other logits, as SSKD does.

    Args:
        objectives: The objectives of a distiller, their taps chosen.

    Raises:
        TfkdError: Where they do not.
    """
    for changing in objectives:
        if not changing.replaces_logits:
            continue
        for other in objectives:
            read = other.requires.taps.get(("student", "main"), ())
            if other is changing or not other.replaces_label_loss or "logits" in read:
                continue
            raise TfkdError(
                f"{changing.name} beside {other.name}: found that {other.name} has a label loss of "
                f"its own, of the student's own logits, so that what {changing.name} puts in their "
                "place would never be trained on labels; wanted one of the two alone"
            )
