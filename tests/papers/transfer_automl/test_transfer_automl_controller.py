"""The controller against torch's LSTM, enumeration of small spaces, and closed forms of gradients, in
float64.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from papers.transfer_automl.controller import TASK_WEIGHTS, Controller, ControllerSettings
from papers.transfer_automl.learning import Batch, reinforce_loss

COUNTS = (2, 3, 2)
SMALL = ControllerSettings(hidden=5, layers=2, action_size=3, task_size=4, init=0.5)


def controller(seeds: list[int], settings: ControllerSettings = SMALL, tasks: int = 2) -> Controller:
    return Controller(COUNTS, tasks, seeds, settings, torch.float64)


def everything(replicates: int) -> Tensor:
    """All 12 designs, int64 [R, 12, 3]."""
    codes = torch.tensor(list(itertools.product(*map(range, COUNTS))))
    return codes.expand(replicates, -1, -1)


def tasks_of(number: int, replicates: int = 1) -> Tensor:
    return torch.full((replicates, 12), number)


def test_probabilities_of_all_designs_sum_to_one_for_each_task_and_replicate() -> None:
    net = controller([0, 7])
    for task in (0, 1):
        log_p, _ = net.log_prob(tasks_of(task, 2), everything(2))
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("skip", [True, False])
def test_the_recurrent_network_is_torchs(skip: bool) -> None:
    settings = ControllerSettings(hidden=5, layers=2, action_size=3, task_size=4, skip=skip, init=0.5)
    net = controller([3, 4], settings)
    codes, tasks = everything(2), torch.randint(2, (2, 12), generator=torch.Generator().manual_seed(0))
    for r in range(2):
        lstm = nn.LSTM(7, 5, 2, batch_first=True, dtype=torch.float64)
        state = {}
        for layer in range(2):
            # torch's gates: input, forget, candidate, output
            order = torch.arange(20).reshape(4, 5)[[0, 1, 3, 2]].flatten()
            state[f"weight_ih_l{layer}"] = net.input_weights[layer][r].T[order]
            state[f"weight_hh_l{layer}"] = net.state_weights[layer][r].T[order]
            state[f"bias_ih_l{layer}"] = net.biases[layer][r][order]
            state[f"bias_hh_l{layer}"] = torch.zeros(20, dtype=torch.float64)
        lstm.load_state_dict(state)
        rows = torch.stack([torch.zeros(12, dtype=torch.int64), 1 + codes[r, :, 0], 3 + codes[r, :, 1]], 1)
        task = net.task_embedding[r][tasks[r]][:, None].expand(-1, 3, -1)
        x = torch.cat([net.action_embedding[r][rows], task], -1)
        read = lstm(x)[0]
        read = torch.cat([read, x], -1) if skip else read
        expected = torch.zeros(12, dtype=torch.float64)
        for t, count in enumerate(COUNTS):
            logits = read[:, t] @ net.head_weights[r, t][:, :count] + net.head_biases[r, t, :count]
            chosen = torch.distributions.Categorical(logits=logits)
            expected = expected + chosen.log_prob(codes[r, :, t])
        torch.testing.assert_close(net.log_prob(tasks, codes)[0][r], expected)


def test_entropy_is_that_of_torchs_categoricals() -> None:
    net = controller([1])
    steps = net.log_probabilities(tasks_of(0), everything(1))
    expected = sum(
        torch.distributions.Categorical(probs=steps[:, :, t, :count].exp()).entropy()
        for t, count in enumerate(COUNTS)
    )
    torch.testing.assert_close(net.log_prob(tasks_of(0), everything(1))[1], expected)


def test_samples_follow_the_probabilities_that_are_told_with_them() -> None:
    net = controller([5])
    uniforms = torch.rand(1, 20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tasks = torch.ones(1, 20_000, dtype=torch.int64)
    codes, log_p = net.sample(tasks, uniforms)
    torch.testing.assert_close(log_p, net.log_prob(tasks, codes)[0])
    number = codes[0, :, 0] * 6 + codes[0, :, 1] * 2 + codes[0, :, 2]
    shares = torch.bincount(number, minlength=12) / 20_000
    expected = net.log_prob(tasks_of(1), everything(1))[0][0].exp().detach()
    # four standard errors
    assert bool(((shares - expected).abs() < 4 * (expected * (1 - expected) / 20_000).sqrt()).all())


def test_uniform_numbers_at_both_ends_give_choices_that_there_are() -> None:
    net = controller([5])
    for number in (0.0, math.nextafter(1.0, 0.0)):
        codes, _ = net.sample(tasks_of(0), torch.full((1, 12, 3), number, dtype=torch.float64))
        assert bool((codes >= 0).all()) and bool((codes < torch.tensor(COUNTS)).all())


def test_weights_of_zero_choose_uniformly() -> None:
    net = controller([0], ControllerSettings(hidden=5, action_size=3, task_size=4, init=0.0))
    log_p, _ = net.log_prob(tasks_of(0), everything(1))
    torch.testing.assert_close(log_p, torch.full((1, 12), -math.log(12), dtype=torch.float64))


def test_without_an_embedding_all_tasks_are_one() -> None:
    net = controller([0], ControllerSettings(hidden=5, action_size=3, task_size=0, init=0.5), tasks=3)
    first, last = (net.log_prob(tasks_of(k), everything(1))[0] for k in (0, 2))
    assert torch.equal(first, last)


def test_a_replicate_is_the_same_alone_and_among_others() -> None:
    among, alone = controller([4, 5, 6]), controller([5])
    for name, value in alone.state_dict().items():
        assert torch.equal(value[0], among.state_dict()[name][1])
    log_p = among.log_prob(tasks_of(1, 3), everything(3))[0]
    torch.testing.assert_close(log_p[1:2], alone.log_prob(tasks_of(1), everything(1))[0])


# --- gradients


@pytest.mark.parametrize("baseline", [0.0, 0.7, -3.0])
def test_reinforce_is_unbiased_whatever_the_baseline_is(baseline: float) -> None:
    net, codes = controller([2]), everything(1)
    rewards = torch.rand(1, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parameters = list(net.parameters())
    expected_reward = (net.log_prob(tasks_of(0), codes)[0].exp() * rewards).sum()
    exact = torch.autograd.grad(expected_reward, parameters)
    log_p, entropy = net.log_prob(tasks_of(0), codes)
    weights = log_p.exp().detach() * (rewards - baseline)
    batch = Batch(tasks_of(0), codes, log_p.detach(), weights, torch.ones(1, 12, dtype=torch.bool))
    estimate = torch.autograd.grad(-12 * reinforce_loss(log_p, entropy, batch, 0.0).sum(), parameters)
    for one, other in zip(exact, estimate, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_loss_has_the_gradient_that_finite_differences_have() -> None:
    net, codes = controller([2]), everything(1)[:, :4]
    tasks = torch.tensor([[0, 1, 1, 0]])
    weights = torch.tensor([[1.0, -2.0, 0.5, 0.0]], dtype=torch.float64)
    batch = Batch(tasks, codes, weights, weights, torch.tensor([[True, True, True, False]]))
    names, values = zip(*net.named_parameters(), strict=True)

    def loss(*parameters: Tensor) -> Tensor:
        found = torch.func.functional_call(
            _Loss(net, batch), {f"net.{n}": p for n, p in zip(names, parameters, strict=True)}, ()
        )
        assert isinstance(found, Tensor)
        return found

    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


class _Loss(nn.Module):
    def __init__(self, net: Controller, batch: Batch) -> None:
        super().__init__()
        self.net, self.batch = net, batch

    def forward(self) -> Tensor:
        log_p, entropy = self.net.log_prob(self.batch.tasks, self.batch.codes)
        return reinforce_loss(log_p, entropy, self.batch, 0.01).sum()


def test_embeddings_of_other_tasks_and_other_replicates_have_no_gradient() -> None:
    net = controller([0, 1], tasks=3)
    log_p, _ = net.log_prob(tasks_of(1, 2), everything(2))
    (gradient,) = torch.autograd.grad(log_p[0].sum(), [net.task_embedding])
    assert bool((gradient[0, 1] != 0).any())
    assert bool((gradient[0, [0, 2]] == 0).all()) and bool((gradient[1] == 0).all())


# --- transfer


def test_transfer_takes_all_weights_but_the_embeddings_of_tasks() -> None:
    known, fresh = controller([0, 1], tasks=5), controller([8, 9], tasks=2)
    before = fresh.task_embedding.detach().clone()
    fresh.transfer_from(known)
    for name, value in fresh.state_dict().items():
        expected = before if name == TASK_WEIGHTS else known.state_dict()[name]
        assert torch.equal(value, expected)


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (Controller((2, 3), 2, [0], SMALL, torch.float64), "decides among [2, 3] choices"),
        (controller([0, 1]), "has 2 replicates, this search 1"),
        (controller([0], ControllerSettings(hidden=6, action_size=3, task_size=4)), "other sizes"),
    ],
)
def test_a_controller_that_does_not_fit_is_refused(known: Controller, says: str) -> None:
    with pytest.raises(UserError, match=says.replace("[", r"\[").replace("]", r"\]")):
        controller([0]).transfer_from(known)
