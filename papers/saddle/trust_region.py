"""The trust-region problem min s'Hs + 2 h's over ||s|| <= R, exactly, for any symmetric H.

s is a global minimiser if and only if, for some mu >= 0, (H + mu I) s = -h, H + mu I is positive semidefinite
and mu (R - ||s||) = 0 (More and Sorensen 1983). `trust_region` takes an eigendecomposition and solves the
secular equation ||(Lambda + mu)^-1 V'h|| = R; `lanczos_trust_region` needs products with H alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.base.errors import UserError
from papers.saddle.problems import Array, symmetric

# eigenvalues closer than this fraction of the largest count as one
SAME = 1e-10


@dataclass(frozen=True)
class TrustRegion:
    """A solution with its certificate.

    Attributes:
        candidates: the global minimisers found, [k, d]: two in the hard case (both signs), else one.
        mu: the multiplier.
        value: s'Hs + 2 h's.
        lower: a lower bound of it over the ball, the value of the dual problem at mu.
        hard: whether h has no part in the lowest eigenspace, which then fills the radius.
        local: the local minimiser that is no global one, where it was asked for and there is one.
    """

    candidates: Array
    mu: float
    value: float
    lower: float
    hard: bool
    local: Array | None = None


def trust_region(H: Array, h: Array, radius: float, towards: Array | None = None) -> TrustRegion:
    """Solve min s'Hs + 2 h's, ||s|| <= radius.

    Args:
        H: symmetric [d, d]; h: [d].
        radius: R >= 0.
        towards: in the hard case the first candidate goes from the smallest solution into the lowest
            eigenspace along this direction's part in it, where it has one.

    Raises:
        UserError: H is not symmetric or not finite, or R < 0.
    """
    if not radius >= 0:
        raise UserError(f"trust region of radius {radius}; valid: a number >= 0")
    H = symmetric(H, "the Hessian")
    values, vectors = np.linalg.eigh(H)
    c = vectors.T @ h
    size = max(float(np.abs(values).max()), 1e-300)
    lowest = values - values[0] <= SAME * size
    base = max(0.0, -float(values[0]))
    # Lambda + base, exactly 0 in the lowest eigenspace where the multiplier is on its edge
    shifted = np.maximum(values + base, 0.0)
    if values[0] <= 0:
        shifted[lowest] = 0.0
    tiny = 1e-14 * (float(np.linalg.norm(c)) + size * radius)
    hard = values[0] <= 0 and float(np.linalg.norm(c[lowest])) <= tiny
    if hard:
        c = np.where(lowest, 0.0, c)
    edge = hard or values[0] > 0
    t = -_divided(c, shifted) if edge else c
    if edge and float(np.linalg.norm(t)) <= radius:
        delta = 0.0
        spare = float(np.sqrt(max(radius**2 - float(t @ t), 0.0))) if base > 0 else 0.0
        points = _fill(t, lowest, spare, None if towards is None else vectors.T @ towards) if hard else [t]
    else:
        hard = False
        delta = _secular(c, shifted, radius)
        points = [-_divided(c, shifted + delta)]
    candidates = np.stack([_inside(vectors @ point, radius) for point in points])
    mu = base + delta
    first = candidates[0]
    lower = -float((c * _divided(c, shifted + delta)).sum()) - mu * radius**2
    return TrustRegion(candidates, mu, float(first @ H @ first + 2 * h @ first), lower, hard)


def _divided(c: Array, weights: Array) -> Array:
    """c / weights, 0 where c is 0."""
    return np.divide(c, weights, out=np.zeros_like(c), where=c != 0)


def _inside(s: Array, radius: float) -> Array:
    """Take rounding off a point that is outside by it."""
    norm = float(np.linalg.norm(s))
    return s * (radius / norm) if norm > radius else s


def _fill(t: Array, lowest: Array, spare: float, towards: Array | None) -> list[Array]:
    """The hard case: both ways in the lowest eigenspace, so far as the radius allows."""
    if spare == 0.0:
        return [t]
    z = np.where(lowest, 0.0 if towards is None else towards, 0.0)
    norm = float(np.linalg.norm(z))
    if norm <= 1e-14 * (1.0 if towards is None else float(np.linalg.norm(towards)) + 1e-300):
        z, norm = np.zeros_like(t), 1.0
        z[0] = 1.0
    return [t + spare / norm * z, t - spare / norm * z]


def _secular(c: Array, shifted: Array, radius: float) -> float:
    """delta >= 0 with ||c / (shifted + delta)|| = radius, by Newton's method on the reciprocals.

    The start is at the left of the root, from where the iterates rise to it.
    """
    if radius == 0:
        return float("inf")
    used = c != 0
    c, shifted = c[used], shifted[used]
    # from each single term |c_i| / (shifted_i + delta) <= radius
    delta = max(0.0, float((np.abs(c) / radius - shifted).max()))
    for _ in range(100):
        scaled = c / (shifted + delta)
        norm = float(np.linalg.norm(scaled))
        if norm <= radius * (1 + 1e-15):
            break
        step = norm**2 / float((scaled**2 / (shifted + delta)).sum()) * (norm - radius) / radius
        if delta + step == delta:
            break
        delta += step
    return delta


def local_minimiser(H: Array, h: Array, radius: float) -> Array | None:
    """The local, not global, minimiser of s'Hs + 2 h's over ||s|| <= radius, if there is one.

    There is at most one (Martinez 1994): on the sphere, with a multiplier mu in (-lambda_2, -lambda_1), mu >=
    0, at which ||(Lambda + mu)^-1 V'h||^2 rises through R^2.
    """
    values, vectors = np.linalg.eigh(H)
    c = vectors.T @ h
    low, high = max(0.0, -float(values[1])) if len(values) > 1 else 0.0, -float(values[0])
    if high - low <= SAME * max(float(np.abs(values).max()), 1e-300) or c[0] == 0:
        return None
    gap = high - low

    def norm_squared(t: float) -> float:
        """At mu = high - t."""
        return float(((c / (values - values[0] - t)) ** 2).sum())

    def slope(t: float) -> float:
        """Of the same in mu, halved: it rises with mu, as the function is convex between its poles."""
        return float((-(c**2) / (values - values[0] - t) ** 3).sum())

    # t near 0 is near the pole at mu = -lambda_1, where the function rises to infinity
    near, far = abs(float(c[0])) / (2 * max(radius, 1e-300)), gap
    near = min(near, gap / 2)
    while norm_squared(near) <= radius**2:
        near /= 2
        if near == 0.0:
            return None
    # the right root: go on from `near` as long as the function rises with mu
    for _ in range(400):
        t = (near * far) ** 0.5 if far > 2 * near else (near + far) / 2
        if slope(t) > 0 and norm_squared(t) > radius**2:
            near = t
        else:
            far = t
        if far - near <= 4e-16 * far:
            break
    t = (near + far) / 2
    if slope(t) <= 0 or abs(norm_squared(t) - radius**2) > 1e-8 * radius**2:
        return None
    return _inside(vectors @ (-c / (values - values[0] - t)), radius)


def lanczos_trust_region(
    product: Callable[[Array], Array],
    h: Array,
    radius: float,
    seed: int,
    tolerance: float = 1e-9,
    most: int = 400,
) -> TrustRegion:
    """The same in a Krylov space of [h, random], from products with H alone, for large d.

    The random vector finds the lowest eigenspace that h may have no part in. Each `STRIDE` steps the
    projected problem is solved exactly; the end is when its residual is below the tolerance. The lower
    bound holds if the lowest eigenvalue is no further from its Ritz value than the Ritz vector's residual
    (true but for a random start that misses the eigenspace).

    Args:
        product: [d, k] -> H times it.
        h: [d].
        tolerance: of the residuals, relative to the largest Ritz value times the radius.
        most: dimensions of the Krylov space, at most d.
    """
    d = len(h)
    starts = [np.random.default_rng(seed).standard_normal(d)]
    if float(np.linalg.norm(h)) > 0:
        starts.insert(0, h)
    block = np.linalg.qr(np.stack(starts, axis=1))[0]
    basis, image = np.zeros((d, 0)), np.zeros((d, 0))
    while True:
        for _ in range(STRIDE):
            basis, last = np.hstack([basis, block]), product(block)
            image = np.hstack([image, last])
            rest = last - basis @ (basis.T @ last)
            rest -= basis @ (basis.T @ rest)
            block, R = np.linalg.qr(rest)
            keep = np.abs(np.diag(R)) > 1e-12 * max(float(np.abs(last).max()), 1e-300)
            block = block[:, keep][:, : d - basis.shape[1]]
            if block.shape[1] == 0 or basis.shape[1] >= min(most, d):
                break
        found = _from_projection(basis, image, h, radius)
        solution, residual, scale = found
        done = residual <= tolerance * scale or block.shape[1] == 0 or basis.shape[1] >= min(most, d)
        if done:
            return solution


STRIDE = 25


def _from_projection(basis: Array, image: Array, h: Array, radius: float) -> tuple[TrustRegion, float, float]:
    """Solve the problem in the span of a basis; give the solution, its residual and their scale."""
    T = basis.T @ image
    T = (T + T.T) / 2
    small = trust_region(T, basis.T @ h, radius)
    y, mu = small.candidates[0], small.mu
    values, vectors = np.linalg.eigh(T)
    ritz = float(np.linalg.norm(image @ vectors[:, 0] - values[0] * (basis @ vectors[:, 0])))
    s, Hs = basis @ y, image @ y
    residual = float(np.linalg.norm(Hs + mu * s + h))
    # H + mu I >= -slack I, and u'Hu + 2 h'u = (u - s)'(H + mu)(u - s) - s'(H + mu)s + 2 r'u - mu ||u||^2
    slack = max(0.0, -(float(values[0]) - ritz + mu))
    lower = -float(s @ Hs) - mu * float(s @ s) - mu * radius**2 - 2 * residual * radius
    lower -= slack * (2 * radius) ** 2
    candidates = small.candidates @ basis.T
    scale = max(float(np.abs(values).max()) * radius, float(np.linalg.norm(h)), 1e-300)
    solution = TrustRegion(candidates, mu, float(s @ Hs + 2 * h @ s), lower, small.hard)
    return solution, max(residual, ritz * radius), scale
