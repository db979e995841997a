"""The shapes of what a run folder holds as JSON; see :mod:`tfkd.json_shapes`."""

from __future__ import annotations

_FILE = (None, {"file": str, "*": object})
_FILES = {"*": _FILE}
INPUTS = {
    "data": {
        "listing": object,
        "parts?": {"*": (None, {"images": int, "*": object})},
        "classes?": [str],
        "statistics?": [[float]],
    },
    "teachers": {
        "*": {"config": (None, {"*": object}), "weights": _FILE, "obtained?": _FILE, "*": object}
    },
    "files": _FILES,
    "code": _FILES,
}
"""The shape of what :mod:`tfkd.training.inputs` records."""

RESULT = {
    "summary": str,
    "score": str,
    "score_label": str,
    "score_metric": str,
    "score_scale": float,
    "best_score": (None, float),
    "best_selected_on": str,
    "seed": int,
    "seconds": float,
    "params": int,
    "macs": int,
    "student": str,
    "dataset": str,
    "inputs?": INPUTS,
    "agreement?": (None, float),
    "exits?": [{"name": str, "*": object}],
    "variants?": {"*": {"*": object}},
}
"""The shape of ``result.json``."""

META = {
    "stage": int,
    "epoch": int,
    "step": int,
    "history": [{"epoch": int, "stage?": str, "*": float}],
    "learning_rate?": float,
    "best_score?": (None, float),
    "best_epoch?": int,
    "seconds?": float,
    "images?": int,
    "image_seconds?": float,
    "first_images?": int,
    "first_seconds?": float,
    "inputs?": ({"*": None}, INPUTS),
    "accepted_changes?": [str],
    "stage_costs?": {"*": {"params": int, "macs": int}},
    "teachers_worth?": {
        "of?": str,
        "summaries?": [str],
        "doubts?": [(None, str)],
        "*": object,
    },
    "*": object,
}
"""The shape of what a checkpoint holds besides arrays: the state of the run."""
