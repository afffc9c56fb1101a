"""Streams of functions: what a step gets, from (seed, step) alone, and what the stream averages to."""

from collections.abc import Callable
from itertools import chain, islice
from typing import Any

import pytest
import torch
from torch import Tensor

from common.base.errors import UserError
from papers.yogi.online import OnlineData

Make = Callable[..., OnlineData]


def drawn(data: OnlineData, seed: int, count: int) -> Tensor:
    """What the first `count` steps get, [count, d]."""
    items = chain.from_iterable(data.loader(seed))
    return torch.cat([data.ready(item)[0] for item in islice(items, count)])


def test_the_counterexample_gives_c_at_every_third_step_across_epochs(make: Make) -> None:
    data = make("online_counterexample", limit=4, c=5.0)
    assert drawn(data, 0, 12).flatten().tolist() == [5.0, -1.0, -1.0] * 4


def test_the_counterexample_averages_to_a_positive_coefficient(make: Make) -> None:
    data = make("online_counterexample", limit=300)
    mean, targets = data.batch("train", slice(0, 2), augment=False)
    assert targets is None
    torch.testing.assert_close(mean, drawn(data, 0, 300).mean().expand(2, 1))
    assert mean[0].item() == pytest.approx(1 / 3)


def test_the_noise_of_a_minibatch_has_variance_one_over_its_size(make: Make) -> None:
    data = make("noisy_quadratic", batch_size=64)
    noise = drawn(data, 3, 2_000)
    assert noise.shape == (2_000, 50)
    # 100,000 draws: standard errors are 0.0004 of the mean and 0.00007 of the variance
    assert abs(noise.mean().item()) < 0.002
    assert noise.var().item() == pytest.approx(1 / 64, abs=0.0004)
    assert data.batch("train", slice(0, 3), augment=False)[0].abs().sum() == 0


def test_batch_sizes_share_their_normal_numbers_and_seeds_and_epochs_do_not(make: Make) -> None:
    sizes = {b: drawn(make("noisy_quadratic", limit=5, batch_size=b), 0, 10) for b in (1, 16)}
    torch.testing.assert_close(sizes[1], 4 * sizes[16])
    assert not torch.equal(sizes[1][:5], sizes[1][5:])
    assert not torch.equal(sizes[1], drawn(make("noisy_quadratic", limit=5, batch_size=1), 1, 10))


@pytest.mark.parametrize("name", ["noisy_quadratic", "online_counterexample"])
@pytest.mark.parametrize("steps", [1, 3, 5, 7])
def test_a_loader_put_back_goes_on_with_the_very_next_vector(make: Make, name: str, steps: int) -> None:
    data = make(name, limit=5)
    first = data.loader(2)
    blocks = iter(first)
    for _ in range(steps):
        next(blocks)
    second = data.loader(2)
    second.load_state_dict(first.state_dict())
    second.block = 3
    rest = list(islice(chain.from_iterable(blocks), 8))
    assert torch.equal(torch.stack(list(islice(chain.from_iterable(second), 8))), torch.stack(rest))


def test_an_epoch_is_as_many_steps_as_limit_says_and_there_is_nothing_to_test_on(make: Make) -> None:
    assert make("noisy_quadratic", limit=7).loader(0).steps_per_epoch == 7
    data = make("noisy_quadratic")
    assert data.loader(0).steps_per_epoch == data.size("train") == 2_000
    assert data.size("test") == data.size("validation") == 0
    assert list(data.batches("test", 10)) == []


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("online_counterexample", {"c": 2.0}),
        ("online_counterexample", {"limit": 0}),
        ("noisy_quadratic", {"dim": 0}),
        ("noisy_quadratic", {"batch_size": 0}),
        ("noisy_quadratic", {"kind": "stream"}),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(make: Make, name: str, keys: dict[str, Any]) -> None:
    ((key, value),) = keys.items()
    with pytest.raises(UserError, match=f"^dataset.{key}={value}: ") as error:
        make(name, **keys)
    assert "\n" not in str(error.value)
