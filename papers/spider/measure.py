"""What the theory speaks of and no run needs: an estimate's error, the curvature at a point; not counted."""

import torch
from torch import Tensor

from common.base.errors import UserError
from papers.spider.method import Method
from papers.spider.problems.protocol import Problem


def check_age(method: Method, age: int) -> None:
    """Refuse an age that the method's estimates do not reach.

    Raises:
        UserError: the method has no checkpoints, or renews them earlier.
    """
    if method.period is None:
        raise UserError(
            f"paper.estimator_age={age}: {type(method).__name__} has no estimate that ages (valid methods: "
            "spider_*, spiderboost, sarah, svrg)"
        )
    if age >= method.period:
        raise UserError(
            f"paper.estimator_age={age}: the method takes a checkpoint every {method.period} steps "
            f"(valid: 0 to {method.period - 1})"
        )


def estimator_error(problem: Problem, method: Method) -> dict[str, float]:
    """How far the latest estimates v_k of R replicates are from grad f(x_k).

    Returns:
        estimator_error: E||e||^2 with e = v_k - grad f(x_k), the expectation being the replicates' mean.
        estimator_bias: ||E e|| / sqrt(E||e||^2), about 1 / sqrt R for an unbiased estimator; 0 without error.
        estimator_bound: the lemma's bound of E||e||^2, where the method has one.
    """
    error = method.v - problem.true_gradient(method.previous)
    mean_square = float(error.square().sum(1).mean())
    mean_norm = float(torch.linalg.vector_norm(error.mean(0)))
    bias = mean_norm / mean_square**0.5 if mean_square > 0 else 0.0
    bound = method.error_bound()
    measured = {"estimator_error": mean_square, "estimator_bias": bias}
    return measured if bound is None else measured | {"estimator_bound": bound}


def least_curvature(problem: Problem, x: Tensor) -> float:
    """The least eigenvalue of Hess f at any of the points x [R, d], from d Hessian-vector products."""
    directions = torch.eye(x.shape[1], device=x.device, dtype=x.dtype)
    data = problem.everything()
    columns = [problem.hvp(x, direction.expand_as(x), data).clone() for direction in directions]
    return float(torch.linalg.eigvalsh(torch.stack(columns, dim=2)).min())
