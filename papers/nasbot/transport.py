"""POT's network simplex, without the backends that `import ot` would load beside it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

# pivots of one problem; those of networks take some hundreds
MOST_PIVOTS = 1_000_000
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
def _simplex() -> Any:
    """POT's inner solver, a C++ function of supplies, demands and costs."""
    with _no_backends():
        from ot.lp.emd_wrap import emd_c
    return emd_c


def balanced(supplies: np.ndarray, demands: np.ndarray, costs: np.ndarray) -> tuple[float, np.ndarray]:
    """The least cost of carrying all supplies to all demands, and how: [n], [m], [n, m] -> value, [n, m].

    All float64, costs in C order; supplies and demands are positive and have one sum, to rounding.

    Raises:
        RuntimeError: the solver has not found the optimum.
    """
    plan, value, _, _, status = _simplex()(supplies, demands, costs, MOST_PIVOTS, 1)
    if status != 1:
        raise RuntimeError(f"POT's network simplex ended with status {status}, not at the optimum")
    return float(value), plan
