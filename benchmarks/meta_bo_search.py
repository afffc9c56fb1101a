"""PEM-BO's hot paths: seconds on one core, beside the plain way to compute the same.

Run as `python -m benchmarks.meta_bo_search`. Goals: 20 rounds on 100 problems of 1,800 x 162 under 10 s;
a posterior over K = 2,048 weights without any K x K matrix.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.figures import Figure, command
from papers.meta_bo.acquisition import ucb
from papers.meta_bo.estimators import ArmsPosterior, ArmsPrior, BasisPrior, correction_factor
from papers.meta_bo.grasp import failing_scores
from papers.meta_bo.zeta import zeta

PROBLEMS, ROUNDS, DELTA = 100, 20, 0.01


def timed(call: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def batched(scores: torch.Tensor, problems: int) -> np.ndarray:
    """All problems at once, Schur updates, columns of the covariance when they are needed."""
    kept = ~torch.eye(len(scores), dtype=torch.bool)[:problems]
    posterior = ArmsPosterior(ArmsPrior(scores, kept))
    N, rows = posterior.prior.N, torch.arange(problems)
    seen = torch.zeros(problems, scores.shape[1], dtype=torch.bool)
    for _ in range(ROUNDS):
        factor = correction_factor(posterior.count, N, "once")[:, None]
        multiplier = zeta(posterior.count, N, DELTA, "paper", "numerator_only")[:, None]
        score = ucb(posterior.mean, factor * posterior.variance, multiplier)
        arm = score.masked_fill(seen, -torch.inf).argmax(1)
        seen[rows, arm] = True
        posterior.observe(arm, scores[rows, arm])
    return posterior.arms.numpy()


def one_by_one(scores: np.ndarray, problems: int) -> np.ndarray:
    """Each problem by itself: its covariance, and all conditioning anew in each round."""
    paths = []
    for p in range(problems):
        Y = np.delete(scores, p, axis=0)
        N, mu, K = len(Y), Y.mean(0), np.cov(Y.T)
        path: list[int] = []
        for t in range(ROUNDS):
            gain = K[:, path] @ np.linalg.pinv(K[np.ix_(path, path)], rcond=1e-11) if path else K[:, []]
            mean = mu + gain @ (scores[p, path] - mu[path])
            variance = np.diag(K - gain @ K[path]).clip(0) * (N - 1) / (N - t - 1)
            score = mean + float(zeta(t, N, DELTA, "paper", "numerator_only")) * np.sqrt(variance)
            score[path] = -np.inf
            path.append(int(score.argmax()))
        paths.append(path)
    return np.array(paths)


def over_arms(tasks: int, arms: int, problems: int) -> dict[str, Figure]:
    scores = failing_scores(tasks, arms, failures=0.9, worst=-3.35, best=-0.4)
    ours, paths = timed(lambda: batched(scores, problems))
    peer, expected = timed(lambda: one_by_one(scores.numpy(), problems))
    same = float((np.asarray(paths) == np.asarray(expected)).mean())
    print(
        f"{problems} problems x {ROUNDS} rounds: {ours:.2f} s batched, {peer:.2f} s one by one in numpy "
        f"({peer / ours:.1f}x; {100 * same:.1f}% of the arms are the same)",
        flush=True,
    )
    what = f"meta_bo: {problems} problems of {tasks:,} x {arms}, {ROUNDS} rounds"
    return {
        "arms": Figure(peer / ours, "x as fast", what, "numpy, problem by problem"),
        "arms_seconds": Figure(ours, "s", what, at_most=10.0),
    }


def over_weights(K: int, N: int) -> dict[str, Figure]:
    """Mean and variance at N points after 20 observations, from N draws of K weights."""
    generator = torch.Generator().manual_seed(0)
    W, seen, at = (torch.randn(n, K, generator=generator, dtype=torch.float64) for n in (N, 20, N))
    y = torch.randn(20, generator=generator, dtype=torch.float64)
    prior = BasisPrior(W)
    ours, found = timed(lambda: prior.posterior(seen, y, 1e-5).predict(at))
    Sigma = prior.A.T @ prior.A

    def dense() -> tuple[torch.Tensor, torch.Tensor]:
        cross = Sigma @ seen.T
        gain = cross @ torch.linalg.inv(seen @ cross + 1e-5 * torch.eye(20, dtype=torch.float64))
        left = Sigma - gain @ cross.T
        return at @ (prior.u + gain @ (y - seen @ prior.u)), ((at @ left) * at).sum(1)

    peer, expected = timed(dense)
    worst = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))  # type: ignore[call-overload]
    print(
        f"weights K={K}, N={N}, t=20: {ours:.3f} s by the factor, {peer:.3f} s with a K x K matrix that is "
        f"there already ({peer / ours:.1f}x; they differ by at most {worst:.1e})",
        flush=True,
    )
    update, _ = timed(lambda: prior.posterior(seen, y, 1e-5))
    print(f"  of which conditioning alone {update:.4f} s", flush=True)
    what = f"meta_bo: posterior over K = {K:,} weights, N = {N:,}, after 20 observations"
    return {"weights": Figure(peer / ours, "x as fast", what, "a K x K matrix that is there already")}


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure both."""
    torch.set_num_threads(1)
    arms, weights = ((30, 24, 2), (64, 30)) if tiny else ((1800, 162, PROBLEMS), (2048, 1000))
    return over_arms(*arms) | over_weights(*weights)


if __name__ == "__main__":
    command(main)
