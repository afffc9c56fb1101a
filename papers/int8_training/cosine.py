"""How far quantisation turns tensors: angles forward and backward, their bound, and how heavy the tails are.

Banner, Hubara, Hoffer, Soudry, "Scalable Methods for 8-bit Training of Neural Networks", NeurIPS 2018
(arXiv 1805.11046), section 5 and figure 2.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from statistics import fmean, pstdev

import torch
from torch import Tensor, nn

from common.quantization.layers import QuantisedLayer
from common.quantization.observing import Kind, observing

# what figure 2 has on its left: tensors of the forward pass, and of the backward pass
DIRECTIONS: dict[str, tuple[Kind, ...]] = {"fwd": ("activations", "weights"), "bwd": ("layer_gradients",)}
# of which tensors it has histograms on its right
TENSORS = ("activations", "layer_gradients", "weight_gradients")
# the histograms' bins, in standard deviations
REACH, BINS = 10.0, 40


def cosine_bound(m: float, count: int) -> float:
    """2^M / (2^M + sqrt(ln N) / sqrt(6)), equation 12: below the cosine of Gaussian numbers and their levels.

    Args:
        m: M, with steps of max|x| / 2^M; b bits over [-max, max] have M = b - 1.
        count: N, how many numbers the vector has.
    """
    return 2**m / (2**m + math.sqrt(math.log(count)) / math.sqrt(6))


def cosine(before: Tensor, after: Tensor) -> Tensor:
    """The cosine of the angle between two tensors as vectors, a float64 scalar; NaN where one is 0."""
    first, second = (unit_free(tensor) for tensor in (before, after))
    return (first * second).sum() / (first.norm() * second.norm())


def excess_kurtosis(values: Tensor) -> Tensor:
    """E (x - mu)^4 / sigma^4 - 3 of all numbers, a float64 scalar: 0 of a Gaussian; NaN where sigma is 0."""
    centred = unit_free(values)
    centred = centred - centred.mean()
    return centred.pow(4).mean() / centred.square().mean() ** 2 - 3


def histogram(values: Tensor) -> Tensor:
    """The shares of numbers in `BINS` equal bins, `REACH` standard deviations to both sides of the mean.

    Numbers beyond are counted in the outermost bins, and the shares add up to 1.
    """
    flat = unit_free(values).flatten()
    standard = (flat - flat.mean()) / flat.std(correction=0).clamp_min(torch.finfo(torch.float64).tiny)
    place = ((standard + REACH) * (BINS / (2 * REACH))).floor().clamp(0, BINS - 1).long()
    return torch.bincount(place, minlength=BINS).double() / flat.numel()


def unit_free(values: Tensor) -> Tensor:
    """Numbers in float64 by their largest magnitude, whatever their unit; zeros stay zeros."""
    double = values.detach().double()
    largest = double.abs().max()
    return double / torch.where(largest == 0, torch.ones_like(largest), largest)


@dataclass
class Angles:
    """What was seen of the tensors that a network quantises.

    Attributes:
        cosines: by kind, one number for each tensor.
        bounds: of the tensors of the forward pass.
        kurtosis, histograms: by the kind of tensor, of each.
    """

    cosines: dict[Kind, list[Tensor]] = field(default_factory=dict)
    bounds: list[float] = field(default_factory=list)
    kurtosis: dict[str, list[Tensor]] = field(default_factory=dict)
    histograms: dict[str, list[Tensor]] = field(default_factory=dict)

    def see(self, kind: Kind, before: Tensor, after: Tensor, bits: int) -> None:
        """Add a tensor and its quantised form; weights of a single number and the like have no angle."""
        if before.numel() < 2:
            return
        self.cosines.setdefault(kind, []).append(cosine(before, after))
        if kind in DIRECTIONS["fwd"]:
            self.bounds.append(cosine_bound(bits - 1, before.numel()))
        if kind in TENSORS:
            self.spread(kind, before)

    def spread(self, kind: str, values: Tensor) -> None:
        """Add what figure 2's right side shows of a tensor."""
        self.kurtosis.setdefault(kind, []).append(excess_kurtosis(values))
        self.histograms.setdefault(kind, []).append(histogram(values))

    def summary(self) -> dict[str, float]:
        """`cos_fwd`, `cos_bwd`, their deviations over tensors, and `cos_bound`, of what was seen."""
        found: dict[str, float] = {}
        for name, kinds in DIRECTIONS.items():
            values = _numbers([value for kind in kinds for value in self.cosines.get(kind, [])])
            if values:
                found |= {f"cos_{name}": fmean(values), f"cos_{name}_std": pstdev(values)}
        if self.bounds:
            found["cos_bound"] = fmean(self.bounds)
        return found

    def shapes(self) -> dict[str, float | list[float]]:
        """`kurtosis_<kind>`, the mean over tensors, and `histogram_<kind>`, the mean shares of each bin."""
        found: dict[str, float | list[float]] = {}
        for kind, tensors in self.kurtosis.items():
            values = _numbers(tensors)
            if values:
                found[f"kurtosis_{kind}"] = fmean(values)
                found[f"histogram_{kind}"] = torch.stack(self.histograms[kind]).mean(0).tolist()
        return found


def measure(
    network: nn.Module, loss_of: Callable[[nn.Module, Tensor, Tensor | None], Tensor], batches: list
) -> Angles:
    """Look at what a network quantises in training steps that are not made.

    The network, its running averages and the random numbers to come stay as they are: a copy is looked at.

    Args:
        network: in training mode.
        loss_of: the loss of a network, inputs and targets.
        batches: (inputs, targets) each.
    """
    angles, twin = Angles(), deepcopy(network)
    layers = dict(twin.named_modules())

    def see(name: str, kind: Kind, before: Tensor, after: Tensor) -> None:
        angles.see(kind, before, after, _bits_of(layers[name], kind))

    devices = [batches[0][0].device] if batches and batches[0][0].is_cuda else []
    with torch.random.fork_rng(devices), observing(twin, see):
        for inputs, targets in batches:
            twin.zero_grad(set_to_none=True)
            loss_of(twin, inputs, targets).backward()
            for layer in twin.modules():
                if isinstance(layer, QuantisedLayer) and layer.weight.grad is not None:
                    angles.spread("weight_gradients", layer.weight.grad)
    return angles


def _bits_of(layer: nn.Module, kind: Kind) -> int:
    """By how many bits a layer quantises tensors of a kind."""
    if isinstance(layer, QuantisedLayer):
        own = layer.settings
        return {"activations": own.bits, "weights": own.bits_weight, "layer_gradients": own.grad_bits}[kind]
    bits = layer.bits if kind == "activations" else layer.grad_bits
    assert isinstance(bits, int)
    return bits


def _numbers(tensors: list[Tensor]) -> list[float]:
    """The values that are numbers; tensors of zeros have no angle."""
    return [value for value in torch.stack(tensors).tolist() if math.isfinite(value)] if tensors else []
