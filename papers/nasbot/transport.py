"""POT's network simplex, without the backends that `import ot` would load beside it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

# pivots of one problem; those of networks take some hundreds
MOST_PIVOTS = 1_000_000
# of all pairs, the share up to which a list of those that may be used is faster than all of them
SPARSE = 0.45
# what keeps POT from importing a library of tensors, of which the simplex uses none
SWITCHES = tuple(f"POT_BACKEND_DISABLE_{name}" for name in ("PYTORCH", "JAX", "CUPY", "TENSORFLOW"))


@contextmanager
def _no_backends() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in SWITCHES}
    os.environ |= dict.fromkeys(SWITCHES, "1")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@cache
def _simplex() -> tuple[Any, Any]:
    """POT's inner solvers in C++: of the costs of all pairs, and of a list of pairs."""
    with _no_backends():
        from ot.lp.emd_wrap import emd_c, emd_c_sparse
    return emd_c, emd_c_sparse


def least_cost(supplies: np.ndarray, demands: np.ndarray, costs: np.ndarray, never: float) -> float:
    """The value of `balanced` where pairs that cost `never` or more are in no optimum.

    Where those are most, the simplex is given the others alone: fewer pivots.
    """
    used = costs < never
    if np.count_nonzero(used) > SPARSE * costs.size:
        return balanced(supplies, demands, costs)[0]
    sources, targets = (ends.astype(np.uint64) for ends in used.nonzero())
    found = _simplex()[1](supplies, demands, sources, targets, costs[used], MOST_PIVOTS)
    _refuse(found[-1])
    return float(found[3])


def balanced(supplies: np.ndarray, demands: np.ndarray, costs: np.ndarray) -> tuple[float, np.ndarray]:
    """The least cost of carrying all supplies to all demands, and how: [n], [m], [n, m] -> value, [n, m].

    All float64, costs in C order; supplies and demands are positive and have one sum, to rounding.

    Raises:
        RuntimeError: the solver has not found the optimum.
    """
    plan, value, _, _, status = _simplex()[0](supplies, demands, costs, MOST_PIVOTS, 1)
    _refuse(status)
    return float(value), plan


def _refuse(status: int) -> None:
    if status != 1:
        raise RuntimeError(f"POT's network simplex ended with status {status}, not at the optimum")
