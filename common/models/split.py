"""A network cut in two between stages: the low layers that several branches share, and the high ones."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.base.errors import UserError


class SpatialMean(nn.Module):
    """Global average pooling: [b, c, h, w] to [b, c]."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The mean over positions."""
        return inputs.mean(dim=(2, 3))


def split(model: nn.Module, unshared: int) -> tuple[nn.Module, nn.Module]:
    """The low and the high part of a model, made of its own layers: high(low(x)) is model(x).

    A stage is what a feature of the model ends. The high part is the last `unshared` stages and what
    follows them.

    Args:
        model: of a family with a method `split`.
        unshared: 1 to the number of stages less 1.

    Raises:
        UserError: a model without stages in a chain, or a number out of range.
    """
    own = getattr(model, "split", None)
    if own is None:
        raise UserError(
            f"model: {type(model).__name__} cannot be cut between stages (valid: a ResNet, ResNeXt, "
            "SE-ResNet, WRN, DenseNet, VGG, MobileNet, or a convolutional network for digits; your own with "
            "split(unshared), which gives the modules low and high with high(low(x)) = self(x))"
        )
    halves = own(unshared)
    if not (
        isinstance(halves, tuple | list) and [isinstance(half, nn.Module) for half in halves] == [True] * 2
    ):
        raise UserError(
            f"model: {type(model).__name__}.split({unshared}) gives a {type(halves).__name__} (valid: two "
            "modules, low and high, with high(low(x)) = self(x))"
        )
    low, high = halves
    return low, high


def check_halves(model: nn.Module, low: nn.Module, high: nn.Module, shape: Sequence[int]) -> Tensor:
    """Pass one example, no random one, through a model in evaluation mode and through its halves.

    Args:
        model: which `split` has cut.
        low, high: its halves.
        shape: of an input.

    Returns:
        What the low half gives.

    Raises:
        UserError: the halves fail or give something else than the model.
    """
    name = type(model).__name__
    inputs = torch.linspace(-1, 1, math.prod(shape)).view(1, *shape)
    with torch.no_grad():
        outputs = model(inputs)
        try:
            shared = low(inputs)
            again = high(shared)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(f"model: the halves of {name}.split fail: {reason}") from error
    # on the meta device, where costs are counted, there are no values
    same = again.shape == outputs.shape and (
        outputs.is_meta or torch.allclose(again, outputs, rtol=1e-3, atol=1e-5, equal_nan=True)
    )
    if not same:
        raise UserError(
            f"model: {name}.split gives halves that are another network (valid: high(low(x)) = self(x))"
        )
    return shared


def cut(layers: nn.Sequential, features: Sequence[str], unshared: int) -> tuple[nn.Module, nn.Module]:
    """A chain of layers before and after the end of the last shared stage.

    Args:
        layers: the chain.
        features: "chain.i", ...: i is the position of each stage's last layer.
        unshared: number of stages after the cut.

    Raises:
        UserError: a number of stages out of range.
    """
    if not 1 <= unshared < len(features):
        raise UserError(f"unshared={unshared}; valid: 1 to {len(features) - 1} of {len(features)} stages")
    end = int(features[-unshared - 1].rsplit(".", 1)[1]) + 1
    return layers[:end], layers[end:]
