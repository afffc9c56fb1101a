"""Squeeze-and-excitation networks: Hu, Shen, Sun, CVPR 2018."""

from functools import partial
from typing import Literal

from torch import Tensor, nn

from common.base.errors import UserError
from common.models.imagenet_resnet import ImageNetNetwork
from common.models.resnet import EXPANSION, RESIDUALS
from common.models.shapes import require_sizes


class SqueezeExcitation(nn.Module):
    """x * sigmoid(W2 relu(W1 mean(x) + b1) + b2), one factor a channel (section 3, equations 2 to 4).

    Args:
        channels: of the input.
        reduction: r, the hidden layer has channels/r units.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = channels // reduction
        self.excitation = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, channels, h, w] to the same."""
        return inputs * self.excitation(inputs.mean(dim=(2, 3)))[:, :, None, None]


def se_residual(
    inputs: int, outputs: int, stride: int, *, block: Literal["basic", "bottleneck"], reduction: int
) -> nn.Module:
    """A residual path whose output is rescaled by channel before the shortcut is added (figure 3)."""
    return nn.Sequential(RESIDUALS[block](inputs, outputs, stride), SqueezeExcitation(outputs, reduction))


class SEResNet(ImageNetNetwork):
    """ResNet for ImageNet with squeeze and excitation in every block.

    Blocks 2-2-2-2, basic, reduction 16 is SE-ResNet-18: 11,778,592 parameters with 1000 classes. The
    paper's SE-ResNet-50 (3-4-6-3, bottleneck) has 28,088,024.

    Args:
        shape: (channels, height, width), at least 32 pixels a side.
        classes: number of logits.
        blocks: number of blocks in each stage.
        widths: channels of each stage (its bottlenecks' inner ones); the stem has as many as the first.
        block: "basic" or "bottleneck".
        reduction: r, 1 to the channels of the narrowest stage.

    Raises:
        UserError: as ImageNetNetwork; widths below 1, or a reduction out of range.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        blocks: list[int],
        widths: list[int],
        block: Literal["basic", "bottleneck"],
        reduction: int,
    ) -> None:
        require_sizes("widths", widths)
        outputs = [EXPANSION[block] * width for width in widths]
        if not 1 <= reduction <= min(outputs):
            raise UserError(f"model.reduction={reduction}; valid: 1 to {min(outputs)}")
        super().__init__(
            name="se_resnet",
            shape=shape,
            classes=classes,
            stem=widths[0],
            blocks=blocks,
            outputs=outputs,
            residual=partial(se_residual, block=block, reduction=reduction),
        )
