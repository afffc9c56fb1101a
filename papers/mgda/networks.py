"""Networks with one encoder and a head for each task: the paper's three, and two small ones."""

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.base.stages import Stage, require_stage
from common.models.imagenet_resnet import ImageNetResNet
from common.models.resnet import ResNet
from common.models.shapes import require_classes, require_image, require_positive, require_sizes
from common.training.multi_task import Regression

Dropout = Literal["none", "official", "inverted"]
# what every mask keeps
KEEP = 0.5


class MultiTaskNetwork(nn.Module):
    """An encoder that all tasks share, and a head for each.

    Attributes:
        encoder: from inputs to the representation Z.
        heads: from Z to the outputs of a task.
        outputs_of_tasks: how many outputs (or channels) each head gives.
    """

    task: ClassVar[Literal["multi_task"]] = "multi_task"
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(self, encoder: nn.Module, heads: Iterable[nn.Module], outputs: list[int]) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, nn.ModuleList(heads)
        self.outputs_of_tasks = outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """The outputs of all tasks side by side: [b, ...] to [b, sum of outputs, ...]."""
        representation = self.encoder(inputs)
        return torch.cat([head(representation) for head in self.heads], dim=1)

    def last_shared(self) -> list[nn.Parameter]:
        """The parameters of the encoder's last layer that has any."""
        layers = [layer for layer in self.encoder.modules() if list(layer.parameters(recurse=False))]
        return list(layers[-1].parameters(recurse=False))


class SeparateNetworks(nn.Module):
    """A whole network for each task: the encoder and one head of as many networks as there are tasks.

    Args:
        make_network: gives another `MultiTaskNetwork` with other initial weights.
        tasks: T.
    """

    task: ClassVar[Literal["multi_task"]] = "multi_task"
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(self, make_network: Callable[[], MultiTaskNetwork], tasks: int) -> None:
        super().__init__()
        networks = [make_network() for _ in range(tasks)]
        self.networks = nn.ModuleList(_only(network, number) for number, network in enumerate(networks))
        self.outputs_of_tasks = networks[0].outputs_of_tasks

    def forward(self, inputs: Tensor) -> Tensor:
        """The outputs of all tasks side by side."""
        return torch.cat([network(inputs) for network in self.networks], dim=1)


def _only(network: MultiTaskNetwork, task: int) -> nn.Module:
    return nn.Sequential(network.encoder, network.heads[task])


class Mask(nn.Module):
    """Dropout as in the authors' code: half of the channels, the same for all images, or of the units.

    "official" multiplies by the mask in training and by nothing in evaluation, so activations double there;
    "inverted" divides by what is kept, as is usual.

    Args:
        dropout: which.
        whole_batch: one mask for all examples, of the channels of a map; else one for each number.
    """

    def __init__(self, dropout: Dropout, whole_batch: bool) -> None:
        super().__init__()
        self.dropout, self.whole_batch = dropout, whole_batch

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, ...] to the same shape."""
        if self.dropout == "none" or not self.training:
            return inputs
        shape = (1, inputs.shape[1], 1, 1) if self.whole_batch else inputs.shape
        mask = torch.empty(shape, dtype=inputs.dtype, device=inputs.device).bernoulli_(KEEP)
        return inputs * (mask / KEEP if self.dropout == "inverted" else mask)


class MultiLeNet(MultiTaskNetwork):
    """The authors' LeNet for MultiMNIST, in any size.

    Encoder: convolution, max-pooling, ReLU; convolution, mask of channels, max-pooling, ReLU; linear, ReLU.
    Head: linear, ReLU, mask, linear. With channels 10 and 20, kernel 5, pooling by 2 and 2, 50 and 50
    units, on 28x28: encoder 21,330, head 3,060 and with two tasks 27,450 parameters. (The figure of the
    supplement shows a bare head; its text and the code have this one.)

    Args:
        shape: (channels, height, width).
        classes: of each task.
        tasks: T.
        channels: of the two convolutions.
        kernel: their size.
        pool: sides of the two poolings; 1 for none.
        representation: units of Z.
        hidden: units of a head's hidden layer.
        dropout: see `Mask`.

    Raises:
        UserError: sizes that do not fit the images, numbers out of range.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        tasks: int,
        channels: list[int],
        kernel: int,
        pool: list[int],
        representation: int,
        hidden: int,
        dropout: Dropout,
    ) -> None:
        count = require_classes("multi_lenet", classes)
        for key, value in {"tasks": tasks, "kernel": kernel, "representation": representation}.items():
            require_positive(key, value)
        require_positive("hidden", hidden)
        for key, sizes in {"channels": channels, "pool": pool}.items():
            require_sizes(key, sizes)
            if len(sizes) != 2:
                raise UserError(f"model.{key}={sizes}; valid: two numbers")
        smallest = kernel - 1 + pool[0] * (kernel - 1 + pool[1])
        inputs, height, width = require_image("multi_lenet", shape, smallest=smallest)
        sides = [((side - kernel + 1) // pool[0] - kernel + 1) // pool[1] for side in (height, width)]
        encoder = nn.Sequential(
            nn.Conv2d(inputs, channels[0], kernel),
            nn.MaxPool2d(pool[0]),
            nn.ReLU(),
            nn.Conv2d(channels[0], channels[1], kernel),
            Mask(dropout, whole_batch=True),
            nn.MaxPool2d(pool[1]),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels[1] * sides[0] * sides[1], representation),
            nn.ReLU(),
        )
        heads = [
            nn.Sequential(
                nn.Linear(representation, hidden),
                nn.ReLU(),
                Mask(dropout, whole_batch=False),
                nn.Linear(hidden, count),
            )
            for _ in range(tasks)
        ]
        super().__init__(encoder, heads, [count] * tasks)


class MultiResNet(MultiTaskNetwork):
    """ResNet-18 for CelebA: a 3x3 stem, four stages, means over 4x4 pixels, and two logits an attribute.

    With width 64 on 64x64 Z has 2,048 numbers; the encoder has 11,168,832 parameters, a head 4,098.

    Args:
        shape: (channels, height, width), at least 32 pixels a side.
        classes: attributes, each a task of its own.
        blocks: in each stage.
        width: channels of the first stage.

    Raises:
        UserError: images that are too small, no attributes, numbers out of range.
    """

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, blocks: list[int], width: int) -> None:
        require_sizes("blocks", blocks)
        _, height, side = require_image("multi_resnet", shape, smallest=4 * 2 ** (len(blocks) - 1))
        attributes = require_classes("multi_resnet", classes)
        trunk = ResNet(shape=shape, classes=2, blocks=blocks, width=width, block="basic", shortcut="B")
        encoder = nn.Sequential(trunk.stem, trunk.stages, nn.AvgPool2d(4), nn.Flatten())
        halved = 2 ** (len(blocks) - 1)
        # a side of n is halved to ceil(n / 2)
        cells = [-(-pixels // halved) // 4 for pixels in (height, side)]
        numbers = trunk.classifier.in_features * cells[0] * cells[1]
        heads = [nn.Linear(numbers, 2) for _ in range(attributes)]
        super().__init__(encoder, heads, [2] * attributes)


class PyramidHead(nn.Module):
    """The decoder of PSPNet (Zhao et al. 2017): means over 1, 4, 9 and 36 cells, beside the map itself.

    Args:
        inputs: channels of the map.
        width: of the four means and of the layer before the outputs.
        outputs: channels.
    """

    BINS: ClassVar = (1, 2, 3, 6)

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.means = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), *_norm_relu(nn.Conv2d(inputs, width, 1, bias=False)))
            for bins in self.BINS
        )
        joined = inputs + width * len(self.BINS)
        self.last = nn.Sequential(
            *_norm_relu(nn.Conv2d(joined, width, 3, padding=1, bias=False)), nn.Conv2d(width, outputs, 1)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, h, w]."""
        size = inputs.shape[2:]
        wide = [
            functional.interpolate(mean(inputs), size, mode="bilinear", align_corners=False)
            for mean in self.means
        ]
        return self.last(torch.cat([inputs, *wide], dim=1))


def _norm_relu(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]


class PSPNet(MultiTaskNetwork):
    """ResNet-50 dilated to an eighth of the resolution, and a `PyramidHead` a task, for Cityscapes.

    Tasks: classes, offsets (2) to the instance's centre, disparity (1). With blocks 3-4-6-3 and widths 64 to
    512 the encoder has 23,508,032 parameters; a head of width 512 has 23,073,792 and 513 an output.

    Args:
        shape: (channels, height, width), sides divisible by 8.
        classes: of pixels.
        blocks, widths: of the residual network, as in `ImageNetResNet`.
        head_width: of the decoders.
        regression: loss of offsets and disparity, "l1" as in the authors' code or "mse" as in the paper.
        encoder: a run of the same residual network, whose weights this starts from; None for random ones.

    Raises:
        UserError: images that do not fit, an encoder that does not fit.
    """

    STAGES: ClassVar[tuple[str, ...]] = ("encoder",)

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        blocks: list[int],
        widths: list[int],
        head_width: int,
        regression: Regression,
        encoder: Stage | str | None,
    ) -> None:
        _, height, width = require_image("pspnet", shape, smallest=32)
        if height % 8 or width % 8:
            raise UserError(f"model: pspnet cannot take {height}x{width} pixels; valid: sides divisible by 8")
        require_positive("head_width", head_width)
        count = require_classes("pspnet", classes)
        trunk = ImageNetResNet(shape=shape, classes=count, blocks=blocks, widths=widths, block="bottleneck")
        if encoder is not None:
            _take_over(trunk, require_stage(encoder, "model.encoder"))
        for stage, dilation in ((trunk.stages[-2], 2), (trunk.stages[-1], 4)):
            _dilate(stage, dilation)
        outputs = [count, 2, 1]
        heads = [PyramidHead(trunk.classifier.in_features, head_width, number) for number in outputs]
        self.regression: Regression = regression
        super().__init__(nn.Sequential(trunk.stem, trunk.stages), heads, outputs)


def _take_over(trunk: nn.Module, stage: Stage) -> None:
    own, given = (_without_classifier(model) for model in (trunk, stage.model))
    if {name: value.shape for name, value in own.items()} != {k: v.shape for k, v in given.items()}:
        raise UserError(
            f"model.encoder={stage.words}: its layers are not those of this encoder "
            "(valid: a run of model=resnet50_imagenet for model=pspnet_resnet50)"
        )
    trunk.load_state_dict(given, strict=False)


def _without_classifier(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("classifier.")}


def _dilate(stage: nn.Module, dilation: int) -> None:
    """Take the stride out of a stage; its 3x3 convolutions reach as far as before (the first one half)."""
    for layer in stage.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        reach = dilation // 2 if layer.stride == (2, 2) else dilation
        layer.stride = (1, 1)
        if layer.kernel_size == (3, 3):
            layer.dilation = layer.padding = (reach, reach)


class LinearEncoder(MultiTaskNetwork):
    """z = J x, where J is the input and x the only parameter, started at 0; every task sees z itself.

    For `dataset=pareto_quadratics`.

    Args:
        shape: (numbers of z, numbers of x).
        classes: None.
        tasks: T.

    Raises:
        UserError: inputs that are no matrices.
    """

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, tasks: int) -> None:
        if classes is not None or len(shape) != 2:
            raise UserError("model=linear_encoder: takes matrices; valid: dataset=pareto_quadratics")
        require_positive("tasks", tasks)
        super().__init__(Product(shape[1]), [nn.Identity() for _ in range(tasks)], [shape[0]] * tasks)


class Product(nn.Module):
    """J x for a parameter x of so many numbers."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(numbers))

    def forward(self, matrices: Tensor) -> Tensor:
        """[b, latent, parameters] to [b, latent]."""
        return matrices @ self.x
