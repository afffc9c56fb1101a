"""The oracles of the quadratic programme against semidefinite programmes, each other and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saddle_toys import ball, box, ellipsoids, inside, polytope, simplex, symmetric

from common.base.errors import UserError
from papers.saddle import shor
from papers.saddle.choice import make_oracle
from papers.saddle.oracles import Kind, LanczosOracle, Tangent, TrustRegionOracle
from papers.saddle.polyhedral import BranchAndBoundOracle, EnumerationOracle
from papers.saddle.problems import Array
from papers.saddle.sets import ConstraintSet
from papers.saddle.shor import make_shor
from papers.saddle.trust_region import lanczos_trust_region, local_minimiser, trust_region

cp = pytest.importorskip("cvxpy")

KINDS: tuple[Kind, ...] = ("none", "leq", "eq")


def s_lemma(H: Array, h: Array, radius: float) -> float:
    """min s'Hs + 2h's over the ball as max t: [[H + mu I, h], [h', -mu R^2 - t]] psd, mu >= 0."""
    d = len(h)
    t, mu = cp.Variable(), cp.Variable(nonneg=True)
    corner = cp.reshape(-mu * radius**2 - t, (1, 1), order="C")
    block = cp.bmat([[H + mu * np.eye(d), h[:, None]], [h[None], corner]])
    precise = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}
    return float(cp.Problem(cp.Maximize(t), [block >> 0]).solve(solver=cp.CLARABEL, **precise))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("hard", [False, True])
def test_the_trust_region_value_is_that_of_the_s_lemma(seed: int, hard: bool) -> None:
    random = np.random.default_rng(seed)
    H, h = symmetric(random, 5), random.standard_normal(5)
    if hard:
        v = np.linalg.eigh(H)[1][:, 0]
        h = 0.05 * (h - v * (v @ h))
    assert trust_region(H, h, 1.3).value == pytest.approx(s_lemma(H, h, 1.3), rel=1e-7, abs=1e-7)


numbers = st.floats(-3, 3, allow_nan=False).map(lambda x: round(x, 3))


@settings(max_examples=120, deadline=None)
@given(
    values=st.lists(numbers, min_size=2, max_size=5),
    part=st.lists(numbers, min_size=5, max_size=5),
    radius=st.sampled_from([1e-3, 0.5, 1.0, 7.0]),
    turn=st.integers(0, 5),
)
def test_optimality_conditions_hold_with_repeated_eigenvalues_and_missing_parts(
    values: list[float], part: list[float], radius: float, turn: int
) -> None:
    d = len(values)
    Q = np.linalg.qr(np.random.default_rng(turn).standard_normal((d, d)))[0] if turn else np.eye(d)
    H = (Q * np.array(values)) @ Q.T
    H, h = (H + H.T) / 2, Q @ np.array(part[:d])
    found = trust_region(H, h, radius)
    scale = 1 + np.linalg.norm(h) + np.abs(values).max() * radius
    for s in found.candidates:
        assert np.linalg.norm((H + found.mu * np.eye(d)) @ s + h) <= 1e-8 * scale
        assert np.linalg.norm(s) <= radius * (1 + 1e-12)
        assert found.mu * (radius - np.linalg.norm(s)) <= 1e-8 * scale
    assert found.mu >= 0
    assert np.linalg.eigvalsh(H + found.mu * np.eye(d))[0] >= -1e-9 * scale
    assert found.value == pytest.approx(found.lower, abs=1e-8 * scale * max(radius, 1))


def test_at_a_saddle_both_signs_of_the_lowest_eigenvector_are_optimal() -> None:
    found = trust_region(np.diag([1.0, -1.0]), np.zeros(2), 2.0)
    assert found.hard and found.value == -4.0
    assert sorted(found.candidates[:, 1]) == [-2.0, 2.0]


def test_a_part_too_small_to_see_keeps_the_problem_accurate() -> None:
    H, h = np.diag([-1.0, 1.0, 2.0]), np.array([1e-13, 0.3, -0.2])
    found = trust_region(H, h, 1.0)
    assert np.linalg.norm(found.candidates[0]) == pytest.approx(1.0, abs=1e-12)
    assert found.value - found.lower <= 1e-12
    assert found.candidates[0][0] < 0


@pytest.mark.parametrize("scale", [0.3, 1e-9])
def test_the_local_minimiser_in_the_plane_is_that_of_a_scan(scale: float) -> None:
    random, found = np.random.default_rng(0), 0
    angles = np.linspace(0, 2 * np.pi, 4001)[:-1]
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for _ in range(60):
        H, h = np.diag(random.uniform(-2, 1, 2)), scale * random.standard_normal(2)
        q = np.einsum("ni,ij,nj->n", circle, H, circle) + 2 * circle @ h
        lows = circle[(q < np.roll(q, 1)) & (q < np.roll(q, -1))]
        best = trust_region(H, h, 1.0).candidates[0]
        others = [p for p in lows if -(H @ p + h) @ p >= 0 and np.linalg.norm(p - best) > 0.02]
        local = local_minimiser(H, h, 1.0)
        assert (local is not None) == bool(others)
        if local is not None:
            found += 1
            assert np.linalg.norm(local - others[0]) < 0.01
    assert found > 10


@pytest.mark.parametrize("kind", KINDS)
def test_ball_and_halfspace_are_exact_by_the_semidefinite_programme(kind: Kind) -> None:
    """Shor's bound with the product of ball and halfspace is exact for one ball."""
    random = np.random.default_rng(4)
    for _ in range(12):
        d = int(random.integers(2, 6))
        H, g, x = symmetric(random, d), random.standard_normal(d), inside(ball(d), random)
        answer = make_oracle("trust_region", ball(d), 0)(H, x, Tangent(kind, g))
        unit = ellipsoids(d, matrices=[np.eye(d).tolist()])
        bound = make_shor(unit, 0)(H, x, Tangent(kind, g)).lower
        assert answer.value == pytest.approx(bound, rel=1e-6, abs=1e-5)
        assert answer.lower == pytest.approx(answer.value, abs=1e-9)
        check_feasible(ball(d), x, answer.points, Tangent(kind, g))


def check_feasible(region: ConstraintSet, x: Array, points: Array, tangent: Tangent) -> None:
    for u in points:
        assert region.contains(u)
        assert tangent.unit.allows(u - x)


def test_one_ellipsoid_is_a_ball_in_other_coordinates() -> None:
    random = np.random.default_rng(5)
    region = ellipsoids(4, count=1)
    for kind in KINDS:
        H, g, x = symmetric(random, 4), random.standard_normal(4), inside(region, random)
        answer = make_oracle("auto", region, 0)(H, x, Tangent(kind, g))
        bound = make_shor(region, 0)(H, x, Tangent(kind, g))
        assert answer.value == pytest.approx(bound.lower, rel=1e-5, abs=1e-5)
        check_feasible(region, x, answer.points, Tangent(kind, g))


@pytest.mark.parametrize("kind", KINDS)
def test_shors_answer_is_feasible_and_between_its_bound_and_what_a_search_finds(kind: Kind) -> None:
    random, region = np.random.default_rng(6), ellipsoids(6)
    for _ in range(3):
        H, g, x = symmetric(random, 6), random.standard_normal(6), inside(region, random)
        tangent = Tangent(kind, g)
        answer = make_oracle("auto", region, 0)(H, x, tangent)
        check_feasible(region, x, answer.points, tangent)
        assert answer.lower <= answer.value < 0
        assert answer.rho > 0.9
        moves = random.standard_normal((2_000, 6))
        if kind == "eq":
            moves -= np.outer(moves @ g, g) / (g @ g)
        moves *= np.where((kind == "leq") & (moves @ g > 0), -1.0, 1.0)[:, None]
        tried = [region.longest(x, p) * p for p in moves]
        assert answer.lower <= min(float(p @ H @ p) for p in tried)


def test_a_solver_failure_leaves_a_bound_that_holds_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    random, region = np.random.default_rng(7), ellipsoids(5)
    H, x, g = symmetric(random, 5), inside(region, random), random.standard_normal(5)
    good = make_shor(region, 0)(H, x, Tangent("leq", g))

    def fail(self: object, **_: object) -> None:
        raise cp.SolverError("out of memory")

    monkeypatch.setattr(cp.Problem, "solve", fail)
    answer = make_shor(region, 0)(H, x, Tangent("leq", g))
    assert answer.failed == "Clarabel failed: out of memory"
    assert answer.lower == pytest.approx(np.linalg.eigvalsh(H)[0] * region.diameter**2)
    assert answer.lower < good.lower and answer.value < 0
    check_feasible(region, x, answer.points, Tangent("leq", g))


def test_without_cvxpy_the_advice_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cvxpy", None)
    with pytest.raises(UserError, match="this oracle needs cvxpy"):
        shor._cvxpy()


POLYHEDRA = [box(3), simplex(4), polytope(3, offsets=[0.5])]


@pytest.mark.parametrize("region", POLYHEDRA, ids=lambda region: region.name)
@pytest.mark.parametrize("kind", KINDS)
def test_enumeration_and_branch_and_bound_agree(region: ConstraintSet, kind: Kind) -> None:
    random = np.random.default_rng(8)
    for _ in range(3):
        d = region.dim
        H, g, x = symmetric(random, d), random.standard_normal(d), inside(region, random)
        exact = make_oracle("enumeration", region, 0)(H, x, Tangent(kind, g))
        searched = make_oracle("branch_and_bound", region, 0)(H, x, Tangent(kind, g))
        assert isinstance(make_oracle("auto", region, 0), EnumerationOracle)
        assert searched.value == pytest.approx(exact.value, abs=1e-6)
        assert searched.lower <= exact.value + 1e-9 and searched.rho > 0.999
        for answer in (exact, searched):
            check_feasible(region, x, answer.points, Tangent(kind, g))


def test_a_branch_and_bound_that_is_cut_short_still_bounds_from_below() -> None:
    random, region = np.random.default_rng(9), box(3)
    H, x, g = symmetric(random, 3), 0.3 * np.ones(3), random.standard_normal(3)
    exact = EnumerationOracle(region)(H, x, Tangent("eq", g))
    short = BranchAndBoundOracle(region, most=1)(H, x, Tangent("eq", g))
    assert short.lower <= exact.value <= short.value + 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("region", [box(3), simplex(3)], ids=["box", "simplex"])
def test_enumeration_is_no_worse_than_a_fine_grid_and_close_to_it(region: ConstraintSet, kind: Kind) -> None:
    random = np.random.default_rng(10)
    H, g, x = symmetric(random, 3), random.standard_normal(3), inside(region, random)
    if region.name == "box":
        grid = np.array(list(itertools.product(np.linspace(-1, 1, 41), repeat=3)))
    else:
        grid = np.array([(i, j, 120 - i - j) for i in range(121) for j in range(121 - i)]) / 120
    along = (grid - x) @ g / np.linalg.norm(g)
    grid = grid[{"none": along < 9, "leq": along <= 0, "eq": np.abs(along) <= 1e-2}[kind]]
    moves = grid - x
    best = float(np.einsum("ki,ij,kj->k", moves, H, moves).min())
    answer = EnumerationOracle(region)(H, x, Tangent(kind, g))  # type: ignore[arg-type]
    assert answer.value <= best + (0.2 if kind == "eq" else 1e-12)
    assert answer.value == pytest.approx(best, abs=0.35)


def test_the_concave_quadratic_on_a_box_is_least_at_a_vertex() -> None:
    random = np.random.default_rng(11)
    H = -(lambda A: A @ A.T)(random.standard_normal((4, 4)))
    x = 0.1 * random.standard_normal(4)
    region = box(4)
    assert region.vertices is not None
    moves = region.vertices - x
    best = np.einsum("ki,ij,kj->k", moves, H, moves).min()
    assert EnumerationOracle(region)(H, x, Tangent("none", x)).value == pytest.approx(best, rel=1e-12)


def test_from_the_barycentre_the_simplex_oracle_finds_the_motzkin_straus_value() -> None:
    """Over the 5-cycle q(u) = 2 (f(u) - f(x)) there, and min f = 1/2."""
    A = np.eye(5) + np.roll(np.eye(5), 1, 0) + np.roll(np.eye(5), -1, 0)
    x = np.full(5, 0.2)
    answer = EnumerationOracle(simplex(5))(2 * A, x, Tangent("none", np.zeros(5)))
    assert answer.value == pytest.approx(2 * (0.5 - x @ A @ x))


def test_a_convex_hessian_gives_zero_everywhere() -> None:
    for region in (ball(3), ellipsoids(3), *POLYHEDRA):
        x = inside(region, np.random.default_rng(12))
        answer = make_oracle("auto", region, 0)(np.eye(region.dim), x, Tangent("leq", np.ones(region.dim)))
        assert answer.value == 0 and answer.lower == pytest.approx(0, abs=1e-9)
        assert answer.rho == 1.0
        assert answer.points.tolist() == [x.tolist()]


@pytest.mark.parametrize("seed", range(20))
def test_a_hessian_that_vanishes_on_the_plane_leaves_rounding_and_no_refusal(seed: int) -> None:
    g = np.random.default_rng(seed).normal(size=5)
    x = 0.1 * g / np.linalg.norm(g)
    # u'Hu is -(g'u)^2, which is one value on all of the plane g'u = g'x
    answer = TrustRegionOracle(ball(5))(-np.outer(g, g), x, Tangent("eq", g))
    assert answer.value == pytest.approx(0.0, abs=1e-12 * float(g @ g))


@pytest.mark.parametrize("hard", [False, True])
def test_lanczos_solves_what_the_eigendecomposition_solves(hard: bool) -> None:
    random = np.random.default_rng(13)
    H, h = symmetric(random, 120), random.standard_normal(120)
    if hard:
        v = np.linalg.eigh(H)[1][:, 0]
        h -= v * (v @ h)
        h *= 0.1
    exact = trust_region(H, h, 1.0)
    found = lanczos_trust_region(lambda v: H @ v, h, 1.0, seed=0)
    assert found.value == pytest.approx(exact.value, rel=1e-9)
    assert found.lower <= exact.value + 1e-9 * abs(exact.value)
    assert found.lower == pytest.approx(exact.value, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_lanczos_in_the_halfspace_is_feasible_and_bounded(kind: Kind) -> None:
    random = np.random.default_rng(14)
    H, g, x = symmetric(random, 60), random.standard_normal(60), inside(ball(60), random)
    exact = make_oracle("trust_region", ball(60), 0)(H, x, Tangent(kind, g))
    found = LanczosOracle(ball(60), 0)(H, x, Tangent(kind, g))
    check_feasible(ball(60), x, found.points, Tangent(kind, g))
    assert found.value == pytest.approx(exact.value, rel=1e-5)
    assert found.lower <= exact.value * (1 - 1e-9) + 1e-9


@pytest.mark.parametrize(
    ("name", "region", "said"),
    [
        ("trust_region", box(2), "method.oracle=trust_region does not solve over model=box"),
        ("enumeration", box(14), "faces are more than"),
        ("shor", simplex(3), "valid on ellipsoids and box"),
        ("lanczos", ellipsoids(3), "valid: auto, shor"),
        ("branch_and_bound", ball(2), "valid: auto, trust_region"),
    ],
)
def test_an_oracle_that_a_set_does_not_have_is_refused(name: str, region: ConstraintSet, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_oracle(name, region, 0)  # type: ignore[arg-type]


def test_a_hessian_that_is_not_symmetric_or_not_finite_is_refused() -> None:
    for region in (ball(2), simplex(2)):
        with pytest.raises(UserError, match="the Hessian is not symmetric"):
            make_oracle("auto", region, 0)(
                np.array([[0.0, 1.0], [0.0, 0.0]]), region.lmo(np.ones(2)), Tangent("none", np.ones(2))
            )
    with pytest.raises(UserError, match="not finite"):
        trust_region(np.full((2, 2), np.nan), np.zeros(2), 1.0)
    with pytest.raises(UserError, match="radius -1"):
        trust_region(np.eye(2), np.zeros(2), -1.0)
