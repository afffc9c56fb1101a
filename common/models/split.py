"""A network cut in two between stages: the low layers that several branches share, and the high ones."""

from collections.abc import Sequence

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
    low, high = own(unshared)
    return low, high


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
