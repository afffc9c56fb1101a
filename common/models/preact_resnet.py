"""Residual networks with pre-activation: He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks",
ECCV 2016.
"""

from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from common.models.convolution import conv, conv_norm_relu
from common.models.resnet import Residual
from common.models.shapes import require_classes, require_depth, require_image
from common.models.split import SpatialMean, cut


class PreactBlock(nn.Module):
    """residual(a) + shortcut(x), a = relu(norm(x)); where the shape changes, shortcut(a): a 1x1 convolution.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the block.
        residual: makes the path from a.
        half: the shortcut starts from a where it is the identity too.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, residual: Residual, half: bool) -> None:
        super().__init__()
        changes = inputs != outputs or stride != 1
        self.norm = nn.BatchNorm2d(inputs)
        self.residual = residual(inputs, outputs, stride)
        self.shortcut: nn.Module = conv(inputs, outputs, 1, stride) if changes else nn.Identity()
        self.from_activation = half or changes

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, h/stride, w/stride]."""
        activation = functional.relu_(self.norm(inputs))
        return self.residual(activation) + self.shortcut(activation if self.from_activation else inputs)


def preact_residual(inputs: int, outputs: int, stride: int) -> nn.Module:
    """What follows the first BN-ReLU of a basic block: conv 3x3, BN, ReLU, conv 3x3."""
    return nn.Sequential(*conv_norm_relu(inputs, outputs, 3, stride), conv(outputs, outputs, 3))


class PreactNetwork(nn.Module):
    """A 3x3 stem without BN, stages of pre-activation blocks, BN, ReLU, global average pooling, logits.

    Every stage but the first halves the image. The features are the stages' raw outputs, before the next
    BN and ReLU.

    Args:
        channels: of the image.
        stem: channels that the first stage gets.
        outputs: channels that each stage gives.
        blocks: number of blocks in each stage.
        residual: makes the residual path of a block.
        half: the first block of every stage has its shortcut after BN-ReLU, also where it is the identity.
        classes: number of logits.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        channels: int,
        stem: int,
        outputs: list[int],
        blocks: list[int],
        residual: Residual,
        half: bool,
        classes: int,
    ) -> None:
        super().__init__()
        self.stem = conv(channels, stem, 3)
        self.stages = nn.Sequential()
        inputs = stem
        for width, count in zip(outputs, blocks, strict=True):
            stride = 1 if len(self.stages) == 0 else 2
            layers = [PreactBlock(inputs, width, stride, residual, half)]
            layers += [PreactBlock(width, width, 1, residual, half=False) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*layers))
            inputs = width
        self.features = tuple(f"stages.{stage}" for stage in range(len(self.stages)))
        self.norm = nn.BatchNorm2d(inputs)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        outputs = functional.relu_(self.norm(self.stages(self.stem(inputs))))
        return self.classifier(outputs.mean(dim=(2, 3)))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.stages, self.features, unshared)
        head = (self.norm, nn.ReLU(inplace=True), SpatialMean(), self.classifier)
        return nn.Sequential(self.stem, low), nn.Sequential(high, *head)


class PreactResNet(PreactNetwork):
    """Pre-activation ResNet for CIFAR, depth 6n + 2: three stages of n basic blocks, 16-32-64 channels.

    The form of Zhuang et al., "Discrimination-aware Channel Pruning", NeurIPS 2018: the first block of each
    stage shares its BN-ReLU between residual path and shortcut, which is a 1x1 convolution without BN where
    the shape changes. ResNet-56 has 855,578 parameters with 10 classes.

    Args:
        shape: (channels, height, width), at least 4 pixels a side.
        classes: number of logits.
        depth: number of layers with weights, shortcuts apart.

    Raises:
        UserError: a depth that no n gives, inputs that are no images or too small, no classes.
    """

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, depth: int) -> None:
        channels, _, _ = require_image("preact_resnet", shape, smallest=4)
        super().__init__(
            channels=channels,
            stem=16,
            outputs=[16, 32, 64],
            blocks=3 * [require_depth(depth, 6, 2)],
            residual=preact_residual,
            half=True,
            classes=require_classes("preact_resnet", classes),
        )
