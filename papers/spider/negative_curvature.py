"""Search for negative curvature: Lanczos on Hessian-vector products, and Neon2-online.

Both answer, for each replicate: a unit w with w' Hess f(x) w <= -delta/2, or none, which is the
certificate lambda_min >= -delta, with high probability.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from papers.spider.method import UniformIterate, ceil, positive, row_norms
from papers.spider.problems.protocol import Oracle


@dataclass(frozen=True)
class Curvature:
    """The constants of a search: L, rho (the Hessian's Lipschitz constant) and delta."""

    L: float
    rho: float
    delta: float


@dataclass(frozen=True)
class Found:
    """`mask` [R]: where a direction was found; `direction` [R, d]: unit vectors there, else zero."""

    mask: Tensor
    direction: Tensor


class Search(ABC):
    """A negative-curvature search."""

    @abstractmethod
    def __call__(self, oracle: Oracle, x: Tensor, curvature: Curvature, samples: int | None) -> Found:
        """Search at x [R, d]; `samples` is a checkpoint's size, None for a finite sum's n."""


class Lanczos(Search):
    """Lanczos with full reorthogonalisation on Hessian-vector products of one checkpoint batch.

    m = 1/2 + log(1.648 sqrt(d) / p) / (2 sqrt(e)) steps bring the least Ritz value within e times the
    spread of the spectrum of lambda_min with probability 1 - p (Kuczynski and Wozniakowski 1992); here
    e = delta / (4 L), as the spread is at most 2 L, and m <= d. Each step costs one call a sample.

    Args:
        iterations: m; None: by the formula.
        p: failure probability.
    """

    def __init__(self, *, iterations: int | None, p: float) -> None:
        positive(iterations=iterations, p=p)
        self.iterations, self.p = iterations, p

    def __call__(self, oracle: Oracle, x: Tensor, curvature: Curvature, samples: int | None) -> Found:
        batch = oracle.everything() if samples is None else oracle.draw(samples)
        steps = min(self.iterations or self._formula(x.shape[1], curvature), x.shape[1])
        values, vectors = lanczos(oracle, lambda v: oracle.hvp(x, v, batch), steps, x.shape[1])
        mask = values[:, 0] <= -curvature.delta / 2
        return Found(mask, vectors[:, :, 0] * mask[:, None])

    def _formula(self, d: int, curvature: Curvature) -> int:
        error = curvature.delta / (4 * curvature.L)
        return ceil(0.5 + math.log(1.648 * math.sqrt(d) / self.p) / (2 * math.sqrt(error)))


def lanczos(
    oracle: Oracle, multiply: Callable[[Tensor], Tensor], steps: int, d: int
) -> tuple[Tensor, Tensor]:
    """Ritz values [R, steps], ascending, and unit Ritz vectors [R, d, steps] of a symmetric operator.

    Args:
        oracle: gives the random start vectors.
        multiply: v [R, d] -> H v [R, d].
        steps: at most d.
        d: dimension.
    """
    start = oracle.sampler.normal((d,))
    basis = (start / row_norms(start)).unsqueeze(2)
    projected = basis.new_zeros(len(basis), steps, steps)
    for j in range(steps):
        product = multiply(basis[:, :, j])
        projected[:, : j + 1, j] = (basis.mT @ product.unsqueeze(2)).squeeze(2)
        if j + 1 < steps:
            basis = torch.cat([basis, _next_vector(oracle, basis, product).unsqueeze(2)], dim=2)
    values, coordinates = torch.linalg.eigh(projected, UPLO="U")
    return values, basis @ coordinates


def _next_vector(oracle: Oracle, basis: Tensor, product: Tensor) -> Tensor:
    """The part of `product` orthogonal to the basis, of norm 1; a random one where nothing is left."""
    scale = row_norms(product)
    rest = _orthogonal(basis, product)
    spent = (row_norms(rest) <= 1e-10 * scale.clamp_min(1e-300)).squeeze(1)
    if spent.any():
        rows = spent.nonzero().squeeze(1).tolist()
        rest[rows] = _orthogonal(basis[rows], oracle.sampler.normal((basis.shape[1],), rows))
    return rest / row_norms(rest)


def _orthogonal(basis: Tensor, v: Tensor) -> Tensor:
    """v minus its projection on the basis, twice for accuracy."""
    for _ in range(2):
        v = v - (basis @ (basis.mT @ v.unsqueeze(2))).squeeze(2)
    return v


class Neon2(Search):
    """Neon2-online (Allen-Zhu and Li 2018), from gradients alone.

    From x_0 + xi, ||xi|| = s, it iterates x_{t+1} = x_t - eta (g_b(x_t) - g_b(x_0)), which multiplies the
    part of x_t - x_0 along negative curvature. If ||x_t - x_0|| >= r within T steps, the candidate is
    (x_s - x_0) / ||x_s - x_0|| for uniform s <= t; it is accepted if its curvature on m fresh samples is at
    most -3 delta / 4. Up to `repeats` tries.

    With l = log(100 d): eta = min(1/L, b delta / (C^2 L^2 l)), T = C^2 l / (eta delta),
    r = delta / (100 rho), s = r (100 d)^-C, m = (L / delta)^2 log(1/p). The orders are the paper's, the
    constants ours.

    Args:
        batch_size: b (1 in the paper).
        constant: C.
        repeats: tries.
        p: failure probability of the acceptance test.
    """

    def __init__(self, *, batch_size: int, constant: float, repeats: int, p: float) -> None:
        positive(batch_size=batch_size, constant=constant, repeats=repeats, p=p)
        self.b, self.C, self.repeats, self.p = batch_size, constant, repeats, p

    def __call__(self, oracle: Oracle, x: Tensor, curvature: Curvature, samples: int | None) -> Found:
        mask = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        direction = torch.zeros_like(x)
        rows = list(oracle.active_rows)
        for _ in range(self.repeats):
            grown, candidates = self._grow(oracle, x[rows], rows, curvature)
            if grown:
                accepted = self._accept(oracle, x[grown], candidates, grown, curvature)
                mask[grown] = accepted
                direction[grown] = candidates * accepted[:, None]
            rows = [r for r in rows if not mask[r]]
            if not rows:
                break
        return Found(mask, direction)

    def _grow(
        self, oracle: Oracle, origin: Tensor, rows: list[int], curvature: Curvature
    ) -> tuple[list[int], Tensor]:
        """One try: the replicates that left the ball, and their candidates."""
        d = origin.shape[1]
        factor = math.log(100 * d)
        step = min(1 / curvature.L, self.b * curvature.delta / (self.C**2 * curvature.L**2 * factor))
        radius = curvature.delta / (100 * curvature.rho)
        noise = oracle.sampler.normal((d,), rows)
        x = origin + noise / row_norms(noise) * radius * (100.0 * d) ** -self.C
        grown: list[int] = []
        candidates: list[Tensor] = []
        kept = UniformIterate(oracle.sampler, x, rows)
        for t in range(ceil(self.C**2 * factor / (step * curvature.delta))):
            batch = oracle.draw(self.b, rows)
            x = x - step * oracle.gradient_difference(x, origin, batch, rows)
            kept.see(t, x)
            out = (row_norms(x - origin) >= radius).squeeze(1)
            if out.any():
                chosen = kept.kept[out] - origin[out]
                candidates.append(chosen / row_norms(chosen))
                grown += [r for r, left in zip(rows, out.tolist(), strict=True) if left]
                rows = [r for r, left in zip(rows, out.tolist(), strict=True) if not left]
                x, origin = x[~out], origin[~out]
                kept.drop(out)
            if not rows:
                break
        return grown, torch.cat(candidates) if candidates else x[:0]

    def _accept(self, oracle: Oracle, x: Tensor, w: Tensor, rows: list[int], curvature: Curvature) -> Tensor:
        """Whether w' Hess f(x) w, by a difference of gradients, is at most -3 delta / 4: [len(rows)]."""
        size = ceil((curvature.L / curvature.delta) ** 2 * math.log(1 / self.p))
        reach = curvature.delta / (100 * curvature.rho)
        batch = oracle.draw(size, rows)
        change = oracle.gradient_difference(x + reach * w, x, batch, rows)
        return (w * change).sum(1) / reach <= -0.75 * curvature.delta
