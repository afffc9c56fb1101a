"""The problems B1 to B7: derivatives, constants over the whole set, saddles and known least values."""

import numpy as np
import pytest
from saddle_toys import KIND, b1, b2, ball, box, ellipsoids, inside, pairs
from scipy.linalg import eigh

from common.base.errors import UserError
from papers.saddle.problems import IndefiniteQuadratic, MotzkinStraus, symmetric

PAIRS = pairs()


@pytest.mark.parametrize("name", PAIRS)
def test_gradient_and_hessian_are_those_of_finite_differences(name: str) -> None:
    problem, region = PAIRS[name]
    random, h = np.random.default_rng(0), 1e-6
    for _ in range(5):
        x = inside(region, random)
        axes = h * np.eye(problem.dim)
        slope = [(problem.value(x + a) - problem.value(x - a)) / (2 * h) for a in axes]
        curved = [(problem.gradient(x + a) - problem.gradient(x - a)) / (2 * h) for a in axes]
        np.testing.assert_allclose(problem.gradient(x), slope, atol=1e-7)
        np.testing.assert_allclose(problem.hessian(x), curved, atol=1e-7)


@pytest.mark.parametrize("name", PAIRS)
def test_the_constants_hold_on_the_whole_set(name: str) -> None:
    problem, region = PAIRS[name]
    L, M = problem.lipschitz(region)
    random = np.random.default_rng(1)
    points = [inside(region, random) for _ in range(150)]
    points += [region.lmo(random.standard_normal(problem.dim)) for _ in range(150)]
    for x, y in zip(points, points[::-1], strict=True):
        distance = float(np.linalg.norm(x - y))
        assert distance <= region.diameter + 1e-12
        assert np.linalg.norm(problem.hessian(x), 2) <= L + 1e-9
        assert np.linalg.norm(problem.hessian(x) - problem.hessian(y), 2) <= M * distance + 1e-9


def test_b1_has_the_constants_of_the_closed_form() -> None:
    assert b1().lipschitz(ball(2, 2.0)) == (11.0, 12.0)
    assert ball(2, 2.0).diameter == 4.0


@pytest.mark.parametrize("name", [n for n in PAIRS if n != "b5"])
def test_the_saddle_is_a_first_order_point_with_negative_curvature(name: str) -> None:
    problem, region = PAIRS[name]
    g = problem.gradient(problem.saddle)
    assert float(g @ (problem.saddle - region.lmo(g))) == pytest.approx(0.0, abs=1e-12)
    assert np.linalg.eigvalsh(problem.hessian(problem.saddle))[0] < -0.1


@pytest.mark.parametrize("name", [n for n in PAIRS if n != "b2_ellipsoids"])
def test_no_point_of_the_set_is_below_the_known_least_value_and_some_reach_it(name: str) -> None:
    problem, region = PAIRS[name]
    least = problem.minimum(region)
    assert least is not None
    L, random, best = problem.lipschitz(region)[0], np.random.default_rng(2), np.inf
    for _ in range(20):
        x = inside(region, random)
        for _ in range(800):
            x = region.project(x - problem.gradient(x) / L)
        best = min(best, problem.value(x))
    assert best == pytest.approx(least, abs=1e-5)
    assert best >= least - 1e-9


def test_b7s_saddle_is_where_projected_gradient_ends_from_an_open_set() -> None:
    problem, region = PAIRS["b7"]
    random = np.random.default_rng(3)
    for _ in range(10):
        x = region.project(problem.start() + 0.02 * random.standard_normal(2))
        for _ in range(800):
            x = region.project(x - problem.gradient(x) / problem.lipschitz(region)[0])
        np.testing.assert_allclose(x, 0, atol=1e-6)


def test_the_least_value_over_one_ellipsoid_is_a_generalised_eigenvalue() -> None:
    problem, region = b2(), ellipsoids(5, count=1)
    assert problem.minimum(region) == pytest.approx(eigh(problem.H, region.forms[0])[0][0] / 2)


def test_over_the_petersen_graph_the_least_value_is_a_quarter_and_over_the_cycle_a_half() -> None:
    assert PAIRS["b6"][0].minimum(PAIRS["b6"][1]) == 0.25
    cycle = MotzkinStraus(kind=KIND, radius=1.0, graph="cycle", dim=5, design_seed=0)
    assert cycle.minimum(PAIRS["b6"][1]) == 0.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"A": [[0.0, 1.0], [2.0, 0.0]]}, "dataset.A is not symmetric"),
        ({"A": [[0.0, 1.0]]}, "dataset.A has shape"),
        ({"A": [[float("nan"), 0.0], [0.0, 1.0]]}, "not finite"),
        ({"A": [[1.0]]}, "give dim=2 rows"),
        ({"radius": 0.0}, "dataset.radius=0.0"),
        ({"negative": 3}, "dataset.negative=3"),
        ({"kind": "online"}, "dataset.kind=online"),
    ],
)
def test_bad_input_is_refused_in_one_line(given: dict[str, object], said: str) -> None:
    settings = {
        "kind": KIND, "radius": 1.0, "dim": 2, "negative": 1, "design_seed": 0, "A": None,
    }  # fmt: skip
    with pytest.raises(UserError, match=said) as error:
        IndefiniteQuadratic(**(settings | given))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_matrix_symmetric_up_to_rounding_is_taken() -> None:
    H = symmetric(np.array([[1.0, 2.0], [2.0 + 1e-13, 1.0]]), "H")
    assert (H == H.T).all()


def test_a_saddle_problem_has_no_examples() -> None:
    with pytest.raises(UserError, match="no examples"):
        b1().loader(0)
    assert b1().size("train") == 0
    assert box(2).contains(np.zeros(2))
