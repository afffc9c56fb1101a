"""Additive objectives: values as formulas say, and optima that nothing beats."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.objective import Objective
from common.data.functions.additive import (
    Camelback,
    Fel,
    GpSample,
    Known,
    Michalewicz,
    Overlap,
    Sine,
    StyblinskiTang,
)

ASSUMED: dict[str, Any] = {
    "kind": "objective",
    "noise": 0.01,
    "lengthscale": 0.2,
    "variance": 1.0,
    "mean": 0.0,
}


def fel(dim: int, design_seed: int = 0) -> Fel:
    return Fel(
        kind="objective", dim=dim, noise=0.02, points=60, measured_noise=0.02, design_seed=design_seed,
        variance=1.0, mean=0.0,
    )  # fmt: skip


def gp_sample(dim: int = 3, nodes: int = 128, lengthscale: float = 0.2, variance: float = 1.0) -> GpSample:
    return GpSample(
        kind="objective", dim=dim, noise=0.0, lengthscale=lengthscale, variance=variance, nodes=nodes
    )


OBJECTIVES: dict[str, Objective] = {
    "camelback": Camelback(**ASSUMED),
    "stybtang": StyblinskiTang(dim=3, **ASSUMED),
    "michalewicz": Michalewicz(dim=3, rotation=None, **ASSUMED),
    "michalewicz_rotated": Michalewicz(dim=3, rotation=1, **ASSUMED),
    "overlap": Overlap(dim=4, **ASSUMED),
    "fel": fel(2),
    "sine_1d": Sine(**ASSUMED),
    "gp_sample": gp_sample(),
}


def points(objective: Objective, count: int, replicates: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (replicates, count, objective.space.dim)
    return torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_point_is_above_the_optimum_and_some_are_close(name: str) -> None:
    objective = OBJECTIVES[name]
    objective.draw([0, 1])
    best = objective.optimum()
    assert best is not None and best.shape == (2,)
    x = points(objective, 20_000, 2)
    values = objective.values(x)
    assert values.shape == (2, 20_000)
    assert bool((values <= best[:, None] + 1e-12).all())
    gap = best - values.max(1).values
    assert float((gap / values.std(1)).max()) < 0.5


def test_optima_are_those_of_botorchs_functions_in_their_own_scalings() -> None:
    from botorch.test_functions import SixHumpCamel
    from botorch.test_functions import StyblinskiTang as Peer

    camel, peer = OBJECTIVES["camelback"], SixHumpCamel(negate=True)
    x = points(camel, 50, 1)
    camel.draw([0])
    expected = peer(x * torch.tensor([4.0, 2.0]).double()) / 5.0
    torch.testing.assert_close(camel.values(x), expected, rtol=0, atol=1e-6)
    assert float(camel.optimum()[0]) == pytest.approx(peer.optimal_value / 5.0, abs=1e-5)  # type: ignore[index]
    tang, other = OBJECTIVES["stybtang"], Peer(dim=3)
    x = points(tang, 50, 1)
    tang.draw([0])
    torch.testing.assert_close(tang.values(x), -(other(8 * x) / 600.0 + 0.5), rtol=0, atol=1e-6)
    assert float(tang.optimum()[0]) == pytest.approx(-(-39.166166 / 200 + 0.5), abs=1e-8)  # type: ignore[index]


def test_optima_of_known_maximisers_are_reached_there() -> None:
    at: dict[str, list[float]] = {
        "camelback": [0.08984201368301331 / 4, -0.7126564032704135 / 2],
        "stybtang": [-2.903534027771178 / 8] * 3,
        "overlap": [0.3] * 4,
        "sine_1d": [0.25],
    }
    for name, point in at.items():
        objective = OBJECTIVES[name]
        objective.draw([0])
        value = objective.values(torch.tensor(point, dtype=torch.float64)[None, None])
        assert float(value) == pytest.approx(float(objective.optimum()[0]), abs=1e-12), name  # type: ignore[index]


def test_michalewicz_is_a_sum_over_coordinates_unless_rotated() -> None:
    plain, rotated = OBJECTIVES["michalewicz"], OBJECTIVES["michalewicz_rotated"]
    x = points(plain, 20, 1)
    z = math.pi * (x / 0.75 + 0.5)
    i = torch.arange(1, 4)
    expected = (z.sin() * (i * z / math.pi).sin() ** 6).sum(-1)
    torch.testing.assert_close(plain.values(x), expected)

    def crossed(objective: Objective) -> float:
        """f(a, b) - f(a, 0) - f(0, b) + f(0, 0): 0 of a sum over coordinates."""
        corners = torch.tensor([[0.2, 0.1, 0.0], [0.2, 0, 0], [0, 0.1, 0], [0, 0, 0]]).double()
        return float((objective.values(corners[None])[0] * torch.tensor([1, -1, -1, 1])).sum())

    assert abs(crossed(plain)) < 1e-14 < 1e-4 < abs(crossed(rotated))


def test_the_stand_in_of_the_laser_is_a_fixed_function_scaled_by_its_measurements() -> None:
    first, again, other = fel(5), fel(5), fel(5, design_seed=1)
    x = points(first, 100, 1)
    assert torch.equal(first.values(x), again.values(x))
    assert not torch.equal(first.values(x), other.values(x))
    assert first.lengthscale == float(first.scales.min()) and bool((first.scales >= 0.2).all())
    assert float(first.values(first.centres[None]).abs().max()) == pytest.approx(1.0, abs=0.1)


def test_gp_samples_have_the_additive_kernel_as_covariance() -> None:
    objective = gp_sample(dim=2, lengthscale=0.3, variance=2.0)
    seeds = list(range(4000))
    objective.weights = torch.stack(
        [
            torch.randn(2, 2, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            for seed in seeds
        ]
    )
    objective.weights = objective.weights * objective.scale
    x = points(objective, 4, 1)[0]
    values = objective.values(x.expand(len(seeds), 4, 2))
    r = (x[:, None] - x) / 0.3
    exact = 2.0 * (-0.5 * r.square()).exp().mean(-1)
    error = (torch.cov(values.T) - exact).abs().max()
    assert float(error) < 6 * 2.0 * (2 / len(seeds)) ** 0.5
    weights = torch.cat([objective.scale, objective.scale])
    t = torch.linspace(-1, 1, 101).double()
    kernel = (objective.scale.square() * torch.cos(t[:, None] * objective.omega)).sum(1) * 2
    torch.testing.assert_close(kernel, 2.0 * (-0.5 * (t / 0.3).square()).exp(), rtol=0, atol=1e-10)
    assert float(weights.square().sum()) == pytest.approx(2.0)


def test_a_gp_sample_follows_from_its_seed_alone() -> None:
    many, alone = gp_sample(), gp_sample()
    many.draw([3, 4, 5])
    alone.draw([5])
    x = points(many, 10, 1)
    torch.testing.assert_close(many.values(x.expand(3, 10, 3))[2], alone.values(x)[0], rtol=0, atol=1e-13)
    torch.testing.assert_close(many.optimum()[2], alone.optimum()[0], rtol=0, atol=1e-13)
    assert many.value(2, x[0, 0]) == pytest.approx(float(alone.values(x)[0, 0]), abs=1e-13)


def test_the_optimum_of_a_gp_sample_is_that_of_a_fine_grid() -> None:
    objective = gp_sample(dim=2)
    objective.draw([7])
    t = torch.linspace(-0.5, 0.5, 20_001).double()
    fine = objective._parts(t.expand(2, -1)).max(-1).values.sum(1)
    assert 0 <= float(objective.optimum()[0] - fine[0]) < 1e-6
    np.testing.assert_allclose(objective.optimum(), fine, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Overlap(dim=1, **ASSUMED), "dim"),
        (lambda: StyblinskiTang(dim=0, **ASSUMED), "dim"),
        (lambda: Sine(**(ASSUMED | {"noise": -1.0})), "noise"),
        (lambda: Sine(**(ASSUMED | {"kind": "images"})), "kind"),
        (lambda: gp_sample(nodes=7), "nodes"),
        (lambda: gp_sample(lengthscale=0.0), "lengthscale"),
        (lambda: Camelback(**(ASSUMED | {"variance": 0.0})), "variance"),
    ],
)
def test_values_out_of_range_get_one_line(make: Any, line: str) -> None:
    with pytest.raises(UserError, match=f"dataset.{line}") as raised:
        make()
    assert "\n" not in str(raised.value)


def test_all_known_objectives_are_tested_here() -> None:
    tested = {type(objective) for objective in OBJECTIVES.values()}
    assert set(Known.__subclasses__()) <= tested
