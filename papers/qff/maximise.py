"""Maximising an additive function sum_j f_j(x_{S_j}) over a box: group by group, along a chain, or jointly.

Groups without common coordinates are maximised each by itself: the best of a grid (or, of three or more
coordinates, of Sobol points), then Newton's method. Groups {1, 2}, {2, 3}, ... form a chain: dynamic
programming finds the best point of the product grid in O(G g^2), Newton's method on all coordinates follows.
Other groups: Newton's method from the best of many starts. All is batched over R replicates, and no replicate
or start depends on another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from papers.qff.basis import Axes, Basis, Grid

# points of a group of three or four coordinates, and of a joint search
SOBOL_POINTS = 2048
JOINT_STARTS = 256
# as many of a coordinate's points at each end lie on the bound itself, where maxima often are
FACE_SHARE = 0.1
# the best of them from which Newton's method goes on: of a plane's fine grid, and of Sobol points
GRID_STARTS = 4
SOBOL_STARTS = 10
GRID_STEPS = 8
JOINT_STEPS = 40
# fractions of a Newton step that are tried at once, and of a step that ignores mixed derivatives
FRACTIONS = (1.0, 0.3, 0.05)
DIAGONAL_FRACTION = 0.3
# Newton's method ends where no coordinate moves further than this, as a fraction of the box
TOLERANCE = 1e-10
# a step is no longer than this fraction of the box
LONGEST_STEP = 0.1
# of functions of size 1: curvatures and variances below these are rounding
LEAST_CURVATURE, LEAST_VARIANCE = 1e-8, 1e-16

Structure = Literal["separate", "chain", "joint"]
Local = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Box:
    """lower, upper [d] each."""

    lower: Tensor
    upper: Tensor

    def of(self, index: Tensor) -> "Box":
        """The coordinates `index`."""
        return Box(self.lower[index], self.upper[index])


@dataclass(frozen=True)
class Part:
    """phi . w on the groups of one size: a basis with its grid, and w [R, G, m]."""

    basis: Basis
    grid: Grid
    weights: Tensor


@dataclass(frozen=True)
class Spread:
    """A standard deviation per group: sigma^2 = prior + sign |root' phi|^2.

    Attributes:
        basis: phi.
        root: [R, G or 1, m, k].
        prior: 0 of features, k(0) of covariances; sign: 1 or -1.
        grid: sigma^2 on the grid, [R, G, N].
        factor: by which sigma counts, [R] (the root of beta).
    """

    basis: Basis
    root: Tensor
    prior: float
    sign: float
    grid: Tensor
    factor: Tensor


@dataclass(frozen=True)
class GroupFunction:
    """The parts f_j of all groups of one size: sums of `parts`, plus factor * sigma_j of `spread`.

    Attributes:
        index: coordinates, int64 [G, p].
        unit: what f is of the size of: the standard deviation of its prior.
    """

    index: Tensor
    parts: Sequence[Part]
    spread: Spread | None = None
    unit: float = 1.0

    @property
    def points(self) -> Tensor:
        """The grid's, [1, G or 1, N, p]."""
        return self.parts[0].grid.points

    def on_grid(self) -> Tensor:
        """f_j at the grid's points, [R, G, N]."""
        found = self.parts[0].grid.linear(self.parts[0].weights)
        for part in self.parts[1:]:
            found = found + part.grid.linear(part.weights)
        if self.spread is not None:
            sigma = self.spread.grid.clamp_min(0.0).sqrt()
            found = found + self.spread.factor[:, None, None] * sigma
        return found

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f_j [R, G, s], gradient [R, G, s, p] and Hessian [R, G, s, p, p] at z [R, G, s, p]."""
        jets = [part.basis.jet(z) for part in self.parts]
        weights = [part.weights[..., None, :] for part in self.parts]
        value = torch.stack([(jet.value * w).sum(-1) for jet, w in zip(jets, weights, strict=True)]).sum(0)
        slope = torch.stack([jet.gradient(w) for jet, w in zip(jets, weights, strict=True)]).sum(0)
        bend = torch.stack([jet.hessian(w) for jet, w in zip(jets, weights, strict=True)]).sum(0)
        if self.spread is None:
            return value, slope, bend
        sigma, first, second = self._sigma(self.spread, z)
        factor = self.spread.factor[:, None, None]
        return (
            value + factor * sigma,
            slope + factor[..., None] * first,
            bend + factor[..., None, None] * second,
        )

    def _sigma(self, spread: Spread, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sigma and its derivatives, from those of sigma^2."""
        jet = spread.basis.jet(z)
        projected = jet.value @ spread.root
        variance = spread.prior + spread.sign * projected.square().sum(-1)
        sigma = variance.clamp_min(LEAST_VARIANCE * self.unit**2).sqrt()
        weights = projected @ spread.root.mT
        first = spread.sign * jet.gradient(weights)
        jacobian = jet.jacobian()
        # [R, G, m, s p]: one product with the root for all points
        moved = spread.root.mT @ jacobian.movedim(-2, -3).flatten(-2)
        moved = moved.unflatten(-1, jacobian.shape[-3::2]).movedim(-3, -2)
        second = spread.sign * (jet.hessian(weights) + moved.mT @ moved)
        slope = first / sigma[..., None]
        bend = (second - slope[..., :, None] * slope[..., None, :]) / sigma[..., None, None]
        return sigma, slope, bend


def axes_of(index: Tensor, box: Box, grid: int, grid_2d: int) -> Axes:
    """Candidate points of groups [G, p]: `grid` on a line, `grid_2d`^2 in a plane, Sobol points beyond."""
    own = box.of(index)
    if bool((own.lower == own.lower[:1]).all() and (own.upper == own.upper[:1]).all()):
        own = Box(own.lower[:1], own.upper[:1])
    dim, lower, width = index.shape[1], own.lower[None], (own.upper - own.lower)[None]
    if dim == 2:
        unit = torch.linspace(0.0, 1.0, grid_2d, dtype=torch.float64, device=index.device)
        lines = tuple(lower[..., i, None] + unit * width[..., i, None] for i in range(2))
        points = torch.stack(
            [
                lines[0][..., :, None].expand(*lines[0].shape, grid_2d),
                lines[1][..., None, :].expand(*lines[1].shape[:-1], grid_2d, grid_2d),
            ],
            -1,
        )
        return Axes(points.flatten(-3, -2), (lines[0], lines[1]))
    if dim == 1:
        unit = torch.linspace(0.0, 1.0, grid, dtype=torch.float64, device=index.device)[:, None]
    else:
        corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * dim)
        unit = torch.cat([corners, spread_points(SOBOL_POINTS, dim)]).to(index.device)
    return Axes(lower[..., None, :] + unit * width[..., None, :], None)


def spread_points(count: int, dim: int) -> Tensor:
    """Sobol points of the unit cube, stretched and cut so that some lie on its faces, [count, dim]."""
    unit = SobolEngine(dim).draw(count, dtype=torch.float64)
    return ((unit - FACE_SHARE) / (1.0 - 2.0 * FACE_SHARE)).clamp(0.0, 1.0)


def structure_of(groups: Sequence[Sequence[int]]) -> Structure:
    """How groups hang together."""
    flat = [i for group in groups for i in group]
    if len(set(flat)) == len(flat):
        return "separate"
    chain = all(len(group) == 2 for group in groups) and all(
        first[1] == second[0] for first, second in pairwise(groups)
    )
    return "chain" if chain and len(set(flat)) == len(groups) + 1 else "joint"


def maximise(functions: Sequence[GroupFunction], structure: Structure, box: Box, start: Tensor) -> Tensor:
    """The argmax of sum_j f_j, as far as grids and local search find it.

    Args:
        functions: of the groups, those of one size together.
        structure: of all groups.
        box: the domain.
        start: a point to start from too, [R, d] (the best one seen); it also gives coordinates that are in no
            group.

    Returns:
        [R, d].
    """
    if structure == "separate":
        return _separate(functions, box, start)
    if structure == "chain":
        return _improved(functions, box, _chain(functions[0], start)[:, None])
    return _joint(functions, box, start)


def _separate(functions: Sequence[GroupFunction], box: Box, start: Tensor) -> Tensor:
    found = start.clone()
    for function in functions:
        values, points = function.on_grid(), function.points
        starts = {1: 1, 2: GRID_STARTS}.get(function.index.shape[1], SOBOL_STARTS)
        best = values.topk(starts, -1).indices
        points = points.expand(*values.shape, points.shape[-1])
        z = points.gather(2, best[..., None].expand(*best.shape, points.shape[-1]))
        own = box.of(function.index)
        z, value = newton(function, z, own.lower[:, None], own.upper[:, None], GRID_STEPS, function.unit)
        top = value.argmax(-1)[..., None, None].expand(*value.shape[:2], 1, z.shape[-1])
        found[:, function.index.flatten()] = z.gather(2, top)[:, :, 0].flatten(1)
    return found


def _chain(function: GroupFunction, start: Tensor) -> Tensor:
    """The best point of the product grid, by max-plus recursion along the chain, [R, d]."""
    values, points = function.on_grid(), function.points
    replicates, groups, count = values.shape
    g = round(count**0.5)
    tables = values.unflatten(-1, (g, g))
    best, choices = tables.new_zeros(replicates, g), []
    for j in range(groups):
        best, choice = (best[:, :, None] + tables[:, j]).max(1)
        choices.append(choice)
    at = best.argmax(1)
    ticks = points.unflatten(2, (g, g)).expand(1, groups, g, g, 2)[0]
    found = start.clone()
    found[:, function.index[-1, 1]] = ticks[-1, 0, at, 1]
    for j in reversed(range(groups)):
        at = choices[j].gather(1, at[:, None])[:, 0]
        found[:, function.index[j, 0]] = ticks[j, at, 0, 0]
    return found


def _joint(functions: Sequence[GroupFunction], box: Box, start: Tensor) -> Tensor:
    unit = spread_points(JOINT_STARTS, len(box.lower)).to(start)
    x = box.lower + unit * (box.upper - box.lower)
    x = torch.cat([start[:, None], x.expand(len(start), -1, -1)], 1)
    value = sum_of(functions)(x)[0]
    best = value.topk(SOBOL_STARTS, 1).indices
    return _improved(functions, box, x.gather(1, best[..., None].expand(-1, -1, x.shape[-1])))


def _improved(functions: Sequence[GroupFunction], box: Box, x: Tensor) -> Tensor:
    """The best point that Newton's method reaches from x [R, s, d]."""
    x, value = newton(sum_of(functions), x, box.lower, box.upper, JOINT_STEPS, functions[0].unit)
    best = value.argmax(1)
    return x[torch.arange(len(x), device=x.device), best]


def sum_of(functions: Sequence[GroupFunction]) -> Local:
    """x [R, s, d] -> sum_j f_j [R, s], its gradient [R, s, d] and Hessian [R, s, d, d]."""

    def joint(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        replicates, s, d = x.shape
        total, slope, bend = (
            x.new_zeros(replicates, s),
            torch.zeros_like(x),
            x.new_zeros(replicates, s, d * d),
        )
        for function in functions:
            index = function.index
            value, first, second = function(x[..., index].movedim(2, 1))
            total = total + value.sum(1)
            slope.index_add_(2, index.flatten(), first.movedim(1, 2).flatten(2))
            pairs = (index[:, :, None] * d + index[:, None, :]).flatten()
            bend.index_add_(2, pairs, second.movedim(1, 2).flatten(2))
        return total, slope, bend.unflatten(-1, (d, d))

    return joint


def newton(
    local: Local, x: Tensor, lower: Tensor, upper: Tensor, steps: int, unit: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Newton's method upwards within a box, from each x [..., s, d] by itself.

    The Hessian's eigenvalues count as -|lambda|, so every step is uphill; coordinates at a bound that the
    gradient pushes against stay there; of a few fractions of a step the best is taken, if it is better. One
    try ignores mixed derivatives: cut to the box it is uphill too, as a Newton step need not be.

    Args:
        local: x -> value [..., s], gradient [..., s, d], Hessian [..., s, d, d].
        lower, upper: broadcast against x.
        steps: at most.
        unit: what the values are of the size of.

    Returns:
        The points reached, and the values there.
    """
    x = torch.minimum(torch.maximum(x, lower), upper)
    value, slope, bend = local(x)
    moving = torch.ones_like(value, dtype=torch.bool)
    for _ in range(steps):
        tries = _tries(x, slope, bend, lower, upper, LEAST_CURVATURE * unit)
        count = tries.shape[-2] // x.shape[-2]
        found = [part.unflatten(value.dim() - 1, (count, -1)) for part in local(tries)]
        best, which = found[0].max(-2)
        moving = moving & (best > value)
        if not moving.any():
            break
        new = _chosen(tries.unflatten(-2, (count, -1)), which)
        far = ((new - x).abs() > TOLERANCE * (upper - lower)).any(-1)
        x = torch.where(moving[..., None], new, x)
        value = torch.where(moving, best, value)
        slope = torch.where(moving[..., None], _chosen(found[1], which), slope)
        bend = torch.where(moving[..., None, None], _chosen(found[2], which), bend)
        moving = moving & far
    return x, value


def _chosen(found: Tensor, which: Tensor) -> Tensor:
    """found [..., F, s, *rest] at the fraction `which` [..., s] of each."""
    rest = found.shape[which.dim() + 1 :]
    index = which.unsqueeze(-2).reshape(*which.shape[:-1], 1, which.shape[-1], *[1] * len(rest))
    return found.gather(which.dim() - 1, index.expand(*which.shape[:-1], 1, which.shape[-1], *rest)).squeeze(
        which.dim() - 1
    )


def _tries(x: Tensor, slope: Tensor, bend: Tensor, lower: Tensor, upper: Tensor, least: float) -> Tensor:
    """Points of the box that a step from each x [..., s, d] might go to, [..., F s, d]."""
    step = _newton_step(x, slope, bend, lower, upper, least)
    moves = [fraction * step for fraction in FRACTIONS]
    if x.shape[-1] > 1:
        curvature = bend.diagonal(dim1=-2, dim2=-1).abs().clamp_min(least)
        moves.append(DIAGONAL_FRACTION * _cut(slope / curvature, lower, upper))
    return torch.cat([(x + move).clamp(lower, upper) for move in moves], -2)


def _newton_step(
    x: Tensor, slope: Tensor, bend: Tensor, lower: Tensor, upper: Tensor, least: float
) -> Tensor:
    held = ((x <= lower) & (slope < 0)) | ((x >= upper) & (slope > 0))
    g = slope.masked_fill(held, 0.0)
    if x.shape[-1] == 1:
        step = g / bend[..., 0].abs().clamp_min(least)
    else:
        H = bend.masked_fill(held[..., :, None] | held[..., None, :], 0.0)
        eigenvalues, Q = torch.linalg.eigh(H)
        scaled = (Q.mT @ g[..., None])[..., 0] / eigenvalues.abs().clamp_min(least)
        step = (Q @ scaled[..., None])[..., 0].masked_fill(held, 0.0)
    return _cut(step, lower, upper)


def _cut(step: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The step, no longer than `LONGEST_STEP`."""
    longest = (step.abs() / (LONGEST_STEP * (upper - lower))).amax(-1, keepdim=True)
    return step / longest.clamp_min(1.0)
