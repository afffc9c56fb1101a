"""Closed forms against autograd, their constants against what is observed."""

import pytest
import torch
from torch import Tensor, nn

from common.models.linear import LogisticRegression, RobustRegression
from common.numerics.sampling import ReplicateSampler
from papers.spider.models import Quartic
from papers.spider.problems.linear import LogisticProblem, RobustRegressionProblem, SoftmaxProblem
from papers.spider.problems.protocol import Batch, Problem
from papers.spider.problems.quartic import QuarticProblem
from papers.spider.problems.regulariser import Regulariser

D, N, R, CLASSES = 5, 12, 3, 4
KINDS = ["none", "l2", "nonconvex"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(name: str, kind: str = "nonconvex") -> Problem:
    rows, labels = normal(N, D), torch.arange(N) % 2
    if name == "logistic":
        return LogisticProblem(rows, labels, Regulariser(kind, 0.3, D))
    if name == "logistic_bias":
        rows = torch.cat([rows, torch.ones(N, 1, dtype=torch.float64)], 1)
        return LogisticProblem(rows, labels, Regulariser(kind, 0.3, D))
    if name == "robust":
        return RobustRegressionProblem(rows, 2 * normal(N, seed=1), Regulariser(kind, 0.3, D))
    if name in ("softmax", "softmax_bias"):
        bias = name == "softmax_bias"
        regulariser = Regulariser(kind, 0.3, CLASSES * D)
        return SoftmaxProblem(rows, torch.arange(N) % CLASSES, CLASSES, bias, regulariser)
    model = Quartic(shape=(D,), classes=None, curvature=1.0, noise=0.5, design_seed=0)
    return QuarticProblem(
        model.A.double(), model.B.double(), torch.tensor([1.0, -1.0]).repeat(N // 2).double()
    )


NAMES = ["logistic", "logistic_bias", "robust", "softmax", "softmax_bias", "quartic"]


def batches(problem: Problem) -> list[Batch]:
    sampler = ReplicateSampler(0, R, problem.n, problem.device, problem.dtype)
    return [problem.everything(), problem.draw(sampler, 7, None)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_derivative_of_the_value(name: str, kind: str) -> None:
    problem = make(name, kind)
    for batch in batches(problem):
        x = normal(R, problem.dim, seed=2).requires_grad_()
        (expected,) = torch.autograd.grad(problem.value(x, batch).sum(), x)
        torch.testing.assert_close(problem.gradient(x.detach(), batch), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_hessian_vector_product_is_the_derivative_of_the_gradient(name: str) -> None:
    problem = make(name)
    for batch in batches(problem):
        x, v = normal(R, problem.dim, seed=2), normal(R, problem.dim, seed=3)
        xs = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(problem.value(xs, batch).sum(), xs, create_graph=True)
        (expected,) = torch.autograd.grad((slope * v).sum(), xs)
        torch.testing.assert_close(problem.hvp(x, v, batch), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_difference_is_the_difference_of_gradients(name: str) -> None:
    problem = make(name)
    for batch in batches(problem):
        x, y = normal(R, problem.dim, seed=2), normal(R, problem.dim, seed=3)
        expected = problem.gradient(x, batch).clone() - problem.gradient(y, batch)
        torch.testing.assert_close(problem.gradient_difference(x, y, batch), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_values_at_many_points_are_single_values(name: str) -> None:
    problem = make(name)
    for batch in batches(problem):
        points = normal(R, 4, problem.dim, seed=2)
        expected = torch.stack([problem.value(points[:, j], batch) for j in range(4)], dim=1)
        torch.testing.assert_close(problem.values(points, batch), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_paired_values_average_to_the_value(name: str) -> None:
    problem = make(name)
    for batch in batches(problem):
        x = normal(R, problem.dim, seed=2)
        paired = problem.paired_values(x[:, None].expand(R, batch.size, -1), batch)
        torch.testing.assert_close(paired.mean(1), problem.value(x, batch), rtol=1e-12, atol=1e-13)


def component_hessians(problem: Problem, x: Tensor) -> Tensor:
    """Hess f_i(x) of every component: [n, d, d], by Hessian-vector products of single samples."""
    everything = problem.everything()
    directions = torch.eye(problem.dim, dtype=torch.float64)
    hessians = []
    for i in range(problem.n or 0):
        targets = None if everything.targets is None else everything.targets[i : i + 1]
        one = Batch(everything.inputs[i : i + 1], targets, 1)
        hessians.append(problem.hvp(x.expand(problem.dim, -1), directions, one))
    return torch.stack(hessians)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_smoothness_bounds_the_hessian_of_every_component(name: str, kind: str) -> None:
    problem = make(name, kind)
    assert problem.smoothness is not None
    scale = 0.2 if name == "quartic" else 1.0
    worst = max(
        float(
            torch.linalg.matrix_norm(
                component_hessians(problem, scale * normal(1, problem.dim, seed=s)), 2
            ).max()
        )
        for s in range(20)
    )
    at_zero = component_hessians(problem, torch.zeros(1, problem.dim, dtype=torch.float64))
    worst = max(worst, float(torch.linalg.matrix_norm(at_zero, 2).max()))
    assert worst <= problem.smoothness * (1 + 1e-9)


@pytest.mark.parametrize("name", ["logistic", "robust"])
def test_smoothness_is_attained(name: str) -> None:
    rows = torch.eye(1, dtype=torch.float64) * 2
    regulariser = Regulariser("nonconvex", 0.3, 1)
    problem = (
        LogisticProblem(rows, torch.ones(1), regulariser)
        if name == "logistic"
        else RobustRegressionProblem(rows, torch.zeros(1, dtype=torch.float64), regulariser)
    )
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    assert float(problem.hvp(zero, one, problem.everything())) == pytest.approx(problem.smoothness)


@pytest.mark.parametrize("name", ["logistic", "robust", "quartic"])
def test_hessian_lipschitz_constant_bounds_the_change_of_hessians(name: str) -> None:
    problem = make(name)
    assert problem.hessian_lipschitz is not None
    scale = 0.2 if name == "quartic" else 1.0
    for s in range(20):
        x = scale * normal(1, problem.dim, seed=s)
        y = x + 1e-3 * normal(1, problem.dim, seed=100 + s)
        change = component_hessians(problem, x) - component_hessians(problem, y)
        ratio = float(torch.linalg.matrix_norm(change, 2).max() / (x - y).norm())
        assert ratio <= problem.hessian_lipschitz


@pytest.mark.parametrize("name", NAMES)
def test_sigma_bounds_the_gradient_noise(name: str) -> None:
    problem = make(name)
    assert problem.sigma is not None
    everything = problem.everything()
    scale = 0.2 if name == "quartic" else 3.0
    for s in range(20):
        x = scale * normal(1, problem.dim, seed=s)
        singles = [
            problem.gradient(
                x,
                Batch(
                    everything.inputs[i : i + 1],
                    None if everything.targets is None else everything.targets[i : i + 1],
                    1,
                ),
            ).clone()
            for i in range(N)
        ]
        noise = torch.cat(singles) - problem.true_gradient(x)
        assert float(noise.square().sum(1).mean()) <= problem.sigma**2


@pytest.mark.parametrize("name", NAMES)
def test_values_stay_above_the_lower_bound(name: str) -> None:
    problem = make(name)
    assert bool((problem.true_value(0.5 * normal(200, problem.dim)) >= problem.lower_bound).all())


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_logistic_problems_agree_with_the_module_and_its_penalty(classes: int, kind: str, bias: bool) -> None:
    model = LogisticRegression(shape=(D,), classes=classes, regulariser=kind, alpha=0.3, bias=bias).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    rows, labels = normal(N, D), torch.arange(N) % classes
    loss = nn.functional.cross_entropy(model(rows), labels) + model.penalty()
    x = torch.cat([p.detach().reshape(-1) for p in model.parameters()])[None]
    problem: Problem
    if classes == 2:
        rows = torch.cat([rows, torch.ones(N, 1, dtype=torch.float64)], 1) if bias else rows
        problem = LogisticProblem(rows, labels, Regulariser(kind, 0.3, D))
    else:
        problem = SoftmaxProblem(rows, labels, classes, bias, Regulariser(kind, 0.3, classes * D))
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(problem.true_value(x)[0], loss.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(problem.true_gradient(x)[0], gradient, rtol=1e-10, atol=1e-12)


def test_robust_regression_agrees_with_the_module() -> None:
    model = RobustRegression(shape=(D,), classes=None, bias=False).double()
    nn.init.normal_(model.linear.weight)
    rows, targets = normal(N, D), normal(N, seed=1)
    problem = RobustRegressionProblem(rows, targets, Regulariser("none", 0.0, 0))
    expected = model.loss(model(rows), targets).detach()
    torch.testing.assert_close(problem.true_value(model.linear.weight.detach())[0], expected)


def test_quartic_agrees_with_the_module_and_every_component_is_flat_at_the_saddle() -> None:
    model = Quartic(shape=(D,), classes=None, curvature=1.0, noise=0.5, design_seed=0)
    nn.init.normal_(model.x, std=0.3)
    signs = torch.tensor([1.0, -1.0]).repeat(N // 2)
    problem = QuarticProblem(model.A.double(), model.B.double(), signs.double())
    expected = model(signs).mean().double()
    torch.testing.assert_close(
        problem.true_value(model.x.detach().double()[None])[0], expected.detach(), atol=1e-6, rtol=1e-5
    )
    saddle = problem.start(1)
    for sign in (1.0, -1.0):
        one = Batch(torch.tensor([sign], dtype=torch.float64), None, 1)
        assert float(problem.gradient(saddle, one).abs().max()) == 0.0
    assert float(torch.linalg.eigvalsh(problem.A)[0]) == pytest.approx(-1.0, abs=1e-6)


def test_quartic_level_set_lies_in_the_ball_of_its_constants() -> None:
    problem = make("quartic")
    assert isinstance(problem, QuarticProblem) and problem.hessian_lipschitz is not None
    radius = problem.hessian_lipschitz / 24
    x = normal(20_000, problem.dim) * torch.linspace(0.05, 1.5, 20_000, dtype=torch.float64)[:, None]
    inside = x[problem.true_value(x) <= 0]
    assert len(inside) > 100
    assert float(inside.abs().max()) <= radius
