"""Algorithm 2 in float64 numpy as it is written, and gradients for it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def algorithm2(
    x0: Array,
    gradient: Callable[[Array, int], Array],
    steps: int,
    *,
    D: float = 1.0,
    G: float = 0.0,
    stepsize: str = "paper",
    radius: float | None = None,
    doubling: bool = False,
    lr: Callable[[int], float] = lambda t: 1.0,
) -> dict[str, Any]:
    """All x_{t+1}, y_{t+1}, z_{t+1} [T, d] and the weighted average, for a start x0 [d].

    Args:
        lr: by which eta_t is multiplied.
    """
    y, z, total = x0.copy(), x0.copy(), 0.0
    weighted: Array = np.zeros_like(x0)
    weights = 0.0
    path: dict[str, list[Any]] = {"x": [], "y": [], "z": [], "eta": []}
    for t in range(steps):
        alpha = 1.0 if t <= 2 else (t + 1) / 4
        x = z / alpha + (1 - 1 / alpha) * y
        g = gradient(x, t)
        total += alpha**2 * float(g @ g)
        under = G**2 + total
        eta = 0.0 if under == 0 else (2 * D / under**0.5 if stepsize == "paper" else D / (2 * under) ** 0.5)
        eta *= lr(t)
        z = z - alpha * eta * g
        if radius is not None:
            z = x0 + (z - x0) * min(1.0, radius / max(float(np.linalg.norm(z - x0)), 1e-300))
        y = x - eta * g
        weighted, weights = weighted + alpha * y, weights + alpha
        if doubling and np.linalg.norm(y - x0) > D:
            D *= 2
        for name, value in (("x", x), ("y", y), ("z", z), ("eta", eta)):
            path[name].append(value)
    following = max(1.0, (steps + 1) / 4)
    last = z / following + (1 - 1 / following) * y
    arrays = {name: np.array(values) for name, values in path.items()}
    return {**arrays, "average": weighted / weights, "next": last, "D": D}
