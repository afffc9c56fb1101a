"""SSD (Liu et al., ECCV 2016), and its form in Pelee (Wang, Li and Ling, NeurIPS 2018, section 3)."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.detection.priors import prior_boxes
from common.models.shapes import require_image, require_positive

# channels of the middle of a residual prediction block, as a part of its outputs
INNER = 2
KERNELS = (1, 3)


class ResidualPrediction(nn.Module):
    """relu(shortcut(x) + residual(x)), which a map passes before its heads (Pelee, figure 4).

    The shortcut is a 1x1 convolution, the residual 1x1 and 3x3 convolutions of half the channels, each with
    ReLU, and a 1x1 convolution; each convolution has batch normalisation.

    Args:
        inputs: channels.
        outputs: channels, even; 256 in the paper.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = outputs // INNER
        self.residual = nn.Sequential(
            *_conv_norm(inputs, inner, 1),
            nn.ReLU(inplace=True),
            *_conv_norm(inner, inner, 3),
            nn.ReLU(inplace=True),
            *_conv_norm(inner, outputs, 1),
        )
        self.shortcut = nn.Sequential(*_conv_norm(inputs, outputs, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, h, w]."""
        return functional.relu_(self.shortcut(inputs) + self.residual(inputs))


class SSD(nn.Module):
    """A detector of one pass: a backbone, extra layers, and for each map heads that predict from priors.

    The maps are the last `sources` of the backbone, then the outputs of the extra layers. Each map passes a
    residual prediction block, if there are any, which all heads on it share. A pair of heads gives, for each
    of its cells and each prior of a cell, 4 offsets (`common.detection.coding`) and classes + 1 logits, the
    first of which stands for the background. What the backbone has beyond its last source, as a classifier,
    is dropped.

    With PeleeNet at 304x304: maps of 19, 10, 5, 3 and 1 cells a side, 5,142 priors; 5.43 M parameters with
    20 classes, 5.98 M with 80.

    Args:
        shape: (channels, height, width).
        classes: number of classes of objects, at least 1.
        backbone: makes a network with `sources` and `source_channels` from its shape and classes.
        sources: how many of the backbone's maps are used, the coarsest; 2 in Pelee, 3 with its map of 38x38.
        extras: for each extra layer the channels of its 1x1 convolution, then channels, stride and padding of
            its 3x3 convolution; both have a bias and ReLU, and no batch normalisation.
        maps: for each pair of heads the number of its map, from 0; a map may have several.
        scales: of the priors, see `common.detection.priors.prior_boxes`, one more than heads.
        ratios: aspect ratios of the priors, above 1; each also counts turned.
        whole_pixels: see `prior_boxes`.
        residual: channels of the residual prediction blocks; None for none.
        kernel: of the heads' convolutions, 1 or 3.
        norm_eps, norm_momentum: of all batch normalisations; None as the backbone has them, and torch's.

    Attributes:
        priors: buffer float32 [P, 4], (cx, cy, w, h) relative to the image.
        features: those of the backbone.

    Raises:
        UserError: a backbone without sources, or with too few; maps, scales or layers that do not fit;
            numbers out of range.
    """

    task: ClassVar[Literal["detection"]] = "detection"
    priors: Tensor

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        backbone: Callable[..., nn.Module],
        sources: int,
        extras: list[tuple[int, int, int, int]],
        maps: list[int],
        scales: list[float],
        ratios: list[float],
        whole_pixels: bool,
        residual: int | None,
        kernel: int,
        norm_eps: float | None,
        norm_momentum: float | None,
    ) -> None:
        super().__init__()
        if classes is None or classes < 1:
            raise UserError(f"model: ssd needs a data set with classes of objects, this one has {classes}")
        _, height, width = require_image("ssd", shape, smallest=1)
        self.classes, self.used = classes, sources
        _check_settings(maps, scales, ratios, kernel, residual)
        # its classifier is dropped, but some need two classes to be built
        self.backbone: Any = backbone(shape=shape, classes=max(2, classes))
        channels, sides = self._trim(shape)
        self.extras = nn.ModuleList()
        for squeezed, outputs, stride, padding in extras:
            sides.append(_side_after(sides[-1], stride, padding, len(self.extras)))
            self.extras.append(extra_layer(channels[-1], squeezed, outputs, stride, padding))
            channels.append(outputs)
        self.maps = _chosen(maps, len(channels))
        widths = channels if residual is None else [residual] * len(channels)
        self.blocks = nn.ModuleList(
            nn.Identity() if residual is None or number not in maps else ResidualPrediction(inputs, residual)
            for number, inputs in enumerate(channels)
        )
        of_cell = 2 + 2 * len(ratios)
        self.offsets = nn.ModuleList(_head(widths[number], 4 * of_cell, kernel) for number in maps)
        logits = (classes + 1) * of_cell
        self.logits = nn.ModuleList(_head(widths[number], logits, kernel) for number in maps)
        cells = [sides[number] for number in maps]
        priors = prior_boxes(cells, (height, width), scales, ratios, whole_pixels)
        self.register_buffer("priors", priors, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = module.eps if norm_eps is None else norm_eps
                module.momentum = module.momentum if norm_momentum is None else norm_momentum
        names: tuple[str, ...] = getattr(self.backbone, "features", ())
        there = dict(self.backbone.named_modules())
        self.features = tuple(f"backbone.{name}" for name in names if name in there)

    def _trim(self, shape: tuple[int, ...]) -> tuple[list[int], list[tuple[int, int]]]:
        """Drop what no source needs; the channels and sides of the maps that are used."""
        name = type(self.backbone).__name__
        found: tuple[int, ...] = tuple(getattr(self.backbone, "source_channels", ()))
        if not found or not hasattr(self.backbone, "sources"):
            raise UserError(
                f"model.backbone: {name} has no sources, the maps that a detector sees (valid: a VGG, "
                "ResNet, MobileNet or PeleeNet; your own with sources(images), which gives a list of maps, "
                "each coarser than the last, and source_channels, the channels of each)"
            )
        if not 1 <= self.used <= len(found):
            raise UserError(
                f"model.sources={self.used}; valid: 1 to {len(found)}, as many maps as {name} gives"
            )
        maps, ran = _traced(self.backbone, shape)
        _drop_others(self.backbone, ran)
        return list(found[-self.used :]), [(one.shape[2], one.shape[3]) for one in maps[-self.used :]]

    def start_from(self, weights: dict[str, Tensor]) -> str | None:
        """Take over the weights of another detector of this kind, or of a network like the backbone.

        Those of a detector for another number of classes leave the layers of logits as they are.

        Args:
            weights: a state dict.

        Returns:
            What starts anew, in words; None where nothing does but what a classifier has not.

        Raises:
            UserError: of another network.
        """
        detector = any(name.startswith("backbone.") for name in weights)
        given = weights if detector else {f"backbone.{name}": value for name, value in weights.items()}
        own = self.state_dict()
        wanted = [name for name in own if detector or name.startswith("backbone.")]
        others = [
            name
            for name in wanted
            if name.startswith("logits.") and name in given and given[name].shape[1:] == own[name].shape[1:]
        ]
        others = others if any(given[name].shape != own[name].shape for name in others) else []
        taken = {name: given.get(name) for name in wanted if name not in others}
        wrong = [name for name, value in taken.items() if value is None or value.shape != own[name].shape]
        if wrong:
            what = wrong[0] if detector else wrong[0].removeprefix("backbone.")
            raise UserError(
                f"it is of another network: {what} is missing or has another shape (valid: a detector with "
                "these layers, whatever its classes, or a classifier like the backbone)"
            )
        self.load_state_dict({**own, **taken})
        return f"the {len(others) // 2} layers of logits, of another number of classes" if others else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [b, channels, h, w] to offsets [b, P, 4] and logits [b, P, classes + 1]."""
        maps = list(self.backbone.sources(images)[-self.used :])
        for layer in self.extras:
            maps.append(layer(maps[-1]))
        maps = [block(one) for block, one in zip(self.blocks, maps, strict=True)]
        seen = [maps[number] for number in self.maps]
        offsets = [_rows(head(one), 4) for head, one in zip(self.offsets, seen, strict=True)]
        logits = [_rows(head(one), self.classes + 1) for head, one in zip(self.logits, seen, strict=True)]
        return torch.cat(offsets, dim=1), torch.cat(logits, dim=1)


def extra_layer(inputs: int, squeezed: int, outputs: int, stride: int, padding: int) -> nn.Sequential:
    """1x1 convolution and 3x3 convolution, each with a bias and ReLU."""
    return nn.Sequential(
        _xavier(nn.Conv2d(inputs, squeezed, 1)),
        nn.ReLU(inplace=True),
        _xavier(nn.Conv2d(squeezed, outputs, 3, stride, padding)),
        nn.ReLU(inplace=True),
    )


def _rows(predicted: Tensor, numbers: int) -> Tensor:
    """[b, priors of a cell * numbers, h, w] to [b, h * w * priors of a cell, numbers], cells row by row."""
    return predicted.permute(0, 2, 3, 1).reshape(len(predicted), -1, numbers)


def _head(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return _xavier(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))


def _conv_norm(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [_xavier(layer), nn.BatchNorm2d(outputs)]


def _xavier(layer: nn.Conv2d) -> nn.Conv2d:
    """Weights uniform as Glorot and Bengio 2010 have it (Caffe's "xavier"), biases 0."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _check_settings(
    maps: list[int], scales: list[float], ratios: list[float], kernel: int, residual: int | None
) -> None:
    if len(scales) != len(maps) + 1 or sorted(scales) != list(scales) or min(scales, default=0) <= 0:
        raise UserError(
            f"model.scales={list(scales)}; valid: {len(maps) + 1} rising numbers above 0, one more than maps"
        )
    if min(ratios, default=2) <= 1:
        raise UserError(f"model.ratios={list(ratios)}; valid: numbers above 1, each also counts turned")
    if kernel not in KERNELS:
        raise UserError(f"model.kernel={kernel}; valid: {' or '.join(map(str, KERNELS))}")
    if residual is not None:
        require_positive("residual", residual // INNER)


def _chosen(maps: list[int], there: int) -> tuple[int, ...]:
    if not maps or not set(maps) <= set(range(there)):
        raise UserError(f"model.maps={list(maps)}; valid: numbers of maps, 0 to {there - 1}")
    return tuple(maps)


def _side_after(sides: tuple[int, int], stride: int, padding: int, number: int) -> tuple[int, int]:
    """(rows, columns) of a map after an extra layer."""
    if stride < 1 or padding < 0 or min(sides) + 2 * padding < 3:
        raise UserError(
            f"model.extras[{number}]: a map of {sides[0]}x{sides[1]} cells with stride {stride} and padding "
            f"{padding} gives no map (valid: fewer extra layers, or a padding of 1)"
        )
    rows, columns = ((side + 2 * padding - 3) // stride + 1 for side in sides)
    return rows, columns


def _traced(backbone: Any, shape: Sequence[int]) -> tuple[list[Tensor], set[str]]:
    """The maps of one image as shapes alone, and the names of the modules that ran for them."""
    copy = deepcopy(backbone).to("meta").eval()
    ran: set[str] = set()
    for name, module in copy.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.add(name))
    with torch.no_grad():
        return list(copy.sources(torch.empty(1, *shape, device="meta"))), ran


def _drop_others(module: nn.Module, ran: set[str], place: str = "") -> None:
    """Drop the modules within `module` of which nothing ran; those that stay keep their names."""
    for name, child in list(module._modules.items()):
        path = f"{place}{name}"
        if path in ran:
            continue
        if any(other.startswith(f"{path}.") for other in ran):
            if child is not None:
                _drop_others(child, ran, f"{path}.")
        else:
            del module._modules[name]
