"""The problem that channel selection solves for one layer: its cached inputs and what its outputs cost.

Zhuang et al., "Discrimination-aware Channel Pruning", NeurIPS 2018, equations (4) to (6). Everything but the
layer is frozen, and batch normalisation uses its running statistics, so the layer's inputs X are computed
once.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.base.limits import require
from common.pruning.rates import removed_count
from papers.dcp.quadratic import LARGEST, Quadratic

# numbers in the patches that are looked at together: 128 MB
PATCHES = 2**24
# numbers of examples of the selection set
Rows = slice | Tensor
# from the layer's outputs for some examples, and which those are, to the mean of L_S over them
Tail = Callable[[Tensor, Rows], Tensor]


class Terms(NamedTuple):
    """L_M and L_S of some weights; None where the term has no weight in L and was not computed."""

    reconstruction: float | None
    discrimination: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """L of some weights over the whole selection set.

    Attributes:
        loss: L.
        terms: L_M and L_S.
        weight_gradient: dL/dW in the layer's shape, float64.
        bias_gradient: dL/db [n], float64; None where the bias is not trained.
    """

    loss: float
    terms: Terms
    weight_gradient: Tensor
    bias_gradient: Tensor | None

    @property
    def finite(self) -> bool:
        """Whether the loss and every gradient are."""
        bias = self.bias_gradient is None or bool(self.bias_gradient.isfinite().all())
        return math.isfinite(self.loss) and bias and bool(self.weight_gradient.isfinite().all())


class LayerProblem:
    """L(W) = mse_weight L_M(W) + lam L_S(W) of one layer, as a function of its weights and its bias.

        L_M(W) = 1 / (2 Q) sum (O^b - O)^2,   O = layer(X; W, b),   Q = the number of outputs of all examples

    and L_S is the discrimination loss that `tail` gives (equations 4 and 5). The authors' code has the mean
    of squares, 2 L_M, in the place of L_M: its mse_weight of 1 is 2 here.

    Args:
        layer: an `nn.Conv2d` without groups or an `nn.Linear`; it is read, never written. Its weights are
            W_0, the pretrained ones that chosen channels start from.
        inputs: X [N, c, h, w] or [N, ..., c p], which the (partly pruned) network gives the layer. They may
            lie on another device than the layer: they move in chunks.
        baseline: O^b [N, n, h_out, w_out] or [N, ..., n], the layer's outputs in the unpruned network.
        tail: see `Tail`; not needed with lam = 0.
        name: of the layer, for messages.
        mse_weight, lam: see above; one of them may be 0.
        channels: c of a linear layer whose inputs are c flattened maps, p numbers each; None: p = 1.
        train_bias: whether the sub-problem trains the layer's bias too, as the authors' code does.
        chunk: examples that pass the tail at once, which bounds the memory of a backward pass.

    Raises:
        UserError: a layer of another kind or with groups, inputs or outputs that do not fit it or are not
            finite, no examples, weights of the loss that are negative or both 0; each names the layer.
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        inputs: Tensor,
        baseline: Tensor,
        tail: Tail | None = None,
        *,
        name: str = "layer",
        mse_weight: float = 1.0,
        lam: float = 1.0,
        channels: int | None = None,
        train_bias: bool = True,
        chunk: int = 64,
    ) -> None:
        _require_layer(layer, name)
        require("at least 0", "method", mse_weight=mse_weight, lam=lam)
        if mse_weight == lam == 0:
            raise UserError(f"layer {name}: mse_weight=0 and lam=0 leave no loss (valid: one above 0)")
        if lam > 0 and tail is None:
            raise UserError(f"layer {name}: lam={lam} needs a discrimination loss (valid: a tail, or lam=0)")
        require("at least 1", "method", chunk=chunk)
        self.name, self.layer, self.tail = name, layer, tail
        self.mse_weight, self.lam, self.chunk = mse_weight, lam, chunk
        self.start = layer.weight.detach().clone()
        self.start_bias = None if layer.bias is None else layer.bias.detach().clone()
        self.trains_bias = train_bias and layer.bias is not None
        self.channels = _count_channels(layer, channels, name)
        self.inputs, self.baseline = _padded(layer, inputs), baseline
        self._require_data()

    def output(self, weight: Tensor, bias: Tensor | None, rows: Rows) -> Tensor:
        """O of some examples, on the device of the weights."""
        inputs = self.inputs[rows].to(weight.device)
        if isinstance(self.layer, nn.Linear):
            return functional.linear(inputs, weight, bias)
        layer = self.layer
        padding = 0 if _pads_before(layer) else layer.padding
        return functional.conv2d(inputs, weight, bias, layer.stride, padding, layer.dilation)

    def by_channel(self, weight: Tensor) -> Tensor:
        """Weights, or their gradient, as [n, c, p]: p numbers for each output and input channel; a view."""
        return weight.view(len(weight), self.channels, -1)

    def terms(self, weight: Tensor, bias: Tensor | None, rows: Rows) -> tuple[Tensor | None, Tensor | None]:
        """L_M and L_S of some examples (their means), with their graph; None for one without weight."""
        outputs = self.output(weight, bias, rows)
        reconstruction = None
        if self.mse_weight > 0:
            reconstruction = 0.5 * (outputs - self.baseline[rows].to(outputs.device)).square().mean()
        # last: it may write over the outputs in place
        discrimination = self.tail(outputs, rows) if self.lam > 0 and self.tail is not None else None
        return reconstruction, discrimination

    def joint(self, reconstruction: Tensor | None, discrimination: Tensor | None) -> Tensor:
        """mse_weight L_M + lam L_S."""
        weighted = [(self.mse_weight, reconstruction), (self.lam, discrimination)]
        return torch.stack([weight * term for weight, term in weighted if term is not None]).sum()

    def evaluate(self, weight: Tensor, bias: Tensor | None) -> Evaluation:
        """L over the whole selection set and its gradient, by one forward and one backward pass.

        The gradient is that of all channels, chosen or not. Without a discrimination loss it is the closed
        form of a quadratic, (W A - B) / Q.
        """
        if self.is_quadratic:
            return self._evaluate_quadratic(weight, bias)
        return self._evaluate_by_chunks(weight, bias)

    @property
    def is_quadratic(self) -> bool:
        """Whether L is L_M alone, and its Gram matrix is not too large to be worth it."""
        return self.lam == 0 and self.start[0].numel() <= LARGEST

    @cached_property
    def quadratic(self) -> Quadratic:
        """L_M as a quadratic in (W, b), from one pass over the selection set.

        Raises:
            UserError: its Gram matrix would be too large.
        """
        if self.start[0].numel() > LARGEST:
            raise UserError(
                f"layer {self.name}: the Gram matrix of {self.start[0].numel()} inputs is too large "
                f"(valid: up to {LARGEST}; or the minimiser backtracking)"
            )
        found = Quadratic(self.start[0].numel(), len(self.start))
        for rows in self.feature_chunks():
            found.add(self.features(rows), self._flat_baseline(rows))
        return found

    def chunks(self) -> Iterator[slice]:
        """The examples in order, `chunk` at a time."""
        yield from self._slices(self.chunk)

    def feature_chunks(self) -> Iterator[slice]:
        """The examples in order, as many at a time as have no more than `PATCHES` numbers in their
        `features`."""
        positions = self.baseline[0].numel() // len(self.start)
        yield from self._slices(max(1, min(self.chunk, PATCHES // (positions * self.start[0].numel()))))

    def _slices(self, size: int) -> Iterator[slice]:
        for first in range(0, len(self.inputs), size):
            yield slice(first, min(first + size, len(self.inputs)))

    def features(self, rows: slice) -> Tensor:
        """The numbers that each output is a linear function of: [outputs' positions, c p], float64."""
        inputs = self.inputs[rows].to(self.start.device, torch.float64)
        if isinstance(self.layer, nn.Linear):
            return inputs.flatten(0, -2)
        layer = self.layer
        padding = 0 if _pads_before(layer) else layer.padding
        # a string was padded before
        assert not isinstance(padding, str)
        columns = functional.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride)
        return columns.transpose(1, 2).flatten(0, 1)

    def activations(self, rows: slice) -> Tensor:
        """X without padding, as [b, c, numbers of a channel]."""
        inputs = self.inputs[rows]
        if isinstance(self.layer, nn.Linear):
            return inputs.view(*inputs.shape[:-1], self.channels, -1).movedim(-2, 1).flatten(2)
        if _pads_before(self.layer):
            inputs = functional.pad(inputs, [-pad for pad in self.layer._reversed_padding_repeated_twice])
        return inputs.flatten(2)

    def require_kept(self, kept: int) -> None:
        """Refuse a number of channels that cannot stay.

        Raises:
            UserError: names the layer.
        """
        if not 1 <= kept <= self.channels:
            raise UserError(
                f"layer {self.name}: {kept} channels cannot stay of {self.channels} "
                f"(valid: 1 to {self.channels})"
            )

    def _evaluate_by_chunks(self, weight: Tensor, bias: Tensor | None) -> Evaluation:
        weight = weight.detach().requires_grad_(True)
        trained = [weight]
        if self.trains_bias and bias is not None:
            bias = bias.detach().requires_grad_(True)
            trained.append(bias)
        sums = [torch.zeros_like(each, dtype=torch.float64) for each in trained]
        found = torch.zeros(2, dtype=torch.float64)
        with torch.enable_grad():
            for rows in self.chunks():
                share = (rows.stop - rows.start) / len(self.inputs)
                both = self.terms(weight, bias, rows)
                gradients = torch.autograd.grad(self.joint(*both), trained)
                for total, gradient in zip(sums, gradients, strict=True):
                    total.add_(gradient, alpha=share)
                for place, term in enumerate(both):
                    found[place] += share * (0.0 if term is None else float(term.detach()))
        reconstruction, discrimination = found.tolist()
        loss = self.mse_weight * reconstruction + self.lam * discrimination
        terms = Terms(
            reconstruction if self.mse_weight > 0 else None, discrimination if self.lam > 0 else None
        )
        return Evaluation(loss, terms, sums[0], sums[1] if len(sums) > 1 else None)

    def _evaluate_quadratic(self, weight: Tensor, bias: Tensor | None) -> Evaluation:
        value, gradient, bias_gradient = self.quadratic.evaluate(weight.flatten(1), bias)
        return Evaluation(
            self.mse_weight * value,
            Terms(value, None),
            self.mse_weight * gradient.view_as(weight),
            self.mse_weight * bias_gradient if self.trains_bias else None,
        )

    def _flat_baseline(self, rows: slice) -> Tensor:
        """O^b as [positions, n], float64."""
        baseline = self.baseline[rows].to(self.start.device, torch.float64)
        if isinstance(self.layer, nn.Linear):
            return baseline.flatten(0, -2)
        return baseline.flatten(2).transpose(1, 2).flatten(0, 1)

    def _require_data(self) -> None:
        if len(self.inputs) == 0 or len(self.inputs) != len(self.baseline):
            raise UserError(
                f"layer {self.name}: {len(self.inputs)} inputs and {len(self.baseline)} outputs of the "
                "unpruned network (valid: as many of both, one or more)"
            )
        for what, tensor in (("inputs", self.inputs), ("baseline outputs", self.baseline)):
            if not tensor.isfinite().all():
                raise UserError(f"layer {self.name}: its {what} are not finite")
        try:
            with torch.no_grad():
                shape = tuple(self.output(self.start, self.start_bias, slice(0, 1)).shape[1:])
        except RuntimeError as error:
            raise UserError(
                f"layer {self.name}: cannot take inputs of shape {tuple(self.inputs.shape[1:])}"
            ) from error
        if shape != tuple(self.baseline.shape[1:]):
            raise UserError(
                f"layer {self.name}: gives outputs {shape}, not those of the unpruned network, "
                f"{tuple(self.baseline.shape[1:])}"
            )


def kept_channels(channels: int, eta: float, name: str = "layer") -> int:
    """c - floor(eta c): how many of c channels stay at the pruning rate eta (the removed fraction).

    The paper's kappa = ceil(eta c) is of the kept fraction; this form gives its tables.

    Raises:
        UserError: eta outside [0, 1).
    """
    if not 0 <= eta < 1:
        raise UserError(f"method.rate={eta}: layer {name} must keep a channel (valid: 0 <= rate < 1)")
    return channels - removed_count(channels, eta)


def _require_layer(layer: nn.Module, name: str) -> None:
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise UserError(
            f"layer {name}: channels of {type(layer).__name__} are not selected (valid: Conv2d, Linear)"
        )
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        raise UserError(
            f"layer {name}: a convolution in {layer.groups} groups sees its input channels group by group "
            "(valid: one group)"
        )


def _count_channels(layer: nn.Conv2d | nn.Linear, channels: int | None, name: str) -> int:
    if isinstance(layer, nn.Conv2d):
        channels = layer.in_channels if channels is None else channels
        fits = channels == layer.in_channels
    else:
        channels = layer.in_features if channels is None else channels
        fits = channels >= 1 and layer.in_features % channels == 0
    if not fits:
        raise UserError(f"layer {name}: its inputs are not {channels} channels")
    return channels


def _pads_before(layer: nn.Conv2d) -> bool:
    """Whether the padding is one that `unfold` does not know, and is done when inputs are cached."""
    return layer.padding_mode != "zeros" or isinstance(layer.padding, str)


def _padded(layer: nn.Conv2d | nn.Linear, inputs: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear) or not _pads_before(layer):
        return inputs
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
