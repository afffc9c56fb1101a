"""The SPIDER sweep: gradient calls and seconds to ||grad f|| <= 3e-3, and twenty seeds at once.

Run as `python -m benchmarks.spider_sweep`, on one core. Goals: the sweep in under 60 s; twenty replicates
in one batch at least 5 times faster than one after the other.
"""

import math
import time

import torch

from benchmarks.figures import Figure, command
from common.data.tables.synthetic import SyntheticLogistic
from common.models.linear import LogisticRegression
from common.numerics.sampling import ReplicateSampler
from papers.spider.baselines import SVRG, GradientDescent, SpiderBoost
from papers.spider.method import Method
from papers.spider.problems.factory import build_problem
from papers.spider.problems.protocol import Oracle, Problem
from papers.spider.spider import SpiderSFO

EPS, ALPHA, REPLICATES = 3e-3, 0.01, 20
SIZES = (1_000, 10_000, 100_000)


def logistic(n: int) -> Problem:
    """The ill-conditioned synthetic problem of the sweep."""
    data = SyntheticLogistic(
        kind="tabular_classification",
        data_dir="data",
        seed=0,
        source="real",
        limit=None,
        validation=0.0,
        normalise="none",
        verify=True,
        batch_size=32,
        positive=None,
        n=n,
        seed_data=0,
    )
    data.setup()
    model = LogisticRegression(shape=data.shape, classes=2, regulariser="nonconvex", alpha=ALPHA, bias=False)
    return build_problem(data, model, torch.device("cpu"))


def methods(eps: float) -> dict[str, Method]:
    """GD and the three variance-reduced methods, with the settings of their theorems."""
    return {
        "GD": GradientDescent(eps=eps, step_size=None, smoothness=None),
        "SVRG": SVRG(batch_size=None, epoch_length=None, step_size=None, smoothness=None),
        "SpiderBoost": SpiderBoost(S1=None, S2=None, q=None, step_size=None, smoothness=None),
        "SPIDER-SFO": SpiderSFO(
            option=2,
            eps=eps,
            n0=1.0,
            smoothness=None,
            gap=None,
            sigma=None,
            S1=None,
            S2=None,
            q=None,
            eps_tilde_over_eps=None,
            p=0.1,
        ),
    }


@torch.no_grad()
def passes_to_eps(method: Method, problem: Problem, seed: int, replicates: int, eps: float) -> list[float]:
    """Calls / n of each replicate until the true gradient, looked at every 5 steps, is at most eps."""
    assert problem.n is not None
    oracle = Oracle(problem, ReplicateSampler(seed, replicates, problem.n, problem.device, problem.dtype))
    method.start(oracle, problem.start(replicates), own_stop=False)
    while oracle.active_rows:
        method.step()
        if method.k % 5 == 0:
            norms = torch.linalg.vector_norm(problem.true_gradient(method.x), dim=1)
            oracle.retire(norms <= eps)
    return [calls / problem.n for calls in oracle.counter.ifo]


def sweep(sizes: tuple[int, ...], eps: float) -> dict[str, Figure]:
    """Passes of every method at every n, and their slope in log n."""
    problems = {n: logistic(n) for n in sizes}
    names = list(methods(eps))
    calls: dict[str, list[float]] = {name: [] for name in names}
    begin = time.perf_counter()
    for n, problem in problems.items():
        for name, method in methods(eps).items():
            start = time.perf_counter()
            (passes,) = passes_to_eps(method, problem, 0, 1, eps)
            calls[name].append(passes * n)
            print(f"n={n:>7,}  {name:<12} {passes:8.1f} passes  {time.perf_counter() - start:6.2f} s")
    spent = time.perf_counter() - begin
    for name in names:
        slope = math.log(calls[name][-1] / calls[name][0]) / math.log(sizes[-1] / sizes[0])
        print(f"calls ~ n^{slope:.2f}  {name}")
    what = f"spider sweep, n = {', '.join(f'{n:,}' for n in sizes)}, {len(names)} methods"
    return {"sweep": Figure(spent, "s", what, at_most=60.0)}


def replicates_at_once(n: int, replicates: int, eps: float) -> dict[str, Figure]:
    """Seeds in one batch against as many runs in turn, on n examples."""
    problem = logistic(n)
    figures = {}
    for name in ("SVRG", "SpiderBoost", "SPIDER-SFO"):
        start = time.perf_counter()
        together = passes_to_eps(methods(eps)[name], problem, 0, replicates, eps)
        batched = time.perf_counter() - start
        start = time.perf_counter()
        alone = [passes_to_eps(methods(eps)[name], problem, seed, 1, eps)[0] for seed in range(replicates)]
        in_turn = time.perf_counter() - start
        print(
            f"{name:<12} {replicates} seeds at once {batched:5.2f} s, in turn {in_turn:6.2f} s, "
            f"same counts: {together == alone}"
        )
        what = f"spider: {replicates} seeds of {name} at once, n = {n:,}"
        figures[name] = Figure(in_turn / batched, "x as fast", what, "one run after the other", at_least=5.0)
    return figures


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure the sweep, and the replicates."""
    torch.set_num_threads(1)
    sizes, replicates, eps = ((50, 60), 2, 0.1) if tiny else (SIZES, REPLICATES, EPS)
    return sweep(sizes, eps) | replicates_at_once(sizes[0], replicates, eps)


if __name__ == "__main__":
    command(main)
