"""Problems, sets and methods of the tests."""

from typing import Any

import numpy as np

from papers.saddle.framework import Framework, StochasticFramework
from papers.saddle.method import Method, Programme, Step
from papers.saddle.problems import (
    Array,
    CoupledBox,
    IndefiniteQuadratic,
    LinearConstraint,
    MatrixFactorisation,
    MotzkinStraus,
    QuarticForms,
    QuarticWell,
    SaddleProblem,
)
from papers.saddle.sets import Ball, Box, ConstraintSet, Ellipsoids, Polytope, Simplex

KIND = "saddle_problem"


def ball(dim: int, radius: float = 1.0) -> Ball:
    return Ball(shape=(dim,), classes=None, radius=radius)


def box(dim: int, half_width: float = 1.0) -> Box:
    return Box(shape=(dim,), classes=None, half_width=half_width)


def simplex(dim: int) -> Simplex:
    return Simplex(shape=(dim,), classes=None)


def polytope(dim: int, **given: Any) -> Polytope:
    settings: dict[str, Any] = {"half_width": 1.0, "normals": None, "offsets": [0.0]}
    return Polytope(shape=(dim,), classes=None, **(settings | given))


def ellipsoids(dim: int, **given: Any) -> Ellipsoids:
    settings: dict[str, Any] = {
        "radius": 1.0, "count": 3, "condition": 10.0, "design_seed": 0, "matrices": None,
    }  # fmt: skip
    return Ellipsoids(shape=(dim,), classes=None, **(settings | given))


def b1() -> QuarticWell:
    return QuarticWell(kind=KIND, radius=2.0)


def b2(dim: int = 5, negative: int = 2, **given: Any) -> IndefiniteQuadratic:
    settings: dict[str, Any] = {"radius": 1.0, "design_seed": 0, "A": None}
    return IndefiniteQuadratic(kind=KIND, dim=dim, negative=negative, **(settings | given))


def pairs() -> dict[str, tuple[SaddleProblem, ConstraintSet]]:
    """Every problem over its own set, small."""
    tensor = QuarticForms(kind=KIND, radius=1.0, dim=4, form="tensor_pca", samples=50, design_seed=0)
    phase = QuarticForms(kind=KIND, radius=1.0, dim=4, form="phase_retrieval", samples=50, design_seed=0)
    b6 = MotzkinStraus(kind=KIND, radius=1.0, graph="petersen", dim=10, design_seed=0)
    return {
        "b1": (b1(), ball(2, 2.0)),
        "b2": (b2(), ball(5)),
        "b2_ellipsoids": (b2(), ellipsoids(5)),
        "b3": (CoupledBox(kind=KIND, radius=1.0, dim=4, design_seed=0), box(4)),
        "b4": (MatrixFactorisation(kind=KIND, radius=2.0, rows=3, rank=2, design_seed=0), ball(6, 2.0)),
        "b5": (tensor, ball(4)),
        "b5_phase": (phase, ball(4)),
        "b6": (b6, simplex(10)),
        "b7": (LinearConstraint(kind=KIND, radius=2.0), polytope(2, half_width=2.0)),
    }


def programme(problem: SaddleProblem, region: ConstraintSet) -> Programme:
    L, M = problem.lipschitz(region)
    return Programme(problem, region, L, M, region.diameter)


def framework(**given: Any) -> Framework:
    settings: dict[str, Any] = {
        "eps": 0.125, "gamma": 0.25, "rho": 1.0, "tangent": "leq", "step": "theory",
        "first_stage": "frank_wolfe", "oracle": "auto", "sign": "f",
    }  # fmt: skip
    return Framework(**(settings | given))


def stochastic(**given: Any) -> StochasticFramework:
    settings: dict[str, Any] = {
        "eps": 0.125, "gamma": 0.25, "rho": 1.0, "oracle": "auto", "samples": 1000, "gradient_noise": None,
        "hessian_noise": None, "gradient_batch": 400, "hessian_batch": 400, "slack": None, "design_seed": 0,
    }  # fmt: skip
    return StochasticFramework(**(settings | given))


def run(method: Method, p: Programme, x: Array, most: int = 20_000, seed: int = 0) -> list[Step]:
    """All steps until the method stops."""
    method.start(p, x, seed)
    steps: list[Step] = []
    while not method.stopped and method.k < most:
        steps.append(method.step())
    return steps


def symmetric(random: np.random.Generator, dim: int) -> Array:
    H = random.standard_normal((dim, dim))
    return H + H.T


def inside(region: ConstraintSet, random: np.random.Generator) -> Array:
    """A random point of a set."""
    points = np.array([region.lmo(random.standard_normal(region.dim)) for _ in range(region.dim + 2)])
    return np.asarray(random.dirichlet(np.ones(len(points))) @ points)
