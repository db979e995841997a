"""Evaluation: scores of networks and SavedModels, agreement, features, and transfer by probes."""

from tfkd.core.tasks.exit_choice import cheapest, exits_taken, within_budget
from tfkd.evaluation import transfer
from tfkd.evaluation.early_exit import (
    ExitAnswers,
    accuracy_over_cost,
    exit_answers,
    find_thresholds,
)
from tfkd.evaluation.extraction import feature_bytes, features
from tfkd.evaluation.measuring import Evaluation, agreement, evaluate, scores
from tfkd.evaluation.predictors import ensemble, predictor, saved_model_predictor

__all__ = [
    "Evaluation",
    "ExitAnswers",
    "accuracy_over_cost",
    "agreement",
    "cheapest",
    "ensemble",
    "evaluate",
    "exit_answers",
    "exits_taken",
    "feature_bytes",
    "features",
    "find_thresholds",
    "predictor",
    "saved_model_predictor",
    "scores",
    "transfer",
    "within_budget",
]
