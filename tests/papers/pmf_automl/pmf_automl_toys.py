"""A small matrix of scores with gaps, and models of it."""

import torch
from torch import Tensor

from papers.pmf_automl.gp_lvm import Center, LatentModel, LatentSettings


def settings(latent_dim: int = 3, center: Center = "none") -> LatentSettings:
    return LatentSettings(shape=(1,), classes=None, latent_dim=latent_dim, lengthscales="each", center=center)


def matrix(pipelines: int = 12, data_sets: int = 7, gaps: float = 0.3, seed: int = 0) -> Tensor:
    """Scores in [0, 1] with some missing; pipeline 4 and data set 2 are never observed."""
    generator = torch.Generator().manual_seed(seed)
    Y = torch.rand(pipelines, data_sets, generator=generator, dtype=torch.float64)
    Y[torch.rand(Y.shape, generator=generator) < gaps] = torch.nan
    Y[4] = torch.nan
    Y[:, 2] = torch.nan
    return Y


def model(pipelines: int = 12, latent_dim: int = 3, seed: int = 1) -> LatentModel:
    generator = torch.Generator().manual_seed(seed)
    found = LatentModel(torch.randn(pipelines, latent_dim, generator=generator, dtype=torch.float64), "each")
    with torch.no_grad():
        for parameter in list(found.parameters())[1:]:
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return found
