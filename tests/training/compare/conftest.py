"""Finished run folders that nothing trained, and summaries of them."""

import pytest

from tfkd.training.run_folder import RunFolder

COLUMNS = [
    {"key": "mean_top1", "label": "mean top-1 %", "form": "{:.2f}"},
    {"key": "loss", "label": "loss", "form": "{:.4f}"},
]


def make_row(role, seed, score, **fields):
    """A row of a finished run; its loss is one hundredth of the score."""
    usual = {
        "role": role,
        "seed": seed,
        "score": score,
        "mean_top1": score,
        "loss": score / 100,
        "exits": [],
        "variants": {},
        "agreement": None,
        "params": 1234,
        "macs": 5678901,
        "seconds": 2.0 + seed,
        "error": None,
    }
    return {**usual, **fields}


@pytest.fixture
def row():
    """``row(role, seed, score, **fields)``: a row of a summary."""
    return make_row


@pytest.fixture
def failed():
    """``failed(role, seed, error)``: the row of a run that failed."""
    numbers = ("mean_top1", "loss", "agreement", "params", "macs", "seconds")

    def make(role, seed, error):
        return {**make_row(role, seed, 0.0), **dict.fromkeys(("score", *numbers)), "error": error}

    return make


@pytest.fixture
def summary():
    """``summary(*rows)``: the content of summary.json."""

    def make(*rows):
        return {"experiment": "some", "columns": COLUMNS, "rows": list(rows)}

    return make


@pytest.fixture
def drawn(tmp_path, row, summary, failed):
    """``drawn({role: [[score of an epoch, ...] of each seed]})``: a summary and its run folders.

    The last score of a run is that of the test images as well; a seed of ``None`` has failed.
    """

    def make(curves):
        rows, folders = [], {}
        for role, seeds in curves.items():
            for seed, scores in enumerate(seeds):
                if scores is None:
                    rows.append(failed(role, seed, "broken"))
                    continue
                folder = RunFolder(tmp_path / role / f"seed{seed}")
                folder.path.mkdir(parents=True)
                folder.write_metrics(
                    [
                        {"epoch": number, "val_quality": "" if score is None else score / 10}
                        for number, score in enumerate(scores, 1)
                    ]
                )
                result = {
                    "score": "mean_top1",
                    "score_metric": "quality",
                    "score_scale": 10.0,
                    "best_selected_on": "validation",
                    "student": "tiny",
                    "dataset": "digits",
                    **dict.fromkeys(("mean_top1_last", "mean_top1_best", "best_score"), scores[-1]),
                    **{"summary": "", "score_label": "mean top-1 %", "seed": seed, "seconds": 1.0},
                    **{"params": 1234, "macs": 5678901},
                }
                folder.write_json("result.json", result)
                rows.append(row(role, seed, scores[-1]))
                folders.setdefault(role, []).append(folder.path)
        return summary(*rows), folders

    return make
