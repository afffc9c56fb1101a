"""The min-norm point: closed forms, an independent solver, its certificate, the problem's properties."""

from collections.abc import Callable
from itertools import pairwise

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.base.errors import UserError
from papers.mgda import min_norm
from papers.mgda.min_norm import (
    duality_gap,
    frank_wolfe_weights,
    min_norm_weights,
    projected_gradient_weights,
    simplex_projection,
    two_task_weight,
)


def gradients(tasks: int, numbers: int, seed: int = 0) -> Tensor:
    return torch.randn(tasks, numbers, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(vectors: Tensor) -> Tensor:
    return vectors @ vectors.transpose(-1, -2)


def value(matrix: Tensor, weights: Tensor) -> Tensor:
    return (weights * (matrix @ weights.unsqueeze(-1)).squeeze(-1)).sum(-1)


def scale(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).mean(-1)


# vectors, weights (None where there are many), |u|^2
KNOWN = [
    ([[1.0, 0.0], [0.0, 2.0]], [0.8, 0.2], 0.8),
    ([[1.0, 0.0], [3.0, 0.0]], [1.0, 0.0], 1.0),
    ([[3.0, 0.0], [1.0, 0.0]], [0.0, 1.0], 1.0),
    ([[1.0, 2.0], [1.0, 2.0]], None, 5.0),
    ([[0.0, 0.0], [1.0, 2.0]], [1.0, 0.0], 0.0),
    ([[0.0, 0.0], [0.0, 0.0]], None, 0.0),
    ([[-1.0, 0.0], [2.0, 0.0]], [2 / 3, 1 / 3], 0.0),
    ([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 4.0]], [16 / 21, 4 / 21, 1 / 21], 16 / 21),
    ([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]], [0.5, 0.5, 0.0], 0.5),
    ([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], None, 1.0),
    ([[2.0, 0.0], [1.0, 0.0], [1.0, 3.0]], [0.0, 1.0, 0.0], 1.0),
    ([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [1.0, 0.0, 0.0], 0.0),
    ([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], None, 0.0),
    ([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]], [1 / 3, 1 / 3, 1 / 3], 0.0),
    ([[7.0]], [1.0], 49.0),
]


@pytest.mark.parametrize(("vectors", "weights", "least"), KNOWN)
def test_the_solution_is_the_known_one(
    vectors: list[list[float]], weights: list[float] | None, least: float
) -> None:
    matrix = gram(torch.tensor(vectors, dtype=torch.float64))
    found = min_norm_weights(matrix)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    assert value(matrix, found).item() == pytest.approx(least, abs=1e-14)
    if weights is not None:
        assert found.tolist() == pytest.approx(weights, abs=1e-12)


def test_a_dominated_task_gets_exactly_nothing() -> None:
    vectors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 2.0, 1.0], [3.0, 0.0, 1.0]])
    assert min_norm_weights(gram(vectors)).tolist() == [0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("tasks", [2, 3, 7, 40])
def test_orthogonal_gradients_are_weighted_by_their_inverse_squares(tasks: int) -> None:
    squares = torch.logspace(-3, 4, tasks, dtype=torch.float64)
    found = min_norm_weights(torch.diag(squares))
    torch.testing.assert_close(found, (1 / squares) / (1 / squares).sum(), rtol=1e-12, atol=0)
    assert value(torch.diag(squares), found).item() == pytest.approx(
        1 / (1 / squares).sum().item(), rel=1e-12
    )


@pytest.mark.parametrize("numbers", [2, 6, 500])
@pytest.mark.parametrize("tasks", [3, 5, 40])
def test_the_value_is_that_of_an_independent_solver(tasks: int, numbers: int) -> None:
    vectors = gradients(tasks, numbers, seed=tasks) + (0.3 if numbers == 500 else 0.0)
    matrix = gram(vectors)
    a = cvxpy.Variable(tasks, nonneg=True)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(vectors.numpy().T @ a)), [cvxpy.sum(a) == 1])
    problem.solve(solver=cvxpy.CLARABEL)
    found = min_norm_weights(matrix)
    assert value(matrix, found).item() == pytest.approx(problem.value, abs=1e-8 * scale(matrix).item())
    if numbers > tasks:
        np.testing.assert_allclose(found.numpy(), a.value, atol=1e-5)


@pytest.mark.parametrize("tasks", [2, 3, 10, 40])
@pytest.mark.parametrize("numbers", [2, 5, 60])
@pytest.mark.parametrize("kind", ["plain", "sizes", "duplicates", "common"])
def test_the_gap_certifies_whole_batches(tasks: int, numbers: int, kind: str) -> None:
    vectors = torch.stack([gradients(tasks, numbers, seed) for seed in range(20)])
    if kind == "sizes":
        vectors = vectors * torch.logspace(-3, 3, tasks, dtype=torch.float64).unsqueeze(1)
    elif kind == "duplicates":
        vectors[:, 1] = vectors[:, 0]
    elif kind == "common":
        vectors = vectors + 1
    matrix = gram(vectors)
    weights = min_norm_weights(matrix)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(20, dtype=torch.float64))
    gap = duality_gap(matrix, weights)
    assert (gap >= -1e-12 * scale(matrix)).all() and (gap <= 1e-12 * scale(matrix)).all()
    # common descent, to rounding: <g_t, u> >= |u|^2
    products = (matrix @ weights.unsqueeze(-1)).squeeze(-1)
    assert (products.amin(-1) >= value(matrix, weights) - 1e-12 * scale(matrix)).all()
    # each alone is what it is in a batch
    torch.testing.assert_close(value(matrix[3], min_norm_weights(matrix[3])), value(matrix, weights)[3])


vectors_strategy = st.tuples(st.integers(2, 8), st.integers(1, 10), st.integers(0, 10**6)).map(
    lambda drawn: gradients(*drawn)
)


@settings(max_examples=60, deadline=None)
@given(vectors_strategy, st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_permutations_scales_and_duplicates_do_what_they_must(
    vectors: Tensor, seed: int, factor: float
) -> None:
    matrix = gram(vectors)
    weights = min_norm_weights(matrix)
    u = weights @ vectors
    tolerance = 1e-7 * vectors.norm(dim=1).max()
    assert u.norm() <= vectors.norm(dim=1).min() + tolerance

    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))
    permuted = min_norm_weights(gram(vectors[order]))
    assert (permuted @ vectors[order] - u).norm() <= tolerance
    scaled = min_norm_weights(factor**2 * matrix)
    assert (scaled @ vectors - u).norm() <= tolerance
    doubled = torch.cat([vectors, vectors[:1]])
    assert (min_norm_weights(gram(doubled)) @ doubled - u).norm() <= tolerance
    if vectors.shape[1] >= len(vectors):
        torch.testing.assert_close(permuted, weights[order], rtol=0, atol=1e-6)
        torch.testing.assert_close(scaled, weights, rtol=0, atol=1e-6)
        again = min_norm_weights(gram(doubled))
        assert again[0] + again[-1] == pytest.approx(weights[0].item(), abs=1e-6)


def test_nan_goes_through_and_half_of_a_batch_is_not_hurt_by_it() -> None:
    matrix = torch.stack([torch.full((3, 3), torch.nan), torch.eye(3)])
    found = min_norm_weights(matrix)
    assert found[0].isnan().all()
    torch.testing.assert_close(found[1], torch.full((3,), 1 / 3))


def test_single_precision_comes_back_as_it_went_in() -> None:
    matrix = gram(gradients(5, 9).float())
    assert min_norm_weights(matrix).dtype == torch.float32


@pytest.mark.parametrize("solver", min_norm.SOLVERS.values())
@pytest.mark.parametrize("matrix", [torch.eye(3)[:2], torch.ones(3), torch.eye(2).long(), torch.ones(0, 0)])
def test_what_is_no_gram_matrix_is_refused_in_one_line(solver: object, matrix: Tensor) -> None:
    with pytest.raises(
        UserError, match=r"^a Gram matrix of \w+ \[.*\]: give floats \[..., T, T\] with T >= 1$"
    ):
        solver(matrix)  # type: ignore[operator]


def test_two_tasks_follow_the_formula_between_the_ends_and_the_branches_at_them() -> None:
    x, y = gradients(2, 4, 5)
    best = min(np.linspace(0, 1, 100_001), key=lambda c: float((c * x + (1 - c) * y).square().sum()))
    assert two_task_weight(x @ x, x @ y, y @ y).item() == pytest.approx(best, abs=1e-5)
    one = torch.ones(())
    assert two_task_weight(one, one, one) == 1
    assert two_task_weight(one, 3 * one, 9 * one) == 1
    assert two_task_weight(9 * one, 3 * one, one) == 0


# ---- the paper's and the authors' solvers


def test_frank_wolfes_value_never_rises_and_its_gap_falls_like_one_over_k() -> None:
    matrix = gram(gradients(6, 4, 1) + 0.5)
    steps = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    values = [value(matrix, frank_wolfe_weights(matrix, iterations=k)).item() for k in range(1, 129)]
    assert all(later <= earlier + 1e-15 for earlier, later in pairwise(values))
    least = value(matrix, min_norm_weights(matrix)).item()
    # Jaggi 2013: 2 C / (k + 2), where C is the squared diameter of the hull
    squares = matrix.diagonal()
    diameter = (squares.unsqueeze(1) + squares - 2 * matrix).max().item()
    for k in steps:
        found = value(matrix, frank_wolfe_weights(matrix, iterations=k)).item()
        assert found - least <= 4 * diameter / (k + 2)


def test_frank_wolfe_gets_to_the_exact_solution_where_it_does_not_zigzag() -> None:
    # all tasks have weight, and two of them make one face
    matrix = gram(torch.tensor([[1.0, 0.2], [0.1, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(frank_wolfe_weights(matrix), min_norm_weights(matrix), rtol=0, atol=1e-8)


@pytest.mark.parametrize("tasks", [2, 3, 5, 10])
def test_projected_gradient_comes_as_near_as_its_clamp_lets_it(tasks: int) -> None:
    matrix = torch.stack([gram(gradients(tasks, 30, seed) + 0.2) for seed in range(10)])
    weights = projected_gradient_weights(matrix)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(10, dtype=torch.float64))
    excess = value(matrix, weights) - value(matrix, min_norm_weights(matrix))
    assert (excess >= -1e-9).all() and (excess <= 0.02 * scale(matrix)).all()


def test_projected_gradient_keeps_the_authors_clamp() -> None:
    matrix = gram(torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64))
    assert projected_gradient_weights(matrix).tolist() == pytest.approx([0.999, 0.001])


def test_projected_gradient_ends_where_the_authors_code_could_go_on_for_ever() -> None:
    # opposite gradients: the value is 0 all along an edge
    matrix = gram(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
    assert value(matrix, projected_gradient_weights(matrix)).item() == pytest.approx(0, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_the_simplex_projection_is_the_nearest_point(numbers: list[float]) -> None:
    point = torch.tensor(numbers, dtype=torch.float64)
    found = simplex_projection(point)
    assert found.sum().item() == pytest.approx(1) and (found >= 0).all()
    # <p - found, a - found> <= 0 at every corner a
    corners = torch.eye(len(numbers), dtype=torch.float64)
    assert (((corners - found) @ (point - found)) <= 1e-9).all()


# ---- what is not finite, and units


def _with(entry: tuple[int, int], number: float, tasks: int = 3) -> Tensor:
    """The identity with another entry, and its mirror image."""
    matrix = torch.eye(tasks, dtype=torch.float64)
    matrix[entry] = matrix[entry[::-1]] = number
    return matrix


@pytest.mark.parametrize("solver", min_norm.SOLVERS.values())
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("entry", "tasks"), [((0, 0), 1), ((0, 1), 2), ((1, 1), 2), ((0, 2), 3), ((1, 1), 5)]
)
def test_one_entry_that_is_not_finite_makes_all_weights_nan(
    solver: Callable[[Tensor], Tensor], number: float, entry: tuple[int, int], tasks: int
) -> None:
    whole, good = _with(entry, number, tasks), torch.eye(tasks, dtype=torch.float64)
    found = solver(torch.stack([whole, good]))
    assert found[0].isnan().all()
    assert found[1].sum().item() == pytest.approx(1)
    # nor does a gradient of 0 beside it make up for it
    if tasks > 2:
        whole[-1] = whole[:, -1] = 0.0
        whole[entry] = number
        assert solver(whole).isnan().all()


@pytest.mark.parametrize("solver", min_norm.SOLVERS.values())
@pytest.mark.parametrize("tasks", [2, 3, 6])
@pytest.mark.parametrize("factor", [1e-100, 1e-30, 1e-8, 3.0, 1e8, 1e30, 1e100])
def test_gradients_times_a_number_have_the_same_weights(
    solver: Callable[[Tensor], Tensor], tasks: int, factor: float
) -> None:
    vectors = gradients(tasks, 8, 7) * torch.logspace(-2, 2, tasks, dtype=torch.float64)[:, None]
    found, expected = solver(gram(factor * vectors)), solver(gram(vectors))
    assert found.sum().item() == pytest.approx(1)
    # the authors' solver has an absolute length in it, which matters with many tasks
    if solver is not projected_gradient_weights or tasks <= 3:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("solver", min_norm.SOLVERS.values())
def test_powers_of_two_change_no_digit_and_an_overflow_is_nan(solver: Callable[[Tensor], Tensor]) -> None:
    vectors = gradients(4, 9, 3)
    for factor in (2.0**-301, 2.0**-7, 2.0**5, 2.0**402):
        if solver is not projected_gradient_weights:
            assert torch.equal(solver(gram(factor * vectors)), solver(gram(vectors)))
    assert solver(gram(1e200 * vectors)).isnan().all()


def test_the_formula_for_two_is_nan_for_what_is_not_finite_and_has_no_scale() -> None:
    numbers = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)
    for factor in (1e-300, 1e-60, 1e60, 1e307):
        found = two_task_weight(*(factor * numbers))
        assert found.item() == pytest.approx(0.25)
    for place in range(3):
        for wrong in (torch.nan, torch.inf):
            changed = numbers.clone()
            changed[place] = wrong
            assert two_task_weight(*changed).isnan()


def test_the_simplex_projection_takes_any_numbers() -> None:
    points = torch.tensor(
        [[1e30, 0.0, -1e30], [1e20, 1e20, 0.0], [torch.nan, 0.0, 1.0], [0.0, torch.inf, 1.0]]
    )
    found = simplex_projection(points.double())
    assert found[:2].tolist() == [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    assert found[2:].isnan().all()
