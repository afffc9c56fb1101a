"""pmf_automl's hot paths: a step of the stochastic objective, and the next pipeline of 42,000.

Run as `python -m benchmarks.pmf_automl_model`. Goals: a step on the full matrix at least 20x the authors'
way, column by column with its entries in a dictionary; a proposal over 42,000 pipelines under 25 ms when one
observation was added to 200, from nothing under 250 ms.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.figures import Figure, command
from papers.pmf_automl.gp_lvm import Kernel, LatentModel
from papers.pmf_automl.posterior import GrowingPosterior, most_promising
from papers.pmf_automl.training import StochasticObjective


def timed(call: Callable[[], object], repeats: int) -> float:
    """The least seconds of some calls."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def column_by_column(
    model: LatentModel, Y: Tensor, columns: list[int], entries: dict[tuple[int, int], float]
) -> Tensor:
    """The loss of some columns as the authors' code has it: one by one, entry by entry."""
    kernel = model.kernel()
    total = model.X.new_zeros(())
    for d in columns:
        own = [i for i in range(Y.shape[0]) if (i, d) in entries]
        y = torch.tensor([entries[i, d] for i in own], dtype=torch.float64)
        x = model.X[own]
        C = kernel.cross(x, x) + (kernel.white + kernel.noise) * torch.eye(len(own), dtype=torch.float64)
        L = torch.linalg.cholesky(C)
        solved = torch.linalg.solve_triangular(L, y[:, None], upper=False)
        total = total + 0.5 * solved.square().sum() + L.diagonal().log().sum()
    return total * (Y.shape[1] / len(columns))


def steps(pipelines: int, data_sets: int, batch: int, gaps: float, repeats: int) -> tuple[float, float]:
    """Seconds of a step with its gradient: ours, and the peer's."""
    generator = torch.Generator().manual_seed(0)
    Y = torch.rand(pipelines, data_sets, generator=generator, dtype=torch.float64)
    Y[torch.rand(Y.shape, generator=generator) < gaps] = torch.nan
    model = LatentModel(torch.randn(pipelines, 20, generator=generator, dtype=torch.float64), "each")
    objective = StochasticObjective(Y, batch, 1000, False, 0)
    entries = {(int(i), int(d)): float(Y[i, d]) for i, d in (~Y.isnan()).nonzero()}
    ours = timed(lambda: objective.loss(model).backward(), repeats)
    peer = timed(
        lambda: column_by_column(model, Y, list(range(batch)), entries).backward(), max(repeats // 2, 1)
    )
    return ours, peer


def proposals(pipelines: int, seen: int, repeats: int) -> tuple[float, float]:
    """Seconds of the next proposal after one more observation, and of one from nothing."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(pipelines, 20, generator=generator, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    kernel = Kernel(one, 0.01 * one, 0.01 * one, 3 * torch.ones(20, dtype=torch.float64))
    mean, free = torch.zeros(pipelines, dtype=torch.float64), torch.ones(pipelines, dtype=torch.bool)

    def grown(count: int) -> GrowingPosterior:
        posterior = GrowingPosterior(X, kernel, mean, True, capacity=count + repeats + 1)
        posterior.observe_all(torch.arange(count), torch.full((count,), 0.5, dtype=torch.float64))
        return posterior

    posterior = grown(seen)

    def added() -> None:
        posterior.observe(posterior.count, 0.5)
        most_promising(posterior.mean, posterior.variance, free, 0.5, 0.01)

    def from_nothing() -> None:
        fresh = grown(seen)
        most_promising(fresh.mean, fresh.variance, free, 0.5, 0.01)

    return timed(added, repeats), timed(from_nothing, max(repeats // 3, 1))


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure all three."""
    torch.set_num_threads(1)
    size, repeats = ((12, 9, 4), 2) if tiny else ((219, 266, 50), 9)
    ours, peer = steps(*size, 0.0, repeats)
    print(f"a step on {size[2]} full columns: {1e3 * ours:.1f} ms, {peer / ours:.1f}x the peer", flush=True)
    gappy, gappy_peer = steps(*size, 0.3, repeats)
    print(f"with 30% missing: {1e3 * gappy:.1f} ms, {gappy_peer / gappy:.1f}x the peer", flush=True)
    pipelines, seen = (60, 5) if tiny else (42_000, 200)
    added, nothing = proposals(pipelines, seen, repeats)
    print(
        f"a proposal of {pipelines}: {1e3 * added:.1f} ms more, {1e3 * nothing:.0f} ms from nothing",
        flush=True,
    )
    step = f"pmf_automl: a stochastic step, {size[2]} of {size[1]} data sets x {size[0]} pipelines"
    loop = "the same column by column, entry by entry"
    next_one = f"pmf_automl: the next of {pipelines:,} pipelines"
    return {
        "step": Figure(peer / ours, "x as fast", step, loop, at_least=20.0),
        "step_missing": Figure(gappy_peer / gappy, "x as fast", f"{step}, 30% missing", loop),
        "added": Figure(1e3 * added, "ms", f"{next_one} after one more observation ({seen})", at_most=25.0),
        "nothing": Figure(1e3 * nothing, "ms", f"{next_one} from {seen} observations", at_most=250.0),
    }


if __name__ == "__main__":
    command(main)
