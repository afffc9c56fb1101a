"""The other methods of kind pruning against closed forms, sampled divergences and references in NumPy."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.models.mlp import MLP
from common.training.tasks import Classification
from papers.sensitivity.magnitude import MagnitudePruning
from papers.sensitivity.pruning import WeightPruning
from papers.sensitivity.soft_sharing import Mixture, SoftWeightSharing
from papers.sensitivity.splicing import DynamicSurgery, base_threshold
from papers.sensitivity.variational import SparseVD, kl_divergence, log_alpha, noise

SGD = partial(torch.optim.SGD, lr=0.1)


def net(seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    return MLP(shape=(6,), classes=4, hidden=[12], activation="relu")


def attached(method: WeightPruning, network: nn.Module, examples: int = 100) -> Any:
    method.prepare(Classification(4), 1.0)
    data: Any = SimpleNamespace(shape=(6,), classes=4, has_validation=False, size=lambda split: examples)
    method.attach(network, lambda: network, data)
    return method


def run(
    method: WeightPruning, network: nn.Module, steps: int, after: Callable[[int], None] = lambda step: None
) -> None:
    torch.manual_seed(1)
    inputs, targets = torch.randn(32, 6), torch.randint(4, (32,))
    optimizer = method.optimizer([*network.parameters(), *method.parameters()])
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        method.loss(network, inputs, targets).backward()
        optimizer.step()
        method.end_step(network, step / steps)
        after(step)


# Han et al.


def test_each_round_cuts_what_is_below_q_deviations_of_the_survivors() -> None:
    network = net()
    method = attached(MagnitudePruning(optimizer=SGD, quality=0.5, rounds=3, begin=0.4), network)
    kept = {name: np.ones(p.shape, dtype=bool) for name, p in method.chosen(network).items()}
    before: dict[str, np.ndarray] = {}
    inputs, targets = torch.randn(32, 6), torch.randint(4, (32,))
    rounds = []
    for step in range(1, 11):
        network.zero_grad()
        method.loss(network, inputs, targets).backward()
        SGD(network.parameters()).step()
        before = {name: p.detach().double().numpy().copy() for name, p in method.chosen(network).items()}
        made = method.made
        method.end_step(network, step / 10)
        if method.made == made:
            continue
        rounds.append(step)
        for name, weight in before.items():
            weight = np.where(kept[name], weight, 0)
            kept[name] &= np.abs(weight) >= 0.5 * weight[kept[name]].std(ddof=1)
    assert rounds == [4, 6, 8]
    for name, mask in method.masks.items():
        assert np.array_equal(mask.numpy(), kept[name])
        assert np.array_equal(method.chosen(network)[name].detach().numpy() != 0, kept[name])


def test_a_quality_for_each_layer_goes_by_the_tables_names_and_an_unknown_one_is_refused() -> None:
    network = net()
    method = attached(MagnitudePruning(optimizer=SGD, quality={"fc2": 1.0}, rounds=1, begin=0.0), network)
    run(method, network, 1)
    assert (
        network.get_parameter("layers.1.weight").all() and not network.get_parameter("layers.3.weight").all()
    )
    with pytest.raises(UserError, match=r"method\.quality\.conv1: no such layer \(valid: fc1, fc2\)"):
        attached(MagnitudePruning(optimizer=SGD, quality={"conv1": 1.0}, rounds=1, begin=0.0), net())


def test_a_quality_that_leaves_a_layer_nothing_is_refused_by_its_name() -> None:
    network = net()
    method = attached(MagnitudePruning(optimizer=SGD, quality=50.0, rounds=1, begin=0.0), network)
    with pytest.raises(
        UserError, match=r"method\.quality=50\.0: layers\.1\.weight would lose all its weights"
    ):
        run(method, network, 1)


# Guo et al.


def surgery_reference(
    weights: list[np.ndarray], c: float, steps: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """W and T after dense steps, surgery after each, as in the authors' C++ (c_rate c)."""
    weight, mask, threshold = weights[0], np.ones_like(weights[0]), None
    for step in steps:
        weight = weight + step
        if threshold is None:
            sizes = np.abs(weight)
            threshold = max(sizes.mean() + c * math.sqrt((weight**2).mean() - sizes.mean() ** 2), 0)
        for index, value in np.ndenumerate(weight):
            if mask[index] == 1 and abs(value) <= 0.9 * threshold:
                mask[index] = 0
            elif mask[index] == 0 and abs(value) > 1.1 * threshold:
                mask[index] = 1
    return weight, mask


def test_surgery_makes_the_masks_of_the_authors_code_and_weights_come_back() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7, bias=False)).double()
    method = attached(
        DynamicSurgery(optimizer=SGD, c=0.3, gamma=0.0, power=1.0, begin=0.0, stop=0.99), network
    )
    start = network.get_parameter("0.weight").detach().numpy().copy()
    steps = [0.4 * np.random.default_rng(step).standard_normal((7, 5)) for step in range(8)]
    seen = []
    for index, step in enumerate(steps):
        with torch.no_grad():
            # what an optimizer does to W o T
            network.get_parameter("0.weight").add_(torch.from_numpy(step))
        method.end_step(network, (index + 1) / 10)
        seen.append(method.masks["0.weight"].clone())
    weight, mask = surgery_reference([start], 0.3, steps)
    assert np.allclose(method.dense["0.weight"].numpy(), weight, rtol=1e-12)
    assert np.array_equal(seen[-1].numpy(), mask == 1)
    assert np.array_equal(network.get_parameter("0.weight").detach().numpy(), weight * mask)
    assert any((later & ~earlier).any() for earlier, later in itertools.pairwise(seen))


def test_the_gradient_by_what_is_used_goes_to_all_weights() -> None:
    network = net()
    method = attached(
        DynamicSurgery(optimizer=SGD, c=0.5, gamma=0.0, power=1.0, begin=0.0, stop=0.2), network
    )
    run(method, network, 5)
    masks = {name: mask.clone() for name, mask in method.masks.items()}
    dense = {name: weight.clone() for name, weight in method.dense.items()}
    inputs, targets = torch.randn(8, 6), torch.randint(4, (8,))
    network.zero_grad()
    functional.cross_entropy(network(inputs), targets).backward()
    SGD(network.parameters()).step()
    gradients = {name: p.grad.clone() for name, p in method.chosen(network).items()}
    method.end_step(network, 1.0)
    for name, weight in method.dense.items():
        torch.testing.assert_close(weight, dense[name] - 0.1 * gradients[name])
        assert torch.equal(method.masks[name], masks[name]) and not masks[name].all()
        assert gradients[name][~masks[name]].any()


def test_the_base_threshold_and_the_falling_probability_are_their_formulas() -> None:
    weights = torch.randn(50, 40, dtype=torch.float64)
    sizes = weights.abs().numpy()
    assert float(base_threshold(weights, 0.7)) == pytest.approx(sizes.mean() + 0.7 * sizes.std())
    assert float(base_threshold(weights, -9.0)) == 0
    method = DynamicSurgery(optimizer=SGD, c=1.0, gamma=3.0, power=2.0, begin=0.2, stop=0.7)
    assert [method.probability(done) for done in (0.1, 0.2, 0.45, 0.71)] == [
        0.0,
        1.0,
        pytest.approx(2.5**-2),
        0.0,
    ]


# Molchanov et al.


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0, 5.0, 40.0])
def test_the_divergence_is_that_of_samples_up_to_its_constant(alpha: float) -> None:
    """-KL = log(alpha) / 2 - E log|1 + sqrt(alpha) e| + constant, which is 0 for large alpha."""
    noise_ = torch.randn(600_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def sampled(a: float) -> float:
        return -0.5 * math.log(a) + float((1 + math.sqrt(a) * noise_).abs().log().mean())

    limit = sampled(1e8)
    found = float(kl_divergence(torch.tensor(math.log(alpha), dtype=torch.float64)))
    assert found == pytest.approx(sampled(alpha) - limit, abs=0.03)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 3), (4,)),
        (nn.Conv2d(2, 3, 2, stride=2, padding=1), (2, 5, 5)),
        (nn.Conv1d(2, 3, 2), (2, 6)),
    ],
)
def test_the_noisy_pass_has_the_mean_and_variance_of_noisy_weights(
    layer: Any, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(layer)
    log_variance = nn.Parameter(torch.randn_like(layer.weight) - 2)
    inputs = torch.randn(1, *shape)
    with torch.no_grad(), noise(network, {"0.weight": log_variance}):
        found = network(inputs.expand(10_000, *shape))
    weight = layer.weight.detach().clone()
    with torch.no_grad():
        drawn = []
        for _ in range(2_500):
            layer.weight.copy_(weight + (log_variance / 2).exp() * torch.randn_like(weight))
            drawn.append(layer(inputs)[0])
        layer.weight.copy_(weight)
    expected = torch.stack(drawn)
    error = expected.std(0)
    assert ((found.mean(0) - expected.mean(0)).abs() <= 0.1 * error + 1e-6).all()
    torch.testing.assert_close(found.std(0), error, rtol=0.08, atol=1e-6)


def test_log_alpha_is_scale_free_and_bounded_where_a_weight_is_zero() -> None:
    weights, log_variance = torch.tensor([0.1, 1e-9, 0.0, 2.0]), torch.tensor([-4.0, -4.0, -4.0, -50.0])
    found = log_alpha(weights, log_variance)
    torch.testing.assert_close(found, torch.tensor([-4 - 2 * math.log(0.1), 8.0, 8.0, -8.0]))
    other = log_alpha(1e8 * weights[:1], log_variance[:1] + 2 * math.log(1e8))
    torch.testing.assert_close(other, found[:1], rtol=1e-5, atol=1e-5)


def test_between_steps_the_network_holds_what_is_not_noise_and_learns_at_all_weights() -> None:
    network = net()
    optimizer = partial(torch.optim.Adam, lr=0.05)
    method = attached(
        SparseVD(optimizer=optimizer, threshold=3.0, initial=-4.0, kl_weight=1.0, warmup=0.0, begin=0.3),
        network,
        2,
    )
    run(method, network, 40)
    for name, p in method.chosen(network).items():
        mask = log_alpha(method.dense[name], method.variances()[name].detach()) <= 3.0
        assert torch.equal(p.detach() != 0, mask) and not mask.all()
        assert torch.equal(p.detach()[mask], method.dense[name][mask])
        assert method.dense[name].all()


def test_a_layer_that_cannot_be_made_noisy_is_refused_by_name() -> None:
    network = nn.Sequential(nn.Embedding(3, 4))
    with pytest.raises(UserError, match=r"0\.weight \(Embedding\) cannot be made noisy"):
        attached(
            SparseVD(optimizer=SGD, threshold=3.0, initial=-8.0, kl_weight=1.0, warmup=0.0, begin=0.0),
            network,
        )


# Ullrich et al.


def spread_mixture() -> Mixture:
    mixture = Mixture(5, 0.9).double()
    mixture.spread(1.0)
    with torch.no_grad():
        mixture.logits.copy_(torch.tensor([0.1, -0.2, 0.4, 0.0]))
        mixture.log_precisions.copy_(torch.tensor([3.0, 2.0, 2.5, 1.0, 2.0]))
    return mixture


def test_the_complexity_is_the_mixtures_density_and_the_priors_of_its_precisions() -> None:
    from torch.distributions import Categorical, Gamma, MixtureSameFamily, Normal

    mixture = spread_mixture()
    weights = torch.randn(200, dtype=torch.float64)
    rest = 0.1 * mixture.logits.softmax(0)
    proportions = torch.cat([rest.new_tensor([0.9]), rest])
    deviations = (-mixture.log_precisions / 2).exp()
    density = MixtureSameFamily(Categorical(proportions), Normal(mixture.all_means(), deviations))
    expected = -density.log_prob(weights).sum()
    shape, rate = (
        torch.tensor([5e3] + [2.5e2] * 4, dtype=torch.float64),
        torch.tensor([2.0] + [0.1] * 4, dtype=torch.float64),
    )
    prior = Gamma(shape, rate)
    expected = expected - prior.log_prob(mixture.log_precisions.exp()).sum()
    # the density's own constants do not depend on the precisions
    constants = (shape * rate.log() - torch.lgamma(shape)).sum()
    torch.testing.assert_close(mixture.complexity(weights), expected + constants)


def test_a_weight_collapses_to_the_mean_of_its_most_probable_component() -> None:
    mixture = spread_mixture()
    weights = torch.linspace(-1.2, 1.2, 101, dtype=torch.float64)
    means = mixture.all_means().detach()
    rest = 0.1 * mixture.logits.detach().softmax(0)
    proportions = torch.cat([rest.new_tensor([0.9]), rest])
    precisions = mixture.log_precisions.detach().exp()
    densities = proportions * precisions.sqrt() * (-precisions / 2 * (weights[:, None] - means) ** 2).exp()
    assert torch.equal(mixture.collapsed(weights), means[densities.argmax(1)])


def test_after_the_last_step_the_weights_share_as_many_values_as_there_are_components() -> None:
    network = net()
    method = attached(
        SoftWeightSharing(
            optimizer=partial(torch.optim.Adam, lr=0.01), components=5, zero=0.2, tau=0.001, begin=0.3
        ),
        network,
    )
    values: list[int] = []
    run(
        method,
        network,
        20,
        lambda step: values.append(
            int(torch.cat([p.detach().flatten() for p in method.chosen(network).values()]).unique().numel())
        ),
    )
    assert values[-2] == 120 and values[-1] <= 5
    assert method.mixture.means.grad is not None
    for name, p in method.chosen(network).items():
        assert torch.equal(p != 0, method.masks[name])


def test_before_its_time_the_mixture_is_no_part_of_the_loss() -> None:
    network = net()
    method = attached(SoftWeightSharing(optimizer=SGD, components=5, zero=0.6, tau=1.0, begin=0.5), network)
    inputs, targets = torch.randn(8, 6), torch.randint(4, (8,))
    found: Tensor = method.loss(network, inputs, targets)
    torch.testing.assert_close(found, functional.cross_entropy(network(inputs), targets))
    found.backward()
    assert method.mixture.means.grad is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(MagnitudePruning, quality=-1.0, rounds=1, begin=0.0), r"method\.quality=-1\.0"),
        (partial(MagnitudePruning, quality=1.0, rounds=0, begin=0.0), r"method\.rounds=0"),
        (partial(DynamicSurgery, c=1.0, gamma=-1.0, power=1.0, begin=0.0, stop=0.5), r"method\.gamma=-1\.0"),
        (
            partial(SparseVD, threshold=3.0, initial=-8.0, kl_weight=-1.0, warmup=0.0, begin=0.0),
            r"method\.kl_weight",
        ),
        (partial(SoftWeightSharing, components=1, zero=0.9, tau=0.1, begin=0.0), r"method\.components"),
        (partial(SoftWeightSharing, components=3, zero=1.0, tau=0.1, begin=0.0), r"method\.zero=1\.0"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_key(make: Callable[..., Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(optimizer=SGD)
