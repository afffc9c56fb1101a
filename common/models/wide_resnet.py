"""Wide residual networks: Zagoruyko and Komodakis, BMVC 2016."""

from torch import nn

from common.models.preact_resnet import PreactNetwork, preact_residual
from common.models.resnet import Residual
from common.models.shapes import require_classes, require_depth, require_image, require_positive


class WideResNet(PreactNetwork):
    """WRN-depth-width for CIFAR, depth 6n + 4: three stages of n blocks, 16-32-64 times `width` channels.

    Without dropout, as in Crowley, Gray, Storkey, "Moonshine", NeurIPS 2018. WRN-40-2 has 2,243,546
    parameters with 10 classes.

    Args:
        shape: (channels, height, width), at least 4 pixels a side.
        classes: number of logits.
        depth: number of layers with weights as the paper counts them: 6n + 4.
        width: factor of the channels.
        residual: makes what follows the first BN-ReLU of a block from (inputs, outputs, stride); cheaper
            blocks go here.

    Raises:
        UserError: a depth that no n gives, width < 1, inputs that are no images or too small, no classes.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        depth: int,
        width: int,
        residual: Residual = preact_residual,
    ) -> None:
        require_positive("width", width)
        channels, _, _ = require_image("wide_resnet", shape, smallest=4)
        super().__init__(
            channels=channels,
            stem=16,
            outputs=[16 * width, 32 * width, 64 * width],
            blocks=3 * [require_depth(depth, 6, 4)],
            residual=residual,
            half=False,
            classes=require_classes("wide_resnet", classes),
        )
        nn.init.zeros_(self.classifier.bias)
