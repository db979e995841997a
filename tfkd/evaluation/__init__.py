"""Evaluation: accuracy of networks and SavedModels, and their agreement."""

from tfkd.evaluation.predictors import ensemble, predictor, saved_model_predictor
from tfkd.evaluation.scores import Evaluation, accuracy, agreement, evaluate

__all__ = [
    "Evaluation",
    "accuracy",
    "agreement",
    "ensemble",
    "evaluate",
    "predictor",
    "saved_model_predictor",
]
