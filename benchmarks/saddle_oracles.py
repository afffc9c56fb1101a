"""The oracles of the second stage: seconds a call, on one core, beside the peer for the same problem.

Run as `python -m benchmarks.saddle_oracles`. Goals: the trust region at d = 200 under 0.1 s by
eigendecomposition, at d = 2,000 under 2 s by Lanczos.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.figures import Figure, command
from papers.saddle.choice import make_oracle
from papers.saddle.oracles import Tangent
from papers.saddle.problems import Array
from papers.saddle.sets import Box, Ellipsoids, Simplex
from papers.saddle.trust_region import lanczos_trust_region, trust_region


def symmetric(dim: int, seed: int) -> Array:
    H = np.random.default_rng(seed).standard_normal((dim, dim))
    return H + H.T


def best_of(runs: int, call: Callable[[], object]) -> float:
    """The least seconds of several calls, in turn."""
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def trust_regions(dims: tuple[int, ...]) -> dict[str, Figure]:
    """Both ways, with a general h and in the hard case h = 0 (which a saddle always is)."""
    figures = {}
    for dim in dims:
        H = symmetric(dim, 0)
        for name, h in (("general", np.random.default_rng(1).standard_normal(dim)), ("hard", np.zeros(dim))):
            runs = 1 if dim == 2_000 else 5
            exact = best_of(runs, lambda H=H, h=h: trust_region(H, h, 1.0))  # type: ignore[misc]
            line = f"trust region d={dim:>5} {name:<8} eigendecomposition {exact:8.4f} s"
            if dim >= 200:
                found = best_of(runs, lambda H=H, h=h: lanczos_trust_region(lambda v: H @ v, h, 1.0, 0))  # type: ignore[misc]
                line += f"   Lanczos {found:8.4f} s"
                what = f"saddle: trust region, d = {dim:,}, {name}, by Lanczos"
                goal = 2.0 if dim == 2_000 else None
                figures[f"lanczos_{dim}_{name}"] = Figure(found, "s", what, at_most=goal)
            print(line, flush=True)
            what = f"saddle: trust region, d = {dim:,}, {name}, by eigendecomposition"
            goal = 0.1 if dim == 200 else None
            figures[f"exact_{dim}_{name}"] = Figure(exact, "s", what, at_most=goal)
    return figures


def others(tiny: bool) -> None:
    """Ellipsoids by Shor's bound, box and simplex by enumeration, all with grad'(u - x) <= 0."""
    sets = [
        Ellipsoids(
            shape=(d,), classes=None, radius=1.0, count=m, condition=10.0, design_seed=0, matrices=None
        )
        for d, m in (((4, 2),) if tiny else ((10, 3), (50, 10)))
    ]
    for region in [*sets, Box(shape=(6,), classes=None, half_width=1.0), Simplex(shape=(10,), classes=None)]:
        d = region.dim
        x = np.full(d, 1 / d) if region.name == "simplex" else np.full(d, 0.05)
        tangent = Tangent("leq", np.random.default_rng(2).standard_normal(d))
        oracle, H = make_oracle("auto", region, 0), symmetric(d, 0)
        oracle(H, x, tangent)
        seconds = best_of(3, lambda o=oracle, H=H, x=x, t=tangent: o(H, x, t))  # type: ignore[misc]
        answer = oracle(H, x, tangent)
        what = f"m={len(region.forms)}" if isinstance(region, Ellipsoids) else ""
        print(f"{region.name:<12} d={d:>3} {what:<5} {seconds:8.4f} s   rho {answer.rho:.6f}", flush=True)


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure all oracles; the figures are of trust regions."""
    torch.set_num_threads(1)
    figures = trust_regions((10, 200) if tiny else (10, 50, 200, 2_000))
    others(tiny)
    return figures


if __name__ == "__main__":
    command(main)
