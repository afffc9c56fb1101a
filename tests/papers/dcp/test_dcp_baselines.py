"""ThiNet, channel pruning by LASSO, slimming, weight sums and zeros: against brute force, scikit-learn,
numpy."""

import itertools
import math

import numpy as np
import pytest
import torch
from dcp_toys import toy_inputs, toy_layer, toy_problem
from sklearn.linear_model import Lasso
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.pruning.channels import ChannelGroup
from papers.dcp.channel_pruning import channel_pruning, lasso_channels, lasso_problem
from papers.dcp.layer_problem import LayerProblem
from papers.dcp.rankings import by_weight_sum, by_zero_fraction, kept_of, weight_sums, zero_fractions
from papers.dcp.slimming import norm_scales, scale_penalty, slim
from papers.dcp.thinet import channel_scales, removed_channels, sample_contributions, thinet


def each_channels_part(problem: LayerProblem) -> Tensor:
    """X_k W_k' of every output, in a fixed order: [c, Q]."""
    parts = []
    for k in range(problem.channels):
        weight = torch.zeros_like(problem.start)
        weight[:, k] = problem.start[:, k]
        parts.append(functional.conv2d(problem.inputs, weight, None, padding=1).flatten())
    return torch.stack(parts)


def test_a_sample_of_thinet_is_what_each_channel_adds_to_an_output() -> None:
    problem = toy_problem(lam=0.0, chunk=5)
    samples = sample_contributions(problem, 30, seed=0)
    assert problem.start_bias is not None
    outputs = (problem.baseline - problem.start_bias.view(1, -1, 1, 1)).flatten()
    assert samples.shape == (36, 6)
    parts = each_channels_part(problem)
    for row in samples:
        place = int((parts - row.unsqueeze(1)).abs().sum(0).argmin())
        torch.testing.assert_close(parts[:, place], row)
        assert float(row.sum()) == pytest.approx(float(outputs[place]))
    assert torch.equal(samples, sample_contributions(toy_problem(lam=0.0), 30, seed=0))
    again, other = sample_contributions(problem, 30, seed=0), sample_contributions(problem, 30, seed=1)
    assert torch.equal(samples, again) and not torch.equal(samples, other)


def test_thinet_removes_by_the_smallest_sum_of_squares_at_every_step() -> None:
    samples = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    removed: list[int] = []
    for _ in range(4):
        sums = {
            k: float(samples[:, [*removed, k]].sum(1).square().sum()) for k in range(7) if k not in removed
        }
        removed.append(min(sums, key=sums.__getitem__))
    assert removed_channels(samples, 4) == removed


def test_thinet_removes_two_channels_that_cancel_together() -> None:
    samples = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples[:, 1] *= 0.5
    samples[:, 3] = -samples[:, 1]
    pairs = {
        pair: float(samples[:, list(pair)].sum(1).square().sum())
        for pair in itertools.combinations(range(5), 2)
    }
    # by their own squares 1 and 3 are the smallest; together they are nothing
    assert min(pairs, key=pairs.__getitem__) == (1, 3)
    assert removed_channels(samples, 2) == [1, 3]


def test_thinet_scales_are_those_of_least_squares() -> None:
    samples = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = np.linalg.lstsq(samples[:, [0, 2, 5]].numpy(), samples.sum(1).numpy(), rcond=None)[0]
    np.testing.assert_allclose(channel_scales(samples, [0, 2, 5]), expected)


def test_thinet_keeps_weights_times_scales_and_all_of_them_as_they_are() -> None:
    problem = toy_problem(lam=0.0)
    kept, weight = thinet(problem, 4, samples=200, seed=0)
    samples = sample_contributions(problem, 200, seed=0)
    scales = channel_scales(samples, kept)
    assert len(kept) == 4 and kept == sorted(kept)
    torch.testing.assert_close(weight[:, kept], problem.start[:, kept] * scales.view(1, -1, 1, 1))
    assert not weight[:, [k for k in range(6) if k not in kept]].any()
    everything, same = thinet(problem, 6, samples=200, seed=0)
    assert everything == list(range(6))
    torch.testing.assert_close(same, problem.start)


def test_the_lasso_is_that_of_scikit_learn() -> None:
    problem = toy_problem(lam=0.0, chunk=5)
    gram, products = lasso_problem(problem)
    parts = each_channels_part(problem)
    assert problem.start_bias is not None
    target = (problem.baseline - problem.start_bias.view(1, -1, 1, 1)).flatten()
    torch.testing.assert_close(gram, parts @ parts.T / target.numel())
    torch.testing.assert_close(products, parts @ target / target.numel())
    top = float(products.abs().max())
    for kept in (1, 3, 5):
        # raise l, in small steps, until no more than `kept` are left
        for level in np.geomspace(1e-3 * top, top, 150):
            lasso = Lasso(alpha=level, fit_intercept=False, tol=1e-9, max_iter=20000)
            found = np.flatnonzero(lasso.fit(parts.T.numpy(), target.numpy()).coef_)
            if len(found) <= kept:
                break
        assert len(found) == kept
        assert lasso_channels(gram, products, kept) == found.tolist()


def test_channel_pruning_refits_the_kept_channels_by_least_squares() -> None:
    problem = toy_problem(lam=0.0)
    kept, weight, bias = channel_pruning(problem, 3)
    columns = functional.unfold(problem.inputs, 3, padding=1).transpose(1, 2).flatten(0, 1)
    chosen = columns.view(len(columns), 6, 9)[:, kept].flatten(1).numpy()
    design = np.hstack([chosen, np.ones((len(chosen), 1))])
    targets = problem.baseline.flatten(2).transpose(1, 2).flatten(0, 1).numpy()
    expected = np.linalg.lstsq(design, targets, rcond=None)[0]
    np.testing.assert_allclose(weight[:, kept].flatten(1), expected[:-1].T, rtol=1e-6, atol=1e-9)
    assert bias is not None
    np.testing.assert_allclose(bias, expected[-1], rtol=1e-6, atol=1e-9)
    assert not weight[:, [k for k in range(6) if k not in kept]].any()


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_channel_pruning_and_thinet_keep_the_same_channels_in_other_units(scale: float) -> None:
    # a bias is in the outputs' units
    layer = toy_layer(bias=False)
    plain, scaled = toy_problem(layer, lam=0.0), toy_problem(layer, toy_inputs() * scale, lam=0.0)
    for kept in (1, 3, 5):
        one, other = channel_pruning(plain, kept), channel_pruning(scaled, kept)
        assert one[0] == other[0]
        torch.testing.assert_close(one[1], other[1])
        one_thinet = thinet(plain, kept, samples=100, seed=0)
        other_thinet = thinet(scaled, kept, samples=100, seed=0)
        assert one_thinet[0] == other_thinet[0]
        torch.testing.assert_close(one_thinet[1], other_thinet[1])


def test_channels_that_are_alike_or_nothing_still_give_the_wanted_number() -> None:
    inputs = toy_inputs()
    inputs[:, 3] = inputs[:, 1]
    inputs[:, 5] = 0
    layer = toy_layer()
    with torch.no_grad():
        layer.weight[:, 3] = layer.weight[:, 1]
    problem = toy_problem(layer, inputs, lam=0.0)
    for kept in range(1, 7):
        found, weight, _ = channel_pruning(problem, kept)
        assert len(set(found)) == kept and weight.isfinite().all()
        assert len(thinet(problem, kept, samples=100, seed=0)[0]) == kept
    silent = toy_problem(layer, torch.zeros_like(inputs), lam=0.0, train_bias=False)
    assert channel_pruning(silent, 2)[0] == [0, 1]


@pytest.mark.parametrize("kept", [0, 7])
def test_a_number_of_channels_that_cannot_stay_is_refused_by_name(kept: int) -> None:
    problem = toy_problem(lam=0.0, name="conv4")
    for prune in (channel_pruning, lambda *each: thinet(*each, samples=9, seed=0)):
        with pytest.raises(
            UserError, match=rf"^layer conv4: {kept} channels cannot stay of 6 \(valid: 1 to 6\)"
        ):
            prune(problem, kept)


def test_the_penalty_of_slimming_is_the_sum_of_all_scales_and_pulls_them_to_zero() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2, affine=False), nn.BatchNorm1d(3)
    )
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([-2.0, 0.5]))
    penalty = scale_penalty(network)
    assert float(penalty.detach()) == pytest.approx(2 + 0.5 + 3)
    penalty.backward()
    assert network[1].weight.grad.tolist() == [-1.0, 1.0] and network[0].weight.grad is None
    with pytest.raises(UserError, match="no batch normalisation with scales"):
        scale_penalty(nn.Linear(2, 2))


def test_slimming_removes_a_fraction_of_all_channels_together() -> None:
    scales = {"a": torch.tensor([0.9, 0.1, 0.5]), "b": torch.tensor([0.2, 0.3]), "c": torch.tensor([1.0] * 5)}
    assert slim(scales, 0.2) == {"a": [0, 2], "b": [1], "c": [0, 1, 2, 3, 4]}
    assert slim(scales, 0.0) == {"a": [0, 1, 2], "b": [0, 1], "c": [0, 1, 2, 3, 4]}
    every = torch.cat(list(scales.values())).sort().values
    for removed in range(3):
        kept = slim(scales, removed / 10)
        left = torch.cat([scales[name][channels] for name, channels in kept.items()])
        assert left.sort().values.tolist() == every[removed:].tolist()


def test_a_layer_that_would_lose_all_its_channels_is_named() -> None:
    scales = {"conv1": torch.ones(3), "conv2": torch.tensor([0.1, 0.2])}
    with pytest.raises(UserError, match=r"^layer conv2: would lose all its 2 channels at fraction=0.4"):
        slim(scales, 0.4)
    with pytest.raises(UserError, match=r"method.fraction=1.0; valid: 0 <= fraction < 1"):
        slim(scales, 1.0)
    with pytest.raises(UserError, match=r"^layer conv2: the scales .* not finite"):
        slim(scales | {"conv2": torch.tensor([math.nan, 1.0])}, 0.2)


def test_the_scales_of_a_group_are_those_of_the_normalisation_that_follows() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([-2.0, 0.5]))
    group = ChannelGroup("0", 2, ("0",), ("1",), ("2",))
    assert norm_scales(network, [group])["0"].tolist() == [2.0, 0.5]
    with pytest.raises(UserError, match=r"^layer 0: no batch normalisation follows"):
        norm_scales(network, [ChannelGroup("0", 2, ("0",), (), ("2",))])


def test_rankings_are_by_the_sum_of_weights_and_by_the_share_of_zeros() -> None:
    layer, inputs = toy_layer(), toy_inputs()
    inputs[:, 2] = 0
    problem = toy_problem(layer, inputs, chunk=5)
    assert weight_sums(problem).tolist() == pytest.approx(
        [float(problem.start[:, k].abs().sum()) for k in range(6)]
    )
    zeros = [float((inputs[:, k] == 0).double().mean()) for k in range(6)]
    assert zero_fractions(problem).tolist() == pytest.approx(zeros)
    assert by_zero_fraction(problem) == sorted(range(6), key=zeros.__getitem__)
    assert by_zero_fraction(problem)[-1] == 2
    order = by_weight_sum(problem)
    assert order == sorted(range(6), key=lambda k: -float(weight_sums(problem)[k]))
    assert kept_of(order, 2) == sorted(order[:2])


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 3, 3, padding="same"), nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect")]
)
def test_padding_counts_for_no_zeros(layer: nn.Conv2d) -> None:
    inputs = toy_inputs(4, side=5).float()
    problem = LayerProblem(layer, inputs, layer(inputs).detach(), lam=0.0)
    expected = (inputs == 0).double().mean((0, 2, 3))
    torch.testing.assert_close(zero_fractions(problem), expected)


def test_zeros_of_a_flattened_map_are_those_of_the_map() -> None:
    inputs = toy_inputs(4, side=5)
    layer = nn.Linear(100, 3).double()
    problem = LayerProblem(layer, inputs.flatten(1), layer(inputs.flatten(1)).detach(), lam=0.0, channels=4)
    torch.testing.assert_close(zero_fractions(problem), (inputs == 0).double().mean((0, 2, 3)))
