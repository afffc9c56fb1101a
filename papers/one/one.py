"""On-the-fly native ensemble: Lan, Zhu, Gong, "Knowledge Distillation by On-the-Fly Native Ensemble",
NeurIPS 2018 (arXiv 1806.04606).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.limits import require
from common.base.method import TrainingMethod
from common.base.modes import evaluation_mode
from common.base.task import penalty
from common.distillation.ensembles import ensemble_metrics, require_classification
from common.distillation.losses import computed
from common.models.split import check_halves, split


class Gate(nn.Module):
    """g = softmax(ReLU(BN(FC(h)))): a weight for each branch, from the shared features h.

    Args:
        features: of h.
        branches: m + 1.
    """

    def __init__(self, features: int, branches: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, branches)
        self.norm = nn.BatchNorm1d(branches)

    def forward(self, pooled: Tensor) -> Tensor:
        """[b, features] to weights [b, branches] that add up to 1."""
        # one example has no variance: it is normalised as in evaluation
        alone = self.training and len(pooled) == 1
        self.norm.train(self.training and not alone)
        scores = self.norm(self.linear(pooled))
        self.norm.train(self.training)
        return functional.softmax(computed(functional.relu(scores)), dim=1)


def ensemble_logits(logits: Tensor, gates: Tensor) -> Tensor:
    """The teacher's logits z_e = sum_i g_i z_i.

    Args:
        logits: z, [b, branches, classes].
        gates: g, [b, branches].
    """
    dtype = torch.promote_types(gates.dtype, logits.dtype)
    return torch.einsum("bi,bik->bk", gates.to(dtype), logits.to(dtype))


def one_loss(logits: Tensor, gates: Tensor, targets: Tensor, temperature: float, kl_weight: float) -> Tensor:
    """sum_i CE(z_i, y) + CE(z_e, y) + w T^2 sum_i KL(softmax(z_e / T) || softmax(z_i / T)).

    The objective of the paper. The target of the KL is taken as constant, as in the authors' code: the
    gate and the teacher learn from
    CE(z_e, y) alone. KL is summed over classes; all terms are means over the batch.

    Args:
        logits: z, [b, branches, classes].
        gates: g, [b, branches].
        targets: y, int64 [b].
        temperature: T.
        kl_weight: w; 0 leaves the KL out.
    """
    ensemble = ensemble_logits(computed(logits), computed(gates))
    logits = computed(logits).to(ensemble.dtype)
    batch = len(logits)
    everyone = torch.cat([logits, ensemble[:, None]], dim=1)
    labels = targets.repeat_interleave(everyone.shape[1])
    total = functional.cross_entropy(everyone.flatten(0, 1), labels, reduction="sum") / batch
    if kl_weight == 0:
        return total
    softened = functional.log_softmax(everyone / temperature, dim=2)
    teacher = softened[:, -1:].detach().expand_as(logits)
    divergence = functional.kl_div(softened[:, :-1], teacher, reduction="sum", log_target=True) / batch
    return total + kl_weight * temperature**2 * divergence


def kl_ramp(epoch: int, rampup_epochs: float) -> float:
    """w(e) = exp(-5 (1 - min(e, E) / E)^2), from e^-5 in epoch 0 to 1 from epoch E on; 1 where E = 0.

    Of the authors' code, with E = 80 of 300 epochs; not in the paper.
    """
    if rampup_epochs == 0:
        return 1.0
    return math.exp(-5 * (1 - min(epoch / rampup_epochs, 1)) ** 2)


class ONE(TrainingMethod):
    """A network with m more branches of its high layers, whose gated ensemble teaches them all.

    The student is the target branch and stays a plain network: only the others' high layers and the gate
    are added, and at the end they are dropped. The branches run one after the other, as that is
    fastest: see benchmarks/one_step.py. It takes no inner method, as what each branch learns from is part of
    it, and may be the inner one of a method that leaves the loss alone.

    Args:
        optimizer: see TrainingMethod.
        branches: m + 1.
        unshared: number of the last stages that each branch has of its own (1; on ImageNet 2).
        temperature: T.
        kl_rampup: the share of the run's epochs that is E of `kl_ramp`, from 0 to 1; the authors' 80 of 300.
            A ramp shorter than an epoch is none: it would leave the KL out of all of a short run.
        distill: without it the KL is left out (ablation).
        share: without it the branches are whole networks (ablation).
        gate: without it z_e is the mean of the branches' logits (ablation).
        gate_source: where nothing is shared, whether the gate sees the mean of all networks' features or
            those of the first.

    Raises:
        UserError: numbers out of range, a model that cannot be split, a task other than classification.
    """

    ONE_PASS = False

    def __init__(
        self,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        branches: int,
        unshared: int,
        temperature: float,
        kl_rampup: float,
        distill: bool,
        share: bool,
        gate: bool,
        gate_source: Literal["mean", "first"],
    ) -> None:
        super().__init__(optimizer=optimizer)
        require("at least 1", "method", branches=branches, unshared=unshared)
        require("positive", "method", temperature=temperature)
        require("from 0 to 1", "method", kl_rampup=kl_rampup)
        self.branches, self.unshared, self.temperature = branches, unshared, temperature
        self.kl_rampup, self.distill = kl_rampup, distill
        self.share, self.with_gate, self.gate_source = share, gate, gate_source
        self.lows, self.highs = nn.ModuleList(), nn.ModuleList()
        self.gate: Gate | None = None

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is, the target branch; the other branches and the gate are made."""
        require_classification(self, student)
        for _ in range(self.branches - 1):
            low, high = split(make_model(), self.unshared)
            self.highs.append(high)
            if not self.share:
                self.lows.append(low)
        low, high = split(student, self.unshared)
        with evaluation_mode(student, low, high), torch.no_grad():
            shared = check_halves(student, low, high, data.shape)
        if self.with_gate:
            if shared.ndim != 4:
                raise UserError(
                    f"method.gate: {type(student).__name__}.split gives a low half with outputs of "
                    f"{shared.ndim} dimensions (valid: (b, channels, h, w), or method.gate=false)"
                )
            self.gate = Gate(shared.shape[1], self.branches)
        return student

    def run(self, student: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The branches' logits [b, branches, classes], the student's first, and the gates [b, branches]."""
        low, high = split(student, self.unshared)
        maps = [part(inputs) for part in (low, *self.lows)]
        own = maps if len(maps) == self.branches else maps * self.branches
        logits = [branch(given) for branch, given in zip((high, *self.highs), own, strict=True)]
        return torch.stack(logits, dim=1), self._gates(maps)

    def _gates(self, maps: list[Tensor]) -> Tensor:
        if self.gate is None:
            return computed(maps[0].new_full((len(maps[0]), self.branches), 1 / self.branches))
        seen = maps if self.gate_source == "mean" else maps[:1]
        return self.gate(torch.stack([given.mean(dim=(2, 3)) for given in seen]).mean(0))

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """`one_loss`, and the student's own penalty."""
        assert targets is not None
        weight = self.kl_weight() if self.distill else 0.0
        logits, gates = self.run(student, inputs)
        return one_loss(logits, gates, targets, self.temperature, weight) + penalty(student)

    def kl_weight(self) -> float:
        """w(e) of the epoch under way."""
        rampup_epochs = self.kl_rampup * self.epochs
        return kl_ramp(self.epoch, rampup_epochs if rampup_epochs >= 1 else 0.0)

    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """Metrics of the ensemble z_e ("ONE-E") and of its branches."""

        def members(inputs: Tensor) -> tuple[Tensor, Tensor]:
            logits, gates = self.run(student, inputs)
            return logits, ensemble_logits(computed(logits), gates)

        with evaluation_mode(student, self), torch.no_grad():
            return ensemble_metrics(members, data, split)
