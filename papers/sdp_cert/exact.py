"""The exact optimum by mixed-integer programming, and the LP relaxation as a linear programme (both by
HiGHS).

z = relu(a) with l <= a <= u is z = a where l >= 0, z = 0 where u <= 0, and else with a binary d

    z >= 0,  z >= a,  z <= u d,  z <= a - l (1 - d);       LP: z <= u (a - l)/(u - l).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from torch import Tensor

from papers.sdp_cert.bounds import Interval, Objective, interval_objective
from papers.sdp_cert.network import ReluNetwork

Array = NDArray[np.float64]
# HiGHS's feasibility tolerance: what its dual bound may be off, as a part of the objective's spread
FEASIBILITY = 1e-6


@dataclass
class _Programme:
    """Rows A v <= b (and = where `equal`) over variables with bounds; v = (x_0, z_1, ..., z_L, binaries).

    HiGHS's tolerances are absolute, so it is given w in [-1, 1] with v = center + radius w (binaries as they
    are), and rows with absolute entries of sum 1.
    """

    rows: list[Any]
    right: list[Array]
    equal: list[NDArray[np.bool_]]
    lower: Array
    upper: Array
    last: slice

    @property
    def kinds(self) -> NDArray[np.int64]:
        """1 for binaries, else 0."""
        return (np.arange(len(self.lower)) >= self.last.stop).astype(np.int64)

    @property
    def center(self) -> Array:
        """Of each variable; 0 of binaries."""
        return np.where(self.kinds, 0.0, (self.lower + self.upper) / 2)

    @property
    def radius(self) -> Array:
        """Of each variable; 1 of binaries."""
        return np.where(self.kinds, 1.0, (self.upper - self.lower) / 2)

    @property
    def limits(self) -> tuple[Array, Array]:
        """The bounds of w."""
        return np.where(self.kinds, 0.0, -1.0), np.ones(len(self.lower))

    def matrix(self) -> tuple[Any, Array, NDArray[np.bool_]]:
        """A and b for w, and which rows are equations."""
        if not self.rows:
            return sparse.csr_array((0, len(self.lower))), np.zeros(0), np.zeros(0, bool)
        A = sparse.csr_array(sparse.vstack(self.rows))
        b = np.concatenate(self.right) - A @ self.center
        A = sparse.csr_array(A @ sparse.diags_array(self.radius))
        size = np.asarray(abs(A).sum(axis=1)).ravel()
        size = np.where(size > 0, size, 1.0)
        return sparse.csr_array(sparse.diags_array(1 / size) @ A), b / size, np.concatenate(self.equal)

    def objective(self, rows: Array) -> tuple[Array, float, float]:
        """The costs of w with absolute entries of sum 1, the spread that they are of, and the constant."""
        c = np.zeros(len(self.lower))
        c[self.last] = rows
        costs = c * self.radius
        spread = float(np.abs(costs).sum())
        return costs / (spread or 1.0), spread, float(c @ self.center)


def _programme(network: ReluNetwork, layers: list[Interval], box: Interval, integer: bool) -> _Programme:
    """The programme of one example (intervals [1, n])."""
    bounds = [box, *(layer.relu() for layer in layers)]
    lower = [b.lower[0].cpu().numpy() for b in bounds]
    upper = [b.upper[0].cpu().numpy() for b in bounds]
    starts = np.cumsum([0, *(len(x) for x in lower)])
    unstable = [
        ((layer.lower[0] < 0) & (layer.upper[0] > 0)).cpu().numpy() if integer else None for layer in layers
    ]
    binaries = sum(int(u.sum()) for u in unstable if u is not None)
    total = starts[-1] + binaries
    p = _Programme(
        [], [], [],
        np.concatenate([*lower, np.zeros(binaries)]), np.concatenate([*upper, np.ones(binaries)]),
        slice(starts[-2], starts[-1]),
    )  # fmt: skip
    place = starts[-1]
    for i, layer in enumerate(layers):
        W, b = network.weights[i].cpu().numpy(), network.biases[i].cpu().numpy()
        low, high = layer.lower[0].cpu().numpy(), layer.upper[0].cpu().numpy()
        n = len(b)
        # pre-activation and output as rows over all variables
        before, after = sparse.csr_array((n, starts[i])), sparse.csr_array((n, total - starts[i + 1]))
        blocks: list[Any] = [before, sparse.csr_array(W), after]
        a, z = sparse.hstack(blocks).tocsr(), sparse.eye_array(n, total, k=starts[i + 1]).tocsr()
        on, open_ = low >= 0, (low < 0) & (high > 0)
        _add(p, (z - a)[on], b[on], True)
        _add(p, (a - z)[open_], -b[open_], False)
        if integer:
            count = int(open_.sum())
            d = sparse.eye_array(count, total, k=place)
            place += count
            _add(p, z[open_] - sparse.diags_array(high[open_]) @ d, np.zeros(count), False)
            _add(p, (z - a)[open_] - sparse.diags_array(low[open_]) @ d, b[open_] - low[open_], False)
        else:
            slope = high[open_] / (high - low)[open_]
            _add(p, z[open_] - sparse.diags_array(slope) @ a[open_], slope * (b - low)[open_], False)
    return p


def _add(p: _Programme, rows: Any, right: Array, equal: bool) -> None:
    if rows.shape[0]:
        p.rows.append(rows)
        p.right.append(right)
        p.equal.append(np.full(len(right), equal))


def exact_bounds(
    network: ReluNetwork,
    layers: list[Interval],
    box: Interval,
    goal: Objective,
    asked: Tensor,
    *,
    seconds: float,
) -> tuple[Tensor, Tensor]:
    """Upper bounds [e, k] that are the exact maximum to HiGHS's tolerance, and the margin at the found input.

    Where the time is up, the two differ: HiGHS's dual bound is valid all the same. Rows that are not asked
    keep the bounds (interval arithmetic, -inf).

    Args:
        asked: bool [e, k].
        seconds: at most, a row.
    """
    upper = interval_objective(network, layers, box, goal)
    lower = torch.full_like(upper, -torch.inf)
    for e in asked.any(1).nonzero().flatten().tolist():
        one = slice(e, e + 1)
        p = _programme(network, [layer.take(one) for layer in layers], box.take(one), integer=True)
        A, b, equal = p.matrix()
        low, high = p.limits
        for k in asked[e].nonzero().flatten().tolist():
            c, spread, constant = p.objective(goal.rows[e, k].cpu().numpy())
            constant += float(goal.constants[e, k])
            found = milp(
                -c,
                integrality=p.kinds,
                bounds=Bounds(low, high),
                constraints=LinearConstraint(A, np.where(equal, b, -np.inf), b) if len(b) else (),
                options={"mip_rel_gap": 0.0, "time_limit": seconds},
            )
            if found.x is not None:
                x = (p.center + p.radius * found.x)[: network.inputs]
                point = torch.from_numpy(x).to(box.lower).maximum(box.lower[e]).minimum(box.upper[e])
                logits = network(point)
                lower[e, k] = logits[goal.targets[e, k]] - logits[_label(goal, e)]
            # without a binary there is no tree, and the value itself is the bound
            least = found.mip_dual_bound if p.kinds.any() else found.fun
            if least is not None and np.isfinite(least):
                bound = constant + spread * (FEASIBILITY - least)
                upper[e, k] = min(float(upper[e, k]), max(bound, float(lower[e, k])))
    return upper, lower


def _label(goal: Objective, e: int) -> int:
    """The class that no row of an example is of."""
    k = goal.targets.shape[1]
    return k * (k + 1) // 2 - int(goal.targets[e].sum())


def linear_programme_bounds(
    network: ReluNetwork, layers: list[Interval], box: Interval, goal: Objective, asked: Tensor
) -> tuple[Tensor, Tensor]:
    """The LP relaxation's values [e, k], each evaluated from HiGHS's multipliers, and where HiGHS failed.

    For multipliers y (<= 0 on inequalities) of min c'v, A v <= b, the bound y'b + min over the box (c -
    A'y)'v holds whatever y is (Neumaier and Shcherbina 2004), so a tolerance of the solver cannot make it
    unsound.
    """
    bounds = interval_objective(network, layers, box, goal)
    failed = torch.zeros_like(bounds, dtype=torch.bool)
    for e in asked.any(1).nonzero().flatten().tolist():
        one = slice(e, e + 1)
        p = _programme(network, [layer.take(one) for layer in layers], box.take(one), integer=False)
        A, b, equal = p.matrix()
        low, high = p.limits
        for k in asked[e].nonzero().flatten().tolist():
            c, spread, constant = p.objective(-goal.rows[e, k].cpu().numpy())
            found = linprog(
                c,
                A_ub=A[~equal],
                b_ub=b[~equal],
                A_eq=A[equal],
                b_eq=b[equal],
                bounds=list(zip(low.tolist(), high.tolist(), strict=True)),
            )
            if found.status != 0:
                failed[e, k] = True
                continue
            y = np.zeros(len(b))
            y[~equal] = np.minimum(found.ineqlin.marginals, 0)
            y[equal] = found.eqlin.marginals
            reduced = c - A.T @ y
            least = y @ b + np.minimum(reduced * low, reduced * high).sum()
            bounds[e, k] = min(float(bounds[e, k]), float(goal.constants[e, k]) - constant - spread * least)
    return bounds, failed
