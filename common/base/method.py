"""What helps to train a network: the contract of every method that is more than an optimizer."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet, SplitName
from common.base.task import Task


class TrainingMethod(nn.Module):
    """What a method adds to the training of a student; by itself nothing: cross-entropy alone.

    What it trains beside the student (translators, peers, gates) are its own parameters: they are in the
    optimizer and in the checkpoint. A teacher is held as a `Teacher`, which is neither.

    Args:
        optimizer: makes the optimizer of the student's and the distiller's parameters.

    Attributes:
        task: what the student is trained for without help.
        epoch: the epoch under way, from 0.
        epochs: of the whole run.
    """

    # keys of the constructor that name runs to be made first
    STAGES: ClassVar[tuple[str, ...]] = ()

    task: Task

    def __init__(self, *, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.epoch, self.epochs = 0, 1.0

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """Build what is trained beside the student; called once, after seeding.

        Args:
            student: the network of the config's `model`.
            make_model: gives another one like it, with other initial weights.
            data: for the shape of inputs and the number of classes; not read yet.

        Returns:
            The student, or the network that takes its place, whose output is the deployed network's.

        Raises:
            UserError: this student and the teacher do not go together.
        """
        return student

    def check_schedule(self, schedule: Callable[..., object]) -> None:
        """Refuse a schedule of the learning rate that does not go with the method; all do here.

        Args:
            schedule: of `common.training.schedules`, with its settings, to be called with an optimizer.

        Raises:
            UserError: see above.
        """

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The whole objective of a minibatch, the task's own included."""
        return self.task.loss(student, inputs, targets)

    def start_epoch(self, epoch: int) -> None:
        """Take note of the epoch, from 0, under way; also called again in the midst of one."""
        self.epoch = epoch

    def end_step(self, student: nn.Module, done: float) -> None:
        """Called after each optimizer step; `done` is the fraction of the run's steps made."""

    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """Metrics of a split beside the student's own, as `{"test_ensemble_error": ...}`."""
        return {}

    def deployed(self, student: nn.Module) -> nn.Module:
        """The plain network that is left when training is over."""
        return student
