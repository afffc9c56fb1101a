"""The SDP by an interior-point method that keeps the dual feasible: every iterate is a certificate.

The dual of `relaxation.Relaxation`: minimise t + sum box_k over multipliers y of the right signs such that
S(y) = C + sum y_k A_k is psd. Its primal has Z psd with <A_k, Z> + z_k = cost_k (z_k >= 0 the slack of a
constraint with a sign). The method is primal-dual path following (HKM direction, Mehrotra's corrector): with
mu -> 0,

    M dy = mu (<A_k, S^{-1}> + 1/y_k) - cost,   M_kl = tr(A_k Z A_l S^{-1}) + [k = l] z_k / y_k.

Each constraint matrix is sym(a, b) = (a b' + b a')/2 of two rows, so that every M_kl is a sum of four
products of entries of V Z V' and V S^{-1} V', V = all rows: a few products of size N in place of one for each
constraint. At the paper's sizes (N about 1,000) a step takes a second on one core, and 10 to 20 reach the
optimum.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from papers.sdp_cert.bounds import Interval, Objective, interval_objective
from papers.sdp_cert.network import ReluNetwork
from papers.sdp_cert.relaxation import (
    Multipliers,
    Relaxation,
    UnitFree,
    certify,
    interval_multipliers,
    project,
    relax,
    rounding,
    unit_free,
)

# a step goes at most this part of the way to the boundary
PART = 0.97
BACKTRACK = 0.9
# shorter steps make no progress
SHORTEST = 1e-3
TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Solution:
    """Certified bounds [b] of a batch of relaxations.

    Attributes:
        bound: valid in float64 whatever happened (`relaxation.certify`).
        gap: by how much the bound may be above the relaxation's optimum, as far as the primal iterate is
            feasible; inf where it never was.
        steps: made, [b].
        failed: where the method stopped for numerical reasons before it was done, bool [b].
        multipliers, corner: what certifies the bound.
    """

    bound: Tensor
    gap: Tensor
    steps: Tensor
    failed: Tensor
    multipliers: Multipliers
    corner: Tensor


def certified_bound(
    network: ReluNetwork,
    layers: list[Interval],
    box: Interval,
    goal: Objective,
    *,
    linear_cut: bool = False,
    layerwise: bool = False,
    tolerance: float = 1e-4,
    max_steps: int = 100,
    decide: bool = False,
    numbers: int = 50_000_000,
    asked: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Certified upper bounds of the objective rows over the box by the SDP relaxation.

    Never above the bound of interval arithmetic on the last layer.

    Args:
        network, layers, box, goal: see `relaxation.relax`.
        linear_cut, layerwise: which SDP.
        tolerance: stop where the gap is below tolerance max(|bound|, spread), the spread being how far
            interval arithmetic lets the objective move: logits times a factor give bounds times it.
        max_steps: at most.
        decide: stop as soon as the bound is below 0, or cannot come below 0.
        numbers: float64 numbers in the matrices of the problems that are solved at once.
        asked: bool [e, k], the rows to solve; the others keep the bound of interval arithmetic. None: all.

    Returns:
        bounds [e, k], gaps [e, k], and where the solver failed (the bound is then that of its last valid
        step, or of interval arithmetic where that is lower or there is none).
    """
    e, k = goal.constants.shape
    start = interval_objective(network, layers, box, goal)
    bounds, gaps, failed = start.clone(), torch.full_like(start, torch.inf), torch.zeros_like(start).bool()
    width = 1 + network.inputs + 4 * sum(len(b) for b in network.biases[:-1])
    at_once = max(1, numbers // (3 * width**2))
    wanted = torch.ones_like(start, dtype=torch.bool) if asked is None else asked
    # examples whose problems together make about one batch
    step = max(1, at_once // max(1, int(wanted.sum(1).max()) if e else 1))
    for first in range(0, e, step):
        some = slice(first, first + step)
        problems = wanted[some].flatten().nonzero().squeeze(1)
        if not len(problems):
            continue
        parts = [layer.take(some) for layer in layers]
        whole = relax(
            network, parts, box.take(some), goal.take(some), linear_cut=linear_cut, layerwise=layerwise
        )
        for chunk in problems.split(at_once):
            found = solve(whole.take(chunk), tolerance=tolerance, max_steps=max_steps, decide=decide)
            row, column = first + chunk // k, chunk % k
            bounds[row, column] = bounds[row, column].minimum(found.bound)
            gaps[row, column], failed[row, column] = found.gap, found.failed
    return bounds, gaps, failed


def solve(relaxation: Relaxation, *, tolerance: float, max_steps: int, decide: bool) -> Solution:
    """Solve a batch of relaxations; see `certified_bound` for the arguments."""
    unit = unit_free(relaxation)
    solver = _InteriorPoint(unit, tolerance, decide)
    for _ in range(max_steps):
        if not len(solver.alive):
            break
        solver.step()
    multipliers, corner = solver.split(solver.y)
    multipliers = project(unit.relaxation, multipliers)
    bound = unit.bound(certify(unit.relaxation, multipliers, corner))
    multipliers, corner = unit.multipliers(multipliers, corner)
    return Solution(
        bound, unit.spread * solver.gap, solver.steps, solver.failed, project(relaxation, multipliers), corner
    )


class _InteriorPoint:
    """The iterates of a batch of relaxations without units.

    Attributes:
        y, slacks: [b, n]: the multipliers (corner, box, positive, above, product, cut, copy), and z_k.
        Z: [b, 1+N, 1+N].
        free, signed: bool [b, n]: which multipliers there are, and which have a sign.
        alive: the indices of the problems that are not done.
    """

    def __init__(self, unit: UnitFree, tolerance: float, decide: bool) -> None:
        r = self.relaxation = unit.relaxation
        self.tolerance, self.decide = tolerance, decide
        moving = unit.spread > 0
        # the constant part of a bound
        self.center = torch.where(moving, unit.center / torch.where(moving, unit.spread, 1.0), 0.0)
        self.sizes = [1, r.variables, *[r.output.shape[1]] * 3, r.cut.shape[1], r.copy.shape[1]]
        self.free, self.signed = self._masks()
        self.y = self._start()
        self.cost = torch.zeros_like(self.y)
        self.cost[:, : 1 + r.variables] = self.free[:, : 1 + r.variables].double()
        self.cones = 1.0 + r.has_variable.sum(1) + self.signed.sum(1)
        self.steps = torch.zeros(len(r), dtype=torch.long, device=self.y.device)
        inverse, fine = _inverse(r.slack(*self.split(self.y)))
        real = _real(r)
        mu = real.sum(1) / (inverse.diagonal(dim1=1, dim2=2) * real).sum(1)
        self.Z = mu[:, None, None] * inverse
        self.slacks = torch.where(self.signed, mu[:, None] / torch.where(self.signed, self.y, 1.0), 0.0)
        # interval arithmetic is off by twice the spread: enough where the objective hardly moves
        enough = tolerance * (self.center + 1.0).abs() >= 2.0
        self.failed = moving & ~fine & ~enough
        waiting = moving & fine & ~enough
        multipliers, corner = interval_multipliers(r)
        self.y = torch.where(waiting[:, None], self.y, _joined(corner, multipliers))
        self.gap = torch.where(moving, 2.0, torch.zeros_like(unit.spread))
        self.gap = torch.where(waiting | self.failed, torch.inf, self.gap)
        self.alive = waiting.nonzero().squeeze(1)

    def _masks(self) -> tuple[Tensor, Tensor]:
        r = self.relaxation
        one = torch.ones_like(r.objective[:, :1], dtype=torch.bool)
        none = torch.zeros_like(r.has_unit)
        with_sign = r.has_unit & ~r.free_above
        cut = with_sign[:, : r.cut.shape[1]]
        copies = r.copy[..., 1:].any(2)
        free = [one, r.has_variable, r.has_unit, r.has_unit, r.has_unit, cut, copies]
        signed = [~one, r.has_variable, r.has_unit, with_sign, none, cut, torch.zeros_like(copies)]
        return torch.cat(free, 1), torch.cat(signed, 1)

    def _start(self) -> Tensor:
        """A point with S positive definite (diagonally dominant), no part much smaller than another."""
        r = self.relaxation
        w = r.objective
        scale = w[:, 1:].abs().sum(1)
        units = r.has_unit.sum(1).clamp_min(1)
        with_sign = r.has_unit & ~r.free_above
        parts, row = [], w
        for rows, mask in ((r.output, r.has_unit), (r.excess, with_sign), (r.cut, with_sign)):
            size = rows.abs().sum(2).clamp_min(TINY)
            value = torch.where(mask[:, : rows.shape[1]], (scale / units)[:, None] / size, 0.0)
            parts.append(value)
            row = row + (value[:, None] @ rows).squeeze(1)
        positive, above, cut = parts
        half = row[:, 1:].abs() / 2
        least = torch.where(scale > 0, scale, 1.0)[:, None]
        box = torch.where(r.has_variable, half + least, 1.0)
        corner = row[:, :1] + half.sum(1, keepdim=True) + least
        copy = w.new_zeros(len(r), r.copy.shape[1])
        return torch.cat([corner, box, positive, above, torch.zeros_like(positive), cut, copy], 1)

    def split(self, y: Tensor) -> tuple[Multipliers, Tensor]:
        """Multipliers and corner of rows y."""
        corner, *parts = y.split(self.sizes, 1)
        return Multipliers(*parts), corner.squeeze(1)

    def step(self) -> None:
        """One predictor-corrector step of all problems that are not done."""
        at = self.alive
        r = self.relaxation if len(at) == len(self.relaxation) else self.relaxation.take(at)
        point = _Point(
            r, self.split, self.y[at], self.Z[at], self.slacks[at], self.free[at], self.signed[at],
            self.cost[at], self.cones[at],
        )  # fmt: skip
        dy, dZ, dslacks = point.direction()
        primal, dual = point.lengths(dy, dZ, dslacks)
        moved = (torch.minimum(primal, dual) > SHORTEST) & point.fine
        keep = moved[:, None]
        self.y[at] += torch.where(keep, dual[:, None] * dy, 0.0)
        self.slacks[at] += torch.where(keep, primal[:, None] * dslacks, 0.0)
        self.Z[at] += torch.where(keep[..., None], primal[:, None, None] * dZ, 0.0)
        self.steps[at] += 1
        self._leave(at, r, moved)

    def _leave(self, at: Tensor, r: Relaxation, moved: Tensor) -> None:
        """Measure the gap, and let go the problems that are done or stuck."""
        y, Z = self.y[at], self.Z[at]
        bound = (self.cost[at] * y).sum(1)
        value = (Z[:, 0] * r.objective).sum(1)
        corner, parts = r.inner(Z)
        residual = (_joined(corner, parts) + self.slacks[at] - self.cost[at]) * self.free[at]
        # an infeasible primal point bounds the optimum up to what its residuals cost
        off = (residual * y).abs().sum(1)
        self.gap[at] = (bound - value).clamp_min(0) + off
        bound = bound + self.center[at]
        # in units of the spread
        done = self.gap[at] <= self.tolerance * bound.abs().clamp_min(1)
        if self.decide:
            # what the certificate adds for rounding must not take the sign back
            added = (1.0 + r.has_variable.sum(1)) * rounding(r, r.slack(*self.split(y)))
            done |= (bound + added < 0) | (bound - self.gap[at] > 0)
        self.failed[at] = ~moved & ~done
        self.alive = at[moved & ~done]


def _joined(corner: Tensor, parts: Multipliers) -> Tensor:
    p = parts
    return torch.cat([corner[:, None], p.box, p.positive, p.above, p.product, p.cut, p.copy], 1)


class _Point:
    """One iterate: its Newton directions and step lengths.

    Attributes:
        fine: bool [b], where all factorisations exist.
    """

    def __init__(
        self,
        r: Relaxation,
        split: Callable[[Tensor], tuple[Multipliers, Tensor]],
        y: Tensor,
        Z: Tensor,
        slacks: Tensor,
        free: Tensor,
        signed: Tensor,
        cost: Tensor,
        cones: Tensor,
    ) -> None:
        self.r, self.split, self.y, self.Z, self.slacks = r, split, y, Z, slacks
        self.free, self.signed, self.cost, self.cones = free, signed, cost, cones
        self.S = r.slack(*split(y))
        self.inverse, self.fine = _inverse(self.S)
        self.one_over_y = torch.where(signed, 1 / torch.where(signed, y, 1.0), 0.0)
        self.real = _real(r)
        self.mu = (self._product(Z, self.S) + (slacks * y).sum(1)) / cones

    def _product(self, Z: Tensor, S: Tensor) -> Tensor:
        """<Z, S> [b] without padding, so that an example's steps do not depend on its batch."""
        return ((Z * S).sum(2) * self.real).sum(1)

    def _move(self, dZ: Tensor) -> Tensor:
        """dZ without padding."""
        return dZ * self.real[:, :, None] * self.real[:, None, :]

    def direction(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mehrotra's: a step to mu = 0 tells how far mu can go down and what is lost by linearising."""
        M = _schur(self.r, self.Z, self.inverse)
        M = M * (self.free[:, :, None] & self.free[:, None, :])
        M.diagonal(dim1=1, dim2=2).add_(self.slacks * self.one_over_y + (~self.free).double())
        self.factor, self.scale, solved = _factor(M)
        self.fine = self.fine & solved
        barrier = _joined(*self.r.inner(self.inverse)) + self.one_over_y
        dy = self._solve(-self.cost)
        dS = self.r.linear(*self.split(dy))
        dZ = self._move(-self.Z - _symmetric(self.Z @ dS @ self.inverse))
        dslacks = (-self.slacks - self.slacks * dy * self.one_over_y) * self.signed
        primal, dual = self.lengths(dy, dZ, dslacks)
        after = self._product(self.Z + primal[:, None, None] * dZ, self.S + dual[:, None, None] * dS)
        after += ((self.slacks + primal[:, None] * dslacks) * (self.y + dual[:, None] * dy)).sum(1)
        sigma = (after / self.cones / self.mu).clamp(0.1, 1).pow(3)
        target = sigma * self.mu
        lost = _symmetric(dZ @ dS @ self.inverse)
        lost_slacks = dslacks * dy * self.one_over_y
        second = _joined(*self.r.inner(lost)) + lost_slacks
        dy = self._solve(target[:, None] * barrier - self.cost - second)
        dS = self.r.linear(*self.split(dy))
        dZ = target[:, None, None] * self.inverse - self.Z - _symmetric(self.Z @ dS @ self.inverse) - lost
        dslacks = target[:, None] * self.one_over_y - self.slacks - self.slacks * dy * self.one_over_y
        return dy, self._move(dZ), (dslacks - lost_slacks) * self.signed

    def _solve(self, side: Tensor) -> Tensor:
        side = (side * self.free * self.scale)[..., None]
        return torch.cholesky_solve(side, self.factor).squeeze(2) * self.scale * self.free

    def lengths(self, dy: Tensor, dZ: Tensor, dslacks: Tensor) -> tuple[Tensor, Tensor]:
        """Primal and dual step lengths in [0, 1] that stay inside the cones."""
        dS = self.r.linear(*self.split(dy))
        primal = _inside(self.Z, dZ, _to_zero(self.slacks, dslacks, self.signed))
        return primal, _inside(self.S, dS, _to_zero(self.y, dy, self.signed))


def _real(r: Relaxation) -> Tensor:
    """1 for the entries of v that are no padding, else 0: [b, 1+N]."""
    return torch.cat([torch.ones_like(r.has_variable[:, :1]), r.has_variable], 1).double()


def _inverse(S: Tensor) -> tuple[Tensor, Tensor]:
    """S^{-1} [b, n, n] by Cholesky, and for which of the batch there is one [b]; of the others I."""
    L, info = torch.linalg.cholesky_ex(S)
    fine = (info == 0) & L.isfinite().all(2).all(1)
    eye = torch.eye(S.shape[1], dtype=S.dtype, device=S.device)
    return torch.cholesky_inverse(torch.where(fine[:, None, None], L, eye)), fine


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2


def _to_zero(x: Tensor, dx: Tensor, signed: Tensor) -> Tensor:
    """The step at which the first of the signed x + step dx is 0, at most 1/PART."""
    falling = signed & (dx < 0)
    ratio = torch.where(falling, -x / torch.where(falling, dx, -1.0), torch.inf)
    return ratio.amin(1).clamp_max(1 / PART)


def _inside(A: Tensor, dA: Tensor, limit: Tensor) -> Tensor:
    """PART of a step up to `limit` [b] at which A + step dA is positive definite; at most 1."""
    length = torch.where(dA.isfinite().all(2).all(1), limit, 0.0)
    waiting = (length > 0).nonzero().squeeze(1)
    while len(waiting):
        trial = A[waiting] + length[waiting, None, None] * dA[waiting]
        outside = torch.linalg.cholesky_ex(trial)[1] != 0
        waiting = waiting[outside]
        length[waiting] *= BACKTRACK
        length[waiting[length[waiting] < SHORTEST]] = 0.0
        waiting = waiting[length[waiting] > 0]
    return (PART * length).clamp_max(1.0)


def _factor(M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cholesky factors of M scaled to a unit diagonal, the scales [b, n], and which factors exist."""
    scale = M.diagonal(dim1=1, dim2=2).clamp_min(TINY).rsqrt()
    unit = M * scale[:, :, None] * scale[:, None, :]
    factor, info = torch.linalg.cholesky_ex(unit)
    for ridge in (1e-14, 1e-12, 1e-10):
        if not bool(info.any()):
            break
        unit.diagonal(dim1=1, dim2=2).add_(ridge)
        factor, info = torch.linalg.cholesky_ex(unit)
    return factor, scale, info == 0


def _schur(r: Relaxation, X: Tensor, Y: Tensor) -> Tensor:
    """tr(A_k X A_l Y), symmetric [b, n, n] in the order of y, for symmetric X and Y.

    For A_k = sym(a, b), A_l = sym(c, d) it is [(a'Xc)(b'Yd) + (a'Xd)(b'Yc) + (a'Yc)(b'Xd) + (a'Yd)(b'Xc)]/4,
    with A_corner = sym(e_0, e_0), A_box = sym(e_k, e_k), A_product = sym(p, p - q), the others -sym(e_0,
    row).
    """
    x, y = _Products(r, X), _Products(r, Y)
    LL = (_outer(x.linear0, y.linear0) + x.corner * y.linear + y.corner * x.linear) / 4
    LB = (x.linear_var * y.first_var + y.linear_var * x.first_var) / 2
    LP = x.linear_output * y.first_excess + x.linear_excess * y.first_output
    LP = (LP + y.linear_output * x.first_excess + y.linear_excess * x.first_output) / 4
    BB = X[:, 1:, 1:] * Y[:, 1:, 1:]
    BP = (x.var_output * y.var_excess + x.var_excess * y.var_output) / 2
    PP = x.output * y.excess + x.excess * y.output + x.mixed * y.mixed.mT + x.mixed.mT * y.mixed
    m, last = r.output.shape[1], LL.shape[1]
    c, s, o = slice(0, 1), slice(1, 1 + 2 * m), slice(1 + 2 * m, last)
    return torch.cat(
        [
            torch.cat([LL[:, c, c], LB[:, c], LL[:, c, s], LP[:, c], LL[:, c, o]], 2),
            torch.cat([LB[:, c].mT, BB, LB[:, s].mT, BP, LB[:, o].mT], 2),
            torch.cat([LL[:, s, c], LB[:, s], LL[:, s, s], LP[:, s], LL[:, s, o]], 2),
            torch.cat([LP[:, c].mT, BP.mT, LP[:, s].mT, PP / 4, LP[:, o].mT], 2),
            torch.cat([LL[:, o, c], LB[:, o], LL[:, o, s], LP[:, o], LL[:, o, o]], 2),
        ],
        1,
    )


def _outer(u: Tensor, v: Tensor) -> Tensor:
    """u v' + v u' of [b, n, 1]."""
    product = u * v.mT
    return product + product.mT


class _Products:
    """The entries of V X V' by kinds of rows: linear (e_0, then rows of -sym(e_0, row)), p and p - q."""

    def __init__(self, r: Relaxation, X: Tensor) -> None:
        m = r.output.shape[1]
        rows = torch.cat([r.output, r.excess, r.cut, r.copy], 1)
        RX = rows @ X
        T = RX @ rows.mT
        self.corner = X[:, :1, :1]
        self.first_var = X[:, :1, 1:]
        self.linear0 = torch.cat([X[:, :1, :1], -RX[:, :, :1]], 1)
        self.linear_var = torch.cat([X[:, :1, 1:], -RX[:, :, 1:]], 1)
        top = torch.cat([X[:, :1, :1], -RX[:, :, :1].mT], 2)
        self.linear = torch.cat([top, torch.cat([-RX[:, :, :1], T], 2)], 1)
        self.first_output, self.first_excess = RX[:, None, :m, 0], RX[:, None, m : 2 * m, 0]
        self.linear_output = torch.cat([self.first_output, -T[:, :, :m]], 1)
        self.linear_excess = torch.cat([self.first_excess, -T[:, :, m : 2 * m]], 1)
        self.var_output, self.var_excess = RX[:, :m, 1:].mT, RX[:, m : 2 * m, 1:].mT
        self.output, self.excess = T[:, :m, :m], T[:, m : 2 * m, m : 2 * m]
        self.mixed = T[:, :m, m : 2 * m]
