"""What other functions on the same space say of a new one: a trend, of which the surrogate models the rest.

Runs with the same settings on other data have other levels and scales, but are often good and bad at the same
places. So of each function g_s that is known at some points

    m_s(x) = the posterior mean of (g_s - level_s) / scale_s      a Gaussian process of its own, fitted alone
    m(x) = mean over s of m_s(x)
    f(x) = level + b m(x) + what is left over                     b >= 0, fitted to f's own observations

b is the mean of its posterior where, with f standardised, b ~ N(1/2, 1/4) and what is left over has variance
1/2: before f is known the trend is believed in part, and where f goes its own way b goes to 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from common.numerics.outliers import drawn_in
from papers.maxacq.posterior import Kernel, Posterior, condition
from papers.maxacq.standardised import fit_standardised

# of the prior of b, and what it leaves over
SLOPE, SLOPE_VARIANCE, REST = 0.5, 0.25, 0.5
# different points of which a function must be known, and the most that are taken, from its best on
FEWEST, MOST = 3, 300


@dataclass(frozen=True)
class Trend:
    """factor m(x).

    Attributes:
        parts: of each function the posterior of its standardised values.
        factor: b in the units of f.
        scale: the mean standard deviation of the functions, by which f's is guessed before it is known.
    """

    parts: tuple[Posterior, ...]
    factor: Tensor
    scale: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """At encoded points [n, e]: [n]."""
        means = [part.marginal(points[None])[0][0] for part in self.parts]
        return self.factor * torch.stack(means).mean(0)

    def fitted(self, points: Tensor, y: Tensor) -> "Trend":
        """With b by observations y [n] at encoded points [n, e], which are not all alike."""
        m = replace(self, factor=torch.ones_like(self.factor))(points)
        scale = y.std()
        z = (y - y.mean()) / scale
        m = m - m.mean()
        precision = 1 / SLOPE_VARIANCE + m.square().sum() / REST
        b = (SLOPE / SLOPE_VARIANCE + (m * z).sum() / REST) / precision
        return replace(self, factor=b.clamp_min(0.0) * scale)

    def believed(self) -> "Trend":
        """With b as before f is known, for values of f in units of `scale`."""
        return replace(self, factor=torch.full_like(self.factor, SLOPE))


def trend_of(kernel: Kernel, known: Sequence[tuple[Tensor, Tensor]]) -> Trend | None:
    """The trend of functions known at encoded points [n, e] with values [n]; None where none says anything.

    A function that is known at fewer than three different points, or is the same at all, says nothing.
    """
    telling = [(x, y) for x, y in known if len(x.unique(dim=0)) >= FEWEST and y.std() > 0]
    if not telling:
        return None
    parts = tuple(_standardised(kernel, x, y) for x, y in telling)
    scale = torch.stack([y.std() for _, y in telling]).mean()
    return Trend(parts, torch.ones_like(scale), scale)


def _standardised(kernel: Kernel, x: Tensor, y: Tensor) -> Posterior:
    best = y.argsort(descending=True, stable=True)
    if len(best) > MOST:
        # all of the best half, and every so many of the others
        others = torch.linspace(MOST // 2, len(best) - 1, MOST // 2).long()
        best = torch.cat([best[: MOST // 2], best[others]])
    x, y = x[best], drawn_in(y[best])
    z = (y - y.mean()) / y.std()
    return condition(fit_standardised(kernel, x, z), x[None], z[None])
