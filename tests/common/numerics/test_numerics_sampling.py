"""Replicates draw what single runs draw, and draws resume exactly."""

import torch

from common.numerics.sampling import BLOCK, ReplicateSampler

CPU = torch.device("cpu")


def sampler(seed: int, replicates: int, n: int = 1000) -> ReplicateSampler:
    return ReplicateSampler(seed, replicates, n, CPU, torch.float64)


def test_a_batch_of_replicates_draws_what_single_runs_draw() -> None:
    batched = sampler(5, 3)
    singles = [sampler(5 + r, 1) for r in range(3)]
    for size in (7, BLOCK // 3, BLOCK // 3, BLOCK // 3, BLOCK, 1, 2 * BLOCK):
        together = batched.indices(size), batched.normal((size, 2)), batched.uniform(3)
        alone = [(s.indices(size), s.normal((size, 2)), s.uniform(3)) for s in singles]
        for j, drawn in enumerate(together):
            assert torch.equal(drawn, torch.cat([single[j] for single in alone]))


def test_a_replicate_that_draws_more_often_does_not_disturb_the_others() -> None:
    batched, single = sampler(0, 2), sampler(1, 1)
    batched.indices(5, rows=[0])
    batched.normal((4,), rows=[0])
    batched.indices(BLOCK, rows=[0])
    for _ in range(40):
        assert torch.equal(batched.indices(1000)[1:], single.indices(1000))
        assert torch.equal(batched.normal((3,), rows=[1]), single.normal((3,)))


def test_draws_go_on_exactly_from_a_saved_state() -> None:
    first = sampler(3, 2)
    first.indices(100), first.normal((9,)), first.uniform(2)
    state = first.state_dict()
    kept = [first.indices(BLOCK // 2), first.normal((50,)), first.indices(BLOCK), first.uniform(9)]
    second = sampler(99, 2)
    second.load_state_dict(state)
    again = [second.indices(BLOCK // 2), second.normal((50,)), second.indices(BLOCK), second.uniform(9)]
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def test_indices_are_uniform_over_all_components() -> None:
    counts = torch.bincount(sampler(0, 1, n=10).indices(200_000).flatten(), minlength=10)
    assert len(counts) == 10
    # 5 standard deviations of a binomial count
    assert bool(((counts - 20_000).abs() < 5 * (200_000 * 0.1 * 0.9) ** 0.5).all())


def test_different_seeds_draw_differently() -> None:
    drawn = sampler(0, 4).indices(50)
    assert len({tuple(row.tolist()) for row in drawn}) == 4
