"""Evaluating a round's points: all at once in this process, or one by one in worker processes."""

import torch
from joblib import Parallel, delayed
from torch import Tensor

from common.base.errors import UserError
from common.base.objective import Objective


def evaluate(objective: Objective, x: Tensor, workers: int) -> tuple[Tensor, str | None]:
    """f without noise at x [R, q, d].

    An evaluation that raises is NaN; the others of its round are not lost. A user's own mistake (UserError)
    is raised on.

    Args:
        workers: 1: one call for all points; more: joblib's processes, a call a point.

    Returns:
        The values [R, q], and of the first failure its error in one line, None without one.
    """
    replicates, q, _ = x.shape
    if workers == 1:
        try:
            return objective.values(x).to(torch.float64), None
        except UserError:
            raise
        except Exception:
            points = x.reshape(replicates * q, -1)
            found = [_one(objective, index // q, point) for index, point in enumerate(points)]
    else:
        points = x.reshape(replicates * q, -1).cpu()
        found = Parallel(n_jobs=workers)(
            delayed(_one)(objective, index // q, point) for index, point in enumerate(points)
        )
    values = torch.tensor([value for value, _ in found], dtype=torch.float64, device=x.device)
    failed = next((said for _, said in found if said is not None), None)
    return values.reshape(replicates, q), failed


def _one(objective: Objective, replicate: int, point: Tensor) -> tuple[float, str | None]:
    try:
        return objective.value(replicate, point), None
    except UserError:
        raise
    except Exception as error:
        return float("nan"), _line(error)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
