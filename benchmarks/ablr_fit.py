"""ABLR's refits: seconds of 30 iterations, and how they grow with the data, beside a Gaussian process.

Run as `python -m benchmarks.ablr_fit`. Goals: 30 tasks x 10 points under 0.1 s, x 1,000 under 2 s (on one
thread); the slope of log seconds against log n from 100 to 3,000 points at most 1.2.
"""

import time

import numpy as np
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel

from benchmarks.figures import Figure, command
from papers.ablr.features import Network, Precision
from papers.ablr.model import Points, SharedRegression, standardised

ITERATIONS = 30


def tasks(count: int, points: int) -> list[Points]:
    """Quadratics."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        x = torch.rand(points, 3, generator=generator, dtype=torch.float64)
        a, b = torch.rand(2, generator=generator, dtype=torch.float64)
        found.append(Points(x, standardised(a * (10 * x - 5).square().sum(1) + b * x.sum(1))[0]))
    return found


def refit(count: int, points: int, precision: Precision) -> float:
    """Seconds of a refit from parameters that were fitted before."""
    network = Network(width=50, layers=3, precision=precision)
    model = SharedRegression(network, tasks(count, points), torch.Generator().manual_seed(0))
    model.fit(5)
    began = time.perf_counter()
    model.fit(ITERATIONS)
    return time.perf_counter() - began


def process(points: int) -> float:
    """Seconds of one likelihood and its gradient of scikit-learn's Gaussian process."""
    (task,) = tasks(1, points)
    kernel = RBF(0.5) + WhiteKernel(1e-2)
    model = GaussianProcessRegressor(kernel, optimizer=None).fit(task.x.numpy(), task.y.numpy())
    began = time.perf_counter()
    model.log_marginal_likelihood(model.kernel_.theta, eval_gradient=True)
    return time.perf_counter() - began


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Of log seconds against log n."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure all."""
    torch.set_num_threads(1)
    count, few, many, sizes = (3, 4, 8, [6, 12]) if tiny else (30, 10, 1000, [100, 300, 1000, 3000])
    small, large = refit(count, few, "float64"), refit(count, many, "float32")
    print(f"{count} tasks: {small:.3f} s for {few} points each, {large:.2f} s for {many}", flush=True)
    ours = [refit(1, n, "float64") for n in sizes]
    peers = [process(n) for n in sizes]
    print(f"n = {sizes}: ours {ours}, a process {peers}", flush=True)
    refits = f"ablr: a refit of {ITERATIONS} iterations, {count} tasks x"
    return {
        "small": Figure(small, "s", f"{refits} {few} points", at_most=0.1),
        "large": Figure(large, "s", f"{refits} {many:,} points, the network in float32", at_most=2.0),
        "slope": Figure(
            slope(sizes, ours),
            "slope",
            f"ablr: log seconds against log n, n = {sizes[0]} to {sizes[-1]:,}",
            f"a Gaussian process: {slope(sizes, peers):.2f}",
            at_most=1.2,
        ),
    }


if __name__ == "__main__":
    command(main)
