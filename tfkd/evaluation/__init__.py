"""Evaluation: scores of networks and SavedModels, their agreement, and features of images."""

from tfkd.evaluation.extraction import feature_bytes, features
from tfkd.evaluation.measuring import Evaluation, agreement, evaluate, scores
from tfkd.evaluation.predictors import ensemble, predictor, saved_model_predictor

__all__ = [
    "Evaluation",
    "agreement",
    "ensemble",
    "evaluate",
    "feature_bytes",
    "features",
    "predictor",
    "saved_model_predictor",
    "scores",
]
