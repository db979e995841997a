"""Taps that many methods read."""

LOGITS = {("student", "main"): ["logits"], ("teacher", "main"): ["logits"]}
"""The logits of student and teacher on the main view."""
