"""The Gaussian process latent variable model of a matrix of scores with missing entries.

Y [N, D]: scores of N pipelines on D data sets. Pipeline i has a latent point x_i, and each data set is a
function of it: independent draws of one Gaussian process,

    y_d ~ N(0, C_d),   C_d = K(X_d, X_d) + s2 I,   X_d the latent points of what was observed on d
    k(x, x') = v exp(-1/2 sum_q ((x_q - x'_q) / l_q)^2) + w [x and x' are the same point of one set]

One v, w, s2 and l for all data sets. Minimised is -sum_d log N(y_d; 0, C_d). Positive parameters are
softplus(u) = log(1 + e^u) of free ones, all 1 at the start.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.limits import require
from common.numerics.linalg import cholesky

LOG_2PI = math.log(2 * math.pi)
# entries of the covariances that are factorised in one call
SHARD = 1 << 25
# softplus(u) = 1
UNIT = math.log(math.e - 1)

Center = Literal["none", "dataset_mean", "pipeline_mean"]


class LatentSettings:
    """What a latent variable model is, before any data: config, no computation.

    Args:
        shape, classes: of the data set, which has neither examples nor classes here.
        latent_dim: Q, at least 1.
        lengthscales: `shared` by all Q coordinates, or `each` its own (ARD).
        center: what is taken off the scores before they are modelled, and is the prior mean of a new data
            set: `none`; `dataset_mean`: each data set's own mean, and for a new one the mean of all;
            `pipeline_mean`: the mean of each pipeline over the training data sets.

    Raises:
        UserError: a value out of range.
    """

    task: ClassVar[Literal["surrogate"]] = "surrogate"
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        latent_dim: int,
        lengthscales: Literal["shared", "each"],
        center: Center,
    ) -> None:
        require("at least 1", "model", latent_dim=latent_dim)
        self.latent_dim, self.lengthscales, self.center = latent_dim, lengthscales, center


class PipelineSettings(LatentSettings):
    """A latent variable model of pipelines for a table of the user's own; see `LatentSettings`."""

    task: ClassVar[Literal["pipelines"]] = "pipelines"  # type: ignore[assignment]


@dataclass(frozen=True)
class Kernel:
    """The kernel's numbers.

    Attributes:
        variance: v; white: w; noise: s2, each a float64 scalar. lengthscale: l [Q].
    """

    variance: Tensor
    white: Tensor
    noise: Tensor
    lengthscale: Tensor

    def cross(self, x: Tensor, other: Tensor) -> Tensor:
        """v exp(-|x - x'|^2 / 2) in units of l, between two sets of points [..., n, Q] and [..., m, Q]."""
        a, b = x / self.lengthscale, other / self.lengthscale
        squares = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]
        return self.variance * torch.exp(-0.5 * (squares - 2 * a @ b.mT).clamp_min(0.0))


class LatentModel(nn.Module):
    """The free parameters: latent points X [N, Q] and the kernel's numbers.

    Args:
        start: X at first.
        lengthscales: see `LatentSettings`.
    """

    def __init__(self, start: Tensor, lengthscales: Literal["shared", "each"]) -> None:
        super().__init__()
        count = start.shape[1] if lengthscales == "each" else 1
        self.X = nn.Parameter(start.to(torch.float64).clone())
        self.free_variance, self.free_white, self.free_noise, self.free_lengthscale = (
            nn.Parameter(torch.full((size,), UNIT, dtype=torch.float64)) for size in (1, 1, 1, count)
        )

    def kernel(self) -> Kernel:
        """The kernel's numbers as they are now."""
        positive = nn.functional.softplus
        lengthscale = positive(self.free_lengthscale).expand(self.X.shape[1])
        return Kernel(
            positive(self.free_variance)[0],
            positive(self.free_white)[0],
            positive(self.free_noise)[0],
            lengthscale,
        )

    def nll(
        self, Y: Tensor, columns: Sequence[int], rows: Sequence[Tensor], scale: Sequence[float]
    ) -> Tensor:
        """sum_d scale_d (-log N(y_d; 0, C_d)) over some columns of Y, each with some of its rows.

        Columns with the same rows share one factorisation; different ones of like size are factorised in one
        call. Rows that are no entry of Y's are the caller's mistake.

        Args:
            Y: [N, D]. columns: d of each term. rows: int64 [n_d], ascending, of each term; one of length 0
            adds 0. scale: of each term.
        """
        total = self.X.new_zeros(())
        kernel = self.kernel()
        for group in _groups(columns, rows, scale, self.X.device):
            x = self.X[group.rows]
            valid = group.valid
            both = valid[:, :, None] & valid[:, None, :]
            C = torch.where(both, kernel.cross(x, x), torch.zeros((), dtype=x.dtype, device=x.device))
            # what pads a smaller group is independent of all else, with variance 1 and value 0
            C = C + torch.diag_embed(
                torch.where(valid, kernel.white + kernel.noise, torch.ones_like(x[..., 0]))
            )
            y = Y[group.rows[:, :, None], group.columns[:, None, :]]
            y = torch.where(valid[:, :, None] & (group.scale[:, None, :] > 0), y, torch.zeros_like(y))
            total = total + gaussian_nll(C, y * group.scale.sqrt()[:, None], group.scale.sum(1))
            total = total + 0.5 * LOG_2PI * float((group.scale.sum(1) * valid.sum(1)).sum())
        return total

    def full_nll(self, Y: Tensor) -> Tensor:
        """The objective on all that is observed (not NaN) of Y [N, D]."""
        observed = ~Y.isnan()
        rows = [observed[:, d].nonzero()[:, 0] for d in range(Y.shape[1])]
        return self.nll(Y, range(Y.shape[1]), rows, [1.0] * Y.shape[1])


class _GaussianNLL(torch.autograd.Function):
    """1/2 sum_g (c_g log det C_g + sum_j y_gj' C_g^-1 y_gj), with dL/dC = 1/2 (c C^-1 - A A'), A = C^-1 Y."""

    @staticmethod
    def forward(ctx: Any, C: Tensor, Y: Tensor, count: Tensor) -> Tensor:
        L = cholesky(C, "the covariance of the observed scores")
        A = torch.cholesky_solve(Y, L)
        inverse = torch.cholesky_inverse(L)
        ctx.save_for_backward(0.5 * (count[:, None, None] * inverse - A @ A.mT), A)
        half_log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return (count * half_log_det).sum() + 0.5 * (Y * A).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        by_C, A = ctx.saved_tensors
        return grads[0] * by_C, grads[0] * A, None


def gaussian_nll(C: Tensor, Y: Tensor, count: Tensor) -> Tensor:
    """sum_g [count_g / 2 log det C_g + 1/2 sum_j y_gj' C_g^-1 y_gj], without the constant of pi.

    Args:
        C: covariances [G, n, n]; Y: [G, n, m]; count: how often the determinant of each counts, [G].
    """
    found: Tensor = _GaussianNLL.apply(C, Y, count)
    return found


@dataclass(frozen=True)
class _Group:
    """G sets of rows, each with up to m columns: padded to one size.

    Attributes:
        rows: [G, n]; valid: which of them are not padding, bool [G, n]; columns: [G, m]; scale: of each
            column, 0 where it is padding, [G, m].
    """

    rows: Tensor
    valid: Tensor
    columns: Tensor
    scale: Tensor


def _groups(
    columns: Sequence[int], rows: Sequence[Tensor], scale: Sequence[float], device: torch.device
) -> list[_Group]:
    """Columns by the rows that they have in common, those of like number of rows together."""
    alike: dict[bytes, list[int]] = defaultdict(list)
    for place, own in enumerate(rows):
        if len(own):
            alike[own.cpu().numpy().tobytes()].append(place)
    sets = sorted(alike.values(), key=lambda places: len(rows[places[0]]))
    found: list[_Group] = []
    while sets:
        smallest = len(rows[sets[0][0]])
        taken = [
            places
            for number, places in enumerate(sets)
            if len(rows[places[0]]) <= 1.25 * smallest + 4
            and (number + 1) * len(rows[places[0]]) ** 2 <= max(SHARD, smallest**2)
        ]
        sets = sets[len(taken) :]
        n, m = len(rows[taken[-1][0]]), max(map(len, taken))
        index, valid = np.zeros((len(taken), n), int), np.zeros((len(taken), n), bool)
        column, weight = np.zeros((len(taken), m), int), np.zeros((len(taken), m))
        for g, places in enumerate(taken):
            first = rows[places[0]].cpu().numpy()
            index[g, : len(first)], valid[g, : len(first)] = first, True
            column[g, : len(places)] = [columns[p] for p in places]
            weight[g, : len(places)] = [scale[p] for p in places]
        found.append(
            _Group(*(torch.from_numpy(array).to(device) for array in (index, valid, column, weight)))
        )
    return found


def pca_start(Y: Tensor, latent_dim: int) -> Tensor:
    """The first Q principal component scores [N, Q] of Y [N, D], each missing entry its column's mean.

    As scikit-learn's SimpleImputer and PCA give them: columns are centred, and of each component the entry
    of largest absolute value in its direction over data sets is positive.

    Raises:
        UserError: Q is above min(N, D).
    """
    if latent_dim > min(Y.shape):
        raise UserError(
            f"model.latent_dim={latent_dim}; valid: at most {min(Y.shape)}, as there are {Y.shape[0]} "
            "pipelines and "
            f"{Y.shape[1]} training data sets"
        )
    mean = Y.nanmean(0).nan_to_num(nan=0.0)
    filled = torch.where(Y.isnan(), mean, Y) - mean
    filled = filled - filled.mean(0)
    U, S, Vt = torch.linalg.svd(filled, full_matrices=False)
    largest = Vt.gather(1, Vt.abs().argmax(1, keepdim=True))[:, 0]
    sign = torch.where(largest < 0, -1.0, 1.0).to(U)
    return (U * S * sign)[:, :latent_dim].contiguous()


def prior_mean(Y: Tensor, center: Center) -> tuple[Tensor, Tensor]:
    """What is taken off the training scores (it broadcasts to [N, D]), and the mean for a new set, [N].

    Pipelines without any observation have the mean of all.
    """
    everything = Y.nanmean().nan_to_num(nan=0.0)
    if center == "none":
        return torch.zeros_like(Y[:1]), torch.zeros_like(Y[:, 0])
    if center == "dataset_mean":
        own = Y.nanmean(0).nan_to_num(nan=0.0)
        observed = ~Y.isnan().all(0)
        new = own[observed].mean() if bool(observed.any()) else everything
        return own[None], new.expand(len(Y)).clone()
    own = Y.nanmean(1)
    own = torch.where(own.isnan(), everything, own)
    return own[:, None], own
