"""What helps to train a network: the contract of every method that is more than an optimizer.

Methods compose: one may hold an inner one, which may hold another. In a config the inner method is the node
`method.inner` (`inner=distillation/kd` on a command line), and its keys are `method.inner.teacher`, ...
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.loader import BlockLoader
from common.base.task import Task


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass of the student on a minibatch.

    Attributes:
        student: the network.
        inputs, targets: of the minibatch.
        outputs: the student's.
        features: of the student by name, where a method of the chain needs them; else empty.
    """

    student: nn.Module
    inputs: Tensor
    targets: Tensor | None
    outputs: Tensor
    features: dict[str, Tensor]


class MethodParts(TypedDict):
    """What the constructor of every method takes beside its own settings.

    Attributes:
        optimizer: makes the optimizer of the student's parameters and of those of all methods. The
            outermost method's steps them all; an inner method's is not used.
        inner: the method that this one is added to; None, or left out, for the task alone.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    inner: NotRequired["TrainingMethod | None"]


class TrainingMethod(nn.Module):
    """What a method adds to the training of a student; by itself nothing: the task's own loss alone.

    What it trains beside the student (translators, peers, gates) are its own parameters: they are in the
    optimizer and in the checkpoint. A teacher is held as a `Teacher`, which is neither. An inner method is a
    submodule, so what it trains and keeps is in the optimizer and the checkpoint too.

    A method overrides the parts that it has something to add to, and calls `super()` there, which asks the
    inner method. Who does what, and in which order:

    - `loss`: the inner method's, or the task's without one. A method of `common.training.loss_terms` adds to
      it; one that leaves it alone takes any inner method.
    - `attach`: its own part first, then the inner method's on the network that came out of it: so an inner
      method sees the network that its `loss` will get.
    - `start_epoch`: its own part first, then the inner's.
    - `end_step`: the inner's first, then its own: the outermost has the last word on the parameters.
    - `evaluate`, `results`: both metrics; where two share a name, the inner's is called `inner_<name>`.
    - `deployed`: the inner's part is taken off first, then its own: the reverse of `attach`.
    - `check_schedule`: each refuses what does not go with it.

    Args:
        optimizer, inner: see `MethodParts`.

    Attributes:
        task: what the student is trained for without help.
        epoch: the epoch under way, from 0.
        epochs: of the whole run.

    Raises:
        UserError: an inner method that is none, or that has to be the outermost; two methods that put a
            network in the student's place.
    """

    # keys of the constructor that name runs to be made first
    STAGES: ClassVar[tuple[str, ...]] = ()
    # whether `loss` is `fit_of` of one forward pass of the student, and the student's penalty
    ONE_PASS: ClassVar[bool] = True
    # whether `fit_of` reads the student's features
    NEEDS_FEATURES: ClassVar[bool] = False
    # whether `attach` gives another network than the student
    REPLACES_STUDENT: ClassVar[bool] = False
    # whether it makes the network that all others of its chain are built for, and so cannot be within one
    OUTERMOST: ClassVar[bool] = False

    task: Task

    def __init__(
        self, *, optimizer: Callable[..., torch.optim.Optimizer], inner: "TrainingMethod | None" = None
    ) -> None:
        super().__init__()
        if inner is not None and not isinstance(inner, TrainingMethod):
            raise UserError(
                "method.inner: is an optimizer alone (valid: a method that has one, as distillation/kd)"
            )
        self.optimizer = optimizer
        self.inner = inner
        self.epoch, self.epochs = 0, 1.0
        within = [type(method).__name__ for method in self.chain()[1:] if method.OUTERMOST]
        if within:
            raise UserError(
                f"method.inner: {within[0]} makes the network that the others train, so it is the outermost "
                f"(valid: it as method=, with {type(self).__name__} as inner=)"
            )
        replacing = [type(method).__name__ for method in self.chain() if method.REPLACES_STUDENT]
        if len(replacing) > 1:
            raise UserError(
                f"method.inner: {' and '.join(replacing)} each put a network of their own in the student's "
                "place (valid: one such method)"
            )

    def chain(self) -> "list[TrainingMethod]":
        """This method, its inner one, that one's inner one, and so on."""
        return [self, *(self.inner.chain() if self.inner is not None else [])]

    def prepare(self, task: Task, epochs: float) -> None:
        """Tell the whole chain what is trained for, and how long; called once, before anything else."""
        self.task, self.epochs = task, epochs
        if self.inner is not None:
            self.inner.prepare(task, epochs)

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
        if self.inner is None:
            return student
        with naming_inner():
            return self.inner.attach(student, make_model, data)

    def check_schedule(self, schedule: Callable[..., object]) -> None:
        """Refuse a schedule of the learning rate that does not go with the method; all do here.

        Args:
            schedule: of `common.training.schedules`, with its settings, to be called with an optimizer.

        Raises:
            UserError: see above.
        """
        if self.inner is not None:
            with naming_inner():
                self.inner.check_schedule(schedule)

    def fit_loader(self, loader: BlockLoader) -> None:
        """Leave out of the epochs what cannot be learnt from, before the first step; nothing here.

        Args:
            loader: of the training split; its `steps_per_epoch` may be made smaller.

        Raises:
            UserError: nothing would be left.
        """
        if self.inner is not None:
            self.inner.fit_loader(loader)

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The whole objective of a minibatch, the task's own and the student's penalty included."""
        if self.inner is not None:
            return self.inner.loss(student, inputs, targets)
        return self.task.loss(student, inputs, targets)

    def fit_of(self, seen: Pass) -> Tensor:
        """What `loss` is without the student's penalty, of a forward pass that has been made."""
        return self.inner_fit_of(seen)

    def inner_fit_of(self, seen: Pass) -> Tensor:
        """`fit_of` of the inner method, or of the task without one: what this method adds to."""
        if self.inner is not None:
            return self.inner.fit_of(seen)
        return self.task.fit_of(seen.student, seen.outputs, seen.inputs, seen.targets)

    def start_epoch(self, epoch: int) -> None:
        """Take note of the epoch, from 0, under way; also called again in the midst of one."""
        self.epoch = epoch
        if self.inner is not None:
            self.inner.start_epoch(epoch)

    def end_step(self, student: nn.Module, done: float) -> None:
        """Called after each optimizer step; `done` is the fraction of the run's steps made."""
        if self.inner is not None:
            self.inner.end_step(student, done)

    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """Metrics of a split beside the student's own, as `{"test_ensemble_error": ...}`."""
        return {} if self.inner is None else self.inner.evaluate(student, data, split)

    def handed_on(self, student: nn.Module) -> nn.Module:
        """What a run that needs this one as a stage gets: the deployed network, unless it adds some."""
        return self.deployed(student)

    def results(self, student: nn.Module, data: DataSet, found: dict[str, Any]) -> dict[str, Any]:
        """What the run ends with beside its metrics, from the student and these; asked once, at the end.

        Args:
            student: with its final weights.
            data: of the run.
            found: its metrics so far, as `{"test_error": ...}`.
        """
        return {} if self.inner is None else self.inner.results(student, data, found)

    def deployed(self, student: nn.Module) -> nn.Module:
        """The plain network that is left when training is over."""
        return student if self.inner is None else self.inner.deployed(student)


def beside(inner: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A method's metrics beside its inner method's; those of a name that both have become `inner_<name>`."""
    return {f"inner_{name}" if name in own else name: value for name, value in inner.items()} | own


@contextmanager
def naming_inner() -> Iterator[None]:
    """Let errors of an inner method name its keys: `method.inner.beta` for what it calls `method.beta`.

    Raises:
        UserError: see above.
    """
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"\bmethod(?=[.:])", "method.inner", str(error))) from error
