"""How large a pruned network is, counted as the tables of Zhuang et al., NeurIPS 2018, count.

A multiply-add of a convolution or a linear layer, and an addition of a bias, is one; batch normalisation,
activations, pooling and sums of branches are none. Parameters are all that the deployed network runs.

Of a layer's c channels c - floor(eta c) stay at the pruning rate eta. So counted, every number of tables 4,
S4 and S5 is met to the printed digits, and so are the ratios of tables 1, 2, 3 and S3 but for five, which are
those of rounded counts: 20.0 M / 10.4 M = 1.92 and 20.0 M / 1.284 M = 15.58 (VGGNet), 0.85 M / 0.431 M = 1.97
(ResNet-56), 4.09 G / 1.82 G = 2.25 (ResNet-50), 4.2 M / 2.1 M = 2.00 (MobileNet v1 on ILSVRC-12).
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import nn

from common.metrics.macs import count_macs


class Complexity(NamedTuple):
    """The size of a network and the work of one forward pass of one example.

    Attributes:
        parameters: trainable numbers of the modules that the pass runs.
        macs: multiply-adds, with additions of biases.
    """

    parameters: int
    macs: int

    def reduction(self, pruned: "Complexity") -> tuple[float, float]:
        """How many times smaller another one is: in parameters, and in multiply-adds."""
        return self.parameters / pruned.parameters, self.macs / pruned.macs


def complexity(network: nn.Module, shape: tuple[int, ...]) -> Complexity:
    """Count a network for inputs of a shape (without the batch); it stays as it is, and nothing is computed.

    What a network holds for its training alone, as the directions of the identities of a `SphereNet`, is not
    counted.

    Raises:
        UserError: the network cannot take that shape.
    """
    macs = count_macs(network, shape, include=("bias",))
    counted = {
        id(parameter): parameter.numel()
        for module in _running(network, shape)
        for parameter in module.parameters(recurse=False)
        if parameter.requires_grad
    }
    return Complexity(parameters=sum(counted.values()), macs=macs)


def _running(network: nn.Module, shape: tuple[int, ...]) -> list[nn.Module]:
    """The modules of a network that its forward pass in evaluation mode runs."""
    shadow = copy.deepcopy(network).to("meta").eval()
    ran: set[nn.Module] = set()

    def note(module: nn.Module, inputs: Any) -> None:
        ran.add(module)

    for module in shadow.modules():
        module.register_forward_pre_hook(note)
    with torch.inference_mode():
        shadow(torch.empty(1, *shape, device="meta", dtype=next(shadow.parameters()).dtype))
    pairs = zip(network.modules(), shadow.modules(), strict=True)
    return [module for module, its_shadow in pairs if its_shadow in ran]
