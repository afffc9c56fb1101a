"""No result changes with the units of x, of f, of the gradient or of a row; degenerate and mixed sets."""

import itertools
from typing import Any

import numpy as np
import pytest
from saddle_toys import (
    KIND,
    ball,
    box,
    ellipsoids,
    framework,
    inside,
    polytope,
    programme,
    run,
    simplex,
    symmetric,
)
from scipy.optimize import minimize

from common.base.errors import UserError
from papers.saddle.choice import make_oracle
from papers.saddle.oracles import Answer, Kind, Oracle, OracleName, Tangent
from papers.saddle.problems import Array, MotzkinStraus
from papers.saddle.problems import symmetric as checked
from papers.saddle.sets import ConstraintSet, Polytope

KINDS: tuple[Kind, ...] = ("none", "leq", "eq")
SIZES = (1e-8, 1e-4, 1e7, 1e8)


def random_polytope(
    seed: int, dim: int = 3, rows: int = 4, size: float = 1.0, row_size: float = 1.0
) -> Polytope:
    random = np.random.default_rng(seed)
    normals, offsets = random.standard_normal((rows, dim)), random.uniform(0.2, 1.0, rows)
    return polytope(
        dim,
        normals=(row_size * normals).tolist(),
        offsets=(row_size * size * offsets).tolist(),
        half_width=size,
    )


def vertex_and_ray_minimum(region: Polytope, H: Array, x: Array, tangent: Tangent) -> float:
    """An upper bound of the least q that owes nothing to the oracles: along rays from x."""
    random = np.random.default_rng(0)
    assert region.vertices is not None
    ways = np.vstack([region.vertices - x, random.standard_normal((300, len(x)))])
    ways = np.vstack([ways, -ways])
    g = tangent.g / np.linalg.norm(tangent.g)
    if tangent.kind == "eq":
        ways = ways - np.outer(ways @ g, g)
    if tangent.kind == "leq":
        ways = ways[ways @ g <= 0]
    ways = ways[np.linalg.norm(ways, axis=1) > 1e-6 * np.linalg.norm(ways, axis=1).max()]
    ends = np.array([region.longest(x, way) * way for way in ways]).reshape(-1, len(x))
    return float(min(0.0, np.einsum("ki,ij,kj->k", ends, H, ends).min()))


# ---- the values that the present code got wrong


def test_far_points_are_projected_onto_the_set() -> None:
    region = polytope(2, normals=[[1.0, 1.0]], offsets=[1.0])
    for size in (1.0, 1e3, 1e5):
        np.testing.assert_allclose(region.project(np.array([3.0, 1.0]) * size), [1, 0], atol=1e-9)


@pytest.mark.parametrize("size", [1e-8, 1e-5, 1e5, 1e8])
def test_rows_may_be_scaled(size: float) -> None:
    normals = size * np.array([[1.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    region = polytope(2, half_width=None, normals=normals.tolist(), offsets=[size] * 5)
    assert region.diameter == pytest.approx(8**0.5) and region.vertices is not None
    assert len(region.vertices) == 5
    np.testing.assert_allclose(region.project(np.array([3.0, 1.0])), [1, 0], atol=1e-12)


def test_on_a_simplex_a_constant_gradient_is_no_tangent_condition() -> None:
    H, x = np.diag([0.0, 0.0, -1.0]), np.full(3, 1 / 3)
    for name, g in itertools.product(("enumeration", "branch_and_bound"), (1.0, 1e-8, 1e8, 0.1)):
        answer = make_oracle(name, simplex(3), 0)(H, x, Tangent("eq", np.full(3, g)))  # type: ignore[arg-type]
        assert answer.value == pytest.approx(-4 / 9) and answer.lower == pytest.approx(-4 / 9)


def test_on_a_simplex_only_the_part_of_the_gradient_along_it_counts() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        H, x, g = symmetric(random, 4), inside(simplex(4), random), random.standard_normal(4)
        oracle = make_oracle("auto", simplex(4), 0)
        plain, shifted = (oracle(H, x, Tangent("eq", g + c)).value for c in (0.0, 1e3))
        assert shifted == pytest.approx(plain, rel=1e-9)


def test_eq_leaves_the_barycentre_of_the_cycle_of_four() -> None:
    problem = MotzkinStraus(kind=KIND, radius=1.0, graph="cycle", dim=4, design_seed=0)
    method = framework(eps=0.01, gamma=0.01, tangent="eq")
    run(method, programme(problem, simplex(4)), problem.start())
    assert problem.value(method.x) == pytest.approx(0.5)


# ---- units

SETS: dict[str, Any] = {
    "ball": (lambda s: ball(3, s), ("trust_region", "lanczos")),
    "ellipsoid": (lambda s: ellipsoids(3, radius=s, count=1), ("trust_region", "shor")),
    "ellipsoids": (lambda s: ellipsoids(3, radius=s), ("shor",)),
    "box": (lambda s: box(3, s), ("enumeration", "shor")),
    "polytope": (lambda s: random_polytope(1, size=s), ("enumeration", "branch_and_bound")),
}


def ask(name: OracleName, region: ConstraintSet, size: float, f: float, g_size: float, kind: Kind) -> Answer:
    random = np.random.default_rng(3)
    H, g, x = symmetric(random, 3), random.standard_normal(3), 0.1 * random.uniform(-1, 1, 3)
    oracle: Oracle = make_oracle(name, region, 0)
    return oracle(f * H, size * x, Tangent(kind, g_size * g))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("which", "name"), [(w, n) for w, (_, names) in SETS.items() for n in names])
def test_an_answer_is_the_same_in_all_units(which: str, name: OracleName, kind: Kind) -> None:
    if name == "shor":
        pytest.importorskip("cvxpy")
    # a branch-and-bound takes seconds: one set of units tries all of them
    slow = name == "branch_and_bound"
    make = SETS[which][0]
    plain = ask(name, make(1.0), 1.0, 1.0, 1.0, kind)
    tolerance = 1e-6 if name == "shor" else 1e-9
    others = ((1e-8, 1, 1e-8), (1e8, 1, 1), (1, 1e-8, 1), (3e-5, 1e8, 1e8))
    for size, f, g_size in others[3:] if slow else others:
        region = make(size)
        answer = ask(name, region, size, f, g_size, kind)
        assert answer.value / f / size**2 == pytest.approx(plain.value, rel=tolerance)
        assert answer.lower / f / size**2 == pytest.approx(plain.lower, rel=1e-5)
        assert all(region.contains(u) for u in answer.points)
        assert answer.rho == pytest.approx(plain.rho, abs=1e-5)


@pytest.mark.parametrize("size", [1.0, *SIZES])
def test_over_random_polytopes_of_any_size_bounds_hold_and_answers_are_inside(size: float) -> None:
    random = np.random.default_rng(5)
    for seed in range(12):
        region = random_polytope(seed, size=size, row_size=10.0 ** (seed % 5 - 2))
        H, g = symmetric(random, 3), random.standard_normal(3)
        x = inside(region, random) if seed % 3 else region.lmo(g)
        for kind in KINDS:
            tangent = Tangent(kind, g)
            answer = make_oracle("enumeration", region, 0)(H, x, tangent)
            assert answer.lower <= vertex_and_ray_minimum(region, H, x, tangent) + 1e-9 * size**2
            assert answer.value == pytest.approx(answer.lower, abs=1e-9 * size**2)
            lengths = np.linalg.norm(region.A, axis=1)
            for u in answer.points:
                assert ((region.A @ u - region.b) / lengths).max() <= 1e-11 * size
                along = g @ (u - x) / np.linalg.norm(g)
                assert kind == "none" or along <= 1e-11 * size
                assert kind != "eq" or along >= -1e-11 * size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("which", ["ball", "ellipsoid", "ellipsoids", "box", "polytope"])
def test_projection_and_linear_oracle_are_the_same_in_all_units(which: str, size: float) -> None:
    plain, scaled = (SETS[which][0](s) for s in (1.0, size))
    random = np.random.default_rng(4)
    for _ in range(10):
        y, g = 3 * random.standard_normal(3), random.standard_normal(3)
        assert scaled.contains(scaled.project(size * y)) and scaled.contains(scaled.lmo(g))
        np.testing.assert_allclose(scaled.project(size * y) / size, plain.project(y), atol=1e-9)
        np.testing.assert_allclose(scaled.lmo(1e-8 * g) / size, plain.lmo(g), atol=1e-7)
        assert not scaled.contains(size * (1 + 1e-7) * plain.project(10 * y))


# ---- projections


@pytest.mark.parametrize("seed", range(12))
def test_a_projection_is_that_of_a_quadratic_programme_and_meets_its_inequality(seed: int) -> None:
    """(y - z)'(v - z) <= 0 for all vertices v, with duplicated, redundant and zero rows."""
    random = np.random.default_rng(seed)
    dim, size = int(random.integers(2, 5)), 10.0 ** random.integers(-8, 9)
    normals, offsets = random.standard_normal((4, dim)), random.uniform(0.1, 1, 4)
    rows = np.vstack(
        [normals, normals[:2], 1e-5 * normals[:1], np.zeros((1, dim)), normals[:1] + normals[1:2]]
    )
    right = np.concatenate([offsets, offsets[:2], 1e-5 * offsets[:1], [0.0], [offsets[0] + offsets[1]]])
    region = polytope(dim, normals=rows.tolist(), offsets=(size * right).tolist(), half_width=size)
    assert region.vertices is not None
    for far in (0.5, 1.0, 3.0, 1e3, 1e6):
        y = far * size * random.standard_normal(dim)
        z = region.project(y)
        lengths = np.linalg.norm(region.A, axis=1)
        assert ((region.A @ z - region.b) / lengths).max() <= 1e-11 * size
        distance = float(np.linalg.norm(y - z))
        assert ((region.vertices - z) @ (y - z)).max() <= 1e-9 * size * distance
        assert np.array_equal(region.project(z), z) or np.linalg.norm(region.project(z) - z) <= 1e-11 * size
        if far <= 3:
            A, b = region.A / lengths[:, None], region.b / lengths / size
            best = minimize(
                lambda v: float(np.sum((v - y / size) ** 2)),  # noqa: B023
                np.zeros(dim),
                jac=lambda v: 2 * (v - y / size),  # noqa: B023
                constraints=[{"type": "ineq", "fun": lambda v: b - A @ v, "jac": lambda v: -A}],  # noqa: B023
                method="SLSQP",
                options={"ftol": 1e-14},
            )
            np.testing.assert_allclose(z / size, best.x, atol=1e-5)


def test_a_simplex_takes_points_from_any_distance() -> None:
    for size in (1.0, 1e8, 1e17):
        z = simplex(3).project(np.array([1.0, -2.0, 0.5]) * size + size)
        assert simplex(3).contains(z) and z.sum() == pytest.approx(1)
    np.testing.assert_allclose(simplex(3).project(np.full(3, 1e17)), 1 / 3)


# ---- degenerate and mixed sets


def test_a_flat_set_has_the_values_of_its_own_dimension() -> None:
    """The segment x1 + x2 = 1 in the square: -(u1 - u2)^2 from the middle, whatever the gradient."""
    region = polytope(
        2,
        normals=[[1.0, 1.0], [-1.0, -1.0], [1.0, 0.0], [-1.0, 0.0]],
        offsets=[1.0, -1.0, 1.0, 0.0],
        half_width=None,
    )
    H, x = np.array([[-1.0, 1.0], [1.0, -1.0]]), np.array([0.5, 0.5])
    for name, kind, g in itertools.product(("enumeration", "branch_and_bound"), KINDS, (1.0, 0.3)):
        answer = make_oracle(name, region, 0)(H, x, Tangent(kind, np.array([g, g])))  # type: ignore[arg-type]
        assert answer.value == pytest.approx(-1) and answer.lower == pytest.approx(-1)
    np.testing.assert_allclose(region.project(np.array([5.0, 5.0])), [0.5, 0.5], atol=1e-12)


@pytest.mark.parametrize("scales", [(1e8, 1e-8), (1e-8, 1.0), (1.0, 1e6)])
def test_coordinates_may_have_units_of_their_own(scales: tuple[float, float]) -> None:
    random, S = np.random.default_rng(6), np.array(scales)
    plain = polytope(2, half_width=None, normals=[[1, 1], [1, -2], [-1, 0.5], [-1, -1]], offsets=[1, 1, 1, 1])
    rows = plain.A / S
    mixed = polytope(2, half_width=None, normals=rows.tolist(), offsets=[1.0] * 4)
    round_set = ellipsoids(2, matrices=[np.diag(1 / S**2).tolist()])
    unit = ellipsoids(2, matrices=[np.eye(2).tolist()])
    for kind in KINDS:
        H, g, x = symmetric(random, 2), random.standard_normal(2), 0.2 * random.standard_normal(2)
        inner = Tangent(kind, g)
        outer = Tangent(kind, g / S)
        for name, a, b in (
            ("enumeration", plain, mixed),
            ("branch_and_bound", plain, mixed),
            ("trust_region", unit, round_set),
        ):
            expected = make_oracle(name, a, 0)(H, x, inner)  # type: ignore[arg-type]
            found = make_oracle(name, b, 0)(H / np.outer(S, S), x * S, outer)  # type: ignore[arg-type]
            assert found.value == pytest.approx(expected.value, rel=1e-6)
            assert found.lower == pytest.approx(expected.lower, rel=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-3])
def test_a_set_far_from_the_origin_is_measured_by_its_own_size(size: float) -> None:
    centre = np.array([3.0, -2.0])
    normals = np.array([[1.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    offsets = normals @ centre + size * np.array([1.0, 1, 1, 1, 1])
    region = polytope(2, half_width=None, normals=normals.tolist(), offsets=offsets.tolist())
    assert region.diameter == pytest.approx(size * 8**0.5, rel=1e-6)
    assert not region.contains(centre + size * 1.01) and region.contains(centre)
    H = np.diag([-1.0, 0.5])
    answer = make_oracle("auto", region, 0)(H, centre, Tangent("none", np.ones(2)))
    assert answer.lower == pytest.approx(-(size**2), rel=1e-6)
    np.testing.assert_allclose(
        (region.project(centre + size * np.array([3.0, 1.0])) - centre) / size, [1, 0], atol=1e-6
    )


@pytest.mark.parametrize("region", [ball(3), ellipsoids(3), box(3), simplex(3), random_polytope(2)])
def test_without_curvature_or_gradient_nothing_is_divided_by_nothing(region: ConstraintSet) -> None:
    x, zero = inside(region, np.random.default_rng(7)), np.zeros(3)
    for kind in KINDS:
        answer = make_oracle("auto", region, 0)(np.zeros((3, 3)), x, Tangent(kind, zero))
        assert (answer.value, answer.lower, answer.rho) == (0.0, 0.0, 1.0)
        free = make_oracle("auto", region, 0)(-np.eye(3), x, Tangent(kind, zero))
        assert free.value == make_oracle("auto", region, 0)(-np.eye(3), x, Tangent("none", zero)).value < 0


def test_many_rows_leave_the_linear_oracle_inside() -> None:
    random = np.random.default_rng(8)
    for size in (1.0, 1e-8, 1e8):
        normals = random.standard_normal((30, 8))
        region = polytope(8, normals=normals.tolist(), offsets=(size * np.ones(30)).tolist(), half_width=size)
        assert region.vertices is None
        g = random.standard_normal(8)
        v, z = region.lmo(g), region.project(3 * size * random.standard_normal(8))
        assert region.contains(v) and region.contains(z)
        assert ((region.A @ v - region.b) / np.linalg.norm(region.A, axis=1)).max() <= 1e-11 * size


# ---- refusals


def test_symmetry_and_convexity_are_judged_by_the_matrix_own_size() -> None:
    with pytest.raises(UserError, match="not symmetric"):
        checked(1e-12 * np.array([[0.0, 1.0], [-1.0, 0.0]]), "H")
    with pytest.raises(UserError, match="not convex"):
        ellipsoids(2, matrices=[[[1e-16, 0.0], [0.0, -1e-16]]])
    assert ellipsoids(2, matrices=[[[1e16, 0.0], [0.0, 2e-16]]]).reach == pytest.approx([1e-8, 5e7 * 2**0.5])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"normals": [[0.0, 0.0]], "offsets": [-1.0]}, "a row of zeros has an offset below 0"),
        ({"normals": [[float("nan"), 0.0]]}, "finite numbers"),
        ({"normals": [], "offsets": [], "half_width": None}, "unbounded"),
        ({"normals": [[1e-8, 0.0]], "offsets": [1e-8], "half_width": None}, "unbounded"),
        ({"normals": [[1e-8, 0.0]], "offsets": [-3e-8]}, "empty"),
        ({"normals": [[1.0, 1.0]], "offsets": [-2e8], "half_width": 1e8}, "single point"),
        ({"normals": [[1.0, 1.0]], "offsets": [-3e-8], "half_width": 1e-8}, "empty"),
    ],
)
def test_a_polytope_that_is_none_is_refused_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        polytope(2, **given)
    assert "\n" not in str(error.value)
