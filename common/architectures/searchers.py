"""What proposes architectures: random search, random search around the best so far, regularised evolution."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Generic, NamedTuple, TypeVar

from common.architectures.record import Record
from common.architectures.space import A, ArchitectureSpace, Random
from common.base.errors import UserError
from common.base.limits import require

# a bound would refuse a NamedTuple of a type variable
P = TypeVar("P")


class Planned(NamedTuple, Generic[P]):
    """What a searcher plans to evaluate.

    Attributes:
        architecture: what.
        expected: the score that it expects; None where it says nothing.
    """

    architecture: P
    expected: float | None = None


class ArchitectureSearcher(ABC):
    """A way to choose the next architecture, with no state but its settings: all follows from the record."""

    NAME: ClassVar[str]

    @abstractmethod
    def propose(self, space: ArchitectureSpace[A], record: Record[A], random: Random) -> A:
        """The next one. It may have been evaluated before: the loop then asks again.

        Args:
            space: to choose from.
            record: what was evaluated so far.
            random: a fresh generator for each proposal.
        """

    def plan(
        self, space: ArchitectureSpace[A], record: Record[A], count: int, random: Random
    ) -> list[Planned[A]]:
        """Up to `count` architectures of a round at once, none of which was evaluated; here none.

        What a round is short of is proposed one by one. A plan is kept as a file until its round is
        evaluated, so it may take its time.

        Args:
            space, record: as for `propose`.
            count: of the round.
            random: a fresh generator for each round.
        """
        return []


class RandomSearch(ArchitectureSearcher):
    """Uniform in the space."""

    NAME: ClassVar = "random"

    def propose(self, space: ArchitectureSpace[A], record: Record[A], random: Random) -> A:
        return space.sample(random)


class MixtureSearch(ArchitectureSearcher):
    """Uniform, or near one of the best so far (Chen et al., NeurIPS 2018, section 3.2: Vizier's random
    search).

    The paper says neither how often nor what is near: here with probability `near` one of the `best`
    evaluated architectures, all alike probable, is changed in one choice.

    Args:
        near: 0 to 1.
        best: at least 1.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "mixture"

    def __init__(self, *, near: float, best: int) -> None:
        require("from 0 to 1", "method.searcher", near=near)
        require("at least 1", "method.searcher", best=best)
        self.near, self.best = near, best

    def propose(self, space: ArchitectureSpace[A], record: Record[A], random: Random) -> A:
        best = record.best(self.best)
        if random.random() >= self.near or not best:
            return space.sample(random)
        return space.mutate(best[int(random.integers(len(best)))].architecture, random)


class RegularisedEvolution(ArchitectureSearcher):
    """Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019, algorithm 1.

    The population is the latest `population` evaluations, so that old ones die whatever their score. Once it
    is full, `tournament` of them are drawn with replacement and the best of these is mutated.

    Args:
        population, tournament: at least 1; a tournament no larger than the population.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "evolution"

    def __init__(self, *, population: int, tournament: int) -> None:
        require("at least 1", "method.searcher", population=population, tournament=tournament)
        if tournament > population:
            raise UserError(
                f"method.searcher.tournament={tournament}; valid: 1 to the population of {population}"
            )
        self.population, self.tournament = population, tournament

    def propose(self, space: ArchitectureSpace[A], record: Record[A], random: Random) -> A:
        alive = record.last(self.population)
        if len(alive) < self.population:
            return space.sample(random)
        drawn = [alive[int(number)] for number in random.integers(len(alive), size=self.tournament)]
        return space.mutate(max(drawn, key=lambda item: item.score).architecture, random)


class EverySearch(ArchitectureSearcher):
    """All architectures of a small space, one after the other, those that are the same function once."""

    NAME: ClassVar = "every"

    def propose(self, space: ArchitectureSpace[A], record: Record[A], random: Random) -> A:
        """The first that was not evaluated; the last one of all where there is none."""
        last = None
        for architecture in space.every():
            last = architecture
            if architecture.key not in record.keys:
                return architecture
        assert last is not None
        return last

    def plan(
        self, space: ArchitectureSpace[A], record: Record[A], count: int, random: Random
    ) -> list[Planned[A]]:
        rest: Iterator[A] = (one for one in space.every() if one.key not in record.keys)
        return [Planned(one) for one, _ in zip(rest, range(count), strict=False)]
