"""The quadratic programme over small polyhedra: exact by enumeration of faces, or by branch-and-bound.

    minimise p'Hp over A p <= r, E p = 0, and the tangent condition, for any symmetric H

All is in units of the set and of H (`oracles.Oracle`). A lower bound counts every point that is feasible
within `SLACK`; a point that is given is feasible up to rounding.
"""

import heapq
import itertools
from dataclasses import dataclass

import numpy as np
import torch

from papers.saddle.oracles import Answer, Oracle, Tangent, answer_from
from papers.saddle.problems import SLACK, Array
from papers.saddle.sets import Polyhedron
from papers.saddle.units import ROUNDING, independent, linear_programme, onto

# an inequality this near to its bound at a linear programme's solution is active there
NEAR = 1e-7
# linear systems solved in one call
BATCH = 4096


@dataclass(frozen=True)
class Programme:
    """min p'Hp over A p <= r, E p = 0 (moves p from a point of a set in its units)."""

    region: Polyhedron
    H: Array
    A: Array
    r: Array
    E: Array

    def allows(self, moves: Array, tolerance: float) -> np.ndarray:
        """Which rows of moves [k, d] are feasible, within the tolerance."""
        inside = (moves @ self.A.T <= self.r + self.region.room(self.A, tolerance)).all(axis=1)
        on_plane = (np.abs(moves @ self.E.T) <= self.region.room(self.E, tolerance)).all(axis=1)
        return np.asarray(inside & on_plane)

    def pulled_in(self, moves: Array) -> Array:
        """Moves [k, d] cut where they break an inequality; those that are feasible up to rounding then."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(moves @ self.A.T > self.r, self.r / (moves @ self.A.T), 1.0)
        fine = self.allows(moves, ROUNDING)
        cut = np.where(fine, 1.0, shares.min(axis=1, initial=1.0))
        pulled = moves * cut[:, None]
        return np.asarray(pulled[self.allows(pulled, ROUNDING) & (cut > 0)], dtype=np.float64)


def programme(region: Polyhedron, H: Array, x: Array, tangent: Tangent) -> Programme:
    """The quadratic programme at x; a `leq` condition is the last inequality."""
    A, r = region.A, np.maximum(region.b - region.A @ x, 0.0)
    E = np.zeros((0, len(x))) if region.equality is None else region.equality[0][None]
    if tangent.kind == "leq":
        A, r = np.vstack([A, tangent.g]), np.append(r, tangent.slack)
    elif tangent.kind == "eq":
        E = np.vstack([E, tangent.g])
    return Programme(region, H, A, r, E)


def stationary(quadratic: Programme, active: np.ndarray) -> Array:
    """The stationary points of p'Hp on faces: sets of active rows [k, size] to moves [j, d], j <= k.

    Systems that are singular are left out: a global minimum is also on a face (of least dimension) on which
    p'Hp is strictly convex, and for it the system of independent active rows is regular.
    """
    d, fixed, size = len(quadratic.H), len(quadratic.E), active.shape[1]
    n = d + fixed + size
    K = torch.zeros((len(active), n, n), dtype=torch.float64)
    right = torch.zeros((len(active), n, 1), dtype=torch.float64)
    rows = torch.from_numpy(quadratic.A)[torch.from_numpy(active)]
    rows = torch.cat([torch.from_numpy(quadratic.E).expand(len(active), fixed, d), rows], dim=1)
    K[:, :d, :d] = torch.from_numpy(quadratic.H)
    K[:, d:, :d], K[:, :d, d:] = rows, rows.transpose(1, 2)
    right[:, d + fixed :, 0] = torch.from_numpy(quadratic.r)[torch.from_numpy(active)]
    found, info = torch.linalg.solve_ex(K, right)
    sound = (info == 0) & torch.isfinite(found).all(dim=1).squeeze(1)
    moves: Array = found[sound][:, :d, 0].numpy()
    return moves


class EnumerationOracle(Oracle):
    """Every face: its stationary point, and the best of those that are feasible. Exact.

    Args:
        region: with few faces (`sets.MOST_FACES`).
    """

    def __init__(self, region: Polyhedron) -> None:
        super().__init__(region)
        self.faces = [faces for faces in region.active_sets() if len(faces)]

    def solve(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        if float(np.linalg.eigvalsh(H)[0]) >= 0:
            return Answer(x[None], 0.0, 0.0)
        assert isinstance(self.inner, Polyhedron)
        quadratic = programme(self.inner, H, x, tangent)
        # a tangent inequality is inactive or active, beside all else
        last = len(quadratic.A) - 1
        lower, best, moves = 0.0, 0.0, [np.zeros_like(x)]
        for faces in self.faces:
            kinds = [faces]
            if tangent.kind == "leq":
                kinds.append(np.hstack([faces, np.full((len(faces), 1), last)]))
            for kind, start in itertools.product(kinds, range(0, len(faces), BATCH)):
                found = stationary(quadratic, kind[start : start + BATCH])
                found = found[quadratic.allows(found, SLACK)]
                lower = min(lower, float(_values(H, found).min(initial=0.0)))
                found = quadratic.pulled_in(found)
                values = _values(H, found)
                # what ties with the best is kept, for signs that are free
                close = values <= best + 1e-12 * abs(best)
                best = min(best, float(values.min(initial=0.0)))
                moves += list(found[close])
        return answer_from(H, x, [x + p for p in moves], lower)


def _values(H: Array, moves: Array) -> Array:
    """p'Hp of moves [k, d]."""
    return np.asarray(np.einsum("ki,ij,kj->k", moves, H, moves), dtype=np.float64)


class BranchAndBoundOracle(Oracle):
    """Spatial branch-and-bound along the eigenvectors of H, by linear programmes.

    With t = W'p and q = sum lambda_i t_i^2, a node bounds l_i <= t_i <= h_i. There t_i^2 is at most its
    secant, (l + h) t - l h, and at least its tangents, which bounds q from below by a linear programme; the
    bound tightens with the square of the interval. A point is polished by the stationary point of its face.

    Args:
        region: bounded.
        tolerance: gap to the lower bound, in units of q over the set, or of |q| where that is larger.
        most: nodes; what is left open then is in the lower bound.
    """

    def __init__(self, region: Polyhedron, tolerance: float = 1e-6, most: int = 2_000) -> None:
        super().__init__(region)
        self.tolerance, self.most = tolerance, most

    def solve(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        values, W = np.linalg.eigh(H)
        if values[0] >= 0:
            return Answer(x[None], 0.0, 0.0)
        assert isinstance(self.inner, Polyhedron)
        search = _Search(programme(self.inner, H, x, tangent), values, W)
        lower, p = search.run(self.tolerance, self.most)
        return answer_from(H, x, [x + p, x], lower)


class _Search:
    """One branch-and-bound."""

    def __init__(self, quadratic: Programme, values: Array, W: Array) -> None:
        self.quadratic, self.values, self.W = quadratic, values, W
        self.best, self.p = 0.0, np.zeros(len(values))
        # the largest |p_j| of a move between two points of the set
        self.extent = (quadratic.region.high - quadratic.region.low) * (1 + SLACK) + SLACK

    def run(self, tolerance: float, most: int) -> tuple[float, Array]:
        """The lower bound and the best move."""
        low, high = self._bounds()
        heap: list[tuple[float, int, Array, Array, int, float]] = []
        count = itertools.count()
        self._push(heap, count, low, high)
        closed = float("inf")
        for _ in range(most):
            if not heap:
                break
            bound, _, low, high, axis, cut = heapq.heappop(heap)
            if bound >= self.best - tolerance * max(1.0, abs(self.best)):
                closed = min(closed, bound)
                break
            for side in (0, 1):
                lower, upper = low.copy(), high.copy()
                (upper if side == 0 else lower)[axis] = cut
                self._push(heap, count, lower, upper)
        open_bounds = [node[0] for node in heap] + [closed]
        return min(self.best, *open_bounds), self.p

    def _bounds(self) -> tuple[Array, Array]:
        """Of t over the set, from outside."""
        none, ends = np.zeros((0, len(self.W))), []
        for w, box in zip(self.W.T, np.abs(self.W.T) @ self.extent, strict=True):
            found = [self._programme(sign * w, none, np.zeros(0), self.extent) for sign in (1.0, -1.0)]
            least, most = (-box if one is None or one[0] is None else one[1] for one in found)
            ends.append((max(least, -box), min(-most, box)))
        return np.array(ends)[:, 0], np.array(ends)[:, 1]

    def _programme(
        self, goal: Array, rows: Array, right: Array, extent: Array
    ) -> tuple[Array | None, float] | None:
        """A linear programme over p (and more variables behind it): a solution, and a lower bound that holds.

        By its multipliers y >= 0 and w: goal'z >= -y'r + (goal + A'y + E'w)'z on the feasible z, whatever
        the solver's tolerance, with |z| <= extent. None where it is infeasible; no solution and -infinity
        where the solver failed.
        """
        q, pad = self.quadratic, len(goal) - len(self.quadratic.H)
        A = np.vstack([np.hstack([q.A, np.zeros((len(q.A), pad))]), rows])
        b = np.concatenate([q.r, right])
        E = np.hstack([q.E, np.zeros((len(q.E), pad))])
        found = linear_programme(goal, A, b, E if len(E) else None)
        if found.status == 2:
            return None
        if found.x is None:
            return None, -np.inf
        y = np.maximum(-found.ineqlin.marginals, 0.0)
        w = -found.eqlin.marginals if len(E) else np.zeros(0)
        rest = goal + A.T @ y + E.T @ w
        return np.asarray(found.x), float(-y @ b - np.abs(rest) @ extent)

    def _push(
        self,
        heap: list[tuple[float, int, Array, Array, int, float]],
        count: "itertools.count[int]",
        low: Array,
        high: Array,
    ) -> None:
        """Bound a node from below and keep it where that is below the best."""
        d, points = len(self.values), [[a, (a + b) / 2, b] for a, b in zip(low, high, strict=True)]
        for _ in range(4):
            found = self._relaxed(low, high, points)
            if found is None:
                return
            solution, bound = found
            p, s = solution[:d], solution[d:]
            t = self.W.T @ p
            self._offer(p)
            short = (self.values > 0) & (t**2 - s > SLACK)
            if not short.any() or bound >= self.best:
                break
            for i in np.nonzero(short)[0]:
                points[i].append(float(t[i]))
        if bound >= self.best:
            return
        gaps = np.abs(self.values) * np.abs(s - t**2)
        axis = int(np.argmax(gaps))
        width = high[axis] - low[axis]
        cut = float(np.clip(t[axis], low[axis] + 0.2 * width, high[axis] - 0.2 * width))
        heapq.heappush(heap, (bound, next(count), low, high, axis, cut))

    def _relaxed(self, low: Array, high: Array, points: list[list[float]]) -> tuple[Array, float] | None:
        """min sum lambda_i s_i with s_i between what secants and tangents allow."""
        d = len(self.values)
        rows, right = [], []
        for i, (value, w) in enumerate(zip(self.values, self.W.T, strict=True)):
            rows += [np.concatenate([w, np.zeros(d)]), np.concatenate([-w, np.zeros(d)])]
            right += [high[i], -low[i]]
            unit = np.eye(d)[i]
            if value <= 0:
                rows.append(np.concatenate([-(low[i] + high[i]) * w, unit]))
                right.append(-low[i] * high[i])
            else:
                for at in points[i]:
                    rows.append(np.concatenate([2 * at * w, -unit]))
                    right.append(at**2)
        goal = np.concatenate([np.zeros(d), self.values])
        squares = np.maximum(low**2, high**2)
        extent = np.concatenate([self.extent, squares])
        found = self._programme(goal, np.array(rows), np.array(right), extent)
        # each term by itself, from its interval
        inner = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(low**2, high**2))
        alone = float(np.where(self.values > 0, self.values * inner, self.values * squares).sum())
        if found is None:
            return None
        solution, bound = found
        return (np.zeros(2 * d) if solution is None else solution), max(bound, alone)

    def _offer(self, p: Array) -> None:
        """Keep a move, or its face's stationary point, if it is the best so far."""
        q = self.quadratic
        active = np.nonzero(q.A @ p >= q.r - NEAR)[0]
        rows, right = np.vstack([q.E, q.A[active]]), np.concatenate([np.zeros(len(q.E)), q.r[active]])
        chosen = independent(rows)
        moves = [p[None], stationary(q, active[chosen[chosen >= len(q.E)] - len(q.E)][None])]
        if len(chosen):
            moves.append(onto(rows[chosen], right[chosen], p)[None])
        for move in q.pulled_in(np.concatenate(moves)):
            value = float(move @ q.H @ move)
            if value < self.best:
                self.best, self.p = value, move
