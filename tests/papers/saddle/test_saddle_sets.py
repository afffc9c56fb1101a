"""The constraint sets: membership, linear oracles, projections, diameters; refusals."""

import numpy as np
import pytest
from saddle_toys import ball, box, ellipsoids, inside, polytope, simplex

from common.base.errors import UserError
from papers.saddle.sets import ConstraintSet, Ellipsoids, Polyhedron

cp = pytest.importorskip("cvxpy")

SETS: dict[str, ConstraintSet] = {
    "ball": ball(4, 1.5),
    "box": box(4, 0.5),
    "simplex": simplex(5),
    "ellipsoids": ellipsoids(5),
    "polytope": polytope(3, offsets=[0.5]),
}


def rules(region: ConstraintSet, v: "cp.Variable") -> list[object]:
    """The set in cvxpy, by its definition."""
    if isinstance(region, Ellipsoids):
        return [cp.quad_form(v, E) <= 1 for E in region.forms]
    if isinstance(region, Polyhedron):
        equal = [] if region.equality is None else [region.equality[0] @ v == region.equality[1]]
        return [region.A @ v <= region.b, *equal]
    return [cp.norm(v) <= region.radius]


@pytest.mark.parametrize("name", SETS)
def test_linear_oracle_and_projection_are_those_of_cvxpy(name: str) -> None:
    region, random = SETS[name], np.random.default_rng(0)
    for _ in range(4):
        g = random.standard_normal(region.dim)
        v = cp.Variable(region.dim)
        least = cp.Problem(cp.Minimize(g @ v), rules(region, v)).solve(solver=cp.CLARABEL)
        assert region.contains(region.lmo(g))
        assert g @ region.lmo(g) == pytest.approx(least, abs=1e-6)
        y = 2 * random.standard_normal(region.dim)
        cp.Problem(cp.Minimize(cp.sum_squares(v - y)), rules(region, v)).solve(solver=cp.CLARABEL)
        assert region.contains(region.project(y))
        np.testing.assert_allclose(region.project(y), v.value, atol=2e-4)


@pytest.mark.parametrize("name", SETS)
def test_a_projection_meets_its_inequality_to_rounding(name: str) -> None:
    """(y - z)'(v - z) <= 0 for all v of the set."""
    region, random = SETS[name], np.random.default_rng(1)
    for _ in range(20):
        y = 2 * random.standard_normal(region.dim)
        z = region.project(y)
        assert (y - z) @ (region.lmo(z - y) - z) <= 1e-9


@pytest.mark.parametrize("name", SETS)
def test_the_longest_step_ends_on_the_boundary(name: str) -> None:
    region, random = SETS[name], np.random.default_rng(2)
    for _ in range(20):
        x = inside(region, random)
        p = inside(region, random) - x
        t = region.longest(x, p)
        assert region.excess(x + t * p) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_radius_and_reach_bound_every_point(name: str) -> None:
    region, random = SETS[name], np.random.default_rng(3)
    for _ in range(50):
        v = region.lmo(random.standard_normal(region.dim))
        assert np.linalg.norm(v) <= region.radius + 1e-9
        assert (np.abs(v) <= region.reach + 1e-9).all()


def test_faces_of_box_and_simplex_are_counted_in_full() -> None:
    assert sum(len(faces) for faces in box(3).active_sets()) == 27
    assert sum(len(faces) for faces in simplex(4).active_sets()) == 2**4 - 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ball(2, 0.0), "model.radius=0.0: the set is empty, a point or unbounded"),
        (lambda: ball(2, float("inf")), "model.radius=inf"),
        (lambda: box(2, -1.0), "model.half_width=-1.0"),
        (lambda: polytope(2, half_width=None), "unbounded"),
        (lambda: polytope(2, offsets=[-4.0]), "empty"),
        (lambda: polytope(2, offsets=[0.0, 1.0]), "a row of 2 numbers"),
        (lambda: polytope(2, offsets=[-2.0]), "single point"),
        (lambda: ellipsoids(2, matrices=[[[1.0, 0.5], [0.0, 1.0]]]), "not symmetric"),
        (lambda: ellipsoids(2, matrices=[[[1.0, 0.0], [0.0, -1.0]]]), "not convex"),
        (lambda: ellipsoids(2, matrices=[[[1.0, 0.0], [0.0, 0.0]]]), "unbounded"),
        (lambda: ellipsoids(2, count=0), "model.count=0"),
        (lambda: simplex(1), "a point"),
    ],
)
def test_an_empty_unbounded_or_ill_formed_set_is_refused_in_one_line(make: object, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        make()  # type: ignore[operator]
    assert "\n" not in str(error.value)
