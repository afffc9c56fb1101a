"""The fine-tuning between stages of a selection."""

from common.base.loader import shuffled
from papers.dcp.stagewise import stage_seed


def test_no_two_stages_or_seeds_share_minibatches() -> None:
    """Neither with each other, nor with the pre-training of any of the seeds."""
    seeds = [-1, 0, 1, 2, 3, 2**63 - 1]
    drawn = [stage_seed(seed, stage) for seed in seeds for stage in range(20)]
    assert len(set(drawn)) == len(drawn)
    assert not set(drawn) & set(range(10_000))
    orders = {
        tuple(shuffled(30, seed, epoch).tolist()) for seed in (*drawn[:80], 0, 1, 2) for epoch in range(3)
    }
    assert len(orders) == 83 * 3


def test_the_minibatches_of_a_stage_are_always_the_same() -> None:
    assert (stage_seed(0, 0), stage_seed(3, 2)) == (stage_seed(0, 0), stage_seed(3, 2))
    # those of seeds that torch takes too
    assert all(shuffled(5, stage_seed(2**62, stage), 10**6).numel() == 5 for stage in range(50))
