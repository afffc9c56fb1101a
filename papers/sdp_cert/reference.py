"""The same SDP by cvxpy (Clarabel or SCS): the reference for small networks.

The solver's multipliers go through `relaxation.certify`, so a bound is valid whatever the solver did; where
it fails, the bound is that of interval arithmetic, and the failure is said.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from common.base.errors import UserError
from papers.sdp_cert.relaxation import Multipliers, Relaxation, certify, interval_multipliers, unit_free

Solver = Literal["clarabel", "scs"]
LARGEST = 200


def reference_bound(relaxation: Relaxation, solver: Solver) -> tuple[Tensor, Tensor]:
    """Certified bounds [b] of a batch of relaxations, one solver's run each, and where the solver failed.

    Raises:
        UserError: more than LARGEST variables, for which the solver would take hours; or no cvxpy.
    """
    if relaxation.variables > LARGEST:
        raise UserError(
            f"method.solver={solver}: {relaxation.variables} variables are too many for it (valid: up to "
            f"{LARGEST}; method.solver=interior takes thousands)"
        )
    # the solvers' tolerances are absolute
    unit = unit_free(relaxation)
    found = [_one(unit.relaxation.take(torch.tensor([i])), solver) for i in range(len(relaxation))]
    if not found:
        return relaxation.objective.new_zeros(0), torch.zeros(0, dtype=torch.bool)
    bound = unit.bound(torch.cat([bound for bound, _ in found]))
    return bound, torch.tensor([failed for _, failed in found])


def _one(r: Relaxation, solver: Solver) -> tuple[Tensor, bool]:
    try:
        import cvxpy as cp
    except ImportError as error:
        raise UserError(f"method.solver={solver} needs cvxpy (make setup-full)") from error
    numpy = {
        name: getattr(r, name)[0].cpu().numpy() for name in ("objective", "output", "excess", "cut", "copy")
    }
    unit, on = r.has_unit[0].cpu().numpy(), r.free_above[0].cpu().numpy()
    Z = cp.Variable((r.variables + 1, r.variables + 1), PSD=True)
    limit = cp.diag(Z)[1:] <= 1
    p, d = numpy["output"][unit], numpy["excess"][unit]
    rows = {"positive": p, "above": d[~on[unit]], "equal": d[on[unit]], "cut": np.zeros((0, p.shape[1]))}
    if len(numpy["cut"]):
        rows["cut"] = numpy["cut"][unit & ~on]
    rows["copy"] = numpy["copy"]
    made = {
        name: (row @ Z[0] == 0 if name in ("equal", "copy") else row @ Z[0] >= 0)
        for name, row in rows.items()
        if len(row)
    }
    constraints = [Z[0, 0] == 1, limit, *made.values()]
    product = cp.sum(cp.multiply(p @ Z, d), axis=1) == 0
    if len(p):
        constraints.append(product)
    problem = cp.Problem(cp.Maximize(numpy["objective"] @ Z[0]), constraints)
    start, corner = interval_multipliers(r)
    fallback = certify(r, start, corner)
    try:
        problem.solve(
            solver=solver.upper(), **({"eps": 1e-7, "max_iters": 50_000} if solver == "scs" else {})
        )
    # cvxpy says ValueError of numbers that are not finite
    except (cp.SolverError, ValueError):
        return fallback, True
    if problem.status not in ("optimal", "optimal_inaccurate"):
        return fallback, True
    dual = {
        name: np.abs(c.dual_value) if name not in ("equal", "copy") else c.dual_value
        for name, c in made.items()
    }
    best = fallback
    # cvxpy's sign of an equation's multiplier follows from the form it was written in: both are tried
    for sign in (1.0, -1.0):
        m = _multipliers(r, dual, limit.dual_value, product.dual_value if len(p) else np.zeros(0), sign)
        best = best.minimum(_certified(r, m, float(problem.value)))
    return best, False


def _multipliers(
    r: Relaxation, dual: dict[str, np.ndarray], box: np.ndarray, product: np.ndarray, sign: float
) -> Multipliers:
    unit, on = r.has_unit[0].cpu(), r.free_above[0].cpu()

    def column(size: int, where: Tensor, name: str, factor: float = 1.0) -> Tensor:
        values = torch.zeros(size, dtype=torch.float64)
        if name in dual:
            values[where] = factor * torch.as_tensor(dual[name], dtype=torch.float64)
        return values

    m = r.output.shape[1]
    above = column(m, unit & ~on, "above") + column(m, unit & on, "equal", -sign)
    products = torch.zeros(m, dtype=torch.float64)
    products[unit] = sign * torch.as_tensor(product, dtype=torch.float64)
    whole = Multipliers(
        box=torch.as_tensor(box, dtype=torch.float64),
        positive=column(m, unit, "positive"),
        above=above,
        product=products,
        cut=column(r.cut.shape[1], (unit & ~on)[: r.cut.shape[1]], "cut"),
        copy=column(r.copy.shape[1], torch.ones(r.copy.shape[1], dtype=torch.bool), "copy", -sign),
    )
    return Multipliers(*(getattr(whole, name)[None].to(r.objective) for name in whole.__dataclass_fields__))


def _certified(r: Relaxation, m: Multipliers, value: float) -> Tensor:
    corner = r.objective.new_tensor([value]) - (m.box * r.has_variable).sum(1)
    return certify(r, m, corner)
