"""AcceleGrad's figure 1: 5 methods x 3 D x 10,000 oracle calls, d = 500, m = 2,000, p = 2 and p = 1.

    python -m benchmarks.accelegrad_grid [calls=10000]

All methods and all D of a panel run in lockstep on one matrix product; the three D (for the universal
methods three eps) are replicates. The two panels are two processes of one thread each. Prints the time of
each panel (goal: both under 60 s on 2 cores), what the same grid costs one method and one D after the other
(from a twentieth of the calls), and the relative gaps at the end. Exits with 1 if the goal is missed. Finding
the optima by lstsq and HiGHS, once for each instance, is not counted.
"""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch import Tensor

from benchmarks.figures import Figure, command
from papers.accelegrad.convex import (
    AcceleGradSolver,
    AdaNGDSolver,
    Solver,
    Together,
    UniversalDual,
    UniversalFast,
    UniversalGradient,
    UniversalPrimal,
)
from papers.accelegrad.problems import LpRegression
from papers.accelegrad.regression import SyntheticRegression

CALLS, GOAL = 10_000, 60.0
D_SCALES = (0.1, 1.0, 10.0)
ACCURACIES = (0.1, 0.001, 1e-5)


def build(p: int, m: int) -> LpRegression:
    """The default instance of dataset=synthetic_regression, of m examples."""
    data = SyntheticRegression(
        kind="convex_problem",
        m=m,
        d=m // 4,
        limit=None,
        noise=0.01,
        condition=None,
        seed_data=0,
        batch_size=None,
    )
    data.setup()
    A, b = data.batch("train", slice(None), augment=False)
    assert b is not None
    return LpRegression(A, b, p)


def adaptive(problem: LpRegression, x0: Tensor, scales: tuple[float, ...]) -> list[Solver]:
    """AcceleGrad and AdaGrad, a replicate for each D."""
    distance = torch.linalg.vector_norm(problem.minimiser) * torch.tensor(scales, dtype=torch.float64)
    solvers: list[Solver] = [
        AcceleGradSolver(
            D=None, d_scale=1.0, G=0.0, stepsize="paper", radius=None, doubling=False, output="average"
        ),
        AdaNGDSolver(D=None, d_scale=1.0, radius=None, k=0.0),
    ]
    for solver in solvers:
        solver.start(x0.expand(len(scales), -1).clone(), distance, None)
    return solvers


def universal(x0: Tensor, accuracies: tuple[float, ...]) -> list[Solver]:
    """The universal methods, a replicate for each eps."""
    solvers: list[UniversalGradient | UniversalFast] = [
        UniversalPrimal(eps=1.0, L=1.0, output="best"),
        UniversalDual(eps=1.0, L=1.0, output="average"),
        UniversalFast(eps=1.0, L=1.0, line_search=True),
    ]
    for solver in solvers:
        solver.eps = torch.tensor(accuracies, dtype=x0.dtype)[:, None]
        solver.start(x0.expand(len(accuracies), -1).clone(), 1.0, None)
    return list(solvers)


def drive(problem: LpRegression, solver: Solver, calls: int) -> tuple[float, float]:
    """Seconds of so many oracle calls, and CPU seconds."""
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        solver.receive(*problem.oracle(solver.query))
    return time.perf_counter() - start, time.process_time() - cpu


@torch.no_grad()
def panel(p: int, calls: int, m: int) -> tuple[str, float, float, float]:
    """One panel on one core: a text, seconds and CPU seconds of its calls, and CPU seconds in turn."""
    torch.set_num_threads(1)
    problem = build(p, m)
    x0 = torch.zeros(1, problem.A.shape[1], dtype=torch.float64)
    start = time.perf_counter()
    relative = problem.minimum
    optimum = time.perf_counter() - start
    solvers = adaptive(problem, x0, D_SCALES) + universal(x0, ACCURACIES)
    seconds, cpu = drive(problem, Together(solvers), calls)
    singles = [one for scale in D_SCALES for one in adaptive(problem, x0, (scale,))]
    singles += [one for eps in ACCURACIES for one in universal(x0, (eps,))]
    part = max(1, calls // 20)
    in_turn = sum(drive(problem, one, part)[1] for one in singles) * calls / part
    lines = [
        f"p={p}: {seconds:.1f} s ({cpu:.1f} CPU s) for {calls} calls of 15 in lockstep, {in_turn:.0f} CPU s "
        f"in turn ({in_turn / cpu:.1f}x); the optimum {optimum:.1f} s"
    ]
    for solver in solvers:
        gaps = (problem.gap(solver.output) / relative).tolist()
        lines.append(f"   {solver.NAME:14} " + "  ".join(f"{gap:9.2e}" for gap in gaps))
    return "\n".join(lines), seconds, cpu, in_turn


def main(tiny: bool = False, calls: int = CALLS) -> dict[str, Figure]:
    """Measure both panels, each in a process of its own; in this one if tiny."""
    calls, m = (20, 40) if tiny else (calls, 2000)
    if tiny:
        found = [panel(p, calls, m) for p in (2, 1)]
    else:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            found = list(pool.map(panel, (2, 1), (calls, calls), (m, m)))
    for text, *_ in found:
        print(text)
    what = f"accelegrad: figure 1, {calls:,} calls of 15 methods and sizes, p = 2 and p = 1, in two processes"
    longest, cpu = max(seconds for _, seconds, _, _ in found), sum(cpu for _, _, cpu, _ in found)
    faster = sum(in_turn for *_, in_turn in found) / cpu
    return {
        "seconds": Figure(longest, "s", what, at_most=GOAL),
        "lockstep": Figure(
            faster, "x as fast", f"{what}, in lockstep", "one method and size after the other"
        ),
    }


if __name__ == "__main__":
    command(main)
