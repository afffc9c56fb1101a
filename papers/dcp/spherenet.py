"""SphereNet: the plain convolutional network for faces of Liu et al., "SphereFace", CVPR 2017."""

from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn

from common.base.dataset import DataSet
from common.models.shapes import require_classes, require_image, require_positive, require_sizes
from papers.dcp.angular_softmax import AngularSoftmax
from papers.dcp.face_verification import FaceVerification


class SphereNet(nn.Module):
    """3x3 convolutions of stride 2 with bias, each with PReLU, and a linear layer to the embedding of a face.

    SphereNet-4 (Zhuang et al., NeurIPS 2018, table 4): 64, 128, 256 and 512 channels and 512 numbers for
    112x96 faces: 12,562,496 parameters without the directions of the identities, which only training needs.
    Kernels start uniform with the variance of Glorot and Bengio, biases at 0.

    `features`: the outputs of the stages, "stages.0", ...; a stage is a convolution and its PReLU.

    Args:
        shape: (channels, height, width), at least 2^stages pixels a side.
        classes: number of identities of the training set.
        widths: channels of each convolution; a net whose channels were pruned is the same net with smaller
            widths.
        embedding: numbers of an embedding.
        margin, base, gamma, least: of the loss, see `AngularSoftmax`.

    Raises:
        UserError: inputs that are no images or are too small, no classes, numbers out of range.
    """

    task: ClassVar[Literal["own"]] = "own"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        widths: list[int],
        embedding: int,
        margin: int,
        base: float,
        gamma: float,
        least: float,
    ) -> None:
        super().__init__()
        require_sizes("widths", widths)
        require_positive("embedding", embedding)
        channels, height, width = require_image("spherenet", shape, smallest=2 ** len(widths))
        stages: list[nn.Module] = []
        for inputs, outputs in pairwise([channels, *widths]):
            stages.append(nn.Sequential(_started(nn.Conv2d(inputs, outputs, 3, 2, 1)), nn.PReLU(outputs)))
            height, width = (height + 1) // 2, (width + 1) // 2
        self.stages = nn.Sequential(*stages)
        self.features = tuple(f"stages.{stage}" for stage in range(len(stages)))
        self.embedding = _started(nn.Linear(widths[-1] * height * width, embedding))
        self.identities = AngularSoftmax(
            embedding,
            require_classes("spherenet", classes),
            margin=margin,
            base=base,
            gamma=gamma,
            least=least,
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Faces [b, channels, h, w] to embeddings [b, embedding]."""
        return self.embedding(self.stages(inputs).flatten(1))

    def own_task(self, data: DataSet) -> FaceVerification:
        """What it is trained for and judged by."""
        return FaceVerification()


def _started(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.xavier_uniform_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
