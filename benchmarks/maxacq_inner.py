"""The inner problem: CPU seconds of a batch by q-EI beside `botorch.optim.optimize_acqf`, and of 16 seeds.

Run as `python -m benchmarks.maxacq_inner`, one thread. Both maximise q-EI of the same posteriors; the batches
are valued by 2^14 common samples. Ours is Adam with 16 starts and 64 samples, with the least budget of a
ladder by which its mean value over the tasks is at least BoTorch's. Goals: 3 times faster; 16 seeds at once
at most 5 times one.
"""

import time
import warnings
from collections.abc import Callable

import torch
from botorch.acquisition import qExpectedImprovement
from botorch.models import SingleTaskGP
from botorch.optim import optimize_acqf
from botorch.sampling import SobolQMCNormalSampler
from gpytorch.kernels import MaternKernel, ScaleKernel
from torch import Tensor

from benchmarks.figures import Figure, command
from common.numerics.sampling import ReplicateSampler
from papers.maxacq.acquisition import ExpectedImprovement, setting
from papers.maxacq.budget import Budget
from papers.maxacq.maximise import Adam, appraise
from papers.maxacq.posterior import Prior, condition
from papers.maxacq.problem import Problem, greedy, joint

TASKS = 4
SEEDS = 16
NOISE = 1e-3
LADDER = (16, 32, 64, 128, 256, 512, 1024, 2048)
FORMS = {"joint": joint, "greedy": greedy}


def prior(dim: int, replicates: int) -> Prior:
    one = torch.ones(replicates, dtype=torch.float64)
    return Prior("matern52", dim**0.5 / 4 * one[:, None].expand(-1, dim), one, 0 * one, NOISE * one)


def data(dim: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n uniform points and a draw of the prior there with noise: [1, n, d], [1, n]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, n, dim, generator=generator, dtype=torch.float64)
    known = prior(dim, 1)
    scaled = x / known.lengthscale[:, None]
    L = torch.linalg.cholesky(known.covariance(scaled, scaled) + NOISE * torch.eye(n))
    return x, L @ torch.randn(n, generator=generator, dtype=torch.float64)


def problem(parts: list[tuple[Tensor, Tensor]], dim: int, seed: int) -> Problem:
    x, y = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    given = setting(condition(prior(dim, len(y)), x, y), y.max(1).values)
    random = ReplicateSampler(seed, len(y), None, torch.device("cpu"), torch.float64)
    return Problem(ExpectedImprovement(), given, dim, dim, dim, random)


def seconds(call: Callable[[], Tensor], runs: int = 3) -> tuple[float, Tensor]:
    """The least CPU seconds of some calls, and what the first returned."""
    times, found = [], []
    for _ in range(runs):
        began = time.process_time()
        found.append(call())
        times.append(time.process_time() - began)
    return min(times), found[0]


def by_botorch(part: tuple[Tensor, Tensor], dim: int, form: str) -> Tensor:
    """One batch [1, q, d]: 10 restarts of 256 raw samples, 128 quasi-random samples."""
    x, y = part
    kernel = ScaleKernel(MaternKernel(2.5, ard_num_dims=dim)).double()
    kernel.outputscale, kernel.base_kernel.lengthscale = 1.0, dim**0.5 / 4
    noise = torch.full((y.shape[1], 1), NOISE, dtype=torch.float64)
    model = SingleTaskGP(x[0], y[0][:, None], train_Yvar=noise, covar_module=kernel, outcome_transform=None)
    model.mean_module.constant.data.zero_()
    sampler = SobolQMCNormalSampler(torch.Size([128]), seed=0)
    value = qExpectedImprovement(model.eval(), best_f=y.max(), sampler=sampler)
    bounds = torch.tensor([[0.0] * dim, [1.0] * dim], dtype=torch.float64)
    found, _ = optimize_acqf(
        value, bounds=bounds, q=dim, num_restarts=10, raw_samples=256, sequential=form == "greedy"
    )
    return found[None]


def value(part: tuple[Tensor, Tensor], x: Tensor, dim: int) -> float:
    z = torch.randn(1, dim, 2**14, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return float(appraise(problem([part], dim, 0), x[:, None], (z,), 2**14))


def ours(parts: list[tuple[Tensor, Tensor]], dim: int, form: str, evaluations: int, seed: int) -> Tensor:
    maximiser = Adam(starts=16, samples=64, appraisal_samples=256, lr=0.025)
    return FORMS[form](problem(parts, dim, seed), maximiser, Budget(evaluations=evaluations))


def compare(dim: int, n: int, form: str, tasks: int, ladder: tuple[int, ...]) -> dict[str, Figure]:
    """BoTorch, ours with the least budget of a ladder at the same value, and ours for 16 seeds."""
    parts = [data(dim, n, seed) for seed in range(tasks)]
    peer_time = peer_value = 0.0
    for part in parts:
        spent, x = seconds(lambda part=part: by_botorch(part, dim, form), runs=1)  # type: ignore[misc]
        peer_time, peer_value = peer_time + spent / tasks, peer_value + value(part, x, dim) / tasks
    for evaluations in ladder:
        timed = [
            seconds(lambda part=part, e=evaluations: ours([part], dim, form, e, 0), runs=2)  # type: ignore[misc]
            for part in parts
        ]
        own_value = sum(value(part, x, dim) for part, (_, x) in zip(parts, timed, strict=True)) / tasks
        own_time = sum(spent for spent, _ in timed) / tasks
        if own_value >= peer_value:
            break
    many = [data(dim, n, seed) for seed in range(SEEDS)]
    many_time, _ = seconds(lambda: ours(many, dim, form, evaluations, 0))
    reached = "" if own_value >= peer_value else " (short of it)"
    print(
        f"d=q={dim} n={n} {form:<6} q-EI {peer_value:.4f} optimize_acqf {peer_time:.3f} s"
        f" | ours {own_value:.4f}"
        f"{reached} N={evaluations} {own_time:.3f} s: {peer_time / own_time:.1f} times faster"
        f" | {SEEDS} seeds {many_time:.3f} s: {many_time / own_time:.1f} times one",
        flush=True,
    )
    what = f"maxacq: q-EI to the same value{reached}, d = q = {dim}, n = {n}, {form}"
    return {
        f"{form}_d{dim}": Figure(
            peer_time / own_time, "x as fast", what, "`botorch.optim.optimize_acqf`", at_least=3.0
        ),
        f"{form}_d{dim}_seeds": Figure(
            many_time / own_time, "x its time", f"{what}, {SEEDS} seeds at once", "one seed", at_most=5.0
        ),
    }


def main(tiny: bool = False) -> dict[str, Figure]:
    """Compare on two sizes, in both forms."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sizes = [(2, 4)] if tiny else [(4, 32), (8, 64)]
    tasks, ladder = (1, (16,)) if tiny else (TASKS, LADDER)
    figures: dict[str, Figure] = {}
    for form in ("joint", "greedy"):
        for dim, n in sizes:
            figures |= compare(dim, n, form, tasks, ladder)
    return figures


if __name__ == "__main__":
    command(main)
