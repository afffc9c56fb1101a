"""Convolutional classification layers: pooling and the fully connected layer as one convolution.

Gao, Wang, Ji, NeurIPS 2018, section 3.5; without shared weights and with class orders as in the journal
version (Gao, Wang, Cai, Ji, TPAMI 2020). Of m features and n classes, class i sees features i to i + m - n.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.base.errors import UserError
from papers.channelnets.band import band
from papers.channelnets.layers import require_channels, require_maps, require_sizes

Size = tuple[int, int]


class _OrderedClassifier(nn.Module):
    """What both layers share: windows of k = m - n + 1 features, and the order of the classes.

    Args:
        features: m.
        classes: n.
        order: see `ConvolutionalClassifier`.
    """

    keeps_channels: ClassVar[str] = "a convolutional classification layer takes its features in their order"

    # the place of each class: logits are what stands at these places
    places: Tensor | None

    def __init__(self, features: int, classes: int, order: Sequence[int] | None) -> None:
        super().__init__()
        name = type(self).__name__
        require_sizes(name, features=features, classes=classes)
        if classes > features:
            raise UserError(
                f"{name}: {classes} classes of {features} features leave no kernel; "
                f"valid: 1 to {features} classes"
            )
        self.features, self.classes, self.kernel = features, classes, features - classes + 1
        self.register_buffer("places", None if order is None else _places(name, classes, order))

    def ordered(self, logits: Tensor) -> Tensor:
        """Logits by place, [b, n], as logits by class."""
        return logits if self.places is None else logits.index_select(1, self.places)

    def extra_repr(self) -> str:
        return f"{self.features}, {self.classes}, kernel={self.kernel}"


class ConvolutionalClassifier(_OrderedClassifier):
    """The convolutional classification layer (CCL): one kernel of (m - n + 1) x h x w, no padding, no bias.

        logit_i = sum over k = 0..m-n and positions p of w[k, p] x[i + k, p]

    with (m - n + 1) h w weights and n times as many multiply-adds.

    It is a depthwise h x w convolution (weighted global pooling) and a channel-wise convolution in one, and
    a linear layer on the flattened maps whose matrix is Toeplitz: all classes share their weights. For
    ImageNet 1,024 features of 7x7, 1,000 classes and 25 x 49 = 1,225 weights in place of 1,025,000.

    Args:
        features: m.
        classes: n, at most m.
        size: (h, w) of the maps.
        order: the class at each place: class order[i] sees the features i to i + m - n. None for 0, 1, 2, ...

    Attributes:
        weight: [m - n + 1, h, w], uniform in +- 1 / sqrt(its numbers) at first.

    Raises:
        UserError: sizes below 1, more classes than features, an order that does not name each class once; in
            the forward pass another number of features or another size of maps.
    """

    def __init__(
        self, features: int, classes: int, size: Size, *, order: Sequence[int] | None = None
    ) -> None:
        super().__init__(features, classes, order)
        require_sizes(type(self).__name__, height=size[0], width=size[1])
        self.size = (size[0], size[1])
        self.weight = nn.Parameter(torch.empty(self.kernel, *self.size))
        bound = 1 / math.sqrt(self.weight.numel())
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, m, h, w] to logits [b, n]."""
        require_channels(self, inputs, self.features)
        require_maps(self, inputs, self.size)
        maps, weight = inputs.flatten(2), self.weight.flatten(1)
        if self.classes < self.kernel:
            return self.ordered(F.linear(maps.flatten(1), self.matrix()))
        # positions are summed up first, for each k: [b, k, m]; then y[i] = sum over k of z[k, i + k]
        sums = weight @ maps.transpose(1, 2)
        # read in rows that are one number longer, each row begins one further right: diagonals are columns
        flat = F.pad(sums.flatten(1), (0, self.kernel))
        rows = flat.unflatten(1, (self.kernel, self.features + 1))
        return self.ordered(rows[:, :, : self.classes].sum(1))

    def matrix(self) -> Tensor:
        """The linear layer that it is, by place: [n, m h w] on the flattened maps."""
        positions = math.prod(self.size)
        kernel = self.weight.flatten()
        return band(kernel.unsqueeze(0), self.classes, self.features * positions, positions)

    def multiply_adds(self, inputs: Tensor, outputs: Tensor) -> int:
        """(m - n + 1) h w for each logit, however it is computed."""
        return self.weight.numel() * outputs.numel()


class UnsharedClassifier(_OrderedClassifier):
    """The convolutional classification layer without shared weights: pooling, then weights of each class.

        logit_i = sum over k of W[i, k] mean over positions of x[i + k],   n (m - n + 1) weights, no bias.

    Args:
        features, classes, order: see `ConvolutionalClassifier`; row i of the weights is of place i.

    Attributes:
        weight: [n, m - n + 1], uniform in +- 1 / sqrt(m - n + 1) at first.

    Raises:
        UserError: as `ConvolutionalClassifier`; maps may have any size.
    """

    def __init__(self, features: int, classes: int, *, order: Sequence[int] | None = None) -> None:
        super().__init__(features, classes, order)
        self.weight = nn.Parameter(torch.empty(classes, self.kernel))
        bound = 1 / math.sqrt(self.kernel)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, m, ...] to logits [b, n]."""
        require_channels(self, inputs, self.features)
        pooled = inputs if inputs.dim() == 2 else inputs.flatten(2).mean(2)
        return self.ordered(F.linear(pooled, self.matrix()))

    def matrix(self) -> Tensor:
        """The linear layer that it is, by place: [n, m] on the pooled features."""
        return band(self.weight, self.classes, self.features, 1)

    def multiply_adds(self, inputs: Tensor, outputs: Tensor) -> int:
        """m - n + 1 for each logit."""
        return self.kernel * outputs.numel()


def random_order(classes: int, seed: int) -> list[int]:
    """The class at each place, drawn from a generator of its own."""
    return torch.randperm(classes, generator=torch.Generator().manual_seed(seed), device="cpu").tolist()


def _places(layer: str, classes: int, order: Sequence[int]) -> Tensor:
    """The place of each class, int64 [n].

    Raises:
        UserError: the order does not name each class once.
    """
    named = [int(number) for number in order]
    if sorted(named) != list(range(classes)):
        what = f"names {len(named)} classes" if len(named) != classes else "does not name each class once"
        raise UserError(f"{layer}: its order {what}; valid: each of 0 to {classes - 1} once")
    places = [0] * classes
    for place, number in enumerate(named):
        places[number] = place
    return torch.tensor(places)
