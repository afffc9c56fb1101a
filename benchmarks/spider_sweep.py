"""The SPIDER sweep: gradient calls and seconds to ||grad f|| <= 3e-3, and twenty seeds at once.

Run as `python benchmarks/spider_sweep.py`, on one core. Goals: the sweep in under 60 s; twenty replicates
in one batch at least 5 times faster than one after the other.
"""

import math
import time

import torch

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


def methods() -> dict[str, Method]:
    """GD and the three variance-reduced methods, with the settings of their theorems."""
    return {
        "GD": GradientDescent(eps=EPS, step_size=None, smoothness=None),
        "SVRG": SVRG(batch_size=None, epoch_length=None, step_size=None, smoothness=None),
        "SpiderBoost": SpiderBoost(S1=None, S2=None, q=None, step_size=None, smoothness=None),
        "SPIDER-SFO": SpiderSFO(
            option=2,
            eps=EPS,
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
def passes_to_eps(method: Method, problem: Problem, seed: int, replicates: int) -> list[float]:
    """Calls / n of each replicate until the true gradient, looked at every 5 steps, is at most EPS."""
    assert problem.n is not None
    oracle = Oracle(problem, ReplicateSampler(seed, replicates, problem.n, problem.device, problem.dtype))
    method.start(oracle, problem.start(replicates), own_stop=False)
    while oracle.active_rows:
        method.step()
        if method.k % 5 == 0:
            norms = torch.linalg.vector_norm(problem.true_gradient(method.x), dim=1)
            oracle.retire(norms <= EPS)
    return [calls / problem.n for calls in oracle.counter.ifo]


def sweep() -> None:
    """Passes of every method at every n, and their slope in log n."""
    problems = {n: logistic(n) for n in SIZES}
    names = list(methods())
    calls: dict[str, list[float]] = {name: [] for name in names}
    begin = time.perf_counter()
    for n, problem in problems.items():
        for name, method in methods().items():
            start = time.perf_counter()
            (passes,) = passes_to_eps(method, problem, 0, 1)
            calls[name].append(passes * n)
            print(f"n={n:>7,}  {name:<12} {passes:8.1f} passes  {time.perf_counter() - start:6.2f} s")
    print(f"sweep: {time.perf_counter() - begin:.1f} s (goal: under 60)")
    for name in names:
        slope = math.log(calls[name][-1] / calls[name][0]) / math.log(SIZES[-1] / SIZES[0])
        print(f"calls ~ n^{slope:.2f}  {name}")


def replicates_at_once() -> None:
    """Twenty seeds in one batch against twenty runs in turn, at n = 1,000."""
    problem = logistic(SIZES[0])
    for name in ("SVRG", "SpiderBoost", "SPIDER-SFO"):
        start = time.perf_counter()
        together = passes_to_eps(methods()[name], problem, 0, REPLICATES)
        batched = time.perf_counter() - start
        start = time.perf_counter()
        alone = [passes_to_eps(methods()[name], problem, seed, 1)[0] for seed in range(REPLICATES)]
        in_turn = time.perf_counter() - start
        ratio = in_turn / batched
        print(
            f"{name:<12} {REPLICATES} seeds at once {batched:5.2f} s, in turn {in_turn:6.2f} s: "
            f"{ratio:.1f}x (goal: 5x), same counts: {together == alone}"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    sweep()
    replicates_at_once()
