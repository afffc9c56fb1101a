"""A pruned student that learns by factors from the network that it was."""

import copy

import torch
from factor_transfer_toys import batch, digits, factor_transfer, net, paraphraser

from common.pruning.criteria import ChannelPruning


def test_a_pruned_student_has_a_translator_of_its_own_widths() -> None:
    whole = net(8, seed=0)
    inner = factor_transfer(copy.deepcopy(whole), paraphraser(copy.deepcopy(whole)))
    pruning = ChannelPruning(
        criterion="weight_l1", rate=0.5, scope="group", seed=0, optimizer=torch.optim.SGD, inner=inner
    )
    pruning.prepare(inner.task, 1.0)
    smaller = pruning.attach(whole, lambda: net(8, seed=0), digits())
    # the last stage has 16 channels in the whole network
    assert {p.shape[1] for p in inner.parameters() if p.dim() == 4} >= {8}
    loss = pruning.loss(smaller, *batch())
    loss.backward()
    assert float(loss.detach()) > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in smaller.parameters())
