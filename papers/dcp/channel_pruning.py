"""Channel pruning by LASSO (CP): He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural
Networks",
ICCV 2017, section 3.1.

With X_k W_k' the part of a layer's outputs that input channel k gives,

    b = argmin 1 / (2 Q) ||O^b - sum_k b_k X_k W_k'||² + l |b|_1        (equation 2),

l raised until no more than the wanted number of channels has b_k other than 0; then W of those channels is
solved for by least squares. Both need only Gram matrices of the inputs (`quadratic`), so every output
position of the selection set is used, not a sample of them.
"""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lars_path_gram
from torch import Tensor

from papers.dcp.layer_problem import LayerProblem


def lasso_problem(problem: LayerProblem) -> tuple[Tensor, Tensor]:
    """The quadratic of b: G [c, c] with G_kl = <X_k W_k', X_l W_l'> / Q and d [c] with d_k = <X_k W_k', O^b
    - bias>
    / Q, float64."""
    quadratic = problem.quadratic
    weight = problem.by_channel(problem.start).double()
    n, c, p = weight.shape
    inputs = quadratic.A[:-1, :-1].view(c, p, c, p)
    gram = torch.einsum("nkp,kplq,nlq->kl", weight, inputs, weight)
    products = quadratic.B[:, :-1]
    if problem.start_bias is not None:
        products = products - problem.start_bias.double().unsqueeze(1) * quadratic.A[-1, :-1]
    return gram / quadratic.count, (weight * products.view(n, c, p)).sum((0, 2)) / quadratic.count


def lasso_channels(gram: Tensor, products: Tensor, kept: int) -> list[int]:
    """The channels, ascending, that have b_k other than 0 where l is the smallest that leaves no more than
    `kept`.

    The path of all l is followed exactly (Efron et al. 2004). Channels that are combinations of others never
    enter; where they leave the path too few, those with the largest product with what is left over fill it.

    Args:
        gram, products: see `lasso_problem`.
        kept: how many.
    """
    # in units in which the path's own limits are small
    unit = float(products.abs().max())
    if unit == 0:
        return list(range(kept))
    with warnings.catch_warnings():
        # that channels are alike is no news, see above
        warnings.simplefilter("ignore", ConvergenceWarning)
        size = float(gram.diagonal().max())
        _, _, path = lars_path_gram(
            (products / unit).cpu().numpy(), (gram / size).cpu().numpy(), n_samples=1, method="lasso"
        )
    active = path != 0
    # l falls along the path; at its knots a channel enters with 0, so it counts from the next one on
    fitting = [knot for knot in range(path.shape[1]) if active[:, knot].sum() <= kept]
    full = [knot for knot in fitting if active[:, knot].sum() == kept]
    last = full[-1] if full else fitting[-1]
    chosen = np.flatnonzero(active[:, last]).tolist()
    left = products / unit - (gram / size) @ torch.from_numpy(path[:, last]).to(gram)
    others = [k for k in left.abs().argsort(descending=True, stable=True).tolist() if k not in chosen]
    return sorted([*chosen, *others[: kept - len(chosen)]])


def channel_pruning(problem: LayerProblem, kept: int) -> tuple[list[int], Tensor, Tensor | None]:
    """The channels that stay, ascending, and the layer's weights, 0 elsewhere, and bias at which L_M is
    least.

    Args:
        problem: the layer with its inputs and outputs; its discrimination loss is not used.
        kept: how many channels stay, 1 to c.

    Raises:
        UserError: another number, or a layer whose Gram matrix would be too large.
    """
    problem.require_kept(kept)
    stay = lasso_channels(*lasso_problem(problem), kept)
    chosen = torch.zeros(problem.channels, dtype=torch.bool, device=problem.start.device)
    chosen[stay] = True
    features = chosen.repeat_interleave(problem.start[0].numel() // problem.channels)
    weight, bias = problem.quadratic.minimise(features, problem.start_bias, problem.trains_bias)
    bias = None if bias is None else bias.to(problem.start)
    return stay, weight.to(problem.start).view_as(problem.start), bias
