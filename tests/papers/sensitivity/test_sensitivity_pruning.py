"""Masks that nothing undoes, the choice of thresholds, and what a sparse network takes."""

import io
import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from common.base.errors import UserError
from common.models.lenet import LeNet5ReLU
from common.models.mlp import MLP
from common.models.vgg import VGG
from common.training.tasks import Classification
from papers.sensitivity.pruning import Masks, Tensors, WeightPruning, cut, times
from papers.sensitivity.sparsity import labels, load_sparse, save_sparse, sparse_bytes, sparsity
from papers.sensitivity.thresholds import FixedThreshold, Plateau, largest_threshold


class Half(WeightPruning):
    """Cuts the first half of each weight's rows at once."""

    def after_step(self, student: nn.Module, parameters: dict[str, nn.Parameter], done: float) -> None:
        for name, mask in self.masks.items():
            mask[: len(parameters[name]) // 2] = False


def net(seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    return MLP(shape=(6,), classes=4, hidden=[8], activation="relu")


def trained(method: WeightPruning, network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    inputs, targets = torch.randn(16, 6), torch.randint(4, (16,))
    for step in range(steps):
        optimizer.zero_grad()
        method.loss(network, inputs, targets).backward()
        optimizer.step()
        method.end_step(network, (step + 1) / steps)


def attached(method: WeightPruning, network: nn.Module, **data: Any) -> WeightPruning:
    method.prepare(Classification(4), 1.0)
    facts: Any = SimpleNamespace(**({"shape": (6,), "classes": 4, "has_validation": False} | data))
    method.attach(network, lambda: network, facts)
    return method


@pytest.mark.parametrize(
    "make",
    [
        partial(torch.optim.SGD, lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.1),
        partial(torch.optim.Adam, lr=0.1),
        partial(torch.optim.RMSprop, lr=0.1, momentum=0.9),
    ],
)
def test_no_momentum_of_the_optimizer_brings_a_pruned_weight_back(make: Callable[..., Any]) -> None:
    network = net()
    method = attached(Half(optimizer=make, begin=0.5, parameters="weights"), network)
    trained(method, network, make(network.parameters()), 20)
    for name, p in method.chosen(network).items():
        assert not p[: len(p) // 2].any(), name
        assert p[len(p) // 2 :].all()
    assert network.get_parameter("layers.1.bias").all()


def test_a_mask_makes_zero_of_what_is_not_finite() -> None:
    weight = torch.tensor([[math.nan, math.inf], [1.0, 2.0]])
    masks = Masks({"w": weight})
    masks.put({"w": torch.tensor([[False, False], [True, True]])}, "method.threshold=1")
    masks.apply_to({"w": weight})
    assert weight.tolist() == [[0.0, 0.0], [1.0, 2.0]]


def test_masks_and_tensors_lie_in_the_state_and_come_back_by_name() -> None:
    first, second = (
        Masks({"a.b": torch.ones(2, 2), "c": torch.ones(3)}),
        Masks({"a.b": torch.ones(2, 2), "c": torch.ones(3)}),
    )
    first["a.b"][0, 1] = False
    second.load_state_dict(first.state_dict())
    assert second["a.b"].tolist() == [[True, False], [True, True]]
    kept = Tensors({"x": torch.arange(3.0)})
    kept.copy_({"x": torch.ones(3)})
    assert kept["x"].tolist() == [1.0, 1.0, 1.0]


def test_an_optimizer_that_averages_its_iterates_is_refused() -> None:
    from papers.accelegrad.accelegrad import AcceleGrad

    with pytest.raises(UserError, match=r"method\.optimizer: averages its iterates"):
        Half(optimizer=partial(AcceleGrad, lr=0.1), begin=0.0, parameters="all")


# thresholds


def test_a_cut_keeps_what_was_kept_and_is_not_below_the_threshold() -> None:
    weight = torch.tensor([[0.5, -0.2], [0.1, -0.7]])
    masks = Masks({"w": weight})
    masks["w"][1, 1] = False
    assert cut({"w": weight}, masks, 0.2)["w"].tolist() == [[True, True], [False, False]]
    # a whole number as the command line gives it
    assert not cut({"w": weight}, masks, 9)["w"].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_no_ground_to_cut_and_the_masks_stay(bad: float) -> None:
    weight = torch.tensor([[0.5, bad]])
    masks = Masks({"layer.weight": weight})
    with pytest.raises(UserError, match=r"layer\.weight: its weights are not finite"):
        FixedThreshold(0.1, 0.5).step(nn.Linear(1, 1), {"layer.weight": weight}, masks, 0.0, 1.0)
    assert masks["layer.weight"].all()


def test_a_threshold_above_every_weight_of_a_layer_is_refused_by_its_name_and_biases_may_all_go() -> None:
    network = net()
    parameters = dict(network.named_parameters())
    masks = Masks(parameters)
    with torch.no_grad():
        network.get_parameter("layers.3.weight").mul_(0.01)
        network.get_parameter("layers.1.bias").zero_()
    with pytest.raises(UserError, match=r"method\.threshold=0\.1: layers\.3\.weight would lose all"):
        FixedThreshold(0.1, 0.5).step(network, parameters, masks, 0.0, 1.0)
    assert all(mask.all() for _, mask in masks.items())
    FixedThreshold(0.0001, 0.5).step(network, parameters, masks, 0.0, 1.0)
    assert not masks["layers.1.bias"].any() and masks["layers.3.weight"].any()


def test_a_fixed_threshold_cuts_after_each_share_and_after_the_last_step() -> None:
    rule, weight = FixedThreshold(0.1, 0.2), torch.full((1, 2), 1.0)
    masks, seen = Masks({"w": weight}), []
    for step in range(1, 11):
        before = rule.made
        rule.step(nn.Linear(1, 1), {"w": weight}, masks, 0.3, step / 10)
        seen += [step] if rule.made > before else []
    assert seen == [5, 7, 9]
    masks = Masks({"w": weight})
    weight[0, 0] = 0.05
    rule.step(nn.Linear(1, 1), {"w": weight}, masks, 0.3, 1.0)
    assert masks["w"].tolist() == [[False, True]]


@pytest.mark.parametrize("steps", [7, 100, 1234])
def test_what_happens_each_share_of_a_run_happens_as_often_in_runs_of_any_length(steps: int) -> None:
    counts = [times(step / steps, 0.2, 0.16) for step in range(1, steps + 1)]
    assert counts[-1] == 5 and sorted(counts) == counts


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("edge", [0.013, 0.4, 0.93])
def test_bisection_finds_the_largest_threshold_within_the_bound(edge: float, scale: float) -> None:
    kept = [scale * torch.linspace(0.01, 1.0, 100), scale * torch.linspace(0.2, 0.6, 9)]

    def loss(threshold: float) -> float:
        return 1.0 if threshold <= edge * scale else 2.0

    found = largest_threshold(loss, kept, 1.05)
    assert found == pytest.approx(edge * scale, rel=1e-6) and loss(found) <= 1.05


def test_bisection_ends_early_where_both_ends_lose_nearly_the_same_and_never_above_the_bound() -> None:
    calls = []

    def loss(threshold: float) -> float:
        calls.append(threshold)
        return 1.0 + threshold

    found = largest_threshold(loss, [torch.linspace(0.1, 1.0, 50)], 1.3)
    assert loss(found) <= 1.3 and found >= 0.25 and len(calls) < 12


def test_a_nan_in_the_search_is_no_loss_within_the_bound() -> None:
    found = largest_threshold(lambda t: 1.0 if t < 0.3 else math.nan, [torch.linspace(0.1, 1.0, 50)], 1.05)
    assert 0.29 < found < 0.3


class Losses:
    """A task whose validation loss is what the test says."""

    def __init__(self, values: Callable[[nn.Module], float]) -> None:
        self.values = values

    def evaluate(self, model: nn.Module, data: Any, split: str) -> dict[str, float]:
        assert split == "validation"
        return {"validation_loss": self.values(model)}


def plateau(values: Callable[[nn.Module], float], network: nn.Module, **keys: float) -> tuple[Plateau, Masks]:
    rule = Plateau(**({"tolerance": 0.1, "patience": 0.2, "check": 0.1} | keys))
    task: Any = Losses(values)
    data: Any = SimpleNamespace(has_validation=True)
    rule.attach(network, data, task)
    return rule, Masks(dict(network.named_parameters()))


def test_a_plateau_puts_the_best_weights_back_and_cuts_what_the_loss_allows() -> None:
    network = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.1, 0.2, 0.3, 0.9]]))
    best = network.weight.detach().clone()
    costs = torch.tensor([0.04, 0.04, 1.0, 5.0], dtype=torch.float64)

    # each lost weight of the first two costs 0.04, and to be away from the best costs 0.5
    def loss(model: nn.Module) -> float:
        weight = model.get_parameter("weight")
        lost = weight == 0
        away = bool(((weight != best) & ~lost).any())
        return 1.0 + 0.5 * away + float(lost[0].double() @ costs)

    rule, masks = plateau(loss, network)
    parameters = dict(network.named_parameters())
    for step in range(1, 4):
        with torch.no_grad():
            rule.step(network, parameters, masks, 0.0, step / 10)
            assert bool(masks["weight"].all()) == (step < 3)
            if step < 3:
                network.weight.add_(0.05)
    assert torch.equal(network.weight.detach(), best)
    assert masks["weight"].tolist() == [[False, False, True, True]]
    assert (rule.bad, rule.best) == (0, math.inf)


def test_a_plateaus_cut_is_the_largest_within_the_tolerance_and_leaves_no_layer_empty() -> None:
    network = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.1, 0.2, 0.3, 0.9]]))
    costs = torch.tensor([0.04, 0.04, 1.0, 5.0], dtype=torch.float64)
    rule, masks = plateau(
        lambda model: 1.0 + float((model.get_parameter("weight") == 0)[0].double() @ costs), network
    )
    with torch.no_grad():
        rule.step(network, dict(network.named_parameters()), masks, 0.0, 1.0)
    assert masks["weight"].tolist() == [[False, False, True, True]]
    rule, masks = plateau(lambda model: 1.0, network)
    with torch.no_grad():
        rule.step(network, dict(network.named_parameters()), masks, 0.0, 1.0)
    assert int(masks["weight"].sum()) == 1


def test_where_every_validation_loss_is_nan_the_plateau_cuts_nothing_and_keeps_the_network() -> None:
    network = nn.Linear(4, 1)
    before = {name: p.clone() for name, p in network.state_dict().items()}
    rule, masks = plateau(lambda model: math.nan, network)
    with torch.no_grad():
        for step in range(1, 11):
            rule.step(network, dict(network.named_parameters()), masks, 0.0, step / 10)
    assert all(mask.all() for _, mask in masks.items())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_plateau_without_a_validation_split_is_refused() -> None:
    rule, _masks = plateau(lambda model: 1.0, nn.Linear(2, 1))
    rule.data.has_validation = False  # type: ignore[misc]
    with pytest.raises(UserError, match=r"method\.pruning=plateau: there is no validation split"):
        rule.step(nn.Linear(2, 1), {}, Masks({}), 0.0, 1.0)


# sparsity


def lenet5() -> LeNet5ReLU:
    torch.manual_seed(0)
    return LeNet5ReLU(shape=(1, 28, 28), classes=10)


def test_the_tables_names_of_layers_are_conv_and_fc_in_order() -> None:
    assert list(labels(lenet5()).values()) == ["conv1", "conv2", "fc1", "fc2"]
    vgg = VGG(
        shape=(3, 32, 32),
        classes=10,
        widths=[[4], [8, 8]],
        batch_norm=True,
        last_pool="max",
        pixels=1,
        hidden=[],
        dropout=0.0,
    )
    assert list(labels(vgg).values()) == ["conv1", "conv2", "conv3", "fc1"]


def test_densities_compression_and_memory_are_the_tables_arithmetic() -> None:
    network = lenet5()
    with torch.no_grad():
        network.get_parameter("classifier.1.weight")[:, 80:] = 0
        network.get_parameter("convolutions.0.weight")[:5] = 0
        network.get_parameter("classifier.3.bias").zero_()
    found = sparsity(network)
    kept = 430_500 - 500 * 720 - 5 * 25
    assert (found["density_fc1"], found["density_conv1"], found["density_fc2"]) == (10.0, 75.0, 100.0)
    assert found["nonzero"] == kept and found["nonzero_thousands"] == kept / 1e3
    assert found["compression"] == pytest.approx(430_500 / kept)
    assert found["memory_kb"] == pytest.approx(4 * kept / 1e3)
    assert found["nonzero_parameters"] == kept + 580 - 10
    assert found["density_fc"] == pytest.approx(100 * (40_000 + 5_000) / 405_000)


def test_the_sparse_file_gives_the_same_state_back_and_takes_what_csr_takes() -> None:
    network = lenet5()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.masked_fill_(torch.rand(p.shape, generator=generator) < 0.95, 0)
    file = io.BytesIO()
    save_sparse(network, file)
    size = file.tell()
    file.seek(0)
    back = load_sparse(file)
    assert back.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(back[name], value), name
    matrices = [csr_array(p.detach().flatten(1).numpy()) for p in network.parameters() if p.dim() > 1]
    numbers = sum(6 * m.nnz + 4 * (m.shape[0] + 1) for m in matrices)
    assert numbers < size < numbers + 12_000
    assert sparse_bytes(network) == size < 0.15 * 4 * 431_080


def test_running_statistics_travel_in_the_sparse_file() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    network(torch.randn(4, 1, 5, 5))
    file = io.BytesIO()
    save_sparse(network, file)
    file.seek(0)
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    other.load_state_dict(load_sparse(file))
    images: Tensor = torch.randn(4, 1, 5, 5)
    torch.testing.assert_close(other.eval()(images), network.eval()(images), rtol=0, atol=0)
