"""LeNet-5 as pruning papers use it: Caffe's version for MNIST."""

from typing import ClassVar, Literal

from torch import Tensor, nn

from common.base.errors import UserError
from common.models.shapes import require_classes


class LeNet5(nn.Module):
    """Caffe's LeNet-5: conv 5x5 (20), max-pool, conv 5x5 (50), max-pool, 500 ReLU units, logits.

    431,080 parameters with one channel and 10 classes (Caffe examples/mnist/lenet.prototxt; Han et al.
    2015, table 1: 431K). LeCun et al. 1998 describe a smaller one, with tanh and partial connections.
    Features: both pooled maps and the hidden units.

    Args:
        shape: (channels, 28, 28).
        classes: number of logits.

    Raises:
        UserError: inputs that are not 28x28 images, or no classes.
    """

    task: ClassVar[Literal["classification"]] = "classification"
    features: ClassVar[tuple[str, ...]] = ("convolutions.1", "convolutions.3", "classifier.2")

    def __init__(self, *, shape: tuple[int, ...], classes: int | None) -> None:
        super().__init__()
        if len(shape) != 3 or tuple(shape[1:]) != (28, 28):
            raise UserError(f"model: lenet5 cannot take inputs of shape {tuple(shape)}; valid: 28x28 images")
        self.convolutions = nn.Sequential(
            nn.Conv2d(shape[0], 20, kernel_size=5),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, kernel_size=5),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(50 * 4 * 4, 500),
            nn.ReLU(),
            nn.Linear(500, require_classes("lenet5", classes)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, 28, 28] to logits [b, classes]."""
        return self.classifier(self.convolutions(inputs))


class LeNet5ReLU(LeNet5):
    """`LeNet5` with a ReLU after each convolution, as the papers on pruning draw it, and the same parameters.

    Source: EIDOSLAB/LOBSTER (`architectures.py`); Caffe's has none there. Features: both maps after their
    pooling and the hidden units.

    Args:
        shape, classes: as `LeNet5`'s.

    Raises:
        UserError: as `LeNet5`.
    """

    features: ClassVar[tuple[str, ...]] = ("convolutions.2", "convolutions.5", "classifier.2")

    def __init__(self, *, shape: tuple[int, ...], classes: int | None) -> None:
        super().__init__(shape=shape, classes=classes)
        first, first_pool, second, second_pool = self.convolutions
        self.convolutions = nn.Sequential(first, nn.ReLU(), first_pool, second, nn.ReLU(), second_pool)
