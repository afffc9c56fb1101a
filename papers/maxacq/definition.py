"""Is an acquisition function myopic maximal? Looked at path by path."""

from dataclasses import replace

import torch
from torch import Tensor

from papers.maxacq.acquisition import Discretised, Draws
from papers.maxacq.problem import Problem

# outcomes of each set that are looked at
PATHS = 8


@torch.no_grad()
def decomposition_gap(problem: Problem, X: Tensor) -> float:
    """The largest |u(y_1:q) - max_i u(y_i)| over sets X [R, S, q, d] and sampled outcomes y.

    u is the utility of a set's outcomes; a single point's is that of the same outcome y_i alone. What an
    acquisition averages over besides the outcomes (z_b of ES) is averaged, by the same samples.
    """
    draws = problem.draw(PATHS)
    gap = 0.0
    for s in range(X.shape[1]):
        together, alone = _pair(problem, X[:, s : s + 1], draws)
        gap = max(gap, float((together - alone).abs().max()))
    return gap


def _pair(problem: Problem, X: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Utilities of one set's paths, together and the largest of the points': [paths] each."""
    z = draws[0]
    together, alone = [], []
    for k in range(z.shape[-1]):
        path = z[..., k : k + 1]
        together.append(problem.value(X, (path, *draws[1:])))
        outcomes = _standardised(problem, X, path)
        single = replace(problem, points=1)
        parts = [
            single.value(X[:, :, i : i + 1], (outcomes[:, i : i + 1], *draws[1:])) for i in range(X.shape[2])
        ]
        alone.append(torch.stack(parts).amax(0))
    return torch.stack(together).flatten(), torch.stack(alone).flatten()


def _standardised(problem: Problem, X: Tensor, z: Tensor) -> Tensor:
    """z of each point alone that gives it the outcome it has in the set, [R, q, 1]."""
    _, S = problem.given.observed.moments(X)
    if isinstance(problem.acquisition, Discretised):
        noise = problem.given.observed.prior.noise_variance[:, None, None, None]
        S = S + noise * torch.eye(S.shape[-1]).to(S)
    L = torch.linalg.cholesky(S)[:, 0]
    return (L @ z) / S[:, 0].diagonal(dim1=-2, dim2=-1).sqrt()[..., None]
