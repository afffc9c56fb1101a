"""The latent space of pipelines as a map of two dimensions, and whether neighbours are of one kind."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# pipelines on the map, of more an even selection; and kinds that are told apart, the most frequent
MOST_POINTS, MOST_KINDS = 1000, 12
OTHER = "other"


def kinds(pipelines: Sequence[str], descriptions: Sequence[dict[str, Any]] | None) -> list[str] | None:
    """The algorithm of each pipeline, of rare ones `other`; None where nothing tells it.

    It is the setting `algorithm` of a description, else the first word of a name, where names begin alike.
    """
    if descriptions is not None and all("algorithm" in one for one in descriptions):
        found = [str(one["algorithm"]) for one in descriptions]
    else:
        found = [name.split()[0] if name.split() else "" for name in pipelines]
        if 2 * len(set(found)) > len(found):
            return None
    frequent = {kind for kind, _ in Counter(found).most_common(MOST_KINDS)}
    return [kind if kind in frequent else OTHER for kind in found]


def plane(X: Tensor, lengthscale: Tensor) -> Tensor:
    """The first two principal components [N, 2] of latent points X [N, Q] in units of the lengthscales l [Q].

    In these units the kernel knows of a distance. With Q = 1 the second is 0. The larger part of each
    direction is positive, so that equal points give equal maps.
    """
    scaled = X / lengthscale
    scaled = scaled - scaled.mean(0)
    U, S, Vt = torch.linalg.svd(scaled, full_matrices=False)
    sign = torch.where(Vt.gather(1, Vt.abs().argmax(1, keepdim=True))[:, 0] < 0, -1.0, 1.0).to(U)
    flat = (U * S * sign)[:, :2]
    return torch.nn.functional.pad(flat, (0, 2 - flat.shape[1]))


def alike(X: Tensor, kind: Sequence[str]) -> tuple[float, float]:
    """The share of points X [N, Q] whose nearest other point is of the same kind, and its mean by chance.

    By chance, as for points whose kinds are dealt anew, it is sum_k n_k (n_k - 1) / (N (N - 1)).
    """
    distance = torch.cdist(X, X)
    distance.fill_diagonal_(torch.inf)
    nearest = distance.argmin(1).tolist()
    share = sum(kind[i] == kind[j] for i, j in enumerate(nearest)) / len(kind)
    pairs = sum(count * (count - 1) for count in Counter(kind).values())
    return share, pairs / (len(kind) * (len(kind) - 1))


def described(
    X: Tensor,
    lengthscale: Tensor,
    start: Tensor,
    score: Tensor,
    pipelines: Sequence[str],
    descriptions: Sequence[dict[str, Any]] | None,
) -> dict[str, Any]:
    """The map as a run's metrics: `latent_x`, `latent_y`, `latent_score`, and `latent_kind` where known.

    Of kinds also `neighbours_alike`, `neighbours_alike_by_chance`, and `neighbours_alike_at_start`, of the
    principal components by which training began. Of more than 1,000 pipelines so many are taken, evenly.

    Args:
        X: latent points [N, Q], at least 2; lengthscale: l [Q]; start: X before training.
        score: mean over the training data sets, [N]; NaN: never observed.
    """
    taken = torch.linspace(0, len(X) - 1, min(len(X), MOST_POINTS)).round().long()
    own = (X[taken] / lengthscale).cpu()
    where = plane(own, torch.ones_like(own[0]))
    found: dict[str, Any] = {
        "latent_x": _short(where[:, 0]),
        "latent_y": _short(where[:, 1]),
        "latent_score": _short(score[taken.to(score.device)]),
    }
    every = kinds(pipelines, descriptions)
    if every is None:
        return found
    kind = [every[i] for i in taken.tolist()]
    share, chance = alike(own, kind)
    found |= {"latent_kind": kind, "neighbours_alike": share, "neighbours_alike_by_chance": chance}
    found["neighbours_alike_at_start"] = alike(start[taken.to(start.device)].cpu(), kind)[0]
    return found


def _short(values: Tensor) -> list[float | None]:
    """Numbers with four digits; None for NaN."""
    return [None if value != value else float(f"{value:.4g}") for value in values.tolist()]
