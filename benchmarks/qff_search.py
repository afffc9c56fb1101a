"""QFF: seconds of a long search, of its rounds as observations grow, and of a posterior beside GPyTorch's.

Run as `python -m benchmarks.qff_search` (one process, in turn). Goals on 2 cores: T = 500 evaluations in
d = 10 with 32 features a dimension under 10 s; rounds that cost the same at any n; at n = 4,000 the posterior
at least 100 times as fast as GPyTorch's exact one, for the same predictions. CPU seconds are those that count
where others use the machine too.
"""

import time
from collections.abc import Callable
from typing import Any

import gpytorch
import numpy as np
import torch
from torch import Tensor

from benchmarks.figures import Figure, command
from common.data.functions.additive import GpSample
from common.numerics.sampling import ReplicateSampler
from common.search.searcher import Observations, Searcher, Task
from common.search.surrogate import Surrogate
from papers.qff.features import QFF, fixed_features
from papers.qff.posterior import WeightPosterior
from papers.qff.search import ExactThompson, FourierThompson, FourierUCB

CPU = torch.device("cpu")
GRIDS: dict[str, Any] = {"grid": 1000, "grid_2d": 100}
LENGTHSCALE, NOISE = 0.2, 0.1


def quadrature() -> QFF:
    return QFF(nodes=32, prune=1e-12, rule="legendre", stretch=1.0)


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def search(searcher: Searcher, evaluations: int) -> list[float]:
    """CPU seconds of each round (propose, evaluate, take in), d = 10, one replicate, from 5 random points."""
    objective = GpSample(
        kind="objective", dim=10, noise=0.01, lengthscale=LENGTHSCALE, variance=1.0, nodes=128
    )
    objective.draw([0])
    surrogate = Surrogate(
        shape=(10,), classes=None, kernel="se", lengthscale=None, variance=None, noise=None, mean=0.0,
        groups="one_dim", scale_groups="mean", fit="fixed",
    )  # fmt: skip
    random = ReplicateSampler(0, 1, None, CPU, torch.float64)
    searcher.start(Task(objective, surrogate, [0], evaluations, random, CPU))
    noise = torch.Generator().manual_seed(1)
    x = torch.rand(1, 5, 10, generator=noise, dtype=torch.float64) - 0.5
    seen, rounds = Observations(x, objective.values(x)), []
    while seen.count < evaluations:
        began = time.process_time()
        x = searcher.propose(seen, 1)
        f = objective.values(x)
        seen = seen.plus(x, f + objective.noise * torch.randn(f.shape, generator=noise, dtype=torch.float64))
        rounds.append(time.process_time() - began)
    return rounds


def searches(tiny: bool) -> dict[str, Figure]:
    """Each searcher once; the figures are of Thompson sampling."""
    figures = {}
    bounds = {"beta": 2.0, "bound": 1.0, "delta": 0.1}
    makers: dict[str, tuple[int, Callable[[], Searcher]]] = {
        "qff_ts": (500, lambda: FourierThompson(features=quadrature(), **GRIDS)),
        "qff_ucb": (500, lambda: FourierUCB(features=quadrature(), **bounds, **GRIDS)),
        "exact_gp_ts": (200, lambda: ExactThompson(**GRIDS)),
    }
    for name, (most, make) in makers.items():
        evaluations = 12 if tiny else most
        seconds, rounds = seconds_of(lambda make=make, t=evaluations: search(make(), t))  # type: ignore[misc]
        early, late = np.median(rounds[20:70] or rounds), np.median(rounds[-50:])
        print(
            f"{name:<12} T={evaluations} d=10: {seconds:6.2f} s ({sum(rounds):.2f} CPU s); a round "
            f"{1e3 * early:6.2f} CPU ms at n about 50, {1e3 * late:6.2f} at the end ({late / early:.2f})",
            flush=True,
        )
        if name == "qff_ts":
            what = f"qff: {evaluations} rounds of Thompson sampling, d = 10, 32 features a dimension"
            figures["ts_seconds"] = Figure(sum(rounds), "s of one core", what, at_most=10.0)
    return figures


class Exact(gpytorch.models.ExactGP):
    """The peer: a GP with mean 0, fixed hyperparameters and a Cholesky factor."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
        likelihood.noise = NOISE**2
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = gpytorch.kernels.RBFKernel().double()
        self.covar_module.lengthscale = LENGTHSCALE

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def exact(x: Tensor, y: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    model = Exact(x, y).double().eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        found = model(at)
        return found.mean, found.variance


def posteriors(tiny: bool) -> dict[str, Figure]:
    """Mean and variance at 100 points, from nothing, given n observations of one variable."""
    features = fixed_features(quadrature(), "se", [LENGTHSCALE], seed=0)

    def ours(x: Tensor, y: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        posterior = WeightPosterior.fit(features(x)[None], y[None], NOISE)
        phi = features(at)[None]
        return posterior.mean_at(phi)[0], posterior.variance_at(phi)[0]

    at = torch.linspace(-0.5, 0.5, 100, dtype=torch.float64)[:, None]
    figures = {}
    for n in (20,) if tiny else (500, 1000, 2000, 4000):
        generator = torch.Generator().manual_seed(n)
        x = torch.rand(n, 1, generator=generator, dtype=torch.float64) - 0.5
        y = (6.0 * x[:, 0]).sin() + NOISE * torch.randn(n, generator=generator, dtype=torch.float64)
        runs = [
            (seconds_of(lambda x=x, y=y: ours(x, y, at)), seconds_of(lambda x=x, y=y: exact(x, y, at)))
            for _ in range(1 if tiny else 3)
        ]  # type: ignore[misc]
        fast, slow = (min(run[side][0] for run in runs) for side in (0, 1))
        (mean, variance), (peer_mean, peer_variance) = runs[0][0][1], runs[0][1][1]
        errors = [float((a - b).abs().max()) for a, b in ((mean, peer_mean), (variance, peer_variance))]
        print(
            f"posterior n={n:>5}: 32 features {1e3 * fast:7.2f} ms, GPyTorch exact {1e3 * slow:9.1f} ms, "
            f"ratio {slow / fast:7.1f}; differences: means {errors[0]:.1e}, variances {errors[1]:.1e}",
            flush=True,
        )
        what = f"qff: posterior of {n:,} observations, the same to {max(errors):.0e}"
        goal = 100.0 if n == 4000 else None
        figures[f"posterior_{n}"] = Figure(
            slow / fast, "x as fast", what, "GPyTorch's exact one", at_least=goal
        )
    return figures


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure searches and posteriors."""
    torch.manual_seed(0)
    return searches(tiny) | posteriors(tiny)


if __name__ == "__main__":
    command(main)
