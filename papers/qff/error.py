"""By how much the kernel of a feature map differs from the one that it stands for, on a box: measured."""

import torch
from torch import Tensor

from papers.qff.basis import profile
from papers.qff.features import QFF, FourierFeatures, qff
from papers.qff.quadrature import SpectralKernel

# differences x - y on each line, and how many numbers are made at once
POINTS, CHUNK = 513, 2**22
# an error that is said; quadrature that resolves the box is far below it
LARGE = 0.05
# nodes that are tried for advice
MOST_NODES = 1024


def kernel_error(
    features: FourierFeatures, kernel: SpectralKernel, lengthscale: Tensor, width: Tensor
) -> float:
    """The largest |Phi(r) . Phi(0) - k(r)| for r along each axis of a box and along its diagonal.

    Args:
        features: of unit variance, [1 or R, 1 or G, m, p]; of several replicates the first is measured.
        kernel: k.
        lengthscale: gamma of G groups, [G, p].
        width: of their boxes, [G, p].
    """
    dim = lengthscale.shape[-1]
    axes = torch.eye(dim, dtype=width.dtype, device=width.device)
    directions = torch.cat([axes, torch.ones_like(axes[:1])]) if dim > 1 else axes
    t = torch.linspace(0.0, 1.0, POINTS, dtype=width.dtype, device=width.device)
    r = (t[:, None, None] * directions).flatten(0, 1) * width[:, None]
    first = FourierFeatures(
        features.frequencies[:1],
        features.scale[:1],
        features.sines,
        None if features.phase is None else features.phase[:1],
    )
    origin = first(torch.zeros_like(r[:, :1]))
    size = max(1, CHUNK // (len(lengthscale) * features.size))
    errors = [
        ((first(part) * origin).sum(-1) - profile(kernel, part / lengthscale[:, None]).prod(-1)).abs().max()
        for part in r.split(size, 1)
    ]
    return float(torch.stack(errors).max())


def advice(family: QFF, kernel: SpectralKernel, lengthscale: Tensor, width: Tensor, error: float) -> str:
    """What there is to say of a kernel that errs so much: how many lengthscales the box has, and the nodes
    (a power of 2) that resolve them.

    Args:
        lengthscale, width: [G, p] each.
    """
    ratio = float((width / lengthscale).max())
    unit = width.new_tensor([[1.0]])
    nodes = 1
    while nodes <= MOST_NODES:
        if nodes > family.nodes:
            more = qff(
                kernel, 1.0 / (ratio * unit), nodes=nodes, prune=0.0, rule=family.rule, stretch=family.stretch
            )
            if kernel_error(_batched(more), kernel, 1.0 / (ratio * unit), unit) < LARGE:
                break
        nodes *= 2
    enough = f"{nodes} nodes would do" if nodes <= MOST_NODES else f"not even {MOST_NODES} nodes would do"
    return (
        f"nodes={family.nodes}: the kernel of the features differs from {kernel} by up to {error:.4g}, in a "
        f"box of {ratio:.3g} lengthscales ({enough}; or a longer lengthscale)"
    )


def _batched(features: FourierFeatures) -> FourierFeatures:
    """A map [1, m, p] as one of a replicate and a group."""
    return FourierFeatures(features.frequencies[None], features.scale[None], features.sines)
