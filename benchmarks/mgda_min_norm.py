"""The min-norm solver against torchjd's MGDA, at T = 40 tasks on one core.

    python -m benchmarks.mgda_min_norm

torchjd makes Frank-Wolfe steps (the paper's Algorithm 2) on the Gram matrix; it gets as many as it needs to
be as good as `REACHED`, by doubling (its own stop, epsilon, at 1e-15), up to `MOST`. Ours is exact, whatever
it is asked for. Both take turns in one process; a ratio is that of the medians. Exits with 1 if ours takes
LIMIT_MS or more on the median, has a gap (relative to the mean of the diagonal) above GAP, or is less than
FASTER times as fast.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchjd.aggregation import MGDAWeighting

from benchmarks.figures import Figure, command
from papers.mgda.min_norm import duality_gap, frank_wolfe_weights, min_norm_weights

TASKS, NUMBERS, TURNS = 40, 2000, 15
LIMIT_MS, GAP, FASTER = 5.0, 1e-10, 20.0
# a gap that Frank-Wolfe can reach in reasonable time, relative to the mean of the diagonal
REACHED, MOST = 1e-5, 2**13


def problems(tasks: int) -> dict[str, Tensor]:
    """Gradients [tasks, 2000] with more and more in common."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(tasks, NUMBERS, generator=generator, dtype=torch.float64)
    return {"nearly orthogonal": plain, "alike": plain + 0.1, "very alike": plain + 0.5}


def relative_gap(matrix: Tensor, weights: Tensor) -> float:
    return float(duality_gap(matrix, weights) / matrix.diagonal().mean())


def iterations_needed(matrix: Tensor, most: int) -> int:
    """Frank-Wolfe steps, a power of 2, after which the gap is at most `REACHED`; `most` if none is enough."""
    steps = 1
    while steps < most and relative_gap(matrix, frank_wolfe_weights(matrix, steps, 0.0)) > REACHED:
        steps *= 2
    return steps


def median_ms(work: Callable[[], object], turns: int) -> float:
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure each set of gradients."""
    torch.set_num_threads(1)
    tasks, most, turns = (5, 8, 1) if tiny else (TASKS, MOST, TURNS)
    figures = {}
    for name, vectors in problems(tasks).items():
        matrix = vectors @ vectors.T
        steps = iterations_needed(matrix, most)
        weighting = MGDAWeighting(epsilon=1e-15, max_iters=steps)
        with torch.no_grad():
            theirs = relative_gap(matrix, weighting(matrix))
            ours = relative_gap(matrix, min_norm_weights(matrix))
            their_ms = median_ms(lambda w=weighting, m=matrix: w(m), min(3, turns))
            our_ms = median_ms(lambda m=matrix: min_norm_weights(m), turns)
        print(
            f"{name:18} ours {our_ms:6.2f} ms, gap {ours:.1e}; torchjd {steps} steps {their_ms:8.1f} ms, "
            f"gap {theirs:.1e}",
            flush=True,
        )
        what = f"mgda: point of least norm of {tasks} gradients, {name}"
        key = name.replace(" ", "_")
        peer = f"torchjd's MGDA to a gap of {theirs:.0e}"
        figures[key] = Figure(their_ms / our_ms, "x as fast", what, peer, at_least=FASTER)
        figures[f"{key}_gap"] = Figure(ours, "of the diagonal's mean", f"{what}: duality gap", at_most=GAP)
        figures[f"{key}_ms"] = Figure(our_ms, "ms", what, at_most=LIMIT_MS)
    return figures


if __name__ == "__main__":
    command(main)
