"""NASBOT (section 4 of the paper) and its baselines: evolution and random search over the same modifiers.

All start with the networks of the space's initial pool, in their order. None has a state: what they propose
follows from the record, the space and the generator that is handed over.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypedDict, Unpack

import numpy as np
import torch

from common.architectures.objective import seed_of
from common.architectures.record import Evaluated, Record
from common.architectures.searchers import ArchitectureSearcher
from common.base.errors import UserError
from common.base.limits import require
from common.numerics.improvement import expected_improvement
from common.numerics.outliers import drawn_in
from papers.nasbot.acquisition import evolve, parent_probabilities, values_at
from papers.nasbot.distances import Otmann
from papers.nasbot.graph import Network
from papers.nasbot.kernel import Distances, Fit, Form, KernelForm, Posterior, fit
from papers.nasbot.modifiers import Random
from papers.nasbot.space import NetworkSpace

AcquisitionName = Literal["hallucinated_ei", "ei", "ucb"]
Start = Literal["evaluated", "initial"]
# of the upper confidence bound: the dimension that the released code takes
UCB_DIMENSION = 3
# a network at no more than this normalised distance from one that was evaluated is the same to the kernel
SAME = 1e-12
# changes of a parent until one gives a network that was not evaluated
TRIES = 100


class NasbotSettings(TypedDict):
    """The constructor arguments of `Nasbot` that a search in any space has."""

    initial: int
    distances: Distances
    form: Form
    weights: list[float]
    acquisition: AcquisitionName
    refit: int
    draws: int | None


class NetworkSearcher(ArchitectureSearcher):
    """What proposes networks: the initial pool first, then what `choose` says.

    Args:
        initial: how many networks are evaluated first; where the pool has fewer, modified ones of it follow.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, *, initial: int) -> None:
        require("at least 1", "method.searcher", initial=initial)
        self.initial = initial

    def propose(self, space: Any, record: Record[Any], random: Random) -> Any:
        assert isinstance(space, NetworkSpace)
        pool = self.pool(space)
        number = len(record) + len(record.pending)
        if number < min(self.initial, len(pool)):
            return pool[number]
        if number < self.initial or not record.best(1):
            return self.sample(space, random)
        return self.choose(space, record, random)

    def sample(self, space: NetworkSpace, random: Random) -> Network:
        """One more to start with, where the pool is used up."""
        return space.sample(random)

    def pool(self, space: NetworkSpace) -> list[Network]:
        """The networks to start with."""
        return space.initial

    def choose(self, space: NetworkSpace, record: Record[Network], random: Random) -> Network:
        """The next network, once the first ones are evaluated; at least one of them has a score."""
        raise NotImplementedError


class RandomNetworks(NetworkSearcher):
    """RAND: NASBOT with a random acquisition, or modifications of what was evaluated, all alike probable.

    Args:
        initial: see `NetworkSearcher`.
        style: `candidates`: one at random of those that the search for the largest acquisition makes, its
            values being random; `mutation`: a modification of a random evaluated network (the released
            code's).

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "random"

    def __init__(self, *, initial: int, style: Literal["candidates", "mutation"]) -> None:
        super().__init__(initial=initial)
        self.style = style

    def choose(self, space: NetworkSpace, record: Record[Network], random: Random) -> Network:
        networks = [item.architecture for item in record]
        if self.style == "mutation":
            return _fresh(space, networks, np.full(len(networks), 1 / len(networks)), record, random)
        made = evolve(
            lambda some: random.random(len(some)),
            networks,
            space.mutate,
            lambda some: _evaluated(some, record),
            values_at(len(record)),
            random,
        )
        return made[int(random.integers(len(made)))] if made else space.sample(random)


class Evolution(NetworkSearcher):
    """EA: a modification of a parent that is drawn by exp((y - mean) / (temperature * std)) of its score.

    Args:
        initial: see `NetworkSearcher`.
        temperature: c.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "evolution"

    def __init__(self, *, initial: int, temperature: float) -> None:
        super().__init__(initial=initial)
        require("positive", "method.searcher", temperature=temperature)
        self.temperature = temperature

    def choose(self, space: NetworkSpace, record: Record[Network], random: Random) -> Network:
        valid = [item for item in record if item.valid]
        scores = scores_of(valid)
        weights = parent_probabilities(scores, self.temperature)
        return _fresh(space, [item.architecture for item in valid], weights, record, random)


class Nasbot(NetworkSearcher):
    """NASBOT: the network with the largest acquisition under a Gaussian process by OTMANN distances.

    Hyperparameters are fitted to the first n - n mod `refit` scores, and one vector of them is drawn for each
    proposal. A network at distance 0 from one that was evaluated is not proposed.

    Args:
        initial: see `NetworkSearcher`.
        distances: of the kernel: `both`, `d` alone, or `normalised` alone.
        form: of the kernel: `sum` or `product`.
        weights: the structural weights nu.
        acquisition: `hallucinated_ei` (sigma knows the networks that are under way, mu
            does not; Desautels et al. 2014), `ei` or `ucb`.
        start: of the search for its maximum: from the `evaluated` networks (paper), or from the `initial`
            pool alone (released code).
        refit: evaluations between two fits.
        draws: of hyperparameters; null: 400 for each, at least 500.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "nasbot"

    def __init__(self, *, start: Start, **settings: Unpack[NasbotSettings]) -> None:
        super().__init__(initial=settings["initial"])
        self.refit, self.draws = settings["refit"], settings["draws"]
        require("at least 1", "method.searcher", refit=self.refit, draws=self.draws)
        weights = settings["weights"]
        self.otmann = Otmann(weights)
        self.form = KernelForm(settings["distances"], settings["form"], len(weights))
        self.acquisition, self.start = settings["acquisition"], start
        # whether all distances that were computed are kept, not those of evaluated networks alone
        self.remembers = False
        # the last fit, and what it was fitted to
        self._fit: tuple[str, Fit] | None = None

    def choose(self, space: NetworkSpace, record: Record[Network], random: Random) -> Network:
        belief = self._belief(record, random)
        pool = belief.networks if self.start == "evaluated" else space.initial
        made = evolve(belief.values, pool, space.mutate, belief.known, values_at(len(record)), random)
        return made[0] if made else space.sample(random)

    def _belief(self, record: Record[Network], random: Random) -> "_Belief":
        valid = [item for item in record if item.valid]
        networks = [item.architecture for item in valid]
        y = scores_of(valid)
        pending = [network for network in record.pending if self.acquisition == "hallucinated_ei"]
        d, normalised = self.otmann.within([*networks, *pending], keep=True)
        theta = self._fitted(networks, y, d, normalised).draw(random)
        return _Belief(self, networks, pending, d, normalised, y, theta, record)

    def _fitted(self, networks: list[Network], y: np.ndarray, d: np.ndarray, normalised: np.ndarray) -> Fit:
        """The draws of hyperparameters; the same whenever they are asked for."""
        n = len(y) - len(y) % self.refit if len(y) >= self.refit else len(y)
        name = " ".join([*(network.key for network in networks[:n]), *(repr(float(v)) for v in y[:n])])
        if self._fit is None or self._fit[0] != name:
            own = np.random.default_rng(seed_of(0, name))
            found = fit(self.form, d[:, :n, :n], normalised[:, :n, :n], y[:n], own, self.draws)
            self._fit = name, found
        return self._fit[1]


class _Belief:
    """What is thought of networks in one round, their distances to the evaluated ones being remembered."""

    def __init__(
        self,
        searcher: Nasbot,
        networks: list[Network],
        pending: list[Network],
        d: np.ndarray,
        normalised: np.ndarray,
        y: np.ndarray,
        theta: Any,
        record: Record[Network],
    ) -> None:
        self.searcher, self.networks, self.pending, self.record = searcher, networks, pending, record
        n, form = len(networks), searcher.form
        self.best, self.step = float(y.max()), len(record)
        self.posterior = Posterior(form, theta, d[:, :n, :n], normalised[:, :n, :n], y)
        self.later = self.posterior
        if pending:
            # of the deviation alone, which does not depend on values
            imagined = np.concatenate([y, np.full(len(pending), np.median(y))])
            self.later = Posterior(form, theta, d, normalised, imagined)
        self.n = n
        self.rows = {
            network.key: (d[:, i], normalised[:, i]) for i, network in enumerate([*networks, *pending])
        }

    def known(self, some: Sequence[Network]) -> np.ndarray:
        """Of each network whether it was evaluated or is under way, or has distance 0 from one that is."""
        _, normalised = self._distances(some)
        same = (normalised.max(0) <= SAME).any(1) if len(some) else np.zeros(0, dtype=bool)
        return same | _evaluated(some, self.record)

    def values(self, some: Sequence[Network]) -> np.ndarray:
        """The acquisition at networks."""
        d, normalised = self._distances(some)
        mean, deviation = self.posterior.marginal(d[:, :, : self.n], normalised[:, :, : self.n])
        if self.pending:
            deviation = self.later.marginal(d, normalised)[1]
        if self.searcher.acquisition == "ucb":
            step = UCB_DIMENSION * self.step
            return mean + np.sqrt(0.5 * UCB_DIMENSION * np.log(2 * step + 1)) * deviation
        improvement = expected_improvement(torch.from_numpy(mean), torch.from_numpy(deviation), self.best)
        return improvement.numpy()

    def _distances(self, some: Sequence[Network]) -> tuple[np.ndarray, np.ndarray]:
        """From networks to the evaluated ones and those under way, [weights, m, n] each."""
        missing = [network for network in some if network.key not in self.rows]
        if missing:
            d, normalised = self.searcher.otmann.between(
                missing, [*self.networks, *self.pending], self.searcher.remembers
            )
            for i, network in enumerate(missing):
                self.rows[network.key] = d[:, i], normalised[:, i]
        if not some:
            empty = np.zeros((len(self.searcher.otmann.weights), 0, self.n + len(self.pending)))
            return empty, empty
        found = [self.rows[network.key] for network in some]
        return np.stack([one for one, _ in found], 1), np.stack([other for _, other in found], 1)


def scores_of(valid: Sequence[Evaluated[Network]]) -> np.ndarray:
    """The scores of valid evaluations [n], outliers at the bad end drawn in."""
    return drawn_in(torch.tensor([item.score for item in valid], dtype=torch.float64)).numpy()


def _evaluated(some: Sequence[Network], record: Record[Network]) -> np.ndarray:
    keys = record.keys | {network.key for network in record.pending}
    return np.array([network.key in keys for network in some], dtype=bool)


def _fresh(
    space: NetworkSpace,
    parents: Sequence[Network],
    weights: np.ndarray,
    record: Record[Network],
    random: Random,
) -> Network:
    """A modification of a parent drawn by weight, one that was not evaluated where that is found."""
    child = parents[0]
    for _ in range(TRIES):
        child = space.mutate(parents[int(random.choice(len(parents), p=weights))], random)
        if not _evaluated([child], record)[0]:
            break
    return child


def require_budget(searcher: NetworkSearcher, evaluations: int) -> None:
    """Refuse a budget that does not reach beyond the initial networks.

    Raises:
        UserError: it is smaller than their number.
    """
    if evaluations < searcher.initial:
        raise UserError(
            f"paper.evaluations={evaluations} is smaller than the initial pool "
            f"(method.searcher.initial={searcher.initial}; valid: at least as many evaluations)"
        )
