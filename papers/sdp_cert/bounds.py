"""Interval and linear bounds of a ReLU network over boxes, batched over examples and objectives.

Objectives are linear in the last hidden layer: rows C [e, k, n_L] with constants c [e, k]; here k = the wrong
classes and C x_L + c = f_y(x) - f_label(x), so that an example is certified iff all its bounds are below 0.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.base.errors import UserError
from papers.sdp_cert.network import ReluNetwork

Slopes = Literal["adaptive", "parallel"]
Intermediate = Literal["interval", "crown"]


@dataclass(frozen=True)
class Interval:
    """lower <= upper, both [e, n]."""

    lower: Tensor
    upper: Tensor

    @property
    def center(self) -> Tensor:
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        return (self.upper - self.lower) / 2

    def relu(self) -> "Interval":
        """The interval after a ReLU."""
        return Interval(self.lower.clamp_min(0), self.upper.clamp_min(0))

    def take(self, index: Tensor | slice) -> "Interval":
        """Some of the examples."""
        return Interval(self.lower[index], self.upper[index])


@dataclass(frozen=True)
class Objective:
    """C x_L + c, rows [e, k, n_L] and constants [e, k]; `targets` [e, k] says which class a row is of."""

    rows: Tensor
    constants: Tensor
    targets: Tensor

    def take(self, examples: Tensor | slice) -> "Objective":
        """The objectives of some of the examples."""
        return Objective(self.rows[examples], self.constants[examples], self.targets[examples])


def input_box(x: Tensor, eps: float, clip: bool) -> Interval:
    """{x' : ||x' - x||_inf <= eps}, cut to [0, 1] where `clip`; x [e, n_0].

    Raises:
        UserError: eps is below 0 or not finite, x is not finite, or is outside [0, 1] where `clip`.
    """
    if not 0 <= eps < float("inf"):
        raise UserError(f"eps={eps}; valid: a finite number >= 0")
    if not x.isfinite().all():
        raise UserError("the input holds numbers that are not finite")
    x = x.double()
    if not clip:
        box = Interval(x - eps, x + eps)
        if not (box.radius.isfinite().all() and box.center.isfinite().all()):
            raise UserError(f"eps={eps}: the box is larger than any float64 number")
        return box
    if x.min() < 0 or x.max() > 1:
        raise UserError("clip_input=true needs inputs in [0, 1] (valid: dataset.normalise=unit_interval)")
    return Interval((x - eps).clamp_min(0), (x + eps).clamp_max(1))


def margins(network: ReluNetwork, labels: Tensor) -> Objective:
    """f_y - f_label for every y but the label; labels int64 [e], k = classes - 1.

    Raises:
        UserError: there is no other class.
    """
    if network.classes < 2:
        raise UserError("the network has one logit, so no other class to be certified against; valid: >= 2")
    W, b = network.weights[-1], network.biases[-1]
    classes = torch.arange(network.classes, device=W.device).expand(len(labels), -1)
    targets = classes[classes != labels[:, None]].view(len(labels), -1)
    return Objective(W[targets] - W[labels, None], b[targets] - b[labels, None], targets)


def interval_bounds(network: ReluNetwork, box: Interval) -> list[Interval]:
    """Pre-activation bounds of each hidden layer by interval arithmetic, in centre and radius form."""
    found = []
    x = box
    for W, b in zip(network.weights[:-1], network.biases[:-1], strict=True):
        center, radius = x.center @ W.mT + b, x.radius @ W.mT.abs()
        found.append(Interval(center - radius, center + radius))
        x = found[-1].relu()
    return found


def interval_objective(
    network: ReluNetwork, layers: list[Interval], box: Interval, goal: Objective
) -> Tensor:
    """Upper bounds [e, k] of an objective by interval arithmetic on the last hidden layer (IBP)."""
    last = layers[-1].relu() if layers else box
    at = goal.rows @ last.center[..., None] + goal.rows.abs() @ last.radius[..., None]
    return at.squeeze(-1) + goal.constants


def rounding(network: ReluNetwork, layers: list[Interval], box: Interval, goal: Objective) -> Tensor:
    """What float64 may be off in a margin of the network, or in a bound of it, on the box: [e, k].

    Sums of n terms are off by n eps times the sum of their absolute values; that of each layer goes through
    all after it, but where its units are always off.
    """
    eps = 4 * torch.finfo(torch.float64).eps
    size, off = box.lower.abs().maximum(box.upper.abs()), torch.zeros_like(box.lower)
    for W, b, layer in zip(network.weights, network.biases, layers, strict=False):
        size, off = size @ W.mT.abs() + b.abs(), off @ W.mT.abs()
        off = off + eps * (W.shape[1] + 2) * size
        size = torch.where(layer.upper > 0, size, 0.0)
    W, b = network.weights[-1], network.biases[-1]
    logits = off @ W.mT.abs() + eps * (W.shape[1] + 2) * (size @ W.mT.abs() + b.abs())
    label = (goal.targets.shape[1] * (goal.targets.shape[1] + 1) // 2 - goal.targets.sum(1))[:, None]
    return logits.gather(1, goal.targets) + logits.gather(1, label)


def lower_slopes(layers: list[Interval], slopes: Slopes) -> list[Tensor]:
    """The slope in [0, 1] of the line below each unstable ReLU, each [e, 1, n].

    `parallel` takes u/(u - l), the slope of the upper line (Wong and Kolter 2018); `adaptive` 1 where u > -l
    and else 0 (CROWN, Zhang et al. 2018).
    """
    if slopes == "parallel":
        return [_upper_line(layer)[0][:, None] for layer in layers]
    return [(layer.upper > -layer.lower).double()[:, None] for layer in layers]


def _upper_line(layer: Interval) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the least line above relu on [l, u]: 0 where u <= 0, a itself where l >= 0."""
    low, high = layer.lower.clamp_max(0), layer.upper.clamp_min(0)
    slope = high / (high - low).clamp_min(torch.finfo(high.dtype).tiny)
    return slope, -slope * low


def linear_bounds(
    network: ReluNetwork, layers: list[Interval], box: Interval, goal: Objective, alpha: list[Tensor]
) -> Tensor:
    """Upper bounds [e, k] of an objective by substituting lines backwards (CROWN).

    Any slopes in [0, 1] give a valid bound; the least over them is the LP relaxation's value for these
    `layers` (strong duality, Salman et al. 2019). Slopes of stable neurons are not used.

    Args:
        network: its first len(layers) layers stand between the box and the objective.
        layers: pre-activation bounds.
        alpha: for each layer [e, 1 or k, n].
    """
    A, constant = goal.rows, goal.constants
    for i in reversed(range(len(layers))):
        slope, intercept = (line[:, None] for line in _upper_line(layers[i]))
        stable = (layers[i].lower >= 0) | (layers[i].upper <= 0)
        below = torch.where(stable[:, None], slope, alpha[i])
        positive = A.clamp_min(0)
        constant = constant + (positive * intercept).sum(-1)
        A = positive * slope + (A - positive) * below
        constant = constant + A @ network.biases[i]
        A = A @ network.weights[i]
    center, radius = box.center[..., None], box.radius[..., None]
    return constant + (A @ center + A.abs() @ radius).squeeze(-1)


def crown_bounds(network: ReluNetwork, box: Interval) -> list[Interval]:
    """Pre-activation bounds of each hidden layer by CROWN, never looser than interval arithmetic."""
    found: list[Interval] = []
    x = box
    for W, b in zip(network.weights[:-1], network.biases[:-1], strict=True):
        center, radius = x.center @ W.mT + b, x.radius @ W.mT.abs()
        lower, upper = center - radius, center + radius
        if found:
            both = torch.cat([W, -W]).expand(len(lower), -1, -1)
            constants = torch.cat([b, -b]).expand(len(lower), -1)
            rows = Objective(both, constants, torch.zeros_like(constants, dtype=torch.long))
            bound = linear_bounds(network, found, box, rows, lower_slopes(found, "adaptive"))
            upper = upper.minimum(bound[:, : len(b)])
            # rounding may make two bounds of one number cross
            lower = lower.maximum(-bound[:, len(b) :]).minimum(upper)
        found.append(Interval(lower, upper))
        x = found[-1].relu()
    return found


def layer_bounds(network: ReluNetwork, box: Interval, intermediate: Intermediate) -> list[Interval]:
    """Pre-activation bounds by name: `interval` (the paper's) or `crown`."""
    return crown_bounds(network, box) if intermediate == "crown" else interval_bounds(network, box)


def crown_objective(
    network: ReluNetwork, layers: list[Interval], box: Interval, goal: Objective, slopes: Slopes
) -> Tensor:
    """`linear_bounds` with the slopes of a rule."""
    return linear_bounds(network, layers, box, goal, lower_slopes(layers, slopes))


def optimised_linear_bounds(
    network: ReluNetwork,
    layers: list[Interval],
    box: Interval,
    goal: Objective,
    *,
    steps: int,
    lr: float,
    stop_below: float | None,
) -> Tensor:
    """The LP relaxation's value from above: `linear_bounds` over slopes, by projected Adam; the best of all
    steps.

    Args:
        steps: of Adam, with the rate falling from `lr` to `lr`/100.
        stop_below: end as soon as every bound is below this; None to make all steps.
    """
    k = goal.rows.shape[1]
    starts = [lower_slopes(layers, "adaptive"), lower_slopes(layers, "parallel")]
    values = [linear_bounds(network, layers, box, goal, start) for start in starts]
    best = values[0].minimum(values[1])
    better = (values[1] < values[0])[..., None]
    alpha = [torch.where(better, b, a.expand(-1, k, -1)) for a, b in zip(*starts, strict=True)]
    alpha = [a.clone().requires_grad_() for a in alpha]
    if not alpha or steps == 0:
        return best
    # without units, so that Adam's own constant is small beside the slopes' gradients
    last = layers[-1].relu()
    spread = (goal.rows.abs() @ last.radius[..., None]).squeeze(-1)
    weight = torch.where(spread > 0, 1 / torch.where(spread > 0, spread, 1.0), 0.0)
    optimizer = torch.optim.Adam(alpha, lr=lr)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.01 ** (1 / steps))
    for _ in range(steps):
        if stop_below is not None and bool((best < stop_below).all()):
            break
        optimizer.zero_grad()
        value = linear_bounds(network, layers, box, goal, alpha)
        best = best.minimum(value.detach())
        (weight * value).sum().backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for a in alpha:
                a.clamp_(0, 1)
    with torch.no_grad():
        return best.minimum(linear_bounds(network, layers, box, goal, alpha))
