"""Twenty searches by a controller as one batch, against the same searches one after the other.

    python -m benchmarks.transfer_automl_search

Trials are looked up in the table of text designs. Both ways sample, read the rewards, and learn by REINFORCE
after each 8 trials, on one thread in one process, in turn, by the median of the processor's time. Of the
searches that run one after the other a few are timed, and count for all.
"""

import statistics

import torch

from benchmarks.figures import Figure, command, seconds
from papers.transfer_automl.controller import Controller, ControllerSettings
from papers.transfer_automl.ground import Ground
from papers.transfer_automl.learning import Learner, LearningSettings
from papers.transfer_automl.text_table import TextTable, small_space

REPLICATES, ALONE, BATCH, UPDATES, TURNS = 20, 4, 8, 25, 3
# the goal
A_MINUTE = 3e5


def search(ground: Ground, seeds: list[int], updates: int) -> None:
    """So many updates of controllers with these seeds."""
    space = small_space()
    net = Controller(space.counts, len(ground.names), seeds, ControllerSettings())
    learner = Learner(net, len(ground.names), LearningSettings())
    random = torch.Generator().manual_seed(seeds[0])
    for update in range(updates):
        tasks = (torch.arange(BATCH) + update * BATCH) % len(ground.names)
        tasks = tasks.expand(len(seeds), -1)
        codes, log_p = net.sample(tasks, torch.rand(len(seeds), BATCH, len(space.counts), generator=random))
        scores = ground.scores(tasks.flatten(), codes.flatten(0, 1), torch.zeros(tasks.numel()))
        learner.update(tasks, codes, log_p, scores[:, 0].reshape(tasks.shape))


def one_by_one(ground: Ground, seeds: list[int], updates: int) -> None:
    """The same, a controller at a time."""
    for seed in seeds:
        search(ground, [seed], updates)


def main(tiny: bool = False) -> dict[str, Figure]:
    """Trials a minute, and how many times as fast a batch is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    replicates, alone, updates, turns = (2, 1, 2, 1) if tiny else (REPLICATES, ALONE, UPDATES, TURNS)
    seeds = list(range(replicates))
    try:
        ground = TextTable(kind="design_tasks", tasks=None).ground(small_space(), 0, 1.0)
        times = seconds(
            {
                "together": lambda: search(ground, seeds, updates),
                "apart": lambda: one_by_one(ground, seeds[:alone], updates),
            },
            cuda=False,
            rounds=turns,
        )
    finally:
        torch.set_num_threads(threads)
    together = statistics.median(times["together"])
    pairs = zip(*times.values(), strict=True)
    faster = replicates / alone * statistics.median(apart / one for one, apart in pairs)
    what = f"transfer_automl: {replicates} searches by a controller, table of text designs"
    return {
        "trials": Figure(
            60 * replicates * updates * BATCH / together, "trials a minute", what, "", at_least=A_MINUTE
        ),
        "batch": Figure(faster, "x as fast", what, "the same searches one after the other"),
    }


if __name__ == "__main__":
    command(main)
