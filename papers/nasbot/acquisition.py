"""The evolutionary search for the network with the largest acquisition."""

from collections.abc import Callable, Sequence

import numpy as np

from papers.nasbot.graph import Network
from papers.nasbot.modifiers import Random

Acquisition = Callable[[Sequence[Network]], np.ndarray]
Change = Callable[[Network, Random], Network]

# of the search: values of the acquisition at step t, 25 sqrt(t) within these; children of a generation
VALUES_EACH, VALUES = 25.0, (50, 500)
CHILDREN_EACH, CHILDREN = 3.0, (5, 100)
# parents are drawn by exp((value - mean) / (2 std))
TEMPERATURE = 2.0


def values_at(step: int) -> int:
    """How many values of the acquisition are spent on step t: 25 sqrt(t), from 50 to 500."""
    return int(np.clip(VALUES_EACH * np.sqrt(step), *VALUES))


def parent_probabilities(values: np.ndarray, temperature: float) -> np.ndarray:
    """Proportional to exp((value - mean) / (temperature * std)); uniform where all values are equal."""
    spread = values.std()
    if not spread > 0:
        return np.full(len(values), 1 / len(values))
    scaled = (values - values.mean()) / (temperature * spread)
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def evolve(
    acquisition: Acquisition,
    pool: Sequence[Network],
    change: Change,
    known: Callable[[Sequence[Network]], np.ndarray],
    budget: int,
    random: Random,
) -> list[Network]:
    """Networks by falling acquisition: those that an evolutionary search has made, none of them known.

    Each generation draws parents from all that was valued so far, with replacement, by
    `parent_probabilities`; all their children stay. Children that are known are not valued.

    Args:
        acquisition: values of networks.
        pool: of the first generation, at least one.
        change: makes a child of a parent.
        known: of each network whether it was evaluated, or is as good as one that was.
        budget: how many children are valued.
    """
    seen = {network.key for network in pool}
    alive, values = list(pool), np.asarray(acquisition(pool), dtype=np.float64)
    size = int(np.clip(CHILDREN_EACH * np.sqrt(budget), *CHILDREN))
    made: list[tuple[float, Network]] = []
    # a space may hold no more: so many generations at most
    for _ in range(4 * (1 + budget // size)):
        left = budget - len(made)
        if left <= 0:
            break
        drawn = random.choice(len(alive), size=min(size, left), p=parent_probabilities(values, TEMPERATURE))
        children = []
        for number in drawn:
            child = change(alive[int(number)], random)
            if child.key not in seen:
                seen.add(child.key)
                children.append(child)
        children = [child for child, old in zip(children, known(children), strict=True) if not old]
        if children:
            fresh = np.asarray(acquisition(children), dtype=np.float64)
            made += zip(fresh.tolist(), children, strict=True)
            alive, values = alive + children, np.concatenate([values, fresh])
    made.sort(key=lambda item: -item[0])
    return [network for _, network in made]
