"""Oracles for the quadratic programme of the second stage, each answer with its certificate.

    minimise q(u) = (u - x)'H(u - x) over u in C with g'(u - x) = 0 (`eq`), <= 0 (`leq`) or <= r

u = x is feasible with q = 0, so the least value is <= 0. An answer holds a feasible u, q(u), and a lower
bound of the least value; rho = q(u) / lower bound is what this answer is worth, measured rather than assumed.

An oracle works in the units of its set and of H (`Oracle.__call__`), where both are of size 1: its tolerances
are relative to them, and the answer is the same in whatever units f and x are given.

| set | oracle | rho |
|---|---|---|
| ball, one ellipsoid | `TrustRegionOracle` (d > 500: `LanczosOracle`) | 1 |
| several ellipsoids, a large box | `ShorOracle` (shor.py) | measured |
| box, simplex, polytope | `EnumerationOracle`, `BranchAndBoundOracle` (polyhedral.py) | 1 |
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from papers.saddle.problems import SLACK, Array, symmetric
from papers.saddle.sets import Ball, ConstraintSet, Ellipsoids
from papers.saddle.trust_region import TrustRegion, lanczos_trust_region, local_minimiser, trust_region
from papers.saddle.units import EPS, power_of_two

Kind = Literal["none", "leq", "eq"]
# a gradient this small, beside what it is computed from, is of rounding errors
FLAT = 64 * EPS
OracleName = Literal["auto", "trust_region", "lanczos", "shor", "enumeration", "branch_and_bound"]


@dataclass(frozen=True)
class Tangent:
    """The tangent condition at x: g'(u - x) <= slack (leq), = 0 (eq), or none.

    `size` is that of the set in the units of x: 1 within the oracles.
    """

    kind: Kind
    g: Array
    slack: float = 0.0
    size: float = 1.0

    @property
    def unit(self) -> "Tangent":
        """The same with a normal of length 1."""
        size = float(power_of_two(np.abs(self.g).max()))
        norm = float(np.linalg.norm(self.g / size))
        return replace(self, g=self.g / size / norm, slack=self.slack / size / norm)

    def allows(self, p: Array) -> bool:
        """Whether the move p = u - x meets it, within `SLACK` of the set's size (or of p, if that is longer);
        for a normal of length 1."""
        along, slack = float(self.g @ p), SLACK * max(self.size, float(np.linalg.norm(p)))
        if self.kind == "eq":
            return abs(along) <= slack
        return self.kind == "none" or along <= self.slack + slack


@dataclass(frozen=True)
class Answer:
    """What an oracle found.

    Attributes:
        points: feasible u of one value, [k, d]: several where signs are free.
        value: q of them, <= 0.
        lower: a lower bound of the least value, <= value.
        seconds: that it took.
        failed: what the solver said when it failed, else "".
        unit: of q over the set; a lower bound within 1e-12 of it is 0.
    """

    points: Array
    value: float
    lower: float
    seconds: float = 0.0
    failed: str = ""
    unit: float = 1.0

    @property
    def rho(self) -> float:
        """value / lower: the measured quality, in [0, 1]."""
        if self.lower >= -1e-12 * self.unit:
            return 1.0
        return min(1.0, max(0.0, self.value / self.lower))


class Oracle(ABC):
    """Answers for one set.

    Attributes:
        units: of the set.
        inner: the set in its units.
    """

    def __init__(self, region: ConstraintSet) -> None:
        self.units, self.inner = region.units, region.in_units()

    def __call__(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        """Solve at x, for symmetric H [d, d].

        Raises:
            UserError: H is not symmetric or not finite.
        """
        began = time.perf_counter()
        scale = self.units.scale
        # q in units of H and of the set
        H = symmetric(H, "the Hessian") * np.outer(scale, scale)
        unit = float(power_of_two(np.abs(H).max(initial=0.0)))
        H = H / unit
        answer = self.solve(H, self.units.inward(x), self._tangent(H, x / scale, tangent, unit))
        points, value, lower = self.units.outward(answer.points), unit * answer.value, unit * answer.lower
        if not value < 0:
            points, value, lower = x[None], 0.0, min(lower, 0.0)
        seconds = time.perf_counter() - began
        return Answer(points, value, lower, seconds, answer.failed, unit)

    def _tangent(self, H: Array, x: Array, tangent: Tangent, unit: float) -> Tangent:
        """The condition about moves in units, with a normal of length 1 in the affine hull of the set.

        With a gradient of rounding errors (of H x, from which it comes; or of what the set holds constant)
        there is no tangent plane.
        """
        none = Tangent("none", np.zeros_like(x))
        if tangent.kind == "none" or not tangent.g.any():
            return none
        whole = tangent.g * self.units.scale
        size = float(power_of_two(np.abs(whole).max()))
        whole = whole / size
        g = self.inner.along(whole)
        length = float(np.linalg.norm(g))
        off_hull = length <= FLAT * float(np.linalg.norm(whole))
        rounding = FLAT * float(np.linalg.norm(H)) * float(np.linalg.norm(x))
        if off_hull or length * size <= rounding * unit:
            return none
        return Tangent(tangent.kind, g, tangent.slack / size).unit

    @abstractmethod
    def solve(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        """The same in units: H and the set of size 1, and a tangent normal of length 1."""


def answer_from(H: Array, x: Array, points: list[Array], lower: float) -> Answer:
    """The best of several feasible points, with all that tie with it."""
    moves = np.stack(points) - x
    values = np.einsum("ki,ij,kj->k", moves, H, moves)
    best = float(values.min())
    tied = values <= best + 1e-12 * abs(best)
    return Answer(x + moves[tied], best, min(lower, best))


class TrustRegionOracle(Oracle):
    """The ball or one ellipsoid, exactly, with or without the halfspace.

    `eq` is a trust-region problem in the slice, a ball of one dimension less. `leq` is solved by the
    trust-region solution if that is in the halfspace; else the minimum is the slice's, or the one local
    minimiser of the trust-region problem that is not global, as it is interior to the halfspace then.

    Args:
        region: the ball, or ellipsoids with m = 1 (mapped to the unit ball).
    """

    def __init__(self, region: Ball | Ellipsoids) -> None:
        super().__init__(region)
        self.radius = 1.0
        self.root: Array = np.eye(region.dim)
        self.back: Array = self.root
        if isinstance(self.inner, Ellipsoids):
            self.back = self.inner.roots[0]
            self.root = np.asarray(np.linalg.inv(self.back), dtype=np.float64)
        else:
            self.radius = self.inner.radius

    def solve(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        H_ball, g = self.root @ H @ self.root, self.root @ tangent.g
        inner = Tangent(tangent.kind, g, tangent.slack)
        answer = self._in_ball((H_ball + H_ball.T) / 2, self.back @ x, inner)
        return replace(answer, points=answer.points @ self.root)

    def _in_ball(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        h, constant = -H @ x, float(x @ H @ x)
        if tangent.kind == "eq":
            return self._slice(H, x, tangent)
        towards = None if tangent.kind == "none" else -tangent.g
        free = trust_region(H, h, self.radius, towards)
        allowed = [u for u in free.candidates if tangent.allows(u - x)]
        if allowed:
            return answer_from(H, x, allowed, free.lower + constant)
        on_plane = self._slice(H, x, tangent)
        local = local_minimiser(H, h, self.radius)
        if local is None or not tangent.allows(local - x):
            return on_plane
        value = float((local - x) @ H @ (local - x))
        if value >= on_plane.value:
            return replace(on_plane, lower=min(on_plane.lower, value))
        return Answer(local[None], value, min(on_plane.lower, value))

    def _slice(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        """Over the part of the ball in the plane g'u = g'x + slack."""
        norm = float(np.linalg.norm(tangent.g))
        normal = tangent.g / norm
        height = float(normal @ x) + tangent.slack / norm
        squared = self.radius**2 - height**2
        if squared <= 0 or len(x) == 1:
            # the plane touches the ball in one point
            return answer_from(H, x, [x], 0.0)
        N = np.linalg.qr(normal[:, None], mode="complete")[0][:, 1:]
        centre = height * normal
        within = N.T @ H @ N
        # where H cancels on the plane only rounding is left, which is not symmetric
        within = (within + within.T) / 2
        part: TrustRegion = trust_region(within, N.T @ (H @ (centre - x)), squared**0.5)
        constant = float((centre - x) @ H @ (centre - x))
        return answer_from(H, x, [centre + N @ y for y in part.candidates], part.lower + constant)


class LanczosOracle(Oracle):
    """The ball in many dimensions, from products with H.

    Without the tangent condition, and with `eq`, it is exact to the tolerance. With `leq`, where the
    solution without it is outside of the halfspace, the plane's solution is given with the lower bound of
    the whole ball: rho is then less than 1.

    Args:
        region: the ball.
        seed: of the random start.
    """

    def __init__(self, region: Ball, seed: int) -> None:
        super().__init__(region)
        self.radius, self.seed = self.inner.radius, seed

    def solve(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        return self.from_products(lambda v: H @ v, x, tangent)

    def from_products(self, product: Callable[[Array], Array], x: Array, tangent: Tangent) -> Answer:
        """The same from [d] or [d, k] -> H times it, in units."""
        Hx = product(x)
        lower = float("inf")
        if tangent.kind != "eq":
            free = lanczos_trust_region(product, -Hx, self.radius, self.seed)
            lower = free.lower + float(x @ Hx)
            allowed = [u for u in free.candidates if tangent.allows(u - x)]
            if allowed:
                return self._answer(product, x, allowed, lower)
        height = float(tangent.g @ x) + (0.0 if tangent.kind == "eq" else tangent.slack)
        squared = self.radius**2 - height**2
        if squared <= 0:
            return Answer(x[None], 0.0, min(lower, 0.0))
        g = tangent.g

        def flat(v: Array) -> Array:
            return v - (g[:, None] * (g @ v) if v.ndim == 2 else g * (g @ v))

        offset = height * g - x
        part = lanczos_trust_region(
            lambda v: flat(product(flat(v))), flat(product(offset)), squared**0.5, self.seed
        )
        if tangent.kind == "eq":
            lower = part.lower + float(offset @ product(offset))
        points = [height * g + flat(s) for s in part.candidates]
        return self._answer(product, x, points, lower)

    def _answer(
        self, product: Callable[[Array], Array], x: Array, points: list[Array], lower: float
    ) -> Answer:
        values = [float((u - x) @ product(u - x)) for u in points]
        best = min(values)
        tied = [u for u, v in zip(points, values, strict=True) if v <= best + 1e-9 * abs(best)]
        return Answer(np.stack(tied), best, min(lower, best))
