import math
from typing import Any

import pytest

from common.base.errors import UserError
from common.runs.objective import check_search, objective_value

METRICS: dict[str, Any] = {"validation_loss": 0.5, "test_loss": 0.4, "grad_norm": math.nan, "curve": [1.0]}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"hydra/sweeper": "basic"},
        {"hydra/sweeper": "optuna", "objective": "validation_loss"},
        {
            "hydra/sweeper": "optuna",
            "objective": "validation_accuracy",
            "hydra.sweeper.direction": "maximize",
        },
    ],
)
def test_a_search_with_an_aim_and_no_test_set_is_allowed(given: dict[str, str]) -> None:
    check_search(given)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({"hydra/sweeper": "optuna"}, "needs a metric"),
        ({"hydra/sweeper": "optuna", "objective": "null"}, "needs a metric"),
        ({"hydra/sweeper": "optuna", "objective": "test_accuracy"}, "test set"),
        ({"hydra/sweeper": "optuna", "objective": "validation_accuracy"}, "direction=maximize"),
    ],
)
def test_any_other_search_is_refused_with_what_is_valid(given: dict[str, str], advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        check_search(given)


def test_the_objective_is_the_metric_of_that_name() -> None:
    assert objective_value(METRICS, "validation_loss") == 0.5
    assert objective_value(METRICS, None) is None


def test_an_objective_that_is_no_finite_number_counts_as_none() -> None:
    assert objective_value(METRICS, "grad_norm") is None


@pytest.mark.parametrize("name", ["validation_accuracy", "curve"])
def test_an_objective_that_the_run_lacks_is_refused_and_the_test_set_is_not_offered(name: str) -> None:
    with pytest.raises(UserError, match=r"no such metric \(valid: validation_loss, grad_norm\)"):
        objective_value(METRICS, name)
