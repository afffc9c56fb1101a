"""Oracles for the quadratic programme of the second stage, each answer with its certificate.

    minimise q(u) = (u - x)'H(u - x) over u in C with g'(u - x) = 0 (`eq`), <= 0 (`leq`) or <= r

u = x is feasible with q = 0, so the least value is <= 0. An answer holds a feasible u, q(u), and a lower
bound of the least value; rho = q(u) / lower bound is what this answer is worth, measured rather than assumed.

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

from common.data.saddle_problems import SLACK, Array, symmetric
from papers.saddle.sets import Ball, Ellipsoids
from papers.saddle.trust_region import TrustRegion, lanczos_trust_region, local_minimiser, trust_region

Kind = Literal["none", "leq", "eq"]
OracleName = Literal["auto", "trust_region", "lanczos", "shor", "enumeration", "branch_and_bound"]


@dataclass(frozen=True)
class Tangent:
    """The tangent condition at x: g'(u - x) <= slack (leq), = 0 (eq), or none."""

    kind: Kind
    g: Array
    slack: float = 0.0

    @property
    def unit(self) -> "Tangent":
        """The same with a normal of length 1."""
        norm = float(np.linalg.norm(self.g))
        return replace(self, g=self.g / norm, slack=self.slack / norm)

    def allows(self, p: Array) -> bool:
        """Whether the move p = u - x meets it, within `SLACK`; for a normal of length 1."""
        along = float(self.g @ p)
        if self.kind == "eq":
            return abs(along) <= SLACK
        return self.kind == "none" or along <= self.slack + SLACK


@dataclass(frozen=True)
class Answer:
    """What an oracle found.

    Attributes:
        points: feasible u of one value, [k, d]: several where signs are free.
        value: q of them, <= 0.
        lower: a lower bound of the least value, <= value.
        seconds: that it took.
        failed: what the solver said when it failed, else "".
    """

    points: Array
    value: float
    lower: float
    seconds: float = 0.0
    failed: str = ""

    @property
    def rho(self) -> float:
        """value / lower: the measured quality, in [0, 1]."""
        return 1.0 if self.lower >= -1e-12 else min(1.0, max(0.0, self.value / self.lower))


class Oracle(ABC):
    """Answers for one set."""

    def __call__(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        """Solve at x, for symmetric H [d, d].

        Raises:
            UserError: H is not symmetric or not finite.
        """
        began = time.perf_counter()
        H = symmetric(H, "the Hessian")
        # with a gradient of rounding errors there is no tangent plane
        flat = float(np.linalg.norm(tangent.g)) <= 1e-14 * (1.0 + float(np.abs(H).max(initial=0.0)))
        if flat or tangent.kind == "none":
            answer = self.solve(H, x, Tangent("none", tangent.g))
        else:
            answer = self.solve(H, x, tangent.unit)
        if not answer.value < 0:
            answer = replace(answer, points=x[None], value=0.0, lower=min(answer.lower, 0.0))
        return replace(answer, seconds=time.perf_counter() - began)

    @abstractmethod
    def solve(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        """The same, with a tangent normal of length 1."""


def answer_from(H: Array, x: Array, points: list[Array], lower: float) -> Answer:
    """The best of several feasible points, with all that tie with it."""
    moves = np.stack(points) - x
    values = np.einsum("ki,ij,kj->k", moves, H, moves)
    best = float(values.min())
    tied = values <= best + 1e-12 * max(1.0, abs(best))
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
        self.radius = 1.0
        self.root: Array = np.eye(region.dim)
        self.back: Array = self.root
        if isinstance(region, Ellipsoids):
            self.back = region.roots[0]
            self.root = np.asarray(np.linalg.inv(self.back), dtype=np.float64)
        else:
            self.radius = region.radius

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
        part: TrustRegion = trust_region(N.T @ H @ N, N.T @ (H @ (centre - x)), squared**0.5)
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
        self.radius, self.seed = region.radius, seed

    def solve(self, H: Array, x: Array, tangent: Tangent) -> Answer:
        return self.from_products(lambda v: H @ v, x, tangent)

    def from_products(self, product: Callable[[Array], Array], x: Array, tangent: Tangent) -> Answer:
        """The same from [d] or [d, k] -> H times it."""
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
        tied = [u for u, v in zip(points, values, strict=True) if v <= best + 1e-9 * max(1.0, abs(best))]
        return Answer(np.stack(tied), best, min(lower, best))
