"""Clouds are normalised one by one, so that unit and place do not matter; training turns them."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from common.base.errors import UserError
from common.data.clouds.cloud_data import in_unit_cube, rotated, rotated_and_scaled, standardised
from common.data.clouds.solids import Solids

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Solids, "TRAIN_SIZE", 100)
    monkeypatch.setattr(Solids, "TEST_SIZE", 50)


@pytest.fixture
def clouds() -> Tensor:
    return (
        torch.randn(5, 40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 0.2]) + 2
    )


def test_each_cloud_has_mean_0_along_each_axis_and_one_deviation_of_1(clouds: Tensor) -> None:
    found = standardised(clouds).double()
    exact = clouds.double() - clouds.double().mean(1, keepdim=True)
    exact /= exact.square().mean((1, 2), keepdim=True).sqrt()
    assert torch.allclose(found, exact, atol=1e-5)
    assert torch.allclose(found.mean(1), torch.zeros(5, 3, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(found.square().mean((1, 2)), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
@pytest.mark.parametrize("normalise", [standardised, in_unit_cube])
def test_the_unit_of_length_changes_nothing(
    clouds: Tensor, normalise: Callable[[Tensor], Tensor], scale: float
) -> None:
    assert torch.allclose(normalise(clouds * scale), normalise(clouds), atol=2e-6)


def test_a_point_far_out_is_brought_to_a_hundred_times_the_mean(clouds: Tensor) -> None:
    far = torch.cat([clouds[:1].repeat(1, 50, 1), torch.full((1, 1, 3), 1e7)], 1)
    bound = 100 * far.double().abs().mean()
    exact = far.double().clamp(-bound, bound)
    exact = exact - exact.mean(1, keepdim=True)
    assert torch.allclose(standardised(far).double(), exact / exact.square().mean().sqrt(), atol=1e-4)


def test_the_unit_cube_is_reached_by_the_longest_extent_alone(clouds: Tensor) -> None:
    found = in_unit_cube(clouds)
    assert torch.allclose(found.amin(1), torch.zeros(5, 3)) and torch.equal(found.amax((1, 2)), torch.ones(5))
    ratio = (clouds.amax(1) - clouds.amin(1)) / found.amax(1)
    assert torch.allclose(ratio, ratio[:, :1].expand(5, 3), rtol=1e-5)


def test_a_turn_is_about_z_from_x_towards_y() -> None:
    found = rotated(torch.tensor([[[1.0, 0.0, 5.0]], [[0.0, 1.0, 5.0]]]), torch.full((2,), math.pi / 2))
    assert torch.allclose(found, torch.tensor([[[0.0, 1.0, 5.0]], [[-1.0, 0.0, 5.0]]]), atol=1e-6)


def test_training_turns_by_at_most_a_tenth_of_pi_and_stretches_each_axis_alone() -> None:
    torch.manual_seed(0)
    basis = torch.eye(3).expand(4000, 3, 3)
    found = rotated_and_scaled(basis)
    # of the turn (c, s; -s, c) followed by factors (f, g, h): rows are what became of x, y and z
    f = (found[:, 0, 0].square() + found[:, 1, 0].square()).sqrt()
    g = (found[:, 0, 1].square() + found[:, 1, 1].square()).sqrt()
    h = found[:, 2, 2]
    angle = torch.atan2(found[:, 0, 1] / g, found[:, 0, 0] / f)
    assert 0.09 * math.pi < angle.max() <= 0.1 * math.pi + 1e-6
    assert -0.1 * math.pi - 1e-6 <= angle.min() < -0.09 * math.pi
    for factor in (f, g, h):
        assert 0.8 - 1e-6 <= factor.min() < 0.81 and 1.24 < factor.max() <= 1.25 + 1e-6
        assert float(factor.mean()) == pytest.approx(1.025, abs=0.01)
    assert abs(torch.corrcoef(torch.stack([f, g, h, angle])) - torch.eye(4)).max() < 0.06


def test_solids_are_the_same_for_every_seed_and_parts_share_no_cloud(make: Make) -> None:
    first, second = make("solids", points=20), make("solids", points=20, seed=5)
    first.setup()
    second.setup()
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert first.train.inputs.shape == (100, 20, 3) and first.test.inputs.shape == (50, 20, 3)
    assert torch.equal(first.train.targets.bincount(), torch.full((10,), 10))
    assert not torch.equal(first.train.inputs[:50], first.test.inputs)
    assert first.shape == (20, 3) and len(first.class_names()) == 10


def test_training_is_augmented_behind_the_normalisation_and_judging_is_not(make: Make) -> None:
    data = make("solids", points=30, limit=40)
    data.setup()
    (plain, labels), (augmented, same) = (
        data.batch("train", slice(None), augment=on) for on in (False, True)
    )
    assert torch.equal(labels, same) and not torch.allclose(plain, augmented)
    assert torch.allclose(plain.square().mean((1, 2)), torch.ones(40), atol=1e-5)
    assert augmented.square().mean((1, 2)).sub(1).abs().max() > 0.05
    data.augment = "none"
    assert torch.equal(data.batch("train", slice(None), augment=True)[0], plain)


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [("points", 1, "at least 2"), ("noise", -1.0, "0 or more"), ("limit", 101, "1 to 100")],
)
def test_bad_settings_are_one_line(make: Make, key: str, value: Any, valid: str) -> None:
    with pytest.raises(UserError, match=f"dataset.{key}={value}: .*{valid}"):
        make("solids", **{key: value}).setup()
