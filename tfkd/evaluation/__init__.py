"""Evaluation: accuracy of networks and SavedModels, their agreement, and features of images."""

from tfkd.evaluation.extraction import feature_bytes, features
from tfkd.evaluation.predictors import ensemble, predictor, saved_model_predictor
from tfkd.evaluation.scores import Evaluation, accuracy, agreement, evaluate

__all__ = [
    "Evaluation",
    "accuracy",
    "agreement",
    "ensemble",
    "evaluate",
    "feature_bytes",
    "features",
    "predictor",
    "saved_model_predictor",
]
