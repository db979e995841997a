"""Tasks by name."""

from __future__ import annotations

from collections.abc import Callable

from tfkd import models
from tfkd.core.tasks.task import Task
from tfkd.errors import TfkdError, unknown
from tfkd.models import references
from tfkd.models.registry import is_defined_again

_TASKS: dict[str, type[Task]] = {}


def register(name: str) -> Callable[[type[Task]], type[Task]]:
    """Returns a decorator that makes a task known as ``name``.

    Raises:
        TfkdError: When the name is taken.
    """

    def add(task: type[Task]) -> type[Task]:
        if name in _TASKS and not is_defined_again(_TASKS[name], task):
            raise TfkdError(f"task {name!r}: found it registered already; wanted a new name")
        _TASKS[name] = task
        return task

    return add


def names() -> list[str]:
    """Returns the names of all registered tasks, sorted."""
    return sorted(_TASKS)


def find(name: str) -> type[Task]:
    """Returns the class of a task.

    Args:
        name: One of :func:`names`, or ``module:Class`` or ``path/to/file.py:Class`` for another
            one.

    Raises:
        TfkdError: When there is none of that name.
    """
    if references.is_reference(name):
        found = references.find(name, "task")
        if not isinstance(found, type) or not issubclass(found, Task):
            raise TfkdError(f"task {name!r}: found {found!r}, wanted a subclass of tfkd.tasks.Task")
        return found
    if name not in _TASKS:
        raise unknown("task", name, names())
    return _TASKS[name]


def create(name: str, network: models.Network) -> Task:
    """Returns the task of a network; of one with several exits each is heeded.

    Args:
        name: As :func:`find` takes it, for instance ``DataInfo.task``.
        network: The network whose outputs the task reads.
    """
    return find(name).for_network(network)


def name_of(network: models.Network) -> str:
    """Returns the name by which :func:`find` finds the task that :func:`create` makes of a network.

    Of a network with several exits it is another one than ``network.task``.
    """
    task = type(create(network.task, network))
    return task.name if _TASKS.get(task.name) is task else network.task
