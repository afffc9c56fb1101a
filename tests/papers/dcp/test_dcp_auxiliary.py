"""Training with auxiliary losses: what each loss changes, where the heads stand, what is refused."""

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.method import TrainingMethod
from common.models.preact_resnet import PreactResNet
from common.training.tasks import Classification
from papers.dcp.auxiliary import AuxiliaryLosses, SparseScales, WithHeads, places_of

DATA = cast(DataSet, SimpleNamespace(shape=(3, 8, 8), classes=4, KIND="image_classification", NAME="toy"))
SGD = partial(torch.optim.SGD, lr=0.1)


def network(depth: int = 14) -> PreactResNet:
    torch.manual_seed(0)
    return PreactResNet(shape=(3, 8, 8), classes=4, depth=depth)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 8, 8, generator=generator), torch.randint(4, (8,), generator=generator)


def attached(student: nn.Module, losses: int | None = 2, **parts: Any) -> AuxiliaryLosses:
    method = AuxiliaryLosses(losses=losses, optimizer=SGD, **parts)
    method.prepare(Classification(4), 1.0)
    method.attach(student, network, DATA)
    return method


def test_each_loss_reaches_the_network_with_its_weight_and_its_head_with_one() -> None:
    """Six blocks of two convolutions, heads after blocks 3 and 5: g = (7/11)², 1, divisors g1 + g2 and g2."""
    student = network()
    method = attached(student)
    assert method.ends == ["stages.1.0", "stages.2.0"]
    first = (7 / 11) ** 2
    assert method.weights == pytest.approx([first / (first + 1), 1.0])
    inputs, targets = batch()
    student.train()
    method.loss(student, inputs, targets).backward()
    found = {name: p.grad for name, p in student.named_parameters()}
    heads = [p.grad for p in method.heads.parameters()]

    outputs: list[Tensor] = []
    hooks = [
        student.get_submodule(e).register_forward_hook(lambda *a: outputs.append(a[2])) for e in method.ends
    ]
    own = functional.cross_entropy(student(inputs), targets)
    for hook in hooks:
        hook.remove()
    losses = [
        functional.cross_entropy(head(output), targets)
        for head, output in zip(method.heads, outputs, strict=True)
    ]
    weighed = own + sum(w * loss for w, loss in zip(method.weights, losses, strict=True))
    names, parameters = zip(*student.named_parameters(), strict=True)
    expected = torch.autograd.grad(weighed, parameters, retain_graph=True)
    for name, value in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    alone = torch.autograd.grad(torch.stack(losses).sum(), list(method.heads.parameters()))
    for gradient, value in zip(heads, alone, strict=True):
        torch.testing.assert_close(gradient, value, rtol=1e-4, atol=1e-6)


def test_without_heads_the_loss_is_the_networks_own() -> None:
    student, (inputs, targets) = network(), batch()
    expected = functional.cross_entropy(student(inputs), targets)
    torch.testing.assert_close(attached(student, 0).loss(student, inputs, targets), expected)


def test_making_heads_leaves_the_network_in_its_mode() -> None:
    student = network().train()
    student.norm.eval()
    attached(student)
    assert student.training and student.stages.training and not student.norm.training


@pytest.mark.parametrize(("layers", "heads"), [(1, 0), (2, 1), (3, 1), (4, 2), (9, 2)])
def test_by_default_a_network_has_two_heads_or_as_many_as_it_has_places(layers: int, heads: int) -> None:
    convolutions = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(layers)]
    chain = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(192, 4))
    ends, weights = places_of(chain, None)
    assert len(ends) == len(weights) == heads


def test_a_head_learns_where_the_next_layer_writes_over_its_input() -> None:
    layers = [nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.Conv2d(5, 5, 3), nn.ReLU(inplace=True)]
    student = nn.Sequential(*layers, nn.Flatten(), nn.Linear(80, 4))
    method = attached(student, 1)
    method.loss(student, *batch()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.heads.parameters())


def test_the_network_is_handed_on_with_its_heads_and_leaves_without_them() -> None:
    student = network()
    method = attached(student)
    handed = method.handed_on(student)
    assert isinstance(handed, WithHeads)
    assert (handed.network, handed.ends, handed.heads) == (student, method.ends, method.heads)
    assert method.deployed(student) is student


def test_data_without_classes_are_refused() -> None:
    data = cast(DataSet, SimpleNamespace(shape=(3, 8, 8), classes=None, KIND="regression", NAME="toy"))
    method = AuxiliaryLosses(losses=1, optimizer=SGD)
    with pytest.raises(UserError, match=r"toy \(kind regression\) has none for each example"):
        method.attach(network(), network, data)


def test_an_inner_method_with_passes_of_its_own_is_refused() -> None:
    class Own(TrainingMethod):
        ONE_PASS = False

    with pytest.raises(UserError, match="Own makes forward passes of its own"):
        AuxiliaryLosses(losses=1, optimizer=SGD, inner=Own(optimizer=SGD))


def test_sparse_scales_add_the_sum_of_all_scales() -> None:
    student, (inputs, targets) = network(8), batch()
    method = SparseScales(strength=0.25, optimizer=SGD)
    method.prepare(Classification(4), 1.0)
    method.attach(student, network, DATA)
    scales = sum(m.weight.abs().sum() for m in student.modules() if isinstance(m, nn.BatchNorm2d))
    own = functional.cross_entropy(student(inputs), targets)
    torch.testing.assert_close(method.loss(student, inputs, targets), own + 0.25 * scales)


def test_sparse_scales_refuse_a_network_without_any() -> None:
    method = SparseScales(strength=1e-4, optimizer=SGD)
    with pytest.raises(UserError, match="Sequential has no batch normalisation with scales"):
        method.attach(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), network, DATA)
