"""DeepSets: parameters, its equations written anew, and what permutations of the points do."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.metrics.parameters import count_parameters
from common.models.deepsets import DeepSets

Build = Callable[..., DeepSets]


def built(build_model: Build, classes: int = 40, points: int = 30, **settings: object) -> DeepSets:
    torch.manual_seed(0)
    return build_model("deepsets_dtanh", (points, 3), classes, "cpu", **settings).eval()


@pytest.mark.parametrize("points", [100, 1000, 5000])
def test_it_has_as_many_parameters_as_published_whatever_the_points(build_model: Build, points: int) -> None:
    assert count_parameters(built(build_model, points=points)) == 208_680


def test_it_is_the_published_network(build_model: Build) -> None:
    model = built(build_model).double()
    weights = dict(model.named_parameters())
    x = found = torch.randn(4, 30, 3, dtype=torch.float64)
    for n in (0, 2, 4):
        largest = torch.stack([points.max(0).values for points in found])
        weight, bias = (weights[f"equivariant.{n}.linear.{name}"] for name in ("weight", "bias"))
        found = torch.tanh(torch.einsum("bpi,oi->bpo", found - largest[:, None], weight) + bias)
    found = found.max(1).values
    found = torch.tanh(found @ weights["classifier.1.weight"].T + weights["classifier.1.bias"])
    found = found @ weights["classifier.4.weight"].T + weights["classifier.4.bias"]
    assert torch.allclose(model(x), found, rtol=1e-12, atol=1e-14)


def test_permuted_points_permute_the_features_and_leave_the_answer(build_model: Build) -> None:
    model = built(build_model)
    clouds, order = torch.randn(4, 30, 3), torch.randperm(30)
    assert torch.allclose(model.equivariant(clouds[:, order]), model.equivariant(clouds)[:, order], atol=1e-6)
    assert torch.allclose(model(clouds[:, order]), model(clouds), atol=1e-6)
    assert not torch.allclose(model.equivariant(clouds[:, order]), model.equivariant(clouds), atol=1e-2)


def test_moved_clouds_and_points_that_stand_twice_have_the_same_answer(build_model: Build) -> None:
    model = built(build_model)
    clouds = torch.randn(4, 30, 3)
    assert torch.allclose(model(clouds + torch.tensor([1.0, -2.0, 3.0])), model(clouds), atol=1e-5)
    assert torch.allclose(model(torch.cat([clouds, clouds[:, :7]], 1)), model(clouds), atol=1e-6)


def test_gradients_are_those_of_finite_differences(build_model: Build) -> None:
    model = built(build_model, classes=3, points=5, width=4).double()
    assert torch.autograd.gradcheck(model, torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True))


def test_dropout_stands_before_both_layers_of_the_classifier(build_model: Build) -> None:
    model = built(build_model, dropout=0.25)
    assert [layer.p for layer in model.classifier if isinstance(layer, nn.Dropout)] == [0.25, 0.25]
    assert isinstance(model.classifier[0], nn.Dropout) and isinstance(model.classifier[3], nn.Dropout)


@pytest.mark.parametrize(
    ("shape", "classes", "settings", "told"),
    [
        ((3, 32, 32), 10, {}, "point clouds"),
        ((100, 3), None, {}, "classes"),
        ((100, 3), 10, {"width": 0}, "model.width=0"),
        ((100, 3), 10, {"dropout": 1.0}, "model.dropout=1.0"),
    ],
)
def test_what_it_cannot_take_is_one_line(
    build_model: Build, shape: tuple[int, ...], classes: int | None, settings: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        build_model("deepsets_dtanh", shape, classes, **settings)
