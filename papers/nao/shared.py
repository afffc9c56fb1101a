"""Networks that hold the weights of every architecture of a space at once, as NAO-WS and ENAS share them."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.training.language import Passed
from papers.nao.cell import INPUTS, Cell, ConvArchitecture, loose_ends
from papers.nao.layers import FactorizedReduce, Pool
from papers.nao.network import Maps, calibrated, make_stem
from papers.nao.operations import OPERATIONS
from papers.nao.recurrent_cell import ACTIVATIONS, RecurrentCell
from papers.nao.recurrent_network import ACTIVATION, RANGE
from papers.nao.space import ConvSpace


class Convolution(NamedTuple):
    """One convolution of an operation.

    Attributes:
        kernel: (height, width).
        strided: which of the two directions a stride of the operation halves.
        depthwise: whether each channel is by itself.
        normalised: whether batch normalisation follows, and ReLU stands before the next one.
    """

    kernel: tuple[int, int]
    strided: tuple[bool, bool]
    depthwise: bool
    normalised: bool


def convolutions(operation: str) -> list[Convolution]:
    """The convolutions of an operation, in their order; none of a pooling or of the identity.

    Raises:
        UserError: an operation whose weights cannot be shared.
    """
    kind, kernel = OPERATIONS[operation]
    if kind == "identity" or kind.endswith("_pool"):
        return []
    side = int(kernel.split("x")[1].split("+")[0])
    both, none = (True, True), (False, False)
    if kind == "conv" and "+" in kernel:
        return [
            Convolution((1, side), (False, True), False, True),
            Convolution((side, 1), (True, False), False, True),
        ]
    if kind == "conv":
        return [Convolution((side, side), both, False, True)]
    if kind == "sep_conv":
        point = Convolution((1, 1), none, False, True)
        first = Convolution((side, side), both, True, False)
        return [first, point, first._replace(strided=none), point]
    raise UserError(
        f"method.operations: {operation} has no shared form (valid: sep_conv, conv, poolings, identity)"
    )


class SharedNorm(nn.Module):
    """Batch normalisation with a scale and a shift for each source, and statistics for all together."""

    def __init__(self, sources: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(sources, channels))
        self.bias = nn.Parameter(torch.zeros(sources, channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, inputs: Tensor, source: int) -> Tensor:
        """[b, c, h, w] to the same."""
        return functional.batch_norm(
            inputs, self.running_mean, self.running_var, self.weight[source], self.bias[source], self.training
        )


class SharedOperation(nn.Module):
    """One operation of one branch, with weights of its own for each source that it may read.

    Args:
        operation: its name.
        channels: that it keeps.
        sources: how many states the branch may read.
        reduction: whether it may have to halve the inputs 0 and 1.
    """

    def __init__(self, operation: str, channels: int, sources: int, reduction: bool) -> None:
        super().__init__()
        self.kind, kernel = OPERATIONS[operation]
        self.parts = convolutions(operation)
        self.inside = operation.endswith("_inside")
        self.side = int(kernel[0])
        shapes = [(channels, 1 if part.depthwise else channels, *part.kernel) for part in self.parts]
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(sources, *shape)) for shape in shapes)
        for weight in self.weights:
            for one in weight:
                nn.init.kaiming_normal_(one)
        self.norms = nn.ModuleList(SharedNorm(sources, channels) for part in self.parts if part.normalised)
        halves = INPUTS if reduction and self.kind == "identity" else 0
        self.reduced = nn.ModuleList(FactorizedReduce(channels, channels) for _ in range(halves))

    def forward(self, inputs: Tensor, source: int, stride: int) -> Tensor:
        """[b, c, h, w] to [b, c, ceil(h / stride), ceil(w / stride)]."""
        if self.kind == "identity":
            return inputs if stride == 1 else cast(Tensor, self.reduced[source](inputs))
        if not self.parts:
            kind = self.kind.removesuffix("_pool")
            return cast(Tensor, Pool(kind, self.side, stride, self.inside)(inputs))
        norms, rectify = iter(self.norms), True
        for part, weight in zip(self.parts, self.weights, strict=True):
            steps = [stride if strided else 1 for strided in part.strided]
            padding = [side // 2 for side in part.kernel]
            groups = inputs.shape[1] if part.depthwise else 1
            inputs = functional.relu(inputs) if rectify else inputs
            inputs = functional.conv2d(inputs, weight[source], None, steps, padding, 1, groups)
            rectify = part.normalised
            if part.normalised:
                inputs = next(norms)(inputs, source)
        return inputs


class SharedCell(nn.Module):
    """A layer that can be any cell of a space; its outputs always have the channels of a node.

    The states that nothing reads are joined by a 1x1 convolution with a block of weights for each state.

    Args:
        space: of the cells.
        before_last, last, channels, reduction: see `CellLayer`.
    """

    def __init__(
        self, space: ConvSpace, before_last: Maps, last: Maps, channels: int, reduction: bool
    ) -> None:
        super().__init__()
        self.space, self.reduction = space, reduction
        self.first, self.second = calibrated(before_last, last, channels)
        self.branches = nn.ModuleList(
            nn.ModuleDict(
                {o: SharedOperation(o, channels, INPUTS + node, reduction) for o in space.operations}
            )
            for node in range(space.nodes)
            for _ in range(2)
        )
        self.reduced = nn.ModuleList(
            FactorizedReduce(channels, channels) for _ in range(INPUTS if reduction else 0)
        )
        self.joined = nn.Parameter(torch.empty(INPUTS + space.nodes, channels, channels, 1, 1))
        for block in self.joined:
            nn.init.kaiming_normal_(block)
        self.norm = nn.BatchNorm2d(channels)
        self.maps = Maps(channels, last.halvings + reduction)

    def forward(self, before_last: Tensor, last: Tensor, cell: Cell) -> Tensor:
        """The outputs of the two layers before to [b, channels, h, w], as this cell."""
        states = [self.first(before_last), self.second(last)]
        for number, node in enumerate(cell):
            halves = []
            for half, branch in enumerate(node):
                stride = 2 if self.reduction and branch.source < INPUTS else 1
                choices = cast(nn.ModuleDict, self.branches[2 * number + half])
                halves.append(choices[branch.operation](states[branch.source], branch.source, stride))
            states.append(halves[0] + halves[1])
        ends = loose_ends(cell)
        if self.reduction:
            for end in (end for end in ends if end < INPUTS):
                states[end] = self.reduced[end](states[end])
        weight = torch.cat([self.joined[end] for end in ends], 1)
        inputs = functional.relu(torch.cat([states[end] for end in ends], 1))
        return cast(Tensor, self.norm(functional.conv2d(inputs, weight)))


class SharedNet(nn.Module):
    """The network of all architectures of a space (Luo et al. 2018, NAO-WS): `forward` says which one it is.

    Args:
        space: of the architectures.
        shape, classes: of the data.
        cells, filters: as in `NAONet`.
    """

    def __init__(
        self, space: ConvSpace, *, shape: tuple[int, ...], classes: int, cells: int, filters: int
    ) -> None:
        super().__init__()
        self.space = space
        self.stem, before_last, last = make_stem("cifar", shape[0], filters)
        self.layers = nn.ModuleList()
        for number in range(3 * cells + 2):
            reduction = number in (cells, 2 * cells + 1)
            filters *= 2 if reduction else 1
            layer = SharedCell(space, before_last, last, filters, reduction)
            self.layers.append(layer)
            before_last, last = last, layer.maps
        self.classifier = nn.Linear(last.channels, classes)

    def forward(self, inputs: Tensor, architecture: ConvArchitecture) -> Tensor:
        """[b, c, h, w] to the logits [b, classes] of an architecture."""
        before_last, last = self.stem(inputs)
        for layer in self.layers:
            chosen = architecture.reduction if cast(Any, layer).reduction else architecture.normal
            before_last, last = last, layer(before_last, last, chosen)
        return cast(Tensor, self.classifier(last.mean((2, 3))))


class SharedRecurrentNet(nn.Module):
    """The language model of all recurrent cells of n steps: a matrix for each step, source, activation.

    Its output is the mean of s_0, ..., s_n, as the search's network has it; weights are tied.

    Args:
        steps: n.
        words: V.
        size: of the embedding and of the state.
    """

    def __init__(self, steps: int, words: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(words, size)
        self.first = nn.Parameter(torch.empty(2 * size, 2 * size))
        self.steps = nn.ParameterList(
            nn.Parameter(torch.empty(number, len(ACTIVATIONS), size, 2 * size))
            for number in range(1, steps + 1)
        )
        self.bias = nn.Parameter(torch.zeros(words))
        for parameter in (self.embedding.weight, self.first, *self.steps):
            nn.init.uniform_(parameter, -RANGE, RANGE)

    def run(self, tokens: Tensor, state: Tensor | None, cell: RecurrentCell) -> Passed:
        """Tokens int64 [b, T] and the state before them, as this cell."""
        inputs = self.embedding(tokens)
        state = inputs.new_zeros(len(tokens), self.size) if state is None else state
        from_x = (inputs @ self.first[: self.size]).unbind(1)
        from_h = self.first[self.size :]
        weights = [
            weight[step.source, ACTIVATIONS.index(step.activation)]
            for weight, step in zip(self.steps, cell.steps, strict=True)
        ]
        found = []
        for now in from_x:
            gate, value = torch.addmm(now, state, from_h).chunk(2, 1)
            states = [state + gate.sigmoid() * (value.tanh() - state)]
            for step, weight in zip(cell.steps, weights, strict=True):
                before = states[step.source]
                gate, value = (before @ weight).chunk(2, 1)
                states.append(before + gate.sigmoid() * (ACTIVATION[step.activation](value) - before))
            state = torch.stack(states).mean(0)
            found.append(state)
        outputs = torch.stack(found, 1)
        logits = outputs @ self.embedding.weight.T + self.bias
        return Passed(logits, outputs[:, -1], outputs, outputs)
