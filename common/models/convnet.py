"""A small plain convolutional network: a budget of minutes on a CPU still trains it."""

from typing import ClassVar, Literal

from torch import Tensor, nn

from common.models.shapes import require_classes, require_image, require_sizes
from common.models.split import cut


class ConvNet(nn.Module):
    """Convolutions 3x3 of stride 2 with bias, each followed by ReLU (the features), then one linear layer.

    No batch normalisation, so every sample's loss is its own function, as finite-sum methods assume.
    With widths 32-64-128 on CIFAR-10: 113,738 parameters. Kernels start at N(0, 2 / fan-in) (He et al. 2015).

    Args:
        shape: (channels, height, width), at least 8 pixels a side.
        classes: number of logits.
        widths: channels of the convolutions.

    Raises:
        UserError: inputs that are no images, no classes, or widths below 1.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, widths: list[int]) -> None:
        super().__init__()
        require_sizes("widths", widths)
        channels, height, width = require_image("convnet", shape, smallest=8)
        layers: list[nn.Module] = []
        for outputs in widths:
            layer = nn.Conv2d(channels, outputs, kernel_size=3, stride=2, padding=1)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            layers += [layer, nn.ReLU()]
            channels, height, width = outputs, (height + 1) // 2, (width + 1) // 2
        self.convolutions = nn.Sequential(*layers)
        self.features = tuple(f"convolutions.{2 * i + 1}" for i in range(len(widths)))
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * height * width, require_classes("convnet", classes))
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, height, width] to logits [b, classes]."""
        return self.classifier(self.convolutions(inputs))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.convolutions, self.features, unshared)
        return low, nn.Sequential(high, self.classifier)
