"""Functions with a known optimum, and draws of a Gaussian process."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import gamma, kv

from common.base.errors import UserError
from common.data.functions.synthetic import GPDraws, Hartmann6, LevyFunction, draw_matern52, largest

NOISE = 0.001**0.5


def draws(seeds: list[int], dim: int = 2, **given: Any) -> GPDraws:
    settings = {
        "kind": "objective", "dim": dim, "noise": NOISE, "lengthscale": None, "features": 256,
        "optimum_points": 512, "optimum_starts": 8,
    }  # fmt: skip
    made = GPDraws(**(settings | given))
    made.draw(seeds)
    return made


@pytest.mark.parametrize("dim", [1, 4, 16])
def test_levy_is_largest_where_it_is_said_to_be(dim: int) -> None:
    levy = LevyFunction(kind="objective", dim=dim, noise=NOISE)
    levy.draw([0, 1])
    x = torch.full((2, 1, dim), 0.55, dtype=torch.float64)
    torch.testing.assert_close(levy.values(x)[:, 0], levy.optimum(), rtol=0, atol=1e-12)
    u = torch.rand(2, 500, dim, dtype=torch.float64)
    assert (levy.values(u) < 0).all()
    # w = 5 x - 1.75 on the unit cube
    w = 5 * u[0, 0] - 1.75
    pi = torch.pi
    terms = ((w[:-1] - 1) ** 2 * (1 + 10 * torch.sin(pi * w[:-1] + 1) ** 2)).sum()
    ends = torch.sin(pi * w[0]) ** 2 + (w[-1] - 1) ** 2 * (1 + torch.sin(2 * pi * w[-1]) ** 2)
    assert float(levy.values(u)[0, 0]) == pytest.approx(-float(terms + ends))


def test_hartmann_is_largest_where_it_is_said_to_be() -> None:
    hartmann = Hartmann6(kind="objective", noise=NOISE)
    hartmann.draw([0])
    best = torch.tensor([0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573]).double()
    assert float(hartmann.values(best[None, None])) == pytest.approx(float(hartmann.optimum()), abs=1e-5)
    loss = lambda x: -float(hartmann.values(torch.from_numpy(x)[None, None]))  # noqa: E731
    found = minimize(loss, best.numpy(), bounds=[(0, 1)] * 6, method="L-BFGS-B")
    assert -found.fun == pytest.approx(float(hartmann.optimum()), abs=1e-5)


def test_a_draw_belongs_to_its_seed() -> None:
    x = torch.rand(1, 5, 2, dtype=torch.float64)
    alone, together = draws([7]), draws([3, 7])
    assert torch.equal(alone.values(x)[0], together.values(x.expand(2, -1, -1))[1])
    assert torch.equal(alone.optimum()[0], together.optimum()[1])
    assert not torch.equal(draws([3]).values(x), alone.values(x))


def test_draws_have_the_covariance_of_a_matern_kernel() -> None:
    """Over 4,000 draws, against the kernel by its Bessel function."""
    x = torch.tensor([[0.0, 0.0], [0.1, 0.05], [0.4, 0.3], [1.0, 1.0]]).double()
    generator = torch.Generator().manual_seed(0)
    values = torch.stack([draw_matern52(2, 0.35, 256, generator)(x) for _ in range(4000)])
    r = np.linalg.norm(x[0].numpy() - x[1:].numpy(), axis=1) / 0.35
    t = np.sqrt(5) * r
    exact = 2 ** (1 - 2.5) / gamma(2.5) * t**2.5 * kv(2.5, t)
    measured = (values[:, :1] * values[:, 1:]).mean(0).numpy()
    np.testing.assert_allclose(measured, exact, atol=0.06)
    assert float(values.var(0).mean()) == pytest.approx(1.0, abs=0.05)


def test_the_mean_over_the_cube_is_exact() -> None:
    function = draw_matern52(3, 0.4, 128, torch.Generator().manual_seed(1))
    x = torch.quasirandom.SobolEngine(3, scramble=True, seed=0).draw(2**16, dtype=torch.float64)
    assert float(function.mean()) == pytest.approx(float(function(x).mean()), abs=1e-3)


def test_the_gradient_is_that_of_the_values() -> None:
    function = draw_matern52(3, 0.4, 128, torch.Generator().manual_seed(2))
    x = torch.rand(5, 3, dtype=torch.float64).requires_grad_()
    value, slope = function.gradient(x.detach())
    expected = function(x)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), x)[0])


def test_the_optimum_is_above_a_fine_grid() -> None:
    made = draws([0, 1, 2])
    side = torch.linspace(0, 1, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side).expand(3, -1, -1)
    above = made.optimum() - made.values(grid).max(1).values
    assert (above >= -1e-12).all() and (above < 0.01).all()


def test_a_search_from_more_starts_finds_no_less() -> None:
    function = draw_matern52(2, 0.2, 256, torch.Generator().manual_seed(3))
    pool = torch.rand(256, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert largest(function, pool, 64) >= largest(function, pool, 1) - 1e-9


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"features": 7}, "dataset.features=7"),
        ({"lengthscale": 0.0}, "dataset.lengthscale=0.0"),
        ({"optimum_points": 4}, "dataset.optimum_points=4"),
        ({"noise": -1.0}, "dataset.noise=-1.0"),
    ],
)
def test_settings_out_of_range_get_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as raised:
        draws([0], **given)
    assert line in str(raised.value)
