"""The quadratic programme over small polyhedra: exact by enumeration of faces, or by branch-and-bound.

minimise p'Hp over A p <= r, E p = 0, and the tangent condition, for any symmetric H
"""

import heapq
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog

from common.data.saddle_problems import SLACK, Array
from papers.saddle.oracles import Answer, Oracle, Tangent, answer_from
from papers.saddle.sets import Polyhedron

# linear systems solved in one call
BATCH = 4096


@dataclass(frozen=True)
class Programme:
    """min p'Hp over A p <= r, E p = e (moves p from a point)."""

    H: Array
    A: Array
    r: Array
    E: Array
    e: Array

    def allows(self, moves: Array) -> np.ndarray:
        """Which rows of moves [k, d] are feasible, within `SLACK`."""
        inside = (moves @ self.A.T <= self.r + SLACK).all(axis=1)
        return np.asarray(inside & (np.abs(moves @ self.E.T - self.e) <= SLACK).all(axis=1))


def programme(region: Polyhedron, H: Array, x: Array, tangent: Tangent) -> Programme:
    """The quadratic programme at x; a `leq` condition is the last inequality."""
    A, r = region.A, np.maximum(region.b - region.A @ x, 0.0)
    E = np.zeros((0, len(x))) if region.equality is None else region.equality[0][None]
    if tangent.kind == "leq":
        A, r = np.vstack([A, tangent.g]), np.append(r, tangent.slack)
    elif tangent.kind == "eq":
        E = np.vstack([E, tangent.g])
    return Programme(H, A, r, E, np.zeros(len(E)))


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
    right[:, d : d + fixed, 0] = torch.from_numpy(quadratic.e)
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
        self.region = region
        self.faces = [faces for faces in region.active_sets() if len(faces)]

    def solve(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        if float(np.linalg.eigvalsh(H)[0]) >= 0:
            return Answer(x[None], 0.0, 0.0)
        quadratic = programme(self.region, H, x, tangent)
        # a tangent inequality is inactive or active, beside all else
        last = len(quadratic.A) - 1
        best, moves = 0.0, [np.zeros_like(x)]
        for faces in self.faces:
            kinds = [faces]
            if tangent.kind == "leq":
                kinds.append(np.hstack([faces, np.full((len(faces), 1), last)]))
            for kind, start in itertools.product(kinds, range(0, len(faces), BATCH)):
                found = stationary(quadratic, kind[start : start + BATCH])
                found = found[quadratic.allows(found)]
                values = np.einsum("ki,ij,kj->k", found, H, found)
                # what ties with the best is kept, for signs that are free
                close = values <= best + 1e-12 * max(1.0, abs(best))
                best = min(best, float(values.min(initial=0.0)))
                moves += list(found[close])
        return answer_from(H, x, [x + p for p in moves], best)


class BranchAndBoundOracle(Oracle):
    """Spatial branch-and-bound along the eigenvectors of H, by linear programmes.

    With t = W'p and q = sum lambda_i t_i^2, a node bounds l_i <= t_i <= h_i. There t_i^2 is at most its
    secant, (l + h) t - l h, and at least its tangents, which bounds q from below by a linear programme; the
    bound tightens with the square of the interval. A point is polished by the stationary point of its face.

    Args:
        region: bounded.
        tolerance: gap to the lower bound, relative to max(1, |q|).
        most: nodes; what is left open then is in the lower bound.
    """

    def __init__(self, region: Polyhedron, tolerance: float = 1e-6, most: int = 2_000) -> None:
        self.region, self.tolerance, self.most = region, tolerance, most

    def solve(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        values, W = np.linalg.eigh(H)
        if values[0] >= 0:
            return Answer(x[None], 0.0, 0.0)
        search = _Search(programme(self.region, H, x, tangent), values, W)
        lower, p = search.run(self.tolerance, self.most)
        return answer_from(H, x, [x + p, x], lower)


class _Search:
    """One branch-and-bound."""

    def __init__(self, quadratic: Programme, values: Array, W: Array) -> None:
        self.quadratic, self.values, self.W = quadratic, values, W
        self.best, self.p = 0.0, np.zeros(len(values))

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
        ends = []
        for w in self.W.T:
            for sign in (1.0, -1.0):
                found = self._programme(sign * w, np.zeros((0, len(w))), np.zeros(0), len(w))
                assert found is not None
                ends.append(sign * found[1])
        return np.array(ends[::2]), np.array(ends[1::2])

    def _programme(self, goal: Array, rows: Array, right: Array, n: int) -> tuple[Array, float] | None:
        """A linear programme over p (and more variables behind it); None where it is infeasible."""
        q = self.quadratic
        pad = n - len(q.H)
        A = np.vstack([np.hstack([q.A, np.zeros((len(q.A), pad))]), rows])
        E = np.hstack([q.E, np.zeros((len(q.E), pad))]) if len(q.E) else None
        found = linprog(
            goal,
            A_ub=A,
            b_ub=np.concatenate([q.r, right]),
            A_eq=E,
            b_eq=q.e if E is not None else None,
            bounds=(None, None),
            method="highs",
        )
        return None if found.x is None else (np.asarray(found.x), float(found.fun or 0.0))

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
            short = (self.values > 0) & (t**2 - s > 1e-9)
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
        return self._programme(goal, np.array(rows), np.array(right), 2 * d)

    def _offer(self, p: Array) -> None:
        """Keep a move, or its face's stationary point, if it is the best so far."""
        active = np.nonzero(self.quadratic.A @ p >= self.quadratic.r - 1e-7)[0]
        moves = [p[None], stationary(self.quadratic, active[None])]
        for move in np.concatenate(moves):
            value = float(move @ self.quadratic.H @ move)
            if value < self.best and bool(self.quadratic.allows(move[None])[0]):
                self.best, self.p = value, move
