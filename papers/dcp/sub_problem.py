"""The sub-problem of a pick: minimise L over the weights of the chosen channels, all others staying 0.

Algorithm 2 of Zhuang et al., line "optimise W_A by problem (8)". The paper makes a pass of SGD with a fixed
step, and that step decides as much as the choice of channels does: features in other units, or more channels,
and it diverges or does next to nothing. So the default here finds its own step and never raises L.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.limits import require
from papers.dcp.layer_problem import Evaluation, LayerProblem
from papers.dcp.quadratic import LARGEST

# a step must lower L by this share of what the gradient promises (Armijo)
SUFFICIENT = 1e-4
# a step that is shortened is multiplied by a number between these
SHORTEN = (0.1, 0.5)
# trials of one step before the point is taken as the minimum
TRIALS = 30
# what a step promises below this share of L is rounding of single precision
ROUNDING = 1e-7


# from a gradient [n, c p + 1] to a direction
Metric = Callable[[Tensor], Tensor]


class Point(NamedTuple):
    """Weights in the layer's shape, 0 outside of the chosen channels, and a bias.

    Attributes:
        weight, bias: see above.
        step: the last length of a step, from which the next sub-problem starts; None: none yet.
        evaluation: L and its gradient there, where the solver knows them.
    """

    weight: Tensor
    bias: Tensor | None
    step: float | None = None
    evaluation: Evaluation | None = None


class Minimiser(Protocol):
    """Solves the sub-problem of a pick."""

    def check(self, problem: LayerProblem) -> None:
        """Refuse a problem that it cannot solve.

        Raises:
            UserError: names the layer and what is valid.
        """

    def minimise(self, problem: LayerProblem, point: Point, chosen: Tensor, seed: int) -> Point:
        """A better point.

        Args:
            point: where to start: old weights, and pretrained ones for the new channels.
            chosen: which channels may be other than 0, bool [c].
            seed: of the order of minibatches.
        """


@dataclass(frozen=True)
class Backtracking:
    """Gradient descent on the whole selection set, each step as long as lowers L enough.

    A step starts at the length of Barzilai and Borwein (1988), s's / s'y, and is shortened by quadratic
    interpolation until L falls by `SUFFICIENT` of what the gradient promises. The first starts at
    L / |g|^2, which is the right length where L can be brought to 0. All lengths scale with the units.

    Args:
        steps: after each pick; each is a forward and a backward pass of the tail, and again where it was too
            long.
    """

    steps: int = 2

    def __post_init__(self) -> None:
        require("at least 0", "method.minimiser", steps=self.steps)

    def check(self, problem: LayerProblem) -> None:
        """Any problem will do."""

    def minimise(self, problem: LayerProblem, point: Point, chosen: Tensor, seed: int) -> Point:
        """See `Minimiser`; L never rises."""
        return descend(problem, point, chosen, self.steps, adapts=True)


@dataclass(frozen=True)
class GaussNewton:
    """Steps along -dL/dV H^-1, H the Hessian of L_M on the chosen channels, each as long as lowers L enough.

    It is steepest descent where weights are as far apart as the layer's outputs that they give, so the
    condition of the inputs does not matter. For reconstruction alone the first step is Newton's, and ends at
    the least squares solution but for the damping. With mse_weight = 0 the same H is used. A layer with more
    than `LARGEST` inputs has the steps of `Backtracking`.

    Args:
        steps: after each pick.
        damping: added to the diagonal of H, relative to each input's own entry.
    """

    steps: int = 2
    damping: float = 1e-3

    def __post_init__(self) -> None:
        require("at least 0", "method.minimiser", steps=self.steps)
        require("positive", "method.minimiser", damping=self.damping)

    def check(self, problem: LayerProblem) -> None:
        """Any problem will do."""

    def minimise(self, problem: LayerProblem, point: Point, chosen: Tensor, seed: int) -> Point:
        """See `Minimiser`; L never rises."""
        if problem.start[0].numel() > LARGEST:
            return descend(problem, point, chosen, self.steps, adapts=True)
        features = chosen.repeat_interleave(problem.start[0].numel() // problem.channels)
        inverse = problem.quadratic.inverse(features, problem.trains_bias, self.damping)
        if problem.mse_weight > 0:
            point = point._replace(step=1 / problem.mse_weight)
        return descend(problem, point, chosen, self.steps, adapts=True, metric=inverse)


@dataclass(frozen=True)
class InverseLipschitz:
    """Gradient descent with the step 1/L, where L bounds how fast the gradient changes.

    L = mse_weight x the largest eigenvalue of A / Q (`quadratic`), exact for reconstruction. What L_S adds to
    it is not known before: where a step raises the joint loss, it and all later ones of the layer are
    shorter.

    Args:
        steps: after each pick.
    """

    steps: int = 5

    def __post_init__(self) -> None:
        require("at least 0", "method.minimiser", steps=self.steps)

    def check(self, problem: LayerProblem) -> None:
        """Refuse a problem without a reconstruction loss.

        Raises:
            UserError: see above.
        """
        if problem.mse_weight == 0:
            raise UserError(
                f"layer {problem.name}: inverse_lipschitz needs a reconstruction loss (mse_weight > 0)"
            )

    def minimise(self, problem: LayerProblem, point: Point, chosen: Tensor, seed: int) -> Point:
        """See `Minimiser`; L never rises."""
        if point.step is None:
            curvature = problem.mse_weight * problem.quadratic.lipschitz(problem.trains_bias)
            point = point._replace(step=1 / curvature if curvature > 0 else 0.0)
        return descend(problem, point, chosen, self.steps, adapts=False)


@dataclass(frozen=True)
class LeastSquares:
    """The exact minimiser of the reconstruction loss on the chosen channels, by Gram matrices."""

    def check(self, problem: LayerProblem) -> None:
        """Refuse a problem with a discrimination loss, which is no quadratic.

        Raises:
            UserError: see above.
        """
        if problem.lam > 0:
            raise UserError(
                f"layer {problem.name}: least_squares minimises reconstruction alone, not lam={problem.lam} "
                "(valid: lam=0, or the minimiser backtracking)"
            )

    def minimise(self, problem: LayerProblem, point: Point, chosen: Tensor, seed: int) -> Point:
        """See `Minimiser`; the start does not matter."""
        features = chosen.repeat_interleave(problem.start[0].numel() // problem.channels)
        weight, bias = problem.quadratic.minimise(features, point.bias, problem.trains_bias)
        return Point(
            weight.view_as(point.weight).to(point.weight),
            None if bias is None or point.bias is None else bias.to(point.bias),
        )


@dataclass(frozen=True)
class Sgd:
    """Passes of SGD with Nesterov momentum over the selection set, as the authors' code makes one a pick.

    The optimizer is new at every pick; gradients of channels that are not chosen are 0. It may diverge: then
    the weights before it are kept (`selection`).

    Args:
        lr, momentum, weight_decay, batch_size: see above.
        passes: over the selection set after each pick.
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 128
    passes: int = 1

    def __post_init__(self) -> None:
        require("positive", "method.minimiser", lr=self.lr)
        require("at least 0", "method.minimiser", weight_decay=self.weight_decay, passes=self.passes)
        require("at least 1", "method.minimiser", batch_size=self.batch_size)
        if not 0 <= self.momentum < 1:
            raise UserError(f"method.minimiser.momentum={self.momentum}: must be at least 0 and below 1")

    def check(self, problem: LayerProblem) -> None:
        """Any problem will do."""

    def minimise(self, problem: LayerProblem, point: Point, chosen: Tensor, seed: int) -> Point:
        """See `Minimiser`."""
        weight, bias = point.weight.clone().requires_grad_(True), point.bias
        trained = [weight]
        if problem.trains_bias and bias is not None:
            bias = bias.clone().requires_grad_(True)
            trained.append(bias)
        optimizer = torch.optim.SGD(
            trained,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.momentum > 0,
        )
        for rows in self._batches(len(problem.inputs), seed):
            with torch.enable_grad():
                loss = problem.joint(*problem.terms(weight, bias, rows))
                gradients = torch.autograd.grad(loss, trained)
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.grad = gradient
            weight.grad = masked(problem, gradients[0], chosen)
            optimizer.step()
        return Point(weight.detach(), None if bias is None else bias.detach())

    def _batches(self, examples: int, seed: int) -> Iterator[Tensor]:
        """The examples of each minibatch, in another order in every pass."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.passes):
            yield from torch.randperm(examples, generator=generator).split(self.batch_size)


def masked(problem: LayerProblem, weight: Tensor, chosen: Tensor) -> Tensor:
    """Weights, or a gradient, with 0 in the channels that are not chosen."""
    kept = problem.by_channel(weight.contiguous()) * chosen.to(weight).view(1, -1, 1)
    return kept.view_as(weight)


def descend(
    problem: LayerProblem,
    point: Point,
    chosen: Tensor,
    steps: int,
    *,
    adapts: bool,
    metric: Metric | None = None,
) -> Point:
    """Descent with steps that lower L; ends early where no step does.

    Args:
        adapts: whether each step after the first has its own length; else each has that of the one before,
            shorter where it was shortened.
        metric: from the gradient to the direction of steepest ascent; None: the gradient itself.
    """
    here = problem.evaluate(point.weight, point.bias)
    weight, bias, step = point.weight, point.bias, point.step
    gradient = _gradient(problem, here, chosen)
    for _ in range(steps):
        direction = gradient if metric is None else metric(gradient)
        slope = float((gradient * direction).sum())
        if step is None and slope > 0:
            step = here.loss / slope
        found = None
        if step is not None and here.finite:
            found = _shorten(problem, Point(weight, bias, step, here), direction, slope)
        if found is None or found.evaluation is None or found.step is None:
            break
        weight, bias, step, here = found.weight, found.bias, found.step, found.evaluation
        before, gradient = gradient, _gradient(problem, here, chosen)
        if adapts:
            # s'Ms / s'y for the step s and the change y; twice the step where L is not convex along it
            along = float((direction * (gradient - before)).sum())
            step = -step * slope / along if along < 0 else 2 * step
    return Point(weight, bias, step, here)


def _shorten(problem: LayerProblem, start: Point, direction: Tensor, slope: float) -> Point | None:
    """The point a step along -direction away, the step shortened until L falls; None if none is found."""
    here, step = start.evaluation, start.step
    assert here is not None and step is not None
    for _ in range(TRIALS):
        promised = step * slope
        if not promised > ROUNDING * here.loss:
            return None
        weight = start.weight.add(direction[:, :-1].reshape(start.weight.shape).to(start.weight), alpha=-step)
        bias = start.bias
        if bias is not None and problem.trains_bias:
            bias = bias.add(direction[:, -1].to(bias), alpha=-step)
        there = problem.evaluate(weight, bias)
        if there.finite and there.loss <= here.loss - SUFFICIENT * promised:
            return Point(weight, bias, step, there)
        # the minimum of the parabola through both losses and the slope; of NaN or infinity the shortest
        excess = 2 * (there.loss - here.loss + promised)
        shorter = promised / excess if there.finite and excess > 0 else SHORTEN[0]
        step *= min(max(shorter, SHORTEN[0]), SHORTEN[1])
    return None


def _gradient(problem: LayerProblem, there: Evaluation, chosen: Tensor) -> Tensor:
    """dL/dV for V = [W, b]: [n, c p + 1], float64, 0 for what is not trained."""
    weight = masked(problem, there.weight_gradient, chosen).flatten(1)
    bias = there.bias_gradient
    last = weight.new_zeros(len(weight)) if bias is None else bias.to(weight)
    return torch.cat([weight, last.unsqueeze(1)], dim=1)
