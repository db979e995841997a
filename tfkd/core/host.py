"""The class that a mix-in of the distiller is mixed into, for the type checker alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Host = Any
else:
    Host = object
