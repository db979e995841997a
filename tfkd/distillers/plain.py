"""Plain training: the label loss alone, with no teacher. The baseline of every comparison."""

from __future__ import annotations

from tfkd.core import Objective, Requires, Terms, register


@register("plain")
class Plain(Objective):
    """Adds nothing to the label loss.

    Args:
        name: Name of the objective.
    """

    requires = Requires(allows_soft_labels=True)

    def __init__(self, name: str = "plain") -> None:
        super().__init__(name=name)

    def term_names(self) -> tuple[str, ...]:
        return ()

    def compute(self, context) -> Terms:
        return Terms({})
