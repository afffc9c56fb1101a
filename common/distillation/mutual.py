"""Deep mutual learning: Zhang, Xiang, Hospedales, Lu, CVPR 2018."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.method import MethodParts, Pass
from common.base.task import penalty
from common.distillation.ensembles import Peers
from common.distillation.losses import computed
from common.training.loss_terms import forward, require_one_pass


class Mutual(Peers):
    """k networks that learn from the labels and from each other (section 3).

    L = sum_i [CE(z_i, y) + 1/(k-1) sum_{j != i} KL(p_j || p_i)], p_i = softmax(z_i), p_j taken as constant.
    Each network's part has its own parameters alone, so one step on L updates all at once, each from the
    others as they were. (Algorithm 1 of the paper updates them in turn.) With an inner method its objective
    for each network stands in CE's place.

    Raises:
        UserError: as Peers; an inner method that makes forward passes of its own.
    """

    def __init__(self, *, nets: int, **parts: Unpack[MethodParts]) -> None:
        super().__init__(nets=nets, **parts)
        require_one_pass(self)

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """L, and the networks' own penalties."""
        networks = self.networks(student)
        passes = [forward(self, net, inputs, targets) for net in networks]
        logits = computed(torch.stack([seen.outputs for seen in passes], dim=1))
        penalties = sum(penalty(net) for net in networks)
        return self._own(passes, logits, targets) + mutual_divergence(logits) + penalties

    def _own(self, passes: list[Pass], logits: Tensor, targets: Tensor | None) -> Tensor:
        """The sum of what the networks learn from without each other."""
        if self.inner is not None:
            return torch.stack([self.inner_fit_of(seen) for seen in passes]).sum()
        assert targets is not None
        # all at once, as it is faster
        every = functional.cross_entropy(logits.flatten(0, 1), targets.repeat_interleave(self.nets))
        return self.nets * every


def mutual_divergence(logits: Tensor) -> Tensor:
    """1/(k-1) sum over i and j != i of KL(p_j || p_i), p_j without gradient, averaged over the batch.

    Args:
        logits: [b, k, classes].
    """
    batch, k, _ = logits.shape
    log_p = functional.log_softmax(logits, dim=2)
    learners, teachers = torch.broadcast_tensors(log_p[:, :, None], log_p.detach()[:, None])
    # j = i adds nothing, neither to the value nor to the gradient
    total = functional.kl_div(learners, teachers, reduction="sum", log_target=True)
    return total / (batch * max(k - 1, 1))
