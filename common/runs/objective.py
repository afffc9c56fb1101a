"""What a hyperparameter search (hydra/sweeper=optuna) looks at: one metric of each run."""

import math
from typing import Any

from common.base.errors import UserError

SWEEPER, DIRECTION = "hydra/sweeper", "hydra.sweeper.direction"


def check_search(given: dict[str, str]) -> None:
    """Refuse a search without an objective, by the test set, or towards the wrong end.

    Args:
        given: the command line's words, key to value.

    Raises:
        UserError: what is valid.
    """
    if given.get(SWEEPER, "basic") == "basic":
        return
    objective = given.get("objective", "null")
    if objective == "null":
        raise UserError(
            f"{SWEEPER}={given[SWEEPER]} needs a metric to search by (objective=validation_loss with "
            "dataset.validation=0.1, or another metric of the run that is not the test set's)"
        )
    check_metric(objective)
    if objective.endswith("accuracy") and given.get(DIRECTION, "minimize") == "minimize":
        raise UserError(f"objective={objective} is to be large: add {DIRECTION}=maximize")


def check_metric(objective: str, key: str = "objective") -> None:
    """Refuse to search by a metric of the test set; `key` is the word that names it.

    Raises:
        UserError: what is valid.
    """
    if objective.startswith("test_"):
        raise UserError(
            f"{key}={objective}: a search must not look at the test set (valid: validation_loss with "
            "dataset.validation=0.1, train_loss, ...)"
        )


def objective_value(metrics: dict[str, Any], objective: str | None) -> float | None:
    """The metric that a search asked for; None where none was, or where it came out as no finite number.

    Raises:
        UserError: the run has no such metric.
    """
    if objective is None:
        return None
    numbers = {k: v for k, v in metrics.items() if v is None or isinstance(v, int | float)}
    if objective not in numbers:
        valid = ", ".join(name for name in numbers if not name.startswith("test_"))
        raise UserError(f"objective={objective}: the run has no such metric (valid: {valid})")
    value = numbers[objective]
    return float(value) if value is not None and math.isfinite(value) else None
