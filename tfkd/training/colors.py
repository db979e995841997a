"""The colors of the pictures that runs and comparisons leave."""

COLORS = ("#4c566a", "#d08770", "#2e7d6b", "#5e81ac", "#b48ead", "#8fae4f", "#c2544f")
GRAY = "#b8bec9"
