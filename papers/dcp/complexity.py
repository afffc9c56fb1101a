"""How large a pruned network is, counted as the tables of Zhuang et al., NeurIPS 2018, count.

A multiply-add of a convolution or a linear layer, and an addition of a bias, is one; batch normalisation,
activations, pooling and sums of branches are none. Parameters are all that the deployed network runs.

Of a layer's c channels c - floor(eta c) stay at the pruning rate eta. So counted, every number of tables 4,
S4 and S5 is met to the printed digits, and so are the ratios of tables 1, 2, 3 and S3 but for five, which are
those of rounded counts: 20.0 M / 10.4 M = 1.92 and 20.0 M / 1.284 M = 15.58 (VGGNet), 0.85 M / 0.431 M = 1.97
(ResNet-56), 4.09 G / 1.82 G = 2.25 (ResNet-50), 4.2 M / 2.1 M = 2.00 (MobileNet v1 on ILSVRC-12).
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from common.metrics.macs import Extra, count_macs, meta_copy

# beside multiply-adds of convolutions and linear layers
COUNTED: tuple[Extra, ...] = ("bias",)


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
    ran: set[str] = set()

    def noting(name: str) -> Callable[..., None]:
        return lambda module, inputs: ran.add(name)

    # counting runs a copy of this copy, whose hooks are the same functions
    shadow = meta_copy(network)
    for name, module in shadow.named_modules():
        module.register_forward_pre_hook(noting(name))
    macs = count_macs(shadow, shape, include=COUNTED)
    counted = {
        id(parameter): parameter.numel()
        for name in ran
        for parameter in network.get_submodule(name).parameters(recurse=False)
        if parameter.requires_grad
    }
    return Complexity(parameters=sum(counted.values()), macs=macs)
