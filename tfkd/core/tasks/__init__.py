"""What a label means: losses, metrics and scores, a file a task."""

from tfkd.core.tasks.classification import Classification
from tfkd.core.tasks.multi_exit import MultiExitClassification
from tfkd.core.tasks.registry import create, find, name_of, names, register
from tfkd.core.tasks.task import Column, Evaluator, SampleMean, Score, Scores, Task

__all__ = [
    "Classification",
    "Column",
    "Evaluator",
    "MultiExitClassification",
    "SampleMean",
    "Score",
    "Scores",
    "Task",
    "create",
    "find",
    "name_of",
    "names",
    "register",
]
