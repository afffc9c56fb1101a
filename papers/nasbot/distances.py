"""OTMANN: optimal transport metrics for architectures of neural networks (section 3 of the paper).

    from papers.nasbot.distances import Otmann
    d, normalised = Otmann().pair(one, other)      # of each structural weight: 4 numbers each

or, of two files: python -m papers.nasbot.otmann a.json b.json [--picture matching.svg]

Layers i of one network, with masses m1_i, are matched with layers j of another, with masses m2_j:

    d = min_Z <Z, C> + sum_i (m1_i - sum_j Z_ij) + sum_j (m2_j - sum_i Z_ij),
        Z >= 0, row sums at most m1, column sums at most m2
    C_ij = penalty(label_i, label_j) + nu S_ij,   S_ij = mean over path lengths |delta_i - delta_j|

S is half the sum over both targets (input, output) of the mean over groups and walks. Mass that stays without
a
partner costs 1 a unit, which is a null layer on each side: a balanced transport problem of supplies
(m1, sum m2) and demands (m2, sum m1). The normalised distance is d / (sum m1 + sum m2), in [0, 1].

The defaults are the released code's: nu in {0.1, 0.25, 0.61, 1.5}, that is four distances and four normalised
ones for a pair.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from scipy.spatial.distance import cdist

from common.base.errors import UserError
from papers.nasbot.graph import CONVOLUTIONS, LABELS, POOLS, RECTIFIERS, RESIDUALS, SIGMOIDS, Kind, Network
from papers.nasbot.transport import balanced, least_cost

STRUCTURAL_WEIGHTS = (0.1, 0.25, 0.61, 1.5)
# of mass without a partner, a unit
NON_ASSIGNMENT = 1.0
# two layers that are matched at more than twice that are better left alone, so all that costs more costs this
NEVER = 3.0
# numbers of costs that are made at once
BLOCK = 1_000_000
# a normalised distance below this is 0 but for the rounding of sums; networks have none that is so small
ROUNDING = 1e-14
# of a matching that is told, the least share of the smaller network's mass
LEAST_SHARE = 1e-9


@cache
def label_penalties(kind: Kind) -> np.ndarray:
    """The penalty of matching layers by their labels, [labels, labels] in the order of `LABELS`.

    Same label 0. Convolutions of kernels a, b: sqrt(2) / 10 sqrt|a - b|, and so residual ones; one of each
    kind: 0.9 of that + 0.1. Max and average pooling 0.5. Rectifiers among each other and sigmoids 0.1, one of
    each 0.25. All others infinite. (Appendix A of the paper; the code has the numbers.)
    """
    labels = LABELS[kind]
    return np.array([[_penalty(one, other) for other in labels] for one in labels])


def _penalty(one: str, other: str) -> float:
    if one == other:
        return 0.0
    convolutional = CONVOLUTIONS + RESIDUALS
    if one in convolutional and other in convolutional:
        kernels = math.sqrt(2) / 10 * math.sqrt(abs(int(one[-1]) - int(other[-1])))
        same = (one in CONVOLUTIONS) == (other in CONVOLUTIONS)
        return NON_ASSIGNMENT * (kernels if same else 0.9 * kernels + 0.1 * NON_ASSIGNMENT)
    if one in POOLS and other in POOLS:
        return 0.5 * NON_ASSIGNMENT
    nonlinear = RECTIFIERS + SIGMOIDS
    if one in nonlinear and other in nonlinear:
        return (0.1 if (one in RECTIFIERS) == (other in RECTIFIERS) else 0.25) * NON_ASSIGNMENT
    return math.inf


@dataclass(frozen=True)
class Matching:
    """How the layers of two networks are matched, for one structural weight.

    Attributes:
        plan: mass that is carried from layer i to layer j, [n1, n2].
        costs: of a unit, [n1, n2]; infinite for labels that are never matched.
        unmatched: masses without a partner, [n1] and [n2].
        distance: d.
    """

    plan: np.ndarray
    costs: np.ndarray
    unmatched: tuple[np.ndarray, np.ndarray]
    distance: float


@dataclass
class _Stack:
    """Networks under each other, a null layer behind each one's last."""

    networks: Sequence[Network]
    labels: np.ndarray = field(init=False)
    features: np.ndarray = field(init=False)
    starts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        order = {label: number for number, label in enumerate(self.networks[0].labels)}
        labels: list[int] = []
        features: list[np.ndarray] = []
        for network in self.networks:
            labels += [*(order[layer.label] for layer in network.layers), len(order)]
            flat = network.path_lengths.reshape(len(network), -1)
            features += [flat, np.zeros((1, flat.shape[1]))]
        self.labels, self.features = np.array(labels), np.concatenate(features)
        self.starts = np.cumsum([0, *(len(network) + 1 for network in self.networks)])


class Otmann:
    """Distances between networks of one kind.

    Distances of pairs that were asked for with `keep` are remembered by the networks' keys.

    Args:
        weights: the structural weights nu.
        penalties: of labels, [labels, labels] in the order of `Network.labels`; None: `label_penalties` of
            the networks' kind.

    Raises:
        UserError: no weight, or one that is negative or not finite.
    """

    def __init__(
        self, weights: Sequence[float] = STRUCTURAL_WEIGHTS, penalties: np.ndarray | None = None
    ) -> None:
        if not weights or any(not (math.isfinite(nu) and nu >= 0) for nu in weights):
            raise UserError(f"structural weights {list(weights)}; valid: finite numbers from 0 on")
        self.weights, self.penalties = tuple(weights), penalties
        self._kept: dict[tuple[str, str], np.ndarray] = {}

    def pair(self, one: Network, other: Network) -> tuple[np.ndarray, np.ndarray]:
        """d and the normalised distance of two networks, [weights] each."""
        d, normalised = self.between([one], [other])
        return d[:, 0, 0], normalised[:, 0, 0]

    def within(self, networks: Sequence[Network], keep: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """d and the normalised distances of all pairs of n networks, [weights, n, n] each."""
        n = len(networks)
        rows, columns = np.triu_indices(n, 1)
        found = np.zeros((len(self.weights), n, n))
        found[:, rows, columns] = self._normalised(networks, networks, rows, columns, keep)
        found += found.transpose(0, 2, 1)
        return found * _totals(networks, networks), found

    def between(
        self, first: Sequence[Network], second: Sequence[Network], keep: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """d and the normalised distances of n networks to m others, [weights, n, m] each."""
        rows, columns = (part.ravel() for part in np.indices((len(first), len(second))))
        found = self._normalised(first, second, rows, columns, keep)
        found = found.reshape(len(self.weights), len(first), len(second))
        return found * _totals(first, second), found

    def match(self, one: Network, other: Network, weight: float) -> Matching:
        """The best matching of two networks for one structural weight."""
        costs = self._costs(_Stack([one]), _Stack([other]), weight, never=math.inf)[:-1, :-1]
        bounded = np.ascontiguousarray(self._costs(_Stack([one]), _Stack([other]), weight, never=NEVER))
        supplies, demands = _supplies(one, other)
        value, plan = balanced(supplies, demands, bounded)
        total = one.masses.sum() + other.masses.sum()
        plan = plan * total
        return Matching(plan[:-1, :-1], costs, (plan[:-1, -1], plan[-1, :-1]), value * total)

    def _normalised(
        self,
        first: Sequence[Network],
        second: Sequence[Network],
        rows: np.ndarray,
        columns: np.ndarray,
        keep: bool,
    ) -> np.ndarray:
        """Normalised distances of the pairs (rows[k], columns[k]), [weights, pairs]."""
        found = np.zeros((len(self.weights), len(rows)))
        if not len(rows):
            return found
        kinds = {network.kind for network in (*first, *second)}
        if len(kinds) > 1:
            raise UserError("networks of kinds cnn and mlp have no distance; valid: two of one kind")
        names = [_pair_key(first[i], second[j]) for i, j in zip(rows, columns, strict=True)] if keep else []
        open_pairs = [k for k in range(len(rows)) if not keep or names[k] not in self._kept]
        if open_pairs:
            self._solve(first, second, rows, columns, np.array(open_pairs), found)
        for k, name in enumerate(names):
            if name in self._kept:
                found[:, k] = self._kept[name]
            else:
                self._kept[name] = found[:, k].copy()
        return found

    def _solve(
        self,
        first: Sequence[Network],
        second: Sequence[Network],
        rows: np.ndarray,
        columns: np.ndarray,
        wanted: np.ndarray,
        found: np.ndarray,
    ) -> None:
        """Fill in the columns `wanted` of `found`; costs are made for many pairs at once."""
        order = wanted[np.argsort(rows[wanted], kind="stable")]
        used = sorted({int(columns[k]) for k in order})
        place = {j: number for number, j in enumerate(used)}
        right = _Stack([second[j] for j in used])
        sources = sorted({int(rows[k]) for k in order})
        size = max(1, BLOCK // (len(right.labels) * max(len(first[i]) + 1 for i in sources)))
        pairs: dict[int, list[int]] = {}
        for k in order:
            pairs.setdefault(int(rows[k]), []).append(int(k))
        for start in range(0, len(sources), size):
            block = sources[start : start + size]
            left = _Stack([first[i] for i in block])
            costs = [self._costs(left, right, weight, NEVER) for weight in self.weights]
            for number, i in enumerate(block):
                above, below = left.starts[number : number + 2]
                for k in pairs[i]:
                    supplies, demands = _supplies(first[i], second[columns[k]])
                    start_j, end_j = right.starts[place[int(columns[k])] :][:2]
                    for w, one in enumerate(costs):
                        part = np.ascontiguousarray(one[above:below, start_j:end_j])
                        value = least_cost(supplies, demands, part, 2 * NON_ASSIGNMENT)
                        found[w, k] = 0.0 if value < ROUNDING else min(value, 1.0)

    def _costs(self, left: _Stack, right: _Stack, weight: float, never: float) -> np.ndarray:
        """Costs of a unit between all layers of two stacks, null layers included; none above `never`."""
        own = label_penalties(left.networks[0].kind) if self.penalties is None else self.penalties
        labels = len(own)
        padded = np.full((labels + 1, labels + 1), NON_ASSIGNMENT)
        padded[:labels, :labels] = own
        padded[labels, labels] = 0.0
        structure = cdist(left.features, right.features, "cityblock") * (weight / left.features.shape[1])
        structure[left.labels == labels] = 0.0
        structure[:, right.labels == labels] = 0.0
        costs = padded[np.ix_(left.labels, right.labels)]
        costs += structure
        return np.minimum(costs, never, out=costs)


def _supplies(one: Network, other: Network) -> tuple[np.ndarray, np.ndarray]:
    """Supplies and demands with the null layers, as shares of both networks' whole mass: sums of 1."""
    m1, m2 = one.masses, other.masses
    sum1, sum2 = m1.sum(), m2.sum()
    total = sum1 + sum2
    return np.concatenate([m1, [sum2]]) / total, np.concatenate([m2, [sum1]]) / total


def _totals(first: Sequence[Network], second: Sequence[Network]) -> np.ndarray:
    """Sums of both networks' masses, [n, m]."""
    one = np.array([network.masses.sum() for network in first])
    other = np.array([network.masses.sum() for network in second])
    return one[:, None] + other


def _pair_key(one: Network, other: Network) -> tuple[str, str]:
    return (one.key, other.key) if one.key <= other.key else (other.key, one.key)
