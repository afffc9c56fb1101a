"""Advantages, the three ways to learn, and Adam of replicates against plain references."""

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.base.errors import UserError
from papers.transfer_automl.advantage import RunningAdvantage
from papers.transfer_automl.controller import Controller, ControllerSettings
from papers.transfer_automl.learning import (
    Batch,
    BestDesigns,
    Learner,
    LearningSettings,
    ReplicateAdam,
    ppo_loss,
    pqt_loss,
    reinforce_loss,
)

COUNTS = (2, 3, 4)
SIZES = ControllerSettings(hidden=6, layers=1, action_size=3, task_size=4, init=0.3)


def advantage(norm: Any = "std", tasks: int = 1, **changes: Any) -> RunningAdvantage:
    settings = {"decay": 0.95, "wait": 5, "max_advantage": 1e9} | changes
    return RunningAdvantage(1, tasks, norm, **settings)


def series(values: Any) -> tuple[Tensor, Tensor]:
    rewards = torch.as_tensor(values, dtype=torch.float64)[None]
    return torch.zeros(rewards.shape, dtype=torch.int64), rewards


# --- advantages


def test_the_first_twenty_statistics_are_plain_means_and_variances() -> None:
    rewards = np.random.default_rng(0).normal(3, 2, 20)
    found = advantage().update(*series(rewards))[0].numpy()
    for n in range(5, 20):
        before = rewards[:n]
        assert found[n] == pytest.approx((rewards[n] - before.mean()) / before.std(), rel=1e-10)
    assert (found[:5] == 0).all()


def test_later_statistics_are_moving_averages() -> None:
    rewards = np.random.default_rng(1).normal(-1, 0.5, 80)
    running = advantage(wait=0)
    found = running.update(*series(rewards))[0].numpy()
    weights = np.zeros(0)
    for n, reward in enumerate(rewards):
        if n > 1:
            mean = (weights * rewards[:n]).sum()
            spread = (weights * (rewards[:n] - mean) ** 2).sum()
            assert found[n] == pytest.approx((reward - mean) / spread**0.5, rel=1e-9)
        new = max(1 / (n + 1), 0.05)
        weights = np.r_[(1 - new) * weights, new]


def test_advantages_of_a_task_have_mean_0_and_variance_1_whatever_its_scale_is() -> None:
    random = np.random.default_rng(2)
    scales, levels = np.array([1e-8, 1.0, 1e8]), np.array([5e-8, -2.0, 1e9])
    tasks = torch.from_numpy(random.integers(0, 3, (1, 6000)))
    rewards = torch.from_numpy(levels[tasks.numpy()] + scales[tasks.numpy()] * random.normal(size=(1, 6000)))
    found = advantage(tasks=3, decay=0.999).update(tasks, rewards)
    for task in range(3):
        some = found[tasks == task][200:]
        assert abs(float(some.mean())) < 0.1 and float(some.var()) == pytest.approx(1, abs=0.1)


@given(scale=st.floats(1e-8, 1e8), shift=st.floats(-1e3, 1e3))
def test_standardised_advantages_do_not_depend_on_unit_and_level(scale: float, shift: float) -> None:
    rewards = np.random.default_rng(3).normal(size=60)
    plain = advantage().update(*series(rewards))
    other = advantage().update(*series(scale * (rewards + shift)))
    torch.testing.assert_close(other, plain, rtol=1e-6, atol=1e-6)


def test_advantages_over_a_baseline_depend_on_the_level_but_not_on_the_unit() -> None:
    rewards = np.random.default_rng(4).uniform(0.2, 1, 60)
    plain = advantage("baseline").update(*series(rewards))
    torch.testing.assert_close(advantage("baseline").update(*series(1e8 * rewards)), plain)
    assert not torch.allclose(advantage("baseline").update(*series(rewards + 1)), plain)
    means = [rewards[:n].mean() for n in range(5, 20)]
    expected = [(rewards[n] - mean) / mean for n, mean in zip(range(5, 20), means, strict=True)]
    assert plain[0, 5:20].tolist() == pytest.approx(expected)


def test_without_normalisation_it_is_the_reward_above_the_mean() -> None:
    rewards = np.random.default_rng(5).normal(size=20)
    found = advantage("none").update(*series(rewards))[0]
    assert found[5:].tolist() == pytest.approx([rewards[n] - rewards[:n].mean() for n in range(5, 20)])


@pytest.mark.parametrize("norm", ["std", "baseline", "none"])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, 1e8, -1e-8])
def test_a_constant_reward_is_no_advantage(norm: Any, reward: float) -> None:
    assert bool((advantage(norm).update(*series([reward] * 100)) == 0).all())


def test_a_reward_that_is_not_finite_changes_nothing() -> None:
    rewards = np.random.default_rng(6).normal(size=30)
    with_gaps = np.insert(rewards, [3, 10, 20], [math.nan, math.inf, -math.inf])
    found = advantage().update(*series(with_gaps))[0]
    kept = torch.from_numpy(np.isfinite(with_gaps))
    torch.testing.assert_close(found[kept], advantage().update(*series(rewards))[0])
    assert bool((found[~kept] == 0).all())


def test_advantages_are_kept_within_their_limit() -> None:
    rewards = [*np.random.default_rng(7).normal(size=20), 1e9, -1e9]
    found = advantage(max_advantage=5.0).update(*series(rewards))[0]
    assert found[-2] == 5 and found.abs().max() <= 5


# --- learning


def learner(seeds: list[int], tasks: int = 2, **changes: Any) -> Learner:
    net = Controller(COUNTS, tasks, seeds, SIZES, torch.float64)
    return Learner(net, tasks, LearningSettings(**({"lr": 0.01} | changes)))


def trajectory(one: Learner, rewarded: Any, batches: int = 12) -> Learner:
    """Learn from rewards that depend on task and design."""
    random = torch.Generator().manual_seed(0)
    replicates = one.controller.replicates
    for n in range(batches):
        tasks = (torch.arange(8 * n, 8 * n + 8) % 2).expand(replicates, -1)
        uniforms = torch.rand(1, 8, 3, generator=random, dtype=torch.float64).expand(replicates, -1, -1)
        codes, log_p = one.controller.sample(tasks, uniforms)
        one.update(tasks, codes, log_p, rewarded(tasks, codes))
    return one


def plain_reward(tasks: Tensor, codes: Tensor) -> Tensor:
    # no two designs are alike
    return codes.double().matmul(torch.tensor([0.317, 0.113, -0.2], dtype=torch.float64)) * (1 + tasks)


def same(one: Learner, other: Learner, **tolerance: float) -> bool:
    pairs = zip(one.controller.parameters(), other.controller.parameters(), strict=True)
    return all(torch.allclose(a, b, **tolerance) for a, b in pairs)


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo", "pqt"])
def test_a_tasks_unit_and_level_change_no_trajectory(algorithm: Any) -> None:
    scale, shift = torch.tensor([1e-8, 1e8], dtype=torch.float64), torch.tensor([3e-8, -7.0])
    plain = trajectory(learner([0, 1], algorithm=algorithm), plain_reward)
    other = trajectory(
        learner([0, 1], algorithm=algorithm), lambda t, c: scale[t] * plain_reward(t, c) + shift[t]
    )
    assert same(plain, other, rtol=1e-5, atol=1e-7)
    assert not same(plain, learner([0, 1]), rtol=1e-5, atol=1e-7)


def test_without_normalisation_a_tasks_unit_changes_it() -> None:
    plain = trajectory(learner([0], norm="none"), plain_reward)
    scale = torch.tensor([1.0, 0.01], dtype=torch.float64)
    other = trajectory(learner([0], norm="none"), lambda t, c: scale[t] * plain_reward(t, c))
    assert not same(plain, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo", "pqt"])
def test_replicates_learn_apart(algorithm: Any) -> None:
    both = trajectory(learner([3, 4], algorithm=algorithm), plain_reward)
    alone = trajectory(learner([4], algorithm=algorithm), plain_reward)
    for a, b in zip(both.controller.parameters(), alone.controller.parameters(), strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo", "pqt"])
def test_what_is_rewarded_becomes_likely(algorithm: Any) -> None:
    one = trajectory(learner([0, 1, 2], algorithm=algorithm, lr=0.03, queue=2), plain_reward, batches=60)
    best, worst = torch.tensor([1, 2, 0]), torch.tensor([0, 0, 3])
    codes = torch.stack([best, worst]).expand(3, -1, -1)
    log_p, _ = one.controller.log_prob(torch.zeros(3, 2, dtype=torch.int64), codes)
    assert bool((log_p[:, 0].exp() > 0.3).all()) and bool((log_p[:, 1].exp() < 0.01).all())


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo", "pqt"])
def test_constant_rewards_teach_nothing_and_are_said_once(algorithm: Any) -> None:
    one, said = learner([0, 1], algorithm=algorithm), []
    for _ in range(6):
        tasks = torch.tensor([[0] * 8, [0] * 8])
        codes, log_p = one.controller.sample(tasks, torch.rand(2, 8, 3, dtype=torch.float64))
        said += one.update(tasks, codes, log_p, torch.full((2, 8), 0.1))
    assert said == [0]
    assert same(one, learner([0, 1]), rtol=0, atol=0)


def test_only_the_embedding_is_trained_where_that_is_wanted() -> None:
    one = trajectory(learner([0], train="embedding"), plain_reward)
    fresh = learner([0]).controller.state_dict()
    changed = {
        name for name, value in one.controller.state_dict().items() if not torch.equal(value, fresh[name])
    }
    assert changed == {"task_embedding"}


def batch_of(log_p: Tensor, weights: list[float]) -> Batch:
    shape = log_p.shape
    tasks, codes = torch.zeros(shape, dtype=torch.int64), torch.zeros(*shape, 1, dtype=torch.int64)
    return Batch(tasks, codes, log_p.detach(), torch.tensor([weights]).double(), torch.ones(shape).bool())


def test_losses_are_their_formulas() -> None:
    log_p = torch.tensor([[-1.0, -2.0, -0.5]], dtype=torch.float64, requires_grad=True)
    entropy = torch.tensor([[0.3, 0.4, 0.5]], dtype=torch.float64)
    batch = batch_of(log_p, [2.0, -1.0, 0.5])
    assert float(reinforce_loss(log_p, entropy, batch, 0.1).detach()) == pytest.approx(
        -(2 * -1 + 1 * 2 - 0.5 * 0.5) / 3 - 0.1 * 0.4
    )
    assert float(pqt_loss(log_p, entropy, batch, 0.1).detach()) == pytest.approx(3.5 / 3 - 0.1 * 0.4)


def test_ppo_begins_as_reinforce_and_stops_where_the_ratio_leaves_its_limits() -> None:
    old = torch.tensor([[-1.0, -2.0, -0.5, -0.7]], dtype=torch.float64)
    entropy, weights = torch.zeros_like(old), [2.0, -1.0, 0.5, -0.3]
    gradients = []
    for loss in (
        lambda p, b: ppo_loss(p, entropy, b, 0.0, 0.2),
        lambda p, b: reinforce_loss(p, entropy, b, 0.0),
    ):
        log_p = old.clone().requires_grad_()
        gradients.append(torch.autograd.grad(loss(log_p, batch_of(old, weights)).sum(), log_p)[0])
    torch.testing.assert_close(*gradients)
    moved = (old + torch.tensor([[0.3, -0.3, -0.3, 0.3]])).requires_grad_()
    (gradient,) = torch.autograd.grad(ppo_loss(moved, entropy, batch_of(old, weights), 0.0, 0.2).sum(), moved)
    # what has become likelier for its advantage's sake is left alone, what went the wrong way is not
    assert (gradient[0] != 0).tolist() == [False, False, True, True]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.floats(-2, 2)), min_size=1, max_size=40))
def test_the_queue_holds_the_best_different_designs_of_each_task(
    trials: list[tuple[int, int, float]],
) -> None:
    queue = BestDesigns(1, 2, 3, 1)
    for task, code, reward in trials:
        queue.add(torch.tensor([[task]]), torch.tensor([[[code]]]), series([reward])[1])
    for task in (0, 1):
        best: dict[int, float] = {}
        kept: dict[int, float] = {}
        for other, code, reward in trials:
            if other == task:
                best[code] = max(best.get(code, -math.inf), reward)
        for code, reward in sorted(best.items(), key=lambda item: -item[1])[:3]:
            kept[code] = reward
        found = queue.rewards[0, task]
        assert sorted(found[found.isfinite()].tolist()) == pytest.approx(sorted(kept.values()))
        for code, reward in zip(queue.codes[0, task, :, 0].tolist(), found.tolist(), strict=True):
            assert reward == -math.inf or reward == best[code]
        codes = queue.codes[0, task, :, 0][found.isfinite()].tolist()
        assert len(set(codes)) == len(codes)


def test_pqt_learns_from_nothing_but_its_queue() -> None:
    one = learner([0], algorithm="pqt", queue=2, entropy=0.0, wait=0)
    codes = torch.tensor(list(itertools.product(range(2), range(3), range(4))))[None, :8]
    tasks, rewards = torch.zeros(1, 8, dtype=torch.int64), torch.arange(8.0)[None].double()
    before = [p.detach().clone() for p in one.parameters]
    one.best.add(tasks, codes, rewards)
    loss = one.loss(one.best.batch()).sum()
    log_p = one.controller.log_prob(tasks[:, :2], codes[:, 6:])[0]
    assert float(loss.detach()) == pytest.approx(-float(log_p.detach().mean()))
    assert all(torch.equal(a, b) for a, b in zip(before, one.parameters, strict=True))


# --- Adam


def test_adam_is_torchs_with_as_many_steps_as_a_replicate_has_learned_in() -> None:
    random = torch.Generator().manual_seed(0)
    shapes = [(2, 3), (2, 4, 5)]
    starts = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    ours = [torch.nn.Parameter(start.clone()) for start in starts]
    its = [[torch.nn.Parameter(start[r].clone()) for start in starts] for r in range(2)]
    adam = ReplicateAdam(ours, 0.1, 2.0)
    peers = [torch.optim.Adam(parameters, lr=0.1) for parameters in its]
    for n in range(20):
        # replicate 0 learns in every third step
        learns = torch.tensor([n % 3 == 0, True])
        gradients = [0.5 * torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
        adam.step(gradients, learns)
        for r in range(2):
            if not learns[r]:
                continue
            for weight, gradient in zip(its[r], gradients, strict=True):
                weight.grad = gradient[r].clone()
            torch.nn.utils.clip_grad_norm_(its[r], 2.0)
            peers[r].step()
        for r in range(2):
            for mine, other in zip(ours, its[r], strict=True):
                torch.testing.assert_close(mine[r].detach(), other.detach(), rtol=1e-5, atol=1e-6)
        if n == 10:
            # a state that is put back goes on in the same way
            state = adam.state_dict()
            adam = ReplicateAdam(ours, 0.1, 2.0)
            adam.load_state_dict({key: copy.deepcopy(value) for key, value in state.items()})
    assert adam.steps.tolist() == [[7, 20]] * 2


def test_settings_out_of_range_are_refused() -> None:
    for changes in ({"lr": -1.0}, {"entropy": math.nan}, {"ppo_clip": 0.0}, {"queue": 0}, {"decay": 1.0}):
        with pytest.raises(UserError, match=f"method.{next(iter(changes))}"):
            learner([0], **changes)
