"""ERFNet: Romera, Álvarez, Bergasa, Arroyo, "ERFNet: Efficient Residual Factorized ConvNet for Real-Time
Semantic Segmentation", IEEE Transactions on Intelligent Transportation Systems 2018, table 1.

Its layers are counted from 1 to 23, as there: 1, 2, 8 halve the image, 17, 20, 23 double it, the others are
residual blocks; 1 to 16 are the encoder. It is trained in two phases: the encoder with a 1x1 convolution as
its head (`ERFNetEncoder`), then all of it (`ERFNet`).
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.base.stages import Stage, require_stage
from common.models.resnet import ResidualBlock
from common.models.shapes import require_classes, require_image

# of all batch normalisations in the authors' code
EPS = 1e-3
# the encoder halves the image three times
STRIDE = 8

# (channels, dropout, dilation) to a residual block that keeps the shape
Block = Callable[[int, float, int], nn.Module]


class Downsampler(nn.Module):
    """relu(BN(cat(3x3 convolution with stride 2, 2x2 max-pooling))).

    Args:
        inputs, outputs: channels; the convolution gives the outputs that pooling lacks.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(outputs, eps=EPS)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, h/2, w/2]."""
        halves = [self.convolution(inputs), functional.max_pool2d(inputs, 2)]
        return functional.relu_(self.norm(torch.cat(halves, dim=1)))


def upsampler(inputs: int, outputs: int) -> nn.Module:
    """relu(BN(3x3 transposed convolution)), which doubles the image."""
    layer = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs, eps=EPS), nn.ReLU(inplace=True))


def factorised_block(channels: int, dropout: float, dilation: int) -> nn.Module:
    """Non-bottleneck-1D: two 3x3 convolutions, each as 3x1 and 1x3, the second two dilated.

    Args:
        channels: of inputs and outputs.
        dropout: probability of whole channels of the residual.
        dilation: of the second pair.
    """
    layers: list[nn.Module] = []
    for step in (1, dilation):
        layers += [
            nn.Conv2d(channels, channels, (3, 1), padding=(step, 0), dilation=(step, 1)),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, (1, 3), padding=(0, step), dilation=(1, step)),
            nn.BatchNorm2d(channels, eps=EPS),
            nn.ReLU(inplace=True),
        ]
    return residual_block(layers[:-1], dropout)


def residual_block(layers: list[nn.Module], dropout: float) -> nn.Module:
    """relu(dropout(layers(x)) + x)."""
    last = [nn.Dropout2d(dropout)] if dropout else []
    return ResidualBlock(nn.Sequential(*layers, *last), nn.Identity())


class ERFNetEncoder(nn.Module):
    """Layers 1 to 16 and a 1x1 convolution: the first phase, with logits at an eighth of the resolution.

    Args:
        shape: (channels, height, width) of the images; height and width divisible by 8.
        classes: of the pixels.
        void_logit: whether there is one more logit, for pixels without a class, as in the authors' code. No
            target asks for it.
        class_weights: c of the loss' weights of the classes, see `common.training.segmentation`.

    Attributes:
        features: outputs of layers 7, 12 and 16.

    Raises:
        UserError: inputs that are no images, or whose sides are not divisible by 8; no classes.
    """

    task: ClassVar[Literal["segmentation"]] = "segmentation"

    def __init__(
        self, *, shape: tuple[int, ...], classes: int | None, void_logit: bool, class_weights: float | None
    ) -> None:
        super().__init__()
        channels, height, width = require_image("erfnet", shape, smallest=STRIDE)
        _require_divisible(height, width)
        self.class_weights = class_weights
        self.logits = require_classes("erfnet", classes) + void_logit
        self.encoder = nn.Sequential()
        for number, layer in enumerate(_encoder_layers(channels, self.block), start=1):
            self.encoder.add_module(f"layer{number}", layer)
        self.head = nn.Conv2d(128, self.logits, 1)
        self.features: tuple[str, ...] = ("encoder.layer7", "encoder.layer12", "encoder.layer16")

    @staticmethod
    def block(channels: int, dropout: float, dilation: int) -> nn.Module:
        """A residual block, as `factorised_block`; variants of the network have another."""
        return factorised_block(channels, dropout, dilation)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, logits, h/8, w/8]."""
        return self.head(self.encoder(inputs))


class ERFNet(ERFNetEncoder):
    """All layers: the second phase, with logits at full resolution.

    2,070,848 parameters and statistics with 20 logits, and 2,580 of the first phase's head: together the
    2,073,428 that are printed (Moonshine's table 4). The head stays, as in the authors' code, but takes no
    part.

    Args:
        encoder: the first phase's run, whose weights this starts from; None for random ones.
        The others as in `ERFNetEncoder`.

    Attributes:
        features: outputs of layers 7, 12, 16, 19 and 22.

    Raises:
        UserError: an encoder that does not fit; else as `ERFNetEncoder`.
    """

    STAGES: ClassVar[tuple[str, ...]] = ("encoder",)

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        void_logit: bool,
        class_weights: float | None,
        encoder: Stage | str | None,
    ) -> None:
        super().__init__(shape=shape, classes=classes, void_logit=void_logit, class_weights=class_weights)
        self.decoder = nn.Sequential()
        for number, layer in enumerate(_decoder_layers(self.logits, self.block), start=17):
            self.decoder.add_module(f"layer{number}", layer)
        self.features = (*self.features, "decoder.layer19", "decoder.layer22")
        if encoder is not None:
            self._take_over(require_stage(encoder, "model.encoder"))

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, logits, h, w]."""
        return self.decoder(self.encoder(inputs))

    def _take_over(self, stage: Stage) -> None:
        own, given = (_first_phase(model) for model in (self, stage.model))
        if {name: value.shape for name, value in own.items()} != {k: v.shape for k, v in given.items()}:
            raise UserError(
                f"model.encoder={stage.words}: its layers are not those of this network's encoder "
                "(valid: a run of the same network's first phase, as model=erfnet_encoder for model=erfnet)"
            )
        self.load_state_dict(given, strict=False)


def _first_phase(model: nn.Module) -> dict[str, Tensor]:
    """The weights that the first phase trains."""
    parts = ("encoder.", "head.")
    return {name: value for name, value in model.state_dict().items() if name.startswith(parts)}


def _encoder_layers(channels: int, block: Block) -> list[nn.Module]:
    """Layers 1 to 16."""
    dilations = (2, 4, 8, 16)
    return [
        Downsampler(channels, 16),
        Downsampler(16, 64),
        *(block(64, 0.03, 1) for _ in range(5)),
        Downsampler(64, 128),
        *(block(128, 0.3, dilation) for _ in range(2) for dilation in dilations),
    ]


def _decoder_layers(logits: int, block: Block) -> list[nn.Module]:
    """Layers 17 to 23."""
    return [
        upsampler(128, 64),
        *(block(64, 0.0, 1) for _ in range(2)),
        upsampler(64, 16),
        *(block(16, 0.0, 1) for _ in range(2)),
        nn.ConvTranspose2d(16, logits, 2, stride=2),
    ]


def _require_divisible(height: int, width: int) -> None:
    if height % STRIDE or width % STRIDE:
        larger = "x".join(str(-(-side // STRIDE) * STRIDE) for side in (height, width))
        raise UserError(
            f"model: erfnet cannot take images of {height}x{width} pixels; "
            f"valid: sides divisible by {STRIDE}, as {larger} (dataset.size)"
        )
