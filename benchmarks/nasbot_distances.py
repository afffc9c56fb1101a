"""Distances of networks beside a loop of POT's emd2, and the draws of the kernel's hyperparameters.

Run: python -m benchmarks.nasbot_distances. All pairs of 60 random perceptrons of up to 20 layers by four
structural weights; the loop makes each pair's costs by numpy and calls `ot.emd2` for each weight. Both are
timed by the processor in one process and in turn; what is made once for a network (its path lengths) is made
before.
"""

import statistics

import numpy as np
import ot

from benchmarks.figures import Figure, command, seconds
from papers.nasbot.distances import NON_ASSIGNMENT, STRUCTURAL_WEIGHTS, Otmann, label_penalties
from papers.nasbot.graph import LABELS, Network
from papers.nasbot.kernel import KernelForm, draws_for, fit
from papers.nasbot.space import Limits, NetworkSpace

NETWORKS, OBSERVED, ROUNDS = 60, 100, 5
# what the released code puts in the place of infinite costs
INFINITE = 7.65432e5
LAYERS = (5, 20)


def networks(count: int, seed: int) -> list[Network]:
    """Random perceptrons of up to 20 layers, with their path lengths made."""
    limits = Limits(LAYERS, (8, 1024), 5, 55, 200, None, None)
    space, random = NetworkSpace("mlp", "linear", limits, "fixed"), np.random.default_rng(seed)
    found = [space.sample(random) for _ in range(count)]
    for network in found:
        _ = network.path_lengths, network.masses
    return found


def by_loop(found: list[Network]) -> np.ndarray:
    """d of all pairs, [weights, n, n], a pair and a weight at a time."""
    order = {label: number for number, label in enumerate(LABELS["mlp"])}
    penalties = label_penalties("mlp")
    labels = [[order[layer.label] for layer in network.layers] for network in found]
    features = [network.path_lengths.reshape(len(network), -1) for network in found]
    d = np.zeros((len(STRUCTURAL_WEIGHTS), len(found), len(found)))
    for i, one in enumerate(found):
        for j in range(i):
            other = found[j]
            sums = one.masses.sum(), other.masses.sum()
            supplies, demands = np.append(one.masses, sums[1]), np.append(other.masses, sums[0])
            structure = np.abs(features[i][:, None] - features[j][None]).mean(-1)
            mismatch = penalties[np.ix_(labels[i], labels[j])]
            for w, weight in enumerate(STRUCTURAL_WEIGHTS):
                costs = np.full((len(one) + 1, len(other) + 1), NON_ASSIGNMENT)
                costs[-1, -1] = 0.0
                inner = mismatch + weight * structure
                costs[:-1, :-1] = np.where(np.isfinite(inner), inner, INFINITE)
                d[w, i, j] = d[w, j, i] = ot.emd2(supplies, demands, costs)
    return d


def main(tiny: bool = False) -> dict[str, Figure]:
    """Seconds of all pairs and of the draws, and how many times as long the loop takes."""
    count, observed, rounds = (4, 8, 1) if tiny else (NETWORKS, OBSERVED, ROUNDS)
    found = networks(count, 0)
    times = seconds({"ours": lambda: Otmann().within(found), "loop": lambda: by_loop(found)}, False, rounds)
    ratio = statistics.median(b / a for a, b in zip(times["ours"], times["loop"], strict=True))
    seen = networks(observed, 1)
    d, normalised = Otmann().within(seen)
    y = np.random.default_rng(0).normal(size=observed) + 3 * normalised[1, 0]
    form = KernelForm("both", "sum", len(STRUCTURAL_WEIGHTS))
    draws = 20 if tiny else draws_for(form)
    fits = seconds(
        {"fit": lambda: fit(form, d, normalised, y, np.random.default_rng(0), draws)}, False, rounds
    )
    pairs = f"{count * (count - 1) // 2:,} pairs of networks of up to 20 layers, four structural weights"
    return {
        "pairs": Figure(statistics.median(times["ours"]), "s", f"nasbot: OTMANN of {pairs}", at_most=0.6),
        "pairs_ratio": Figure(
            ratio, "x as fast", f"nasbot: OTMANN of {pairs}", "a loop of ot.emd2", at_least=4.0
        ),
        "draws": Figure(
            statistics.median(fits["fit"]),
            "s",
            f"nasbot: {draws:,} draws of the kernel's hyperparameters at {observed} networks",
            at_most=3.0,
        ),
    }


if __name__ == "__main__":
    command(main)
