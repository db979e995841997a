"""Plain training: the label loss alone, with no teacher. The baseline of every comparison."""

from __future__ import annotations

from tfkd.core import Objective, Requires, Terms, register


@register("plain")
class Plain(Objective):
    """Adds nothing to the label loss."""

    requires = Requires(allows_soft_labels=True)

    def term_names(self) -> tuple[str, ...]:
        return ()

    def compute(self, context) -> Terms:
        return Terms({})
