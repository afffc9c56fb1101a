"""The cube that settings of runs span: where a searcher looks for the best of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.base.objective import Coordinate, Space
from common.search.settings import Setting


def cube(found: Sequence[Setting]) -> Space:
    """[0, 1]^d, one coordinate of each setting."""
    keys = [one.key for one in found]
    coordinates = []
    for one in found:
        only_if = None
        if one.only_if is not None:
            other = keys.index(one.only_if[0])
            only_if = (other, found[other].choices.index(one.only_if[1]))
        coordinates.append(Coordinate(one.units(), one.form != "choice", only_if))
    zero = torch.zeros(len(found), dtype=torch.float64)
    return Space(zero, zero + 1, None, tuple(coordinates))


def assigned(found: Sequence[Setting], space: Space, point: Tensor) -> dict[str, str]:
    """By key the values that a point [d] stands for, of those that exist there."""
    means = space.meaningful(point)
    return {
        one.key: one.value(float(u)) for one, u, there in zip(found, point, means, strict=True) if bool(there)
    }
