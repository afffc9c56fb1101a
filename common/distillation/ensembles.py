"""Several networks judged together: independent nets, snapshots of one run, and how ensembles are measured.

Huang, Li, Pleiss, Liu, Hopcroft, Weinberger, "Snapshot Ensembles: Train 1, Get M for Free", ICLR 2017.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.method import MethodParts, TrainingMethod, beside
from common.base.modes import evaluation_mode
from common.distillation.losses import computed
from common.training.schedules import cyclic_cosine
from common.training.tasks import Classification

# inputs to the members' logits [b, n, classes] and the ensemble's scores [b, classes]
Members = Callable[[Tensor], tuple[Tensor, Tensor]]


def require_classification(method: TrainingMethod, student: nn.Module) -> None:
    """Refuse a model that gives no logits of classes.

    Raises:
        UserError: see above.
    """
    if not isinstance(method.task, Classification):
        raise UserError(
            f"method: {type(method).__name__} is for classification, and this model for {student.task} "
            "(valid: distillation/none)"
        )


def ensemble_metrics(members: Members, data: DataSet, split: SplitName) -> dict[str, float]:
    """How good an ensemble is on a split, and how far its members are from each other.

    With p_i the members' probabilities, means over examples and pairs i != j:
    `ensemble_error`, `branch_error_mean`: in percent, of the ensemble and of its members on average;
    `branch_disagreement`: the share of examples, in percent, on which two members predict other classes;
    `branch_kl`: KL(p_i || p_j); `branch_variance`: ||p_i - p_j||_2. Of one member the last three are 0.
    """
    totals: dict[str, float] = {}
    for inputs, targets in data.batches(split, data.evaluation_batch):
        assert targets is not None
        logits, scores = members(inputs)
        for name, value in _sums(logits.double(), scores, targets).items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return {f"{split}_{name}": total / data.size(split) for name, total in totals.items()}


def _sums(logits: Tensor, scores: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Sums over a batch of what `ensemble_metrics` averages."""
    guesses = logits.argmax(2)
    log_p = functional.log_softmax(logits, dim=2)
    p = log_p.exp()
    cross = torch.einsum("bik,bjk->bij", p, log_p)
    return {
        "ensemble_error": 100 * (scores.argmax(1) != targets).sum(),
        "branch_error_mean": 100 * (guesses != targets[:, None]).double().mean(1).sum(),
        "branch_disagreement": 100 * _pair_mean(guesses[:, :, None] != guesses[:, None]),
        "branch_kl": _pair_mean(torch.diagonal(cross, dim1=1, dim2=2)[:, :, None] - cross),
        "branch_variance": _pair_mean((p[:, :, None] - p[:, None]).norm(dim=3)),
    }


def _pair_mean(values: Tensor) -> Tensor:
    """The mean over pairs i != j of [b, n, n], whose diagonal is 0, summed over the batch."""
    n = values.shape[1]
    return values.double().sum() / max(n * (n - 1), 1)


class Peers(TrainingMethod):
    """k networks trained in one run, each with other initial weights; the student is the first.

    An inner method helps each of the networks, so it may hold nothing that belongs to one of them.

    Args:
        nets: k.
        parts: see `MethodParts`; the optimizer steps all networks at once.

    Raises:
        UserError: nets < 1, a task other than classification, or an inner method that trains or keeps
            something beside the student.
    """

    ONE_PASS = False

    def __init__(self, *, nets: int, **parts: Unpack[MethodParts]) -> None:
        super().__init__(**parts)
        if nets < 1:
            raise UserError(f"method.nets={nets}; valid: 1 or more")
        self.nets = nets
        self.peers = nn.ModuleList()

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is; the other networks are made."""
        require_classification(self, student)
        self.peers = nn.ModuleList(make_model() for _ in range(self.nets - 1))
        attached = super().attach(student, make_model, data)
        if self.inner is not None and (attached is not student or list(self.inner.parameters())):
            names = ", ".join(type(method).__name__ for method in self.inner.chain())
            raise UserError(
                f"method.inner: {names} holds what belongs to one network, and {type(self).__name__} trains "
                f"{self.nets} (valid: distillation/kd, attention_transfer, none)"
            )
        return student

    def networks(self, student: nn.Module) -> list[nn.Module]:
        """All networks, the student first."""
        return [student, *self.peers]

    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """Metrics of the ensemble that averages the networks' probabilities."""
        with evaluation_mode(student, self), torch.no_grad():
            own = ensemble_metrics(averaged(self.networks(student)), data, split)
        return beside(super().evaluate(student, data, split), own)


class Independent(Peers):
    """An ensemble of k networks trained apart: the loss is the sum of theirs, which share nothing."""

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The sum of the networks' own losses, each with the inner method's help."""
        losses = [super(Independent, self).loss(net, inputs, targets) for net in self.networks(student)]
        return torch.stack(losses).sum()


class Snapshot(TrainingMethod):
    """An ensemble of the networks at the ends of the M cycles of one run (section 3).

    It goes with `schedule=cyclic_cosine` of as many cycles (or a multiple): elsewhere the rate is not at its
    lowest where a snapshot is taken, and the members are hardly apart. The student, which is deployed alone,
    ends as the last snapshot. The loss is that of the inner method, or of the task.

    Args:
        snapshots: M.
        parts: see `MethodParts`.

    Raises:
        UserError: snapshots < 1, a task other than classification, or another schedule.
    """

    def __init__(self, *, snapshots: int, **parts: Unpack[MethodParts]) -> None:
        super().__init__(**parts)
        if snapshots < 1:
            raise UserError(f"method.snapshots={snapshots}; valid: 1 or more")
        self.snapshots, self.taken = snapshots, 0
        self.kept = nn.ModuleList()

    def check_schedule(self, schedule: Callable[..., object]) -> None:
        """Refuse a schedule whose cycles do not end where the snapshots are taken."""
        settings = schedule.keywords if isinstance(schedule, partial) else {}
        cyclic = isinstance(schedule, partial) and schedule.func is cyclic_cosine
        if not cyclic or settings["cycles"] % self.snapshots:
            given = f"schedule.cycles={settings['cycles']}" if cyclic else "the schedule"
            raise UserError(
                f"method.snapshots={self.snapshots}: a snapshot ends a cycle, and {given} has no such ends "
                f"(valid: schedule=cyclic_cosine schedule.cycles={self.snapshots})"
            )
        super().check_schedule(schedule)

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is, with room for its snapshots."""
        require_classification(self, student)
        self.kept = nn.ModuleList(deepcopy(student) for _ in range(self.snapshots)).requires_grad_(False)
        return super().attach(student, make_model, data)

    def end_step(self, student: nn.Module, done: float) -> None:
        """Keep the student where a cycle ends: at the first step with done >= i / M, i = 1 ... M."""
        super().end_step(student, done)
        # far below one step of any run, far above what rounding makes of done
        due = int(done * self.snapshots + 1e-9)
        while self.taken < due:
            self.kept[self.taken].load_state_dict(student.state_dict())
            self.taken += 1

    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """Metrics of the ensemble that averages the probabilities of the snapshots so far."""
        members = list(self.kept)[: self.taken] or [student]
        with evaluation_mode(student, self), torch.no_grad():
            own = ensemble_metrics(averaged(members), data, split)
        return beside(super().evaluate(student, data, split), own)

    def get_extra_state(self) -> Tensor:
        """The number of snapshots taken, for checkpoints."""
        return torch.tensor(self.taken)

    def set_extra_state(self, state: Any) -> None:
        """Put back what `get_extra_state` gave."""
        self.taken = int(state)


def averaged(networks: list[nn.Module]) -> Members:
    """The ensemble whose scores are the mean of its networks' probabilities."""

    def members(inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.stack([net(inputs) for net in networks], dim=1)
        return logits, functional.softmax(computed(logits), dim=2).mean(1)

    return members
