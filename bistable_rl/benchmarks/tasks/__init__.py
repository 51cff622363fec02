"""The supervised tasks of the papers."""

from bistable_rl.benchmarks.tasks.binary_addition import BinaryAddition
from bistable_rl.benchmarks.tasks.copy_first import CopyFirst
from bistable_rl.benchmarks.tasks.denoising import Denoising
from bistable_rl.benchmarks.tasks.line_mnist import LineMNIST
from bistable_rl.benchmarks.tasks.sequential_mnist import SequentialMNIST
from bistable_rl.benchmarks.tasks.task import Task
from bistable_rl.benchmarks.tasks.variable_line_mnist import VariableLineMNIST
from bistable_rl.errors import UserError, unknown
from bistable_rl.runs.config import build
from bistable_rl.runs.schema import TaskConfig

TASKS: dict[str, type[Task]] = {
    "copy_first": CopyFirst,
    "denoising": Denoising,
    "permuted_sequential_mnist": SequentialMNIST,
    "line_mnist": LineMNIST,
    "variable_line_mnist": VariableLineMNIST,
    "binary_addition": BinaryAddition,
}
"""The tasks by their name, `task.name` in a config."""


def make_task(config: TaskConfig) -> Task:
    """Return the task of a config.

    Raises:
        UserError: If there is no such task, or its arguments are wrong.
    """
    if config.name not in TASKS:
        raise UserError("task.name: " + unknown("task", config.name, TASKS))
    return build(TASKS[config.name], dict(config.kwargs), "task", prefix="task.kwargs.")
