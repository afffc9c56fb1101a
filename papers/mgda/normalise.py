"""The normalisers of the authors' code ("not included in the paper"): g_t / n_t before the solver."""

from typing import Literal, get_args

import torch
from torch import Tensor

from common.base.errors import UserError

Normaliser = Literal["none", "l2", "loss", "loss+"]


def divisors(normaliser: Normaliser, lengths: Tensor, losses: Tensor) -> Tensor:
    """n_t: 1, |g_t|, L_t or L_t |g_t|, from |g_t| and L_t, each [T].

    What is not above 0 (no gradient, as of a dead encoder; a loss of 0) normalises nothing: n_t is 1. What is
    infinite or NaN gives NaN.

    Raises:
        UserError: an unknown normaliser.
    """
    if normaliser == "none":
        found = torch.ones_like(lengths)
    elif normaliser == "l2":
        found = lengths
    elif normaliser == "loss":
        found = losses.to(lengths)
    elif normaliser == "loss+":
        found = losses.to(lengths) * lengths
    else:
        raise UserError(f"method.normaliser={normaliser}; valid: {', '.join(get_args(Normaliser))}")
    found = torch.where(found.isinf(), torch.nan, found)
    return torch.where(found <= 0, 1.0, found)


def normalised(gram: Tensor, by: Tensor) -> Tensor:
    """The Gram matrix [T, T] of g_t / n_t."""
    return gram / (by.unsqueeze(1) * by)
