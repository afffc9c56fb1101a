"""Negative curvature, and leaving saddles by it."""

import pytest
import torch
from spider_toys import CPU, normal, oracle, plus, quadratics, spider

from papers.spider.models import Quartic
from papers.spider.negative_curvature import Curvature, Lanczos, Neon2, lanczos
from papers.spider.problems.quartic import QuarticProblem

EPS = 0.03


def saddle() -> QuarticProblem:
    model = Quartic(shape=(10,), classes=None, curvature=1.0, noise=0.5, design_seed=0)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(32)
    return QuarticProblem(model.A.double(), model.B.double(), signs)


def curvature(problem: QuarticProblem) -> Curvature:
    rho = problem.hessian_lipschitz
    assert rho is not None and problem.smoothness is not None
    return Curvature(problem.smoothness, rho, (rho * EPS) ** 0.5)


def symmetric(R: int, d: int, seed: int = 0) -> torch.Tensor:
    matrix = normal(R, d, d, seed=seed)
    return matrix + matrix.mT


def test_lanczos_with_all_steps_gives_all_eigenvalues() -> None:
    H = symmetric(3, 12)
    values, vectors = lanczos(oracle(saddle(), 3), lambda v: (H @ v.unsqueeze(2)).squeeze(2), 12, 12)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(H), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(H @ vectors, vectors * values.unsqueeze(1), rtol=1e-8, atol=1e-8)


def test_lanczos_survives_repeated_eigenvalues() -> None:
    H = torch.diag(torch.tensor([1.0, 1.0, 1.0, -2.0, -2.0], dtype=torch.float64)).expand(2, 5, 5)
    values, _ = lanczos(oracle(saddle(), 2), lambda v: (H @ v.unsqueeze(2)).squeeze(2), 5, 5)
    expected = torch.tensor([-2.0, -2.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(values, expected.expand(2, 5), rtol=1e-9, atol=1e-9)


def test_few_lanczos_steps_find_the_extreme_eigenvalue_of_a_large_matrix() -> None:
    d = 200
    spectrum = torch.cat([torch.tensor([-1.0]), torch.linspace(0, 1, d - 1)]).double()
    rotation = torch.linalg.qr(normal(d, d)).Q
    H = (rotation * spectrum) @ rotation.T
    values, vectors = lanczos(oracle(saddle(), 4), lambda v: v @ H, 15, d)
    assert float((values[:, 0] + 1).abs().max()) < 1e-4
    assert float((vectors[:, :, 0] @ rotation[:, 0]).abs().min()) > 0.99


SEARCHES = [Lanczos(iterations=None, p=0.01), Neon2(batch_size=64, constant=1.2, repeats=8, p=0.01)]


@pytest.mark.parametrize("search", SEARCHES, ids=["lanczos", "neon2"])
def test_searches_find_the_negative_curvature_of_the_saddle(search: Lanczos | Neon2) -> None:
    problem, R = saddle(), 6
    o, constants = oracle(problem, R), curvature(problem)
    found = search(o, problem.start(R), constants, None)
    assert bool(found.mask.all())
    torch.testing.assert_close(found.direction.norm(dim=1), torch.ones(R, dtype=torch.float64))
    along = (found.direction @ problem.A * found.direction).sum(1)
    assert float(along.max()) <= -constants.delta / 2
    assert min(o.counter.ifo) > 0


@pytest.mark.parametrize("search", SEARCHES, ids=["lanczos", "neon2"])
def test_searches_find_nothing_where_the_function_is_convex(search: Lanczos | Neon2) -> None:
    problem, R = saddle(), 3
    x = problem.start(R) + 0.9 * torch.linalg.eigh(problem.A).eigenvectors[:, 0]
    hessian = problem.A + 12 * torch.diag(x[0].square())
    assert float(torch.linalg.eigvalsh(hessian)[0]) > 0
    found = search(oracle(problem, R), x, curvature(problem), None)
    assert not bool(found.mask.any())
    assert float(found.direction.abs().max()) == 0.0


def test_lanczos_costs_one_call_a_sample_and_step() -> None:
    problem = saddle()
    o = oracle(problem, 2)
    Lanczos(iterations=4, p=0.1)(o, problem.start(2), curvature(problem), None)
    assert o.counter.ifo == [4 * 64] * 2


def test_sfo_stays_at_the_saddle() -> None:
    problem = saddle()
    method = spider(1, EPS)
    method.start(oracle(problem, 3), problem.start(3), own_stop=False)
    for _ in range(300):
        method.step()
    assert float(method.x.abs().max()) == 0.0


def test_sfo_plus_leaves_the_saddle_for_a_second_order_point() -> None:
    problem = saddle()
    o, method = oracle(problem, 3), plus(SEARCHES[0], EPS)
    method.start(o, problem.start(3), own_stop=True)
    for _ in range(6000):
        if not o.active_rows:
            break
        method.step()
    assert not o.active_rows
    assert float(problem.true_value(method.x).max()) < -0.2
    assert float(problem.true_gradient(method.x).norm(dim=1).max()) <= 5 * EPS
    hessians = problem.A + 12 * torch.diag_embed(method.x.square())
    assert float(torch.linalg.eigvalsh(hessians).min()) > -method.curvature.delta


def test_an_escape_block_goes_delta_over_rho_along_the_direction() -> None:
    problem = saddle()
    method = plus(SEARCHES[0], EPS)
    method.start(oracle(problem, 2), problem.start(2), own_stop=True)
    for _ in range(method.block):
        method.step()
    moved = method.x.norm(dim=1)
    step = EPS / method.L
    assert method.block * step == pytest.approx(method.curvature.delta / method.curvature.rho, abs=step)
    torch.testing.assert_close(moved, torch.full_like(moved, method.block * step))


def test_escape_signs_are_random() -> None:
    problem, R = saddle(), 40
    method = plus(Lanczos(iterations=10, p=0.01), EPS)
    method.start(oracle(problem, R), problem.start(R), own_stop=True)
    method.step()
    direction = torch.linalg.eigh(problem.A).eigenvectors[:, 0]
    positive = int((method.x @ direction > 0).sum())
    assert 8 <= positive <= 32


def test_toy_hessians_are_consistent() -> None:
    problem = quadratics()
    v = normal(1, 3)
    expected = v @ problem.A.mean(0)
    torch.testing.assert_close(problem.hvp(problem.start(1), v, problem.everything()), expected)
    assert problem.device == CPU
