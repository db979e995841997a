"""The colors of all pictures, each for one thing everywhere.

Those of roles and numbers are of Okabe and Ito's set ("Color Universal Design", 2008), which also
those tell apart who see no red, green or blue.
"""

TEACHER, ALONE = "#3b3b3b", "#e69f00"
METHODS = ("#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
"""The methods of a comparison, in its order."""

GRAY, WORDS = "#c0c5cd", "#7b8494"
"""What has no color of its own, and words about it."""

VALIDATION, TEST, BEST = METHODS[0], TEACHER, METHODS[3]
LABEL_LOSS, DISTILLATION_LOSS = ALONE, METHODS[0]

BLOCKS = ("#5e81ac", "#2e7d6b", "#d08770", "#8f6593", "#b48a2c", "#4c7a9c", "#a3514f")
"""The stages of a network, one below the other, each with its name."""
INK, FAINT = "#2e3440", "#8b93a3"
