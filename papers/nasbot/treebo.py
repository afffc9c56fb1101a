"""TreeBO: Bayesian optimization over feed-forward networks alone, in a tree of choices.

After Jenatton et al., "Bayesian Optimization with Tree-structured Dependencies", ICML 2017. The paper
compares with
it and released no code of it: the tree below is a reconstruction. Its root is the number of layers; each
layer has leaves for its units and its label, which exist where the network is deep enough. The kernel is a
sum over the nodes that two networks share:

    k = s (m(log n - log n') + 1/N sum_{i < min(n, n')} m(log u_i - log u_i') [1 where labels are equal, else
    1/2])

with m Matern 5/2 of one lengthscale for the root and one for the leaves, N the most layers.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from common.architectures.record import Record
from common.numerics.improvement import expected_improvement
from papers.nasbot.acquisition import values_at
from papers.nasbot.graph import CONVOLUTIONS, POOLS, RECTIFIERS, RESIDUALS, SIGMOIDS, Layer, Network
from papers.nasbot.kernel import NOISE, SCALE, log_marginal_likelihoods, spread
from papers.nasbot.modifiers import Random, rounded
from papers.nasbot.searchers import NetworkSearcher, scores_of
from papers.nasbot.space import NetworkSpace, feed_forward, row_within

# of lengthscales, in logarithms of counts; draws of hyperparameters
LENGTHSCALE, DRAWS = (0.1, 10.0), 500
OTHER_LABEL = 0.5
LONGEST_BLOCK = 4
# a pool has no units of its own
NO_UNITS = 1
# rows drawn until one lies in the space, and halvings where nothing limits them
TRIES, HALVINGS = 100, 5


class TreeBO(NetworkSearcher):
    """Expected improvement over random feed-forward networks; see the module's text.

    Args:
        initial: see `NetworkSearcher`; of the pool the feed-forward networks alone.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "treebo"

    def pool(self, space: NetworkSpace) -> list[Network]:
        return [network for network in space.initial if feed_forward(network)]

    def sample(self, space: NetworkSpace, random: Random) -> Network:
        found = rows(space, 1, random)
        return found[0] if found else space.initial[0]

    def choose(self, space: NetworkSpace, record: Record[Network], random: Random) -> Network:
        valid = [item for item in record if item.valid]
        networks = [item.architecture for item in valid]
        y = scores_of(valid)
        known = record.keys | {network.key for network in record.pending}
        candidates = {network.key: network for network in rows(space, values_at(len(record)), random)}
        fresh = [network for key, network in candidates.items() if key not in known]
        if not fresh:
            return space.initial[0]
        theta = _drawn(networks, y, space.limits.layers[1], random)
        mean, deviation = _marginal(networks, fresh, y, theta, space.limits.layers[1])
        return fresh[int(expected_improvement(mean, deviation, float(y.max())).argmax())]


def rows(space: NetworkSpace, count: int, random: Random) -> list[Network]:
    """Random feed-forward networks of a space: depth, then each block's label, then each layer's units."""
    found = []
    for _ in range(count):
        for _ in range(TRIES):
            layers = _perceptron(space, random) if space.kind == "mlp" else _convolutional(space, random)
            network = row_within(space.kind, layers, space)
            if network is not None:
                found.append(network)
                break
    return found


def _units(space: NetworkSpace, random: Random) -> int:
    low, high = space.limits.units
    return rounded(math.exp(random.uniform(math.log(low), math.log(high))))


def _blocks(count: int, random: Random) -> list[int]:
    """Sizes of blocks that together have `count` layers."""
    sizes: list[int] = []
    while sum(sizes) < count:
        sizes.append(min(1 + int(random.integers(LONGEST_BLOCK)), count - sum(sizes)))
    return sizes


def _perceptron(space: NetworkSpace, random: Random) -> list[Layer]:
    low, high = space.limits.layers
    layers = [Layer("ip")]
    for size in _blocks(int(random.integers(max(low - 3, 1), max(high - 3, 1) + 1)), random):
        label = str(random.choice(RECTIFIERS + SIGMOIDS))
        layers += [Layer(label, _units(space, random)) for _ in range(size)]
    return [*layers, Layer(space.decision), Layer("op")]


def _convolutional(space: NetworkSpace, random: Random) -> list[Layer]:
    """Blocks of one kind of convolution, which a pool ends or whose first layer has stride 2, or neither."""
    low, high = space.limits.layers
    left = HALVINGS if space.limits.halvings is None else space.limits.halvings
    layers = [Layer("ip")]
    for size in _blocks(int(random.integers(max(low - 4, 1), max(high - 4, 1) + 1)), random):
        label = str(random.choice(CONVOLUTIONS + RESIDUALS))
        form = str(random.choice(["pool", "stride", "none"])) if left > 0 else "none"
        left -= form != "none"
        block = [Layer(label, _units(space, random), 1) for _ in range(size)]
        if form == "stride":
            block[0] = block[0]._replace(stride=2)
        elif form == "pool":
            block.append(Layer(str(random.choice(POOLS))))
        layers += block
    return [*layers, Layer("fc", _units(space, random)), Layer("softmax"), Layer("op")]


# --- the process


def tree_kernel(first: Sequence[Network], second: Sequence[Network], lengths: Tensor, most: int) -> Tensor:
    """k / s between networks for each of D draws, [D, n, m].

    Args:
        lengths: of the root and of the leaves, [D, 2].
        most: N.
    """
    one, other = _features(first, most), _features(second, most)
    depth = one[0][:, None] - other[0]
    found = _matern(depth, lengths[:, 0])
    for i in range(most):
        active = torch.outer(one[2][:, i], other[2][:, i])
        if not bool(active.any()):
            break
        label = torch.where(one[3][:, None, i] == other[3][None, :, i], 1.0, OTHER_LABEL)
        found += _matern(one[1][:, None, i] - other[1][None, :, i], lengths[:, 1]) * (active * label / most)
    return found


def _matern(apart: Tensor, length: Tensor) -> Tensor:
    r = math.sqrt(5) * apart.abs() / length[:, None, None]
    return (1 + r + r * r / 3) * torch.exp(-r)


def _features(networks: Sequence[Network], most: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log of the depth [n], of units [n, N], which layers there are, and their labels' numbers."""
    depth = torch.tensor([math.log(len(network) - 2) for network in networks], dtype=torch.float64)
    units, active, labels = (torch.zeros(len(networks), most, dtype=torch.float64) for _ in range(3))
    names = CONVOLUTIONS + RESIDUALS + POOLS + RECTIFIERS + SIGMOIDS
    for n, network in enumerate(networks):
        for i, layer in enumerate(network.layers[1:-2]):
            units[n, i] = math.log(layer.units or NO_UNITS)
            active[n, i] = 1.0
            labels[n, i] = names.index(layer.label) if layer.label in names else -1.0
    return depth, units, active, labels


def _drawn(networks: Sequence[Network], y: np.ndarray, most: int, random: Random) -> Tensor:
    """(noise, scale, two lengthscales), drawn by the marginal likelihood as NASBOT's hyperparameters are."""
    scales = spread(y) * np.array([NOISE, SCALE])
    box = np.log(np.concatenate([scales, [LENGTHSCALE, LENGTHSCALE]]))
    thetas = torch.from_numpy(np.exp(box[:, 0] + (box[:, 1] - box[:, 0]) * random.random((DRAWS, 4))))
    K = thetas[:, 1, None, None] * tree_kernel(networks, networks, thetas[:, 2:], most)
    residual = torch.from_numpy(y - np.median(y))
    likelihood = log_marginal_likelihoods(K, thetas[:, 0], residual).numpy()
    weights = np.exp(likelihood - likelihood.max())
    return thetas[int(random.choice(DRAWS, p=weights / weights.sum()))]


def _marginal(
    networks: Sequence[Network], fresh: Sequence[Network], y: np.ndarray, theta: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of f at fresh networks."""
    lengths, (noise, scale) = theta[None, 2:], theta[:2]
    K = scale * tree_kernel(networks, networks, lengths, most)[0]
    cross = scale * tree_kernel(fresh, networks, lengths, most)[0]
    own = scale * (1 + torch.tensor([(len(network) - 3) / most for network in fresh], dtype=torch.float64))
    L = torch.linalg.cholesky(K + noise * torch.eye(len(y), dtype=torch.float64))
    whitened = torch.linalg.solve_triangular(L, cross.mT, upper=False)
    mean = np.median(y) + cross @ torch.cholesky_solve(torch.from_numpy(y - np.median(y))[:, None], L)[:, 0]
    variance = (own - whitened.square().sum(0)).clamp_min(0.0)
    return mean, variance.sqrt()
