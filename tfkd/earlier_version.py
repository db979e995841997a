"""What run folders of the version before hold, in the form of this one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

_RENAMED = {
    "optimizer": {"form": "momentum_style", "decay": "weight_decay_mode"},
    "schedule": {"factor": "decay_factor"},
}


def is_earlier(plain: Mapping[str, Any]) -> bool:
    """Returns whether a config as ``config.json`` holds it was written by the version before."""
    return "distiller" in plain


def modernized_result(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a ``result.json`` of this version or the one before it in the form of this version.

    The version before knew classification alone.
    """
    if "score" in found:
        return dict(found)
    return {
        **found,
        "task": "classification",
        "methods": found.get("distiller", []),
        "score": "top1",
        "score_label": "top-1 %",
        "score_metric": "accuracy",
        "score_scale": 100.0,
        "best_score": None,
        "summary": f"top-1 {found['top1_last']:.2f} % (best {found['top1_best']:.2f} %)",
    }


def modernized_summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a ``summary.json`` of this version or the one before it in the form of this version.

    The version before knew classification alone, and stopped at the first run that failed.
    """
    if "columns" in found:
        return dict(found)
    return {
        **found,
        "columns": [{"key": "top1", "label": "top-1 %", "form": "{:.2f}"}],
        "rows": [
            {**row, "score": row["top1"], "exits": [], "variants": {}, "error": None}
            for row in found["rows"]
        ],
    }


def modernized(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config of this version or the one before it in the form of this version.

    Args:
        plain: The config as plain dicts, lists and values; sections may be missing. Fields that its
            ``search_space`` names, which no run reads, keep their names.
    """
    config = copy.deepcopy(dict(plain))
    before_classes = "classes" not in config.get("teacher", {"classes": None})
    if before_classes and config.get("student", {}).get("preprocess") == "dataset":
        # The default of then, which is written otherwise today.
        config["student"]["preprocess"] = None
    listed = config.pop("distiller", None)
    if listed is not None:
        config["methods"] = {_key(entry): _entry(entry) for entry in listed}
    train = config.get("train", {})
    for section, names in _RENAMED.items():
        for before, now in names.items():
            if before in train.get(section, {}):
                train[section][now] = train[section].pop(before)
    if "batch_norm" in train:
        train["sync_batch_norm"] = train.pop("batch_norm") == "synchronized"
    data = config.get("data", {})
    if "validation" in data:
        held_out = data.pop("validation")
        is_part = held_out is not None and 0 < held_out < 1
        data["validation_split"] = held_out if is_part else None
        data["validation_size"] = None if is_part or held_out is None else int(held_out)
    return config


def _key(entry: Mapping[str, Any]) -> str:
    """Returns the name that the losses of a method had."""
    return entry.get("settings", {}).get("name", entry["name"])


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in entry.get("settings", {}).items() if name != "name"}
    own = {} if _key(entry) == entry["name"] else {"method": entry["name"]}
    return {**own, "weight": entry.get("weight", 1.0), **settings}
