"""Where the discrimination losses stand, what their heads are, and how they share a network that they train.

Zhuang et al., NeurIPS 2018, section 3.2 and the authors' code; the scalings are those of Guo et al., "The
Shallow End", arXiv 1611.01773, section 3.2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.modes import evaluation_mode
from papers.dcp.cut import trace

# the least share of a loss's gradient
LEAST_SCALE = 0.01


class AuxiliaryHead(nn.Module):
    """F = AvgPool(ReLU(BN(O))), global average pooling, and a linear layer: O [b, n, h, w] or [b, n] to
    logits.

    Batch normalisation and the weights start at PyTorch's defaults, the linear layer's bias at 0 (authors'
    code).

    Args:
        channels: n.
        classes: number of logits.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.classifier = nn.Linear(channels, classes)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, outputs: Tensor) -> Tensor:
        """See above."""
        # one position of each example is a map of one pixel
        activation = self.norm(outputs.flatten(2) if outputs.ndim > 2 else outputs).relu()
        return self.classifier(activation.mean(dim=2) if activation.ndim > 2 else activation)


def pivots(blocks: int, losses: int) -> list[int]:
    """After which blocks, counted from 1, the P auxiliary heads stand: [min(step i, B - 1) for i = 1 .. P].

    step = floor(B / (P + 1)) + 1 (`cal_pivot` of the authors' code). The network's own loss is the last, at
    its end. P = 3 on the 27 blocks of a ResNet-56: 7, 14, 21; on the 16 of a ResNet-50: 5, 10, 15; P = 2 on
    the 8 of a ResNet-18: 3, 6; on the 16 convolutions of a VGG-19: 6, 12.

    Raises:
        UserError: a number of losses of which two would stand at one place.
    """
    if losses < 0 or not _are_apart(_places(blocks, losses)):
        valid = [count for count in range(blocks) if _are_apart(_places(blocks, count))]
        raise UserError(
            f"method.losses={losses}: {blocks} blocks have no place of its own for each "
            f"(valid: {', '.join(map(str, valid))})"
        )
    return _places(blocks, losses)


def _places(blocks: int, losses: int) -> list[int]:
    step = blocks // (losses + 1) + 1
    return [min(step * (i + 1), blocks - 1) for i in range(losses)]


def _are_apart(places: Sequence[int]) -> bool:
    return len(set(places)) == len(places) and all(place >= 1 for place in places)


def gradient_scales(places: Sequence[int], layers_per_block: int) -> list[float]:
    """g_i = max(0.01, ((piv_i q + 1) / (piv_P q + 1))²): what the gradient of auxiliary loss i in the
    network's own layers is multiplied by.

    Args:
        places: `pivots`.
        layers_per_block: q: 2 convolutions of a basic block, 3 of a bottleneck, 1 where each layer is a
            block.
    """
    if not places:
        return []
    last = places[-1] * layers_per_block + 1
    return [max(LEAST_SCALE, ((place * layers_per_block + 1) / last) ** 2) for place in places]


def learning_rate_divisors(scales: Sequence[float]) -> list[float]:
    """sum of g_j over j >= i: what the learning rate of auxiliary loss i in the network's layers is divided
    by.

    The network's own loss has neither scale nor divisor.
    """
    return [sum(scales[i:]) for i in range(len(scales))]


def block_names(network: nn.Module) -> list[str]:
    """The blocks among which heads are placed, in the order of execution: names as in `get_submodule`.

    Blocks with a forward pass of their own (residual blocks, inverted residuals), the outermost, where there
    are any; else the pointwise convolution after each depthwise one (MobileNet v1); else every convolution,
    or every linear layer of a network without.

    Raises:
        UserError: a network that cannot be followed.
    """
    order = list(trace(network).outputs)
    modules = dict(network.named_modules())
    own = [name for name in order if _is_block(modules[name])]
    outermost = [name for name in own if not any(name.startswith(f"{other}.") for other in own)]
    if outermost:
        return outermost
    layers = [name for name in order if isinstance(modules[name], nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    depthwise = [_is_depthwise(modules[name]) for name in layers]
    if any(depthwise):
        return [name for name, before in zip(layers[1:], depthwise, strict=False) if before]
    return layers or [name for name in order if isinstance(modules[name], nn.Linear)]


def stage_of(network: nn.Module, layer: str, ends: Sequence[str]) -> int:
    """The number, from 0, of the first of the heads after `ends` that a layer's output reaches in the order
    of execution; len(ends) for the network's own loss."""
    order = list(trace(network).outputs)
    places = [order.index(end) for end in ends]
    return sum(place < order.index(layer) for place in places)


def head_for(network: nn.Module, end: str, example: Tensor, classes: int) -> AuxiliaryHead:
    """A head for the output of a module, whose channels are found by running an example."""
    sizes: list[int] = []
    hook = network.get_submodule(end).register_forward_hook(lambda *each: sizes.append(each[2].shape[1]))
    try:
        with torch.no_grad(), evaluation_mode(network):
            network(example)
    finally:
        hook.remove()
    return AuxiliaryHead(sizes[0], classes).to(example.device)


def _is_block(module: nn.Module) -> bool:
    """Whether it is a module with a forward pass of its own around convolutions."""
    chain = isinstance(module, nn.Sequential) or type(module).__module__.startswith("torch.nn.")
    return not chain and any(isinstance(each, nn.Conv1d | nn.Conv2d | nn.Conv3d) for each in module.modules())


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and 1 < module.groups == module.in_channels
