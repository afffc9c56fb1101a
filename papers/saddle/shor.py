"""The quadratic programme over several ellipsoids (or a box): Shor's semidefinite bound, and rounding.

    minimise <H, X> - 2 x'Hu + x'Hx  over  [[1, u'], [u, X]] psd,  <E_i, X> <= 1,  g'u <= g'x + slack
    and  || E_i^(1/2) ((g'x + slack) u - X g) || <= g'x + slack - g'u

The last row is the product of ellipsoid and halfspace (Sturm and Zhang 2003), which makes the bound exact for
one ball. With several ellipsoids the bound is a relaxation: u is found by rounding, and rho = q(u) / bound is
measured.
"""

import warnings
from typing import Any

import numpy as np

from common.base.errors import UserError
from papers.saddle.oracles import Answer, Oracle, Tangent
from papers.saddle.problems import Array
from papers.saddle.sets import Box, ConstraintSet, Ellipsoids, _root

# taken off the solver's value, as its accuracy
SOLVER_TOLERANCE = 1e-7
# beyond m d of this the products are left out: with d = 50, m = 10 they make a call 6 times as long
MOST_PRODUCT_ROWS = 100


def _cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError as error:
        raise UserError("this oracle needs cvxpy: make setup-full (or pip install -e '.[papers]')") from error
    return cvxpy


class ShorOracle(Oracle):
    """Shor's bound by Clarabel, rounded by eigenvectors, by random vectors N(u, X - uu') and a local search.

    If the solver fails, the lower bound is lambda_min(H) D^2, which always holds, and the answer says so.

    Args:
        region: ellipsoids or a box.
        samples: random vectors.
        seed: of these.
    """

    def __init__(self, region: Ellipsoids | Box, samples: int, seed: int) -> None:
        super().__init__(region)
        self.region, self.samples, self.seed = self.inner, samples, seed
        if isinstance(self.inner, Ellipsoids):
            self.forms = self.inner.forms
        else:
            assert isinstance(self.inner, Box)
            self.forms = np.stack([np.outer(e, e) for e in np.eye(region.dim)]) / self.inner.w**2
        self.roots = [_root(E) for E in self.forms]
        self.built: dict[str, Any] = {}
        _cvxpy()

    def solve(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        lowest = np.linalg.eigh(H)
        if lowest[0][0] >= 0:
            return Answer(x[None], 0.0, 0.0)
        fallback = float(lowest[0][0]) * self.region.diameter**2
        directions = [lowest[1][:, 0]]
        lower, X, u, failed = self.bound(H, x, tangent)
        if not failed:
            lower = max(lower, fallback)
            directions += self._directions(X, u, x)
        else:
            lower = fallback
        moves = [self._longest(x, p, tangent) for p in directions]
        moves = [self._local_search(H, x, p, tangent) for p in _best(H, moves, 5)]
        p = _best(H, moves, 1)[0]
        # q is even: the other sign may be feasible too
        signs = [p] + ([-p] if tangent.allows(-p) and self.region.contains(x - p) else [])
        value = float(p @ H @ p)
        return Answer(x + np.stack(signs), value, min(lower, value), failed=failed)

    def bound(self, H: Array, x: Array, tangent: Tangent) -> tuple[float, Array, Array, str]:
        """Shor's lower bound with its X and u; the last is "" or why there is none."""
        cp = _cvxpy()
        if tangent.kind not in self.built:
            self.built[tangent.kind] = self._build(cp, tangent.kind)
        problem, given = self.built[tangent.kind]
        # of size 1 at most, as the solver's tolerances are absolute
        scale = float(np.abs(H).max())
        given["H"].value, given["Hx"].value = H / scale, H @ x / scale
        given["g"].value, given["height"].value = tangent.g, float(tangent.g @ x) + tangent.slack
        try:
            with warnings.catch_warnings():
                # an inaccurate solution is seen by its status
                warnings.simplefilter("ignore")
                problem.solve(solver=cp.CLARABEL)
        except cp.SolverError as error:
            return -np.inf, H, x, f"Clarabel failed: {str(error).splitlines()[0]}"
        if problem.status not in ("optimal", "optimal_inaccurate"):
            return -np.inf, H, x, f"Clarabel ended with {problem.status}"
        value = float(problem.value) + float(x @ H @ x) / scale
        accuracy = SOLVER_TOLERANCE if problem.status == "optimal" else 1e-4
        lower = scale * (value - accuracy * max(1.0, abs(value)))
        Z = given["Z"].value
        return lower, Z[1:, 1:], Z[1:, 0], ""

    def _build(self, cp: Any, kind: str) -> tuple[Any, dict[str, Any]]:
        d = self.region.dim
        Z = cp.Variable((d + 1, d + 1), PSD=True)
        X, u = Z[1:, 1:], Z[1:, 0]
        given = {
            "Z": Z,
            "H": cp.Parameter((d, d), symmetric=True),
            "Hx": cp.Parameter(d),
            "g": cp.Parameter(d),
            "height": cp.Parameter(),
        }
        rules = [Z[0, 0] == 1, *(cp.trace(E @ X) <= 1 for E in self.forms)]
        g, height = given["g"], given["height"]
        if kind == "eq":
            rules += [g @ u == height, X @ g == height * u]
        elif kind == "leq":
            room = height - g @ u
            rules.append(room >= 0)
            if len(self.forms) * d <= MOST_PRODUCT_ROWS:
                rules += [cp.norm(root @ (height * u - X @ g)) <= room for root in self.roots]
        goal = cp.trace(given["H"] @ X) - 2 * given["Hx"] @ u
        return cp.Problem(cp.Minimize(goal), rules), given

    def _directions(self, X: Array, u: Array, x: Array) -> list[Array]:
        """Where the relaxation points: its mean, its main axes, and random vectors."""
        spread = X - np.outer(u, u)
        values, vectors = np.linalg.eigh((spread + spread.T) / 2)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        normals = np.random.default_rng(self.seed).standard_normal((self.samples, len(u)))
        points = [u, *(u + root.T), *(u - root.T), *(u + normals @ root.T)]
        return [point - x for point in points]

    def _longest(self, x: Array, p: Array, tangent: Tangent) -> Array:
        """As far along +-p as the set and the tangent condition go (q falls as t^2, or is >= 0)."""
        if tangent.kind == "eq":
            p = p - tangent.g * (tangent.g @ p)
        if float(np.linalg.norm(p)) <= 1e-12:
            return np.zeros_like(p)
        moves = []
        for way in (p, -p):
            t = self.region.longest(x, way)
            rise = float(tangent.g @ way)
            if tangent.kind == "leq" and rise > 0:
                t = min(t, tangent.slack / rise)
            moves.append(t * way)
        return max(moves, key=lambda move: float(move @ move))

    def _local_search(self, H: Array, x: Array, p: Array, tangent: Tangent) -> Array:
        """Frank-Wolfe on q with exact steps, cut where the tangent condition ends."""
        if tangent.kind == "eq":
            return p
        for _ in range(30):
            slope = 2 * H @ p
            way = self.region.lmo(slope) - x - p
            fall, curved = float(slope @ way), float(way @ H @ way)
            if fall >= -1e-12:
                break
            t = 1.0 if curved <= 0 else min(1.0, -fall / (2 * curved))
            rise = float(tangent.g @ way)
            if tangent.kind == "leq" and rise > 0:
                t = min(t, max(0.0, (tangent.slack - float(tangent.g @ p)) / rise))
            if t <= 1e-14:
                break
            p = p + t * way
        return p


def _best(H: Array, moves: list[Array], count: int) -> list[Array]:
    """The moves with the lowest q."""
    return sorted(moves, key=lambda p: float(p @ H @ p))[:count]


def make_shor(region: ConstraintSet, seed: int) -> ShorOracle:
    """For a set that is given by convex quadratics.

    Raises:
        UserError: another set.
    """
    if not isinstance(region, Ellipsoids | Box):
        raise UserError(f"method.oracle=shor on model={region.name}: valid on ellipsoids and box")
    return ShorOracle(region, samples=50, seed=seed)
